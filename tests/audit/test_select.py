from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.log import ANOM, NETFILTER, PROCTITLE, SYSCALL, TCPDUMP, call, line, record
from verify_audit.audit.decode import AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, AUDIT_ARCH_I386
from verify_audit.audit.record import Event, EventId, Record
from verify_audit.audit.select import (
    EventIdError,
    TimeError,
    Window,
    flagged,
    may_be_flagged,
    parse_event_id,
    parse_time,
)

NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC).timestamp()
EAST = timezone(timedelta(hours=2))


def _event(*records: Record) -> Event:
    return Event(None, 0, 0, 0, records)


FLAGGED = [
    _event(record(ANOM)),
    _event(record(PROCTITLE), record(SYSCALL), record(NETFILTER)),
    _event(record(line("NETFILTER_CFG", b"no such form"))),
    _event(record(line("UNKNOWN[1325]", b"table=nat:2"))),
    _event(record(line("UNKNOWN[1700]", b"dev=eth0"))),
    _event(call(54, 3, 0, 64)),
    _event(call(0x40000000 + 541, 3, 41, 64)),
    _event(call(366, 3, 0, 65, arch=AUDIT_ARCH_I386)),
    _event(call(208, 3, 0, 64, arch=AUDIT_ARCH_AARCH64)),
    _event(call(294, 3, 0, 64, arch=AUDIT_ARCH_ARM)),
    _event(
        call(102, 14, 1, arch=AUDIT_ARCH_I386),
        record(line("SOCKETCALL", b"nargs=5 a0=3 a1=29 a2=40 a3=0 a4=0")),
    ),
]
OTHERS = [
    _event(),
    _event(record(SYSCALL), record(PROCTITLE)),
    _event(record(TCPDUMP)),
    _event(call(54, 3, 1, 64)),
    _event(call(55, 3, 0, 64)),
    _event(call(102, 14, 1, arch=AUDIT_ARCH_I386)),
    _event(record(line("USER_CMD", b"cmd=type=NETFILTER_CFG syscall=54"))),
    _event(record(line("SYSCALL", b"arch=c000003e syscall=54 a0=3 a1=0 a2=40"))),
]


@pytest.mark.parametrize("event", FLAGGED)
def test_what_is_flagged(event: Event) -> None:
    assert flagged(event)


@pytest.mark.parametrize("event", OTHERS)
def test_what_is_not(event: Event) -> None:
    assert not flagged(event)


@pytest.mark.parametrize("event", FLAGGED)
def test_the_bytes_never_miss_what_is_flagged(event: Event) -> None:
    assert may_be_flagged(b"\n".join(found.raw for found in event.records))


def test_the_bytes_tell_most_lines_apart() -> None:
    assert not may_be_flagged(SYSCALL + b"\n" + PROCTITLE)
    assert not may_be_flagged(b"")
    assert may_be_flagged(PROCTITLE + b"\n" + ANOM)


# Windows


@pytest.mark.parametrize(
    "since, until, inside, outside",
    [
        (None, None, [0.0, 1e12], []),
        (10.0, None, [10.0, 11.0], [9.999]),
        (None, 20.0, [20.0, 1.0], [20.001]),
        (10.0, 10.0, [10.0], [9.999, 10.001]),
    ],
)
def test_both_ends_belong_to_a_window(
    since: float | None, until: float | None, inside: list[float], outside: list[float]
) -> None:
    window = Window(since, until)
    assert all(time in window for time in inside)
    assert not any(time in window for time in outside)


@given(st.integers(0, 4_000_000_000), st.integers(0, 999))
def test_an_event_is_in_the_window_of_its_own_stamp(seconds: int, millis: int) -> None:
    stamp = parse_time(f"{seconds}.{millis:03d}", NOW)
    assert Event(None, seconds, millis, 1, ()).time in Window(stamp, stamp)
    assert Event(None, seconds, millis, 1, ()).time not in Window(stamp + 0.001, None)


def test_a_window_cannot_end_before_it_begins() -> None:
    with pytest.raises(TimeError, match="before it begins"):
        Window(2.0, 1.0)


# Times


