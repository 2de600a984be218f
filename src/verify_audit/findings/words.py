"""How things are put in words: times, processes, counts. The same everywhere, so that reports can be searched."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from verify_audit.host.facts import Process


@lru_cache(maxsize=4096)
def clock(at: float) -> str:
    """A time (seconds since the epoch) as local time with its offset: 2026-11-23 12:15:37.259 +00:00."""
    try:
        local = datetime.fromtimestamp(at).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{at:.3f} s after the epoch"
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {offset[:3]}:{offset[3:]}"


def apart(later: float, earlier: float) -> str:
    """How far one time lies from another: "31 ms after", "1.2 s before"."""
    gap = later - earlier
    size = f"{abs(gap) * 1000:.0f} ms" if abs(gap) < 1 else f"{abs(gap):.1f} s"
    return f"{size} {'after' if gap >= 0 else 'before'}"


def who(process: Process) -> str:
    """A process as it is named in a sentence: what it calls itself, its pid, whose it is."""
    user = f", uid {process.uid}" if process.uid is not None else ""
    login = f", login uid {process.loginuid}" if process.loginuid is not None else ""
    return f"{process.exe or process.comm} (pid {process.identity.pid}{user}{login})"


def short(identity: str) -> str:
    """The first 12 digits of a container's or network's id, as docker(1) prints it."""
    return identity[:12]
