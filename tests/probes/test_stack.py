"""The ledger against this kernel: each kind of holder is made, and the sum is the kernel's count."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.probes.own_namespace import can, device, in_a_namespace, sh
from verify_audit.host.ledger import Holder, Ledger, ledger
from verify_audit.probes.links import parse_link, read_link
from verify_audit.probes.namespace import netns_of, own_netns
from verify_audit.probes.sniffers import sockets_that_hear
from verify_audit.probes.stack import own_nsid, read_stack

PROMISC, UNICAST = 1, 3


def look(name: str) -> Ledger:
    """The ledger of an interface of this namespace, all of it read from the kernel."""
    link = device(name)
    master = parse_link(read_link(ifindex=link.master), 0) if link.master is not None else None
    return ledger(link, master, sockets_that_hear(link.ifindex), read_stack(link.ifindex))


@contextmanager
def membership(name: str, kind: int, address: bytes = b"", more: int = 0) -> Iterator[socket.socket]:
    """A packet socket that asked for it, and for as many harmless ones beside it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet:
        index = socket.if_nametoindex(name)
        for wanted in (kind, *[0] * more):
            number = address if wanted == kind else struct.pack("=HI", 1, packet.fileno() + more)
            more -= 1
            packet.setsockopt(263, 1, struct.pack("=IHH8s", index, wanted, len(number), number))
        yield packet


def veth() -> None:
    sh("ip link add v0 type veth peer name v1", "ip link set v0 up", "ip link set v1 up")


def agrees(held: Ledger, count: int) -> None:
    assert held.count == count
    assert held.most is not None
    assert held.least <= count <= held.most
    assert held.remainder == 0


def check(act: Callable[[], None]) -> None:
    def all_of_it() -> None:
        veth()
        act()

    in_a_namespace(all_of_it)


def test_nobody_holds_it() -> None:
    check(lambda: agrees(look("v0"), 0))


def test_the_port_of_a_bridge() -> None:
    def act() -> None:
        sh("ip link add b0 type bridge", "ip link set v0 master b0")
        held = look("v0")
        agrees(held, 1)
        assert held.least == 1
        assert [hold.text for hold in held.holds] == ["the bridge b0"]
        # Where the kernel has VLAN filtering, the port may leave the mode: it is open then.
        if can("ip link set b0 type bridge vlan_filtering 1"):
            held = look("v0")
            agrees(held, held.count)
            assert (held.least, held.most) == (0, 1)

    check(act)


def test_promisc_on_is_explained_by_nobody() -> None:
    def act() -> None:
        sh("ip link set v0 promisc on")
        agrees(look("v0"), 1)
        assert [hold.holder for hold in look("v0").unexplained] == [Holder.FLAG]

    check(act)


def test_a_membership_counts_once_however_often_it_is_asked_for_but_once_for_each_address() -> None:
    def act() -> None:
        with membership("v0", PROMISC) as packet:
            index = socket.if_nametoindex("v0")
            packet.setsockopt(263, 1, struct.pack("=IHH8s", index, PROMISC, 0, b""))
            agrees(look("v0"), 1)
            assert look("v0").least == 1
            packet.setsockopt(263, 1, struct.pack("=IHH8s", index, PROMISC, 2, b"\1\2"))
            agrees(look("v0"), 2)
            assert look("v0").least == 2

    check(act)


def test_a_unicast_membership_makes_a_veth_promiscuous() -> None:
    def act() -> None:
        with membership("v0", UNICAST, b"\x02\0\0\0\0\7") as packet:
            held = look("v0")
            agrees(held, 1)
            (hold,) = held.holds
            assert hold.socket is not None
            assert hold.socket.addresses == ((held.link.ifindex, "02:00:00:00:00:07"),)
            assert held.unexplained == ()
            assert packet.fileno() > 0

    check(act)


def test_an_address_added_by_hand_makes_a_veth_promiscuous_and_nothing_explains_it() -> None:
    def act() -> None:
        sh("bridge fdb add 02:11:22:33:44:55 dev v0 self permanent")
        held = look("v0")
        agrees(held, 1)
        assert [hold.text for hold in held.unexplained] == [
            "the address 02:11:22:33:44:55, which no interface and no socket here is seen to want"
        ]
        sh(
            "ip link add b0 type bridge",
            "ip link set v0 master b0",
            "bridge fdb del 02:11:22:33:44:55 dev v0 self",
        )
        agrees(look("v0"), 1)
        assert look("v0").unexplained == ()

    check(act)


@pytest.mark.parametrize("kind", ["macvlan", "macvtap"])
def test_children_of_a_parent_that_cannot_filter_by_address(kind: str) -> None:
    def act() -> None:
        if not can(f"ip link add link v0 name m0 type {kind} mode bridge"):
            pytest.skip(f"the kernel has no {kind}")
        agrees(look("v0"), 0)
        sh("ip link set m0 up", f"ip link add link v0 name m1 type {kind} mode private", "ip link set m1 up")
        agrees(look("v0"), 1)
        assert look("v0").unexplained == ()
        sh("ip link set m0 promisc on")  # passed down from 6.6 on
        agrees(look("v0"), device("v0").promiscuity)
        agrees(look("m0"), 1)

    check(act)


