"""From a record to typed values: what the kernel wrote, told apart from what others had it write.

Device and table names are printed raw. They come first in their records, so everything here is
matched to the end of the record and the name is whatever is left over: `.*` is greedy, takes the
longest name for which the rest still fits, and the rest holds each of its fields once. A name can
thus look like fields, but it cannot change the fields to its right.

A record that does not fit to its end (cut, or of an unknown form) decodes to None.

References:
    linux kernel/audit.c, audit_log_n_untrustedstring(): a string is quoted, or upper case hex when it
        holds a quote, a space, a control byte or anything beyond ASCII
    linux net/core/dev.c, __dev_set_promiscuity()
    linux kernel/auditsc.c, __audit_log_nfcfg(), audit_log_exit(), audit_log_execve_info(),
        audit_log_proctitle(), show_special(); kernel/audit.c, audit_log_task_info()
    linux include/uapi/linux/{audit,net,in,if_packet,sockios}.h, linux/netfilter*/
    socket(7), packet(7), socketcall(2), syscall tables under arch/
"""

from __future__ import annotations

import re
from binascii import unhexlify
from typing import Literal, NamedTuple

from verify_audit.audit.record import Event, Record

UNSET = 4294967295
"""auid and ses of a task that no login has set (audit_setloginuid(3)); decoded as None."""

IFF_PROMISC = 0x100


class Promiscuous(NamedTuple):
    """ANOM_PROMISCUOUS: an interface went into promiscuous mode or out of it.

    device is raw and in an unknown network namespace. prom and old_prom are IFF_PROMISC (256) or 0.
    auid and ses are None when unset; all four are None when an old kernel did not write them. odd:
    the name has a byte that no ordinary name has and that could imitate a field.
    """

    device: bytes
    prom: int
    old_prom: int
    auid: int | None
    uid: int | None
    gid: int | None
    ses: int | None
    odd: bool

    @property
    def enter(self) -> bool:
        """Whether the interface went into promiscuous mode."""
        return bool(self.prom & IFF_PROMISC) and not self.old_prom & IFF_PROMISC

    @property
    def leave(self) -> bool:
        """Whether the interface left promiscuous mode."""
        return bool(self.old_prom & IFF_PROMISC) and not self.prom & IFF_PROMISC


class NetfilterChange(NamedTuple):
    """NETFILTER_CFG: a table was registered, replaced or changed.

    table is raw. generation is the number of the nftables commit, per network namespace, None for
    x_tables and for the form of 5.9 to 5.12. chain and table_handle are set for that form only
    (`nat:5;CHAIN:64`; chain `?` when none): on a later kernel it means a table whose name imitates
    it, which the record alone cannot tell. entries is the count before a change (x_tables) or the
    number of changes in the commit (nftables). op, pid, subj and comm are None up to 5.7, subj where
    no security module writes it. pid is in the initial pid namespace. odd: the name of table or
    chain has a byte that no ordinary name has and that could imitate a field. It is also odd when a
    subj imitates fields: those to its left are then read as part of the table's name.
    """

    table: bytes
    generation: int | None
    family: int
    entries: int
    op: str | None
    pid: int | None
    subj: bytes | None
    comm: bytes | None
    odd: bool
    chain: bytes | None = None
    table_handle: int | None = None


class Syscall(NamedTuple):
    """SYSCALL: the task that did it, and how.

    arch is AUDIT_ARCH_*, number is per arch, name None when it is not one that matters here. exit and
    success are None when the kernel had no result. args are the raw registers a0 to a3. auid and ses
    are None when unset. pids are in the initial pid namespace. comm, exe and key are decoded; comm
    and exe are what the task calls itself. key holds several keys joined by 0x01, None when there is
    none.
    """

    arch: int
    number: int
    name: str | None
    exit: int | None
    success: bool | None
    args: tuple[int, int, int, int]
    ppid: int
    pid: int
    auid: int | None
    uid: int
    euid: int
    ses: int | None
    tty: bytes | None
    comm: bytes
    exe: bytes
    key: bytes | None


