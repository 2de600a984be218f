"""From a line to a record. Works on bytes, never raises, never guesses an event id.

References:
    auditd(8), auditd.conf(5): log_format RAW and ENRICHED, name_format (`node=`)
    linux-audit/audit-userspace src/auditd-event.c, format_raw() and format_enrich()
    linux kernel/audit.c, audit_log_start(): "audit(%llu.%03lu:%u): "
    linux include/uapi/linux/audit.h: the numbers of the message types
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from verify_audit.audit.record import Record


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A line that is not a whole audit record, and why, as a clause."""

    line: bytes
    reason: str


def parse_line(line: bytes) -> Record | Unparsed | None:
    """The record that a line holds; Unparsed with the reason if it holds none; None for nothing to read.

    Nothing to read: blank lines, and the separators that ausearch(8) prints between events.
    A line may keep its end ("\\n", "\\r\\n"). Never raises, whatever the bytes.
    """
    text = line.rstrip(b"\r\n")
    for recognise in _RECOGNISERS:
        record = recognise(text)
        if record is not None:
            return record
    # A file system that replays its journal after a crash leaves a run of NULs where the log went on.
    rest = text.lstrip(b"\0 \t")
    if not rest or _SEPARATOR.match(rest):
        return None
    if len(rest) < len(text):
        return parse_line(rest)
    return Unparsed(text, _reason(rest))


def type_name(number: int) -> str:
    """The name of a message type by its number; "UNKNOWN[1999]", as auditd writes it, if it has none here."""
    return _TYPES.get(number) or f"UNKNOWN[{number}]"


_HEADER = re.compile(
    rb"(?:node=(\S+) )?type=([A-Z][A-Z0-9_]*|UNKNOWN\[[1-9]\d{0,9}\]) "
    rb"msg=audit\((\d{1,12})\.(\d{3}):(\d{1,20})\):(?: |\Z)(.*)",
    re.DOTALL,
)
_SEPARATOR = re.compile(rb"----\s*\Z|time->|<no matches>\s*\Z")
_STARTS_AS_RECORD = re.compile(rb"(?:node=\S+ )?type=[A-Z][A-Z0-9_\[\]]* msg=audit\(")

# What auditd appends in the enriched format: NAME=value, all names in capitals, each value a word or
# quoted; only SADDR={ ... } holds spaces, and it comes last. 0x1d alone is no proof of a tail: a
# device or table name may hold one. But what the kernel writes to the right of such a name has names
# in lower case, so a 0x1d inside a name is never followed by this and nothing else.
_ENRICHED = re.compile(
    rb"\x1d(?>[A-Z][A-Z0-9_]*=(?>\"[^\"]*\"|[^\s\"{]*)(?: |\Z))*+(?:[A-Z][A-Z0-9_]*=\{.*\} ?)?\Z", re.DOTALL
)


def _auditd(text: bytes) -> Record | None:
    """auditd's own form, which is also that of `ausearch --raw`: type=X msg=audit(S.MMM:SERIAL): body."""
    match = _HEADER.match(text)
    if match is None:
        return None
    node, kind, seconds, millis, serial, body = match.groups()
    if b"\x1d" in body:
        # The last one, because auditd appends: any 0x1d before it is part of what the kernel wrote.
        start = body.rfind(b"\x1d")
        if _ENRICHED.match(body, start):
            body = body[:start]
    return Record(
        _NAMES.get(kind) or _name(kind),
        None if node is None else node.decode("utf-8", "backslashreplace"),
        int(seconds),
        int(millis),
        int(serial),
        body,
        text,
    )


# In order; the first that recognises the line wins.
_RECOGNISERS: tuple[Callable[[bytes], Record | None], ...] = (_auditd,)


def _name(kind: bytes) -> str:
    name = kind.decode("ascii")
    if name.startswith("UNKNOWN["):
        return type_name(int(name[8:-1]))
    return name


def _reason(text: bytes) -> str:
    if _STARTS_AS_RECORD.match(text):
        return "the event id is not whole"
    if text.startswith((b"type=", b"node=")):
        return "cut before its event id"
    return "not an audit record"


_TYPES = {
    1006: "LOGIN",
    1300: "SYSCALL",
    1302: "PATH",
    1303: "IPC",
    1304: "SOCKETCALL",
    1305: "CONFIG_CHANGE",
    1306: "SOCKADDR",
    1307: "CWD",
    1309: "EXECVE",
    1311: "IPC_SET_PERM",
    1312: "MQ_OPEN",
    1313: "MQ_SENDRECV",
    1314: "MQ_NOTIFY",
    1315: "MQ_GETSETATTR",
    1316: "KERNEL_OTHER",
    1317: "FD_PAIR",
    1318: "OBJ_PID",
    1319: "TTY",
    1320: "EOE",
    1321: "BPRM_FCAPS",
    1322: "CAPSET",
    1323: "MMAP",
    1324: "NETFILTER_PKT",
    1325: "NETFILTER_CFG",
    1326: "SECCOMP",
    1327: "PROCTITLE",
    1328: "FEATURE_CHANGE",
    1329: "REPLACE",
    1330: "KERN_MODULE",
    1331: "FANOTIFY",
    1332: "TIME_INJOFFSET",
    1333: "TIME_ADJNTPVAL",
    1334: "BPF",
    1335: "EVENT_LISTENER",
    1336: "URINGOP",
    1337: "OPENAT2",
    1338: "DM_CTRL",
    1339: "DM_EVENT",
    1400: "AVC",
    1700: "ANOM_PROMISCUOUS",
    1701: "ANOM_ABEND",
    1702: "ANOM_LINK",
    1703: "ANOM_CREAT",
}

# One str object a type, and no decoding for the types that make up a log.
_NAMES = {name.encode("ascii"): name for name in _TYPES.values()}
