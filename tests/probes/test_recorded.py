from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verify_audit.host import questions as ask
from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import TOPICS, Question
from verify_audit.probes.recorded import SCHEMA, RecordingError, dump, load, parse, save

names = st.binary(max_size=12).map(lambda each: each.decode("utf-8", "surrogateescape"))
times = st.floats(0, 2**33)
for kind, strategy in ((str, names), (float, times), (int, st.integers(-(2**63), 2**63 - 1))):
    st.register_type_strategy(kind, strategy)

provenances = st.builds(Provenance, names, names, times)


def answers_to(topic: str) -> st.SearchStrategy[tuple[Question[Any], Observation[Any]]]:
    facts = st.from_type(TOPICS[topic])
    outcomes: st.SearchStrategy[Observation[Any]] = (
        st.builds(Observed, facts, provenances, names)
        | st.builds(Absent, provenances, names)
        | st.builds(Unobservable, provenances, names, names)
    )
    return st.tuples(st.builds(Question, st.just(topic), names), outcomes)


@pytest.mark.parametrize("topic", TOPICS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_what_was_answered_is_answered_again(topic: str, data: st.DataObject) -> None:
    answers = dict(data.draw(st.lists(answers_to(topic), max_size=2)))
    text = dump(answers, 5.0)
    assert text.isascii()
    host = parse(text, "made up")
    assert host.answers == answers
    assert host.recorded_at == 5.0
    assert all(host.ask(question) == answer for question, answer in answers.items())


def test_what_was_not_asked_then_is_unobservable() -> None:
    answer = parse(dump({}, 7.0), "made up").ask(ask.ENGINE)
    assert isinstance(answer, Unobservable)
    assert answer.provenance == Provenance("recorded host", "engine", 7.0)


def test_the_same_answers_make_the_same_file_whatever_was_asked_first() -> None:
    where = Provenance("a", "b", 1.0)
    answers: list[tuple[Question[Any], Observation[Any]]] = [
        (ask.link("b"), Absent(where)),
        (ask.BOOT, Unobservable(where, "no")),
        (ask.link("a"), Absent(where)),
    ]
    assert dump(dict(answers), 1.0) == dump(dict(reversed(answers)), 1.0)
    assert [each["subject"] for each in json.loads(dump(dict(answers), 1.0))["answers"][1:]] == ["a", "b"]


def test_a_file_is_for_its_owner_only_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    answers: dict[Question[Any], Observation[Any]] = {ask.nsid_of(1): Observed(3, Provenance("a", "b", 1.0))}
    save(path, answers, 2.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path).answers == answers


def test_an_older_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text("x" * 10_000)
    save(path, {}, 2.0)
    assert load(path).answers == {}


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"No such file|Is a directory"):
        load(tmp_path / name)


def test_a_file_that_is_not_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordingError, match="it is not text"):
        load(tmp_path / "host.json")


def one(**changes: Any) -> str:
    answer = {
        "topic": "nsid",
        "subject": "1",
        "outcome": "observed",
        "source": "a",
        "query": "b",
        "at": 1.0,
        "fact": 3,
    }
    return json.dumps({"schema": SCHEMA, "recorded_at": 1.0, "answers": [answer | changes]})


def test_the_sample_that_is_changed_below_is_a_recorded_host() -> None:
    assert parse(one(), "x").answers == {ask.nsid_of(1): Observed(3, Provenance("a", "b", 1.0))}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "{}",
        "[]",
        "null",
        "[" * 100_000,
        '{"schema": 1}',
        one().replace(SCHEMA, "verify-audit.host/2"),
        one(topic="weather"),
        one(outcome="guessed"),
        one(fact="three"),
        one(fact=None),
        one(topic="link"),
        one(topic="link", fact={"ifindex": 1}),
        one(at="noon"),
        one(topic=None),
        '{"schema": "verify-audit.host/1", "recorded_at": 1, "answers": {}}',
        '{"schema": "verify-audit.host/1", "recorded_at": 1, "answers": [7]}',
        '{"schema": "verify-audit.host/1", "recorded_at": ' + "9" * 5000 + ', "answers": []}',
        one(subject="\ud800", fact="\ud800"),
    ],
)
def test_rubbish_is_no_recorded_host(text: str) -> None:
    with pytest.raises(RecordingError, match=r"^x(\.json)? is "):
        parse(text, "x")


@given(st.data())
def test_a_file_with_anything_in_any_place_is_read_or_a_recording_error(data: st.DataObject) -> None:
    content = json.loads(one())
    value = data.draw(
        st.none()
        | st.integers(-(10**40), 10**40)
        | st.just(10**400)
        | st.floats()
        | st.text(max_size=3)
        | st.sampled_from(["\ud800", [], {}, [[]], *TOPICS, "absent", "unobservable"])
    )
    key = data.draw(st.sampled_from([*content, *content["answers"][0]]))
    (content if key in content else content["answers"][0])[key] = value
    try:
        parse(json.dumps(content), "x")
    except RecordingError as error:
        assert str(error).startswith("x is ")


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        save(Path("/dev/full"), {}, 1.0)
    with pytest.raises(OSError, match="Is a directory"):
        save(tmp_path, {}, 1.0)
