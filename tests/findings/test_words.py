from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.made_up import process
from verify_audit.findings.words import apart, clock, short, who


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()
    clock.cache_clear()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("UTC", "2018-12-22 06:09:20 +00:00"),
        ("Asia/Kolkata", "2018-12-22 11:39:20 +05:30"),
        ("America/St_Johns", "2018-12-22 02:39:20 -03:30"),
    ],
)
def test_a_time_is_local_and_has_its_offset(zone: pytest.MonkeyPatch, name: str, words: str) -> None:
    zone.setenv("TZ", name)
    time.tzset()
    clock.cache_clear()
    date, offset = words.rsplit(" ", 1)
    assert clock(1545458960.483) == f"{date}.483 {offset}"


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1e30, 1e300, 253402300800.0])
def test_a_time_that_no_calendar_has_is_a_number(at: float) -> None:
    assert clock(at) == f"{at:.3f} s after the epoch"


@pytest.mark.parametrize("at", [1545458960.0009, 1545458960.9999])
def test_a_millisecond_is_not_rounded_into_the_next_second(at: float) -> None:
    assert clock(at).split(".")[1].startswith(f"{int(at * 1000) % 1000:03d}")
    assert ":20." in clock(at)


@pytest.mark.parametrize(
    ("later", "earlier", "words"),
    [
        (10.031, 10.0, "31 ms after"),
        (10.0, 10.0, "0 ms after"),
        (8.8, 10.0, "1.2 s before"),
        (9.5, 10.0, "500 ms before"),
        (1e6, 0.0, "1000000.0 s after"),
    ],
)
def test_how_far_apart(later: float, earlier: float, words: str) -> None:
    assert apart(later, earlier) == words


def test_who() -> None:
    assert who(process(7, exe="/usr/sbin/tcpdump", uid=0)) == "/usr/sbin/tcpdump (pid 7, uid 0)"
    assert who(process(7, comm="kworker", exe=None, uid=None)) == "kworker (pid 7)"
    assert who(process(7, exe="/bin/sh", uid=0, loginuid=1000)) == "/bin/sh (pid 7, uid 0, login uid 1000)"


def test_short() -> None:
    assert short("0123456789abcdef") == "0123456789ab"
    assert short("") == ""
