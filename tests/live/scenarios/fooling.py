"""What a careless verifier would confirm, or refute, where the other modules have no scenario of it.

Each way to be fooled, and who plays it:

    a sniffer on a port that is promiscuous already   on_links: tcpdump on a container's interface
    a hand-made veth on docker0                       on_links: hand-made veth with Docker's name on docker0
    the same, with its other end in a container       on_links: hand-made veth into a real container
    a name given afterwards, or before                on_links: renamed to Docker's name after joining docker0;
                                                      here: renamed to Docker's name before joining docker0
    the same name in a private network namespace      here: two
    a rule by hand in Docker's chains                 on_firewall: a rule in DOCKER-USER, a rule in DOCKER for a
                                                      real container, Docker's own rule a second time
    a process or a path named dockerd                 on_links: two; here: iptables below one
    a container on the host's network                 on_links: a sniffing container on the host's network;
                                                      on_firewall: a container with NET_ADMIN ...
    a pid that is the engine's by now                 identity: the engine has the pid of who did it
    names that imitate fields, Docker's nft table     on_links, on_firewall: three
    a false API socket, podman, an engine elsewhere   identity: podman ..., another engine ..., a rootless engine ...;
                                                      and tests/live/test_bad_hosts.py
    the engine's events flooded                       here: three
    what was there and is gone                        here: two; on_links: tcpdump on docker0, ended;
                                                      on_firewall: ... made and unmade ...
    old news, made again                              on_links: a container's interface taken off ..., long after
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.live.auditlog import wait_until
from tests.live.lab import IMAGE, Lab, end, installed
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    REFUTED,
    VETH,
    Steps,
    a_container,
    a_veth,
    attack_on_link,
    attack_on_rules,
    docker_port,
    docker_rules,
    scenario,
    start,
)

OPEN = REFUTED | INCONCLUSIVE
RULE = ("DOCKER-USER", "-s", "203.0.113.9", "-j", "ACCEPT")


# Names


@scenario("renamed to Docker's name before joining docker0")
def renamed_before(lab: Lab) -> Steps:
    with a_veth(lab, "before1"):
        lab.run("ip", "link", "set", "before1", "name", "veth7654322")
        try:
            yield ()
            lab.run("ip", "link", "set", "veth7654322", "master", "docker0")
            yield [attack_on_link("enter by hand", "veth7654322", command="ip")]
        finally:
            lab.run("ip", "link", "del", "veth7654322", check=False)


_ELSEWHERE = """
set -e
ip link add docker0 type bridge
ip link add "$1" type veth peer name eth0
ip link set "$1" master docker0
echo done
read -r _ || :
ip link del "$1"
"""


@contextmanager
def _same_name_elsewhere(lab: Lab, veth: str) -> Iterator[None]:
    """Root's own network namespace, in it a docker0 and on it an interface of that name."""
    script = lab.directory / "elsewhere.sh"
    script.write_text(_ELSEWHERE)
    with _until_told(lab, "unshare", "--net", "sh", script, veth):
        yield


@contextmanager
def _until_told(lab: Lab, *command: str | Path) -> Iterator[None]:
    """A command that says `done`, waits for the end of its input, and then undoes what it did."""
    process = lab.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline() != b"done\n":
            raise RuntimeError(f"{command} failed")
        yield
    finally:
        # Not by a signal: what goes with a namespace is taken off its bridge at any time.
        try:
            process.communicate(timeout=10)
        finally:
            end(process)


@scenario("the name of a container's interface in a private namespace, long after")
def same_name_long_after(lab: Lab) -> Steps:
    with a_container(lab, "original") as veth:
        started = time.time()
        with lab.out_of_turn():
            wait_until(lambda: time.time() - started > 5, "the container to have run for a while")
        yield ()
        with _same_name_elsewhere(lab, veth):
            yield [attack_on_link("enter elsewhere", veth, command="ip", bare=OPEN)]


@scenario("the name of a container's interface in a private namespace at once")
def same_name_at_once(lab: Lab) -> Steps:
    with a_container(lab, "namesake") as veth:
        yield ()
        with _same_name_elsewhere(lab, veth):
            yield [attack_on_link("enter elsewhere", veth, command="ip", bare=OPEN)]


