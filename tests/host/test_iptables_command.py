from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firewall_samples import sample, words
from verify_audit.host.firewall import Match, RuleSpec
from verify_audit.host.iptables_command import FirewallCommand, parse_command, parse_rule


def command(text: str, *, truncated: bool = False) -> FirewallCommand:
    """As the audit log has it: `!` reads as an empty argument."""
    argv = [b"" if word == "!" else word.encode() for word in text.split(" ")]
    parsed = parse_command(argv, truncated=truncated)
    assert parsed is not None
    return parsed


def test_docker_publishes_a_port() -> None:
    parsed = command(
        "/usr/sbin/iptables --wait -t nat -A DOCKER -p tcp -d 0/0 --dport 8080 -j DNAT"
        " --to-destination 172.17.0.2:80 ! -i docker0"
    )
    assert (parsed.program, parsed.family, parsed.table) == ("iptables", "ip", "nat")
    assert (parsed.action, parsed.chain, parsed.wait_position) == ("append", "DOCKER", "first")
    assert parsed.spec == RuleSpec(
        in_interface=Match("docker0", negated=True),
        protocol=Match("tcp"),
        destination_ports=Match("8080"),
        target="DNAT",
        to="172.17.0.2:80",
    )


@pytest.mark.parametrize(
    ("text", "action", "table", "chain"),
    [
        ("iptables -I DOCKER-USER 1 -s 1.2.3.4 -j ACCEPT", "insert", "filter", "DOCKER-USER"),
        ("iptables -D DOCKER 3", "delete", "filter", "DOCKER"),
        ("iptables -tnat -nvL", "list", "nat", None),
        ("iptables --table=raw --list-rules PREROUTING", "list", "raw", "PREROUTING"),
        ("iptables -F", "flush", "filter", None),
        ("iptables -t nat -F DOCKER", "flush", "nat", "DOCKER"),
        ("iptables -w10 -N DOCKER-X", "new_chain", "filter", "DOCKER-X"),
        ("iptables -X", "delete_chain", "filter", None),
        ("iptables -E A B", "rename", "filter", "A"),
        ("iptables -P FORWARD DROP", "policy", "filter", "FORWARD"),
        ("iptables -R INPUT 1 -j DROP", "replace", "filter", "INPUT"),
        ("iptables -C INPUT -j DROP", "check", "filter", "INPUT"),
        ("iptables -L -Z", "zero", "filter", None),
        ("xtables-nft-multi iptables -A INPUT -j DROP", "append", "filter", "INPUT"),
        ("/sbin/xtables-legacy-multi ip6tables -t mangle -F", "flush", "mangle", None),
        ("iptables-restore -T nat", "restore", "nat", None),
        ("ip6tables-legacy-restore --noflush", "restore", None, None),
        ("iptables-save -t nat", "list", None, None),
        ("ebtables -t nat -A PREROUTING -j DROP", "append", "nat", "PREROUTING"),
        ("nft add table ip evil", "new_table", "evil", None),
        ("nft add rule ip filter DOCKER-USER ip saddr 1.2.3.4 drop", "append", "filter", "DOCKER-USER"),
        ("nft insert rule filter DOCKER counter", "insert", "filter", "DOCKER"),
        ("nft -a delete rule inet a b handle 3", "delete", "a", "b"),
        ("nft add chain ip a b { type filter hook forward priority 0 ; }", "new_chain", "a", "b"),
        ("nft add set ip a b { type ipv4_addr; }", "add_set", "a", None),
        ("nft flush ruleset", "flush", None, None),
        ("nft list ruleset", "list", None, None),
        ("nft -f -", "restore", None, None),
        ("nft add table ip a; add table ip b", "restore", None, None),
        ("nft monitor", "unknown", None, None),
        ("iptables", "unknown", "filter", None),
    ],
)
def test_what_was_asked_for(text: str, action: str, table: str | None, chain: str | None) -> None:
    parsed = command(text)
    assert (parsed.action, parsed.table, parsed.chain) == (action, table, chain)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("iptables --wait -A X -j Y", "first"),
        ("iptables -w 5 -A X -j Y", "first"),
        ("iptables -A X -j Y --wait", "last"),
        ("iptables -A X -w -j Y", None),
        ("iptables -A X -j Y", None),
    ],
)
def test_where_wait_stands(text: str, position: str | None) -> None:
    parsed = command(text)
    assert parsed.wait_position == position
    assert (parsed.chain, parsed.spec) == ("X", RuleSpec(target="Y"))


