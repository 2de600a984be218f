from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

import pytest

from verify_audit.probes import namespace
from verify_audit.probes.namespace import (
    NamespaceError,
    initial_pid_namespace,
    netns_of,
    own_netns,
    within,
)


def test_our_own_namespace_is_looked_at_without_entering_it() -> None:
    assert own_netns() == netns_of(os.getpid()) == os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116
    assert within(os.getpid(), own_netns(), threading.get_ident) == threading.get_ident()


def test_the_namespace_of_no_process() -> None:
    assert netns_of(2**22 + 1) is None
    with pytest.raises(NamespaceError, match=r"process 4194305: No such file"):
        within(2**22 + 1, 1, lambda: None)


def test_a_pid_that_was_used_again_leads_nowhere() -> None:
    with pytest.raises(NamespaceError, match=f"process {os.getpid()} is not the one that it was"):
        within(os.getpid(), 1, lambda: pytest.fail("looked in the wrong namespace"))


class Libc:
    """In libc's place: setns that is allowed, or not."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.calls: list[tuple[int, int]] = []

    def setns(self, descriptor: int, kind: int) -> int:
        self.calls.append((os.fstat(descriptor).st_ino, kind))
        ctypes.set_errno(1)
        return self.answer


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> int:
    """Our namespace, as if we were in another one."""
    here = own_netns()
    monkeypatch.setattr(namespace, "own_netns", lambda: 1)
    return here


def entering(monkeypatch: pytest.MonkeyPatch, answer: int) -> Libc:
    libc = Libc(answer)

    def load(name: Any, *, use_errno: bool) -> Libc:
        assert (name, use_errno) == (None, True)
        return libc

    monkeypatch.setattr(namespace.ctypes, "CDLL", load)  # type: ignore[attr-defined]
    return libc


def test_another_namespace_is_entered_in_a_thread_of_its_own(
    monkeypatch: pytest.MonkeyPatch, elsewhere: int
) -> None:
    libc = entering(monkeypatch, 0)
    assert within(os.getpid(), elsewhere, threading.get_ident) != threading.get_ident()
    assert libc.calls == [(elsewhere, 0x40000000)]


def test_what_may_not_be_entered_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, elsewhere: int) -> None:
    entering(monkeypatch, -1)
    with pytest.raises(NamespaceError, match="Operation not permitted"):
        within(os.getpid(), elsewhere, lambda: pytest.fail("looked without having entered"))


def test_what_the_look_raises_is_raised(monkeypatch: pytest.MonkeyPatch, elsewhere: int) -> None:
    entering(monkeypatch, 0)
    with pytest.raises(ZeroDivisionError):
        within(os.getpid(), elsewhere, lambda: 1 // 0)


def test_a_look_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch, elsewhere: int) -> None:
    entering(monkeypatch, 0)
    over = threading.Event()
    try:
        with pytest.raises(NamespaceError, match=r"took over 0\.05 s"):
            within(os.getpid(), elsewhere, over.wait, timeout=0.05)
    finally:
        over.set()


def test_a_look_that_finds_none_has_looked(monkeypatch: pytest.MonkeyPatch, elsewhere: int) -> None:
    entering(monkeypatch, 0)
    assert within(os.getpid(), elsewhere, lambda: None) is None


def test_whose_pids_we_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(inode: int) -> object:
        return lambda _: os.stat_result((0, inode, 0, 0, 0, 0, 0, 0, 0, 0))

    monkeypatch.setattr(namespace.os, "stat", stat(0xEFFFFFFC))  # type: ignore[attr-defined]
    assert initial_pid_namespace()
    monkeypatch.setattr(namespace.os, "stat", stat(0xF0000001))  # type: ignore[attr-defined]
    assert not initial_pid_namespace()
