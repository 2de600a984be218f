from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.host.firewall import (
    Backend,
    Chain,
    Firewall,
    FirewallRule,
    Match,
    RuleSpec,
    nat_range,
    network,
    ordered,
    ports,
    protocol,
)


def test_a_rule_is_written_as_iptables_save_writes_it() -> None:
    spec = RuleSpec(
        destination=Match("172.17.0.2/32"),
        in_interface=Match("docker0", negated=True),
        out_interface=Match("docker0"),
        protocol=Match("tcp"),
        destination_ports=Match("80"),
        target="ACCEPT",
    )
    assert str(spec) == "-d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT"
    assert str(RuleSpec(opaque=("limit",), target="X", goto=True)) == "[limit] -g X"


def test_a_spec_with_an_opaque_part_equals_none_that_is_whole() -> None:
    assert RuleSpec(target="DROP") == RuleSpec(target="DROP")
    assert RuleSpec(target="DROP", opaque=("limit",)) != RuleSpec(target="DROP")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("172.17.0.2", "172.17.0.2/32"),
        ("172.17.3.2/16", "172.17.0.0/16"),
        ("172.17.0.0/255.255.0.0", "172.17.0.0/16"),
        ("0/0", None),
        ("0.0.0.0/0", None),
        ("::/0", None),
        ("0.0.0.0", "0.0.0.0/32"),  # noqa: S104
        ("FD00:0:0::2", "fd00::2/128"),
    ],
)
def test_networks_have_one_form(text: str, canonical: str | None) -> None:
    assert network(text) == canonical


@pytest.mark.parametrize("text", ["example.org", "1.2.3.4/0.0.0.255", "", "1.2.3.4/33"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        network(text)


def test_protocols_ports_states_and_ranges() -> None:
    assert [protocol(text) for text in ("TCP", "6", "all", "0", "112", "icmpv6")] == [
        *("tcp", "tcp", None, None, "112", "ipv6-icmp")
    ]
    assert (ports(80, 80), ports(1, 9)) == ("80", "1:9")
    assert ordered(["b", "a", "b"], ("a", "b")) == "a,b"
    with pytest.raises(ValueError, match="unknown: c"):
        ordered(["c"], ("a", "b"))
    assert nat_range(("172.17.0.2", "172.17.0.2"), (80, 80)) == "172.17.0.2:80"
    assert nat_range(("fd00::2", "fd00::2"), (80, 81)) == "[fd00::2]:80-81"
    assert nat_range(None, (53, 53)) == ":53"
    assert nat_range(("10.0.0.1", "10.0.0.9"), None) == "10.0.0.1-10.0.0.9"


@pytest.mark.parametrize(
    ("to", "without"),
    [("172.17.0.2:80", "172.17.0.2"), ("[fd00::2]:80", "[fd00::2]"), ("fd00::2", "fd00::2"), (":53", "")],
)
def test_without_ports(to: str, without: str) -> None:
    spec = RuleSpec(destination_ports=Match("1"), source_ports=Match("2"), to=to, target="DNAT")
    assert spec.without_ports() == RuleSpec(to=without, target="DNAT")


def rule(chain: str, target: str, backend: Backend = Backend.NFT, family: str = "ip") -> FirewallRule:
    return FirewallRule(backend, family, "filter", chain, None, RuleSpec(target=target))


def test_look_ups() -> None:
    jump, drop, other = (
        rule("FORWARD", "DOCKER"),
        rule("DOCKER", "DROP"),
        rule("DOCKER", "DROP", family="ip6"),
    )
    old = rule("FORWARD", "DOCKER", Backend.LEGACY)
    chain = Chain(Backend.NFT, "ip", "filter", "DOCKER")
    firewall = Firewall(1, (), (chain,), (jump, drop, other), 5).beside(Firewall(1, rules=(old,)))
    assert firewall.nft_generation == 5
    assert firewall.chain("ip", "filter", "DOCKER") == (chain,)
    assert firewall.chain("ip", "nat", "DOCKER") == ()
    assert firewall.rules_in("ip", "filter", "DOCKER") == (drop,)
    assert firewall.jumps_to("ip", "filter", "DOCKER") == (jump, old)
    assert firewall.backends() == {Backend.NFT, Backend.LEGACY}
    assert str(other) == "ip6tables-nft -t filter -A DOCKER -j DROP"


@given(st.text())
def test_a_name_of_any_kind_can_be_written(name: str) -> None:
    assert name in str(RuleSpec(in_interface=Match(name)))
