from __future__ import annotations

from dataclasses import replace

import pytest

from tests.made_up import CONTAINER, NETNS, NOW, WEB, WHERE, link, process
from verify_audit.host.facts import PacketSocket, Stack, Upper
from verify_audit.host.hearing import Hearing
from verify_audit.host.observation import Unobservable
from verify_audit.host.sweep import Conclusion, Swept, SweptNamespace, Where

TCPDUMP = process(4711, exe="/usr/bin/tcpdump")
SNIFFER = PacketSocket(9, 15, 3, 0, (15,), (TCPDUMP,))
VETH = link("veth766e490", 15)
BRIDGE = link("docker0", 2, kind="bridge", master=None, slave_kind="", promiscuity=0)
HOST = SweptNamespace(NETNS, None, process(1), (), "/proc/1/ns/net", (BRIDGE, VETH), ())
INSIDE = SweptNamespace(NETNS + 1, 0, process(4000), (WEB,), "/proc/4000/ns/net", (), ())
FAILURE = Unobservable(WHERE, "it was not to be")


def concluded(*namespaces: SweptNamespace, strays: tuple[PacketSocket, ...] = ()) -> Conclusion:
    return Conclusion(Swept(NOW, namespaces, strays, ()), NETNS, (CONTAINER,))


def test_a_host_on_which_nobody_listens() -> None:
    conclusion = concluded(HOST, INSIDE)
    assert (conclusion.listeners, conclusion.unexplained, conclusion.exit_status) == ((), 0, 0)
    (device,) = conclusion.devices
    assert (device.ledger.link.name, device.ledger.least, device.place.text) == (
        "veth766e490",
        1,
        "of the host",
    )


def test_a_sniffer_is_explained_by_nothing() -> None:
    promiscuous = replace(VETH, promiscuity=2)
    conclusion = concluded(replace(HOST, links=(BRIDGE, promiscuous), sockets=(SNIFFER,)))
    (listener,) = conclusion.listeners
    assert (listener.device, listener.promiscuous_on) == ("veth766e490", ("veth766e490",))
    assert (listener.unexplained, conclusion.devices[0].unexplained) == (True, False)
    assert (conclusion.unexplained, conclusion.exit_status) == (1, 11)


def test_what_cannot_hear_others_is_listed_last_and_raises_nothing() -> None:
    lldpd = replace(SNIFFER, protocol=0x88CC, memberships=())
    conclusion = concluded(replace(HOST, sockets=(lldpd, replace(lldpd, protocol=0))))
    assert [each.hearing for each in conclusion.listeners] == [Hearing.CONTROL, Hearing.DEAF]
    assert conclusion.exit_status == 0
    both = concluded(replace(HOST, sockets=(lldpd, replace(SNIFFER, memberships=()))))
    assert [each.hearing for each in both.listeners] == [Hearing.OVERHEARS, Hearing.CONTROL]


def test_a_remainder_is_somebody_unexplained() -> None:
    conclusion = concluded(
        replace(HOST, links=(BRIDGE, replace(VETH, promiscuity=2)), stacks=(Stack(15, (), ()),))
    )
    assert (conclusion.devices[0].ledger.remainder, conclusion.exit_status) == (1, 11)


def test_sockets_that_could_not_be_looked_at_leave_no_remainder_but_a_doubt() -> None:
    conclusion = concluded(replace(HOST, links=(BRIDGE, replace(VETH, promiscuity=2)), sockets=None))
    assert conclusion.exit_status == 0  # the sweep says itself what it could not look at
    swept = replace(conclusion.swept, failures=(FAILURE,))
    assert Conclusion(swept, NETNS).exit_status == 10
    assert Conclusion(conclusion.swept, NETNS, (), (FAILURE,)).exit_status == 10


def test_somebody_unexplained_is_worse_than_something_not_looked_at() -> None:
    swept = Swept(NOW, (replace(HOST, sockets=(SNIFFER,)),), (), (FAILURE,))
    assert Conclusion(swept, NETNS).exit_status == 11


def test_a_stray_is_a_listener_of_which_not_even_the_device_is_known() -> None:
    stray = PacketSocket(10, -1, 0, None, (), (TCPDUMP,), whole=False)
    conclusion = concluded(HOST, strays=(stray,))
    (listener,) = conclusion.listeners
    assert (listener.device, listener.hearing, conclusion.exit_status) == (None, Hearing.OVERHEARS, 11)


@pytest.mark.parametrize(
    ("namespace", "where", "text"),
    [
        (HOST, Where.HOST, "of the host"),
        (INSIDE, Where.CONTAINER, "of container web"),
        (replace(INSIDE, members=(WEB, "c" * 64)), Where.CONTAINER, "of containers web, cccccccccccc"),
        (replace(INSIDE, members=()), Where.OTHER, "of process 4000 (/usr/bin/x)"),
        (
            replace(INSIDE, members=(), first=None, door="/run/netns/x"),
            Where.OTHER,
            "of the network namespace at /run/netns/x (no process is in it)",
        ),
        (
            replace(INSIDE, netns=None, members=(), first=None, door="", nsid=7),
            Where.OTHER,
            "of a network namespace that nothing leads to (nsid 7)",
        ),
    ],
)
def test_whose_a_namespace_is(namespace: SweptNamespace, where: Where, text: str) -> None:
    conclusion = concluded(replace(namespace, sockets=(SNIFFER,)))
    (listener,) = conclusion.listeners
    assert (listener.place.where, listener.place.text) == (where, text)


def test_a_process_of_a_container_on_the_hosts_network_is_the_containers() -> None:
    spy = replace(SNIFFER, holders=(replace(TCPDUMP, container_id=WEB),))
    (listener,) = concluded(replace(HOST, sockets=(spy,))).listeners
    assert (listener.socket.holders[0].container_id, listener.place.where) == (WEB, Where.HOST)


def test_what_stands_on_a_device_elsewhere_is_named_by_whose_it_is() -> None:
    child = link("m0", 3, netns=NETNS + 1, kind="macvlan", mode="passthru", promiscuity=0)
    nic = link("eth0", 4, kind="", master=None, slave_kind="", promiscuity=1)
    above = Stack(4, (Upper(child, None),), ())
    conclusion = concluded(replace(HOST, links=(nic,), stacks=(above,)), INSIDE)
    (hold,) = conclusion.devices[0].ledger.holds
    assert hold.text == "the macvlan m0 of container web, which stands on it in mode passthru"
    assert conclusion.exit_status == 0


def test_xdp_and_tc_are_worth_a_line_and_raise_nothing() -> None:
    quiet = link("eth0", 4, kind="", master=None, slave_kind="", promiscuity=0)
    conclusion = concluded(replace(HOST, links=(quiet, replace(quiet, ifindex=5, xdp=True)), hooked=(4,)))
    assert [(each.hooked, each.ledger.link.xdp) for each in conclusion.devices] == [
        (True, False),
        (False, True),
    ]
    assert conclusion.exit_status == 0
