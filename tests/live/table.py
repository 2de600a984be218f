"""What was expected and what was said, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One expectation of one scenario."""

    scenario: str
    engine: str
    backend: str
    companions: bool
    what: str
    expected: frozenset[str]
    got: Sequence[str]
    ok: bool
    foreign: int = 0

    def cells(self) -> tuple[str, ...]:
        """As text."""
        counts = Counter(self.got)
        return (
            self.scenario,
            self.engine,
            self.backend,
            "yes" if self.companions else "no",
            self.what,
            " or ".join(sorted(self.expected)) or "nothing to judge",
            ", ".join(f"{verdict} x{count}" if count > 1 else verdict for verdict, count in counts.items())
            or "-",
            "ok" if self.ok else "WRONG",
        )


_TITLES = ("scenario", "engine", "firewall", "companions", "event", "expected", "got", "")


def table(rows: Iterable[Row]) -> list[str]:
    """The lines, and a last one with what was counted."""
    listed = list(rows)
    cells = [_TITLES, *(row.cells() for row in listed)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_TITLES))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    got = Counter(verdict for row in listed for verdict in row.got)
    wrong = sum(not row.ok for row in listed)
    foreign = sum(row.foreign for row in listed)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(got.items()))
    lines.append(f"{counted}; {wrong} rows wrong; {foreign} events of others in the same log left out")
    return [line.rstrip() for line in lines]
