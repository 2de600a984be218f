"""Records of interfaces that are gone, counted against what the engine did."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.log import ANOM_SYSCALL
from tests.made_up import BRIDGE, CONTAINER, NOW, WEB, docker_host, event, seen, unseen
from verify_audit.audit.record import Event, Record
from verify_audit.audit.serials import Serials
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import EngineEvent, History, Life
from verify_audit.host.questions import Host
from verify_audit.investigate import investigate

GONE = "vethdeadbee"
OLD = NOW - 1500
"""Before the engine's start."""


def turn(at: float, serial: int, *, enter: bool = True, device: str = GONE, pid: int | None = None) -> Event:
    """A record of a device that is not there any more."""
    stamp = f"audit({at:.3f}:{serial}): ".encode()
    change = b"prom=256 old_prom=0" if enter else b"prom=0 old_prom=256"
    who = b" auid=4294967295 uid=0 gid=0 ses=4294967295"
    lines = [b"type=ANOM_PROMISCUOUS msg=" + stamp + b"dev=" + device.encode() + b" " + change + who]
    if pid is not None:
        call = ANOM_SYSCALL.partition(b"): ")[2].replace(b" pid=3059", b" pid=%d" % pid)
        lines.append(b"type=SYSCALL msg=" + stamp + call)
    return event(*lines)


def replace_record(whole: Event, second: Record) -> Event:
    """An event with another second record."""
    return whole._replace(records=(whole.records[0], second))


def told(
    at: float, action: str = "connect", driver: str = "bridge", container: str = "c" * 64
) -> EngineEvent:
    """What the engine tells of a container that is gone."""
    return EngineEvent(at, "network", action, container, "", "", BRIDGE, "bridge", driver)


def serials(*gaps: int, begins: float = OLD - 100) -> Serials:
    """Of a log that lacks these, one in each 50 ms."""
    made = Serials()
    for serial in range(int((NOW + 10 - begins) / 0.05)):
        if serial not in gaps:
            made.add(None, serial, round((begins + serial * 0.05) * 1000))
    return made


WHOLE = serials()


def serial_at(at: float) -> int:
    return int((at - OLD + 100) / 0.05)


def host(*events: EngineEvent) -> Host:
    return docker_host({ask.HISTORY: seen(History(events, NOW - 1000, NOW + 100))})


def verdicts(events: list[Event], on: Host, log: Serials | None) -> list[Verdict]:
    return [found.verdict for found in investigate(events, on, serials=log)]


def test_a_record_for_each_connection_is_dockers() -> None:
    (found,) = investigate([turn(NOW, 1)], host(told(NOW + 0.02)), serials=WHOLE)
    assert found.verdict is Verdict.CONFIRMED
    assert found.container is not None
    assert found.container.id == "c" * 64


def test_a_leave_is_counted_against_disconnections() -> None:
    left = host(told(NOW + 0.02, "disconnect"), told(NOW + 0.03, "disconnect"))  # 20.10 says it twice
    assert verdicts([turn(NOW, 1, enter=False)], left, WHOLE) == [Verdict.CONFIRMED]


@given(extra=st.floats(-0.14, 0.14), count=st.integers(1, 3))
def test_one_record_more_and_none_is_accounted_for(extra: float, count: int) -> None:
    at = [NOW + place * 0.05 for place in range(count)]
    connected = host(*(told(each + 0.02, container=f"{place}" * 64) for place, each in enumerate(at)))
    records = [turn(each, place, device=f"veth{place}") for place, each in enumerate(at)]
    assert verdicts(records, connected, WHOLE) == [Verdict.CONFIRMED] * count
    records.append(turn(NOW + extra, 9, device="veth9"))
    assert Verdict.CONFIRMED not in verdicts(records, connected, WHOLE)


@pytest.mark.parametrize(
    "log",
    [
        None,
        serials(begins=NOW),
        serials(serial_at(NOW)),
        serials(serial_at(NOW) - 2),
        serials(serial_at(NOW) + 2),
    ],
    ids=["not known", "begins with it", "gap at it", "gap before it", "gap behind it"],
)
def test_a_log_that_lacks_something_settles_nothing(log: Serials | None) -> None:
    assert verdicts([turn(NOW, 1)], host(told(NOW + 0.02)), log) == [Verdict.INCONCLUSIVE]


