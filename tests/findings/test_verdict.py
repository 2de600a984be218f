from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.findings.evidence import Bearing, Evidence, Step, Weight
from verify_audit.findings.verdict import Verdict, decide
from verify_audit.host.observation import Provenance

SOURCE = Provenance("made up", "nothing", 0.0)
FOR, AGAINST, NEUTRAL = Bearing.FOR, Bearing.AGAINST, Bearing.NEUTRAL
DECISIVE, SUPPORTING = Weight.DECISIVE, Weight.SUPPORTING
CONFIRMED, REFUTED, INCONCLUSIVE = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.INCONCLUSIVE
TOWARDS_DOCKER = [REFUTED, INCONCLUSIVE, CONFIRMED]


def piece(bearing: Bearing, weight: Weight, step: Step = Step.ACTOR) -> Evidence:
    return Evidence(bearing, weight, step, "said", SOURCE)


pieces = st.builds(piece, st.sampled_from(Bearing), st.sampled_from(Weight), st.sampled_from(Step))
evidence = st.lists(pieces, max_size=8)


def test_no_evidence_no_verdict_but_inconclusive() -> None:
    assert decide([]) is INCONCLUSIVE


@pytest.mark.parametrize(
    ("decisive_for", "supporting_for", "decisive_against", "supporting_against"),
    list(product([False, True], repeat=4)),
)
def test_the_whole_table(
    decisive_for: bool, supporting_for: bool, decisive_against: bool, supporting_against: bool
) -> None:
    given_evidence = [
        piece(bearing, weight)
        for there, bearing, weight in (
            (decisive_for, FOR, DECISIVE),
            (supporting_for, FOR, SUPPORTING),
            (decisive_against, AGAINST, DECISIVE),
            (supporting_against, AGAINST, SUPPORTING),
        )
        if there
    ]
    against = decisive_against or supporting_against
    if decisive_for and not against:
        expected = CONFIRMED
    elif decisive_against and not decisive_for:
        expected = REFUTED
    else:
        expected = INCONCLUSIVE
    assert decide(given_evidence) is expected


@given(evidence, st.sampled_from(Weight))
def test_more_against_never_moves_towards_confirmed(given_evidence: list[Evidence], weight: Weight) -> None:
    before, after = decide(given_evidence), decide([*given_evidence, piece(AGAINST, weight)])
    assert TOWARDS_DOCKER.index(after) <= TOWARDS_DOCKER.index(before)


@given(evidence, st.sampled_from(Weight))
def test_more_for_never_moves_towards_refuted(given_evidence: list[Evidence], weight: Weight) -> None:
    before, after = decide(given_evidence), decide([*given_evidence, piece(FOR, weight)])
    assert TOWARDS_DOCKER.index(after) >= TOWARDS_DOCKER.index(before)


@given(st.data())
def test_order_and_repetition_do_not_matter(data: st.DataObject) -> None:
    given_evidence = data.draw(evidence)
    shuffled = data.draw(st.permutations(given_evidence))
    assert decide(given_evidence) is decide(shuffled) is decide([*shuffled, *given_evidence])


@given(evidence, st.sampled_from(Weight), st.sampled_from(Step))
def test_what_is_neutral_moves_nothing_whatever_it_weighs(
    given_evidence: list[Evidence], weight: Weight, step: Step
) -> None:
    assert decide([*given_evidence, piece(NEUTRAL, weight, step)]) is decide(given_evidence)


@given(st.lists(st.builds(piece, st.sampled_from([FOR, NEUTRAL]), st.just(SUPPORTING))))
def test_nothing_that_only_fits_confirms(given_evidence: list[Evidence]) -> None:
    assert decide(given_evidence) is INCONCLUSIVE


@given(st.lists(st.builds(piece, st.sampled_from([AGAINST, NEUTRAL]), st.just(SUPPORTING))))
def test_nothing_that_only_does_not_fit_refutes(given_evidence: list[Evidence]) -> None:
    assert decide(given_evidence) is INCONCLUSIVE


@given(evidence)
def test_the_steps_do_not_weigh(given_evidence: list[Evidence]) -> None:
    moved = [piece(each.bearing, each.weight, Step.LISTENERS) for each in given_evidence]
    assert decide(moved) is decide(given_evidence)


def test_evidence_may_come_one_by_one() -> None:
    assert decide(iter([piece(FOR, DECISIVE)])) is CONFIRMED
