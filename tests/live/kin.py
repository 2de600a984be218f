"""Which processes of this machine are ours: told by the kernel as they are forked.

Other engines and firewalls may be at work on the same machine and in the same audit log. A record names
a pid, mostly of a process that has ended, so ancestry has to be known beforehand: the process connector
reports each fork.

References: include/uapi/linux/cn_proc.h, Documentation/driver-api/connector.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = 1
_LISTEN, _IGNORE = 1, 2
_NLMSG_DONE = 3
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26
_FORK = 0x1
_HEADERS = 16 + 20
_AT = _HEADERS + 8
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_FORK_AT = _HEADERS + 16


class Kin:
    """Every process that this thread starts from now on, and what descends from it, the dead ones too.

    `lost` is set when the kernel had to drop reports: then a pid that is not known may still be ours, and one
    that is known may be somebody else's by now. So none counts as living but by the time of its start.
    """

    def __init__(self) -> None:
        self.lost = False
        self._root = threading.get_native_id()
        self._pids: dict[int, float] = {}
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
            self._take_forks_only()
            self._socket.bind((0, _CN_IDX_PROC))
            self._socket.setblocking(False)
            self._say(_LISTEN)
        except OSError:
            self._socket.close()
            raise
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._keep_draining, daemon=True)
        self._thread.start()

    def __enter__(self) -> Kin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stop_write)
        self._thread.join()
        os.close(self._stop_read)
        with contextlib.suppress(OSError):
            self._say(_IGNORE)
        self._socket.close()

    def __contains__(self, pid: int) -> bool:
        self._drain()
        return pid in self._pids

    def living(self) -> set[int]:
        """Our processes that have not ended, zombies left out."""
        self._drain()
        return {pid for pid, forked in tuple(self._pids.items()) if _lives(pid, forked)}

    def _take_forks_only(self) -> None:
        """Have the kernel drop other reports, most of all, before they wake us (classic BPF, bpf(4))."""
        program = b"".join(
            struct.pack("=HBBI", *instruction)
            for instruction in (
                (0x20, 0, 0, _HEADERS),  # load the word that says what is reported
                (0x15, 0, 1, socket.htonl(_FORK)),  # is it this one?
                (0x06, 0, 0, 0xFFFFFFFF),  # keep it
                (0x06, 0, 0, 0),  # drop it
            )
        )
        text = ctypes.create_string_buffer(program, len(program))
        pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)

    def _say(self, operation: int) -> None:
        connector = struct.pack("=IIIIHHI", _CN_IDX_PROC, 1, 0, 0, 4, 0, operation)
        self._socket.send(struct.pack("=IHHII", 16 + len(connector), _NLMSG_DONE, 0, 0, 0) + connector)

    def _keep_draining(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._stop_read], [], [])
            if self._stop_read in ready:
                return
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            while True:
                try:
                    message = self._socket.recv(4096)
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self.lost = True
                    continue
                self._take(message)

    def _take(self, message: bytes) -> None:
        if len(message) < _FORK_AT + 16 or struct.unpack_from("=I", message, _HEADERS)[0] != _FORK:
            return
        parent_thread, parent, child_thread, child = struct.unpack_from("=iiii", message, _FORK_AT)
        if child_thread != child:
            # The number is a thread's now, and a signal sent to it would end the whole process.
            self._pids.pop(child_thread, None)
            return
        if parent in self._pids or parent_thread == self._root:
            (at,) = struct.unpack_from("=Q", message, _AT)
            self._pids[child] = at / 1e9
        else:
            self._pids.pop(child, None)  # the number is somebody else's now


def _lives(pid: int, forked: float) -> bool:
    """Whether the process of that pid is the one that was forked then (CLOCK_MONOTONIC), and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat.rpartition(b")")[2].split()
    # Its start is counted from boot, time asleep included: field 22 of /proc/PID/stat, proc(5).
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    started = int(fields[19]) * _TICK - asleep
    return fields[0] not in (b"Z", b"X") and abs(started - forked) < 2 * _TICK + 0.05
