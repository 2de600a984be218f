"""Which serials a log holds: whether anything can be missing from a part of it.

The kernel numbers the events of a boot one by one (kernel/audit.c, audit_serial()). A log that somebody
has filtered, or cut a line from, has gaps; where there is none, nothing that was recorded then is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_RECENT = 16
"""Stretches that a serial may still join: records of different events are interleaved, by a few."""

_MOST = 100_000
"""Stretches that are kept. A log in more pieces than that has been filtered."""


@dataclass(slots=True)
class _Stretch:
    """Serials without a gap, and when the first and last of them were given. Milliseconds since the epoch."""

    first: int
    last: int
    began: int
    ended: int

    def take(self, at: int) -> None:
        self.began = min(self.began, at)
        self.ended = max(self.ended, at)


@dataclass(slots=True)
class Serials:
    """The serials of a log, for each node, as stretches in the order of the log."""

    _stretches: dict[str | None, list[_Stretch]] = field(default_factory=dict)

    def add(self, node: str | None, serial: int, at: int) -> None:
        """An event of the log; at in milliseconds since the epoch."""
        stretches = self._stretches.get(node)
        if stretches is None:
            self._stretches[node] = [_Stretch(serial, serial, at, at)]
            return
        newest = stretches[-1]
        if serial == newest.last + 1:
            newest.last = serial
            newest.take(at)
            if len(stretches) > 1:
                _join(stretches, newest)
            return
        for each in stretches[: -_RECENT - 1 : -1]:
            if each.first - 1 <= serial <= each.last + 1:
                each.first = min(each.first, serial)
                each.last = max(each.last, serial)
                each.take(at)
                _join(stretches, each)
                return
        if len(stretches) < _MOST:
            stretches.append(_Stretch(serial, serial, at, at))

    def whole(self, node: str | None, start: float, end: float) -> bool:
        """Whether the log has all that was recorded on a node between two times (seconds since the epoch).

        It must begin before the first. It may end before the second: then there was no more when it was read.
        """
        stretches = self._stretches.get(node, [])
        if len(stretches) >= _MOST:
            return False
        since, until = round(start * 1000), round(end * 1000)
        end_of_log = max((each.ended for each in stretches), default=0)
        return any(
            each.began <= since and (each.ended >= until or each.ended == end_of_log >= since)
            for each in stretches
        )


def _join(stretches: list[_Stretch], one: _Stretch) -> None:
    """Make one of two stretches where the gap between them has been filled."""
    for other in stretches[: -_RECENT - 1 : -1]:
        if other is not one and (one.last + 1 == other.first or other.last + 1 == one.first):
            one.first = min(one.first, other.first)
            one.last = max(one.last, other.last)
            one.take(other.began)
            one.take(other.ended)
            stretches.remove(other)
