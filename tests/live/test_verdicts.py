"""Every scenario, on both firewalls, with companions and without: is the verdict right?"""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.live.auditlog import LogEvent
from tests.live.engines import KINDS, Kind
from tests.live.lab import Judgement, Lab
from tests.live.play import Expected, Played, Scenario, played
from tests.live.pool import Pool
from tests.live.scenarios import SCENARIOS
from tests.live.score import INCONCLUSIVE, OTHER, Case, Said, cause_of
from tests.live.table import Row, Tally


@dataclass(frozen=True)
class _Outcome:
    rows: list[Row]
    wrong: list[str]


Outcomes = dict[tuple[Scenario, Kind], Future[_Outcome]]


@pytest.fixture(scope="session")
def outcomes(labs: Pool, request: pytest.FixtureRequest) -> Outcomes:
    """What comes of each test that was chosen; begun at once, so that the labs work side by side."""
    chosen = [each for each in map(_parameters, request.session.items) if "scenario" in each]
    chosen = [each for each in chosen if not each["scenario"].lacks()]
    return {
        (each["scenario"], each["kind"]): labs.submit(each["kind"], partial(_outcome, each["scenario"]))
        for each in chosen
    }


CASES = [(scenario, kind) for kind in KINDS for scenario in SCENARIOS if scenario.runs_on(kind)]


@pytest.mark.parametrize(
    ("scenario", "kind"), CASES, ids=[f"{scenario.slug}-{kind.name}" for scenario, kind in CASES]
)
def test_verdicts(outcomes: Outcomes, scenario: Scenario, kind: Kind, tally: Tally) -> None:
    """The events are those that the scenario declares, and each is judged as it says."""
    if lacks := scenario.lacks():
        tally.unplayed.append(f"{scenario.name}, {kind.name}: not installed: {', '.join(lacks)}")
        pytest.skip(f"not installed: {', '.join(lacks)}")
    try:
        outcome = outcomes[scenario, kind].result()
    except Exception as error:
        tally.unplayed.append(f"{scenario.name}, {kind.name}: {error}")
        raise
    tally.rows += outcome.rows
    if not outcome.rows:
        tally.unplayed.append(f"{scenario.name}, {kind.name}: {'; '.join(outcome.wrong)}")
    if outcome.wrong:
        pytest.fail("\n".join(outcome.wrong), pytrace=False)


def _parameters(item: pytest.Item) -> dict[str, Any]:
    call = getattr(item, "callspec", None)
    return call.params if call is not None else {}


def _outcome(scenario: Scenario, lab: Lab) -> _Outcome:
    with played(scenario, lab) as state:
        faults = state.faults()
        if faults:
            return _Outcome([], faults)
        judgement = lab.judge(state.events)
    rows: list[Row] = []
    wrong = check_run(state, judgement) + _judged_by_row(state, judgement, lab, rows)
    return _Outcome(rows, [*wrong, judgement.stderr] if wrong else [])


def check_run(state: Played, judgement: Judgement) -> list[str]:
    """What is wrong with the run as a whole: status, count, words on stderr."""
    verdicts = {found["verdict"] for found in judgement.findings}
    status = (
        3 if not state.events else 11 if "refuted" in verdicts else 10 if "inconclusive" in verdicts else 0
    )
    wrong = []
    if judgement.status != status:
        wrong.append(f"exit status {judgement.status}, not {status}")
    if "Traceback" in judgement.stderr:
        wrong.append("a traceback on stderr")
    if state.events:
        summary = judgement.summary
        if (summary.get("events"), summary.get("unparsed")) != (len(state.events), 0):
            wrong.append(f"{len(state.events)} events were given; the summary is {summary}")
        for verdict in ("confirmed", "refuted", "inconclusive"):
            count = sum(found["verdict"] == verdict for found in judgement.findings)
            if summary.get(verdict) != count:
                wrong.append(f"{count} findings are {verdict}; the summary is {summary}")
    return wrong


def _judged_by_row(state: Played, judgement: Judgement, lab: Lab, rows: list[Row]) -> list[str]:
    wrong: list[str] = []
    for one in state.expected:
        said, faults = [], []
        for event in state.events:
            if state.expectation(event) is one:
                findings = judgement.of(event)
                said += [Said.of(found) for found in findings] or [
                    Said(INCONCLUSIVE, reasons=("no finding",))
                ]
                faults += check(event, one, findings, lab.bare)
        rows.append(
            Row(
                _case(state, lab, one.what, cause_of(one.cause), said),
                one.allowed(lab.bare),
                not faults,
                0 if rows else state.foreign,
            )
        )
        wrong += faults
    if not state.expected:
        rows.append(
            Row(_case(state, lab, "none", OTHER, []), frozenset(), judgement.status == 3, state.foreign)
        )
    return wrong


def _case(state: Played, lab: Lab, what: str, cause: str, said: list[Said]) -> Case:
    return Case(state.scenario.name, lab.engine_name, lab.backend, not lab.bare, what, cause, tuple(said))


def check(event: LogEvent, one: Expected, findings: list[dict[str, Any]], bare: bool) -> list[str]:
    """What is wrong with the findings on one event."""
    if not findings:
        return [f"no finding on {event}"]
    wrong = []
    for found in findings:
        said = [
            f"{name} is {found[name]!r}"
            for name in ("rule", "verdict")
            if found[name] != _wanted(one, name, bare, found)
        ]
        if found["verdict"] == "confirmed" or (not bare and found["verdict"] != "inconclusive"):
            said += _wrong_parts(one, found)
        if said:
            wrong.append(
                f"{one.what}: {'; '.join(said)}; expected {one.rule}, {sorted(one.allowed(bare))}\n"
                f"  headline: {found['headline']}\n  cause: {found['cause']}\n"
                f"  container: {found['container']} network: {found['network']}\n"
                + "".join(f"  evidence: {evidence}\n" for evidence in found["evidence"])
                + "".join(f"  missing: {missing}\n" for missing in found["missing"])
                + f"  event: {event}"
            )
    return wrong


def _wanted(one: Expected, name: str, bare: bool, found: dict[str, Any]) -> Any:
    if name == "rule":
        return one.rule
    return found["verdict"] if found["verdict"] in one.allowed(bare) else None


def _wrong_parts(one: Expected, found: dict[str, Any]) -> list[str]:
    container, network, cause = found["container"] or {}, found["network"] or {}, found["cause"] or {}
    likeness = found["looks_like"] or {}
    parts = [
        ("what it looks like", one.looks_like, likeness.get("software")),
        ("cause kind", one.cause, cause.get("kind")),
        ("cause pid", one.cause_pid, cause.get("pid")),
        ("container", one.container, container.get("name")),
        ("network", one.network, network.get("name")),
        ("bridge", one.bridge, network.get("bridge")),
    ]
    wrong = [f"{what} is {got!r}, not {wanted!r}" for what, wanted, got in parts if wanted not in (None, got)]
    if one.rule == "promiscuous" and not re.fullmatch(
        one.device, (found["subject"] or {}).get("device") or ""
    ):
        wrong.append(f"subject is {found['subject']}")
    return wrong
