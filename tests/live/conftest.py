"""The labs of a run, and the table at its end."""

from __future__ import annotations

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
from tests.live.table import Row, table

ROWS: list[Row] = []


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
def rows() -> list[Row]:
    """Where tests put what was expected and what they got."""
    return ROWS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of verdicts."""
    if ROWS:
        terminalreporter.section("verdicts on a live engine")
        for line in table(ROWS):
            terminalreporter.write_line(line)
