"""Interfaces that came and went and left nothing to look at, counted against what the engine did.

Each time the engine connects a container to a bridge network the kernel writes one record (enter), and one
when it is disconnected (leave): no record without such a moment, no moment without its record. Where a
log that lacks nothing has exactly as many records as the engine had moments, one close after the other, no
record is left that could be somebody else's. One more, and none of them is accounted for.

The moments are the engine's own events. From before its start it has none; then they are the times at
which the containers that are still there started and finished. A process whose records come out so is the
engine that ran then, for as long as they come out.

Blind spots: a record that the kernel lost or refused to write (auditd(8), backlog and rate limit) leaves no
gap in the serials, and whoever acts at the very moment of a connection whose own record was so lost
leaves the same count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from verify_audit.audit.decode import promiscuous, syscall
from verify_audit.audit.record import Event
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container, Endpoint, EngineEvent, Life, Network
from verify_audit.host.observation import Observation, Observed
from verify_audit.rules.picture import Picture

GAP = 0.15
"""Seconds without a record or a moment that end a group. The engine's event follows its record by 0 to 45 ms;
where it is later than this, the count does not come out, and nothing is said."""

LIFE_GAP = 0.45
"""The same for times of containers: the start lies 0.2 to 0.4 s after the record (20.10, 26.1) or 0.1 s before it
(28.5), the end up to 0.2 s before it."""

TICK = 0.02
"""Seconds by which a moment may seem to come before its record: the clock of the records ticks in 4 ms."""

AROUND = 1.0
"""Seconds before its first and after its last record that comes out within which a process was the engine too: no
pid is used again so soon."""

_UNREAD = -1
_MOST_LIVES = 200
"""Containers that are asked for one by one."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One device of one record.

    pid: of the process that did it, None where nobody was recorded, _UNREAD where the record of it cannot be read.
    """

    event: Event
    device: str
    enter: bool
    pid: int | None

    @property
    def at(self) -> float:
        return self.event.time


@dataclass(frozen=True, slots=True)
class Moment:
    """When the engine connected a container to a bridge network, or disconnected it.

    verb says which in a sentence; source is where the time is from. certain: whether it was a bridge network for
    sure. count: how many interfaces it was about.
    """

    at: float
    container_id: str
    network_id: str
    verb: str
    source: Observation[Any]
    certain: bool = True
    count: int = 1


@dataclass(frozen=True, slots=True)
class Counted:
    """What accounts for one record: the moment, None where several were so close that it may be any of them."""

    moment: Moment | None
    source: Observation[Any]
    turns: int


class Attachments:
    """The promiscuous records of one log, and the moments of one engine that account for them."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._turns: list[_Turn] = []

    def survey(self, events: Sequence[Event]) -> None:
        """See all events with such records."""
        for event in events:
            record = event.first("SYSCALL")
            call = syscall(record) if record is not None else None
            pid = None if record is None else call.pid if call is not None else _UNREAD
            for each in event.of_type("ANOM_PROMISCUOUS"):
                change = promiscuous(each)
                device = change.device.decode("utf-8", "surrogateescape") if change is not None else ""
                # One that cannot be read may be of either kind: it is counted as both.
                for enter in (True, False):
                    if change is None or change.enter is enter:
                        self._turns.append(_Turn(event, device, enter, pid))

    def account(self, event: Event, device: str, *, enter: bool) -> Counted | None:
        """What accounts for a record."""
        return self._counted.get((id(event), device, enter))

    def was_engine(self, pid: int, time: float) -> bool:
        """Whether a process that is gone was the engine at that time, before today's was started."""
        span = self._predecessors.get(pid)
        return span is not None and span[0] - AROUND <= time <= span[1] + AROUND

    @cached_property
    def _counted(self) -> dict[tuple[int, str, bool], Counted]:
        found: dict[tuple[int, str, bool], Counted] = {}
        for turns, moments in self._groups():
            if len({turn.pid for turn in turns}) > 1 or any(turn.device in self._handled for turn in turns):
                continue
            for place, turn in enumerate(turns):
                own = moments[place] if len(turns) == 1 else None
                found[id(turn.event), turn.device, turn.enter] = Counted(own, moments[0].source, len(turns))
        return found

    @cached_property
    def _handled(self) -> frozenset[str]:
        """Devices that somebody handled: the engine attaches one once, and takes it off by deleting it."""
        last: dict[str, bool] = {}
        found = set()
        for turn in sorted(self._turns, key=lambda turn: (turn.at, turn.event.serial)):
            before = last.get(turn.device)
            if before is not None and not (before and not turn.enter):
                found.add(turn.device)
            last[turn.device] = turn.enter
        return frozenset(found)

    @cached_property
    def _predecessors(self) -> dict[int, tuple[float, float]]:
        """By pid, the first and the last time at which a process is known to have been an older engine."""
        found: dict[int, tuple[float, float]] = {}
        for turns, _ in self._groups_of_lives:
            pid = turns[0].pid
            if pid is not None and pid != _UNREAD:
                first, last = found.get(pid, (turns[0].at, turns[0].at))
                found[pid] = min(first, turns[0].at), max(last, turns[-1].at)
        return found

    def _groups(self) -> Iterable[tuple[list[_Turn], list[Moment]]]:
        if not self._picture.is_docker:
            return
        for enter, action, verb in ((True, "connect", "connected"), (False, "disconnect", "disconnected")):
            moments = self._moments(action, verb)
            for turns, near in _grouped(self._of(enter), moments, GAP):
                if self._comes_out(turns, near, GAP) and self._picture.covers(
                    turns[0].at - GAP, turns[-1].at + GAP
                ):
                    yield turns, near
        yield from self._groups_of_lives

    @cached_property
    def _groups_of_lives(self) -> list[tuple[list[_Turn], list[Moment]]]:
        began = self._engine_began
        if began is None or not self._picture.is_docker:
            return []
        old = {enter: [turn for turn in self._of(enter) if turn.at < began] for enter in (True, False)}
        lives = self._lives if any(old.values()) else []
        found = []
        starts = self._of_lives(lives, "started", lambda life: life.started_at)
        ends = self._of_lives(lives, "finished", lambda life: life.finished_at)
        for enter, moments in ((True, starts), (False, ends)):
            for turns, near in _grouped(old[enter], moments, LIFE_GAP):
                of_one = len({turn.pid for turn in turns}) == 1
                if of_one and self._comes_out(turns, near, LIFE_GAP, ordered=False):
                    found.append((turns, near))
        return found

    def _of(self, enter: bool) -> list[_Turn]:
        return [turn for turn in self._turns if turn.enter is enter]

    @cached_property
    def _engine_began(self) -> float | None:
        daemon = self._picture.daemon
        return daemon.fact.process.started_at if isinstance(daemon, Observed) else None

    def _comes_out(
        self, turns: list[_Turn], moments: list[Moment], gap: float, *, ordered: bool = True
    ) -> bool:
        """Whether a group has as many records as moments, each moment behind its record, and the log lacks none."""
        serials = self._picture.serials
        if (
            serials is None
            or not turns
            or sum(moment.count for moment in moments) != len(turns)
            or not all(moment.certain for moment in moments)
        ):
            return False
        if ordered and any(moment.at < turn.at - TICK for turn, moment in zip(turns, moments, strict=True)):
            return False
        return serials.whole(turns[0].event.node, turns[0].at - gap, turns[-1].at + gap)

    # Moments

    def _moments(self, action: str, verb: str) -> list[Moment]:
        found: list[Moment] = []
        for event in self._picture.events:
            if event.type != "network" or event.action != action or event.driver in _NO_RECORD:
                continue
            before = found[-1] if found else None
            # 20.10 reports one disconnect twice, a few milliseconds apart.
            if before is None or not _same(before, event):
                certain = event.driver == "bridge"
                source = self._picture.history
                found.append(Moment(event.at, event.container_id, event.network_id, verb, source, certain))
        return found

    @cached_property
    def _lives(self) -> list[tuple[Container, Observed[Life]]]:
        """When each container last ran; empty when there are too many, or one cannot be asked for."""
        containers = list(self._picture.container_by_id.values())
        found = []
        for container in containers if len(containers) <= _MOST_LIVES else ():
            life = self._picture.host.ask(ask.life(container.id))
            if not isinstance(life, Observed):
                return []
            found.append((container, life))
        return found

    def _of_lives(
        self,
        lives: list[tuple[Container, Observed[Life]]],
        verb: str,
        time: Callable[[Life], float | None],
    ) -> list[Moment]:
        found = []
        for container, life in lives:
            at = time(life.fact)
            networks = [self._network(endpoint) for endpoint in container.endpoints]
            bridged = [each.id for each in networks if each is not None and each.driver == "bridge"]
            certain = None not in networks and not container.network_mode.startswith("container:")
            if at is not None and (bridged or not certain):
                network = bridged[0] if len(bridged) == 1 else ""
                found.append(Moment(at, container.id, network, verb, life, certain, len(bridged)))
        return sorted(found, key=lambda moment: moment.at)

    def _network(self, endpoint: Endpoint) -> Network | None:
        """An endpoint's network; None where that is gone."""
        network = self._picture.network_by_id.get(endpoint.network_id)
        if network is None and endpoint.network_name == "bridge":
            # The default network, which has a new id after each start of the engine.
            networks = self._picture.network_by_id.values()
            network = next((each for each in networks if each.name == "bridge"), None)
        return network


_NO_RECORD = ("host", "null")
"""Drivers of networks that have no interface of a container's: `--network host` and `none`."""


def _same(before: Moment, event: EngineEvent) -> bool:
    return (before.container_id, before.network_id) == (event.container_id, event.network_id) and (
        event.at - before.at < GAP
    )


def _grouped(
    turns: list[_Turn], moments: list[Moment], gap: float
) -> Iterable[tuple[list[_Turn], list[Moment]]]:
    """Records and moments that lie close together, each group by time."""
    group: tuple[list[_Turn], list[Moment]] = ([], [])
    last: float | None = None
    items: list[_Turn | Moment] = [*turns, *moments]
    for item in sorted(items, key=lambda item: item.at):
        if last is not None and item.at - last > gap:
            yield group
            group = ([], [])
        if isinstance(item, _Turn):
            group[0].append(item)
        else:
            group[1].append(item)
        last = item.at
    if group[0]:
        yield group
