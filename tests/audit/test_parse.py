from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.log import ANOM, ENRICHED, NETFILTER, PROCTITLE, SYSCALL, record
from verify_audit.audit.parse import Unparsed, parse_line, type_name
from verify_audit.audit.record import Record

REAL = (ANOM, NETFILTER, SYSCALL, PROCTITLE, b"node=web1 " + ANOM, SYSCALL + ENRICHED)


def test_a_real_line() -> None:
    assert parse_line(NETFILTER) == Record(
        "NETFILTER_CFG",
        None,
        1795436137,
        259,
        6,
        b'table=nat:2 family=2 entries=2 op=nft_register_chain pid=3095 comm="iptables"',
        NETFILTER,
    )


def test_the_node_is_told_apart_from_the_record() -> None:
    named = record(b"node=web1.example.org " + ANOM)
    assert named.node == "web1.example.org"
    assert named.body == record(ANOM).body
    assert record(b"node=\xff " + ANOM).node == "\\xff"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_line_ends_are_no_part_of_a_record(end: bytes) -> None:
    assert record(ANOM + end) == record(ANOM)


def test_the_enriched_tail_is_kept_in_raw_only() -> None:
    enriched = record(SYSCALL + ENRICHED)
    assert enriched.body == record(SYSCALL).body
    assert enriched.raw == SYSCALL + ENRICHED


@pytest.mark.parametrize(
    "tail",
    [
        b"\x1d",
        b'\x1dUID="root"',
        b'\x1dUID="a user of the domain"',
        b"\x1dARCH=x86_64 SYSCALL=bind ",
        b"\x1dSADDR={ saddr_fam=local path=/run/a}b }",
        b'\x1dUID="root" SADDR={ saddr_fam=netlink nlnk-fam=16 nlnk-pid=0 }',
    ],
)
def test_every_enriched_tail_is_split_off(tail: bytes) -> None:
    assert record(SYSCALL + tail).body == record(SYSCALL).body


@pytest.mark.parametrize(
    "name", [b"a\x1db", b"\x1d", b'a\x1dUID="x"', b"a\x1dUID=", b'a\x1dUID="', b"a\x1dS={"]
)
@pytest.mark.parametrize("tail", [b"", ENRICHED])
def test_a_device_with_the_enriched_separator_is_not_split(name: bytes, tail: bytes) -> None:
    line = ANOM.replace(b"veth766e490", name)
    assert record(line + tail).body == record(ANOM).body.replace(b"veth766e490", name)


def test_only_the_last_separator_can_begin_the_enriched_tail() -> None:
    # One 0x1d is the device's own, and what auditd appends begins at the other.
    line = ANOM.replace(b"veth766e490", b'x\x1dA="') + b'\x1dUID="r"'
    assert record(line).body.endswith(b"ses=4294967295")


@pytest.mark.parametrize(
    "written, name",
    [
        (b"UNKNOWN[1327]", "PROCTITLE"),
        (b"UNKNOWN[1325]", "NETFILTER_CFG"),
        (b"UNKNOWN[1700]", "ANOM_PROMISCUOUS"),
        (b"UNKNOWN[1999]", "UNKNOWN[1999]"),
        (b"SOME_LATER_TYPE2", "SOME_LATER_TYPE2"),
    ],
)
def test_a_type_by_number_gets_its_name_where_it_is_known(written: bytes, name: str) -> None:
    assert record(b"type=" + written + b" msg=audit(1.000:1): a=b").type == name


def test_type_names_follow_the_kernel_header() -> None:
    assert (type_name(1300), type_name(1320), type_name(1999)) == ("SYSCALL", "EOE", "UNKNOWN[1999]")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"\r\n",
        b"  \t",
        b"\0\0\0",
        b"----",
        b"----\n",
        b"time->Mon Nov 23 12:00:00 2026",
        b"<no matches>",
    ],
)
def test_blank_lines_and_separators_are_nothing(line: bytes) -> None:
    assert parse_line(line) is None