@scenario("iptables below a process that calls itself dockerd")
def rule_below_false_dockerd(lab: Lab) -> Steps:
    imposter = lab.directory / "dockerd"
    shutil.copy2(installed("sh"), imposter)
    yield ()
    rule = " ".join(RULE)
    script = f"iptables --wait -I {rule} && echo done; read -r _; iptables -D {rule}"
    with _until_told(lab, imposter, "-c", script):
        yield [attack_on_rules("the rule", command="iptables", bare=OPEN)]


# What the engine has forgotten

_EVENTS = 256
"""So many the engine keeps (moby: daemon/events, eventsLimit)."""

_FLOOD = """
import http.client, socket, sys

class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])

engine = Engine("localhost")
for _ in range(int(sys.argv[2])):
    engine.request("POST", "/images/" + sys.argv[3] + "/tag?repo=flood&tag=lab")
    with engine.getresponse() as answer:
        if answer.status != 201:
            sys.exit(answer.read())
"""


def _flood(lab: Lab) -> None:
    """Have the engine forget all its events up to now."""
    lab.run(sys.executable, "-I", "-c", _FLOOD, lab.socket, str(_EVENTS + 1), IMAGE)
    lab.docker("rmi", "flood:lab")


@scenario("a container's start, and then the engine's events flooded")
def start_forgotten(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "forgotten", "-p", "18190:90")
        veth = lab.veth_of("forgotten")
        _flood(lab)
        yield [
            docker_port(veth, "forgotten", bare=CONFIRMED | INCONCLUSIVE),
            docker_rules("the published port", least=3, container="forgotten"),
        ]
    finally:
        lab.remove("forgotten")


@scenario("a container's end, and then the engine's events flooded")
def end_forgotten(lab: Lab) -> Steps:
    with a_container(lab, "bygone", "-p", "18191:91") as veth:
        yield ()
        lab.remove("bygone")
        _flood(lab)
        yield [
            replace(
                docker_port(veth, None, enters=False, bare=CONFIRMED | INCONCLUSIVE),
                network=None,
                bridge=None,
            ),
            docker_rules("the port that was published", least=3),
        ]


@scenario("a container's interface put back by hand, and then the engine's events flooded")
def attack_forgotten(lab: Lab) -> Steps:
    with a_container(lab, "flooded") as veth, a_veth(lab, "veth4567890") as own:
        yield ()
        lab.run("ip", "link", "set", veth, "nomaster")
        lab.run("ip", "link", "set", veth, "master", "docker0")
        lab.run("ip", "link", "set", own, "master", "docker0")
        _flood(lab)
        yield [
            attack_on_link("leave by hand", veth, enters=False, command="ip", bare=OPEN),
            attack_on_link("enter by hand", veth, command="ip", bare=OPEN),
            attack_on_link("enter of one's own", own, command="ip", bare=OPEN),
        ]


# What is gone


@scenario("a rule by hand in Docker's chain, and gone")
def rule_gone(lab: Lab) -> Steps:
    with a_container(lab, "reopened"):
        address = lab.inspect("reopened", "{{.NetworkSettings.Networks.bridge.IPAddress}}")
        rule = ("DOCKER", "-d", address, "!", "-i", "docker0", "-o", "docker0", "-p", "tcp", "-j", "ACCEPT")
        yield ()
        lab.iptables("--wait", "-I", *rule)
        lab.iptables("--wait", "-D", *rule)
        yield [attack_on_rules("made and taken away", command="iptables", least=2)]


@scenario("run -p, and removed before anybody asks")
def port_gone(lab: Lab) -> Steps:
    yield ()
    start(lab, "shortly", "-p", "18192:92")
    lab.remove("shortly")
    either = CONFIRMED | INCONCLUSIVE
    yield [
        docker_port(VETH, "shortly", bare=either),
        docker_port(VETH, "shortly", enters=False, bare=either),
        docker_rules("the port that was published", least=6),
    ]


# Engines before this one


@scenario("engine restarted twice since", everywhere=False)
def restarted_twice_since(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "earliest", "-p", "18193:93")
        veth = lab.veth_of("earliest")
        for _ in range(2):
            lab.stop_engine()
            lab.start_engine()
        either = CONFIRMED | INCONCLUSIVE
        yield [
            replace(docker_port(veth, None, bare=either, verdict=either), network=None, bridge=None),
            replace(
                docker_port(veth, None, enters=False, bare=either, verdict=either), network=None, bridge=None
            ),
            docker_rules("the published port", least=3, verdict=either),
        ]
    finally:
        lab.remove("earliest")
