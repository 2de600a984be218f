"""Interfaces that somebody else makes promiscuous."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import ExitStack

from tests.live.auditlog import wait_until
from tests.live.lab import TOOLS, Lab, installed
from tests.live.play import (
    INCONCLUSIVE,
    REFUTED,
    Expected,
    Steps,
    a_container,
    a_veth,
    address_rules,
    attack_on_link,
    docker_port,
    scenario,
)


@scenario("tcpdump on docker0")
def sniffer(lab: Lab) -> Steps:
    yield ()
    with lab.sniffer("-i", "docker0", "-Z", "root") as process:
        yield [attack_on_link("enter of docker0", "docker0", command="tcpdump", pid=process.pid)]


@scenario("tcpdump on docker0, ended")
def sniffer_ended(lab: Lab) -> Steps:
    yield ()
    with lab.sniffer("-i", "docker0"):
        pass
    # Nothing of it is left on the host, but Docker never makes a bridge promiscuous.
    yield [
        attack_on_link("enter of docker0", "docker0", command="tcpdump", bare=REFUTED | INCONCLUSIVE),
        attack_on_link(
            "leave of docker0", "docker0", enters=False, command="tcpdump", bare=REFUTED | INCONCLUSIVE
        ),
    ]


@scenario("tcpdump on a container's interface")
def sniffer_on_port(lab: Lab) -> Steps:
    with a_container(lab, "overheard") as veth:
        yield ()
        with lab.sniffer("-i", veth, "-Z", "root"):
            yield []  # it is promiscuous already


@scenario("tcpdump on a container's interface and on every one, once it is attached")
def sniffer_afterwards(lab: Lab) -> Steps:
    yield ()
    with a_container(lab, "heard") as veth:
        started = time.time()
        wait_until(lambda: time.time() - started > 1.5, "what starts now to be younger than the record")
        with lab.sniffer("-i", veth, "-Z", "root"), lab.sniffer("-i", "any", "-Z", "root"):
            # Docker's work all the same; that somebody listens is a warning.
            yield [docker_port(veth, "heard"), *address_rules(lab, "heard")]


@scenario("tcpdump before the container's interface joins the bridge")
def sniffer_on_toggled(lab: Lab) -> Steps:
    with a_container(lab, "toggled") as veth:
        yield ()
        with ExitStack() as stack:
            lab.run("ip", "link", "set", veth, "nomaster")
            stack.enter_context(lab.sniffer("-i", veth, "-Z", "root"))
            lab.run("ip", "link", "set", veth, "master", "docker0")
            yield [
                attack_on_link(
                    "leave by hand", veth, enters=False, command="ip", bare=REFUTED | INCONCLUSIVE
                ),
                attack_on_link("enter by tcpdump", veth, command="tcpdump", bare=REFUTED | INCONCLUSIVE),
            ]


@scenario("promisc on, on a hand-made veth")
def promiscuous_by_hand(lab: Lab) -> Steps:
    with a_veth(lab, "byhand0") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield [attack_on_link("enter by hand", veth, command="ip")]


@scenario("promisc on, on a container's interface")
def promiscuous_port(lab: Lab) -> Steps:
    with a_container(lab, "forced") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield []  # it is promiscuous already


@scenario("hand-made veth with Docker's name on docker0")
def look_alike(lab: Lab) -> Steps:
    with a_veth(lab, "veth1234567") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by hand", veth, command="ip")]


@scenario("hand-made veth into a real container")
def second_interface(lab: Lab) -> Steps:
    with a_container(lab, "invaded"), a_veth(lab, "veth89abcde", "evil0") as veth:
        pid = lab.inspect("invaded", "{{.State.Pid}}")
        lab.run("ip", "link", "set", "evil0", "netns", pid)
        yield ()
        lab.run("ip", "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by hand", veth, command="ip")]


@scenario("renamed to Docker's name after joining docker0")
def renamed_after(lab: Lab) -> Steps:
    with a_veth(lab, "before0") as veth:
        yield ()
        try:
            lab.run("ip", "link", "set", veth, "master", "docker0")
            lab.run("ip", "link", "set", veth, "down")
            lab.run("ip", "link", "set", veth, "name", "veth7654321")
            yield [
                attack_on_link("enter by hand", veth, command="ip", bare=REFUTED | INCONCLUSIVE),
            ]
        finally:
            lab.run("ip", "link", "del", "veth7654321", check=False)


@scenario("a container's interface taken off docker0 and put back, long after")
def off_and_on(lab: Lab) -> Steps:
    with a_container(lab, "moved") as veth:
        started = time.time()
        with lab.out_of_turn():
            wait_until(lambda: time.time() - started > 5, "the container to have run for a while")
        yield ()
        yield _toggled(lab, veth)


@scenario("a container's interface taken off docker0 and put back at once")
def off_and_on_at_once(lab: Lab) -> Steps:
    with a_container(lab, "jostled") as veth:
        yield ()
        yield _toggled(lab, veth)


def _toggled(lab: Lab, veth: str) -> list[Expected]:
    lab.run("ip", "link", "set", veth, "nomaster")
    lab.run("ip", "link", "set", veth, "master", "docker0")
    return [
        attack_on_link("leave by hand", veth, enters=False, command="ip", bare=REFUTED | INCONCLUSIVE),
        attack_on_link("enter by hand", veth, command="ip", bare=REFUTED | INCONCLUSIVE),
    ]


@scenario("a name that imitates fields")
def hostile_name(lab: Lab) -> Steps:
    with a_veth(lab, 'v"prom=0') as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield [attack_on_link("enter by hand", re.escape(veth), command="ip")]


@scenario("a process that calls itself dockerd")
def false_dockerd(lab: Lab) -> Steps:
    imposter = lab.directory / "dockerd"
    shutil.copy2(installed("ip"), imposter)
    with a_veth(lab, "veth2345678") as veth:
        yield ()
        lab.run(imposter, "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by the imposter", veth, command="dockerd")]


@scenario("a process with dockerd's own path, in a chroot")
def false_path(lab: Lab) -> Steps:
    imposter = lab.tools / "usr/sbin/dockerd"
    shutil.copy2(installed("ip"), imposter)
    with a_veth(lab, "veth3456789") as veth:
        yield ()
        lab.run("chroot", lab.tools, "/usr/sbin/dockerd", "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by the imposter", veth, command="dockerd")]


@scenario("a sniffing container on the host's network")
def sniffing_container(lab: Lab) -> Steps:
    yield ()
    try:
        lab.docker(
            "run", "-d", "--name", "spy", "--network", "host", TOOLS,
            "/usr/bin/tcpdump", "-i", "docker0", "-Z", "root", "-w", "/dev/null",
        )  # fmt: skip
        yield [
            attack_on_link(
                "enter by the container", "docker0", command="tcpdump", cause="container", container="spy"
            )
        ]
    finally:
        lab.remove("spy")
