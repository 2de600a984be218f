from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, PROCTITLE, SYSCALL, line, record
from verify_audit.audit import assemble as module
from verify_audit.audit.assemble import Losses, assemble
from verify_audit.audit.parse import Unparsed
from verify_audit.audit.record import Event, Record


def _shape(events: Iterable[Event]) -> list[tuple[int, list[str]]]:
    return [(event.serial, [found.type for found in event.records]) for event in events]


def _one(kind: str, serial: int, at_ms: int = 0, node: str = "") -> Record:
    prefix = f"node={node} ".encode() if node else b""
    return record(prefix + line(kind, b"a=b", serial, at_ms % 1000, 1795436137 + at_ms // 1000))


def test_the_records_of_one_id_are_one_event() -> None:
    records = [record(text) for text in (NETFILTER, SYSCALL, PROCTITLE)]
    assert list(assemble(records)) == [Event(None, 1795436137, 259, 6, tuple(records))]


def test_an_event_comes_out_with_its_last_record() -> None:
    # Read from a log that goes on: nothing more may be needed to have it.
    def log() -> Iterable[Record]:
        yield from (record(text) for text in (NETFILTER, SYSCALL, PROCTITLE))
        pytest.fail("asked for more")

    assert next(iter(assemble(log()))).serial == 6


def test_an_event_without_a_last_record_comes_out_at_the_end() -> None:
    assert _shape(assemble([record(ANOM), record(ANOM_SYSCALL)])) == [(31, ["ANOM_PROMISCUOUS", "SYSCALL"])]


@pytest.mark.parametrize("kind", ["PROCTITLE", "EOE"])
def test_the_order_is_that_of_the_first_records(kind: str) -> None:
    records = [_one("A", 1), _one("B", 2), _one(kind, 2), _one("C", 3), _one(kind, 1), _one(kind, 3)]
    assert _shape(assemble(records)) == [(1, ["A", kind]), (2, ["B", kind]), (3, ["C", kind])]


def test_two_records_of_one_type_are_kept_even_if_they_are_equal() -> None:
    # 5.9 to 5.12 write one record a rule, and two rules of a chain read the same.
    records = [record(NETFILTER), record(NETFILTER), record(PROCTITLE)]
    assert _shape(assemble(records)) == [(6, ["NETFILTER_CFG", "NETFILTER_CFG", "PROCTITLE"])]


@pytest.mark.parametrize(
    "other", [_one("B", 2), _one("B", 1, 1), _one("B", 1, 1000), _one("B", 1, 0, "web1")]
)
def test_every_part_of_the_identity_counts(other: Record) -> None:
    assert [len(event.records) for event in assemble([_one("A", 1), other])] == [1, 1]


def test_two_seconds_of_log_time_close_an_event() -> None:
    losses = Losses()
    records = [_one("A", 1), _one("B", 2, 2000), _one("C", 1), _one("D", 3, 2001), _one("E", 1)]
    assert _shape(assemble(records, losses)) == [(1, ["A", "C"]), (2, ["B"]), (3, ["D"])]
    assert losses.late == 1


def test_the_log_time_of_another_host_closes_nothing() -> None:
    losses = Losses()
    records = [_one("A", 1, 0, "a"), _one("B", 2, 9000, "b"), _one("C", 1, 0, "a")]
    assert _shape(assemble(records, losses)) == [(1, ["A", "C"]), (2, ["B"])]
    assert losses.total == 0


def test_a_record_a_little_older_closes_nothing() -> None:
    records = [_one("A", 1, 9000), _one("B", 2, 4000), _one("C", 1, 9000)]
    assert _shape(assemble(records)) == [(1, ["A", "C"]), (2, ["B"])]


def test_a_log_that_goes_back_was_written_after_a_reboot() -> None:
    # The clock starts again; what waits from before is not held up until it has caught up.
    def log() -> Iterable[Record]:
        yield _one("A", 900, 7_200_000)
        yield _one("B", 1, 0)
        yield _one("C", 2, 2001)
        pytest.fail("asked for more")

    events = iter(assemble(log()))
    assert [next(events).serial, next(events).serial] == [900, 1]


def test_a_reboot_of_one_host_closes_nothing_of_another() -> None:
    losses = Losses()
    records = [_one("A", 1, 0, "b"), _one("A", 9, 90_000, "a"), _one("A", 1, 0, "a"), _one("B", 1, 0, "b")]
    assert _shape(assemble(records, losses)) == [(1, ["A", "B"]), (9, ["A"]), (1, ["A"])]
    assert losses.total == 0


def test_a_late_record_is_counted_and_makes_no_event() -> None:
    losses = Losses()
    late = record(NETFILTER)
    records = [record(SYSCALL), record(PROCTITLE), late]
    assert _shape(assemble(records, losses)) == [(6, ["SYSCALL", "PROCTITLE"])]
    assert (losses.late, losses.total) == (1, 1)
    assert losses.samples == [Unparsed(NETFILTER, "came after its event was closed")]


def test_a_closed_event_that_still_waits_takes_its_late_record() -> None:
    losses = Losses()
    records = [_one("A", 1), _one("PROCTITLE", 2), _one("B", 2), _one("PROCTITLE", 1)]
    assert _shape(assemble(records, losses)) == [(1, ["A", "PROCTITLE"]), (2, ["PROCTITLE", "B"])]
    assert losses.total == 0


def test_an_eoe_behind_the_proctitle_is_no_loss() -> None:
    losses = Losses()
    assert _shape(assemble([_one("A", 1), _one("PROCTITLE", 1), _one("EOE", 1)], losses)) == [
        (1, ["A", "PROCTITLE"])
    ]
    assert losses.total == 0


def test_unparsed_lines_are_counted_and_the_first_are_kept() -> None:
    losses = Losses()
    bad = [Unparsed(b"%d" % number * 300, "why") for number in range(9)]
    assert _shape(assemble([bad[0], _one("A", 1), *bad[1:]], losses)) == [(1, ["A"])]
    assert (losses.unparsed, losses.total) == (9, 9)
    assert losses.samples == [Unparsed(b"%d" % number * 200, "why") for number in range(5)]


def test_too_many_events_that_wait_push_the_oldest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_EVENTS", 3)
    seen: list[int] = []

    def log() -> Iterable[Record]:
        for serial in range(1, 8):
            yield _one("A", serial)
            assert serial - len(seen) <= 3

    for event in assemble(log()):
        seen.append(event.serial)
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_too_many_bytes_that_wait_push_the_oldest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(_one("A", 1).raw)
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 2 * size)
    losses = Losses()
    records = [_one("A", 1), _one("A", 2), _one("A", 3), _one("B", 1), _one("B", 2)]
    assert _shape(assemble(records, losses)) == [(1, ["A"]), (2, ["A", "B"]), (3, ["A"])]
    assert losses.late == 1


def test_an_event_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 2)
    losses = Losses()
    assert _shape(assemble([_one(kind, 1) for kind in "ABCD"], losses)) == [(1, ["A", "B"])]
    assert (losses.excess, losses.total) == (2, 2)


