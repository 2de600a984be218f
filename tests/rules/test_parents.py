from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit.log import ANOM, ANOM_SYSCALL
from tests.made_up import (
    CONNECT,
    CONTAINER,
    ENDPOINT,
    NETNS,
    NETWORK,
    NOW,
    WEB,
    docker_host,
    event,
    link,
    listener,
    process,
    seen,
    unseen,
)
from verify_audit.audit.serials import Serials
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import History, PacketSockets, Stack, Upper
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.investigate import investigate

ENTER = ANOM.replace(b"veth766e490", b"card0")
LEAVE = ENTER.replace(b"prom=256 old_prom=0", b"prom=0 old_prom=256").replace(b":31)", b":32)")
OUTSIDE = replace(
    NETWORK, id="f" * 64, name="outside", driver="macvlan", bridge="", options=(("parent", "card0"),)
)
AT_CARD = replace(ENDPOINT, network_id=OUTSIDE.id, network_name="outside")
OUTSIDER = replace(CONTAINER, endpoints=(AT_CARD,))
CONNECTED = replace(CONNECT, at=NOW - 0.3, network_id=OUTSIDE.id, network_name="outside")
STARTED = replace(CONNECT, at=NOW + 0.05, type="container", action="start", network_id="", network_name="")
CARD = link("card0", 18, kind="", master=None, slave_kind="", peer_ifindex=None, peer_nsid=None)
MACVLAN = link("eth0", 20, kind="macvlan", mode="passthru", mac=ENDPOINT.mac, promiscuity=0)
Changes = dict[Question[Any], Observation[Any]]

STATE: Changes = {
    ask.NETWORKS: seen((NETWORK, OUTSIDE)),
    ask.CONTAINERS: seen((OUTSIDER,)),
    ask.HISTORY: seen(History((CONNECTED, STARTED), NOW - 1000, NOW + 100)),
    ask.link("card0"): seen(CARD),
    ask.packet_sockets(18): seen(PacketSockets(NETNS, ())),
    ask.stack(18): seen(Stack(18, (Upper(MACVLAN, 0),), ())),
}


def judged(changes: Changes | None = None, *lines: bytes) -> Finding:
    host = docker_host({**STATE, **(changes or {})})
    (finding,) = investigate([event(ENTER, *lines)], host, serials=whole())
    return finding


def whole() -> Serials:
    """A log that lacks nothing around the record."""
    serials = Serials()
    for number, at in enumerate((NOW - 5, NOW - 0.06, NOW, NOW + 5), 29):
        serials.add(None, number, round(at * 1000))
    return serials


def test_complete_and_consistent_state_confirms() -> None:
    finding = judged()
    assert finding.verdict is Verdict.CONFIRMED
    assert finding.headline == (
        "Docker put card0 into promiscuous mode for network outside and container web (nginx)"
    )


def test_connected_at_once_it_comes_before_the_event() -> None:
    history = History((replace(CONNECTED, at=NOW + 0.01),), NOW - 1000, NOW + 100)
    assert judged({ask.HISTORY: seen(history)}).verdict is Verdict.CONFIRMED


@pytest.mark.parametrize(
    "changes",
    [
        {ask.HISTORY: seen(History((), NOW - 1000, NOW + 100))},
        {ask.HISTORY: seen(History((CONNECTED,), NOW - 1000, NOW + 100))},
        {ask.HISTORY: seen(History((CONNECTED, replace(STARTED, at=NOW - 0.1)), NOW - 1000, NOW + 100))},
        {ask.HISTORY: seen(History((CONNECTED, STARTED), NOW - 1, NOW + 100))},
        {ask.HISTORY: unseen()},
        {ask.stack(18): seen(Stack(18, (), ()))},
        {ask.stack(18): seen(Stack(18, (Upper(MACVLAN, 1),), ()))},
        {ask.stack(18): seen(Stack(18, (Upper(replace(MACVLAN, mac="02:00:00:00:00:01"), 0),), ()))},
        {ask.stack(18): unseen()},
        {ask.nsid_of(4000): unseen()},
        {ask.packet_sockets(18): unseen()},
        {ask.link("card0"): seen(replace(CARD, promiscuity=2))},
    ],
    ids=range(12),
)
def test_less_is_inconclusive(changes: Changes) -> None:
    assert judged(changes).verdict is Verdict.INCONCLUSIVE


def test_two_records_in_that_time_are_one_too_many() -> None:
    again = event(ENTER.replace(b".311:31)", b".251:30)"))
    verdicts = [
        each.verdict for each in investigate([again, event(ENTER)], docker_host(STATE), serials=whole())
    ]
    assert verdicts == [Verdict.INCONCLUSIVE] * 2


def test_where_the_log_may_lack_a_record_it_is_inconclusive() -> None:
    host = docker_host(STATE)
    (alone,) = investigate([event(ENTER)], host)
    assert alone.verdict is Verdict.INCONCLUSIVE
    cut = Serials()
    for number, at in ((28, NOW - 5), (31, NOW), (32, NOW + 5)):
        cut.add(None, number, round(at * 1000))
    (within,) = investigate([event(ENTER)], host, serials=cut)
    assert within.verdict is Verdict.INCONCLUSIVE


def test_who_set_it_on_the_device_or_listens_is_told() -> None:
    asked: Changes = {ask.link("card0"): seen(replace(CARD, asked_promiscuous=True, promiscuity=2))}
    assert judged(asked).verdict is Verdict.REFUTED
    sniffer = listener(18, 18, holders=(process(700, exe="/usr/bin/tcpdump"),))
    listens = {ask.packet_sockets(18): seen(PacketSockets(NETNS, (sniffer,)))}
    finding = judged({**listens, ask.link("card0"): seen(replace(CARD, promiscuity=2))})
    assert finding.verdict is not Verdict.CONFIRMED


def test_the_engine_itself_is_confirmed() -> None:
    history: Changes = {ask.HISTORY: seen(History((), NOW - 1000, NOW + 100))}
    finding = judged(history, ANOM_SYSCALL)
    assert finding.verdict is Verdict.CONFIRMED
    assert finding.network is not None
    assert finding.network.name == "outside"


def test_another_process_is_not() -> None:
    ip = process(700, exe="/usr/bin/ip")
    line = ANOM_SYSCALL.replace(b"pid=3059", b"pid=700")
    assert judged({ask.process(700): seen(ip)}, line).verdict is Verdict.REFUTED


def test_a_leave_is_told_by_the_engines_event_and_proven_by_nothing_else() -> None:
    left = replace(CONNECTED, at=NOW + 0.05, action="disconnect")
    changes: Changes = {
        ask.HISTORY: seen(History((left,), NOW - 1000, NOW + 100)),
        ask.link("card0"): seen(replace(CARD, promiscuity=0)),
        ask.stack(18): seen(Stack(18, (), ())),
    }
    host = docker_host({**STATE, **changes})
    (alone,) = investigate([event(LEAVE)], host)
    assert alone.verdict is Verdict.INCONCLUSIVE
    assert alone.container is not None
    assert alone.container.id == WEB
    (finding,) = investigate([event(LEAVE, ANOM_SYSCALL.replace(b":31)", b":32)"))], host)
    assert finding.verdict is Verdict.CONFIRMED
