"""From records to events.

An event is closed, as ausearch(8) does it, by its PROCTITLE or EOE record, or when its host's log is
2 s further on. Events come out in the order of their first records, so a closed one waits for those
before it. While it waits a record of its own may still join it; that changes nothing for the worse.

A record whose event has come out already is late. It is counted in Losses and dropped: as an event of
its own it would be judged a second time, and without its companions. Its event can thus be judged on
less than the log holds, which is why the count belongs in every report. The ids of the last events
that came out are remembered for that, a fixed number of them; a record later than that starts an
event again.

References:
    linux-audit/audit-userspace src/ausearch-lol.c: what closes an event, and its 2 s
    auditd(8): EOE is not written to disk
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from verify_audit.audit.parse import Unparsed
from verify_audit.audit.record import Event, Record
from verify_audit.audit.serials import Serials

CLOSE_AFTER_MS = 2_000
"""Milliseconds of log time after which nothing more is awaited for an event."""

CLOCK_STEP_MS = 60_000
"""A log that goes back by more than this was written across a reboot or a set clock."""

MAX_PENDING_EVENTS = 10_000
MAX_PENDING_BYTES = 64 * 1024 * 1024
MAX_RECORDS = 4_096
"""Per event. An EXECVE with the longest command line that the kernel takes stays below it."""

REMEMBERED = 16_384
"""Events that came out and are still known by their id."""


@dataclass(slots=True)
class Losses:
    """What was read and did not make it into an event. Counts lines.

    samples are the first few, with the reason, cut to 200 bytes. serials are those that the log holds.
    """

    unparsed: int = 0
    late: int = 0
    excess: int = 0
    samples: list[Unparsed] = field(default_factory=list)
    serials: Serials = field(default_factory=Serials)

    @property
    def total(self) -> int:
        """All lines lost, whatever the reason."""
        return self.unparsed + self.late + self.excess

    def add_unparsed(self, line: Unparsed) -> None:
        """A line that holds no whole record."""
        self.unparsed += 1
        self._sample(line.line, line.reason)

    def add_late(self, record: Record) -> None:
        """A record that came when its event had been given out."""
        self.late += 1
        self._sample(record.raw, "came after its event was closed")

    def add_excess(self, record: Record) -> None:
        """A record beyond the number that one event may hold."""
        self.excess += 1
        self._sample(record.raw, "more records than one event may hold")

    def _sample(self, line: bytes, reason: str) -> None:
        if len(self.samples) < 5:
            self.samples.append(Unparsed(line[:200], reason))


def assemble(records: Iterable[Record | Unparsed], losses: Losses | None = None) -> Iterator[Event]:
    """The events that the records make up, in the order of their first records.

    Records of different events may be interleaved. Memory is bounded: when more than
    MAX_PENDING_EVENTS or MAX_PENDING_BYTES wait, the oldest comes out as it is.
    """
    assembly = _Assembly(Losses() if losses is None else losses)
    for record in records:
        if isinstance(record, Unparsed):
            assembly.losses.add_unparsed(record)
            continue
        assembly.add(record)
        while (event := assembly.next_closed()) is not None:
            yield event
    for group in assembly.order:
        yield group.event()


_Key = tuple[str | None, int, int, int]
_LAST = frozenset(("PROCTITLE", "EOE"))


class _Group:
    """The records of one event so far. at is its time in milliseconds."""

    __slots__ = ("at", "closed", "key", "records")

    def __init__(self, key: _Key, at: int) -> None:
        self.key = key
        self.at = at
        self.closed = False
        self.records: list[Record] = []

    def event(self) -> Event:
        return Event(*self.key, tuple(self.records))


class _Assembly:
    """The events that wait, by key and in the order of their first records, and how far each host's log is.

    Not dicts alone: taking the first item of a dict again and again walks over all that were removed.
    """

    __slots__ = ("clocks", "done", "held", "losses", "order", "pending")

    def __init__(self, losses: Losses) -> None:
        self.losses = losses
        self.pending: dict[_Key, _Group] = {}
        self.order: deque[_Group] = deque()
        self.clocks: dict[str | None, int] = {}
        self.done: OrderedDict[_Key, None] = OrderedDict()
        self.held = 0

    def add(self, record: Record) -> None:
        key = (record.node, record.seconds, record.millis, record.serial)
        group = self.pending.get(key)
        if group is None:
            if key in self.done:
                # An EOE behind the PROCTITLE that closed its event is in order, and says nothing.
                if record.type != "EOE":
                    self.losses.add_late(record)
                return
            now = record.seconds * 1000 + record.millis
            self._advance(record.node, now)
            if not record.type.startswith("DAEMON_"):  # auditd counts its own by itself
                self.losses.serials.add(record.node, record.serial, now)
            group = self.pending[key] = _Group(key, now)
            self.order.append(group)
        elif len(group.records) >= MAX_RECORDS:
            self.losses.add_excess(record)
            return
        group.records.append(record)
        self.held += len(record.raw)
        if record.type in _LAST:
            group.closed = True

    def next_closed(self) -> Event | None:
        """The event that is next in order, if it is closed."""
        if not self.order:
            return None
        oldest = self.order[0]
        if not (
            oldest.closed
            or self.clocks[oldest.key[0]] - oldest.at > CLOSE_AFTER_MS
            or len(self.pending) > MAX_PENDING_EVENTS
            or self.held > MAX_PENDING_BYTES
        ):
            return None
        self.order.popleft()
        del self.pending[oldest.key]
        for record in oldest.records:
            self.held -= len(record.raw)
        self.done[oldest.key] = None
        if len(self.done) > REMEMBERED:
            self.done.popitem(last=False)
        return oldest.event()

    def _advance(self, node: str | None, now: int) -> None:
        clock = self.clocks.get(node)
        if clock is None or now > clock:
            if len(self.clocks) > MAX_PENDING_EVENTS:
                waiting = {key[0] for key in self.pending}
                self.clocks = {name: at for name, at in self.clocks.items() if name in waiting}
            self.clocks[node] = now
        elif clock - now > CLOCK_STEP_MS:
            self.clocks[node] = now
            for group in self.order:
                if group.key[0] == node:
                    group.closed = True
