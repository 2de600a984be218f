"""Docker's own work."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

from tests.live.lab import IMAGE, Lab
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    VETH,
    Steps,
    a_container,
    a_network,
    address_rules,
    bridge_of,
    docker_port,
    docker_rules,
    scenario,
    start,
)


@scenario("first engine start", needs_engine=False)
def first_start(lab: Lab) -> Steps:
    lab.stop_engine()
    lab.move_engine()
    yield ()
    lab.start_engine()
    # One that was moved has networks already, and no chains: that is not counted.
    bare = CONFIRMED | INCONCLUSIVE if lab.backend == "both" else CONFIRMED
    yield [docker_rules("Docker's chains", least=15, bare=bare)]


@scenario("engine restart")
def engine_restart(lab: Lab) -> Steps:
    yield ()
    lab.stop_engine()
    lab.start_engine()
    yield [docker_rules("Docker's chains again", least=3, bare=CONFIRMED)]


@scenario("run")
def run(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "plain")
        yield [docker_port(lab.veth_of("plain"), "plain"), *address_rules(lab, "plain")]
    finally:
        lab.remove("plain")


@scenario("run -p")
def run_published(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "web", "-p", "18080:80")
        yield [
            docker_port(lab.veth_of("web"), "web"),
            docker_rules("the published port", least=3, container="web", network="bridge", bridge="docker0"),
        ]
    finally:
        lab.remove("web")


@scenario("run -p on the loopback address")
def run_published_locally(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "local", "-p", "127.0.0.1:18081:81/udp")
        yield [
            docker_port(lab.veth_of("local"), "local"),
            docker_rules(
                "the published port", least=3, container="local", network="bridge", bridge="docker0"
            ),
        ]
    finally:
        lab.remove("local")


@scenario("stop")
def stop(lab: Lab) -> Steps:
    with a_container(lab, "stopped", "-p", "18082:82") as veth:
        yield ()
        lab.docker("stop", "-t", "0", "stopped")
        yield [
            docker_port(veth, "stopped", enters=False, bare=CONFIRMED | INCONCLUSIVE),
            docker_rules("the port that was published", least=3, container="stopped", bare=CONFIRMED),
        ]


@scenario("rm -f")
def rm(lab: Lab) -> Steps:
    with a_container(lab, "removed") as veth:
        yield ()
        lab.docker("rm", "-f", "removed")
        yield [
            docker_port(veth, "removed", enters=False, bare=CONFIRMED | INCONCLUSIVE),
            *address_rules(lab, "removed"),
        ]


@scenario("run --rm, over at once")
def run_and_over(lab: Lab) -> Steps:
    yield ()
    lab.docker("run", "--rm", "--name", "brief", IMAGE, "true")
    yield [
        docker_port(VETH, "brief", bare=CONFIRMED | INCONCLUSIVE),
        docker_port(VETH, "brief", enters=False, bare=CONFIRMED | INCONCLUSIVE),
        *address_rules(lab, "brief"),
    ]


@scenario("network create")
def network_create(lab: Lab) -> Steps:
    yield ()
    try:
        lab.docker("network", "create", "made")
        bridge = bridge_of(lab, "made")
        yield [
            docker_rules(
                "rules that name the bridge", least=4, title=f".*{bridge}.*", network="made", bridge=bridge
            ),
            docker_rules("jumps put first again", least=0 if lab.bare or lab.engine_version >= (28,) else 4),
        ]
    finally:
        lab.docker("network", "rm", "made", check=False)


@scenario("network rm")
def network_rm(lab: Lab) -> Steps:
    with a_network(lab, "unmade") as bridge:
        yield ()
        lab.docker("network", "rm", "unmade")
        yield [docker_rules("the network's rules", least=6, network="unmade", bridge=bridge)]


@scenario("container on a user network")
def user_network(lab: Lab) -> Steps:
    with a_network(lab, "mine") as bridge:
        yield ()
        try:
            start(lab, "inhabitant", "--network", "mine", "-p", "18083:83")
            port = docker_port(lab.veth_of("inhabitant"), "inhabitant", network="mine", bridge=bridge)
            yield [
                port,
                docker_rules(
                    "the published port",
                    least=2,  # from 28 on no masquerading for its own address, unless without the userland proxy
                    title=".*(--dport 83|--dport 18083).*",
                    container="inhabitant",
                    network="mine",
                    bridge=bridge,
                ),
                docker_rules("the rules for names, in the container", least=0 if lab.bare else 8),
            ]
        finally:
            lab.remove("inhabitant")


@scenario("two networks")
def two_networks(lab: Lab) -> Steps:
    with a_network(lab, "one") as first, a_network(lab, "two") as second:
        yield ()
        try:
            lab.docker("create", "--name", "both", "--network", "one", IMAGE, "sleep", "1000")
            lab.docker("network", "connect", "two", "both")
            lab.docker("start", "both")
            masters = {lab.links()[veth]["master"]: veth for veth in lab.veths_of("both")}
            yield [
                docker_port(masters[first], "both", network="one", bridge=first),
                docker_port(masters[second], "both", network="two", bridge=second),
                docker_rules("the rules for names"),
            ]
        finally:
            lab.remove("both")


@scenario("network connect")
def connect(lab: Lab) -> Steps:
    with a_network(lab, "later") as bridge, a_container(lab, "joins"):
        yield ()
        lab.docker("network", "connect", "later", "joins")
        (veth,) = (name for name in lab.veths_of("joins") if lab.links()[name]["master"] == bridge)
        yield [
            docker_port(veth, "joins", network="later", bridge=bridge),
            docker_rules("the rules for names"),
        ]


@scenario("network disconnect")
def disconnect(lab: Lab) -> Steps:
    with a_container(lab, "parts") as veth:
        yield ()
        lab.docker("network", "disconnect", "bridge", "parts")
        yield [
            docker_port(veth, "parts", enters=False, bare=CONFIRMED | INCONCLUSIVE),
            *address_rules(lab, "parts"),
        ]


@scenario("named bridge")
def named_bridge(lab: Lab) -> Steps:
    option = "com.docker.network.bridge.name=lan0"
    with a_network(lab, "renamed", "-o", option) as bridge:
        yield ()
        try:
            start(lab, "guest", "--network", "renamed")
            yield [
                docker_port(lab.veth_of("guest"), "guest", network="renamed", bridge=bridge),
                docker_rules("the rules for names"),
            ]
        finally:
            lab.remove("guest")


@scenario("three containers at once")
def three_at_once(lab: Lab) -> Steps:
    yield ()
    names = [f"crowd{number}" for number in range(3)]
    try:
        with ExitStack() as stack:
            for name in names:
                stack.callback(
                    lab.popen(
                        "docker",
                        "run",
                        "-d",
                        "--name",
                        name,
                        IMAGE,
                        "sleep",
                        "1000",
                        stdout=subprocess.DEVNULL,
                    ).wait
                )
        yield [*(docker_port(lab.veth_of(name), name) for name in names), *address_rules(lab, *names)]
    finally:
        lab.remove(*names)


@scenario("no network of its own")
def no_network(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "nonet", "--network", "none")
        start(lab, "hostnet", "--network", "host")
        lab.docker("exec", "nonet", "true")
        yield []
    finally:
        lab.remove("nonet", "hostnet")


@scenario("engine restarted since")
def restarted_since(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "early", "-p", "18084:84")
        veth = lab.veth_of("early")
        lab.stop_engine()
        lab.start_engine()
        # What the engine did before it was restarted is forgotten, and its pid is gone.
        either = CONFIRMED | INCONCLUSIVE
        yield [
            docker_port(veth, None, network=None, bridge=None, bare=either, verdict=either),
            docker_port(veth, None, network=None, bridge=None, enters=False, bare=either, verdict=either),
            docker_rules("the published port", least=3, verdict=either),
        ]
    finally:
        lab.remove("early")
