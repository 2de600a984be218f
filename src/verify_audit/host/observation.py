"""The three outcomes of looking: seen, looked and not there, could not look.

They are three types on purpose. An empty answer from a look-up that failed is how a verifier comes
to lie, so nothing that could not be looked at can be mistaken for something that is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Fact_co = TypeVar("Fact_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a fact comes from.

    source: what was asked ("Docker API", "rtnetlink", "/proc").
    query:  the question as put ("GET /networks", "RTM_GETLINK dump").
    at:     when it was answered, seconds since the epoch (CLOCK_REALTIME).
    """

    source: str
    query: str
    at: float


@dataclass(frozen=True, slots=True)
class Observed(Generic[Fact_co]):
    """Looked, and there it was. `raw` is the answer as it came, for the report."""

    fact: Fact_co
    provenance: Provenance
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """Looked, the answer was complete, and it was not there. `detail` says what was looked through."""

    provenance: Provenance
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unobservable:
    """Could not look: says nothing about the fact, for or against.

    reason: why, as a clause ("no engine answers on /run/docker.sock").
    remedy: what to do so that it can be looked at next time; empty when nothing helps.
    """

    provenance: Provenance
    reason: str
    remedy: str = ""


Observation = Observed[Fact_co] | Absent | Unobservable
