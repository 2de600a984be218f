"""The command line: wiring, the only printing, and the exit statuses."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NoReturn, TextIO

import typer

from verify_audit import __version__
from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events as read_events
from verify_audit.audit.record import Event, EventId
from verify_audit.audit.select import (
    EventIdError,
    TimeError,
    Window,
    parse_event_id,
    parse_time,
)
from verify_audit.host.questions import AskedOnce

if TYPE_CHECKING:
    from verify_audit.findings.finding import Finding
    from verify_audit.reports.summary import Summary

DEFAULT_LOG = Path("/var/log/audit/audit.log")
DEFAULT_DOCKER_HOST = "unix:///run/docker.sock"
STANDARD_INPUT = "-"
_CHUNK = 1 << 20
_LONG_SCAN = 64 << 20
FAILED = 1

_EPILOGUE = """\
Exit status: 0 all confirmed, 10 the worst is inconclusive, 11 at least one refuted,
3 nothing to judge, 2 wrong usage, 1 verify-audit itself failed.
"""


class Format(StrEnum):
    """How findings are reported."""

    TEXT = "text"
    JSONL = "jsonl"


class Colour(StrEnum):
    """When colour is used."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Failure(Exception):
    """Something that ends the run with exit status 1; the text is a sentence with what to do."""