@pytest.mark.parametrize(
    "argv", [(), (b"",), (b"sh", b"-c", b"iptables -F"), (b"xtables-nft-multi",), (b"python3",)]
)
def test_other_programs_are_none(argv: tuple[bytes, ...]) -> None:
    assert parse_command(argv) is None


def test_nft_names_the_family() -> None:
    assert command("nft add table inet x").family == "inet"
    assert command("nft add table x").family == "ip"
    assert command("nft flush ruleset").family is None
    assert command("nft flush ruleset ip6").family == "ip6"


def test_a_cut_command_says_no_more_than_it_has() -> None:
    whole = command("iptables --wait -t nat -A DOCKER -p tcp -j DROP", truncated=True)
    assert whole.spec is not None
    assert whole.spec.opaque
    assert whole.truncated
    chain = command("iptables --wait -t filter -A DOCKER-US", truncated=True)
    assert (chain.action, chain.chain) == ("append", None)
    assert command("iptables --wait -t na", truncated=True).table is None
    assert command("iptables --wait -A DOCKER -j X", truncated=True).table is None
    assert command("nft add rule ip filter DOCK", truncated=True).chain is None
    assert command("nft add rule ip filter DOCKER drop", truncated=True).chain == "DOCKER"


@pytest.mark.parametrize(
    "text",
    [
        "iptables -A X -m limit --limit 5/min -j Y",
        "iptables -A X -s example.org -j Y",
        "iptables -A X -p tcp --dport http -j Y",
        "iptables -A X --unheard-of 5 -j Y",
        "iptables -A X -j Y -i",
        "iptables -A X -i a -i b -j Y",
        "iptables -A X ! -s 0/0 -j Y",
        "iptables -A X -f -j Y",
        "iptables -A X -p tcp --syn -j Y",
    ],
)
def test_what_is_not_understood_is_opaque(text: str) -> None:
    spec = command(text).spec
    assert spec is not None
    assert spec.target == "Y"
    assert spec.opaque


def test_the_older_ways_to_say_the_same() -> None:
    new = command("iptables -A X ! -s 1.2.3.4 ! --in-interface lo -m conntrack --ctstate ESTABLISHED,RELATED")
    old = command("iptables -A X -s ! 1.2.3.4 --in-interface ! lo -m state --state RELATED,ESTABLISHED")
    assert (
        new.spec
        == old.spec
        == RuleSpec(
            source=Match("1.2.3.4/32", negated=True),
            in_interface=Match("lo", negated=True),
            states=Match("RELATED,ESTABLISHED"),
        )
    )


def test_a_reject_without_a_reason_has_the_default_one() -> None:
    assert (
        command("iptables -A X -j REJECT").spec
        == command("iptables -A X -j REJECT --reject-with icmp-port-unreachable").spec
    )


@pytest.mark.parametrize("name", ["docker-20.10", "docker-20.10-ipv6-no-proxy", "docker-20.10-legacy"])
def test_every_line_of_iptables_save_reads_back(name: str) -> None:
    for place, lines in sample(name)["saved"].items():
        for line in lines:
            _, chain, *rest = line.split()
            spec = parse_rule(rest, place.split()[0])
            assert not spec.opaque
            assert words(f"-A {chain} {spec}") == words(line)


WORDS = st.sampled_from(
    b"iptables nft -t nat -A -I -D -X -L -w --wait -j -g -p tcp -s -d 1.2.3.4 0/0 -i -o ! --dport 80 :80 80: "
    b"a:b --mark 0x1/x --ctstate NEW --match-set --to-destination -m -c -f - -- --=x -P -R add rule table "
    b"{ ; }".split()
)


@given(
    st.sampled_from(
        [b"iptables", b"/x/ip6tables-nft", b"xtables-multi", b"nft", b"ebtables", b"iptables-restore"]
    ),
    st.lists(WORDS | st.binary(max_size=6), max_size=12),
    st.booleans(),
)
def test_never_raises(program: bytes, arguments: list[bytes], truncated: bool) -> None:
    parsed = parse_command([program, *arguments], truncated=truncated)
    if parsed is not None and parsed.spec is not None and truncated:
        assert parsed.spec.opaque
