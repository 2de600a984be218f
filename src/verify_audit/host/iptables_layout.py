"""The rules that Docker makes by running iptables and ip6tables.

Sources: see docker_layout.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verify_audit.host.expected import (
    FORWARD_CHAIN,
    INTERNAL6,
    IP6TABLES,
    ISOLATED_BY_FAMILY,
    LOOPBACK,
    NO_USER_RETURN,
    RAW_PER_ENDPOINT,
    SKIP_LINK_LOCAL,
    STAGES,
    SWARM_GATEWAY,
    USER_CHAIN,
    V28,
    V29,
    WSL,
    Bridge,
    ExpectedRule,
    Layout,
    Place,
    joined,
    specified,
)
from verify_audit.host.facts import Container, PublishedPort
from verify_audit.host.firewall import RuleSpec
from verify_audit.host.iptables_command import parse_rule


class IptablesLayout(Layout):
    """Rules made by running iptables and ip6tables."""

    def _rule(
        self,
        place: tuple[str, str, str],
        words: str,
        because: str,
        *,
        bridge: Bridge | None = None,
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
            required and self.certain(family, bridge),
            variants,
        )

    def base(self, family: str, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        forward = (family, "filter", "FORWARD")
        because = "the daemon itself, from its start on"
        # Up to 27 the first bridge network brings the jumps, from 28 the daemon's start.
        any_bridge = self._at >= V28 or bool(bridges)
        any_outward = self._at >= V28 or any(not bridge.internal for bridge in bridges)

        def rule(place: tuple[str, str, str], words: str, required: bool = True) -> ExpectedRule:
            return self._rule(place, words, because, required=required)

        if self._at >= USER_CHAIN:
            yield rule(forward, "-j DOCKER-USER", any_bridge)
            place = (family, "filter", "DOCKER-USER")
            # From 28.2 only left over from an older version: Docker never empties this chain.
            yield rule(place, "-j RETURN", self._at < NO_USER_RETURN)
        if self._at < STAGES:
            yield rule(forward, "-j DOCKER-ISOLATION", any_bridge)
            yield rule((family, "filter", "DOCKER-ISOLATION"), "-j RETURN")
        elif self._at < V28:
            yield rule(forward, "-j DOCKER-ISOLATION-STAGE-1", any_bridge)
            for stage in ("1", "2"):
                yield rule((family, "filter", f"DOCKER-ISOLATION-STAGE-{stage}"), "-j RETURN")
        elif self._at < FORWARD_CHAIN:
            name = f"docker-ext-bridges-v{'6' if family == 'ip6' else '4'}"
            matched = f"-m set --match-set {name} dst"
            # The kernel has the set by number, not by name: these two are there, and not recognised.
            related = "-m conntrack --ctstate RELATED,ESTABLISHED"
            yield rule(forward, f"{matched} {related} -j ACCEPT", required=False)
            yield rule(forward, "-j DOCKER-ISOLATION-STAGE-1")
            yield rule(forward, f"{matched} -j DOCKER", required=False)
        else:
            yield rule(forward, "-j DOCKER-FORWARD")
            isolation = "DOCKER-INTERNAL" if self._at >= V29 else "DOCKER-ISOLATION-STAGE-1"
            for chain in ("DOCKER-CT", isolation, "DOCKER-BRIDGE"):
                yield rule((family, "filter", "DOCKER-FORWARD"), f"-j {chain}")
        local = "-m addrtype --dst-type LOCAL -j DOCKER"
        yield rule((family, "nat", "PREROUTING"), local, any_outward)
        yield self._rule(
            (family, "nat", "OUTPUT"),
            f"{local} ! -d {LOOPBACK[family]}",
            because,
            required=any_outward,
            unless_proxy=local,
        )
        if self._at >= WSL and family == "ip":
            place = (family, "nat", "DOCKER")
            yield rule(place, "-i loopback0 -d 127.0.0.0/8 -j RETURN", False)
        if family == "ip":
            for bridge in bridges:
                if bridge.network.name == SWARM_GATEWAY:
                    yield from self._swarm(bridge)

    def _swarm(self, gateway: Bridge) -> Iterator[ExpectedRule]:
        """Swarm's ingress; its ports and its address on docker_gwbridge are not in what the engine lists."""
        forward = "DOCKER-FORWARD" if self._at >= FORWARD_CHAIN else "FORWARD"
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
        if self._at >= RAW_PER_ENDPOINT and (subnet := gateway.subnet("ip")):
            spec = parse_rule(f"-d {subnet} ! -i {gateway.name} -j DROP".split(), "ip")
            yield ExpectedRule(
                *("ip", "raw", "PREROUTING", spec, "an endpoint on docker_gwbridge", gateway.network.id),
                required=False,
                any_value=("destination",),
                within=subnet,
                many=True,
            )

    def network(self, family: str, bridge: Bridge, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        because = f"network {bridge.network.name} on {bridge.name}"
        subnet, name = bridge.subnet(family), bridge.name
        # The chain that rules for forwarded traffic go to.
        forward = (family, "filter", "DOCKER-FORWARD" if self._at >= FORWARD_CHAIN else "FORWARD")
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
        if self._at < V28:
            yield rule(forward, related)
            yield rule(forward, f"-o {name} -j DOCKER")
            yield rule(forward, f"-i {name} ! -o {name} -j ACCEPT")
            yield rule(forward, f"-i {name} -o {name} -j {'ACCEPT' if bridge.icc else 'DROP'}")
        else:
            if self._at >= FORWARD_CHAIN:
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
        nat = not (routed and self._at >= IP6TABLES)
        if bridge.masquerade and nat:
            yield rule(postrouting, f"-s {subnet} ! -o {name} -j {source}")
        if self._proxy is not True:
            yield rule(
                postrouting, f"-m addrtype --src-type LOCAL -o {name} -j {source}", self._proxy is False
            )
        if self._proxy is not False and self._at < V29 and bridge.masquerade and (nat or self._at >= V28):
            required = bool(self._proxy) and nat
            yield rule((family, "nat", "DOCKER"), f"-i {name} -j RETURN", required)

    def network_without(
        self, family: str, bridge: Bridge, bridges: Sequence[Bridge]
    ) -> Iterator[ExpectedRule]:
        """Isolation only (isolateNetwork)."""
        if self._at >= ISOLATED_BY_FAMILY or bridge.internal:
            return
        because = f"network {bridge.network.name} on {bridge.name}"
        for place, words in self._isolation(family, bridge, bridges):
            yield self._rule(place, words, because, bridge=bridge, required=False)

    def _internal(self, family: str, bridge: Bridge) -> Iterator[tuple[tuple[str, str, str], str]]:
        if self._at >= V29:
            chain = "DOCKER-INTERNAL"
        else:
            chain = "DOCKER-ISOLATION-STAGE-1" if self._at >= STAGES else "DOCKER-ISOLATION"
        place, name, subnet = (family, "filter", chain), bridge.name, bridge.subnet(family)
        if family == "ip6" and self._at >= INTERNAL6:
            yield place, f"-i {name} ! -o {name} ! -d {subnet} -j DROP"
            yield place, f"! -i {name} -o {name} ! -s {subnet} -j DROP"
        else:
            yield place, f"-i {name} ! -d {subnet} -j DROP"
            yield place, f"-o {name} ! -s {subnet} -j DROP"

    def _isolation(
        self, family: str, bridge: Bridge, bridges: Sequence[Bridge]
    ) -> Iterator[tuple[tuple[str, str, str], str]]:
        name = bridge.name
        if self._at < STAGES:
            for other in bridges:
                if other.name != name and not other.internal:
                    yield (family, "filter", "DOCKER-ISOLATION"), f"-i {name} -o {other.name} -j DROP"
        elif self._at < V29:
            first = (family, "filter", "DOCKER-ISOLATION-STAGE-1")
            if self._at >= V28 and bridge.gateway_mode(family) == "routed":
                yield first, f"-o {name} -j RETURN"
                yield first, f"-i {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            yield first, f"-i {name} ! -o {name} -j DOCKER-ISOLATION-STAGE-2"
            yield (family, "filter", "DOCKER-ISOLATION-STAGE-2"), f"-o {name} -j DROP"

    def _endpoint(self, place: Place) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        if (
            self._at < RAW_PER_ENDPOINT
            or bridge.internal
            or bridge.gateway_mode(family) in ("routed", "nat-unprotected")
        ):
            return
        because = f"the address of {container.name} in network {bridge.network.name}"
        words = [f"-d {address} -i {trusted} -j ACCEPT" for trusted in bridge.trusted]
        for text in [*words, f"-d {address} ! -i {bridge.name} -j DROP"]:
            chain = (family, "raw", "PREROUTING")
            yield self._rule(chain, text, because, bridge=bridge, container=container, required=False)

    def _port(self, place: Place, port: PublishedPort, certain: bool) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        because = f"port {port.container_port}/{port.protocol} of {container.name} is published"
        if port.host_port:
            because += f" as {joined(port.host_ip or '*', port.host_port)}"
        name, protocol, mode = bridge.name, port.protocol, bridge.gateway_mode(family)
        host_ip = specified(port.host_ip)

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

        if not port.host_port and mode != "routed":
            return
        if port.host_port:
            words = f"-p {protocol} --dport {port.host_port} -j DNAT"
            words += f" --to-destination {joined(address, port.container_port)}"
            words += f" -d {host_ip}" if host_ip else ""
            if family == "ip6" and self._at >= SKIP_LINK_LOCAL:
                words += " ! -s fe80::/10"
            yield rule("nat", "DOCKER", f"{words} ! -i {name}", unless_proxy=words)
            hairpin = f"-p {protocol} -s {address} -d {address} --dport {port.container_port} -j MASQUERADE"
            if self._at < V28 or self._proxy is not True:
                yield rule(
                    "nat", "POSTROUTING", hairpin, certain and (self._at < V28 or self._proxy is False)
                )
        if mode != "nat-unprotected" or self._at < V28:
            words = (
                f"! -i {name} -o {name} -p {protocol} -d {address} --dport {port.container_port} -j ACCEPT"
            )
            yield rule("filter", "DOCKER", words)
        if protocol == "sctp" and STAGES <= self._at < V29:
            # From 28 only with DOCKER_IPTABLES_SCTP_CHECKSUM=1.
            words = f"-p sctp --sport {port.container_port} -j CHECKSUM --checksum-fill"
            yield rule("mangle", "POSTROUTING", words, certain and self._at < V28)
        if self._at >= V28 and port.host_port and host_ip and family == "ip" and host_ip.startswith("127."):
            words = f"-p {protocol} -d {host_ip} --dport {port.host_port}"
            yield rule("raw", "PREROUTING", f"{words} ! -i lo -j DROP", False)
            yield rule("raw", "PREROUTING", f"{words} -i loopback0 -j ACCEPT", False)  # WSL2
        if V28 <= self._at < RAW_PER_ENDPOINT and mode not in ("routed", "nat-unprotected"):
            words = f"-p {protocol} -d {address} --dport {port.container_port} ! -i {name} -j DROP"
            yield rule("raw", "PREROUTING", words, False)

    def _link(self, child: Place, parent: Place, protocol: str, port: int) -> Iterator[ExpectedRule]:
        name = child.bridge.name
        to = f"-s {parent.address} -d {child.address} --dport {port}"
        back = f"-s {child.address} -d {parent.address} --sport {port}"
        for words in (to, back):
            yield self._rule(
                (child.family, "filter", "DOCKER"),
                f"-i {name} -o {name} -p {protocol} {words} -j ACCEPT",
                f"{parent.container.name} is linked to port {port}/{protocol} of {child.container.name}",
                bridge=child.bridge,
                container=child.container,
                required=False,
            )
