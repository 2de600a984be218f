"""The machine's audit log, and the part of it that belongs to a scenario.

Read here with a few lines of its own rather than with the program's parser, which is under test.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.live.kin import Kin

FLAGGED = ("ANOM_PROMISCUOUS", "NETFILTER_CFG")

# What auditd adds has names in capitals only. A device may be named `x\x1dUID=0`.
_ENRICHED = re.compile(rb"\x1d(?!.* [a-z_]+=).*", re.DOTALL)
_LINE = re.compile(rb"type=(\S+) msg=audit\((\d+\.\d+):(\d+)\): (.*)", re.DOTALL)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Return when `condition` holds; TimeoutError naming `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


@dataclass(frozen=True)
class Line:
    """One record: its type, what follows the id, and all of it."""

    type: str
    body: str
    raw: bytes

    def field(self, name: str) -> str | None:
        """The first value of that name, unquoted."""
        found = re.search(rf'(?:\A|[ \'])(?:{name})=(?:"([^"]*)"|([^ ]*))', self.body)
        return None if found is None else found[2] if found[1] is None else found[1]


@dataclass(frozen=True)
class LogEvent:
    """The records of one serial."""

    id: str
    lines: tuple[Line, ...]

    def of(self, *types: str) -> tuple[Line, ...]:
        """The records of these types."""
        return tuple(line for line in self.lines if line.type in types)

    @property
    def time(self) -> float:
        """Seconds since the epoch."""
        return float(self.id.partition(":")[0])

    @property
    def flagged(self) -> tuple[Line, ...]:
        """The records that the program is to judge."""
        return self.of(*FLAGGED)

    @property
    def syscall(self) -> Line | None:
        """The SYSCALL record, None when the task had no audit context."""
        return next(iter(self.of("SYSCALL")), None)

    @property
    def pids(self) -> set[int]:
        """Every pid that the kernel, not a name in the record, says."""
        found = [line.field("pid") for line in self.of("SYSCALL")]
        # From the right: a table may be named `x pid=1`.
        found += [match[1] for line in self.of("NETFILTER_CFG") if (match := _PID.search(line.body))]
        return {int(pid) for pid in found if pid and pid.isdigit()}

    @property
    def raw(self) -> bytes:
        """Its lines as they are in the log."""
        return b"".join(line.raw + b"\n" for line in self.lines)

    def __str__(self) -> str:
        parts = [self.id]
        for line in self.lines:
            if line.type == "SYSCALL":
                names = ("syscall", "exit", "a1", "a2", "ppid", "pid", "auid", "comm", "exe")
                parts.append("SYSCALL " + " ".join(f"{name}={line.field(name)}" for name in names))
            elif line.type == "PROCTITLE":
                parts.append(f"PROCTITLE {proctitle(line.body)}")
            else:
                parts.append(f"{line.type} {line.body}")
        return "\n    ".join(parts)


_PID = re.compile(r' pid=(\d+) (?:subj=.* )?comm=(?:"[^"]*"|[0-9A-F]+)$')


def proctitle(body: str) -> str:
    """The command line of a PROCTITLE record."""
    value = body.removeprefix("proctitle=")
    if value.startswith('"'):
        return value.strip('"')
    with contextlib.suppress(ValueError):
        return bytes.fromhex(value).replace(b"\0", b" ").decode(errors="backslashreplace")
    return value


def events_in(lines: list[bytes]) -> list[LogEvent]:
    """The events that these lines make up, in the order of their first lines."""
    found: dict[str, list[Line]] = {}
    for raw in lines:
        match = _LINE.fullmatch(_ENRICHED.sub(b"", raw))
        if match:
            body = match[4].decode(errors="backslashreplace").strip()
            found.setdefault(f"{match[2].decode()}:{match[3].decode()}", []).append(
                Line(match[1].decode(), body, raw)
            )
    return [LogEvent(name, tuple(parts)) for name, parts in found.items()]


class AuditLog:
    """The log file that the running auditd writes, followed through rotation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._rest = b""
        self._ahead: list[bytes] = []
        self._kept: list[bytes] = []

    def close(self) -> None:
        """Stop following it."""
        self._file.close()

    def mark(self) -> list[bytes]:
        """The lines since the last mark, whole and in order.

        A record of our own is sent through the kernel's queue behind all others, and awaited.
        """
        word = f"verify-audit-live-{secrets.token_hex(8)}"
        subprocess.run(["auditctl", "-m", word], check=True, capture_output=True)
        lines: list[bytes] = []

        def marked() -> bool:
            lines.extend(self._new())
            return any(word.encode() in line for line in lines)

        wait_until(marked, f"our mark in {self.path}: is auditd writing?")
        end = next(n for n, line in enumerate(lines) if word.encode() in line)
        self._ahead = lines[end + 1 :]
        self._kept += lines[: end + 1]
        return lines[:end]

    def since(self, time: float) -> list[bytes]:
        """The lines up to the last mark that are not older than a time (seconds since the epoch)."""
        begin = len(self._kept)
        while begin and _time_of(self._kept[begin - 1]) >= time:
            begin -= 1
        return self._kept[begin:]

    def _new(self) -> list[bytes]:
        text = self._rest + self._file.read()
        current = self.path.stat()
        opened = os.fstat(self._file.fileno())
        if (current.st_ino, current.st_dev) != (opened.st_ino, opened.st_dev):
            text += self._file.read()
            self._file.close()
            self._file = self.path.open("rb")
            text += self._file.read()
        *lines, self._rest = text.split(b"\n")
        lines, self._ahead = self._ahead + lines, []
        return lines


