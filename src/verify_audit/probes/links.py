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
from verify_audit.probes.pyroute2_parts import decoded, part, reading

RTM_GETLINK = 18
RTM_GETNSID = 90
_IFLA_IFNAME = 3
_IFLA_ALT_IFNAME = 53
_IFLA_TARGET_NETNSID = 46
_IFLA_EXT_MASK = 29
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
    body = struct.pack("=BxHiII", 0, 0, ifindex, 0, 0) + _attribute(
        _IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS)
    )
    if name:
        # The kernel takes an alternative name here too, hence the check in parse_link's caller.
        body += _attribute(_IFLA_IFNAME if len(name) < _IFNAMSIZ else _IFLA_ALT_IFNAME, name + b"\0")
    if nsid is not None:
        body += _attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    return request(NETLINK_ROUTE, RTM_GETLINK, 0, body)[0]


def read_links() -> list[bytes]:
    """The kernel's replies on all interfaces of the calling thread's network namespace. NetlinkError."""
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(
        _IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS)
    )
    return request(NETLINK_ROUTE, RTM_GETLINK, NLM_F_DUMP, body)


def parse_names(replies: list[bytes]) -> frozenset[str]:
    """The names of the interfaces, without their alternative ones. NetlinkError."""
    return frozenset(map(_name, replies))


def read_nsid(pid: int) -> bytes:
    """The kernel's reply on what it calls the network namespace of a process. Raises NetlinkError."""
    if not 0 < pid < _BEYOND_NUMBERS:
        raise NetlinkError(errno.ESRCH, f"no process can have the pid {pid}")
    message = part("netlink.rtnl.nsidmsg").nsidmsg()
    message["attrs"] = [("NETNSA_PID", pid)]
    message.encode()
    return request(NETLINK_ROUTE, RTM_GETNSID, 0, bytes(message.data[16:]))[0]


def parse_nsid(reply: bytes) -> int | None:
    """The namespace id, None when the kernel has given it none here (the two never were linked).

    Raises NetlinkError when the reply says neither.
    """
    with reading("the kernel's reply on a network namespace"):
        nsid = decoded(part("netlink.rtnl.nsidmsg").nsidmsg, reply).get_attr("NETNSA_NSID")
        if nsid is None:
            raise NetlinkError(0, "the kernel's reply on a network namespace has no id")
        return None if int(nsid) in (_NOT_ASSIGNED, 0xFFFFFFFF) else int(nsid)


def parse_link(reply: bytes, netns: int) -> Link:
    """The interface that a reply describes. Raises NetlinkError when it describes none."""
    with reading("the kernel's reply on an interface"):
        message = decoded(part("netlink.rtnl.ifinfmsg").ifinfmsg, reply)
        details = message.get_attr("IFLA_LINKINFO")
        nsid = message.get_attr("IFLA_LINK_NETNSID")
        return Link(
            netns=netns,
            ifindex=int(message["index"]),
            name=_name(reply),
            kind=str(details.get_attr("IFLA_INFO_KIND") or "") if details else "",
            mac=str(message.get_attr("IFLA_ADDRESS") or "").lower(),
            master=message.get_attr("IFLA_MASTER"),
            slave_kind=str(details.get_attr("IFLA_INFO_SLAVE_KIND") or "") if details else "",
            peer_ifindex=message.get_attr("IFLA_LINK"),
            peer_nsid=None if nsid is None or nsid == _NOT_ASSIGNED else int(nsid),
            promiscuity=int(message.get_attr("IFLA_PROMISCUITY") or 0),
            asked_promiscuous=bool(int(message["flags"]) & _IFF_PROMISC),
            up=bool(int(message["flags"]) & _IFF_UP),
        )


def parse_peer(reply: bytes, nsid: int) -> Peer:
    """The same for an interface in another namespace."""
    link = parse_link(reply, 0)
    return Peer(nsid, link.ifindex, link.name, link.mac)


def _name(reply: bytes) -> str:
    """The name as bytes of any value, which pyroute2 would take for UTF-8."""
    for kind, value in attributes(reply, 16 + 16):
        if kind == _IFLA_IFNAME:
            return value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    raise NetlinkError(0, "the kernel's reply on an interface has no name")


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)
