"""A host of its own for an engine: network namespace, engine, firewall, and its part of the audit log.

Everything that a lab starts it ends, by pid, and everything that it makes it removes, also when a test
fails. What it shares with the machine is the audit log and the kernel.

How SYSCALL and PROCTITLE are taken away (`bare`): a rule `never,task` as on Fedora, RHEL and Amazon
Linux, but for tasks of one personality only, which this process then takes and everything that it starts
inherits. So the rest of the machine is audited as before, and the records are the same as with the
general rule. The personality is a flag that today's kernels do nothing with (WHOLE_SECONDS).
Personalities are a thread's own, so labs of both kinds can stand side by side.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from tests.live.auditlog import AuditLog, LogEvent, audit_log, events_in, sort_out, wait_until
from tests.live.engines import Kind, inside
from tests.live.kin import Kin

CONTEXT = 5.0
"""Seconds of log before what is judged that the program is given with it."""

IMAGE = "busybox:lab"
TOOLS = "tools:lab"
"""Two images: busybox alone; and the host's tcpdump, iptables, nft and ip with their libraries."""

ROOT = Path(__file__).parents[2]

_LOCK = Path(tempfile.gettempdir()) / "verify-audit-live.lock"
_PROGRAMS = (
    "auditctl",
    "auditd",
    "busybox",
    "docker",
    "dockerd",
    "ip",
    "iptables-legacy",
    "iptables-nft",
    "nft",
    "nsenter",
    "strace",
    "tcpdump",
    "unshare",
)
_TOOL_PROGRAMS = ("tcpdump", "xtables-nft-multi", "xtables-legacy-multi", "nft", "ip")
_WHOLE_SECONDS = 0x2000000
_BARE_RULE = ("never,task", "-F", f"pers={_WHOLE_SECONDS:#x}")


def cannot_run() -> list[str]:
    """Why no lab can be brought up here; empty when one can."""
    if os.geteuid() != 0:
        return ["the live tests need root"]
    missing = [program for program in _PROGRAMS if not shutil.which(program, path=_path())]
    reasons = [f"not installed: {', '.join(missing)}"] if missing else []
    busybox = shutil.which("busybox")
    if busybox and _libraries(Path(busybox)):
        reasons.append("busybox is not a static one (Debian: busybox-static)")
    try:
        with Kin():
            pass
    except OSError as error:
        reasons.append(f"the kernel's process connector cannot be used here: {error}")
    return reasons


@dataclass(frozen=True)
class Judgement:
    """What the program said of a log."""

    status: int
    findings: list[dict[str, Any]]
    summary: dict[str, Any]
    stdout: str
    stderr: str

    def of(self, event: LogEvent) -> list[dict[str, Any]]:
        """The findings on one event."""
        return [found for found in self.findings if found["event"]["id"] == event.id]


class Turn:
    """Whose turn it is to write into the audit log: a lock that one lab holds, or several."""

    def __init__(self, *locks: threading.Lock) -> None:
        self._locks = locks

    def acquire(self) -> None:
        """Wait for it."""
        for lock in self._locks:
            lock.acquire()

    def release(self) -> None:
        """Let the next one act."""
        for lock in reversed(self._locks):
            lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Machine:
    """What all labs of a run share: the audit log, and whose turn it is to write into it.

    Labs with companions act in turns among themselves, bare ones too, and both lanes side by side: a record
    with companions names a pid, and so cannot be taken for another lab's. A bare one names an interface
    only, and several labs have a docker0.
    """

    def __init__(self, logs: Sequence[AuditLog]) -> None:
        self.logs = logs
        self.bare_labs: list[Lab] = []
        self._lanes = (threading.Lock(), threading.Lock())
        self._lock = threading.Lock()
        self._bare_rules = 0
        self._archives: dict[str, bytes] = {}

    def turn(self, bare: bool, alone: bool = False) -> Turn:
        """That of a lab; alone: a lab with companions waits for the bare ones as well."""
        return Turn(*self._lanes) if alone and not bare else Turn(self._lanes[bare])

    def add_bare_rule(self) -> None:
        """Load the rule that takes the companions away, for one more lab."""
        with self._lock:
            if not self._bare_rules:
                _run("auditctl", "-a", *_BARE_RULE)
            self._bare_rules += 1

    def remove_bare_rule(self) -> None:
        """Take the rule away, when no other lab needs it."""
        with self._lock:
            self._bare_rules -= 1
            if not self._bare_rules:
                _run("auditctl", "-d", *_BARE_RULE, check=False)

    def archive(self, tools: Path, part: str) -> bytes:
        """A part of the tools, which are the same in all labs, as a tar archive."""
        with self._lock:
            if part not in self._archives:
                done = subprocess.run(["tar", "-C", str(tools), "-c", part], check=True, capture_output=True)
                self._archives[part] = done.stdout
            return self._archives[part]


