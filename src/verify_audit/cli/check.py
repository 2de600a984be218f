"""The command without a name: judges the flagged events of a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verify_audit import __version__
from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events as read_events
from verify_audit.audit.record import Event, EventId
from verify_audit.cli.commands import COMMANDS
from verify_audit.cli.host import host_to_ask, save_answers
from verify_audit.cli.log import DEFAULT_LOG, chunks, selection
from verify_audit.cli.options import (
    DEFAULT_DOCKER_HOST,
    ColourOption,
    DockerHostOption,
    FormatOption,
    SaveHostOption,
    TimeoutOption,
    check_engine_options,
    new_app,
)
from verify_audit.cli.output import Colour, Format, coloured, say, width, write
from verify_audit.host.questions import AskedOnce

if TYPE_CHECKING:
    from verify_audit.findings.finding import Finding
    from verify_audit.reports.summary import Summary

_COMMANDS = "\n".join(f"  {name:<9} {does}" for name, does in COMMANDS.items())
_EPILOGUE = f"""\
Other commands, each with a --help of its own:

\b
{_COMMANDS}

Exit status: 0 all confirmed, 10 the worst is inconclusive, 11 at least one refuted,
3 nothing to judge, 2 wrong usage, 1 verify-audit itself failed.
"""


app = new_app()


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
        bool, typer.Option("--quiet", "-q", help="Print only what is not confirmed, or has a warning.")
    ] = False,
    format: FormatOption = Format.TEXT,
    docker_host: DockerHostOption = DEFAULT_DOCKER_HOST,
    timeout: TimeoutOption = 5.0,
    host: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge against a recorded host instead of this one.")
    ] = None,
    save_host: SaveHostOption = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Judge two sample records, an iptables SYSCALL and an ANOM_PROMISCUOUS."),
    ] = False,
    color: ColourOption = Colour.AUTO,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Was it Docker? Confirms or refutes, from the live host, that Docker caused flagged audit events.

    Flagged are ANOM_PROMISCUOUS, NETFILTER_CFG and the SYSCALL of iptables. Run it as root on the host
    that the log is of. It only reads.
    """
    if version:
        write([f"verify-audit {__version__}\n"])
        raise typer.Exit
    if demo and logs:
        raise typer.BadParameter("--demo brings its own records: name no log beside it")
    check_engine_options(docker_host, timeout)
    window, wanted = selection(since, until, event)
    losses = Losses()

    def asked_for(each: Event) -> bool:
        return each.time in window and (wanted is None or each.event_id == wanted)

    events = list(read_events(chunks(logs or [], demo=demo), losses))
    chosen = [each for each in events if asked_for(each)]
    answering = host_to_ask(host, docker_host, timeout, chosen)
    findings, summary = _judge(events, asked_for if chosen else None, answering, losses)
    _print(findings, summary, format, quiet, coloured(color))
    if save_host is not None:
        save_answers(save_host, answering)
    if not chosen and not (quiet and not losses.total):
        say(_nothing(losses, wanted))
    raise typer.Exit(summary.exit_status)


def _judge(
    events: list[Event], asked_for: Callable[[Event], bool] | None, host: AskedOnce, losses: Losses
) -> tuple[list[Finding], Summary]:
    """asked_for: which of the events; None when it is none of them, and the host need not be asked."""
    from verify_audit.investigate import investigate, unobservable
    from verify_audit.reports.summary import Summary

    findings = list(investigate(events, host, asked_for, losses.serials)) if asked_for is not None else []
    summary = Summary(unparsed=losses.total, unobservable=unobservable(host))
    summary.count(findings)
    summary.examples = [
        f"{sample.reason}: {sample.line[:120].decode('utf-8', 'backslashreplace')}"
        for sample in losses.samples
    ]
    return findings, summary


def _print(findings: list[Finding], summary: Summary, form: Format, quiet: bool, colour: bool) -> None:
    if form is Format.JSONL:
        from verify_audit.reports import jsonl

        shown = (each for each in findings if not quiet or each.is_remarkable)
        write(line + "\n" for line in map(jsonl.finding_line, shown))
        if not quiet or summary.exit_status or summary.unparsed or any(each.warnings for each in findings):
            write([jsonl.summary_line(summary) + "\n"])
        return
    from verify_audit.reports import text

    if findings or summary.unparsed:
        write([text.report(findings, summary, colour=colour, width=width(), quiet=quiet)])


def _nothing(losses: Losses, wanted: EventId | None) -> str:
    if wanted is not None:
        return f"no flagged event {wanted} in the log; is it in a rotated file (audit.log.1)?"
    lost = f" ({losses.total} lines could not be read as audit records)" if losses.total else ""
    return (
        f"nothing to judge: no ANOM_PROMISCUOUS, NETFILTER_CFG or iptables SYSCALL among these records{lost}. "
        "That nothing was recorded does not say that nothing happened"
    )
