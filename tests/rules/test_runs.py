"""Changes without an actor, one close upon the other, and what each of them did."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule, RuleSpec
from verify_audit.rules.runs import Write, entries, runs_of, steps, steps_legacy, writes_of

LEGACY = (Backend.LEGACY, "ip", "filter")


def line(serial: int, op: str, entries: int = 1, table: str = "filter", at: float = 0.0) -> bytes:
    return (
        f"type=NETFILTER_CFG msg=audit({1795442194 + at:.3f}:{serial}): table={table} family=2 "
        f'entries={entries} op={op} pid=9 comm="iptables"\n'
    ).encode()


def writes(*lines: bytes) -> list[Write]:
    return [write for event in events([b"".join(lines)], Losses()) for write in writes_of(event)]


def test_an_event_with_an_actor_is_none_of_these() -> None:
    first = line(1, "nft_register_rule", table="filter:2")
    syscall = first.split(b" table")[0].replace(b"NETFILTER_CFG", b"SYSCALL") + b" arch=c000003e syscall=46\n"
    assert writes(first)
    assert not writes(first, syscall)


@pytest.mark.parametrize("op", ["nft_reset_rule", "nft_invalid", "xt_unregister"])
def test_an_event_of_which_a_part_cannot_be_counted_is_left_out(op: str) -> None:
    good, bad = line(1, "nft_register_rule", table="filter:2"), line(1, op, table="nat:2")
    assert writes(good)
    assert not writes(good, bad)


def test_a_record_of_no_change_cannot_be_counted() -> None:
    assert not writes(line(1, "nft_register_rule", 0, table="filter:2"))
    assert writes(line(1, "xt_replace", 0))  # a table's entries before the change


def test_a_run_goes_on_as_long_as_its_generations_do() -> None:
    found = runs_of(
        writes(
            line(1, "nft_register_rule", table="filter:7"),
            line(2, "nft_register_rule", table="nat:2", at=0.004),  # another namespace's
            line(3, "nft_register_rule", table="nat:7", at=0.004),  # of the same batch as the first
            line(4, "nft_unregister_rule", table="filter:8", at=0.008),
            line(5, "nft_register_rule", table="filter:10", at=0.012),  # one is missing before it
            line(6, "nft_register_rule", table="nat:9", at=1.5),  # too late
        )
    )
    assert [[write.event.serial for write in run.writes] for run in found] == [[1, 3, 4], [2], [5], [6]]
    assert found[0].put() == {("ip", "filter"): 1, ("ip", "nat"): 1}
    assert found[0].taken() == {("ip", "filter"): 1}


def test_no_run_crosses_the_engines_start() -> None:
    both = writes(line(1, "xt_replace", 5), line(2, "xt_replace", 6, at=0.5))
    assert len(runs_of(both)) == 1
    assert len(runs_of(both, both[1].event.time)) == 2


def test_what_each_change_of_nf_tables_did() -> None:
    made = writes(
        line(1, "nft_register_chain", table="filter:2"),
        line(2, "nft_register_rule", table="filter:3"),
        line(3, "nft_unregister_rule", 4, table="filter:4"),
        line(4, "nft_unregister_chain", table="filter:5"),
    )
    assert steps(made) == [2, 1, -4, -2]


@pytest.mark.parametrize(("op", "count"), [("nft_register_chain", 2), ("nft_register_setelem", 1)])
def test_a_change_of_several_kinds_is_not_told_apart(op: str, count: int) -> None:
    assert steps(writes(line(1, op, count, table="filter:2"))) is None


def table(chains: int, rules: int) -> Firewall:
    built_in = (Chain(*LEGACY, "FORWARD", None, "forward", "DROP"),)
    made = tuple(Chain(*LEGACY, f"MADE{at}") for at in range(chains))
    return Firewall(
        1, chains=built_in + made, rules=(FirewallRule(*LEGACY, "FORWARD", None, RuleSpec()),) * rules
    )


@given(st.lists(st.sampled_from([-4, -2, -1, 0, 1, 2]), min_size=1, max_size=40), st.integers(0, 9))
def test_what_each_change_of_x_tables_did_is_the_difference_of_its_entries(
    changes: list[int], rules: int
) -> None:
    now = entries(table(3, rules), ("ip", "filter"))
    assert now == 1 + 3 * 2 + rules + 1
    before = list(accumulate(changes, initial=now - sum(changes)))[:-1]
    offset = max(0, -min(before))
    made = writes(*(line(at, "xt_replace", count + offset) for at, count in enumerate(before, 1)))
    whole = {id(made[-1]): now + offset}
    assert steps_legacy(made, whole, table(3, rules)) == changes
    if not offset:
        assert steps_legacy(made, {}, table(3, rules)) == changes


def test_without_the_table_nothing_is_said_of_its_last_change() -> None:
    made = writes(line(1, "xt_replace", 5))
    assert entries(Firewall(1), ("ip", "filter")) is None
    assert steps_legacy(made, {}, Firewall(1)) is None
    assert steps_legacy(made, {id(made[0]): 6}, Firewall(1)) == [1]
    assert steps_legacy([], {}, table(0, 0)) is None
