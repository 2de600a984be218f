from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firewall_events import ENGINE as ENGINE_PID
from tests.firewall_events import changed
from tests.firewall_samples import engine, firewall
from tests.made_up import ENGINE, NOT_THERE, MadeUpHost, docker_host, seen, unseen
from verify_audit.audit.record import Event
from verify_audit.findings.finding import CauseKind
from verify_audit.findings.inventory import Inventory, Row, Standing
from verify_audit.host import questions as ask
from verify_audit.host.facts import History, Product
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule
from verify_audit.host.iptables_command import parse_rule
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.rules.inventory import changing_at, inventory

SAMPLE = "docker-20.10"
Changes = Mapping[Question[Any], Observation[Any]]


def by_hand(chain: str, words: str, table: str = "filter", backend: Backend = Backend.NFT) -> FirewallRule:
    handle = 999 if backend is Backend.NFT else None
    return FirewallRule(backend, "ip", table, chain, handle, parse_rule(words.split(), "ip"))


def host(there: Firewall | None = None, changes: Changes | None = None, name: str = SAMPLE) -> MadeUpHost:
    """The engine of a sample, with its own firewall or another."""
    version, networks, containers = engine(name)
    return docker_host(
        {
            ask.ENGINE: seen(replace(ENGINE, version=version)),
            ask.NETWORKS: seen(tuple(networks)),
            ask.CONTAINERS: seen(tuple(containers)),
            ask.FIREWALL: seen(there if there is not None else firewall(name)),
            **(changes or {}),
        }
    )


def of(
    *more: FirewallRule,
    chains: tuple[Chain, ...] = (),
    events: tuple[Event, ...] = (),
    changes: Changes | None = None,
) -> Inventory:
    there = firewall(SAMPLE)
    there = replace(there, rules=there.rules + more, chains=there.chains + chains)
    return inventory(host(there, changes), events)


def without(found: Firewall, chain: str, target: str) -> Firewall:
    return replace(
        found, rules=tuple(each for each in found.rules if (each.chain, each.spec.target) != (chain, target))
    )


def odd(found: Inventory) -> list[Row]:
    return [row for row in found.rows if row.standing is not Standing.EXPLAINED]


@pytest.mark.parametrize("name", ["docker-20.10", "docker-20.10-legacy"])
def test_every_rule_of_dockers_is_shown_with_what_explains_it(name: str) -> None:
    found = inventory(host(name=name), ())
    assert (found.exit_status, found.engine) == (0, engine(name)[0])
    assert len(found.rows) == len(firewall(name).rules) == found.count(Standing.EXPLAINED)
    because = {row.because for row in found.rows}
    assert "the daemon itself, from its start on" in because
    assert any(each.startswith("network bridge on docker0") for each in because)
    port = next(row for row in found.rows if "-j DNAT" in (row.spec or ""))
    assert port.container is not None
    assert port.network is not None
    assert (port.backend, port.handle is None) == ("legacy" if "legacy" in name else "nft", "legacy" in name)
    assert {row.position for row in found.rows if row.chain == "FORWARD"} == set(
        range(1, sum(row.chain == "FORWARD" for row in found.rows) + 1)
    )


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (by_hand("DOCKER-USER", "-s 203.0.113.7 -j ACCEPT"), "an admin's or an intruder's"),
        (by_hand("DOCKER", "-p tcp --dport 22 -j ACCEPT"), "nothing that this engine runs calls for it"),
        (by_hand("INPUT", "-j DOCKER-USER"), "leads into DOCKER-USER"),
        (by_hand("DOCKER", "-m limit -j ACCEPT"), "part of it could not be understood"),
        (by_hand("FORWARD", "-j DOCKER-USER"), "once too often"),
        (by_hand("DOCKER-X", "-j DROP"), "nothing that this engine runs"),
    ],
)
def test_a_rule_that_nothing_explains(rule: FirewallRule, why: str) -> None:
    found = of(rule)
    (row,) = odd(found)
    assert (row.standing, row.handle, row.chain, row.spec) == (
        Standing.UNEXPLAINED,
        999,
        rule.chain,
        str(rule.spec),
    )
    assert why in row.because
    assert found.exit_status == 11


