"""`verify-audit sniffers`: who listens, in every network namespace."""

from __future__ import annotations

from typing import Annotated

import typer

from verify_audit.cli.options import (
    DEFAULT_DOCKER_HOST,
    ColourOption,
    DockerHostOption,
    FormatOption,
    TimeoutOption,
    check_engine_options,
    new_app,
)
from verify_audit.cli.output import Colour, Failure, Format, coloured, say, width, write

_EPILOGUE = """\
Exit status: 0 nobody unexplained, 10 something could not be looked at, 11 somebody unexplained listens or
holds promiscuous mode, 2 wrong usage, 1 verify-audit itself failed.
"""

app = new_app()


@app.command(epilog=_EPILOGUE)
def sniffers(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only what is unexplained; nothing when all is.")
    ] = False,
    format: FormatOption = Format.TEXT,
    docker_host: DockerHostOption = DEFAULT_DOCKER_HOST,
    timeout: TimeoutOption = 5.0,
    color: ColourOption = Colour.AUTO,
) -> None:
    """Who listens? Packet sockets and promiscuous devices of the host, its containers and all others.

    Run it as root on the host. It only reads. Without an engine containers go by their ids.
    """
    check_engine_options(docker_host, timeout)
    from verify_audit.host.observation import Observed
    from verify_audit.host.questions import CONTAINERS, DAEMON
    from verify_audit.host.sweep import Conclusion
    from verify_audit.probes.live import LiveHost
    from verify_audit.probes.namespace import netns_of, own_netns
    from verify_audit.probes.sweep import sweep
    from verify_audit.reports import sniffers as report

    engine = LiveHost(docker_host, timeout)
    try:
        swept = sweep()
        daemon, containers = engine.ask(DAEMON), engine.ask(CONTAINERS)
        netns = daemon.fact.process.netns if isinstance(daemon, Observed) else None
        host = netns or netns_of(1) or own_netns()
    except OSError as error:
        raise Failure(f"{error.filename or '/proc'}: {error.strerror or error}. Is /proc mounted?") from error
    conclusion = Conclusion(swept, host, containers.fact if isinstance(containers, Observed) else ())
    if format is Format.JSONL:
        write(line + "\n" for line in report.lines(conclusion, quiet=quiet))
    else:
        write([report.text(conclusion, colour=coloured(color), width=width(), quiet=quiet)])
    if not isinstance(containers, Observed) and not quiet:
        say("no engine answers, so containers go by their ids")
    raise typer.Exit(conclusion.exit_status)
