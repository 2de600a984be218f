from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.firewall_samples import engine, firewall
from verify_audit.host.docker_layout import (
    ExpectedRule,
    docker_chains,
    expected_container_rules,
    expected_rules,
    is_docker_chain,
    is_docker_table,
    looks_like_docker_chain,
    parse_version,
)
from verify_audit.host.facts import Container, Endpoint, Network, PublishedPort, Subnet
from verify_audit.host.firewall import Match, RuleSpec
from verify_audit.host.iptables_command import parse_rule

ANY = "0.0.0.0"  # noqa: S104 - where Docker listens, not this test
VERSIONS = [
    "1.12.6",
    "17.06.2",
    "18.09.9",
    "20.10.24",
    "23.0.6",
    "26.1.5",
    "27.5.1",
    "28.0.0",
    "28.0.1",
    "28.1.1",
]
VERSIONS += ["28.2.2", "28.5.2", "29.0.0"]


def network(name: str = "one", bridge: str = "br-one", *, internal: bool = False, **options: str) -> Network:
    given = tuple(
        (f"com.docker.network.{'host_ipv4' if key == 'host_ipv4' else 'bridge.' + key}", value)
        for key, value in options.items()
    )
    subnets = (Subnet("172.30.1.0/24", "172.30.1.1"),)
    return Network(name, name, "bridge", "local", internal, False, None, bridge, subnets, given)


def container(*ports: PublishedPort, running: bool = True, networks: tuple[str, ...] = ("one",)) -> Container:
    endpoints = tuple(
        Endpoint(name, name, "e", "", f"172.30.{at + 1}.2", "") for at, name in enumerate(networks)
    )
    return Container("c", "web", "image", running, None, networks[0], endpoints, ports)


def parsed(words: str) -> RuleSpec:
    return parse_rule(words.split(), "ip")


def lines(rules: tuple[ExpectedRule, ...], *, required: bool = True) -> set[str]:
    """The IPv4 rules as iptables arguments, those that are required or those that are not."""
    return {
        f"-t {rule.table} -A {rule.chain} {rule.spec}"
        for rule in rules
        if rule.family == "ip" and rule.required is required
    }


def added(version: str, networks: list[Network], running: Container | None = None) -> set[str]:
    """What one more network, or one container, adds; with the userland proxy on."""
    without = expected_rules(version, networks if running else [], [], userland_proxy=True)
    everything = expected_rules(version, networks, [running] if running else [], userland_proxy=True)
    new = [rule for rule in everything if rule not in without]
    return lines(tuple(new)) | {f"? {line}" for line in lines(tuple(new), required=False)}


@pytest.mark.parametrize("name", ["docker-20.10", "docker-20.10-legacy", "docker-20.10-ipv6-no-proxy"])
def test_20_10_to_the_letter(name: str) -> None:
    """Every rule of the live engine is expected, and every required one is there."""
    version, networks, containers = engine(name)
    expected = expected_rules(version, networks, containers)
    there = {(rule.family, rule.table, rule.chain, rule.spec) for rule in firewall(name).rules}
    explained = {
        (rule.family, rule.table, rule.chain, spec)
        for rule in expected
        for spec in (rule.spec, *rule.variants)
    }
    assert there <= explained
    assert len(there) == len(firewall(name).rules)
    for rule in expected:
        if rule.required:
            forms = {(rule.family, rule.table, rule.chain, spec) for spec in (rule.spec, *rule.variants)}
            assert forms & there, f"{rule.chain} {rule.spec}"


def test_a_stopped_container_has_no_rules() -> None:
    stopped = container(PublishedPort("tcp", 80, ANY, 8080), running=False)
    assert expected_rules("28.5", [network()], [stopped]) == expected_rules("28.5", [network()], [])
    started = container(PublishedPort("tcp", 80, ANY, 8080))
    assert len(expected_rules("28.5", [network()], [started])) > len(expected_rules("28.5", [network()], []))


def test_20_10_a_published_port() -> None:
    assert added("20.10.24", [network()], container(PublishedPort("tcp", 80, "127.0.0.1", 8080))) == {
        "-t nat -A DOCKER -d 127.0.0.1/32 ! -i br-one -p tcp -m tcp --dport 8080 -j DNAT"
        " --to-destination 172.30.1.2:80",
        "-t filter -A DOCKER -d 172.30.1.2/32 ! -i br-one -o br-one -p tcp -m tcp --dport 80 -j ACCEPT",
        "-t nat -A POSTROUTING -s 172.30.1.2/32 -d 172.30.1.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
    }


