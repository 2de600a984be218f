"""Short forms for building evidence, so that a rule reads as what it says."""

from __future__ import annotations

from typing import Any

from verify_audit.audit.record import Event, Record
from verify_audit.findings.evidence import Bearing, Evidence, Missing, Step, Weight
from verify_audit.findings.finding import Cause, CauseKind
from verify_audit.host.facts import EngineEvent
from verify_audit.host.observation import Observation, Observed, Provenance, Unobservable


def evidence(
    bearing: Bearing,
    weight: Weight,
    step: Step,
    statement: str,
    source: Observation[Any],
    by_hand: str = "",
    raw: str = "",
) -> Evidence:
    """A piece of evidence that stands on an observation."""
    text = raw or (source.raw if isinstance(source, Observed) else "")
    return Evidence(bearing, weight, step, statement, source.provenance, text, by_hand)


def neutral(
    step: Step, statement: str, source: Observation[Any], by_hand: str = "", raw: str = ""
) -> Evidence:
    """Something that a reader wants to know and that points neither way."""
    return evidence(Bearing.NEUTRAL, Weight.SUPPORTING, step, statement, source, by_hand, raw)


def from_log(event: Event, record: Record) -> Observed[Record]:
    """A record of the log, as something that was observed."""
    provenance = Provenance("audit log", f"{record.type} of event {event.id}", event.time)
    return Observed(record, provenance, record.raw.decode("utf-8", "surrogateescape"))


def quoted(event: EngineEvent) -> str:
    """An event of the engine's as docker(1) would name it, for the raw text of evidence."""
    parts = (
        ("container", event.container_id),
        ("name", event.container_name),
        ("image", event.image),
        ("network", event.network_id),
        ("name", event.network_name),
    )
    attributes = ", ".join(f"{key}={value}" for key, value in parts if value)
    return f"{event.at:.9f} {event.type} {event.action} ({attributes})"


def denial(cause: Cause) -> str:
    """How a headline begins that tells of another cause."""
    return "Another Docker engine, not this one" if cause.kind is CauseKind.OTHER_DOCKER else "Not Docker"


def missing(what: str, answer: Unobservable) -> Missing:
    """What an unobservable answer left open."""
    return Missing(what, answer.reason, answer.remedy)
