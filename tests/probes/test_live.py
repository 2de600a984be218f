from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_engine import Behaviour, FakeEngine, database, docker, drip, hang, info, reply
from verify_audit.host import questions as ask
from verify_audit.host.facts import Daemon
from verify_audit.host.observation import Absent, Observation, Observed, Unobservable
from verify_audit.host.questions import TOPICS, Question
from verify_audit.probes import live
from verify_audit.probes.firewall import FirewallError
from verify_audit.probes.links import read_link
from verify_audit.probes.live import LiveHost
from verify_audit.probes.namespace import NamespaceError, own_netns
from verify_audit.probes.netlink import NetlinkError
from verify_audit.probes.processes import read_process

# docker-py leaves a socket that it could not connect, or was cut off from, to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

C1 = "a4b5aa6d9209cccb04f2def7c2e6351ea8b69272832030f0bda14aabfe3378cb"
ENGINES: tuple[Question[Any], ...] = (
    ask.ENGINE,
    ask.CONTAINERS,
    ask.NETWORKS,
    ask.HISTORY,
    ask.life(C1),
)


@pytest.fixture(scope="module", autouse=True)
def _freeze() -> Iterator[None]:
    """All that is there already is left out of the searches for garbage, which makes them quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


class Took:
    """How long a block took."""

    def __enter__(self) -> Took:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began


# The engine


def test_an_engine_that_answers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "initial_pid_namespace", lambda: True)
    root = path.parent
    engine = FakeEngine(path, docker(info=info(str(root))), default=reply(b"OK"))
    with database(root), engine as server:
        host = LiveHost(server.address, 5)
        host.ask_ahead()
        answers: dict[Question[Any], Any] = {each: host.ask(each) for each in (ask.DAEMON, *ENGINES)}
    assert all(isinstance(answer, Observed) for answer in answers.values()), answers
    daemon = answers[ask.DAEMON]
    assert daemon.fact.process.identity.pid == os.getpid()
    assert daemon.provenance.source == "UNIX sock_diag and /proc"
    assert answers[ask.life(C1)].provenance.query == f"GET /containers/{C1}/json"
    assert answers[ask.HISTORY].fact.complete_since == daemon.fact.process.started_at
    assert all(line.startswith("GET ") for line in server.requests)
    now = time.time()
    assert all(now - 60 < answer.provenance.at <= now for answer in answers.values())


def test_what_answers_as_docker_and_holds_no_engines_lock_is_not_known_to_be_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script, or a proxy before an engine, whose answers it passes on."""
    monkeypatch.setattr(live, "initial_pid_namespace", lambda: True)
    with FakeEngine(path, docker(), default=reply(b"OK")) as server:
        answer = LiveHost(server.address, 5).ask(ask.DAEMON)
    assert isinstance(answer, Unobservable)
    assert f"(pid {os.getpid()}) holds the API socket, but not the lock on /" in answer.reason
    assert "name the engine's own socket with --docker-host" in answer.remedy


def test_one_that_says_that_it_is_no_docker_is_taken_at_its_word(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "initial_pid_namespace", lambda: True)
    podman = reply(b'{"Version": "4.3.1", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}')
    with FakeEngine(path, docker(version=podman), default=reply(b"OK")) as server:
        assert isinstance(LiveHost(server.address, 5).ask(ask.DAEMON), Observed)


def test_whether_a_process_is_an_engine(path: Path) -> None:
    host, pid = LiveHost(f"unix://{path}"), os.getpid()
    answer = host.ask(ask.is_engine(pid))
    assert isinstance(answer, Observed)
    assert answer.fact is False
    with database(path.parent):
        answer = host.ask(ask.is_engine(pid))
        assert isinstance(answer, Observed)
        assert answer.fact is True
    assert isinstance(host.ask(ask.is_engine(4194303)), Unobservable)


def test_without_its_process_the_events_reach_only_as_far_as_they_go(path: Path) -> None:
    with FakeEngine(path, docker(), default=reply(b"OK")) as server:
        history = LiveHost(server.address, 5).ask(ask.HISTORY)
    assert isinstance(history, Observed)
    assert history.fact.complete_since == min(event.at for event in history.fact.events)


def test_a_container_that_is_gone_is_absent_and_a_list_that_is_not_found_is_not(path: Path) -> None:
    missing = reply(b'{"message":"no"}', "404 Not Found")
    with FakeEngine(path, docker(life=missing, networks=missing), default=reply(b"OK")) as server:
        host = LiveHost(server.address, 5)
        assert isinstance(host.ask(ask.life("0" * 64)), Absent)
        assert isinstance(host.ask(ask.NETWORKS), Unobservable)