def test_28_0_a_published_port_has_a_raw_rule_of_its_own() -> None:
    new = added("28.0.4", [network()], container(PublishedPort("tcp", 80, ANY, 8080)))
    assert "? -t raw -A PREROUTING -d 172.30.1.2/32 ! -i br-one -p tcp -m tcp --dport 80 -j DROP" in new
    assert not any("POSTROUTING" in line for line in new)


def test_28_5_an_endpoint_has_a_raw_rule_without_any_port() -> None:
    """moby v28.5.2 internal/iptabler/endpoint.go."""
    assert added("28.5.2", [network()], container()) == {
        "? -t raw -A PREROUTING -d 172.30.1.2/32 ! -i br-one -j DROP"
    }
    new = added("28.5.2", [network()], container(PublishedPort("tcp", 80, "127.0.0.1", 8080)))
    assert "? -t raw -A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP" in new


def test_26_a_network() -> None:
    """moby v26.1.5 setup_ip_tables_linux.go, setupIPTablesInternal; iptables.go, ProgramChain."""
    assert {line for line in added("26.1.5", [network()]) if "br-one" in line} == {
        "-t filter -A FORWARD -o br-one -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-t filter -A FORWARD -o br-one -j DOCKER",
        "-t filter -A FORWARD -i br-one ! -o br-one -j ACCEPT",
        "-t filter -A FORWARD -i br-one -o br-one -j ACCEPT",
        "-t filter -A DOCKER-ISOLATION-STAGE-1 -i br-one ! -o br-one -j DOCKER-ISOLATION-STAGE-2",
        "-t filter -A DOCKER-ISOLATION-STAGE-2 -o br-one -j DROP",
        "-t nat -A POSTROUTING -s 172.30.1.0/24 ! -o br-one -j MASQUERADE",
        "-t nat -A DOCKER -i br-one -j RETURN",
    }


NEWER = {
    "-t filter -A DOCKER-CT -o br-one -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-t filter -A DOCKER-BRIDGE -o br-one -j DOCKER",
    "-t filter -A DOCKER-FORWARD -i br-one -j ACCEPT",
    "-t filter -A DOCKER ! -i br-one -o br-one -j DROP",
    "-t nat -A POSTROUTING -s 172.30.1.0/24 ! -o br-one -j MASQUERADE",
}


def test_28_5_and_29_a_network() -> None:
    """moby v28.5.2 and docker-v29.0.0, internal/iptabler/network.go."""
    assert added("29.0.0", [network()]) == NEWER
    assert added("28.5.2", [network()]) == NEWER | {
        "-t filter -A DOCKER-ISOLATION-STAGE-1 -i br-one ! -o br-one -j DOCKER-ISOLATION-STAGE-2",
        "-t filter -A DOCKER-ISOLATION-STAGE-2 -o br-one -j DROP",
        "-t nat -A DOCKER -i br-one -j RETURN",
    }


def test_the_options_of_a_network() -> None:
    assert "-t filter -A FORWARD -i br-one -o br-one -j DROP" in added("20.10", [network(enable_icc="false")])
    plain = added("20.10", [network(enable_ip_masquerade="false")])
    assert not any("MASQUERADE" in line or (line.endswith("RETURN") and "br-one" in line) for line in plain)
    with_source = added("20.10", [network(host_ipv4="10.9.9.9")])
    assert "-t nat -A POSTROUTING -s 172.30.1.0/24 ! -o br-one -j SNAT --to-source 10.9.9.9" in with_source
    routed = added("28.5.2", [network(gateway_mode_ipv4="routed")])
    assert "-t filter -A DOCKER -o br-one -p icmp -j ACCEPT" in routed
    assert not any("MASQUERADE" in line for line in routed)
    open_to_all = added("29.0.0", [network(gateway_mode_ipv4="nat-unprotected")])
    assert "-t filter -A DOCKER ! -i br-one -o br-one -j ACCEPT" in open_to_all


