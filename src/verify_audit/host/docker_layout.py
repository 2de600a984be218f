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
Not covered: --link, the two rules of 28.0.0 on ipsets, the marks of encrypted overlay networks, and load
balancing in Swarm's own sandboxes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from verify_audit.host.facts import Container, Endpoint, Network, PublishedPort
from verify_audit.host.firewall import RuleSpec
from verify_audit.host.iptables_command import parse_rule

Version = tuple[int, int, int]
_NEWEST: Version = (29, 999, 0)


@dataclass(frozen=True, slots=True)
class ExpectedRule:
    """A rule that Docker makes.

    because:    what for, as a clause ("port 80/tcp of web is published as 8080").
    required:   whether it must be there; False where it hangs on something that the engine does not say
                (userland-proxy, ip6tables, DOCKER_INSECURE_NO_IPTABLES_RAW).
    variants:   other forms that the same rule takes by the same unknown setting.
    any_value:  fields of the spec that Docker fills with a value of its own choice. Where that is an
                address, it must lie in the network `within`.
    many:       whether it may be there more than once, with different such values.
    """

    family: str
    table: str
    chain: str
    spec: RuleSpec
    because: str
    network_id: str | None = None
    container_id: str | None = None
    required: bool = True
    variants: tuple[RuleSpec, ...] = ()
    any_value: tuple[str, ...] = ()
    within: str = ""
    many: bool = False

    def matches(self, spec: RuleSpec) -> bool:
        """Whether a rule with this meaning is the expected one."""
        if not self.any_value:
            return spec == self.spec or spec in self.variants
        if not self._addresses_within(spec):
            return False
        values = {field: getattr(spec, field) for field in self.any_value}
        if not all(values.values()):
            return False
        return spec == _with(self.spec, values)

    def _addresses_within(self, spec: RuleSpec) -> bool:
        for field in self.any_value:
            value = getattr(spec, field)
            if field == "to":
                address = value.rpartition(":")[0].strip("[]")
            elif field in ("source", "destination") and value:
                address = value.value
            else:
                continue
            try:
                inner = ipaddress.ip_network(address)
                if inner.num_addresses != 1 or inner[0] not in ipaddress.ip_network(self.within):
                    return False
            except ValueError:
                return False
        return True


def _with(spec: RuleSpec, values: dict[str, object]) -> RuleSpec:
    fields = {name: getattr(spec, name) for name in RuleSpec.__dataclass_fields__}
    return RuleSpec(**{**fields, **values})


