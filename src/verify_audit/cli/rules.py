"""The command `rules`: every rule of the firewall that concerns Docker, with what explains it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events as read_events
from verify_audit.audit.record import Event
from verify_audit.cli.host import host_to_ask, save_answers
from verify_audit.cli.log import DEFAULT_LOG, chunks
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
    from verify_audit.findings.inventory import Inventory

_EPILOGUE = """\
Exit status: 0 all explained and nothing missing, 11 something unexplained, 10 something missing or not to be
looked at, 3 nothing of Docker's is in the firewall, 2 wrong usage, 1 verify-audit itself failed.
"""
_ATTEMPTS = 4

app = new_app()


@app.command(epilog=_EPILOGUE)
def rules(
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOG",
            help=f"Audit log to look for who made a rule; may be repeated, - is standard input. "
            f"Default: {DEFAULT_LOG}, if there is one.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only what is not explained; nothing when all is.")
    ] = False,
    format: FormatOption = Format.TEXT,
    docker_host: DockerHostOption = DEFAULT_DOCKER_HOST,
    timeout: TimeoutOption = 5.0,
    host: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Look at a recorded host instead of this one.")
    ] = None,
    save_host: SaveHostOption = None,
    color: ColourOption = Colour.AUTO,
) -> None:
    """Which firewall rules are Docker's? Shows every rule in Docker's chains and every rule that leads there,
    each with the network, container or port that explains it, and those that are missing.

    Both backends, IPv4 and IPv6. A rule that nothing explains is shown as such, with the audit event that made
    it when the log has it. Run it as root. It only reads.
    """
    check_engine_options(docker_host, timeout)
    losses = Losses()
    logged = bool(log) or os.access(DEFAULT_LOG, os.R_OK)
    events = list(read_events(chunks(log or [], demo=False), losses)) if logged else []
    answering, found = _look(host, docker_host, timeout, events, losses, logged)
    _print(found, format, quiet, coloured(color))
    if save_host is not None:
        save_answers(save_host, answering)
    if found.exit_status == 3 and not quiet:
        say(
            "nothing of Docker's is in the firewall: no chain of its, and no rule that leads into one. Is it the "
            "host, and the network namespace, that the engine works in? With iptables=false it makes none"
        )
    raise typer.Exit(found.exit_status)


def _look(
    recorded: Path | None, docker_host: str, timeout: float, events: list[Event], losses: Losses, logged: bool
) -> tuple[AskedOnce, Inventory]:
    """The host that was asked, and what it has; asked again while the engine was at work meanwhile."""
    from verify_audit.investigate import SETTLING
    from verify_audit.rules.inventory import changing_at, inventory

    for attempt in range(_ATTEMPTS):
        answering = host_to_ask(recorded, docker_host, timeout, [])
        found = inventory(answering, events, logged=logged, unread=losses.total)
        changed = changing_at(answering)
        now = time.time()
        if (
            recorded is not None
            or found.exit_status in (0, 3)
            or changed is None
            or not 0 <= now - changed < SETTLING
            or attempt == _ATTEMPTS - 1
        ):
            break
        time.sleep(SETTLING - (now - changed))
    return answering, found


def _print(found: Inventory, form: Format, quiet: bool, colour: bool) -> None:
    if form is Format.JSONL:
        from verify_audit.findings.inventory import Standing
        from verify_audit.reports import rules_jsonl

        shown = (row for row in found.rows if not quiet or row.standing is not Standing.EXPLAINED)
        write(rules_jsonl.rule_line(row) + "\n" for row in shown)
        if not quiet or found.exit_status not in (0, 3):
            write([rules_jsonl.summary_line(found) + "\n"])
        return
    from verify_audit.reports import rules_text

    if found.rows or found.unobservable:
        write([rules_text.report(found, colour=colour, width=width(), quiet=quiet)])
