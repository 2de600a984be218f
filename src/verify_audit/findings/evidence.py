"""Evidence, and what was missing. Values only; the decision is in verdict.py."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from verify_audit.host.observation import Provenance


class Bearing(StrEnum):
    """Which way a piece of evidence points: towards Docker, away from it, or neither."""

    FOR = "for"
    AGAINST = "against"
    NEUTRAL = "neutral"


class Weight(StrEnum):
    """How far a piece of evidence carries.

    DECISIVE:    settles the claim unless something else contradicts it (the actor is the engine; the
                 state of the host is complete and consistent; another process did it).
    SUPPORTING:  fits or does not fit. FOR: not enough alone. AGAINST: enough to withhold CONFIRMED.
    """

    DECISIVE = "decisive"
    SUPPORTING = "supporting"


class Step(StrEnum):
    """The steps of the check by hand, in the order in which a person makes them."""

    ACTOR = "Who did it"
    ENGINE = "Is the engine running, and since when"
    FIREWALL = "Are Docker's definitions in the firewall"
    CONTAINER = "Which container was it"
    DEVICE = "Is the device among the interfaces, and on which bridge"
    LISTENERS = "Does anyone listen"


class Evidence(NamedTuple):
    """One statement about the claim, with where it comes from.

    by_hand is a command that shows the same to a person; empty when there is none.
    """

    bearing: Bearing
    weight: Weight
    step: Step
    statement: str
    provenance: Provenance
    raw: str = ""
    by_hand: str = ""


class Missing(NamedTuple):
    """Something that would have helped and could not be had.

    what: the fact, why: why it could not be had, remedy: how to have it next time (may be empty).
    """

    what: str
    why: str
    remedy: str
