from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_engine import FakeEngine, database, docker, info, reply
from verify_audit.host import questions as ask
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.host.questions import Inside, Question
from verify_audit.probes import live, nested
from verify_audit.probes.daemon import DaemonError
from verify_audit.probes.live import LiveHost
from verify_audit.probes.nested import NestedHost, find_nested
from verify_audit.probes.processes import read_process

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

OURSELVES = read_process(os.getpid())
KEY = f"{OURSELVES.identity.pid}.{OURSELVES.identity.start_ticks}"


@pytest.fixture(autouse=True)
def _initial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "initial_pid_namespace", lambda: True)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    """This process as an engine, with all that makes one."""
    with (
        database(tmp_path),
        FakeEngine(
            tmp_path / "docker.sock", docker(info=info(str(tmp_path))), default=reply(b"OK")
        ) as server,
    ):
        yield server
    gc.collect()


def test_the_engine_in_a_process_is_asked_over_the_socket_that_it_listens_on(engine: FakeEngine) -> None:
    host = LiveHost("unix:///nowhere/docker.sock", 2)
    inside = Inside(host, OURSELVES)
    daemon = inside.ask(ask.DAEMON)
    assert isinstance(daemon, Observed)
    assert daemon.fact.process.identity == OURSELVES.identity
    assert isinstance(inside.ask(ask.NETWORKS), Observed)
    assert isinstance(inside.ask(ask.link("lo")), Observed)
    assert isinstance(host.ask(ask.DAEMON), Unobservable)
    assert all(line.startswith("GET ") for line in engine.requests)


@pytest.mark.usefixtures("engine")
def test_a_pid_that_was_used_again_is_not_the_engine() -> None:
    answer = NestedHost(f"{os.getpid()}.1", 1).ask(ask.DAEMON)
    assert isinstance(answer, Unobservable)
    assert f"process {os.getpid()} answers on its socket" in answer.reason


def test_what_listens_on_no_such_socket_is_asked_nothing(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "other.sock", docker(), default=reply(b"OK")) as server:
        host = NestedHost(KEY, 1)
        questions: tuple[Question[Any], ...] = (ask.DAEMON, ask.NETWORKS, ask.link("lo"), ask.FIREWALL)
        for question in questions:
            answer: object = host.ask(question)
            assert isinstance(answer, Unobservable)
            assert "it listens on no docker.sock" in answer.reason
        assert server.requests == []


@pytest.mark.usefixtures("engine")
def test_an_engine_that_does_not_prove_itself_has_no_namespace_to_look_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prove(*_: object) -> None:
        raise DaemonError("no lock")

    monkeypatch.setattr(live, "prove", prove)
    answer = NestedHost(KEY, 1).ask(ask.link("lo"))
    assert isinstance(answer, Unobservable)
    assert "no lock" in answer.reason


def test_a_process_that_is_gone() -> None:
    answer = NestedHost("4194303.1", 1).ask(ask.DAEMON)
    assert isinstance(answer, Unobservable)
    assert "No such file" in answer.reason


def test_a_symbolic_link_leads_nowhere_but_below_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_text("not for us")
    (root / "run").mkdir()
    (root / "run/real").touch()
    (root / "absolute").symlink_to("/run/real")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    descriptor = nested._open_below(str(root), "/absolute")
    assert Path(f"/proc/self/fd/{descriptor}").readlink() == root / "run/real"
    os.close(descriptor)
    for path in ("/out", "/up", "/../outside", "/proc/self/fd/0"):
        with pytest.raises(OSError):
            nested._open_below(str(root), path)


def test_only_sockets_that_listen_and_have_the_name_are_listed(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("docker.sock", "metrics.sock", "a b")]
    paths[2].mkdir()
    paths[2] /= "docker.sock"
    opened = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for each, path in zip(opened, [*paths, tmp_path / "xdocker.sock"], strict=True):
        each.bind(str(path))
        each.listen()
    idle = socket.socket(socket.AF_UNIX)
    (tmp_path / "idle").mkdir()
    idle.bind(str(tmp_path / "idle/docker.sock"))
    found = {path for path in nested._listening(os.getpid()).values() if path.startswith(str(tmp_path))}
    assert found == {str(paths[0]), str(paths[2])}
    for each in (*opened, idle):
        each.close()


def test_processes_of_that_name_are_looked_for_in_containers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []

    def named() -> None:
        # The name of a thread is not the process's: nothing here is found by it.
        Path("/proc/thread-self/comm").write_text("dockerd")
        found.append(any(each.identity == OURSELVES.identity for each in find_nested()))

    thread = threading.Thread(target=named)
    thread.start()
    thread.join()
    monkeypatch.setattr(nested, "_NAME", Path("/proc/self/comm").read_bytes())
    found.append(any(each.identity == OURSELVES.identity for each in find_nested()))
    assert found == [False, OURSELVES.container_id is not None]
