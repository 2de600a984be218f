"""The host as the rules look at it: answers joined to one another, each join made once.

Which Docker network a bridge is, which container a veth leads to, what the engine did around a time.
Nothing here weighs anything; that is for the rules.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from verify_audit.audit.serials import Serials
from verify_audit.findings.finding import ContainerRef, NetworkRef
from verify_audit.host import questions as ask
from verify_audit.host.facts import (
    Container,
    Daemon,
    Endpoint,
    Engine,
    EngineEvent,
    History,
    Life,
    Link,
    Network,
    PacketSockets,
    Peer,
    Process,
    Product,
)
from verify_audit.host.observation import Absent, Observation, Observed, Unobservable
from verify_audit.host.questions import Host
from verify_audit.rules.layout import Layout

_CONTAINER = re.compile(r"[0-9a-f]{64}")

START_SLACK = 1.0
"""Seconds by which a process may seem to have started after it acted: the start time is counted from
boot, the record is stamped by the clock, and clocks are set."""


class Standing(StrEnum):
    """Where a device stands in the engine's network namespace now."""

    CONTAINERS = "the host's end of a container's link, as the engine set it up"
    ODD_END = "on a Docker bridge, but its other end is nothing that the engine set up"
    OTHER_BRIDGE = "on a bridge that is no Docker network's"
    DOCKER_BRIDGE = "a Docker network's bridge itself"
    NO_PORT = "on no bridge"
    GONE = "not there"
    UNSEEN = "could not be looked at"


@dataclass(frozen=True, slots=True)
class Place:
    """What was found when following a device to its bridge, network, peer and container.

    reason is a clause that says what is odd, or why no more could be seen; unseen is the look-up that
    failed, where one did.
    """

    standing: Standing
    link: Observation[Link]
    reason: str = ""
    bridge: Observation[Link] | None = None
    network: Network | None = None
    peer: Observation[Peer] | None = None
    container: Container | None = None
    endpoint: Endpoint | None = None
    life: Observation[Life] | None = None
    unseen: Unobservable | None = None


