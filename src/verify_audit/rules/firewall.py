"""Rule `firewall`: the packet filter was changed (NETFILTER_CFG, or the SYSCALL of iptables alone).

Claim: the Docker engine made the change, itself or through an iptables or nft that it started.

Blind spots: a record of x_tables names neither chain nor rule, and one of nf_tables counts only what
was changed, so without the SYSCALL and PROCTITLE records beside it the change itself is not known. A
command line is what a process says of itself: it is looked up, and never believed.

References: net/netfilter/nf_tables_api.c nf_tables_commit_audit_log(); net/netfilter/x_tables.c;
kernel/auditsc.c __audit_log_nfcfg(); audit message types in include/uapi/linux/audit.h.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from verify_audit.audit import decode
from verify_audit.audit.decode import NetfilterChange, SockoptChange
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import Cause, CauseKind, Finding, NetworkRef, Subject
from verify_audit.findings.verdict import Verdict
from verify_audit.findings.words import apart, clock, short, who
from verify_audit.host import questions as ask
from verify_audit.host.docker_layout import ExpectedRule
from verify_audit.host.facts import Container, EngineEvent, Process
from verify_audit.host.firewall import Firewall
from verify_audit.host.iptables_command import FirewallCommand, parse_command
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.accounts import Accounts
from verify_audit.rules.actor import SYSCALL_REMEDY, Actors, Relation
from verify_audit.rules.case import Case
from verify_audit.rules.interface import Rule
from verify_audit.rules.layout import FAMILIES, live
from verify_audit.rules.picture import START_SLACK, Picture
from verify_audit.rules.statement import from_log, quoted

BEFORE, AFTER = 3.0, 5.0
"""Seconds before and after a change of the firewall within which an event of the engine's explains it:
rules are set before the `network create` or `connect` event, a container's own after it."""

CLOSE = (0.1, 1.0)
"""Seconds within which the engine's events name what a change was for, if they agree; the second when there
is none within the first."""

STARTING = 15.0
"""Seconds after the start of the engine's process during which it sets up its chains and networks."""

_ADDING = ("append", "insert", "replace", "new_chain", "new_table")
_SOONER = "judge sooner, while what was changed is still there"


class _Change(NamedTuple):
    """What is known of one event: its records, the command that made it, and the tables (family, name)."""

    records: tuple[NetfilterChange, ...]
    command: FirewallCommand | None
    places: tuple[tuple[str, str], ...]

    @property
    def subject(self) -> Subject:
        """What the report says that the event is about."""
        return Subject(
            table=", ".join(dict.fromkeys(table for _, table in self.places)) or None,
            chain=self.command.chain if self.command else None,
            command=f"{self.command.program} {self.command.text}" if self.command else None,
        )


