"""A network namespace for one test: a thread makes it, works in it, and ends with it. For root only."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from verify_audit.host.facts import Link
from verify_audit.probes.links import parse_link, read_link

Answer = TypeVar("Answer")

_CLONE_NEWNET = 0x40000000


def in_a_namespace(act: Callable[[], Answer]) -> Answer:
    """What `act` returns in a network namespace of its own. Skips the test where none can be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip(8)")
    outcome: list[Answer] = []
    failure: list[BaseException] = []

    def enter_and_act() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            outcome.append(act())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            failure.append(error)

    thread = threading.Thread(target=enter_and_act)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def sh(*commands: str) -> None:
    """Commands in the thread's namespace, their words separated by blanks."""
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)


def can(command: str) -> bool:
    """Whether the kernel has what a command asks for."""
    return subprocess.run(command.split(), check=False, capture_output=True).returncode == 0


def device(name: str) -> Link:
    """An interface of the thread's namespace."""
    return parse_link(read_link(name=name.encode()), 0)
