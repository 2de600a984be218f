"""The arithmetic. Whether it is the kernel's is tested in tests/probes/test_stack.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.made_up import link
from verify_audit.host.facts import Link, PacketSocket, Stack, Upper
from verify_audit.host.ledger import Holder, Ledger, ledger

NIC = link("eth0", 5, master=None, slave_kind="", kind="", peer_ifindex=None, peer_nsid=None, promiscuity=0)
BRIDGE = link("docker0", 2, kind="bridge", master=None, slave_kind="", promiscuity=0)
NOTHING = Stack(5, (), ())


def member(*ifindexes: int, **changes: object) -> PacketSocket:
    return replace(PacketSocket(9, 0, 3, 0, ifindexes, ()), **changes)  # type: ignore[arg-type]


def upper(kind: str, mode: str = "", **changes: object) -> Upper:
    values = {"kind": kind, "mode": mode, "mac": "02:00:00:00:00:01", "promiscuity": 0, "master": None}
    return Upper(link(f"{kind}0", 30, **(values | changes)), 3)


def bounds(held: Ledger) -> tuple[int, int | None]:
    return held.least, held.most


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bridge", (1, 1)),
        ("openvswitch", (1, 1)),
        ("hsr", (1, 1)),
        ("vrf", (0, 0)),
        ("bond", (0, 1)),
        ("", (0, 1)),
    ],
)
def test_what_a_master_holds(kind: str, expected: tuple[int, int]) -> None:
    port = replace(NIC, master=2, slave_kind=kind)
    assert bounds(ledger(port, BRIDGE, (), NOTHING)) == expected


def test_a_bridge_with_vlan_filtering_need_not_hold_it_unless_it_is_promiscuous_itself() -> None:
    port = replace(NIC, master=2, slave_kind="bridge")
    filtering = replace(BRIDGE, vlan_filtering=True)
    assert bounds(ledger(port, filtering, (), NOTHING)) == (0, 1)
    assert bounds(ledger(port, replace(filtering, promiscuity=1), (), NOTHING)) == (1, 1)


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        (upper("macvlan", "passthru"), (1, 1)),
        (upper("macvtap", "passthru"), (1, 1)),
        (upper("macvlan", "passthru", promiscuity=1), (1, 2)),
        (upper("macvlan", "passthru", promiscuity=1, spares_promiscuity=True), (0, 0)),
        (upper("macvlan", "passthru", up=False), (0, 0)),
        (upper("macvlan", "bridge"), (0, 0)),
        (upper("macvlan", "bridge", promiscuity=2), (0, 1)),
        (upper("vlan", promiscuity=2), (1, 1)),
        (upper("vlan"), (0, 0)),
        (upper("macsec", promiscuity=1, up=False), (0, 0)),
        (upper("ipvlan", promiscuity=1), (0, 0)),
        (upper("never-seen", promiscuity=1), (0, 1)),
    ],
)
def test_what_an_upper_interface_holds(above: Upper, expected: tuple[int, int]) -> None:
    assert bounds(ledger(NIC, None, (), Stack(5, (above,), ()))) == expected


def test_memberships_are_counted_one_by_one_and_only_those_on_the_device() -> None:
    assert bounds(ledger(NIC, None, (member(5, 5, 6), member(6), member(5)), NOTHING)) == (3, 3)


def test_a_further_address_may_hold_it_once_whoever_it_is_for() -> None:
    child = upper("macvlan", "bridge")
    asking = member(addresses=((5, "02:00:00:00:00:02"), (6, "02:00:00:00:00:03")))
    promiscuous = replace(NIC, promiscuity=1)
    for addresses, explained, unexplained in (
        (("02:00:00:00:00:01", "02:00:00:00:00:02"), True, False),
        (("02:00:00:00:00:02",), False, False),
        (("02:00:00:00:00:03",), False, True),
    ):
        held = ledger(promiscuous, None, (asking,), Stack(5, (child,), addresses))
        assert bounds(held) == (0, 1)
        assert [hold.explained for hold in held.holds if hold.holder is Holder.ADDRESS] == [explained]
        assert bool(held.unexplained) is unexplained


def test_an_interface_that_is_down_wants_no_address() -> None:
    child = upper("macvlan", "bridge", up=False)
    held = ledger(replace(NIC, promiscuity=1), None, (), Stack(5, (child,), ("02:00:00:00:00:01",)))
    assert [hold.holder for hold in held.unexplained] == [Holder.ADDRESS]


def test_an_address_that_need_not_hold_it_is_not_held_against_anybody() -> None:
    port = replace(NIC, master=2, slave_kind="bridge", promiscuity=1)
    assert ledger(port, BRIDGE, (), Stack(5, (), ("02:00:00:00:00:03",))).unexplained == ()


def test_the_flag_is_explained_by_nobody() -> None:
    held = ledger(replace(NIC, promiscuity=1, asked_promiscuous=True), None, (), NOTHING)
    assert [hold.holder for hold in held.unexplained] == [Holder.FLAG]
    assert held.remainder == 0


def test_a_remainder_is_what_nobody_can_account_for() -> None:
    port = replace(NIC, master=2, slave_kind="bridge", promiscuity=4)
    assert ledger(port, BRIDGE, (member(5),), NOTHING).remainder == 2


@pytest.mark.parametrize(
    ("sockets", "stack"),
    [(None, NOTHING), ((), None), ((member(whole=False),), NOTHING), ((), replace(NOTHING, unseen=(3,)))],
)
def test_what_could_not_be_looked_at_may_hold_it_any_number_of_times(
    sockets: tuple[PacketSocket, ...] | None, stack: Stack | None
) -> None:
    held = ledger(replace(NIC, promiscuity=7), None, sockets, stack)
    assert (held.least, held.most, held.remainder, held.unexplained) == (0, None, 0, ())


links = st.builds(
    replace,
    st.just(NIC),
    promiscuity=st.integers(0, 6),
    master=st.sampled_from([None, 2]),
    slave_kind=st.sampled_from(["", "bridge", "bond", "vrf"]),
    asked_promiscuous=st.booleans(),
    up=st.booleans(),
)
members = st.builds(member, st.sampled_from([5, 6]), whole=st.booleans())
stacks = st.builds(
    Stack,
    st.just(5),
    st.lists(
        st.builds(upper, st.sampled_from(["macvlan", "vlan"]), st.sampled_from(["passthru", "bridge"]),
                  promiscuity=st.integers(0, 2)), max_size=3,
    ).map(tuple),
    st.lists(st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:09"]), max_size=2).map(tuple),
)  # fmt: skip


@given(links, st.lists(members, max_size=3), st.one_of(st.none(), stacks))
def test_one_holder_more_never_adds_to_the_remainder(
    device: Link, sockets: list[PacketSocket], stack: Stack | None
) -> None:
    before = ledger(device, BRIDGE, tuple(sockets), stack)
    after = ledger(device, BRIDGE, (*sockets, member(5)), stack)
    unseen = ledger(device, BRIDGE, None, stack)
    assert after.least == before.least + 1
    assert after.remainder <= before.remainder
    assert unseen.remainder == 0
    assert before.most is None or before.least <= before.most


@given(links, st.lists(members, max_size=3), stacks)
def test_nothing_is_left_over_where_the_bounds_are_kept(
    device: Link, sockets: list[PacketSocket], stack: Stack
) -> None:
    held = ledger(device, BRIDGE, tuple(sockets), stack)
    assert bool(held.remainder) == (held.most is not None and held.count > held.most)
