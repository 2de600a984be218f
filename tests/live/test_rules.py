"""`verify-audit rules` on live engines: all that they make is explained, and what others did is found and named."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live.auditlog import LogEvent
from tests.live.engines import KINDS, Kind
from tests.live.lab import IMAGE, Lab, Machine, lab, program, program_environment

_BRIDGE = "com.docker.network.bridge."
_NETWORKS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("user", 0, ()),
    ("inside", 0, ("--internal",)),
    ("six", 0, ("--ipv6", "--subnet", "fd00:aa::/64")),
    ("six-inside", 0, ("--internal", "--ipv6", "--subnet", "fd00:ab::/64")),
    ("apart", 0, ("-o", f"{_BRIDGE}enable_icc=false")),
    ("unmasked", 0, ("-o", f"{_BRIDGE}enable_ip_masquerade=false")),
    ("from-here", 0, ("-o", "com.docker.network.host_ipv4=127.0.0.5")),
    ("routed", 28, ("-o", f"{_BRIDGE}gateway_mode_ipv4=routed")),
    ("open", 28, ("-o", f"{_BRIDGE}gateway_mode_ipv4=nat-unprotected")),
    ("alone", 28, ("--internal", "-o", f"{_BRIDGE}gateway_mode_ipv4=isolated")),
    ("trusting", 28, ("-o", f"{_BRIDGE}trusted_host_interfaces=eth0:eth1")),
)
"""Name, from which engine on, and how it is made."""

_PORTS = (("-p", "18120:80"), ("-p", "127.0.0.1:18121:81"), ("-p", "18122:82/udp"), ("-p", "83"))


@dataclass(frozen=True)
class Told:
    """What one run of `rules` said."""

    status: int
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    stderr: str

    def of(self, standing: str) -> list[dict[str, Any]]:
        """The rows that stand so."""
        return [row for row in self.rows if row["standing"] == standing]


def rules(made: Lab, events: Sequence[LogEvent] = (), *options: str) -> Told:
    """Run the command in the lab, on these events."""
    log = made.directory / "rules.log"
    log.write_bytes(b"".join(event.raw for event in events))
    command = program(
        *("rules", "--format", "jsonl", "--docker-host", f"unix://{made.socket}", "--log", str(log), *options)
    )
    done = subprocess.run(
        made.inside(*command),
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=program_environment(),
        timeout=60,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    summary = rows.pop() if rows and "summary" in rows[-1]["schema"] else {}
    return Told(done.returncode, rows, summary, done.stderr)


WITH_COMPANIONS = [kind for kind in KINDS if not kind.bare]


@pytest.fixture(scope="module", params=WITH_COMPANIONS, ids=[kind.name for kind in WITH_COMPANIONS])
def made(live_machine: Machine, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab whose engine runs."""
    with lab(live_machine, request.param) as made:
        made.ensure_engine()
        yield made


@contextlib.contextmanager
def container(made: Lab, *options: str) -> Iterator[str]:
    """A container that is gone when the block ends."""
    name = made.docker("run", "-d", *options, IMAGE, "sleep", "1000")
    try:
        yield name
    finally:
        made.remove(name)


@contextlib.contextmanager
def network(made: Lab, name: str, *options: str) -> Iterator[None]:
    """A network, and on it a container with published ports."""
    made.docker("network", "create", *options, name)
    try:
        with container(made, "--network", name, "-p", "84", "-p", "85/udp"):
            yield
    finally:
        made.docker("network", "rm", name, check=False)


def all_explained(told: Told) -> None:
    """Nothing is unexplained, nothing missing."""
    assert told.of("unexplained") == told.of("missing") == told.of("unknown") == []
    assert (told.status, told.stderr) == (0, "")
    assert told.summary["explained"] == len(told.rows) > 5


def test_all_that_an_engine_makes_is_explained(made: Lab) -> None:
    version = int(made.docker("version", "-f", "{{.Server.Version}}").partition(".")[0])
    all_explained(rules(made))
    with contextlib.ExitStack() as stack, made.turn, made.stretch() as stretch:
        for port in _PORTS:
            stack.enter_context(container(made, *port))
        all_explained(rules(made))
        for name, since, options in _NETWORKS:
            if version >= since:
                stack.enter_context(network(made, name, *options))
        two = stack.enter_context(container(made, "--network", "user", "-p", "18123:86"))
        made.docker("network", "connect", "apart", two)
        made.extend(stretch)
        told = rules(made, stretch.events)
        all_explained(told)
        made.docker("network", "disconnect", "apart", two)
    certain = [row["origin"] for row in told.rows if row["origin"]]
    assert len(certain) > len(told.rows) / 3
    assert {(origin["actor"]["kind"], origin["doubt"]) for origin in certain} == {("docker", None)}
    all_explained(rules(made))


