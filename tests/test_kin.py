"""Which processes the live tests take for theirs, and so may end."""

from __future__ import annotations

import struct
import subprocess
import time

import pytest

from tests.live.kin import Kin, _lives

OURS, OTHER = 100, 500


@pytest.fixture
def kin() -> Kin:
    """With one process, and no socket."""
    made = Kin.__new__(Kin)
    made._root = 1
    made._pids = {OURS: 0.0}
    return made


def forked(parent: int, child: int, child_thread: int | None = None) -> bytes:
    """The kernel's report: headers of netlink and connector, what, cpu, time, and who forked whom."""
    return bytes(36) + struct.pack("=IIQiiii", 1, 0, 0, parent, parent, child_thread or child, child)


def test_children_are_ours_and_others_are_not(kin: Kin) -> None:
    """Of the thread that began it too."""
    for parent, child in ((OURS, 101), (101, 102), (1, 103), (OTHER, 501)):
        kin._take(forked(parent, child))
    assert set(kin._pids) == {OURS, 101, 102, 103}


def test_a_number_that_somebody_else_has_now(kin: Kin) -> None:
    """Pids come round: a process of others, or a thread of theirs or ours, is not what it was."""
    for number in (101, 102, 103):
        kin._take(forked(OURS, number))
    kin._take(forked(OTHER, 101))
    kin._take(forked(OTHER, OTHER, child_thread=102))
    kin._take(forked(OURS, OURS, child_thread=103))
    assert set(kin._pids) == {OURS}


def test_a_process_of_ours_is_known_by_the_time_of_its_start_too() -> None:
    """Reports can be lost, so a number may be somebody else's without our having been told."""
    now = time.monotonic()
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            assert _lives(process.pid, now)
            assert not _lives(process.pid, now - 1)
            assert not _lives(process.pid, now + 1)
        finally:
            process.kill()
    assert not _lives(process.pid, now)
