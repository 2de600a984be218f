"""The command `rules`, on recorded hosts. What it finds is tested elsewhere; here is what is done with it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.firewall_samples import engine, firewall
from tests.made_up import ENGINE, docker_host, seen, unseen
from tests.test_cli import ALL, DOUBT, FAILED, NOTHING, REFUTED, WRONG_USE, Ended, run
from verify_audit.host import questions as ask
from verify_audit.host.facts import EngineEvent, History
from verify_audit.host.firewall import Backend, Firewall, FirewallRule
from verify_audit.host.iptables_command import parse_rule
from verify_audit.probes.recorded import dump, load

ADDED = (
    "type=NETFILTER_CFG msg=audit(1795436140.000:7): table=filter:9 family=2 entries=1 op=nft_register_rule pid=4711 "
    'subj=unconfined comm="iptables"\n'
    "type=PROCTITLE msg=audit(1795436140.000:7): "
    f"proctitle={b'iptables|-I|DOCKER-USER|-j|ACCEPT'.replace(b'|', bytes(1)).hex().upper()}\n"
)
HAND = FirewallRule(Backend.NFT, "ip", "filter", "DOCKER-USER", 99, parse_rule(["-j", "ACCEPT"], "ip"))


def recorded(tmp_path: Path, *more: FirewallRule, there: Firewall | None = None, **changes: Any) -> Path:
    """A recorded host, which has these rules beside Docker's."""
    version, networks, containers = engine("docker-20.10")
    found = there if there is not None else firewall("docker-20.10")
    host = docker_host(
        {
            ask.ENGINE: seen(replace(ENGINE, version=version)),
            ask.NETWORKS: seen(tuple(networks)),
            ask.CONTAINERS: seen(tuple(containers)),
            ask.FIREWALL: seen(replace(found, rules=found.rules + more)),
            **{getattr(ask, name): answer for name, answer in changes.items()},
        }
    )
    path = tmp_path / "host.json"
    path.write_text(dump(host.answers, 1.0))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_text(ADDED)
    return path


def rules(*arguments: str | Path, stdin: bytes = b"") -> Ended:
    return run("rules", *arguments, stdin=stdin)


def lines(ended: Ended) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    parsed = [json.loads(line) for line in ended.out.splitlines()]
    return parsed[:-1], parsed[-1]


def test_all_explained(tmp_path: Path, log: Path) -> None:
    host = recorded(tmp_path)
    ended = rules("--host", host, "--log", log)
    assert (ended.status, ended.err) == (ALL, "")
    assert "0 unexplained" not in ended.out
    quiet = rules("--host", host, "--log", log, "-q")
    assert (quiet.status, quiet.out, quiet.err) == (ALL, "", "")
    quiet = rules("--host", host, "--log", log, "-q", "--format", "jsonl")
    assert (quiet.status, quiet.out, quiet.err) == (ALL, "", "")


def test_something_unexplained_and_who_made_it(tmp_path: Path, log: Path) -> None:
    ended = rules("--host", recorded(tmp_path, HAND), "--log", log, "-q", "--format", "jsonl")
    (row,), summary = lines(ended)
    assert (ended.status, row["standing"], row["rule"]) == (REFUTED, "unexplained", "-j ACCEPT")
    assert (row["origin"]["event"], row["origin"]["actor"]["pid"]) == ("1795436140.000:7", 4711)
    assert summary["logged"] is True


def test_logs_are_read_from_standard_input_and_one_after_the_other(tmp_path: Path, log: Path) -> None:
    undone = ADDED.replace(":7)", ":8)").replace(b"-I".hex().upper(), b"-D".hex().upper()).encode()
    options = ("--host", recorded(tmp_path, HAND), "--format", "jsonl", "-q")
    for logs, event in (
        (("--log", log), "1795436140.000:7"),
        (("--log", log, "--log", "-"), None),
        (("--log", "-"), None),
    ):
        (row,), _ = lines(rules(*options, *logs, stdin=undone))
        assert (row["origin"] and row["origin"]["event"]) == event


def test_no_log_is_no_failure_but_one_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    host = recorded(tmp_path)
    named = rules("--host", host, "--log", tmp_path / "none.log")
    assert (named.status, named.out) == (FAILED, "")
    assert "none.log" in named.err


def test_lines_that_could_not_be_read_are_counted(tmp_path: Path, log: Path) -> None:
    log.write_text(ADDED + "junk\n")
    ended = rules("--host", recorded(tmp_path), "--log", log)
    assert (ended.status, "1 line of the log" in ended.out) == (ALL, True)


def test_nothing_of_dockers(tmp_path: Path, log: Path) -> None:
    host = recorded(tmp_path, there=Firewall(1))
    ended = rules("--host", host, "--log", log)
    assert (ended.status, ended.out) == (NOTHING, "")
    assert "iptables=false" in ended.err
    quiet = rules("--host", host, "--log", log, "-q")
    assert (quiet.status, quiet.out, quiet.err) == (NOTHING, "", "")


def test_without_the_engine(tmp_path: Path, log: Path) -> None:
    host = recorded(tmp_path, HAND, ENGINE=unseen("no engine answers"), DAEMON=unseen("no engine answers"))
    ended = rules("--host", host, "--log", log)
    assert ended.status == DOUBT
    assert "UNEXPLAINED" not in ended.out
    assert "without the engine" in ended.out
    assert "no engine answers" in ended.out


def test_a_host_that_cannot_be_asked_for_its_firewall(tmp_path: Path, log: Path) -> None:
    ended = rules("--host", recorded(tmp_path, FIREWALL=unseen("not root")), "--log", log, "-q")
    assert ended.status == DOUBT
    assert "not root" in ended.out


def test_a_recorded_host_is_not_waited_for(tmp_path: Path, log: Path) -> None:
    """On a live host the engine's work is given time to be done."""
    now = EngineEvent(time.time(), "network", "connect", "", "", "", "", "")
    history = History((now,), 0.0, time.time())
    began = time.monotonic()
    assert rules("--host", recorded(tmp_path, HAND, HISTORY=seen(history)), "--log", log).status == REFUTED
    assert time.monotonic() - began < 2


def test_a_host_is_saved_and_looked_at_again(tmp_path: Path, log: Path) -> None:
    first = rules("--host", recorded(tmp_path, HAND), "--log", log, "--save-host", tmp_path / "saved.json")
    assert ask.FIREWALL in load(tmp_path / "saved.json").answers
    again = rules("--host", tmp_path / "saved.json", "--log", log)
    assert (again.status, again.out) == (first.status, first.out)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["a.log"], ["--format", "xml"], ["--timeout", "nan"]])
def test_wrong_use(arguments: list[str]) -> None:
    ended = rules(*arguments)
    assert (ended.status, ended.out) == (WRONG_USE, "")


def test_help_names_every_exit_status() -> None:
    ended = rules("--help")
    assert ended.status == 0
    for word in (
        "0 all explained",
        "11 something unexplained",
        "10 something missing",
        "3 nothing of Docker's",
    ):
        assert word in " ".join(ended.out.split())
