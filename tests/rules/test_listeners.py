from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit.log import ANOM
from tests.made_up import NETNS, NOT_THERE, NOW, docker_host, event, link, listener, process, seen, unseen
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import PacketSocket, PacketSockets, Stack, Upper
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.investigate import investigate

VETH = 15
TCPDUMP = process(4711, exe="/usr/bin/tcpdump", comm="tcpdump", started_at=NOW + 20)
EARLIER = replace(TCPDUMP, started_at=NOW - 20)
NOTHING = Stack(VETH, (), ())


def judged(
    *sockets: PacketSocket,
    promiscuity: int = 1,
    stack: Observation[Stack] | None = None,
    changes: dict[Question[Any], Observation[Any]] | None = None,
    **of_the_link: Any,
) -> Finding:
    """The bare record of a container's veth, on a host with these sockets."""
    host = docker_host(
        {
            ask.link("veth766e490"): seen(link("veth766e490", VETH, promiscuity=promiscuity, **of_the_link)),
            ask.packet_sockets(VETH): seen(PacketSockets(NETNS, sockets)),
            ask.stack(VETH): stack or seen(NOTHING),
            **(changes or {}),
        }
    )
    (finding,) = investigate([event(ANOM)], host)
    return finding


def test_nobody_listens() -> None:
    finding = judged()
    assert (finding.verdict, finding.warnings) == (Verdict.CONFIRMED, ())


def test_what_stands_on_a_device_is_not_looked_for_when_its_bridge_is_all() -> None:
    host = docker_host()
    list(investigate([event(ANOM)], host))
    assert ask.stack(VETH) not in host.asked


def test_a_later_listener_is_a_warning_on_a_confirmed_event() -> None:
    finding = judged(listener(VETH, VETH, holders=(TCPDUMP,)), promiscuity=2)
    assert finding.verdict is Verdict.CONFIRMED
    assert finding.warnings == (
        "/usr/bin/tcpdump (pid 4711, uid 0) listens now on veth766e490, in promiscuous mode, which the audit log "
        "does not show",
    )


def test_an_earlier_one_may_have_been_the_first() -> None:
    finding = judged(listener(VETH, VETH, holders=(EARLIER,)), promiscuity=2)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.warnings


def test_one_that_does_not_ask_for_the_mode_is_a_warning_too() -> None:
    finding = judged(listener(VETH, holders=(EARLIER,)))
    assert finding.verdict is Verdict.CONFIRMED
    assert "listens now on veth766e490, without asking for promiscuous mode" in finding.warnings[0]


def test_one_on_every_device_hears_this_one() -> None:
    finding = judged(listener(0, holders=(EARLIER,)))
    assert finding.verdict is Verdict.CONFIRMED
    assert "listens now on every device, veth766e490 too" in finding.warnings[0]


@pytest.mark.parametrize(("protocol", "said"), [(0x88CC, "hears LLDP on"), (0, "that hears nothing")])
def test_one_that_cannot_hear_what_is_meant_for_others_is_only_noted(protocol: int, said: str) -> None:
    finding = judged(replace(listener(0, holders=(EARLIER,)), protocol=protocol))
    assert (finding.verdict, finding.warnings) == (Verdict.CONFIRMED, ())
    assert any(said in piece.statement for piece in finding.evidence)


def test_a_holder_that_nothing_shows_is_a_warning_and_withholds_the_verdict() -> None:
    finding = judged(promiscuity=2)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.warnings == (
        "promiscuous mode is held 2 times on veth766e490, and all that can be seen here account for 1: somebody holds "
        "it whom nothing here shows, which the audit log does not show",
    )


@pytest.mark.parametrize("stack", [NOT_THERE, unseen("it was not recorded")])
def test_what_was_not_looked_at_is_no_remainder(stack: Observation[Stack]) -> None:
    """So a host that was recorded before there was the question says what it said."""
    finding = judged(promiscuity=2, stack=stack)
    assert (finding.verdict, finding.warnings) == (Verdict.INCONCLUSIVE, ())
    assert judged(promiscuity=1, stack=stack).verdict is Verdict.CONFIRMED


def test_a_socket_whose_memberships_the_kernel_did_not_tell_is_no_remainder_and_a_warning() -> None:
    finding = judged(replace(listener(VETH, holders=(TCPDUMP,)), whole=False), promiscuity=2)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert [("kernel did not tell" in warning) for warning in finding.warnings] == [True]


def test_a_macvlan_on_the_device_is_named() -> None:
    above = Upper(link("mv0", 40, kind="macvlan", mode="passthru", peer_ifindex=VETH), 3)
    finding = judged(promiscuity=2, stack=seen(replace(NOTHING, uppers=(above,))))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert any("which stands on it in mode passthru" in piece.statement for piece in finding.evidence)
    assert finding.warnings == ()


def test_promisc_on_beside_the_bridge_withholds_the_verdict() -> None:
    finding = judged(promiscuity=2, asked_promiscuous=True)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert ["(`promisc on`) holds promiscuous mode" in warning for warning in finding.warnings] == [True]


def test_a_bridge_that_need_not_hold_it_proves_nothing() -> None:
    bridge = link(
        "docker0", 2, kind="bridge", master=None, slave_kind="", peer_ifindex=None, peer_nsid=None,
        promiscuity=0, vlan_filtering=True,
    )  # fmt: skip
    finding = judged(changes={ask.link_at(2): seen(bridge), ask.link("docker0"): seen(bridge)})
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_sockets_that_cannot_be_looked_at_warn_of_nobody() -> None:
    finding = judged(changes={ask.packet_sockets(VETH): unseen("no such kernel")})
    assert finding.warnings == ()
