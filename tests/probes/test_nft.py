from __future__ import annotations

import errno
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firewall_samples import replies, sample, words
from verify_audit.host.firewall import Backend, Firewall, Match, RuleSpec
from verify_audit.probes import nft
from verify_audit.probes.netlink import NetlinkError
from verify_audit.probes.nft_expressions import attributes, decode, interface_in

MAPS = [("nft-maps", "sets"), ("nft-maps", "elements")]
DOCKER = ["docker-20.10", "docker-20.10-ipv6-no-proxy", "container-20.10"]


def saved_and_decoded(name: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    saved = [(place, *words(line)) for place, lines in sample(name)["saved"].items() for line in lines]
    decoded = [
        (f"{rule.family} {rule.table}", *words(f"-A {rule.chain} {rule.spec}"))
        for rule in nft.parse(replies(name)).rules
    ]
    return sorted(saved), sorted(decoded)


@pytest.mark.parametrize("name", DOCKER)
def test_what_docker_made_reads_as_iptables_save_writes_it(name: str) -> None:
    saved, decoded = saved_and_decoded(name)
    assert len(saved) > 5
    assert decoded == saved


def test_of_one_rule_of_each_kind_only_those_not_understood_differ_and_all_of_them_are_opaque() -> None:
    saved, decoded = saved_and_decoded("iptables-nft")
    different = {rule for rule in decoded if rule not in saved}
    assert len(saved) == len(decoded) == 47
    opaque = {
        (f"{rule.family} {rule.table}", *words(f"-A {rule.chain} {rule.spec}"))
        for rule in nft.parse(replies("iptables-nft")).rules
        if rule.spec.opaque
    }
    assert different == opaque
    # tcp flags, ICMP type, multiport, fragment, limit, MARK, CT
    assert len(opaque) == 7


def test_expressions_of_nft_itself() -> None:
    decoded = [str(rule) for rule in nft.parse(replies("nft-native")).rules]
    assert decoded == sample("nft-native")["decoded"]
    assert len(decoded) == 28


def test_where_verdict_maps_lead_and_which_interfaces_a_nameless_set_holds() -> None:
    """Only in tables in which a chain can be Docker's; what is more than a name stays opaque."""
    decoded = [str(rule) for rule in nft.parse(replies("nft-maps")).rules]
    assert decoded == sample("nft-maps")["decoded"]
    assert "iptables-nft -t filter -A @leads [eth0] -j DOCKER" in decoded
    assert "iptables-nft -t filter -A MINE ! -i {docker0, eth0, eth1} -j DROP" in decoded
    assert not any("-t other" in rule for rule in decoded)
    elements = [rule for rule in nft.parse(replies("nft-maps")).rules if rule.chain == "@numbers"]
    assert len(elements) == 6
    assert {rule.spec.target for rule in elements if not rule.spec.opaque} == {"DOCKER", "RETURN"}


def test_other_tables_are_not_asked_for_their_elements() -> None:
    """A map of kube-proxy's can have thousands."""
    asked = [found for message in replies("nft-maps").sets if (found := nft._set(message)) is not None]
    assert {(found.table, found.is_map) for found in asked} == {("filter", True), ("filter", False)}
    assert len(replies("nft-maps").sets) > len(asked)


def test_an_element_that_is_more_than_a_name_names_no_interface() -> None:
    key = struct.pack("=HH", 20, 1) + b"eth0".ljust(16, b"\0")
    assert interface_in({1: key}) == "eth0"
    assert interface_in({1: key, 3: number(2)}) is None
    assert interface_in({1: key, 10: key}) is None
    assert interface_in({3: number(2)}) is None


def test_chains_tables_handles_and_the_generation() -> None:
    firewall = nft.parse(replies("docker-20.10"))
    assert {("ip", "filter"), ("ip", "nat")} <= {(table.family, table.name) for table in firewall.tables}
    (forward,) = firewall.chain("ip", "filter", "FORWARD")
    assert (forward.hook, forward.policy, forward.backend) == ("forward", "DROP", Backend.NFT)
    (user,) = firewall.chain("ip", "filter", "DOCKER-USER")
    assert (user.hook, user.policy) == (None, None)
    handles = [rule.handle for rule in firewall.rules if rule.table == "filter"]
    assert len(set(handles)) == len(handles)
    assert firewall.nft_generation is not None
    assert firewall.nft_generation > 50


def test_a_kernel_without_nf_tables_has_no_rules_of_it() -> None:
    assert nft.parse(nft.Replies(7, b"")) == Firewall(7)


@given(data=st.data())
def test_a_cut_or_changed_reply_is_a_netlink_error_or_read_but_nothing_else(data: st.DataObject) -> None:
    name, part = data.draw(
        st.sampled_from(
            [*((name, "rules") for name in (*DOCKER, "nft-native", "iptables-nft")), *MAPS],
        )
    )
    whole = replies(name)
    replied = list(getattr(whole, part))
    at = data.draw(st.integers(0, len(replied) - 1))
    message = bytearray(replied[at])
    if data.draw(st.booleans()):
        del message[data.draw(st.integers(0, len(message) - 1)) :]
        if len(message) >= 4 and data.draw(st.booleans()):
            message[:4] = struct.pack("=I", len(message))
    else:
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    replied[at] = bytes(message)
    changed: dict[str, Any] = {part: tuple(replied)}
    try:
        nft.parse(replace(whole, **changed))
    except NetlinkError as error:
        assert "nf_tables" in str(error)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_cut_reply_is_never_taken_for_a_shorter_rule(cut: int) -> None:
    whole = replies("docker-20.10")
    message = whole.rules[0][:-cut]
    message = struct.pack("=I", len(message)) + message[4:]
    with pytest.raises(NetlinkError):
        nft.parse(replace(whole, rules=(message,)))


def test_an_attribute_that_is_longer_than_what_is_there_is_refused() -> None:
    with pytest.raises(ValueError, match="attribute 1 of 12 bytes"):
        list(attributes(struct.pack("=HH", 12, 1) + b"abc\0"))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(value: int) -> bytes:
    return struct.pack(">i", value)


def expression(name: str, *parts: bytes) -> bytes:
    return attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, b"".join(parts)))


