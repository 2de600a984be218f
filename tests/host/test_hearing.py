from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.host.facts import PacketSocket
from verify_audit.host.hearing import CONTROL, ETH_P_ALL, Hearing, hearing, protocol_name

PLAIN = PacketSocket(7, 2, ETH_P_ALL, 0, (), ())


@pytest.mark.parametrize("protocol", [ETH_P_ALL, 0x0800, 0x86DD, 0x8100, 0x0004, 0x1234])
@pytest.mark.parametrize("ifindex", [0, 2])
def test_a_socket_that_takes_what_is_meant_for_others_overhears(protocol: int, ifindex: int) -> None:
    assert hearing(replace(PLAIN, protocol=protocol, ifindex=ifindex)) is Hearing.OVERHEARS


@pytest.mark.parametrize("protocol", CONTROL)
def test_one_for_a_protocol_between_neighbours_hears_only_that(protocol: int) -> None:
    assert hearing(replace(PLAIN, protocol=protocol)) is Hearing.CONTROL
    assert protocol_name(protocol) == CONTROL[protocol]


def test_one_without_a_protocol_hears_nothing() -> None:
    assert hearing(replace(PLAIN, protocol=0)) is Hearing.DEAF


@given(st.integers(0, 0xFFFF), st.integers(0, 5))
def test_one_that_holds_promiscuous_mode_or_may_is_never_harmless(protocol: int, ifindex: int) -> None:
    socket = replace(PLAIN, protocol=protocol, ifindex=ifindex)
    for changed in (
        replace(socket, memberships=(3,)),
        replace(socket, addresses=((3, "02:00:00:00:00:07"),)),
        replace(socket, whole=False),
    ):
        assert hearing(changed) is Hearing.OVERHEARS


@given(st.integers(0, 0xFFFF), st.one_of(st.none(), st.integers(0, 4096)))
def test_a_filter_changes_nothing(protocol: int, length: int | None) -> None:
    socket = replace(PLAIN, protocol=protocol)
    assert hearing(replace(socket, filter=length)) is hearing(socket)


def test_an_unknown_protocol_is_named_by_its_number() -> None:
    assert (protocol_name(3), protocol_name(0x88B5)) == ("all", "0x88b5")
