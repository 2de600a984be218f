"""The kernel's x_tables structures, decoded to what they mean.

Both backends carry them: a legacy table is made of them, and iptables-nft wraps those for which it has
no native expression into `match` and `target` expressions. Everything that is not understood in full
goes to `opaque`, by name: half of a condition is none.

References: include/uapi/linux/netfilter/xt_*.h and nf_nat.h, include/uapi/linux/netfilter_ipv4/ipt_*.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Any

from verify_audit.host.firewall import ADDRESS_TYPES, STATES, Match, RuleSpec, nat_range, ordered, ports

REJECT4 = (
    "icmp-net-unreachable",
    "icmp-host-unreachable",
    "icmp-proto-unreachable",
    "icmp-port-unreachable",
    "echo-reply",
    "icmp-net-prohibited",
    "icmp-host-prohibited",
    "tcp-reset",
    "icmp-admin-prohibited",
)
REJECT6 = (
    "icmp6-no-route",
    "icmp6-adm-prohibited",
    "icmp6-not-neighbour",
    "icmp6-addr-unreachable",
    "icmp6-port-unreachable",
    "echo-reply",
    "tcp-reset",
)

# include/uapi/linux/netfilter/nf_nat.h, NF_NAT_RANGE_*
MAP_IPS = 1
PROTO_SPECIFIED = 2
_RANGE_OPTIONS = ((4, "--random"), (8, "--persistent"), (16, "--random-fully"))
_RANGE_KNOWN = MAP_IPS | PROTO_SPECIFIED | 4 | 8 | 16

# include/uapi/linux/netfilter/xt_conntrack.h: XT_CONNTRACK_STATE_*
_STATE_BITS = {
    1: "INVALID",
    2: "ESTABLISHED",
    4: "RELATED",
    8: "NEW",
    64: "SNAT",
    128: "DNAT",
    256: "UNTRACKED",
}
_STATE_ALIAS = 1 << 13  # said as `-m state --state`, which means the same
# The older `state` match knows no NAT; its UNTRACKED is 1 << (IP_CT_NUMBER + 1).
_OLD_STATE_BITS = {1: "INVALID", 2: "ESTABLISHED", 4: "RELATED", 8: "NEW", 64: "UNTRACKED"}


class Parts:
    """A rule being put together. A part that is said twice, or not understood, becomes opaque."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.opaque: list[str] = []
        self._fields: dict[str, Any] = {}

    def put(self, field: str, value: object) -> None:
        """Set a field of the RuleSpec; a second condition on the same field is opaque."""
        if field in self._fields:
            self.opaque.append(f"and {field} {value}")
        else:
            self._fields[field] = value

    def get(self, field: str) -> Any:
        """What a field was set to, None when it was not."""
        return self._fields.get(field)

    def spec(self) -> RuleSpec:
        """The rule."""
        return RuleSpec(**self._fields, opaque=tuple(self.opaque))


