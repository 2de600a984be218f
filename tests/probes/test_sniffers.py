from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.probe_samples import replies
from verify_audit.probes import sniffers
from verify_audit.probes.netlink import NetlinkError
from verify_audit.probes.sniffers import (
    SocketEntry,
    packet_sockets,
    parse_listed,
    parse_packet_sockets,
    read_packet_sockets,
)


def test_tcpdump_on_a_bridge_and_on_all_interfaces() -> None:
    assert parse_packet_sockets(replies("packet sockets")) == (
        SocketEntry(inode=202471, protocol=3, ifindex=2, uid=0, memberships=(2,)),
        SocketEntry(inode=202544, protocol=3, ifindex=0, uid=0, memberships=()),
    )


def test_a_membership_of_another_kind_is_none() -> None:
    promiscuous = struct.pack("=IIHH", 2, 1, 1, 0)
    reply = replies("packet sockets")[0]
    assert reply.count(promiscuous) == 1
    (entry,) = parse_packet_sockets([reply.replace(promiscuous, struct.pack("=IIHH", 2, 1, 2, 0))])
    assert (entry.inode, entry.memberships) == (202471, ())


def test_none() -> None:
    assert parse_packet_sockets([]) == ()


@pytest.mark.parametrize("length", [0, 16, 20, 31])
def test_a_cut_reply_is_an_error_and_not_one_socket_less(length: int) -> None:
    first, second = replies("packet sockets")
    with pytest.raises(NetlinkError, match="cannot be read"):
        parse_packet_sockets([first, second[:length]])


@given(st.data())
def test_a_cut_or_changed_reply_is_read_or_a_netlink_error(data: st.DataObject) -> None:
    changed = bytearray(replies("packet sockets")[0])
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(changed) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        (entry,) = parse_packet_sockets([bytes(changed)])
    except NetlinkError:
        return
    assert entry.inode >= 0


def test_the_kernel_gives_its_list() -> None:
    parse_packet_sockets(read_packet_sockets())


def test_what_is_in_a_namespaces_table() -> None:
    table = (
        b"sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
        b"000000007d4a73d2 3      3    0003   3     1 0      0      3506537\n"
        b"00000000709e3dcf 2      3    0000   0     0 0      0      3506542\n"
    )
    assert parse_listed(table) == {3506537, 3506542}
    assert parse_listed(table.splitlines()[0]) == frozenset()


@pytest.mark.parametrize("table", [b"", b"sk RefCnt\n", b"Inode\nx y z\n"])
def test_what_is_no_such_table_is_not_an_empty_one(table: bytes) -> None:
    with pytest.raises(ValueError):
        parse_listed(table)


def test_a_membership_for_an_address_and_a_filter() -> None:
    reply = replies("packet sockets")[0]
    membership = struct.pack("=IIHH32s", 2, 1, 3, 6, b"\2\0\0\0\0\7")
    parts = (
        struct.pack("=HH", 4 + len(membership), 1) + membership + struct.pack("=HH", 4 + 24, 7) + b"\0" * 24
    )
    (entry,) = parse_packet_sockets([reply[:32] + parts])
    assert (entry.memberships, entry.addresses, entry.filter) == ((), ((2, "02:00:00:00:00:07"),), 3)


def test_a_socket_that_is_opened_meanwhile_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = replies("packet sockets")
    answers = [[first], [first, second], [first, second], [first, second]]
    monkeypatch.setattr(sniffers, "read_packet_sockets", lambda *_: answers.pop(0))
    assert [each.whole for each in packet_sockets()] == [True, True]


def test_one_that_the_longer_list_never_has_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = replies("packet sockets")
    monkeypatch.setattr(
        sniffers, "read_packet_sockets", lambda show=3: [first] if show & 0x22 else [first, second]
    )
    assert [each.whole for each in packet_sockets(filters=True)] == [True, False]
    assert [each.filter for each in packet_sockets(filters=True)] == [0, None]
