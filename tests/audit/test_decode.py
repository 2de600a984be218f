from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.audit.log import (
    ANOM,
    ANOM_SYSCALL,
    ENRICHED,
    NETFILTER,
    PROCTITLE,
    SYSCALL,
    TCPDUMP,
    call,
    line,
    record,
)
from verify_audit.audit.decode import (
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_ARM,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    Command,
    NetfilterChange,
    Promiscuous,
    SockoptChange,
    Syscall,
    bridge_ioctl,
    command,
    firewall_sockopt,
    netfilter,
    packet_membership,
    promiscuous,
    syscall,
)
from verify_audit.audit.record import Event, Record


def _promiscuous(body: bytes) -> Promiscuous | None:
    return promiscuous(record(line("ANOM_PROMISCUOUS", body)))


def _netfilter(body: bytes) -> NetfilterChange | None:
    return netfilter(record(line("NETFILTER_CFG", body)))


def _syscall(found: Record) -> Syscall:
    decoded = syscall(found)
    assert decoded is not None
    return decoded


# ANOM_PROMISCUOUS


def test_a_veth_that_enters() -> None:
    found = promiscuous(record(ANOM))
    assert found == Promiscuous(b"veth766e490", 256, 0, None, 0, 0, None, odd=False)
    assert (found.enter, found.leave) == (True, False)


def test_leave_is_not_enter_though_its_text_holds_prom_256() -> None:
    found = _promiscuous(b"dev=veth4ff1d44 prom=0 old_prom=256 auid=1000 uid=0 gid=0 ses=3")
    assert found == Promiscuous(b"veth4ff1d44", 0, 256, 1000, 0, 0, 3, odd=False)
    assert (found.enter, found.leave) == (False, True)


def test_no_change_of_the_flag_is_neither() -> None:
    for both in (b"256 old_prom=256", b"0 old_prom=0"):
        found = _promiscuous(b"dev=a prom=" + both)
        assert found is not None
        assert (found.enter, found.leave) == (False, False)


@pytest.mark.parametrize(
    "tail, expected",
    [
        (b"", (None, None, None, None)),
        (b" auid=500", (500, None, None, None)),
        (b" auid=500 ses=2", (500, None, None, 2)),
        (b" auid=500 uid=1 gid=2 ses=4294967295", (500, 1, 2, None)),
    ],
)
def test_old_kernels_write_less(tail: bytes, expected: tuple[int | None, ...]) -> None:
    found = _promiscuous(b"dev=eth0 prom=256 old_prom=0" + tail)
    assert found is not None
    assert (found.auid, found.uid, found.gid, found.ses) == expected


def test_the_enriched_form_decodes_the_same() -> None:
    assert promiscuous(record(ANOM + ENRICHED)) == promiscuous(record(ANOM))


@pytest.mark.parametrize("name", [b"a=b", b'a"', b"a\x1db", b"v\xc3\xa9th", b"a\x01", b"\x7f", b"a b", b""])
def test_a_device_that_could_imitate_a_field_is_odd(name: bytes) -> None:
    found = _promiscuous(b"dev=" + name + b" prom=256 old_prom=0 auid=1 uid=0 gid=0 ses=1")
    assert found is not None
    assert (found.device, found.odd) == (name, True)


@pytest.mark.parametrize("name", [b"docker0", b"br-0123456789ab", b"eth0.100", b"wlp3s0@x", b"a_b-c:1"])
def test_an_ordinary_device_is_not_odd(name: bytes) -> None:
    found = _promiscuous(b"dev=" + name + b" prom=256 old_prom=0 auid=1 uid=0 gid=0 ses=1")
    assert found is not None
    assert (found.device, found.odd) == (name, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"dev=eth0",
        b"dev=eth0 prom=256",
        b"dev=eth0 prom=256 old_prom=",
        b"dev=eth0 prom=256 old_prom=0 auid=1 uid=",
        b"dev=eth0 prom=256 old_prom=0 auid=1 uid=0",
        b"dev=eth0 prom=yes old_prom=no",
        b"dev=eth0 prom=256 old_prom=0 something=else",
        b"dev=eth0 prom=" + b"9" * 5000 + b" old_prom=0",
    ],
)
def test_a_cut_or_unknown_form_decodes_to_none(body: bytes) -> None:
    assert _promiscuous(body) is None