class FirewallRule(Rule):
    """Judges NETFILTER_CFG and the setsockopt of iptables."""

    name = "firewall"

    def __init__(self, picture: Picture, actors: Actors) -> None:
        super().__init__(picture, actors)
        self._layout = picture.layout
        self._accounts = Accounts(picture, picture.layout)
        self._resolvers: dict[int, set[FirewallCommand]] = {}

    def applies(self, event: Event) -> bool:
        """Whether the event changed the firewall. One call does either this or something to a device."""
        if event.first("NETFILTER_CFG") is not None:
            return True
        return event.first("ANOM_PROMISCUOUS") is None and _sockopt(event) is not None

    def survey(self, events: Sequence[Event]) -> None:
        """Count the changes that no actor was recorded for."""
        self._accounts.survey(events)
        for event in events:
            self._survey_resolver(event)

    def _survey_resolver(self, event: Event) -> None:
        """Remember which parent made which rule for a container's name server."""
        title, record = event.first("PROCTITLE") or event.first("EXECVE"), event.first("SYSCALL")
        if title is None or record is None or not any(mark in title.body for mark in _DNS_MARKS):
            return
        call, command = decode.syscall(record), _command(event)
        if call is None or command is None or command.chain not in _DNS_CHAINS:
            return
        if self._layout.explain_in_container(command) is not None:
            self._resolvers.setdefault(call.ppid, set()).add(command)

    def judge(self, event: Event) -> Finding:
        """The event, judged."""
        change = _read(event)
        case = Case(event, self.actors.of(event, engine_acts_itself=False))
        self._records(case, change)
        if case.actor.relation is Relation.UNRECORDED:
            self._by_pid_alone(case, change)
        if case.actor.is_docker:
            self._by_engine(case, change)
        elif case.actor.is_other:
            self._standing(case, change)
        elif case.actor.relation is Relation.UNCERTAIN:
            self._by_command(case, change)
        self._background(case)
        subject = change.subject
        return case.finding(
            self.name,
            subject,
            lambda verdict, cause: self._headline(case, verdict, cause, subject),
            "somebody else, whom nothing recorded",
        )

    def _records(self, case: Case, change: _Change) -> None:
        """What the records alone say against Docker: tables that it never touches, names that imitate."""
        records = case.event.of_type("NETFILTER_CFG")
        if len(records) != len(change.records):
            case.lacks("the table", "a record is cut or of no known form", "look at the log file itself")
        for each in change.records:
            family, table = _family(each), _text(each.table)
            if not each.odd and self._layout.makes_table(family, table):
                continue
            source = from_log(case.event, records[0])
            if each.odd:
                case.disproves(
                    Step.FIREWALL,
                    "the table's name holds characters that imitate other fields, which no name of Docker's does",
                    source,
                )
            else:
                case.disproves(
                    Step.FIREWALL,
                    f"Docker {self._layout.version} has no business with table {table} of family {family}",
                    source,
                    f"nft list table {family} {table}",
                )
        call = case.event.first("SYSCALL")
        if call is not None and case.actor.call is not None and case.actor.call.success is False:
            case.notes(Step.FIREWALL, "the call failed, so nothing was changed", from_log(case.event, call))

    # With a recorded actor

    def _by_engine(self, case: Case, change: _Change) -> None:
        """The engine did it. Does it fit what it was doing then, and what for?"""
        if change.command is None or not self._in_container(case, change, change.command):
            self._standing(case, change)
        activity = self._activity(case.event)
        if activity:
            self._tell_activity(case, activity)
        elif self._started_then(case.event):
            self._tell_start(case)
        elif self.picture.covers(case.event.time - BEFORE, case.event.time + AFTER):
            case.doubts(
                Step.CONTAINER,
                "the engine's events are complete around the record, and it did nothing then that changes a firewall",
                self.picture.history,
                _events_by_hand(case.event),
            )

    def _standing(self, case: Case, change: _Change) -> None:
        """What the command's rule is for, and whether it is there now."""
        command = change.command
        if command is None or command.chain is None:
            return
        expected = self._layout.explain(command)
        place = f"{command.table or 'filter'} {command.chain}"
        by_hand = f"{_program(command)} -t {command.table or 'filter'} -S {command.chain}"
        if expected is not None:
            self._refer(case, expected)
        else:
            self._refer_by_name(case, command)
        if command.spec is None:
            return
        if command.truncated or command.spec.opaque:
            case.notes(
                Step.FIREWALL,
                "the record has only the beginning of the command, so its rule could not be looked up",
                self._layout.firewall,
                by_hand,
            )
            return
        found = self._layout.live(command)
        if found:
            handle = f", handle {found[0].handle}" if found[0].handle is not None else ""
            purpose = f"for this: {expected.because}" if expected else "for nothing that this engine sets up"
            case.notes(
                Step.FIREWALL, f"the rule is in {place} now ({found[0].backend}{handle}), {purpose}",
                self._layout.firewall, by_hand, self._layout.text(found[0]),
            )  # fmt: skip
        elif isinstance(self._layout.firewall, Observed):
            case.notes(Step.FIREWALL, f"the rule is not in {place} now", self._layout.firewall, by_hand)

    def _refer(self, case: Case, expected: ExpectedRule) -> None:
        if case.actor.is_other:
            return
        if expected.network_id:
            case.network = self.picture.network_ref(expected.network_id)
        if expected.container_id:
            case.container = self.picture.container_ref(expected.container_id)

    def _refer_by_name(self, case: Case, command: FirewallCommand) -> None:
        """What the words of a command name: a container's address, a bridge also when it is gone.

        For a command that is cut short, or whose rule has nothing left to be explained by.
        """
        if case.actor.is_other:
            return
        words = command.text.split()
        bare = {word.partition("/")[0].rpartition(":")[0] or word.partition("/")[0] for word in words}
        for endpoint, container in self.picture.endpoints:
            if endpoint.ipv4 and endpoint.ipv4 in bare:
                case.container = self.picture.container_ref(container.id)
                case.network = self.picture.network_ref(endpoint.network_id)
                return
        for network in self.picture.network_by_bridge.values():
            if network.bridge in words:
                case.network = self.picture.network_ref(network.id)
                return
        for each in self.picture.events:
            # libnetwork names a bridge by the first 12 digits of its network's id.
            if each.network_id and f"br-{short(each.network_id)}" in words:
                case.network = NetworkRef(each.network_id, each.network_name, f"br-{short(each.network_id)}")
                return

    # Without one that could be told

    def _by_pid_alone(self, case: Case, change: _Change) -> None:
        """No SYSCALL record. From 5.8 on the record itself has a pid."""
        pid = next((each.pid for each in change.records if each.pid), None)
        source = from_log(case.event, case.event.records[0])
        living = self.picture.host.ask(ask.process(pid)) if pid else None
        if (
            isinstance(living, Observed)
            and living.fact.started_at <= case.event.time + START_SLACK
            and self._by_living(case, living, source.provenance.query)
        ):
            return
        self._accounts.settle(case)
        if not any(piece.weight == "decisive" for piece in case.evidence):
            self._by_state(case, change)
        case.lacks("who did it", "the event has no SYSCALL record", SYSCALL_REMEDY)

    def _by_living(self, case: Case, living: Observed[Process], query: str) -> bool:
        """The pid of the record still lives. Whether that settles it."""
        process, daemon = living.fact, self.picture.daemon
        if process.ppid == 2 and process.exe is None:
            case.other = Cause(CauseKind.KERNEL, f"the kernel ({process.comm}), ending a network namespace")
            case.notes(Step.ACTOR, f"process {process.identity.pid} is a thread of the kernel's", living)
            return False
        if isinstance(daemon, Observed) and process.identity == daemon.fact.process.identity:
            case.proves(Step.ACTOR, f"the pid in {query} is the engine's, {who(process)}", daemon)
            return True
        if process.container_id is None and self.picture.descends_from_engine(process):
            case.proves(Step.ACTOR, f"{who(process)} descends from the engine", living)
            return True
        if not isinstance(daemon, Observed):
            return False
        ref = self.picture.container_ref(process.container_id) if process.container_id else None
        inside = f", inside container {ref.name or short(ref.id)}" if ref else ""
        kind = CauseKind.CONTAINER if ref else CauseKind.PROCESS
        text = f"{who(process)}{inside}"
        case.other = Cause(kind, text, process.identity.pid, process.exe, process.loginuid)
        case.container = ref
        case.disproves(Step.ACTOR, f"{text} did it, not the engine", living)
        return True

    def _by_command(self, case: Case, change: _Change) -> None:
        """The actor and its parent have ended; their command is known. The engine's own children are not here."""
        command = change.command
        if command is None:
            self._by_state(case, change)
            return
        if self._in_container(case, change, command):
            return
        self._standing(case, change)
        expected = self._layout.explain(command)
        standing = self._layout.live(command)
        if command.action in _ADDING and self._stands_unexplained(command):
            case.disproves(
                Step.FIREWALL,
                "what it added is there, under Docker's names, and nothing that this engine runs calls for it",
                self._layout.firewall,
            )
        elif expected is not None and standing and self.picture.ran_at(case.event.time) is False:
            self._by_age(case, expected)
        else:
            self._by_state(case, change)

    def _stands_unexplained(self, command: FirewallCommand) -> bool:
        """Whether what a command adds is there now, in Docker's chains or under its names, and not Docker's."""
        attribution = self._layout.attribution
        if attribution is None or command.family is None:
            return False
        if command.action == "new_chain":
            return any(chain.name == command.chain for chain in attribution.foreign_chains)
        unexplained = {id(rule) for rule in attribution.unexplained}
        return any(id(rule) in unexplained for rule in self._layout.live(command))

    def _by_age(self, case: Case, expected: ExpectedRule) -> None:
        """The engine has been restarted since, and its rule outlived that: it is as old as what it is for."""
        container = self.picture.container_by_id.get(expected.container_id or "")
        network = self.picture.network_by_id.get(expected.network_id or "")
        life = self.picture.host.ask(ask.life(container.id)) if container else None
        born = None
        if isinstance(life, Observed):
            born, name = life.fact.started_at, f"container {container.name if container else ''} started"
        elif network is not None:
            born, name = network.created_at, f"network {network.name} was created"
        if born is not None and -BEFORE <= born - case.event.time <= AFTER and self.picture.is_docker:
            case.proves(
                Step.FIREWALL,
                f"the rule is there and is what Docker sets up ({expected.because}), and {name} "
                f"{apart(born, case.event.time)} the record",
                self._layout.firewall,
            )

    def _in_container(self, case: Case, change: _Change, command: FirewallCommand) -> bool:
        """Docker's name server for a container: rules in the container's own namespace. Whether it is that.

        Engine 20.10 has them made by a process that it re-executes and that is gone at once, so the
        parent cannot be told. The ports in them are chosen by the kernel: whoever finds the very rule in
        the namespace of a container that was being started then has found its origin, and that of all else
        that the same parent did.
        """
        call = case.actor.call
        # The engine is parent to the rules of every container; a process of its own is to those of one.
        siblings = self._resolvers.get(call.ppid, set()) if call and not case.actor.is_docker else set()
        named = bool(siblings) or (command.chain in _DNS_CHAINS and command.action == "new_chain")
        if not named and self._layout.explain_in_container(command) is None:
            return False
        holding = self._holding(case, change, command, siblings)
        if not holding:
            case.lacks(
                "the firewall of the container's namespace",
                "no container that was being started then holds such a rule now",
                _SOONER,
            )
            return True
        container, source = holding[0]
        if len(holding) == 1:
            case.container = self.picture.container_ref(container.id)
            user = [each for each in container.endpoints if each.network_name != "bridge"]
            case.network = self.picture.network_ref(user[0].network_id) if len(user) == 1 else None
        names = ", ".join(each.name for each, _ in holding)
        say = case.notes if case.actor.is_docker else case.proves
        say(
            Step.FIREWALL,
            f"it is in the namespace of container {names}, which was being started then: {_DNS}",
            source,
            f"nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' {short(container.id)}) -n iptables -t nat -S",
        )
        return True

    def _holding(
        self, case: Case, change: _Change, command: FirewallCommand, siblings: set[FirewallCommand]
    ) -> list[tuple[Container, Observed[Firewall]]]:
        """The containers being started then whose namespace holds what a command, and its siblings, made."""
        found = []
        for container in self._starting(case.event):
            life = self.picture.host.ask(ask.life(container.id))
            if not isinstance(life, Observed) or not life.fact.pid:
                continue
            answer = self.picture.host.ask(ask.container_firewall(life.fact.pid))
            if isinstance(answer, Unobservable):
                case.could_not_see(f"the firewall inside container {container.name}", answer)
            elif (
                isinstance(answer, Observed)
                and _holds(answer.fact, change, command)
                and all(live(answer.fact, sibling) for sibling in siblings)
            ):
                found.append((container, answer))
        return found

    def _starting(self, event: Event) -> list[Container]:
        """The containers that the engine was starting or connecting around the event."""
        near = self._activity(event)
        ids = {each.container_id for each in near if each.action in ("connect", "start", "create", "restart")}
        if not self.picture.covers(event.time - BEFORE, event.time + AFTER):
            for container in self.picture.container_by_id.values():
                life = self.picture.host.ask(ask.life(container.id)) if container.running else None
                started = life.fact.started_at if isinstance(life, Observed) else None
                if started is not None and -BEFORE <= started - event.time <= AFTER:
                    ids.add(container.id)
        return [each for each in self.picture.container_by_id.values() if each.id in ids and each.running]

    def _by_state(self, case: Case, change: _Change) -> None:
        """Nothing is left but what the engine did around then, and what the firewall holds now."""
        picture, layout = self.picture, self._layout
        activity = self._activity(case.event)
        if activity:
            self._tell_activity(case, activity)
            return
        if self._started_then(case.event):
            self._tell_start(case)
            return
        if isinstance(picture.history, Unobservable):
            case.could_not_see("the engine's events", picture.history)
            return
        if not picture.covers(case.event.time - BEFORE, case.event.time + AFTER):
            case.lacks(
                "the engine's events of that time",
                "the engine keeps its last 256 events, and none from before its own start",
                _SOONER,
            )
            return
        silent = "the engine's events are complete around the record, and it did nothing then that changes a firewall"
        strangers = [each for place in change.places for each in layout.strangers(*place)]
        if strangers:
            shown = "; ".join(strangers[:3]) + (" and more" if len(strangers) > 3 else "")
            case.disproves(
                Step.FIREWALL,
                f"{silent}; and there stands in the same table what nothing of Docker's calls for: {shown}",
                layout.firewall,
                "iptables -S; iptables -t nat -S",
            )
        else:
            case.doubts(Step.CONTAINER, silent, picture.history, _events_by_hand(case.event))

    # The engine at that time

    def _activity(self, event: Event) -> list[EngineEvent]:
        """The engine's events around the record that go with changes of the firewall."""
        time = event.time
        times = self._change_times
        return self._changes[bisect_left(times, time - BEFORE) : bisect_right(times, time + AFTER)]

    @cached_property
    def _changes(self) -> list[EngineEvent]:
        return [
            each
            for each in self.picture.events
            if each.type in ("network", "container") and each.action in _CHANGES
        ]

    @cached_property
    def _change_times(self) -> list[float]:
        return [each.at for each in self._changes]

    def _started_then(self, event: Event) -> bool:
        daemon = self.picture.daemon
        return (
            isinstance(daemon, Observed)
            and -START_SLACK <= event.time - daemon.fact.process.started_at <= STARTING
        )

    def _tell_start(self, case: Case) -> None:
        daemon = self.picture.daemon
        if isinstance(daemon, Observed):
            started = daemon.fact.process.started_at
            case.supports(
                Step.ENGINE,
                f"the record lies {apart(case.event.time, started)} the engine's start ({clock(started)}), when it "
                "sets up its chains",
                daemon,
            )

    def _tell_activity(self, case: Case, activity: list[EngineEvent]) -> None:
        """What the engine did around then, the nearest first; from it the names, where they are certain."""
        time = case.event.time
        after = bisect_left(activity, time, key=lambda each: each.at)
        nearest = min(activity[max(0, after - 1) : after + 1], key=lambda each: abs(each.at - time))
        container = self.picture.container_ref(nearest.container_id)
        network = self.picture.network_ref(nearest.network_id)
        name = container.name or short(container.id) if container else ""
        what = f"{nearest.type} {nearest.action}" + (f" of {name}" if name else "")
        if network is not None:
            what += f" (network {network.name})"
        case.supports(
            Step.CONTAINER,
            f"the engine reported `{what}` {apart(nearest.at, time)} the record",
            self.picture.history,
            _events_by_hand(case.event),
            quoted(nearest),
        )
        if not case.actor.is_docker:
            return
        if case.network is not None and case.container is not None:
            return
        networks, containers = self._close(activity, time)
        if case.network is None and len(networks) == 1:
            case.network = self.picture.network_ref(next(iter(networks)))
        if case.container is None and len(containers) == 1:
            case.container = self.picture.container_ref(next(iter(containers)))

    @staticmethod
    def _close(activity: list[EngineEvent], time: float) -> tuple[set[str], set[str]]:
        """The networks and the containers of the engine's events that lie closest to a time."""
        for distance in CLOSE:
            close = [each for each in activity if abs(each.at - time) <= distance]
            if close:
                break
        return (
            {each.network_id for each in close if each.network_id},
            {each.container_id for each in close if each.container_id},
        )

    def _headline(self, case: Case, verdict: Verdict, cause: Cause, subject: Subject) -> str:
        what = subject.command or (f"table {subject.table}" if subject.table else "x_tables")
        whose = ""
        if case.container is not None and verdict is Verdict.CONFIRMED:
            whose = f" for container {case.container.name or short(case.container.id)}"
        elif case.network is not None and verdict is Verdict.CONFIRMED:
            whose = f" for network {case.network.name}"
        match verdict:
            case Verdict.CONFIRMED:
                return f"Docker changed the firewall{whose}: {what}"
            case Verdict.REFUTED:
                return f"Not Docker: {cause.text} changed the firewall: {what}"
            case _:
                why = case.missing[0].why if case.missing else "the evidence contradicts itself"
                return f"Cannot tell who changed the firewall ({what}): {why}"


