"""The live host: which probe answers which question, and how a failure becomes Unobservable.

The engine is asked from one thread of its own, ahead of time: most of what it takes is waiting, and a
server that dribbles its answer must not hold the run up longer than the bound set here.
"""

from __future__ import annotations

import errno
import json
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import replace
from typing import Any, TypeVar, cast

import msgspec

from verify_audit.host.facts import Daemon, Life, Link, PacketSockets, Peer, Product, Stack
from verify_audit.host.firewall import Firewall
from verify_audit.host.observation import Absent, Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import (
    CONTAINERS,
    DAEMON,
    ENGINE,
    HISTORY,
    NETWORKS,
    AskedOnce,
    Fact,
    Question,
)
from verify_audit.probes.daemon import DaemonError, find_daemon, prove
from verify_audit.probes.engine import ELSEWHERE, LOCAL, EngineApi, EngineError, GoneError
from verify_audit.probes.firewall import FirewallError, read_firewall
from verify_audit.probes.links import (
    parse_link,
    parse_names,
    parse_nsid,
    parse_peer,
    read_link,
    read_links,
    read_nsid,
)
from verify_audit.probes.namespace import (
    NamespaceError,
    initial_pid_namespace,
    netns_of,
    own_netns,
    within,
)
from verify_audit.probes.netlink import NetlinkError
from verify_audit.probes.pid_namespace import InnerPids
from verify_audit.probes.processes import boot, read_process
from verify_audit.probes.sniffers import sockets_that_hear
from verify_audit.probes.stack import read_stack

Answer = TypeVar("Answer")

_START_ENGINE = "start the engine, or name its socket with --docker-host"
_BE_ROOT = "run verify-audit as root, in the initial pid namespace"


