"""The firewall as values: tables, chains, and rules by what they mean.

A rule that Docker asked iptables for is stored by the kernel in one of three ways: as an x_tables
entry, as nf_tables expressions with x_tables parts, or as nf_tables expressions alone. `RuleSpec` is
the same for all three, and for the command line that asked for it, so that they can be compared.

References: iptables(8), iptables-extensions(8), nft(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Backend(StrEnum):
    """Which of the kernel's two packet filters holds a rule. A host can use both at once."""

    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class Match:
    """A value that a packet must have, or with `negated` must not have."""

    value: str
    negated: bool = False

    def option(self, name: str) -> str:
        """As an iptables option: `! -i docker0`."""
        return f"{'! ' if self.negated else ''}{name} {self.value}"


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """What a rule means, in one canonical form.

    interfaces:   a name, or a prefix with a trailing `+` for any that begins so, or one_of() several.
    source, destination: a network with its prefix length ("172.17.0.2/32"); None for any address.
    protocol:     a name where iptables has one ("tcp"), else the number.
    ports:        "80", "80:90".
    *_type:       routing types of the address ("LOCAL"), in the order of `ADDRESS_TYPES`.
    states:       connection states, in the order of `STATES`.
    sets:         names of sets with the sides that are looked up ("docker-ext-bridges-v4 dst").
    mark:         "0x1/0xff", without the mask when it is all ones.
    target:       a verdict, a chain, or an extension ("ACCEPT", "DOCKER", "DNAT"); "" for none.
    to:           where DNAT or SNAT sends to ("172.17.0.2:80"), or the ports of MASQUERADE.
    options:      further options of the target, each as iptables-save has it.
    key:          what an element of a verdict map stands for (see FirewallRule).
    opaque:       parts that were there and could not be decoded. A spec that has any says less than
                  the rule does, so it never equals one that is known whole.
    """

    in_interface: Match | None = None
    out_interface: Match | None = None
    source: Match | None = None
    destination: Match | None = None
    protocol: Match | None = None
    source_ports: Match | None = None
    destination_ports: Match | None = None
    source_type: Match | None = None
    destination_type: Match | None = None
    states: Match | None = None
    sets: tuple[Match, ...] = ()
    mark: Match | None = None
    comment: str = ""
    target: str = ""
    goto: bool = False
    to: str = ""
    options: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    key: str = ""

    def __str__(self) -> str:
        """As iptables-save would write it, after the chain; opaque parts in brackets."""
        parts = [
            match.option(name)
            for name, match in (
                ("-s", self.source),
                ("-d", self.destination),
                ("-i", self.in_interface),
                ("-o", self.out_interface),
                ("-p", self.protocol),
            )
            if match
        ]
        parts += [f"-m set {match.option('--match-set')}" for match in self.sets]
        types = [
            match.option(name)
            for name, match in (("--src-type", self.source_type), ("--dst-type", self.destination_type))
            if match
        ]
        if types:
            parts += ["-m addrtype", *types]
        if self.states:
            parts.append(f"-m conntrack {self.states.option('--ctstate')}")
        if self.mark:
            parts.append(f"-m mark {self.mark.option('--mark')}")
        ports = [
            match.option(name)
            for name, match in (("--sport", self.source_ports), ("--dport", self.destination_ports))
            if match
        ]
        if ports:
            parts += [f"-m {self.protocol.value if self.protocol else '?'}", *ports]
        if self.comment:
            parts.append(f'-m comment --comment "{self.comment}"')
        parts += [f"[{part}]" for part in self.opaque]
        if self.target:
            parts.append(f"{'-g' if self.goto else '-j'} {self.target}")
        if self.to:
            parts.append(f"{_TO.get(self.target, '--to')} {self.to}")
        if self.key:
            parts.insert(0, f"[{self.key}]")
        return " ".join([*parts, *self.options])

    def without_ports(self) -> RuleSpec:
        """The same for any port: for a service that Docker gives a port of its own choice."""
        to = self.to
        if to.count(":") == 1 or "]:" in to:
            to = to.rpartition(":")[0]
        return replace(self, source_ports=None, destination_ports=None, to=to)


def one_of(interfaces: Iterable[str]) -> str:
    """Several interfaces as one value. No name of an interface has a blank (dev_valid_name())."""
    names = sorted(set(interfaces))
    return names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"