def name_of(raw: bytes) -> str:
    """A name of the kernel's, up to its NUL; bytes that are no UTF-8 become lone surrogates."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def interface(raw: bytes) -> str:
    """An interface as far as it is compared: with a NUL the whole name, without one a prefix and `+`."""
    name, nul, _ = raw.partition(b"\0")
    return name.decode("utf-8", "surrogateescape") + ("" if nul else "+")


def match(parts: Parts, name: str, revision: int, info: bytes) -> None:
    """Put what an x_tables match says; opaque when it is not known."""
    if not _decoded(_MATCHES.get((name, revision)), parts, info):
        parts.opaque.append(f"-m {name}.{revision} {info.rstrip(bytes(1)).hex()}")


def target(parts: Parts, name: str, revision: int, info: bytes) -> None:
    """Put what an x_tables target does; its options are opaque when they are not known."""
    parts.put("target", name)
    if not _decoded(_TARGETS.get((name, revision)), parts, info):
        parts.opaque.append(f"{name}.{revision} {info.rstrip(bytes(1)).hex()}")


def _decoded(known: tuple[tuple[int, ...], _Decode] | None, parts: Parts, info: bytes) -> bool:
    if known is None:
        return False
    sizes, decode = known
    if not any(size <= len(info) < size + 8 for size in sizes):
        return False
    try:
        return decode(parts, info)
    except (struct.error, ValueError, IndexError):
        return False


def put_range(parts: Parts, flags: int, addresses: tuple[bytes, bytes], port_range: tuple[int, int]) -> bool:
    """Put where NAT sends to; False for flags that are not known."""
    if flags & ~_RANGE_KNOWN:
        return False
    where = None
    if flags & MAP_IPS:
        first, last = (str(ipaddress.ip_address(address)) for address in addresses)
        where = (first, last)
    text = nat_range(where, port_range if flags & PROTO_SPECIFIED else None)
    if parts.get("target") in ("MASQUERADE", "REDIRECT"):
        text = text.lstrip(":")
    if text:
        parts.put("to", text)
    if options := tuple(option for bit, option in _RANGE_OPTIONS if flags & bit):
        parts.put("options", options)
    return True


def state_names(bits: int, names: dict[int, str]) -> str:
    """The states of a bit mask. ValueError for a bit that is not known."""
    if bits & ~sum(names):
        raise ValueError(f"states {bits:#x}")
    return ordered((name for bit, name in names.items() if bits & bit), STATES)


def type_names(bits: int) -> str:
    """The routing types of a bit mask. ValueError for a bit that is not known."""
    if bits >> len(ADDRESS_TYPES):
        raise ValueError(f"address types {bits:#x}")
    return ",".join(name for number, name in enumerate(ADDRESS_TYPES) if bits >> number & 1)


def _addrtype(parts: Parts, info: bytes) -> bool:
    source, destination, flags = struct.unpack_from("=HHI", info)
    if flags & ~3:  # limited to an interface
        return False
    if source:
        parts.put("source_type", Match(type_names(source), bool(flags & 1)))
    if destination:
        parts.put("destination_type", Match(type_names(destination), bool(flags & 2)))
    return True


def _conntrack(parts: Parts, info: bytes) -> bool:
    # 8 addresses of 16 bytes, two u32, five u16: then the flags.
    flags, inverted, states = struct.unpack_from("=HHH", info, 8 * 16 + 8 + 10)
    if flags & ~_STATE_ALIAS != 1:
        return False
    parts.put("states", Match(state_names(states, _STATE_BITS), bool(inverted & 1)))
    return True


def _state(parts: Parts, info: bytes) -> bool:
    parts.put("states", Match(state_names(struct.unpack_from("=I", info)[0], _OLD_STATE_BITS)))
    return True


def put_ports(parts: Parts, field: str, port_range: tuple[int, int], negated: bool) -> None:
    """Put a condition on ports, unless it holds for every port."""
    if port_range != (0, 0xFFFF) or negated:
        parts.put(field, Match(ports(*port_range), negated))


def _tcp(parts: Parts, info: bytes) -> bool:
    sources, destinations = struct.unpack_from("=HH", info), struct.unpack_from("=HH", info, 4)
    option, flag_mask, flag_compare, inverted = struct.unpack_from("=BBBB", info, 8)
    if option or flag_mask or flag_compare or inverted & ~3:
        return False
    put_ports(parts, "source_ports", sources, bool(inverted & 1))
    put_ports(parts, "destination_ports", destinations, bool(inverted & 2))
    return True


def _udp(parts: Parts, info: bytes) -> bool:
    sources, destinations = struct.unpack_from("=HH", info), struct.unpack_from("=HH", info, 4)
    inverted = info[8]
    if inverted & ~3:
        return False
    put_ports(parts, "source_ports", sources, bool(inverted & 1))
    put_ports(parts, "destination_ports", destinations, bool(inverted & 2))
    return True


def _sctp(parts: Parts, info: bytes) -> bool:
    destinations, sources = struct.unpack_from("=HH", info), struct.unpack_from("=HH", info, 4)
    flags, inverted = struct.unpack_from("=II", info, 8 + 256 + 4 + 12 + 4)
    if (flags | inverted) & ~3:  # chunk types
        return False
    if flags & 1:
        put_ports(parts, "source_ports", sources, bool(inverted & 1))
    if flags & 2:
        put_ports(parts, "destination_ports", destinations, bool(inverted & 2))
    return True


def _comment(parts: Parts, info: bytes) -> bool:
    parts.put("comment", name_of(info))
    return True


def _mark(parts: Parts, info: bytes) -> bool:
    mark, mask, inverted = struct.unpack_from("=IIB", info)
    put_mark(parts, mark, mask, bool(inverted))
    return True


def put_mark(parts: Parts, mark: int, mask: int, negated: bool) -> None:
    """Put a condition on the packet's mark."""
    parts.put("mark", Match(f"{mark:#x}" if mask == 0xFFFFFFFF else f"{mark:#x}/{mask:#x}", negated))


