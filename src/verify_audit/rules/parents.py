"""Parent interfaces: the cards that Docker's macvlan and ipvlan networks stand on.

A macvlan in mode passthru makes its parent promiscuous when it goes up, one of another mode (and an ipvlan) when the
parent's driver cannot filter by address. The engine sets it up in a container's namespace, between its events
`network connect` and `container start`; by `docker network connect` right before the first. So then Docker is the cause
of a promiscuous network card.

Blind spots: without a SYSCALL record, a sniffer that began between these two events, before the engine's interface, and
has ended since had the record for itself. It gained nothing: behind the engine's record it would have written none.

References: drivers/net/macvlan.c macvlan_open(); net/core/dev.c __dev_set_rx_mode(); moby
libnetwork/drivers/macvlan/macvlan_joinleave.go, libnetwork/osl/interface_linux.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import NamedTuple

from verify_audit.audit.decode import promiscuous
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.words import apart
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container, EngineEvent, Link, Network, Stack
from verify_audit.host.ledger import Holder
from verify_audit.host.observation import Observation, Observed, Unobservable
from verify_audit.rules.actor import SYSCALL_REMEDY
from verify_audit.rules.case import Case
from verify_audit.rules.listeners import Listeners
from verify_audit.rules.picture import Picture
from verify_audit.rules.statement import quoted

CONNECTED, STARTED = 3.0, 2.5
"""Seconds before the record from which the engine's `network connect` may be for it, and after it until which its
`container start` may be. On 20.10 the first comes 0.23 s before it and the second 0.04 s after."""

TICK = 0.02
"""Seconds by which the order of a record and an event of the engine's may be wrong."""

_DRIVERS = ("macvlan", "ipvlan")


class _Moment(NamedTuple):
    """When the engine set up an interface for a container: its `network connect`, and until when it was at it."""

    container: Container
    network: Network
    connected: EngineEvent
    until: float