IIFNAME = expression("meta", attribute(1, number(1)), attribute(2, number(6)))
IS_LO = expression(
    "cmp", attribute(1, number(1)), attribute(2, number(0)), attribute(3, attribute(1, b"lo\0"))
)
DROP = expression("immediate", attribute(1, number(0)), attribute(2, attribute(2, attribute(1, number(0)))))
COUNTER = expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def test_a_rule_put_together_by_hand() -> None:
    spec = decode("ip", IIFNAME + IS_LO + COUNTER + DROP, b"")
    assert spec == RuleSpec(in_interface=Match("lo"), target="DROP")


def test_a_condition_behind_the_verdict_is_none() -> None:
    spec = decode("ip", DROP + IIFNAME + IS_LO, b"")
    assert spec.in_interface is None
    assert spec.opaque


def test_a_second_condition_on_the_same_field_is_not_lost() -> None:
    is_not_eth0 = expression(
        "cmp", attribute(1, number(1)), attribute(2, number(1)), attribute(3, attribute(1, b"eth0\0"))
    )
    spec = decode("ip", IIFNAME + IS_LO + is_not_eth0 + DROP, b"")
    assert spec.in_interface == Match("lo")
    assert spec.opaque


def test_a_register_that_was_never_loaded_is_opaque() -> None:
    assert decode("ip", IS_LO + DROP, b"").opaque


def test_an_unknown_expression_is_opaque() -> None:
    assert decode("ip", expression("__class__") + DROP, b"").opaque


@pytest.mark.parametrize(("size", "known"), [(12, True), (16, True), (8, False), (24, False)])
def test_a_structure_of_another_size_is_another_structure(size: int, known: bool) -> None:
    info = struct.pack("=IIB", 1, 0xFF, 0).ljust(24, b"\0")[:size]
    match = expression("match", attribute(1, b"mark\0"), attribute(2, number(1)), attribute(3, info))
    spec = decode("ip", match + DROP, b"")
    assert (spec.mark, bool(spec.opaque)) == ((Match("0x1/0xff"), False) if known else (None, True))


def test_ports_without_a_protocol_are_opaque() -> None:
    load = expression(
        "payload", *(attribute(kind, number(value)) for kind, value in ((1, 1), (2, 2), (3, 2), (4, 2)))
    )
    compare = expression(
        "cmp", attribute(1, number(1)), attribute(2, number(0)), attribute(3, attribute(1, b"\0\x50"))
    )
    spec = decode("ip", load + compare + DROP, b"")
    assert spec.destination_ports is None
    assert spec.opaque


def test_a_comment_of_nft_is_kept() -> None:
    assert decode("ip", DROP, b"\0\4ICC\0").comment == "ICC"


def generation(value: int) -> bytes:
    body = struct.pack("=BBH", 0, 0, 0) + attribute(1, struct.pack(">I", value))
    return struct.pack("=IHHII", 16 + len(body), (10 << 8) | 15, 0, 1, 0) + body


class Kernel:
    """Answers GETGEN with the given generations in turn, dumps with nothing."""

    def __init__(self, *generations: int | NetlinkError) -> None:
        self.left = list(generations)

    def request(self, _protocol: int, kind: int, _flags: int, _body: bytes, _timeout: float) -> list[bytes]:
        if kind != (10 << 8) | 16:
            return []
        answer = self.left.pop(0)
        if isinstance(answer, NetlinkError):
            raise answer
        return [generation(answer)]


def read_from(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> nft.Replies:
    monkeypatch.setattr(nft, "request", kernel.request)
    monkeypatch.setattr(nft, "_in_kernel", lambda: True)
    return nft.read(1)


def test_rules_that_change_while_they_are_read_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_from(monkeypatch, Kernel(1, 2, 2, 2))
    assert nft.parse(found).nft_generation == 2


def test_rules_that_never_stand_still_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetlinkError) as caught:
        read_from(monkeypatch, Kernel(*range(10)))
    assert caught.value.code == errno.EBUSY


def test_a_kernel_that_knows_no_nf_tables_is_a_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_from(monkeypatch, Kernel(NetlinkError(errno.EINVAL, "")))
    assert nft.parse(found) == Firewall(1)


def test_without_the_right_to_ask_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetlinkError) as caught:
        read_from(monkeypatch, Kernel(NetlinkError(errno.EPERM, "no")))
    assert caught.value.code == errno.EPERM


def test_a_module_that_is_not_loaded_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_in_kernel", lambda: False)
    monkeypatch.setattr(nft, "request", None)
    assert nft.read(1).generation == b""
