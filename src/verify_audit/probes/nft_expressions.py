"""A rule of nf_tables, decoded to what it means.

A rule is a little program: expressions load parts of the packet into registers, mask and compare them,
and act. iptables-nft, nft and Docker itself write the same condition in different ways; the decoder runs
the program on registers whose contents are only described. What it does not understand is opaque.

References: include/uapi/linux/netfilter/nf_tables.h and nf_tables_compat.h; iptables/nft-shared.c and
nft.c for how iptables-nft writes a rule.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from verify_audit.host.firewall import ADDRESS_TYPES, PROTOCOLS, Match, RuleSpec, one_of, ports
from verify_audit.probes import xtables
from verify_audit.probes.xtables import Parts, interface, name_of

_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes (type, value) in `data`. ValueError or struct.error when one is cut."""
    offset = 0
    while offset < len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > len(data):
            raise ValueError(f"attribute {kind & 0x3FFF} of {length} bytes at {offset} of {len(data)}")
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def by_type(data: bytes) -> dict[int, bytes]:
    """The attributes by their type. Raises as attributes() does."""
    return dict(attributes(data))


def number(raw: bytes) -> int:
    """A number as nf_tables gives it, in network order."""
    return int.from_bytes(raw, "big")


def decode(
    family: str, expressions: bytes, user_data: bytes, interfaces: Mapping[str, Sequence[str]] = _NONE
) -> RuleSpec:
    """What a rule means.

    expressions, user_data: the attributes NFTA_RULE_EXPRESSIONS and NFTA_RULE_USERDATA. interfaces: the sets
    of interfaces in its table that are known. Raises ValueError, KeyError or struct.error when something is
    cut or not of that form.
    """
    decoder = _Decoder(family, interfaces)
    for _, element in attributes(expressions):
        expression = by_type(element)
        decoder.take(name_of(expression[1]), by_type(expression.get(2, b"")))
    return decoder.finish(user_data)


def element_spec(element: dict[int, bytes], *, named: bool) -> RuleSpec:
    """What an element of a verdict map does with what has its key; named: the key is an interface's name.

    Raises as decode() does.
    """
    # The end of an interval has none.
    target, goto = _verdict(by_type(by_type(element[2])[2])) if 2 in element else ("", False)
    key = by_type(element[1])[1] if 1 in element else b""
    text = interface(key) if named and key else key.hex()
    # Flags (the end of an interval, a catch-all) and the end of a range.
    opaque = tuple(f"{kind}:{element[kind].hex()}" for kind in (3, 10) if kind in element)
    return RuleSpec(target=target, goto=goto, key=text or "*", opaque=opaque)


def interface_in(element: dict[int, bytes]) -> str | None:
    """The interface that an element of a set names; None when it is more than a name."""
    if 3 in element or 10 in element or 1 not in element:
        return None
    return interface(by_type(element[1])[1])


