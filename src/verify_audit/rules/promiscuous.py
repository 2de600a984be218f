"""Rule `promiscuous`: a network device went into or out of promiscuous mode (ANOM_PROMISCUOUS).

Claim: the Docker engine attached the device to a bridge of one of its networks at that time (enter),
or took it off again (leave). The kernel makes every port of a bridge promiscuous, so each start and
stop of a container writes such a record.

Blind spots: the record is written only when the flag flips, so whoever listens on a device that is
promiscuous already writes nothing (the packet sockets are looked at for that); and it does not say in
which network namespace the device is, only in whose process the change was made.

References: net/core/dev.c __dev_set_promiscuity(); net/bridge/br_if.c br_manage_promisc(); packet(7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from verify_audit.audit.decode import Promiscuous, packet_membership, promiscuous
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import Cause, CauseKind, ContainerRef, Finding, Subject
from verify_audit.findings.verdict import Verdict
from verify_audit.findings.words import apart, short
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container, EngineEvent, Link, Network
from verify_audit.host.observation import Observation, Observed, Unobservable
from verify_audit.rules.actor import SYSCALL_REMEDY, Actors, Relation
from verify_audit.rules.case import Case
from verify_audit.rules.interface import Rule
from verify_audit.rules.listeners import Listeners
from verify_audit.rules.parents import Parents
from verify_audit.rules.picture import Picture, Place, Standing
from verify_audit.rules.statement import denial, from_log, quoted
from verify_audit.rules.times import EARLY, LATE, SOONER, Times

STARTED_EARLY, STARTED_LATE = 0.3, 3.0
"""The same for a container's StartedAt: from 0.1 s before the record (28.5) to 0.4 s after it (20.10, 26.1),
more under load."""


@dataclass(frozen=True, slots=True)
class _Attachment:
    """Which container's connection to which network a device was found to be."""

    container: ContainerRef
    network_id: str


