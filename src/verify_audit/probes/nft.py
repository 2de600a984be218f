"""nf_tables over netlink: read() asks the kernel for every table, chain and rule, parse() decodes them.

Of sets only those are asked for that say where a rule of Docker's tables leads: verdict maps, and the
nameless sets of interfaces.

Only dumps are asked for, so nothing is changed, nothing is logged and no audit record is written. The
attributes are taken apart here and not by pyroute2's nftsocket, for three reasons: that module brings
asyncio with it (60 ms), it stops at a cut attribute without a word, and it reads the flags of `fib` and
the user data of a rule wrongly (0.9.7). What is not understood becomes opaque; what is cut is an error.

References: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c and nfnetlink.c.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule, Table
from verify_audit.probes.netlink import NETLINK_NETFILTER, NLM_F_DUMP, NetlinkError, request
from verify_audit.probes.nft_expressions import attributes as list_of
from verify_audit.probes.nft_expressions import by_type, decode, element_spec, interface_in, number
from verify_audit.probes.xtables import name_of

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETTABLE = _SUBSYSTEM | 1
_GETCHAIN = _SUBSYSTEM | 4
_GETRULE = _SUBSYSTEM | 7
_GETSET = _SUBSYSTEM | 10
_GETSETELEM = _SUBSYSTEM | 13
_GETGEN = _SUBSYSTEM | 16
_NEWTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM, _NEWGEN = (
    _SUBSYSTEM | number for number in (0, 3, 6, 9, 12, 15)
)
_ANY_FAMILY = struct.pack("=BBH", 0, 0, 0)  # struct nfgenmsg
_ATTEMPTS = 5
# No netfilter netlink at all, or no such part of it (nfnetlink_rcv_msg).
_NO_NF_TABLES = (errno.EPROTONOSUPPORT, errno.EINVAL)

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_OTHER_HOOKS = {"arp": ("input", "output", "forward"), "netdev": ("ingress", "egress")}
_POLICIES = {0: "DROP", 1: "ACCEPT"}
# A verdict leads within its table, so these are the tables in which one can lead to a chain of Docker's.
_ELEMENTS_OF = frozenset(("docker-bridges", "filter", "nat", "raw", "mangle", "security"))
_ANONYMOUS, _INTERVAL, _MAP = 1, 4, 8  # enum nft_set_flags
_VERDICT_DATA = 0xFFFFFF00  # NFT_DATA_VERDICT
_IFNAME = 41  # nft's own number for the type of a key (datatype.h, TYPE_IFNAME)
_NAME_LENGTH = 16  # IFNAMSIZ


@dataclass(frozen=True, slots=True)
class Replies:
    """What the kernel answered, whole messages with their headers.

    netns: inode number of the namespace. generation: the reply to NFT_MSG_GETGEN, empty when this
    kernel holds no nf_tables, and then there are no rules of it either.
    """

    netns: int
    generation: bytes
    tables: tuple[bytes, ...] = ()
    chains: tuple[bytes, ...] = ()
    rules: tuple[bytes, ...] = ()
    sets: tuple[bytes, ...] = ()
    elements: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Set:
    """A set or map whose elements are of interest. named: its keys are names of interfaces."""

    family: int
    table: str
    name: str
    is_map: bool
    named: bool


def read(netns: int, timeout: float = 3.0) -> Replies:
    """Every table, chain and rule of the calling thread's network namespace, of all families.

    netns is only noted. timeout: seconds for each request. The dumps belong to one generation:
    when somebody changes rules meanwhile, all is asked again. Needs CAP_NET_ADMIN.

    Raises NetlinkError: EPERM without the capability, EBUSY when the rules never stood still.
    """
    if not _in_kernel():
        return Replies(netns, b"")
    for _ in range(_ATTEMPTS):
        try:
            before = request(NETLINK_NETFILTER, _GETGEN, 0, _ANY_FAMILY, timeout)[0]
            tables, chains, rules, sets = (
                tuple(request(NETLINK_NETFILTER, kind, NLM_F_DUMP, _ANY_FAMILY, timeout))
                for kind in (_GETTABLE, _GETCHAIN, _GETRULE, _GETSET)
            )
            elements = tuple(
                message
                for each in sets
                if (found := _set(each)) is not None
                for message in request(
                    NETLINK_NETFILTER, _GETSETELEM, NLM_F_DUMP, _elements_of(found), timeout
                )
            )
            after = request(NETLINK_NETFILTER, _GETGEN, 0, _ANY_FAMILY, timeout)[0]
        except NetlinkError as error:
            if error.code in (errno.EINTR, errno.ENOENT):  # ENOENT: a set went while it was looked at
                continue
            if error.code in _NO_NF_TABLES:
                return Replies(netns, b"")
            raise
        replies = Replies(netns, before, tables, chains, rules, sets, elements)
        if _generation(before) == _generation(after):
            return replies
    raise NetlinkError(errno.EBUSY, "the nf_tables rules changed each time that they were being read")


def _in_kernel() -> bool:
    """Whether nf_tables is loaded or built in: to ask a kernel without it would load the module.

    nfnetlink_rcv_msg() calls request_module() for a subsystem that is not there.
    """
    try:
        loaded = Path("/proc/modules").read_bytes()
    except OSError:
        return True  # a kernel without modules has none to load
    if any(line.startswith(b"nf_tables ") for line in loaded.splitlines()):
        return True
    try:
        built_in = Path(f"/lib/modules/{os.uname().release}/modules.builtin").read_bytes()
    except OSError:
        return True  # modprobe would find no module either
    return b"/nf_tables.ko" in built_in


def parse(replies: Replies) -> Firewall:
    """The firewall that the replies describe. NetlinkError for a cut or malformed one."""
    try:
        if not replies.generation:
            return Firewall(replies.netns)
        sets = {
            (found.family, found.table, found.name): found
            for message in replies.sets
            if (found := _set(message)) is not None
        }
        jumps, interfaces = _elements(replies.elements, sets)
        return Firewall(
            replies.netns,
            tuple(_table(message) for message in replies.tables),
            tuple(_chain(message) for message in replies.chains),
            (*(_rule(message, interfaces) for message in replies.rules), *jumps),
            _generation(replies.generation),
        )
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise NetlinkError(0, f"a reply of nf_tables cannot be read: {error!r}") from error


def _message(message: bytes, kind: int) -> tuple[str, dict[int, bytes]]:
    """The family and the attributes of a message of that kind."""
    length, found = struct.unpack_from("=IH", message)
    if length != len(message) or found != kind:
        raise ValueError(f"message of type {found:#x} and length {length}, {len(message)} bytes there")
    family = message[16]
    return FAMILIES.get(family, str(family)), by_type(message[20:])


def _generation(message: bytes) -> int:
    return number(_message(message, _NEWGEN)[1][1])


def _table(message: bytes) -> Table:
    family, attributes = _message(message, _NEWTABLE)
    return Table(
        Backend.NFT, family, name_of(attributes[1]), number(attributes[4]) if 4 in attributes else None
    )


def _chain(message: bytes) -> Chain:
    family, attributes = _message(message, _NEWCHAIN)
    hook = policy = None
    if 4 in attributes:
        names = _OTHER_HOOKS.get(family, _HOOKS)
        hooknum = number(by_type(attributes[4])[1])
        hook = names[hooknum] if hooknum < len(names) else str(hooknum)
    if 5 in attributes:
        policy = _POLICIES.get(number(attributes[5]), attributes[5].hex())
    handle = number(attributes[2])
    return Chain(Backend.NFT, family, name_of(attributes[1]), name_of(attributes[3]), handle, hook, policy)


def _rule(message: bytes, interfaces: _Interfaces) -> FirewallRule:
    family, attributes = _message(message, _NEWRULE)
    expressions = attributes.get(4, b"")
    table = name_of(attributes[1])
    spec = decode(family, expressions, attributes.get(7, b""), interfaces.get((message[16], table), {}))
    return FirewallRule(
        Backend.NFT,
        family,
        table,
        name_of(attributes[2]),
        number(attributes[3]),
        spec,
        expressions.hex(),
    )


_Interfaces = dict[tuple[int, str], dict[str, list[str]]]
"""By family and table: the nameless sets of interfaces, each with what is in it."""


def _set(message: bytes) -> _Set | None:
    """The set of a message, None when its elements say nothing of interest."""
    _, attributes = _message(message, _NEWSET)
    table, name = name_of(attributes[1]), name_of(attributes[2])
    flags = number(attributes.get(3, b""))
    if table not in _ELEMENTS_OF:
        return None
    named = number(attributes[4]) == _IFNAME and number(attributes[5]) == _NAME_LENGTH
    if flags & _MAP:
        is_verdict = number(attributes.get(6, b"")) == _VERDICT_DATA
        return _Set(message[16], table, name, True, named) if is_verdict else None
    is_simple = flags & _ANONYMOUS and not flags & _INTERVAL and named
    return _Set(message[16], table, name, False, named) if is_simple else None


def _elements_of(asked: _Set) -> bytes:
    """The body of a request for the elements of a set: NFTA_SET_ELEM_LIST_TABLE and _SET."""
    body = struct.pack("=BBH", asked.family, 0, 0)
    for kind, name in ((1, asked.table), (2, asked.name)):
        value = name.encode("utf-8", "surrogateescape") + b"\0"
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return body


def _elements(
    messages: tuple[bytes, ...], sets: dict[tuple[int, str, str], _Set]
) -> tuple[list[FirewallRule], _Interfaces]:
    """The elements of verdict maps, each as a rule, and those of the nameless sets of interfaces."""
    jumps: list[FirewallRule] = []
    interfaces: _Interfaces = {}
    odd: set[tuple[int, str, str]] = set()
    for message in messages:
        family, attributes = _message(message, _NEWSETELEM)
        key = (message[16], name_of(attributes[1]), name_of(attributes[2]))
        its = sets[key]
        for _, raw in list_of(attributes.get(3, b"")):
            element = by_type(raw)
            if its.is_map:
                spec = element_spec(element, named=its.named)
                jumps.append(
                    FirewallRule(Backend.NFT, family, its.table, f"@{its.name}", None, spec, raw.hex())
                )
            elif (name := interface_in(element)) is not None:
                interfaces.setdefault(key[:2], {}).setdefault(its.name, []).append(name)
            else:
                odd.add(key)
    for number_of, table, name in odd:
        interfaces.get((number_of, table), {}).pop(name, None)
    return jumps, interfaces
