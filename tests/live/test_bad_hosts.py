"""Engines that hang, die, lie or are none: a clear report, in time, and never a verdict from nothing."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live.auditlog import LogEvent
from tests.live.fake_engine import Behaviour, Connection, fake_engine, good
from tests.live.lab import IMAGE, Judgement, Lab, judged, program, program_environment

TIMEOUT = 0.5
BOUND = 5.0
"""Seconds: what a run may take with a TIMEOUT for each answer of the engine."""


@dataclass(frozen=True)
class Run:
    """A run, and how long it took."""

    judgement: Judgement
    seconds: float

    @property
    def verdicts(self) -> list[str]:
        """In the order of the log."""
        return [found["verdict"] for found in self.judgement.findings]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two bare records of a minute ago: an interface, and a rule."""
    return write_log(tmp_path)


def write_log(directory: Path) -> Path:
    """The same, for whoever has no fixture."""
    at = f"{time.time() - 60:.3f}"
    path = directory / "audit.log"
    path.write_text(
        f"type=ANOM_PROMISCUOUS msg=audit({at}:71): dev=vethc0ffee0 prom=256 old_prom=0 "
        "auid=4294967295 uid=0 gid=0 ses=4294967295\n"
        f"type=NETFILTER_CFG msg=audit({at}:72): table=nat:29 family=2 entries=1 op=nft_register_rule "
        'pid=4194303 comm="iptables"\n'
    )
    return path


def run(log: Path, docker_host: str) -> Run:
    """The program, on a log, with that engine."""
    began = time.monotonic()
    options = ("--format", "jsonl", "--timeout", str(TIMEOUT), "--docker-host", docker_host)
    judgement = judged(program(*options, str(log)), BOUND * 3)
    return Run(judgement, time.monotonic() - began)


def check_nothing_known(outcome: Run, findings: int = 2) -> None:
    """No verdict but INCONCLUSIVE, reasons given, nothing on stderr that is not a sentence, in time."""
    judgement = outcome.judgement
    assert "Traceback" not in judgement.stderr, judgement.stderr
    assert outcome.verdicts == ["inconclusive"] * findings, judgement.stdout
    assert judgement.status == 10
    assert judgement.summary["unobservable"], "the report does not say that the engine could not be asked"
    assert all(found["missing"] for found in judgement.findings), judgement.stdout
    assert outcome.seconds < BOUND


# No engine at all


def test_no_socket(log: Path, tmp_path: Path) -> None:
    """Nothing is there."""
    check_nothing_known(run(log, f"unix://{tmp_path / 'none.sock'}"))


def test_stale_socket(log: Path, tmp_path: Path) -> None:
    """The socket of an engine that was killed."""
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    check_nothing_known(run(log, f"unix://{path}"))


@pytest.mark.parametrize("what", ["file", "directory"])
def test_no_socket_but(log: Path, tmp_path: Path, what: str) -> None:
    """Something else is there."""
    path = tmp_path / "something"
    if what == "file":
        path.write_text("no socket")
    else:
        path.mkdir()
    check_nothing_known(run(log, f"unix://{path}"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "http://127.0.0.1:1"])
def test_nobody_at_the_address(log: Path, address: str) -> None:
    """An address over TCP where nobody listens."""
    check_nothing_known(run(log, address))


@pytest.mark.parametrize("address", ["", "nonsense", "unix://", "ftp://example.invalid", "unix:///\x07"])
def test_no_address(log: Path, address: str) -> None:
    """What is no address is a wrong usage, or an engine that cannot be asked; never a traceback."""
    outcome = run(log, address)
    assert "Traceback" not in outcome.judgement.stderr, outcome.judgement.stderr
    assert outcome.judgement.status in (2, 10)
    assert set(outcome.verdicts) <= {"inconclusive"}
    assert outcome.seconds < BOUND


def test_never_accepts(log: Path, tmp_path: Path) -> None:
    """A socket that is listened on, with nobody who accepts."""
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with ExitStack() as stack:
            # Its queue is full as well, so that not even connect() returns.
            for _ in range(2):
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                try:
                    waiting.connect(str(path))
                except BlockingIOError:
                    break
            check_nothing_known(run(log, f"unix://{path}"))


# Servers that are no engine


def _silent(connection: Connection, _path: str) -> bool:
    connection.over.wait(60)
    return False


def _rubbish(connection: Connection, _path: str) -> bool:
    connection.send(os.urandom(4096) + b"\r\n\r\n")
    return False


def _answering(body: Any, status: str = "200 OK", kind: str = "application/json") -> Behaviour:
    return lambda connection, _path: connection.answer(body, status, kind)


def _dribbling(connection: Connection, _path: str) -> bool:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not connection.over.wait(0.3):
        if not connection.send(b" "):
            return False
    return False


