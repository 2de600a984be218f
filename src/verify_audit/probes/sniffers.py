"""Packet sockets of a network namespace: who could be listening.

A PACKET_DIAG dump of NETLINK_SOCK_DIAG, with the promiscuous memberships of each socket.

References: packet(7), sock_diag(7), include/uapi/linux/packet_diag.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from verify_audit.probes.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, NetlinkError, attributes, request

_SOCK_DIAG_BY_FAMILY = 20
_AF_PACKET = 17
_SHOW_INFO = 0x1
_SHOW_MEMBERSHIPS = 0x2
_INFO = 0
_MEMBERSHIPS = 1
_UID = 5
_MR_PROMISC = 1
_FIXED = struct.Struct("=BBHI8s")
_MEMBERSHIP = struct.Struct("=IIHH32s")


@dataclass(frozen=True, slots=True)
class SocketEntry:
    """One packet socket as the kernel lists it; ifindex 0 is bound to every interface."""

    inode: int
    protocol: int
    ifindex: int
    uid: int | None
    memberships: tuple[int, ...]


def read_packet_sockets() -> list[bytes]:
    """The kernel's list for the calling thread's network namespace. Raises NetlinkError."""
    body = struct.pack("=BBHII8x", _AF_PACKET, 0, 0, 0, _SHOW_INFO | _SHOW_MEMBERSHIPS)
    return request(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body)


def parse_packet_sockets(replies: list[bytes]) -> tuple[SocketEntry, ...]:
    """What the list says. Raises NetlinkError when a reply is cut."""
    try:
        return tuple(_entry(reply) for reply in replies)
    except struct.error as error:
        raise NetlinkError(0, f"the kernel's list of packet sockets cannot be read: {error}") from error


def _entry(reply: bytes) -> SocketEntry:
    _, _, protocol, inode, _ = _FIXED.unpack_from(reply, 16)
    ifindex, uid, memberships = 0, None, []
    for kind, value in attributes(reply, 16 + _FIXED.size):
        if kind == _INFO:
            (ifindex,) = struct.unpack_from("=I", value)
        elif kind == _UID:
            (uid,) = struct.unpack_from("=I", value)
        elif kind == _MEMBERSHIPS:
            for offset in range(0, len(value) - _MEMBERSHIP.size + 1, _MEMBERSHIP.size):
                index, _, membership, _, _ = _MEMBERSHIP.unpack_from(value, offset)
                if membership == _MR_PROMISC:
                    memberships.append(index)
    return SocketEntry(inode, protocol, ifindex, uid, tuple(memberships))
