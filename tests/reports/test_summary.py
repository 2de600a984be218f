from __future__ import annotations

import pytest

from tests.reports.samples import CONFIRMED, INCONCLUSIVE, REFUTED
from verify_audit.findings.finding import Finding
from verify_audit.reports.summary import Summary


@pytest.mark.parametrize(
    ("findings", "exit_status"),
    [
        ([], 3),
        ([CONFIRMED], 0),
        ([CONFIRMED] * 3, 0),
        ([INCONCLUSIVE], 10),
        ([REFUTED], 11),
        ([CONFIRMED, INCONCLUSIVE], 10),
        ([CONFIRMED, REFUTED], 11),
        ([REFUTED, INCONCLUSIVE, CONFIRMED], 11),
    ],
)
def test_the_worst_verdict_is_the_exit_status(findings: list[Finding], exit_status: int) -> None:
    summary = Summary()
    summary.count(findings)
    assert summary.exit_status == exit_status
    assert summary.events == len(findings)


def test_each_verdict_is_counted_for_itself_and_counts_add_up() -> None:
    summary = Summary(unparsed=4)
    summary.count([CONFIRMED, REFUTED, REFUTED])
    summary.count([INCONCLUSIVE] * 3)
    assert (summary.confirmed, summary.refuted, summary.inconclusive, summary.events) == (1, 2, 3, 6)
    assert summary.unparsed == 4
