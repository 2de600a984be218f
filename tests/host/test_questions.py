from __future__ import annotations

from typing import Any

import pytest

from tests.made_up import process
from verify_audit.host import questions as ask
from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import TOPICS, AskedOnce, Fact, Inside, Question, never_asked

WHERE = Provenance("made up", "asked", 1.0)


class Counting:
    """A host that answers each question with the next answer."""

    def __init__(self, *answers: Observation[Any]) -> None:
        self._answers = iter(answers)
        self.asked: list[Question[Any]] = []

    def ask(self, question: Question[Any]) -> Observation[Any]:
        self.asked.append(question)
        return next(self._answers)


@pytest.mark.parametrize("answer", [Observed(0, WHERE), Absent(WHERE), Unobservable(WHERE, "no")])
def test_a_question_is_asked_once_whatever_the_answer_was(answer: Observation[int]) -> None:
    host = Counting(answer)
    once = AskedOnce(host)
    assert [once.ask(ask.nsid_of(7)) for _ in range(3)] == [answer] * 3
    assert host.asked == [ask.nsid_of(7)]
    assert once.answers == {ask.nsid_of(7): answer}


def test_other_questions_are_asked_for_themselves() -> None:
    host = Counting(Absent(WHERE, "a"), Absent(WHERE, "b"), Absent(WHERE, "c"))
    once = AskedOnce(host)
    for question in (ask.link("a"), ask.link("b"), ask.link_at(1), ask.link("a")):
        once.ask(question)
    assert host.asked == [ask.link("a"), ask.link("b"), ask.link_at(1)]


def test_every_question_has_a_topic_of_its_own_with_a_type() -> None:
    questions: list[Question[Any]] = [
        ask.ENGINE,
        ask.DAEMON,
        ask.CONTAINERS,
        ask.NETWORKS,
        ask.HISTORY,
        ask.FIREWALL,
        ask.FIREWALLD,
        ask.packet_sockets(1),
        ask.BOOT,
        ask.NESTED,
        ask.is_engine(1),
        ask.life("1" * 64),
        ask.link("eth0"),
        ask.link_at(2),
        ask.peer(0, 2),
        ask.stack(1),
        ask.nsid_of(1),
        ask.container_firewall(1),
        ask.process(1),
    ]
    assert sorted(question.topic for question in questions) == sorted(TOPICS)


def test_things_that_differ_are_asked_about_differently() -> None:
    assert ask.peer(1, 23) != ask.peer(12, 3)
    assert ask.link("2") != ask.link_at(2)
    assert len({each.topic for each in (ask.process(1), ask.nsid_of(1), ask.container_firewall(1))}) == 3


def test_what_was_never_asked_is_unobservable_and_says_what_to_do() -> None:
    answer = never_asked(ask.link("eth0"), "recorded host", 5.0)
    assert answer.provenance == Provenance("recorded host", "link eth0", 5.0)
    assert "not recorded" in answer.reason
    assert "--save-host" in answer.remedy
    assert never_asked(ask.ENGINE, "x", 5.0).provenance.query == "engine"


def test_another_engine_of_the_host_is_asked_what_depends_on_the_engine() -> None:
    asked: list[Question[Any]] = []

    class Asked:
        def ask(self, question: Question[Fact]) -> Observation[Fact]:
            asked.append(question)
            return never_asked(question, "test", 5.0)

    inside = Inside(Asked(), process(4711))
    of_engine: tuple[Question[Any], ...] = (ask.DAEMON, ask.life("x"), ask.link("eth0"))
    of_host: tuple[Question[Any], ...] = (ask.BOOT, ask.process(1), ask.container_firewall(1))
    for question in (*of_engine, *of_host):
        inside.ask(question)
    assert [each.engine for each in asked] == ["4711.47110"] * 3 + [""] * 3
    assert [each.topic for each in asked[:3]] == ["daemon", "life", "link"]
