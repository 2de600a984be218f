"""The command line, mostly as a user runs it. Its verdicts are tested elsewhere; here is what it does with them."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
from typer.testing import CliRunner

import verify_audit
from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, PROCTITLE, SYSCALL
from tests.fake_engine import FakeEngine, docker, drip, hang, reply
from tests.made_up import NETNS, MadeUpHost, docker_host, event, listener, seen, unseen
from verify_audit.cli.check import app
from verify_audit.host.facts import PacketSockets
from verify_audit.host.observation import Observation
from verify_audit.host.questions import TOPICS, AskedOnce, Question, packet_sockets
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import dump, load

ALL, NOTHING, WRONG_USE, FAILED, DOUBT, REFUTED = 0, 3, 2, 1, 10, 11
LOG = b"".join(each + b"\n" for each in (ANOM, ANOM_SYSCALL))
CODES = re.compile(r"\x1b\[[0-9;]*m")
COMMAND = [sys.executable, "-m", "verify_audit"]
ENVIRONMENT = {
    "PYTHONPATH": ":".join(sys.path),
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "TZ": "UTC",
    "LC_ALL": "C",
}


class Ended:
    """What a run came to. There is never a traceback, and never a fault of ours."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status, self.out, self.err = status, out.decode("utf-8"), err.decode("utf-8")
        assert "Traceback" not in self.err, self.err
        assert "fault in verify-audit" not in self.err, self.err


def run(
    *arguments: str | Path, stdin: bytes = b"", stdout: Any = subprocess.PIPE, **environment: Any
) -> Ended:
    ended = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | environment,
        timeout=30,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout or b"", ended.stderr)


