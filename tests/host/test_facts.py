from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.host.facts import History, Network


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_a_history_covers_what_lies_within_it(since: float, until: float, start: float, end: float) -> None:
    covers = History((), since, until).covers(start, end)
    assert covers == (since <= start and end <= until)


def test_the_ends_are_covered() -> None:
    assert History((), 10.0, 20.0).covers(10.0, 20.0)
    assert not History((), 10.0, 20.0).covers(9.999, 20.0)
    assert not History((), 10.0, 20.0).covers(10.0, 20.001)


@pytest.mark.parametrize(("key", "value"), [("parent", "eth0"), ("empty", ""), ("other", None)])
def test_an_option_of_a_network(key: str, value: str | None) -> None:
    network = Network(
        "1", "n", "macvlan", "local", False, False, None, "", (), (("empty", ""), ("parent", "eth0"))
    )
    assert network.option(key) == value
