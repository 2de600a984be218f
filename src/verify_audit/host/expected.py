"""What the layouts of both backends are made of: an expected rule, versions, a bridge, a container's place."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from verify_audit.host.facts import Container, Endpoint, Network, PublishedPort
from verify_audit.host.firewall import Match, RuleSpec

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
                address, it must lie in the network `within`; a port behind it is not free when the spec
                has one.
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
        values = {field: getattr(spec, field) for field in self.any_value}
        return (
            all(values.values())
            and all(map(self._may_be, values, values.values()))
            and len({values[side] for side in ("source", "destination") if side in values}) < 2
            and spec == with_values(self.spec, values)
        )

    def _may_be(self, field: str, value: str | Match) -> bool:
        """Whether a free field may have that value."""
        if isinstance(value, Match):
            if value.negated:
                return False
            address, port = value.value, ""
        else:
            address, _, port = value.rpartition(":")
        if field not in ("to", "source", "destination"):
            return True
        wanted = self.spec.to.rpartition(":")[2] if field == "to" else ""
        try:
            inner = ipaddress.ip_network(address.strip("[]"))
            within = inner.num_addresses == 1 and inner[0] in ipaddress.ip_network(self.within)
        except ValueError:
            return False
        return within and (not wanted.isdigit() or port == wanted)


def with_values(spec: RuleSpec, values: Mapping[str, object]) -> RuleSpec:
    """The spec with other values in some fields."""
    fields = {name: getattr(spec, name) for name in RuleSpec.__dataclass_fields__}
    return RuleSpec(**{**fields, **values})


def parse_version(text: str) -> Version:
    """The version as numbers; "20.10.24+dfsg1" is (20, 10, 24). What is none counts as the newest known."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return _NEWEST
    return int(found[1]), int(found[2]), int(found[3] or 0)


# What changed when.
USER_CHAIN = (17, 6, 0)
STAGES = (18, 3, 0)  # two isolation stages instead of one rule for each pair of bridges
IP6TABLES = (27, 0, 0)  # on by default; before only with --ip6tables, from 20.10
IP6TABLES_AT_ALL = (20, 10, 0)
SKIP_LINK_LOCAL = (27, 0, 0)
WSL = (27, 3, 0)
V28 = (28, 0, 0)  # ipsets, default drop, raw table
FORWARD_CHAIN = (28, 0, 1)
RAW_PER_ENDPOINT = (28, 2, 0)
NO_USER_RETURN = (28, 2, 0)
V29 = (29, 0, 0)  # DOCKER-INTERNAL, no SKIP DNAT
ISOLATED_BY_FAMILY = (28, 0, 1)  # before, in the family that a network has no addresses of as well
INTERNAL6 = (24, 0, 0)  # internal networks: other rules for IPv6

_OPTION = "com.docker.network.bridge."
_TRUE = ("1", "t", "T", "true", "TRUE", "True")  # strconv.ParseBool
SWARM_GATEWAY = "docker_gwbridge"
LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1/128"}


class Bridge:
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
class Place:
    """A container's address on a bridge."""

    family: str
    address: str
    bridge: Bridge
    container: Container


