"""Events of the packet filter as the kernel writes them, for the commands that a test names."""

from __future__ import annotations

from tests.audit.log import line, record
from verify_audit.audit.record import Event

ENGINE = 3059
"""The pid of the engine that tests/made_up.py has."""


def changed(
    serial: int,
    command: str | None,
    *,
    op: str = "nft_register_rule",
    table: str = "filter:10",
    family: int = 2,
    parent: int = 4000,
    success: str = "yes",
    seconds: int = 1795436137,
    call: bool = True,
    node: str = "",
    counters: bool = False,
) -> Event:
    """A change of the firewall.

    command: that of PROCTITLE, None for none. table: empty for no NETFILTER_CFG. call: whether there is a SYSCALL.
    counters: whether that only sets the counters of a legacy table.
    """
    pid = 9000 + serial
    lines = []
    if table:
        named = f'table={table} family={family} entries=1 op={op} pid={pid} comm="iptables"'
        lines.append(line("NETFILTER_CFG", named.encode(), serial, seconds=seconds))
    if call:
        number, level = (54, 41 if family == 10 else 0) if op.startswith("xt_") else (46, 0x7FFF)
        option = 41 if counters else 40
        words = (
            f"arch=c000003e syscall={number} success={success} exit=0 a0=3 a1={level:x} a2={option} a3=0 items=0 "
            f"ppid={parent} pid={pid} auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 "
            'tty=(none) ses=4294967295 comm="iptables" exe="/usr/sbin/xtables-nft-multi" key=(null)'
        )
        lines.append(line("SYSCALL", words.encode(), serial, seconds=seconds))
    if command is not None:
        title = b"\0".join(word.encode() for word in command.replace("! ", "\0 ").split(" "))
        lines.append(
            line("PROCTITLE", b"proctitle=" + title[:128].hex().upper().encode(), serial, seconds=seconds)
        )
    records = tuple(record(each) for each in lines)
    return Event(
        node or None, seconds, 0, serial, tuple(each._replace(node=node or None) for each in records)
    )
