"""Changes of the firewall that no actor was recorded for, counted against what the engine did.

A NETFILTER_CFG record alone says how much was changed, not what. But what the engine does can be
counted: to create a network takes so many rules, which are there afterwards, and so many jumps taken
out and put back. Where the log has exactly as many changes as that, nothing is left over that somebody
else could have made. One change more, and none of them is accounted for.

Blind spot: somebody who replaces one of Docker's own changes by one of his own in the same second, and
restores it before the host is asked, leaves the same count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from verify_audit.audit.decode import NetfilterChange, netfilter
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import ContainerRef, NetworkRef
from verify_audit.findings.words import apart
from verify_audit.host import questions as ask
from verify_audit.host.docker_layout import is_docker_chain, jumps_put_back
from verify_audit.host.facts import Container, EngineEvent
from verify_audit.host.firewall import Backend, Firewall, FirewallRule
from verify_audit.host.observation import Observation, Observed
from verify_audit.rules.activity import DEATH, FOLLOW, TICK
from verify_audit.rules.case import Case
from verify_audit.rules.layout import FAMILIES, Layout
from verify_audit.rules.picture import Picture

GAP = 1.0
"""Seconds without a change that end a run of changes."""

STARTING = 15.0
"""Seconds after the start of its process within which an engine has set up its own chains."""

SOON = 0.6
"""Seconds after a run within which the engine's own event for it lies when there is little else to do."""

_PUTS = "nft_register_"
_TAKES = "nft_unregister_"
_REPLACES = ("xt_replace", "replace")
_REGISTERS = ("xt_register", "register")
_ADDITIONS = ("connect", "create", "start")

Place = tuple[str, str]
"""Family and table."""


@dataclass(frozen=True, slots=True)
class _Write:
    """One record of an event that has no actor."""

    event: Event
    change: NetfilterChange

    @property
    def place(self) -> Place:
        return FAMILIES.get(self.change.family, ""), self.change.table.decode("utf-8", "surrogateescape")

    @property
    def legacy(self) -> bool:
        return not (self.change.op or "").startswith("nft_")

    @property
    def counts(self) -> bool:
        """Whether it is of a kind that can be counted; the first use of a legacy table registers it."""
        op = self.change.op or "replace"
        return not self.change.odd and (op.startswith((_PUTS, _TAKES)) or op in (*_REPLACES, *_REGISTERS))


@dataclass(slots=True)
class _Run:
    """Changes of one network namespace, one close upon the other."""

    writes: list[_Write] = field(default_factory=list)

    @property
    def first(self) -> float:
        return self.writes[0].event.time

    @property
    def last(self) -> float:
        return self.writes[-1].event.time

    @property
    def generation(self) -> int | None:
        return self.writes[-1].change.generation

    def follows(self, write: _Write) -> bool:
        """Whether a change is the next of this run: of nf_tables, by its generation; else by time alone."""
        if write.event.time - self.last > GAP:
            return False
        mine, its = self.generation, write.change.generation
        if mine is None or its is None:
            return mine is its
        # A batch that touches two tables writes a record for each under one generation.
        return its in (mine, mine + 1)

    def put(self) -> Counter[Place]:
        """Objects that were put in, by place; with x_tables, replacements of the table."""
        return self._sum(_PUTS)

    def taken(self) -> Counter[Place]:
        """Objects that were taken out, by place."""
        return self._sum(_TAKES)

    def _sum(self, begins: str) -> Counter[Place]:
        found: Counter[Place] = Counter()
        for write in self.writes:
            op = write.change.op or ""
            if op.startswith(begins):
                found[write.place] += write.change.entries
            elif begins == _PUTS and (op or "replace") in _REPLACES:
                found[write.place] += 1
        return found

    def registered(self) -> Counter[Place]:
        """How often each legacy table was registered, as the first to look at it has the kernel do."""
        return Counter(write.place for write in self.writes if write.change.op in _REGISTERS)


@dataclass(frozen=True, slots=True)
class _Settled:
    """What accounts for a run."""

    statement: str
    source: Observation[Firewall]
    container: ContainerRef | None = None
    network: NetworkRef | None = None


