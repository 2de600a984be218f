"""Which process answers on the API socket: the one that holds the other end of our connection.

SO_PEERCRED will not do: it names whoever called listen(), which under socket activation is systemd.
So we connect, wait until the connection has been accepted, ask the kernel which socket is at its other
end (UNIX sock_diag), and find the process that has this socket open.

That may be a proxy before the engine, or a script that answers as one. An engine holds, for as long as it
runs, the exclusive lock on the database of its volumes, below the directory that it names as its own: two
engines cannot share one. Seen on 20.10, 26.1 and 28.5, with userns-remap, rootless and in a chroot.

Blind spot: root can make such a file, lock it, and answer as an engine does.

References: sock_diag(7), unix(7), include/uapi/linux/unix_diag.h; flock(2), the lines `lock:` of
/proc/PID/fdinfo in proc(5); moby volume/service/store.go NewStore(), go.etcd.io/bbolt Open().
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

from verify_audit.host.facts import Daemon, Process
from verify_audit.probes.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, NetlinkError, request
from verify_audit.probes.pid_namespace import is_init
from verify_audit.probes.processes import holders, read_file, read_process
from verify_audit.probes.pyroute2_parts import decoded, part, reading

_SOCK_DIAG_BY_FAMILY = 20
_SHOW_NAME = 0x1
_SHOW_VFS = 0x2
_SHOW_PEER = 0x4
_UNIX_DIAG_VFS = 1
_UNIX_DIAG_PEER = 2
_LISTENING = 10
_ALL_STATES = 0xFFFFFFFF
_ANY_COOKIE = 0xFFFFFFFFFFFFFFFF
_PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: keep-alive\r\n\r\n"

_DATABASE = "/volumes/metadata.db"
_LOCK = ["FLOCK", "ADVISORY", "WRITE"]


class DaemonError(Exception):
    """The process behind the socket could not be found, or is no engine; the text says why.

    remedy: what to do about it, empty when that is for others to say.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


def find_daemon(path: str, timeout: float) -> Daemon:
    """The process behind the UNIX socket at `path`, within `timeout` seconds.

    An engine that accepts nothing (hung, stopped) is found as the one process that holds the listening
    socket, beside init. Raises DaemonError.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(timeout)
            named = peer = 0
            try:
                connection.connect(path)
            except BlockingIOError:
                answered = False  # the queue is full: for long nobody has accepted anything
            else:
                named = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[
                    0
                ]
                answered = _ping(connection, deadline)
            if answered:
                peer = peer_inode(os.fstat(connection.fileno()).st_ino)
            if peer:
                pids = holders([peer], first=[named])[peer]
                how = "holds the other end of our connection to the API socket"
            else:
                pids = _listeners(path, named)
                how = "holds the listening API socket; it did not answer, so no connection could be followed"
            if len(pids) != 1:
                raise DaemonError(
                    f"{len(pids)} processes hold the API socket: {pids}"
                    if pids
                    else "no process that can be looked into holds the API socket"
                )
            return Daemon(read_process(pids[0]), how, is_init(pids[0]))
    except NetlinkError as error:
        raise DaemonError(f"sock_diag: {error}") from error
    except OSError as error:
        raise DaemonError(error.strerror or str(error)) from error


def prove(process: Process, root: str | None) -> None:
    """Return if the process holds the lock on an engine's database; DaemonError if it does not.

    root: the engine's directory as it names it (DockerRootDir), None when it did not answer; then any such
    database will do.
    """
    pid = process.identity.pid
    try:
        named = os.stat(f"/proc/{pid}/root{root}{_DATABASE}") if root is not None else None
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            if any(_is_locked_database(pid, each.name, named) for each in descriptors):
                return
    except PermissionError as error:
        raise DaemonError(f"the files of process {pid}: {error.strerror}") from error
    except (OSError, ValueError):
        pass  # it names no such database, or nothing that a path can be; or it has ended
    raise DaemonError(
        f"{process.exe or process.comm} (pid {pid}) holds the API socket, but not the lock on "
        f"{(root or '').rstrip('/')}{_DATABASE}, as an engine does: it is a proxy before one, or none at all",
        "name the engine's own socket with --docker-host, with nothing before it "
        "(`ss -xlp` shows which process listens on which)",
    )


def _is_locked_database(pid: int, descriptor: str, named: os.stat_result | None) -> bool:
    """Whether an open file is an engine's database (None: any engine's), locked through this very descriptor."""
    path = f"/proc/{pid}/fd/{descriptor}"
    try:
        if not os.readlink(path).endswith(_DATABASE):
            return False
        if named is not None and not os.path.samestat(named, os.stat(path)):
            return False
        locks = read_file(f"/proc/{pid}/fdinfo/{descriptor}").decode("ascii", "replace").splitlines()
    except OSError:
        return False  # it has been closed since
    return any(line.split()[2:5] == _LOCK for line in locks)


def _ping(connection: socket.socket, deadline: float) -> bool:
    """Whether the connection has been accepted: an answer has come, of whatever kind."""
    try:
        connection.sendall(_PING)
        connection.settimeout(max(0.05, min(1.0, deadline - time.monotonic())))
        return bool(connection.recv(256))
    except OSError:
        return False


def peer_inode(inode: int) -> int:
    """The socket at the other end of a UNIX socket, 0 when nobody has accepted it. NetlinkError."""
    replies = request(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, 0, _diag_request(inode, _SHOW_PEER))
    return parse_peer(replies[0])


def parse_peer(reply: bytes) -> int:
    """The peer's inode in a reply of UNIX sock_diag, 0 when it names none."""
    with reading("the kernel's reply on a UNIX socket"):
        return int(_decoded(reply).get_attr("UNIX_DIAG_PEER") or 0)