def test_the_event_that_made_it() -> None:
    rule = by_hand("DOCKER-USER", "-s 203.0.113.7 -j ACCEPT")
    event = changed(4, "iptables -I DOCKER-USER -s 203.0.113.7 -j ACCEPT")
    (row,) = odd(of(rule, events=(event,)))
    assert row.origin is not None
    assert (row.origin.event, row.origin.doubt) == (event, "")
    (row,) = odd(of(rule, events=(changed(4, None),)))
    assert row.origin is not None
    assert row.origin.doubt
    (row,) = odd(of(rule))
    assert row.origin is None


def test_of_equal_rules_the_one_with_the_highest_handle_is_the_youngest() -> None:
    """They were inserted, so it stands before the other."""
    rule = by_hand("DOCKER-USER", "-s 203.0.113.7 -j ACCEPT")
    events = tuple(changed(at, "iptables -I DOCKER-USER -s 203.0.113.7 -j ACCEPT") for at in (4, 5))
    rows = odd(of(rule, replace(rule, handle=998), events=events))
    assert [(row.handle, row.origin and row.origin.event) for row in rows] == [
        (999, events[1]),
        (998, events[0]),
    ]


@pytest.mark.parametrize(
    ("unclear", "expected"),
    [((3,), None), ((4, 6), 6), ((6, 8), 6), ((8,), None), ((), None)],
)
def test_what_may_have_made_a_rule_came_between_those_that_made_its_neighbours(
    unclear: tuple[int, ...], expected: int | None
) -> None:
    """Handles are given in order."""
    events = [
        changed(5, "iptables -A DOCKER-USER -s 1.2.3.90 -j DROP"),
        changed(7, "iptables -A DOCKER-USER -s 1.2.3.110 -j DROP"),
        *(changed(at, None) for at in unclear),
    ]
    older, younger = (
        replace(by_hand("DOCKER-USER", f"-s 1.2.3.{last} -j DROP"), handle=handle)
        for last, handle in ((90, 900), (110, 1100))
    )
    rule = by_hand("DOCKER-USER", "-s 203.0.113.7 -j ACCEPT")
    rows = {
        row.handle: row
        for row in odd(of(older, rule, younger, events=tuple(sorted(events, key=lambda event: event.serial))))
    }
    origin = rows[999].origin
    assert (origin.event.serial if origin else None) == expected


def test_what_may_have_made_a_rule_is_not_told_of_one_that_docker_makes() -> None:
    found = of(events=(changed(4, None),))
    assert [row for row in found.rows if row.origin] == []
    made = of(events=(changed(4, "iptables -I FORWARD -j DOCKER-USER", parent=ENGINE_PID),))
    (row,) = (row for row in made.rows if row.origin)
    assert row.origin is not None
    assert row.origin.cause.kind is CauseKind.DOCKER


def test_a_rule_that_is_missing_and_who_took_it_away() -> None:
    there = without(firewall(SAMPLE), "FORWARD", "DOCKER-USER")
    event = changed(4, "iptables -D FORWARD -j DOCKER-USER")
    found = inventory(host(there), (event,))
    (row,) = odd(found)
    assert (row.standing, row.chain, row.spec) == (Standing.MISSING, "FORWARD", "-j DOCKER-USER")
    assert (row.backend, row.handle, row.position) == (None, None, None)
    assert row.origin is not None
    assert row.origin.event == event
    assert found.exit_status == 10
    places = [(each.chain, each.standing) for each in found.rows if each.chain == "FORWARD"]
    assert places[-1] == ("FORWARD", Standing.MISSING)


def test_unexplained_is_worse_than_missing() -> None:
    there = without(firewall(SAMPLE), "FORWARD", "DOCKER-USER")
    there = replace(there, rules=(*there.rules, by_hand("DOCKER", "-j ACCEPT")))
    assert inventory(host(there), ()).exit_status == 11


def test_a_chain_that_this_version_never_makes() -> None:
    evil, newer = (Chain(Backend.NFT, "ip", "filter", name, 5) for name in ("DOCKER-EVIL", "DOCKER-FORWARD"))
    found = of(chains=(evil, newer))
    rows = odd(found)
    assert [(row.chain, row.spec, row.standing) for row in rows] == [
        ("DOCKER-EVIL", None, Standing.UNEXPLAINED),
        ("DOCKER-FORWARD", None, Standing.UNEXPLAINED),
    ]
    assert "other versions do" not in rows[0].because
    assert "other versions do" in rows[1].because


UNSEEN_ENGINE: Changes = {
    ask.ENGINE: unseen("no engine answers"),
    ask.DAEMON: unseen("no engine answers"),
    ask.NETWORKS: unseen("no engine answers"),
    ask.CONTAINERS: unseen("no engine answers"),
}


