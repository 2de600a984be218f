from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reports.samples import (
    CONFIRMED,
    EVIL,
    EVIL_FAILURE,
    FAILURE,
    INCONCLUSIVE,
    REFUTED,
    later,
)
from verify_audit.findings.finding import Finding
from verify_audit.findings.words import clock
from verify_audit.reports.summary import Summary
from verify_audit.reports.text import grouped, report

GOLDEN = Path(__file__).parent.parent / "samples" / "reports"
CODES = re.compile(r"\x1b\[[0-9;]*m")
ALL = [CONFIRMED, REFUTED, INCONCLUSIVE]


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        clock.cache_clear()
        yield
    time.tzset()
    clock.cache_clear()


def reported(
    findings: list[Finding],
    *,
    colour: bool = False,
    width: int | None = None,
    quiet: bool = False,
    unparsed: int = 0,
) -> str:
    summary = Summary(
        unparsed=unparsed,
        examples=["no record: junk \x1b[1m"] * bool(unparsed),
        unobservable=[FAILURE] * bool(unparsed),
    )
    summary.count(findings)
    return report(findings, summary, colour=colour, width=width, quiet=quiet)


@pytest.mark.parametrize(
    ("name", "colour", "width"), [("plain", False, None), ("colour", True, None), ("narrow", False, 40)]
)
def test_the_report(name: str, colour: bool, width: int | None) -> None:
    """Golden. To accept a change: VERIFY_AUDIT_REWRITE=1, and read the difference."""
    text = reported(ALL, colour=colour, width=width, unparsed=2)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("VERIFY_AUDIT_REWRITE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_colour_changes_nothing_but_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.setenv(name, {"TERM": "dumb", "COLUMNS": "20"}.get(name, "1"))
    for width in (None, 40, 100):
        coloured = reported(ALL, colour=True, width=width, unparsed=1)
        assert CODES.sub("", coloured) == reported(ALL, width=width, unparsed=1)
        assert "\x1b[1;32m" in coloured
        assert "\x1b[1;31m" in coloured
        assert "\x1b[1;33m" in coloured


def test_no_line_is_wider_than_the_terminal_but_commands() -> None:
    for row in reported(ALL, width=60, unparsed=2).splitlines():
        assert len(row) <= 60 or row.lstrip().startswith("$ "), row


def test_a_command_stays_whole_for_copying() -> None:
    assert "\n       $ ip -d link show dev veth766e490\n" in reported([CONFIRMED], width=25)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("width", [None, 30])
def test_hostile_text_reaches_no_terminal(colour: bool, width: int | None) -> None:
    summary = Summary(unparsed=1, examples=[EVIL.headline], unobservable=[EVIL_FAILURE])
    text = report([EVIL, later(EVIL, 1, 2)], summary, colour=colour, width=width)
    bare = CODES.sub("", text) if colour else text
    assert all(each.isprintable() for each in bare.split("\n"))
    text.encode("utf-8")
    assert "\\x1b[31mred" in bare
    assert "[bold]x[/bold]" in bare.replace("\n", " ")
    if width is None:
        assert "\\u202eabc\\u2066 \\xff\\ud800" in bare


def test_the_steps_are_in_the_order_of_a_check_by_hand_and_numbered_as_shown() -> None:
    steps = re.findall(r"^  (\d)\. (.*)$", reported([CONFIRMED]), re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3"]
    assert [name[:10] for _, name in steps] == ["Who did it", "Is the eng", "Is the dev"]


# Grouping


def groups(*findings: Finding) -> list[int]:
    return [len(group.findings) for group in grouped(findings)]


def test_what_repeats_itself_within_a_minute_is_told_once() -> None:
    again = [later(CONFIRMED, seconds, seconds) for seconds in range(0, 300, 60)]
    assert groups(*again) == [5]
    assert groups(CONFIRMED, later(CONFIRMED, 61, 1)) == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        CONFIRMED._replace(rule="firewall"),
        CONFIRMED._replace(container=None),
        CONFIRMED._replace(network=None),
        CONFIRMED._replace(warnings=("w",)),
        CONFIRMED._replace(missing=INCONCLUSIVE.missing),
        CONFIRMED._replace(verdict=REFUTED.verdict),
        CONFIRMED._replace(event=CONFIRMED.event._replace(node="elsewhere")),
    ],
)
def test_what_differs_in_what_matters_is_told_apart(other: Finding) -> None:
    assert groups(CONFIRMED, other) == [1, 1]


def test_what_is_not_confirmed_is_told_by_device_and_actor() -> None:
    assert groups(REFUTED, later(REFUTED, 1, 2)) == [2]
    assert groups(REFUTED, REFUTED._replace(subject=CONFIRMED.subject)) == [1, 1]
    assert groups(REFUTED, REFUTED._replace(cause=REFUTED.cause._replace(exe="/bin/other"))) == [1, 1]
    assert groups(REFUTED, REFUTED._replace(cause=REFUTED.cause._replace(auid=0))) == [1, 1]
    # Each child of the engine has a pid of its own.
    assert groups(CONFIRMED, CONFIRMED._replace(cause=CONFIRMED.cause._replace(pid=1))) == [2]


def test_groups_stand_where_their_first_does_even_when_interleaved() -> None:
    mixed = [CONFIRMED, REFUTED, later(CONFIRMED, 1, 3), later(REFUTED, 1, 4)]
    assert groups(*mixed) == [2, 2]
    assert [group.first for group in grouped(mixed)] == [CONFIRMED, REFUTED]


def test_a_group_names_every_event_up_to_a_bound() -> None:
    many = [later(CONFIRMED, 0, serial) for serial in range(100, 162)]
    text = reported(many)
    assert "and 61 more events like it" in text
    assert all(f"1795436164.311:{serial}  " in text for serial in range(101, 161))
    assert "1795436164.311:161" not in text
    assert "... and 1 more (--format jsonl has each)" in text
    assert "62 events: 62 confirmed" in text
    assert "and 1 more event like it" in reported(many[:2])


# Quiet


def test_quiet_says_nothing_when_all_is_confirmed() -> None:
    assert reported([CONFIRMED, CONFIRMED], quiet=True) == ""


def test_quiet_tells_what_is_not_confirmed_and_counts_all() -> None:
    text = reported(ALL, quiet=True)
    assert "CONFIRMED" not in text
    assert "REFUTED" in text
    assert "INCONCLUSIVE" in text
    assert "3 events: 1 confirmed, 1 refuted, 1 inconclusive" in text


def test_quiet_tells_of_lines_that_could_not_be_read() -> None:
    text = reported([CONFIRMED], quiet=True, unparsed=1)
    assert "1 line of the log could not be read as audit records:\n  no record: junk \\x1b[1m\n" in text


def test_what_could_not_be_looked_at_is_in_every_report() -> None:
    summary = Summary(unobservable=[FAILURE])
    summary.count([CONFIRMED])
    text = report([CONFIRMED], summary, colour=False, width=None)
    assert "could not look: Docker API, GET /version: no engine answers on /run/docker.sock\n" in text
    assert "next time: start the engine" in text