def test_a_passthru_child_and_one_that_spares_the_parent() -> None:
    def act() -> None:
        if not can("ip link add link v0 name m0 type macvlan mode passthru"):
            pytest.skip("the kernel has no macvlan")
        agrees(look("v0"), 0)
        sh("ip link set m0 up")
        held = look("v0")
        agrees(held, 1)
        assert [hold.text for hold in held.holds] == ["the macvlan m0, which stands on it in mode passthru"]
        sh("ip link set m0 promisc on")
        agrees(look("v0"), device("v0").promiscuity)
        sh(
            "ip link del m0",
            "ip link add link v0 name m0 type macvlan mode passthru nopromisc",
            "ip link set m0 up",
        )
        agrees(look("v0"), 0)

    check(act)


@pytest.mark.parametrize("mode", ["bridge", "passthru"])
def test_a_child_that_was_moved_to_another_namespace_is_found(mode: str) -> None:
    def act() -> None:
        if not can(f"ip link add link v0 name m0 type macvlan mode {mode}"):
            pytest.skip("the kernel has no macvlan")
        with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as other:
            try:
                while netns_of(other.pid) == own_netns():
                    assert other.poll() is None
                sh(f"ip link set m0 netns {other.pid}")
                sh(f"nsenter -t {other.pid} -n ip link set m0 up")
                held = look("v0")
                agrees(held, 1)
                assert "m0" in held.holds[0].text
                assert "in the network namespace with nsid" in held.holds[0].text
                assert held.unexplained == ()
            finally:
                other.kill()

    check(act)


@pytest.mark.parametrize(
    "command", ["link add link v0 name s0 type vlan id 5", "link add link v0 name s0 type macsec"]
)
def test_what_passes_its_own_mode_down(command: str) -> None:
    def act() -> None:
        if not can(f"ip {command}"):
            pytest.skip(f"the kernel does not do: {command}")
        sh("ip link set s0 up")
        agrees(look("v0"), device("v0").promiscuity)
        sh("ip link set s0 promisc on")
        agrees(look("v0"), device("v0").promiscuity)
        assert look("v0").least == 1

    check(act)


def test_all_at_once() -> None:
    def act() -> None:
        sh("ip link add b0 type bridge", "ip link set v0 master b0", "ip link set v0 promisc on")
        with membership("v0", PROMISC), membership("v0", PROMISC):
            agrees(look("v0"), 4)
            assert look("v0").least == 4
            agrees(look("b0"), 0)

    check(act)


def test_a_holder_that_is_not_seen_leaves_a_remainder() -> None:
    def act() -> None:
        with membership("v0", PROMISC):
            link = device("v0")
            assert ledger(link, None, (), read_stack(link.ifindex)).remainder == 1
            assert ledger(link, None, None, read_stack(link.ifindex)).remainder == 0

    check(act)


def test_a_socket_too_long_for_the_kernels_list_hides_neither_itself_nor_others() -> None:
    def act() -> None:
        with (
            membership("v0", PROMISC, more=1500) as long,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as other,
        ):
            found = {each.inode: each for each in sockets_that_hear(device("v0").ifindex)}
            assert set(found) == {os.fstat(packet.fileno()).st_ino for packet in (long, other)}
            assert not any(each.whole for each in found.values())
            held = look("v0")
            assert (held.count, held.most, held.remainder) == (1, None, 0)

    check(act)


def test_sockets_that_hear_a_device_are_those_on_it_and_on_every_one() -> None:
    def act() -> None:
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as on_all,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as on_it,
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as on_another,
        ):
            on_it.bind(("v0", 3))
            on_another.bind(("v1", 3))
            found = {each.inode for each in sockets_that_hear(device("v0").ifindex)}
            assert found == {os.fstat(packet.fileno()).st_ino for packet in (on_all, on_it)}

    check(act)


def test_what_stands_on_an_interface_of_the_same_number_elsewhere_does_not_stand_on_ours() -> None:
    def act() -> None:
        with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as other:
            try:
                while netns_of(other.pid) == own_netns():
                    assert other.poll() is None
                there = f"nsenter -t {other.pid} -n ip link"
                sh(f"ip link add v2 type veth peer name p2 netns {other.pid}")
                number = device("v0").ifindex
                sh(f"{there} add e0 index {number} type veth peer name e1 index 78", f"{there} set e0 up")
                if not can(f"{there} add link e0 name m0 type macvlan mode passthru"):
                    pytest.skip("the kernel has no macvlan")
                sh(f"{there} set m0 up")
                # Theirs has an id here, and nothing there has to do with ours any more, which so has none.
                sh("ip link del v2")
                assert own_nsid() is None
                assert read_stack(number).uppers == ()
            finally:
                other.kill()

    check(act)


def test_a_namespace_has_no_id_for_itself_before_it_needs_one() -> None:
    assert in_a_namespace(own_nsid) is None