class SockoptChange(NamedTuple):
    """A setsockopt(2) that replaces a table of x_tables or ebtables, or its counters. It may have failed."""

    tool: Literal["iptables", "ip6tables", "arptables", "ebtables"]
    option: Literal["replace", "add_counters"]


class Command(NamedTuple):
    """The command line of the task.

    PROCTITLE is cut at 128 bytes, can be rewritten by the task, and is kept from its first audited
    event, so after an execve it can be that of the program before. EXECVE is what was executed.
    """

    argv: tuple[bytes, ...]
    source: Literal["EXECVE", "PROCTITLE"]
    truncated: bool


def _form(pattern: bytes) -> re.Pattern[bytes]:
    """A form with <number> and <text> in it, each a group.

    A number is bounded, so that int() is never asked for more digits than it takes
    (sys.get_int_max_str_digits()); a text is what audit_log_untrustedstring() writes.
    """
    return re.compile(pattern.replace(b"<number>", rb"(\d{1,20})").replace(b"<text>", _TEXT), re.DOTALL)


_TEXT = rb'("[^"]*"|[0-9A-F]+|\(null\))'

_PROMISCUOUS = _form(
    rb"dev=(.*) prom=<number> old_prom=<number>"
    rb"(?: auid=<number>(?: uid=<number> gid=<number>)?(?: ses=<number>)?)? *\Z"
)
_NETFILTER = _form(
    rb" family=<number> entries=<number>(?: op=([a-z0-9_]+) pid=<number>(?: subj=(.*?))? comm=<text>)? *\Z"
)
_TRIES = 8
_GENERATION = re.compile(rb"(.*):(\d{1,20})\Z", re.DOTALL)
_HANDLES = re.compile(rb"([^:;]*):(\d{1,20});([^:;]*):\d{1,20}\Z", re.DOTALL)
# Up to `exe` the order never changed but for tty and ses. `exe` in hex must be followed by something,
# or it may be cut; subj is free text, so the key is looked for from the right.
_SYSCALL = _form(
    rb"arch=([0-9a-f]{1,8}) syscall=(-?\d{1,10})(?: per=[0-9a-f]{1,16})?"
    rb"(?: success=(yes|no) exit=(-?\d{1,20}))?"
    rb" a0=([0-9a-f]{1,16}) a1=([0-9a-f]{1,16}) a2=([0-9a-f]{1,16}) a3=([0-9a-f]{1,16}) items=\d+"
    rb" ppid=<number> pid=<number> auid=<number> uid=<number> gid=\d+ euid=<number>"
    rb" suid=\d+ fsuid=\d+ egid=\d+ sgid=\d+ fsgid=\d+"
    rb"(?: tty=(\S+))?(?: ses=<number>)?(?: tty=(\S+))?"
    rb" comm=<text> exe=(\"[^\"]*\"|[0-9A-F]+(?= )|\(null\))"
)
_KEY = re.compile(rb".* key=" + _TEXT, re.DOTALL)
_EXECVE_ARGUMENT = re.compile(rb"(?:\A| )a(\d{1,7})(?:\[(\d{1,7})\])?=" + _TEXT)
_EXECVE_COUNT = re.compile(rb"argc=(\d{1,10})(?: |\Z)")
_PROCTITLE = re.compile(rb"proctitle=(.*)\Z", re.DOTALL)
_SOCKETCALL = re.compile(rb"nargs=\d{1,2}((?: a\d=[0-9a-f]{1,16})+) *\Z")
_ODD = re.compile(rb"[^!-~]|[\"=]")
_ODD_TABLE = re.compile(rb"[^!-~]|[\"=:;]")


def promiscuous(record: Record) -> Promiscuous | None:
    """The ANOM_PROMISCUOUS record decoded; None if it is of another type, cut or of an unknown form."""
    match = _PROMISCUOUS.match(record.body) if record.type == "ANOM_PROMISCUOUS" else None
    if match is None:
        return None
    device, prom, old_prom, auid, uid, gid, ses = match.groups()
    return Promiscuous(
        device,
        int(prom),
        int(old_prom),
        _login(auid),
        None if uid is None else int(uid),
        None if gid is None else int(gid),
        _login(ses),
        not device or _ODD.search(device) is not None,
    )


