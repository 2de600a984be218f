"""Engines inside containers: where to look for one, and asking it as the host's own is asked.

A process that goes by the name of dockerd inside a container is only a place to look. Its socket is found
among those that it listens on itself, and opened below its own root directory without leaving that
(openat2(2), RESOLVE_IN_ROOT): a container may have put a symbolic link there that leads to the host's.
What answers must be that very process, and prove itself as the host's engine does.

References: unix(7); /proc/net/unix in proc(5); include/uapi/linux/openat2.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable
from typing import TypeVar

from verify_audit.host.facts import Daemon, Process
from verify_audit.host.observation import Observation, Observed, Provenance, Unobservable
from verify_audit.host.questions import DAEMON, Question
from verify_audit.probes.daemon import DaemonError
from verify_audit.probes.live import LiveHost
from verify_audit.probes.processes import read_file, read_process

Answer = TypeVar("Answer")

_NAME = b"dockerd\n"
_SOCKET = "docker.sock"
_ACCEPTS = 0x10000
"""SO_ACCEPTCON, the flag of a listening socket in /proc/net/unix."""
_OPENAT2 = 437
"""The same on every architecture but alpha: include/uapi/asm-generic/unistd.h."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


def find_nested() -> tuple[Process, ...]:
    """Every process that goes by the name of dockerd inside a container."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and read_file(f"/proc/{name}/comm") == _NAME:
                process = read_process(int(name))
                if process.container_id is not None:
                    found.append(process)
        except OSError:
            continue
    return tuple(found)


class NestedHost(LiveHost):
    """The host as the engine in one process of it sees it; key is that of `Inside`."""

    def __init__(self, key: str, timeout: float) -> None:
        self._key = key
        self._none: DaemonError | None = None
        descriptor = -1
        try:
            # Open until the run ends: each connection is made by its name.
            descriptor = _open_socket(int(key.partition(".")[0]))
        except (OSError, ValueError) as error:
            self._none = DaemonError(str(error))
        super().__init__(f"unix:///proc/self/fd/{descriptor}", timeout)
        self._name = f"the engine that is process {key.partition('.')[0]}"

    def _find_daemon(self) -> Daemon:
        daemon = super()._find_daemon()
        identity = daemon.process.identity
        if f"{identity.pid}.{identity.start_ticks}" != self._key:
            raise DaemonError(f"process {identity.pid} answers on its socket")
        return daemon

    def _ask_engine(self, question: Question[object]) -> object:
        if self._none is not None:
            raise self._none
        return super()._ask_engine(question)

    def _in_namespace(self, source: str, query: str, look: Callable[[int], Answer]) -> Observation[Answer]:
        daemon = self.ask(DAEMON)
        if not isinstance(daemon, Observed):
            reason = daemon.reason if isinstance(daemon, Unobservable) else "it has ended"
            return Unobservable(Provenance(source, query, time.time()), reason)
        return super()._in_namespace(source, query, look)


def _open_socket(pid: int) -> int:
    """The socket that a process listens on as an engine does, as a file descriptor (O_PATH). OSError."""
    listening = _listening(pid)
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            try:
                path = listening.get(os.readlink(descriptor.path))
            except OSError:
                continue
            if path is not None:
                return _open_below(f"/proc/{pid}/root", path)
    raise OSError(f"it listens on no {_SOCKET}")


def _listening(pid: int) -> dict[str, str]:
    """The paths of the listening sockets of its network namespace that are named as an engine's, by descriptor."""
    found = {}
    for line in read_file(f"/proc/{pid}/net/unix").decode("utf-8", "surrogateescape").splitlines()[1:]:
        words = line.split(None, 7)
        if len(words) == 8 and int(words[3], 16) & _ACCEPTS and words[7].endswith(f"/{_SOCKET}"):
            found[f"socket:[{words[6]}]"] = words[7]
    return found


def _open_below(root: str, path: str) -> int:
    """A path as it is below a root directory, wherever symbolic links there lead. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        name = os.fsencode(path)
        opened = libc.syscall(_OPENAT2, directory, ctypes.c_char_p(name), ctypes.c_char_p(how), len(how))
        if opened < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(opened)
    finally:
        os.close(directory)
