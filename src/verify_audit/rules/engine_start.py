"""Changes of the firewall without an actor, held against what an engine does when it starts.

The first start on a host leaves everything that it makes. A start where the chains are there already takes
much out and puts it back, by the same commands each time.

Blind spots: somebody who in that second does one of these commands himself, just before the engine would,
and to the same end; and who made sure beforehand that the engine has one command less to give than others,
and gives one of his own at that very point. For this a change of his must be in the log that nothing
accounts for, or lie before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from verify_audit.findings.words import apart
from verify_audit.host import questions as ask
from verify_audit.host.attribution import Attribution
from verify_audit.host.docker_layout import is_docker_chain
from verify_audit.host.docker_operations import (
    Place,
    Restart,
    is_default,
    is_plain,
    jumps_put_back,
    restart,
)
from verify_audit.host.firewall import Backend, Chain, Firewall, FirewallRule
from verify_audit.host.observation import Observed
from verify_audit.rules.layout import Layout
from verify_audit.rules.picture import Picture
from verify_audit.rules.runs import Run, Settled, Write, steps, steps_legacy

STARTING = 15.0
"""Seconds after the start of its process within which an engine has set up its own chains."""

_NO_RULES = ("host", "null", "macvlan", "ipvlan")
"""Drivers of networks that have no rules."""

_NO_END = 1 << 64
"""Beyond every handle."""


def first_start(run: Run, started: float, layout: Layout) -> Settled | None:
    """The first start on a host: everything from the first chain of Docker's on is what it set up."""
    version, attribution = layout.version or "", layout.attribution
    back = jumps_put_back(version)
    if back is None or attribution is None or not isinstance(layout.firewall, Observed):
        return None
    firewall = layout.firewall.fact
    here = _Here(firewall, attribution, version)
    made: Counter[Place] = Counter()
    # The engine sets that policy when it turns forwarding on.
    if any(chain.policy == "DROP" for chain in firewall.chain("ip", "filter", "FORWARD")):
        made["ip", "filter"] += 1
    for place in run.put():
        objects = here.all_own(place) if run.legacy else here.from_first_chain(place)
        if objects is None:
            return None
        made[place] += objects
    if not balances(run, made + Counter({("ip", "filter"): back}), Counter({("ip", "filter"): back})):
        return None
    return Settled(
        f"the changes begin {apart(run.first, started)} the engine's own start, and the log has as many by nobody "
        "known as its chains, its rules and those of its networks took, all of which are there, and nothing else "
        "under its names",
        layout.firewall,
    )


def start_again(
    run: Run, started: float, picture: Picture, layout: Layout, following: Mapping[int, int]
) -> tuple[Settled, list[Write]] | None:
    """A start where the chains are there already: of each table, the changes at the head of a run that are just that.

    following: by a change's id(), the entries of its table at the next change of it in the log.
    """
    version, attribution = layout.version or "", layout.attribution
    networks = _networks(picture, started)
    if networks is None or attribution is None or not isinstance(layout.firewall, Observed):
        return None
    here = _Here(layout.firewall.fact, attribution, version)
    found: list[Write] = []
    for place, part in (restart(version, len(networks) - 1) or {}).items():
        # What is missing now may have been missing then.
        if any((rule.family, rule.table) == place for rule in attribution.missing):
            continue
        if run.legacy:
            found += _head_legacy(here, run.at(place), part, networks, following)
        else:
            found += _head(here, run.at(place), part)
    if not found:
        return None
    return (
        Settled(
            f"the changes begin {apart(run.first, started)} the engine's own start, and these {len(found)} are, table "
            f"by table and one after the other, what Docker {version} does then where its chains are there already, "
            f"with {len(networks) - 1} networks beside its default one; what they leave is there, and nothing else was "
            "made among it",
            layout.firewall,
        ),
        found,
    )


def _networks(picture: Picture, started: float) -> frozenset[str] | None:
    """The bridge networks that a start of the engine was about, its default one included.

    None when they are not all plain, when there is no default one, or when containers ran through it.
    """
    if not isinstance(picture.networks, Observed) or not isinstance(picture.containers, Observed):
        return None
    for container in picture.containers.fact:
        if container.running:
            life = picture.host.ask(ask.life(container.id))
            if not isinstance(life, Observed) or (life.fact.started_at or 0.0) < started:
                return None
    found = [
        network
        for network in picture.networks.fact
        if network.driver not in _NO_RULES
        and (is_default(network) or network.created_at is None or network.created_at < started)
    ]
    if sum(map(is_default, found)) != 1 or not all(map(is_plain, found)):
        return None
    return frozenset(network.id for network in found)


