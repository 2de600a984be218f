"""All processes at once: which network namespaces there are, and who has packet sockets open.

A namespace is known by whoever is in it (each thread has its own), by a mount, or by a descriptor that
somebody holds on it. One that lives by none of these (only a socket or an interface in flight keeps it)
has no file that leads to it.

That a descriptor is a packet socket is told by its extended attribute system.sockprotoname, also where
the socket is in a namespace that nothing leads to (net/socket.c sockfs_xattr_get()).

References: namespaces(7), proc(5), mount_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from verify_audit.probes.processes import read_file

_NSFS = re.compile(rb"^\S+ \S+ \S+ net:\[(\d+)\] (\S+) .* - nsfs ", re.MULTILINE)
_SLOW = re.compile(rb"^\S+ \S+ \S+ \S+ (\S+) .* - (?:fuse|autofs|nfs|cifs|smb|ceph|9p)", re.MULTILINE)
_LINK = re.compile(r"(net|socket):\[(\d+)\]")
_ENOUGH_DOORS = 4


@dataclass(slots=True)
class Found:
    """A network namespace. doors: files that lead to it; pids: the processes that have a thread in it."""

    netns: int
    doors: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Census:
    """What all processes show.

    holders: the pids that have a packet socket open, by its inode. closed: the pids that may not be looked
    into. avoided: mount points of namespaces that are not to be opened.
    """

    namespaces: dict[int, Found] = field(default_factory=dict)
    holders: dict[int, list[int]] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)
    avoided: dict[int, str] = field(default_factory=dict)


def census() -> Census:
    """Look at every process once. One that ends meanwhile is passed over. OSError when there is no /proc."""
    taken = Census()
    mounts: set[int] = set()
    sockets: dict[int, bool] = {}
    later: list[tuple[int, str]] = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            _namespaces_of(int(name), taken)
            later += _mounted(name, mounts, taken)
            later += _descriptors(int(name), taken, sockets)
        except PermissionError:
            taken.closed.append(int(name))
        except OSError:
            continue
    for netns, door in later:
        found = taken.namespaces.setdefault(netns, Found(netns))
        if len(found.doors) < _ENOUGH_DOORS:
            found.doors.append(door)
    return taken


def _namespaces_of(pid: int, taken: Census) -> None:
    threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads:
        door = f"/proc/{pid}/ns/net" if int(thread) == pid else f"/proc/{pid}/task/{thread}/ns/net"
        try:
            netns = os.stat(door).st_ino
        except OSError as error:
            # Of a process that has ended and is not waited for nothing is left to be seen.
            if error.errno in (errno.ENOENT, errno.ESRCH):
                continue
            raise
        found = taken.namespaces.setdefault(netns, Found(netns))
        if pid not in found.pids[-1:]:
            found.pids.append(pid)
            if len(found.doors) < _ENOUGH_DOORS:
                found.doors.append(door)


def _mounted(name: str, seen: set[int], taken: Census) -> Iterator[tuple[int, str]]:
    """The namespaces that are mounted somewhere, each mount namespace being looked at once.

    One below a file system that somebody serves is left alone: whoever serves it could keep us waiting.
    """
    try:
        mounts = os.stat(f"/proc/{name}/ns/mnt").st_ino
        if mounts in seen:
            return
        table = read_file(f"/proc/{name}/mountinfo")
    except FileNotFoundError:
        return
    seen.add(mounts)
    root = "" if mounts == os.stat("/proc/self/ns/mnt").st_ino else f"/proc/{name}/root"
    slow = tuple(point.rstrip(b"/") + b"/" for point in _SLOW.findall(table))
    for netns, point in _NSFS.findall(table):
        path = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point))
        if point.startswith(slow):
            taken.avoided[int(netns)] = f"{root}{path}"
        else:
            yield int(netns), f"{root}{path}"


def _descriptors(pid: int, taken: Census, sockets: dict[int, bool]) -> Iterator[tuple[int, str]]:
    """Enter the packet sockets of a process; the namespaces that it holds a descriptor on."""
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            try:
                link = _LINK.fullmatch(os.readlink(descriptor.path))
                if link is None:
                    continue
                number = int(link[2])
                if link[1] == "net":
                    yield number, descriptor.path
                    continue
                if number not in sockets:
                    protocol = os.getxattr(descriptor.path, "system.sockprotoname")
                    sockets[number] = protocol.startswith(b"PACKET")
                if sockets[number] and pid not in taken.holders.setdefault(number, []):
                    taken.holders[number].append(pid)
            except OSError:
                continue
