"""A recorded host: the answers that a live one gave, written down and given again.

Good for a ticket, for a second opinion on another machine, and for tests. The file is JSON, checked
against the types of the facts when it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import TOPICS, Fact, Question, never_asked

SCHEMA = "verify-audit.host/1"


class RecordingError(Exception):
    """The file cannot be read or is no recorded host; the text says which."""


class _Answer(msgspec.Struct, omit_defaults=True):
    topic: str
    outcome: str
    source: str
    query: str
    at: float
    subject: str = ""
    engine: str = ""
    fact: Any = None
    text: str = ""
    remedy: str = ""


class _File(msgspec.Struct):
    schema: str
    recorded_at: float
    answers: list[_Answer]


class RecordedHost:
    """Answers as they were recorded. What was not asked then is Unobservable."""

    def __init__(self, answers: Mapping[Question[Any], Observation[Any]], recorded_at: float) -> None:
        self.answers = answers
        self.recorded_at = recorded_at

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        """The recorded answer."""
        answer: Observation[Fact] | None = self.answers.get(question)
        return answer or never_asked(question, "recorded host", self.recorded_at)


def dump(answers: Mapping[Question[Any], Observation[Any]], recorded_at: float) -> str:
    """The file for these answers, as text."""
    listed = [_written(question, answer) for question, answer in answers.items()]
    listed.sort(key=lambda answer: (answer.engine, answer.topic, answer.subject))
    # json, not msgspec: a name may hold bytes that are no UTF-8, kept as lone surrogates.
    return json.dumps(msgspec.to_builtins(_File(SCHEMA, recorded_at, listed)), indent=1) + "\n"


def save(path: Path, answers: Mapping[Question[Any], Observation[Any]], recorded_at: float) -> None:
    """Write the file, readable by its owner only: it names containers and processes. OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(dump(answers, recorded_at))


def load(path: Path) -> RecordedHost:
    """The host that a file holds. RecordingError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path} is no recorded host: it is not text") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> RecordedHost:
    """The host in a file's text; name is for the error. RecordingError."""
    try:
        file = msgspec.convert(json.loads(text), _File)
        if file.schema != SCHEMA:
            raise RecordingError(f"{name} is a recorded host of form {file.schema!r}, not {SCHEMA!r}")
        answers: dict[Question[Any], Observation[Any]] = {
            Question(answer.topic, answer.subject, answer.engine): _read(answer) for answer in file.answers
        }
    except (ValueError, KeyError, RecursionError) as error:
        raise RecordingError(f"{name} is no recorded host: {error}") from error
    return RecordedHost(answers, file.recorded_at)


def _written(question: Question[Any], answer: Observation[Any]) -> _Answer:
    provenance = answer.provenance
    written = _Answer(
        question.topic,
        "",
        provenance.source,
        provenance.query,
        provenance.at,
        question.subject,
        question.engine,
    )
    match answer:
        case Observed():
            written.outcome, written.fact, written.text = (
                "observed",
                msgspec.to_builtins(answer.fact),
                answer.raw,
            )
        case Absent():
            written.outcome, written.text = "absent", answer.detail
        case Unobservable():
            written.outcome, written.text, written.remedy = "unobservable", answer.reason, answer.remedy
    return written


def _read(answer: _Answer) -> Observation[Any]:
    provenance = Provenance(answer.source, answer.query, answer.at)
    match answer.outcome:
        case "observed":
            return Observed(msgspec.convert(answer.fact, TOPICS[answer.topic]), provenance, answer.text)
        case "absent":
            return Absent(provenance, answer.text)
        case "unobservable":
            return Unobservable(provenance, answer.text, answer.remedy)
        case other:
            raise ValueError(f"an answer is {other!r}")