def test_swarm_and_a_container_on_an_overlay_network(made: Lab) -> None:
    address = json.loads(made.run("ip", "-j", "-4", "addr", "show", "docker0"))[0]["addr_info"][0]["local"]
    made.docker("swarm", "init", f"--advertise-addr={address}", f"--listen-addr={address}")
    try:
        all_explained(rules(made))
        made.docker("network", "create", "-d", "overlay", "--attachable", "over")
        with container(made, "--network", "over", "-p", "18124:87"):
            told = rules(made)
            all_explained(told)
            assert [row["network"]["name"] for row in told.rows if "--dport 18124" in row["rule"]] == [
                "docker_gwbridge"
            ]
    finally:
        made.docker("swarm", "leave", "--force", check=False)
        made.docker("network", "rm", "docker_gwbridge", check=False)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("DOCKER-USER", "-s 203.0.113.7/32 -j ACCEPT"),
        ("DOCKER", "-d 172.17.0.9/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 22 -j ACCEPT"),
        ("INPUT", "-p udp -j DOCKER-USER"),
    ],
)
def test_a_rule_by_hand_and_its_event(made: Lab, chain: str, words: str) -> None:
    rule = [chain, *words.split()]
    with made.turn, made.stretch() as stretch:
        made.iptables("-I", *rule)
        made.iptables("-D", *rule)
        made.iptables("-I", *rule)
    try:
        told = rules(made, stretch.events, "-q")
        (row,) = told.rows
        assert (told.status, row["standing"], row["chain"], row["rule"]) == (11, "unexplained", chain, words)
        backend = "legacy" if made.backend == "legacy" else "nft"
        assert (row["backend"], row["handle"] is None) == (backend, backend == "legacy")
        assert row["position"] == 1
        last = [event for event in stretch.events if event.of("NETFILTER_CFG")][-1]
        origin = row["origin"]
        assert (origin["event"], origin["doubt"]) == (last.id, None)
        assert origin["actor"]["kind"] == "process"
        assert origin["actor"]["exe"].endswith("-multi")
        assert last.syscall is not None
        assert str(origin["actor"]["pid"]) == last.syscall.field("pid")
    finally:
        made.iptables("-D", *rule)


@pytest.mark.parametrize("how", ["-D FORWARD -j DOCKER-USER", "-t nat -F DOCKER", "-F"])
def test_what_was_flushed_is_missing_and_who_did_it(made: Lab, how: str) -> None:
    with container(made, "-p", "18125:88"), made.turn:
        before = made.run("iptables-save")
        try:
            with made.stretch() as stretch:
                made.iptables(*how.split())
            told = rules(made, stretch.events, "-q")
        finally:
            made.run("iptables-restore", input=before)
        assert told.rows == told.of("missing")
        if made.backend == "both" and not told.rows:  # the other backend has them all still
            assert told.status == 0
            return
        assert told.status == 10
        (done,) = {row["origin"]["event"] for row in told.rows}
        assert done in [event.id for event in stretch.events]
        assert {row["origin"]["command"] for row in told.rows} == {f"iptables {how}"}
        assert {row["origin"]["actor"]["kind"] for row in told.rows} == {"process"}
        assert {row["origin"]["doubt"] for row in told.rows} == {None}
        all_explained(rules(made))


def test_without_the_engine_nothing_is_called_unexplained(made: Lab) -> None:
    told = rules(made, (), "--docker-host", "unix:///nowhere")
    assert (told.status, told.of("unknown")) == (10, told.rows)
    assert len(told.rows) > 5


def test_a_chain_that_docker_never_makes(made: Lab) -> None:
    name = "DOCKER-\x1b[31m\u202e"
    made.iptables("-N", name)
    try:
        told = rules(made, (), "-q")
        assert [(row["chain"], row["rule"], row["standing"]) for row in told.rows] == [
            (name, None, "unexplained")
        ]
        assert told.status == 11
    finally:
        made.iptables("-X", name)


def test_without_companions_it_is_said_that_it_may_have_been(live_machine: Machine) -> None:
    with lab(live_machine, Kind(None, "nft", True)) as made:
        made.ensure_engine()
        with made.turn, made.stretch() as stretch:
            made.iptables("-I", "DOCKER-USER", "-s", "203.0.113.7", "-j", "ACCEPT")
        told = rules(made, stretch.events, "-q")
        (row,) = told.rows
        assert (row["origin"]["event"], row["origin"]["command"]) == (stretch.events[-1].id, None)
        assert "name no command" in row["origin"]["doubt"]
        assert "iptables" in row["origin"]["actor"]["text"]


def test_nothing_of_dockers(live_machine: Machine) -> None:
    with lab(live_machine, Kind(None, "nft", False)) as made:
        told = rules(made)
        assert (told.status, told.rows) == (3, [])
        assert "iptables=false" in told.stderr