def test_a_record_behind_the_nuls_of_a_crash_is_read() -> None:
    assert record(b"\0" * 5000 + ANOM).body == record(ANOM).body


def test_an_event_without_a_body_is_a_record() -> None:
    for line in (b"type=EOE msg=audit(1.000:1): ", b"type=EOE msg=audit(1.000:1):"):
        assert record(line).body == b""


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"type=SYSC", "cut before its event id"),
        (b"node=web1 type=SYSCALL", "cut before its event id"),
        (b"type=SYSCALL msg=audit(1795436137.259:", "the event id is not whole"),
        (b"type=SYSCALL msg=audit(1795436137.259:6", "the event id is not whole"),
        (b"type=SYSCALL msg=audit(1795436137.259:6)", "the event id is not whole"),
        (b"type=SYSCALL msg=audit(1795436137.25:6): a", "the event id is not whole"),
        (b"type=SYSCALL msg=audit(1795436137.2590:6): a", "the event id is not whole"),
        (b"type=SYSCALL msg=audit(-5.259:6): a", "the event id is not whole"),
        (b"type=SYSCALL msg=audit(1.259:" + b"9" * 5000 + b"): a", "the event id is not whole"),
        (b"Nov 23 12:00:00 web1 kernel: eth0 up", "not an audit record"),
        (b"\xff\xfe", "not an audit record"),
        (b"x " + ANOM, "not an audit record"),
    ],
)
def test_what_is_no_whole_record_has_a_reason(line: bytes, reason: str) -> None:
    assert parse_line(line) == Unparsed(line, reason)


def test_an_event_id_inside_the_body_is_not_believed() -> None:
    hostile = NETFILTER.replace(b"nat:2", b" type=SYSCALL msg=audit(1.000:1): pid=1")
    assert record(hostile).serial == 6


@pytest.mark.parametrize(
    "filler", [b"a", b"\0", b"\xff", b" ", b'"', b"\x1d", b" family=2 entries=1", b'\x1dA="b" ']
)
def test_a_line_of_a_mebibyte(filler: bytes) -> None:
    body = filler * (1024 * 1024 // len(filler))
    long = record(b"type=X msg=audit(1.000:1): " + body + b"|")
    assert long.body == body + b"|"
    assert isinstance(parse_line(body + b"|"), Unparsed)


@given(st.binary(max_size=300))
def test_no_bytes_raise(line: bytes) -> None:
    assert isinstance(parse_line(line), Record | Unparsed | None)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"type=SYSCALL msg=audit(1.000:1): ", b"type=", b"node=", b"type=X msg=audit("]),
)
def test_no_bytes_behind_a_good_beginning_raise(rest: bytes, start: bytes) -> None:
    parsed = parse_line(start + rest)
    assert isinstance(parsed, Record | Unparsed)
    assert parsed == parse_line(start + rest + b"\r\n")


@given(st.sampled_from(REAL), st.integers(0, 500))
def test_a_cut_line_never_has_another_id(line: bytes, length: int) -> None:
    parsed = parse_line(line[:length])
    whole = record(line)
    if isinstance(parsed, Record):
        assert (parsed.seconds, parsed.millis, parsed.serial) == (whole.seconds, whole.millis, whole.serial)


@given(st.sampled_from(REAL), st.integers(0, 100), st.binary(min_size=1, max_size=6))
def test_an_overwritten_line_never_has_another_id(line: bytes, at: int, noise: bytes) -> None:
    # A digit in place of a digit is another id and nobody can tell; every other byte can be told.
    noise = noise.translate(None, b"0123456789")
    parsed = parse_line(line[:at] + noise + line[at + len(noise) :])
    whole = record(line)
    if isinstance(parsed, Record):
        assert (parsed.seconds, parsed.millis, parsed.serial) == (whole.seconds, whole.millis, whole.serial)
