"""The questions that a host can be asked, and the one way to ask them.

A question is a value, so that an answer can be kept, recorded from a live host, and given again by a
recorded one: the same code path for all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from verify_audit.host.facts import (
    Boot,
    Container,
    Daemon,
    Engine,
    History,
    Life,
    Link,
    Network,
    PacketSockets,
    Peer,
    Process,
    Stack,
)
from verify_audit.host.firewall import Firewall
from verify_audit.host.observation import Observation, Provenance, Unobservable

Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class Question(Generic[Fact]):
    """What is asked (`topic`), of which thing (`subject`, empty where there is only one).

    engine: whom it is asked of; empty for the engine of the host, else as `Inside` has it.
    """

    topic: str
    subject: str = ""
    engine: str = ""


ENGINE: Question[Engine] = Question("engine")
DAEMON: Question[Daemon] = Question("daemon")
CONTAINERS: Question[tuple[Container, ...]] = Question("containers")
NETWORKS: Question[tuple[Network, ...]] = Question("networks")
HISTORY: Question[History] = Question("history")
FIREWALL: Question[Firewall] = Question("firewall")
FIREWALLD: Question[Daemon] = Question("firewalld")
"""The firewalld that the engine hands its rules to."""
BOOT: Question[Boot] = Question("boot")
NESTED: Question[tuple[Process, ...]] = Question("nested")
"""The processes inside containers that go by the name of an engine."""


def life(container_id: str) -> Question[Life]:
    """When that container ran, and as which process."""
    return Question("life", container_id)


def link(name: str) -> Question[Link]:
    """The interface of that name in the engine's network namespace."""
    return Question("link", name)


def link_at(ifindex: int) -> Question[Link]:
    """The interface of that index in the engine's network namespace."""
    return Question("link-at", str(ifindex))


def peer(nsid: int, ifindex: int) -> Question[Peer]:
    """The interface of that index in the namespace that the engine's namespace calls `nsid`."""
    return Question("peer", f"{nsid}/{ifindex}")


def packet_sockets(ifindex: int) -> Question[PacketSockets]:
    """Whose packet sockets hear the interface of that index in the engine's network namespace."""
    return Question("packet-sockets", str(ifindex))


def stack(ifindex: int) -> Question[Stack]:
    """What stands on the interface of that index in the engine's network namespace."""
    return Question("stack", str(ifindex))


def nsid_of(pid: int) -> Question[int]:
    """What the engine's namespace calls the network namespace of that process."""
    return Question("nsid", str(pid))


def container_firewall(pid: int) -> Question[Firewall]:
    """The firewall inside the network namespace of that process."""
    return Question("container-firewall", str(pid))


def process(pid: int) -> Question[Process]:
    """The living process of that pid, in the initial pid namespace."""
    return Question("process", str(pid))


def is_engine(pid: int) -> Question[bool]:
    """Whether the living process of that pid proves itself as an engine does, whichever it is."""
    return Question("is-engine", str(pid))


TOPICS: dict[str, Any] = {
    "engine": Engine,
    "daemon": Daemon,
    "containers": tuple[Container, ...],
    "networks": tuple[Network, ...],
    "history": History,
    "firewall": Firewall,
    "firewalld": Daemon,
    "packet-sockets": PacketSockets,
    "boot": Boot,
    "nested": tuple[Process, ...],
    "life": Life,
    "link": Link,
    "link-at": Link,
    "peer": Peer,
    "stack": Stack,
    "nsid": int,
    "container-firewall": Firewall,
    "process": Process,
    "is-engine": bool,
}
"""The type of the fact for each topic, for whoever writes answers down and reads them back."""


class Host(Protocol):
    """Something that can be asked: a live host, a recorded one, or one made up for a test."""

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        """The answer. Never raises: what cannot be looked at is Unobservable."""
        ...  # pragma: no cover


_WHOEVER_IS_ASKED = ("boot", "container-firewall", "is-engine", "nested", "process")
"""The topics on which all engines of a host get the same answer."""


class Inside:
    """A host as another engine of it sees it, one that runs in this process."""

    def __init__(self, host: Host, process: Process) -> None:
        self._host = host
        self._engine = f"{process.identity.pid}.{process.identity.start_ticks}"

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        """The answer for that engine."""
        if question.topic in _WHOEVER_IS_ASKED:
            return self._host.ask(question)
        return self._host.ask(Question(question.topic, question.subject, self._engine))


class AskedOnce:
    """Asks another host each question once and keeps the answer, so that all events see one state."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.answers: dict[Question[Any], Observation[Any]] = {}

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        """The kept answer, or the host's."""
        answer: Observation[Fact] | None = self.answers.get(question)
        if answer is None:
            answer = self.answers[question] = self._host.ask(question)
        return answer


def never_asked(question: Question[Any], source: str, at: float) -> Unobservable:
    """The answer of a host that holds nothing on the question."""
    return Unobservable(
        Provenance(source, f"{question.topic} {question.subject}".strip(), at),
        "this was not recorded when the host was",
        "judge on the live host, or record it again with --save-host",
    )
