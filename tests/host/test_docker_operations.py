"""What an engine does to the firewall, as it was counted on live ones."""

from __future__ import annotations

from collections import Counter

import pytest

from verify_audit.host.docker_operations import (
    address_rules,
    is_default,
    is_plain,
    jumps_put_back,
    port_rules,
    restart,
)
from verify_audit.host.facts import Network, PublishedPort, Subnet

# Takes, puts and replacements of live engines' restarts, with 0 and 2 further networks: commits, not objects.
COUNTED = [
    *(
        row
        for version in ("20.10.24+dfsg1", "26.1.5+dfsg1")
        for row in (
            (version, 0, {("ip", "nat"): (6, 6, 12), ("ip", "filter"): (12, 14, 27)}),
            (version, 2, {("ip", "nat"): (6, 8, 14), ("ip", "filter"): (14, 20, 35)}),
        )
    ),
    (
        "28.5.2+dfsg1",
        0,
        {
            ("ip", "nat"): (6, 6, 12),
            ("ip", "filter"): (18, 21, 39),
            ("ip6", "nat"): (3, 3, 7),
            ("ip6", "filter"): (8, 10, 23),
        },
    ),
    (
        "28.5.2+dfsg1",
        2,
        {
            ("ip", "nat"): (6, 8, 14),
            ("ip", "filter"): (18, 33, 51),
            ("ip6", "nat"): (3, 3, 7),
            ("ip6", "filter"): (8, 10, 23),
        },
    ),
]


@pytest.mark.parametrize(("version", "networks", "counted"), COUNTED)
def test_a_restart_is_what_was_counted(
    version: str, networks: int, counted: dict[tuple[str, str], tuple[int, int, int]]
) -> None:
    found = restart(version, networks)
    assert found is not None
    assert {
        place: (sum(step < 0 for step in part.steps), sum(step > 0 for step in part.steps), len(part.steps))
        for place, part in found.items()
    } == counted


@pytest.mark.parametrize("networks", range(4))
@pytest.mark.parametrize("version", ["20.10.24", "26.1.5", "28.5.2"])
def test_a_restart_leaves_a_table_as_full_as_it_was(version: str, networks: int) -> None:
    found = restart(version, networks)
    assert found is not None
    for place, part in found.items():
        assert sum(part.steps) == 0, place
        assert part.left <= sum(step > 0 for step in part.steps)


@pytest.mark.parametrize("version", ["19.3.15", "27.5.1", "28.1.1", "29.0.0", "nonsense"])
def test_nothing_is_said_of_versions_that_were_not_counted(version: str) -> None:
    assert restart(version, 0) is None
    assert jumps_put_back(version) is None
    assert address_rules(version) is None
    assert port_rules(version, (PublishedPort("tcp", 80, "", 8080),)) is None


@pytest.mark.parametrize(
    ("version", "host_ip", "counted"),
    [
        ("20.10.24", "", {("ip", "nat"): 2, ("ip", "filter"): 1}),
        ("26.1.5", "127.0.0.1", {("ip", "nat"): 2, ("ip", "filter"): 1}),
        ("28.5.2", "", {("ip", "nat"): 1, ("ip", "filter"): 1}),
        ("28.5.2", "127.0.0.1", {("ip", "nat"): 1, ("ip", "filter"): 1, ("ip", "raw"): 1}),
    ],
)
def test_the_rules_for_a_port(version: str, host_ip: str, counted: dict[tuple[str, str], int]) -> None:
    port = PublishedPort("tcp", 80, host_ip, 8080)
    assert port_rules(version, (port,)) == Counter(counted)
    assert port_rules(version, ()) == Counter()


@pytest.mark.parametrize(
    "ports",
    [
        (PublishedPort("tcp", 80, "", 8080), PublishedPort("tcp", 80, "", 8081)),
        (PublishedPort("sctp", 80, "", 8080),),
        (PublishedPort("tcp", 80, "::1", 8080),),
    ],
)
def test_ports_that_have_other_rules_are_not_counted(ports: tuple[PublishedPort, ...]) -> None:
    assert port_rules("20.10.24", ports) is None


def network(**changed: object) -> Network:
    given = {
        "id": "n" * 64,
        "name": "made",
        "driver": "bridge",
        "scope": "local",
        "internal": False,
        "ipv6": False,
        "created_at": 1.0,
        "bridge": "br-nnnnnnnnnnnn",
        "subnets": (Subnet("172.18.0.0/16", "172.18.0.1"),),
        "options": (),
        **changed,
    }
    return Network(**given)  # type: ignore[arg-type]


def test_a_plain_network() -> None:
    assert is_plain(network())
    assert is_plain(network(options=(("com.docker.network.bridge.name", "lan0"),)))
    default = network(options=(("com.docker.network.bridge.default_bridge", "true"),))
    assert is_plain(default)
    assert is_default(default)
    assert not is_default(network())


@pytest.mark.parametrize(
    "changed",
    [
        {"driver": "macvlan"},
        {"bridge": ""},
        {"internal": True},
        {"ipv6": True},
        {"subnets": ()},
        {"subnets": (Subnet("fd00::/64", ""),)},
        {"options": (("com.docker.network.bridge.enable_ip_masquerade", "false"),)},
        {"options": (("com.docker.network.bridge.enable_icc", "false"),)},
        {"options": (("com.docker.network.bridge.gateway_mode_ipv4", "routed"),)},
        {"options": (("something.else", "true"),)},
    ],
)
def test_every_other_network_is_not_plain(changed: dict[str, object]) -> None:
    assert not is_plain(network(**changed))