class PromiscuousRule(Rule):
    """Judges ANOM_PROMISCUOUS."""

    name = "promiscuous"

    def __init__(self, picture: Picture, actors: Actors) -> None:
        super().__init__(picture, actors)
        self._attachments: dict[str, _Attachment] = {}
        self._culprits: dict[str, tuple[str, Cause]] = {}
        self._left: dict[str, str] = {}
        self._times = Times(picture, actors.attachments)
        self._listeners = Listeners(picture)
        self._parents = Parents(picture, self._listeners)

    def applies(self, event: Event) -> bool:
        """Whether the event has such a record."""
        return event.first("ANOM_PROMISCUOUS") is not None

    def survey(self, events: Sequence[Event]) -> None:
        """Count them. What one has explained is remembered as they are judged."""
        self.actors.attachments.survey(events)
        self._parents.survey(events)

    def judge(self, event: Event) -> Finding:
        """The event, judged: every device in it."""
        actor = self.actors.of(event, engine_acts_itself=True)
        case = Case(event, actor)
        names: list[str] = []
        enters = False
        for record in event.of_type("ANOM_PROMISCUOUS"):
            change = promiscuous(record)
            if change is None:
                case.lacks(
                    "the device", "the record is cut or of no known form", "look at the log file itself"
                )
                continue
            device = change.device.decode("utf-8", "surrogateescape")
            names.append(device)
            case.names.append(("device", device))
            enters = enters or change.enter
            if change.odd:
                case.doubts(
                    Step.DEVICE,
                    "the device's name holds characters that imitate other fields, which no name of Docker's does",
                    from_log(event, record),
                )
            self._judge_device(case, change, device)
        self._unrecorded_actor(case)
        devices = ", ".join(names) or "a device"
        self._background(case)
        finding = case.finding(
            self.name,
            Subject(device=devices, command=None),
            lambda verdict, cause: self._headline(case, verdict, cause, devices, enters),
            "somebody else, whom nothing recorded",
        )
        self._remember(finding, names, enters)
        return finding

    # One device

    def _judge_device(self, case: Case, change: Promiscuous, device: str) -> None:
        place = self.picture.place(device)
        self._describe(case, place, device)
        if place.unseen is not None:
            case.could_not_see(f"where {device} stands", place.unseen)
        if self.picture.is_other_product:
            case.doubts(Step.ENGINE, "what answers the Docker API is not Docker", self.picture.engine)
        networks = self._parents.networks(device)
        if (
            networks
            and place.standing is Standing.NO_PORT
            and isinstance(place.link, Observed)
            and not place.link.fact.asked_promiscuous
        ):
            of_parent = self._parents.leave if change.leave else self._parents.enter
            of_parent(case, networks, place.link, device)
        elif change.leave:
            self._leave(case, place, device)
        else:
            self._enter(case, place, device)
        if isinstance(place.link, Observed):
            self._listeners.tell(case, place.link, device, enters=not change.leave)

    def _describe(self, case: Case, place: Place, device: str) -> None:
        """What is to be seen of the device now, whatever it means for the event."""
        by_hand = f"ip -d link show dev {quote(device)}"
        link = place.link
        if isinstance(link, Observed):
            case.names.append(("slave", link.fact.slave_kind))
        if isinstance(place.bridge, Observed):
            case.names.append(("bridge", place.bridge.fact.name))
        if not isinstance(link, Observed):
            case.notes(Step.DEVICE, f"{device}: {place.reason}", link, by_hand)
        elif place.standing is Standing.CONTAINERS and place.container and place.network and place.peer:
            case.container = self.picture.container_ref(place.container.id)
            case.network = self.picture.network_ref(place.network.id)
            peer = place.peer.fact.name if isinstance(place.peer, Observed) else "its interface"
            case.notes(
                Step.DEVICE,
                f"{device} is the host's end of {peer} of container {place.container.name} and a port of "
                f"{place.network.bridge}, the bridge of network {place.network.name}",
                place.peer,
                by_hand,
            )
        elif place.standing is Standing.DOCKER_BRIDGE and place.network:
            case.notes(
                Step.DEVICE,
                f"{device} is the bridge of Docker network {place.network.name} itself",
                link,
                by_hand,
            )
        else:
            case.notes(Step.DEVICE, f"{device} is there: {place.reason}", place.bridge or link, by_hand)

    def _enter(self, case: Case, place: Place, device: str) -> None:
        connects = self._times.connections(case.event, "connect")
        match place.standing:
            case Standing.CONTAINERS if place.container and place.network:
                self._attached(case, place, place.container, place.network, device)
            case Standing.ODD_END:
                self._odd_end(case, place, connects)
            case Standing.OTHER_BRIDGE | Standing.NO_PORT | Standing.DOCKER_BRIDGE:
                self._not_attached(case, place, device, connects)
            case _:
                self._times.tell(case, connects, device, "connected", "to")

    def _attached(
        self, case: Case, place: Place, container: Container, network: Network, device: str
    ) -> None:
        """The device is a container's now. Was it attached then?"""
        event, picture = case.event, self.picture
        by_hand = f"docker events --since {event.time - 5:.0f} --until {event.time + 5:.0f}"
        mine = [
            each
            for each in picture.events
            if each.action == "connect"
            and each.container_id == container.id
            and each.network_id == network.id
        ]
        near = [each for each in mine if -EARLY <= each.at - event.time <= LATE]
        if device in self._left:
            case.disproves(
                Step.DEVICE,
                f"{device} had been taken off a bridge before (event {self._left[device]}), and the engine never puts "
                "one back: it deletes it and makes another",
                picture.history,
            )
        elif near:
            if not self._times.claim((container.id, network.id, near[0].at), event, device):
                case.doubts(
                    Step.CONTAINER,
                    "the engine's event that would explain this one has explained an earlier one",
                    picture.history,
                )
                return
            case.supports(
                Step.CONTAINER,
                f"the engine connected container {container.name} to network {network.name} "
                f"{apart(near[0].at, event.time)} the record",
                picture.history,
                by_hand,
                quoted(near[0]),
            )
            self._conclude(case, place, device)
        elif picture.covers(event.time - EARLY, event.time + LATE):
            earlier = [each for each in mine if each.at < event.time - EARLY]
            statement = (
                f"the engine's events are complete around the record, and it connected {container.name} to "
                f"{network.name} at no such time"
            )
            if earlier:
                case.disproves(
                    Step.CONTAINER,
                    f"{statement}: it had done so {apart(earlier[-1].at, event.time)} the record",
                    picture.history,
                    by_hand,
                )
            else:
                case.doubts(Step.CONTAINER, statement, picture.history, by_hand)
        else:
            self._by_start(case, place, container, device)

    def _by_start(self, case: Case, place: Place, container: Container, device: str) -> None:
        """The engine has forgotten its events of that time; when the container started it has not."""
        life, event = place.life, case.event
        by_hand = f"docker inspect -f '{{{{.State.StartedAt}}}}' {quote(short(container.id))}"
        started = life.fact.started_at if isinstance(life, Observed) else None
        if isinstance(self.picture.history, Unobservable):
            # They may speak against it, and then the start settles nothing.
            case.could_not_see("the engine's events", self.picture.history)
            return
        case.lacks(
            "the engine's events of that time",
            "the engine keeps its last 256 events, and none from before its own start",
            SOONER,
        )
        if life is None or started is None:
            return
        if -STARTED_EARLY <= started - event.time <= STARTED_LATE:
            if not self._times.claim(
                (container.id, place.network.id if place.network else "", started), event, device
            ):
                case.doubts(
                    Step.CONTAINER, "the start that would explain this has explained an earlier record", life
                )
                return
            case.supports(
                Step.CONTAINER,
                f"container {container.name} started {apart(started, event.time)} the record",
                life,
                by_hand,
            )
            self._conclude(case, place, device)
        else:
            case.notes(
                Step.CONTAINER,
                f"container {container.name} started {apart(started, event.time)} the record, which explains nothing",
                life,
                by_hand,
            )

    def _conclude(self, case: Case, place: Place, device: str) -> None:
        """All of the state has been seen and fits; without a recorded actor it has to carry the verdict."""
        link = place.link
        if (
            case.actor.relation not in (Relation.UNRECORDED, Relation.UNCERTAIN)
            or not self.picture.is_docker
            or not isinstance(self.picture.daemon, Observed)
            or not isinstance(link, Observed)
        ):
            return
        if not self._listeners.held_once(link.fact, case.event):
            case.doubts(
                Step.LISTENERS,
                f"promiscuous mode is held {link.fact.promiscuity} times on {device}, and the bridge needs it once, "
                "so another holder may have been the first",
                link,
                f"ip -d link show dev {quote(device)} | grep promiscuity",
            )
            return
        case.proves(
            Step.DEVICE,
            f"bridge, network, namespace, address and time of {device} all agree with what the engine says of it, "
            "and nothing but the bridge held promiscuous mode on it then",
            link,
        )

    def _odd_end(self, case: Case, place: Place, connects: list[EngineEvent]) -> None:
        """On a Docker bridge, yet no container's as the engine knows it."""
        if case.actor.is_docker:
            case.warnings.append(f"the device is now {place.standing.value}: {place.reason}")
            return
        link, looked = place.link, list[Observation[Any]]((self.picture.history,))
        for connect in connects:
            life = self.picture.host.ask(ask.life(connect.container_id))
            looked.append(life)
            if not isinstance(life, Observed) or not life.fact.pid:
                continue
            nsid = self.picture.host.ask(ask.nsid_of(life.fact.pid))
            looked.append(nsid)
            if isinstance(nsid, Observed) and isinstance(link, Observed) and nsid.fact == link.fact.peer_nsid:
                case.doubts(
                    Step.DEVICE,
                    f"its other end is in container {short(connect.container_id)}, which was being connected "
                    "then, but has an address that the engine did not give it",
                    place.peer or link,
                )
                return
        unseen = next((each for each in looked if isinstance(each, Unobservable)), None)
        if unseen is not None:
            case.could_not_see("whether the engine was connecting a container with it", unseen)
            case.doubts(
                Step.DEVICE, f"it is a port of a Docker bridge, but {place.reason}", place.peer or link
            )
            return
        case.other = Cause(CauseKind.UNKNOWN, "whoever put it on Docker's bridge by hand")
        case.disproves(
            Step.DEVICE,
            f"it is a port of a Docker bridge that Docker did not put there: {place.reason}",
            place.peer or link,
            "bridge link; docker network inspect",
        )

    def _not_attached(self, case: Case, place: Place, device: str, connects: list[EngineEvent]) -> None:
        """The device is there and stands on no Docker bridge."""
        link = place.link
        if not isinstance(link, Observed):
            return
        if case.actor.is_docker:
            case.warnings.append(f"{device} has been moved since: {place.reason or place.standing.value}")
            self._times.tell(case, connects, device, "connected", "to")
        elif place.standing is Standing.OTHER_BRIDGE and isinstance(self.picture.history, Unobservable):
            case.could_not_see("whether the engine was connecting a container with it", self.picture.history)
            case.doubts(Step.DEVICE, place.reason, place.bridge or link)
        elif place.standing is Standing.OTHER_BRIDGE and not connects:
            bridge = place.bridge.fact.name if isinstance(place.bridge, Observed) else "another"
            case.other = Cause(CauseKind.UNKNOWN, f"whoever put it on the bridge {bridge}")
            case.disproves(
                Step.DEVICE,
                f"{place.reason}, and every port of a bridge is promiscuous",
                place.bridge or link,
            )
        elif link.fact.asked_promiscuous:
            case.other = Cause(CauseKind.UNKNOWN, f"whoever asked for it on {device} itself")
            case.disproves(
                Step.DEVICE,
                f"somebody set promiscuous mode on {device} itself (as `ip link set {device} promisc on` does), which "
                "the engine never asks for",
                link,
                f"ip link show dev {quote(device)}",
            )
        elif place.standing is Standing.DOCKER_BRIDGE:
            self._own_bridge(case, device, link)
        else:
            case.doubts(
                Step.DEVICE,
                "the engine never makes a device that is on none of its bridges promiscuous",
                link,
            )
            if not link.fact.promiscuity:
                case.lacks(
                    "who had made it promiscuous",
                    "it is promiscuous no more, so whoever did it has ended or undone it",
                    f"{SOONER}; or {SYSCALL_REMEDY}",
                )

    def _own_bridge(self, case: Case, device: str, link: Observed[Link]) -> None:
        """The bridge of a Docker network: its ports are made promiscuous, and never the bridge."""
        case.other = Cause(CauseKind.UNKNOWN, f"whoever listened on {device}")
        case.disproves(
            Step.DEVICE,
            f"{device} is itself the bridge of a Docker network: the engine makes no bridge of its own promiscuous, "
            "nor does the kernel for it. Somebody listened on it",
            link,
            "ss -0 -p -n",
        )

    def _leave(self, case: Case, place: Place, device: str) -> None:
        event, picture = case.event, self.picture
        leaves = self._times.connections(event, "disconnect")
        known = self._attachments.get(device)
        if place.standing is Standing.GONE:
            if known is not None and not case.actor.is_other:
                case.container, case.network = known.container, picture.network_ref(known.network_id)
                mine = [
                    each
                    for each in leaves
                    if (each.container_id, each.network_id) == (known.container.id, known.network_id)
                ]
                if mine and picture.is_docker:
                    case.proves(
                        Step.CONTAINER,
                        f"{device} was container {known.container.name}'s, as its own enter record showed; the engine "
                        f"disconnected that {apart(mine[0].at, event.time)} this record, and the device is gone",
                        picture.history,
                        raw=quoted(mine[0]),
                    )
                    return
            self._times.tell(case, leaves, device, "disconnected", "from")
            return
        culprit = self._culprits.get(device)
        if culprit is not None and not leaves:
            case.other = culprit[1]
            case.disproves(
                Step.DEVICE,
                f"it undoes event {culprit[0]}, which was not Docker's, and {device} is still there",
                place.link,
            )
        elif place.standing is Standing.CONTAINERS and place.container:
            case.disproves(
                Step.DEVICE,
                f"{device} is still there and still container {place.container.name}'s: the engine takes a device off "
                "by deleting it",
                place.link,
            )
        elif place.standing is Standing.UNSEEN:
            self._times.tell(case, leaves, device, "disconnected", "from")
        elif place.standing is Standing.DOCKER_BRIDGE and isinstance(place.link, Observed):
            self._own_bridge(case, device, place.link)
        elif not case.actor.is_docker:
            case.doubts(
                Step.DEVICE,
                f"{device} is still there: the engine takes a device off by deleting it",
                place.link,
            )
            case.lacks(
                "who had made it promiscuous", "it has ended or undone it", f"{SOONER}; or {SYSCALL_REMEDY}"
            )

    # Words

    def _unrecorded_actor(self, case: Case) -> None:
        call = case.actor.call
        if call is None:
            case.lacks("who did it", "the event has no SYSCALL record", SYSCALL_REMEDY)
        elif (did := packet_membership(call, case.event.first("SOCKETCALL"))) is not None:
            record = case.event.first("SYSCALL")
            if record is not None:
                case.disproves(
                    Step.ACTOR,
                    f"it was done by {'opening' if did == 'add' else 'closing'} a packet socket's promiscuous mode "
                    "(setsockopt SOL_PACKET), as sniffers do and the engine does not",
                    from_log(case.event, record),
                )

    def _headline(self, case: Case, verdict: Verdict, cause: Cause, devices: str, enters: bool) -> str:
        container = (
            f" for container {case.container.name or short(case.container.id)}" if case.container else ""
        )
        image = f" ({_image(case.container.image)})" if case.container and case.container.image else ""
        network = f" of network {case.network.name}" if case.network else ""
        bridge = f" {case.network.bridge}" if case.network and case.network.bridge else ""
        did = "into" if enters else "out of"
        match verdict:
            case Verdict.CONFIRMED:
                if case.network is not None and not bridge:
                    whose = container.replace(" for ", " and ")
                    return f"Docker put {devices} {did} promiscuous mode for network {case.network.name}{whose}{image}"
                how = f"attached {devices} to" if enters else f"took {devices} off"
                return f"Docker {how} its bridge{bridge}{network}{container}{image}"
            case Verdict.REFUTED:
                return f"{denial(cause)}: {cause.text} put {devices} {did} promiscuous mode"
            case _:
                why = case.missing[0].why if case.missing else "the evidence contradicts itself"
                return f"Cannot tell who put {devices} {did} promiscuous mode: {why}"

    # Memory

    def _remember(self, finding: Finding, devices: list[str], enters: bool) -> None:
        for device in devices:
            if not enters:
                self._left[device] = finding.event.id
            if not enters or finding.verdict is Verdict.INCONCLUSIVE:
                self._attachments.pop(device, None)
                self._culprits.pop(device, None)
            elif finding.verdict is Verdict.REFUTED:
                self._culprits[device] = (finding.event.id, finding.cause)
                self._attachments.pop(device, None)
            elif finding.container is not None and finding.network is not None:
                self._attachments[device] = _Attachment(finding.container, finding.network.id)
                self._culprits.pop(device, None)


def _image(name: str) -> str:
    """An image's name; one that has lost its name goes by an id of 64 digits."""
    return short(name.removeprefix("sha256:")) if name.startswith("sha256:") else name
