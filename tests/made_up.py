"""A host that is made up for a test, and the things that are on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.audit.log import record
from verify_audit.audit.record import Event
from verify_audit.host import questions as ask
from verify_audit.host.facts import (
    Boot,
    Container,
    Daemon,
    Endpoint,
    Engine,
    EngineEvent,
    History,
    Life,
    Link,
    Network,
    PacketSocket,
    PacketSockets,
    Peer,
    Process,
    ProcessIdentity,
    Product,
    Subnet,
)
from verify_audit.host.firewall import Firewall
from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import Fact, Question

WHERE = Provenance("made up", "a test", 1795436200.0)
NOW = 1795436164.311
NETNS = 4026532000
WEB = "a" * 64
BRIDGE = "b" * 64


def seen(fact: Fact) -> Observed[Fact]:
    """A fact that was looked at."""
    return Observed(fact, WHERE)


def unseen(reason: str = "it was not to be") -> Unobservable:
    """A fact that could not be looked at."""
    return Unobservable(WHERE, reason, "try again")


NOT_THERE = Absent(WHERE, "looked through everything")


class MadeUpHost:
    """Answers from a dict. What it was not given is not there, which is what most questions expect."""

    def __init__(self, answers: Mapping[Question[Any], Observation[Any]]) -> None:
        self.answers = dict(answers)
        self.asked: list[Question[Any]] = []

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        """The answer."""
        self.asked.append(question)
        answer: Observation[Fact] = self.answers.get(question, NOT_THERE)
        return answer


def process(pid: int, **changes: Any) -> Process:
    """A process that started long ago."""
    values: dict[str, Any] = {
        "identity": ProcessIdentity(pid, pid * 10),
        "started_at": NOW - 1000,
        "ppid": 1,
        "comm": "x",
        "exe": "/usr/bin/x",
        "argv": ("x",),
        "uid": 0,
        "loginuid": None,
        "session": None,
        "cgroup": "0::/",
        "container_id": None,
        "netns": NETNS,
    }
    return Process(**(values | changes))


def link(name: str, ifindex: int, **changes: Any) -> Link:
    """A veth that is on docker0."""
    values: dict[str, Any] = {
        "netns": NETNS,
        "ifindex": ifindex,
        "name": name,
        "kind": "veth",
        "mac": "9e:00:00:00:00:01",
        "master": 2,
        "slave_kind": "bridge",
        "peer_ifindex": 14,
        "peer_nsid": 0,
        "promiscuity": 1,
        "asked_promiscuous": False,
        "up": True,
    }
    return Link(**(values | changes))


DOCKERD = process(3059, comm="dockerd", exe="/usr/sbin/dockerd", argv=("dockerd",))
ENGINE = Engine(Product.DOCKER, "20.10.24", "1.41", "ID", "host1", None, False, False, False, "unix:///s")
ENDPOINT = Endpoint(BRIDGE, "bridge", "e" * 64, "02:42:ac:11:00:02", "172.17.0.2", "")
CONTAINER = Container(WEB, "web", "nginx", True, NOW - 10, "default", (ENDPOINT,), ())
NETWORK = Network(
    BRIDGE,
    "bridge",
    "bridge",
    "local",
    False,
    False,
    NOW - 900,
    "docker0",
    (Subnet("172.17.0.0/16", "172.17.0.1"),),
    (("com.docker.network.bridge.name", "docker0"),),
)
CONNECT = EngineEvent(NOW + 0.1, "network", "connect", WEB, "", "", BRIDGE, "bridge")
LIFE = Life(WEB, True, 4000, NOW + 0.2, None, "/var/run/docker/netns/1")


def docker_host(
    changes: Mapping[Question[Any], Observation[Any]] | None = None,
) -> MadeUpHost:
    """A host with an engine, one network, one container, and its veth."""
    answers: dict[Question[Any], Observation[Any]] = {
        ask.BOOT: seen(Boot("boot", NOW - 5000, "host1.example")),
        ask.ENGINE: seen(ENGINE),
        ask.DAEMON: seen(Daemon(DOCKERD, "holds the other end")),
        ask.CONTAINERS: seen((CONTAINER,)),
        ask.NETWORKS: seen((NETWORK,)),
        ask.HISTORY: seen(History((CONNECT,), NOW - 1000, NOW + 100)),
        ask.FIREWALL: seen(Firewall(NETNS)),
        ask.packet_sockets(2): seen(PacketSockets(NETNS, ())),
        ask.packet_sockets(15): seen(PacketSockets(NETNS, ())),
        ask.life(WEB): seen(LIFE),
        ask.link("docker0"): seen(
            link("docker0", 2, kind="bridge", master=None, slave_kind="", peer_ifindex=None, peer_nsid=None)
        ),
        ask.link_at(2): seen(
            link("docker0", 2, kind="bridge", master=None, slave_kind="", peer_ifindex=None, peer_nsid=None)
        ),
        ask.link("veth766e490"): seen(link("veth766e490", 15)),
        ask.peer(0, 14): seen(Peer(0, 14, "eth0", ENDPOINT.mac)),
        ask.nsid_of(4000): seen(0),
        ask.process(3059): seen(DOCKERD),
        ask.process(1): seen(process(1, ppid=0, comm="systemd", exe="/usr/lib/systemd/systemd")),
    }
    return MadeUpHost(answers | dict(changes or {}))


def listener(ifindex: int, *memberships: int, holders: tuple[Process, ...] = ()) -> PacketSocket:
    """A packet socket."""
    return PacketSocket(1, ifindex, 3, 0, memberships, holders)


def event(*lines: bytes) -> Event:
    """The event of these lines, which have one id."""
    records = tuple(map(record, lines))
    first = records[0]
    return Event(first.node, first.seconds, first.millis, first.serial, records)
