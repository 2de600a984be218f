from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.hostile import NAMES, check_json_line, check_text
from tests.made_up import CONTAINER, NETNS, NOW, WEB, WHERE, link, process
from verify_audit.host.facts import PacketSocket, Stack, Upper
from verify_audit.host.observation import Unobservable
from verify_audit.host.sweep import Conclusion, Swept, SweptNamespace
from verify_audit.reports import sniffers
from verify_audit.reports.sniffers import lines, text

SAMPLES = Path(__file__).parents[1] / "samples" / "reports"

SCHEMA: dict[str, Any] = json.loads(
    files("verify_audit.reports").joinpath("sniffers.schema.json").read_text(encoding="utf-8")
)


def conclusion(name: str = "tcpdump", failing: bool = True) -> Conclusion:
    """A host with a bit of everything; everybody who may choose a name has chosen this one."""
    listening = process(
        4711, exe=f"/usr/bin/{name}", comm=name, argv=(name,), loginuid=1000, container_id=WEB
    )
    port = link(f"v{name}", 15, promiscuity=2)
    nic = link(
        "eth0", 4, kind="", master=None, slave_kind="", promiscuity=2, asked_promiscuous=True, xdp=True
    )
    child = link(name, 3, netns=NETNS + 1, kind="macvlan", mode="passthru", promiscuity=0)
    host = SweptNamespace(
        NETNS,
        None,
        process(1),
        (),
        "/proc/1/ns/net",
        (
            link(name, 2, kind="bridge", master=None, slave_kind="", promiscuity=0),
            port,
            nic,
            replace(port, ifindex=16, name="v1", promiscuity=1),
            replace(port, ifindex=17, name="v2", promiscuity=1),
        ),
        (
            PacketSocket(9, 15, 3, 0, (15,), (listening, replace(listening, exe=None)), filter=0),
            PacketSocket(10, 0, 3, 0, (), (), filter=12),
            PacketSocket(11, 4, 0x88CC, 0, (), (listening,)),
            PacketSocket(12, 0, 0, 0, (), (listening,)),
            PacketSocket(13, 4, 0x88B5, None, (15,), (listening,)),
            PacketSocket(14, 4, 3, None, (), (listening,), ((4, "02:00:00:00:00:07"),)),
        ),
        (Stack(4, (Upper(child, None),), ()),),
        (4,),
    )
    inside = SweptNamespace(NETNS + 1, 0, process(4000), (WEB,), f"/proc/{name}", (child,), ())
    stray = PacketSocket(20, -1, 0, None, (), (listening,), whole=False)
    failures = (Unobservable(WHERE, name or "no reason", "be root"),) if failing else ()
    swept = Swept(
        NOW, (host, inside, replace(inside, netns=None, nsid=7, members=(), first=None)), (stray,), failures
    )
    return Conclusion(swept, NETNS, (replace(CONTAINER, name=name),))


def plain(concluded: Conclusion, *, quiet: bool = False) -> str:
    return text(concluded, colour=False, width=None, quiet=quiet)


def test_the_report_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniffers, "clock", lambda at: f"{at - NOW:g} s")
    assert plain(conclusion()) == (SAMPLES / "sniffers.txt").read_text()


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)

    def objects(value: Any) -> list[dict[str, Any]]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        found = [each for item in inner for each in objects(item)]
        return [value, *found] if isinstance(value, dict) and "required" in value else found

    assert len(objects(SCHEMA)) > 6
    for each in objects(SCHEMA):
        assert set(each["required"]) == set(each["properties"])


def test_each_line_is_as_the_schema_says() -> None:
    kinds = set()
    for line in lines(conclusion(), quiet=False):
        content = check_json_line(line)
        Draft202012Validator(SCHEMA).validate(content)
        kinds.add(content["schema"])
        for key in content:
            assert not Draft202012Validator(SCHEMA).is_valid({k: v for k, v in content.items() if k != key})
    assert kinds == {"verify-audit.listener/1", "verify-audit.device/1", "verify-audit.sweep/1"}


def test_the_sum_counts_what_is_left_out_too() -> None:
    whole, brief = list(lines(conclusion(), quiet=False)), list(lines(conclusion(), quiet=True))
    assert whole[-1] == brief[-1]
    assert len(brief) < len(whole)
    assert all(json.loads(line)["unexplained"] for line in brief)


def test_quiet_says_nothing_of_a_host_on_which_all_is_explained() -> None:
    bridged = SweptNamespace(NETNS, None, process(1), (), "", (link("v0", 15),), ())
    calm = Conclusion(Swept(NOW, (bridged,), (), ()), NETNS)
    assert (plain(calm, quiet=True), list(lines(calm, quiet=True))) == ("", [])
    assert plain(calm) != ""


def test_quiet_says_what_could_not_be_looked_at() -> None:
    blind = Conclusion(Swept(NOW, (), (), (Unobservable(WHERE, "it was not to be"),)), NETNS)
    assert "it was not to be" in plain(blind, quiet=True)
    assert len(list(lines(blind, quiet=True))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_names_that_imitate_what_stands_beside_them(name: str) -> None:
    concluded = conclusion(name)
    shown = plain(concluded)
    check_text(shown)
    assert len(shown.splitlines()) == len(plain(conclusion()).splitlines())
    for line in lines(concluded, quiet=False):
        Draft202012Validator(SCHEMA).validate(check_json_line(line))


@example("")
@given(st.text())
def test_any_name(name: str) -> None:
    check_text(plain(conclusion(name)))
    for line in lines(conclusion(name), quiet=False):
        check_json_line(line)


def test_colour_is_only_around_the_lines() -> None:
    coloured = text(conclusion(), colour=True, width=None, quiet=False)
    assert "\x1b[" in coloured
