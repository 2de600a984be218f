"""Events judged on a host that may say anything, and what must hold of each finding and both reports."""

from __future__ import annotations

from collections.abc import Sequence

from tests.hostile import check_command, check_json_line, check_text
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Bearing, Weight
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host.questions import AskedOnce, Host
from verify_audit.investigate import investigate, unobservable
from verify_audit.reports.jsonl import finding_line, summary_line
from verify_audit.reports.summary import Summary
from verify_audit.reports.text import report
from verify_audit.rules.registry import RULES


def judged(events: Sequence[Event], host: Host) -> list[Finding]:
    """The findings on these events, checked."""
    asked = AskedOnce(host)
    findings = list(investigate(events, asked))
    summary = Summary(unobservable=unobservable(asked))
    summary.count(findings)
    for each in findings:
        _check(each)
        check_json_line(finding_line(each))
    check_json_line(summary_line(summary))
    check_text(report(findings, summary, colour=False, width=80))
    check_text(report(findings, summary, colour=False, width=None))
    assert {each.rule for each in findings} <= {rule.name for rule in RULES}
    assert [each.event for each in findings] == [
        one for one in events for each in findings if each.event is one
    ], "the findings are not in the order of the events"
    return findings


def _check(finding: Finding) -> None:
    """That the verdict is what the evidence carries."""
    decisive = {each.bearing for each in finding.evidence if each.weight is Weight.DECISIVE}
    any_of = {each.bearing for each in finding.evidence}
    for each in finding.evidence:
        check_command(each.by_hand)
    match finding.verdict:
        case Verdict.CONFIRMED:
            assert Bearing.FOR in decisive
            assert Bearing.AGAINST not in any_of
        case Verdict.REFUTED:
            assert Bearing.AGAINST in decisive
            assert Bearing.FOR not in decisive
        case Verdict.INCONCLUSIVE:
            assert finding.missing or any_of, "an open question without a word on why"
