from __future__ import annotations

from dataclasses import replace

import pytest

from tests.firewall_samples import engine as sample_engine
from tests.firewall_samples import firewall as sample_firewall
from tests.made_up import ENGINE, NOT_THERE, MadeUpHost, seen, unseen
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container, Engine, Network
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule
from verify_audit.host.iptables_command import FirewallCommand, parse_command, parse_rule
from verify_audit.host.observation import Observation
from verify_audit.rules.layout import Layout, live

VERSION, NETWORKS, CONTAINERS = sample_engine("docker-20.10")
SAMPLE = sample_firewall("docker-20.10")
OLD_ENGINE = replace(ENGINE, version=VERSION)
STRANGER = FirewallRule(
    Backend.NFT, "ip", "filter", "DOCKER-USER", 999, parse_rule(["-s", "1.2.3.4", "-j", "ACCEPT"], "ip")
)


def layout(
    firewall: Observation[Firewall] | None = None,
    *,
    engine: Engine | None = OLD_ENGINE,
    networks: Observation[tuple[Network, ...]] | None = None,
    containers: Observation[tuple[Container, ...]] | None = None,
) -> Layout:
    host = MadeUpHost({ask.FIREWALL: firewall or seen(SAMPLE)})
    return Layout(host, engine, networks or seen(tuple(NETWORKS)), containers or seen(tuple(CONTAINERS)))


def test_a_firewall_as_docker_makes_it() -> None:
    found = layout()
    assert found.attribution is not None
    assert found.summary.startswith("Docker's chains are there (nft): DOCKER")
    assert f"rules for its networks and ports: {len(SAMPLE.rules)}" in found.summary
    assert "for nothing" not in found.summary
    assert "missing" not in found.summary
    assert found.unexplained == ""


def test_strangers_are_named_where_they_stand() -> None:
    found = layout(seen(replace(SAMPLE, rules=(*SAMPLE.rules, STRANGER))))
    assert "for nothing that it runs: 1" in found.summary
    (named,) = found.strangers("ip", "filter")
    assert "1.2.3.4" in named
    assert found.strangers("ip", "nat") == found.strangers("ip6", "filter") == []
    assert "1.2.3.4" in found.unexplained


def test_a_chain_that_only_bears_dockers_name_is_a_stranger() -> None:
    chain = Chain(Backend.NFT, "ip", "filter", "DOCKER-X")
    found = layout(seen(replace(SAMPLE, chains=(*SAMPLE.chains, chain))))
    assert found.strangers("ip", "filter") == ["chain DOCKER-X of table filter"]


def test_what_is_missing_is_counted_and_named() -> None:
    without = tuple(rule for rule in SAMPLE.rules if rule.chain != "DOCKER-USER")
    found = layout(seen(replace(SAMPLE, rules=without)))
    assert "missing: 1" in found.summary
    assert found.unexplained.startswith("missing: -t filter -A DOCKER-USER -j RETURN")


def test_no_chain_of_dockers() -> None:
    assert layout(seen(Firewall(1))).summary == "no chain of Docker's is in the firewall"


@pytest.mark.parametrize("answer", [unseen("no rights"), NOT_THERE])
def test_a_firewall_that_could_not_be_read_is_not_an_empty_one(answer: Observation[Firewall]) -> None:
    found = layout(answer)
    assert found.summary.startswith("the firewall could not be read: ")
    assert found.attribution is None
    assert found.strangers("ip", "filter") == []


def test_without_an_engine_or_its_lists_nothing_is_attributed() -> None:
    for found in (layout(engine=None), layout(networks=unseen()), layout(containers=unseen())):
        assert found.expected == ()
        assert found.attribution is None
        assert found.summary.startswith("Docker's chains are there")
        assert "rules for" not in found.summary
    assert layout(engine=None).makes_table("ip", "anything")


def test_tables_and_chains_of_this_version() -> None:
    found = layout()
    assert found.makes_table("ip", "nat")
    assert not found.makes_table("ip", "docker-bridges")


PUBLISHED = (
    "/usr/sbin/iptables --wait -t nat -A DOCKER -p tcp -d 0/0 --dport 8080 -j DNAT "
    "--to-destination 172.17.0.2:80 ! -i docker0"
)


def command(text: str) -> FirewallCommand:
    found = parse_command([word.encode() for word in text.split()])
    assert found is not None
    return found


def test_a_command_of_dockers_is_explained_and_found_standing() -> None:
    found = layout()
    explained = found.explain(command(PUBLISHED))
    assert explained is not None
    assert explained.because == "port 80/tcp of /web is published as 0.0.0.0:8080"
    assert found.explain(command(PUBLISHED)) is explained
    assert [rule.chain for rule in found.live(command(PUBLISHED))] == ["DOCKER"]
    assert layout(unseen()).live(command(PUBLISHED)) == []


@pytest.mark.parametrize(
    "text",
    [
        PUBLISHED.replace("8080", "8081"),
        PUBLISHED.replace("-t nat ", ""),
        PUBLISHED.replace("iptables", "ip6tables").replace("0/0", "::/0"),
        "/usr/sbin/iptables -F DOCKER",
        "/usr/sbin/iptables -N DOCKER",
    ],
)
def test_a_command_of_somebody_elses_is_not(text: str) -> None:
    assert layout().explain(command(text)) is None
    assert live(SAMPLE, command(text)) == []
