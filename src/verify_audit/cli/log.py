"""Audit logs as a command is given them: which, and which part of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import typer

from verify_audit.audit.record import EventId
from verify_audit.audit.select import (
    EventIdError,
    TimeError,
    Window,
    parse_event_id,
    parse_time,
)
from verify_audit.cli.output import Failure, is_terminal

DEFAULT_LOG = Path("/var/log/audit/audit.log")
_STANDARD_INPUT = "-"
_CHUNK = 1 << 20
_LONG_SCAN = 64 << 20


def selection(since: str | None, until: str | None, event: str | None) -> tuple[Window, EventId | None]:
    """What of the log is asked for, as the options say it. Raises typer.BadParameter."""
    now = time.time()
    boot = now - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        window = Window(
            parse_time(since, now, boot) if since is not None else None,
            parse_time(until, now, boot) if until is not None else None,
        )
        return window, parse_event_id(event) if event is not None else None
    except (TimeError, EventIdError) as error:
        raise typer.BadParameter(str(error)) from error


def chunks(logs: Iterable[str], *, demo: bool) -> Iterator[bytes]:
    """The bytes of the logs, one after the other; the default one when none is named. Raises Failure."""
    if demo:
        yield (Path(__file__).parents[1] / "demo.log").read_bytes()
        return
    for name in list(logs) or [str(DEFAULT_LOG)]:
        try:
            if name == _STANDARD_INPUT:
                yield from _ended(_read(_standard_input(), "standard input", 0))
                continue
            with Path(name).open("rb") as file:
                yield from _read(file, name, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise Failure(_unreadable(name, error)) from error


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise Failure("standard input is closed, so there is no log to read from it")
    return sys.stdin.buffer


def _read(file: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    if size < _LONG_SCAN or not is_terminal(sys.stderr):
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    from rich.console import Console  # only a long scan on a terminal shows progress
    from rich.markup import escape
    from rich.progress import Progress

    from verify_audit.reports.printable import shown

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"reading {escape(shown(Path(name).name))}", total=size)
        while chunk := file.read(_CHUNK):
            progress.advance(task, len(chunk))
            yield chunk


def _ended(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks with a line end after the last: what is pasted or piped in need not have one."""
    last = b""
    for chunk in chunks:
        yield chunk
        last = chunk[-1:]
    if last not in (b"", b"\n"):
        yield b"\n"


def _unreadable(name: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and name == str(DEFAULT_LOG):
        return (
            f"there is no audit log at {name}. Is auditd installed and running here? Name a log, pipe one in "
            "(ausearch --raw | verify-audit -), or see what a report looks like: verify-audit --demo"
        )
    if isinstance(error, PermissionError):
        return f"{name}: {reason}. Audit logs are for root: run verify-audit as root"
    if name == _STANDARD_INPUT:
        return f"standard input: {reason}"
    return f"{name or 'a log without a name'}: {reason}"
