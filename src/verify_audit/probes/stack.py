"""What stands on an interface: macvlans, VLANs and the like, also those in other namespaces.

An interface names the one that it stands on by index and by namespace (IFLA_LINK, IFLA_LINK_NETNSID), not
the other way round. So all are listed: here, and in each namespace that this one has an id for, without
entering it (IFLA_TARGET_NETNSID). A namespace that a Docker network's macvlan was moved to has one.

References: net/core/rtnetlink.c rtnl_dump_ifinfo(), rtnl_fill_link_netnsid(); net/core/net_namespace.c.
"""

from __future__ import annotations

import threading

from verify_audit.host.facts import Link, Stack, Upper
from verify_audit.probes.links import (
    parse_addresses,
    parse_link,
    parse_nsid,
    read_addresses,
    read_links,
    read_nsid,
    read_nsids,
)
from verify_audit.probes.netlink import NetlinkError

ALONE = ("veth", "netkit")
"""Kinds that stand on nothing: their IFLA_LINK is their other end."""


def read_stack(ifindex: int) -> Stack:
    """What stands on an interface of the calling thread's namespace. Raises NetlinkError."""
    uppers = [Upper(each, None) for each in links() if stands_on(each, ifindex, None)]
    elsewhere: dict[int, list[Link]] = {}
    unseen = []
    for nsid in nsids():
        try:
            elsewhere[nsid] = links(nsid)
        except NetlinkError:
            unseen.append(nsid)
    # Only now: the kernel gives our own namespace an id when one of theirs is found to stand on ours.
    ours = own_nsid()
    for nsid, found in elsewhere.items() if ours is not None else ():
        uppers += [Upper(each, nsid) for each in found if stands_on(each, ifindex, ours)]
    addresses = parse_addresses(read_addresses(ifindex), ifindex)
    return Stack(ifindex, tuple(uppers), addresses, tuple(unseen))


def nsids() -> list[int]:
    """Every namespace id that the calling thread's namespace has given. NetlinkError."""
    return [nsid for nsid in map(parse_nsid, read_nsids()) if nsid is not None]


def links(nsid: int | None = None, netns: int = 0) -> list[Link]:
    """All interfaces of the calling thread's namespace, or of the one that it calls nsid. NetlinkError."""
    return [parse_link(reply, netns) for reply in read_links(nsid)]


def own_nsid() -> int | None:
    """What the calling thread's namespace calls itself: the kernel gives it an id when it first needs one."""
    return parse_nsid(read_nsid(threading.get_native_id()))


def stands_on(link: Link, ifindex: int, nsid: int | None) -> bool:
    """Whether an interface stands on that one, whose namespace is nsid where this was asked."""
    return link.kind not in ALONE and (link.peer_ifindex, link.peer_nsid) == (ifindex, nsid)