_DNS_CHAINS = ("DOCKER_OUTPUT", "DOCKER_POSTROUTING")
_DNS_MARKS = (b"DOCKER_", b"DOCKER_".hex().upper().encode())
_DNS = "containers on user-defined networks ask Docker's own name server"
_CHANGES = frozenset(
    (
        "connect",
        "disconnect",
        "create",
        "destroy",
        "start",
        "die",
        "stop",
        "kill",
        "restart",
        "remove",
        "update",
    )
)


def _holds(firewall: Firewall, change: _Change, command: FirewallCommand) -> bool:
    """Whether a container's firewall holds what the command made there, and has changed often enough."""
    generation = next((each.generation for each in change.records if each.generation is not None), None)
    if generation is not None and (firewall.nft_generation or 0) < generation:
        return False
    if command.spec is not None and not command.truncated:
        return bool(live(firewall, command))
    if command.chain is None:
        return True  # it only looked (-L, which registers a legacy table)
    return any(
        chain.name == command.chain and chain.table == command.table and chain.family == command.family
        for chain in firewall.chains
    )


def _read(event: Event) -> _Change:
    decoded = map(decode.netfilter, event.of_type("NETFILTER_CFG"))
    records = tuple(change for change in decoded if change is not None)
    command = _command(event)
    places = dict.fromkeys((_family(each), _text(each.table)) for each in records)
    if not records and command is not None and command.family and command.table:
        places = {(command.family, command.table): None}
    return _Change(records, command, tuple(places))


def _family(change: NetfilterChange) -> str:
    return FAMILIES.get(change.family, str(change.family))


def _command(event: Event) -> FirewallCommand | None:
    command = decode.command(event)
    return _parsed(command.argv, command.truncated) if command is not None else None


@lru_cache(maxsize=4096)
def _parsed(argv: tuple[bytes, ...], truncated: bool) -> FirewallCommand | None:
    return parse_command(argv, truncated=truncated)


def _sockopt(event: Event) -> SockoptChange | None:
    record = event.first("SYSCALL")
    call = decode.syscall(record) if record is not None else None
    return decode.firewall_sockopt(call, event.first("SOCKETCALL")) if call is not None else None


def _program(command: FirewallCommand) -> str:
    return command.program if command.program in ("iptables", "ip6tables") else "iptables"


def _events_by_hand(event: Event) -> str:
    return f"docker events --since {event.time - BEFORE:.0f} --until {event.time + AFTER:.0f}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
