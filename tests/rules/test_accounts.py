"""Changes without an actor: all accounted for, or none. On what a live engine's first start left behind."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.findings.verdict import Verdict
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule, Match, RuleSpec
from verify_audit.host.observation import Observed
from verify_audit.host.questions import FIREWALL
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import RecordedHost, load

SAMPLES = Path(__file__).parent.parent / "samples/firewall"
START = SAMPLES / "first-engine-start-bare"
LOG = (START / "event.log").read_bytes()
FILTER = (Backend.NFT, "ip", "filter")
INPUT_RULE = FirewallRule(*FILTER, "INPUT", 900, RuleSpec(source=Match("203.0.113.7/32"), target="ACCEPT"))
INPUT = Chain(*FILTER, "INPUT", 899, "input", "ACCEPT")


def verdicts(log: bytes, case: Path = START, changed: Firewall | None = None) -> Counter[Verdict]:
    host = load(case / "host.json")
    if changed is not None:
        was: Any = host.answers[FIREWALL]
        host = RecordedHost({**host.answers, FIREWALL: Observed(changed, was.provenance)}, host.recorded_at)
    return Counter(each.verdict for each in investigate(list(events([log], Losses())), host))


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


@pytest.mark.parametrize("case", ["first-engine-start-bare", "network-create-bare", "run-p-bare"])
def test_what_the_engine_did_is_accounted_for_to_the_last_change(case: str) -> None:
    log = (SAMPLES / case / "event.log").read_bytes()
    assert set(verdicts(log, SAMPLES / case)) == {Verdict.CONFIRMED}


@pytest.mark.parametrize("case", ["first-engine-start-bare", "network-create-bare", "run-p-bare"])
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