def _time_of(line: bytes) -> float:
    match = _LINE.match(line)
    return float(match[2]) if match else math.inf


@dataclass(frozen=True)
class Sorted:
    """The flagged events of a stretch of log: ours, and how many were provably somebody else's."""

    ours: list[LogEvent]
    foreign: int


def sort_out(events: list[LogEvent], kin: Kin, is_ours: Callable[[str], bool]) -> Sorted:
    """Which flagged events are ours: by the pid, or, where there is none, by the device's name.

    What the kernel did in a worker (a network namespace torn down) has the pid of the worker. Nobody can
    tell whose it was, so it counts as foreign.
    """
    ours, foreign = [], 0
    for event in events:
        if not event.flagged:
            continue
        pids = event.pids
        if pids:
            own = any(pid in kin for pid in pids)
        else:
            own = any(is_ours(line.field("dev") or "") for line in event.of("ANOM_PROMISCUOUS"))
        if own:
            ours.append(event)
        else:
            foreign += 1
    return Sorted(ours, foreign)


# The daemon


def status() -> dict[str, str]:
    """What `auditctl -s` says."""
    answer = subprocess.run(["auditctl", "-s"], check=True, capture_output=True, text=True).stdout
    return dict(line.split(maxsplit=1) for line in answer.splitlines() if " " in line)


def running_log() -> Path | None:
    """The log file of the auditd that runs on this machine, None when none does."""
    pid = int(status().get("pid", "0"))
    if not pid:
        return None
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
    directory = words[words.index("-c") + 1] if "-c" in words else "/etc/audit"
    conf = (Path(directory) / "auditd.conf").read_text()
    found = re.search(r"^\s*log_file\s*=\s*(\S+)", conf, re.MULTILINE)
    return Path(found[1]) if found else Path("/var/log/audit/audit.log")


_CONF = """\
local_events = yes
write_logs = yes
log_file = {directory}/audit.log
log_group = root
log_format = RAW
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 500
num_logs = 2
max_log_file_action = IGNORE
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
"""


@contextlib.contextmanager
def audit_log(directory: Path) -> Iterator[AuditLog]:
    """The machine's audit log; with an auditd of our own, in `directory`, where none runs.

    One auditd at a time: one that runs is not replaced. Settings that are changed are put back.
    """
    before = status()
    with contextlib.ExitStack() as stack:
        stack.callback(_put_back, before)
        path = running_log() or _start_auditd(directory, stack)
        _set(status(), _WANTED)
        log = AuditLog(path)
        stack.callback(log.close)
        log.mark()
        yield log


_WANTED = {"enabled": "1", "backlog_limit": "8192", "backlog_wait_time": "0"}
_FLAGS = {"enabled": "-e", "backlog_limit": "-b", "backlog_wait_time": "--backlog_wait_time"}


def _set(now: dict[str, str], wanted: dict[str, str]) -> None:
    if now.get("enabled") == "2":  # locked until the next boot
        return
    for name, flag in _FLAGS.items():
        if name in wanted and now.get(name) not in (None, wanted[name]):
            subprocess.run(["auditctl", flag, wanted[name]], check=True, capture_output=True)


def _put_back(before: dict[str, str]) -> None:
    _set(status(), before)


def _start_auditd(directory: Path, stack: contextlib.ExitStack) -> Path:
    directory.mkdir(mode=0o700)
    conf = directory / "auditd.conf"
    conf.write_text(_CONF.format(directory=directory))
    conf.chmod(0o600)
    if Path("/etc/audit/plugins.d").is_dir():
        shutil.copytree("/etc/audit/plugins.d", directory / "plugins.d")
    with (directory / "out").open("wb") as out:
        daemon = subprocess.Popen(
            ["auditd", "-n", "-c", str(directory)], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    stack.callback(_end, daemon)
    log = directory / "audit.log"
    wait_until(lambda: daemon.poll() is not None or log.exists(), "auditd's log file")
    wait_until(lambda: daemon.poll() is not None or status().get("pid") == str(daemon.pid), "auditd")
    if daemon.poll() is not None:
        raise RuntimeError(f"auditd ended at once: {(directory / 'out').read_text()}")
    return log


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