def _dribbling_head(connection: Connection, _path: str) -> bool:
    while connection.send(b"H" if connection.over.is_set() else b"HTTP/1.1 100 Continue\r\n\r\n"):
        if connection.over.wait(0.3):
            return False
    return False


def _breaking_off(connection: Connection, _path: str) -> bool:
    connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"Version": "20.')
    return False


def _breaking_off_chunked(connection: Connection, _path: str) -> bool:
    connection.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"Version": "20.')
    return False


def _redirecting(connection: Connection, _path: str) -> bool:
    return connection.send(
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/version\r\nContent-Length: 0\r\n\r\n"
    )


def _only_first(connection: Connection, path: str) -> bool:
    if connection.number > 0 or not path.endswith(("_ping", "version")):
        return False
    return good(connection, path)


_DEEP = b"[" * 200_000 + b"]" * 200_000
_SHAPES = {
    "an empty list": [],
    "an empty object": {},
    "null": None,
    "a number": 7,
    "a string": "docker",
    "true": True,
    "an empty body": b"",
    "half an object": b'{"Version": "20.10.24", "ApiVersion": ',
    "deep nesting": _DEEP,
    "numbers for names": {"Version": 20, "ApiVersion": 1.41},
    "a version that is none": {"Version": "x", "ApiVersion": "y"},
    "a version of the future": {"Version": "99", "ApiVersion": "999.0"},
    "a version out of range": {"Version": "1", "ApiVersion": "1.0"},
    "no UTF-8": b'{"Version": "\xff\xfe", "ApiVersion": "1.41"}',
    "a list of nulls": [None, None],
    "control characters": {"Version": "\x1b[31m\x07", "ApiVersion": "1.41"},
}
_BAD = {
    "silent": _silent,
    "rubbish": _rubbish,
    "dribbling": _dribbling,
    "dribbling heads": _dribbling_head,
    "breaking off": _breaking_off,
    "breaking off in a chunk": _breaking_off_chunked,
    "closing": lambda _connection, _path: False,
    "redirecting": _redirecting,
    "vanishing after the first call": _only_first,
    "HTTP 500": _answering({"message": "server error"}, "500 Internal Server Error"),
    "HTTP 500 without JSON": _answering(b"<html>", "500 Internal Server Error", "text/html"),
    "HTTP 400": _answering({"message": "client version is too new"}, "400 Bad Request"),
    "HTTP 404": _answering({"message": "page not found"}, "404 Not Found"),
    "a web page": _answering(b"<html>hello</html>", kind="text/html"),
    **{f"JSON: {name}": _answering(body) for name, body in _SHAPES.items()},
}


_BAD_ANSWERS = (
    *("JSON: an empty object", "JSON: null", "JSON: a list of nulls", "JSON: deep nesting"),
    *("JSON: half an object", "JSON: control characters"),
    *("silent", "closing", "dribbling", "HTTP 404"),
)


def _only_for(topic: str, bad: Behaviour) -> Behaviour:
    """Bad when asked that, else good."""
    return lambda connection, path: (bad if f"/{topic}" in path else good)(connection, path)


