"""What was expected and what was said, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.live.score import Case, Score


@dataclass(frozen=True)
class Row:
    """One expectation of one scenario; foreign: events of others in the same stretch of the log."""

    case: Case
    expected: frozenset[str]
    ok: bool
    foreign: int = 0

    def cells(self) -> tuple[str, ...]:
        """As text."""
        case = self.case
        counts = Counter(said.verdict for said in case.said)
        return (
            case.scenario,
            case.engine,
            case.backend,
            "yes" if case.companions else "no",
            case.what,
            " or ".join(sorted(self.expected)) or "nothing to judge",
            ", ".join(f"{verdict} x{count}" if count > 1 else verdict for verdict, count in counts.items())
            or "-",
            "ok" if self.ok else "WRONG",
        )


@dataclass
class Tally:
    """What a run has come to: its rows, and which scenarios could not be played, with the reason."""

    rows: list[Row] = field(default_factory=list)
    unplayed: list[str] = field(default_factory=list)

    def score(self) -> Score:
        """What there is to be counted."""
        return Score(
            [row.case for row in self.rows if row.case.said],
            frozenset(row.case.scenario for row in self.rows),
            self.unplayed,
        )


_TITLES = ("scenario", "engine", "firewall", "companions", "event", "expected", "got", "")


def table(rows: Iterable[Row]) -> list[str]:
    """The lines, and a last one with what was counted."""
    listed = list(rows)
    cells = [_TITLES, *(row.cells() for row in listed)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_TITLES))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    got = Counter(said.verdict for row in listed for said in row.case.said)
    wrong = sum(not row.ok for row in listed)
    foreign = sum(row.foreign for row in listed)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(got.items()))
    lines.append(f"{counted}; {wrong} rows wrong; {foreign} events of others in the same log left out")
    return [line.rstrip() for line in lines]
