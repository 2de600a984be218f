"""A server on a UNIX socket, in a thread of the test: an engine, a bad one, or none at all."""

from __future__ import annotations

import fcntl
import json
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.probe_samples import answer

Connection = socket.socket
Behaviour = Callable[["FakeEngine", Connection], bool]
"""Answers one request; False when the connection is to be closed after it."""


def reply(body: bytes, status: str = "200 OK", kind: str = "application/json", *more: str) -> Behaviour:
    """An answer as HTTP has it."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return raw("\r\n".join([*head, "", ""]).encode() + body)


def stream(body: bytes) -> Behaviour:
    """An answer in one chunk, as the engine sends its events."""
    chunks = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    return raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n"
    )


def raw(text: bytes, *, go_on: bool = True) -> Behaviour:
    """Just these bytes."""

    def behave(_: FakeEngine, connection: Connection) -> bool:
        connection.sendall(text)
        return go_on

    return behave


def hang(engine: FakeEngine, _: Connection) -> bool:
    """No answer, and no end either."""
    engine.over.wait()
    return False


def close(_: FakeEngine, __: Connection) -> bool:
    """The end, without an answer."""
    return False


def drip(engine: FakeEngine, connection: Connection) -> bool:
    """An answer that never ends, and never pauses for long."""
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n"
    )
    while not engine.over.wait(0.02):
        connection.sendall(b" ")
    return False


def docker(**changes: Behaviour) -> dict[str, Behaviour]:
    """What engine 20.10 answered; changes by the name of the question."""
    folder = "engine-20.10"
    behaviours = {
        "version": reply(answer(f"{folder}/version.json")),
        "info": reply(answer(f"{folder}/info.json")),
        "containers": reply(answer(f"{folder}/containers.json")),
        "networks": reply(answer(f"{folder}/networks.json")),
        "events": stream(answer(f"{folder}/events.jsonl")),
        "life": reply(answer(f"{folder}/inspect-c1.json")),
    }
    assert not changes.keys() - behaviours.keys()
    return behaviours | changes


def info(root: str) -> Behaviour:
    """What it answered to GET /info, with another directory of its data."""
    return reply(json.dumps(json.loads(answer("engine-20.10/info.json")) | {"DockerRootDir": root}).encode())


@contextmanager
def database(root: Path, lock: int = fcntl.LOCK_EX) -> Iterator[None]:
    """An engine's database below that directory, open and locked as that says within the block."""
    path = root / "volumes/metadata.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, lock)
        yield


def _question(path: str) -> str:
    words = [word for word in urlsplit(path).path.split("/") if word]
    if words and words[0].startswith("v1."):
        words = words[1:]
    if words[:1] == ["containers"]:
        return "containers" if words == ["containers", "json"] else "life"
    return words[0] if words else ""


class FakeEngine:
    """Serves within a `with` block.

    requests are the request lines that it saw. What it has no behaviour for is answered with 404.
    """

    def __init__(
        self, path: Path, behaviours: Mapping[str, Behaviour], default: Behaviour | None = None
    ) -> None:
        self.path = path
        self.address = f"unix://{path}"
        self.requests: list[str] = []
        self.headers: list[str] = []
        self.over = threading.Event()
        self._behaviours = behaviours
        self._default = default or reply(b'{"message":"page not found"}', "404 Not Found")
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._wake.close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
        self._woken.close()
        self._listener.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._woken], [], [])
            if self._woken in ready:
                return
            connection, _ = self._listener.accept()
            self._connections.append(connection)
            self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        with connection:
            try:
                while not self.over.is_set():
                    while b"\r\n\r\n" not in received:
                        more = connection.recv(65536)
                        if not more:
                            return
                        received += more
                    head, _, received = received.partition(b"\r\n\r\n")
                    first, *headers = head.decode().split("\r\n")
                    self.requests.append(first)
                    self.headers.extend(headers)
                    behave = self._behaviours.get(_question(first.split(" ")[1]), self._default)
                    if not behave(self, connection):
                        return
            except OSError:
                return