class LiveHost:
    """The host that we run on.

    docker_host: the engine's address; timeout: seconds for each of its answers, and three times that for
    any question in all.
    """

    def __init__(self, docker_host: str, timeout: float = 5.0) -> None:
        self._docker_host = self._name = docker_host
        self._timeout = timeout
        self._api = EngineApi(docker_host, timeout)
        self._engine_failure: EngineError | None = None
        self._daemon_given_up = False
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._ahead: dict[Question[Any], Future[Any]] = {}
        self._worker: threading.Thread | None = None
        self._pids: InnerPids | None = None
        self._nested_hosts: dict[str, LiveHost] = {}
        self._names_asked = 0
        self._names: Observation[frozenset[str]] | None = None

    def ask_ahead(self) -> None:
        """Begin to ask what every event needs from the engine, without waiting for it."""
        for question in (DAEMON, ENGINE, CONTAINERS, NETWORKS, HISTORY):
            self._submit(question)

    def ask(self, question: Question[Fact]) -> Observation[Fact]:
        """The answer of the live host."""
        if question.engine:
            return self._inside(question.engine).ask(Question(question.topic, question.subject))
        if question.topic in _ENGINE_TOPICS:
            return self._from_engine(question)
        return cast(
            Observation[Fact], getattr(self, "_" + question.topic.replace("-", "_"))(question.subject)
        )

    # The engine

    def _from_engine(self, question: Question[Fact]) -> Observation[Fact]:
        topic = _ENGINE_TOPICS[question.topic]
        waiting = self._ahead.get(question) or self._submit(question)
        failed = self._engine_failure if question != DAEMON or self._daemon_given_up else None
        if failed is not None and not waiting.done():
            # The worker may be held up for good by the answer that was not finished.
            return self._engine_unobservable(topic, question, failed)
        try:
            fact, at = waiting.result(self._timeout * 3)
        except NotInTime:
            self._daemon_given_up = self._daemon_given_up or question == DAEMON
            self._engine_failure = self._engine_failure or EngineError(
                f"the engine had not finished its answer after {self._timeout * 3:g} s"
            )
            return self._engine_unobservable(topic, question, self._engine_failure)
        except GoneError as error:
            return Absent(self._engine_provenance(topic, question, time.time()), str(error))
        except (EngineError, DaemonError) as error:
            return self._engine_unobservable(topic, question, error)
        raw = _raw(fact) if question.topic in _ONE_THING else ""
        return Observed(fact, self._engine_provenance(topic, question, at), raw)

    def _submit(self, question: Question[Any]) -> Future[Any]:
        if self._worker is None:
            self._worker = threading.Thread(target=self._serve, daemon=True)
            self._worker.start()
        future: Future[Any] = Future()
        self._ahead[question] = future
        self._work.put((lambda: self._ask_engine(question), future))
        return future

    def _serve(self) -> None:
        while True:
            work, future = self._work.get()
            try:
                future.set_result((work(), time.time()))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
                future.set_exception(error)

    def _ask_engine(self, question: Question[Any]) -> Any:
        if question == DAEMON:
            if not initial_pid_namespace():
                # Its pid would be compared with those of the log, and could be anybody's there.
                raise DaemonError(
                    "its process cannot be told from here: we are in a pid namespace of our own"
                )
            return self._proven(self._find_daemon())
        if self._engine_failure is not None:
            # One that failed to answer once is not waited for again with each question.
            raise self._engine_failure
        try:
            match question.topic:
                case "engine":
                    return self._api.engine()
                case "containers":
                    return self._api.containers()
                case "networks":
                    return self._api.networks()
                case "history":
                    return self._api.history(self._daemon_started_at())
                case _:
                    return self._as_we_count(self._api.life(question.subject))
        except GoneError:
            raise
        except EngineError as error:
            self._engine_failure = error
            raise

    def _proven(self, daemon: Daemon) -> Daemon:
        """The process on the socket, unless it answers as Docker and is not shown to be an engine. DaemonError."""
        root = None
        try:
            engine = self._api.engine()
            if engine.product is not Product.DOCKER:
                return daemon
            root = engine.root
        except EngineError as error:
            self._engine_failure = error
        prove(daemon.process, root)
        return replace(daemon, how=f"{daemon.how}, and the lock on its database")

    def _find_daemon(self) -> Daemon:
        return find_daemon(self._socket_path(), self._timeout)

    def _found_daemon(self) -> Daemon | None:
        """The daemon, when it has been asked for and found."""
        asked = self._ahead.get(DAEMON)
        if asked is None or not asked.done() or asked.exception() is not None:
            return None
        daemon: Daemon = asked.result()[0]
        return daemon

    def _daemon_started_at(self) -> float | None:
        daemon = self._found_daemon()
        return daemon.process.started_at if daemon is not None else None

    def _as_we_count(self, life: Life) -> Life:
        """The engine's word with our pid for its, which differ where it is in another pid namespace."""
        daemon = self._found_daemon()
        if daemon is None or not life.pid:
            return life
        if self._pids is None:
            self._pids = InnerPids(daemon.process.identity.pid)
        return replace(life, pid=self._pids.ours(life.pid))

    def _socket_path(self) -> str:
        path = self._docker_host.partition("://")[2]
        if not self._docker_host.startswith(LOCAL) or not path:
            raise DaemonError(ELSEWHERE, "name the socket of this host's engine with --docker-host")
        return "/" + path.lstrip("/")

    def _engine_provenance(self, topic: str, question: Question[Any], at: float) -> Provenance:
        return Provenance(
            "UNIX sock_diag and /proc" if question == DAEMON else "Docker API",
            topic.format(subject=question.subject, host=self._name),
            at,
        )

    def _engine_unobservable(self, topic: str, question: Question[Any], error: Exception) -> Unobservable:
        nobody_there = isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)
        of_process = isinstance(error, DaemonError) and not nobody_there
        return Unobservable(
            self._engine_provenance(topic, question, time.time()),
            f"{self._name}: {error}",
            (getattr(error, "remedy", "") or _BE_ROOT) if of_process else _START_ENGINE,
        )

    # The engine's network namespace

    def _in_namespace(self, source: str, query: str, look: Callable[[int], Answer]) -> Observation[Answer]:
        """What `look` finds in the engine's network namespace, which it is given the inode of."""
        daemon = self._from_engine(DAEMON)
        if isinstance(daemon, Observed):
            process = daemon.fact.process
            if process.netns is None:
                return Unobservable(
                    Provenance(source, query, time.time()),
                    f"the network namespace of the engine (pid {process.identity.pid}) cannot be read",
                    _BE_ROOT,
                )
            return self._look(source, query, process.identity.pid, process.netns, look)
        return self._look(source, f"{query} (our own network namespace)", 0, own_netns(), look)

    def _look(
        self, source: str, query: str, pid: int, netns: int, look: Callable[[int], Answer]
    ) -> Observation[Answer]:
        provenance = Provenance(source, f"{query} in net:[{netns}]", time.time())
        try:
            found = within(pid, netns, lambda: look(netns))
            return Observed(found, provenance, _raw(found) if isinstance(found, _SHORT) else "")
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return Absent(provenance, _NO_SUCH)
            return Unobservable(provenance, str(error), _BE_ROOT if error.code == errno.EPERM else "")
        except NamespaceError as error:
            return Unobservable(provenance, str(error), _BE_ROOT)
        except FirewallError as error:
            return Unobservable(provenance, str(error), error.remedy)
        except PermissionError as error:
            return Unobservable(provenance, error.strerror or str(error), _BE_ROOT)
        except OSError as error:
            return Unobservable(provenance, error.strerror or str(error))

    def _link(self, name: str) -> Observation[Link]:
        self._names_asked += 1
        if self._names_asked > _MANY_NAMES:
            if self._names is None:
                self._names = self._in_namespace(
                    "rtnetlink", "RTM_GETLINK dump", lambda _: parse_names(read_links())
                )
            if isinstance(self._names, Observed) and name not in self._names.fact:
                return Absent(self._names.provenance, _NO_SUCH)
        answer = self._in_namespace(
            "rtnetlink",
            f"RTM_GETLINK {name}",
            lambda netns: parse_link(read_link(name=name.encode("utf-8", "surrogateescape")), netns),
        )
        if isinstance(answer, Observed) and answer.fact.name != name:
            # The kernel also finds an interface by its alternative names, which anyone may give it; the
            # audit record has the real one.
            return Absent(answer.provenance, f"{name} is only another name of {answer.fact.name}")
        return answer

    def _link_at(self, ifindex: str) -> Observation[Link]:
        return self._in_namespace(
            "rtnetlink",
            f"RTM_GETLINK index {ifindex}",
            lambda netns: parse_link(read_link(ifindex=int(ifindex)), netns),
        )

    def _peer(self, place: str) -> Observation[Peer]:
        nsid, ifindex = map(int, place.split("/"))
        return self._in_namespace(
            "rtnetlink",
            f"RTM_GETLINK index {ifindex} of nsid {nsid}",
            lambda _: parse_peer(read_link(ifindex=ifindex, nsid=nsid), nsid),
        )

    def _nsid(self, pid: str) -> Observation[int]:
        answer = self._in_namespace(
            "rtnetlink", f"RTM_GETNSID pid {pid}", lambda _: parse_nsid(read_nsid(int(pid)))
        )
        if isinstance(answer, Observed):
            if answer.fact is None:
                return Absent(answer.provenance, "no interface here has its peer there")
            return Observed(answer.fact, answer.provenance, answer.raw)
        return answer

    def _firewall(self, _: str) -> Observation[Firewall]:
        return self._in_namespace("nf_tables and x_tables", "all chains and rules", read_firewall)

    def _container_firewall(self, pid: str) -> Observation[Firewall]:
        netns = netns_of(int(pid))
        if netns is None:
            return Absent(Provenance("/proc", f"/proc/{pid}/ns/net", time.time()), "the process is gone")
        return self._look("nf_tables and x_tables", "all chains and rules", int(pid), netns, read_firewall)

    def _packet_sockets(self, ifindex: str) -> Observation[PacketSockets]:
        return self._in_namespace(
            "sock_diag and /proc/*/fd",
            f"PACKET_DIAG dump, those on index {ifindex}",
            lambda netns: PacketSockets(netns, sockets_that_hear(int(ifindex))),
        )

    def _stack(self, ifindex: str) -> Observation[Stack]:
        return self._in_namespace(
            "rtnetlink",
            f"RTM_GETLINK dump here and of each nsid, RTM_GETNEIGH of index {ifindex}",
            lambda _: read_stack(int(ifindex)),
        )

    def _firewalld(self, _: str) -> Observation[Daemon]:
        from verify_audit.probes.bus import BusError, NobodyError, find_firewalld  # few hosts have it

        daemon = self._from_engine(DAEMON)
        query = "GetConnectionUnixProcessID on the bus that the engine is on"
        if not isinstance(daemon, Observed):
            return Unobservable(
                Provenance("D-Bus", query, time.time()), "which process the engine is could not be seen"
            )
        engine = daemon.fact.process.identity.pid
        try:
            answer = self._in_namespace("D-Bus", query, lambda _: find_firewalld(engine, self._timeout))
            if isinstance(answer, Observed):
                found = Daemon(
                    read_process(answer.fact), "owns firewalld's name on the bus that the engine is on"
                )
                return Observed(found, answer.provenance, _raw(found))
        except NobodyError as error:
            return Absent(Provenance("D-Bus", query, time.time()), str(error))
        except (BusError, OSError) as error:
            return Unobservable(Provenance("D-Bus", query, time.time()), str(error))
        return answer

    # Processes

    def _process(self, pid: str) -> Observation[Any]:
        provenance = Provenance("/proc", f"/proc/{pid}", time.time())
        if not initial_pid_namespace():
            return Unobservable(
                provenance, "we are in another pid namespace than the one that the log counts in", _BE_ROOT
            )
        try:
            process = read_process(int(pid))
            return Observed(process, provenance, _raw(process))
        except ProcessLookupError as error:
            return Absent(provenance, str(error))
        except OSError as error:
            return Unobservable(provenance, error.strerror or str(error), _BE_ROOT)

    def _nested(self, _: str) -> Observation[Any]:
        provenance = Provenance("/proc", "/proc/*/comm, /proc/*/cgroup", time.time())
        if not initial_pid_namespace():
            return Unobservable(provenance, "we are in a pid namespace of our own", _BE_ROOT)
        from verify_audit.probes.nested import find_nested

        return Observed(find_nested(), provenance)

    def _inside(self, key: str) -> LiveHost:
        """The host as the engine of that key sees it."""
        if key not in self._nested_hosts:
            from verify_audit.probes.nested import NestedHost

            self._nested_hosts[key] = NestedHost(key, self._timeout)
        return self._nested_hosts[key]

    def _is_engine(self, pid: str) -> Observation[bool]:
        provenance = Provenance("/proc", f"the locks of /proc/{pid}/fd", time.time())
        try:
            prove(read_process(int(pid)), None)
        except DaemonError:
            return Observed(False, provenance)
        except OSError as error:
            return Unobservable(provenance, error.strerror or str(error), _BE_ROOT)
        return Observed(True, provenance)

    def _boot(self, _: str) -> Observation[Any]:
        provenance = Provenance("/proc", "/proc/sys/kernel/random/boot_id, CLOCK_BOOTTIME", time.time())
        try:
            began = boot()
            return Observed(began, provenance, _raw(began))
        except OSError as error:
            return Unobservable(provenance, error.strerror or str(error))


def _raw(fact: Any) -> str:
    """A fact as JSON, for the reader of a report who wants to see what was seen."""
    return json.dumps(msgspec.to_builtins(fact), separators=(",", ":"))


_ONE_THING = ("daemon", "engine", "life")
"""The topics whose answer is about one thing, and short enough to be shown whole."""

_NO_SUCH = "the kernel knows no such interface"

_SHORT = (Link, Peer, PacketSockets, Stack, int)

_MANY_NAMES = 8
"""After so many devices a list of all names is asked for: most of a day's devices are gone."""

_ENGINE_TOPICS = {
    "daemon": "the peer of a connection to {host}, and the process that holds it",
    "engine": "GET /version, GET /info",
    "containers": "GET /containers/json?all=1",
    "networks": "GET /networks",
    "history": "GET /events?since=1",
    "life": "GET /containers/{subject}/json",
}


def live_host(docker_host: str, timeout: float) -> AskedOnce:
    """The live host, each question asked once, the engine being asked already."""
    host = LiveHost(docker_host, timeout)
    host.ask_ahead()
    return AskedOnce(host)