def parse_version(text: str) -> Version:
    """The version as numbers; "20.10.24+dfsg1" is (20, 10, 24). What is none counts as the newest known."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return _NEWEST
    return int(found[1]), int(found[2]), int(found[3] or 0)


# What changed when.
_USER_CHAIN = (17, 6, 0)
_STAGES = (18, 3, 0)  # two isolation stages instead of one rule for each pair of bridges
_IP6TABLES = (27, 0, 0)  # on by default; before only with --ip6tables, from 20.10
_IP6TABLES_AT_ALL = (20, 10, 0)
_SKIP_LINK_LOCAL = (27, 0, 0)
_WSL = (27, 3, 0)
_V28 = (28, 0, 0)  # ipsets, default drop, raw table
_FORWARD_CHAIN = (28, 0, 1)
_RAW_PER_ENDPOINT = (28, 2, 0)
_NO_USER_RETURN = (28, 2, 0)
_V29 = (29, 0, 0)  # DOCKER-INTERNAL, no SKIP DNAT
_INTERNAL6 = (24, 0, 0)  # internal networks: other rules for IPv6

_OPTION = "com.docker.network.bridge."
_TRUE = ("1", "t", "T", "true", "TRUE", "True")  # strconv.ParseBool
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1/128"}
_NATIVE = "nftables"
_NATIVE_TABLE = "docker-bridges"
_NATIVE_CHAINS = (
    "filter-FORWARD",
    "nat-PREROUTING",
    "nat-OUTPUT",
    "nat-POSTROUTING",
    "nat-prerouting-and-output",
    "raw-PREROUTING",
)
_NATIVE_PREFIXES = (
    "filter-forward-in__",
    "filter-forward-out__",
    "nat-postrouting-in__",
    "nat-postrouting-out__",
)
_DNS_CHAINS = ("DOCKER_OUTPUT", "DOCKER_POSTROUTING")


def docker_chains(version: str) -> tuple[tuple[str, str], ...]:
    """The chains (table, name) of its own that this version makes with iptables, in the host's namespace.

    DOCKER-INGRESS only with Swarm.
    """
    at = parse_version(version)
    names = ["DOCKER"]
    if at >= _USER_CHAIN:
        names.append("DOCKER-USER")
    if at < _STAGES:
        names.append("DOCKER-ISOLATION")
    elif at < _V29:
        names += ["DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"]
    else:
        names.append("DOCKER-INTERNAL")
    if at >= _FORWARD_CHAIN:
        names += ["DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT"]
    names.append("DOCKER-INGRESS")
    return (("nat", "DOCKER"), ("nat", "DOCKER-INGRESS"), *(("filter", name) for name in names))


def is_docker_chain(version: str, table: str, name: str) -> bool:
    """Whether this version makes a chain of that name there, in the host's or a container's namespace."""
    if table == _NATIVE_TABLE:
        return parse_version(version) >= _V29 and (
            name in _NATIVE_CHAINS or name.startswith(_NATIVE_PREFIXES)
        )
    if table == "docker-dns":
        return parse_version(version) >= _V29 and name in ("dns-dnat", "dns-snat")
    return (table, name) in docker_chains(version) or (table == "nat" and name in _DNS_CHAINS)


def looks_like_docker_chain(name: str) -> bool:
    """Whether a chain bears a name that makes one think of Docker, made by it or not."""
    return name.upper().startswith("DOCKER")


def is_docker_table(version: str, family: str, table: str) -> bool:
    """Whether this version ever writes to that table, with either backend."""
    at = parse_version(version)
    if table in ("filter", "nat", "raw", "mangle"):
        if table == "raw" and at < _V28:
            return False
        return family == "ip" or (family == "ip6" and at >= _IP6TABLES_AT_ALL)
    if at < _V29:
        return False
    return (table in (_NATIVE_TABLE, "docker-overlay") and family in ("ip", "ip6")) or (
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
    bridges = [_Bridge(network) for network in networks if network.driver == "bridge" and network.bridge]
    native = firewall.startswith(_NATIVE) and at >= _V29
    layout = (_NativeLayout if native else _IptablesLayout)(at, userland_proxy)
    rules = [rule for family in layout.families() for rule in layout.base(family, bridges)]
    for bridge in bridges:
        for family in layout.families():
            if bridge.subnet(family):
                rules += layout.network(family, bridge, bridges)
    for container in containers:
        if container.running:
            rules += layout.container(container, bridges)
    return _each_once(rules)


def expected_container_rules(version: str, *, firewall: str = "iptables") -> tuple[ExpectedRule, ...]:
    """The rules in the namespace of a container on a user-defined network: DNS goes to Docker's resolver.

    It listens on 127.0.0.11, on ports that the kernel chose.
    """
    if firewall.startswith(_NATIVE) and parse_version(version) >= _V29:
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


def jumps_put_back(version: str) -> int | None:
    """How many jumps of FORWARD are taken out and put back, to have them first again.

    The same number at `network create` (DOCKER-ISOLATION-STAGE-1 and DOCKER-USER) and at the first start on
    a host (DOCKER-USER, once for itself and once for the default network). None where it has not been
    counted on a live engine of that time; it was on 20.10.24 and 26.1.5.
    """
    return 2 if (20, 10, 0) <= parse_version(version) < (27, 0, 0) else None


def _each_once(rules: Iterable[ExpectedRule]) -> tuple[ExpectedRule, ...]:
    """Docker asks `-C` before it adds: a rule that two things need is there once."""
    found: dict[tuple[str, str, str, RuleSpec, tuple[str, ...]], ExpectedRule] = {}
    for rule in rules:
        found.setdefault((rule.family, rule.table, rule.chain, rule.spec, rule.any_value), rule)
    return tuple(found.values())


class _Bridge:
    """A bridge network with its options understood (drivers/bridge/bridge_linux.go, parseNetworkOptions)."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.name = network.bridge
        self.internal = network.internal
        self.icc = self._flag("enable_icc")
        self.masquerade = self._flag("enable_ip_masquerade")
        self.trusted = [
            name for name in (network.option(_OPTION + "trusted_host_interfaces") or "").split(":") if name
        ]

    def _flag(self, name: str) -> bool:
        value = self.network.option(_OPTION + name)
        return value is None or value in _TRUE

    def subnet(self, family: str) -> str | None:
        """The network's addresses of that family."""
        for subnet in self.network.subnets:
            try:
                parsed = ipaddress.ip_network(subnet.cidr, strict=False)
            except ValueError:
                continue
            if parsed.version == (6 if family == "ip6" else 4):
                return str(parsed)
        return None

    def gateway_mode(self, family: str) -> str:
        """ "nat", "nat-unprotected", "routed" or "isolated"."""
        number = "6" if family == "ip6" else "4"
        return self.network.option(f"{_OPTION}gateway_mode_ipv{number}") or "nat"

    def host_ip(self, family: str) -> str | None:
        """The address that outgoing traffic is to come from, where one was asked for."""
        number = "6" if family == "ip6" else "4"
        return self.network.option(f"com.docker.network.host_ipv{number}") or None