@pytest.mark.parametrize(
    "changes",
    [
        UNSEEN_ENGINE,
        {ask.DAEMON: unseen("not root")},
        {ask.NETWORKS: unseen("it hung")},
        {ask.CONTAINERS: unseen("it hung")},
        {ask.ENGINE: seen(replace(ENGINE, product=Product.PODMAN))},
    ],
)
def test_without_the_engine_nothing_is_called_unexplained_or_missing(changes: Changes) -> None:
    found = of(
        by_hand("DOCKER-USER", "-j ACCEPT"),
        by_hand("INPUT", "-p udp -j ACCEPT"),
        chains=(Chain(Backend.NFT, "ip", "filter", "DOCKER-EVIL"),),
        changes=changes,
    )
    assert {row.standing for row in found.rows} == {Standing.UNKNOWN}
    assert found.exit_status == 10
    assert "INPUT" not in {row.chain for row in found.rows}
    assert {"DOCKER-USER", "DOCKER-EVIL", "PREROUTING", "FORWARD"} <= {row.chain for row in found.rows}
    if changes is UNSEEN_ENGINE:
        assert [each.reason for each in found.unobservable] == ["no engine answers"]


def test_a_firewall_that_cannot_be_read() -> None:
    found = inventory(host(changes={ask.FIREWALL: unseen("not root")}), ())
    assert (found.rows, found.exit_status) == ((), 10)
    assert [each.reason for each in found.unobservable] == ["not root"]


@pytest.mark.parametrize("changes", [None, UNSEEN_ENGINE])
def test_where_nothing_of_dockers_is(changes: Changes | None) -> None:
    """With iptables=false the daemon makes nothing: what is not there need not be missing."""
    others = Firewall(1, (), (Chain(Backend.NFT, "ip", "filter", "INPUT"),), (by_hand("INPUT", "-j DROP"),))
    found = inventory(host(others, changes), ())
    assert (found.rows, found.exit_status) == ((), 3)


def test_all_of_it_is_missing_when_the_log_has_who_took_it_away() -> None:
    found = inventory(host(Firewall(1)), (changed(4, "nft flush ruleset", table="", family=2),))
    assert found.exit_status == 10
    assert found.count(Standing.MISSING) > 20


def test_records_of_another_host_are_not_of_this_one() -> None:
    rule = by_hand("DOCKER-USER", "-s 203.0.113.7 -j ACCEPT")
    command = "iptables -I DOCKER-USER -s 203.0.113.7 -j ACCEPT"
    (elsewhere,) = odd(of(rule, events=(changed(4, command, node="other"),)))
    (here,) = odd(of(rule, events=(changed(4, command, node="host1"),)))
    assert elsewhere.origin is None
    assert here.origin is not None


def test_both_backends_stand_side_by_side() -> None:
    there = firewall(SAMPLE)
    older = tuple(replace(rule, backend=Backend.LEGACY, handle=None) for rule in there.rules)
    found = inventory(host(there.beside(Firewall(1, (), there.chains, older))), ())
    assert found.exit_status == 0
    assert {row.backend for row in found.rows} == {"nft", "legacy"}
    chains = [(row.family, row.table, row.chain) for row in found.rows]
    assert len(dict.fromkeys(chains)) == sum(
        before != after for before, after in zip([None, *chains], chains, strict=False)
    )


def test_when_the_engine_was_at_work() -> None:
    assert changing_at(docker_host({ask.HISTORY: NOT_THERE})) is None
    assert changing_at(docker_host({ask.HISTORY: seen(History((), 0, 1))})) is None
    assert changing_at(docker_host()) is not None


@given(st.data())
def test_what_could_not_be_seen_never_makes_anything_unexplained(data: st.DataObject) -> None:
    topics: tuple[Question[Any], ...] = (ask.ENGINE, ask.DAEMON, ask.NETWORKS, ask.CONTAINERS)
    hidden = data.draw(st.sets(st.sampled_from(topics), min_size=1))
    rules = firewall(SAMPLE).rules
    kept = data.draw(st.sets(st.sampled_from(range(len(rules)))))
    there = replace(firewall(SAMPLE), rules=tuple(rules[at] for at in kept))
    found = inventory(host(there, {question: unseen() for question in hidden}), ())
    assert (
        found.count(Standing.UNEXPLAINED)
        == found.count(Standing.MISSING)
        == found.count(Standing.EXPLAINED)
        == 0
    )