def _listeners(path: str, named: int) -> list[int]:
    """Who holds the listening socket at `path`, but for init, which only opened it."""
    file = os.stat(path)
    replies = request(
        NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, _diag_request(0, _SHOW_VFS, 1 << _LISTENING)
    )
    inodes = [inode for inode, vfs in map(parse_listener, replies) if vfs == file.st_ino]
    found = holders(inodes, first=[named] if named > 1 else [])
    return sorted({pid for pids in found.values() for pid in pids if pid != 1})


def parse_listener(reply: bytes) -> tuple[int, int]:
    """Inode of a listening socket, and inode of the file that it is bound to (0 when to none)."""
    with reading("the kernel's reply on a UNIX socket"):
        message = _decoded(reply)
        vfs = message.get_attr("UNIX_DIAG_VFS")
        return int(message["udiag_ino"]), int(vfs["udiag_vfs_ino"]) if vfs is not None else 0


def _diag_request(inode: int, show: int, states: int = _ALL_STATES) -> bytes:
    return struct.pack("=BBHIIIQ", socket.AF_UNIX, 0, 0, states, inode, show, _ANY_COOKIE)


def _decoded(reply: bytes) -> Any:
    netlink = part("netlink")

    class Vfs(netlink.nla):  # type: ignore[misc,name-defined]
        fields = (("udiag_vfs_ino", "I"), ("udiag_vfs_dev", "I"))

    class Message(netlink.nlmsg):  # type: ignore[misc,name-defined]
        # pyroute2.netlink.diag has the same, but brings asyncio with it.
        fields = (
            ("udiag_family", "B"),
            ("udiag_type", "B"),
            ("udiag_state", "B"),
            ("__pad", "B"),
            ("udiag_ino", "I"),
            ("udiag_cookie", "Q"),
        )
        nla_map = (
            ("UNIX_DIAG_NAME", "hex"),
            ("UNIX_DIAG_VFS", "vfs"),
            ("UNIX_DIAG_PEER", "uint32"),
        )
        vfs = Vfs

    return decoded(Message, reply)
