from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.firewall_events import changed
from tests.hostile import NAMES, check_json_line, check_text
from tests.reports.samples import FAILURE
from tests.reports.utc import utc
from verify_audit.findings.finding import Cause, CauseKind, ContainerRef, NetworkRef
from verify_audit.findings.inventory import Inventory, Origin, Row, Standing
from verify_audit.reports import rules_jsonl, rules_text

GOLDEN = Path(__file__).parent.parent / "samples" / "reports"
SCHEMAS = {
    name: json.loads(
        files("verify_audit.reports").joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    )
    for name in ("rule", "rules-summary")
}
WEB, BRIDGE = ContainerRef("a" * 64, "web", "nginx"), NetworkRef("b" * 64, "bridge", "docker0")
ENGINE = Cause(
    CauseKind.DOCKER, "a child of the Docker engine (pid 3059)", 3100, "/usr/sbin/xtables-nft-multi"
)
HAND = Cause(
    CauseKind.PROCESS,
    "/usr/sbin/xtables-nft-multi (pid 9004, uid 0), child of /usr/bin/bash (pid 4000, uid 0)",
    9004,
    "/usr/sbin/xtables-nft-multi",
    1000,
)
ADD, FLUSH = "iptables -I DOCKER-USER -s 203.0.113.7 -j ACCEPT", "iptables -D FORWARD -j DOCKER-USER"
EXPLAINED = Row(
    *(Standing.EXPLAINED, "nft", "ip", "nat", "DOCKER", 9, 2),
    "! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
    "port 80/tcp of web is published as 0.0.0.0:8080",
    *(WEB, BRIDGE),
    Origin(changed(3, "iptables -t nat -A DOCKER"), ENGINE, "iptables -t nat -A DOCKER"),
)
UNEXPLAINED = Row(
    *(Standing.UNEXPLAINED, "nft", "ip", "filter", "DOCKER-USER", 20, 1, "-s 203.0.113.7/32 -j ACCEPT"),
    "in the chain that Docker leaves to the admin: an admin's or an intruder's",
    origin=Origin(changed(4, ADD), HAND, ADD),
)
DOUBTED = replace(
    UNEXPLAINED,
    backend="legacy",
    handle=None,
    origin=Origin(changed(5, None), HAND, "", "the records of this event name no command"),
)
MISSING = Row(
    *(Standing.MISSING, None, "ip", "filter", "FORWARD", None, None, "-j DOCKER-USER"),
    "the daemon itself, from its start on",
    origin=Origin(changed(6, FLUSH), HAND, FLUSH),
)
CHAIN = Row(
    *(Standing.UNEXPLAINED, "nft", "ip", "filter", "DOCKER-X", 21, None, None),
    "Docker 20.10.24 makes no such chain",
)
ELEMENT = replace(EXPLAINED, chain="@jumps", handle=None, spec="[docker0] -j chain", origin=None)
UNKNOWN = replace(
    UNEXPLAINED, standing=Standing.UNKNOWN, because="it cannot be explained without the engine", origin=None
)
ROWS = (EXPLAINED, ELEMENT, MISSING, UNEXPLAINED, DOUBTED, CHAIN, UNKNOWN)
ALL = Inventory("20.10.24", ROWS, (FAILURE,), logged=False, unread=2)
FINE = Inventory("20.10.24", (EXPLAINED,))


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with utc(monkeypatch):
        yield


