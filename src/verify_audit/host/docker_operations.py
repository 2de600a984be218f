"""What an engine does to the firewall, command by command, as the audit log sees it.

Everything here was counted on live engines, and holds only where it says for which versions: 20.10.24 and
26.1.5, which do the same, and 28.5.2; each with iptables-nft and iptables-legacy, 0 to 2 further networks,
as the engine comes without options. Other versions and settings do other things: then the log does not
agree, or nothing is said.

A step is what one command changes: rules put in (+1, +2) or taken out (-1, -2), where a chain counts two, as
it does among the entries of x_tables (its head and its end). 0 is a command that changes nothing, which
writes a record with x_tables only.

References (github.com/moby/moby, libnetwork): iptables/firewalld.go and drivers/bridge/setup_ip_tables*.go,
whose order of commands this is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from verify_audit.host.expected import V29, Version, parse_version
from verify_audit.host.facts import Network, PublishedPort

Place = tuple[str, str]
"""Family and table."""

_IP_NAT, _IP_FILTER, _IP_RAW = ("ip", "nat"), ("ip", "filter"), ("ip", "raw")
_IP6_NAT, _IP6_FILTER = ("ip6", "nat"), ("ip6", "filter")

_OLDER: tuple[Version, Version] = ((20, 10, 0), (27, 0, 0))
_NEWER: tuple[Version, Version] = ((28, 5, 0), V29)


@dataclass(frozen=True, slots=True)
class Restart:
    """What an engine's start does to one table where its chains are there already.

    chain: the first thing that it puts there. left: how much of what it puts is there when it is done; the
    rest it takes out again itself.
    """

    steps: tuple[int, ...]
    chain: str
    left: int


def restart(version: str, networks: int) -> Mapping[Place, Restart] | None:
    """Each table's part of an engine's start, with so many plain networks beside its default one.

    No container runs through it, and IPv6 is not used. None where it has not been counted.
    """
    each = networks + 1
    nat = Restart(
        (-1, -1, -each, -2, 2, *[1] * (3 + networks), -1, -1, 1, 1),
        "DOCKER",
        5 + networks,
    )
    if _within(version, _OLDER):
        flushed: tuple[int, ...] = (0, -each - 1, -each - 1, -2)
        networks_of_disk: tuple[int, ...] = (2, 1, 1, *[-1, 1, 1, 1] * each)
        default_network = (*[-1] * 6, 1, 1, 1, 1, -1, 1, 1, 1, -1, 1)
        steps = (*flushed, *networks_of_disk, *default_network)
        return {_IP_NAT: nat, _IP_FILTER: Restart(steps, "DOCKER-ISOLATION-STAGE-2", 11 + 2 * networks)}
    if _within(version, _NEWER):
        flushed = (-each, -each - 3, *[-each, -2] * 4)
        networks_of_disk = (2, 2, 2, 2, -1, *[1] * (4 + 6 * each), -1, 1)
        default_network = (*[-1] * 6, *[1] * 6)
        steps = (*flushed, *networks_of_disk, *default_network)
        steps6 = (0, -2, -3, *[0, -2] * 4, *[2] * 5, -1, 1, 1, 1, 1, -1, 1)
        return {
            _IP_NAT: nat,
            _IP_FILTER: Restart(steps, "DOCKER-BRIDGE", 15 + 6 * networks),
            _IP6_NAT: Restart((-1, -1, 0, -2, 2, 1, 1), "DOCKER", 3),
            _IP6_FILTER: Restart(steps6, "DOCKER", 10),
        }
    return None


def jumps_put_back(version: str) -> int | None:
    """How many jumps of FORWARD are taken out and put back, to have them first again.

    The same number at `network create` (DOCKER-ISOLATION-STAGE-1 and DOCKER-USER) and at the first start on
    a host (DOCKER-USER, once for itself and once for the default network). From 28 they lead to chains that
    stay where they are. None where it has not been counted.
    """
    if _within(version, _OLDER):
        return 2
    return 0 if _within(version, _NEWER) else None


def port_rules(version: str, ports: tuple[PublishedPort, ...]) -> Counter[Place] | None:
    """The rules for the ports of one container on a plain network, by table.

    None where they have not been counted: two ways to one port share rules, SCTP has more, and an address
    of IPv6 has none on a plain network.
    """
    ways = {(port.protocol, port.container_port) for port in ports}
    if len(ways) != len(ports) or any(
        port.protocol not in ("tcp", "udp") or ":" in port.host_ip for port in ports
    ):
        return None
    if _within(version, _OLDER):
        return +Counter({_IP_NAT: 2 * len(ports), _IP_FILTER: len(ports)})
    if _within(version, _NEWER):
        local = sum(port.host_ip.startswith("127.") for port in ports)
        return +Counter({_IP_NAT: len(ports), _IP_FILTER: len(ports), _IP_RAW: local})
    return None


def address_rules(version: str) -> Counter[Place] | None:
    """The rules for one container's address on a plain network, by table. None where not counted."""
    if _within(version, _OLDER):
        return Counter()
    return Counter({_IP_RAW: 1}) if _within(version, _NEWER) else None


# What the engine sets by itself, on its default network or on any, with the value that it has then.
_DEFAULTS = {
    "com.docker.network.bridge.default_bridge": ("true",),
    "com.docker.network.bridge.enable_icc": ("true",),
    "com.docker.network.bridge.enable_ip_masquerade": ("true",),
    "com.docker.network.bridge.host_binding_ipv4": ("0.0.0.0", ""),  # noqa: S104 - compared, not bound
    "com.docker.network.enable_ipv4": ("true",),
    "com.docker.network.enable_ipv6": ("false",),
}
_NO_MATTER = ("com.docker.network.bridge.name", "com.docker.network.driver.mtu")


def is_plain(network: Network) -> bool:
    """Whether it is a bridge network with the engine's defaults, which all that is counted here is for."""
    return (
        network.driver == "bridge"
        and bool(network.bridge)
        and not network.internal
        and not network.ipv6
        and len(network.subnets) == 1
        and ":" not in network.subnets[0].cidr
        and all(
            name in _NO_MATTER or value.lower() in _DEFAULTS.get(name, ()) for name, value in network.options
        )
    )


def is_default(network: Network) -> bool:
    """Whether it is the network that the engine makes anew at each start."""
    return network.option("com.docker.network.bridge.default_bridge") == "true"


def _within(version: str, span: tuple[Version, Version]) -> bool:
    first, end = span
    return first <= parse_version(version) < end
