"""Pids as an engine in another pid namespace counts them, turned into ours.

References: pid_namespaces(7); NSpid in proc(5); NS_GET_PARENT in ioctl_ns(2).
"""

from __future__ import annotations

import fcntl
import os
import re

from verify_audit.probes.processes import read_file

_NS_GET_PARENT = 0xB702
_DEEPEST = 32
"""MAX_PID_NS_LEVEL, include/linux/pid_namespace.h."""


def pids_of(pid: int) -> tuple[int, ...]:
    """A process's pid in each pid namespace that it is in, ours first; empty when it cannot be read."""
    try:
        found = re.search(rb"^NSpid:([\t\d]+)$", read_file(f"/proc/{pid}/status"), re.MULTILINE)
    except OSError:
        return ()
    return tuple(map(int, found[1].split())) if found else ()


def is_init(pid: int) -> bool:
    """Whether it is the first process of its pid namespace, which becomes the parent of every orphan there."""
    return pids_of(pid)[-1:] == (1,)


class InnerPids:
    """The pids that one process, an engine, calls others by."""

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._depth = len(pids_of(engine)) - 1
        self._listed: dict[int, list[int]] | None = None

    def ours(self, inner: int) -> int:
        """Our pid of the process that the engine calls `inner`; 0 when there is none."""
        if self._depth == 0:
            return inner
        if self._depth < 0:
            return 0
        if self._listed is None:
            self._listed = self._list()
        try:
            namespace = os.stat(f"/proc/{self._engine}/ns/pid").st_ino
        except OSError:
            return 0
        found = [pid for pid in self._listed.get(inner, ()) if _is_within(pid, namespace)]
        return found[0] if len(found) == 1 else 0

    def _list(self) -> dict[int, list[int]]:
        """Ours by the pid at the engine's depth, which may be one of another namespace of that depth."""
        found: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and len(pids := pids_of(int(name))) > self._depth:
                found.setdefault(pids[self._depth], []).append(int(name))
        return found


def _is_within(pid: int, namespace: int) -> bool:
    """Whether a process is in that pid namespace (an inode number) or in one below it."""
    try:
        descriptor = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        for _ in range(_DEEPEST + 1):
            try:
                if os.fstat(descriptor).st_ino == namespace:
                    return True
                parent = fcntl.ioctl(descriptor, _NS_GET_PARENT)
            finally:
                os.close(descriptor)
            descriptor = parent
    except OSError:
        return False  # it has ended, or we are above the first
    os.close(descriptor)
    return False
