"""What README.md says is so: its examples run, its tables are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from shlex import quote

import pytest

from verify_audit.cli import output
from verify_audit.cli.commands import COMMANDS
from verify_audit.reports.summary import Summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
JUDGED = {0, 3, 10, 11}

_FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_WRAPPER = """\
#!/bin/sh
{python} -m verify_audit --host {host} "$@"
echo $? >>{statuses}
"""
_EMPTY_HOST = '{"schema": "verify-audit.host/1", "recorded_at": 0, "answers": []}'


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, which must be some."""
    found = [match["text"] for match in _FENCE.finditer(README) if match["language"] == language]
    assert found, f"no {language} block"
    return found


def cells(title: str) -> list[list[str]]:
    """The rows of the table whose first column has that title."""
    table = re.search(rf"^\| {re.escape(title)} \|.*\n\|[-|]+\|\n((?:\|.*\|\n)+)", README, re.MULTILINE)
    assert table, f"no table {title}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with this checkout's program to be imported, and no terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd=cwd,
    )


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A directory in which scripts/verify-audit is the program, on a recorded host that answers nothing."""
    (tmp_path / "host.json").write_text(_EMPTY_HOST)
    script = tmp_path / "scripts/verify-audit"
    script.parent.mkdir()
    script.write_text(
        _WRAPPER.format(
            python=quote(sys.executable), host=tmp_path / "host.json", statuses=tmp_path / "statuses"
        )
    )
    script.chmod(0o755)
    return tmp_path


def test_help_is_quoted() -> None:
    """The block below the command is what the command prints."""
    quoted = re.search(
        r"^`scripts/verify-audit --help`\n\n```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
    assert quoted
    printed = run(sys.executable, "-m", "verify_audit", "--help").stdout
    assert quoted[1] == "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


@pytest.mark.parametrize("text", blocks("sh"))
def test_examples_run(text: str, sandbox: Path) -> None:
    """Each command of an example judges something, and none says more than that on stderr."""
    done = run("sh", "-c", text, cwd=sandbox)
    statuses = [int(line) for line in (sandbox / "statuses").read_text().split()]
    assert len(statuses) == text.count("scripts/verify-audit")
    assert set(statuses) <= JUDGED - {3}
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("text", blocks("sh root"))
def test_examples_for_root_can_be_read(text: str) -> None:
    """They need a live host's log; here their shell and their options are looked at."""
    assert run("sh", "-n", "-c", text).returncode == 0
    for own in re.findall(r"scripts/verify-audit([^|\n]*)", text):
        command = [word for word in own.split()[:1] if word in COMMANDS]
        printed = run(sys.executable, "-m", "verify_audit", *command, "--help").stdout
        assert set(re.findall(r"--[a-z-]+", own)) <= set(re.findall(r"--[a-z-]+", printed))


@pytest.mark.parametrize("line", [line for text in blocks("crontab") for line in text.splitlines()])
def test_crontab_lines_run(line: str, sandbox: Path) -> None:
    """Five times, a user, and a command that says nothing when there is nothing to judge but stderr's word."""
    match = re.fullmatch(r"(?:[\d*/]+ ){5} root  \S*/(scripts/verify-audit .*)", line)
    assert match
    assert "%" not in line  # crontab(5) would end the command there
    log = sandbox / "audit.log"
    log.write_text("type=EOE msg=audit(1.000:1): \n")
    done = run("sh", "-c", f"{match[1]} {log}", cwd=sandbox)
    assert (sandbox / "statuses").read_text() == "3\n"
    assert done.stdout == ""


def test_exit_statuses() -> None:
    """The table names each status that there is, and each means what it says."""
    told = {int(row[0]): row[1] for row in cells("status")}
    assert Summary(confirmed=1).exit_status == next(n for n, text in told.items() if "every" in text)
    assert Summary(confirmed=1, inconclusive=1).exit_status == next(
        n for n, text in told.items() if "worst is inconclusive" in text
    )
    assert Summary(confirmed=1, inconclusive=1, refuted=1).exit_status == next(
        n for n, text in told.items() if "refuted" in text
    )
    assert Summary().exit_status == next(n for n, text in told.items() if "nothing to judge" in text)
    assert next(n for n, text in told.items() if "failed" in text) == output.FAILED
    assert next(n for n, text in told.items() if "usage" in text) == 2
    assert len(told) == 6


def test_a_failure_and_a_wrong_usage(tmp_path: Path) -> None:
    """Statuses 1 and 2, which no finding leads to."""
    assert run(sys.executable, "-m", "verify_audit", str(tmp_path / "no.log")).returncode == 1
    assert run(sys.executable, "-m", "verify_audit", "--no-such-option").returncode == 2


def test_dependencies() -> None:
    """The table has those of pyproject.toml, each with a reason."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [re.split(r"[^a-z0-9-]", each)[0] for each in project["dependencies"]]
    assert sorted(row[0] for row in cells("package")) == sorted(declared)


def test_rooms_and_links_are_there() -> None:
    """What the README points to is there."""
    rooms = [row[0].strip("`") for row in cells("room in `src/verify_audit`")]
    links = re.findall(r"\]\(([^):]+)\)", README)
    missing = [name for name in rooms if not (ROOT / "src/verify_audit" / name).exists()]
    assert missing + [name for name in links if not (ROOT / name).exists()] == []
