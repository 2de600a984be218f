"""Real events and the hosts that they were judged on (tests/samples), changed as the fuzzer says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from tests.fuzz.choices import Choices
from tests.fuzz.judging import judged
from tests.hostile import NAMES
from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.findings.verdict import Verdict
from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import TOPICS, Question
from verify_audit.probes.recorded import RecordedHost, load

SAMPLES = Path(__file__).parents[1] / "samples"
WRONG = {"docker": Verdict.REFUTED, "other": Verdict.CONFIRMED}
"""By what truth.json says of an event's cause: the verdict that must not be."""

_WHERE = Provenance("the fuzzer", "a choice", 0.0)
_BYTES = tuple(name.encode("utf-8", "surrogatepass") for name in NAMES)
_NUMBERS = (0, 1, -1, 2, 256, 4294967295, 1 << 31, 1 << 62, 1795436164)
_VALUE = re.compile(rb'(?<==)(?:"[^"]*"|[^ ]*)')


@dataclass(frozen=True, eq=False)
class Case:
    """One sample."""

    name: str
    log: tuple[bytes, ...]
    written: bytes
    host: RecordedHost
    truth: dict[str, str]

    @property
    def questions(self) -> tuple[Question[Any], ...]:
        """What its host was asked."""
        return tuple(self.host.answers)


@cache
def cases() -> tuple[Case, ...]:
    """Every sample."""
    return tuple(
        Case(
            f"{log.parent.parent.name}/{log.parent.name}",
            tuple(log.read_bytes().splitlines(keepends=True)),
            (log.parent / "host.json").read_bytes(),
            load(log.parent / "host.json"),
            json.loads((log.parent / "truth.json").read_text()),
        )
        for log in sorted(SAMPLES.glob("*/*/event.log"))
    )


def judge_mutated(choices: Choices) -> None:
    """Judge one, changed. While nothing is changed but what can be seen, no verdict is against the truth."""
    case = choices.of(cases())
    log, answers = list(case.log), dict(case.host.answers)
    only_hidden = True
    while choices.left:
        kind = choices.below(8)
        if kind == 0:
            answers[choices.of(case.questions)] = Unobservable(_WHERE, choices.of(NAMES), "look again")
        elif kind == 1:
            only_hidden = False
            answers[choices.of(case.questions)] = Absent(_WHERE, choices.of(NAMES))
        elif kind < 5:
            only_hidden = False
            _change_answer(answers, choices.of(case.questions), choices)
        else:
            only_hidden = False
            choices.of(_LOG_CHANGES)(log, choices)
    found = judged(list(events([b"".join(log)], Losses())), RecordedHost(answers, case.host.recorded_at))
    if only_hidden:
        for each in found:
            assert each.verdict is not WRONG.get(case.truth.get(each.event.id, "")), each.headline


# The log


def _drop(log: list[bytes], choices: Choices) -> None:
    if log:
        del log[choices.below(len(log))]


def _repeat(log: list[bytes], choices: Choices) -> None:
    if log:
        log.insert(choices.below(len(log)), choices.of(log))


def _change_value(log: list[bytes], choices: Choices) -> None:
    """Another value for a field."""
    if not log:
        return
    at = choices.below(len(log))
    found = list(_VALUE.finditer(log[at]))
    if found:
        old = choices.of(found)
        new = choices.of(_BYTES) if choices.below(2) else b"%d" % choices.of(_NUMBERS)
        log[at] = log[at][: old.start()] + new + log[at][old.end() :]


def _change_bytes(log: list[bytes], choices: Choices) -> None:
    if log:
        at = choices.below(len(log))
        start = choices.below(len(log[at]) + 1)
        log[at] = log[at][:start] + choices.some() + log[at][start + choices.below(4) :]


def _swap_values(log: list[bytes], choices: Choices) -> None:
    """A value of one line in the place of a value of another."""
    if not log:
        return
    at = choices.below(len(log))
    here, there = _VALUE.search(log[at], choices.below(256)), list(_VALUE.finditer(choices.of(log)))
    if here and there:
        log[at] = log[at][: here.start()] + choices.of(there)[0] + log[at][here.end() :]


_LOG_CHANGES: tuple[Callable[[list[bytes], Choices], None], ...] = (
    _drop,
    _repeat,
    _change_value,
    _change_bytes,
    _swap_values,
)

# The host


def _change_answer(
    answers: dict[Question[Any], Observation[Any]], question: Question[Any], choices: Choices
) -> None:
    """Another fact, of the same type."""
    answer = answers[question]
    if not isinstance(answer, Observed):
        return
    other = changed(msgspec.to_builtins(answer.fact), choices)
    try:
        fact = msgspec.convert(other, TOPICS[question.topic])
    except ValueError:
        return
    answers[question] = Observed(fact, answer.provenance, answer.raw)


def changed_json(text: bytes, choices: Choices) -> bytes:
    """The JSON of a line each, or of one value, with a few things in it changed."""
    try:
        values = [json.loads(text)]
    except ValueError:
        values = list(map(json.loads, text.splitlines()))
    while choices.left:
        at = choices.below(len(values))
        values[at] = changed(values[at], choices)
    return "\n".join(map(json.dumps, values)).encode()


def changed(value: Any, choices: Choices) -> Any:
    """The value with one thing in it changed."""
    if isinstance(value, dict) and value:
        key = choices.of(sorted(value))
        return value | {key: changed(value[key], choices)}
    if isinstance(value, list | tuple) and value:
        at = choices.below(len(value))
        match choices.below(6):
            case 0:
                return [*value[:at], *value[at + 1 :]]
            case 1:
                return [*value, value[at]]
            case _:
                return [*value[:at], changed(value[at], choices), *value[at + 1 :]]
    match value:
        case bool():
            return not value
        case int() | float():
            return choices.of((value + 1, value - 1, value / 2, *_NUMBERS, None, float("inf"), float("nan")))
        case str():
            return choices.of((*NAMES, value[::-1], value + "x", value.upper(), None))
        case _:
            return choices.of((*_NUMBERS, *NAMES[:8], None))
