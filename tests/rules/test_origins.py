from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firewall_events import ENGINE, changed
from tests.made_up import NOT_THERE, docker_host, process, seen
from verify_audit.audit.record import Event
from verify_audit.findings.finding import CauseKind
from verify_audit.findings.inventory import Origin
from verify_audit.host import questions as ask
from verify_audit.host.docker_layout import ExpectedRule
from verify_audit.host.firewall import Backend, FirewallRule
from verify_audit.host.iptables_command import parse_rule
from verify_audit.rules.actor import Actors
from verify_audit.rules.origins import Origins
from verify_audit.rules.picture import Picture

WORDS = "-s 1.2.3.4 -j ACCEPT"
ADD, DELETE = f"iptables -I DOCKER-USER {WORDS}", f"iptables -D DOCKER-USER {WORDS}"
LONG = (
    "/usr/sbin/iptables --wait -t nat -A DOCKER -p tcp -d 0/0 --dport 18099 -j DNAT --to-destination 172.30.1.2:99 "
    "! -i br-0123456789ab"
)


def origins(*events: Event, generation: int | None = 50, since: float | None = None) -> Origins:
    host = docker_host({ask.process(4000): seen(process(4000, comm="bash", exe="/usr/bin/bash"))})
    return Origins(events, Actors(Picture(host)), generation, since)


def rule(
    words: str = WORDS, chain: str = "DOCKER-USER", table: str = "filter", handle: int = 7, **more: Backend
) -> FirewallRule:
    backend = more.get("backend", Backend.NFT)
    return FirewallRule(backend, "ip", table, chain, handle, parse_rule(words.split(), "ip"))


def wanted(words: str = WORDS, chain: str = "DOCKER-USER") -> ExpectedRule:
    return ExpectedRule("ip", "filter", chain, parse_rule(words.split(), "ip"), "a test")


def made(*events: Event, of: FirewallRule | None = None, generation: int | None = 50) -> str | None:
    (origin,) = origins(*events, generation=generation).makers([of or rule()])
    assert origin is None or not origin.doubt
    return serial(origin)


def serial(origin: Origin | None) -> str | None:
    return origin.event.id.partition(":")[2] if origin is not None else None


def removed(*events: Event, of: ExpectedRule | None = None) -> tuple[str | None, bool]:
    origin = origins(*events).remover(of or wanted())
    return serial(origin), bool(origin and origin.doubt)


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([ADD], "0"),
        ([ADD, ADD], "1"),
        ([ADD, DELETE], None),
        ([ADD, DELETE, ADD], "2"),
        ([ADD, ADD, DELETE], "0"),
        ([ADD, "iptables -F DOCKER-USER"], None),
        ([ADD, "iptables -F"], None),
        ([ADD, "iptables -F DOCKER"], "0"),
        ([ADD, "iptables -t nat -F"], "0"),
        ([ADD, "ip6tables -F"], "0"),
        ([ADD, "nft flush ruleset"], None),
        ([ADD, "nft delete table ip filter"], None),
        ([ADD, "nft flush chain ip filter DOCKER-USER"], None),
        ([ADD, "nft flush chain ip nat DOCKER-USER"], "0"),
        ([ADD, "iptables -L", "iptables -C DOCKER-USER -s 1.2.3.4 -j ACCEPT", "iptables -N X"], "0"),
        ([DELETE], None),
        ([f"iptables -A DOCKER-USER {WORDS}"], "0"),
        ([f"iptables -t nat -A DOCKER-USER {WORDS}"], None),
        ([f"ip6tables -A DOCKER-USER {WORDS}"], None),
        ([f"iptables -A DOCKER {WORDS}"], None),
        (["iptables -A DOCKER-USER -s 1.2.3.5 -j ACCEPT"], None),
        (["iptables -A DOCKER-USER -s 1.2.3.4 -m limit --limit 1/s -j ACCEPT"], None),
    ],
)
def test_the_last_command_that_was_not_undone_made_the_rule(
    commands: list[str], expected: str | None
) -> None:
    assert made(*(changed(at, command) for at, command in enumerate(commands))) == expected


