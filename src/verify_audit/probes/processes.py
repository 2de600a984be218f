"""Processes as /proc shows them: who an actor is, and who holds a socket.

References: proc(5); clock ticks and start time, field 22 of /proc/PID/stat.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping

from verify_audit.host.facts import Boot, Process, ProcessIdentity
from verify_audit.probes.namespace import netns_of

UNSET = 4294967295
_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)


def read_file(path: str) -> bytes:
    """The whole of a small file. OSError."""
    with open(path, "rb") as file:
        return file.read()


def boot() -> Boot:
    """Which boot this is, and when it began by today's reading of the clock. OSError."""
    began = _began()
    boot_id = read_file("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()
    return Boot(boot_id, began, os.uname().nodename)


def _began() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def parse_stat(stat: bytes) -> tuple[str, int, int]:
    """comm, ppid and start_ticks of a /proc/PID/stat.

    comm may itself hold blanks and brackets, so it ends at the last bracket. ValueError when the line
    is not one.
    """
    start, end = stat.find(b"("), stat.rfind(b")")
    fields = stat[end + 1 :].split()
    if start < 0 or end < start or len(fields) < 20:
        raise ValueError("not a stat line")
    return stat[start + 1 : end].decode("utf-8", "surrogateescape"), int(fields[1]), int(fields[19])


def container_of(cgroup: str) -> str | None:
    """The 64-digit id of the container that a cgroup path belongs to.

    Only the form of the path: that such a container exists is for the engine to say ("libpod-" has 64
    digits too).
    """
    found = _CONTAINER.search(cgroup)
    return found.group(1) if found else None


def read_process(pid: int) -> Process:
    """The living process of that pid. ProcessLookupError or another OSError when it cannot be read."""
    root = f"/proc/{pid}"
    comm, ppid, start_ticks = _stat(pid)
    cgroup = _text(f"{root}/cgroup")
    process = Process(
        identity=ProcessIdentity(pid, start_ticks),
        started_at=_began() + start_ticks / os.sysconf("SC_CLK_TCK"),
        ppid=ppid,
        comm=comm,
        exe=_executable(root),
        argv=tuple(
            part.decode("utf-8", "surrogateescape") for part in _bytes(f"{root}/cmdline").split(b"\0")[:-1]
        ),
        uid=_uid(root),
        loginuid=_number(f"{root}/loginuid"),
        session=_number(f"{root}/sessionid"),
        cgroup=cgroup,
        container_id=container_of(cgroup),
        netns=netns_of(pid),
    )
    if _stat(pid)[2] != start_ticks:
        raise ProcessLookupError(f"process {pid} ended while it was being read")
    return process


def _stat(pid: int) -> tuple[str, int, int]:
    try:
        return parse_stat(read_file(f"/proc/{pid}/stat"))
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    except ValueError as error:
        raise ProcessLookupError(f"/proc/{pid}/stat cannot be read: {error}") from error


def holders(inodes: Iterable[int], first: Iterable[int] = ()) -> dict[int, list[int]]:
    """Which processes have which sockets open: pids by socket inode.

    first: pids to try before the others, to be quicker; the search ends there when each socket has been
    found. Processes that may not be looked into are passed over, so an empty list proves nothing.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[int]] = {inode: [] for inode in wanted.values()}

    def look(pid: int) -> None:
        try:
            with os.scandir(f"/proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    try:
                        inode = wanted.get(os.readlink(descriptor.path))
                    except OSError:
                        continue
                    if inode is not None and pid not in found[inode]:
                        found[inode].append(pid)
        except OSError:
            return

    tried = [pid for pid in first if pid > 0]
    for pid in tried:
        look(pid)
    if wanted and all(found.values()) and tried:
        return found
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in tried:
            look(int(name))
    return found


def open_sockets(inodes: Iterable[int]) -> dict[int, list[int]]:
    """Which processes have which sockets open, also where no descriptor of the process shows it.

    A thread may have descriptors of its own (unshare(2), CLONE_FILES), and the ring of a packet socket
    stays mapped, and the socket alive, when the descriptor is closed. One that waits in the queue of a
    UNIX socket, or is registered with io_uring, is nowhere in /proc.
    """
    found = holders(inodes)
    wanted = {f"socket:[{inode}]": inode for inode, pids in found.items() if not pids}
    if not wanted:
        return found
    for name in os.listdir("/proc"):
        if name.isdigit():
            for inode in _in_threads_and_maps(f"/proc/{name}", wanted):
                found[inode].append(int(name))
    return found


def _in_threads_and_maps(root: str, wanted: Mapping[str, int]) -> set[int]:
    found = {wanted[name] for name in re.findall(r"socket:\[\d+\]", _text(f"{root}/maps")) if name in wanted}
    try:
        threads = os.listdir(f"{root}/task")
    except OSError:
        return found
    for thread in threads if len(threads) > 1 else ():
        try:
            with os.scandir(f"{root}/task/{thread}/fd") as descriptors:
                for descriptor in descriptors:
                    name = os.readlink(descriptor.path)
                    if name in wanted:
                        found.add(wanted[name])
        except OSError:
            continue
    return found


def _bytes(path: str) -> bytes:
    try:
        return read_file(path)
    except OSError:
        return b""


def _text(path: str) -> str:
    return _bytes(path).decode("utf-8", "surrogateescape").strip()


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() and int(text) != UNSET else None


def _executable(root: str) -> str | None:
    try:
        return os.readlink(f"{root}/exe")
    except OSError:
        return None


def _uid(root: str) -> int | None:
    found = re.search(rb"^Uid:\s+(\d+)", _bytes(f"{root}/status"), re.MULTILINE)
    return int(found.group(1)) if found else None
