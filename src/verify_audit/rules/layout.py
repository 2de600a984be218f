"""The firewall as it is, held against what this engine sets up. Joins, and weighs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from verify_audit.host import questions as ask
from verify_audit.host.attribution import Attribution, attribute, explain_spec
from verify_audit.host.docker_layout import (
    ExpectedRule,
    expected_container_rules,
    expected_rules,
    is_docker_table,
)
from verify_audit.host.facts import Container, Engine, Network
from verify_audit.host.firewall import Firewall, FirewallRule, RuleSpec
from verify_audit.host.iptables_command import FirewallCommand
from verify_audit.host.observation import Observation, Observed, Unobservable
from verify_audit.host.questions import Host

FAMILIES = {0: "unspecified", 1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6", 12: "decnet"}
"""NFPROTO_* of include/uapi/linux/netfilter.h, by the names that nft(8) has for them."""


class Layout:
    """One host's firewall beside what its engine would set up."""

    def __init__(
        self,
        host: Host,
        engine: Engine | None,
        networks: Observation[tuple[Network, ...]],
        containers: Observation[tuple[Container, ...]],
    ) -> None:
        """engine: None when it could not be asked, or is no Docker."""
        self._host = host
        self._engine = engine
        self._networks = networks
        self._containers = containers
        self._tables: dict[tuple[str, str], bool] = {}
        self._explanations: dict[tuple[object, ...], ExpectedRule | None] = {}

    @cached_property
    def version(self) -> str | None:
        """The engine's version; None when it could not be asked or is no Docker."""
        return self._engine.version if self._engine is not None else None

    @cached_property
    def firewall(self) -> Observation[Firewall]:
        """Chains and rules of the engine's network namespace."""
        return self._host.ask(ask.FIREWALL)

    @cached_property
    def expected(self) -> tuple[ExpectedRule, ...]:
        """What this engine sets up for its networks and containers; empty when they are not known."""
        networks, containers = self._networks, self._containers
        if self.version is None or not isinstance(networks, Observed) or not isinstance(containers, Observed):
            return ()
        return expected_rules(self.version, networks.fact, containers.fact, firewall=self._backend)

    @cached_property
    def expected_in_containers(self) -> tuple[ExpectedRule, ...]:
        """What it sets up in the namespace of a container on a user-defined network."""
        return () if self.version is None else expected_container_rules(self.version, firewall=self._backend)

    @cached_property
    def _backend(self) -> str:
        return (self._engine.firewall_backend if self._engine is not None else None) or "iptables"

    @cached_property
    def attribution(self) -> Attribution | None:
        """Which rules are whose; None when the firewall or the engine could not be seen."""
        if self.version is None or not self.expected or not isinstance(self.firewall, Observed):
            return None
        return attribute(self.firewall.fact, self.expected, self.version)

    @cached_property
    def summary(self) -> str:
        """In a sentence: which of Docker's chains are there, and what in them is not Docker's."""
        if not isinstance(self.firewall, Observed):
            reason = self.firewall.reason if isinstance(self.firewall, Unobservable) else "there is none"
            return f"the firewall could not be read: {reason}"
        firewall = self.firewall.fact
        named = dict.fromkeys(
            chain.name for chain in firewall.chains if chain.name.upper().startswith("DOCKER")
        )
        if not named:
            return "no chain of Docker's is in the firewall"
        backends = " and ".join(sorted(str(backend) for backend in firewall.backends())) or "empty"
        sentence = f"Docker's chains are there ({backends}): {', '.join(named)}"
        if self.attribution is None:
            return sentence
        explained, unexplained = len(self.attribution.explained), len(self.attribution.unexplained)
        sentence += f"; rules for its networks and ports: {explained}"
        if unexplained:
            sentence += f", for nothing that it runs: {unexplained}"
        if self.attribution.missing:
            sentence += f", missing: {len(self.attribution.missing)}"
        return sentence

    @cached_property
    def unexplained(self) -> str:
        """What stands under Docker's names and is none of its own, and what is missing of that, a line each."""
        if self.attribution is None:
            return ""
        lines = [f"not Docker's: {rule}" for rule in self.attribution.unexplained]
        lines += [
            f"not Docker's: chain {chain.name} of table {chain.table}"
            for chain in self.attribution.foreign_chains
        ]
        lines += [
            f"missing: -t {rule.table} -A {rule.chain} {rule.spec} ({rule.because})"
            for rule in self.attribution.missing
        ]
        return "\n".join(lines)

    def makes_table(self, family: str, table: str) -> bool:
        """Whether Docker ever writes to such a table; True when its version is not known."""
        key = (family, table)
        if key not in self._tables:
            self._tables[key] = self.version is None or is_docker_table(self.version, family, table)
        return self._tables[key]

    @cached_property
    def has_firewalld(self) -> bool:
        """Whether firewalld keeps a table of its own there, and so Docker's rules as well."""
        tables = self.firewall.fact.tables if isinstance(self.firewall, Observed) else ()
        return any(table.name == "firewalld" for table in tables)

    def explain(self, command: FirewallCommand) -> ExpectedRule | None:
        """What of Docker's a command's rule is for; None when it is nothing of Docker's."""
        return self._explain(command, self.expected)

    def explain_in_container(self, command: FirewallCommand) -> ExpectedRule | None:
        """The same inside a container's namespace."""
        if (command.table, command.chain) not in self._places_in_containers:
            return None
        return self._explain(command, self.expected_in_containers)

    @cached_property
    def _places_in_containers(self) -> frozenset[tuple[str | None, str | None]]:
        return frozenset((rule.table, rule.chain) for rule in self.expected_in_containers)

    def _explain(self, command: FirewallCommand, expected: tuple[ExpectedRule, ...]) -> ExpectedRule | None:
        if command.spec is None or command.chain is None or command.family is None:
            return None
        key = (id(expected), command.family, command.table, command.chain, command.spec)
        if key not in self._explanations:
            self._explanations[key] = explain_spec(
                command.spec, command.family, command.table or "filter", command.chain, expected
            )
        return self._explanations[key]

    def live(self, command: FirewallCommand) -> list[FirewallRule]:
        """The rules that stand in the engine's namespace as the command says."""
        if command.spec is None or command.spec.opaque or command.chain is None:
            return []
        key = (command.family or "", command.table or "filter", command.chain, command.spec)
        return self._standing.get(key, [])

    @cached_property
    def _standing(self) -> dict[tuple[str, str, str, RuleSpec], list[FirewallRule]]:
        found: dict[tuple[str, str, str, RuleSpec], list[FirewallRule]] = {}
        for rule in self.firewall.fact.rules if isinstance(self.firewall, Observed) else ():
            found.setdefault((rule.family, rule.table, rule.chain, rule.spec), []).append(rule)
        return found

    def strangers(self, family: str, table: str) -> list[str]:
        """What stands in Docker's chains of a table, or under its names, and is nothing of Docker's."""
        if self.attribution is None:
            return []
        rules = [
            str(rule) for rule in self.attribution.unexplained if (rule.family, rule.table) == (family, table)
        ]
        chains = [
            f"chain {chain.name} of table {chain.table}"
            for chain in self.attribution.foreign_chains
            if (chain.family, chain.table) == (family, table)
        ]
        return chains + rules


def live(firewall: Firewall, command: FirewallCommand) -> list[FirewallRule]:
    """The rules of a firewall that are what a command would add."""
    if command.spec is None or command.chain is None or command.spec.opaque:
        return []
    return [
        rule
        for rule in _at(firewall.rules, command.chain)
        if rule.spec == command.spec
        and rule.table == (command.table or "filter")
        and rule.family == command.family
    ]


def _at(rules: Iterable[FirewallRule], chain: str) -> Iterable[FirewallRule]:
    return (rule for rule in rules if rule.chain == chain)