def test_of_equal_rules_the_youngest_is_of_the_last_command() -> None:
    several = origins(changed(1, ADD), changed(2, ADD)).makers(
        [rule(handle=3), rule(handle=5), rule(handle=9)]
    )
    assert [serial(origin) for origin in several] == [None, "1", "2"]


@pytest.mark.parametrize(
    ("event", "backend", "is_its"),
    [
        (changed(1, ADD), Backend.NFT, True),
        (changed(1, ADD), Backend.LEGACY, False),
        (changed(1, ADD, op="xt_replace", table="filter"), Backend.LEGACY, True),
        (changed(1, ADD, op="xt_replace", table="filter"), Backend.NFT, False),
        (changed(1, ADD, op="xt_replace", table=""), Backend.LEGACY, True),
    ],
)
def test_a_command_is_of_the_backend_that_its_records_name(
    event: Event, backend: Backend, is_its: bool
) -> None:
    assert (made(event, of=rule(backend=backend)) == "1") is is_its


def test_the_second_call_of_a_legacy_command_only_sets_counters() -> None:
    replaced = changed(1, ADD, op="xt_replace", table="filter")
    counted = changed(2, ADD, op="xt_replace", table="", counters=True)
    assert made(replaced, counted, of=rule(backend=Backend.LEGACY)) == "1"


def test_a_call_that_failed_made_nothing() -> None:
    assert made(changed(1, ADD, success="no")) is None


def test_what_was_before_the_boot_is_gone() -> None:
    found = origins(changed(1, ADD), since=1795436138.0)
    assert found.makers([rule()]) == [None]
    assert found.may_have_made(rule()) is None


@pytest.mark.parametrize(("generation", "expected"), [(9, None), (10, "1"), (None, "1")])
def test_a_later_generation_than_this_namespace_has_is_of_another(
    generation: int | None, expected: str | None
) -> None:
    assert made(changed(1, ADD), generation=generation) == expected


def test_the_actor_is_told() -> None:
    hand, engines, bare = (
        origins(event).makers([rule()])[0]
        for event in (changed(1, ADD), changed(1, ADD, parent=ENGINE), changed(1, ADD, call=False))
    )
    assert hand and engines and bare
    assert (hand.cause.kind, hand.cause.pid, hand.command) == (CauseKind.PROCESS, 9001, ADD)
    assert "/usr/bin/bash" in hand.cause.text
    assert engines.cause.kind is CauseKind.DOCKER
    assert (bare.cause.kind, bare.cause.pid) == (CauseKind.UNKNOWN, 9001)
    assert "called itself iptables" in bare.cause.text


MAYBE = [
    (changed(1, None), "name no command"),
    (changed(1, None, call=False), "name no command"),
    (changed(1, "iptables-restore"), "not in its command"),
    (changed(1, "nft -f /etc/x"), "not in its command"),
    (changed(1, "nft add rule ip filter DOCKER-USER ip saddr 1.2.3.4 accept"), "of a command of nft's"),
    (
        changed(1, "iptables -A DOCKER-USER -s 1.2.3.4 -m limit --limit 1/s -j ACCEPT"),
        "not wholly understood",
    ),
]


@pytest.mark.parametrize(("event", "doubt"), MAYBE)
def test_an_event_that_does_not_say_which_rule_may_have_made_it(event: Event, doubt: str) -> None:
    origin = origins(event).may_have_made(rule())
    assert origin is not None
    assert doubt in origin.doubt
    assert origins(event).makers([rule()]) == [None]


