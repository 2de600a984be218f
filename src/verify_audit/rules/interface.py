"""What a rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Evidence
from verify_audit.findings.finding import Finding
from verify_audit.rules.actor import Actors
from verify_audit.rules.background import background
from verify_audit.rules.case import Case
from verify_audit.rules.picture import Picture


class Rule(ABC):
    """Judges one kind of event on one host.

    A rule is made once for a run and sees the events in the order of the log, so that it may remember
    what an earlier one has already explained.
    """

    name: str

    def __init__(self, picture: Picture, actors: Actors) -> None:
        self.picture = picture
        self.actors = actors

    @cached_property
    def _told(self) -> tuple[Evidence, ...]:
        return background(self.picture)

    def _background(self, case: Case) -> None:
        """Add what every report tells: the engine, and its definitions in the firewall."""
        case.evidence.extend(self._told)

    @abstractmethod
    def applies(self, event: Event) -> bool:
        """Whether the event is of this rule's kind."""

    @abstractmethod
    def survey(self, events: Sequence[Event]) -> None:
        """See all of this rule's events before the first is judged, in the order of the log."""

    @abstractmethod
    def judge(self, event: Event) -> Finding:
        """The event, judged. Never raises for what an event or a host can hold."""