class Accounts:
    """The changes without an actor of one log, and what accounts for them on one host."""

    def __init__(self, picture: Picture, layout: Layout) -> None:
        self._picture = picture
        self._layout = layout
        self._writes: list[_Write] = []

    def survey(self, events: Sequence[Event]) -> None:
        """See all events, in the order of the log."""
        for event in events:
            if event.first("SYSCALL") is None:
                changes = [netfilter(record) for record in event.of_type("NETFILTER_CFG")]
                writes = [_Write(event, change) for change in changes if change is not None]
                # An event of which a part cannot be counted is not accounted for by the rest.
                if len(writes) == len(changes) and all(write.counts for write in writes):
                    self._writes.extend(writes)

    def settle(self, case: Case) -> None:
        """Say what accounts for an event without an actor, where something does."""
        settled = self._settled.get(id(case.event))
        if settled is not None:
            case.container, case.network = settled.container, settled.network
            case.proves(Step.FIREWALL, settled.statement, settled.source)

    @cached_property
    def _settled(self) -> dict[int, _Settled]:
        """By the event's id(): two nodes may use the same one of the log's."""
        found: dict[int, _Settled] = {}
        if not self._picture.is_docker or self._layout.attribution is None:
            return found
        left_over: set[int] = set()
        for run in self._runs():
            settled = self._in_container(run) or self._in_engines(run)
            if settled is None:
                left_over.update(id(write.event) for write in run.writes)
            else:
                found.update({id(write.event): settled for write in run.writes})
        return {key: settled for key, settled in found.items() if key not in left_over}

    def _runs(self) -> Iterable[_Run]:
        runs: list[_Run] = []
        for write in self._writes:
            open_runs = (run for run in reversed(runs[-64:]) if run.follows(write))
            run = next(open_runs, None)
            if run is None:
                run = _Run()
                runs.append(run)
            run.writes.append(write)
        return runs

    # In a container's namespace

    def _in_container(self, run: _Run) -> _Settled | None:
        """All the changes that a container's namespace has ever had, and all of it Docker's name server."""
        if set(run.put()) != {("ip", "nat")}:
            return None
        for container, near in self._started(run):
            life = self._picture.host.ask(ask.life(container.id))
            if not isinstance(life, Observed) or not life.fact.pid:
                continue
            answer = self._picture.host.ask(ask.container_firewall(life.fact.pid))
            if not isinstance(answer, Observed) or not self._is_name_servers(answer.fact, run):
                continue
            return _Settled(
                f"these {len(run.writes)} changes are all that the namespace of container {container.name} has had, "
                "and what they left there is the way to Docker's name server, and nothing else; the engine reported "
                f"{near.action} {apart(near.at, run.last)} the last",
                answer,
                self._picture.container_ref(container.id),
                self._picture.network_ref(near.network_id),
            )
        return None

    def _is_name_servers(self, firewall: Firewall, run: _Run) -> bool:
        expected = self._layout.expected_in_containers
        rules = firewall.rules
        used = {rule.chain for rule in rules} | {rule.spec.target for rule in rules}
        if any(chain.name not in used and chain.backend is Backend.NFT for chain in firewall.chains):
            return False
        if not rules or any(
            not any(
                (one.family, one.table, one.chain) == (rule.family, rule.table, rule.chain)
                and one.matches(rule.spec)
                for one in expected
            )
            for rule in rules
        ):
            return False
        if run.taken() or any(times > 1 for times in run.registered().values()):
            return False
        if run.writes[0].legacy:
            chains = [chain for chain in firewall.chains if chain.backend is Backend.LEGACY]
            made = [chain for chain in chains if chain.hook is None]
            return {chain.name for chain in made} <= used and sum(run.put().values()) == len(made) + len(
                rules
            )
        # The first change of a namespace makes generation 2: nf_tables begins to count at 1.
        whole = run.writes[0].change.generation == 2 and run.generation == firewall.nft_generation
        objects = len(firewall.tables) + len(firewall.chains) + len(rules)
        return whole and sum(run.put().values()) == objects

    def _started(self, run: _Run) -> list[tuple[Container, EngineEvent]]:
        """Running containers that the engine connected or started around a run, the nearest event with each."""
        found: dict[str, EngineEvent] = {}
        for event in self._picture.events_between(run.first - FOLLOW, run.last + FOLLOW):
            if event.action == "connect" and event.container_id:
                found[event.container_id] = event
        known = self._picture.container_by_id
        pairs = [(known[key], event) for key, event in found.items() if key in known and known[key].running]
        return sorted(pairs, key=lambda pair: abs(pair[1].at - run.last))

    # In the engine's namespace

    def _in_engines(self, run: _Run) -> _Settled | None:
        picture = self._picture
        started = picture.started_before(run.first)
        begin = max(run.first - DEATH, started or 0.0)  # before its start the engine did nothing
        if self._layout.version is None or not picture.covers(begin, run.last + FOLLOW):
            return None
        added = any(event.action in _ADDITIONS for event in self._near(run, SOON))
        if started is not None and run.last - started <= STARTING and not added:
            return self._engine_start(run, started)
        # Most events follow within SOON; whatever else the engine does until FOLLOW has changes of its own.
        return self._by_operations(run, SOON) or self._by_operations(run, FOLLOW)

    def _near(self, run: _Run, follow: float) -> list[EngineEvent]:
        """The engine's events that may go with a run; its own event follows a change, but for a death."""
        found = self._picture.events_between(run.first - DEATH, run.last + follow)
        return [
            event
            for event in found
            if event.type in ("network", "container")
            and (event.at >= run.first - TICK or event.action == "die")
        ]

    def _by_operations(self, run: _Run, follow: float) -> _Settled | None:
        """A run that networks made, and containers started, in that time account for to the last change.

        What the engine took out meanwhile cannot be counted any more: then the sum does not come out.
        """
        picture, layout = self._picture, self._layout
        near = self._near(run, follow)
        created = {event.network_id for event in near if (event.type, event.action) == ("network", "create")}
        # A container's rules are set when it starts; to connect it to one more network sets none here.
        started = {
            event.container_id for event in near if (event.type, event.action) == ("container", "start")
        }
        moved = jumps_put_back(layout.version or "")
        if not (created or started) or (created and moved is None):
            return None
        left = self._left(created, started)
        back = Counter({("ip", "filter"): len(created) * (moved or 0)})
        if not self._balances(run, left, back):
            return None
        networks = [picture.network_ref(key) for key in sorted(created)]
        containers = [picture.container_ref(key) for key in sorted(started)]
        names = ", ".join(each.name for each in (*networks, *containers) if each is not None)
        nearest = min(
            (event for event in near if event.network_id in created or event.container_id in started),
            key=lambda event: abs(event.at - run.last),
        )
        connected = {event.network_id for event in near if event.container_id in started and event.network_id}
        concerned = created or connected
        return _Settled(
            f"the log has {sum(run.put().values())} changes here by nobody known, and as many are accounted for by "
            f"what the engine did {apart(nearest.at, run.last)} the last, for {names}: "
            f"{sum(left.values())} rules that are there now"
            + (f" and {sum(back.values())} jumps taken out and put back" if sum(back.values()) else ""),
            layout.firewall,
            containers[0] if len(containers) == 1 and not created else None,
            picture.network_ref(next(iter(concerned))) if len(concerned) == 1 else None,
        )

    def _left(self, created: set[str], containers: set[str]) -> Counter[Place]:
        """The rules that are there for these networks and containers, by place."""
        attribution = self._layout.attribution
        found: Counter[Place] = Counter()
        for rule, expected in attribution.explained if attribution else ():
            if expected.container_id in containers or (
                expected.container_id is None and expected.network_id in created
            ):
                found[rule.family, rule.table] += 1
        return found

    def _engine_start(self, run: _Run, started: float) -> _Settled | None:
        """The first start on a host: everything from the first chain of Docker's on is what it set up."""
        layout, attribution = self._layout, self._layout.attribution
        back = jumps_put_back(layout.version or "")
        if back is None or attribution is None or not isinstance(layout.firewall, Observed):
            return None
        firewall = layout.firewall.fact
        explained = [rule for rule, _ in attribution.explained]
        made: Counter[Place] = Counter()
        for place in run.put():
            objects = _objects(firewall, place, explained, layout.version or "", legacy=run.writes[0].legacy)
            if objects is None:
                return None
            made[place] = objects
        if any(chain.policy == "DROP" for chain in firewall.chain("ip", "filter", "FORWARD")):
            made["ip", "filter"] += 1  # the engine sets that policy when it turns forwarding on
        if not self._balances(run, made, Counter({("ip", "filter"): back})):
            return None
        return _Settled(
            f"the changes begin {apart(run.first, started)} the engine's own start, and the log has as many by nobody "
            "known as its chains, its rules and those of its networks took, all of which are there, and nothing else "
            "under its names",
            layout.firewall,
        )

    def _balances(self, run: _Run, left: Counter[Place], back: Counter[Place]) -> bool:
        """Whether the changes of a run are what is left, and what was taken out and put back, to the last one."""
        if any(write.legacy for write in run.writes):
            if any(times > 1 or not run.put()[place] for place, times in run.registered().items()):
                return False
            # One replacement of the table for each command, whichever way it went.
            wanted = left + back + back
            return run.put() == +wanted and not run.taken()
        return run.put() == +(left + back) and run.taken() == +back


