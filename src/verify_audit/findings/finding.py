"""A finding: one event judged by one rule, ready to be reported."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Evidence, Missing
from verify_audit.findings.verdict import Verdict


class CauseKind(StrEnum):
    """What kind of thing caused the event, as far as it is known. docker is the engine that was asked."""

    DOCKER = "docker"
    NESTED_DOCKER = "nested-docker"
    OTHER_DOCKER = "other-docker"
    PROCESS = "process"
    CONTAINER = "container"
    KERNEL = "kernel"
    UNKNOWN = "unknown"


class Cause(NamedTuple):
    """Who did it. pid and auid as recorded in the event or seen on the host; None when unknown."""

    kind: CauseKind
    text: str
    pid: int | None = None
    exe: str | None = None
    auid: int | None = None


class Subject(NamedTuple):
    """What the event is about. Hostile text: decoded with backslashreplace, escaped when shown."""

    device: str | None = None
    table: str | None = None
    chain: str | None = None
    command: str | None = None


class ContainerRef(NamedTuple):
    """The container that the event belongs to."""

    id: str
    name: str
    image: str


class NetworkRef(NamedTuple):
    """The Docker network that the event belongs to."""

    id: str
    name: str
    bridge: str


class Likeness(NamedTuple):
    """What the cause looks like, and by what: "libvirt", "libvirtd, pid 812". By names, so it is a hint and no more."""

    software: str
    by: str

    def __str__(self) -> str:
        return f"{self.software} ({self.by})"


class Finding(NamedTuple):
    """One event, judged.

    warnings are things that a reader must know whatever the verdict is, such as somebody who listens
    on a device that Docker truly attached. looks_like: only where Docker is not confirmed.
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
    warnings: tuple[str, ...] = ()
    looks_like: Likeness | None = None

    @property
    def is_remarkable(self) -> bool:
        """Whether a reader who wants to hear of nothing that is in order is to hear of it."""
        return self.verdict is not Verdict.CONFIRMED or bool(self.warnings)
