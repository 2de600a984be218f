"""The rules that Docker makes in nf_tables of its own: `--firewall-backend=nftables` of 29.

Sources: see docker_layout.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from verify_audit.host.expected import (
    LOOPBACK,
    Bridge,
    ExpectedRule,
    Layout,
    Place,
    joined,
    specified,
    with_values,
)
from verify_audit.host.facts import Container, PublishedPort
from verify_audit.host.firewall import Match, RuleSpec, one_of
from verify_audit.host.iptables_command import parse_rule

TABLE = "docker-bridges"
CHAINS = (
    "filter-FORWARD",
    "nat-PREROUTING",
    "nat-OUTPUT",
    "nat-POSTROUTING",
    "nat-prerouting-and-output",
    "raw-PREROUTING",
)
PREFIXES = (
    "filter-forward-in__",
    "filter-forward-out__",
    "nat-postrouting-in__",
    "nat-postrouting-out__",
)


class NativeLayout(Layout):
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
        bridge: Bridge | None = None,
        container: Container | None = None,
        required: bool = True,
        unless_proxy: str | None = None,
    ) -> ExpectedRule:
        def spec(text: str) -> RuleSpec:
            return with_values(parse_rule(text.split(), family), {"comment": comment})

        main = words
        variants: tuple[RuleSpec, ...] = ()
        if unless_proxy is not None:
            if self._proxy is False:
                main = unless_proxy
            elif self._proxy is None:
                variants = (spec(unless_proxy),)
        return ExpectedRule(
            family,
            TABLE,
            chain,
            spec(main),
            because,
            bridge.network.id if bridge else None,
            container.id if container else None,
            required and self.certain(family, bridge),
            variants,
        )

    def base(self, family: str, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        del bridges
        because = "the daemon itself, from its start on"
        for chain, field, vmap in (
            ("filter-FORWARD", "oifname", "filter-forward-in-jumps"),
            ("filter-FORWARD", "iifname", "filter-forward-out-jumps"),
            ("nat-POSTROUTING", "iifname", "nat-postrouting-out-jumps"),
            ("nat-POSTROUTING", "oifname", "nat-postrouting-in-jumps"),
        ):
            spec = RuleSpec(target=f"vmap @{vmap}", options=(field,))
            yield ExpectedRule(family, TABLE, chain, spec, because, required=self.certain(family))
        local = "-m addrtype --dst-type LOCAL -j nat-prerouting-and-output"
        yield self._rule(family, "nat-PREROUTING", local, because)
        outgoing = f"{local} ! -d {LOOPBACK[family]}"
        yield self._rule(family, "nat-OUTPUT", outgoing, because, unless_proxy=local)
        wsl = "-i loopback0 -d 127.0.0.0/8 -j RETURN"
        if family == "ip":
            yield self._rule(family, "nat-prerouting-and-output", wsl, because, required=False)

    def network(self, family: str, bridge: Bridge, bridges: Sequence[Bridge]) -> Iterator[ExpectedRule]:
        del bridges
        because = f"network {bridge.network.name} on {bridge.name}"
        name, mode = bridge.name, bridge.gateway_mode(family)
        into, out = f"filter-forward-in__{name}", f"filter-forward-out__{name}"

        def rule(chain: str, words: str, comment: str = "", required: bool = True) -> ExpectedRule:
            return self._rule(
                family, chain, words, because, comment=comment, bridge=bridge, required=required
            )

        for vmap, chain in (
            ("filter-forward-in-jumps", into),
            ("filter-forward-out-jumps", out),
            ("nat-postrouting-in-jumps", f"nat-postrouting-in__{name}"),
            ("nat-postrouting-out-jumps", f"nat-postrouting-out__{name}"),
        ):
            yield replace(rule(f"@{vmap}", f"-j {chain}"), spec=RuleSpec(key=name, target=chain))
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

    def _endpoint(self, place: Place) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        if bridge.internal or bridge.gateway_mode(family) in ("routed", "nat-unprotected"):
            return
        drop = self._rule(
            family,
            "raw-PREROUTING",
            f"-d {address} -j DROP",
            f"the address of {container.name} in network {bridge.network.name}",
            comment="DROP DIRECT ACCESS",
            bridge=bridge,
            container=container,
            required=False,
        )
        trusted = Match(one_of((bridge.name, *bridge.trusted)), negated=True)
        yield replace(drop, spec=replace(drop.spec, in_interface=trusted))

    def _port(self, place: Place, port: PublishedPort, certain: bool) -> Iterator[ExpectedRule]:
        family, address, bridge, container = place.family, place.address, place.bridge, place.container
        because = f"port {port.container_port}/{port.protocol} of {container.name} is published"
        if port.host_port:
            because += f" as {joined(port.host_ip or '*', port.host_port)}"
        name, protocol = bridge.name, port.protocol
        host_ip = specified(port.host_ip)

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

        if not port.host_port and bridge.gateway_mode(family) != "routed":
            return
        to = f"-p {protocol} -d {address} --dport {port.container_port}"
        if bridge.gateway_mode(family) != "nat-unprotected":
            yield rule(f"filter-forward-in__{name}", f"{to} -j ACCEPT")
        if not port.host_port:
            return
        words = f"-p {protocol} --dport {port.host_port} -j DNAT"
        words += f" --to-destination {joined(address, port.container_port)}"
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
            words = f"-p {protocol} -d {host_ip} --dport {port.host_port}"
            yield rule("raw-PREROUTING", f"{words} -i loopback0 -j ACCEPT", "ACCEPT WSL2 LOOPBACK", False)
            yield rule("raw-PREROUTING", f"{words} ! -i lo -j DROP", "DROP REMOTE LOOPBACK", False)

    def _link(self, child: Place, parent: Place, protocol: str, port: int) -> Iterator[ExpectedRule]:
        to = f"-s {parent.address} -d {child.address} --dport {port}"
        back = f"-s {child.address} -d {parent.address} --sport {port}"
        for words in (to, back):
            yield self._rule(
                child.family,
                f"filter-forward-in__{child.bridge.name}",
                f"-p {protocol} {words} -j ACCEPT",
                f"{parent.container.name} is linked to port {port}/{protocol} of {child.container.name}",
                bridge=child.bridge,
                container=child.container,
                required=False,
            )