# NETFILTER_CFG


def test_an_nftables_commit() -> None:
    assert netfilter(record(NETFILTER)) == NetfilterChange(
        b"nat", 2, 2, 2, "nft_register_chain", 3095, None, b"iptables", odd=False
    )


@pytest.mark.parametrize(
    "body, expected",
    [
        (  # up to 5.7
            b"table=filter family=2 entries=4",
            NetfilterChange(b"filter", None, 2, 4, None, None, None, None, odd=False),
        ),
        (  # 5.8
            b"table=nat family=7 entries=0 op=unregister pid=153 "
            b'subj=system_u:system_r:kernel_t:s0 comm="kworker/u4:2"',
            NetfilterChange(
                b"nat",
                None,
                7,
                0,
                "unregister",
                153,
                b"system_u:system_r:kernel_t:s0",
                b"kworker/u4:2",
                odd=False,
            ),
        ),
        (  # 5.9 to 5.12, a chain
            b"table=nat:5;CHAIN:64 family=2 entries=1 op=nft_register_rule pid=9 "
            b'subj==unconfined comm="iptables"',
            NetfilterChange(
                b"nat", None, 2, 1, "nft_register_rule", 9, b"=unconfined", b"iptables", False, b"CHAIN", 5
            ),
        ),
        (  # 5.9 to 5.12, the table itself
            b'table=firewalld:1;?:0 family=1 entries=0 op=nft_register_table pid=396 comm="firewalld"',
            NetfilterChange(
                b"firewalld", None, 1, 0, "nft_register_table", 396, None, b"firewalld", False, b"?", 1
            ),
        ),
        (  # 5.13 on, x_tables
            b"table=filter family=10 entries=0 op=xt_register pid=77 "
            b'subj=/usr/sbin/x (enforce) comm="ip6tables"',
            NetfilterChange(
                b"filter", None, 10, 0, "xt_register", 77, b"/usr/sbin/x (enforce)", b"ip6tables", odd=False
            ),
        ),
        (  # 5.13 on, a comm with a space is in hex
            b"table=docker-bridges:29 family=2 entries=51 op=nft_unregister_setelem pid=7 comm=6120622063",
            NetfilterChange(
                b"docker-bridges", 29, 2, 51, "nft_unregister_setelem", 7, None, b"a b c", odd=False
            ),
        ),
        (
            b'table=:7 family=1 entries=1 op=nft_invalid pid=7 comm=""',
            NetfilterChange(b"", 7, 1, 1, "nft_invalid", 7, None, b"", odd=True),
        ),
    ],
)
def test_every_form_of_the_kernel(body: bytes, expected: NetfilterChange) -> None:
    assert _netfilter(body) == expected


def test_a_table_named_like_a_whole_record_does_not_fool() -> None:
    name = b'nat:2 family=2 entries=1 op=nft_register_rule pid=2781 comm="iptables"'
    found = _netfilter(b"table=" + name + b':8 family=1 entries=3 op=nft_register_table pid=4242 comm="nft"')
    assert found == NetfilterChange(name, 8, 1, 3, "nft_register_table", 4242, None, b"nft", odd=True)


def test_a_context_named_like_fields_is_odd() -> None:
    # Who wrote what cannot be told then; the table's name gives it away.
    found = _netfilter(
        b"table=nat:2 family=2 entries=1 op=nft_register_rule pid=5 "
        b'subj=x family=3 entries=3 op=nft_register_rule pid=2781 subj=y comm="c"'
    )
    assert found is not None
    assert found.odd