_TO = {
    "DNAT": "--to-destination",
    "SNAT": "--to-source",
    "MASQUERADE": "--to-ports",
    "REDIRECT": "--to-ports",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table. handle is nf_tables' number for it, None with x_tables."""

    backend: Backend
    family: str
    name: str
    handle: int | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. hook ("forward") and policy ("DROP") only for a base chain."""

    backend: Backend
    family: str
    table: str
    name: str
    handle: int | None = None
    hook: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """A rule, at its place in its chain.

    An element of a verdict map of nf_tables is one too: it leads what has its key to a chain. Its own
    chain is the map's name behind an `@`, and it has no handle.

    family: "ip", "ip6", "inet", "arp", "bridge" or "netdev". handle is nf_tables' number for it, given
    once and never again in that table; None with x_tables. raw is the kernel's form in hex.
    """

    backend: Backend
    family: str
    table: str
    chain: str
    handle: int | None
    spec: RuleSpec
    raw: str = ""

    def __str__(self) -> str:
        """As an iptables command would append it."""
        program = {"ip": "iptables", "ip6": "ip6tables"}.get(self.family, self.family)
        return f"{program}-{self.backend} -t {self.table} -A {self.chain} {self.spec}".rstrip()


@dataclass(frozen=True, slots=True)
class Firewall:
    """Every table, chain and rule of one network namespace, of both backends.

    netns is the inode number of the namespace; nft_generation the number of changes to nf_tables in it
    so far, None where the kernel has no nf_tables. Rules stand in the order in which a packet meets
    them.
    """

    netns: int
    tables: tuple[Table, ...] = ()
    chains: tuple[Chain, ...] = ()
    rules: tuple[FirewallRule, ...] = ()
    nft_generation: int | None = None

    def chain(self, family: str, table: str, name: str) -> tuple[Chain, ...]:
        """The chains of that place: none, one, or one of each backend."""
        return tuple(
            chain
            for chain in self.chains
            if chain.name == name and chain.table == table and chain.family == family
        )

    def rules_in(self, family: str, table: str, chain: str) -> tuple[FirewallRule, ...]:
        """The rules of that chain, of both backends."""
        return tuple(
            rule
            for rule in self.rules
            if rule.chain == chain and rule.table == table and rule.family == family
        )

    def jumps_to(self, family: str, table: str, chain: str) -> tuple[FirewallRule, ...]:
        """The rules that lead to that chain."""
        return tuple(
            rule
            for rule in self.rules
            if rule.spec.target == chain and rule.table == table and rule.family == family
        )

    def backends(self) -> frozenset[Backend]:
        """The backends that hold at least one rule."""
        return frozenset(rule.backend for rule in self.rules)

    def beside(self, other: Firewall) -> Firewall:
        """This and the other backend's part of the same namespace."""
        generation = self.nft_generation if self.nft_generation is not None else other.nft_generation
        return Firewall(
            self.netns,
            self.tables + other.tables,
            self.chains + other.chains,
            self.rules + other.rules,
            generation,
        )


# include/uapi/linux/rtnetlink.h, RTN_*, in the kernel's order.
ADDRESS_TYPES = (
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
)
STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")

# iptables libxtables/xtables.c, xtables_chain_protos: the names that it prints without asking
# /etc/protocols.
PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    132: "sctp",
    135: "mh",
    136: "udplite",
}
_PROTOCOL_NAMES = {**{name: name for name in PROTOCOLS.values()}, "icmpv6": "ipv6-icmp"}


def protocol(text: str) -> str | None:
    """The canonical name of a protocol given by name or number; None for any ("all", 0)."""
    text = text.lower()
    if text in ("all", "0"):
        return None
    if text.isascii() and text.isdigit():
        return PROTOCOLS.get(int(text), str(int(text)))
    return _PROTOCOL_NAMES.get(text, text)


def network(text: str) -> str | None:
    """The canonical form of an address with or without prefix or mask; None for any address.

    Raises ValueError when it is none: a host name, say, or a mask with gaps.
    """
    if text == "0/0":  # what Docker writes for either family
        return None
    address, slash, mask = text.partition("/")
    parsed = ipaddress.ip_network(f"{address}/{mask}" if slash else address, strict=False)
    if "." in mask and mask != str(parsed.netmask):
        raise ValueError(f"{mask} is no netmask")  # ip_network() would take 0.0.0.255 as a host mask
    return None if parsed.prefixlen == 0 else str(parsed)


def ordered(names: Iterable[str], order: tuple[str, ...]) -> str:
    """Names joined by commas, each once, in the given order; ValueError for a name not in it."""
    wanted = set(names)
    if unknown := wanted.difference(order):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return ",".join(name for name in order if name in wanted)


def ports(first: int, last: int) -> str:
    """A port, or a range of ports, as iptables writes it."""
    return str(first) if first == last else f"{first}:{last}"


def nat_range(addresses: tuple[str, str] | None, port_range: tuple[int, int] | None) -> str:
    """Where NAT sends to, as iptables has it: "172.17.0.2:80", "[fd00::2]:80", ":53", "10.0.0.1-10.0.0.9"."""
    text = ""
    if addresses:
        first, last = addresses
        text = first if first == last else f"{first}-{last}"
        if ":" in text and port_range:
            text = f"[{text}]"
    if port_range:
        text += f":{port_range[0]}" if port_range[0] == port_range[1] else f":{port_range[0]}-{port_range[1]}"
    return text
