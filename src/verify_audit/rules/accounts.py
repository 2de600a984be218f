"""Changes of the firewall that no actor was recorded for, counted against what the engine did."""

from __future__ import annotations

from collections.abc import Sequence

from verify_audit.audit.record import Event
from verify_audit.rules.case import Case
from verify_audit.rules.picture import Picture


class Accounts:
    """To come."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def survey(self, events: Sequence[Event]) -> None:
        """Count."""

    def settle(self, case: Case) -> None:
        """Say."""
