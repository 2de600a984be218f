"""From evidence to a verdict. Fails closed: no evidence, no verdict but INCONCLUSIVE."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from verify_audit.findings.evidence import Bearing, Evidence, Weight


class Verdict(StrEnum):
    """Whether Docker caused the event."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"


def decide(evidence: Iterable[Evidence]) -> Verdict:
    """The verdict that the evidence carries.

    CONFIRMED needs something decisive for Docker and nothing at all against it. REFUTED needs
    something decisive against it, that is, another cause seen, and nothing decisive for it. All else,
    contradiction included, is INCONCLUSIVE.

    More evidence against never moves the verdict towards CONFIRMED, more evidence for never towards
    REFUTED, and order does not matter.
    """
    decisive_for = decisive_against = doubt = False
    for piece in evidence:
        if piece.bearing is Bearing.FOR:
            decisive_for |= piece.weight is Weight.DECISIVE
        elif piece.bearing is Bearing.AGAINST:
            decisive_against |= piece.weight is Weight.DECISIVE
            doubt = True
    if decisive_against:
        return Verdict.INCONCLUSIVE if decisive_for else Verdict.REFUTED
    return Verdict.CONFIRMED if decisive_for and not doubt else Verdict.INCONCLUSIVE