def test_a_context_with_the_name_of_a_field_is_read_whole() -> None:
    found = _netfilter(
        b'table=nat:2 family=2 entries=1 op=nft_invalid pid=5 subj=a family=b (enforce) comm="c"'
    )
    assert found == NetfilterChange(
        b"nat", 2, 2, 1, "nft_invalid", 5, b"a family=b (enforce)", b"c", odd=False
    )


def test_a_table_that_imitates_the_numbers_of_another_is_odd() -> None:
    found = _netfilter(b'table=nat:2:9 family=2 entries=1 op=nft_register_rule pid=5 comm="nft"')
    assert found is not None
    assert (found.table, found.generation, found.odd) == (b"nat:2", 9, True)


def test_the_number_behind_an_x_table_is_not_split_off() -> None:
    found = _netfilter(b'table=a:1 family=2 entries=1 op=xt_replace pid=5 comm="x"')
    assert found is not None
    assert (found.table, found.generation, found.odd) == (b"a:1", None, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"table=nat:2",
        b"table=nat:2 family=2 entries=",
        b"table=nat:2 family=2 entries=2 op=nft_register",
        b"table=nat:2 family=2 entries=2 op=nft_register_chain pid=30",
        b'table=nat:2 family=2 entries=2 op=nft_register_chain pid=3095 comm="iptab',
        b"table=nat:2 family=2 entries=2 op=nft_register_chain pid=3095 comm=iptables",
        b'family=2 entries=2 op=nft_register_chain pid=3095 comm="iptables"',
    ],
)
def test_a_cut_netfilter_record_decodes_to_none(body: bytes) -> None:
    assert _netfilter(body) is None


def test_a_record_of_many_families_ends_soon() -> None:
    # Trying them all would be quadratic in the length of the line.
    assert _netfilter(b"table=" + b" family=1 entries=1 op=a pid=1 subj=" * 25_000) is None


# Hostile names: whatever they hold, what the kernel wrote to their right reads as it is.

_PIECES = st.sampled_from(
    [
        b"a",
        b"nat",
        b" ",
        b"=",
        b'"',
        b":",
        b";",
        b"5",
        b"{",
        b"}",
        b"\x1d",
        b"\r",
        b"\0",
        b"\x1dUID=",
        b'\x1dUID="',
        b'\x1dUID="root"',
        b"\x1dSADDR={ ",
        b" prom=256 old_prom=0",
        b" auid=1 uid=1 gid=1 ses=1",
        b" family=2 entries=1",
        b' op=nft_register_rule pid=2781 comm="iptables"',
        b" op=nft_register_rule pid=2781 subj=",
        b' comm="',
        b"type=SYSCALL msg=audit(1.000:1): ",
    ]
)
_NAMES = st.one_of(
    st.lists(_PIECES, max_size=8).map(b"".join),
    st.binary(max_size=30).map(lambda name: name.replace(b"\n", b" ")),
)
_TAILS = st.sampled_from([b"", b"\x1d", ENRICHED])
_ORDINARY = re.compile(rb"[A-Za-z0-9_.-]+")


@given(_NAMES, _TAILS)
@example(b" prom=256 old_prom=0 auid=1 uid=1 gid=1 ses=1", b"")
def test_a_hostile_device_never_changes_the_fields_to_its_right(name: bytes, tail: bytes) -> None:
    found = _promiscuous(b"dev=" + name + b" prom=0 old_prom=256 auid=4294967295 uid=7 gid=8 ses=9" + tail)
    assert found is not None
    assert found == Promiscuous(name, 0, 256, None, 7, 8, 9, found.odd)
    assert found.odd or all(byte not in name for byte in b' ="\x1d\r\0')
    assert not (found.odd and _ORDINARY.fullmatch(name))