@dataclass(frozen=True, slots=True)
class _Place:
    """A container's address on a bridge."""

    family: str
    address: str
    bridge: _Bridge
    container: Container


class _Layout:
    def __init__(self, at: Version, userland_proxy: bool | None) -> None:
        self._at = at
        self._proxy = userland_proxy

    def families(self) -> tuple[str, ...]:
        return ("ip", "ip6") if self._at >= _IP6TABLES_AT_ALL else ("ip",)

    def _certain(self, family: str, bridge: _Bridge | None = None) -> bool:
        # The daemon goes on without ip6tables where the kernel has none (iptabler.go).
        if family == "ip":
            return True
        return self._at >= _IP6TABLES and bridge is not None and bridge.network.ipv6

    def base(self, family: str, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def network(self, family: str, bridge: _Bridge, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def _endpoint(self, place: _Place) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def _port(self, place: _Place, port: PublishedPort, certain: bool) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def container(self, container: Container, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        """The rules of a running container: for each of its addresses, and for its published ports.

        The ports belong to the endpoint that is the container's gateway; with more than one network the
        engine does not say which that is.
        """
        by_id = {bridge.network.id: bridge for bridge in bridges}
        here = [
            _Place(family, address, by_id[endpoint.network_id], container)
            for endpoint in container.endpoints
            if endpoint.network_id in by_id
            for family, address in _addresses(endpoint)
            if family in self.families()
        ]
        for place in here:
            yield from self._endpoint(place)
        gateways = {place.bridge.name for place in here if not place.bridge.internal}
        for place in here:
            for port in container.ports:
                if not place.bridge.internal and _same_family(port.host_ip, place.family):
                    yield from self._port(place, port, len(gateways) == 1)


def _addresses(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    if endpoint.ipv4:
        yield "ip", endpoint.ipv4
    if endpoint.ipv6:
        yield "ip6", endpoint.ipv6


def _same_family(host_ip: str, family: str) -> bool:
    # From one family to the other only docker-proxy leads, without a rule.
    return not host_ip or (":" in host_ip) == (family == "ip6")


def _specified(host_ip: str) -> str | None:
    return None if host_ip in ("", "0.0.0.0", "::") else host_ip  # noqa: S104 - compared, not bound


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class _IptablesLayout(_Layout):
    """Rules made by running iptables and ip6tables."""

    def _rule(
        self,
        place: tuple[str, str, str],
        words: str,
        because: str,
        *,
        bridge: _Bridge | None = None,
        container: Container | None = None,
        required: bool = True,
        unless_proxy: str | None = None,
    ) -> ExpectedRule:
        """One rule. unless_proxy: the words it has instead when the userland proxy is off."""
        family, table, chain = place
        main = words
        variants: tuple[RuleSpec, ...] = ()
        if unless_proxy is not None:
            if self._proxy is False:
                main = unless_proxy
            elif self._proxy is None:
                variants = (parse_rule(unless_proxy.split(), family),)
        return ExpectedRule(
            family,
            table,
            chain,
            parse_rule(main.split(), family),
            because,
            bridge.network.id if bridge else None,
            container.id if container else None,
            required and self._certain(family, bridge),
            variants,
        )

    def base(self, family: str, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        forward = (family, "filter", "FORWARD")
        because = "Docker starts"
        # Up to 27 the first bridge network brings the jumps, from 28 the daemon's start.
        any_bridge = self._at >= _V28 or bool(bridges)
        any_outward = self._at >= _V28 or any(not bridge.internal for bridge in bridges)

        def rule(place: tuple[str, str, str], words: str, required: bool = True) -> ExpectedRule:
            return self._rule(place, words, because, required=required)

        if self._at >= _USER_CHAIN:
            yield rule(forward, "-j DOCKER-USER", any_bridge)
            place = (family, "filter", "DOCKER-USER")
            # From 28.2 only left over from an older version: Docker never empties this chain.
            yield rule(place, "-j RETURN", self._at < _NO_USER_RETURN)
        if self._at < _STAGES:
            yield rule(forward, "-j DOCKER-ISOLATION", any_bridge)
            yield rule((family, "filter", "DOCKER-ISOLATION"), "-j RETURN")
        elif self._at < _V28:
            yield rule(forward, "-j DOCKER-ISOLATION-STAGE-1", any_bridge)
            for stage in ("1", "2"):
                yield rule((family, "filter", f"DOCKER-ISOLATION-STAGE-{stage}"), "-j RETURN")
        elif self._at < _FORWARD_CHAIN:
            name = f"docker-ext-bridges-v{'6' if family == 'ip6' else '4'}"
            matched = f"-m set --match-set {name} dst"
            # The kernel has the set by number, not by name: these two are there, and not recognised.
            related = "-m conntrack --ctstate RELATED,ESTABLISHED"
            yield rule(forward, f"{matched} {related} -j ACCEPT", required=False)
            yield rule(forward, "-j DOCKER-ISOLATION-STAGE-1")
            yield rule(forward, f"{matched} -j DOCKER", required=False)
        else:
            yield rule(forward, "-j DOCKER-FORWARD")
            isolation = "DOCKER-INTERNAL" if self._at >= _V29 else "DOCKER-ISOLATION-STAGE-1"
            for chain in ("DOCKER-CT", isolation, "DOCKER-BRIDGE"):
                yield rule((family, "filter", "DOCKER-FORWARD"), f"-j {chain}")
        local = "-m addrtype --dst-type LOCAL -j DOCKER"
        yield rule((family, "nat", "PREROUTING"), local, any_outward)
        yield self._rule(
            (family, "nat", "OUTPUT"),
            f"{local} ! -d {_LOOPBACK[family]}",
            because,
            required=any_outward,
            unless_proxy=local,
        )
        if self._at >= _WSL and family == "ip":
            place = (family, "nat", "DOCKER")
            yield rule(place, "-i loopback0 -d 127.0.0.0/8 -j RETURN", False)
        if family == "ip" and any(bridge.network.name == "docker_gwbridge" for bridge in bridges):
            yield from self._swarm(next(b for b in bridges if b.network.name == "docker_gwbridge"))

    def _swarm(self, gateway: _Bridge) -> Iterator[ExpectedRule]:
        """Swarm's ingress; its ports and its address on docker_gwbridge are not in what the engine lists."""
        forward = "DOCKER-FORWARD" if self._at >= _FORWARD_CHAIN else "FORWARD"
        local = "-m addrtype --dst-type LOCAL -j DOCKER-INGRESS"
        for table, chain, words in (
            ("filter", forward, "-j DOCKER-INGRESS"),
            ("filter", "DOCKER-INGRESS", "-j RETURN"),
            ("nat", "DOCKER-INGRESS", "-j RETURN"),
            ("nat", "PREROUTING", local),
            ("nat", "OUTPUT", local),
            ("nat", "POSTROUTING", f"-m addrtype --src-type LOCAL -o {gateway.name} -j MASQUERADE"),
        ):
            yield self._rule(("ip", table, chain), words, "Swarm's ingress", bridge=gateway, required=False)
        established = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
        for protocol in ("tcp", "udp", "sctp"):
            for table, words, free in (
                ("nat", "--dport 1 -j DNAT --to-destination ?", ("destination_ports", "to")),
                ("filter", f"--sport 1 {established}", ("source_ports",)),
                ("filter", "--dport 1 -j ACCEPT", ("destination_ports",)),
            ):
                spec = parse_rule(f"-p {protocol} {words}".split(), "ip")
                yield ExpectedRule(
                    *("ip", table, "DOCKER-INGRESS", spec, "a port of a Swarm service", gateway.network.id),
                    required=False,
                    any_value=free,
                    within=gateway.subnet("ip") or "",
                    many=True,
                )
        if self._at >= _RAW_PER_ENDPOINT and (subnet := gateway.subnet("ip")):
            spec = parse_rule(f"-d {subnet} ! -i {gateway.name} -j DROP".split(), "ip")
            yield ExpectedRule(
                *("ip", "raw", "PREROUTING", spec, "an endpoint on docker_gwbridge", gateway.network.id),
                required=False,
                any_value=("destination",),
                within=subnet,
                many=True,
            )

    def network(self, family: str, bridge: _Bridge, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        because = f"network {bridge.network.name} on {bridge.name}"
        subnet, name = bridge.subnet(family), bridge.name
        # The chain that rules for forwarded traffic go to.
        forward = (family, "filter", "DOCKER-FORWARD" if self._at >= _FORWARD_CHAIN else "FORWARD")
        docker = (family, "filter", "DOCKER")
        mode = bridge.gateway_mode(family)
        routed = mode == "routed"

        def rule(place: tuple[str, str, str], words: str, required: bool = True) -> ExpectedRule:
            return self._rule(place, words, because, bridge=bridge, required=required)

        if bridge.internal:
            yield from (rule(place, words) for place, words in self._internal(family, bridge))
            yield rule(forward, f"-i {name} -o {name} -j {'ACCEPT' if bridge.icc else 'DROP'}")
            return

        related = f"-o {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        if self._at < _V28:
            yield rule(forward, related)
            yield rule(forward, f"-o {name} -j DOCKER")
            yield rule(forward, f"-i {name} ! -o {name} -j ACCEPT")
            yield rule(forward, f"-i {name} -o {name} -j {'ACCEPT' if bridge.icc else 'DROP'}")
        else:
            if self._at >= _FORWARD_CHAIN:
                yield rule((family, "filter", "DOCKER-CT"), related)
                yield rule((family, "filter", "DOCKER-BRIDGE"), f"-o {name} -j DOCKER")
            if bridge.icc:
                yield rule(forward, f"-i {name} -j ACCEPT")
            else:
                yield rule(forward, f"-i {name} ! -o {name} -j ACCEPT")
                yield rule(forward, f"-i {name} -o {name} -j DROP")
            unprotected = mode == "nat-unprotected"
            yield rule(docker, f"! -i {name} -o {name} -j {'ACCEPT' if unprotected else 'DROP'}")
            if routed:
                yield rule(docker, f"-o {name} -p {'ipv6-icmp' if family == 'ip6' else 'icmp'} -j ACCEPT")
        yield from (rule(place, words) for place, words in self._isolation(family, bridge, bridges))

        postrouting = (family, "nat", "POSTROUTING")
        host_ip = bridge.host_ip(family)
        source = f"SNAT --to-source {host_ip}" if host_ip else "MASQUERADE"
        nat = not (routed and self._at >= _IP6TABLES)
        if bridge.masquerade and nat:
            yield rule(postrouting, f"-s {subnet} ! -o {name} -j {source}")
        if self._proxy is not True:
            yield rule(
                postrouting, f"-m addrtype --src-type LOCAL -o {name} -j {source}", self._proxy is False
            )
        if self._proxy is not False and self._at < _V29 and (bridge.masquerade or routed):
            required = bool(self._proxy) and bridge.masquerade and nat
            yield rule((family, "nat", "DOCKER"), f"-i {name} -j RETURN", required)

    def _internal(self, family: str, bridge: _Bridge) -> Iterator[tuple[tuple[str, str, str], str]]:
        if self._at >= _V29:
            chain = "DOCKER-INTERNAL"
        else:
            chain = "DOCKER-ISOLATION-STAGE-1" if self._at >= _STAGES else "DOCKER-ISOLATION"
        place, name, subnet = (family, "filter", chain), bridge.name, bridge.subnet(family)
        if family == "ip6" and self._at >= _INTERNAL6:
            yield place, f"-i {name} ! -o {name} ! -d {subnet} -j DROP"
            yield place, f"! -i {name} -o {name} ! -s {subnet} -j DROP"
        else:
            yield place, f"-i {name} ! -d {subnet} -j DROP"
            yield place, f"-o {name} ! -s {subnet} -j DROP"

    def _isolation(
        self, family: str, bridge: _Bridge, bridges: Sequence[_Bridge]
    ) -> Iterator[tuple[tuple[str, str, str], str]]:
        name = bridge.name
        if self._at < _STAGES:
            for other in bridges:
                if other.name != name and not other.internal:
                    yield (family, "filter", "DOCKER-ISOLATION"), f"-i {name} -o {other.name} -j DROP"
        elif self._at < _V29:
            first = (family, "filter", "DOCKER-ISOLATION-STAGE-1")
            if self._at >= _V28 and bridge.gateway_mode(family) == "routed":
                yield first, f"-o {name} -j RETURN"
                yield first, f"-i {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            yield first, f"-i {name} ! -o {name} -j DOCKER-ISOLATION-STAGE-2"
            yield (family, "filter", "DOCKER-ISOLATION-STAGE-2"), f"-o {name} -j DROP"

    def _endpoint(self, place: _Place) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        if (
            self._at < _RAW_PER_ENDPOINT
            or bridge.internal
            or bridge.gateway_mode(family) in ("routed", "nat-unprotected")
        ):
            return
        because = f"the address of {container.name} in network {bridge.network.name}"
        words = [f"-d {address} -i {trusted} -j ACCEPT" for trusted in bridge.trusted]
        for text in [*words, f"-d {address} ! -i {bridge.name} -j DROP"]:
            chain = (family, "raw", "PREROUTING")
            yield self._rule(chain, text, because, bridge=bridge, container=container, required=False)

    def _port(self, place: _Place, port: PublishedPort, certain: bool) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        because = f"port {port.container_port}/{port.protocol} of {container.name} is published"
        if port.host_port:
            because += f" as {_joined(port.host_ip or '*', port.host_port)}"
        name, protocol, mode = bridge.name, port.protocol, bridge.gateway_mode(family)
        host_ip = _specified(port.host_ip)

        def rule(
            table: str, chain: str, words: str, required: bool = certain, unless_proxy: str | None = None
        ) -> ExpectedRule:
            return self._rule(
                (family, table, chain),
                words,
                because,
                bridge=bridge,
                container=container,
                required=required,
                unless_proxy=unless_proxy,
            )

        if port.host_port:
            words = f"-p {protocol} --dport {port.host_port} -j DNAT"
            words += f" --to-destination {_joined(address, port.container_port)}"
            words += f" -d {host_ip}" if host_ip else ""
            if family == "ip6" and self._at >= _SKIP_LINK_LOCAL:
                words += " ! -s fe80::/10"
            yield rule("nat", "DOCKER", f"{words} ! -i {name}", unless_proxy=words)
            hairpin = f"-p {protocol} -s {address} -d {address} --dport {port.container_port} -j MASQUERADE"
            if self._at < _V28 or self._proxy is not True:
                yield rule(
                    "nat", "POSTROUTING", hairpin, certain and (self._at < _V28 or self._proxy is False)
                )
        if mode != "nat-unprotected" or self._at < _V28:
            words = (
                f"! -i {name} -o {name} -p {protocol} -d {address} --dport {port.container_port} -j ACCEPT"
            )
            yield rule("filter", "DOCKER", words)
        if protocol == "sctp" and _STAGES <= self._at < _V29:
            # From 28 only with DOCKER_IPTABLES_SCTP_CHECKSUM=1.
            words = f"-p sctp --sport {port.container_port} -j CHECKSUM --checksum-fill"
            yield rule("mangle", "POSTROUTING", words, certain and self._at < _V28)
        if self._at >= _V28 and host_ip and family == "ip" and host_ip.startswith("127."):
            words = f"-p {protocol} -d {host_ip} --dport {port.host_port}"
            yield rule("raw", "PREROUTING", f"{words} ! -i lo -j DROP", False)
            yield rule("raw", "PREROUTING", f"{words} -i loopback0 -j ACCEPT", False)  # WSL2
        if _V28 <= self._at < _RAW_PER_ENDPOINT and mode not in ("routed", "nat-unprotected"):
            words = f"-p {protocol} -d {address} --dport {port.container_port} ! -i {name} -j DROP"
            yield rule("raw", "PREROUTING", words, False)


class _NativeLayout(_Layout):
    """Rules in tables of its own: `--firewall-backend=nftables` of 29. The comments are Docker's too."""

    def families(self) -> tuple[str, ...]:
        return ("ip", "ip6")

    def _rule(
        self,
        family: str,
        chain: str,
        words: str,
        because: str,
        *,
        comment: str = "",
        bridge: _Bridge | None = None,
        container: Container | None = None,
        required: bool = True,
        unless_proxy: str | None = None,
    ) -> ExpectedRule:
        def spec(text: str) -> RuleSpec:
            return _with(parse_rule(text.split(), family), {"comment": comment})

        main = words
        variants: tuple[RuleSpec, ...] = ()
        if unless_proxy is not None:
            if self._proxy is False:
                main = unless_proxy
            elif self._proxy is None:
                variants = (spec(unless_proxy),)
        return ExpectedRule(
            family,
            _NATIVE_TABLE,
            chain,
            spec(main),
            because,
            bridge.network.id if bridge else None,
            container.id if container else None,
            required and self._certain(family, bridge),
            variants,
        )

    def base(self, family: str, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        del bridges
        because = "Docker starts"
        for chain, field, vmap in (
            ("filter-FORWARD", "oifname", "filter-forward-in-jumps"),
            ("filter-FORWARD", "iifname", "filter-forward-out-jumps"),
            ("nat-POSTROUTING", "iifname", "nat-postrouting-out-jumps"),
            ("nat-POSTROUTING", "oifname", "nat-postrouting-in-jumps"),
        ):
            spec = RuleSpec(target=f"vmap @{vmap}", options=(field,))
            yield ExpectedRule(family, _NATIVE_TABLE, chain, spec, because, required=self._certain(family))
        local = "-m addrtype --dst-type LOCAL -j nat-prerouting-and-output"
        yield self._rule(family, "nat-PREROUTING", local, because)
        outgoing = f"{local} ! -d {_LOOPBACK[family]}"
        yield self._rule(family, "nat-OUTPUT", outgoing, because, unless_proxy=local)
        wsl = "-i loopback0 -d 127.0.0.0/8 -j RETURN"
        if family == "ip":
            yield self._rule(family, "nat-prerouting-and-output", wsl, because, required=False)

    def network(self, family: str, bridge: _Bridge, bridges: Sequence[_Bridge]) -> Iterator[ExpectedRule]:
        del bridges
        because = f"network {bridge.network.name} on {bridge.name}"
        name, mode = bridge.name, bridge.gateway_mode(family)
        into, out = f"filter-forward-in__{name}", f"filter-forward-out__{name}"

        def rule(chain: str, words: str, comment: str = "", required: bool = True) -> ExpectedRule:
            return self._rule(
                family, chain, words, because, comment=comment, bridge=bridge, required=required
            )

        related = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        yield rule(into, related)
        yield rule(out, related)
        icc = "ACCEPT" if bridge.icc else "DROP"
        if bridge.internal:
            yield rule(into, f"! -i {name} -j DROP", "INTERNAL NETWORK INGRESS")
            yield rule(out, f"! -o {name} -j DROP", "INTERNAL NETWORK EGRESS")
            yield rule(into, f"-j {icc}", "ICC")
            return
        yield rule(into, f"-i {name} -j {icc}", "ICC")
        yield rule(out, "-j ACCEPT", "OUTGOING")
        if mode == "nat-unprotected":
            yield rule(into, "-j ACCEPT", "UNPROTECTED")
        else:
            yield rule(into, "-j DROP", "UNPUBLISHED PORT DROP")
        if mode == "routed":
            yield rule(into, f"-p {'ipv6-icmp' if family == 'ip6' else 'icmp'} -j ACCEPT", "ICMP")
        host_ip = bridge.host_ip(family)
        source, comment = (f"SNAT --to-source {host_ip}", "SNAT") if host_ip else ("MASQUERADE", "MASQUERADE")
        if bridge.masquerade and mode != "routed":
            yield rule(
                f"nat-postrouting-out__{name}", f"! -o {name} -s {bridge.subnet(family)} -j {source}", comment
            )
        if self._proxy is not True:
            yield rule(
                f"nat-postrouting-in__{name}",
                f"-m addrtype --src-type LOCAL -j {source}",
                f"{comment} FROM HOST",
                self._proxy is False,
            )

    def _endpoint(self, place: _Place) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        if bridge.internal or bridge.trusted or bridge.gateway_mode(family) in ("routed", "nat-unprotected"):
            return
        yield self._rule(
            family,
            "raw-PREROUTING",
            f"-d {address} ! -i {bridge.name} -j DROP",
            f"the address of {container.name} in network {bridge.network.name}",
            comment="DROP DIRECT ACCESS",
            bridge=bridge,
            container=container,
            required=False,
        )

    def _port(self, place: _Place, port: PublishedPort, certain: bool) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        because = f"port {port.container_port}/{port.protocol} of {container.name} is published"
        name, protocol = bridge.name, port.protocol
        host_ip = _specified(port.host_ip)

        def rule(
            chain: str,
            words: str,
            comment: str = "",
            required: bool = certain,
            unless_proxy: str | None = None,
        ) -> ExpectedRule:
            return self._rule(
                family,
                chain,
                words,
                because,
                comment=comment,
                bridge=bridge,
                container=container,
                required=required,
                unless_proxy=unless_proxy,
            )

        to = f"-p {protocol} -d {address} --dport {port.container_port}"
        if bridge.gateway_mode(family) != "nat-unprotected":
            yield rule(f"filter-forward-in__{name}", f"{to} -j ACCEPT")
        if not port.host_port:
            return
        words = f"-p {protocol} --dport {port.host_port} -j DNAT"
        words += f" --to-destination {_joined(address, port.container_port)}"
        words += f" -d {host_ip}" if host_ip else ""
        words += " ! -s fe80::/10" if family == "ip6" else ""
        yield rule("nat-prerouting-and-output", f"{words} ! -i {name}", "DNAT", unless_proxy=words)
        if self._proxy is not True:
            masquerade = f"{to} -s {address} -j MASQUERADE"
            yield rule(
                f"nat-postrouting-in__{name}",
                masquerade,
                "MASQ TO OWN PORT",
                self._proxy is False and certain,
            )
        if host_ip and family == "ip" and host_ip.startswith("127."):
            words = f"-p {protocol} -d {host_ip} --dport {port.host_port} ! -i lo -j DROP"
            yield rule("raw-PREROUTING", words, "DROP REMOTE LOOPBACK", False)
