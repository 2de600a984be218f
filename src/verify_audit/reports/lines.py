"""What the reports for people are made of: styled lines, which become plain text, or what a terminal shows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import wrap

from verify_audit.host.observation import Unobservable
from verify_audit.reports.printable import columns, shown


@dataclass(frozen=True, slots=True)
class Line:
    """One line before it is wrapped: a lead that stays, a text that wraps beneath it, and its style."""

    lead: str
    text: str = ""
    style: str = ""


def failures(unobservable: Iterable[Unobservable]) -> Iterator[Line]:
    """What could not be looked at, and what to do about it."""
    for failure in unobservable:
        yield Line(
            "could not look: ",
            f"{failure.provenance.source}, {failure.provenance.query}: {failure.reason}",
            "yellow",
        )
        if failure.remedy:
            yield Line("  next time: ", failure.remedy, "dim")


def rendered(lines: Iterable[Line], *, colour: bool, width: int | None) -> str:
    """The lines as they are printed. width: columns of the terminal, None to leave lines as long as they are."""
    return _coloured(lines, width) if colour else _plain(lines, width)


def _wrapped(line: Line, width: int | None) -> list[str]:
    lead, text = line.lead, shown(line.text)
    if width is None or len(lead) + columns(text) <= width:
        return [(lead + text).rstrip()]
    # A command is for copying: it stays on one line, whatever the terminal makes of it.
    if lead.endswith("$ "):
        return [lead + text]
    rows = _rows(text, max(20, width - len(lead))) or [""]
    return [lead + rows[0], *(" " * len(lead) + row for row in rows[1:])]


def _rows(text: str, width: int) -> list[str]:
    """The text in rows of that many columns, broken at blanks where it can be."""
    if columns(text) == len(text):
        return wrap(text, width, break_on_hyphens=False)
    # wrap() counts characters: one that takes two columns is given a second, which no printable text holds.
    doubled = "".join(each + "\0" * (columns(each) - 1) for each in text)
    rows = wrap(doubled, width - 1, break_on_hyphens=False)
    return [row.replace("\0", "") for row in rows]


def _plain(lines: Iterable[Line], width: int | None) -> str:
    return "".join(row + "\n" for line in lines for row in _wrapped(line, width))


def _coloured(lines: Iterable[Line], width: int | None) -> str:
    from rich.console import Console  # 40 ms, and a pipe has no use for it
    from rich.text import Text

    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        no_color=False,  # whether to is the caller's to decide, not the environment's
        width=10_000,
        legacy_windows=False,
    )
    for line in lines:
        for row in _wrapped(line, width):
            # Text, not markup: what comes from the log must not be read as any.
            console.print(Text(row, style=line.style), no_wrap=True, overflow="ignore", crop=False)
    return str(console.file.getvalue())  # type: ignore[attr-defined]