@given(
    _NAMES,
    _TAILS,
    st.sampled_from([(b'"nft"', b"nft"), (b'""', b""), (b"206E6674", b" nft"), (b"(null)", b"(null)")]),
    st.sampled_from(
        [(b"", None), (b" subj==unconfined", b"=unconfined"), (b" subj=x (enforce)", b"x (enforce)")]
    ),
)
@example(
    b'nat:2 family=2 entries=1 op=nft_register_rule pid=2781 comm="iptables"', b"", (b'""', b""), (b"", None)
)
def test_a_hostile_table_never_changes_the_fields_to_its_right(
    name: bytes, tail: bytes, comm: tuple[bytes, bytes], subj: tuple[bytes, bytes | None]
) -> None:
    body = (
        b"table="
        + name
        + b":64 family=10 entries=3 op=nft_register_set pid=4242"
        + subj[0]
        + b" comm="
        + comm[0]
    )
    found = _netfilter(body + tail)
    assert found is not None
    assert (found.family, found.entries, found.op, found.pid) == (10, 3, "nft_register_set", 4242)
    assert (found.subj, found.comm) == (subj[1], comm[1])
    if found.chain is None:
        assert (found.table, found.generation) == (name, 64)
        assert found.odd or not set(name) & set(b' =":;\x1d\r\0')
    assert not (found.odd and _ORDINARY.fullmatch(name))


@given(_NAMES)
def test_a_hostile_table_of_an_old_kernel_neither(name: bytes) -> None:
    found = _netfilter(b"table=" + name + b" family=10 entries=3")
    assert found is not None
    assert (found.table, found.family, found.entries, found.op, found.pid) == (name, 10, 3, None, None)


# SYSCALL


def test_a_system_call() -> None:
    assert syscall(record(SYSCALL)) == Syscall(
        arch=0xC000003E,
        number=46,
        name="sendmsg",
        exit=116,
        success=True,
        args=(3, 0x7FFD66391000, 0, 0x7FFD66390FEC),
        ppid=3059,
        pid=3095,
        auid=None,
        uid=0,
        euid=0,
        ses=None,
        tty=None,
        comm=b"iptables",
        exe=b"/usr/sbin/xtables-nft-multi",
        key=None,
    )


def test_every_field_comes_from_its_own_place() -> None:
    found = _syscall(call(54, 1, 2, 3, 4))
    assert (found.args, found.ppid, found.pid) == ((1, 2, 3, 4), 10, 11)
    assert (found.auid, found.uid, found.euid, found.ses, found.tty) == (1000, 1, 3, 9, b"pts0")


@pytest.mark.parametrize(
    "old, new, field, expected",
    [
        (b"success=yes exit=116", b"success=no exit=-13", "success", False),
        (b"success=yes exit=116", b"success=no exit=-13", "exit", -13),
        (b" success=yes exit=116", b"", "success", None),
        (b" success=yes exit=116", b"", "exit", None),
        (b"syscall=46", b"syscall=46 per=800000", "pid", 3095),
        (b"syscall=46", b"syscall=-1", "number", -1),
        (b"syscall=46", b"syscall=999", "name", None),
        (b"tty=(none) ses=4294967295", b"ses=7 tty=pts1", "tty", b"pts1"),
        (b"tty=(none) ses=4294967295", b"ses=7 tty=pts1", "ses", 7),
        (b" tty=(none) ses=4294967295", b"", "comm", b"iptables"),
        (b'comm="iptables"', b"comm=2870696429", "comm", b"(pid)"),
        (b'comm="iptables"', b"comm=612070", "comm", b"a p"),
        (b'exe="/usr/sbin/xtables-nft-multi"', b"exe=2F612062", "exe", b"/a b"),
        (b'exe="/usr/sbin/xtables-nft-multi"', b"exe=(null)", "exe", b"(null)"),
        (b"key=(null)", b'key="fw"', "key", b"fw"),
        (b"key=(null)", b"key=66770161", "key", b"fw\x01a"),
        (b"key=(null)", b'subj==unconfined key="fw"', "key", b"fw"),
        (b"key=(null)", b'subj=x key="no" (enforce) key="fw"', "key", b"fw"),
        (b" key=(null)", b"", "key", None),
    ],
)
def test_the_variations_of_a_system_call(old: bytes, new: bytes, field: str, expected: object) -> None:
    assert old in SYSCALL
    assert getattr(_syscall(record(SYSCALL.replace(old, new))), field) == expected