@pytest.mark.parametrize(
    ("version", "chain", "icc"),
    [
        ("1.13.1", "DOCKER-ISOLATION", "FORWARD"),
        ("20.10.24", "DOCKER-ISOLATION-STAGE-1", "FORWARD"),
        ("28.5.2", "DOCKER-ISOLATION-STAGE-1", "DOCKER-FORWARD"),
        ("29.0.0", "DOCKER-INTERNAL", "DOCKER-FORWARD"),
    ],
)
def test_an_internal_network(version: str, chain: str, icc: str) -> None:
    new = added(version, [network(internal=True)])
    assert {line for line in new if "br-one" in line} == {
        f"-t filter -A {chain} ! -d 172.30.1.0/24 -i br-one -j DROP",
        f"-t filter -A {chain} ! -s 172.30.1.0/24 -o br-one -j DROP",
        f"-t filter -A {icc} -i br-one -o br-one -j ACCEPT",
    }


@pytest.mark.parametrize(
    ("version", "jumps"),
    [
        ("1.13.1", {"DOCKER-ISOLATION"}),
        ("17.06.2", {"DOCKER-ISOLATION", "DOCKER-USER"}),
        ("27.5.1", {"DOCKER-ISOLATION-STAGE-1", "DOCKER-USER"}),
        ("28.0.0", {"DOCKER-ISOLATION-STAGE-1", "DOCKER-USER", "DOCKER", "ACCEPT"}),
        ("28.0.1", {"DOCKER-FORWARD", "DOCKER-USER"}),
        ("29.0.0", {"DOCKER-FORWARD", "DOCKER-USER"}),
    ],
)
def test_the_jumps_from_forward(version: str, jumps: set[str]) -> None:
    internal = [network(internal=True)]
    found = {
        rule.spec.target
        for rule in expected_rules(version, internal, [])
        if rule.family == "ip" and rule.chain == "FORWARD" and not rule.network_id
    }
    assert found == jumps


@pytest.mark.parametrize(("version", "required"), [("27.5.1", True), ("28.1.1", True), ("28.2.0", False)])
def test_docker_user_holds_a_return_up_to_28_1(version: str, required: bool) -> None:
    (rule,) = (r for r in expected_rules(version, [], []) if r.chain == "DOCKER-USER" and r.family == "ip")
    assert (str(rule.spec), rule.required) == ("-j RETURN", required)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("internal", [False, True])
def test_every_chain_that_a_rule_names_is_one_that_the_version_makes(version: str, internal: bool) -> None:
    ports = (PublishedPort("tcp", 80, ANY, 8080), PublishedPort("sctp", 9, "", 9))
    networks = [network(internal=internal), network("docker_gwbridge", "docker_gwbridge")]
    rules = expected_rules(version, networks, [container(*ports)])
    assert len(rules) > 10
    for rule in rules:
        assert not rule.spec.opaque, rule
        assert is_docker_table(version, rule.family, rule.table) or rule.table == "raw"
        for name in (rule.chain, rule.spec.target):
            if looks_like_docker_chain(name):
                assert is_docker_chain(version, rule.table, name), rule


@pytest.mark.parametrize("version", VERSIONS)
def test_no_rule_is_listed_twice(version: str) -> None:
    ports = (PublishedPort("tcp", 80, ANY, 8080), PublishedPort("tcp", 80, "::", 8080))
    rules = expected_rules(version, [network(), network("two", "br-two")], [container(*ports)])
    places = [(rule.family, rule.table, rule.chain, rule.spec, rule.any_value) for rule in rules]
    assert len(set(places)) == len(places)


def test_which_network_a_port_belongs_to_is_not_known_with_two() -> None:
    networks = [network(), network("two", "br-two")]
    both = container(PublishedPort("tcp", 80, ANY, 8080), networks=("one", "two"))
    rules = [rule for rule in expected_rules("20.10", networks, [both]) if rule.spec.target == "DNAT"]
    assert {rule.network_id for rule in rules} == {"one", "two"}
    assert not any(rule.required for rule in rules)


def test_a_rule_whose_form_hangs_on_the_userland_proxy_has_both() -> None:
    ports = PublishedPort("tcp", 80, ANY, 8080)

    def dnat(proxy: bool | None) -> ExpectedRule:
        rules = expected_rules("20.10", [network()], [container(ports)], userland_proxy=proxy)
        (rule,) = (rule for rule in rules if rule.spec.target == "DNAT")
        return rule

    assert dnat(True).spec.in_interface == Match("br-one", negated=True)
    assert dnat(False).spec.in_interface is None
    unknown = dnat(None)
    assert unknown.matches(dnat(True).spec)
    assert unknown.matches(dnat(False).spec)
    assert not dnat(True).matches(dnat(False).spec)