def _verdict(verdict: dict[int, bytes]) -> tuple[str, bool]:
    """The target of a verdict, and whether it is a goto."""
    code = struct.unpack(">i", verdict[1])[0]
    if code in (_JUMP, _GOTO):
        return name_of(verdict[2]), code == _GOTO
    return _VERDICTS.get(code, f"verdict {code}"), False


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a register holds: bytes of the packet or about it, perhaps masked, or a constant."""

    what: str
    base: int = 0
    offset: int = 0
    length: int = 0
    mask: bytes | None = None
    constant: bytes = b""

    def __str__(self) -> str:
        place = f"@{self.base},{self.offset},{self.length}" if self.what == "payload" else ""
        return f"{self.what}{place}" + (f"&{self.mask.hex()}" if self.mask is not None else "")


# enum nft_meta_keys, nft_ct_keys, nft_cmp_ops, nft_payload_bases
_META = {3: "mark", 4: "iif", 5: "oif", 6: "iifname", 7: "oifname", 15: "nfproto", 16: "l4proto"}
_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
# family: (field, offset, length) in the network header
_ADDRESSES = {
    "ip": (("source", 12, 4), ("destination", 16, 4)),
    "ip6": (("source", 8, 16), ("destination", 24, 16)),
}
_PROTOCOL_AT = {"ip": 9, "ip6": 6}
_PORTS = (("source_ports", 0, 2), ("destination_ports", 2, 2))
_INTERFACES = {"iifname": "in_interface", "oifname": "out_interface"}
_WITH_PORTS = ("tcp", "udp", "sctp", "dccp", "udplite")
_VERDICTS = {0: "DROP", 1: "ACCEPT", 2: "STOLEN", 3: "QUEUE", 4: "REPEAT", -1: "CONTINUE", -5: "RETURN"}
_JUMP, _GOTO = -3, -4
# NF_CT_STATE_BIT in native expressions is that of enum ip_conntrack_info plus the `invalid` bit.
_CT_STATES = {1: "INVALID", 2: "ESTABLISHED", 4: "RELATED", 8: "NEW", 64: "UNTRACKED"}
_FIB_ADDRTYPE, _FIB_SADDR, _FIB_DADDR = 3, 1, 2
_UNREACHABLE4 = {0: 0, 1: 1, 2: 2, 3: 3, 9: 5, 10: 6, 13: 8}
_UNREACHABLE6 = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


class _Decoder:
    """Runs a rule's expressions as the kernel does, on register contents that are not known yet."""

    def __init__(self, family: str, interfaces: Mapping[str, Sequence[str]]) -> None:
        self._parts = Parts(family)
        self._interfaces = interfaces
        self._family = family
        self._registers: dict[int, _Loaded] = {}
        self._at_least: dict[_Loaded, bytes] = {}

    def take(self, name: str, data: dict[int, bytes]) -> None:
        """One expression. An unknown one, or an unknown use of a known one, becomes opaque."""
        known = getattr(self, f"_{name}", None) if name in _EXPRESSIONS else None
        if self._parts.get("target") is not None and name != "counter":
            # A condition that stands behind the verdict is none, and a second verdict is never reached.
            self._opaque(f"after {self._parts.get('target')}: {name}")
        elif known is None:
            self._opaque(name + "".join(f" {kind}:{value.hex()}" for kind, value in data.items()))
        else:
            known(data)

    def finish(self, user_data: bytes) -> RuleSpec:
        """The rule, with the comment that user space left beside it (NFTNL_UDATA_RULE_COMMENT is 0)."""
        for loaded, lowest in self._at_least.items():
            self._opaque(f"{loaded} >= {lowest.hex()}")
        if len(user_data) > 2 and user_data[0] == 0:
            self._parts.put("comment", name_of(user_data[2 : 2 + user_data[1]]))
        return self._parts.spec()

    def _opaque(self, text: str) -> None:
        self._parts.opaque.append(text)

    # Registers: the four of 16 bytes and the sixteen of 4 bytes are the same storage.

    def _load(self, data: dict[int, bytes], register: int, loaded: _Loaded) -> None:
        self._registers[_place(data[register])] = loaded

    def _loaded(self, register: bytes) -> _Loaded:
        return self._registers.get(_place(register), _Loaded("unset"))

    def _meta(self, data: dict[int, bytes]) -> None:
        key = number(data[2])
        if 1 in data:
            self._load(data, 1, _Loaded(_META.get(key, f"meta {key}")))
        else:
            self._opaque(f"meta {_META.get(key, key)} set {self._loaded(data[3])}")

    def _payload(self, data: dict[int, bytes]) -> None:
        if 1 in data:
            base, offset, length = (number(data[kind]) for kind in (2, 3, 4))
            self._load(data, 1, _Loaded("payload", base, offset, length))
        else:
            self._opaque(f"payload set {self._loaded(data[5])}")

    def _ct(self, data: dict[int, bytes]) -> None:
        key = number(data[2])
        if 1 in data and key == 0:
            self._load(data, 1, _Loaded("ct state"))
        elif 1 in data:
            self._load(data, 1, _Loaded(f"ct {key} {number(data.get(3, b''))}"))
        else:
            self._opaque(f"ct {key} set")

    def _fib(self, data: dict[int, bytes]) -> None:
        result, flags = number(data[2]), number(data[3])
        what = {_FIB_SADDR: "saddr type", _FIB_DADDR: "daddr type"}.get(flags)
        if result != _FIB_ADDRTYPE or what is None:
            what = f"fib {result} {flags:#x}"
        self._load(data, 1, _Loaded(what))

    def _bitwise(self, data: dict[int, bytes]) -> None:
        loaded = self._loaded(data[1])
        operation = number(data.get(6, b""))
        mask = by_type(data[4])[1] if 4 in data else b""
        xor = by_type(data[5])[1] if 5 in data else b""
        if operation or any(xor) or loaded.mask is not None or not mask:
            self._load(data, 2, _Loaded(f"bitwise {operation} {mask.hex()} {xor.hex()} of {loaded}"))
        else:
            masked = _Loaded(loaded.what, loaded.base, loaded.offset, loaded.length, mask)
            self._load(data, 2, masked)

    def _byteorder(self, data: dict[int, bytes]) -> None:
        self._load(data, 2, _Loaded(f"byteorder of {self._loaded(data[1])}"))

    # Conditions

    def _cmp(self, data: dict[int, bytes]) -> None:
        loaded, operator, value = self._loaded(data[1]), number(data[2]), by_type(data[3])[1]
        lowest = self._at_least.get(loaded)
        if operator == _GTE and lowest is None:
            self._at_least[loaded] = value
        elif operator == _LTE and lowest is not None:
            del self._at_least[loaded]
            self._between(loaded, lowest, value, negated=False)
        elif operator not in (_EQ, _NEQ) or not self._compare(loaded, value, operator == _NEQ):
            sign = _OPERATORS[operator] if operator < len(_OPERATORS) else str(operator)
            self._opaque(f"{loaded} {sign} {value.hex()}")

    def _range(self, data: dict[int, bytes]) -> None:
        lowest, highest = (by_type(data[kind])[1] for kind in (3, 4))
        self._between(self._loaded(data[1]), lowest, highest, negated=number(data[2]) == 1)

    def _between(self, loaded: _Loaded, lowest: bytes, highest: bytes, *, negated: bool) -> None:
        for field, offset, length in _PORTS:
            if self._is_port(loaded) and (loaded.offset, loaded.length) == (offset, length):
                self._parts.put(field, Match(ports(number(lowest), number(highest)), negated))
                return
        self._opaque(f"{loaded} {'!' if negated else ''}{lowest.hex()}-{highest.hex()}")

    def _compare(self, loaded: _Loaded, value: bytes, negated: bool) -> bool:
        """Put what a comparison says; False when it is not one that is known."""
        if loaded.what == "payload":
            return self._compare_payload(loaded, value, negated)
        if loaded.what == "mark":
            mask = int.from_bytes(loaded.mask, sys.byteorder) if loaded.mask is not None else 0xFFFFFFFF
            xtables.put_mark(self._parts, int.from_bytes(value, sys.byteorder), mask, negated)
            return True
        if loaded.what == "ct state":
            return self._compare_state(loaded, value, negated)
        return loaded.mask is None and self._compare_whole(loaded, value, negated)

    def _compare_whole(self, loaded: _Loaded, value: bytes, negated: bool) -> bool:
        match loaded.what:
            case "iifname":
                field, text = "in_interface", interface(value)
            case "oifname":
                field, text = "out_interface", interface(value)
            case "l4proto" if len(value) == 1:
                field, text = "protocol", PROTOCOLS.get(value[0], str(value[0]))
            case "saddr type" if len(value) == 4:
                field, text = "source_type", _address_type(value)
            case "daddr type" if len(value) == 4:
                field, text = "destination_type", _address_type(value)
            case _:
                return False
        self._parts.put(field, Match(text, negated))
        return True

    def _compare_state(self, loaded: _Loaded, value: bytes, negated: bool) -> bool:
        # `ct state related,established` is "and with the mask is not 0", its negation "is 0".
        if loaded.mask is None or any(value):
            return False
        bits = int.from_bytes(loaded.mask, sys.byteorder)
        if bits & ~sum(_CT_STATES):
            return False
        self._parts.put("states", Match(xtables.state_names(bits, _CT_STATES), not negated))
        return True

    def _compare_payload(self, loaded: _Loaded, value: bytes, negated: bool) -> bool:
        fields: tuple[tuple[str, int, int], ...] = ()
        if loaded.base == _NETWORK_HEADER:
            at = _PROTOCOL_AT.get(self._family)
            if (loaded.offset, loaded.length, loaded.mask) == (at, 1, None) and len(value) == 1:
                self._parts.put("protocol", Match(PROTOCOLS.get(value[0], str(value[0])), negated))
                return True
            fields = _ADDRESSES.get(self._family, ())
        elif self._is_port(loaded):
            fields = _PORTS
        if len(value) != loaded.length or (loaded.mask is not None and len(loaded.mask) != len(value)):
            return False
        # Two fields that lie side by side can be compared at once, but then cannot be negated one by one.
        offset, found = loaded.offset, []
        for field, start, length in fields:
            if offset == start and offset < loaded.offset + loaded.length:
                here = slice(offset - loaded.offset, offset - loaded.offset + length)
                part, mask = value[here], loaded.mask[here] if loaded.mask is not None else None
                text = self._field(field, part, mask, length)
                if text is None:
                    return False
                found.append((field, text))
                offset += len(part)
        if offset != loaded.offset + loaded.length or not found or (negated and len(found) > 1):
            return False
        for field, text in found:
            self._parts.put(field, Match(text, negated))
        return True

    @staticmethod
    def _field(field: str, value: bytes, mask: bytes | None, length: int) -> str | None:
        if field in ("source_ports", "destination_ports"):
            return str(number(value)) if mask is None and len(value) == 2 else None
        bits = mask if mask is not None else b"\xff" * len(value)
        width = 8 * length
        whole = number(bits.ljust(length, b"\0"))
        prefix = whole.bit_count()
        if whole != ((1 << prefix) - 1) << (width - prefix):
            return None
        return f"{ipaddress.ip_address(value.ljust(length, bytes(1)))}/{prefix}"

    def _is_port(self, loaded: _Loaded) -> bool:
        protocol = self._parts.get("protocol")
        return (
            loaded.what == "payload"
            and loaded.base == _TRANSPORT_HEADER
            and loaded.mask is None
            and protocol is not None
            and not protocol.negated
            and protocol.value in _WITH_PORTS
        )

    def _lookup(self, data: dict[int, bytes]) -> None:
        name, loaded = name_of(data[1]), self._loaded(data[2])
        if 3 in data and _place(data[3]) == _VERDICT:
            self._parts.put("target", f"vmap @{name}")
            self._parts.put("options", (str(loaded),))
        else:
            negated = bool(number(data.get(5, b"")) & 1)
            field = _INTERFACES.get(loaded.what)
            if field is not None and loaded.mask is None and name in self._interfaces and 3 not in data:
                self._parts.put(field, Match(one_of(self._interfaces[name]), negated))
                return
            self._opaque(f"{loaded} {'!=' if negated else '=='} @{name}")
            if 3 in data:
                self._load(data, 3, _Loaded(f"element of @{name}"))

    def _match(self, data: dict[int, bytes]) -> None:
        xtables.match(self._parts, name_of(data[1]), number(data[2]), data[3])

    # What is done

    def _target(self, data: dict[int, bytes]) -> None:
        xtables.target(self._parts, name_of(data[1]), number(data[2]), data[3])

    def _counter(self, data: dict[int, bytes]) -> None:
        """Counts change with the traffic and mean nothing here."""

    def _immediate(self, data: dict[int, bytes]) -> None:
        value = by_type(data[2])
        if 2 not in value:
            self._load(data, 1, _Loaded("constant", constant=value[1]))
            return
        target, goto = _verdict(by_type(value[2]))
        self._parts.put("target", target)
        if goto:
            self._parts.put("goto", True)

    def _constant(self, data: dict[int, bytes], kind: int) -> bytes | None:
        if kind not in data:
            return None
        loaded = self._loaded(data[kind])
        if loaded.what != "constant":
            self._opaque(f"to {loaded}")
            return None
        return loaded.constant

    def _nat(self, data: dict[int, bytes]) -> None:
        self._parts.put("target", "DNAT" if number(data[1]) == 1 else "SNAT")
        low, high = self._constant(data, 3), self._constant(data, 4)
        self._put_range(data, 7, (low, high), (5, 6))

    def _masq(self, data: dict[int, bytes]) -> None:
        self._parts.put("target", "MASQUERADE")
        self._put_range(data, 1, (None, None), (2, 3))

    def _redir(self, data: dict[int, bytes]) -> None:
        self._parts.put("target", "REDIRECT")
        self._put_range(data, 3, (None, None), (1, 2))

    def _put_range(
        self,
        data: dict[int, bytes],
        flags: int,
        addresses: tuple[bytes | None, bytes | None],
        at: tuple[int, int],
    ) -> None:
        low, high = addresses
        first, last = (self._constant(data, kind) for kind in at)
        # The kernel sets these two bits itself from what is there (nft_nat_init).
        bits = number(data.get(flags, b"")) & ~(xtables.MAP_IPS | xtables.PROTO_SPECIFIED)
        bits |= (xtables.MAP_IPS if low else 0) | (xtables.PROTO_SPECIFIED if first else 0)
        pair = (low or b"", high or low or b"")
        numbers = (number((first or b"")[:2]), number((last or first or b"")[:2]))
        if not xtables.put_range(self._parts, bits, pair, numbers):
            self._opaque(f"range flags {bits:#x}")

    def _reject(self, data: dict[int, bytes]) -> None:
        self._parts.put("target", "REJECT")
        kind, code = number(data[1]), number(data.get(2, b""))
        names = xtables.REJECT6 if self._family == "ip6" else xtables.REJECT4
        codes = _UNREACHABLE6 if self._family == "ip6" else _UNREACHABLE4
        if kind == 1:
            self._parts.put("options", ("--reject-with tcp-reset",))
        elif kind == 0 and code in codes and self._family in ("ip", "ip6"):
            self._parts.put("options", (f"--reject-with {names[codes[code]]}",))
        else:
            self._opaque(f"reject {kind} {code}")

    def _log(self, data: dict[int, bytes]) -> None:
        if 1 in data:
            self._parts.put("target", "NFLOG")
            self._opaque("group " + str(number(data[1])))
            return
        self._parts.put("target", "LOG")
        prefix = name_of(data.get(2, b""))
        xtables.put_log(self._parts, prefix, number(data.get(5, b"\4")), number(data.get(6, b"")))


_EXPRESSIONS = frozenset(
    (
        *("meta", "payload", "ct", "fib", "bitwise", "byteorder", "cmp", "range", "lookup", "match"),
        *("target", "counter", "immediate", "nat", "masq", "redir", "reject", "log"),
    )
)
_VERDICT = -1


def _place(register: bytes) -> int:
    """Where in the register file a register begins, in bytes; _VERDICT for the verdict register."""
    name = number(register)
    if name == 0:
        return _VERDICT
    return (name - 1) * 16 if name < 8 else (name - 8) * 4


def _address_type(value: bytes) -> str:
    kind = int.from_bytes(value, sys.byteorder)
    return ADDRESS_TYPES[kind] if kind < len(ADDRESS_TYPES) else str(kind)