@pytest.mark.parametrize(
    ("name", "colour", "width"), [("plain", False, None), ("colour", True, None), ("narrow", False, 40)]
)
def test_the_report_is_as_it_was(name: str, colour: bool, width: int | None) -> None:
    golden = GOLDEN / f"rules-{name}.txt"
    text = rules_text.report(ALL, colour=colour, width=width)
    if os.environ.get("VERIFY_AUDIT_REWRITE"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_colour_adds_codes_and_nothing_else() -> None:
    coloured = rules_text.report(ALL, colour=True, width=None)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == rules_text.report(ALL, colour=False, width=None)


def test_quiet_is_only_what_is_not_explained() -> None:
    assert rules_text.report(FINE, colour=False, width=None, quiet=True) == ""
    text = rules_text.report(ALL, colour=False, width=None, quiet=True)
    assert "--dport 8080" not in text
    assert "UNEXPLAINED" in text
    assert rules_text.report(replace(FINE, unobservable=(FAILURE,)), colour=False, width=None, quiet=True)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_as_its_schema_says(row: Row) -> None:
    content = json.loads(rules_jsonl.rule_line(row))
    Draft202012Validator(SCHEMAS["rule"]).validate(content)
    assert content["standing"] == row.standing.value
    for key in SCHEMAS["rule"]["required"]:
        less = {name: value for name, value in content.items() if name != key}
        assert not Draft202012Validator(SCHEMAS["rule"]).is_valid(less)


def test_where_a_row_comes_from() -> None:
    origin: dict[str, Any] = json.loads(rules_jsonl.rule_line(DOUBTED))["origin"]
    assert (origin["command"], origin["doubt"]) == (None, "the records of this event name no command")
    assert origin["actor"] == {
        "kind": "process",
        "pid": 9004,
        "exe": "/usr/sbin/xtables-nft-multi",
        "auid": 1000,
        "text": HAND.text,
    }
    assert json.loads(rules_jsonl.rule_line(CHAIN))["origin"] is None


def test_the_summary_is_as_its_schema_says() -> None:
    content = json.loads(rules_jsonl.summary_line(ALL))
    Draft202012Validator(SCHEMAS["rules-summary"]).validate(content)
    counted = {standing: content[standing] for standing in ("explained", "unexplained", "missing", "unknown")}
    assert counted == {"explained": 2, "unexplained": 3, "missing": 1, "unknown": 1}
    for key in SCHEMAS["rules-summary"]["required"]:
        less = {name: value for name, value in content.items() if name != key}
        assert not Draft202012Validator(SCHEMAS["rules-summary"]).is_valid(less)


HOSTILE = st.one_of(st.sampled_from(NAMES), st.text(st.characters(exclude_categories=())))


@given(HOSTILE, st.sampled_from(ROWS), st.booleans(), st.sampled_from([None, 30, 100]))
def test_hostile_text_reaches_no_terminal(text: str, row: Row, quiet: bool, width: int | None) -> None:
    origin = row.origin and row.origin.__class__(
        row.origin.event, row.origin.cause._replace(text=text, exe=text), text, text
    )
    evil = replace(
        row,
        table=text,
        chain=text,
        spec=text,
        because=text,
        container=ContainerRef(text, text, text),
        network=NetworkRef(text, text, text),
        origin=origin,
    )
    found = Inventory(text, (evil,))
    check_text(rules_text.report(found, colour=False, width=width, quiet=quiet))
    coloured = rules_text.report(found, colour=True, width=width, quiet=quiet)
    check_text(re.sub(r"\x1b\[[0-9;]*m", "", coloured))
    check_json_line(rules_jsonl.rule_line(evil))
    check_json_line(rules_jsonl.summary_line(found))


@pytest.mark.parametrize(
    ("rows", "more", "status"),
    [
        ((EXPLAINED,), {}, 0),
        ((), {}, 3),
        ((), {"unobservable": (FAILURE,)}, 10),
        ((EXPLAINED,), {"unobservable": (FAILURE,)}, 10),
        ((EXPLAINED, MISSING), {}, 10),
        ((UNKNOWN,), {}, 10),
        ((EXPLAINED, MISSING, UNKNOWN, CHAIN), {"unobservable": (FAILURE,)}, 11),
    ],
)
def test_exit_statuses(rows: tuple[Row, ...], more: dict[str, Any], status: int) -> None:
    assert Inventory("20.10.24", rows, **more).exit_status == status
