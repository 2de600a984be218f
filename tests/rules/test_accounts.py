"""Changes without an actor: all accounted for, or none. On what a live engine's first start left behind."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule, Match, RuleSpec
from verify_audit.host.observation import Observed
from verify_audit.host.questions import FIREWALL
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import RecordedHost, load

SAMPLES = Path(__file__).parent.parent / "samples/firewall"
START = SAMPLES / "first-engine-start-bare"
ACCOUNTED = [
    "first-engine-start-bare",
    "network-create-bare",
    "run-p-bare",
    "engine-restart-bare",
    "stop-bare",
]
LOG = (START / "event.log").read_bytes()
FILTER = (Backend.NFT, "ip", "filter")
INPUT_RULE = FirewallRule(*FILTER, "INPUT", 900, RuleSpec(source=Match("203.0.113.7/32"), target="ACCEPT"))
INPUT = Chain(*FILTER, "INPUT", 899, "input", "ACCEPT")


def judged(log: bytes, case: Path = START, changed: Firewall | None = None) -> list[Finding]:
    host = load(case / "host.json")
    if changed is not None:
        was: Any = host.answers[FIREWALL]
        host = RecordedHost({**host.answers, FIREWALL: Observed(changed, was.provenance)}, host.recorded_at)
    return list(investigate(list(events([log], Losses())), host))


def verdicts(log: bytes, case: Path = START, changed: Firewall | None = None) -> Counter[Verdict]:
    return Counter(each.verdict for each in judged(log, case, changed))


def standing(case: Path = START) -> Firewall:
    answer = load(case / "host.json").answers[FIREWALL]
    assert isinstance(answer, Observed)
    firewall: Firewall = answer.fact
    return firewall


def one_more(op: str, entries: int) -> bytes:
    """The log with one more change at its end, 4 ms after the last."""
    last = [line for line in LOG.split(b"\n") if b"NETFILTER_CFG" in line][-1]
    found = re.search(rb"audit\((\d+)\.(\d+):(\d+)\): table=\w+:(\d+)", last)
    assert found is not None
    seconds, millis, serial, generation = map(int, found.groups())
    return (
        LOG
        + (
            f"type=NETFILTER_CFG msg=audit({seconds}.{millis + 4:03d}:{serial + 1}): table=filter:{generation + 1} "
            f'family=2 entries={entries} op={op} pid=9999 comm="iptables"\n'
        ).encode()
    )


@pytest.mark.parametrize("case", ACCOUNTED)
def test_what_the_engine_did_is_accounted_for_to_the_last_change(case: str) -> None:
    log = (SAMPLES / case / "event.log").read_bytes()
    assert set(verdicts(log, SAMPLES / case)) == {Verdict.CONFIRMED}


@pytest.mark.parametrize("case", ACCOUNTED)
def test_with_one_change_left_out_none_is_confirmed(case: str) -> None:
    log = (SAMPLES / case / "event.log").read_bytes()
    lines = log.splitlines(keepends=True)
    for at in range(len(lines)):
        assert Verdict.CONFIRMED not in verdicts(b"".join(lines[:at] + lines[at + 1 :]), SAMPLES / case)


@pytest.mark.parametrize("op", ["nft_register_rule", "nft_register_chain", "nft_unregister_rule"])
def test_with_one_change_more_none_is_confirmed(op: str) -> None:
    assert Verdict.CONFIRMED not in verdicts(one_more(op, 1))


@pytest.mark.parametrize(
    ("entries", "chains", "rules"),
    [
        (2, (INPUT,), (INPUT_RULE,)),
        (1, (Chain(*FILTER, "MINE", 901),), ()),
        (1, (Chain(*FILTER, "DOCKER-X", 901),), ()),
        (1, (INPUT,), ()),
        (1, (), (replace(INPUT_RULE, chain="DOCKER-USER"),)),
    ],
)
def test_what_somebody_else_left_meanwhile_is_not_taken_for_the_engines(
    entries: int, chains: tuple[Chain, ...], rules: tuple[FirewallRule, ...]
) -> None:
    """The sum comes out, with what is not Docker's in it."""
    was = standing()
    changed = replace(was, chains=was.chains + chains, rules=was.rules + rules)
    assert Verdict.CONFIRMED not in verdicts(one_more("nft_register_chain", entries), changed=changed)


