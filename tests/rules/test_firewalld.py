from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.firewall_samples import engine as sample_engine
from tests.firewall_samples import firewall as sample_firewall
from tests.made_up import DOCKERD, ENGINE, NOT_THERE, NOW, docker_host, event, process, seen, unseen
from verify_audit.findings.finding import CauseKind, Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import Daemon, EngineEvent, History
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.investigate import investigate

VERSION, NETWORKS, CONTAINERS = sample_engine("docker-20.10")
FIREWALL = sample_firewall("docker-20.10")
WEB = next(each for each in CONTAINERS if each.name.endswith("web"))
BRIDGE = WEB.endpoints[0].network_id
FIREWALLD = process(
    812, comm="firewalld", exe="/usr/bin/python3.11", argv=("python3", "/usr/sbin/firewalld", "--nofork")
)
IDENTITY = (
    b"auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295"
)
Changes = dict[Question[Any], Observation[Any]]

PORT = "-A DOCKER ! -i docker0 -o docker0 -p tcp -d 172.17.0.2 --dport 80 -j ACCEPT"
GONE = PORT.replace("172.17.0.2", "172.17.0.9").replace("-A", "-D").replace("80", "88")
JUMP = "-D FORWARD -j DOCKER-USER"


def engine_event(action: str, at: float = 0.05, kind: str = "network", **names: str) -> EngineEvent:
    values = {"container_id": WEB.id, "network_id": BRIDGE, **names}
    return EngineEvent(
        NOW + at, kind, action, values["container_id"], "web", "", values["network_id"], values["network_id"]
    )


CONNECT, DISCONNECT = engine_event("connect"), engine_event("disconnect")


def host(changes: Changes | None = None, *events: EngineEvent) -> Changes:
    return {
        ask.ENGINE: seen(replace(ENGINE, version=VERSION)),
        ask.NETWORKS: seen(tuple(NETWORKS)),
        ask.CONTAINERS: seen(tuple(CONTAINERS)),
        ask.FIREWALL: seen(FIREWALL),
        ask.HISTORY: seen(History(events, NOW - 1000, NOW + 100)),
        ask.process(812): seen(FIREWALLD),
        ask.FIREWALLD: seen(Daemon(FIREWALLD, "owns the name")),
        **(changes or {}),
    }


def records(
    words: str, serial: int = 8, at: float = 0.0, pid: int = 900, ppid: int = 812, table: str = "filter"
) -> Any:
    """The event of a command."""
    argv = b"\0".join(b"" if word == "!" else word.encode() for word in ("iptables", "-w10", *words.split()))
    own = pid == 812
    comm, family = ("firewalld", 1) if own else ("iptables", 2)
    op = words if own else "nft_register_rule"
    head = f"msg=audit({NOW + at:.3f}:{serial}): "
    lines = [
        f'type=NETFILTER_CFG {head}table={table}:9 family={family} entries=1 op={op} pid={pid} comm="{comm}"',
        f"type=SYSCALL {head}arch=c000003e syscall=46 success=yes exit=1 a0=3 a1=7 a2=0 a3=7 items=0 ppid={ppid} "
        f'pid={pid} {IDENTITY.decode()} comm="{comm}" exe="/usr/sbin/xtables-nft-multi" key=(null)',
        f"type=PROCTITLE {head}proctitle={argv.hex().upper()}",
    ]
    return event(*(line.encode() for line in lines))


def judged(words: str, *events: EngineEvent, changes: Changes | None = None, **where: Any) -> Finding:
    (finding,) = investigate([records(words, **where)], docker_host(host(changes, *events)))
    return finding


def test_a_command_to_the_letter_at_its_time_is_confirmed() -> None:
    finding = judged(PORT, CONNECT)
    assert finding.verdict is Verdict.CONFIRMED
    assert finding.cause.kind is CauseKind.DOCKER
    assert finding.cause.text == "the Docker engine, through firewalld (pid 812)"
    assert finding.container is not None
    assert finding.container.name.endswith("web")


@pytest.mark.parametrize(
    "changes",
    [
        {ask.FIREWALLD: NOT_THERE},
        {ask.FIREWALLD: unseen()},
        {ask.FIREWALLD: seen(Daemon(replace(FIREWALLD, uid=1000), "owns the name")),
         ask.process(812): seen(replace(FIREWALLD, uid=1000))},
        {ask.FIREWALLD: seen(Daemon(replace(FIREWALLD, container_id="c" * 64), "owns the name")),
         ask.process(812): seen(replace(FIREWALLD, container_id="c" * 64))},
        {ask.FIREWALL: unseen()},
        {ask.CONTAINERS: unseen()},
    ],
    ids=["nobody", "unseen", "no root", "in a container", "no firewall", "no containers"],
)  # fmt: skip
def test_without_one_of_its_conditions_it_is_not(changes: Changes) -> None:
    assert judged(PORT, CONNECT, changes=changes).verdict is Verdict.INCONCLUSIVE


