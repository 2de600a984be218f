"""From the bytes of a log to the events that are looked at. Takes chunks; opens and reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from verify_audit.audit.assemble import Losses, assemble
from verify_audit.audit.parse import Unparsed, parse_line
from verify_audit.audit.record import Event, Record
from verify_audit.audit.select import flagged

MAX_LINE = 1024 * 1024
"""Bytes. The kernel writes at most 8,560 a record (AUDIT_MESSAGE_TEXT_MAX), auditd as much again."""


def lines(chunks: Iterable[bytes]) -> Iterator[bytes | Unparsed]:
    """The lines of a log, without their ends, however it was cut into chunks.

    Only "\\n" ends a line: bytes.splitlines() would also split at a lone "\\r", and its namesake of
    str at the 0x1d of the enriched format. Unparsed, with its beginning, stands for a line longer
    than MAX_LINE, and for a last one without its "\\n": auditd may still be writing it, and a number
    that is cut looks like another number.
    """
    rest: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, end, tail = chunk.partition(b"\n")
        if size <= MAX_LINE:
            # What is beyond the bound is counted and not kept.
            rest.append(first)
        size += len(first)
        if not end:
            continue
        start = b"".join(rest)
        yield start if size <= MAX_LINE else Unparsed(start[:MAX_LINE], _TOO_LONG)
        pieces = tail.split(b"\n")
        last = pieces.pop()
        for piece in pieces:
            yield piece if len(piece) <= MAX_LINE else Unparsed(piece[:MAX_LINE], _TOO_LONG)
        rest = [last]
        size = len(last)
    start = b"".join(rest)[:MAX_LINE]
    if start.strip(b"\0 \t\r"):
        yield Unparsed(start, _TOO_LONG if size > MAX_LINE else "no line end: still being written, or cut")


def records(chunks: Iterable[bytes]) -> Iterator[Record | Unparsed]:
    """The records of a log, and the lines that are none."""
    for line in lines(chunks):
        record = parse_line(line) if isinstance(line, bytes) else line
        if record is not None:
            yield record


def events(chunks: Iterable[bytes], losses: Losses) -> Iterator[Event]:
    """The flagged events of a log, in the order of their ids. What was lost is in `losses`.

    A log need not have that order: CPUs take numbers at the same time, and files may be named in any order.
    """
    found = [event for event in assemble(records(chunks), losses) if flagged(event)]
    yield from sorted(found, key=lambda event: event.event_id)


_TOO_LONG = f"longer than {MAX_LINE} bytes"
