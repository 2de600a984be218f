"""The firewall of engine 29, made to the letter of its source, for a few networks and containers.

No package of it can be had here, so this stands in for the engine: what it would run for HOST, as an nft
script and as iptables commands. It is written from the source and from nothing in src/, so that a mistake
there is not repeated here.

References (github.com/moby/moby, docker-v29.0.0 and docker-v29.7.2, daemon/libnetwork/drivers/bridge/internal):
- nftabler/nftabler.go, init(): table, base chains, verdict maps; network.go, configure(); endpoint.go,
  filterDirectAccess(); port.go, setPerPort*(); link.go
- iptabler/iptabler.go, setupIPChains(); network.go, setupIPTables(); endpoint.go, port.go, link.go
- daemon/libnetwork/firewall_linux.go: DOCKER-USER
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from verify_audit.host.facts import Container, Endpoint, Network, PublishedPort, Subnet

VERSION = "29.7.2"
_BRIDGE = "com.docker.network.bridge."
_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - where a port is published, not where a test listens


@dataclass(frozen=True)
class One:
    """A network, and at most one container on it. ports: (protocol, port, host address, host port)."""

    name: str
    bridge: str
    prefix: str
    prefix6: str = ""
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    mode: str = "nat"
    host_ip: str = ""
    trusted: tuple[str, ...] = ()
    address: str = ""
    address6: str = ""
    ports: tuple[tuple[str, int, str, int], ...] = ()
    linked: tuple[str, str, int] | None = None

    def network(self) -> Network:
        """As the engine lists it."""
        options = {
            f"{_BRIDGE}enable_icc": str(self.icc).lower(),
            f"{_BRIDGE}enable_ip_masquerade": str(self.masquerade).lower(),
            f"{_BRIDGE}gateway_mode_ipv4": self.mode,
            f"{_BRIDGE}gateway_mode_ipv6": self.mode,
            f"{_BRIDGE}trusted_host_interfaces": ":".join(self.trusted),
            "com.docker.network.host_ipv4": self.host_ip,
        }
        subnets = tuple(Subnet(prefix, "") for prefix in (self.prefix, self.prefix6) if prefix)
        given = tuple((key, value) for key, value in options.items() if value)
        return Network(
            *(self.name, self.name, "bridge", "local", self.internal, bool(self.prefix6), None),
            *(self.bridge, subnets, given),
        )

    def containers(self) -> list[Container]:
        """As the engine lists them."""
        found = []
        if self.address:
            found.append(self._container(f"on-{self.name}", self.address, self.address6))
        if self.linked:
            found.append(self._container("linked", self.linked[0], ""))
        return found

    def _container(self, name: str, address: str, address6: str) -> Container:
        endpoint = Endpoint(self.name, self.name, "e", "", address, address6)
        ports: tuple[PublishedPort, ...] = ()
        linked_from: tuple[str, ...] = ()
        exposed: tuple[tuple[str, int], ...] = ()
        if name != "linked":
            ports = tuple(PublishedPort(*(each[0], each[1], each[2], each[3])) for each in self.ports)
            if self.linked:
                linked_from, exposed = ("linked",), ((self.linked[1], self.linked[2]),)
        return Container(name, name, "", True, None, self.name, (endpoint,), ports, linked_from, exposed)


HOST = (
    One(
        *("bridge", "docker0", "172.17.0.0/16"),
        icc=False,
        address="172.17.0.2",
        linked=("172.17.0.3", "tcp", 77),
    ),
    One(
        *("user", "br-user", "172.30.1.0/24", "fd00:aa::/64"),
        address="172.30.1.2",
        address6="fd00:aa::2",
        ports=(("tcp", 80, _ANY[4], 8080), ("tcp", 80, _ANY[6], 8080), ("udp", 53, "127.0.0.1", 5353)),
    ),
    One("inside", "br-inside", "172.30.2.0/24", "fd00:ab::/64", internal=True, address="172.30.2.2"),
    One("inside-apart", "br-ia", "172.30.3.0/24", internal=True, icc=False),
    One(
        *("routed", "br-routed", "172.30.4.0/24", "fd00:ac::/64"),
        mode="routed",
        address="172.30.4.2",
        address6="fd00:ac::2",
        ports=(("tcp", 88, _ANY[4], 0), ("tcp", 88, _ANY[6], 0)),
    ),
    One(
        *("open", "br-open", "172.30.5.0/24"),
        mode="nat-unprotected",
        address="172.30.5.2",
        ports=(("tcp", 89, _ANY[4], 18089),),
    ),
    One("from-here", "br-from", "172.30.6.0/24", host_ip="192.0.2.1", address="172.30.6.2"),
    One("unmasked", "br-un", "172.30.7.0/24", masquerade=False, address="172.30.7.2"),
    One("trusting", "br-trust", "172.30.8.0/24", trusted=("eth0", "eth1"), address="172.30.8.2"),
)


def networks() -> list[Network]:
    """All of them."""
    return [one.network() for one in HOST]


def containers() -> list[Container]:
    """All of them."""
    return [container for one in HOST for container in one.containers()]


# The nftables backend


def nft_script(*, proxy: bool) -> str:
    """What nft(8) is told. proxy: whether the daemon has its userland proxy, and so no hairpin."""
    return "\n".join(line for number in (4, 6) for line in _nft_table(number, proxy)) + "\n"


def _nft_table(number: int, proxy: bool) -> Iterator[str]:
    family = {4: "ip", 6: "ip6"}[number]
    table = f"{family} docker-bridges"
    yield f"add table {table}"
    for chain, kind, hook, priority in (
        ("filter-FORWARD", "filter", "forward", 0),
        ("nat-POSTROUTING", "nat", "postrouting", 100),
        ("nat-PREROUTING", "nat", "prerouting", -100),
        ("nat-OUTPUT", "nat", "output", -100),
        ("raw-PREROUTING", "filter", "prerouting", -300),
    ):
        yield f"add chain {table} {chain} {{ type {kind} hook {hook} priority {priority}; }}"
    for chain, selector, vmap in (
        ("filter-FORWARD", "oifname", "filter-forward-in-jumps"),
        ("filter-FORWARD", "iifname", "filter-forward-out-jumps"),
        ("nat-POSTROUTING", "iifname", "nat-postrouting-out-jumps"),
        ("nat-POSTROUTING", "oifname", "nat-postrouting-in-jumps"),
    ):
        yield f"add map {table} {vmap} {{ type ifname : verdict; }}"
        yield f"add rule {table} {chain} {selector} vmap @{vmap}"
    yield f"add chain {table} nat-prerouting-and-output"
    local = "fib daddr type local counter jump nat-prerouting-and-output"
    loopback = {4: "ip daddr != 127.0.0.1/8", 6: "ip6 daddr != ::1"}[number]
    yield f"add rule {table} nat-PREROUTING {local}"
    yield f"add rule {table} nat-OUTPUT {loopback if proxy else ''} {local}"
    for one in HOST:
        if one.prefix if number == 4 else one.prefix6:
            for chain, rule in _nft_network(one, number, proxy):
                yield f"add rule {table} {chain} {rule}" if rule else _nft_place(table, chain, one.bridge)


def _nft_place(table: str, chain: str, bridge: str) -> str:
    """A chain for a bridge, and its element in the map that leads there."""
    vmap = chain.removesuffix(f"__{bridge}") + "-jumps"
    return f"add chain {table} {chain}\nadd element {table} {vmap} {{ {bridge} : jump {chain} }}"


def _nft_network(one: One, number: int, proxy: bool) -> Iterator[tuple[str, str]]:
    """Chains, with no rule, and rules."""
    bridge, family = one.bridge, {4: "ip", 6: "ip6"}[number]
    into, out = f"filter-forward-in__{bridge}", f"filter-forward-out__{bridge}"
    nat_in, nat_out = f"nat-postrouting-in__{bridge}", f"nat-postrouting-out__{bridge}"
    for chain in (into, out, nat_in, nat_out):
        yield chain, ""
    for chain in (into, out):
        yield chain, "ct state established,related counter accept"
    verdict = "accept" if one.icc else "drop"
    if one.internal:
        yield into, f'iifname != {bridge} counter drop comment "INTERNAL NETWORK INGRESS"'
        yield out, f'oifname != {bridge} counter drop comment "INTERNAL NETWORK EGRESS"'
        yield into, f"counter {verdict} comment ICC"
        return
    yield into, f"iifname == {bridge} counter {verdict} comment ICC"
    yield out, "counter accept comment OUTGOING"
    if one.mode == "nat-unprotected":
        yield into, 'counter accept comment "UNPROTECTED"'
    else:
        yield into, 'counter drop comment "UNPUBLISHED PORT DROP"'
    if one.mode == "routed":
        yield (
            into,
            f"{'ip protocol icmp' if number == 4 else 'meta l4proto ipv6-icmp'} counter accept comment ICMP",
        )
    host_ip = one.host_ip if number == 4 else ""
    nat, comment = (f"snat to {host_ip}", "SNAT") if host_ip else ("masquerade", "MASQUERADE")
    if one.masquerade and one.mode != "routed":
        prefix = one.prefix if number == 4 else one.prefix6
        yield nat_out, f"oifname != {bridge} {family} saddr {prefix} counter {nat} comment {comment}"
    if not proxy:
        yield nat_in, f'fib saddr type local counter {nat} comment "{comment} FROM HOST"'
    for container in one.containers():
        yield from _nft_endpoint(one, container.endpoints[0], number)
    if one.linked and number == 4:
        parent, protocol, port = one.linked
        yield into, f"ip saddr {parent} ip daddr {one.address} {protocol} dport {port} counter accept"
        yield into, f"ip saddr {one.address} {protocol} sport {port} ip daddr {parent} counter accept"
    yield from _nft_ports(one, number, proxy)


def _nft_endpoint(one: One, endpoint: Endpoint, number: int) -> Iterator[tuple[str, str]]:
    address, family = (endpoint.ipv4, "ip") if number == 4 else (endpoint.ipv6, "ip6")
    if address and one.mode not in ("routed", "nat-unprotected"):
        names = f"{{ {one.bridge} , {', '.join(one.trusted)} }}"
        yield (
            "raw-PREROUTING",
            f'{family} daddr {address} iifname != {names} counter drop comment "DROP DIRECT ACCESS"',
        )


def _nft_ports(one: One, number: int, proxy: bool) -> Iterator[tuple[str, str]]:
    family, address = ("ip", one.address) if number == 4 else ("ip6", one.address6)
    for protocol, port, host_ip, host_port in one.ports:
        if (":" in host_ip) != (number == 6):
            continue
        to = f"{family} daddr {address} {protocol} dport {port}"
        if one.mode != "nat-unprotected":
            yield f"filter-forward-in__{one.bridge}", f"{to} counter accept"
        if not host_port:
            continue
        words = f"iifname != {one.bridge} " if proxy else ""
        words += "ip6 saddr != fe80::/10 " if number == 6 else ""
        words += "" if host_ip == _ANY[number] else f"{family} daddr {host_ip} "
        target = f"[{address}]:{port}" if number == 6 else f"{address}:{port}"
        yield (
            "nat-prerouting-and-output",
            f"{words}{protocol} dport {host_port} counter dnat to {target} comment DNAT",
        )
        if not proxy:
            yield (
                f"nat-postrouting-in__{one.bridge}",
                f'{family} saddr {address} {to} counter masquerade comment "MASQ TO OWN PORT"',
            )
        if host_ip.startswith("127."):
            words = f"iifname != lo ip daddr {host_ip} {protocol} dport {host_port}"
            yield "raw-PREROUTING", f'{words} counter drop comment "DROP REMOTE LOOPBACK"'


# The iptables backend


def iptables_commands(*, proxy: bool) -> Iterator[tuple[str, str]]:
    """The commands, each as the program (iptables or ip6tables) and its arguments."""
    for number, program in ((4, "iptables"), (6, "ip6tables")):
        for words in _iptables(number, proxy):
            yield program, words


def _iptables(number: int, proxy: bool) -> Iterator[str]:
    names = ("DOCKER", "DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-INTERNAL", "DOCKER-USER")
    yield "-t nat -N DOCKER"
    for name in names:
        yield f"-N {name}"
    local = "-m addrtype --dst-type LOCAL -j DOCKER"
    loopback = {4: "127.0.0.0/8", 6: "::1/128"}[number]
    yield f"-t nat -A PREROUTING {local}"
    yield f"-t nat -A OUTPUT {local}" + (f" ! --dst {loopback}" if proxy else "")
    yield "-I FORWARD -j DOCKER-FORWARD"
    for name in ("DOCKER-BRIDGE", "DOCKER-INTERNAL", "DOCKER-CT"):
        yield f"-I DOCKER-FORWARD -j {name}"
    yield "-I FORWARD -j DOCKER-USER"
    for one in HOST:
        if one.prefix if number == 4 else one.prefix6:
            yield from _iptables_network(one, number, proxy)


def _iptables_network(one: One, number: int, proxy: bool) -> Iterator[str]:
    name, prefix = one.bridge, one.prefix if number == 4 else one.prefix6
    if one.internal:
        both = (f"-i {name} ! -d {prefix}", f"-o {name} ! -s {prefix}")
        if number == 6:
            both = (f"-i {name} ! -o {name} ! -d {prefix}", f"! -i {name} -o {name} ! -s {prefix}")
        for words in both:
            yield f"-A DOCKER-INTERNAL {words} -j DROP"
        yield f"-A DOCKER-FORWARD -i {name} -o {name} -j {'ACCEPT' if one.icc else 'DROP'}"
        return
    host_ip = one.host_ip if number == 4 else ""
    nat = f"SNAT --to-source {host_ip}" if host_ip else "MASQUERADE"
    if one.masquerade and one.mode != "routed":
        yield f"-t nat -I POSTROUTING -s {prefix} ! -o {name} -j {nat}"
    if not proxy:
        yield f"-t nat -I POSTROUTING -m addrtype --src-type LOCAL -o {name} -j {nat}"
    if not one.icc:
        yield f"-A DOCKER-FORWARD -i {name} -o {name} -j DROP"
    if one.mode == "routed":
        yield f"-A DOCKER -o {name} -p {'icmp' if number == 4 else 'icmpv6'} -j ACCEPT"
    yield f"-A DOCKER-FORWARD -i {name}{'' if one.icc else f' ! -o {name}'} -j ACCEPT"
    last = "ACCEPT" if one.mode == "nat-unprotected" else "DROP"
    yield f"-A DOCKER ! -i {name} -o {name} -j {last}"
    yield f"-A DOCKER-CT -o {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield f"-A DOCKER-BRIDGE -o {name} -j DOCKER"
    for container in one.containers():
        address = container.endpoints[0].ipv4 if number == 4 else container.endpoints[0].ipv6
        if address and one.mode not in ("routed", "nat-unprotected"):
            for trusted in one.trusted:
                yield f"-t raw -A PREROUTING -d {address} -i {trusted} -j ACCEPT"
            yield f"-t raw -A PREROUTING -d {address} ! -i {name} -j DROP"
    if one.linked and number == 4:
        parent, protocol, port = one.linked
        between = f"-A DOCKER -i {name} -o {name} -p {protocol} -j ACCEPT"
        yield f"{between} -s {parent} -d {one.address} --dport {port}"
        yield f"{between} -s {one.address} -d {parent} --sport {port}"
    yield from _iptables_ports(one, number, proxy)


def _iptables_ports(one: One, number: int, proxy: bool) -> Iterator[str]:
    name, address = one.bridge, one.address if number == 4 else one.address6
    for protocol, port, host_ip, host_port in one.ports:
        if (":" in host_ip) != (number == 6):
            continue
        if one.mode != "nat-unprotected":
            yield f"-I DOCKER ! -i {name} -o {name} -p {protocol} -d {address} --dport {port} -j ACCEPT"
        if not host_port:
            continue
        target = f"[{address}]:{port}" if number == 6 else f"{address}:{port}"
        to = "" if host_ip == _ANY[number] else f"-d {host_ip} "
        words = f"-p {protocol} {to}--dport {host_port} -j DNAT --to-destination {target}"
        words += " ! -s fe80::/10" if number == 6 else ""
        words += f" ! -i {name}" if proxy else ""
        yield f"-t nat -A DOCKER {words}"
        if not proxy:
            yield f"-t nat -A POSTROUTING -p {protocol} -s {address} -d {address} --dport {port} -j MASQUERADE"
        if host_ip.startswith("127."):
            yield f"-t raw -A PREROUTING -p {protocol} -d {host_ip} --dport {host_port} ! -i lo -j DROP"