def _old_range(parts: Parts, info: bytes) -> bool:
    # struct nf_nat_ipv4_multi_range_compat
    count, flags, first, last, low, high = struct.unpack_from("=II4s4s2s2s", info)
    if count != 1:
        return False
    return put_range(parts, flags, (first, last), (_big(low), _big(high)))


def _range(parts: Parts, info: bytes) -> bool:
    # struct nf_nat_range, and the beginning of nf_nat_range2, whose base_proto must then be 0.
    flags, first, last, low, high = struct.unpack_from("=I16s16s2s2s", info)
    if any(info[40:]):
        return False
    if parts.family == "ip":
        first, last = first[:4], last[:4]
    return put_range(parts, flags, (first, last), (_big(low), _big(high)))


def _big(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _reject(parts: Parts, info: bytes) -> bool:
    names = REJECT6 if parts.family == "ip6" else REJECT4
    parts.put("options", (f"--reject-with {names[struct.unpack_from('=I', info)[0]]}",))
    return True


def _log(parts: Parts, info: bytes) -> bool:
    level, flags = info[0], info[1]
    put_log(parts, name_of(info[2:32]), level, flags)
    return True


def put_log(parts: Parts, prefix: str, level: int, flags: int) -> None:
    """Put the options of LOG that are not the default (level 4 is warning)."""
    options = [f'--log-prefix "{prefix}"'] if prefix else []
    options += [f"--log-level {level}"] if level != 4 else []
    options += [f"--log-flags {flags:#x}"] if flags else []
    if options:
        parts.put("options", tuple(options))


def _checksum(parts: Parts, info: bytes) -> bool:
    if info[0] != 1:
        return False
    parts.put("options", ("--checksum-fill",))
    return True


def _one_range(parts: Parts, info: bytes) -> bool:
    return _range(parts, info) if parts.family == "ip6" else _old_range(parts, info)


_Decode = Callable[[Parts, bytes], bool]

# (name, revision): the sizes of the structure in bytes, before alignment to 8, and its decoder. A
# structure of another size is another structure.
_MATCHES: dict[tuple[str, int], tuple[tuple[int, ...], _Decode]] = {
    ("addrtype", 1): ((8,), _addrtype),
    ("conntrack", 2): ((156,), _conntrack),
    ("conntrack", 3): ((164,), _conntrack),
    ("state", 0): ((4,), _state),
    ("tcp", 0): ((12,), _tcp),
    ("udp", 0): ((10,), _udp),
    ("sctp", 0): ((292,), _sctp),
    ("comment", 0): ((256,), _comment),
    ("mark", 1): ((12,), _mark),
}
_TARGETS: dict[tuple[str, int], tuple[tuple[int, ...], _Decode]] = {
    ("DNAT", 0): ((20,), _old_range),
    ("DNAT", 1): ((40,), _range),
    ("DNAT", 2): ((44,), _range),
    ("SNAT", 0): ((20,), _old_range),
    ("SNAT", 1): ((40,), _range),
    ("SNAT", 2): ((44,), _range),
    ("MASQUERADE", 0): ((20, 40), _one_range),
    ("REDIRECT", 0): ((20, 40), _one_range),
    ("REJECT", 0): ((4,), _reject),
    ("LOG", 0): ((32,), _log),
    ("CHECKSUM", 0): ((1,), _checksum),
}
