from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.fake_engine import FakeEngine, docker, reply
from tests.host.test_sweep import HOST, SNIFFER
from tests.made_up import NOW, WHERE
from tests.probe_samples import answer
from verify_audit.cli.commands import COMMANDS
from verify_audit.cli.sniffers import app
from verify_audit.host.observation import Unobservable
from verify_audit.host.sweep import Swept, SweptNamespace
from verify_audit.probes import sweep

CALM, BLIND, FOUND = 0, 10, 11
NO_ENGINE = "unix:///nonexistent/docker.sock"
FAILURE = Unobservable(WHERE, "it was not to be", "be root")

Sweep = Callable[..., None]


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Have the command see these namespaces."""

    def see(*namespaces: SweptNamespace, failures: tuple[Unobservable, ...] = ()) -> None:
        monkeypatch.setattr(sweep, "sweep", lambda: Swept(NOW, namespaces, (), failures))

    return see


def invoke(*arguments: str, engine: str = NO_ENGINE) -> Result:
    return CliRunner().invoke(app, ["--docker-host", engine, *arguments])


def test_it_is_a_command() -> None:
    assert "sniffers" in COMMANDS
    told = CliRunner().invoke(app, ["--help"]).stdout
    for status in ("0 nobody unexplained", "10 something", "11 somebody", "2 wrong usage", "1 verify-audit"):
        assert status in " ".join(told.split())


@pytest.mark.parametrize(
    "arguments", [["--format", "xml"], ["extra"], ["--timeout", "nan"], ["--docker-host", ""]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_nobody_listens(swept: Sweep) -> None:
    swept(HOST)
    assert (invoke().exit_code, invoke("-q").exit_code) == (CALM, CALM)
    assert "0 unexplained" in invoke().stdout
    assert (invoke("-q").output, invoke("-q", "--format", "jsonl").output) == ("", "")


def test_somebody_listens(swept: Sweep) -> None:
    swept(replace(HOST, sockets=(SNIFFER,)))
    assert invoke().exit_code == invoke("-q").exit_code == FOUND
    assert "LISTENS  /usr/bin/tcpdump (pid 4711, uid 0), on veth766e490" in invoke("-q").stdout
    kinds = [json.loads(line)["schema"] for line in invoke("--format", "jsonl").stdout.splitlines()]
    assert kinds == ["verify-audit.listener/1", "verify-audit.device/1", "verify-audit.sweep/1"]


def test_something_could_not_be_looked_at(swept: Sweep) -> None:
    swept(HOST, failures=(FAILURE,))
    ended = invoke("-q")
    assert ended.exit_code == BLIND
    assert "it was not to be" in ended.stdout


def test_without_an_engine_containers_go_by_their_ids(swept: Sweep) -> None:
    swept(replace(HOST, netns=1, members=("c" * 64,), sockets=(SNIFFER,)))
    ended = invoke()
    assert "of container cccccccccccc" in ended.stdout
    assert "no engine answers, so containers go by their ids" in ended.stderr
    assert ended.exit_code == FOUND


def test_the_engine_gives_containers_their_names(swept: Sweep, tmp_path: Path) -> None:
    first = json.loads(answer("engine-20.10/containers.json"))[0]
    swept(replace(HOST, netns=1, members=(first["Id"],), sockets=(SNIFFER,)))
    with FakeEngine(tmp_path / "docker.sock", docker(), default=reply(b"OK")) as server:
        ended = invoke(engine=server.address)
    assert f"of container {first['Names'][0].strip('/')}" in ended.stdout
    assert ended.stderr == ""
    assert {request.split()[0] for request in server.requests} == {"GET"}


def test_the_live_host() -> None:
    """Whatever runs here: it ends with a status that it has, and its sum at the end."""
    ended = invoke("--format", "jsonl")
    assert ended.exit_code in (CALM, BLIND, FOUND)
    total = json.loads(ended.stdout.splitlines()[-1])
    assert total["schema"] == "verify-audit.sweep/1"
    assert total["namespaces"] >= 1
    assert total["devices"] >= 1


def test_not_as_root() -> None:
    """It says what it could not look at, and that is no all-clear."""
    script = (
        "import os, sys\n"
        "import docker, rich.console\n"
        "from verify_audit.cli.sniffers import app\n"
        "import verify_audit.probes.live, verify_audit.probes.sweep, verify_audit.reports.sniffers\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"app(['--docker-host', '{NO_ENGINE}'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (BLIND, FOUND), ended.stderr
    assert "Traceback" not in ended.stderr
    assert "network namespaces and sockets are not for us to see" in ended.stdout
    assert "run verify-audit as root" in ended.stdout