@pytest.mark.parametrize(
    "text, expected",
    [
        ("now", NOW),
        ("recent", NOW - 600),
        ("boot", 1234.5),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=EAST).timestamp()),
        ("2026-11-23 10:11", datetime(2026, 11, 23, 10, 11, tzinfo=EAST).timestamp()),
        ("2026-11-23 10:11:12", datetime(2026, 11, 23, 10, 11, 12, tzinfo=EAST).timestamp()),
        ("2026-11-23T10:11:12", datetime(2026, 11, 23, 10, 11, 12, tzinfo=EAST).timestamp()),
        ("2026-11-23T10:11:12Z", datetime(2026, 11, 23, 10, 11, 12, tzinfo=UTC).timestamp()),
        ("2026-11-23T10:11:12.159Z", datetime(2026, 11, 23, 10, 11, 12, 159000, tzinfo=UTC).timestamp()),
        ("2026-11-23 10:11-05:00", datetime(2026, 11, 23, 15, 11, tzinfo=UTC).timestamp()),
        ("2026-11-23 10:11 +0530", datetime(2026, 11, 23, 4, 41, tzinfo=UTC).timestamp()),
        ("1545458152.159", 1545458152.159),
        ("1545458152", 1545458152.0),
        ("12.5", 12.5),
        ("  now ", NOW),
    ],
)
def test_the_forms_of_a_time(text: str, expected: float) -> None:
    assert parse_time(text, NOW, 1234.5, EAST) == expected


def test_days_begin_at_local_midnight() -> None:
    late = datetime(2026, 11, 23, 23, 0, tzinfo=UTC).timestamp()
    # It is the 24th in the east already.
    assert parse_time("today", late, tz=EAST) == datetime(2026, 11, 24, tzinfo=EAST).timestamp()
    assert parse_time("yesterday", late, tz=EAST) == datetime(2026, 11, 23, tzinfo=EAST).timestamp()
    assert parse_time("today", late, tz=UTC) == datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def test_yesterday_is_a_date_and_not_24_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime(2026, 10, 25, 12, 0, tzinfo=berlin).timestamp()  # the night before had 25 hours
    tomorrow = datetime(2026, 10, 26, 12, 0, tzinfo=berlin).timestamp()
    assert parse_time("today", now, tz=berlin) == datetime(2026, 10, 25, tzinfo=berlin).timestamp()
    assert (
        parse_time("today", tomorrow, tz=berlin) - parse_time("yesterday", tomorrow, tz=berlin) == 25 * 3600
    )


def test_without_a_zone_times_are_those_of_the_process() -> None:
    assert parse_time("2026-11-23 10:11", NOW) == datetime(2026, 11, 23, 10, 11).timestamp()
    today = datetime.fromtimestamp(parse_time("today", NOW))
    assert (today.hour, today.minute, today.second) == (0, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "12:00",
        "2026",
        "20261123",
        "2026-13-01",
        "2026-02-30",
        "2026-11-23 25:00",
        "2026-11-23 10:1",
        "-5.0",
        "nan",
        "inf",
        "1e9",
        "1545458152.",
        "11/23/2026",
        "\u0662\u0660\u0662\u0666-11-23",
        "2026-11-23Z",
        "2026-11-23 10:11 +99:00",
        "9" * 5000,
    ],
)
def test_a_wrong_time_says_what_is_accepted(text: str) -> None:
    with pytest.raises(TimeError, match=r"YYYY-MM-DD HH:MM"):
        parse_time(text, NOW)


def test_boot_can_be_unknown() -> None:
    with pytest.raises(TimeError, match="not known when the host was booted"):
        parse_time("boot", NOW)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        assert isinstance(parse_time(text, NOW, 0.0, UTC), float)
    except TimeError as error:
        assert repr(text) in str(error)


def test_the_ends_of_the_calendar_are_errors_too() -> None:
    for text in ("0000-01-01", "0001-01-01 00:00+14:00"):
        try:
            parse_time(text, NOW, tz=UTC)
        except TimeError:
            continue
        assert text.startswith("0001")


# Event ids


@pytest.mark.parametrize(
    "text",
    [
        "1545458152.159:227",
        "audit(1545458152.159:227)",
        "audit(1545458152.159:227):",
        "msg=audit(1545458152.159:227):",
        " 1545458152.159:227\n",
    ],
)
def test_the_forms_of_an_event_id(text: str) -> None:
    assert parse_event_id(text) == EventId(1545458152, 159, 227)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "227",
        "1545458152:227",
        "1545458152.15:227",
        "1545458152.159",
        "audit(1545458152.159:227",
        "1545458152.159:227)",
        "1545458152.159:",
        "1545458152.159:-1",
        "1545458152.159:227 x",
        "\u0661.159:227",
        "1.159:" + "9" * 5000,
    ],
)
def test_a_wrong_event_id_says_what_is_accepted(text: str) -> None:
    with pytest.raises(EventIdError, match=r"1545458152\.159:227 or audit"):
        parse_event_id(text)


@given(st.integers(0, 10**12 - 1), st.integers(0, 999), st.integers(0, 2**32 - 1))
def test_an_event_id_survives_its_text(seconds: int, millis: int, serial: int) -> None:
    event = Event(None, seconds, millis, serial, ())
    assert parse_event_id(event.id) == event.event_id
