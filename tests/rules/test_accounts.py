"""Changes without an actor: all accounted for, or none. On what a live engine's first start left behind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
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
from verify_audit.host.facts import Container, Life, Network, PublishedPort
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule, Match, RuleSpec
from verify_audit.host.observation import Observed
from verify_audit.host.questions import FIREWALL
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import RecordedHost, load
from verify_audit.rules.runs import entries

SAMPLES = Path(__file__).parent.parent / "samples/firewall"
START = SAMPLES / "first-engine-start-bare"
ACCOUNTED = [
    "first-engine-start-bare",
    "network-create-bare",
    "run-p-bare",
    "engine-restart-bare",
    "engine-restart-legacy-bare",
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
    for at, line in enumerate(lines):
        found = judged(b"".join(lines[:at] + lines[at + 1 :]), SAMPLES / case)
        if case.startswith("engine-restart"):  # each table is accounted for by itself
            table = re.search(rb"table=\w+", line)
            assert table is not None
            found = [each for each in found if table[0] in each.event.records[0].raw]
        assert Verdict.CONFIRMED not in {each.verdict for each in found}


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
    """Nor are the engine's own of that table, but for a start that is over by then."""
    log = (SAMPLES / case / "event.log").read_bytes()
    at = place % (len(log.splitlines()) + 1)
    changed = standing(SAMPLES / case)
    if op.startswith("nft_register"):
        changed = made_room(changed, log, at, entries, table)
    findings = judged(with_one_more(log, at, op, entries, table.encode()), SAMPLES / case, changed)
    of_table = [each for each in findings if b"table=%s:" % table.encode() in each.event.records[0].raw]
    confirmed = [each for each in of_table if each.verdict is Verdict.CONFIRMED]
    assert not any(b"pid=9999" in each.event.records[0].raw for each in confirmed)
    over = case == "engine-restart-bare" and later_in(log, at, table)
    assert not confirmed or (over and len(confirmed) == len(of_table) - 1)


def later_in(log: bytes, at: int, table: str) -> bool:
    """Whether no change of that table follows a place in the log."""
    return not any(b"table=%s:" % table.encode() in line for line in log.splitlines()[at:])


@given(place=st.integers(0, 1000), table=st.sampled_from([b"nat", b"filter"]), apart=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_pair_of_changes_among_the_engines_is_never_confirmed_with_x_tables(
    place: int, table: bytes, apart: int
) -> None:
    """A rule put in, and taken out some changes later: the entries of what lies between are one more."""
    case = SAMPLES / "engine-restart-legacy-bare"
    lines = (case / "event.log").read_bytes().splitlines(keepends=True)
    own = [at for at, line in enumerate(lines) if b"table=%s " % table in line]
    first = place % (len(own) + 1)
    second = min(first + apart, len(own))
    counts = [int(re.search(rb"entries=(\d+)", lines[at])[1]) for at in own]  # type: ignore[index]
    counts.append(entries(standing(case), ("ip", table.decode())) or 0)
    for at in own[first:second]:
        lines[at] = re.sub(rb"entries=(\d+)", lambda found: b"entries=%d" % (int(found[1]) + 1), lines[at])

    def by_hand(at: int, count: int) -> bytes:
        line = lines[own[min(at, len(own) - 1)]]
        return re.sub(rb"entries=\d+(.*) pid=\d+", rb"entries=%d\1 pid=9999" % count, line)

    new = {first: [by_hand(first, counts[first])], second: [by_hand(second, counts[second] + 1)]}
    if first == second:
        new[first] = [by_hand(first, counts[first]), by_hand(first, counts[first] + 1)]
    log = []
    for number, at in enumerate([*own, len(lines)]):
        begin = own[number - 1] if number else 0
        log += [*lines[begin:at], *new.get(number, [])]
    serial = iter(range(1, 1000))
    text = re.sub(rb":\d+\): ", lambda _: b":%d): " % next(serial), b"".join(log))
    of_table = [each for each in judged(text, case) if b"table=%s " % table in each.event.records[0].raw]
    assert len(of_table) == len(own) + 2
    confirmed = [each for each in of_table if each.verdict is Verdict.CONFIRMED]
    assert not any(b"pid=9999" in each.event.records[0].raw for each in confirmed)
    assert not confirmed or first > 0


STOP = SAMPLES / "stop-bare"


def stopped(change: Callable[[Any], Any], log: bytes | None = None) -> Counter[Verdict]:
    """The verdicts on a stopped container's rules, with other answers of the host."""
    host = load(STOP / "host.json")
    answers = {
        question: Observed(change(answer.fact), answer.provenance) if isinstance(answer, Observed) else answer
        for question, answer in host.answers.items()
    }
    text = log if log is not None else (STOP / "event.log").read_bytes()
    found = investigate(list(events([text], Losses())), RecordedHost(answers, host.recorded_at))
    return Counter(each.verdict for each in found)


@pytest.mark.parametrize(
    "bindings",
    [
        None,
        (),
        (PublishedPort("tcp", 82, "", 18082), PublishedPort("tcp", 83, "", 18083)),
        (PublishedPort("sctp", 82, "", 18082),),
    ],
)
def test_a_stopped_container_accounts_for_its_own_ports_only(
    bindings: tuple[PublishedPort, ...] | None,
) -> None:
    assert set(stopped(lambda fact: fact)) == {Verdict.CONFIRMED}
    changed = stopped(lambda fact: replace(fact, bindings=bindings) if isinstance(fact, Life) else fact)
    assert Verdict.CONFIRMED not in changed


@pytest.mark.parametrize(
    "changed",
    [
        {"internal": True},
        {"ipv6": True},
        {"options": (("com.docker.network.bridge.enable_ip_masquerade", "false"),)},
        {"id": "0" * 64},
    ],
)
def test_a_network_that_is_gone_or_has_rules_of_its_own_accounts_for_nothing(changed: dict[str, Any]) -> None:
    def other(fact: Any) -> Any:
        if isinstance(fact, tuple) and fact and isinstance(fact[0], Network):
            return tuple(replace(each, **changed) if each.driver == "bridge" else each for each in fact)
        return fact

    assert Verdict.CONFIRMED not in stopped(other)


def test_a_container_that_is_gone_accounts_for_no_port() -> None:
    def without(fact: Any) -> Any:
        return () if isinstance(fact, tuple) and fact and isinstance(fact[0], Container) else fact

    assert Verdict.CONFIRMED not in stopped(without)


def test_where_somebody_took_something_out_meanwhile_the_rest_may_not_be_the_engines() -> None:
    log = (STOP / "event.log").read_bytes()
    first = _RECORD.search(log)
    assert first is not None
    before = (
        b"type=NETFILTER_CFG msg=audit(%.3f:%d): table=filter:%d family=2 entries=1 op=nft_unregister_rule "
        b'pid=9999 comm="iptables"\n' % (float(first[1]) - 2, int(first[2]) - 1, int(first[4]) - 1)
    )
    assert Verdict.CONFIRMED not in stopped(lambda fact: fact, before + log)
    put = before.replace(b"unregister", b"register")
    assert stopped(lambda fact: fact, put + log)[Verdict.CONFIRMED] == 3
