"""Changes of the firewall that no actor was recorded for, counted against what the engine did.

A NETFILTER_CFG record alone says how much was changed, not what. But what the engine does can be
counted: to create a network takes so many rules, which are there afterwards, and so many jumps taken
out and put back. Where the log has exactly as many changes as that, nothing is left over that somebody
else could have made. One change more, and none of them is accounted for; but for one that follows the last
command of an engine's start, which is then judged by itself.

Blind spot: somebody who replaces one of Docker's own changes by one of his own in the same second, and
restores it before the host is asked, leaves the same count. More of that in engine_start.py and
engine_work.py, which do the counting.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from functools import cached_property

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.words import apart
from verify_audit.host import questions as ask
from verify_audit.host.docker_layout import ExpectedRule
from verify_audit.host.docker_operations import Place
from verify_audit.host.facts import Container, EngineEvent
from verify_audit.host.firewall import Backend, Firewall
from verify_audit.host.observation import Observed
from verify_audit.rules.activity import DEATH, FOLLOW
from verify_audit.rules.case import Case
from verify_audit.rules.engine_start import STARTING, first_start, start_again
from verify_audit.rules.engine_work import Work
from verify_audit.rules.layout import Layout
from verify_audit.rules.picture import Picture
from verify_audit.rules.runs import Run, Settled, Write, runs_of, steps_legacy, writes_of

SOON = 0.6
"""Seconds after a run within which the engine's own event for it lies when there is little else to do."""


class Accounts:
    """The changes without an actor of one log, and what accounts for them on one host."""

    def __init__(self, picture: Picture, layout: Layout) -> None:
        self._picture = picture
        self._layout = layout
        self._work = Work(picture, layout)
        self._writes: list[Write] = []

    def survey(self, events: Sequence[Event]) -> None:
        """See all events, in the order of the log."""
        for event in events:
            self._writes += writes_of(event)

    def settle(self, case: Case) -> None:
        """Say what accounts for an event without an actor, where something does."""
        settled = self._settled.get(id(case.event))
        if settled is not None:
            case.container, case.network = settled.container, settled.network
            case.proves(Step.FIREWALL, settled.statement, settled.source)

    def robbed(self, event: Event) -> list[ExpectedRule]:
        """The rules that Docker needs, and that one of this event's tables lacks, which it took something out of.

        None where a later change in the log could be what took them: as many must be missing as all changes
        from this one on, for which nothing else accounts, took out there.
        """
        missing = self._layout.attribution.missing if self._layout.attribution is not None else ()
        for place, since in self._taken_since.get(id(event), {}).items():
            found = [rule for rule in missing if (rule.family, rule.table) == place]
            if since <= len(found):
                return found
        return []

    @cached_property
    def _taken_since(self) -> dict[int, dict[Place, int]]:
        """By the id() of an event that took something out: how much was taken from that table from then on."""
        found: dict[int, dict[Place, int]] = {}
        total: Counter[Place] = Counter()
        firewall = self._layout.firewall
        for write in reversed(self._writes):
            if id(write.event) in self._settled:
                continue
            taken = write.takes
            if write.replaces and isinstance(firewall, Observed):
                (step,) = steps_legacy([write], self._next, firewall.fact) or [0]
                taken = max(0, -step)
            if taken:
                total[write.place] += taken
                found.setdefault(id(write.event), {})[write.place] = total[write.place]
        return found

    @cached_property
    def _settled(self) -> dict[int, Settled]:
        """By the event's id(): two nodes may use the same one of the log's."""
        found: dict[int, Settled] = {}
        if not self._picture.is_docker or self._layout.attribution is None:
            return found
        left_over: set[int] = set()
        runs = deque(runs_of(self._writes, self._picture.started_before(float("inf"))))
        while runs:
            run = runs.popleft()
            settled, writes = self._account(run)
            if settled is not None:
                found.update({id(write.event): settled for write in writes})
            own = set(map(id, writes))
            rest = [write for write in run.writes if id(write) not in own]
            if rest and writes:
                runs.appendleft(Run(rest))
            else:
                left_over.update(id(write.event) for write in rest)
                self._work.leave(rest, self._next)
        return {key: settled for key, settled in found.items() if key not in left_over}

    def _account(self, run: Run) -> tuple[Settled | None, list[Write]]:
        """What accounts for a run, or for the head of it, and which changes those are."""
        settled = self._in_container(run)
        if settled is not None:
            return settled, run.writes
        picture = self._picture
        started = picture.started_before(run.first)
        begin = max(run.first - DEATH, started or 0.0)  # before its start the engine did nothing
        if self._layout.version is None or not picture.covers(begin, run.last + FOLLOW):
            return None, []
        if started is not None and run.first - started <= STARTING:
            head = start_again(run, started, picture, self._layout, self._next)
            if head is not None:
                return head
            if run.last - started <= STARTING and not self._work.near(run, SOON):
                settled = first_start(run, started, self._layout)
        # Most events follow within SOON; whatever else the engine does until FOLLOW has changes of its own.
        for follow in (SOON, FOLLOW):
            settled = settled or self._work.settles(run, follow, self._next)
        return settled, run.writes if settled is not None else []

    @cached_property
    def _next(self) -> dict[int, int]:
        """By a change's id(), the entries of its x_tables table at the next change of it in the log."""
        found: dict[int, int] = {}
        later: dict[Place, int] = {}
        for write in reversed(self._writes):
            if write.replaces:
                if write.place in later:
                    found[id(write)] = later[write.place]
                later[write.place] = write.change.entries
        return found

    # In a container's namespace

    def _in_container(self, run: Run) -> Settled | None:
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
            return Settled(
                f"these {len(run.writes)} changes are all that the namespace of container {container.name} has had, "
                "and what they left there is the way to Docker's name server, and nothing else; the engine reported "
                f"{near.action} {apart(near.at, run.last)} the last",
                answer,
                self._picture.container_ref(container.id),
                self._picture.network_ref(near.network_id),
            )
        return None

    def _is_name_servers(self, firewall: Firewall, run: Run) -> bool:
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

    def _started(self, run: Run) -> list[tuple[Container, EngineEvent]]:
        """Running containers that the engine connected or started around a run, the nearest event with each."""
        found: dict[str, EngineEvent] = {}
        for event in self._picture.events_between(run.first - FOLLOW, run.last + FOLLOW):
            if event.action == "connect" and event.container_id:
                found[event.container_id] = event
        known = self._picture.container_by_id
        pairs = [(known[key], event) for key, event in found.items() if key in known and known[key].running]
        return sorted(pairs, key=lambda pair: abs(pair[1].at - run.last))
