"""The report of `rules` for people: chain by chain, each rule with what explains it and who made it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from verify_audit.findings.inventory import Inventory, Origin, Row, Standing
from verify_audit.findings.words import clock
from verify_audit.reports.lines import Line, failures, rendered

_LEADS = {
    Standing.EXPLAINED: ("  · ", ""),
    Standing.UNEXPLAINED: ("  UNEXPLAINED  ", "bold red"),
    Standing.MISSING: ("  MISSING  ", "bold yellow"),
    Standing.UNKNOWN: ("  ? ", "yellow"),
}
_INDENT = "      "


def report(inventory: Inventory, *, colour: bool, width: int | None, quiet: bool = False) -> str:
    """The whole report. width: columns of the terminal, None to leave lines as long as they are.

    quiet: only what is not explained, and nothing at all when everything is.
    """
    rows = [row for row in inventory.rows if not quiet or row.standing is not Standing.EXPLAINED]
    if quiet and not rows and not inventory.unobservable:
        return ""
    lines: list[Line] = []
    for place, there in groupby(rows, lambda row: (row.family, row.table, row.chain)):
        lines.append(Line("", " ".join(place), "bold"))
        for row in there:
            lines.extend(_row(row))
        lines.append(Line(""))
    lines.extend(_closing(inventory))
    return rendered(lines, colour=colour, width=width)


def _row(row: Row) -> Iterator[Line]:
    lead, style = _LEADS[row.standing]
    yield Line(
        lead, "the chain itself" if row.spec is None else row.spec or "(a rule without conditions)", style
    )
    if row.standing is Standing.MISSING:
        yield Line(f"{_INDENT}for: ", row.because)
    else:
        yield Line(_INDENT, f"{row.because} ({_place(row)})", "dim" if not style else "")
    if row.origin is not None:
        yield from _origin(row.origin, "removed" if row.standing is Standing.MISSING else "made", style)


def _place(row: Row) -> str:
    if row.handle is not None:
        return f"{row.backend}, handle {row.handle}"
    if row.chain.startswith("@"):
        return f"{row.backend}, in a verdict map"
    return str(row.backend) if row.position is None else f"{row.backend}, number {row.position}"


def _origin(origin: Origin, done: str, style: str) -> Iterator[Line]:
    event = origin.event
    by = f"may have been {done} by" if origin.doubt else f"{done} by"
    yield Line(
        _INDENT,
        f"{by} {origin.cause.text}, event {event.id}, {clock(event.time)}"
        + (f" ({origin.doubt})" if origin.doubt else ""),
        "" if style else "dim",
    )
    if origin.command and (origin.doubt or done == "removed"):
        yield Line(f"{_INDENT}with: ", origin.command)


def _closing(inventory: Inventory) -> Iterator[Line]:
    number = len(inventory.rows)
    counted = ", ".join(
        f"{count} {words}"
        for standing, words in (
            (Standing.EXPLAINED, "explained"),
            (Standing.UNEXPLAINED, "unexplained"),
            (Standing.MISSING, "missing"),
            (Standing.UNKNOWN, "that cannot be explained without the engine"),
        )
        if (count := inventory.count(standing)) or standing is Standing.EXPLAINED
    )
    yield Line(
        "",
        f"{number} rule{'' if number == 1 else 's'} in Docker's chains or leading there: {counted}",
        "bold",
    )
    if not inventory.logged:
        yield Line("", "there was no audit log to look for events in: name one with --log", "dim")
    if inventory.unread:
        plural = "" if inventory.unread == 1 else "s"
        yield Line(
            "", f"{inventory.unread} line{plural} of the log could not be read as audit records", "yellow"
        )
    yield from failures(inventory.unobservable)
