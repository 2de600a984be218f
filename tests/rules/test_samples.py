"""Golden samples: real events, the host that they were judged on as it was recorded, and the report.

tests/samples/RULE/CASE holds event.log, host.json, truth.json and report.txt, made by tests/live/record.py on a live
engine. The reports are rewritten only when asked: VERIFY_AUDIT_REWRITE=1 pytest tests/rules/test_samples.py
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import load
from verify_audit.reports.summary import Summary
from verify_audit.reports.text import report
from verify_audit.rules.registry import RULES

SAMPLES = Path(__file__).parent.parent / "samples"
CASES = sorted(path.parent for rule in RULES for path in (SAMPLES / rule.name).glob("*/event.log"))


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def judged(case: Path) -> list[Finding]:
    log = events([(case / "event.log").read_bytes()], Losses())
    return list(investigate(list(log), load(case / "host.json")))


def named(case: Path) -> str:
    return f"{case.parent.name}/{case.name}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_report_is_as_it_was(case: Path) -> None:
    findings = judged(case)
    summary = Summary()
    summary.count(findings)
    text = report(findings, summary, colour=False, width=None)
    if os.environ.get("VERIFY_AUDIT_REWRITE"):
        (case / "report.txt").write_text(text)
    assert text == (case / "report.txt").read_text()


@pytest.mark.parametrize("case", CASES, ids=named)
def test_no_verdict_is_against_what_really_was(case: Path) -> None:
    """truth.json says what caused each event: docker or other."""
    truth = json.loads((case / "truth.json").read_text())
    wrong = {"docker": Verdict.REFUTED, "other": Verdict.CONFIRMED}
    for finding in judged(case):
        assert finding.verdict is not wrong.get(truth.get(finding.event.id, "")), finding.headline


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_rule_has_a_sample_of_each_verdict(rule: str, verdict: Verdict) -> None:
    found = {finding.verdict for case in CASES if case.parent.name == rule for finding in judged(case)}
    assert verdict in found


def test_an_order_of_records_changes_nothing() -> None:
    for case in CASES:
        host = load(case / "host.json")
        log = list(events([(case / "event.log").read_bytes()], Losses()))
        backwards = [
            type(event)(event.node, event.seconds, event.millis, event.serial, event.records[::-1])
            for event in log
        ]
        assert [each.verdict for each in investigate(log, host)] == [
            each.verdict for each in investigate(backwards, host)
        ], named(case)