OPS = ["nft_register_rule", "nft_unregister_rule", "nft_register_chain", "nft_unregister_chain"]
_RECORD = re.compile(rb"audit\(([\d.]+):(\d+)\): table=(\w+):(\d+) family=(\d+) entries=(\d+) op=(\w+)")


def with_one_more(log: bytes, at: int, op: str, entries: int, table: bytes) -> bytes:
    """The log with one more change in front of the one at that place, and all numbers as they would be then."""
    lines = log.splitlines(keepends=True)
    found = _RECORD.search(lines[min(at, len(lines) - 1)])
    assert found is not None
    later = at >= len(lines)
    new = (
        b'type=NETFILTER_CFG msg=audit(%s:%d): table=%s:%d family=2 entries=%d op=%s pid=9999 comm="iptables"\n'
        % (found[1], int(found[2]) + later, table, int(found[4]) + later, entries, op.encode())
    )

    def shifted(line: bytes) -> bytes:
        line = re.sub(rb":(\d+)\): ", lambda match: b":%d): " % (int(match[1]) + 1), line, count=1)
        return re.sub(rb"(table=\w+:)(\d+)", lambda match: match[1] + b"%d" % (int(match[2]) + 1), line)

    return b"".join([*lines[:at], new, *map(shifted, lines[at:])])


def made_room(firewall: Firewall, log: bytes, at: int, entries: int, table: str) -> Firewall:
    """The firewall with the handles that what came later would have, had so many been given to another."""
    later = 0
    for line in log.splitlines()[at:]:
        found = _RECORD.search(line)
        assert found is not None
        if found[7].startswith(b"nft_register") and found[3].decode() == table:
            later += int(found[6])
    objects: list[Any] = [*firewall.chains, *firewall.rules]
    handles = [each.handle or 0 for each in objects if (each.table, each.family) == (table, "ip")]
    first = max(handles) - later

    def moved(each: Any) -> Any:
        if each.table == table and each.family == "ip" and each.handle > first:
            return replace(each, handle=each.handle + entries)
        return each

    return replace(
        firewall, chains=tuple(map(moved, firewall.chains)), rules=tuple(map(moved, firewall.rules))
    )


@pytest.mark.parametrize("case", ["engine-restart-bare", "stop-bare"])
@given(
    place=st.integers(0, 1000),
    op=st.sampled_from(OPS),
    entries=st.integers(1, 3),
    table=st.sampled_from(["nat", "filter"]),
)
@settings(max_examples=60, deadline=None)
def test_a_change_among_the_engines_is_never_confirmed(
    case: str, place: int, op: str, entries: int, table: str
) -> None:
    """Nor are the engine's own, but for a start that is over by then."""
    log = (SAMPLES / case / "event.log").read_bytes()
    count = len(log.splitlines())
    at = place % (count + 1)
    changed = standing(SAMPLES / case)
    if op.startswith("nft_register"):
        changed = made_room(changed, log, at, entries, table)
    findings = judged(with_one_more(log, at, op, entries, table.encode()), SAMPLES / case, changed)
    assert [each.verdict for each in findings if b"pid=9999" in each.event.records[0].raw] != [
        Verdict.CONFIRMED
    ]
    if at < count or case == "stop-bare":
        confirmed = sum(each.verdict is Verdict.CONFIRMED for each in findings)
        assert not confirmed or (
            case == "engine-restart-bare" and confirmed == count and later_in(log, at, table)
        )


def later_in(log: bytes, at: int, table: str) -> bool:
    """Whether no change of that table follows a place in the log."""
    return not any(b"table=%s:" % table.encode() in line for line in log.splitlines()[at:])
