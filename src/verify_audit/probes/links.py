"""Interfaces over rtnetlink: read() asks the kernel, parse_link() reads its reply.

Each is asked for by name or by index, never by listing: on a host with a thousand containers the
answer costs the same.

References: rtnetlink(7); include/uapi/linux/if_link.h; net/core/rtnetlink.c.
"""

from __future__ import annotations

import errno
import struct

from verify_audit.host.facts import Link, Peer
from verify_audit.probes.netlink import NETLINK_ROUTE, NLM_F_DUMP, NetlinkError, attributes, request

RTM_GETLINK = 18
RTM_GETNEIGH = 30
RTM_GETQDISC = 38
RTM_GETNSID = 90
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_LINKINFO = 18
_IFLA_EXT_MASK = 29
_IFLA_PROMISCUITY = 30
_IFLA_LINK_NETNSID = 37
_IFLA_XDP = 43
_IFLA_TARGET_NETNSID = 46
_IFLA_ALT_IFNAME = 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND = 1, 2, 4
_MACVLAN_MODE, _MACVLAN_FLAGS = 1, 2
_MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
_MACVLAN_NOPROMISC = 1
_BRIDGE_VLAN_FILTERING = 7
_XDP_ATTACHED = 2
_NETNSA_NSID, _NETNSA_PID, _NETNSA_FD = 1, 2, 3
_NDA_LLADDR = 2
_NTF_SELF = 0x2
_TCA_KIND = 1
_PF_BRIDGE = 7
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_IFNAMSIZ = 16
_ALTIFNAMSIZ = 128
_BEYOND_NUMBERS = 1 << 31
_IFF_UP = 0x1
_IFF_PROMISC = 0x100
_NOT_ASSIGNED = -1


def read_link(name: bytes = b"", ifindex: int = 0, nsid: int | None = None) -> bytes:
    """The kernel's reply on one interface of the calling thread's network namespace.

    nsid: look in the namespace that this one calls so (IFLA_TARGET_NETNSID). Raises NetlinkError, with
    ENODEV when there is no such interface.
    """
    if len(name) >= _ALTIFNAMSIZ or not all(0 <= each < _BEYOND_NUMBERS for each in (ifindex, nsid or 0)):
        raise NetlinkError(errno.ENODEV, "no interface can have that name or that index")
    body = _interface_request(ifindex, nsid)
    if name:
        # The kernel takes an alternative name here too, hence the check in parse_link's caller.
        body += _attribute(_IFLA_IFNAME if len(name) < _IFNAMSIZ else _IFLA_ALT_IFNAME, name + b"\0")
    return request(NETLINK_ROUTE, RTM_GETLINK, 0, body)[0]


def read_links(nsid: int | None = None) -> list[bytes]:
    """The kernel's replies on all interfaces of the calling thread's network namespace, or of the one that
    this one calls nsid. NetlinkError."""
    return request(NETLINK_ROUTE, RTM_GETLINK, NLM_F_DUMP, _interface_request(0, nsid))


def _interface_request(ifindex: int, nsid: int | None) -> bytes:
    body = struct.pack("=BxHiII", 0, 0, ifindex, 0, 0)
    body += _attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return body if nsid is None else body + _attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))


def parse_names(replies: list[bytes]) -> frozenset[str]:
    """The names of the interfaces, without their alternative ones. NetlinkError."""
    return frozenset(map(_name, replies))


def read_nsid(pid: int = 0, descriptor: int | None = None) -> bytes:
    """The kernel's reply on what it calls the network namespace of a process, or the one that a file
    descriptor is open on. Raises NetlinkError."""
    if descriptor is not None:
        asked = _attribute(_NETNSA_FD, struct.pack("=I", descriptor))
    elif 0 < pid < _BEYOND_NUMBERS:
        asked = _attribute(_NETNSA_PID, struct.pack("=I", pid))
    else:
        raise NetlinkError(errno.ESRCH, f"no process can have the pid {pid}")
    return request(NETLINK_ROUTE, RTM_GETNSID, 0, b"\0\0\0\0" + asked)[0]


def read_nsids() -> list[bytes]:
    """The kernel's replies on every namespace that the calling thread's has an id for. NetlinkError."""
    return request(NETLINK_ROUTE, RTM_GETNSID, NLM_F_DUMP, b"\0\0\0\0")


def parse_nsid(reply: bytes) -> int | None:
    """The namespace id, None when the kernel has given it none here (the two never were linked).

    Raises NetlinkError when the reply says neither.
    """
    try:
        for kind, value in attributes(reply, 16 + 4):
            if kind == _NETNSA_NSID:
                (nsid,) = struct.unpack_from("=i", value)
                return None if nsid == _NOT_ASSIGNED else int(nsid)
    except struct.error as error:
        raise NetlinkError(0, f"the kernel's reply on a network namespace cannot be read: {error}") from error
    raise NetlinkError(0, "the kernel's reply on a network namespace has no id")


