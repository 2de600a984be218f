"""The labs of a run, and the table at its end."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import pytest

from tests.live.engines import KINDS, Kind
from tests.live.lab import Lab, Machine, cannot_run, lab, machine
from tests.live.pool import Pool, pool
from tests.live.table import Tally, table

SCORE = "VERIFY_AUDIT_SCORE"
"""Set by `scripts/score`, to a file for the score in JSON or to nothing: then the exit status is the score's."""

TALLY = Tally()
_FEW = 100


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is live, and does without what else may be chosen by the name of a marker."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def live_machine() -> Iterator[Machine]:
    """What all labs share. Where none can be brought up: a failure with CI=true, else a skip."""
    reasons = cannot_run()
    if reasons:
        sentence = f"no lab can be brought up here: {'; '.join(reasons)}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            # A run that is told to end takes its labs down first.
            before = signal.signal(signal.SIGTERM, _interrupt)
            stack.callback(signal.signal, signal.SIGTERM, before)
        yield stack.enter_context(machine())


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def labs(live_machine: Machine) -> Iterator[Pool]:
    """A lab for each backend, with companions and bare."""
    with pool(live_machine, KINDS) as made:
        yield made


@pytest.fixture(scope="module")
def nft_lab(live_machine: Machine) -> Iterator[Lab]:
    """A lab for a module, its engine running, iptables-nft."""
    with lab(live_machine, Kind(None, "nft", False)) as made:
        made.ensure_engine()
        yield made


@pytest.fixture(scope="session")
def tally() -> Tally:
    """Where tests put what was expected and what they got."""
    return TALLY


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """For scripts/score, which asks whether verdicts were wrong and not whether tests failed."""
    file = os.environ.get(SCORE)
    if file is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        score = TALLY.score()
        if file:
            Path(file).write_text(json.dumps(score.as_json(), indent=1) + "\n", encoding="utf-8")
        session.exitstatus = score.exit_status


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The verdicts: counted, and row by row when there are few."""
    rows = TALLY.rows
    if rows and len(rows) <= _FEW:
        terminalreporter.section("verdicts on a live engine")
        for line in table(rows):
            terminalreporter.write_line(line)
    if rows or TALLY.unplayed:
        terminalreporter.section("score")
        for line in TALLY.score().lines():
            terminalreporter.write_line(line)
