from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.probes import processes
from verify_audit.probes.namespace import own_netns
from verify_audit.probes.processes import boot, container_of, holders, parse_stat, read_process

WAIT = "print(flush=True); input()"
ID = "a4b5aa6d9209cccb04f2def7c2e6351ea8b69272832030f0bda14aabfe3378cb"
REST = b"S 42 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10"


@pytest.mark.parametrize("comm", [b"dockerd", b"a) R 1 2 (", b") S 1 1", b"((", b"a b", b"\xff\n", b""])
def test_a_name_that_imitates_the_line_does_not_change_what_follows(comm: bytes) -> None:
    name, ppid, start_ticks = parse_stat(b"7 (" + comm + b") " + REST + b"\n")
    assert name.encode("utf-8", "surrogateescape") == comm
    assert (ppid, start_ticks) == (42, 98765)


@pytest.mark.parametrize(
    "line",
    [b"", b"7 (x", b"7 x) " + REST, b")(" + REST, b"7 (x) S 42", b"7 (x) " + REST.replace(b"42", b"y")],
)
def test_what_is_no_stat_line_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a stat line|invalid literal"):
        parse_stat(line)


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_a_value_error(line: bytes) -> None:
    try:
        parse_stat(line)
    except ValueError:
        return


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/docker-{ID}.scope",
        f"12:pids:/docker/{ID}\n11:cpu:/docker/{ID}",
        f"0::/system.slice/docker-{ID}.scope/init",
        f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope",
        f"0::/machine.slice/libpod-{ID}.scope/container",
        f"0::/../{ID}",
    ],
)
def test_the_container_in_a_cgroup_path(cgroup: str) -> None:
    assert container_of(cgroup) == ID


@pytest.mark.parametrize(
    "cgroup",
    [
        "",
        "0::/system.slice/docker.service",
        "0::/user.slice/user-1000.slice",
        f"0::/docker/{ID[:-1]}",
        f"0::/docker/{ID}0",
        f"0::/docker/{ID[:-1]}g",
        f"0::/docker/x{ID}",
        f"0::/docker/{ID}.service",
    ],
)
def test_no_container_in_a_cgroup_path(cgroup: str) -> None:
    assert container_of(cgroup) is None


@contextmanager
def started(*argv: str | bytes, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A child that runs: it has said so, and waits."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds) as child:
        assert child.stdout
        assert child.stdout.readline() == b"\n"
        yield child
        child.communicate(b"\n")


def test_ourselves() -> None:
    process = read_process(os.getpid())
    assert process.identity.pid == os.getpid()
    assert process.ppid == os.getppid()
    assert process.exe == str(Path(sys.executable).resolve())
    assert process.argv[0].endswith(("python", "python3", "pytest")) or process.argv
    assert process.uid == os.getuid()
    assert process.netns == own_netns()
    assert 0 < time.time() - process.started_at < 86_400


def test_a_process_is_told_from_a_later_one_by_its_start() -> None:
    first = read_process(os.getpid())
    with started(sys.executable, "-c", WAIT) as child:
        second = read_process(child.pid)
    assert second.identity.start_ticks >= first.identity.start_ticks
    assert second.identity != first.identity
    assert second.ppid == os.getpid()
    assert second.started_at == pytest.approx(time.time(), abs=30)


def test_an_argument_may_hold_any_byte() -> None:
    argv = [sys.executable.encode(), b"-c", WAIT.encode(), b"\xff \n", b"", b"\xc3\xa9"]
    with started(*argv) as child:
        seen = read_process(child.pid).argv
    assert [each.encode("utf-8", "surrogateescape") for each in seen[1:]] == argv[1:]


@pytest.mark.parametrize("pid", [0, 2**22 + 1, 10**20])
def test_a_process_that_is_not_there(pid: int) -> None:
    with pytest.raises(ProcessLookupError, match=f"no process {pid}"):
        read_process(pid)


def test_a_process_that_ends_while_it_is_being_read_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever /proc says then: another start, an empty line, nothing."""
    stat = processes.read_file("/proc/self/stat")
    other = b"7 (x) " + REST
    for later in (
        other,
        b"",
        FileNotFoundError(2, "No such file or directory"),
        ProcessLookupError(3, "gone"),
    ):
        reads = iter([stat, later])

        def read(path: str, reads: object = reads) -> bytes:
            if not path.endswith("/stat"):
                return b""
            answer = next(reads)  # type: ignore[call-overload]
            if isinstance(answer, OSError):
                raise answer
            return bytes(answer)

        monkeypatch.setattr(processes, "read_file", read)
        with pytest.raises(ProcessLookupError):
            read_process(os.getpid())


def test_login_uid_and_session_are_none_when_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    real = processes.read_file
    numbers = {"loginuid": b"4294967295", "sessionid": b"3\n"}

    def read(path: str) -> bytes:
        return numbers.get(path.rpartition("/")[2]) or real(path)

    monkeypatch.setattr(processes, "read_file", read)
    process = read_process(os.getpid())
    assert (process.loginuid, process.session) == (None, 3)


def test_a_zombie_is_a_process_without_a_program() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        process = read_process(child)
    finally:
        os.waitpid(child, 0)
    assert (process.exe, process.argv) == (None, ())


# Who holds a socket


def test_holders_of_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = os.fstat(ours.fileno()).st_ino
        assert holders([inode]) == {inode: [os.getpid()]}
        assert holders([inode], first=[os.getpid(), 0, -1]) == {inode: [os.getpid()]}
        twin = ours.dup()
        with twin:
            assert holders([inode])[inode] == [os.getpid()]


def test_a_child_that_inherited_the_socket_holds_it_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = os.fstat(theirs.fileno()).st_ino
        with started(sys.executable, "-c", WAIT, pass_fds=[theirs.fileno()]) as child:
            assert sorted(holders([inode])[inode]) == sorted([os.getpid(), child.pid])


def test_a_socket_that_nobody_holds() -> None:
    assert holders([2**40]) == {2**40: []}
    assert holders([]) == {}


def test_which_boot_this_is() -> None:
    first, second = boot(), boot()
    assert first.boot_id == second.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert first.at == pytest.approx(second.at, abs=1)
    assert first.at < time.time()
    assert first.hostname == os.uname().nodename