def _objects(
    firewall: Firewall, place: Place, explained: list[FirewallRule], version: str, *, legacy: bool
) -> int | None:
    """What stands in a table from Docker's first chain on; with nf_tables the order is that of the handles.

    None when not all of it is Docker's: a rule that nothing of its calls for, or a chain that it does not use.
    """
    family, table = place
    docker = firewall.chain(family, table, "DOCKER")
    if not docker:
        return None
    first = docker[0].handle or 0
    rules = [
        rule
        for rule in firewall.rules
        if (rule.family, rule.table) == place and (rule.handle is None or rule.handle >= first)
    ]
    own = {id(rule) for rule in explained}
    if any(id(rule) not in own for rule in rules):
        return None
    used = {rule.chain for rule in rules}
    chains = [
        chain
        for chain in firewall.chains
        if (chain.family, chain.table) == place and (chain.handle is None or chain.handle >= first)
    ]
    made = [chain for chain in chains if chain.hook is None]
    if any(not is_docker_chain(version, table, chain.name) for chain in made):
        return None
    if legacy:  # its built-in chains come with the table
        return len(made) + len(rules)
    if any(chain.hook is not None and chain.name not in used for chain in chains):
        return None
    # A table that begins with Docker's chain was made with it.
    return len(chains) + len(rules) + (first == 1)