class Parents:
    """The parent interfaces on one host, as evidence on a device."""

    def __init__(self, picture: Picture, listeners: Listeners) -> None:
        self._picture = picture
        self._listeners = listeners
        self._explained: dict[str, tuple[Container, Network]] = {}
        self._entered: dict[str, list[float]] = {}

    def survey(self, events: Sequence[Event]) -> None:
        """Note when devices went into promiscuous mode by nobody recorded."""
        for event in events:
            if event.first("SYSCALL") is None:
                for change in map(promiscuous, event.of_type("ANOM_PROMISCUOUS")):
                    if change is not None and change.enter:
                        name = change.device.decode("utf-8", "surrogateescape")
                        self._entered.setdefault(name, []).append(event.time)

    def networks(self, device: str) -> list[Network]:
        """Docker's networks that stand on a device, or on a VLAN of it ("eth0.10")."""
        if not self._picture.is_docker:
            return []
        parents = ((each, each.option("parent") or "") for each in self._picture.network_by_id.values())
        return [
            network
            for network, parent in parents
            if network.driver in _DRIVERS and (parent == device or parent.startswith(f"{device}."))
        ]

    def enter(self, case: Case, networks: list[Network], link: Observed[Link], device: str) -> None:
        """The device went into promiscuous mode: was it for one of these networks?"""
        names = ", ".join(network.name for network in networks)
        case.notes(Step.DEVICE, f"{device} is the parent of Docker's network {names}", self._picture.networks)
        found = self._moment(case.event.time, networks)
        if found is not None:
            container, network, near = found.container, found.network, found.connected
            case.container = self._picture.container_ref(container.id)
            case.network = self._picture.network_ref(network.id)
            case.supports(
                Step.CONTAINER,
                f"the engine connected container {container.name} to network {network.name} "
                f"{apart(near.at, case.event.time)} the record",
                self._picture.history,
                f"docker events --since {case.event.time - 5:.0f} --until {case.event.time + 5:.0f}",
                quoted(near),
            )
        if case.actor.is_docker or case.actor.is_other:
            if case.actor.is_docker and len(networks) == 1:
                case.network = self._picture.network_ref(networks[0].id)
            return
        if found is None or not self._conclude(case, found, link, device):
            case.lacks(
                f"whether network {names} did it",
                f"{device} is its parent, and what the engine and the kernel say now does not show that it did it then",
                SYSCALL_REMEDY,
            )

    def _conclude(self, case: Case, moment: _Moment, link: Observed[Link], device: str) -> bool:
        """Whether all of the state has been seen and fits."""
        time, container, network = case.event.time, moment.container, moment.network
        # Before its start the engine did nothing.
        begin = max(time - CONNECTED, self._picture.started_before(time) or 0.0)
        if not self._picture.covers(begin, time + STARTED):
            return False
        first, last = min(moment.connected.at, time) - TICK, max(moment.until, time) + TICK
        serials = self._picture.serials
        if serials is None or not serials.whole(case.event.node, first, last):
            return False  # there may have been another record
        if sum(first <= each <= last for each in self._entered.get(device, ())) != 1:
            return False  # one of them is somebody else's, and no one can tell which
        stack = self._picture.host.ask(ask.stack(link.fact.ifindex))
        if not self._stands(stack, container, network):
            if isinstance(stack, Unobservable):
                case.could_not_see(f"what stands on {device}", stack)
            return False
        held = self._listeners.ledger(link.fact)
        others = [hold for hold in held.holds if hold.holder not in (Holder.UPPER, Holder.ADDRESS)]
        if held.count != 1 or others or held.unexplained:
            case.doubts(
                Step.LISTENERS,
                f"promiscuous mode is held {held.count} times on {device}, and not by Docker's {network.driver} alone",
                link,
                f"ip -d link show dev {quote(device)}",
            )
            return False
        self._explained[device] = (container, network)
        case.proves(
            Step.DEVICE,
            f"a {network.driver} of network {network.name} with the address of container {container.name}, in its "
            f"namespace, stands on {device} and is all that can hold promiscuous mode on it",
            stack,
            f"ip -d link show dev {quote(device)}",
        )
        return True

    def leave(self, case: Case, networks: list[Network], link: Observed[Link], device: str) -> None:
        """The device went out of promiscuous mode: did a container leave one of these networks?"""
        time = case.event.time
        ids = {network.id for network in networks}
        near = [
            each
            for each in self._picture.events_between(time - CONNECTED, time + STARTED)
            if each.type == "network" and each.action == "disconnect" and each.network_id in ids
        ]
        if near:
            nearest = min(near, key=lambda each: abs(each.at - time))
            case.container = self._picture.container_ref(nearest.container_id)
            case.network = self._picture.network_ref(nearest.network_id)
            name = case.container.name if case.container else "?"
            statement = (
                f"the engine disconnected container {name} from a network that has {device} as its parent "
                f"{apart(nearest.at, time)} the record"
            )
            known = self._explained.get(device)
            if known is not None and known[0].id == nearest.container_id and not link.fact.promiscuity:
                case.proves(
                    Step.CONTAINER,
                    f"{statement}, whose {known[1].driver} had made it promiscuous, as that record showed; it is so no "
                    "more",
                    self._picture.history,
                    raw=quoted(nearest),
                )
            else:
                case.supports(Step.CONTAINER, statement, self._picture.history, raw=quoted(nearest))
        if not case.actor.is_docker and not case.actor.is_other:
            case.lacks(
                "who had made it promiscuous",
                f"{device} is the parent of Docker's network, and what is left does not show it",
                SYSCALL_REMEDY,
            )

    def _moment(self, time: float, networks: list[Network]) -> _Moment | None:
        """The container that the engine was connecting to one of these networks; None when there are none or more."""
        by_id = {network.id: network for network in networks}
        near = self._picture.events_between(time - CONNECTED, time + STARTED)
        started = {
            each.container_id: each.at for each in near if (each.type, each.action) == ("container", "start")
        }
        found: dict[str, _Moment] = {}
        for each in near:
            container = self._picture.container_by_id.get(each.container_id)
            network = by_id.get(each.network_id)
            if each.type != "network" or each.action != "connect" or container is None or network is None:
                continue
            # Set up at the start of the container, after the event; or at once, before it.
            start = started.get(container.id, each.at)
            if max(each.at, start) >= time - TICK:
                found[container.id] = _Moment(container, network, each, max(each.at, start))
        return next(iter(found.values())) if len(found) == 1 else None

    def _stands(self, stack: Observation[Stack], container: Container, network: Network) -> bool:
        """Whether an interface of the container's, with its address in the network, stands on the device."""
        life = self._picture.host.ask(ask.life(container.id))
        if not isinstance(stack, Observed) or not isinstance(life, Observed) or not life.fact.pid:
            return False
        nsid = self._picture.host.ask(ask.nsid_of(life.fact.pid))
        macs = {each.mac for each in container.endpoints if each.network_id == network.id}
        return isinstance(nsid, Observed) and any(
            upper.nsid == nsid.fact and upper.link.kind == network.driver and upper.link.mac in macs
            for upper in stack.fact.uppers
        )
