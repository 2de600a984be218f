"""Which rules of a firewall are Docker's, and which only look like it.

What is looked at: every rule in a chain or table of Docker's, every rule that leads into one (an element
of a verdict map is such a rule), and every rule anywhere that equals one of Docker's. All else is somebody
else's business. A rule is Docker's when it is one that this version of Docker makes for what it runs now,
to the letter, and no oftener.

Blind spots: a hand-made rule that equals a missing one of Docker's passes for it; so does one for a port
of Swarm's or of a container on an overlay network with another address of docker_gwbridge, since the
engine lists neither. Where both backends hold Docker's rules, one that has gone from the backend in use is
not missed while the other has it. The order of the rules is not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verify_audit.host.docker_layout import (
    ExpectedRule,
    is_docker_chain,
    looks_like_docker_chain,
)
from verify_audit.host.firewall import Chain, Firewall, FirewallRule, RuleSpec

_NATIVE_TABLES = ("docker-bridges", "docker-dns", "docker-overlay")


@dataclass(frozen=True, slots=True)
class Attribution:
    """The rules with what explains them.

    explained:      each of Docker's rules with what it is for.
    unexplained:    rules in Docker's chains, or leading there, that this version makes for nothing that
                    there is; also an expected rule that is there once too often.
    missing:        required rules that are not there.
    foreign_chains: chains that bear Docker's name or are in its tables, and that this version never makes.
    """

    explained: tuple[tuple[FirewallRule, ExpectedRule], ...]
    unexplained: tuple[FirewallRule, ...]
    missing: tuple[ExpectedRule, ...]
    foreign_chains: tuple[Chain, ...]


class _Index:
    """Expected rules by place, those without free values also by meaning."""

    def __init__(self, expected: Iterable[ExpectedRule]) -> None:
        self._exact: dict[tuple[str, str, str, RuleSpec], ExpectedRule] = {}
        self._free: dict[tuple[str, str, str], list[ExpectedRule]] = {}
        for rule in expected:
            place = (rule.family, rule.table, rule.chain)
            if rule.any_value:
                self._free.setdefault(place, []).append(rule)
            else:
                for spec in (rule.spec, *rule.variants):
                    self._exact.setdefault((*place, spec), rule)

    def find(self, family: str, table: str, chain: str, spec: RuleSpec) -> ExpectedRule | None:
        found = self._exact.get((family, table, chain, spec))
        if found is not None:
            return found
        return next((rule for rule in self._free.get((family, table, chain), ()) if rule.matches(spec)), None)


def attribute(firewall: Firewall, expected: Sequence[ExpectedRule], version: str) -> Attribution:
    """What of the firewall is Docker's.

    expected: from expected_rules() for the same engine version. With both backends in use, an expected
    rule may be in either, and once in each: a host that changed its backend keeps the old rules.
    """
    index = _Index(expected)
    explained: list[tuple[FirewallRule, ExpectedRule]] = []
    unexplained: list[FirewallRule] = []
    times: Counter[tuple[str, ExpectedRule]] = Counter()
    for rule in firewall.rules:
        found = index.find(rule.family, rule.table, rule.chain, rule.spec)
        if found is not None:
            times[rule.backend, found] += 1
            if found.many or times[rule.backend, found] == 1:
                explained.append((rule, found))
                continue
        if found is not None or concerns_docker(version, rule):
            unexplained.append(rule)
    there = {found for _, found in times}
    return Attribution(
        tuple(explained),
        tuple(unexplained),
        tuple(rule for rule in expected if rule.required and rule not in there),
        tuple(chain for chain in firewall.chains if is_foreign(version, chain)),
    )


def explain_spec(
    spec: RuleSpec, family: str, table: str, chain: str, expected: Iterable[ExpectedRule]
) -> ExpectedRule | None:
    """The expected rule that a command from the log adds, checks or deletes; None when it is none of them."""
    place = (family, table, chain)
    return next(
        (rule for rule in expected if (rule.family, rule.table, rule.chain) == place and rule.matches(spec)),
        None,
    )


def concerns_docker(version: str, rule: FirewallRule) -> bool:
    """Whether a rule is in a chain or table of Docker's, or leads into one, by name."""
    if rule.table in _NATIVE_TABLES:
        return True
    names = (rule.chain, rule.spec.target)
    return any(looks_like_docker_chain(name) or is_docker_chain(version, rule.table, name) for name in names)


def is_foreign(version: str, chain: Chain) -> bool:
    """Whether a chain bears Docker's name, or is in a table of its, and this version never makes it."""
    known = chain.family in ("ip", "ip6") and is_docker_chain(version, chain.table, chain.name)
    return not known and (chain.table in _NATIVE_TABLES or looks_like_docker_chain(chain.name))
