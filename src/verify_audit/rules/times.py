"""When the engine connected and disconnected containers, held against records of interfaces that are gone.

Blind spot: a time alone ties no interface to a container.
"""

from __future__ import annotations

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.words import apart, short
from verify_audit.host.facts import EngineEvent
from verify_audit.host.observation import Unobservable
from verify_audit.rules.actor import SYSCALL_REMEDY
from verify_audit.rules.attachments import Attachments
from verify_audit.rules.case import Case
from verify_audit.rules.picture import Picture, Standing
from verify_audit.rules.statement import quoted

EARLY, LATE = 0.02, 2.5
"""Seconds before and after the record within which the engine's own event for it lies. On engines 20.10,
26.1 and 28.5 it follows by 0 to 45 ms, and by up to 1.7 s when many containers start at once; it never
comes first, but the clock of the records ticks in 4 ms."""

APART = 0.05
"""Seconds between two events of the engine from which on the earlier is that of the earlier record."""

SOONER = "judge sooner: from cron every few minutes, or at once when the alert comes"


class Times:
    """The engine's connections by time, and which of them have explained a record. Each explains one."""

    def __init__(self, picture: Picture, attachments: Attachments) -> None:
        self._picture = picture
        self._attachments = attachments
        self._explained: dict[tuple[str, str, float], tuple[str, str]] = {}

    def connections(self, event: Event, action: str) -> list[EngineEvent]:
        """The engine's network events of that kind that lie where one for this record would."""
        near = self._picture.events_between(event.time - EARLY, event.time + LATE)
        found = [each for each in near if each.type == "network" and each.action == action]
        # 20.10 reports one disconnect twice, a few milliseconds apart.
        return list({(each.container_id, each.network_id): each for each in reversed(found)}.values())[::-1]

    def tell(self, case: Case, near: list[EngineEvent], device: str, verb: str, preposition: str) -> None:
        """The device tells nothing any more; what the engine did around that time still may."""
        picture, event = self._picture, case.event
        by_hand = f"docker events --since {event.time - 5:.0f} --until {event.time + 5:.0f}"
        if self._count(case, device, enter=verb == "connected"):
            return
        first = self._next(near, event, device)
        if first is not None:
            container = picture.container_ref(first.container_id)
            network = picture.network_ref(first.network_id)
            case.supports(
                Step.CONTAINER,
                f"the engine {verb} container {container.name if container else '?'} {preposition} network "
                f"{network.name if network else '?'} {apart(first.at, event.time)} the record",
                picture.history,
                by_hand,
                quoted(first),
            )
            if case.actor.is_docker:
                case.container, case.network = container, network
        elif near:
            case.supports(
                Step.CONTAINER,
                f"the engine {verb} {len(near)} containers around the record, of which this may be any",
                picture.history,
                by_hand,
            )
        elif picture.covers(event.time - EARLY, event.time + LATE):
            case.doubts(
                Step.CONTAINER,
                f"the engine's events are complete around the record, and it {verb} no container then",
                picture.history,
                by_hand,
            )
        elif isinstance(picture.history, Unobservable):
            case.could_not_see("the engine's events", picture.history)
        else:
            case.lacks(
                "the engine's events of that time",
                "the engine keeps its last 256 events, and none from before its own start",
                SOONER,
            )
        if not case.actor.is_docker and picture.place(device).standing is Standing.GONE:
            case.lacks(
                f"whose device {device} was", "it is not there any more", f"{SOONER}; or {SYSCALL_REMEDY}"
            )

    def _count(self, case: Case, device: str, *, enter: bool) -> bool:
        """Whether the record is accounted for by being one of just as many as the engine had reason for.

        Where it is recorded who did it, that says only what for.
        """
        recorded = case.event.first("SYSCALL") is not None
        if self._picture.place(device).standing is not Standing.GONE or (
            recorded and not case.actor.is_docker
        ):
            return False
        counted = self._attachments.account(case.event, device, enter=enter)
        if counted is None:
            return False
        moment = counted.moment
        if moment is not None:
            case.container = self._picture.container_ref(moment.container_id)
            case.network = self._picture.network_ref(moment.network_id)
            name = case.container.name or short(case.container.id) if case.container else "a container"
            did = (
                f"the engine {moment.verb} container {name}"
                if moment.verb.endswith("connected")
                else f"container {name} {moment.verb}"
            )
            when = f"{did} {apart(moment.at, case.event.time)} the record"
        else:
            when = (
                f"the engine had {counted.turns} reasons for such records then, and there are {counted.turns}"
            )
        say = case.supports if recorded else case.proves
        say(
            Step.CONTAINER,
            f"{when}; the log lacks nothing around it, and no record is left over that could be somebody else's",
            counted.source,
        )
        return True

    def _next(self, near: list[EngineEvent], event: Event, device: str) -> EngineEvent | None:
        """Which of the engine's events is the record's: the next that no earlier record has had.

        None when there is none, or two so close together that they may have changed places.
        """
        mine = (event.id, device)
        free = [
            each
            for each in near
            if self._explained.get((each.container_id, each.network_id, each.at), mine) == mine
        ]
        if not free or (len(free) > 1 and free[1].at - free[0].at < APART):
            return None
        self.claim((free[0].container_id, free[0].network_id, free[0].at), event, device)
        return free[0]

    def claim(self, key: tuple[str, str, float], event: Event, device: str) -> bool:
        """Whether this record may have a moment of a container and network for itself: each explains one."""
        return self._explained.setdefault(key, (event.id, device)) == (event.id, device)
