"""What a sweep over all network namespaces saw, and what of it nothing explains.

Explained is what the kernel does by itself for the host's own set-up: the port of a bridge, a macvlan on its
parent, a VLAN that passes its mode down. A packet socket is never explained, whoever holds it: a process
asked for it, and its name and its filter are its own to choose. Only one that cannot hear what is meant
for others (hearing.py) does not count.

References: ledger.py for who holds promiscuous mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from verify_audit.host.facts import Container, Link, PacketSocket, Process, Stack
from verify_audit.host.hearing import Hearing, hearing
from verify_audit.host.ledger import Ledger, ledger
from verify_audit.host.observation import Unobservable


@dataclass(frozen=True, slots=True)
class SweptNamespace:
    """One network namespace as it was seen.

    netns: its inode number, None for one that is known only by the id that ours has for it (nsid).
    first: the process of the lowest pid in it. members: the containers (ids) that have a process in it.
    door: the file that led there, empty for none. sockets is None when they could not be looked at; the
    same for links. stacks: what stands on its promiscuous interfaces, where that was needed. hooked:
    the interfaces with tc(8) filters, None when that was not looked at.
    """

    netns: int | None
    nsid: int | None
    first: Process | None
    members: tuple[str, ...]
    door: str
    links: tuple[Link, ...] | None
    sockets: tuple[PacketSocket, ...] | None
    stacks: tuple[Stack, ...] = ()
    hooked: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    """All that was seen. strays: open packet sockets that are in none of the namespaces.

    at: when, seconds since the epoch.
    """

    at: float
    namespaces: tuple[SweptNamespace, ...]
    strays: tuple[PacketSocket, ...]
    failures: tuple[Unobservable, ...]


class Where(StrEnum):
    """Whose a network namespace is."""

    HOST = "host"
    CONTAINER = "container"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace, as it is spoken of. text follows a device's name: "of the host"."""

    netns: int | None
    where: Where
    containers: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Listener:
    """A packet socket, and what it is on: every device when device is None."""

    place: Place
    socket: PacketSocket
    device: str | None
    promiscuous_on: tuple[str, ...]
    hearing: Hearing

    @property
    def unexplained(self) -> bool:
        """Whether it may be a sniffer."""
        return self.hearing is Hearing.OVERHEARS


@dataclass(frozen=True, slots=True)
class Device:
    """An interface that is promiscuous, or on which something else than a packet socket may listen."""

    place: Place
    ledger: Ledger
    hooked: bool

    @property
    def unexplained(self) -> bool:
        """Whether somebody holds promiscuous mode on it who is neither the kernel nor a listed socket."""
        return bool(self.ledger.remainder or self.ledger.unexplained)


class Conclusion:
    """A sweep put in order. host: the inode number of the host's own network namespace, None when unknown.

    containers: the engine's list, empty when there is none; failures: what else could not be looked at.
    """

    def __init__(
        self,
        swept: Swept,
        host: int | None,
        containers: tuple[Container, ...] = (),
        failures: tuple[Unobservable, ...] = (),
    ) -> None:
        self.swept = swept
        self.failures = swept.failures + failures
        self._host = host
        self._names = {each.id: each.name for each in containers}
        self._places = [self._place(each) for each in swept.namespaces]

    def container_name(self, container_id: str) -> str:
        """The engine's name for a container, else the beginning of its id."""
        return self._names.get(container_id) or container_id[:12]

    def _place(self, namespace: SweptNamespace) -> Place:
        netns = namespace.netns
        if netns is not None and netns == self._host:
            return Place(netns, Where.HOST, (), "of the host")
        if namespace.members:
            names = ", ".join(map(self.container_name, namespace.members))
            plural = "s" if len(namespace.members) > 1 else ""
            return Place(netns, Where.CONTAINER, namespace.members, f"of container{plural} {names}")
        if namespace.first is not None:
            first = namespace.first
            text = f"of process {first.identity.pid} ({first.exe or first.comm})"
        elif namespace.door:
            text = f"of the network namespace at {namespace.door} (no process is in it)"
        else:
            text = f"of a network namespace that nothing leads to (nsid {namespace.nsid})"
        return Place(netns, Where.OTHER, (), text)

    @cached_property
    def listeners(self) -> tuple[Listener, ...]:
        """Every packet socket, those that may be sniffers first."""
        found = [
            self._listener(place, namespace.links or (), socket)
            for place, namespace in zip(self._places, self.swept.namespaces, strict=True)
            for socket in namespace.sockets or ()
        ]
        nowhere = Place(None, Where.OTHER, (), "of a network namespace that was not found")
        found += [self._listener(nowhere, (), socket) for socket in self.swept.strays]
        return tuple(sorted(found, key=lambda each: not each.unexplained))

    def _listener(self, place: Place, links: tuple[Link, ...], socket: PacketSocket) -> Listener:
        names = {link.ifindex: link.name for link in links}

        def named(ifindex: int) -> str:
            return names.get(ifindex, f"interface {ifindex}")

        return Listener(
            place,
            socket,
            named(socket.ifindex) if socket.ifindex > 0 else None,
            tuple(dict.fromkeys(map(named, socket.memberships))),
            hearing(socket),
        )

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        """The interfaces that are promiscuous or hooked, those that nothing explains first."""
        return tuple(sorted(self._devices(), key=lambda each: not each.unexplained))

    def _devices(self) -> Iterator[Device]:
        for place, namespace in zip(self._places, self.swept.namespaces, strict=True):
            links = {link.ifindex: link for link in namespace.links or ()}
            stacks = {stack.ifindex: stack for stack in namespace.stacks}
            for link in links.values():
                hooked = link.ifindex in (namespace.hooked or ())
                if link.promiscuity or hooked or link.xdp:
                    stack = self._named(stacks.get(link.ifindex), link)
                    held = ledger(link, links.get(link.master or 0), namespace.sockets, stack)
                    yield Device(place, held, hooked)

    def _named(self, stack: Stack | None, lower: Link) -> Stack | None:
        """What stands on an interface, with the words for where it is when that is elsewhere."""
        if stack is None:
            return None
        texts = {place.netns: place.text for place in self._places}
        uppers = tuple(
            each
            if each.link.netns == lower.netns
            else replace(each, where=f" {texts.get(each.link.netns, '')}")
            for each in stack.uppers
        )
        return replace(stack, uppers=uppers)

    @property
    def unexplained(self) -> int:
        """How many listeners and devices nothing explains."""
        return sum(each.unexplained for each in self.listeners) + sum(
            each.unexplained for each in self.devices
        )

    @property
    def exit_status(self) -> int:
        """0 nobody unexplained, 10 something could not be looked at, 11 somebody unexplained."""
        return 11 if self.unexplained else 10 if self.failures else 0