@pytest.mark.parametrize(
    "event",
    [
        changed(1, None, table="nat:10"),
        changed(1, None, family=10),
        changed(1, None, op="nft_unregister_rule"),
        changed(1, None, op="nft_register_set"),
        changed(1, None, op="xt_replace", table="filter"),
        changed(1, "iptables -D DOCKER-USER 1"),
        changed(1, "nft add rule ip filter DOCKER ip saddr 1.2.3.4 accept"),
        changed(1, "iptables -F DOCKER-USER"),
        changed(1, ADD),
    ],
)
def test_an_event_that_cannot_have_made_it_is_not_named(event: Event) -> None:
    assert origins(event).may_have_made(rule()) is None


def test_of_a_cut_command_what_is_there_must_fit() -> None:
    def dnat(port: int, to: str) -> FirewallRule:
        words = f"-p tcp --dport {port} -j DNAT --to-destination {to}:99 ! -i br-0123456789ab"
        return rule(words, "DOCKER", "nat")

    found = origins(changed(1, LONG, table="nat:10"))
    origin = found.may_have_made(dnat(18099, "172.30.1.2"))
    assert origin is not None
    assert "only the beginning" in origin.doubt
    assert found.may_have_made(dnat(18098, "172.30.1.2")) is None
    assert found.may_have_made(dnat(18099, "172.30.1.3")) is None
    assert found.may_have_made(rule("-j RETURN", "DOCKER", "nat")) is None


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([ADD, DELETE], ("1", False)),
        ([DELETE], ("0", False)),
        ([DELETE, ADD], (None, False)),
        ([ADD, "iptables -F DOCKER-USER"], ("1", False)),
        (["iptables -F"], ("0", False)),
        (["iptables -X DOCKER-USER"], ("0", False)),
        (["nft flush ruleset"], ("0", False)),
        (["nft delete table ip filter"], ("0", False)),
        (["iptables -t nat -F"], (None, False)),
        ([DELETE, "iptables -F DOCKER"], ("0", False)),
        (["iptables -D DOCKER-USER 1"], ("0", True)),
        (["nft delete rule ip filter DOCKER-USER handle 4"], ("0", True)),
        (["nft delete rule ip filter DOCKER handle 4"], (None, False)),
        (["iptables-restore"], ("0", True)),
        (["iptables-restore", ADD], (None, False)),
        (["iptables -D DOCKER-USER -s 1.2.3.5 -j ACCEPT"], (None, False)),
        ([], (None, False)),
    ],
)
def test_who_took_a_rule_away(commands: list[str], expected: tuple[str | None, bool]) -> None:
    assert removed(*(changed(at, command) for at, command in enumerate(commands))) == expected


def test_a_variant_of_the_rule_counts_as_the_rule() -> None:
    either = ExpectedRule(
        "ip", "filter", "DOCKER-USER", wanted("-j DROP").spec, "a test", variants=(wanted().spec,)
    )
    assert removed(changed(1, DELETE), of=either) == ("1", False)


COMMANDS = (
    ADD,
    DELETE,
    "iptables -F",
    "iptables -F DOCKER-USER",
    "iptables-restore",
    "iptables -D DOCKER-USER 1",
)


@given(st.lists(st.sampled_from(COMMANDS), max_size=8))
def test_a_rule_that_stands_and_one_that_is_missing_are_told_alike(commands: Sequence[str]) -> None:
    """What made it is a command that adds it and is followed by none that empties; what took it away never is."""
    events = [changed(at, command) for at, command in enumerate(commands)]
    maker, (remover, doubted) = made(*events), removed(*events)
    if maker is not None:
        at = int(maker)
        assert commands[at] == ADD
        assert not {"iptables -F", "iptables -F DOCKER-USER"} & set(commands[at:])
    if remover is not None:
        assert commands[int(remover)] != ADD
        assert doubted == (commands[int(remover)] in ("iptables-restore", "iptables -D DOCKER-USER 1"))
        assert ADD not in commands[int(remover) :]


def test_the_process_that_acted_is_asked_for_only_when_a_rule_is() -> None:
    host = docker_host({ask.process(4000): NOT_THERE})
    Origins([changed(1, ADD)], Actors(Picture(host)), None, None)
    assert host.asked == []
