from __future__ import annotations

import pytest

from tests.audit.log import ANOM, NETFILTER, PROCTITLE, SYSCALL, line, record
from verify_audit.audit.record import Event, EventId


def _event() -> Event:
    records = tuple(record(text) for text in (NETFILTER, SYSCALL, PROCTITLE))
    return Event(None, 1795436137, 259, 6, records)


def test_an_event_finds_its_records_by_type() -> None:
    event = _event()
    assert [found.type for found in event.of_type("SYSCALL")] == ["SYSCALL"]
    assert event.first("PROCTITLE") is event.records[2]
    assert event.first("EXECVE") is None
    assert event.of_type("EXECVE") == ()


@pytest.mark.parametrize("millis, text", [(0, "7.000:1"), (4, "7.004:1"), (40, "7.040:1"), (159, "7.159:1")])
def test_an_event_id_always_has_three_digits_of_milliseconds(millis: int, text: str) -> None:
    event = Event(None, 7, millis, 1, ())
    assert event.id == text
    assert str(event.event_id) == text
    assert event.event_id == EventId(7, millis, 1)


def test_the_time_of_an_event_is_the_float_of_its_stamp() -> None:
    # Seconds plus thousandths would be off in the last bit for some stamps, and a window would miss them.
    for millis in range(1000):
        assert Event(None, 1545458152, millis, 1, ()).time == float(f"1545458152.{millis:03d}")


def test_values_cannot_be_changed() -> None:
    for value, name in ((record(ANOM), "body"), (_event(), "serial")):
        with pytest.raises(AttributeError):
            setattr(value, name, b"")


@pytest.mark.parametrize(
    "body, name, value",
    [
        (b"pid=1 ppid=2", b"pid", b"1"),
        (b"ppid=2 pid=1", b"pid", b"1"),
        (b"pid=1 pid=2", b"pid", b"1"),
        (b'comm="a b" pid=1', b"comm", b"a b"),
        (b'comm="" pid=1', b"comm", b""),
        (b"pid=", b"pid", b""),
        (b"pid=1 msg='op=start res=success'", b"op", b"start"),
        (b"pid=1 msg='op=start res=success'", b"res", b"success"),
        (b"subj==unconfined key=(null)", b"subj", b"=unconfined"),
        (b"ppid=2", b"pid", None),
        (b"", b"pid", None),
        (b"a.c=1 abc=2", b"a.c", b"1"),
    ],
)
def test_a_field_is_the_first_of_its_name(body: bytes, name: bytes, value: bytes | None) -> None:
    assert record(line("X", body)).field(name) == value


def test_a_field_of_the_enriched_tail_is_not_a_field_of_the_record() -> None:
    assert record(ANOM + b'\x1dAUID="unset"').field(b"AUID") is None