_TOPICS = ("info", "containers/json", "networks", "events")
_CASES = {
    **_BAD,
    **{f"{how}, to {topic}": _only_for(topic, _BAD[how]) for topic in _TOPICS for how in _BAD_ANSWERS},
}


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Run]]:
    """The runs against all bad servers that were chosen, some at a time: most of a run is waiting."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [call.params["bad"] for call in calls if call is not None and "bad" in call.params]

    def one(name: str) -> Run:
        directory = tmp_path_factory.mktemp("bad", numbered=True)
        with fake_engine(directory / "docker.sock", _CASES[name]):
            return run(write_log(directory), f"unix://{directory / 'docker.sock'}")

    with ThreadPoolExecutor(3) as threads:
        return {name: threads.submit(one, name) for name in chosen}


@pytest.mark.parametrize("bad", _BAD)
def test_bad_server(runs: dict[str, Future[Run]], bad: str) -> None:
    """Somebody answers on the socket who is no engine."""
    check_nothing_known(runs[bad].result())


@pytest.mark.parametrize("bad", [name for name in _CASES if name not in _BAD])
def test_bad_answer(runs: dict[str, Future[Run]], bad: str) -> None:
    """An engine that answers well but for one question: no traceback, nothing confirmed, in time."""
    outcome = runs[bad].result()
    assert "Traceback" not in outcome.judgement.stderr, outcome.judgement.stderr
    assert outcome.verdicts == ["inconclusive"] * 2, outcome.judgement.stdout
    assert outcome.judgement.status == 10
    assert outcome.seconds < BOUND


def test_endless_answer(log: Path, tmp_path: Path) -> None:
    """An answer that never ends and comes fast: neither time nor memory is without bound."""

    def endless(connection: Connection, path: str) -> bool:
        if path.endswith("_ping"):
            return good(connection, path)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while connection.send(b" " * (1 << 20)) and not connection.over.is_set():
            pass
        return False

    path = tmp_path / "docker.sock"
    limit = 2 << 30
    with fake_engine(path, endless):
        began = time.monotonic()
        options = ("--format", "jsonl", "--timeout", str(TIMEOUT), "--docker-host", f"unix://{path}")
        done = subprocess.run(
            ["prlimit", f"--as={limit}", *program(*options, str(log))],
            check=False,
            capture_output=True,
            text=True,
            timeout=BOUND * 3,
            env=program_environment(),
        )
        seconds = time.monotonic() - began
    assert "Traceback" not in done.stderr
    assert done.returncode == 10, done.stderr
    assert seconds < BOUND
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < limit // 1024


def test_container_gone_between_list_and_inspect(log: Path, tmp_path: Path) -> None:
    """The engine lists a container and knows nothing of it a moment later."""
    path = tmp_path / "docker.sock"
    with fake_engine(path, good):
        outcome = run(log, f"unix://{path}")
    assert "Traceback" not in outcome.judgement.stderr, outcome.judgement.stderr
    assert outcome.verdicts == ["inconclusive"] * 2, outcome.judgement.stdout
    assert outcome.judgement.status == 10


def test_podman(log: Path, tmp_path: Path) -> None:
    """Podman speaks the same API: it is named, and nothing is put down to Docker."""
    version = {"Version": "5.4.0", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}

    def podman(connection: Connection, path: str) -> bool:
        return connection.answer(version) if path.endswith("/version") else good(connection, path)

    path = tmp_path / "docker.sock"
    with fake_engine(path, podman):
        outcome = run(log, f"unix://{path}")
    assert "Traceback" not in outcome.judgement.stderr, outcome.judgement.stderr
    assert "confirmed" not in outcome.verdicts
    assert "odman" in outcome.judgement.stdout


def test_vanishes_at_any_moment(log: Path, tmp_path: Path) -> None:
    """An engine that is gone after its first, second, third... answer."""
    for number in range(1, 7):
        left = threading.Semaphore(number)

        def until(connection: Connection, path: str, left: threading.Semaphore = left) -> bool:
            return left.acquire(blocking=False) and good(connection, path)

        path = tmp_path / f"docker{number}.sock"
        with fake_engine(path, until):
            outcome = run(log, f"unix://{path}")
        assert "Traceback" not in outcome.judgement.stderr, outcome.judgement.stderr
        assert outcome.verdicts == ["inconclusive"] * 2, outcome.judgement.stdout
        assert outcome.judgement.status == 10


# A real engine


@pytest.fixture
def lab_with_event(nft_lab: Lab) -> Iterator[tuple[Lab, list[LogEvent]]]:
    """A lab, and the records of a container that runs in it."""
    nft_lab.ensure_engine()
    with nft_lab.turn, nft_lab.stretch() as stretch:
        nft_lab.docker(
            "run",
            "-d",
            "--stop-signal",
            "KILL",
            "--name",
            "survivor",
            "-p",
            "18095:95",
            IMAGE,
            "sleep",
            "1000",
        )
    assert stretch.events
    yield nft_lab, stretch.events
    nft_lab.stop_engine(with_containers=True)
    nft_lab.start_engine()
    nft_lab.remove("survivor")


def _in_lab(lab: Lab, events: list[LogEvent], *, bare: bool) -> Run:
    if bare:
        events = [LogEvent(event.id, event.flagged) for event in events]
    began = time.monotonic()
    judgement = lab.judge(events, "--timeout", str(TIMEOUT))
    return Run(judgement, time.monotonic() - began)


def _stopped(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.send_signal(signal.SIGSTOP)


def _killed(lab: Lab) -> None:
    assert lab.engine is not None
    lab.engine.kill()
    lab.engine.wait(10)


@pytest.mark.parametrize("bare", [False, True], ids=["companions", "bare"])
@pytest.mark.parametrize("end", [_stopped, _killed], ids=["stopped", "killed"])
def test_engine_out_of_order(
    lab_with_event: tuple[Lab, list[LogEvent]], end: Callable[[Lab], None], bare: bool
) -> None:
    """Stopped (the socket connects and nobody answers) or killed: said so, in time, nothing refuted."""
    lab, events = lab_with_event
    end(lab)
    outcome = _in_lab(lab, events, bare=bare)
    assert "Traceback" not in outcome.judgement.stderr, outcome.judgement.stderr
    assert "refuted" not in outcome.verdicts, outcome.judgement.stdout
    # The process that holds the socket is the actor still, as long as it is there.
    assert set(outcome.verdicts) <= (
        {"inconclusive"} if bare or end is _killed else {"inconclusive", "confirmed"}
    )
    assert outcome.judgement.status == (10 if "inconclusive" in outcome.verdicts else 0)
    assert outcome.judgement.summary["unobservable"]
    assert outcome.seconds < BOUND