def test_the_name_server_of_a_container() -> None:
    rules = expected_container_rules("20.10.24")
    there = firewall("container-20.10").rules
    assert len(there) == len(rules) == 6
    for rule in there:
        assert [expected.chain for expected in rules if expected.matches(rule.spec)] == [rule.chain], rule
    to_elsewhere = parsed("-d 127.0.0.11 -p udp --dport 53 -j DNAT --to-destination 10.0.0.1:53")
    assert not any(expected.matches(to_elsewhere) for expected in rules)


def test_swarm_may_publish_any_port_but_only_to_its_own_bridge() -> None:
    rules = expected_rules("20.10", [network("docker_gwbridge", "docker_gwbridge")], [])
    ingress = [rule for rule in rules if rule.chain == "DOCKER-INGRESS" and rule.table == "nat"]
    own = parsed("-p tcp --dport 99 -j DNAT --to-destination 172.30.1.2:99")
    other = parsed("-p tcp --dport 99 -j DNAT --to-destination 10.0.0.1:99")
    without = parsed("-p tcp -j DNAT --to-destination 172.30.1.2:99")
    assert [any(rule.matches(spec) for rule in ingress) for spec in (own, other, without)] == [
        True,
        False,
        False,
    ]
    assert not any(rule.chain == "DOCKER-INGRESS" for rule in expected_rules("20.10", [network()], []))


def test_swarm_drops_what_goes_straight_to_one_of_its_endpoints_and_no_more() -> None:
    rules = expected_rules("28.5", [network("docker_gwbridge", "docker_gwbridge")], [])
    raw = [rule for rule in rules if rule.table == "raw" and rule.family == "ip"]
    for destination, known in (("172.30.1.7", True), ("172.30.1.0/25", False), ("10.0.0.1", False)):
        spec = parsed(f"-d {destination} ! -i docker_gwbridge -j DROP")
        assert any(rule.matches(spec) for rule in raw) is known


def test_the_nftables_backend_of_29_to_the_letter() -> None:
    """moby integration/network/bridge/nftablesdoc/generated/usernet-portmap.md."""
    default = Network(
        "d", "bridge", "bridge", "local", False, False, None, "docker0", (Subnet("172.17.0.0/16", ""),), ()
    )
    user = Network(
        "b", "bridge1", "bridge", "local", False, False, None, "bridge1", (Subnet("192.0.2.0/24", ""),), ()
    )
    ports = (PublishedPort("tcp", 80, ANY, 8080), PublishedPort("tcp", 80, "::", 8080))
    web = Container(
        "c", "c1", "", True, None, "b", (Endpoint("b", "bridge1", "e", "", "192.0.2.2", ""),), ports
    )
    rules = expected_rules("29.1.0", [default, user], [web], firewall="nftables")
    there = firewall("docker-29-native").rules
    assert len(there) == 21 + 8
    for rule in there:
        assert any(
            expected.matches(rule.spec) and (expected.chain, expected.table) == (rule.chain, rule.table)
            for expected in rules
        ), rule
    specs = {(rule.chain, rule.spec) for rule in there}
    missing = [rule for rule in rules if rule.required and (rule.chain, rule.spec) not in specs]
    assert missing == []


def linked() -> tuple[Network, Container, Container]:
    """Two containers on the default network without icc, of which web is linked to db."""
    icc = (("com.docker.network.bridge.enable_icc", "false"),)
    subnets = (Subnet("172.17.0.0/16", ""),)
    default = Network("d", "bridge", "bridge", "local", False, False, None, "docker0", subnets, icc)

    def one(name: str, address: str, **more: Any) -> Container:
        return Container(
            name, name, "", True, None, "d", (Endpoint("d", "", "", "", address, ""),), (), **more
        )

    db = one("db", "172.17.0.2", linked_from=("web",), exposed=(("tcp", 77),))
    return default, db, one("web", "172.17.0.3")


