"""Looking from inside another network namespace, without leaving a trace.

A namespace is entered by setns(2) in a thread of its own, which ends with the look: no link in
/run/netns, no mount, and the rest of the program stays where it was.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Answer = TypeVar("Answer")
_CLONE_NEWNET = 0x40000000


class NamespaceError(Exception):
    """The namespace could not be entered; the text says why."""


def own_netns() -> int:
    """The inode number of the calling thread's network namespace (namespaces(7))."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def netns_of(pid: int) -> int | None:
    """The inode number of a process's network namespace, None when it cannot be read."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def initial_pid_namespace() -> bool:
    """Whether our pids are those of the audit log, which counts in the initial pid namespace.

    Its inode number is fixed: PROC_PID_INIT_INO, include/linux/proc_ns.h.
    """
    try:
        return os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC
    except OSError:
        return False


def within(pid: int, netns: int, look: Callable[[], Answer], timeout: float = 10.0) -> Answer:
    """What `look` returns when called in the network namespace of process `pid`.

    netns is the inode number that the namespace must have, so that a pid used again by another process
    leads nowhere. Raises NamespaceError, and whatever `look` raises.
    """
    return through(f"/proc/{pid}/ns/net", netns, look, f"the network namespace of process {pid}", timeout)


def through(
    door: str, netns: int, look: Callable[[], Answer], name: str = "", timeout: float = 10.0
) -> Answer:
    """The same by a file that leads to the namespace. name: how to speak of it, when not by that file."""
    name = name or f"the network namespace at {door}"
    if own_netns() == netns:
        return look()
    outcome: list[Answer] = []
    failure: list[BaseException] = []

    def enter_and_look() -> None:
        try:
            _enter(door, netns, name)
            outcome.append(look())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=enter_and_look, daemon=True)
    thread.start()
    thread.join(timeout)
    if failure:
        raise failure[0]
    if not outcome:
        raise NamespaceError(f"looking in {name} took over {timeout:g} s")
    return outcome[0]


@contextmanager
def opened(door: str, netns: int, name: str) -> Iterator[int]:
    """A descriptor on the namespace. Raises NamespaceError where the file leads to anything else.

    It is only opened once it is known to be that: a file of a container's may be a pipe or a device.
    """
    try:
        place = os.open(door, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"{name}: {error.strerror}") from error
    try:
        found, kind = os.fstat(place), os.stat("/proc/self/ns/net").st_dev
        if (found.st_ino, found.st_dev) != (netns, kind):
            raise NamespaceError(f"{name} is not the one that it was")
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"{name}: {error.strerror}") from error
    finally:
        os.close(place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(door: str, netns: int, name: str) -> None:
    with opened(door, netns, name) as descriptor:
        # os.setns exists from Python 3.12 on.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise NamespaceError(f"setns to {name}: {os.strerror(ctypes.get_errno())}")
