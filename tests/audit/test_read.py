from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, PROCTITLE, SYSCALL, TCPDUMP, line
from verify_audit.audit.assemble import Losses
from verify_audit.audit.parse import Unparsed
from verify_audit.audit.read import MAX_LINE, events, lines, records


def _log(*texts: bytes) -> bytes:
    return b"".join(text + b"\n" for text in texts)


def _chunks(log: bytes, size: int) -> list[bytes]:
    return [log[at : at + size] for at in range(0, len(log), size)]


def test_only_a_newline_ends_a_line() -> None:
    odd = b"a\rb\x0bc\x0cd\x1ce\x1df\x1eg\x85h\xe2\x80\xa8i\0j"
    assert list(lines([odd + b"\n" + odd + b"\n"])) == [odd, odd]


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\r\n", b"\n\n", b"\0", b"long" * 9]), max_size=30),
    st.integers(1, 7),
)
def test_chunks_do_not_show(pieces: list[bytes], size: int) -> None:
    log = b"".join(pieces)
    expected = log.split(b"\n")
    last = expected.pop()
    got = list(lines(_chunks(log, size)))
    if last.strip(b"\0\r"):
        assert got.pop() == Unparsed(last, "no line end: still being written, or cut")
    assert got == expected


def test_a_last_line_without_an_end_is_not_believed() -> None:
    # auditd may still be writing it: pid=30 could be the beginning of pid=3095.
    losses = Losses()
    assert list(events([ANOM[:-8]], losses)) == []
    assert losses.unparsed == 1
    assert losses.samples == [Unparsed(ANOM[:-8], "no line end: still being written, or cut")]


def test_a_line_at_the_bound_is_whole_and_one_beyond_it_is_not() -> None:
    fits, long = b"a" * MAX_LINE, b"b" * (MAX_LINE + 1)
    for size in (1000, MAX_LINE, MAX_LINE + 1, 5 * MAX_LINE):
        got = list(lines(_chunks(fits + b"\n" + long + b"\n" + fits + b"\n" + long, size)))
        too_long = Unparsed(b"b" * MAX_LINE, "longer than 1048576 bytes")
        assert got == [fits, too_long, fits, too_long]


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    tracemalloc.start()
    try:
        (only,) = lines(bytes([120]) * (65536 + number % 2) for number in range(500))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * MAX_LINE
    assert isinstance(only, Unparsed)
    assert len(only.line) == MAX_LINE


def test_records_are_what_the_lines_hold() -> None:
    got = list(records([_log(b"----", ANOM, b"", b"nonsense")]))
    assert [getattr(item, "type", None) for item in got] == ["ANOM_PROMISCUOUS", None]
    assert got[1] == Unparsed(b"nonsense", "not an audit record")


def test_a_log_becomes_its_flagged_events() -> None:
    execve = line("SYSCALL", b"arch=c000003e syscall=59", serial=7)
    log = _log(
        NETFILTER,
        SYSCALL,
        PROCTITLE,
        execve,
        line("PROCTITLE", b'proctitle="ls"', serial=7),
        ANOM,
        ANOM_SYSCALL,
        TCPDUMP,
    )
    losses = Losses()
    found = list(events(_chunks(log, 100), losses))
    assert [(event.id, len(event.records)) for event in found] == [
        ("1795436137.259:6", 3),
        ("1795436164.311:31", 2),
    ]
    assert losses.total == 0


@given(st.data())
def test_damage_to_a_log_never_makes_an_event_that_was_not_there(data: st.DataObject) -> None:
    log = _log(NETFILTER, SYSCALL, PROCTITLE, ANOM, ANOM_SYSCALL)
    at = data.draw(st.integers(0, len(log)))
    noise = data.draw(st.binary(max_size=40)).translate(None, b"0123456789")
    damaged = log[:at] + data.draw(st.sampled_from([b"", noise + log[at + len(noise) :]]))
    known = {"1795436137.259:6", "1795436164.311:31"}
    assert {event.id for event in events([damaged], Losses())} <= known


@given(st.binary(max_size=2000))
def test_no_bytes_raise(log: bytes) -> None:
    losses = Losses()
    assert list(events([log], losses)) == []
    assert (losses.unparsed > 0) == bool(log.strip(b"\n\r\0 \t"))