app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog=_EPILOGUE)
def verify(
    logs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOG]...", help=f"Audit logs; - is standard input. Default: {DEFAULT_LOG}"),
    ] = None,
    event: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this event: 1545458152.159:227.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only events from then on: '2026-11-23 03:00', today, yesterday, recent (10 minutes), boot.",
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only events until then.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only what is not confirmed; nothing when all is.")
    ] = False,
    format: Annotated[Format, typer.Option(help="text for people, jsonl for machines.")] = Format.TEXT,
    docker_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The engine's socket. DOCKER_HOST is not looked at.")
    ] = DEFAULT_DOCKER_HOST,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=600, help="How long to wait for each answer of the engine."
        ),
    ] = 5.0,
    host: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge against a recorded host instead of this one.")
    ] = None,
    save_host: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Record what this host answered, for a ticket or for --host."),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Judge two sample records, an iptables SYSCALL and an ANOM_PROMISCUOUS."),
    ] = False,
    color: Annotated[
        Colour, typer.Option(help="Colour in the text report; NO_COLOR is heeded.")
    ] = Colour.AUTO,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Was it Docker? Confirms or refutes, from the live host, that Docker caused flagged audit events.

    Flagged are ANOM_PROMISCUOUS, NETFILTER_CFG and the SYSCALL of iptables. Run it as root on the host
    that the log is of. It only reads.
    """
    if version:
        _write([f"verify-audit {__version__}\n"])
        raise typer.Exit
    if demo and logs:
        raise typer.BadParameter("--demo brings its own records: name no log beside it")
    if math.isnan(timeout) or not docker_host:
        raise typer.BadParameter("--timeout is a number of seconds, --docker-host an address")
    window, wanted = _selection(since, until, event)
    losses = Losses()

    def asked_for(each: Event) -> bool:
        return each.time in window and (wanted is None or each.event_id == wanted)

    events = list(read_events(_chunks(logs or [], demo=demo), losses))
    chosen = [each for each in events if asked_for(each)]
    answering = _host(host, docker_host, timeout, chosen)
    findings, summary = _judge(events, asked_for if chosen else None, answering, losses)
    _print(findings, summary, format, quiet, _coloured(color))
    if save_host is not None:
        _save(save_host, answering)
    if not chosen and not (quiet and not losses.total):
        _say(_nothing(losses, wanted))
    raise typer.Exit(summary.exit_status)


def main() -> NoReturn:
    """The console script. Every failure is a sentence on stderr and an exit status."""
    try:
        app(prog_name="verify-audit")
    except SystemExit as ended:
        _leave(_flushed(ended.code))
    except Failure as failure:
        _say(str(failure))
        _leave(FAILED)
    except OSError as error:
        # What we read and write ourselves says what it was: this is typer, printing the help.
        _discard(1)
        _say(f"{error.filename or 'standard output'}: {error.strerror or error}")
        _leave(FAILED)
    except Exception as error:  # noqa: BLE001 - a fault of ours; a traceback would help nobody at 3 a.m.
        place = traceback.extract_tb(error.__traceback__)[-1]
        _say(
            f"this is a fault in verify-audit itself: {type(error).__name__}: {error} "
            f"({Path(place.filename).name}, line {place.lineno}). Nothing was judged; please report it"
        )
        _leave(FAILED)
    raise AssertionError  # app() always exits


# Input


def _selection(since: str | None, until: str | None, event: str | None) -> tuple[Window, EventId | None]:
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


def _chunks(logs: Iterable[str], *, demo: bool) -> Iterator[bytes]:
    if demo:
        yield (Path(__file__).parent / "demo.log").read_bytes()
        return
    for name in list(logs) or [str(DEFAULT_LOG)]:
        try:
            if name == STANDARD_INPUT:
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
    if size < _LONG_SCAN or not _is_terminal(sys.stderr):
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    from rich.console import Console  # only a long scan on a terminal shows progress
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"reading {Path(name).name}", total=size)
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
    if name == STANDARD_INPUT:
        return f"standard input: {reason}"
    return f"{name or 'a log without a name'}: {reason}"


# Judging


def _host(recorded: Path | None, docker_host: str, timeout: float, events: list[Event]) -> AskedOnce:
    if recorded is not None:
        from verify_audit.probes.recorded import RecordingError, load

        try:
            return AskedOnce(load(recorded))
        except RecordingError as error:
            raise Failure(str(error)) from error
    if events:
        _let_settle(events)
    from verify_audit.probes.live import LiveHost

    live = LiveHost(docker_host, timeout)
    if events:
        live.ask_ahead()
    return AskedOnce(live)


def _let_settle(events: list[Event]) -> None:
    """Wait until the host has settled after the newest event: the engine tells of it only afterwards."""
    from verify_audit.investigate import SETTLING

    age = time.time() - max(event.time for event in events)
    if 0 <= age < SETTLING:
        time.sleep(SETTLING - age)


def _judge(
    events: list[Event], asked_for: Callable[[Event], bool] | None, host: AskedOnce, losses: Losses
) -> tuple[list[Finding], Summary]:
    """asked_for: which of the events; None when it is none of them, and the host need not be asked."""
    from verify_audit.investigate import investigate, unobservable
    from verify_audit.reports.summary import Summary

    findings = list(investigate(events, host, asked_for)) if asked_for is not None else []
    summary = Summary(unparsed=losses.total, unobservable=unobservable(host))
    summary.count(findings)
    summary.examples = [
        f"{sample.reason}: {sample.line[:120].decode('utf-8', 'backslashreplace')}"
        for sample in losses.samples
    ]
    return findings, summary


def _save(path: Path, host: AskedOnce) -> None:
    from verify_audit.probes.recorded import save

    try:
        save(path, host.answers, time.time())
    except OSError as error:
        raise Failure(f"{path}: the recorded host could not be written: {error.strerror}") from error


# Output


def _print(findings: list[Finding], summary: Summary, form: Format, quiet: bool, colour: bool) -> None:
    if form is Format.JSONL:
        from verify_audit.reports import jsonl

        shown = (each for each in findings if not quiet or each.verdict != "confirmed")
        _write(line + "\n" for line in map(jsonl.finding_line, shown))
        if not quiet or summary.exit_status or summary.unparsed:
            _write([jsonl.summary_line(summary) + "\n"])
        return
    from verify_audit.reports import text

    width = _width()
    if findings or summary.unparsed:
        _write([text.report(findings, summary, colour=colour, width=width, quiet=quiet)])


def _write(parts: Iterable[str]) -> None:
    if sys.stdout is None:
        raise Failure("the report could not be written: standard output is closed")
    try:
        for part in parts:
            sys.stdout.buffer.write(part.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read the report has seen enough (head, less): the verdicts stand.
        _discard(sys.stdout.fileno())
    except OSError as error:
        _discard(sys.stdout.fileno())
        raise Failure(f"the report could not be written: {error.strerror}") from error


def _discard(descriptor: int) -> None:
    """Let what is still buffered go nowhere, so that the interpreter does not fail on it at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _width() -> int | None:
    if not _is_terminal(sys.stdout):
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def _is_terminal(stream: TextIO | None) -> bool:
    """stream: None when it was closed before we were started."""
    return stream is not None and stream.isatty()


def _coloured(color: Colour) -> bool:
    if color is Colour.AUTO:
        return (
            _is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
    return color is Colour.ALWAYS


def _nothing(losses: Losses, wanted: EventId | None) -> str:
    if wanted is not None:
        return f"no flagged event {wanted} in the log; is it in a rotated file (audit.log.1)?"
    lost = f" ({losses.total} lines could not be read as audit records)" if losses.total else ""
    return (
        f"nothing to judge: no ANOM_PROMISCUOUS, NETFILTER_CFG or iptables SYSCALL among these records{lost}. "
        "That nothing was recorded does not say that nothing happened"
    )


def _say(sentence: str) -> None:
    from verify_audit.reports.printable import printable

    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"verify-audit: {printable(sentence)}\n")
        sys.stderr.flush()
    except OSError:
        return


def _flushed(code: int | str | None) -> int:
    """The exit status of a run that has ended, once all that it printed is out."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _say(f"standard output: {error.strerror}")
        return FAILED
    return code if isinstance(code, int) else FAILED if code else 0


def _leave(status: int) -> NoReturn:
    """End at once, without the interpreter's clearing up.

    That would take a fifth of a run, and a thread that still waits for a hung engine must not hold it.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status)