@pytest.mark.parametrize("driver", ["host", "null", "macvlan", ""])
def test_a_connection_that_makes_no_such_record_accounts_for_none(driver: str) -> None:
    assert verdicts([turn(NOW, 1)], host(told(NOW + 0.02, driver=driver)), WHOLE) == [Verdict.INCONCLUSIVE]


def test_a_connection_before_the_record_is_not_its_own() -> None:
    assert verdicts([turn(NOW, 1)], host(told(NOW - 0.05)), WHOLE) == [Verdict.INCONCLUSIVE]


def test_a_record_with_an_actor_beside_it_leaves_the_others_open() -> None:
    """Docker's own has its actor: the one without is not what the connection accounts for."""
    connected = host(told(NOW + 0.02))
    both = [turn(NOW, 1, pid=3059), turn(NOW + 0.01, 2, device="veth2")]
    assert verdicts(both, connected, WHOLE)[1] is Verdict.INCONCLUSIVE
    assert verdicts([turn(NOW, 1, pid=77)], connected, WHOLE) == [Verdict.REFUTED]


def test_a_record_whose_actor_cannot_be_read_is_not_one_without() -> None:
    cut = turn(NOW, 1, pid=77)
    half = replace_record(cut, cut.records[1]._replace(body=b"arch=c000003e syscall=44 succ"))
    assert verdicts([half], host(told(NOW + 0.02)), WHOLE) != [Verdict.CONFIRMED]


def test_what_is_put_back_was_not_dockers_end() -> None:
    """Somebody took it off its bridge, and put it back; then the container was removed."""
    left = host(told(NOW + 0.1, "disconnect"))
    records = [turn(NOW, 1, enter=False), turn(NOW + 0.05, 2)]
    assert Verdict.CONFIRMED not in verdicts(records, left, WHOLE)
    assert verdicts(records[:1], left, WHOLE) == [Verdict.CONFIRMED]
    twice = [turn(NOW - 5, 0, enter=False), records[0]]
    assert Verdict.CONFIRMED not in verdicts(twice, left, WHOLE)


# Before the engine's start


def survivor(started: float, finished: float | None = None, **changes: object) -> Host:
    """A container that ran before the engine was started again."""
    stopped = replace(CONTAINER, running=False, **changes)  # type: ignore[arg-type]
    return docker_host(
        {
            ask.CONTAINERS: seen((stopped,)),
            ask.life(WEB): seen(Life(WEB, False, 0, started, finished, "")),
        }
    )


@pytest.mark.parametrize("pid", [None, 77])
def test_what_comes_out_with_a_containers_start_was_the_engine_then(pid: int | None) -> None:
    records = [turn(OLD, 1, pid=pid)]
    assert verdicts(records, survivor(OLD + 0.3), WHOLE) == [Verdict.CONFIRMED]
    assert verdicts(records, survivor(OLD + 3), WHOLE) == [Verdict.INCONCLUSIVE]
    assert verdicts(records, survivor(OLD + 0.3), None) == [Verdict.INCONCLUSIVE]


def test_all_that_the_engine_of_then_did_is_its_own() -> None:
    records = [turn(OLD, 1, pid=77), turn(OLD + 20, 2, enter=False, pid=77, device="other")]
    assert verdicts(records, survivor(OLD + 0.3, OLD + 20), WHOLE) == [Verdict.CONFIRMED] * 2
    later = [records[0], turn(OLD + 5, 2, pid=77, device="other")]
    assert verdicts(later, survivor(OLD + 0.3), WHOLE) == [Verdict.CONFIRMED, Verdict.INCONCLUSIVE]


def test_two_who_did_it_at_once_leave_it_open_who_the_engine_was() -> None:
    records = [turn(OLD, 1, pid=77), turn(OLD + 0.1, 2, pid=78, device="other")]
    assert verdicts(records, survivor(OLD + 0.3), WHOLE) == [Verdict.INCONCLUSIVE] * 2


def test_a_container_whose_network_is_gone_accounts_for_nothing() -> None:
    elsewhere = replace(CONTAINER.endpoints[0], network_id="d" * 64, network_name="gone")
    assert verdicts([turn(OLD, 1)], survivor(OLD + 0.3, endpoints=(elsewhere,)), WHOLE) == [
        Verdict.INCONCLUSIVE
    ]


def test_a_container_that_cannot_be_asked_for_leaves_it_open() -> None:
    on = docker_host({ask.life(WEB): unseen()})
    assert verdicts([turn(OLD, 1)], on, WHOLE) == [Verdict.INCONCLUSIVE]