def test_the_ids_that_are_remembered_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    losses = Losses()
    records = [_one("PROCTITLE", serial) for serial in (1, 2, 3, 3, 2, 1)]
    assert [event.serial for event in assemble(records, losses)] == [1, 2, 3, 1]
    assert losses.late == 2


def test_the_hosts_that_are_remembered_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_EVENTS", 4)
    assembly = module._Assembly(Losses())
    for number in range(100):
        assembly.add(_one("PROCTITLE", 1, 0, f"host{number}"))
        assert assembly.next_closed() is not None
    assert len(assembly.clocks) <= 6


_KINDS = st.sampled_from(
    [["A"], ["A", "A"], ["A", "B", "PROCTITLE"], ["A", "B", "PROCTITLE", "EOE"], ["A", "B", "EOE"], ["EOE"]]
)


@given(st.lists(_KINDS, min_size=1, max_size=6), st.data())
def test_interleaving_changes_no_event(kinds: list[list[str]], data: st.DataObject) -> None:
    # All within 2 s. The records of each event stay in their order, as the kernel queues them.
    written = [[_one(kind, at, at * 4, "ab"[at % 2]) for kind in some] for at, some in enumerate(kinds)]
    turns = data.draw(st.permutations([at for at, records in enumerate(written) for _ in records]))
    queues = [iter(records) for records in written]

    losses = Losses()
    events = list(assemble([next(queues[at]) for at in turns], losses))

    assert losses.total == 0
    assert [event.serial for event in events] == list(dict.fromkeys(turns))
    for event in events:
        # An EOE may be left out: nothing is lost with it.
        whole = written[event.serial]
        assert list(event.records) in (whole, whole[:-1] if whole[-1].type == "EOE" else whole)
