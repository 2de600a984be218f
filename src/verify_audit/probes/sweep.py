"""The sweep: every network namespace that can be found, its interfaces and its packet sockets.

A namespace is entered only where nothing else will do: its interfaces are listed by the id that ours has
for it, its packet sockets are counted in the /proc of a process that is in it. It is entered when there is no
such id, when there is a packet socket (for its memberships), and when a device is promiscuous for no
reason that is in the list of interfaces.

References: rtnetlink(7), sock_diag(7), namespaces(7).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from verify_audit.host.facts import Link, PacketSocket, Process, Stack, Upper
from verify_audit.host.ledger import ledger
from verify_audit.host.observation import Provenance, Unobservable
from verify_audit.host.sweep import Swept, SweptNamespace
from verify_audit.probes.census import Census, Found, census
from verify_audit.probes.links import (
    parse_addresses,
    parse_hooked,
    parse_nsid,
    read_addresses,
    read_nsid,
    read_queues,
)
from verify_audit.probes.namespace import NamespaceError, initial_pid_namespace, opened, own_netns, through
from verify_audit.probes.netlink import NetlinkError
from verify_audit.probes.processes import container_of, holders, open_sockets, read_file
from verify_audit.probes.sniffers import SocketEntry, living, packet_sockets, parse_listed
from verify_audit.probes.stack import ALONE, links, nsids

_BE_ROOT = "run verify-audit as root, in the initial pid namespace"
_SERVED = "it is mounted below a file system that somebody serves (FUSE, NFS, ...), who could keep us waiting"
_NAMED = 5
_SOMEWHERE = -1


@dataclass(slots=True)
class _Namespace:
    """One namespace while it is being looked at. below: what each interface with another one below it stands
    on, as (netns, ifindex); netns None when that namespace is not known."""

    found: Found
    nsid: int | None = None
    links: list[Link] | None = None
    below: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    entries: tuple[SocketEntry, ...] | None = None
    addresses: dict[int, tuple[str, ...]] = field(default_factory=dict)
    hooked: tuple[int, ...] | None = None


def sweep() -> Swept:
    """Look at all of it. Never raises for what a host can hold; OSError when there is no /proc."""
    at = time.time()
    taken = census()
    sweeper = _Sweep(taken)
    sweeper.look()
    return Swept(at, sweeper.namespaces(), sweeper.strays(), tuple(sweeper.failures))


class _Sweep:
    def __init__(self, taken: Census) -> None:
        self._taken = taken
        self._all = {netns: _Namespace(found) for netns, found in taken.namespaces.items()}
        self._here = own_netns()
        self._unreached: dict[int, list[Link]] = {}
        self.failures: list[Unobservable] = []
        if not initial_pid_namespace():
            self._fail(
                "processes", "we are in a pid namespace of our own and see only what is in it", _BE_ROOT
            )
        elif taken.closed:
            named = f"process{'' if len(taken.closed) == 1 else 'es'} {', '.join(map(str, taken.closed[:_NAMED]))}"
            more = f" and {len(taken.closed) - _NAMED} more" if len(taken.closed) > _NAMED else ""
            self._fail(named + more, "network namespaces and sockets are not for us to see", _BE_ROOT)
        for netns, point in taken.avoided.items():
            if netns not in self._all:
                self._fail(f"network namespace net:[{netns}], mounted at {point}", _SERVED)

    def _fail(self, what: str, why: str, remedy: str = "") -> None:
        provenance = Provenance("network namespaces", what, time.time())
        self.failures.append(Unobservable(provenance, why, remedy))

    # Looking

    def look(self) -> None:
        """Each namespace from here, then from inside where need be."""
        self._list_from_here()
        for netns, namespace in self._all.items():
            listed = self._listed(namespace)
            known = listed is False and namespace.links is not None and netns != self._here
            if known and not self._open_question(namespace):
                namespace.entries = ()
            else:
                self._enter(netns, namespace)

    def _list_from_here(self) -> None:
        """The interfaces of every namespace that ours has an id for."""
        here: dict[int, list[Link]] = {}
        refused: dict[int, str] = {}
        ids: dict[int, int] = {}
        try:
            for nsid in nsids():
                try:
                    here[nsid] = links(nsid)
                except NetlinkError as error:
                    refused[nsid] = str(error)
            # Only now: listing interfaces gives ids to the namespaces that they have to do with.
            ids = self._ids()
        except NetlinkError as error:
            self._fail("the ids that our namespace has for others", str(error))
        for nsid, reason in refused.items():
            if nsid not in ids:
                self._fail(f"the network namespace with nsid {nsid}", reason, _BE_ROOT)
        for nsid, found in here.items():
            netns = ids.get(nsid)
            namespace = self._all.get(netns) if netns is not None else None
            if namespace is None:
                self._unreached[nsid] = found
            elif netns != self._here:
                self._keep(namespace, found, ids)
                namespace.nsid = nsid

    def _ids(self) -> dict[int, int]:
        """What the calling thread's namespace calls the others: inode numbers by id. NetlinkError."""
        ids = {}
        for netns, namespace in self._all.items():
            for door in namespace.found.doors:
                try:
                    with opened(door, netns, door) as descriptor:
                        nsid = parse_nsid(read_nsid(descriptor=descriptor))
                except NamespaceError:
                    continue
                if nsid is not None:
                    ids[nsid] = netns
                break
        return ids

    def _keep(self, namespace: _Namespace, found: Iterable[Link], ids: dict[int, int]) -> None:
        netns = namespace.found.netns
        namespace.links = [replace(link, netns=netns) for link in found]
        for link in namespace.links:
            if link.peer_ifindex and link.kind not in ALONE:
                below = netns if link.peer_nsid is None else ids.get(link.peer_nsid)
                namespace.below[link.ifindex] = (below, link.peer_ifindex)

    def _listed(self, namespace: _Namespace) -> bool | None:
        """Whether the namespace has packet sockets, from outside; None when that cannot be told so."""
        for door in namespace.found.doors:
            if door.endswith("/ns/net"):
                try:
                    listed = parse_listed(read_file(door.removesuffix("ns/net") + "net/packet"))
                    # It may have gone into another namespace since.
                    if os.stat(door).st_ino == namespace.found.netns:
                        return bool(listed)
                except (OSError, ValueError):
                    continue
        return None

    def _open_question(self, namespace: _Namespace) -> bool:
        """Whether a device is promiscuous for a reason that the interfaces alone do not show."""
        known = {link.ifindex: link for link in namespace.links or ()}
        return any(
            link.promiscuity
            > ledger(link, known.get(link.master or 0), (), Stack(link.ifindex, (), ())).least
            for link in known.values()
        )

    def _enter(self, netns: int, namespace: _Namespace) -> None:
        name, reason = f"net:[{netns}]", "nothing leads there any more"
        for door in namespace.found.doors:
            try:
                through(door, netns, lambda: self._look_around(namespace), name)
                return
            except (NamespaceError, NetlinkError, OSError) as error:
                reason = str(error)
        if self._still_there(namespace):
            self._fail(f"network namespace {name}{self._whose(namespace)}", reason, _BE_ROOT)

    def _look_around(self, namespace: _Namespace) -> None:
        """From inside: all that is still missing. NetlinkError."""
        if namespace.links is None or namespace.found.netns == self._here:
            found = links()
            placed = any(link.peer_nsid is not None and link.kind not in ALONE for link in found)
            self._keep(namespace, found, self._ids() if placed else {})
        namespace.entries = packet_sockets(filters=True)
        namespace.hooked = tuple(sorted(parse_hooked(read_queues())))
        for link in namespace.links or ():
            if link.promiscuity:
                namespace.addresses[link.ifindex] = parse_addresses(
                    read_addresses(link.ifindex), link.ifindex
                )

    def _still_there(self, namespace: _Namespace) -> bool:
        for door in namespace.found.doors:
            try:
                with opened(door, namespace.found.netns, door):
                    return True
            except NamespaceError as error:
                if isinstance(error.__cause__, PermissionError):
                    return True
        return False

    def _whose(self, namespace: _Namespace) -> str:
        return f" of process {namespace.found.pids[0]}" if namespace.found.pids else ""

    # Putting together

    def namespaces(self) -> tuple[SweptNamespace, ...]:
        """Each namespace as it was seen, and those that only an id is known of."""
        held = self._holders()
        swept = [self._swept(namespace, held) for namespace in self._all.values()]
        for nsid, found in self._unreached.items():
            swept.append(SweptNamespace(None, nsid, None, (), "", tuple(found), None))
            self._fail(
                f"the packet sockets of the network namespace with nsid {nsid}",
                "no process, mount or descriptor leads to it",
            )
        return tuple(swept)

    def _swept(self, namespace: _Namespace, held: dict[int, tuple[Process, ...]]) -> SweptNamespace:
        found = namespace.found
        entries = namespace.entries
        return SweptNamespace(
            netns=found.netns,
            nsid=namespace.nsid,
            first=next(iter(living(sorted(found.pids)[:1])), None),
            members=tuple(sorted(_containers_of(found.pids))),
            door=found.doors[0] if found.doors else "",
            links=None if namespace.links is None else tuple(namespace.links),
            sockets=None
            if entries is None
            else tuple(each.held_by(held.get(each.inode, ())) for each in entries),
            stacks=tuple(self._stack(namespace, link) for link in namespace.links or () if link.promiscuity),
            hooked=namespace.hooked,
        )

    def _stack(self, namespace: _Namespace, lower: Link) -> Stack:
        """What stands on an interface, from all namespaces."""
        uppers = self._uppers.get((namespace.found.netns, lower.ifindex), ())
        return Stack(lower.ifindex, tuple(uppers), namespace.addresses.get(lower.ifindex, ()))

    @cached_property
    def _uppers(self) -> dict[tuple[int | None, int], list[Upper]]:
        """The interfaces that stand on another one, by that one."""
        uppers: dict[tuple[int | None, int], list[Upper]] = {}
        for namespace in self._all.values():
            for link in namespace.links or ():
                if link.ifindex in namespace.below:
                    uppers.setdefault(namespace.below[link.ifindex], []).append(Upper(link, None))
        return uppers

    def _holders(self) -> dict[int, tuple[Process, ...]]:
        """The processes that hold the packet sockets of all namespaces, by inode."""
        inodes = {each.inode for namespace in self._all.values() for each in namespace.entries or ()}
        pids = {inode: self._taken.holders.get(inode, []) for inode in inodes}
        unheld = [inode for inode, found in pids.items() if not found]
        if unheld:
            pids |= open_sockets(unheld)
        return {inode: living(found) for inode, found in pids.items()}

    def strays(self) -> tuple[PacketSocket, ...]:
        """Open packet sockets in none of the namespaces that were looked into."""
        seen = {each.inode for namespace in self._all.values() for each in namespace.entries or ()}
        left = [inode for inode in self._taken.holders if inode not in seen]
        # One that was closed between the two looks is none.
        still = holders(left) if left else {}
        return tuple(
            PacketSocket(inode, _SOMEWHERE, 0, None, (), living(pids), whole=False)
            for inode, pids in still.items()
            if pids
        )


def _containers_of(pids: Iterable[int]) -> set[str]:
    """The containers that processes belong to, by their cgroups."""
    found = set()
    for pid in pids:
        try:
            found.add(container_of(read_file(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape")))
        except OSError:
            continue
    return {each for each in found if each}