def test_no_engine(path: Path) -> None:
    host = LiveHost(f"unix://{path}", 1)
    for question in (ask.DAEMON, *ENGINES):
        answer = host.ask(question)
        assert isinstance(answer, Unobservable)
        assert answer.reason.startswith(f"unix://{path}: ")
        assert "No such file or directory" in answer.reason
        assert answer.remedy


def asked_of(
    path: Path, behaviours: dict[str, Behaviour], questions: tuple[Question[Any], ...], timeout: float
) -> tuple[list[Any], float, list[str]]:
    with FakeEngine(path, behaviours, default=reply(b"OK")) as server:
        with Took() as took:
            host = LiveHost(server.address, timeout)
            host.ask_ahead()
            answers = [host.ask(question) for question in questions]
        return answers, took.seconds, server.requests


def test_an_engine_that_hangs_is_waited_for_once(path: Path) -> None:
    answers, took, requests = asked_of(path, docker(version=hang), ENGINES, 0.2)
    assert all(isinstance(answer, Unobservable) for answer in answers)
    assert all("did not answer in time" in answer.reason for answer in answers)
    assert took < 1
    assert [line for line in requests if "_ping" not in line] == ["GET /version HTTP/1.1"]


def test_one_that_drips_is_cut_off_and_not_waited_for_again(path: Path) -> None:
    answers, took, _ = asked_of(path, docker(networks=drip), ENGINES, 0.2)
    engine, containers, *others = answers
    assert isinstance(engine, Observed)
    assert isinstance(containers, Observed)
    assert all(isinstance(answer, Unobservable) for answer in others)
    assert all("had not finished its answer after 0.6 s" in answer.reason for answer in others)
    assert took < 1.2


def test_an_engine_that_is_no_engine_is_unobservable(path: Path) -> None:
    with FakeEngine(path, {}, default=reply(b"<html>hello</html>", kind="text/html")) as server:
        answers = [LiveHost(server.address, 1).ask(question) for question in ENGINES]
    assert all(isinstance(answer, Unobservable) for answer in answers)


@pytest.mark.parametrize("address", ["", "tcp://127.0.0.1:1", "unix://", "ssh://x", "nonsense"])
def test_an_address_that_is_no_socket_of_this_host(address: str) -> None:
    host = LiveHost(address, 0.2)
    daemon = host.ask(ask.DAEMON)
    assert isinstance(daemon, Unobservable)
    assert isinstance(host.ask(ask.ENGINE), Unobservable)


def test_nothing_is_asked_of_the_engine_before_the_first_question(path: Path) -> None:
    before = threading.active_count()
    LiveHost(f"unix://{path}", 1)
    assert threading.active_count() == before


# Whatever is asked, there is an answer


@given(
    topic=st.sampled_from(["link", "link-at", "peer", "nsid", "container-firewall", "process", "boot"]),
    name=st.binary(max_size=40).map(lambda each: each.decode("utf-8", "surrogateescape"))
    | st.just("x" * 200),
    number=st.integers(-(2**70), 2**70),
    other=st.integers(-5, 2**33),
)
def test_asking_never_raises(topic: str, name: str, number: int, other: int) -> None:
    subject = {"link": name, "peer": f"{other}/{number}", "boot": ""}.get(topic, str(number))
    answer: Observation[Any] = HOST.ask(Question(topic, subject))
    assert isinstance(answer, Observed | Absent | Unobservable)
    if not isinstance(answer, Observed):
        assert (answer.reason if isinstance(answer, Unobservable) else answer.detail) != ""


HOST = LiveHost("unix:///nonexistent/docker.sock", 0.2)


def test_every_topic_has_a_probe() -> None:
    for topic in TOPICS:
        subject = {"peer": "0/1"}.get(
            topic, "1" if "-" in topic or topic in ("nsid", "process", "stack") else "lo"
        )
        assert isinstance(HOST.ask(Question(topic, subject)), Observed | Absent | Unobservable), topic


