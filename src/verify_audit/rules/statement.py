"""Short forms for building evidence, so that a rule reads as what it says."""

from __future__ import annotations

from typing import Any

from verify_audit.audit.record import Event, Record
from verify_audit.findings.evidence import Bearing, Evidence, Missing, Step, Weight
from verify_audit.host.observation import Observation, Observed, Provenance, Unobservable


def evidence(
    bearing: Bearing,
    weight: Weight,
    step: Step,
    statement: str,
    source: Observation[Any] | Provenance,
    by_hand: str = "",
    raw: str = "",
) -> Evidence:
    """A piece of evidence that stands on an observation."""
    if isinstance(source, Provenance):
        return Evidence(bearing, weight, step, statement, source, raw, by_hand)
    text = raw or (source.raw if isinstance(source, Observed) else "")
    return Evidence(bearing, weight, step, statement, source.provenance, text, by_hand)


def neutral(step: Step, statement: str, source: Observation[Any] | Provenance, by_hand: str = "") -> Evidence:
    """Something that a reader wants to know and that points neither way."""
    return evidence(Bearing.NEUTRAL, Weight.SUPPORTING, step, statement, source, by_hand)


def from_log(event: Event, record: Record) -> Provenance:
    """Where a statement of the log itself comes from."""
    return Provenance("audit log", f"{record.type} of event {event.id}", event.time)


def missing(what: str, answer: Unobservable) -> Missing:
    """What an unobservable answer left open."""
    return Missing(what, answer.reason, answer.remedy)