@given(st.integers(0, len(ANOM_SYSCALL)))
def test_a_cut_system_call_is_none_or_unchanged_up_to_exe(length: int) -> None:
    cut = ANOM_SYSCALL[:length]
    if not cut.startswith(b"type=SYSCALL msg=audit(1795436164.311:31): "):
        return
    found = syscall(record(cut))
    whole = _syscall(record(ANOM_SYSCALL))
    assert found == (whole if b'exe="/usr/sbin/dockerd"' in cut else None)


def test_an_exe_in_hex_that_may_be_cut_is_not_believed() -> None:
    head = SYSCALL[: SYSCALL.index(b"exe=")]
    assert syscall(record(head + b"exe=2F612062")) is None
    assert _syscall(record(head + b"exe=2F612062 ")).exe == b"/a b"


@given(
    st.binary(max_size=400),
    st.sampled_from(["SYSCALL", "NETFILTER_CFG", "ANOM_PROMISCUOUS", "EXECVE", "PROCTITLE"]),
)
def test_no_bytes_raise(body: bytes, kind: str) -> None:
    found = record(line(kind, body.replace(b"\n", b"")))
    assert promiscuous(found) is None or kind == "ANOM_PROMISCUOUS"
    assert netfilter(found) is None or kind == "NETFILTER_CFG"
    assert syscall(found) is None or kind == "SYSCALL"
    assert command(Event(None, 0, 0, 0, (found,))) is None or kind in {"EXECVE", "PROCTITLE"}


@given(st.sampled_from([ANOM, NETFILTER, SYSCALL, PROCTITLE]), st.integers(60, 400), st.binary(max_size=8))
def test_no_damage_raises(text: bytes, at: int, noise: bytes) -> None:
    found = record(text[:at] + noise.replace(b"\n", b"") + text[at + 1 :])
    for decoded, kind in (
        (promiscuous(found), "ANOM_PROMISCUOUS"),
        (netfilter(found), "NETFILTER_CFG"),
        (syscall(found), "SYSCALL"),
        (command(Event(None, 0, 0, 0, (found,))), "PROCTITLE"),
    ):
        assert decoded is None or found.type == kind


def test_only_records_of_its_own_type_are_decoded() -> None:
    assert promiscuous(record(ANOM.replace(b"ANOM_PROMISCUOUS", b"USER"))) is None
    assert netfilter(record(NETFILTER.replace(b"NETFILTER_CFG", b"USER"))) is None
    assert syscall(record(SYSCALL.replace(b"SYSCALL", b"USER"))) is None


@pytest.mark.parametrize(
    "arch, number, name",
    [
        (AUDIT_ARCH_X86_64, 54, "setsockopt"),
        (AUDIT_ARCH_X86_64, 44, "sendto"),
        (AUDIT_ARCH_X86_64, 46, "sendmsg"),
        (AUDIT_ARCH_X86_64, 3, "close"),
        (AUDIT_ARCH_X86_64, 16, "ioctl"),
        (AUDIT_ARCH_X86_64, 0x40000000 + 541, "setsockopt"),
        (AUDIT_ARCH_X86_64, 0x40000000 + 44, "sendto"),
        (AUDIT_ARCH_AARCH64, 208, "setsockopt"),
        (AUDIT_ARCH_AARCH64, 206, "sendto"),
        (AUDIT_ARCH_AARCH64, 211, "sendmsg"),
        (AUDIT_ARCH_ARM, 294, "setsockopt"),
        (AUDIT_ARCH_ARM, 290, "sendto"),
        (AUDIT_ARCH_ARM, 296, "sendmsg"),
        (AUDIT_ARCH_I386, 102, "socketcall"),
        (AUDIT_ARCH_I386, 366, "setsockopt"),
        (AUDIT_ARCH_I386, 54, "ioctl"),
        (AUDIT_ARCH_X86_64, 102, None),
        (AUDIT_ARCH_X86_64, -1, None),
        (0xC0000015, 54, None),
    ],
)
def test_system_calls_have_their_name_per_arch(arch: int, number: int, name: str | None) -> None:
    assert _syscall(call(number, arch=arch)).name == name


