"""Answers of kernels and engines as they were captured: samples/probes/README.md."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent / "samples" / "probes"


@cache
def _netlink() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLES / "netlink.json").read_text())
    return content


def reply(name: str) -> bytes:
    """One reply of the kernel."""
    return bytes.fromhex(_netlink()[name])


def replies(name: str) -> list[bytes]:
    """The replies of a dump."""
    return [bytes.fromhex(each) for each in _netlink()[name]]


def number(name: str) -> Any:
    """A number that belongs to a reply."""
    return _netlink()[name]


def answer(name: str) -> bytes:
    """The body of an answer of the engine."""
    return (SAMPLES / name).read_bytes()
