from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, PROCTITLE, SYSCALL, TCPDUMP
from tests.made_up import NOT_THERE, MadeUpHost, docker_host, event, link, process, seen, unseen
from verify_audit.audit.record import Event
from verify_audit.findings.finding import CauseKind
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.observation import Observation, Provenance, Unobservable
from verify_audit.host.questions import AskedOnce, Question
from verify_audit.investigate import investigate, unobservable

ATTACHED = event(ANOM, ANOM_SYSCALL)
BARE = event(ANOM)
IPTABLES = event(NETFILTER, SYSCALL, PROCTITLE)
LEAVE = event(ANOM.replace(b"prom=256 old_prom=0", b"prom=0 old_prom=256"), ANOM_SYSCALL)
SNIFFED = event(
    ANOM.replace(b"veth766e490", b"eth0").replace(b"1795436164.311:31", b"1795436221.651:72"), TCPDUMP
)
OTHERS = event(ANOM, ANOM_SYSCALL.replace(b"pid=3059", b"pid=4711"))
BY_HAND = event(NETFILTER, SYSCALL.replace(b"ppid=3059", b"ppid=4000"), PROCTITLE)
EVENTS = {
    "attached": ATTACHED,
    "bare": BARE,
    "iptables": IPTABLES,
    "leave": LEAVE,
    "sniffed": SNIFFED,
    "others": OTHERS,
    "by hand": BY_HAND,
}
HERE: dict[Question[Any], Observation[Any]] = {
    ask.link("eth0"): seen(
        link("eth0", 3, kind="", master=None, slave_kind="", peer_nsid=None, peer_ifindex=None)
    ),
    ask.process(4711): seen(process(4711, exe="/usr/sbin/brctl")),
    ask.process(4000): seen(process(4000, exe="/bin/bash")),
    ask.process(3594): seen(process(3594, exe="/usr/bin/tcpdump")),
}


def elsewhere(found: Event, node: str) -> Event:
    return event(*(b"node=" + node.encode() + b" " + record.raw for record in found.records))


def verdict(found: Event, host: MadeUpHost) -> Verdict:
    (finding,) = investigate([found], host)
    return finding.verdict


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attached", Verdict.CONFIRMED),
        ("bare", Verdict.CONFIRMED),
        ("sniffed", Verdict.REFUTED),
        ("others", Verdict.REFUTED),
        ("by hand", Verdict.REFUTED),
    ],
)
def test_the_events_below_are_what_they_are_meant_to_be(name: str, expected: Verdict) -> None:
    assert verdict(EVENTS[name], docker_host(HERE)) is expected


def asked_about(found: Event) -> list[Question[Any]]:
    host = docker_host(HERE)
    verdict(found, host)
    return list(dict.fromkeys(host.asked))


ASKED = {name: asked_about(found) for name, found in EVENTS.items()}


@given(st.data())
def test_what_cannot_be_seen_never_turns_a_verdict_into_its_opposite(data: st.DataObject) -> None:
    """Not seen is not absent, and absent is not refuted."""
    name = data.draw(st.sampled_from(sorted(EVENTS)))
    hidden = data.draw(st.sets(st.sampled_from(ASKED[name])))
    whole = verdict(EVENTS[name], docker_host(HERE))
    partial = verdict(EVENTS[name], docker_host(HERE | {question: unseen() for question in hidden}))
    if whole is not Verdict.INCONCLUSIVE:
        assert partial in (whole, Verdict.INCONCLUSIVE)


class Always(MadeUpHost):
    """Gives the same answer to all."""

    def __init__(self, answer: Observation[Any]) -> None:
        super().__init__({})
        self._answer = answer

    def ask(self, _: Question[Any]) -> Observation[Any]:
        return self._answer


@pytest.mark.parametrize("name", [name for name in EVENTS if name != "sniffed"])
@pytest.mark.parametrize("host", [Always(unseen()), Always(NOT_THERE)])
def test_a_host_that_tells_nothing_leaves_all_open(name: str, host: MadeUpHost) -> None:
    (finding,) = investigate([EVENTS[name]], host)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.missing


def test_the_log_alone_can_tell_of_a_sniffer() -> None:
    """setsockopt(SOL_PACKET) is in the record itself, and no engine does that."""
    assert verdict(SNIFFED, Always(unseen())) in (Verdict.REFUTED, Verdict.INCONCLUSIVE)


def test_findings_come_in_the_order_of_the_events_and_only_for_those_that_are_wanted() -> None:
    host = docker_host(HERE)
    found = list(investigate([IPTABLES, SNIFFED, ATTACHED], host))
    assert [each.event for each in found] == [IPTABLES, SNIFFED, ATTACHED]
    assert [each.rule for each in found] == ["firewall", "promiscuous", "promiscuous"]
    (only,) = investigate([IPTABLES, SNIFFED, ATTACHED], host, lambda each: each is SNIFFED)
    assert only.event is SNIFFED
    assert list(investigate([], host)) == []


def test_an_event_that_concerns_no_rule_has_no_finding() -> None:
    assert (
        list(investigate([event(b"type=LOGIN msg=audit(1795436137.000:1): pid=1 uid=0")], docker_host()))
        == []
    )


# Records of other machines


@pytest.mark.parametrize("node", ["host1", "host1.example", "host1.elsewhere"])
def test_a_record_of_this_host_is_judged(node: str) -> None:
    assert verdict(elsewhere(ATTACHED, node), docker_host()) is Verdict.CONFIRMED


@pytest.mark.parametrize("node", ["host2", "example", "host11"])
def test_a_record_of_another_is_not(node: str) -> None:
    (finding,) = investigate([elsewhere(ATTACHED, node)], docker_host())
    assert (finding.verdict, finding.cause.kind) == (Verdict.INCONCLUSIVE, CauseKind.UNKNOWN)
    assert finding.headline == f"Cannot tell: the record is of node {node}, and this host is host1.example"
    assert finding.missing[0].remedy == f"run verify-audit on {node}"
    assert finding.evidence == ()


def test_where_the_hosts_name_is_not_known_no_record_with_a_node_is_judged() -> None:
    (finding,) = investigate([elsewhere(ATTACHED, "host1")], docker_host({ask.BOOT: unseen()}))
    assert finding.verdict is Verdict.INCONCLUSIVE


# Failures


def test_each_failure_to_look_is_told_once() -> None:
    host = AskedOnce(
        docker_host({ask.link("a"): unseen("no"), ask.link("b"): unseen("no"), ask.BOOT: unseen("but")})
    )
    questions: list[Question[Any]] = [ask.link("a"), ask.link("b"), ask.BOOT, ask.ENGINE, ask.link("c")]
    for question in questions:
        host.ask(question)
    assert [failure.reason for failure in unobservable(host)] == ["no", "but"]


def test_the_same_reason_from_another_source_is_another_failure() -> None:
    answers: dict[Question[Any], Observation[Any]] = {
        ask.link(source): Unobservable(Provenance(source, "q", 1.0), "no") for source in ("a", "b")
    }
    host = AskedOnce(MadeUpHost(answers))
    for question in answers:
        host.ask(question)
    assert len(unobservable(host)) == 2
