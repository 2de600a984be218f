"""Which command it is, and the end of every run."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import NoReturn

import typer

from verify_audit.cli.commands import COMMANDS
from verify_audit.cli.output import FAILED, Failure, discard, flushed, leave, say


def _chosen() -> tuple[typer.Typer, str, list[str]]:
    """The command's app, how it is called, and what it is given."""
    given = sys.argv[1:]
    if given and given[0] in COMMANDS:
        from importlib import import_module

        module = import_module(f"verify_audit.cli.{given[0]}")
        return module.app, f"verify-audit {given[0]}", given[1:]
    from verify_audit.cli.check import app

    return app, "verify-audit", given


def main() -> NoReturn:
    """The console script. Every failure is a sentence on stderr and an exit status."""
    try:
        app, name, given = _chosen()
        app(given, prog_name=name)
    except SystemExit as ended:
        leave(flushed(ended.code))
    except Failure as failure:
        say(str(failure))
        leave(FAILED)
    except OSError as error:
        # What we read and write ourselves says what it was: this is typer, printing the help.
        discard(1)
        say(f"{error.filename or 'standard output'}: {error.strerror or error}")
        leave(FAILED)
    except Exception as error:  # noqa: BLE001 - a fault of ours; a traceback would help nobody at 3 a.m.
        place = traceback.extract_tb(error.__traceback__)[-1]
        say(
            f"this is a fault in verify-audit itself: {type(error).__name__}: {error} "
            f"({Path(place.filename).name}, line {place.lineno}). Nothing was judged; please report it"
        )
        leave(FAILED)
    raise AssertionError  # a command always exits
