"""Which serials a log holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.audit.serials import Serials


def log(*serials: int, step: int = 100) -> Serials:
    made = Serials()
    for serial in serials:
        made.add(None, serial, serial * step)
    return made


def test_a_log_without_a_gap_is_whole() -> None:
    assert log(10, 11, 12, 13).whole(None, 1.0, 1.3)


def test_a_log_with_a_gap_is_not() -> None:
    made = log(10, 11, 13, 14)
    assert not made.whole(None, 1.0, 1.4)
    assert not made.whole(None, 1.0, 1.2)
    assert made.whole(None, 1.3, 1.4)


def test_a_log_that_begins_too_late_is_not_whole() -> None:
    assert not log(10, 11).whole(None, 0.9, 1.1)


def test_a_log_may_end_with_what_is_asked_for() -> None:
    assert log(10, 11).whole(None, 1.0, 5.0)


def test_a_log_that_is_over_before_is_not_whole() -> None:
    assert not log(10, 11).whole(None, 2.0, 5.0)


def test_what_ends_in_a_gap_is_not_whole_beyond_it() -> None:
    assert not log(10, 11, 20).whole(None, 1.0, 1.2)


def test_nodes_are_counted_each_by_itself() -> None:
    made = log(10, 11)
    made.add(b"b".decode(), 12, 1200)
    assert not made.whole("b", 1.0, 1.2)
    assert made.whole(None, 1.0, 1.1)
    assert not made.whole("c", 1.0, 1.1)


@given(st.permutations(range(10)))
def test_records_that_changed_places_fill_their_gap(order: list[int]) -> None:
    assert log(*(10 + each for each in order)).whole(None, 1.0, 1.9)


@given(st.permutations(range(10)), st.integers(1, 8))
def test_one_that_is_missing_is_missed_in_any_order(order: list[int], gone: int) -> None:
    assert not log(*(10 + each for each in order if each != gone)).whole(None, 1.0, 1.9)


def test_the_events_of_a_log_are_counted_whatever_they_are_but_for_auditds_own() -> None:
    losses = Losses()
    text = (
        b"type=USER_ACCT msg=audit(100.000:7): pid=1\n"
        b"type=DAEMON_START msg=audit(100.100:4711): op=start\n"
        b"type=ANOM_PROMISCUOUS msg=audit(100.200:8): dev=v prom=256 old_prom=0 auid=1 uid=0 gid=0 ses=1\n"
        b"type=CRED_DISP msg=audit(100.900:9): pid=1\n"
    )
    assert len(list(events([text], losses))) == 1
    assert losses.serials.whole(None, 100.0, 100.9)
    assert not losses.serials.whole(None, 99.0, 100.9)