class Picture:
    """One host, seen once. serials: what the log holds, None where that is not known."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.serials: Serials | None = None
        self._places: dict[str, Place] = {}

    @cached_property
    def layout(self) -> Layout:
        """The firewall, and what the engine would set up."""
        return Layout(
            self.host,
            self.engine.fact if isinstance(self.engine, Observed) and self.is_docker else None,
            self.networks,
            self.containers,
        )

    # Engine

    @cached_property
    def daemon(self) -> Observation[Daemon]:
        """The engine's process."""
        return self.host.ask(ask.DAEMON)

    @cached_property
    def engine(self) -> Observation[Engine]:
        """What the engine says of itself."""
        return self.host.ask(ask.ENGINE)

    @property
    def firewalld(self) -> Observation[Daemon]:
        """The firewalld that the engine hands its rules to."""
        return self.host.ask(ask.FIREWALLD)

    @cached_property
    def is_docker(self) -> bool:
        """Whether what answers on the API socket is known to be a Docker engine, and a process of this host."""
        return (
            isinstance(self.engine, Observed)
            and self.engine.fact.product is Product.DOCKER
            and isinstance(self.daemon, Observed)
        )

    @cached_property
    def is_other_product(self) -> bool:
        """Whether what answers on the API socket is known not to be one."""
        return isinstance(self.engine, Observed) and self.engine.fact.product is not Product.DOCKER

    def ran_at(self, time: float) -> bool | None:
        """Whether today's engine process was running at that time; None when its process is not known."""
        if not isinstance(self.daemon, Observed):
            return None
        return self.daemon.fact.process.started_at <= time + START_SLACK

    def started_after(self, time: float) -> bool:
        """Whether today's engine process is known to be younger than that time.

        Without the slack: an engine is restarted within less, and what the one before did last is not another's.
        """
        return isinstance(self.daemon, Observed) and self.daemon.fact.process.started_at > time

    def started_before(self, time: float) -> float | None:
        """When the engine's process started, if it is known and lies before that time."""
        if not isinstance(self.daemon, Observed):
            return None
        started = self.daemon.fact.process.started_at
        return started if started <= time + START_SLACK else None

    def container_of(self, process: Process) -> str | None:
        """The container that a process is in; an engine inside a container is in none of its own."""
        own = self.daemon.fact.process.container_id if isinstance(self.daemon, Observed) else None
        if process.container_id is None or process.container_id != own:
            return process.container_id
        for line in process.cgroup.splitlines():
            below = _CONTAINER.findall(line.partition(own)[2])
            if below:
                return str(below[0])
        return None

    @cached_property
    def adopts_orphans(self) -> bool:
        """Whether to be a child of the engine proves nothing: every orphan of its pid namespace becomes one."""
        return isinstance(self.daemon, Observed) and self.daemon.fact.is_init

    def descends_from_engine(self, process: Process) -> bool:
        """Whether the engine is among the living ancestors of a process, and started it."""
        if not isinstance(self.daemon, Observed) or self.adopts_orphans:
            return False
        engine = self.daemon.fact.process.identity
        return any(ancestor.identity == engine for ancestor in self.ancestry(process))

    def ancestry(self, process: Process) -> list[Process]:
        """Parents of a process, nearest first, as far as they live; no later-born one can be a parent."""
        found: list[Process] = []
        while process.ppid > 0 and len(found) < 32:
            answer = self.host.ask(ask.process(process.ppid))
            if not isinstance(answer, Observed) or answer.fact.started_at > process.started_at + START_SLACK:
                break
            process = answer.fact
            found.append(process)
        return found

    def ancestry_seen(self, process: Process) -> bool:
        """Whether no ancestor of a process is one that could not be looked at."""
        eldest = [process, *self.ancestry(process)][-1]
        return eldest.ppid <= 1 or not isinstance(self.host.ask(ask.process(eldest.ppid)), Unobservable)

    # Containers and networks

    @cached_property
    def containers(self) -> Observation[tuple[Container, ...]]:
        """All containers."""
        return self.host.ask(ask.CONTAINERS)

    @cached_property
    def networks(self) -> Observation[tuple[Network, ...]]:
        """All networks."""
        return self.host.ask(ask.NETWORKS)

    @cached_property
    def container_by_id(self) -> dict[str, Container]:
        """Containers by their full id."""
        return (
            {each.id: each for each in self.containers.fact} if isinstance(self.containers, Observed) else {}
        )

    @cached_property
    def network_by_id(self) -> dict[str, Network]:
        """Networks by their full id."""
        return {each.id: each for each in self.networks.fact} if isinstance(self.networks, Observed) else {}

    @cached_property
    def network_by_bridge(self) -> dict[str, Network]:
        """Bridge networks by the interface that they live on."""
        return {each.bridge: each for each in self.network_by_id.values() if each.bridge}

    @cached_property
    def endpoints(self) -> list[tuple[Endpoint, Container]]:
        """Every container's place in every network."""
        return [
            (each, container) for container in self.container_by_id.values() for each in container.endpoints
        ]

    @cached_property
    def _endpoints_by_mac(self) -> dict[str, list[tuple[Container, Endpoint]]]:
        found: dict[str, list[tuple[Container, Endpoint]]] = {}
        for endpoint, container in self.endpoints:
            if endpoint.mac:
                found.setdefault(endpoint.mac, []).append((container, endpoint))
        return found

    def container_ref(self, container_id: str) -> ContainerRef | None:
        """A container by id, from the list, or from what the engine's events say of one that is gone."""
        known = self.container_by_id.get(container_id)
        if known is not None:
            return ContainerRef(known.id, known.name, known.image)
        if not container_id:
            return None
        for event in self.events:
            if event.type == "container" and event.container_id == container_id:
                return ContainerRef(container_id, event.container_name, event.image)
        return ContainerRef(container_id, "", "")

    def network_ref(self, network_id: str) -> NetworkRef | None:
        """A network by id, from the list, or from what the engine's events say of one that is gone."""
        known = self.network_by_id.get(network_id)
        if known is not None:
            return NetworkRef(known.id, known.name, known.bridge)
        if not network_id:
            return None
        name = next((event.network_name for event in self.events if event.network_id == network_id), "")
        return NetworkRef(network_id, name, "")

    # The engine's own events

    @cached_property
    def history(self) -> Observation[History]:
        """The engine's events and their reach."""
        return self.host.ask(ask.HISTORY)

    @cached_property
    def events(self) -> list[EngineEvent]:
        """The engine's events by time."""
        found = self.history.fact.events if isinstance(self.history, Observed) else ()
        return sorted(found, key=lambda event: event.at)

    @cached_property
    def _event_times(self) -> list[float]:
        return [event.at for event in self.events]

    def events_between(self, start: float, end: float) -> list[EngineEvent]:
        """The engine's events from start to end, both included."""
        return self.events[bisect_left(self._event_times, start) : bisect_right(self._event_times, end)]

    def covers(self, start: float, end: float) -> bool:
        """Whether the engine's events between the two times are known to be complete."""
        return isinstance(self.history, Observed) and self.history.fact.covers(start, end)

    # Devices

    def place(self, device: str) -> Place:
        """Where a device stands."""
        if device not in self._places:
            self._places[device] = self._follow(device)
        return self._places[device]

    def _follow(self, device: str) -> Place:
        link = self.host.ask(ask.link(device))
        if isinstance(link, Unobservable):
            return Place(Standing.UNSEEN, link, f"the interface: {link.reason}", unseen=link)
        if isinstance(link, Absent):
            return Place(Standing.GONE, link, "no such interface now")
        if self.is_other_product:
            return Place(
                Standing.UNSEEN,
                link,
                "what answers the Docker API is not Docker, and knows none of its bridges",
            )
        # Without the daemon's process the lists could be those of an engine on another host.
        for needed in (self.daemon, self.engine, self.networks, self.containers):
            if isinstance(needed, Unobservable):
                return Place(Standing.UNSEEN, link, needed.reason, unseen=needed)
        if link.fact.kind == "bridge" and device in self.network_by_bridge:
            return Place(Standing.DOCKER_BRIDGE, link, network=self.network_by_bridge[device])
        if link.fact.slave_kind != "bridge" or link.fact.master is None:
            return Place(Standing.NO_PORT, link, "it is a port of no bridge")
        bridge = self.host.ask(ask.link_at(link.fact.master))
        if isinstance(bridge, Unobservable):
            return Place(Standing.UNSEEN, link, f"its bridge: {bridge.reason}", unseen=bridge)
        if isinstance(bridge, Absent):
            return Place(Standing.GONE, link, "its bridge went while we looked")
        network = self.network_by_bridge.get(bridge.fact.name)
        if network is None:
            return Place(
                Standing.OTHER_BRIDGE, link, f"the bridge {bridge.fact.name} is no Docker network's", bridge
            )
        return self._follow_peer(link, bridge, network)

    def _follow_peer(self, link: Observed[Link], bridge: Observed[Link], network: Network) -> Place:
        nsid, ifindex = link.fact.peer_nsid, link.fact.peer_ifindex
        if link.fact.kind != "veth" or ifindex is None:
            return Place(
                Standing.ODD_END,
                link,
                f"it is a {link.fact.kind or 'physical'} device, no veth",
                bridge,
                network,
            )
        if nsid is None:
            return Place(
                Standing.ODD_END,
                link,
                "its other end is in the engine's own network namespace",
                bridge,
                network,
            )
        peer = self.host.ask(ask.peer(nsid, ifindex))
        if not isinstance(peer, Observed):
            unseen = peer if isinstance(peer, Unobservable) else None
            standing = Standing.UNSEEN if unseen else Standing.GONE
            return Place(
                standing, link, "its other end could not be seen", bridge, network, peer, unseen=unseen
            )
        for container, endpoint in self._endpoints_by_mac.get(peer.fact.mac, ()):
            if endpoint.network_id != network.id:
                continue
            life = self.host.ask(ask.life(container.id))
            pid = life.fact.pid if isinstance(life, Observed) else 0
            theirs = self.host.ask(ask.nsid_of(pid)) if pid else life
            if isinstance(theirs, Unobservable):
                return Place(Standing.UNSEEN, link, theirs.reason, bridge, network, peer, unseen=theirs)
            if not pid or isinstance(theirs, Absent):
                # It was in the list, with this address: it has ended since, or is being started again.
                changing = f"container {container.name} was ending or starting while it was being looked at"
                return Place(Standing.UNSEEN, link, changing, bridge, network, peer)
            if theirs.fact == nsid:
                return Place(Standing.CONTAINERS, link, "", bridge, network, peer, container, endpoint, life)
        return Place(
            Standing.ODD_END,
            link,
            f"its other end, {peer.fact.name} with address {peer.fact.mac or 'none'}, is the endpoint of no container",
            bridge,
            network,
            peer,
        )

    # Listeners

    def listeners(self, ifindex: int) -> Observation[PacketSockets]:
        """The sockets that asked for promiscuous mode on an interface, or are bound to it."""
        return self.host.ask(ask.packet_sockets(ifindex))
