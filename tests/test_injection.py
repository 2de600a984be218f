"""Names that imitate what stands beside them: records, fields, lines of a report, what a terminal obeys."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.anything import TEXT, anything
from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, PROCTITLE, SYSCALL
from tests.fuzz.judging import judged
from tests.hostile import NAMES, check_json_line, check_text, columns, unsafe_in_terminal
from tests.made_up import (
    CONTAINER,
    ENDPOINT,
    NETNS,
    NOW,
    WEB,
    WHERE,
    MadeUpHost,
    docker_host,
    event,
    link,
    process,
    seen,
    unseen,
)
from tests.test_cli import FAILED, REFUTED, invoke, run
from tests.test_investigate import EVENTS, HERE
from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.findings.finding import Finding
from verify_audit.findings.inventory import Inventory
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container
from verify_audit.host.observation import Absent, Observation, Unobservable
from verify_audit.host.questions import TOPICS, Question
from verify_audit.host.sweep import Conclusion, Swept
from verify_audit.probes.recorded import dump
from verify_audit.reports import rules_jsonl, rules_text, sniffers
from verify_audit.reports.jsonl import finding_line, summary_line
from verify_audit.reports.summary import Summary
from verify_audit.reports.text import report

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
thorough = settings(max_examples=40, deadline=None)


# Reports


WIDTHS = st.sampled_from([None, 60, 100])


def check_report(make: Callable[..., str], width: int | None) -> None:
    """That a text is safe with colours and without, and keeps to its width but for commands to be copied."""
    plain = make(colour=False, width=width)
    assert _COLOUR.sub("", make(colour=True, width=width)) == plain
    check_text(plain)
    for row in plain.splitlines():
        assert width is None or row.lstrip().startswith("$ ") or columns(row) <= width, row


@thorough
@given(st.lists(anything(Finding), max_size=3), anything(Summary), WIDTHS)
def test_a_report_is_safe_whatever_a_finding_holds(
    findings: list[Finding], summary: Summary, width: int | None
) -> None:
    check_report(partial(report, findings, summary), width)
    for finding in findings:
        check_json_line(finding_line(finding))
    check_json_line(summary_line(summary))


@thorough
@given(anything(Inventory), WIDTHS)
def test_a_report_is_safe_whatever_a_rule_holds(inventory: Inventory, width: int | None) -> None:
    check_report(partial(rules_text.report, inventory), width)
    for row in inventory.rows:
        check_json_line(rules_jsonl.rule_line(row))
    check_json_line(rules_jsonl.summary_line(inventory))


@thorough
@given(anything(Swept), anything(tuple[Container, ...]), WIDTHS)
def test_a_report_is_safe_whatever_a_sweep_finds(
    swept: Swept, containers: tuple[Container, ...], width: int | None
) -> None:
    conclusion = Conclusion(swept, NETNS, containers)
    check_report(partial(sniffers.text, conclusion, quiet=False), width)
    for line in sniffers.lines(conclusion, quiet=False):
        check_json_line(line)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_terminal_would_obey_is_told_from_what_it_would_show(name: str) -> None:
    """The check itself: were it blind, all of these tests would be."""
    harmless = all(" " <= each <= "~" or each in "日本" for each in name)
    assert harmless == (unsafe_in_terminal(name.replace("\n", "\0")) == [])


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_a_host_says_is_judged_and_reported_safely(data: st.DataObject) -> None:
    """Every kind of answer there is, made of its type."""
    one = data.draw(st.sampled_from(sorted(EVENTS)))
    asked = docker_host(HERE)
    list(judged([EVENTS[one]], asked))
    answers: dict[Question[Any], Observation[Any]] = dict(asked.answers)
    for question in data.draw(st.lists(st.sampled_from(asked.asked), max_size=6, unique=True)):
        fact = anything(TOPICS[question.topic])
        answers[question] = data.draw(fact.map(seen) | anything(Absent) | anything(Unobservable))
    judged([EVENTS[one]], MadeUpHost(answers))


# Records


def untrusted(text: bytes) -> bytes:
    """A string as the kernel writes it: audit_log_n_untrustedstring()."""
    return text.hex().upper().encode() if re.search(rb'[^!-~]|"', text) else b'"%b"' % text


HOSTILE = [name.encode("utf-8", "surrogatepass").replace(b"\0", b"") for name in NAMES if name]
DEVICES = sorted({re.sub(rb"[/:\s\xa0]", b"", name)[:15] for name in HOSTILE} - {b""})
"""As far as dev_valid_name() lets them: no blank, slash or colon, 15 bytes."""
TABLES = [name.replace(b"\n", b" ")[:255] for name in HOSTILE]
"""auditd writes a blank for a line end."""


def one_event(*lines: bytes) -> Any:
    losses = Losses()
    (found,) = events([b"".join(line + b"\n" for line in lines)], losses)
    assert losses.total == 0
    assert len(found.records) == len(lines)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tail", [b"", b'\x1dAUID="unset" UID="root" GID="root"'])
def test_a_device_named_like_a_record_is_its_whole_name_and_not_dockers(device: bytes, tail: bytes) -> None:
    found = one_event(ANOM.replace(b"veth766e490", device) + tail)
    name = device.decode("utf-8", "surrogateescape")
    here = {ask.link(name): seen(link(name, 15))}
    for host in (docker_host(), docker_host(here)):
        (finding,) = judged([found], host)
        assert finding.subject.device == name
        odd = re.search(rb'[^!-~]|["=]', device) is not None
        assert finding.verdict is not Verdict.CONFIRMED or not odd


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("tail", [b"", b'\x1dAUID="unset"'])
def test_a_table_named_like_a_record_is_its_whole_name_and_not_dockers(table: bytes, tail: bytes) -> None:
    record = NETFILTER.replace(b'"iptables"', b'"nft"').replace(b"table=nat:2", b"table=%b:2" % table)
    by_hand = SYSCALL.replace(b"ppid=3059", b"ppid=4000")
    for lines in ((record + tail,), (record + tail, by_hand, PROCTITLE)):
        (finding,) = judged([one_event(*lines)], docker_host(HERE))
        assert finding.subject.table == table.decode("utf-8", "surrogateescape")
        assert finding.verdict is not Verdict.CONFIRMED


@pytest.mark.parametrize(
    "op", [b"nft_register_table", b"nft_register_chain", b"nft_register_rule", b"xt_replace"]
)
@pytest.mark.parametrize("entries", [b"0", b"1", b"4294967295", b"9" * 20])
def test_a_record_of_no_change_or_of_very_many_is_accounted_for_by_nothing(op: bytes, entries: bytes) -> None:
    table = b"table=nat " if op == b"xt_replace" else b"table=nat:2 "
    record = NETFILTER.replace(b"table=nat:2 ", table).replace(b"nft_register_chain", op)
    record = record.replace(b"entries=2", b"entries=" + entries)
    (finding,) = judged([one_event(record)], docker_host())
    assert finding.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("name", HOSTILE)
def test_a_process_named_like_a_record_is_not_the_engine(name: bytes) -> None:
    comm, exe = untrusted(name[:15]), untrusted(name[:4095])
    acted = re.sub(rb'comm="[^"]*" exe="[^"]*"', lambda _: b"comm=%b exe=%b" % (comm, exe), ANOM_SYSCALL)
    found = one_event(ANOM, acted.replace(b" pid=3059 ", b" pid=4711 "))
    (finding,) = judged([found], docker_host(HERE))
    assert (finding.verdict, finding.cause.pid) == (Verdict.REFUTED, 4711)


@pytest.mark.parametrize("name", [name for name in HOSTILE if len(name) < 60])
def test_a_command_line_like_a_record_explains_nothing(name: bytes) -> None:
    title = b"/usr/sbin/iptables\0--wait\0-t\0nat\0-N\0" + name
    record = b"type=PROCTITLE msg=audit(1795436137.259:6): proctitle=" + title.hex().upper().encode()
    found = one_event(NETFILTER, SYSCALL.replace(b"ppid=3059", b"ppid=4000"), record)
    (finding,) = judged([found], docker_host(HERE))
    assert finding.verdict is Verdict.REFUTED


@given(st.lists(TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")), max_size=8))
def test_lines_of_any_kind_between_those_of_an_event_add_nothing_to_it(between: list[bytes]) -> None:
    """But what is a whole record with the event's own id: the log is believed."""
    clean = [each.replace(b"\n", b" ").replace(b"type=", b"typ=") for each in between]
    losses = Losses()
    log = b"\n".join((NETFILTER, *clean, SYSCALL, *clean, PROCTITLE, b""))
    (found,) = events([log], losses)
    assert found == event(NETFILTER, SYSCALL, PROCTITLE)
    assert losses.unparsed == 2 * sum(bool(each.strip(b"\0 \t\r")) and not _separates(each) for each in clean)