@pytest.mark.parametrize(
    "level, option, expected",
    [
        (0, 0x40, SockoptChange("iptables", "replace")),
        (0, 0x41, SockoptChange("iptables", "add_counters")),
        (0x29, 0x40, SockoptChange("ip6tables", "replace")),
        (0x29, 0x41, SockoptChange("ip6tables", "add_counters")),
        (0, 96, SockoptChange("arptables", "replace")),
        (0, 97, SockoptChange("arptables", "add_counters")),
        (0, 128, SockoptChange("ebtables", "replace")),
        (0, 129, SockoptChange("ebtables", "add_counters")),
        # The upper half of a register does not count.
        (0xFFFFFFFF00000000, 0xABCD00000040, SockoptChange("iptables", "replace")),
        (0, 0x42, None),
        (0x29, 96, None),
        (1, 0x40, None),
        (0x107, 1, None),
    ],
)
def test_a_table_replaced_by_setsockopt(level: int, option: int, expected: SockoptChange | None) -> None:
    assert firewall_sockopt(_syscall(call(54, 3, level, option))) == expected
    assert firewall_sockopt(_syscall(call(208, 3, level, option, arch=AUDIT_ARCH_AARCH64))) == expected


def test_getsockopt_with_the_same_numbers_changes_nothing() -> None:
    assert firewall_sockopt(_syscall(call(55, 3, 0, 0x40))) is None


def test_socketcall_needs_its_own_record() -> None:
    asked = _syscall(call(102, 14, 0xBFFF0000, arch=AUDIT_ARCH_I386))
    arguments = record(line("SOCKETCALL", b"nargs=5 a0=3 a1=0 a2=40 a3=bfff1000 a4=3c0"))
    assert firewall_sockopt(asked) is None
    assert firewall_sockopt(asked, arguments) == SockoptChange("iptables", "replace")
    packet = record(line("SOCKETCALL", b"nargs=5 a0=3 a1=107 a2=1 a3=bfff1000 a4=10"))
    assert packet_membership(asked, packet) == "add"
    assert firewall_sockopt(asked, packet) is None
    assert firewall_sockopt(asked, record(line("SOCKETCALL", b"nargs=5 a0=3 a1=0"))) is None
    assert firewall_sockopt(asked, record(line("X", b"nargs=5 a0=3 a1=0 a2=40"))) is None
    # a0=15 is getsockopt.
    assert firewall_sockopt(_syscall(call(102, 15, arch=AUDIT_ARCH_I386)), arguments) is None


def test_a_sniffer_joins_and_leaves() -> None:
    assert packet_membership(_syscall(record(TCPDUMP))) == "add"
    assert packet_membership(_syscall(call(54, 4, 263, 2))) == "drop"
    assert packet_membership(_syscall(call(54, 4, 263, 3))) is None
    assert packet_membership(_syscall(call(54, 4, 0, 1))) is None
    assert packet_membership(_syscall(call(44, 4, 263, 1))) is None


def test_brctl_uses_an_ioctl() -> None:
    assert bridge_ioctl(_syscall(call(16, 3, 0x89A2))) == "add"
    assert bridge_ioctl(_syscall(call(54, 3, 0x89A3, arch=AUDIT_ARCH_I386))) == "del"
    assert bridge_ioctl(_syscall(call(16, 3, 0x89A1))) is None
    assert bridge_ioctl(_syscall(call(54, 3, 0x89A2))) is None