def netfilter(record: Record) -> NetfilterChange | None:
    """The NETFILTER_CFG record decoded; None if it is of another type, cut or of an unknown form."""
    body = record.body
    if record.type != "NETFILTER_CFG" or not body.startswith(b"table="):
        return None
    start = body.rfind(b" family=")
    match = None
    # A subj can hold " family=" too. Its search runs to the end of the record, so the tries are few.
    for _ in range(_TRIES):
        if start < 0 or (match := _NETFILTER.match(body, start)):
            break
        start = body.rfind(b" family=", 0, start)
    if match is None:
        return None
    table = body[len(b"table=") : start]
    family, entries, op, pid, subj, comm = match.groups()
    generation: int | None = None
    handle: int | None = None
    chain: bytes | None = None
    # Names of x_tables come from kernel modules and are printed alone; nftables adds numbers.
    if op is not None and op.startswith(b"nft_"):
        if form := _HANDLES.match(table):
            table, handle, chain = form[1], int(form[2]), form[3]
        elif form := _GENERATION.match(table):
            table, generation = form[1], int(form[2])
    odd = not table or _ODD_TABLE.search(table) is not None
    if chain is not None:
        odd = odd or not chain or _ODD_TABLE.search(chain) is not None
    return NetfilterChange(
        table,
        generation,
        int(family),
        int(entries),
        None if op is None else op.decode("ascii"),
        None if pid is None else int(pid),
        subj,
        None if comm is None else _text(comm),
        odd,
        chain,
        handle,
    )


def syscall(record: Record) -> Syscall | None:
    """The SYSCALL record decoded; None if it is of another type, cut or of an unknown form."""
    match = _SYSCALL.match(record.body) if record.type == "SYSCALL" else None
    if match is None:
        return None
    (
        arch_hex,
        number_text,
        success,
        exit_text,
        a0,
        a1,
        a2,
        a3,
        ppid,
        pid,
        auid,
        uid,
        euid,
        tty,
        ses,
        late_tty,
    ) = match.groups()[:16]
    arch, number = int(arch_hex, 16), int(number_text)
    key = _KEY.match(record.body, match.end())
    tty = late_tty if tty is None else tty
    return Syscall(
        arch,
        number,
        _syscall_name(arch, number),
        None if exit_text is None else int(exit_text),
        None if success is None else success == b"yes",
        (int(a0, 16), int(a1, 16), int(a2, 16), int(a3, 16)),
        int(ppid),
        int(pid),
        _login(auid),
        int(uid),
        int(euid),
        _login(ses),
        None if tty == b"(none)" else tty,
        _text(match[17]),
        _text(match[18]),
        None if key is None or key[1] == b"(null)" else _text(key[1]),
    )


def firewall_sockopt(call: Syscall, socketcall: Record | None = None) -> SockoptChange | None:
    """The change to x_tables or ebtables that this system call asks for; None if it asks for none.

    On i386 socketcall(2) keeps its arguments in memory: the SYSCALL record says at most that it was a
    setsockopt (a0=14). The level is in the SOCKETCALL record of the same event, if the kernel wrote
    one; without it the answer is None, which then means "not known".
    """
    option = _sockopt(call, socketcall)
    return None if option is None else _FIREWALL_OPTIONS.get(option)


def packet_membership(call: Syscall, socketcall: Record | None = None) -> Literal["add", "drop"] | None:
    """Whether the call joins a packet socket to an interface's memberships, or leaves one.

    Promiscuous mode is one of them (packet(7)); which one it was is in memory, not in the record.
    For i386 see firewall_sockopt().
    """
    option = _sockopt(call, socketcall)
    return None if option is None else _PACKET_OPTIONS.get(option)