def _separates(line: bytes) -> bool:
    return bool(re.match(rb"[\0 \t]*(----\s*\Z|time->|<no matches>\s*\Z)", line))


# Whole runs


@pytest.mark.parametrize("form", ["text", "jsonl"])
@pytest.mark.parametrize("colour", ["never", "always"])
def test_a_whole_run_says_nothing_unsafe(tmp_path: Path, form: str, colour: str) -> None:
    """Log and recorded host are as hostile as can be: names, and lines that are no records."""
    hostile = replace(CONTAINER, name=NAMES[10], image=NAMES[13])
    here: dict[Question[Any], Observation[Any]] = {
        ask.CONTAINERS: seen((hostile,)),
        ask.process(4000): seen(process(4000, exe=NAMES[10], comm=NAMES[13], argv=NAMES)),
        ask.BOOT: Unobservable(WHERE, NAMES[11], NAMES[12]),
        **{ask.link(device.decode("utf-8", "surrogateescape")): unseen(NAMES[10]) for device in DEVICES},
    }
    host = tmp_path / "host.json"
    host.write_text(dump(docker_host(HERE | here).answers, 0.0))
    by_hand = SYSCALL.replace(b"ppid=3059", b"ppid=4000").replace(b"/usr/sbin/xtables-nft-multi", b"\x9b2J")
    lines = [
        ANOM,
        ANOM_SYSCALL,
        NETFILTER,
        by_hand,
        *HOSTILE,
        b"node=\x1b[2J " + ANOM.replace(b":31)", b":32)"),
    ]
    lines += [
        ANOM.replace(b"veth766e490", device).replace(b":31)", b":%d)" % at)
        for at, device in enumerate(DEVICES, 40)
    ]
    log = tmp_path / "audit.log"
    log.write_bytes(b"".join(line + b"\n" for line in lines))
    ended = invoke("--format", form, "--color", colour, "--host", host, log)
    assert ended.status == REFUTED
    check_text(ended.err)
    if form == "text":
        check_text(_COLOUR.sub("", ended.out) if colour == "always" else ended.out)
    else:
        assert len([check_json_line(line) for line in ended.out.splitlines()]) > len(DEVICES)


