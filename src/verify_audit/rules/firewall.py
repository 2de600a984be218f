"""Rule `firewall`: the packet filter was changed (NETFILTER_CFG, or the SYSCALL of iptables alone).

Claim: the Docker engine made the change, itself or through an iptables or nft that it started.

Blind spots: a record of x_tables names neither chain nor rule, and one of nf_tables counts only what
was changed, so without the SYSCALL and PROCTITLE records beside it the change itself is not known. A
command line is what a process says of itself: it is looked up, and never believed.

References: net/netfilter/nf_tables_api.c nf_tables_commit_audit_log(); net/netfilter/x_tables.c;
kernel/auditsc.c __audit_log_nfcfg(); audit message types in include/uapi/linux/audit.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import Cause, CauseKind, Finding, Subject
from verify_audit.findings.verdict import Verdict
from verify_audit.findings.words import apart, clock, short, who
from verify_audit.host import questions as ask
from verify_audit.host.docker_commands import never_dockers
from verify_audit.host.docker_layout import ExpectedRule
from verify_audit.host.facts import Process
from verify_audit.host.iptables_command import FirewallCommand
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.accounts import Accounts
from verify_audit.rules.activity import AFTER, BEFORE, Activity
from verify_audit.rules.actor import SYSCALL_REMEDY, Actors, Relation
from verify_audit.rules.case import Case
from verify_audit.rules.change import Change, family_of, read_change, sockopt_of, text_of
from verify_audit.rules.firewalld import Firewalld
from verify_audit.rules.interface import Rule
from verify_audit.rules.lookup import Lookup
from verify_audit.rules.nameserver import SOONER, NameServer
from verify_audit.rules.picture import START_SLACK, Picture
from verify_audit.rules.statement import denial, from_log

SETTING_UP = 60.0
"""Seconds after the start of the engine's process until which it may be setting up chains and networks."""

_ADDING = ("append", "insert", "replace", "new_chain", "new_table")


