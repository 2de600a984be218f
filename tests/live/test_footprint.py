"""A run is watched: it only reads, and makes no record of the kind that it judges."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.auditlog import LogEvent
from tests.live.engines import Kind
from tests.live.lab import IMAGE, Lab, Machine, judged, lab, program, program_environment

_HERE, _ELSEWHERE = "in the engine's namespace", "in another namespace"
_SWEEP, _RULES = "sniffers", "rules"
_CALLS = (
    "execve,execveat,fork,vfork,clone,clone3,kill,socket,bind,connect,sendto,sendmsg,sendmmsg,write,writev,"
    "pwrite64,open,openat,openat2,creat,truncate,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,"
    "link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,mknod,mknodat,mount,umount2,unshare,setns,"
    "setsockopt,getsockopt,ioctl,init_module,finit_module,ptrace,personality"
)
# strace gives names where it is in the same namespace, else numbers: RTM_GETLINK, RTM_GETNEIGH, RTM_GETQDISC,
# RTM_GETNSID, SOCK_DIAG_BY_FAMILY, and of nf_tables GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM and GETGEN.
_READING = re.compile(
    r"RTM_GET\w+|SOCK_DIAG_BY_FAMILY|NFNL_SUBSYS_NFTABLES<<8\|NFT_MSG_GET\w+"
    r"|(?:0x12|0x1e|0x26|0x5a|0x14|0xa01|0xa04|0xa07|0xa0a|0xa0d|0xa10) .*"
)


@dataclass(frozen=True)
class Watched:
    """What one run did, as strace(1) writes it: a call a line, without the pid."""

    kind: str
    status: int
    stdout: str
    stderr: str
    calls: list[str]

    def of(self, *names: str) -> list[str]:
        """The calls of these names that the kernel did not refuse as unknown files."""
        return [call for call in self.calls if call.partition("(")[0] in names and "ENOENT" not in call]


@pytest.fixture(scope="session", params=["nft", "legacy"])
def busy(live_machine: Machine, request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Sequence[LogEvent]]]:
    """A lab with containers on each kind of network, and events of every kind, Docker's and others'."""
    with lab(live_machine, Kind(None, request.param, False)) as made:
        made.ensure_engine()
        made.docker("network", "create", "quiet")
        made.docker("run", "-d", "--name", "first", "-p", "18090:90", IMAGE, "sleep", "1000")
        with made.turn, made.stretch() as stretch:
            made.docker("run", "-d", "--name", "second", "-p", "18091:91", IMAGE, "sleep", "1000")
            made.docker("run", "-d", "--name", "third", "--network", "quiet", IMAGE, "sleep", "1000")
            made.iptables("-I", "DOCKER-USER", "-s", "203.0.113.9", "-j", "ACCEPT")
            with made.sniffer("-i", "docker0"):
                pass
        assert len(stretch.events) >= 8
        yield made, stretch.events


@pytest.fixture
def busy_lab(busy: tuple[Lab, Sequence[LogEvent]]) -> Lab:
    """The lab."""
    return busy[0]


@pytest.fixture
def events(busy: tuple[Lab, Sequence[LogEvent]]) -> Sequence[LogEvent]:
    """The events."""
    return busy[1]


@pytest.fixture(scope="module", params=[_HERE, _ELSEWHERE, _SWEEP, _RULES])
def watched(request: pytest.FixtureRequest, busy: tuple[Lab, Sequence[LogEvent]]) -> Watched:
    """One whole run under strace: the judgement of the events, the sweep while somebody listens, or the rules."""
    busy_lab, events = busy
    log, trace = busy_lab.directory / "watched.log", busy_lab.directory / "trace"
    log.write_bytes(b"".join(event.raw for event in events))
    arguments = {_SWEEP: ["sniffers"], _RULES: ["rules", "--log", str(log)]}.get(request.param, [str(log)])
    command = [
        *("strace", "-f", "-qq", "-s", "300", "-o", str(trace), "-e", f"trace={_CALLS}"),
        *program(*arguments, "--format", "jsonl", "--docker-host", f"unix://{busy_lab.socket}"),
    ]
    with contextlib.ExitStack() as stack:
        if request.param == _SWEEP:
            stack.enter_context(_listeners(busy_lab))
        done = subprocess.run(
            command if request.param == _ELSEWHERE else busy_lab.inside(*command),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=program_environment(),
            timeout=60,
        )
    return Watched(request.param, done.returncode, done.stdout, done.stderr, _whole_calls(trace))


@contextlib.contextmanager
def _listeners(lab: Lab) -> Iterator[None]:
    """Two who listen without a record of it: on the host, and in a container's namespace."""
    inside = ["nsenter", "-t", lab.inspect("first", "{{.State.Pid}}"), "-n", "tcpdump", "-p", "-i", "eth0"]
    with lab.sniffer("-p", "-i", "any", "-Z", "root"):
        process = lab.popen(*inside, "-Z", "root", "-w", "/dev/null", stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            while b"listening on" not in process.stderr.readline():
                assert process.poll() is None
            yield
        finally:
            process.terminate()
            process.communicate()


def _whole_calls(trace: Path) -> list[str]:
    """The calls, those that strace wrote in two parts put together."""
    calls, begun = [], {}
    for line in trace.read_text(errors="replace").splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", call)
        if resumed:
            call = begun.pop(pid, "") + call[resumed.end() :]
        calls.append(call)
    return calls + list(begun.values())


def test_the_run_judged(watched: Watched, events: Sequence[LogEvent]) -> None:
    """What was watched is a run that had everything to do."""
    assert watched.status == 11, watched.stderr
    if watched.kind == _SWEEP:
        assert watched.stdout.count('"verify-audit.listener/1"') >= 2
        assert watched.of("setns")
    elif watched.kind == _RULES:
        assert watched.stdout.count('"verify-audit.rule/1"') >= 20
        assert watched.stdout.count('"standing":"unexplained"') == 1
    else:
        assert watched.stdout.count('"verify-audit.finding/1"') >= len(events)
    assert "Traceback" not in watched.stderr


def test_no_program_is_started(watched: Watched) -> None:
    """But for the interpreter itself; and no process, only threads."""
    assert len(watched.of("execve", "execveat")) == 1
    assert not [call for call in watched.of("clone", "clone3", "fork", "vfork") if "CLONE_THREAD" not in call]
    assert not watched.of("kill", "ptrace", "init_module", "finit_module", "personality")


def test_nothing_is_written_but_the_report(watched: Watched) -> None:
    """No file is opened for writing, made, renamed or removed; what is written goes to stdout and stderr."""
    opened = watched.of("open", "openat", "openat2", "creat")
    assert opened
    assert not [call for call in opened if re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|^creat", call)]
    assert not [
        call for call in watched.of("write", "writev", "pwrite64") if not re.match(r"writev?\([12],", call)
    ]
    assert not watched.of(
        *("truncate", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "link"),
        *("linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "chown", "mknod", "mknodat"),
    )


def test_only_get_requests_reach_the_engine(watched: Watched) -> None:
    """Whatever goes over a UNIX socket is a GET."""
    requests = [call for call in watched.of("sendto", "sendmsg", "write") if " HTTP/1.1" in call]
    assert requests
    assert not [call for call in requests if not re.match(r'\w+\(\d+, "GET /', call)]


def test_netlink_is_only_asked(watched: Watched) -> None:
    """Requests that read, of the kinds known to; no other kind of socket is spoken on."""
    sent = watched.of("sendto", "sendmsg", "sendmmsg")
    netlink = [call for call in sent if "nlmsg_type=" in call]
    assert netlink
    kinds = {kind for call in netlink for kind in re.findall(r"nlmsg_type=([^,]+),", call)}
    assert not {kind for kind in kinds if not _READING.fullmatch(kind)}
    assert not [call for call in sent if "nlmsg_type=" not in call and " HTTP/1.1" not in call]
    families = {call.split("(")[1].split(",")[0] for call in watched.of("socket")}
    # AF_INET: the legacy tables are read by getsockopt. AF_INET6: urllib3 tries whether there is IPv6.
    assert families <= {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"}
    assert not [call for call in watched.of("connect") if "AF_UNIX" not in call]


def test_nothing_is_set(watched: Watched) -> None:
    """No mount, no new namespace, no firewall: setsockopt on SOL_IP and SOL_IPV6 replaces tables."""
    assert not watched.of("mount", "umount2", "unshare")
    assert not [call for call in watched.of("setns") if "CLONE_NEWNET" not in call]
    assert not [call for call in watched.of("setsockopt") if re.match(r"setsockopt\(\d+, SOL_IP", call)]
    assert not [call for call in watched.of("setsockopt") if "SOL_PACKET" in call]


def test_legacy_tables_are_read_where_there_are_some(watched: Watched, busy_lab: Lab) -> None:
    """And are not asked for where there are none: asking would make them."""
    asked = [call for call in watched.of("getsockopt") if "IPT_SO_GET_ENTRIES" in call]
    assert bool(asked) == (busy_lab.backend == "legacy" and watched.kind != _SWEEP)


@pytest.mark.parametrize("kind", [_HERE, _SWEEP, _RULES])
def test_no_record_is_caused(busy_lab: Lab, events: Sequence[LogEvent], kind: str) -> None:
    """The log has nothing flagged of ours after a run, and the kernel the same tables, mounts and links."""
    before = _state(busy_lab)
    with busy_lab.turn, busy_lab.stretch() as stretch:
        if kind == _SWEEP:
            with _listeners(busy_lab):
                status = judged(busy_lab.inside(*program("sniffers", "--format", "jsonl"))).status
        elif kind == _RULES:
            socket = f"unix://{busy_lab.socket}"
            status = judged(
                busy_lab.inside(*program("rules", "--docker-host", socket, "--format", "jsonl"))
            ).status
        else:
            status = busy_lab.judge(events).status
    assert status == 11
    assert not stretch.events, "\n".join(map(str, stretch.events))
    assert _state(busy_lab) == before


def _state(lab: Lab) -> dict[str, str]:
    """What a run must leave as it is."""
    return {
        "tables": lab.run("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"),
        "rules": lab.iptables("-S") + lab.iptables("-t", "nat", "-S"),
        "links": ",".join(sorted(f"{name}:{link['promiscuity']}" for name, link in lab.links().items())),
        "promiscuity": ",".join(
            f"{name}:{link['promiscuity']}" for name, link in sorted(lab.links().items())
        ),
        "mounts": str(Path("/proc/self/mountinfo").read_text().count(str(lab.directory))),
        "containers": lab.docker("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Image}}"),
        "networks": lab.docker("network", "ls", "--no-trunc"),
    }
