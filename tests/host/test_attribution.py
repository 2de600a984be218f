from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firewall_samples import engine, firewall
from verify_audit.host.attribution import Attribution, attribute, explain_spec
from verify_audit.host.docker_layout import expected_rules
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule, RuleSpec
from verify_audit.host.iptables_command import parse_rule

SAMPLES = ["docker-20.10", "docker-20.10-legacy", "docker-20.10-ipv6-no-proxy"]


def judged(name: str, *more: FirewallRule, chains: tuple[Chain, ...] = ()) -> Attribution:
    version, networks, containers = engine(name)
    there = firewall(name)
    there = replace(there, rules=there.rules + more, chains=there.chains + chains)
    return attribute(there, expected_rules(version, networks, containers), version)


def by_hand(table: str, chain: str, words: str, backend: Backend = Backend.NFT) -> FirewallRule:
    return FirewallRule(backend, "ip", table, chain, 999, parse_rule(words.split(), "ip"))


@pytest.mark.parametrize("name", SAMPLES)
def test_all_that_docker_made_is_explained_and_nothing_is_missing(name: str) -> None:
    attribution = judged(name)
    assert len(attribution.explained) == len(firewall(name).rules)
    assert (attribution.unexplained, attribution.missing, attribution.foreign_chains) == ((), (), ())


@pytest.mark.parametrize(
    "rule",
    [
        by_hand("filter", "DOCKER-USER", "-s 1.2.3.4 -j ACCEPT"),
        by_hand("filter", "DOCKER-USER", "-j DROP"),
        by_hand(
            "filter", "DOCKER", "-d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 22 -j ACCEPT"
        ),
        by_hand("filter", "DOCKER", "-d 172.17.0.2/32 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT"),
        by_hand("nat", "DOCKER", "! -i docker0 -p tcp --dport 22 -j DNAT --to-destination 172.17.0.2:22"),
        by_hand("nat", "DOCKER", "! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.1:80"),
        by_hand("nat", "PREROUTING", "-j DOCKER"),
        by_hand("filter", "INPUT", "-j DOCKER-USER"),
        by_hand("filter", "DOCKER-ISOLATION-STAGE-1", "-i eth0 -j ACCEPT"),
        by_hand("filter", "MINE", "-j DOCKER-X"),
    ],
)
def test_a_rule_by_hand_among_dockers_is_not_explained(rule: FirewallRule) -> None:
    attribution = judged("docker-20.10", rule)
    assert attribution.unexplained == (rule,)
    assert attribution.missing == ()


@pytest.mark.parametrize(
    "rule",
    [
        by_hand("filter", "INPUT", "-p tcp --dport 22 -j ACCEPT"),
        by_hand("filter", "FORWARD", "-i docker0 -j DROP"),
        by_hand("mangle", "POSTROUTING", "-j MARK"),
    ],
)
def test_rules_that_are_none_of_dockers_business_are_left_alone(rule: FirewallRule) -> None:
    attribution = judged("docker-20.10", rule)
    assert attribution.unexplained == ()
    assert rule not in [explained for explained, _ in attribution.explained]


@given(st.data())
def test_a_copy_of_any_of_dockers_rules_is_one_too_many(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(SAMPLES))
    copied = replace(data.draw(st.sampled_from(firewall(name).rules)), handle=999)
    attribution = judged(name, copied)
    assert attribution.unexplained == (copied,)


@given(st.data())
def test_a_rule_with_something_that_cannot_be_read_is_never_dockers(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(SAMPLES))
    there = firewall(name)
    at = data.draw(st.integers(0, len(there.rules) - 1))
    hidden = replace(there.rules[at], spec=replace(there.rules[at].spec, opaque=("limit",)))
    version, networks, containers = engine(name)
    rules = (*there.rules[:at], hidden, *there.rules[at + 1 :])
    attribution = attribute(
        replace(there, rules=rules), expected_rules(version, networks, containers), version
    )
    assert hidden not in [rule for rule, _ in attribution.explained]


def test_the_same_rule_in_both_backends_is_left_over_from_before() -> None:
    rule = by_hand("filter", "DOCKER-USER", "-j RETURN", Backend.LEGACY)
    assert judged("docker-20.10", rule).unexplained == ()


def test_a_required_rule_that_is_gone_is_missing() -> None:
    version, networks, containers = engine("docker-20.10")
    there = firewall("docker-20.10")
    without = replace(there, rules=tuple(rule for rule in there.rules if rule.chain != "DOCKER-USER"))
    attribution = attribute(without, expected_rules(version, networks, containers), version)
    assert [(rule.chain, str(rule.spec)) for rule in attribution.missing] == [("DOCKER-USER", "-j RETURN")]


def test_an_empty_firewall_explains_nothing() -> None:
    version, networks, containers = engine("docker-20.10")
    attribution = attribute(Firewall(1), expected_rules(version, networks, containers), version)
    assert attribution.explained == ()
    assert len(attribution.missing) > 30


@pytest.mark.parametrize(
    "chain",
    [
        Chain(Backend.NFT, "ip", "filter", "DOCKER-X"),
        Chain(Backend.NFT, "ip", "mangle", "DOCKER"),
        Chain(Backend.NFT, "ip", "filter", "DOCKER-FORWARD"),
        Chain(Backend.NFT, "ip", "filter", "docker"),
        Chain(Backend.NFT, "inet", "filter", "DOCKER"),
        Chain(Backend.NFT, "ip", "docker-bridges", "filter-FORWARD"),
    ],
)
def test_a_chain_that_this_version_never_makes_is_foreign(chain: Chain) -> None:
    assert judged("docker-20.10", chains=(chain,)).foreign_chains == (chain,)


def test_chains_of_others_are_not_foreign() -> None:
    assert (
        judged("docker-20.10", chains=(Chain(Backend.NFT, "ip", "filter", "KUBE-FORWARD"),)).foreign_chains
        == ()
    )


def test_a_command_of_the_log() -> None:
    version, networks, containers = engine("docker-20.10")
    expected = expected_rules(version, networks, containers)
    words = "-p tcp -d 0/0 --dport 8080 -j DNAT --to-destination 172.17.0.2:80 ! -i docker0"
    found = explain_spec(parse_rule(words.split(), "ip"), "ip", "nat", "DOCKER", expected)
    assert found is not None
    assert found.because == "port 80/tcp of /web is published as 0.0.0.0:8080"
    assert explain_spec(found.spec, "ip", "nat", "PREROUTING", expected) is None
    assert explain_spec(found.spec, "ip6", "nat", "DOCKER", expected) is None
    assert explain_spec(RuleSpec(target="DROP"), "ip", "filter", "DOCKER-USER", expected) is None
