"""Packet sockets of a network namespace: who could be listening.

A PACKET_DIAG dump of NETLINK_SOCK_DIAG. It is asked for in parts: one answer must fit into 32 KiB for each
socket, and where it does not (a socket with some 740 memberships, or with the longest of filters) the
kernel ends the list there without a word, and hides all sockets that follow. The bare list always fits.

References: packet(7), sock_diag(7), include/uapi/linux/packet_diag.h; net/packet/diag.c
packet_diag_dump(); net/netlink/af_netlink.c netlink_dump().
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from verify_audit.host.facts import PacketSocket, Process
from verify_audit.probes.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, NetlinkError, attributes, request
from verify_audit.probes.processes import open_sockets, read_process

_SOCK_DIAG_BY_FAMILY = 20
_AF_PACKET = 17
_SHOW_INFO = 0x1
_SHOW_MEMBERSHIPS = 0x2
_SHOW_FILTER = 0x20
_INFO = 0
_MEMBERSHIPS = 1
_UID = 5
_FILTER = 7
_MR_PROMISC = 1
_MR_UNICAST = 3
_INSTRUCTION = 8
_FIXED = struct.Struct("=BBHI8s")
_MEMBERSHIP = struct.Struct("=IIHH32s")


@dataclass(frozen=True, slots=True)
class SocketEntry:
    """One packet socket as the kernel lists it; ifindex 0 is bound to every interface.

    memberships: an interface for each promiscuous membership, addresses those for a unicast address. filter: its
    instructions. whole: the memberships were told.
    """

    inode: int
    protocol: int
    ifindex: int
    uid: int | None
    memberships: tuple[int, ...]
    addresses: tuple[tuple[int, str], ...] = ()
    filter: int | None = None
    whole: bool = True

    def held_by(self, holders: tuple[Process, ...]) -> PacketSocket:
        """The socket with the processes that have it open."""
        return PacketSocket(
            self.inode,
            self.ifindex,
            self.protocol,
            self.uid,
            self.memberships,
            holders,
            self.addresses,
            self.whole,
            self.filter,
        )


def read_packet_sockets(show: int = _SHOW_INFO | _SHOW_MEMBERSHIPS) -> list[bytes]:
    """The kernel's list for the calling thread's network namespace. Raises NetlinkError."""
    body = struct.pack("=BBHII8x", _AF_PACKET, 0, 0, 0, show)
    return request(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body)


def packet_sockets(filters: bool = False) -> tuple[SocketEntry, ...]:
    """Every packet socket of the calling thread's network namespace. filters: with how long theirs are.

    Raises NetlinkError.
    """
    entries: list[SocketEntry] = []
    for _ in range(2):
        told = {each.inode: each for each in parse_packet_sockets(read_packet_sockets())}
        bare = parse_packet_sockets(read_packet_sockets(_SHOW_INFO))
        entries = [told.get(each.inode) or replace(each, whole=False) for each in bare]
        if all(each.whole for each in entries):
            break  # else one may just have been opened
    if filters and entries:
        shown = parse_packet_sockets(read_packet_sockets(_SHOW_INFO | _SHOW_FILTER))
        lengths = {each.inode: each.filter or 0 for each in shown}
        entries = [replace(each, filter=lengths.get(each.inode)) for each in entries]
    return tuple(entries)


def sockets_that_hear(ifindex: int) -> tuple[PacketSocket, ...]:
    """The packet sockets of the calling thread's namespace that hear an interface, with their processes.

    Raises NetlinkError.
    """
    # Only for these is /proc searched for a holder, which takes long where there are many processes.
    entries = [
        each
        for each in packet_sockets()
        if each.ifindex in (0, ifindex)
        or ifindex in each.memberships
        or any(ifindex == index for index, _ in each.addresses)
        or not each.whole
    ]
    found = open_sockets(each.inode for each in entries) if entries else {}
    return tuple(each.held_by(living(found[each.inode])) for each in entries)


def living(pids: Iterable[int]) -> tuple[Process, ...]:
    """The processes of these pids that still live."""
    found = []
    for pid in pids:
        try:
            found.append(read_process(pid))
        except OSError:
            continue
    return tuple(found)


def parse_packet_sockets(replies: list[bytes]) -> tuple[SocketEntry, ...]:
    """What the list says. Raises NetlinkError when a reply is cut."""
    try:
        return tuple(_entry(reply) for reply in replies)
    except struct.error as error:
        raise NetlinkError(0, f"the kernel's list of packet sockets cannot be read: {error}") from error


def _entry(reply: bytes) -> SocketEntry:
    _, _, protocol, inode, _ = _FIXED.unpack_from(reply, 16)
    ifindex, uid, length = 0, None, None
    memberships: list[int] = []
    addresses: list[tuple[int, str]] = []
    for kind, value in attributes(reply, 16 + _FIXED.size):
        if kind == _INFO:
            (ifindex,) = struct.unpack_from("=I", value)
        elif kind == _UID:
            (uid,) = struct.unpack_from("=I", value)
        elif kind == _FILTER:
            length = len(value) // _INSTRUCTION
        elif kind == _MEMBERSHIPS:
            for offset in range(0, len(value) - _MEMBERSHIP.size + 1, _MEMBERSHIP.size):
                index, _, membership, size, address = _MEMBERSHIP.unpack_from(value, offset)
                if membership == _MR_PROMISC:
                    memberships.append(index)
                elif membership == _MR_UNICAST:
                    addresses.append((index, address[:size].hex(":")))
    return SocketEntry(inode, protocol, ifindex, uid, tuple(memberships), tuple(addresses), length)


def parse_listed(table: bytes) -> frozenset[int]:
    """The inodes in a /proc/PID/net/packet: enough to know whether a namespace has any packet socket.

    Raises ValueError when it is no such table.
    """
    head, *rows = table.splitlines()
    if not head.split()[-1:] == [b"Inode"]:
        raise ValueError("not a table of packet sockets")
    return frozenset(int(row.split()[-1]) for row in rows)
