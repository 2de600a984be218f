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
from collections.abc import Container, Mapping

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
from verify_audit.host.firewall import Backend, Firewall
from verify_audit.host.observation import Observed
from verify_audit.rules.layout import Layout
from verify_audit.rules.picture import Picture
from verify_audit.rules.runs import Run, Settled, Write, entries, steps, steps_legacy

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
    made: Counter[Place] = Counter()
    # The engine sets that policy when it turns forwarding on.
    if any(chain.policy == "DROP" for chain in firewall.chain("ip", "filter", "FORWARD")):
        made["ip", "filter"] += 1
    for place in run.put():
        if run.legacy:
            objects = _all_own(firewall, place, attribution, version)
        else:
            objects = _from_first_chain(firewall, place, attribution, version)
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
    """A start where the chains are there already: the changes at the head of a run that are just that.

    following: by a change's id(), the entries of its table at the next change of it in the log.
    """
    version, attribution = layout.version or "", layout.attribution
    networks = _networks(picture, started)
    if networks is None or attribution is None or not isinstance(layout.firewall, Observed):
        return None
    wanted = restart(version, len(networks) - 1)
    if wanted is None or any(rule for rule in attribution.missing if (rule.family, rule.table) in wanted):
        return None
    found = (
        _head_legacy(run, wanted, networks, following, layout) if run.legacy else _head(run, wanted, layout)
    )
    if found is None:
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


def _head(run: Run, wanted: Mapping[Place, Restart], layout: Layout) -> list[Write] | None:
    """With nf_tables: the same steps in each table, and of what was put in just that is there which must be."""
    if not isinstance(layout.firewall, Observed) or layout.attribution is None:
        return None
    firewall = layout.firewall.fact
    found: list[Write] = []
    for place, part in wanted.items():
        commands = [step for step in part.steps if step]
        writes = run.at(place)[: len(commands)]
        first = _handle(firewall, place, part.chain)
        if first is None or steps(writes) != commands:
            return None
        span = range(first, first + sum(write.puts for write in writes))
        if _standing(firewall, place, span, layout.attribution, layout.version or "") != part.left:
            return None
        found += writes
    return found if any(write is run.writes[0] for write in found) else None


def _head_legacy(
    run: Run,
    wanted: Mapping[Place, Restart],
    networks: Container[str],
    following: Mapping[int, int],
    layout: Layout,
) -> list[Write] | None:
    """With x_tables: the same steps in each table and no more, and nothing but Docker's in these tables.

    networks: the ids of those that the engine found when it started.
    """
    if not isinstance(layout.firewall, Observed) or layout.attribution is None:
        return None
    firewall = layout.firewall.fact
    if set(run.put()) != set(wanted):
        return None
    for place, part in wanted.items():
        if _all_own(firewall, place, layout.attribution, layout.version or "") is None:
            return None
        writes = run.at(place)
        found = steps_legacy(writes, following, firewall)
        if found != list(part.steps) or writes[-1].change.entries + found[-1] != _at_start(
            firewall, place, layout.attribution, networks
        ):
            return None
    return run.writes


def balances(run: Run, put: Counter[Place], taken: Counter[Place]) -> bool:
    """Whether a run has put in and taken out just as much, to the last change."""
    if run.legacy:
        if any(times > 1 or not run.put()[place] for place, times in run.registered().items()):
            return False
        # One replacement of the table for each command, whichever way it went.
        return run.put() == +(put + taken) and not run.taken()
    return run.put() == +put and run.taken() == +taken


# What stands


def _handle(firewall: Firewall, place: Place, name: str) -> int | None:
    """The handle of a chain of nf_tables."""
    return next(
        (chain.handle for chain in firewall.chain(*place, name) if chain.backend is Backend.NFT), None
    )


def _from_first_chain(firewall: Firewall, place: Place, attribution: Attribution, version: str) -> int | None:
    """How much was put in from Docker's first chain on, and is there; None when not all is Docker's."""
    first = _handle(firewall, place, "DOCKER")
    if first is None:
        return None
    found = _standing(firewall, place, range(first, _NO_END), attribution, version)
    # A table that begins with Docker's chain was made with it.
    return None if found is None else found + (first == 1)


def _standing(
    firewall: Firewall, place: Place, span: range, attribution: Attribution, version: str
) -> int | None:
    """How many of the handles of a span are there; None when not all that have them are Docker's.

    A table gives each new chain and rule the next handle, and none a second time (nf_tables_api.c,
    nf_tables_alloc_handle()).
    """
    rules = [
        rule for rule in firewall.rules if (rule.family, rule.table) == place and rule.backend is Backend.NFT
    ]
    own = {id(rule) for rule, _ in attribution.explained}
    new = [rule for rule in rules if rule.handle is not None and rule.handle in span]
    if any(id(rule) not in own for rule in new):
        return None
    used = {rule.chain for rule in rules if id(rule) in own}
    chains = [
        chain
        for chain in firewall.chains
        if chain.backend is Backend.NFT
        and (chain.family, chain.table) == place
        and chain.handle is not None
        and chain.handle in span
    ]
    if any(
        chain.name not in used if chain.hook else not is_docker_chain(version, place[1], chain.name)
        for chain in chains
    ):
        return None
    return len(new) + len(chains)


def _at_start(firewall: Firewall, place: Place, attribution: Attribution, networks: Container[str]) -> int:
    """How many entries a table of x_tables has with nothing but what the engine's start sets up for networks."""
    later = sum(
        (rule.family, rule.table) == place
        and rule.backend is Backend.LEGACY
        and (
            expected.container_id is not None
            or (expected.network_id is not None and expected.network_id not in networks)
        )
        for rule, expected in attribution.explained
    )
    return (entries(firewall, place) or 0) - later


def _all_own(firewall: Firewall, place: Place, attribution: Attribution, version: str) -> int | None:
    """How many rules and chains were made in a table of x_tables; None when not all are Docker's.

    Its built-in chains come with the table.
    """
    own = {id(rule) for rule, _ in attribution.explained}
    rules = [
        rule
        for rule in firewall.rules
        if (rule.family, rule.table) == place and rule.backend is Backend.LEGACY
    ]
    made = [
        chain
        for chain in firewall.chains
        if (chain.family, chain.table) == place and chain.backend is Backend.LEGACY and chain.hook is None
    ]
    docker = any(chain.name == "DOCKER" for chain in made)
    if not docker or any(id(rule) not in own for rule in rules):
        return None
    if any(not is_docker_chain(version, place[1], chain.name) for chain in made):
        return None
    return len(made) + len(rules)