def parse_link(reply: bytes, netns: int) -> Link:
    """The interface that a reply describes. Raises NetlinkError when it describes none."""
    try:
        ifindex, flags = struct.unpack_from("=4xiI", reply, 16)
        found = dict(attributes(reply, 16 + 16))
        details = dict(attributes(found.get(_IFLA_LINKINFO, b""), 0))
        kind = _word(details.get(_INFO_KIND))
        data = dict(attributes(details.get(_INFO_DATA, b""), 0))
        macvlan = data if kind in ("macvlan", "macvtap") else {}
        nsid = _number(found.get(_IFLA_LINK_NETNSID))
        promiscuity = _number(found.get(_IFLA_PROMISCUITY))
        if promiscuity is None:
            raise NetlinkError(0, "the kernel's reply on an interface has no promiscuity")
        return Link(
            netns=netns,
            ifindex=ifindex,
            name=_name(reply),
            kind=kind,
            mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
            master=_number(found.get(_IFLA_MASTER)),
            slave_kind=_word(details.get(_INFO_SLAVE_KIND)),
            peer_ifindex=_number(found.get(_IFLA_LINK)),
            peer_nsid=None if nsid == _NOT_ASSIGNED else nsid,
            promiscuity=promiscuity,
            asked_promiscuous=bool(flags & _IFF_PROMISC),
            up=bool(flags & _IFF_UP),
            mode=_MACVLAN_MODES.get(_number(macvlan.get(_MACVLAN_MODE)) or 0, ""),
            spares_promiscuity=bool((macvlan.get(_MACVLAN_FLAGS) or b"\0")[0] & _MACVLAN_NOPROMISC),
            vlan_filtering=kind == "bridge" and (data.get(_BRIDGE_VLAN_FILTERING) or b"\0")[0] != 0,
            xdp=dict(attributes(found.get(_IFLA_XDP, b""), 0)).get(_XDP_ATTACHED, b"\0")[:1]
            not in (b"", b"\0"),
        )
    except struct.error as error:
        raise NetlinkError(0, f"the kernel's reply on an interface cannot be read: {error}") from error


def parse_peer(reply: bytes, nsid: int) -> Peer:
    """The same for an interface in another namespace."""
    link = parse_link(reply, 0)
    return Peer(nsid, link.ifindex, link.name, link.mac)


def read_addresses(ifindex: int) -> list[bytes]:
    """The kernel's replies on the addresses that an interface of the calling thread's namespace takes
    (rtnl_fdb_dump(), net/core/rtnetlink.c). NetlinkError."""
    body = struct.pack("=BxHiII", _PF_BRIDGE, 0, ifindex, 0, 0)
    return request(NETLINK_ROUTE, RTM_GETNEIGH, NLM_F_DUMP, body)


def parse_addresses(replies: list[bytes], ifindex: int) -> tuple[str, ...]:
    """The unicast addresses that the interface takes beside its own. NetlinkError."""
    addresses = []
    try:
        for reply in replies:
            index, _, flags, _ = struct.unpack_from("=iHBB", reply, 16 + 4)
            found = dict(attributes(reply, 16 + 12))
            address = found.get(_NDA_LLADDR, b"")
            # What a bridge has learned on the interface is listed as well, without that flag.
            own = index == ifindex and flags & _NTF_SELF
            if own and address and not address[0] & 1:
                addresses.append(address.hex(":"))
    except struct.error as error:
        raise NetlinkError(0, f"the kernel's list of addresses cannot be read: {error}") from error
    return tuple(addresses)


def read_queues() -> list[bytes]:
    """The kernel's replies on the queueing disciplines of the calling thread's namespace. NetlinkError."""
    return request(NETLINK_ROUTE, RTM_GETQDISC, NLM_F_DUMP, b"\0" * 20)


def parse_hooked(replies: list[bytes]) -> frozenset[int]:
    """The interfaces on which tc(8) filters may stand that see each packet: clsact or ingress. NetlinkError."""
    try:
        kinds = [
            (
                struct.unpack_from("=i", reply, 16 + 4)[0],
                _word(dict(attributes(reply, 16 + 20)).get(_TCA_KIND)),
            )
            for reply in replies
        ]
        return frozenset(ifindex for ifindex, kind in kinds if kind in ("clsact", "ingress"))
    except struct.error as error:
        raise NetlinkError(0, f"the kernel's list of queueing disciplines cannot be read: {error}") from error


def _name(reply: bytes) -> str:
    """The name: bytes of any value."""
    for kind, value in attributes(reply, 16 + 16):
        if kind == _IFLA_IFNAME:
            return value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    raise NetlinkError(0, "the kernel's reply on an interface has no name")


def _word(value: bytes | None) -> str:
    return (value or b"").split(b"\0", 1)[0].decode("ascii", "backslashreplace")


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(struct.unpack_from("=i", value)[0])


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)