# The command line


def _command(*texts: tuple[str, bytes]) -> Command | None:
    return command(Event(None, 0, 0, 0, tuple(record(line(kind, body)) for kind, body in texts)))


def test_the_command_from_proctitle() -> None:
    event = Event(None, 0, 0, 0, (record(SYSCALL), record(PROCTITLE)))
    argv = (b"/usr/sbin/iptables", b"--wait", b"-t", b"nat", b"-N", b"DOCKER")
    assert command(event) == Command(argv, "PROCTITLE", truncated=False)


@pytest.mark.parametrize(
    "body, expected",
    [
        (b'proctitle="dockerd"', Command((b"dockerd",), "PROCTITLE", False)),
        (b"proctitle=612D00002D62", Command((b"a-", b"", b"-b"), "PROCTITLE", False)),
        (b"proctitle=" + b"61" * 125, Command((b"a" * 125,), "PROCTITLE", False)),
        (b"proctitle=" + b"61" * 126, Command((b"a" * 126,), "PROCTITLE", True)),
        (b"proctitle=" + b"61" * 127, Command((b"a" * 127,), "PROCTITLE", True)),
        (b"proctitle=" + b"61" * 128, Command((b"a" * 128,), "PROCTITLE", True)),
        (b'proctitle="' + b"a" * 128 + b'"', Command((b"a" * 128,), "PROCTITLE", True)),
        (b"proctitle=61006", Command((b"a", b""), "PROCTITLE", True)),
        (b'proctitle="doc', Command((b'"doc',), "PROCTITLE", True)),
        (b"proctitle=(null)", None),
        (b'proctitle=""', None),
        (b"proctitle=", None),
        (b"", None),
    ],
)
def test_the_forms_of_proctitle(body: bytes, expected: Command | None) -> None:
    assert _command(("PROCTITLE", body)) == expected


@pytest.mark.parametrize(
    "bodies, argv, truncated",
    [
        ([b'argc=3 a0="iptables" a1="-t" a2="nat"'], (b"iptables", b"-t", b"nat"), False),
        ([b'argc=2 a0="sh" a1=6120220A62'], (b"sh", b'a "\nb'), False),
        ([b'argc=2 a0="a" a1=""'], (b"a", b""), False),
        ([b'argc=3 a0="a"', b'a1="b" a2="c"'], (b"a", b"b", b"c"), False),
        ([b'argc=2 a0="a" a1_len=6 a1[0]=6120', b"a1[1]=62"], (b"a", b"a b"), False),
        ([b'argc=2 a0="a" a1_len=6 a1[0]=6120', b"a1[2]=62"], (b"a", b"a b"), True),
        ([b'argc=3 a0="a" a1="b"'], (b"a", b"b"), True),
        ([b'argc=3 a0="a" a2="c"'], (b"a",), True),
        ([b'a1="b"'], None, True),
        ([b'argc=99999999999999 a0="a"'], (b"a",), True),
        ([b'argc=1 a0="a\x1dB=c"'], (b"a\x1dB=c",), False),
    ],
)
def test_the_forms_of_execve(bodies: list[bytes], argv: tuple[bytes, ...] | None, truncated: bool) -> None:
    found = _command(*(("EXECVE", body) for body in bodies))
    assert found == (None if argv is None else Command(argv, "EXECVE", truncated))


def test_execve_goes_before_proctitle() -> None:
    # PROCTITLE can be that of the program before.
    found = _command(("PROCTITLE", b'proctitle="sh"'), ("EXECVE", b'argc=1 a0="nft"'))
    assert found == Command((b"nft",), "EXECVE", truncated=False)
    assert _command(("EXECVE", b"argc="), ("PROCTITLE", b'proctitle="sh"')) == Command(
        (b"sh",), "PROCTITLE", False
    )
    assert _command() is None