@pytest.mark.parametrize("name", [name for name in HOSTILE if len(name) < 200 and b"/" not in name])
def test_a_file_of_any_name_is_spoken_of_safely(tmp_path: Path, name: bytes) -> None:
    for arguments in (
        (tmp_path / os.fsdecode(name),),
        ("--host", tmp_path / os.fsdecode(name), tmp_path / "log"),
    ):
        (tmp_path / "log").write_bytes(ANOM + b"\n")
        ended = run(*arguments)
        assert ended.status == FAILED
        assert ended.err.startswith("verify-audit: ")
        check_text(ended.err)


# Size


def test_a_million_letters_are_told_in_a_few_lines() -> None:
    name = "x" * 1_000_000
    host = docker_host({ask.CONTAINERS: seen((replace(CONTAINER, name=name, image=name),))})
    began = time.monotonic()
    (finding,) = judged([EVENTS["attached"]], host)
    summary = Summary()
    summary.count([finding])
    text = report([finding], summary, colour=False, width=80)
    assert finding.verdict is Verdict.CONFIRMED
    assert len(text) < 100_000
    assert time.monotonic() - began < 5


def test_a_hundred_thousand_containers_are_looked_through_in_seconds() -> None:
    many = tuple(
        replace(
            CONTAINER,
            id=f"{number:064x}",
            name=f"c{number}",
            endpoints=(
                replace(
                    ENDPOINT, mac=f"02:42:ac:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
                ),
            ),
        )
        for number in range(1 << 17, (1 << 17) + 100_000)
    )
    host = docker_host({ask.CONTAINERS: seen((*many, CONTAINER))})
    began = time.monotonic()
    found = judged([EVENTS["attached"], EVENTS["bare"], EVENTS["iptables"]], host)
    assert found[0].container is not None
    assert found[0].container.id == WEB
    assert found[1].verdict is Verdict.CONFIRMED
    assert time.monotonic() - began < 30
    assert found[0].event.time == NOW