def invoke(*arguments: str | Path, stdin: bytes | None = None) -> Ended:
    """The same in this process, where the way out does not matter."""
    result = CliRunner().invoke(app, list(map(str, arguments)), input=stdin, prog_name="verify-audit")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return Ended(FAILED, result.stdout_bytes, str(result.exception).encode())
    return Ended(result.exit_code, result.stdout_bytes, result.stderr_bytes)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(LOG)
    return path


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A recorded host on which Docker attached the device of the log."""
    return record(tmp_path / "host.json", docker_host())


def record(path: Path, made_up: MadeUpHost) -> Path:
    kept = AskedOnce(made_up)
    list(investigate([event(ANOM, ANOM_SYSCALL), event(NETFILTER, SYSCALL, PROCTITLE)], kept))
    answers: dict[Question[Any], Observation[Any]] = {**made_up.answers, **kept.answers}
    path.write_text(dump(answers, 1795436300.0))
    return path


# Help, version, wrong use


def test_version() -> None:
    ended = run("--version")
    assert (ended.status, ended.out, ended.err) == (0, f"verify-audit {verify_audit.__version__}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_option_and_exit_status(option: str) -> None:
    ended = invoke(option)
    assert (ended.status, ended.err) == (0, "")
    options = {parameter.name for parameter in _command().params if parameter.name != "logs"}
    assert options == {
        *("event", "since", "until", "quiet", "format", "docker_host", "timeout", "host", "save_host"),
        *("demo", "color", "version"),
    }
    for name in options:
        assert f"--{name.replace('_', '-')}" in ended.out
    for status in (0, 1, 2, 3, 10, 11):
        assert re.search(rf"\b{status}\b", ended.out.partition("Exit status:")[2])


def _command() -> Any:
    import typer.main  # noqa: PLC0415

    return typer.main.get_command(app)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["--format", "xml"],
        ["--color", "sometimes"],
        ["--timeout", "0"],
        ["--timeout", "601"],
        ["--timeout", "nan"],
        ["--timeout", "soon"],
        ["--docker-host", ""],
        ["--since", "tomorrow-ish"],
        ["--until", "2026-13-45"],
        ["--since", "2026-11-24", "--until", "2026-11-23"],
        ["--event", "7"],
        ["--event", "1.2:x"],
        ["--demo", "audit.log"],
        ["--event"],
    ],
)
def test_wrong_use_is_said_before_anything_is_read(arguments: list[str]) -> None:
    ended = invoke(*arguments)
    assert (ended.status, ended.out) == (WRONG_USE, "")
    assert "Error" in ended.err or "Usage" in ended.err


# Verdicts come through


def test_a_confirmed_event(log: Path, host: Path) -> None:
    ended = run(log, "--host", host)
    assert (ended.status, ended.err) == (ALL, "")
    assert ended.out.startswith("CONFIRMED  Docker attached veth766e490 to its bridge docker0")
    assert ended.out.endswith("1 event: 1 confirmed, 0 refuted, 0 inconclusive\n")
    assert "\x1b" not in ended.out


def test_a_refuted_event_and_the_worst_of_several(tmp_path: Path, host: Path) -> None:
    tcpdump = ANOM.replace(b"veth766e490", b"docker0").replace(b":31)", b":99)")
    other = (
        ANOM_SYSCALL.replace(b":31)", b":99)")
        .replace(b"pid=3059", b"pid=4711")
        .replace(b"syscall=44", b"syscall=54")
    )
    path = tmp_path / "audit.log"
    path.write_bytes(LOG + tcpdump + b"\n" + other.replace(b"a1=c000fa4ff0 a2=28", b"a1=107 a2=1") + b"\n")
    ended = invoke(path, "--host", host, "--format", "jsonl")
    verdicts = [json.loads(line).get("verdict") for line in ended.out.splitlines()]
    assert verdicts == ["confirmed", "refuted", None]
    assert ended.status == REFUTED
    quiet = invoke(path, "--host", host, "--format", "jsonl", "--quiet")
    assert [json.loads(line).get("verdict") for line in quiet.out.splitlines()] == ["refuted", None]
    assert quiet.status == REFUTED


def test_quiet_is_silent_when_all_is_confirmed(log: Path, host: Path) -> None:
    for form in ("text", "jsonl"):
        ended = invoke(log, "--host", host, "--quiet", "--format", form)
        assert (ended.status, ended.out, ended.err) == (ALL, "", "")


def test_quiet_tells_who_listens_on_what_docker_attached(log: Path, tmp_path: Path) -> None:
    on = docker_host({packet_sockets(15): seen(PacketSockets(NETNS, (listener(15, 15),)))})
    path = tmp_path / "listened.json"
    answers = AskedOnce(on)
    list(investigate([event(ANOM, ANOM_SYSCALL)], answers))
    path.write_text(dump(answers.answers, 0.0))
    text = invoke(log, "--host", path, "--quiet")
    assert (text.status, text.out.startswith("CONFIRMED"), "  ! " in text.out) == (ALL, True, True)
    first, summary = map(json.loads, invoke(log, "--host", path, "-q", "--format", "jsonl").out.splitlines())
    assert (len(first["warnings"]) > 0, summary["confirmed"]) == (True, 1)


def test_quiet_tells_of_lines_that_could_not_be_read(log: Path, host: Path) -> None:
    log.write_bytes(LOG + b"\x00\x01 no record\n")
    text = invoke(log, "--host", host, "--quiet")
    assert (text.status, "1 line of the log could not be read" in text.out) == (ALL, True)
    (summary,) = map(json.loads, invoke(log, "--host", host, "-q", "--format", "jsonl").out.splitlines())
    assert summary["unparsed"] == 1


def test_a_record_of_another_host_is_not_judged(log: Path, host: Path) -> None:
    log.write_bytes(b"".join(b"node=elsewhere " + line + b"\n" for line in LOG.splitlines()))
    ended = invoke(log, "--host", host)
    assert ended.status == DOUBT
    assert "the record is of node elsewhere, and this host is host1.example" in ended.out
    log.write_bytes(log.read_bytes().replace(b"node=elsewhere", b"node=host1"))
    assert invoke(log, "--host", host).status == ALL


def test_an_engine_that_could_not_be_asked_confirms_and_refutes_nothing(tmp_path: Path, log: Path) -> None:
    blind = MadeUpHost({})
    questions: list[Question[Any]] = [
        Question(topic, {"link": "veth766e490", "process": "3059"}.get(topic, "")) for topic in TOPICS
    ]
    blind.answers = {question: unseen() for question in questions}
    path = tmp_path / "blind.json"
    path.write_text(dump(blind.answers, 1.0))
    ended = invoke(log, "--host", path)
    assert ended.status == DOUBT
    assert "could not look: " in ended.out


# Demo


def test_demo_on_a_recorded_host(host: Path) -> None:
    ended = run("--demo", "--host", host)
    assert ended.status in (DOUBT, REFUTED)
    assert "event 1545458152.159:227" in ended.out
    assert "event 1545458160.483:241" in ended.out
    assert ended.err == ""


def test_demo_without_an_engine_says_what_is_missing(tmp_path: Path) -> None:
    ended = run("--demo", "--docker-host", f"unix://{tmp_path}/none.sock")
    assert ended.status == DOUBT
    assert "none.sock: " in ended.out
    assert "No such file or directory" in ended.out
    assert "next time: " in ended.out


# Logs


def test_the_default_log_that_is_not_there_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verify_audit.cli.log.DEFAULT_LOG", tmp_path / "audit.log")
    ended = invoke()
    assert (ended.status, ended.out) == (FAILED, "")
    assert ended.err.startswith(f"there is no audit log at {tmp_path}/audit.log. ")
    assert "--demo" in ended.err


def test_a_log_that_is_not_there_or_is_no_file(tmp_path: Path) -> None:
    missing = run(tmp_path / "\x1b[31m.log")
    assert (missing.status, missing.out) == (FAILED, "")
    assert missing.err == f"verify-audit: {tmp_path}/\\x1b[31m.log: No such file or directory\n"
    directory = invoke(tmp_path)
    assert (directory.status, directory.err) == (FAILED, f"{tmp_path}: Is a directory")


def test_a_log_that_may_not_be_read_is_for_root(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    ended = invoke(log)
    assert (ended.status, ended.out) == (FAILED, "")
    assert ended.err == f"{log}: Permission denied. Audit logs are for root: run verify-audit as root"


def test_a_log_after_a_missing_one_is_not_judged_alone(log: Path, host: Path, tmp_path: Path) -> None:
    ended = invoke(log, tmp_path / "none", "--host", host)
    assert (ended.status, ended.out) == (FAILED, "")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0" * 4096, b"type=LOGIN msg=audit(1.000:1): pid=1\n"])
def test_a_log_without_anything_flagged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(content)
    ended = invoke(path, "--docker-host", f"unix://{tmp_path}/none.sock")
    assert ended.status == NOTHING
    assert "nothing to judge" in ended.err
    assert "does not say that nothing happened" in ended.err


@pytest.mark.parametrize(
    ("damage", "unparsed"),
    [
        (bytes(range(256)) * 50 + b"\n", None),
        (b"\x7fELF\x02\x01\n", 1),
        (b"x" * 1_100_000 + b"\n", 1),
        (b"type=ANOM_PROMISCUOUS msg=audit(\xff\xfe\n", 1),
        (ANOM[:70], 1),
        (b"\0\0\0\0", 0),
    ],
)
def test_damage_is_counted_and_does_not_hide_what_is_whole(
    log: Path, host: Path, damage: bytes, unparsed: int | None
) -> None:
    log.write_bytes(LOG + damage)
    ended = invoke(log, "--host", host, "--format", "jsonl")
    finding, summary = map(json.loads, ended.out.splitlines())
    assert (finding["verdict"], ended.status) == ("confirmed", ALL)
    assert summary["unparsed"] == unparsed or (unparsed is None and summary["unparsed"] > 0)


def test_hostile_names_reach_no_terminal(log: Path, host: Path) -> None:
    name = b'\x1b]0;pwned\x07\xff\x9b2J[red]"='
    log.write_bytes(LOG.replace(b"veth766e490", name))
    for arguments in (["--color", "always"], ["--color", "never"], ["--format", "jsonl"]):
        ended = run(log, "--host", host, *arguments)
        assert ended.status in (DOUBT, REFUTED)
        assert all(each.isprintable() or each == "\n" for each in CODES.sub("", ended.out))
        assert "[red]" in ended.out


def test_a_pasted_line_needs_no_end(host: Path) -> None:
    ended = run("-", "--host", host, stdin=LOG.rstrip(b"\n"))
    assert (ended.status, ended.err) == (ALL, "")
    assert "CONFIRMED" in ended.out
    assert "could not be read" not in ended.out


def test_logs_are_read_in_the_order_in_which_they_are_named(log: Path, host: Path, tmp_path: Path) -> None:
    older = tmp_path / "audit.log.1"
    older.write_bytes(LOG.replace(b"1795436164.311:31", b"1795436100.000:1"))
    ended = invoke(older, log, "-", "--host", host, "--format", "jsonl", stdin=b"")
    ids = [json.loads(line)["event"]["id"] for line in ended.out.splitlines()[:-1]]
    assert ids == ["1795436100.000:1", "1795436164.311:31"]


# Which events


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--event", "1795436164.311:31"], ALL),
        (["--event", "audit(1795436164.311:31)"], ALL),
        (["--event", "1795436164.311:32"], NOTHING),
        (["--since", "2026-11-23 12:16Z"], ALL),
        (["--since", "1795436164.312"], NOTHING),
        (["--since", "1795436164.311", "--until", "1795436164.311"], ALL),
        (["--until", "2026-11-23T12:16:04.310Z"], NOTHING),
        (["--until", "now", "--since", "2018-12-22"], None),
        (["--since", "boot"], None),
        (["--since", "today"], None),
        (["--since", "yesterday"], None),
        (["--since", "recent"], None),
    ],
)
def test_which_events_are_judged(log: Path, host: Path, arguments: list[str], status: int | None) -> None:
    ended = invoke(log, "--host", host, *arguments)
    assert ended.status in ((status,) if status is not None else (ALL, NOTHING))
    if ended.status == NOTHING:
        assert ended.out == ""
        assert ("no flagged event" if "--event" in arguments else "nothing to judge") in ended.err


# Recorded hosts


def test_a_host_is_saved_and_judged_again(tmp_path: Path, log: Path) -> None:
    saved = tmp_path / "saved.json"
    with FakeEngine(tmp_path / "docker.sock", docker(), default=reply(b"OK")) as server:
        live = run(log, "--docker-host", server.address, "--save-host", saved, "--format", "jsonl")
        assert all(line.startswith("GET ") for line in server.requests)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert load(saved).answers
    again = run(log, "--host", saved, "--format", "jsonl")
    assert (again.status, again.out) == (live.status, live.out)


def test_a_file_that_is_no_recorded_host(tmp_path: Path, log: Path) -> None:
    for name, content in (("none.json", None), ("rubbish.json", "rubbish"), ("other.json", "{}")):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        ended = invoke(log, "--host", path)
        assert (ended.status, ended.out) == (FAILED, "")
        assert str(path) in ended.err


def test_a_recorded_host_that_cannot_be_written_does_not_cost_the_report(log: Path, host: Path) -> None:
    ended = run(log, "--host", host, "--save-host", "/dev/full")
    assert ended.status == FAILED
    assert ended.out.startswith("CONFIRMED")
    assert (
        ended.err
        == "verify-audit: /dev/full: the recorded host could not be written: No space left on device\n"
    )


# Engines that are none


@pytest.mark.parametrize("behaviour", [hang, drip])
def test_an_engine_that_does_not_answer_is_not_waited_for_long(
    tmp_path: Path, log: Path, behaviour: Any
) -> None:
    with FakeEngine(tmp_path / "docker.sock", {}, default=behaviour) as server:
        ended = run(log, "--docker-host", server.address, "--timeout", "0.2")
    assert ended.status in (DOUBT, REFUTED)
    assert "could not look: Docker API" in ended.out


# Output


def test_a_full_disk_is_a_failure_and_not_a_verdict(log: Path, host: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        for arguments in (
            [log, "--host", host],
            [log, "--host", host, "--format", "jsonl"],
            ["--version"],
            ["--help"],
        ):
            ended = run(*arguments, stdout=full)
            assert ended.status == FAILED
            assert ended.err.count("\n") == 1
            assert "No space left on device" in ended.err


def test_whoever_closes_the_pipe_has_seen_enough(log: Path, host: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = run(log, "--host", host, stdout=closed)
    assert (ended.status, ended.err) == (ALL, "")


@pytest.mark.parametrize(
    ("closed", "err"),
    [
        ("<&-", "standard input is closed"),
        ("</dev/null >&-", "standard output is closed"),
        ("2>&-", None),
        ("0>/dev/null", "standard input: "),
    ],
)
def test_a_stream_that_is_closed_is_said_where_it_can_be(host: Path, closed: str, err: str | None) -> None:
    log = "-" if "<" in closed or "0>" in closed else "/nonexistent"
    if ">&-" in closed and "<" in closed:
        log = "--demo"
    shell = f"exec {quote(sys.executable)} -m verify_audit {log} --host {quote(str(host))} {closed}"
    ended = subprocess.run(
        ["/bin/sh", "-c", shell],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    result = Ended(ended.returncode, ended.stdout, ended.stderr)
    assert result.status == FAILED
    assert err is None or err in result.err


def test_colour_is_asked_for_or_not(log: Path, host: Path) -> None:
    plain = run(log, "--host", host)
    assert "\x1b" not in plain.out
    always = run(log, "--host", host, "--color", "always", NO_COLOR="1", TERM="dumb")
    assert always.out.startswith("\x1b[1;32mCONFIRMED")
    assert CODES.sub("", always.out) == plain.out


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)


@pytest.mark.parametrize(
    ("environment", "options", "coloured"),
    [
        ({"TERM": "xterm"}, [], True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, [], False),
        ({"TERM": "xterm", "NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({"TERM": "xterm"}, ["--color", "never"], False),
    ],
)
def test_on_a_terminal_there_is_colour_unless_it_is_not_wanted(
    log: Path,
    host: Path,
    terminal: tuple[int, int],
    environment: dict[str, Any],
    options: list[str],
    coloured: bool,
) -> None:
    ours, theirs = terminal
    ended = run(log, "--host", host, *options, stdout=theirs, **environment)
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 65536):
            shown += more
    except OSError:  # a terminal that nobody writes to any more
        assert shown
    assert (ended.status, ended.err) == (ALL, "")
    assert (b"\x1b" in shown) == coloured


def test_ctrl_c_ends_it_without_a_word(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    with (
        subprocess.Popen(
            [*COMMAND, str(pipe)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running,
        pipe.open("wb"),
    ):  # which waits until it reads there
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert (running.returncode, out, err) == (-signal.SIGINT, b"", b"")