def test_the_loopback_interface_and_one_that_is_not_there() -> None:
    found = HOST.ask(ask.link("lo"))
    assert isinstance(found, Observed)
    assert (found.fact.ifindex, found.fact.netns) == (1, own_netns())
    assert "our own network namespace" in found.provenance.query
    assert HOST.ask(ask.link_at(1)).fact == found.fact  # type: ignore[union-attr]
    missing = HOST.ask(ask.link("no-such-device"))
    assert isinstance(missing, Absent)
    assert missing.detail == "the kernel knows no such interface"


def test_a_device_by_another_name_of_its_own_is_not_that_device(monkeypatch: pytest.MonkeyPatch) -> None:
    by_real_name = read_link(name=b"lo")
    monkeypatch.setattr(live, "read_link", lambda **_: by_real_name)
    answer = LiveHost("unix:///nonexistent/docker.sock", 0.2).ask(ask.link("veth1234567"))
    assert isinstance(answer, Absent)
    assert answer.detail == "veth1234567 is only another name of lo"


def test_ourselves_and_a_process_that_is_not_there() -> None:
    found = HOST.ask(ask.process(os.getpid()))
    if isinstance(found, Unobservable):
        pytest.skip("not in the initial pid namespace")
    assert isinstance(found, Observed)
    assert isinstance(HOST.ask(ask.process(2**22 + 1)), Absent)
    assert isinstance(HOST.ask(ask.container_firewall(2**22 + 1)), Absent)


def test_the_engines_pid_in_another_pid_namespace_is_not_given_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be compared with the pids of the log."""
    monkeypatch.setattr(live, "initial_pid_namespace", lambda: False)
    with FakeEngine(path, docker(), default=reply(b"OK")) as server:
        answer = LiveHost(server.address, 1).ask(ask.DAEMON)
    assert isinstance(answer, Unobservable)
    assert "pid namespace" in answer.reason


def test_pids_of_another_pid_namespace_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "initial_pid_namespace", lambda: False)
    answer = HOST.ask(ask.process(os.getpid()))
    assert isinstance(answer, Unobservable)
    assert "another pid namespace" in answer.reason


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (NetlinkError(1, "Operation not permitted"), "Operation not permitted", "as root"),
        (NetlinkError(0, "the kernel did not answer in 3 s"), "did not answer", ""),
        (NamespaceError("setns to process 1: no"), "setns to process 1: no", "as root"),
        (FirewallError("unreadable", "install it"), "unreadable", "install it"),
        (PermissionError(13, "Permission denied"), "Permission denied", "as root"),
        (OSError(5, "Input/output error"), "Input/output error", ""),
        (ProcessLookupError("no process 7"), "no process 7", ""),
    ],
)
def test_a_look_that_fails_is_unobservable_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, remedy: str
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise error

    monkeypatch.setattr(live, "read_link", fail)
    answer = HOST.ask(ask.link("lo"))
    assert isinstance(answer, Unobservable)
    assert reason in answer.reason
    assert (remedy in answer.remedy) if remedy else answer.remedy == ""


def test_a_namespace_of_the_engine_that_cannot_be_read_is_not_swapped_for_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = Daemon(replace(read_process(os.getpid()), netns=None), "how")
    monkeypatch.setattr(live, "find_daemon", lambda *_: without)
    monkeypatch.setattr(live, "prove", lambda *_: None)
    answer = LiveHost(f"unix://{path}", 1).ask(ask.link("lo"))
    assert isinstance(answer, Unobservable)
    assert "the network namespace of the engine" in answer.reason


def test_who_holds_a_packet_socket() -> None:
    try:
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    except PermissionError:
        pytest.skip("packet sockets are for root")
    with packet:
        packet.bind(("lo", 0x0003))
        answer = HOST.ask(ask.packet_sockets(1))
        inode = os.fstat(packet.fileno()).st_ino
    assert isinstance(answer, Observed)
    (ours,) = [each for each in answer.fact.sockets if each.inode == inode]
    assert ours.ifindex == 1
    assert os.getpid() in [holder.identity.pid for holder in ours.holders]


def test_a_hung_engine_does_not_hold_up_the_end_of_the_program(path: Path) -> None:
    script = (
        "from verify_audit.probes.live import LiveHost; from verify_audit.host.questions import ENGINE; import sys;"
        "print(type(LiveHost(sys.argv[1], 0.1).ask(ENGINE)).__name__)"
    )
    with FakeEngine(path, docker(version=drip), default=reply(b"OK")) as server, Took() as took:
        ended = subprocess.run(
            [sys.executable, "-c", script, server.address],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("Unobservable\n", "", 0)
    assert took.seconds < 10
