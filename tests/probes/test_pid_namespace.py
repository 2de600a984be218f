from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from verify_audit.probes import pid_namespace
from verify_audit.probes.pid_namespace import InnerPids, is_init, pids_of

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace takes root")


@pytest.fixture
def inner() -> Iterator[tuple[int, int, int]]:
    """Our pids of the first process of a pid namespace, of its child, and of one in a namespace below."""
    script = "sleep 100 & unshare --pid --fork sleep 100 & echo; wait"
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()

    def children(pid: int) -> list[int]:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    try:
        while len(below := children(init := children(process.pid)[0])) < 2 or not children(below[1]):
            pass
        yield init, below[0], children(below[1])[0]
    finally:
        process.kill()
        process.communicate()


def test_where_the_engine_counts_as_we_do_a_pid_stays_what_it_is() -> None:
    assert InnerPids(os.getpid()).ours(4711) == 4711
    assert pids_of(os.getpid()) == (os.getpid(),)
    assert not is_init(os.getpid())


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert pids_of(4194303) == ()
    assert not is_init(4194303)
    assert InnerPids(4194303).ours(1) == 0


@NEEDS_ROOT
def test_pids_of_another_namespace_are_turned_into_ours(inner: tuple[int, int, int]) -> None:
    init, child, below = inner
    pids = InnerPids(init)
    assert is_init(init)
    assert is_init(below)
    assert not is_init(child)
    assert pids.ours(1) == init
    assert pids.ours(pids_of(child)[1]) == child
    assert pids.ours(pids_of(below)[1]) == below
    assert pids.ours(4711) == 0


@NEEDS_ROOT
def test_the_same_number_in_another_namespace_is_another_process(inner: tuple[int, int, int]) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo; sleep 100"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    try:
        pids = InnerPids(inner[0])
        assert pids.ours(1) == inner[0]
        assert len(pids._listed[1]) > 1  # type: ignore[index]
    finally:
        other.kill()
        other.communicate()


@NEEDS_ROOT
def test_it_leaves_no_file_open(inner: tuple[int, int, int]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert not pid_namespace._is_within(inner[2], 0)
        assert pid_namespace._is_within(inner[2], Path(f"/proc/{inner[0]}/ns/pid").stat().st_ino)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
