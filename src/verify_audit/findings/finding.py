"""A finding: one event judged by one rule, ready to be reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Evidence, Missing
from verify_audit.findings.verdict import Verdict


class CauseKind(StrEnum):
    """What kind of thing caused the event, as far as it is known."""

    DOCKER = "docker"
    PROCESS = "process"
    CONTAINER = "container"
    KERNEL = "kernel"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cause:
    """Who did it. pid and auid as recorded in the event or seen on the host; None when unknown."""

    kind: CauseKind
    text: str
    pid: int | None = None
    exe: str | None = None
    auid: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What the event is about. Hostile text: decoded with backslashreplace, escaped when shown."""

    device: str | None = None
    table: str | None = None
    chain: str | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerRef:
    """The container that the event belongs to."""

    id: str
    name: str
    image: str


@dataclass(frozen=True, slots=True)
class NetworkRef:
    """The Docker network that the event belongs to."""

    id: str
    name: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One event, judged.

    warnings are things that a reader must know whatever the verdict is, such as somebody who listens
    on a device that Docker truly attached.
    """

    event: Event
    rule: str
    verdict: Verdict
    headline: str
    subject: Subject
    cause: Cause
    container: ContainerRef | None = None
    network: NetworkRef | None = None
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[Missing, ...] = ()
    warnings: tuple[str, ...] = field(default=())
