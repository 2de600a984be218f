"""What the engine did around the time of a change of the firewall, by its own events."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property

from verify_audit.findings.words import short
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container, EngineEvent
from verify_audit.host.observation import Observed
from verify_audit.rules.picture import Picture
from verify_audit.rules.statement import quoted

BEFORE, AFTER = 3.0, 5.0
"""Seconds before and after a change of the firewall within which an event of the engine's explains it:
rules are set before the `network create` or `connect` event, a container's own after it."""

DEATH, FOLLOW = 0.2, 2.5
"""Seconds within which the engine's own event for a change must lie, where nothing else says that it was the
engine's: a container's death comes up to 0.2 s before the change, all else follows it, by up to 1.7 s."""

CLOSE = (0.1, 1.0)
"""Seconds within which the engine's events name what a change was for, if they agree; the second when there
is none within the first."""

_ACTIONS = frozenset(
    (
        "connect",
        "disconnect",
        "create",
        "destroy",
        "start",
        "die",
        "stop",
        "kill",
        "restart",
        "remove",
        "update",
    )
)


TICK = 0.02
"""Seconds by which an event of the engine may seem to come before a record that it follows."""

_CHANGING = frozenset(
    (
        *(
            ("network", action)
            for action in ("create", "destroy", "connect", "disconnect", "remove", "update")
        ),
        *(("container", action) for action in ("start", "die", "restart")),
    )
)


class Activity:
    """The engine's events that go with changes of the firewall, by time."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._told: dict[int, tuple[str, str]] = {}
        self._names: dict[tuple[int, int], tuple[set[str], set[str]]] = {}

    @cached_property
    def _events(self) -> list[EngineEvent]:
        return [
            each
            for each in self._picture.events
            if each.type in ("network", "container") and each.action in _ACTIONS
        ]

    @cached_property
    def _times(self) -> list[float]:
        return [each.at for each in self._events]

    def is_around(self, time: float) -> bool:
        """Whether there is one within BEFORE and AFTER of a time."""
        at = bisect_left(self._times, time - BEFORE)
        return at < len(self._times) and self._times[at] <= time + AFTER

    def around(self, time: float) -> list[EngineEvent]:
        """Those within BEFORE and AFTER of a time, the earliest first."""
        return self._events[bisect_left(self._times, time - BEFORE) : bisect_right(self._times, time + AFTER)]

    def explaining(self, time: float) -> list[EngineEvent]:
        """Those that a change at that time could be for: it is followed by its event, or follows a death."""
        start, end = bisect_left(self._times, time - DEATH), bisect_right(self._times, time + FOLLOW)
        return [
            each
            for each in self._events[start:end]
            if (each.type, each.action) in _CHANGING and (each.at >= time - TICK or each.action == "die")
        ]

    def silent(self, time: float) -> bool:
        """Whether there is none of these, and none can be missing."""
        return not self.explaining(time) and self._picture.covers(time - DEATH, time + FOLLOW)

    def nearest(self, time: float) -> EngineEvent:
        """The nearest to a time; there must be one."""
        after = bisect_left(self._times, time)
        return min(self._events[max(0, after - 1) : after + 1], key=lambda each: abs(each.at - time))

    def covers(self, time: float) -> bool:
        """Whether none around that time can be missing."""
        return self._picture.covers(time - BEFORE, time + AFTER)

    def close(self, time: float) -> tuple[set[str], set[str]]:
        """The ids of the networks and of the containers of the events that lie closest to a time."""
        for distance in CLOSE:
            start, end = bisect_left(self._times, time - distance), bisect_right(self._times, time + distance)
            if start < end:
                return self._named(start, end)
        return set(), set()

    def _named(self, start: int, end: int) -> tuple[set[str], set[str]]:
        named = self._names.get((start, end))
        if named is None:
            found = self._events[start:end]
            named = self._names[start, end] = (
                {each.network_id for each in found if each.network_id},
                {each.container_id for each in found if each.container_id},
            )
        return named

    def starting(self, time: float) -> list[Container]:
        """The running containers that the engine was starting or connecting around a time."""
        actions = ("connect", "start", "create", "restart")
        ids = {each.container_id for each in self.around(time) if each.action in actions}
        containers = [each for each in self._picture.container_by_id.values() if each.running]
        if not self.covers(time):
            for container in containers:
                life = self._picture.host.ask(ask.life(container.id))
                started = life.fact.started_at if isinstance(life, Observed) else None
                if started is not None and -BEFORE <= started - time <= AFTER:
                    ids.add(container.id)
        return [each for each in containers if each.id in ids]

    def told(self, event: EngineEvent) -> tuple[str, str]:
        """An event of these in words, and as raw text; each is told of many changes."""
        told = self._told.get(id(event))
        if told is None:
            told = self._told[id(event)] = (self._words(event), quoted(event))
        return told

    def _words(self, event: EngineEvent) -> str:
        """An event as it is named in a sentence: "container start of web", "network create (network back)"."""
        container = self._picture.container_ref(event.container_id)
        network = self._picture.network_ref(event.network_id)
        name = container.name or short(container.id) if container else ""
        what = f"{event.type} {event.action}" + (f" of {name}" if name else "")
        return what + (f" (network {network.name})" if network is not None else "")
