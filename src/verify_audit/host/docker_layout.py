"""What each version of Docker sets up in the firewall, and nothing but that.

One place for it: chains, jumps and rules by engine version, for the networks and containers that the
engine lists. Rules are written as the words of the iptables command that makes them.

References (github.com/moby/moby; up to 20.10 below vendor/github.com/docker/libnetwork, up to 28 below
libnetwork, then daemon/libnetwork), read at v1.12.6, v1.13.1, v17.06.2-ce, v18.06.3-ce, v20.10.24, v23.0.6,
v24.0.9, v26.1.5, v27.0.3, v27.5.1, v28.0.0, v28.0.1, v28.1.1, v28.2.2, v28.5.2, docker-v29.0.0 and 29.7.2:
- drivers/bridge/setup_ip_tables.go, later setup_ip_tables_linux.go, from 28.2 internal/iptabler/*.go:
  setupIPChains, setupIPTables, setupIPTablesInternal / setupNonInternalNetworkRules,
  setupInternalNetworkRules, setIcc, setINC, setDefaultForwardRule, filterDirectAccess, setPerPort*
- iptables/iptables.go: ProgramChain, Forward (per port, up to 26); drivers/bridge/port_mapping_linux.go
- firewall_linux.go: DOCKER-USER; service_linux.go: DOCKER-INGRESS; resolver_unix.go: DNS in the container
- drivers/bridge/internal/nftabler/*.go: the nftables backend of 29
Held against running engines 20.10.24, 26.1.5 and 28.5.2 (tests/live/test_rules.py); and, with nothing
unexplained and nothing missing, against moby's own golden firewalls, each combination of options that its
tests have: iptabler/testdata at v28.2.2, v28.3.3, v28.5.2, docker-v29.0.0 and docker-v29.7.2,
nftabler/testdata at the last two.
Not covered: the two rules of 28.0.0 on ipsets, --bridge-accept-fwmark, the marks of encrypted overlay
networks, and load balancing in Swarm's own sandboxes.

The rules themselves are in iptables_layout.py and nftables_layout.py, by backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verify_audit.host import nftables_layout as native
from verify_audit.host.expected import (
    FORWARD_CHAIN,
    IP6TABLES_AT_ALL,
    STAGES,
    SWARM_GATEWAY,
    USER_CHAIN,
    V28,
    V29,
    Bridge,
    ExpectedRule,
    parse_version,
)
from verify_audit.host.facts import Container, Network
from verify_audit.host.firewall import RuleSpec
from verify_audit.host.iptables_command import parse_rule
from verify_audit.host.iptables_layout import IptablesLayout

__all__ = (
    "ExpectedRule",
    "docker_chains",
    "expected_container_rules",
    "expected_rules",
    "is_docker_chain",
    "is_docker_table",
    "looks_like_docker_chain",
    "parse_version",
)

_NATIVE = "nftables"
_DNS_CHAINS = ("DOCKER_OUTPUT", "DOCKER_POSTROUTING")


def docker_chains(version: str) -> tuple[tuple[str, str], ...]:
    """The chains (table, name) of its own that this version makes with iptables, in the host's namespace.

    DOCKER-INGRESS only with Swarm.
    """
    at = parse_version(version)
    names = ["DOCKER"]
    if at >= USER_CHAIN:
        names.append("DOCKER-USER")
    if at < STAGES:
        names.append("DOCKER-ISOLATION")
    elif at < V29:
        names += ["DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"]
    else:
        names.append("DOCKER-INTERNAL")
    if at >= FORWARD_CHAIN:
        names += ["DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT"]
    names.append("DOCKER-INGRESS")
    return (("nat", "DOCKER"), ("nat", "DOCKER-INGRESS"), *(("filter", name) for name in names))


def is_docker_chain(version: str, table: str, name: str) -> bool:
    """Whether this version makes a chain of that name there, in the host's or a container's namespace."""
    if table == native.TABLE:
        return parse_version(version) >= V29 and (name in native.CHAINS or name.startswith(native.PREFIXES))
    if table == "docker-dns":
        return parse_version(version) >= V29 and name in ("dns-dnat", "dns-snat")
    return (table, name) in docker_chains(version) or (table == "nat" and name in _DNS_CHAINS)


def looks_like_docker_chain(name: str) -> bool:
    """Whether a chain bears a name that makes one think of Docker, made by it or not."""
    return name.upper().startswith("DOCKER")


def is_docker_table(version: str, family: str, table: str) -> bool:
    """Whether this version ever writes to that table, with either backend."""
    at = parse_version(version)
    if table in ("filter", "nat", "raw", "mangle"):
        if table == "raw" and at < V28:
            return False
        return family == "ip" or (family == "ip6" and at >= IP6TABLES_AT_ALL)
    if at < V29:
        return False
    return (table in (native.TABLE, "docker-overlay") and family in ("ip", "ip6")) or (
        table == "docker-dns" and family == "ip"
    )


def expected_rules(
    version: str,
    networks: Sequence[Network],
    containers: Sequence[Container],
    *,
    firewall: str = "iptables",
    userland_proxy: bool | None = None,
) -> tuple[ExpectedRule, ...]:
    """Every rule that this version sets up in the host's namespace for what is there now.

    firewall: "nftables" for the native backend of 29 (GET /info, FirewallBackend), anything else is
    iptables. userland_proxy: as the daemon is configured, None when unknown.
    """
    at = parse_version(version)
    bridges = [Bridge(network) for network in networks if network.driver == "bridge" and network.bridge]
    is_native = firewall.startswith(_NATIVE) and at >= V29
    layout = (native.NativeLayout if is_native else IptablesLayout)(at, userland_proxy)
    rules = [rule for family in layout.families() for rule in layout.base(family, bridges)]
    for bridge in bridges:
        for family in layout.families():
            with_addresses = layout.network if bridge.subnet(family) else layout.network_without
            rules += with_addresses(family, bridge, bridges)
    overlays = {network.id for network in networks if network.driver == "overlay"}
    gateway = next((bridge for bridge in bridges if bridge.network.name == SWARM_GATEWAY), None)
    for container in containers:
        if container.running:
            rules += layout.container(container, bridges)
            rules += layout.links(container, containers, bridges)
            if gateway is not None and any(each.network_id in overlays for each in container.endpoints):
                rules += layout.overlaid(container, gateway)
    return _each_once(rules)


def expected_container_rules(version: str, *, firewall: str = "iptables") -> tuple[ExpectedRule, ...]:
    """The rules in the namespace of a container on a user-defined network: DNS goes to Docker's resolver.

    It listens on 127.0.0.11, on ports that the kernel chose.
    """
    if firewall.startswith(_NATIVE) and parse_version(version) >= V29:
        table, outgoing, incoming = "docker-dns", "dns-dnat", "dns-snat"
    else:
        table, outgoing, incoming = "nat", "DOCKER_OUTPUT", "DOCKER_POSTROUTING"
    because = "a container on a user-defined network asks Docker's own name server"
    resolver = "127.0.0.11/32"
    rules = []
    if table == "nat":
        for hook, chain in (("OUTPUT", outgoing), ("POSTROUTING", incoming)):
            spec = parse_rule(["-d", resolver, "-j", chain], "ip")
            rules.append(ExpectedRule("ip", table, hook, spec, because, required=False))
    for protocol in ("udp", "tcp"):
        words = ["-d", resolver, "-p", protocol, "--dport", "53", "-j", "DNAT", "--to-destination", "?"]
        spec = parse_rule(words, "ip")
        rules.append(
            ExpectedRule(
                *("ip", table, outgoing, spec, because), required=False, any_value=("to",), within=resolver
            )
        )
        words = ["-s", resolver, "-p", protocol, "--sport", "1", "-j", "SNAT", "--to-source", ":53"]
        spec = parse_rule(words, "ip")
        rules.append(
            ExpectedRule(*("ip", table, incoming, spec, because), required=False, any_value=("source_ports",))
        )
    return tuple(rules)


def _each_once(rules: Iterable[ExpectedRule]) -> tuple[ExpectedRule, ...]:
    """Docker asks `-C` before it adds: a rule that two things need is there once."""
    found: dict[tuple[str, str, str, RuleSpec, tuple[str, ...]], ExpectedRule] = {}
    for rule in rules:
        found.setdefault((rule.family, rule.table, rule.chain, rule.spec, rule.any_value), rule)
    return tuple(found.values())