class FirewallRule(Rule):
    """Judges NETFILTER_CFG and the setsockopt of iptables."""

    name = "firewall"

    def __init__(self, picture: Picture, actors: Actors) -> None:
        super().__init__(picture, actors)
        self._layout = picture.layout
        self._accounts = Accounts(picture, picture.layout)
        self._activity = Activity(picture)
        self._lookup = Lookup(picture)
        self._firewalld = Firewalld(picture, self._activity)
        self._name_server = NameServer(picture, self._activity)

    def applies(self, event: Event) -> bool:
        """Whether the event changed the firewall. One call does either this or something to a device."""
        if event.first("NETFILTER_CFG") is not None:
            return True
        return event.first("ANOM_PROMISCUOUS") is None and sockopt_of(event) is not None

    def survey(self, events: Sequence[Event]) -> None:
        """Count the changes that no actor was recorded for."""
        self._accounts.survey(events)
        self._firewalld.survey(events)
        for event in events:
            self._name_server.survey(event)

    def judge(self, event: Event) -> Finding:
        """The event, judged."""
        change = read_change(event)
        case = Case(event, self.actors.of(event, engine_acts_itself=False))
        case.names = _names(change)
        unrecorded = case.actor.relation is Relation.UNRECORDED
        left_open = (unrecorded or case.actor.relation is Relation.UNSEEN) and self._firewalld.left_open(
            case, change
        )
        by_firewalld = case.actor.relation is Relation.FIREWALLD
        self._records(case, change, by_firewalld=by_firewalld or left_open)
        if unrecorded and not left_open:
            self._by_pid_alone(case, change)
        if case.actor.is_docker:
            self._by_engine(case, change)
        elif case.actor.is_other:
            self._look_up(case, change)
        elif by_firewalld:
            self._look_up(case, change)
            self._firewalld.judge(case, change)
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

    def _records(self, case: Case, change: Change, *, by_firewalld: bool) -> None:
        """What the records alone say against Docker: tables that it never touches, names that imitate.

        by_firewalld: the change may be one that Docker had firewalld make in a table of its own.
        """
        if change.unread:
            case.lacks("the table", "a record is cut or of no known form", "look at the log file itself")
        for each in change.records:
            family, table = family_of(each), text_of(each.table)
            if not each.odd and (by_firewalld or self._layout.makes_table(family, table)):
                continue
            source = from_log(case.event, case.event.of_type("NETFILTER_CFG")[0])
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
                    f"nft list table {family} {quote(table)}",
                )
        if case.actor.call is not None and case.actor.call.success is False:
            call = case.event.of_type("SYSCALL")[0]
            case.notes(Step.FIREWALL, "the call failed, so nothing was changed", from_log(case.event, call))

    # With a recorded actor

    def _by_engine(self, case: Case, change: Change) -> None:
        """The engine did it. Does it fit what it was doing then, and what for?"""
        if not self._name_server.explains(case, change):
            self._look_up(case, change)
        time = case.event.time
        if self._activity.is_around(time):
            self._tell_activity(case)
        elif self._setting_up(time):
            self._tell_start(case)
        elif self._activity.covers(time):
            case.doubts(
                Step.CONTAINER,
                "the engine's events are complete around the record, and it did nothing then that changes a firewall",
                self.picture.history,
                _events_by_hand(case.event),
            )

    def _look_up(self, case: Case, change: Change) -> None:
        """What the command's rule is for, and whether it is there now."""
        if change.command is None:
            return
        found = self._lookup.find(change.command)
        if not case.actor.is_other:
            case.container, case.network = found.container, found.network
        if found.evidence is not None:
            case.evidence.append(found.evidence)

    # Without one that could be told

    def _by_pid_alone(self, case: Case, change: Change) -> None:
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
        if (
            self.picture.is_docker
            and isinstance(daemon, Observed)
            and process.identity == daemon.fact.process.identity
        ):
            case.proves(Step.ACTOR, f"the pid in {query} is the engine's, {who(process)}", daemon)
            return True
        container = self.picture.container_of(process)
        if container is None and self.picture.is_docker and self.picture.descends_from_engine(process):
            case.proves(Step.ACTOR, f"{who(process)} descends from the engine", living)
            return True
        if not self.picture.is_docker or (container is None and not self.picture.ancestry_seen(process)):
            return False
        ref = self.picture.container_ref(container) if container else None
        inside = f", inside container {ref.name or short(ref.id)}" if ref else ""
        kind = CauseKind.CONTAINER if ref else CauseKind.PROCESS
        text = f"{who(process)}{inside}"
        case.other = Cause(kind, text, process.identity.pid, process.exe, process.loginuid)
        case.line = (process, *self.picture.ancestry(process))
        case.container = ref
        case.disproves(Step.ACTOR, f"{text} did it, not the engine", living)
        return True

    def _by_command(self, case: Case, change: Change) -> None:
        """The actor and its parent have ended; their command is known. The engine's own children are not here."""
        command = change.command
        if command is None:
            self._by_state(case, change)
            return
        if self._name_server.explains(case, change):
            return
        self._look_up(case, change)
        never = never_dockers(command)
        if never:
            record = case.event.first("EXECVE") or case.event.first("PROCTITLE") or case.event.records[0]
            case.disproves(Step.ACTOR, never, from_log(case.event, record))
            return
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

    def _by_state(self, case: Case, change: Change) -> None:
        """Nothing is left but what the engine did around then, and what the firewall holds now."""
        picture, time = self.picture, case.event.time
        if self._activity.explaining(time):
            self._tell_activity(case)
        elif self._setting_up(time):
            self._tell_start(case)
        elif isinstance(picture.history, Unobservable):
            case.could_not_see("the engine's events", picture.history)
        elif not self._activity.silent(time):
            case.lacks(
                "the engine's events of that time",
                "the engine keeps its last 256 events, and none from before its own start",
                SOONER,
            )
        else:
            self._in_silence(case, change)

    def _in_silence(self, case: Case, change: Change) -> None:
        """The engine did nothing then. Is the firewall as somebody else must have made it?"""
        layout = self._layout
        silent = "the engine's events are complete around the record, and it did nothing then that changes a firewall"
        strangers = [each for place in change.places for each in layout.strangers(*place)]
        robbed = [f"{rule.table} {rule.chain} {rule.spec}" for rule in self._accounts.robbed(case.event)]
        if not (strangers or robbed) or layout.has_firewalld:
            # firewalld's reload puts Docker's rules back, and the engine does not speak of it.
            case.doubts(Step.CONTAINER, silent, self.picture.history, _events_by_hand(case.event))
            return
        if strangers:
            state = f"there stands in the same table what nothing of Docker's calls for: {_first(strangers)}"
        else:
            state = (
                f"what it took out of the same table is missing there, and Docker needs it: {_first(robbed)}"
            )
        case.disproves(
            Step.FIREWALL, f"{silent}; and {state}", layout.firewall, "iptables -S; iptables -t nat -S"
        )

    # The engine at that time

    def _setting_up(self, time: float) -> bool:
        """Whether the engine had started and not yet done anything that it speaks of: it sets up its chains."""
        started = self.picture.started_before(time)
        return (
            started is not None
            and time - started <= SETTING_UP
            and not self.picture.events_between(started, time)
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

    def _tell_activity(self, case: Case) -> None:
        """What the engine did around then, the nearest first; from it the names, where they are certain."""
        time = case.event.time
        nearest = self._activity.nearest(time)
        words, raw = self._activity.told(nearest)
        case.supports(
            Step.CONTAINER,
            f"the engine reported `{words}` {apart(nearest.at, time)} the record",
            self.picture.history,
            _events_by_hand(case.event),
            raw,
        )
        if not case.actor.is_docker or (case.network is not None and case.container is not None):
            return
        networks, containers = self._activity.close(time)
        if case.network is None and len(networks) == 1:
            case.network = self.picture.network_ref(next(iter(networks)))
        if case.container is None and len(containers) == 1:
            case.container = self.picture.container_ref(next(iter(containers)))

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
                return f"{denial(cause)}: {cause.text} changed the firewall: {what}"
            case _:
                why = case.missing[0].why if case.missing else "the evidence contradicts itself"
                return f"Cannot tell who changed the firewall ({what}): {why}"


def _names(change: Change) -> list[tuple[str, str]]:
    """What a change touched, by its names: tables, and the chain and target of the command."""
    names = [("table", table) for _, table in change.places]
    if change.command is not None:
        target = change.command.spec.target if change.command.spec is not None else ""
        names += [("chain", name) for name in (change.command.chain, target) if name]
    return names


def _first(names: Sequence[str]) -> str:
    return "; ".join(names[:3]) + (" and more" if len(names) > 3 else "")


def _events_by_hand(event: Event) -> str:
    return f"docker events --since {event.time - BEFORE:.0f} --until {event.time + AFTER:.0f}"