@pytest.mark.parametrize("version", ["20.10.24", "28.5.2", "29.0.0"])
def test_a_link_without_icc(version: str) -> None:
    """Seen on 20.10.24 and 28.5.2."""
    default, db, web = linked()
    start = "-t filter -A DOCKER"
    alone = expected_rules(version, [default], [replace(db, linked_from=()), web])
    assert lines(
        tuple(rule for rule in expected_rules(version, [default], [db, web]) if rule not in alone),
        required=False,
    ) == {
        f"{start} -s 172.17.0.3/32 -d 172.17.0.2/32 -i docker0 -o docker0 -p tcp -m tcp --dport 77 -j ACCEPT",
        f"{start} -s 172.17.0.2/32 -d 172.17.0.3/32 -i docker0 -o docker0 -p tcp -m tcp --sport 77 -j ACCEPT",
    }
    for others in ([replace(default, options=())], [replace(default, name="one")]):
        assert expected_rules(version, others, [db, web]) == expected_rules(
            version, others, [replace(db, linked_from=()), web]
        )


@pytest.mark.parametrize("version", ["20.10.24", "26.1.5", "28.5.2"])
@pytest.mark.parametrize("proxy", [True, False, None])
def test_a_port_of_a_container_on_an_overlay_network_is_published_on_docker_gwbridge(
    version: str, proxy: bool | None
) -> None:
    """Seen on these. The container's address there is not listed, so any of that network may be it."""
    gateway = Network(
        *("g", "docker_gwbridge", "bridge", "local", False, False, None, "docker_gwbridge"),
        (Subnet("172.23.0.0/16", ""),),
        (),
    )
    overlay = replace(gateway, id="o", name="ov", driver="overlay", scope="swarm", bridge="")
    published = (PublishedPort("tcp", 99, ANY, 18099),)
    endpoint = Endpoint("o", "ov", "e", "", "10.0.1.2", "")
    web = Container("c", "web", "", True, None, "o", (endpoint,), published)
    rules = expected_rules(version, [gateway, overlay], [web], userland_proxy=proxy)

    def explains(table: str, words: str, chain: str = "DOCKER") -> bool:
        spec = parsed(words)
        return any(rule.matches(spec) for rule in rules if (rule.table, rule.chain) == (table, chain))

    to = "-p tcp --dport 18099 -j DNAT --to-destination"
    assert explains("nat", f"{to} 172.23.0.4:99 ! -i docker_gwbridge") == (proxy is not False)
    assert explains("nat", f"{to} 172.23.0.4:99") == (proxy is not True)
    accept = "! -i docker_gwbridge -o docker_gwbridge -p tcp -j ACCEPT --dport"
    assert explains("filter", f"{accept} 99 -d 172.23.0.4")
    for words in (f"{accept} 98 -d 172.23.0.4", f"{accept} 99 -d 172.24.0.4", f"{accept} 99 ! -d 172.23.0.4"):
        assert not explains("filter", words)
    for words in (
        f"{to} 172.23.0.4:98",
        f"{to} 172.24.0.4:99",
        "-p tcp --dport 99 -j DNAT --to-destination 172.23.0.4:99",
    ):
        assert not explains("nat", words)
        assert not explains("nat", f"{words} ! -i docker_gwbridge")
    hairpin = "-p tcp --dport 99 -j MASQUERADE -s 172.23.0.4 -d"
    assert explains("nat", f"{hairpin} 172.23.0.4", "POSTROUTING") or version == "28.5.2"
    assert not explains("nat", f"{hairpin} 172.23.0.5", "POSTROUTING")
    assert not any(rule.required for rule in rules if rule.container_id)


@pytest.mark.parametrize("version", ["28.5.2", "29.0.0"])
def test_a_routed_port_is_let_in_and_not_forwarded(version: str) -> None:
    """Seen on 28.5.2, which lists the port with an address and without a port of the host's."""
    routed = network(gateway_mode_ipv4="routed")
    assert added(version, [routed], container(PublishedPort("tcp", 88, ANY, 0))) == {
        "-t filter -A DOCKER -d 172.30.1.2/32 ! -i br-one -o br-one -p tcp -m tcp --dport 88 -j ACCEPT"
    }
    assert added(version, [network()], container(PublishedPort("tcp", 88, ANY, 0))) == added(
        version, [network()], container()
    )


