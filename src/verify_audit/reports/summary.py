"""The count at the end of a report, and the exit status that it means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host.observation import Unobservable


@dataclass(slots=True)
class Summary:
    """What a run came to.

    unparsed: lines of the log that are no audit record. unobservable: what the host could not tell.
    """

    confirmed: int = 0
    refuted: int = 0
    inconclusive: int = 0
    unparsed: int = 0
    examples: list[str] = field(default_factory=list)
    unobservable: list[Unobservable] = field(default_factory=list)

    @property
    def events(self) -> int:
        """How many findings there are."""
        return self.confirmed + self.refuted + self.inconclusive

    def count(self, findings: Iterable[Finding]) -> None:
        """Add these."""
        for finding in findings:
            match finding.verdict:
                case Verdict.CONFIRMED:
                    self.confirmed += 1
                case Verdict.REFUTED:
                    self.refuted += 1
                case Verdict.INCONCLUSIVE:
                    self.inconclusive += 1

    @property
    def exit_status(self) -> int:
        """0 all confirmed, 3 nothing to judge, 10 the worst is inconclusive, 11 at least one refuted."""
        if self.refuted:
            return 11
        if self.inconclusive:
            return 10
        return 0 if self.confirmed else 3
