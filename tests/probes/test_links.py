from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.probe_samples import reply
from verify_audit.host.facts import Link, Peer
from verify_audit.probes.links import (
    parse_addresses,
    parse_hooked,
    parse_link,
    parse_nsid,
    parse_peer,
    read_link,
    read_nsid,
)
from verify_audit.probes.namespace import own_netns
from verify_audit.probes.netlink import NetlinkError

NETNS = 4026532300


def test_the_hosts_end_of_a_containers_veth() -> None:
    assert parse_link(reply("link veth62fbe28"), NETNS) == Link(
        netns=NETNS,
        ifindex=15,
        name="veth62fbe28",
        kind="veth",
        mac="02:44:25:49:a1:21",
        master=2,
        slave_kind="bridge",
        peer_ifindex=14,
        peer_nsid=0,
        promiscuity=1,
        asked_promiscuous=False,
        up=True,
    )


def test_its_other_end() -> None:
    assert parse_peer(reply("peer of veth62fbe28"), 0) == Peer(0, 14, "eth0", "02:42:ac:11:00:02")


def test_a_veth_whose_other_end_is_in_the_same_namespace_has_no_nsid() -> None:
    link = parse_link(reply("link veth1234567"), NETNS)
    assert (link.kind, link.peer_ifindex, link.peer_nsid, link.up) == ("veth", 23, None, False)


def test_promisc_on_shows_beside_the_count_that_a_bridge_port_has() -> None:
    by_hand, dockers = parse_link(reply("link vethabcdef0"), 1), parse_link(reply("link vethbf33414"), 1)
    assert (by_hand.promiscuity, by_hand.asked_promiscuous) == (2, True)
    assert (dockers.promiscuity, dockers.asked_promiscuous) == (1, False)
    assert dockers.peer_nsid == 3


def test_a_bridge_with_a_sniffer_counts_it_and_does_not_say_that_it_was_asked_for() -> None:
    bridge = parse_link(reply("link docker0"), NETNS)
    assert (bridge.kind, bridge.master, bridge.slave_kind, bridge.peer_ifindex) == ("bridge", None, "", None)
    assert (bridge.promiscuity, bridge.asked_promiscuous) == (1, False)


def test_a_device_without_a_kind() -> None:
    loopback = parse_link(reply("link lo"), NETNS)
    assert (loopback.name, loopback.kind, loopback.ifindex) == ("lo", "", 1)


def test_a_name_may_hold_any_byte() -> None:
    odd = reply("link veth62fbe28").replace(b"veth62fbe28", b'v\xff\x1d="\xc3\xa9\x1b[12')
    assert parse_link(odd, NETNS).name.encode("utf-8", "surrogateescape") == b'v\xff\x1d="\xc3\xa9\x1b[12'


def test_a_reply_without_a_name_describes_no_interface() -> None:
    with pytest.raises(NetlinkError):
        parse_link(reply("link lo")[:32], NETNS)


def test_namespace_ids() -> None:
    assert parse_nsid(reply("nsid of c1")) == 0
    assert parse_nsid(reply("nsid of c2")) == 1
    assert parse_nsid(reply("nsid of c3")) == 3


def test_a_namespace_that_was_never_linked_has_no_id_here() -> None:
    assert parse_nsid(reply("nsid of a namespace that was never linked")) is None


def test_a_reply_that_names_no_id_does_not_say_that_there_is_none() -> None:
    with pytest.raises(NetlinkError, match="no id"):
        parse_nsid(struct.pack("=I", 20) + reply("nsid of c1")[4:20])


@given(st.data())
def test_a_cut_or_changed_reply_is_read_or_a_netlink_error_and_nothing_is_logged(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["link veth62fbe28", "nsid of c1"]))
    changed = bytearray(reply(name))
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(changed) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for parse in (lambda: parse_link(bytes(changed), 1), lambda: parse_nsid(bytes(changed))):
        try:
            parse()
        except NetlinkError as error:
            assert "cannot be read" in str(error) or "has no" in str(error)