def bridge_ioctl(call: Syscall) -> Literal["add", "del"] | None:
    """Whether the call puts an interface on a bridge or takes it off, by the ioctl that brctl(8) uses."""
    return _BRIDGE_REQUESTS.get(call.args[1] & 0xFFFFFFFF) if call.name == "ioctl" else None


def command(event: Event) -> Command | None:
    """The command line that the event carries, from EXECVE if it has one, else from PROCTITLE."""
    argv = _execve(event.of_type("EXECVE"))
    if argv is not None:
        return argv
    record = event.first("PROCTITLE")
    match = None if record is None else _PROCTITLE.match(record.body)
    return None if match is None else _proctitle(match[1])


def _login(text: bytes | None) -> int | None:
    if text is None:
        return None
    number = int(text)
    return None if number == UNSET else number


def _text(value: bytes) -> bytes:
    """A string as the kernel wrote it, decoded. "(null)" stays as it is."""
    if value.startswith(b'"'):
        return value[1:-1]
    if value == b"(null)":
        return value
    # An odd digit at the end is what is left of a byte that was cut.
    return unhexlify(value[: len(value) & ~1])


def _execve(records: tuple[Record, ...]) -> Command | None:
    if not records:
        return None
    count: int | None = None
    arguments: dict[int, dict[int, bytes]] = {}
    for record in records:
        if count is None and (found := _EXECVE_COUNT.match(record.body)):
            count = int(found[1])
        for index, piece, value in _EXECVE_ARGUMENT.findall(record.body):
            arguments.setdefault(int(index), {}).setdefault(int(piece or b"0"), _text(value))
    if not arguments:
        return None
    argv: list[bytes] = []
    truncated = count != len(arguments)
    # Stop at the first gap: what lies behind it would stand in a wrong place.
    for index in range(len(arguments)):
        pieces = arguments.get(index)
        if pieces is None:
            truncated = True
            break
        whole = all(number in pieces for number in range(len(pieces)))
        truncated = truncated or not whole
        argv.append(b"".join(pieces[number] for number in sorted(pieces)))
    return Command(tuple(argv), "EXECVE", truncated) if argv else None


# MAX_PROCTITLE_AUDIT_LEN is 128 with its last NUL, and NULs at the end are trimmed: one cut right after
# an argument that iptables blanked has 126.
_PROCTITLE_CUT = 126
_IS_TEXT = re.compile(_TEXT + rb" *\Z")


def _proctitle(value: bytes) -> Command | None:
    match = _IS_TEXT.match(value)
    if match is None:
        title = value
        broken = value.startswith(b'"')
    elif match[1] == b"(null)":
        return None
    else:
        title = _text(match[1])
        broken = not match[1].startswith(b'"') and len(match[1]) % 2 == 1
    if not title:
        return None
    return Command(tuple(title.split(b"\0")), "PROCTITLE", broken or len(title) >= _PROCTITLE_CUT)


def _sockopt(call: Syscall, socketcall: Record | None) -> tuple[int, int] | None:
    """Level and option name of a setsockopt(2), None if it is not one or they are not known."""
    if call.name == "setsockopt":
        level, option = call.args[1], call.args[2]
    elif (
        call.name == "socketcall" and call.args[0] & 0xFFFFFFFF == _SYS_SETSOCKOPT and socketcall is not None
    ):
        match = _SOCKETCALL.match(socketcall.body) if socketcall.type == "SOCKETCALL" else None
        arguments = [] if match is None else [int(part.split(b"=")[1], 16) for part in match[1].split()]
        if len(arguments) < 3:
            return None
        level, option = arguments[1], arguments[2]
    else:
        return None
    # Both are int in C: the kernel logs the whole register and looks at its lower half only.
    return level & 0xFFFFFFFF, option & 0xFFFFFFFF


def _syscall_name(arch: int, number: int) -> str | None:
    if arch == AUDIT_ARCH_X86_64 and number > 0:
        # x32 has the same arch and a bit in the number (__X32_SYSCALL_BIT).
        number &= ~0x40000000
    return _SYSCALLS.get((arch, number))


AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_ARM = 0x40000028

_SYS_SETSOCKOPT = 14  # linux/net.h

_BY_ARCH: dict[int, dict[str, tuple[int, ...]]] = {
    # The second number is that of x32 where it has one of its own.
    AUDIT_ARCH_X86_64: {
        "close": (3,),
        "ioctl": (16, 514),
        "sendto": (44,),
        "sendmsg": (46, 518),
        "setsockopt": (54, 541),
        "getsockopt": (55, 542),
        "execve": (59, 520),
        "exit_group": (231,),
        "sendmmsg": (307, 538),
    },
    AUDIT_ARCH_I386: {
        "close": (6,),
        "execve": (11,),
        "ioctl": (54,),
        "socketcall": (102,),
        "exit_group": (252,),
        "sendmmsg": (345,),
        "getsockopt": (365,),
        "setsockopt": (366,),
        "sendto": (369,),
        "sendmsg": (370,),
    },
    AUDIT_ARCH_AARCH64: {
        "ioctl": (29,),
        "close": (57,),
        "exit_group": (94,),
        "sendto": (206,),
        "setsockopt": (208,),
        "getsockopt": (209,),
        "sendmsg": (211,),
        "execve": (221,),
        "sendmmsg": (269,),
    },
    AUDIT_ARCH_ARM: {
        "close": (6,),
        "execve": (11,),
        "ioctl": (54,),
        "exit_group": (248,),
        "sendto": (290,),
        "setsockopt": (294,),
        "getsockopt": (295,),
        "sendmsg": (296,),
        "sendmmsg": (374,),
    },
}
_SYSCALLS: dict[tuple[int, int], str] = {
    (arch, number): name
    for arch, names in _BY_ARCH.items()
    for name, numbers in names.items()
    for number in numbers
}

SETSOCKOPT_NUMBERS: frozenset[int] = frozenset(
    number
    for arch, names in _BY_ARCH.items()
    for name, numbers in names.items()
    if name in ("setsockopt", "socketcall")
    for plain in numbers
    for number in ((plain, plain | 0x40000000) if arch == AUDIT_ARCH_X86_64 else (plain,))
)
"""Every number, of any arch, under which setsockopt(2) can be called."""

_SOL_IP, _SOL_IPV6, _SOL_PACKET = 0, 41, 263

_FIREWALL_OPTIONS: dict[tuple[int, int], SockoptChange] = {
    (_SOL_IP, 64): SockoptChange("iptables", "replace"),  # IPT_SO_SET_REPLACE
    (_SOL_IP, 65): SockoptChange("iptables", "add_counters"),  # IPT_SO_SET_ADD_COUNTERS
    (_SOL_IPV6, 64): SockoptChange("ip6tables", "replace"),  # IP6T_SO_SET_REPLACE
    (_SOL_IPV6, 65): SockoptChange("ip6tables", "add_counters"),  # IP6T_SO_SET_ADD_COUNTERS
    (_SOL_IP, 96): SockoptChange("arptables", "replace"),  # ARPT_SO_SET_REPLACE
    (_SOL_IP, 97): SockoptChange("arptables", "add_counters"),  # ARPT_SO_SET_ADD_COUNTERS
    (_SOL_IP, 128): SockoptChange("ebtables", "replace"),  # EBT_SO_SET_ENTRIES
    (_SOL_IP, 129): SockoptChange("ebtables", "add_counters"),  # EBT_SO_SET_COUNTERS
}
_PACKET_OPTIONS: dict[tuple[int, int], Literal["add", "drop"]] = {
    (_SOL_PACKET, 1): "add",  # PACKET_ADD_MEMBERSHIP
    (_SOL_PACKET, 2): "drop",  # PACKET_DROP_MEMBERSHIP
}
_BRIDGE_REQUESTS: dict[int, Literal["add", "del"]] = {
    0x89A2: "add",
    0x89A3: "del",
}  # SIOCBRADDIF, SIOCBRDELIF
