from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_engine import FakeEngine, close, database, hang, reply
from tests.probe_samples import number
from tests.probe_samples import reply as kernels_reply
from verify_audit.host.facts import ProcessIdentity
from verify_audit.probes import daemon
from verify_audit.probes.daemon import (
    DaemonError,
    find_daemon,
    parse_listener,
    parse_peer,
    peer_inode,
    prove,
)
from verify_audit.probes.netlink import NetlinkError
from verify_audit.probes.processes import read_process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


@pytest.fixture
def silent(path: Path) -> Iterator[socket.socket]:
    """A listening socket that nobody accepts on."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield listener


def test_captured_replies_name_the_other_end_or_none() -> None:
    assert parse_peer(kernels_reply("unix peer, accepted")) == number("unix peer inode")
    assert parse_peer(kernels_reply("unix peer, not accepted")) == 0
    assert parse_listener(kernels_reply("unix listener")) == tuple(number("unix listener inodes"))


def test_a_listener_that_is_bound_to_no_file() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0verify-audit-test-{os.getpid()}")
        listener.listen(1)
        inode = os.fstat(listener.fileno()).st_ino
        (reply,) = daemon.request(4, 20, 0, daemon._diag_request(inode, daemon._SHOW_VFS))  # type: ignore[attr-defined]
    assert parse_listener(reply) == (inode, 0)


@given(st.data())
def test_a_cut_or_changed_reply_is_read_or_a_netlink_error(data: st.DataObject) -> None:
    changed = bytearray(kernels_reply(data.draw(st.sampled_from(["unix peer, accepted", "unix listener"]))))
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(changed) - 1)) :]
    elif changed:
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for parse in (parse_peer, parse_listener):
        try:
            parse(bytes(changed))
        except NetlinkError:
            continue


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_inode(os.fstat(ours.fileno()).st_ino) == os.fstat(theirs.fileno()).st_ino


@pytest.mark.parametrize("behaviour", [reply(b"OK"), reply(b"", "500 Internal Server Error")])
def test_the_process_that_accepted_us_is_found(path: Path, behaviour: object) -> None:
    with FakeEngine(path, {"_ping": behaviour}) as server:  # type: ignore[dict-item]
        found = find_daemon(str(path), 2)
    assert found.process.identity.pid == os.getpid()
    assert found.process.started_at < time.time()
    assert "other end of our connection" in found.how
    assert server.requests == ["GET /_ping HTTP/1.1"]


def test_an_engine_that_accepts_nothing_is_found_by_its_listening_socket(
    path: Path, silent: socket.socket
) -> None:
    started = time.monotonic()
    found = find_daemon(str(path), 0.2)
    assert time.monotonic() - started < 2
    assert found.process.identity.pid == os.getpid()
    assert "holds the listening API socket; it did not answer" in found.how
    assert silent.fileno() > 0


def test_one_that_accepts_and_closes_or_hangs_is_found_too(path: Path) -> None:
    for behaviour in (close, hang):
        path.unlink(missing_ok=True)
        with FakeEngine(path, {}, default=behaviour):
            assert find_daemon(str(path), 0.2).process.identity.pid == os.getpid()


def test_nobody_there(path: Path) -> None:
    with pytest.raises(DaemonError, match="No such file or directory"):
        find_daemon(str(path), 1)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(DaemonError, match="Connection refused"):
        find_daemon(str(path), 1)
    path.unlink()
    path.write_text("no socket")
    with pytest.raises(DaemonError, match="Connection refused"):
        find_daemon(str(path), 1)


def test_a_path_that_no_socket_can_have() -> None:
    with pytest.raises(DaemonError):
        find_daemon("/" + "x" * 200, 1)


def test_a_full_queue_is_given_up_in_time(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        started = time.monotonic()
        found = find_daemon(str(path), 0.2)
        assert time.monotonic() - started < 2
    assert "holds the listening API socket" in found.how


def test_several_processes_with_the_socket_are_none(
    path: Path, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "holders", lambda inodes, **_: {inode: [7, 8] for inode in inodes})
    with pytest.raises(DaemonError, match=r"2 processes hold the API socket: \[7, 8\]"):
        find_daemon(str(path), 0.1)
    assert silent


def test_init_that_only_opened_the_socket_is_not_the_engine(
    path: Path, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "holders", lambda inodes, **_: {inode: [1] for inode in inodes})
    with pytest.raises(DaemonError, match="no process that can be looked into"):
        find_daemon(str(path), 0.1)
    assert silent


def test_a_kernel_that_will_not_say_is_a_daemon_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> list[bytes]:
        raise NetlinkError(1, "Operation not permitted")

    monkeypatch.setattr(daemon, "request", no)
    with FakeEngine(path, {}), pytest.raises(DaemonError, match="sock_diag: Operation not permitted"):
        find_daemon(str(path), 1)


def test_the_other_end_may_be_another_process_than_the_one_that_listens(path: Path) -> None:
    """As under socket activation: we listen, a child accepts."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        ready, done = threading.Event(), os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(done[1])
                connection, _ = listener.accept()
                listener.close()
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                os.read(done[0], 1)
            finally:
                os._exit(0)
        try:
            found = find_daemon(str(path), 5)
        finally:
            os.close(done[0])
            os.close(done[1])
            os.waitpid(child, 0)
        assert found.process.identity.pid == child
        assert found.process.ppid == os.getpid()
        assert not ready.is_set()


