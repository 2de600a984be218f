"""Who did it: the process of the event's SYSCALL record, held against the engine's.

What a process calls itself (comm, exe) decides nothing. What decides: that its pid, or its parent's,
is the engine's, and that the engine was running then; or that it is known to be something else.

Blind spots: whoever may use the Docker socket can have the engine do it, and code injected into the
engine acts as the engine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from verify_audit.audit.decode import Syscall, syscall
from verify_audit.audit.record import Event, Record
from verify_audit.findings.evidence import Bearing, Evidence, Missing, Step, Weight
from verify_audit.findings.finding import Cause, CauseKind, ContainerRef
from verify_audit.findings.words import clock, short, who
from verify_audit.host import questions as ask
from verify_audit.host.facts import Daemon, Process
from verify_audit.host.observation import Observation, Observed, Unobservable
from verify_audit.rules.attachments import Attachments
from verify_audit.rules.picture import START_SLACK, Picture
from verify_audit.rules.statement import evidence, from_log, missing, neutral

SYSCALL_REMEDY = (
    "have SYSCALL records written: remove `-a never,task` from the audit rules (auditctl -l shows it) "
    "and restart the engine, since a process is audited as it was when it started"
)


ENGINES_NAME = "dockerd"
OWN_SOCKET = "name the Docker engine's own socket with --docker-host"


class Relation(StrEnum):
    """What the process that acted is to the engine."""

    ENGINE = "the engine itself"
    ENGINES_CHILD = "started by the engine"
    CONTAINER = "inside a container"
    FIREWALLD = "the engine's firewalld, which acts for it and for others"
    OTHER = "another process"
    UNCERTAIN = "gone, and not to be told from what it left"
    UNSEEN = "could not be looked up"
    UNRECORDED = "not recorded"


class Actor(NamedTuple):
    """The process that acted, as far as it is known.

    evidence and missing are what this brings to any claim that Docker did it; call is the SYSCALL
    record, None without one. line: the process that acted, or its parent, and its ancestors, as far as they live.
    """

    relation: Relation
    cause: Cause
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[Missing, ...] = ()
    call: Syscall | None = None
    container: ContainerRef | None = None
    line: tuple[Process, ...] = ()

    @property
    def is_docker(self) -> bool:
        """Whether the engine or a child of it did it."""
        return self.relation in (Relation.ENGINE, Relation.ENGINES_CHILD)

    @property
    def is_other(self) -> bool:
        """Whether something else is known to have done it."""
        return self.relation in (Relation.OTHER, Relation.CONTAINER)


class Actors:
    """Finds the actor of events on one host."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self.attachments = Attachments(picture)
        self._of_engine: dict[bool, Evidence] = {}

    def of(self, event: Event, *, engine_acts_itself: bool) -> Actor:
        """The actor of an event.

        engine_acts_itself: the engine does such a thing in its own process, never by a helper, so that
        any other pid is another process even when nothing is left of it.
        """
        record = event.first("SYSCALL")
        call = syscall(record) if record is not None else None
        if record is None or call is None:
            return Actor(Relation.UNRECORDED, Cause(CauseKind.UNKNOWN, "no actor was recorded"))
        return self._by_pid(event, record, call) or self._not_the_engine(
            event, from_log(event, record), call, engine_acts_itself
        )

    def _by_pid(self, event: Event, record: Record, call: Syscall) -> Actor | None:
        """The actor where its pid or its parent's is the engine's."""
        picture = self._picture
        if not isinstance(picture.daemon, Observed) or not picture.ran_at(event.time):
            return None
        engine = picture.daemon.fact.process
        pid = engine.identity.pid
        if pid not in (call.pid, call.ppid):
            return None
        itself = call.pid == pid
        if not itself and picture.adopts_orphans:
            return self._uncertain(
                call,
                picture.daemon,
                f"{_named(call)} is a child of the engine, which is the first process of its pid namespace, "
                "where every orphan becomes one",
            )
        exe = _text(call.exe)
        if picture.is_other_product:
            product = picture.engine.fact.product if isinstance(picture.engine, Observed) else ""
            statement = f"{who(engine)} did it, which answers the Docker API but is {product}, not Docker"
            piece = evidence(Bearing.AGAINST, Weight.DECISIVE, Step.ACTOR, statement, picture.daemon)
            cause = Cause(CauseKind.PROCESS, statement, call.pid, exe, call.auid)
            return Actor(Relation.OTHER, cause, (piece,), (), call)
        facts: tuple[Evidence, ...] = (self._engines_evidence(picture.daemon, itself=itself),)
        if (call.auid, call.ses) != (engine.loginuid, engine.session):
            facts += (self._other_login(event, record, call, engine),)
        if not picture.is_docker and isinstance(picture.engine, Unobservable):
            # Whatever listens on the socket may have put itself there: without an answer it is not Docker yet.
            text = f"the process that holds the API socket (pid {pid}), which did not answer as Docker does"
            lack = missing("whether that process is a Docker engine", picture.engine)
            cause = Cause(CauseKind.UNKNOWN, text, call.pid, exe, call.auid)
            return Actor(Relation.UNCERTAIN, cause, facts, (lack,), call)
        text = f"the Docker engine (pid {pid})" if itself else f"a child of the Docker engine (pid {pid})"
        relation = Relation.ENGINE if itself else Relation.ENGINES_CHILD
        return Actor(relation, Cause(CauseKind.DOCKER, text, call.pid, exe, call.auid), facts, (), call)

    def _engines_evidence(self, daemon: Observed[Daemon], *, itself: bool) -> Evidence:
        """That it was the engine, or its child; made once, since most events of a log have it."""
        if itself not in self._of_engine:
            process = daemon.fact.process
            pid = process.identity.pid
            did = f"process {pid} did it" if itself else f"the parent process {pid} of what did it"
            self._of_engine[itself] = evidence(
                Bearing.FOR,
                Weight.DECISIVE if self._picture.is_docker else Weight.SUPPORTING,
                Step.ACTOR,
                f"{did}: the engine, running since {clock(process.started_at)}, which {daemon.fact.how}",
                daemon,
                f"ps -o pid,lstart,args -p {pid}",
            )
        return self._of_engine[itself]

    @staticmethod
    def _other_login(event: Event, record: Record, call: Syscall, engine: Process) -> Evidence:
        """Login and session are inherited and, once set, not changed: /proc/PID/loginuid in proc(5)."""
        return evidence(
            Bearing.AGAINST,
            Weight.SUPPORTING,
            Step.ACTOR,
            f"the record's login (auid {_login(call.auid)}, session {_login(call.ses)}) is not the engine's "
            f"(auid {_login(engine.loginuid)}, session {_login(engine.session)})",
            from_log(event, record),
        )

    def _not_the_engine(
        self, event: Event, recorded: Observed[Record], call: Syscall, engine_acts_itself: bool
    ) -> Actor:
        picture = self._picture
        before = self._engine_before(event, recorded, call)
        if before is not None:
            return before
        own = picture.host.ask(ask.process(call.pid))
        if isinstance(own, Observed) and own.fact.started_at <= event.time + START_SLACK:
            actor = self._for_docker(event, call, own, engine_acts_itself) or self._living(call, own, "")
            return actor._replace(line=(own.fact, *picture.ancestry(own.fact)))
        if isinstance(own, Unobservable) and not engine_acts_itself:
            named = picture.firewalld
            if isinstance(named, Observed) and named.fact.process.identity.pid == call.pid:
                return self._unseen(call, recorded, own)
        parent = picture.host.ask(ask.process(call.ppid))
        if (
            call.ppid > 1
            # Before the engine's start the actor may have been an older engine, whatever had started that.
            and not picture.started_after(event.time)
            and isinstance(parent, Observed)
            and parent.fact.started_at <= event.time + START_SLACK
        ):
            actor = self._for_docker(event, call, parent, engine_acts_itself) or self._living(
                call, parent, "child of "
            )
            return actor._replace(line=(parent.fact, *picture.ancestry(parent.fact)))
        unseen = next((each for each in (own, parent) if isinstance(each, Unobservable)), None)
        return self._gone(event, recorded, call, engine_acts_itself, unseen)

    def _engine_before(self, event: Event, recorded: Observed[Record], call: Syscall) -> Actor | None:
        """The actor where it, or its parent, was the engine that ran before today's."""
        if not self._picture.started_after(event.time):
            return None
        pid = next(
            (each for each in (call.pid, call.ppid) if self.attachments.was_engine(each, event.time)), None
        )
        if pid is None:
            return None
        itself = call.pid == pid
        did = f"process {pid} did it" if itself else f"the parent process {pid} of what did it"
        piece = evidence(
            Bearing.FOR,
            Weight.DECISIVE,
            Step.ACTOR,
            f"{did}: the engine that ran before today's, since around then its records, in a log that lacks none, are "
            "to the last one the starts and ends of containers that are known",
            recorded,
        )
        text = f"the Docker engine that ran before (pid {pid})"
        cause = Cause(CauseKind.DOCKER, text, call.pid, _text(call.exe), call.auid)
        return Actor(Relation.ENGINE if itself else Relation.ENGINES_CHILD, cause, (piece,), (), call)

    def _for_docker(
        self, event: Event, call: Syscall, seen: Observed[Process], engine_acts_itself: bool
    ) -> Actor | None:
        """firewalld sets rules for Docker and for others: to be it, or to be called so, is enough for doubt.

        None for what is known not to be it: another process bore its name on the engine's bus then.
        """
        process = seen.fact
        if engine_acts_itself or not _is_firewalld(process):
            return None
        named = self._picture.firewalld
        if isinstance(named, Observed):
            known = named.fact.process
            if known.identity == process.identity and not (process.uid or process.container_id):
                text = f"{_named(call)}, {'child of ' if call.pid != known.identity.pid else ''}firewalld"
                statement = (
                    f"{who(process)} did it, which {named.fact.how}, and sets rules for Docker and for others"
                )
                cause = Cause(CauseKind.UNKNOWN, text, call.pid, _text(call.exe), call.auid)
                return Actor(Relation.FIREWALLD, cause, (neutral(Step.ACTOR, statement, named),), (), call)
            if known.identity != process.identity and known.started_at <= event.time:
                return None
        actor = self._uncertain(
            call,
            seen,
            f"{who(process)} did it: firewalld sets rules for Docker and for others alike",
        )
        if isinstance(named, Unobservable):
            lack = missing("which process the engine's firewalld is", named)
            return actor._replace(relation=Relation.UNSEEN, missing=(lack,))
        return actor

    def _living(self, call: Syscall, seen: Observed[Process], relation: str) -> Actor:
        """The actor when it, or its parent, still lives to be looked at."""
        picture, process = self._picture, seen.fact
        name = f"{_named(call)}{', ' + relation + who(process) if relation else ''}"
        container = picture.container_of(process)
        if container is not None:
            ref = picture.container_ref(container)
            known = container in picture.container_by_id
            where = (
                f"container {ref.name or short(ref.id)}"
                if ref and known
                else f"a container ({short(container)})"
            )
            return self._other(
                Relation.CONTAINER, call, seen, f"{name}, inside {where}", ref if known else None
            )
        if picture.descends_from_engine(process) and picture.is_docker:
            return Actor(
                Relation.ENGINES_CHILD,
                Cause(
                    CauseKind.DOCKER,
                    "a helper process of the Docker engine",
                    call.pid,
                    _text(call.exe),
                    call.auid,
                ),
                (
                    evidence(
                        Bearing.FOR,
                        Weight.DECISIVE,
                        Step.ACTOR,
                        f"{name} descends from the engine",
                        seen,
                        f"pstree -s -p {process.identity.pid}",
                    ),
                ),
                call=call,
            )
        if not picture.is_docker:
            return self._unknown_engine(call, seen, f"{name} is alive")
        if not picture.ancestry_seen(process):
            why = f"{name} is alive, but not all of its ancestors could be seen"
            return self._uncertain(call, seen, why)._replace(relation=Relation.UNSEEN)
        if process.comm == ENGINES_NAME:
            # The name says where to look, and no more.
            proof = picture.host.ask(ask.is_engine(process.identity.pid))
            if isinstance(proof, Observed) and proof.fact:
                actor = self._other(
                    Relation.OTHER,
                    call,
                    proof,
                    name,
                    None,
                    "that is another engine; --docker-host with its socket judges by that",
                )
                return actor._replace(cause=actor.cause._replace(kind=CauseKind.OTHER_DOCKER))
        line = " <- ".join(
            f"{each.comm}[{each.identity.pid}]" for each in [process, *picture.ancestry(process)]
        )
        return self._other(Relation.OTHER, call, seen, name, None, f"{line}: no engine among them")

    def _gone(
        self,
        event: Event,
        recorded: Observed[Record],
        call: Syscall,
        engine_acts_itself: bool,
        unseen: Unobservable | None,
    ) -> Actor:
        picture = self._picture
        name = _named(call)
        if not picture.is_docker or not isinstance(picture.daemon, Observed):
            return self._unknown_engine(call, recorded, f"{name} has ended")
        if picture.started_after(event.time):
            if unseen is not None:
                return self._unseen(call, recorded, unseen)
            reason = "the engine has been restarted since, so an older one may have been it"
            return self._uncertain(call, recorded, f"{name} has ended, and {reason}")
        engine = picture.daemon.fact.process
        if engine_acts_itself:
            return self._other(
                Relation.OTHER, call, recorded, name, None,
                f"the engine does this in its own process, {engine.identity.pid}, which ran then",
            )  # fmt: skip
        if (call.auid, call.ses) != (engine.loginuid, engine.session):
            return self._other(
                Relation.OTHER, call, recorded, name, None,
                f"login uid {_login(call.auid)}, session {_login(call.ses)} are not those that the engine's inherit",
            )  # fmt: skip
        if unseen is not None:
            return self._unseen(call, recorded, unseen)
        return self._uncertain(call, recorded, f"{name} and its parent {call.ppid} have ended")

    def _unseen(self, call: Syscall, source: Observation[Any], unseen: Unobservable) -> Actor:
        """An actor that may live: what it left does not speak for the engine then."""
        actor = self._uncertain(
            call, source, f"{_named(call)} or its parent {call.ppid} could not be looked up"
        )
        return actor._replace(relation=Relation.UNSEEN, missing=(missing("the process that acted", unseen),))

    def _unknown_engine(self, call: Syscall, source: Observation[Any], name: str) -> Actor:
        """An actor that may be the engine, for all that is known of that."""
        picture = self._picture
        actor = self._uncertain(call, source, f"{name}, but which process the engine is could not be seen")
        if isinstance(picture.daemon, Unobservable):
            return actor._replace(missing=(missing("the engine's process", picture.daemon),))
        if picture.is_other_product:
            why = "what answers the Docker API is not Docker, so a Docker engine may answer elsewhere"
            return actor._replace(missing=(Missing("which process the engine is", why, OWN_SOCKET),))
        return actor

    def _other(
        self,
        relation: Relation,
        call: Syscall,
        source: Observation[Any],
        name: str,
        container: ContainerRef | None,
        why: str = "",
    ) -> Actor:
        kind = CauseKind.CONTAINER if relation is Relation.CONTAINER else CauseKind.PROCESS
        return Actor(
            relation,
            Cause(kind, name, call.pid, _text(call.exe), call.auid),
            (
                evidence(
                    Bearing.AGAINST,
                    Weight.DECISIVE,
                    Step.ACTOR,
                    f"{name} did it, not the engine" + (f" ({why})" if why else ""),
                    source,
                    f"ps -o pid,ppid,user,lstart,args -p {call.pid}",
                ),
            ),
            call=call,
            container=container,
        )

    def _uncertain(self, call: Syscall, source: Observation[Any], reason: str) -> Actor:
        return Actor(
            Relation.UNCERTAIN,
            Cause(CauseKind.UNKNOWN, _named(call), call.pid, _text(call.exe), call.auid),
            (neutral(Step.ACTOR, reason, source),),
            (
                Missing(
                    "what the process that acted was", reason, "judge sooner, while it or its parent lives"
                ),
            ),
            call,
        )


def _is_firewalld(process: Process) -> bool:
    """Whether a process goes by the name of the daemon that dockerd hands its rules to over D-Bus.

    References: moby libnetwork/iptables/firewalld.go.
    """
    names = {word.rpartition("/")[2] for word in process.argv[:3]}
    return "firewalld" in names or process.cgroup.rstrip().endswith("/firewalld.service")


def _named(call: Syscall) -> str:
    """The actor as the record names it, which is what it calls itself."""
    login = f", login uid {call.auid}" if call.auid is not None else ""
    return f"{_text(call.exe) or _text(call.comm)} (pid {call.pid}, uid {call.uid}{login})"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _login(number: int | None) -> str:
    return "unset" if number is None else str(number)