def _head(here: _Here, writes: Sequence[Write], part: Restart) -> Sequence[Write]:
    """With nf_tables: the same steps, and of what was put in just that is there which must be. Else none."""
    commands = [step for step in part.steps if step]
    head = writes[: len(commands)]
    if not head or steps(head) != commands:
        return ()
    place = head[0].place
    first = here.handle(place, part.chain)
    span = range(first, first + sum(write.puts for write in head)) if first is not None else range(0)
    return head if here.standing(place, span) == part.left else ()


def _head_legacy(
    here: _Here,
    writes: Sequence[Write],
    part: Restart,
    networks: Container[str],
    following: Mapping[int, int],
) -> Sequence[Write]:
    """With x_tables: the same steps, which end with as many entries as the engine's start leaves. Else none.

    networks: the ids of those that the engine found when it started.
    """
    done = steps_legacy(writes, following, here.firewall)
    count = len(part.steps)
    if done is None or done[:count] != list(part.steps):
        return ()
    place, last = writes[0].place, writes[count - 1]
    if last.change.entries + done[count - 1] != here.own_entries(place, networks):
        return ()
    if len(done) == count:
        return writes if here.all_own(place) is not None else ()
    # With one of his among them, the engine's own last would be behind them: certain is only what cannot lie later.
    latest = len(done)
    certain = []
    for at in reversed(range(count)):
        latest = max(later for later in range(latest) if done[later] == part.steps[at])
        if latest == at:
            certain.append(writes[at])
    return certain[::-1]


def balances(run: Run, put: Counter[Place], taken: Counter[Place]) -> bool:
    """Whether a run has put in and taken out just as much, to the last change."""
    if run.legacy:
        if any(times > 1 or not run.put()[place] for place, times in run.registered().items()):
            return False
        # One replacement of the table for each command, whichever way it went.
        return run.put() == +(put + taken) and not run.taken()
    return run.put() == +put and run.taken() == +taken


@dataclass(frozen=True, slots=True)
class _Here:
    """What stands, and what of it is whose."""

    firewall: Firewall
    attribution: Attribution
    version: str

    def _objects(self, place: Place, backend: Backend) -> tuple[list[Chain], list[FirewallRule]]:
        firewall = self.firewall
        chains = [
            each for each in firewall.chains if (each.family, each.table) == place and each.backend is backend
        ]
        rules = [
            each for each in firewall.rules if (each.family, each.table) == place and each.backend is backend
        ]
        return chains, rules

    def _is_own(self, chain: Chain) -> bool:
        return is_docker_chain(self.version, chain.table, chain.name)

    def handle(self, place: Place, name: str) -> int | None:
        """The handle of a chain of nf_tables."""
        chains, _ = self._objects(place, Backend.NFT)
        return next((chain.handle for chain in chains if chain.name == name), None)

    def from_first_chain(self, place: Place) -> int | None:
        """How much was put in from Docker's first chain on, and is there; None when not all is Docker's."""
        first = self.handle(place, "DOCKER")
        if first is None:
            return None
        found = self.standing(place, range(first, _NO_END))
        # A table that begins with Docker's chain was made with it.
        return None if found is None else found + (first == 1)

    def standing(self, place: Place, span: range) -> int | None:
        """How many of the handles of a span are there; None when not all that have them are Docker's.

        A table gives each new chain and rule the next handle, and none a second time (nf_tables_api.c,
        nf_tables_alloc_handle()).
        """
        chains, rules = self._objects(place, Backend.NFT)
        own = {id(rule) for rule, _ in self.attribution.explained}
        used = {rule.chain for rule in rules if id(rule) in own}
        new_rules = [rule for rule in rules if rule.handle in span]
        new_chains = [chain for chain in chains if chain.handle in span]
        if any(id(rule) not in own for rule in new_rules) or any(
            chain.name not in used if chain.hook else not self._is_own(chain) for chain in new_chains
        ):
            return None
        return len(new_rules) + len(new_chains)

    def all_own(self, place: Place) -> int | None:
        """How many rules and chains were made in a table of x_tables; None when not all are Docker's.

        Its built-in chains come with the table.
        """
        chains, rules = self._objects(place, Backend.LEGACY)
        own = {id(rule) for rule, _ in self.attribution.explained}
        made = [chain for chain in chains if chain.hook is None]
        if not any(chain.name == "DOCKER" for chain in made) or not all(map(self._is_own, made)):
            return None
        return len(made) + len(rules) if all(id(rule) in own for rule in rules) else None

    def own_entries(self, place: Place, networks: Container[str]) -> int:
        """How many entries a table of x_tables has with nothing but what a start sets up for these networks."""
        chains, rules = self._objects(place, Backend.LEGACY)
        there = set(map(id, rules))
        of_start = sum(
            id(rule) in there
            and expected.container_id is None
            and (expected.network_id is None or expected.network_id in networks)
            for rule, expected in self.attribution.explained
        )
        made = sum(chain.hook is None and self._is_own(chain) for chain in chains)
        return sum(chain.hook is not None for chain in chains) + 2 * made + of_start + 1
