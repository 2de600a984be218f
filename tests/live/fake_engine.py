"""A server on a UNIX socket that is no engine, or a bad one."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Behaviour = Callable[["Connection", str], bool]
"""What it does with a request, given the connection and the path; False closes the connection."""


class Connection:
    """One client. Everything that is sent to it may fail silently: it may have gone."""

    def __init__(self, peer: socket.socket, over: threading.Event, number: int) -> None:
        self._peer = peer
        self._received = b""
        self.over = over
        self.number = number

    def path(self) -> str | None:
        """The path of the next request, None when there is none."""
        while b"\r\n\r\n" not in self._received:
            more = self._peer.recv(65536)
            if not more:
                return None
            self._received += more
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.split(b" ")[1].decode()

    def send(self, text: bytes) -> bool:
        """Send it; whether somebody was there."""
        try:
            self._peer.sendall(text)
        except OSError:
            return False
        return True

    def answer(self, body: Any, status: str = "200 OK", kind: str = "application/json") -> bool:
        """A whole answer: bytes as they are, all else as JSON."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n"
        return self.send(head.encode() + text)


@contextmanager
def fake_engine(path: Path, behaviour: Behaviour) -> Iterator[threading.Event]:
    """Serve at `path` within the block. The event that it gives makes it vanish before."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(16)
        listener.settimeout(0.05)

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    peer, _ = listener.accept()
                    peer.settimeout(20)
                    connection = Connection(peer, over, len(threads))
                    thread = threading.Thread(target=_serve, args=(peer, connection, behaviour), daemon=True)
                    threads.append(thread)
                    thread.start()
            listener.close()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield over
        finally:
            over.set()
            for thread in (accepting, *threads):
                thread.join(5)
            path.unlink(missing_ok=True)


def _serve(peer: socket.socket, connection: Connection, behaviour: Behaviour) -> None:
    with peer, contextlib.suppress(OSError):
        while (path := connection.path()) is not None:
            if not behaviour(connection, path):
                return


CONTAINER = "c0ffee" + "0" * 58
NETWORK = "fade" + "0" * 60

GOOD_ANSWERS: dict[str, Any] = {
    "_ping": b"OK",
    "version": {"Version": "20.10.24", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}]},
    "info": {"ID": "x", "Name": "host", "LiveRestoreEnabled": False},
    "containers/json": [
        {
            "Id": CONTAINER,
            "Names": ["/web"],
            "Image": "busybox:lab",
            "State": "running",
            "HostConfig": {"NetworkMode": "bridge"},
            "NetworkSettings": {
                "Networks": {
                    "bridge": {
                        "NetworkID": NETWORK,
                        "EndpointID": "e" * 64,
                        "MacAddress": "02:42:ac:11:00:02",
                        "IPAddress": "172.17.0.2",
                    }
                }
            },
        }
    ],
    "networks": [
        {
            "Id": NETWORK,
            "Name": "bridge",
            "Driver": "bridge",
            "Options": {"com.docker.network.bridge.name": "docker0"},
        }
    ],
    "events": b"",
}


def good(connection: Connection, path: str) -> bool:
    """An engine with a container that it has forgotten when it is asked about it."""
    name = path.partition("?")[0].strip("/")
    if name.startswith("v1."):
        name = name.partition("/")[2]
    if name in GOOD_ANSWERS:
        return connection.answer(GOOD_ANSWERS[name])
    return connection.answer({"message": f"No such container: {name}"}, "404 Not Found")
