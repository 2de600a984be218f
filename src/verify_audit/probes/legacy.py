"""The legacy (x_tables) firewall through python-iptables: read() copies it, parse() decodes the copy.

To read a legacy table that is not there makes the kernel load and register it, and that writes an audit
record: a verifier would raise the alerts that it is to judge. So only tables are read that the kernel
lists already, and without one python-iptables is not even imported. Its import would run ldconfig, gcc
and modprobe; libraries are named here instead. Only libiptc's reading calls are used, with autocommit
off; what a rule means is decoded here, from the kernel's structures.

References: include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h; libiptc;
python-iptables 1.2.0, iptc/util.py, xtables.py, ip4tc.py.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import ipaddress
import os
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify_audit.host.firewall import (
    PROTOCOLS,
    Backend,
    Chain,
    Firewall,
    FirewallRule,
    Match,
    RuleSpec,
    Table,
)
from verify_audit.probes import xtables
from verify_audit.probes.xtables import Parts, interface, name_of

_LISTS = {"ip": "ip_tables_names", "ip6": "ip6_tables_names"}
_HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
# The file names of the libraries that python-iptables looks for, newest first.
_LIBRARIES = {
    "xtables": ("libxtables.so.12", "libxtables.so.11", "libxtables.so.10"),
    "ip4tc": ("libip4tc.so.2", "libip4tc.so.0"),
    "ip6tc": ("libip6tc.so.2", "libip6tc.so.0"),
    "c": ("libc.so.6", "libc.so"),
}
# libiptc keeps state of its own, and python-iptables one object for each table.
_ONE_AT_A_TIME = threading.Lock()


class LegacyError(Exception):
    """Legacy tables are there and could not be read. remedy: what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule: the name of its target, as libiptc resolves it, and its struct ipt_entry or ip6t_entry."""

    target: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class CopiedChain:
    """A chain. policy is None for one that is not built in."""

    name: str
    policy: str | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table as it was read."""

    family: str
    name: str
    chains: tuple[CopiedChain, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Every legacy table of a network namespace."""

    netns: int
    tables: tuple[CopiedTable, ...] = ()


def read(netns: int, lists: Path = Path("/proc/thread-self/net")) -> Copy:
    """Every legacy table that the calling thread's network namespace has; none is a whole answer too.

    netns is only noted. lists: the directory with ip_tables_names. Raises LegacyError.
    """
    found = [(family, table) for family in _LISTS for table in _listed(lists / _LISTS[family])]
    if not found:
        return Copy(netns)
    with _ONE_AT_A_TIME:
        modules = _python_iptables()
        try:
            return Copy(netns, tuple(_table(modules, family, table) for family, table in found))
        except Exception as error:  # python-iptables has no one base for its errors
            raise LegacyError(
                f"python-iptables cannot read the legacy tables: {error}", "run as root, with CAP_NET_ADMIN"
            ) from error


def _listed(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:  # the module is not loaded
        return []
    except OSError as error:
        raise LegacyError(f"{path}: {error.strerror}", "run as root") from error


def _python_iptables() -> dict[str, Any]:
    """The Table classes of python-iptables by family. Raises LegacyError."""
    try:
        with _quiet_import():
            if "iptc" not in sys.modules:
                spec = importlib.util.find_spec("iptc")
                if spec is None:
                    raise LegacyError("python-iptables is not installed", "pip install python-iptables")
                # The package unexecuted, so that its `util` can be had before the rest uses it.
                sys.modules["iptc"] = importlib.util.module_from_spec(spec)
            try:
                util: Any = importlib.import_module("iptc.util")
                util._load_ko = _no_module_is_loaded
                tables: dict[str, Any] = {
                    "ip": importlib.import_module("iptc.ip4tc").Table,
                    "ip6": importlib.import_module("iptc.ip6tc").Table6,
                }
            except BaseException:
                for name in [name for name in sys.modules if name.partition(".")[0] == "iptc"]:
                    del sys.modules[name]
                raise
    except LegacyError:
        raise
    except Exception as error:
        raise LegacyError(
            f"python-iptables does not load: {error!r}",
            "install libxtables, libip4tc and libip6tc (Debian: libxtables12 libip4tc2 libip6tc2)",
        ) from error
    return tables


def _no_module_is_loaded(_name: str) -> tuple[int, None]:
    return 0, None


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Libraries are found by name, extensions not looked for: no child process, no compiler warnings."""
    find_library = ctypes.util.find_library
    directory = os.environ.get("XTABLES_LIBDIR")
    ctypes.util.find_library = _find_library
    # Where there is no distutils, python-iptables asks sysconfig; setuptools would bring one in, in 0.1 s.
    hide = "distutils" not in sys.modules
    modules: dict[str, Any] = sys.modules
    if hide:
        modules["distutils"] = None
    if directory is None:
        # Extensions are not used; without a directory python-iptables asks ldconfig for one.
        os.environ["XTABLES_LIBDIR"] = "/usr/lib/xtables"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ctypes.util.find_library = find_library
        if hide:
            del modules["distutils"]
        if directory is None:
            del os.environ["XTABLES_LIBDIR"]


def _find_library(name: str) -> str | None:
    for file in _LIBRARIES.get(name, ()):
        try:
            ctypes.CDLL(file)
        except OSError:
            continue
        return file
    return None


def _table(classes: dict[str, Any], family: str, name: str) -> CopiedTable:
    table = classes[family](name, autocommit=False)
    table.refresh()  # the object is kept from an earlier look, perhaps in another namespace
    try:
        return CopiedTable(family, name, tuple(_chain(table, chain.name) for chain in table.chains))
    finally:
        table.close()


def _chain(table: Any, name: str) -> CopiedChain:
    policy = table.get_policy(name)[0] if table.builtin_chain(name) else None
    entries = []
    entry = table.first_rule(name)
    while entry:
        raw = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
        entries.append(Entry((table.get_target(entry) or b"").decode("utf-8", "surrogateescape"), raw))
        entry = table.next_rule(entry)
    return CopiedChain(name, policy.name if policy else None, tuple(entries))


def parse(copy: Copy) -> Firewall:
    """The firewall in a copy. LegacyError for an entry that is cut or malformed."""
    tables, chains, rules = [], [], []
    for table in copy.tables:
        tables.append(Table(Backend.LEGACY, table.family, table.name))
        for chain in table.chains:
            hook = _HOOKS.get(chain.name) if chain.policy else None
            place = (Backend.LEGACY, table.family, table.name, chain.name)
            chains.append(Chain(*place, None, hook, chain.policy))
            for entry in chain.entries:
                try:
                    spec = _spec(table.family, entry)
                except (struct.error, ValueError, IndexError) as error:
                    raise LegacyError(
                        f"a rule of {table.name} {chain.name} cannot be read: {error}", "report this"
                    ) from error
                rules.append(FirewallRule(*place, None, spec, entry.raw.hex()))
    return Firewall(copy.netns, tuple(tables), tuple(chains), tuple(rules))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in an entry, in bytes: struct ipt_entry and ip6t_entry."""

    address: int
    interfaces: int
    protocol: int
    flags: int
    inverted: int
    offsets: int
    matches: int
    goto: int


_LAYOUTS = {
    "ip": _Layout(4, 16, 80, 82, 83, 88, 112, 2),
    "ip6": _Layout(16, 64, 128, 131, 132, 140, 168, 4),
}
_HEADER = 32  # struct xt_entry_match, xt_entry_target
_INV_IN, _INV_OUT, _INV_SOURCE, _INV_DESTINATION, _INV_PROTOCOL = 1, 2, 8, 16, 64
_INV_KNOWN = 1 | 2 | 8 | 16 | 64
_IFNAMSIZ = 16


def _spec(family: str, entry: Entry) -> RuleSpec:
    raw, at, parts = entry.raw, _LAYOUTS[family], Parts(family)
    target_offset, next_offset = struct.unpack_from("=HH", raw, at.offsets)
    if next_offset != len(raw) or not at.matches <= target_offset <= len(raw) - _HEADER:
        raise ValueError(f"an entry of {len(raw)} bytes says {target_offset} and {next_offset}")
    number, flags, inverted = struct.unpack_from("=H", raw, at.protocol)[0], raw[at.flags], raw[at.inverted]
    for field, index, bit in (("source", 0, _INV_SOURCE), ("destination", 1, _INV_DESTINATION)):
        address = raw[index * at.address : (index + 1) * at.address]
        mask = raw[(index + 2) * at.address : (index + 3) * at.address]
        if any(mask) or inverted & bit:
            parts.put(field, Match(_network(address, mask), bool(inverted & bit)))
    for field, index, bit in (("in_interface", 0, _INV_IN), ("out_interface", 1, _INV_OUT)):
        start = at.interfaces + index * _IFNAMSIZ
        length = raw[start + 2 * _IFNAMSIZ : start + 3 * _IFNAMSIZ].count(0xFF)
        if length:
            parts.put(field, Match(interface(raw[start : start + length]), bool(inverted & bit)))
    if number:
        parts.put("protocol", Match(PROTOCOLS.get(number, str(number)), bool(inverted & _INV_PROTOCOL)))
    known = at.goto | (1 if family == "ip6" else 0)  # IP6T_F_PROTO says that the protocol is compared
    if flags & ~known or inverted & ~_INV_KNOWN:
        parts.opaque.append(f"flags {flags:#x} {inverted:#x}")
    offset = at.matches
    while offset < target_offset:
        size, name, revision, info = _extension(raw, offset, target_offset)
        xtables.match(parts, name, revision, info)
        offset += size
    _, name, revision, info = _extension(raw, target_offset, next_offset)
    if name:
        xtables.target(parts, name, revision, info)
    elif entry.target:
        parts.put("target", entry.target)
        if flags & at.goto:
            parts.put("goto", True)
    return parts.spec()


def _network(address: bytes, mask: bytes) -> str:
    bits = int.from_bytes(mask, "big")
    width = 8 * len(mask)
    prefix = bits.bit_count()
    if bits != ((1 << prefix) - 1) << (width - prefix):
        return f"{ipaddress.ip_address(address)}/{ipaddress.ip_address(mask)}"
    return f"{ipaddress.ip_address(address)}/{prefix}"


def _extension(raw: bytes, offset: int, end: int) -> tuple[int, str, int, bytes]:
    size = struct.unpack_from("=H", raw, offset)[0]
    if size < _HEADER or offset + size > end:
        raise ValueError(f"an extension of {size} bytes at {offset} of {end}")
    return (
        size,
        name_of(raw[offset + 2 : offset + 31]),
        raw[offset + 31],
        raw[offset + _HEADER : offset + size],
    )
