from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.reports.samples import CONFIRMED, EVIL, EVIL_FAILURE, FAILURE, INCONCLUSIVE, REFUTED
from verify_audit.findings.evidence import Bearing, Step, Weight
from verify_audit.findings.finding import CauseKind, Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.reports.jsonl import finding_line, summary_line, timestamp
from verify_audit.reports.summary import Summary


def schema(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        files("verify_audit.reports").joinpath(f"{name}.schema.json").read_text()
    )
    return content


FINDING, SUMMARY = schema("finding"), schema("summary")


@pytest.mark.parametrize("content", [FINDING, SUMMARY])
def test_the_schemas_are_schemas_and_describe_what_they_require(content: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(content)
    assert content["$schema"].endswith("2020-12/schema")
    assert content["description"]

    def objects(value: Any) -> list[dict[str, Any]]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        found = [each for item in inner for each in objects(item)]
        return (
            [value, *found]
            if isinstance(value, dict) and "properties" in value and "type" in value
            else found
        )

    for each in objects(content):
        assert set(each["required"]) == set(each["properties"])
        assert "additionalProperties" not in each


@pytest.mark.parametrize("finding", [CONFIRMED, REFUTED, INCONCLUSIVE, EVIL])
def test_a_finding_is_as_its_schema_says(finding: Finding) -> None:
    Draft202012Validator(FINDING).validate(json.loads(finding_line(finding)))


@pytest.mark.parametrize("key", FINDING["required"])
def test_a_finding_without_one_of_its_keys_is_none(key: str) -> None:
    content = json.loads(finding_line(CONFIRMED))
    del content[key]
    assert not Draft202012Validator(FINDING).is_valid(content)


def test_the_schema_has_every_word_that_there_is() -> None:
    properties = FINDING["properties"]
    assert properties["verdict"]["enum"] == list(Verdict)
    assert properties["cause"]["properties"]["kind"]["enum"] == list(CauseKind)
    evidence = properties["evidence"]["items"]["properties"]
    assert evidence["bearing"]["enum"] == list(Bearing)
    assert evidence["weight"]["enum"] == list(Weight)


def test_what_a_finding_says() -> None:
    content = json.loads(finding_line(CONFIRMED))
    assert content["schema"] == "verify-audit.finding/1"
    assert content["event"]["id"] == "1795436164.311:31"
    assert content["event"]["time"] == "2026-11-23T12:16:04.311Z"
    assert content["event"]["node"] is None
    assert [each.split(" ")[0] for each in content["event"]["records"]] == [
        "type=ANOM_PROMISCUOUS",
        "type=SYSCALL",
    ]
    assert (content["rule"], content["verdict"]) == ("promiscuous", "confirmed")
    assert content["subject"] == {"device": "veth766e490", "table": None, "chain": None, "command": None}
    assert content["cause"] == {
        "kind": "docker",
        "pid": 3059,
        "exe": "/usr/sbin/dockerd",
        "auid": None,
        "text": "the Docker engine (pid 3059)",
    }
    assert content["container"] == {"id": "a" * 64, "name": "web", "image": "nginx"}
    assert content["network"] == {"id": "b" * 64, "name": "bridge", "bridge": "docker0"}
    assert content["evidence"][0] == {
        "bearing": "for",
        "weight": "decisive",
        "step": Step.DEVICE.value,
        "statement": "it is the host's end of web's link",
        "source": "rtnetlink",
        "query": "RTM_GETLINK veth766e490 in net:[4026532000]",
        "observed_at": "2026-11-23T12:16:40.500Z",
        "raw": "raw",
        "by_hand": "ip -d link show dev veth766e490",
    }
    assert (content["missing"], content["warnings"]) == ([], [])


def test_what_is_not_known_is_null() -> None:
    content = json.loads(finding_line(INCONCLUSIVE))
    assert (content["container"], content["network"]) == (None, None)
    assert content["event"]["node"] == "db1"
    assert content["missing"][1] == {"what": "the engine", "why": "it was not asked", "remedy": ""}


@pytest.mark.parametrize("line", [finding_line(EVIL), summary_line(Summary(unobservable=[EVIL_FAILURE]))])
def test_hostile_text_is_one_line_of_printable_ascii_without_halves_of_characters(line: str) -> None:
    assert line.isascii()
    assert line.isprintable()
    json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8")


@given(st.text(st.characters(exclude_categories=())))
@example("\ud800")
@example("\udfff")
@example("\x7f")
@example("\U0001f600\\ud800")
def test_any_text_makes_one_line_that_strict_readers_take(text: str) -> None:
    line = finding_line(CONFIRMED._replace(headline=text))
    assert line.isprintable()
    headline = json.loads(line)["headline"]
    headline.encode("utf-8")
    if not any("\ud800" <= each <= "\udfff" for each in text):
        assert headline == text


def test_a_summary_is_as_its_schema_says() -> None:
    summary = Summary(unparsed=2, unobservable=[FAILURE])
    summary.count([CONFIRMED, REFUTED, REFUTED])
    content = json.loads(summary_line(summary))
    Draft202012Validator(SUMMARY).validate(content)
    assert content == {
        "schema": "verify-audit.summary/1",
        "confirmed": 1,
        "refuted": 2,
        "inconclusive": 0,
        "events": 3,
        "unparsed": 2,
        "unobservable": [
            {
                "source": "Docker API",
                "query": "GET /version",
                "reason": "no engine answers on /run/docker.sock",
                "remedy": "start the engine",
            }
        ],
    }


@pytest.mark.parametrize("key", SUMMARY["required"])
def test_a_summary_without_one_of_its_keys_is_none(key: str) -> None:
    content = json.loads(summary_line(Summary()))
    Draft202012Validator(SUMMARY).validate(content)
    del content[key]
    assert not Draft202012Validator(SUMMARY).is_valid(content)


@given(st.floats(0, 4e9))
def test_a_time_is_never_more_than_a_millisecond_off(at: float) -> None:
    assert -0.000_001 <= at - datetime.fromisoformat(timestamp(at)).timestamp() < 0.001_001


@pytest.mark.parametrize("at", [float("nan"), float("inf"), float("-inf"), -1e30, 1e300])
def test_a_time_that_no_calendar_has_is_still_as_the_schema_says(at: float) -> None:
    validator = Draft202012Validator(FINDING["$defs"]["time"])
    validator.validate(timestamp(at))
    validator.validate(timestamp(0.0))
    assert not validator.is_valid("yesterday")
