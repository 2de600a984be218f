"""Changes of the firewall without an actor, counted against networks made, and containers started and stopped.

What the engine puts in for what is there now is there now. What it took out again, or put in for what is
gone, is known where the configuration is: of a container that is stopped, and of a network that is there. So
a network that is gone accounts for nothing: without its options nobody can say how much of what was
taken out was its own. Nor do the ports of a container that is gone: somebody could put a rule in when it
starts, and take it out when it ends.

Blind spot: somebody who took out one of these rules before the log begins, and takes out another one when
the engine would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from verify_audit.findings.words import apart
from verify_audit.host import questions as ask
from verify_audit.host.docker_operations import Place, address_rules, is_plain, jumps_put_back, port_rules
from verify_audit.host.facts import EngineEvent
from verify_audit.host.firewall import Backend, FirewallRule
from verify_audit.host.observation import Observed
from verify_audit.rules.activity import AFTER, DEATH, TICK
from verify_audit.rules.engine_start import balances
from verify_audit.rules.layout import Layout
from verify_audit.rules.picture import Picture
from verify_audit.rules.runs import Run, Settled, Write, steps_legacy

_UNCOUNTED = ("host", "null")
"""Drivers of networks that a container is connected to without any change."""

_CHANGING = frozenset(
    (
        *(("network", action) for action in ("create", "destroy", "connect", "disconnect")),
        *(("container", action) for action in ("start", "die")),
    )
)


@dataclass(slots=True)
class _Sum:
    """What the engine put in and took out, by table."""

    put: Counter[Place] = field(default_factory=Counter)
    taken: Counter[Place] = field(default_factory=Counter)
    standing: int = 0
    moved: int = 0


class Work:
    """What the engine did around a run, and what that comes to."""

    def __init__(self, picture: Picture, layout: Layout) -> None:
        self._picture = picture
        self._layout = layout
        self._robbed: dict[Place, float] = {}

    def leave(self, writes: Sequence[Write], following: Mapping[int, int]) -> None:
        """Remember changes that nothing accounts for: what they took out, the engine cannot take out later."""
        firewall = self._layout.firewall
        for write in writes:
            taken = write.takes > 0
            if write.replaces and isinstance(firewall, Observed):
                step = steps_legacy([write], following, firewall.fact)
                taken = step is None or step[0] < 0
            if taken:
                self._robbed[write.place] = write.event.time

    def near(self, run: Run, follow: float) -> list[EngineEvent]:
        """The engine's events that a run may be for; its own event follows a change, but for a death."""
        return [
            event
            for event in self._picture.events_between(run.first - DEATH, run.last + follow)
            if (event.type, event.action) in _CHANGING
            and (event.at >= run.first - TICK or event.action == "die")
        ]

    def settles(self, run: Run, follow: float, following: Mapping[int, int]) -> Settled | None:
        """What accounts for a run to its last change, by what the engine did until so long after it.

        following: by a change's id(), the entries of its table at the next change of it in the log.
        """
        near = self.near(run, follow)
        if not near:
            return None  # a record can say that nothing was changed, and nothing would account for that
        total = self._sum(near, run)
        if total is None or not balances(run, total.put, total.taken):
            return None
        if +total.taken and not self._sound(run, total, following):
            return None
        return self._told(run, near, total)

    def _sound(self, run: Run, total: _Sum, following: Mapping[int, int]) -> bool:
        """Whether nothing is missing in the tables that were taken from, and as much went as came out."""
        layout = self._layout
        if layout.attribution is None or not isinstance(layout.firewall, Observed):
            return False
        places = set(total.put) | set(total.taken)
        if any((rule.family, rule.table) in places for rule in layout.attribution.missing):
            return False
        if not run.legacy:
            return True
        for place in places:
            found = steps_legacy(run.at(place), following, layout.firewall.fact)
            if found is None or sum(step < 0 for step in found) != total.taken[place]:
                return False
        return True

    def _sum(self, near: Sequence[EngineEvent], run: Run) -> _Sum | None:
        """What these events come to; None when that is not known of one of them."""
        total = _Sum()
        created = {event.network_id for event in near if (event.type, event.action) == ("network", "create")}
        if created:
            moved = jumps_put_back(self._layout.version or "")
            if moved is None:
                return None
            total.moved = len(created) * moved
            total.put["ip", "filter"] += total.moved
            total.taken["ip", "filter"] += total.moved
        for rule, container, network in self._explained:
            if container is None and network in created:
                self._add(total, rule, run)
        for key in dict.fromkeys(event.container_id for event in near if event.container_id):
            if not self._add_container(total, key, [each for each in near if each.container_id == key], run):
                return None
        return total

    @cached_property
    def _explained(self) -> list[tuple[FirewallRule, str | None, str | None]]:
        attribution = self._layout.attribution
        return [
            (rule, expected.container_id, expected.network_id)
            for rule, expected in (attribution.explained if attribution else ())
        ]

    def _add_container(self, total: _Sum, key: str, events: Sequence[EngineEvent], run: Run) -> bool:
        """Add what one container's events come to. Whether that is known."""
        actions = {event.action for event in events if event.type == "container"}
        joined = [event.network_id for event in events if event.action == "connect"]
        parted = [event.network_id for event in events if event.action == "disconnect"]
        container = self._picture.container_by_id.get(key)
        # A container's rules are set when it starts; to connect it to one more network sets those for its address.
        if container is not None and container.running:
            for rule, owner, network in self._explained:
                if owner == key and ("start" in actions or (network in joined and _is_for_address(rule))):
                    self._add(total, rule, run)
        elif not self._count(total.put, key, joined, started="start" in actions):
            return False
        taken: Counter[Place] = Counter()
        if not self._count(taken, key, parted, started="die" in actions):
            return False
        total.taken += taken
        since = self._since(key)
        # Where somebody took out something since it started, it may have been a rule of its own.
        return not any(place in self._robbed and self._robbed[place] >= since for place in taken)

    def _since(self, key: str) -> float:
        """When the rules that a container had last may have been put in; 0 when that is not known."""
        life = self._picture.host.ask(ask.life(key)) if key in self._picture.container_by_id else None
        if isinstance(life, Observed):
            return (life.fact.started_at or 0.0) - AFTER
        joined = [
            event.at
            for event in self._picture.events
            if event.container_id == key and event.action == "connect"
        ]
        return min(joined, default=0.0) - AFTER

    def _count(self, total: Counter[Place], key: str, networks: Sequence[str], *, started: bool) -> bool:
        """Add the rules of a container's addresses in networks and, where it started or ended, of its ports."""
        version = self._layout.version or ""
        known = [self._picture.network_by_id.get(network) for network in networks]
        bridged = [each for each in known if each is None or each.driver not in _UNCOUNTED]
        if not bridged:
            return True
        address = address_rules(version)
        if address is None or any(each is None or not is_plain(each) for each in bridged):
            # Nothing can be said of it; without a change in these tables nothing has to.
            return address is not None and not +address and not started
        for _ in bridged:
            total += address
        if started:
            ports = self._ports(key)
            if ports is None:
                return False
            total += ports
        return True

    def _ports(self, key: str) -> Counter[Place] | None:
        """The rules for the ports of a container; those of one that is gone count as none."""
        if key not in self._picture.container_by_id:
            return Counter()
        life = self._picture.host.ask(ask.life(key))
        if not isinstance(life, Observed) or life.fact.bindings is None:
            return None
        return port_rules(self._layout.version or "", life.fact.bindings)

    def _add(self, total: _Sum, rule: FirewallRule, run: Run) -> None:
        """Add a rule that is there, and with it the chain and the table that were made for it in one batch."""
        place = (rule.family, rule.table)
        if (rule.backend is Backend.LEGACY) is not run.legacy:
            return
        total.standing += 1
        total.put[place] += 1
        if rule.handle is None or not isinstance(self._layout.firewall, Observed):
            return
        for chain in self._layout.firewall.fact.chain(*place, rule.chain):
            if chain.hook and chain.handle == rule.handle - 1:
                whole = 2 + (chain.handle == 1)
                if any(write.puts == whole and write.op.endswith("_chain") for write in run.at(place)):
                    total.put[place] += whole - 1

    def _told(self, run: Run, near: Sequence[EngineEvent], total: _Sum) -> Settled:
        picture = self._picture
        networks = list(
            dict.fromkeys(
                each.network_id for each in near if each.type == "network" and not each.container_id
            )
        )
        containers = list(dict.fromkeys(each.container_id for each in near if each.container_id))
        refs = [*map(picture.network_ref, networks), *map(picture.container_ref, containers)]
        names = ", ".join(each.name for each in refs if each is not None)
        nearest = min(near, key=lambda event: abs(event.at - run.last))
        gone = sum(total.taken.values()) - total.moved
        parts = [f"{total.standing} rules that are there now"] if total.standing else []
        parts += [f"{gone} taken out with what they were for"] if gone else []
        parts += [f"{total.moved} jumps taken out and put back"] if total.moved else []
        concerned = set(networks) or {each.network_id for each in near if each.network_id}
        return Settled(
            f"the log has {len(run.writes)} changes here by nobody known, and as many are accounted for by "
            f"what the engine did {apart(nearest.at, run.last)} the last, for {names}: {' and '.join(parts)}",
            self._layout.firewall,
            picture.container_ref(containers[0]) if len(containers) == 1 and not networks else None,
            picture.network_ref(next(iter(concerned))) if len(concerned) == 1 else None,
        )


def _is_for_address(rule: FirewallRule) -> bool:
    """Whether a container's rule is for its address alone, and for no port."""
    return rule.table == "raw" and rule.spec.protocol is None