def test_one_who_only_bears_the_name_is_another_process() -> None:
    other = process(700, comm="firewalld", exe="/usr/bin/python3.11", argv=("python3", "/usr/sbin/firewalld"))
    named: Changes = {ask.FIREWALLD: seen(Daemon(other, "owns the name"))}
    assert judged(PORT, CONNECT, changes=named).verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (PORT, ()),
        (PORT, (DISCONNECT,)),
        (PORT, (engine_event("connect", container_id="d" * 64),)),
        (PORT.replace("-A", "-D"), (CONNECT,)),
        (PORT.replace("80", "81"), (CONNECT,)),
        (GONE, ()),
        (GONE, (CONNECT,)),
        (GONE, (DISCONNECT,)),
        (GONE.replace("-D", "-A"), (CONNECT,)),
        ("-I DOCKER-USER -j RETURN", (engine_event("create"),)),
        ("-F DOCKER-USER", (engine_event("create"),)),
        ("-F DOCKER", (engine_event("create"),)),
        (JUMP, (CONNECT,)),
        ("-A FORWARD -s 203.0.113.9 -j ACCEPT", (CONNECT,)),
        ("-P FORWARD ACCEPT", (CONNECT,)),
    ],
)
def test_another_command_or_another_time_is_inconclusive(words: str, events: tuple[EngineEvent, ...]) -> None:
    assert judged(words, *events).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (GONE, (engine_event("disconnect", container_id="d" * 64),)),
        (GONE.replace("-D", "-A"), (engine_event("connect", container_id="d" * 64),)),
        (JUMP, (engine_event("create"),)),
        ("-I FORWARD -j DOCKER-USER", (engine_event("create"),)),
    ],
)
def test_what_has_gone_and_what_is_put_back(words: str, events: tuple[EngineEvent, ...]) -> None:
    assert judged(words, *events).verdict is Verdict.CONFIRMED


def test_a_network_that_has_gone_is_known_by_the_engines_event() -> None:
    gone = "f" * 64
    words = f"-D FORWARD -i br-{gone[:12]} ! -o br-{gone[:12]} -j ACCEPT"
    destroyed = engine_event("destroy", container_id="", network_id=gone)
    assert judged(words, destroyed).verdict is Verdict.CONFIRMED
    assert judged(words.replace("ffff", "eeee"), destroyed).verdict is Verdict.INCONCLUSIVE


def test_its_own_work_is_refuted_and_named() -> None:
    for words in (
        "-I DOCKER-USER -s 203.0.113.9 -j ACCEPT",
        "-A INPUT_direct -j ACCEPT",
        "-F",
        "-P INPUT DROP",
    ):
        finding = judged(words)
        assert finding.verdict is Verdict.REFUTED, words
        assert finding.looks_like is not None
        assert finding.looks_like.software == "firewalld"
    own = judged("nft_register_rule", pid=812, ppid=1, table="firewalld")
    assert own.verdict is Verdict.REFUTED


def test_its_own_tables_while_docker_gives_it_bridges_are_left_open() -> None:
    events = (engine_event("create"),)
    assert (
        judged("nft_register_rule", *events, pid=812, ppid=1, table="firewalld").verdict
        is Verdict.INCONCLUSIVE
    )


def test_twice_there_is_once_too_often() -> None:
    rule = next(each for each in FIREWALL.rules if str(each).endswith("-p tcp -m tcp --dport 80 -j ACCEPT"))
    twice: Changes = {
        ask.FIREWALL: seen(replace(FIREWALL, rules=(*FIREWALL.rules, replace(rule, handle=999))))
    }
    assert judged(PORT, CONNECT, changes=twice).verdict is Verdict.INCONCLUSIVE


def test_twice_in_the_log_is_too_often() -> None:
    log = [records(PORT), records(PORT.replace("-A", "-D"), 9, 0.01), records(PORT, 10, 0.02)]
    verdicts = {each.verdict for each in investigate(log, docker_host(host(None, CONNECT)))}
    assert verdicts == {Verdict.INCONCLUSIVE}


def test_after_a_reload_docker_gives_all_again() -> None:
    log = [
        records("nft_unregister_table", 5, -0.3, pid=812, ppid=1, table="firewalld"),
        records("nft_register_table", 6, -0.2, pid=812, ppid=1, table="firewalld"),
        records("nft_register_chain", 7, -0.1, pid=812, ppid=1, table="firewalld"),
        records(PORT),
        records("-N DOCKER", 9, 0.1),
        records("nft_register_rule", 10, 0.2, pid=812, ppid=1, table="firewalld"),
    ]
    *own, rule, chain, zone = [each.verdict for each in investigate(log, docker_host(host()))]
    assert set(own) == {Verdict.REFUTED}
    assert (rule, chain, zone) == (Verdict.CONFIRMED, Verdict.CONFIRMED, Verdict.INCONCLUSIVE)
    later = [*log[:3], records(PORT, 11, 60.0)]
    assert [each.verdict for each in investigate(later, docker_host(host()))][-1] is Verdict.INCONCLUSIVE


def test_at_the_engines_start() -> None:
    started = seen(Daemon(replace(DOCKERD, started_at=NOW - 1), "holds the other end"))
    assert judged("-N DOCKER", changes={ask.DAEMON: started}).verdict is Verdict.CONFIRMED
    assert judged("-N DOCKER").verdict is Verdict.INCONCLUSIVE
