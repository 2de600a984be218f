from __future__ import annotations

from typing import Any

import pytest

from tests.audit.log import ANOM, ANOM_SYSCALL
from tests.made_up import NOT_THERE, docker_host, event, unseen
from verify_audit.findings.evidence import Bearing, Step, Weight
from verify_audit.findings.finding import Cause, CauseKind, ContainerRef, Finding, Subject
from verify_audit.findings.verdict import Verdict
from verify_audit.host.observation import Observed, Provenance
from verify_audit.rules.actor import Actor, Actors, Relation
from verify_audit.rules.case import Case
from verify_audit.rules.picture import Picture

EVENT = event(ANOM, ANOM_SYSCALL)
DOCKER = Actors(Picture(docker_host())).of(EVENT, engine_acts_itself=True)
NOBODY = Actor(Relation.UNRECORDED, Cause(CauseKind.UNKNOWN, "no actor was recorded"))
SNIFFER = Actor(Relation.OTHER, Cause(CauseKind.PROCESS, "tcpdump", 99))


def finding(case: Case) -> Finding:
    return case.finding("rule", Subject("dev"), lambda verdict, cause: f"{verdict}: {cause.text}", "somebody")


def test_nothing_gathered_is_inconclusive() -> None:
    found = finding(Case(EVENT, NOBODY))
    assert (found.verdict, found.cause, found.headline) == (
        Verdict.INCONCLUSIVE,
        NOBODY.cause,
        "inconclusive: no actor was recorded",
    )


@pytest.mark.parametrize(
    ("method", "bearing", "weight"),
    [
        (Case.supports, Bearing.FOR, Weight.SUPPORTING),
        (Case.proves, Bearing.FOR, Weight.DECISIVE),
        (Case.doubts, Bearing.AGAINST, Weight.SUPPORTING),
        (Case.disproves, Bearing.AGAINST, Weight.DECISIVE),
        (Case.notes, Bearing.NEUTRAL, Weight.SUPPORTING),
    ],
)
def test_each_word_has_its_bearing_and_weight(method: Any, bearing: Bearing, weight: Weight) -> None:
    case = Case(EVENT, NOBODY)
    source = Observed("fact", Provenance("a", "b", 1.0), "as it came")
    method(case, Step.DEVICE, "so it is", source, "look")
    (piece,) = case.evidence
    assert (piece.bearing, piece.weight, piece.step) == (bearing, weight, Step.DEVICE)
    assert (piece.statement, piece.by_hand, piece.raw) == ("so it is", "look", "as it came")
    assert piece.provenance == source.provenance


def test_evidence_has_what_was_said_or_else_what_came() -> None:
    case = Case(EVENT, NOBODY)
    case.notes(Step.DEVICE, "s", Observed("fact", Provenance("a", "b", 1.0), "as it came"), raw="better")
    case.notes(Step.DEVICE, "s", NOT_THERE)
    assert [piece.raw for piece in case.evidence] == ["better", ""]


def test_what_the_actor_brings_is_evidence_too() -> None:
    case = Case(EVENT, DOCKER)
    assert tuple(case.evidence) == DOCKER.evidence
    assert finding(case).verdict is Verdict.CONFIRMED
    assert finding(case).cause == DOCKER.cause


def test_against_the_engine_as_actor_another_cause_is_only_a_doubt() -> None:
    case = Case(EVENT, DOCKER)
    case.disproves(Step.DEVICE, "odd", NOT_THERE)
    assert case.evidence[-1].weight is Weight.SUPPORTING
    assert finding(case).verdict is Verdict.INCONCLUSIVE


def test_a_confirmation_by_state_alone_names_no_process() -> None:
    case = Case(EVENT, NOBODY)
    case.proves(Step.DEVICE, "it is there", NOT_THERE)
    found = finding(case)
    assert (found.verdict, found.cause.kind, found.cause.pid) == (Verdict.CONFIRMED, CauseKind.DOCKER, None)


@pytest.mark.parametrize(
    ("actor", "other", "cause"),
    [
        (SNIFFER, None, SNIFFER.cause),
        (SNIFFER, Cause(CauseKind.PROCESS, "zeek", 5), SNIFFER.cause),
        (NOBODY, Cause(CauseKind.PROCESS, "zeek", 5), Cause(CauseKind.PROCESS, "zeek", 5)),
        (NOBODY, None, Cause(CauseKind.UNKNOWN, "somebody")),
    ],
)
def test_the_cause_of_what_is_refuted(actor: Actor, other: Cause | None, cause: Cause) -> None:
    case = Case(EVENT, actor, other=other)
    case.disproves(Step.LISTENERS, "it was another", NOT_THERE)
    found = finding(case)
    assert (found.verdict, found.cause) == (Verdict.REFUTED, cause)


def test_what_was_missing_is_told_once_and_not_when_all_is_confirmed() -> None:
    case = Case(EVENT, NOBODY)
    case.could_not_see("the link", unseen("no"))
    case.could_not_see("the link", unseen("no"))
    case.lacks("the rest", "why", "how")
    assert [lack.what for lack in finding(case).missing] == ["the link", "the rest"]
    case.proves(Step.DEVICE, "it is there", NOT_THERE)
    assert finding(case).missing == ()


def test_a_container_that_was_found_goes_before_the_actors() -> None:
    mine, actors = ContainerRef("1", "mine", "i"), ContainerRef("2", "actor's", "i")
    actor = Actor(Relation.CONTAINER, SNIFFER.cause, container=actors)
    assert finding(Case(EVENT, actor)).container == actors
    assert finding(Case(EVENT, actor, container=mine)).container == mine