# Is it an engine


OURSELVES = read_process(os.getpid())


def test_the_lock_on_the_database_of_the_directory_that_it_names(tmp_path: Path) -> None:
    with database(tmp_path):
        prove(OURSELVES, str(tmp_path))
        prove(OURSELVES, None)
        with pytest.raises(DaemonError, match=r"not the lock on /elsewhere/volumes/metadata\.db"):
            prove(OURSELVES, "/elsewhere")
    with pytest.raises(DaemonError) as caught:
        prove(OURSELVES, str(tmp_path))
    assert "--docker-host" in caught.value.remedy


def test_the_lock_on_another_directorys_database_will_not_do(tmp_path: Path) -> None:
    """Another engine's directory is named, as one does that passes on what that answers."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with database(ours), database(theirs, fcntl.LOCK_UN):
        prove(OURSELVES, str(ours))
        with pytest.raises(DaemonError):
            prove(OURSELVES, str(theirs))


@pytest.mark.parametrize("lock", [fcntl.LOCK_SH, fcntl.LOCK_UN])
def test_another_lock_will_not_do(tmp_path: Path, lock: int) -> None:
    with database(tmp_path, lock), pytest.raises(DaemonError):
        prove(OURSELVES, str(tmp_path))
    with pytest.raises(DaemonError):
        prove(OURSELVES, None)


def test_a_file_that_another_has_locked_will_not_do(tmp_path: Path) -> None:
    path = tmp_path / "volumes/metadata.db"
    path.parent.mkdir()
    path.touch()
    other = subprocess.Popen(["flock", path, "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1)
    assert other.stdout is not None
    other.stdout.readline()
    try:
        with path.open(), pytest.raises(DaemonError):
            prove(OURSELVES, str(tmp_path))
    finally:
        other.communicate()


def test_a_database_of_another_name_will_not_do(tmp_path: Path) -> None:
    with (tmp_path / "metadata.db").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DaemonError):
            prove(OURSELVES, None)


@given(st.text())
def test_no_directory_that_an_answer_can_name_is_an_exception(root: str) -> None:
    with pytest.raises(DaemonError):
        prove(OURSELVES, root)


def test_a_process_that_has_ended() -> None:
    with pytest.raises(DaemonError):
        prove(replace(OURSELVES, identity=ProcessIdentity(4194303, 1)), None)
