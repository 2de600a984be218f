"""What several commands take alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from verify_audit.cli.output import Colour, Format

DEFAULT_DOCKER_HOST = "unix:///run/docker.sock"

FormatOption = Annotated[Format, typer.Option("--format", help="text for people, jsonl for machines.")]
DockerHostOption = Annotated[
    str,
    typer.Option(
        "--docker-host", metavar="ADDRESS", help="The engine's socket. DOCKER_HOST is not looked at."
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.1,
        max=600,
        help="How long to wait for each answer of the engine.",
    ),
]
SaveHostOption = Annotated[
    Path | None,
    typer.Option(
        "--save-host", metavar="FILE", help="Record what this host answered, for a ticket or for --host."
    ),
]
ColourOption = Annotated[
    Colour, typer.Option("--color", help="Colour in the text report; NO_COLOR is heeded.")
]


def new_app() -> typer.Typer:
    """An app for one command: plain help, no completion, errors left to `main`."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def check_engine_options(docker_host: str, timeout: float) -> None:
    """Raises typer.BadParameter for what no engine can be asked with."""
    if math.isnan(timeout) or not docker_host:
        raise typer.BadParameter("--timeout is a number of seconds, --docker-host an address")
