from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable

WHERE = Provenance("/proc", "/proc/1", 1.0)
OUTCOMES: list[Observation[str]] = [Observed("fact", WHERE), Absent(WHERE), Unobservable(WHERE, "why")]


def test_the_three_outcomes_are_never_equal_and_never_false() -> None:
    """Whoever writes `if answer` or `answer or other` must not lose the two that are not Observed."""
    assert all(OUTCOMES)
    assert len(set(OUTCOMES)) == 3


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_knows_where_it_comes_from_and_does_not_change(outcome: Observation[str]) -> None:
    assert outcome.provenance == WHERE
    with pytest.raises(FrozenInstanceError):
        outcome.provenance = WHERE  # type: ignore[misc]


def test_what_could_not_be_looked_at_has_no_fact() -> None:
    assert not hasattr(Unobservable(WHERE, "why"), "fact")
    assert not hasattr(Absent(WHERE), "fact")
