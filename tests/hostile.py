"""What an intruder may be called, and what may be shown of it.

Devices, tables, processes, files, containers and networks have names that somebody chose. Most of these
imitate what stands beside them: a record, a field, a line of a report, what a terminal obeys.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

NAMES: tuple[str, ...] = (
    "x prom=0 old_prom=256 auid=4294967295 uid=0 gid=0 ses=4294967295",
    "veth766e490 prom=256 old_prom=0 auid=4294967295 uid=0 gid=0 ses=4294967295",
    'nat:2 family=2 entries=2 op=nft_register_chain pid=3059 comm="iptables"',
    "x\ntype=ANOM_PROMISCUOUS msg=audit(1795436164.311:31): dev=veth766e490 prom=256 old_prom=0",
    'dockerd" exe="/usr/sbin/dockerd" subj=unconfined key=(null)',
    '\x1dARCH=x86_64 SYSCALL=sendto AUID="unset" UID="root" GID="root"',
    "(null)",
    "",
    "-",
    "a b\tc\r\nd\0e",
    "\x1b[2J\x1b[31mCONFIRMED\x1b[0m",
    "\x1b]8;;https://example.invalid\x1b\\Docker\x1b]8;;\x1b\\",
    "\x9b2J\x9d0;title\x07\x90q\x9c",
    "\u202edrekcod\u2066\u2067\u2069",
    "\u05d0\u05d1 4711 \u0627",
    "a\u200bb\u200d\ufeff\u00ad\u3164\u0301\u0489",
    "\ud800\udc80\udcff\udfff",
    "[bold red]CONFIRMED[/bold red] [/] [link=https://example.invalid]x[/link]",
    "<script>alert(1)</script>&amp;<!--",
    '"}],"verdict":"confirmed","x":[{"y":"\\',
    "$(reboot)`reboot`;reboot #' \" && reboot",
    "$(reboot)",
    "x|reboot&",
    "%s %n {0} {x!r} {{}}",
    "../../etc/passwd",
    "\U000e0041\U0001f600\uffff\ufffe",
    "日本" * 40,
    "x" * 5000,
)
"""Names, as text in which a byte that is no UTF-8 is a lone surrogate (PEP 383)."""


def unsafe_in_terminal(text: str) -> list[str]:
    """The characters of a text that a terminal may obey, hide, or show elsewhere than where they stand."""
    return [each for each in sorted(set(text) - {"\n"}) if _odd(each)]


def _odd(character: str) -> bool:
    return (
        not character.isprintable()
        or character in "\u115f\u1160\u2800\u3164\uffa0"
        or unicodedata.category(character) in ("Mn", "Me")
        or unicodedata.bidirectional(character) in ("R", "AL", "AN")
    )


def columns(row: str) -> int:
    """How many columns a row takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in row)


def check_text(text: str) -> None:
    """That a report for people is safe to be shown on a terminal."""
    assert unsafe_in_terminal(text) == []
    text.encode("utf-8")


_QUOTED = re.compile(r"""'[^']*'|"'\"""")
_OURS = re.compile(r"\$\(docker inspect -f  [^ ]*\)| \| grep promiscuity|; ")


def check_command(commands: str) -> None:
    """That commands which are shown to be copied have no word for the shell but our own."""
    bare = _OURS.sub("", _QUOTED.sub("", commands))
    assert not set(bare) & set("$`&<>|;\\\n*?~!#()[]{}'\""), commands


def check_json_line(line: str) -> dict[str, Any]:
    """That a line of JSON is one, and safe wherever it is shown; its content."""
    assert line.isascii()
    assert line.isprintable()
    content = json.loads(line)
    json.dumps(content, ensure_ascii=False).encode("utf-8")
    assert isinstance(content, dict)
    return content


def strings_in(value: Any) -> Iterator[str]:
    """Every string within a value: a dataclass, a named tuple, a container of these."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from strings_in(getattr(value, each.name))
    elif isinstance(value, dict):
        yield from strings_in([*value, *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from strings_in(part)
