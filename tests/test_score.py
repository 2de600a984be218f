"""The score of the live tests counts what it says that it counts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.score import (
    CAUSES,
    CONFIRMED,
    DOCKER,
    INCONCLUSIVE,
    NESTED,
    OTHER,
    REFUTED,
    VERDICTS,
    Case,
    Said,
    Score,
    cause_of,
)

FORTY = frozenset(f"scenario {number}" for number in range(40))

YES = Said(CONFIRMED, "docker")
INSIDE = Said(CONFIRMED, "nested-docker")
NO = Said(REFUTED, "process")
OPEN = Said(INCONCLUSIVE, "unknown", ("who did it: the event has no SYSCALL record",))


def case(*said: Said, cause: str = DOCKER, companions: bool = True, backend: str = "nft") -> Case:
    """A case of one scenario."""
    return Case("run", "20.10.24", backend, companions, "the port", cause, said)


def told(*cases: Case, unplayed: tuple[str, ...] = ()) -> str:
    """The lines, with every run of blanks as one."""
    return "\n".join(" ".join(line.split()) for line in Score(cases, FORTY, unplayed).lines())


@pytest.mark.parametrize(
    ("kind", "cause"),
    [("docker", DOCKER), ("nested-docker", NESTED), ("process", OTHER), ("container", OTHER), (None, OTHER)],
)
def test_the_cause_is_what_the_scenario_says(kind: str | None, cause: str) -> None:
    """What is neither the engine nor one inside a container is other."""
    assert cause_of(kind) == cause


@pytest.mark.parametrize(
    ("cause", "said", "wrong"),
    [
        (DOCKER, YES, False),
        (DOCKER, OPEN, False),
        (DOCKER, NO, True),
        (DOCKER, INSIDE, True),
        (NESTED, INSIDE, False),
        (NESTED, OPEN, False),
        (NESTED, NO, True),
        (NESTED, YES, True),
        (OTHER, NO, False),
        (OTHER, OPEN, False),
        (OTHER, YES, True),
        (OTHER, INSIDE, True),
        (OTHER, Said(CONFIRMED, "process"), True),
    ],
)
def test_what_is_wrong(cause: str, said: Said, wrong: bool) -> None:
    """Docker refuted, another confirmed, or one engine taken for the other; and then the exit status is 1."""
    assert said.is_wrong(cause) is wrong
    score = Score([case(said, cause=cause)], FORTY)
    assert score.exit_status == wrong
    assert ("WRONG: run: the port" in "\n".join(score.lines())) is wrong


def test_the_verdict_of_a_case_is_its_worst() -> None:
    """Wrong before inconclusive before right."""
    assert case(YES, YES).verdict == CONFIRMED
    assert case(YES, OPEN, YES).verdict == INCONCLUSIVE
    assert case(YES, OPEN, NO).verdict == REFUTED
    assert case(NO, OPEN, YES, cause=OTHER).verdict == CONFIRMED
    assert case(NO, OPEN, cause=OTHER).verdict == INCONCLUSIVE


def test_events_and_cases_in_the_table() -> None:
    """With companions in the first three columns, bare in the last."""
    text = told(
        case(YES, YES, OPEN),
        case(YES, OPEN, companions=False),
        case(NO, NO, NO, cause=OTHER, companions=False),
        case(INSIDE, cause=NESTED),
    )
    events, cases = text.split("\n\n")[:2]
    assert events.splitlines()[1:] == ["docker 2 1 0 1 1 0", "nested docker 1 0 0 0 0 0", "other 0 0 0 0 0 3"]
    assert cases.splitlines()[1:] == ["docker 0 1 0 0 1 0", "nested docker 1 0 0 0 0 0", "other 0 0 0 0 0 1"]
    assert "20.10.24 nft yes 4 25.0 % 2 50.0 % 0" in text
    assert "20.10.24 nft no 5 20.0 % 2 50.0 % 0" in text


def test_shares_against_what_is_wanted() -> None:
    """Under 2 % with companions and under 15 % without; the share itself is too many."""
    met = told(case(*[YES] * 99, OPEN), case(*[NO] * 86, *[OPEN] * 14, cause=OTHER, companions=False))
    assert "inconclusive with companions, of events 1.0 % under 2 % ok" in met
    assert "inconclusive with companions, of cases 100.0 % under 2 % NOT MET" in met
    assert "inconclusive without, of events 14.0 % under 15 % ok" in met
    missed = told(
        case(*[YES] * 98, *[OPEN] * 2), case(*[NO] * 85, *[OPEN] * 15, cause=OTHER, companions=False)
    )
    assert "inconclusive with companions, of events 2.0 % under 2 % NOT MET" in missed
    assert "inconclusive without, of events 15.0 % under 15 % NOT MET" in missed


def test_shares_do_not_make_it_fail() -> None:
    """A wrong verdict does; so does what was not played and so might have been wrong."""
    assert Score([case(OPEN)], FORTY).exit_status == 0
    assert Score([case(YES)], frozenset(), ["lxc: not installed"]).exit_status == 1
    assert Score([], FORTY).exit_status == 1


def test_wrong_verdicts_are_counted_and_named() -> None:
    """Each with its cause, and where."""
    text = told(case(NO, NO), case(YES, cause=OTHER, companions=False, backend="both"))
    assert "wrong CONFIRMED 1 0 NOT MET" in text
    assert "wrong REFUTED 2 0 NOT MET" in text
    assert "caused by other, CONFIRMED (docker) on 20.10.24 both without" in text


def test_too_few_scenarios_and_what_was_not_played() -> None:
    """Both are told."""
    assert "scenarios 40 at least 40 ok" in told(case(YES))
    few = Score([case(YES)], frozenset(["run"]), ["lxc\x1b[2J: not installed"])
    text = "\n".join(few.lines())
    assert "NOT MET" in text
    assert r"not played: lxc\x1b[2J: not installed" in text


def test_inconclusive_cases_are_listed_with_their_reason() -> None:
    """Those of one kind of event together, reasons that differ in a name only as one."""
    gone = [
        replace(OPEN, reasons=(f"whose device {name} was: it is not there any more",))
        for name in ("veth12ab34c", "veth99ab34d")
    ]
    text = told(case(gone[0]), case(gone[1], OPEN, backend="legacy"), case(YES, backend="both"))
    assert (
        "Inconclusive with companions:\n"
        "run: the port (docker): 2 of 3 cases, 20.10.24 nft legacy\n"
        "2 events: whose device veth... was: it is not there any more\n"
        "1 event: who did it: the event has no SYSCALL record"
    ) in text
    assert "Inconclusive without" not in text


def test_reasons_are_escaped_and_cut() -> None:
    """They hold names that anybody can give."""
    text = told(case(Said(INCONCLUSIVE, "unknown", ("\x1b[2J" + "x" * 1000,))))
    assert r"\x1b[2Jxxx" in text
    assert "x" * 200 not in text


def found(verdict: str, *evidence: tuple[str, str], missing: tuple[tuple[str, str], ...] = ()) -> Said:
    """From a finding."""
    return Said.of(
        {
            "verdict": verdict,
            "cause": {"kind": "docker"},
            "missing": [{"what": what, "why": why} for what, why in missing],
            "evidence": [{"bearing": bearing, "statement": statement} for bearing, statement in evidence],
        }
    )


def test_a_reason_is_what_was_missing_else_the_doubts() -> None:
    """And none where the verdict is not left open."""
    doubts = (("for", "yes"), ("against", "no"), ("neutral", "so"))
    assert found(INCONCLUSIVE, *doubts, missing=(("who", "gone"),)).reasons == ("who: gone",)
    assert found(INCONCLUSIVE, *doubts).reasons == ("no",)
    assert found(CONFIRMED, missing=(("who", "gone"),)) == YES


SAID = st.builds(Said, st.sampled_from(VERDICTS), st.sampled_from(["docker", "nested-docker", "process"]))
CASES = st.builds(
    Case,
    scenario=st.text(),
    engine=st.sampled_from(["20.10.24", "26.1.5"]),
    backend=st.sampled_from(["nft", "legacy"]),
    companions=st.booleans(),
    what=st.text(),
    cause=st.sampled_from(CAUSES),
    said=st.lists(SAID, min_size=1, max_size=4).map(tuple),
)


@given(st.lists(CASES, max_size=8))
def test_every_event_is_counted_once(cases: list[Case]) -> None:
    """Whatever the cases are; the JSON holds them all."""
    score = Score(cases, FORTY)
    rows = score.lines()[1:4]
    numbers = [int(word) for row in rows for word in row.removeprefix("nested ").split()[1:]]
    assert sum(numbers) == sum(len(case.said) for case in cases)
    assert all(line.isprintable() for line in score.lines())
    assert len(json.loads(json.dumps(score.as_json()))["cases"]) == len(cases)
