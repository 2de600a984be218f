"""What a command says and how it ends: the only printing, and the only exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import NoReturn, TextIO

FAILED = 1
"""The exit status of a run that could not do its work, whatever the command."""


class Format(StrEnum):
    """How a command reports."""

    TEXT = "text"
    JSONL = "jsonl"


class Colour(StrEnum):
    """When colour is used."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Failure(Exception):
    """Something that ends the run with exit status 1; the text is a sentence with what to do."""


def write(parts: Iterable[str]) -> None:
    """Print a report. A reader that has gone away is none of our business; a full disk is a Failure."""
    if sys.stdout is None:
        raise Failure("the report could not be written: standard output is closed")
    try:
        for part in parts:
            sys.stdout.buffer.write(part.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read the report has seen enough (head, less): the verdicts stand.
        discard(sys.stdout.fileno())
    except OSError as error:
        discard(sys.stdout.fileno())
        raise Failure(f"the report could not be written: {error.strerror}") from error


def discard(descriptor: int) -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not fail on it at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def width() -> int | None:
    """Columns of the terminal, None where the report goes elsewhere."""
    if not is_terminal(sys.stdout):
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def is_terminal(stream: TextIO | None) -> bool:
    """stream: None when it was closed before we were started."""
    return stream is not None and stream.isatty()


def coloured(color: Colour) -> bool:
    """Whether the report is to have colour."""
    if color is Colour.AUTO:
        return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return color is Colour.ALWAYS


def say(sentence: str) -> None:
    """A sentence on standard error."""
    from verify_audit.reports.printable import shown

    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"verify-audit: {shown(sentence)}\n")
        sys.stderr.flush()
    except OSError:
        return


def flushed(code: int | str | None) -> int:
    """The exit status of a run that has ended, once all that it printed is out."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        say(f"standard output: {error.strerror}")
        return FAILED
    return code if isinstance(code, int) else FAILED if code else 0


def leave(status: int) -> NoReturn:
    """End at once, without the interpreter's clearing up.

    That would take a fifth of a run, and a thread that still waits for a hung engine must not hold it.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status)