@dataclass
class Stretch:
    """A part of the log, open until `end` is called on it."""

    events: list[LogEvent] = field(default_factory=list)
    foreign: int = 0


class Lab:
    """A namespace, and in it (after `start_engine`) an engine.

    name: of the namespace; directory: where everything of it is; kind: which engine, which firewall, and
    whether its processes' events come without SYSCALL and PROCTITLE (bare).
    """

    def __init__(self, directory: Path, kind: Kind, machine: Machine, kin: Kin) -> None:
        self.name = directory.name
        self.directory = directory
        self.kind = kind
        self.backend = kind.backend
        self.bare = kind.bare
        self.turn = machine.turn(kind.bare)
        self.log = machine.logs[kind.bare]
        self.machine = machine
        self.kin = kin
        self.engine: subprocess.Popen[bytes] | None = None
        self.socket = directory / "docker.sock"
        self.asked = self.socket  # what the program is told to ask
        self.engine_options: tuple[str, ...] = ()
        self.engine_starter: tuple[str | Path, ...] = ()  # what its command is given to
        self.bus = directory / "system_bus_socket"
        self.bin = directory / "bin"
        self.tools = directory / "tools"
        self._devices = {"docker0"}
        self._monitor: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For everything that is started: the lab's firewall programs first, nothing of the user's Docker."""
        return {
            "PATH": f"{self.bin}:{_path()}",
            "HOME": str(self.directory),
            "LC_ALL": "C.UTF-8",
            "DOCKER_CONFIG": str(self.directory),
            "DOCKER_HOST": f"unix://{self.socket}",
            "XTABLES_LOCKFILE": str(self.directory / "xtables.lock"),
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.bus}",
        }

    # Bringing up and taking down

    def up(self) -> None:
        """Make namespace and directories."""
        if self.bare:
            self.machine.bare_labs.append(self)
        _run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        self.bin.mkdir()
        self._choose_iptables("legacy" if self.backend == "legacy" else "nft")
        self._build_tools()
        # Every name that an interface of the namespace ever has: a bare record says no more.
        with (self.directory / "links").open("wb") as out:
            self._monitor = self.popen("ip", "-o", "monitor", "link", stdout=out)

    def down(self) -> None:
        """End and remove everything; raises at the end, naming what could not be removed."""
        with contextlib.suppress(Exception):
            self.stop_engine(with_containers=True)
        if self._monitor is not None:
            end(self._monitor)
        self.end_all(self.kin.living())
        for mount in _mounts_below(self.directory):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        left_over = [str(pid) for pid in self.kin.living()]
        left_over += [str(path) for path in (self.directory, Path("/run/netns", self.name)) if path.exists()]
        if left_over:
            raise RuntimeError(f"the lab {self.name} left behind: {', '.join(left_over)}")

    def end_all(self, pids: set[int]) -> None:
        """End these processes of ours."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = pids & self.kin.living()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                wait_until(partial(self._reaped, left), "processes of the lab to end", 5)
                break

    def _reaped(self, pids: set[int]) -> bool:
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return not pids & self.kin.living()

    def _choose_iptables(self, variant: str) -> None:
        for family in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                link = self.bin / f"{family}{suffix}"
                link.unlink(missing_ok=True)
                link.symlink_to(installed(f"{family}-{variant}{suffix}"))

    def _build_tools(self) -> None:
        """A small root directory with the host's programs, for containers and for chroot."""
        for name in ("bin", "tmp", "run", "proc", "etc"):
            (self.tools / name).mkdir(parents=True)
        shutil.copy2(installed("busybox"), self.tools / "bin/busybox")
        for applet in ("sh", "sleep", "true", "ls", "ip", "ping", "chroot"):
            (self.tools / "bin" / applet).symlink_to("busybox")
        (self.tools / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        wanted = [Path(installed(name)) for name in _TOOL_PROGRAMS]
        wanted += Path("/usr/lib").glob("*/xtables/*.so")
        wanted += Path("/usr/lib/xtables").glob("*.so")
        for program in wanted:
            for path in (program, *_libraries(program)):
                target = self.tools / str(path).lstrip("/")
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target)
        for name, target_name in (
            ("iptables", "xtables-nft-multi"),
            ("iptables-nft", "xtables-nft-multi"),
            ("iptables-legacy", "xtables-legacy-multi"),
        ):
            link = self.tools / "usr/sbin" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(installed(target_name))

    # Running things

    def inside(self, *command: str | Path) -> list[str]:
        """The command, to be run in the lab's network namespace.

        nsenter, not `ip netns exec`, which mounts a fresh /sys.
        """
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, command)]

    def run(self, *command: str | Path, check: bool = True, **options: Any) -> str:
        """Run a command in the namespace; its output."""
        return _run(*self.inside(*command), check=check, env=self.environment, **options)

    def popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in the namespace."""
        options = {"stdin": subprocess.DEVNULL, "env": self.environment, **options}
        return subprocess.Popen(self.inside(*command), **options)

    def iptables(self, *arguments: str, check: bool = True) -> str:
        """The lab's iptables, run by hand."""
        return self.run("iptables", *arguments, check=check)

    def docker(self, *arguments: str, check: bool = True) -> str:
        """The engine's command line client; its output without the line end."""
        return _run("docker", *arguments, check=check, env=self.environment).rstrip("\n")

    def await_silence(self, seconds: float = 0.3) -> None:
        """Return when the engine's last event is so long past that nobody takes it for the cause of what follows."""

        def silent() -> bool:
            now = time.time()
            times = self.docker(
                "events", f"--since={now - 5:.6f}", f"--until={now:.6f}", "--format={{.TimeNano}}"
            )
            return all(now - int(at) / 1e9 > seconds for at in times.split())

        wait_until(silent, "the engine to fall silent")

    def inspect(self, thing: str, template: str) -> str:
        """`docker inspect` with a template."""
        return self.docker("inspect", "--format", template, thing)

    def links(self) -> dict[str, dict[str, Any]]:
        """The interfaces in the namespace, by name."""
        listed = json.loads(
            self.run("ip", "-j", "-d", "link"), strict=False
        )  # a name may hold terminal codes
        return {link["ifname"]: link for link in listed}

    def veth_of(self, container: str) -> str:
        """The host's end of a running container's only interface."""
        found = self.veths_of(container)
        if len(found) != 1:
            raise LookupError(f"{container} has {len(found)} interfaces here: {found}")
        return found[0]

    def veths_of(self, container: str) -> list[str]:
        """The host's ends of a running container's interfaces."""
        pid = self.inspect(container, "{{.State.Pid}}")
        indexes = {
            link.get("link_index", -1)
            for link in json.loads(_run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", "link"))
        }
        return sorted(name for name, link in self.links().items() if link["ifindex"] in indexes)

    @contextlib.contextmanager
    def sniffer(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """tcpdump in the namespace, from when it listens on."""
        with tempfile.NamedTemporaryFile(dir=self.directory) as errors:
            process = self.popen("tcpdump", "-w", "/dev/null", *arguments, stderr=errors)
            try:
                wait_until(lambda: b"listening on" in Path(errors.name).read_bytes(), "tcpdump to listen")
                yield process
            finally:
                end(process)

    # The engine

    def start_engine(self) -> None:
        """Start dockerd and wait until it answers."""
        self.move_engine()
        self._run_engine()

    def move_engine(self) -> None:
        """Where the lab is of both firewalls, have the engine leave its rules in the old one, if it has not yet."""
        if self.backend == "both" and not (self.directory / "data").exists():
            self._choose_iptables("legacy")
            self._run_engine()
            self.stop_engine()
            self._choose_iptables("nft")

    def _run_engine(self) -> None:
        command = (
            *map(str, self.engine_starter),
            "dockerd",
            f"--data-root={self.directory / 'data'}",
            f"--exec-root={self.directory / 'exec'}",
            f"--pidfile={self.directory / 'docker.pid'}",
            f"--host=unix://{self.socket}",
            *self.engine_options,
        )
        with (self.directory / "dockerd.log").open("ab") as out:
            self.engine = self.popen(*inside(self.kind.root, self.directory, command), stdout=out, stderr=out)
        wait_until(lambda: self._answers(self.engine), "the engine to answer", 60)

    @property
    def engine_name(self) -> str:
        """Its version as it says it, without the distribution's additions."""
        return ".".join(map(str, self.engine_version))

    @cached_property
    def engine_version(self) -> tuple[int, ...]:
        """Of the engine, which has to run: (20, 10, 24)."""
        said = self.docker("version", "-f", "{{.Server.Version}}")
        return tuple(int(number) for number in re.findall(r"\d+", said.partition("+")[0]))

    def ensure_engine(self) -> None:
        """The engine runs, and has the images."""
        if self.engine is None or self.engine.poll() is not None:
            self.start_engine()
        if not self.docker("images", "-q", TOOLS):
            self._import(IMAGE, "bin")
            self._import(TOOLS, ".")

    def stop_engine(self, with_containers: bool = False) -> None:
        """End dockerd, by its pid; after removing its containers if asked to."""
        engine, self.engine = self.engine, None
        if engine is None:
            return
        if engine.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                engine.send_signal(signal.SIGCONT)
            if with_containers:
                containers = self.docker("ps", "-aq", check=False).split()
                if containers:
                    self.docker("rm", "-f", *containers, check=False)
            engine.terminate()
        try:
            engine.wait(20)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait(10)

    def remove(self, *containers: str) -> None:
        """Remove containers at once."""
        self.docker("rm", "-f", "-v", *containers, check=False)

    def _answers(self, engine: subprocess.Popen[bytes] | None) -> bool:
        if engine is None or engine.poll() is not None:
            log = (self.directory / "dockerd.log").read_text(errors="replace")
            raise RuntimeError(f"dockerd ended:\n{log[-3000:]}")
        return self.socket.exists() and bool(self.docker("version", "-f", "{{.Server.Version}}", check=False))

    def _import(self, image: str, part: str) -> None:
        subprocess.run(
            ["docker", "import", "-", image],
            check=True,
            capture_output=True,
            input=self.machine.archive(self.tools, part),
            env=self.environment,
        )

    # The log

    def names(self) -> set[str]:
        """Every name that an interface of the namespace has had so far, as far as that was reported."""
        with contextlib.suppress(FileNotFoundError):
            seen = (self.directory / "links").read_text(errors="surrogateescape")
            self._devices |= set(re.findall(r"^(?:Deleted )?\d+: (\S+?)(?:@\S+)?: ", seen, re.MULTILINE))
        return self._devices

    def devices(self) -> set[str]:
        """Those names, and the present ones."""
        self._devices |= self.names() | set(self.links())
        return self._devices

    def _is_ours(self, device: str) -> bool:
        """Whether a record that names no pid is taken for ours. A bare one may well be of a bare lab's interface."""
        return device in self.devices() and (self.bare or not self._is_in_a_bare_lab(device))

    def _is_in_a_bare_lab(self, device: str) -> bool:
        return any(device in other.names() for other in self.machine.bare_labs)

    def listened_to(self) -> bool:
        """Whether an interface is promiscuous that bare labs have by the same name.

        The record that a killed listener leaves is bare everywhere.
        """
        return not self.bare and any(
            link.get("promiscuity") and self._is_in_a_bare_lab(name) for name, link in self.links().items()
        )

    def adopt(self, *devices: str) -> None:
        """Count interfaces of another namespace as ours."""
        self._devices.update(devices)

    @contextlib.contextmanager
    def stretch(self) -> Iterator[Stretch]:
        """What happens meanwhile: filled with the flagged events that are ours when the block ends."""
        open_stretch = Stretch()
        self.log.mark()
        yield open_stretch
        self.extend(open_stretch)

    def extend(self, stretch: Stretch) -> None:
        """Add what has been written since the stretch ended, or was last extended."""
        found = sort_out(events_in(self.log.mark()), self.kin, self._is_ours)
        stretch.events += found.ours
        stretch.foreign += found.foreign

    @contextlib.contextmanager
    def out_of_turn(self) -> Iterator[None]:
        """Let the other labs act meanwhile."""
        self.turn.release()
        try:
            yield
        finally:
            self.turn.acquire()

    # The program

    def judge(self, events: Sequence[LogEvent], *options: str, timeout: float = 60) -> Judgement:
        """Run the program on these events, as a user of the engine's host would."""
        path = self.directory / "slice.log"
        path.write_bytes(self.host_log(events))
        times = [event.time for event in events]
        span = ["--since", f"{min(times):.3f}", "--until", f"{max(times):.3f}"] if times else []
        return self.judge_file(path, *span, *options, timeout=timeout)

    def host_log(self, events: Sequence[LogEvent]) -> bytes:
        """The log as the host of these events would have it, from CONTEXT seconds before the first.

        What other hosts wrote meanwhile is replaced, a record for a record, so that no serial is missing.
        """
        if not events:
            return b""
        first, last = min(each.time for each in events), max(each.time for each in events)
        there = events_in(self.log.since(first - CONTEXT))
        later = sort_out([each for each in there if each.time > last], self.kin, self._is_ours).ours
        ours = {event.id: event.raw for event in (*events, *later)}
        parts = []
        for event in there:
            placeholder = f"type=USER msg=audit({event.id}): pid=0 uid=0 msg='of another host'\n"
            # As it is in the log now: a stretch may have ended in the midst of its records.
            parts.append(event.raw if ours.pop(event.id, b"") else placeholder.encode())
        return b"".join([*parts, *ours.values()])

    def judge_file(self, path: Path, *options: str, timeout: float = 60) -> Judgement:
        """Run the program on a log file."""
        command = program("--format", "jsonl", "--docker-host", f"unix://{self.asked}", *options, str(path))
        return judged(self.inside(*command), timeout)


def program(*arguments: str) -> list[str]:
    """The command that runs the program of this checkout."""
    return [sys.executable, "-m", "verify_audit", *arguments]


def program_environment() -> dict[str, str]:
    """What the program is given: this checkout, and no leave to write byte code."""
    return {
        "PATH": _path(),
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
    }


def judged(command: Sequence[str], timeout: float = 60) -> Judgement:
    """Run a command that writes jsonl, and read it."""
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        env=program_environment(),
    )
    findings, summary = [], {}
    for line in done.stdout.splitlines():
        parsed = json.loads(line)
        if parsed["schema"].startswith("verify-audit.finding/"):
            findings.append(parsed)
        else:
            summary = parsed
    return Judgement(done.returncode, findings, summary, done.stdout, done.stderr)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """End a process that we started, and wait for it."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """The machine, for one suite: a second one waits here until the first has ended."""
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_LOCK.open("a"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack.enter_context(_as_before(Path("/etc/docker/key.json")))  # engines up to 24 make it
        directory = Path(tempfile.mkdtemp(prefix="va-log-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        first = stack.enter_context(audit_log(directory / "audit"))
        second = AuditLog(first.path)
        stack.callback(second.close)
        _run("auditctl", "-d", *_BARE_RULE, check=False)  # of a suite that was killed
        yield Machine([first, second])


@contextlib.contextmanager
def _as_before(path: Path) -> Iterator[None]:
    """Within the block the file may come to be; afterwards it is gone if it was not there before."""
    there, directory_there = path.exists(), path.parent.exists()
    try:
        yield
    finally:
        if not there:
            path.unlink(missing_ok=True)
        if not directory_there:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


@contextlib.contextmanager
def lab(shared: Machine, kind: Kind) -> Iterator[Lab]:
    """A lab, its engine not yet started; gone when the block ends.

    Whatever it is to start, this thread has to start.
    """
    directory = Path(tempfile.gettempdir()) / f"va-{secrets.token_hex(2)}"
    directory.mkdir(mode=0o711)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        kin = stack.enter_context(Kin())
        if kind.bare:
            stack.enter_context(_without_companions(shared))
        made = Lab(directory, kind, shared, kin)
        stack.callback(made.down)
        made.up()
        yield made


@contextlib.contextmanager
def _without_companions(shared: Machine) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    before = libc.personality(ctypes.c_ulong(0xFFFFFFFF))
    shared.add_bare_rule()
    try:
        if libc.personality(ctypes.c_ulong(before | _WHOLE_SECONDS)) < 0:
            raise OSError(ctypes.get_errno(), "personality")
        yield
    finally:
        libc.personality(ctypes.c_ulong(before))
        shared.remove_bare_rule()


def _run(*command: str, check: bool = True, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", **options
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def installed(name: str) -> str:
    """Where a program is."""
    found = shutil.which(name, path=_path())
    if found is None:
        raise FileNotFoundError(name)
    return found


def is_installed(name: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(name, path=_path()) is not None


@cache
def _libraries(binary: Path) -> tuple[Path, ...]:
    """The shared objects that a binary is linked to; none for a static one."""
    listed = subprocess.run(["ldd", str(binary)], check=False, capture_output=True, text=True).stdout
    return tuple(Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+)", listed, re.MULTILINE))


def _mounts_below(directory: Path) -> list[str]:
    """Mount points in a directory, the deepest first."""
    found = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((path for path in found if Path(path).is_relative_to(directory)), reverse=True)