class Layout:
    """What one version sets up with one backend. userland_proxy: None when it is not known."""

    def __init__(self, at: Version, userland_proxy: bool | None) -> None:
        self._at = at
        self._proxy = userland_proxy

    def families(self) -> tuple[str, ...]:
        """The families that it makes rules of."""
        return ("ip", "ip6") if self._at >= IP6TABLES_AT_ALL else ("ip",)

    def certain(self, family: str, bridge: Bridge | None = None) -> bool:
        """Whether rules of that family must be there.

        The daemon goes on without ip6tables where the kernel has none (iptabler.go).
        """
        if family == "ip":
            return True
        return self._at >= IP6TABLES and bridge is not None and bridge.network.ipv6

    def base(self, family: str, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        """What stands from the daemon's start on."""
        raise NotImplementedError

    def network(self, family: str, bridge: Bridge, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        """What a bridge network has; bridges are all of them."""
        raise NotImplementedError

    def network_without(
        self, family: str, bridge: Bridge, bridges: Sequence[Bridge]
    ) -> Iterator[ExpectedRule]:
        """What it has in a family of which it has no addresses."""
        del family, bridge, bridges
        return iter(())

    def _endpoint(self, place: Place) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def _port(self, place: Place, port: PublishedPort, certain: bool) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def _link(self, child: Place, parent: Place, protocol: str, port: int) -> Iterator[ExpectedRule]:
        raise NotImplementedError

    def container(self, container: Container, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        """The rules of a running container: for each of its addresses, and for its published ports.

        The ports belong to the endpoint that is the container's gateway; with more than one network the
        engine does not say which that is.
        """
        here = self._places(container, bridges)
        for place in here:
            yield from self._endpoint(place)
        gateways = {place.bridge.name for place in here if not place.bridge.internal}
        for place in here:
            for port in container.ports:
                if not place.bridge.internal and _same_family(port.host_ip, place.family):
                    yield from self._port(place, port, len(gateways) == 1)

    def _places(self, container: Container, bridges: Sequence[Bridge]) -> list[Place]:
        by_id = {bridge.network.id: bridge for bridge in bridges}
        return [
            Place(family, address, by_id[endpoint.network_id], container)
            for endpoint in container.endpoints
            if endpoint.network_id in by_id
            for family, address in _addresses(endpoint)
            if family in self.families()
        ]

    def links(
        self, container: Container, containers: Sequence[Container], bridges: Sequence[Bridge]
    ) -> Iterator[ExpectedRule]:
        """The rules for a --link to a container: on the default network without icc, for what it exposes."""
        if not (container.linked_from and container.exposed):
            return  # nearly all; to look through all the others for each would take a square of time
        default = [each for each in bridges if each.network.name == "bridge" and not each.icc]
        children = [place for place in self._places(container, default) if place.family == "ip"]
        parents = [
            place
            for other in containers
            if other.running and other.name in container.linked_from
            for place in self._places(other, default)
            if place.family == "ip"
        ]
        for child in children:
            for parent in parents:
                for protocol, port in container.exposed:
                    yield from self._link(child, parent, protocol, port)

    def overlaid(self, container: Container, gateway: Bridge) -> Iterator[ExpectedRule]:
        """The published ports of a container on an overlay network, on docker_gwbridge.

        Its address there is not in what the engine lists.
        """
        for family in self.families():
            subnet = gateway.subnet(family)
            for port in container.ports:
                if subnet and _same_family(port.host_ip, family):
                    place = Place(family, subnet.partition("/")[0], gateway, container)
                    for rule in self._port(place, port, certain=False):
                        yield from _anywhere(rule, place.address, subnet)


def _anywhere(rule: ExpectedRule, address: str, subnet: str) -> Iterator[ExpectedRule]:
    """The rule, and each of its variants, for any address of the subnet in the place of this one."""
    whole = Match(str(ipaddress.ip_network(address)))
    for spec in (rule.spec, *rule.variants):
        free = [side for side in ("source", "destination") if getattr(spec, side) == whole]
        if spec.to.rpartition(":")[0].strip("[]") == address:
            free.append("to")
        yield replace(rule, spec=spec, variants=(), any_value=tuple(free), within=subnet if free else "")


def _addresses(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    if endpoint.ipv4:
        yield "ip", endpoint.ipv4
    if endpoint.ipv6:
        yield "ip6", endpoint.ipv6


def _same_family(host_ip: str, family: str) -> bool:
    # From one family to the other only docker-proxy leads, without a rule.
    return not host_ip or (":" in host_ip) == (family == "ip6")


def specified(host_ip: str) -> str | None:
    """The address that a port is published on; None for any."""
    return None if host_ip in ("", "0.0.0.0", "::") else host_ip  # noqa: S104 - compared, not bound


def joined(address: str, port: int) -> str:
    """Address and port as iptables has them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
