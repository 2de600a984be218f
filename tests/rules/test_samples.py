"""Golden samples: real events, the host that they were judged on as it was recorded, and the report.

tests/samples/RULE/CASE holds event.log, host.json, truth.json and report.txt, made by tests/live/record.py on a live
engine. The reports are rewritten only when asked: VERIFY_AUDIT_REWRITE=1 pytest tests/rules/test_samples.py
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Fact, Question, never_asked
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import RecordedHost, load
from verify_audit.reports.jsonl import finding_line
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
    losses = Losses()
    log = list(events([(case / "event.log").read_bytes()], losses))
    return list(investigate(log, load(case / "host.json"), serials=losses.serials))


def named(case: Path) -> str:
    return f"{case.parent.name}/{case.name}"


def is_wrong(finding: Finding, truth: dict[str, str]) -> bool:
    """Docker's refuted, or anything confirmed as what it was not; a nested engine is not the one that was asked."""
    really = truth.get(finding.event.id)
    if finding.verdict is Verdict.CONFIRMED:
        return really is not None and finding.cause.kind != really
    return really == "docker" and finding.verdict is Verdict.REFUTED


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
    """truth.json says what caused each event: docker, nested-docker or other."""
    truth = json.loads((case / "truth.json").read_text())
    for finding in judged(case):
        assert not is_wrong(finding, truth), finding.headline


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


class Blinkered:
    """A recorded host some of whose answers could not be had."""

    def __init__(self, host: RecordedHost, unseen: frozenset[Question[Any]]) -> None:
        self._host = host
        self._unseen = unseen

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        if question in self._unseen:
            return never_asked(question, "test", 0.0)
        return self._host.ask(question)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_cannot_be_seen_never_turns_a_verdict(data: st.DataObject) -> None:
    """Fewer answers may leave an event open. They refute nothing of Docker's and confirm nothing else."""
    case = data.draw(st.sampled_from(CASES))
    whole = load(case / "host.json")
    unseen = data.draw(st.frozensets(st.sampled_from(sorted(whole.answers, key=str))))
    truth = json.loads((case / "truth.json").read_text())
    log = list(events([(case / "event.log").read_bytes()], Losses()))
    for finding in investigate(log, Blinkered(whole, unseen)):
        assert not is_wrong(finding, truth), finding.headline


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_json_lines_keep_to_their_schema(case: Path) -> None:
    schema = json.loads((files("verify_audit.reports") / "finding.schema.json").read_text())
    for finding in judged(case):
        jsonschema.validate(json.loads(finding_line(finding)), schema)


def test_a_host_of_which_nothing_can_be_seen_settles_nothing_for_docker() -> None:
    for case in CASES:
        whole = load(case / "host.json")
        log = list(events([(case / "event.log").read_bytes()], Losses()))
        for finding in investigate(log, Blinkered(whole, frozenset(whole.answers))):
            assert finding.verdict is not Verdict.CONFIRMED, named(case)
