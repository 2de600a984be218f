"""Lines of real logs (Linux 6.18, auditd 3.0.9) and makers of variations on them."""

from __future__ import annotations

from verify_audit.audit.parse import parse_line
from verify_audit.audit.record import Record

NETFILTER = (
    b"type=NETFILTER_CFG msg=audit(1795436137.259:6): table=nat:2 family=2 entries=2 "
    b'op=nft_register_chain pid=3095 comm="iptables"'
)
SYSCALL = (
    b"type=SYSCALL msg=audit(1795436137.259:6): arch=c000003e syscall=46 success=yes exit=116 a0=3 "
    b"a1=7ffd66391000 a2=0 a3=7ffd66390fec items=0 ppid=3059 pid=3095 auid=4294967295 uid=0 gid=0 euid=0 "
    b"suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 "
    b'comm="iptables" exe="/usr/sbin/xtables-nft-multi" key=(null)'
)
PROCTITLE = (
    b"type=PROCTITLE msg=audit(1795436137.259:6): proctitle=2F7573722F7362696E2F69707461626C6573002D2D77"
    b"616974002D74006E6174002D4E00444F434B4552"
)
ANOM = (
    b"type=ANOM_PROMISCUOUS msg=audit(1795436164.311:31): dev=veth766e490 prom=256 old_prom=0 "
    b"auid=4294967295 uid=0 gid=0 ses=4294967295"
)
ANOM_SYSCALL = (
    b"type=SYSCALL msg=audit(1795436164.311:31): arch=c000003e syscall=44 success=yes exit=40 a0=10 "
    b"a1=c000fa4ff0 a2=28 a3=0 items=0 ppid=1 pid=3059 auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 "
    b"egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 "
    b'comm="dockerd" exe="/usr/sbin/dockerd" key=(null)'
)
TCPDUMP = (
    b"type=SYSCALL msg=audit(1795436221.651:72): arch=c000003e syscall=54 success=yes exit=0 a0=4 a1=107 "
    b"a2=1 a3=7ffeca823fd0 items=0 ppid=3593 pid=3594 auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 "
    b"egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 "
    b'comm="tcpdump" exe="/usr/bin/tcpdump" key=(null)'
)
ENRICHED = b'\x1dARCH=x86_64 SYSCALL=sendto AUID="unset" UID="root" GID="root"'


def record(line: bytes) -> Record:
    """The record that a line must hold."""
    parsed = parse_line(line)
    assert isinstance(parsed, Record), parsed
    return parsed


def line(kind: str, body: bytes = b"", serial: int = 1, millis: int = 0, seconds: int = 1795436137) -> bytes:
    """A line as auditd writes it."""
    return f"type={kind} msg=audit({seconds}.{millis:03d}:{serial}): ".encode() + body


def call(number: int, *args: int, arch: int = 0xC000003E, result: bytes = b" success=yes exit=0") -> Record:
    """A SYSCALL record of some arch, with up to four arguments."""
    a0, a1, a2, a3 = (*args, 0, 0, 0, 0)[:4]
    return record(
        line("SYSCALL", b"arch=%x syscall=%d" % (arch, number))
        + result
        + b" a0=%x a1=%x a2=%x a3=%x items=0 ppid=10 pid=11 auid=1000 uid=1 gid=2 euid=3 suid=4 fsuid=5"
        b' egid=6 sgid=7 fsgid=8 tty=pts0 ses=9 comm="c" exe="/e" key=(null)' % (a0, a1, a2, a3)
    )