def test_the_kernel_is_asked_by_name_or_by_index() -> None:
    by_name, by_index = read_link(name=b"lo"), read_link(ifindex=1)
    assert parse_link(by_name, own_netns()) == parse_link(by_index, own_netns())
    with pytest.raises(NetlinkError):
        read_link(name=b"no-such-device")
    with pytest.raises(NetlinkError):
        read_link(ifindex=14, nsid=12345)


def test_our_own_namespace_is_asked_for_by_pid() -> None:
    parse_nsid(read_nsid(os.getpid()))


@pytest.mark.parametrize("length", [16, 40, 70_000])
def test_a_name_that_no_interface_can_have_is_a_netlink_error(length: int) -> None:
    with pytest.raises(NetlinkError):
        read_link(name=b"x" * length)


@pytest.mark.parametrize("ifindex", [-1, 0, 2**31, 2**64])
def test_an_index_that_no_interface_can_have_is_a_netlink_error(ifindex: int) -> None:
    with pytest.raises(NetlinkError):
        read_link(ifindex=ifindex)
    if ifindex:
        with pytest.raises(NetlinkError):
            read_link(ifindex=1, nsid=ifindex)


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, 2**32, 2**70])
def test_a_pid_that_no_process_can_have_is_a_netlink_error(pid: int) -> None:
    with pytest.raises(NetlinkError):
        read_nsid(pid)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def neighbour(ifindex: int, flags: int, address: bytes, *more: bytes) -> bytes:
    body = struct.pack("=BxxxiHBB", 7, ifindex, 0x80, flags, 0) + attribute(2, address) + b"".join(more)
    return struct.pack("=IHHII", 16 + len(body), 28, 0, 1, 0) + body


def test_unicast_addresses_beside_its_own() -> None:
    """Not those of a group, not what a bridge has learned there, not those of another interface."""
    listed = [
        neighbour(3, 2, bytes.fromhex("021122334455")),
        neighbour(3, 2, bytes.fromhex("333300000001")),
        neighbour(3, 0, bytes.fromhex("0242ac110002"), attribute(9, struct.pack("=I", 2))),
        neighbour(4, 2, bytes.fromhex("021122334466")),
        neighbour(3, 2, b""),
    ]
    assert parse_addresses(listed, 3) == ("02:11:22:33:44:55",)
    with pytest.raises(NetlinkError):
        parse_addresses([listed[0][:20]], 3)


def test_interfaces_with_filters() -> None:
    def queue(ifindex: int, kind: bytes) -> bytes:
        return b"\0" * 16 + struct.pack("=BxxxiIII", 0, ifindex, 0, 0, 0) + attribute(1, kind)

    assert parse_hooked([queue(2, b"noqueue\0"), queue(3, b"clsact\0"), queue(4, b"ingress\0")]) == {3, 4}
    with pytest.raises(NetlinkError):
        parse_hooked([b"\0" * 20])


def macvlan(mode: int, flags: int, kind: bytes = b"macvlan\0") -> bytes:
    details = attribute(1, kind) + attribute(
        2, attribute(1, struct.pack("=I", mode)) + attribute(2, bytes([flags, 0]))
    )
    parts = attribute(3, b"m0\0") + attribute(30, struct.pack("=I", 0)) + attribute(18, details)
    return b"\0" * 16 + struct.pack("=BxHiII", 0, 1, 9, 1, 0) + parts


def test_the_mode_of_a_macvlan() -> None:
    passthru = parse_link(macvlan(8, 1), NETNS)
    assert (passthru.kind, passthru.mode, passthru.spares_promiscuity) == ("macvlan", "passthru", True)
    assert (parse_link(macvlan(4, 0), NETNS).mode, parse_link(macvlan(4, 0), NETNS).spares_promiscuity) == (
        "bridge",
        False,
    )
    assert parse_link(macvlan(8, 1, b"vlan\0"), NETNS).mode == ""


def test_a_reply_without_the_count_is_no_device_that_is_not_promiscuous() -> None:
    with pytest.raises(NetlinkError, match="has no promiscuity"):
        parse_link(b"\0" * 32 + attribute(3, b"v0\0"), NETNS)
