"""One event while it is being judged: what has been gathered, and how it becomes a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Bearing, Evidence, Missing, Step, Weight
from verify_audit.findings.finding import (
    Cause,
    CauseKind,
    ContainerRef,
    Finding,
    Likeness,
    NetworkRef,
    Subject,
)
from verify_audit.findings.verdict import Verdict, decide
from verify_audit.host.facts import Process
from verify_audit.host.observation import Observation, Unobservable
from verify_audit.rules.actor import Actor
from verify_audit.rules.lookalikes import look_alike
from verify_audit.rules.statement import evidence, missing


@dataclass(slots=True)
class Case:
    """What has been gathered on one event.

    line is the process that acted, or its parent, and its ancestors. other is the cause that was seen when it was not
    the recorded actor (a listener, say); through is Docker as the cause by way of another process. names are what the
    event touched, by kind: ("chain", "DOCKER-USER").
    """

    event: Event
    actor: Actor
    evidence: list[Evidence] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    container: ContainerRef | None = None
    network: NetworkRef | None = None
    other: Cause | None = None
    through: Cause | None = None
    names: list[tuple[str, str]] = field(default_factory=list)
    line: tuple[Process, ...] = ()

    def __post_init__(self) -> None:
        self.evidence.extend(self.actor.evidence)
        self.missing.extend(self.actor.missing)
        self.line = self.actor.line

    def supports(
        self, step: Step, statement: str, source: Observation[Any], by_hand: str = "", raw: str = ""
    ) -> None:
        """It fits that Docker did it."""
        self._say(Bearing.FOR, Weight.SUPPORTING, step, statement, source, by_hand, raw)

    def proves(
        self, step: Step, statement: str, source: Observation[Any], by_hand: str = "", raw: str = ""
    ) -> None:
        """Docker did it, unless something speaks against it."""
        self._say(Bearing.FOR, Weight.DECISIVE, step, statement, source, by_hand, raw)

    def doubts(
        self, step: Step, statement: str, source: Observation[Any], by_hand: str = "", raw: str = ""
    ) -> None:
        """It does not fit that Docker did it."""
        self._say(Bearing.AGAINST, Weight.SUPPORTING, step, statement, source, by_hand, raw)

    def disproves(
        self, step: Step, statement: str, source: Observation[Any], by_hand: str = "", raw: str = ""
    ) -> None:
        """Something else did it. Where the engine acted, or what may be it, this is only a doubt."""
        engines = any(piece.bearing is Bearing.FOR for piece in self.actor.evidence)
        weight = Weight.SUPPORTING if engines else Weight.DECISIVE
        self._say(Bearing.AGAINST, weight, step, statement, source, by_hand, raw)

    def notes(
        self, step: Step, statement: str, source: Observation[Any], by_hand: str = "", raw: str = ""
    ) -> None:
        """Worth knowing; points neither way."""
        self._say(Bearing.NEUTRAL, Weight.SUPPORTING, step, statement, source, by_hand, raw)

    def lacks(self, what: str, why: str, remedy: str) -> None:
        """Something that would have helped could not be had."""
        self.missing.append(Missing(what, why, remedy))

    def could_not_see(self, what: str, answer: Unobservable) -> None:
        """The same for a look-up that failed."""
        self.missing.append(missing(what, answer))

    def _say(
        self,
        bearing: Bearing,
        weight: Weight,
        step: Step,
        statement: str,
        source: Observation[Any],
        by_hand: str,
        raw: str,
    ) -> None:
        self.evidence.append(evidence(bearing, weight, step, statement, source, by_hand, raw))

    def finding(
        self, rule: str, subject: Subject, headline: Callable[[Verdict, Cause], str], unknown: str
    ) -> Finding:
        """The finding. unknown: how to speak of a cause other than Docker that has no name."""
        verdict = decide(self.evidence)
        cause = self._cause(verdict, unknown)
        container = self.container or self.actor.container
        likeness = None if verdict is Verdict.CONFIRMED else self._likeness(verdict)
        line = headline(verdict, cause)
        if likeness is not None and likeness.software.lower() not in line.lower():
            line += f"; it looks like {likeness}"
        return Finding(
            event=self.event,
            rule=rule,
            verdict=verdict,
            headline=line,
            subject=subject,
            cause=cause,
            container=container,
            network=self.network,
            evidence=tuple(self.evidence),
            missing=tuple(dict.fromkeys(self.missing)) if _open_question(verdict, cause) else (),
            warnings=tuple(self.warnings),
            looks_like=likeness,
        )

    def _likeness(self, verdict: Verdict) -> Likeness | None:
        """What it looks like, unless the engine is known to have acted."""
        if self.actor.is_docker:
            return None
        call, other = self.actor.call, self.other
        program = call.exe.decode("utf-8", "surrogateescape") if call is not None else ""
        if not program and verdict is Verdict.REFUTED and other is not None:
            program = other.exe or ""
        return look_alike(program, self.line, self.names)

    def _cause(self, verdict: Verdict, unknown: str) -> Cause:
        match verdict:
            case Verdict.CONFIRMED if self.actor.is_docker:
                return self.actor.cause
            case Verdict.CONFIRMED if self.through is not None:
                return self.through
            case Verdict.CONFIRMED:
                return Cause(CauseKind.DOCKER, "the Docker engine, by the state of the host")
            case Verdict.REFUTED if self.actor.is_other:
                return self.actor.cause
            case Verdict.REFUTED if self.other is not None and self.other.pid is not None:
                return self.other
            case Verdict.REFUTED if self.actor.call is not None:
                return self.actor.cause._replace(kind=CauseKind.PROCESS)
            case Verdict.REFUTED:
                return self.other or Cause(CauseKind.UNKNOWN, unknown)
            case _:
                return self.actor.cause if self.actor.call is not None else self.other or self.actor.cause


def _open_question(verdict: Verdict, cause: Cause) -> bool:
    """Whether what was missing still matters: not once it is known who did it."""
    return verdict is Verdict.INCONCLUSIVE or (verdict is Verdict.REFUTED and cause.pid is None)