@pytest.mark.parametrize("version", ["20.10.24", "26.1.5", "28.0.0", "28.0.1", "28.5.2"])
def test_up_to_28_0_0_a_network_is_isolated_in_the_family_that_it_has_no_addresses_of_too(
    version: str,
) -> None:
    """Seen on 20.10.24 and 26.1.5 with --ip6tables, and on 28.5.2."""
    without = expected_rules(version, [], [])
    new = [rule for rule in expected_rules(version, [network()], []) if rule not in without]
    isolating = {(rule.chain, rule.required) for rule in new if rule.family == "ip6"}
    stages = {("DOCKER-ISOLATION-STAGE-1", False), ("DOCKER-ISOLATION-STAGE-2", False)}
    assert isolating & stages == (stages if parse_version(version) < (28, 0, 1) else set())
    inside = expected_rules(version, [network(internal=True)], [])
    assert not [rule for rule in inside if rule.family == "ip6" and rule.network_id]


def test_29_native_trusted_interfaces_are_one_nameless_set() -> None:
    trusting = network(trusted_host_interfaces="eth0:eth1")
    rules = expected_rules("29.1.0", [trusting], [container()], firewall="nftables")
    (drop,) = (rule for rule in rules if rule.chain == "raw-PREROUTING")
    assert str(drop.spec.in_interface) == str(Match("{br-one, eth0, eth1}", negated=True))


def test_29_native_each_bridge_has_its_place_in_the_verdict_maps() -> None:
    rules = expected_rules("29.1.0", [network()], [], firewall="nftables")
    assert {
        (rule.chain, rule.spec) for rule in rules if rule.chain.startswith("@") and rule.family == "ip"
    } == {
        (f"@{name}-jumps", RuleSpec(key="br-one", target=f"{name}__br-one"))
        for name in ("filter-forward-in", "filter-forward-out", "nat-postrouting-in", "nat-postrouting-out")
    }


def test_chains_and_tables_by_version() -> None:
    assert ("filter", "DOCKER-CT") in docker_chains("28.0.1")
    assert ("filter", "DOCKER-CT") not in docker_chains("28.0.0")
    assert is_docker_chain("29.0.0", "filter", "DOCKER-INTERNAL")
    assert not is_docker_chain("29.0.0", "filter", "DOCKER-ISOLATION-STAGE-1")
    assert not is_docker_chain("20.10", "filter", "DOCKER-X")
    assert is_docker_chain("20.10", "nat", "DOCKER_OUTPUT")
    assert is_docker_chain("29.0.0", "docker-bridges", "filter-forward-in__docker0")
    assert not is_docker_chain("28.5.2", "docker-bridges", "filter-forward-in__docker0")
    assert is_docker_table("20.10", "ip", "nat")
    assert not is_docker_table("20.10", "ip", "raw")
    assert is_docker_table("28.0.0", "ip6", "raw")
    assert not is_docker_table("28.5.2", "ip", "docker-bridges")
    assert is_docker_table("29.0.0", "ip6", "docker-bridges")
    assert not is_docker_table("29.0.0", "inet", "docker-bridges")
    assert not is_docker_table("29.0.0", "ip", "evil")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("20.10.24+dfsg1", (20, 10, 24)),
        ("29.0", (29, 0, 0)),
        ("v28.5.2-rc.1", (28, 5, 2)),
        ("dev", (29, 999, 0)),
    ],
)
def test_versions(text: str, version: tuple[int, int, int]) -> None:
    assert parse_version(text) == version


def test_ipv6_is_required_only_where_it_is_on_by_itself() -> None:
    six = Network(
        *("n", "n", "bridge", "local", False, True, None, "br-n"), (Subnet("fd00:5::/64", "fd00:5::1"),), ()
    )
    assert not any(rule.required for rule in expected_rules("26.1.5", [six], []) if rule.family == "ip6")
    assert any(rule.required for rule in expected_rules("27.0.0", [six], []) if rule.family == "ip6")
    assert not any(rule.family == "ip6" for rule in expected_rules("19.03.15", [six], []))


def test_an_expected_rule_never_matches_an_opaque_one() -> None:
    (rule,) = (r for r in expected_rules("27.0", [], []) if r.chain == "DOCKER-USER" and r.family == "ip")
    assert rule.matches(RuleSpec(target="RETURN"))
    assert not rule.matches(RuleSpec(target="RETURN", opaque=("limit",)))
