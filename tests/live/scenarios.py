"""What is done to a lab, and what is to be said of each event that it makes.

A scenario is a generator: up to its first `yield` it prepares, from there to the second it acts, and
with the second it hands over what is expected. While it rests there the state stands, and is judged. What
follows cleans up, also after a failure.

Expectations are two for each event: with companions (SYSCALL, PROCTITLE), and bare. Bare, several
verdicts may be right, since the record no longer says who it was; what must never happen is on no
list: Docker's own work refuted, or an attack confirmed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.live.auditlog import Line, LogEvent, proctitle, wait_until
from tests.live.lab import IMAGE, TOOLS, Lab, Stretch, installed

CONFIRMED = frozenset({"confirmed"})
REFUTED = frozenset({"refuted"})
INCONCLUSIVE = frozenset({"inconclusive"})

VETH = r"veth[0-9a-f]{7}"
IPTABLES = r".*/xtables-(nft|legacy)-multi"

Steps = Generator[Sequence["Expected"], None, None]


@dataclass(frozen=True)
class Expected:
    """Events of one kind, and what is to be said of each.

    Which: rule and `device` or `table`, `enters`, `command` (the comm), `pids` of those who acted and, where
    there are companions, `exe` and `title` (the command line); patterns for the whole. There must be `least` to `most`.
    What: the verdicts allowed, with companions and bare; and with companions, or when confirmed, the
    kind of cause, the container's name, network and bridge.
    """

    what: str
    verdict: frozenset[str]
    bare: frozenset[str]
    rule: str
    device: str = ".*"
    enters: bool | None = None
    table: str = ".*"
    command: str = ".*"
    exe: str = ".*"
    title: str = ".*"
    pids: frozenset[int] | None = None
    least: int = 1
    most: int = 1000
    cause: str | None = None
    cause_pid: int | None = None
    container: str | None = None
    network: str | None = None
    bridge: str | None = None

    def allowed(self, bare: bool) -> frozenset[str]:
        """The verdicts that are right."""
        return self.bare if bare else self.verdict

    def fits(self, event: LogEvent) -> bool:
        """Whether this is about that event."""
        if event.syscall is not None and not re.fullmatch(self.exe, event.syscall.field("exe") or ""):
            return False
        if self.pids is not None and not event.pids & self.pids:
            return False
        titles = [proctitle(line.body) for line in event.of("PROCTITLE")]
        if any(not re.fullmatch(self.title, title, re.DOTALL) for title in titles):
            return False
        return any(self._fits(line, event) for line in event.flagged)

    def _fits(self, line: Line, event: LogEvent) -> bool:
        if line.type == "ANOM_PROMISCUOUS":
            # From the right: a device may be named `x prom=0`, but for the space.
            fields = re.search(r"\Adev=(\S+) prom=(\d+) old_prom=\d+ ", line.body)
            return (
                self.rule == "promiscuous"
                and fields is not None
                and bool(re.fullmatch(self.device, fields[1]))
                and self.enters in (None, fields[2] == "256")
                and (
                    event.syscall is None
                    or bool(re.fullmatch(self.command, event.syscall.field("comm") or ""))
                )
            )
        # From the right too: a table may be named like the rest of the record.
        fields = re.search(r"\Atable=(.*) family=\d+ entries=\d+ op=\S+ pid=\d+ ", line.body)
        return (
            self.rule == "firewall"
            and line.type == "NETFILTER_CFG"
            and fields is not None
            and bool(re.fullmatch(self.table, re.sub(r":\d+\Z", "", fields[1])))
            and bool(re.fullmatch(self.command, line.body.rpartition("comm=")[2].strip('"')))
        )


@dataclass(frozen=True)
class Scenario:
    """One thing done to a lab."""

    name: str
    steps: Callable[[Lab], Steps]
    needs_engine: bool = True

    @property
    def slug(self) -> str:
        """The name as a directory."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class Played:
    """A scenario that has acted and whose state stands."""

    scenario: Scenario
    events: list[LogEvent]
    expected: Sequence[Expected]
    foreign: int

    def expectation(self, event: LogEvent) -> Expected | None:
        """What is expected of that event; None when nobody declared it."""
        return next((one for one in self.expected if one.fits(event)), None)

    def faults(self) -> list[str]:
        """How the log differs from what the scenario says that it writes."""
        found = [
            f"not declared by the scenario:\n{event}" for event in self.events if not self.expectation(event)
        ]
        for one in self.expected:
            count = self.count(one)
            if not one.least <= count <= one.most:
                found.append(f"{one.what}: {count} events instead of {one.least} to {one.most}")
        return found

    def count(self, one: Expected) -> int:
        """How many events that expectation is about."""
        return sum(self.expectation(event) is one for event in self.events)


@contextmanager
def played(scenario: Scenario, lab: Lab, patience: float = 5.0) -> Iterator[Played]:
    """Have a scenario prepare and act; within the block its state stands, afterwards it is cleaned up.

    Other labs do nothing meanwhile that writes into the log, but for the time within the block.
    """
    with ExitStack() as stack:
        steps = scenario.steps(lab)
        with lab.turn:
            stack.callback(_clean_up, steps, lab)
            if scenario.needs_engine:
                lab.ensure_engine()
            next(steps)
            if lab.bare and scenario.needs_engine:
                lab.await_silence()
            with lab.stretch() as stretch:
                expected = next(steps)
            _await_events(lab, stretch, expected, patience)
        yield Played(scenario, stretch.events, expected, stretch.foreign)


def _clean_up(steps: Steps, lab: Lab) -> None:
    with lab.turn:
        steps.close()


def _await_events(lab: Lab, stretch: Stretch, expected: Sequence[Expected], patience: float) -> None:
    """Some events are the kernel's afterthought, so they are waited for."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(sum(map(one.fits, stretch.events)) >= one.least for one in expected):
            return
        time.sleep(0.05)
        lab.extend(stretch)


SCENARIOS: list[Scenario] = []


def scenario(
    name: str, needs_engine: bool = True
) -> Callable[[Callable[[Lab], Steps]], Callable[[Lab], Steps]]:
    """Enter a generator into the list."""

    def enter(steps: Callable[[Lab], Steps]) -> Callable[[Lab], Steps]:
        SCENARIOS.append(Scenario(name, steps, needs_engine))
        return steps

    return enter


# What is expected, in a few words


def docker_port(
    device: str,
    container: str | None,
    *,
    network: str = "bridge",
    bridge: str = "docker0",
    enters: bool = True,
    bare: frozenset[str] = CONFIRMED,
    verdict: frozenset[str] = CONFIRMED,
) -> Expected:
    """An interface that Docker puts on a bridge, or takes away."""
    return Expected(
        f"{'enter' if enters else 'leave'} of {container}'s interface",
        verdict,
        bare,
        "promiscuous",
        device=device,
        enters=enters,
        least=1,
        most=1,
        cause="docker",
        container=container,
        network=network,
        bridge=bridge,
    )


def docker_rules(
    what: str,
    *,
    least: int = 1,
    container: str | None = None,
    network: str | None = None,
    bridge: str | None = None,
    bare: frozenset[str] = CONFIRMED | INCONCLUSIVE,
    verdict: frozenset[str] = CONFIRMED,
    title: str = ".*",
) -> Expected:
    """Rules that Docker makes or takes away."""
    return Expected(
        what,
        verdict,
        bare,
        "firewall",
        table="nat|filter|raw",
        command="iptables|ip6tables",
        exe=IPTABLES,
        title=title,
        least=least,
        cause="docker",
        container=container,
        network=network,
        bridge=bridge,
    )


def attack_on_link(
    what: str,
    device: str,
    *,
    enters: bool | None = True,
    cause: str = "process",
    bare: frozenset[str] = REFUTED,
    verdict: frozenset[str] = REFUTED,
    command: str = ".*",
    container: str | None = None,
    pid: int | None = None,
    most: int = 1,
) -> Expected:
    """An interface made promiscuous by somebody else."""
    return Expected(
        what,
        verdict,
        bare,
        "promiscuous",
        device=device,
        enters=enters,
        command=command,
        cause=cause,
        container=container,
        cause_pid=pid,
        most=most,
    )


def attack_on_rules(
    what: str,
    table: str = "filter",
    *,
    cause: str = "process",
    bare: frozenset[str] = REFUTED | INCONCLUSIVE,
    command: str = ".*",
    container: str | None = None,
    pids: frozenset[int] | None = None,
    least: int = 1,
) -> Expected:
    """A firewall changed by somebody else."""
    return Expected(
        what,
        REFUTED,
        bare,
        "firewall",
        table=table,
        command=command,
        cause=cause,
        container=container,
        pids=pids,
        least=least,
    )


def bridge_of(lab: Lab, network: str) -> str:
    """The interface that a network lives on."""
    if network == "bridge":
        return "docker0"
    named = lab.docker(
        "network", "inspect", "-f", '{{index .Options "com.docker.network.bridge.name"}}', network
    )
    return named or f"br-{lab.docker('network', 'inspect', '-f', '{{.Id}}', network)[:12]}"


def _run(lab: Lab, name: str, *options: str, command: Sequence[str] = ("sleep", "1000")) -> None:
    # As the first process of its namespace `sleep` would not heed SIGTERM.
    lab.docker("run", "-d", "--stop-signal", "KILL", "--name", name, *options, IMAGE, *command)


@contextmanager
def _container(lab: Lab, name: str, *options: str) -> Iterator[str]:
    """A running container; gives its veth."""
    try:
        _run(lab, name, *options)
        yield lab.veth_of(name)
    finally:
        lab.remove(name)


@contextmanager
def _network(lab: Lab, name: str, *options: str) -> Iterator[str]:
    """A network; gives its bridge."""
    lab.docker("network", "create", *options, name)
    try:
        yield bridge_of(lab, name)
    finally:
        lab.docker("network", "rm", name, check=False)


@contextmanager
def _veth(lab: Lab, name: str, peer: str = "") -> Iterator[str]:
    """A veth made by hand."""
    lab.run("ip", "link", "add", name, "type", "veth", "peer", "name", peer or f"p{name}"[:15])
    try:
        yield name
    finally:
        lab.run("ip", "link", "del", name, check=False)


# Docker's own work


@scenario("first engine start", needs_engine=False)
def first_start(lab: Lab) -> Steps:
    lab.stop_engine()
    yield ()
    lab.start_engine()
    yield [docker_rules("Docker's chains", least=15)]


@scenario("engine restart")
def engine_restart(lab: Lab) -> Steps:
    yield ()
    lab.stop_engine()
    lab.start_engine()
    yield [docker_rules("Docker's chains again", least=3)]


@scenario("run")
def run(lab: Lab) -> Steps:
    yield ()
    try:
        _run(lab, "plain")
        yield [docker_port(lab.veth_of("plain"), "plain")]
    finally:
        lab.remove("plain")


@scenario("run -p")
def run_published(lab: Lab) -> Steps:
    yield ()
    try:
        _run(lab, "web", "-p", "18080:80")
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
        _run(lab, "local", "-p", "127.0.0.1:18081:81/udp")
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
    with _container(lab, "stopped", "-p", "18082:82") as veth:
        yield ()
        lab.docker("stop", "-t", "0", "stopped")
        yield [
            docker_port(veth, "stopped", enters=False, bare=CONFIRMED | INCONCLUSIVE),
            docker_rules("the port that was published", least=3, container="stopped"),
        ]


@scenario("rm -f")
def rm(lab: Lab) -> Steps:
    with _container(lab, "removed") as veth:
        yield ()
        lab.docker("rm", "-f", "removed")
        yield [docker_port(veth, "removed", enters=False, bare=CONFIRMED | INCONCLUSIVE)]


@scenario("run --rm, over at once")
def run_and_over(lab: Lab) -> Steps:
    yield ()
    lab.docker("run", "--rm", "--name", "brief", IMAGE, "true")
    yield [
        docker_port(VETH, "brief", bare=CONFIRMED | INCONCLUSIVE),
        docker_port(VETH, "brief", enters=False, bare=CONFIRMED | INCONCLUSIVE),
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
            docker_rules("jumps put first again", least=0 if lab.bare else 4),
        ]
    finally:
        lab.docker("network", "rm", "made", check=False)


@scenario("network rm")
def network_rm(lab: Lab) -> Steps:
    with _network(lab, "unmade") as bridge:
        yield ()
        lab.docker("network", "rm", "unmade")
        yield [docker_rules("the network's rules", least=6, network="unmade", bridge=bridge)]


@scenario("container on a user network")
def user_network(lab: Lab) -> Steps:
    with _network(lab, "mine") as bridge:
        yield ()
        try:
            _run(lab, "inhabitant", "--network", "mine", "-p", "18083:83")
            port = docker_port(lab.veth_of("inhabitant"), "inhabitant", network="mine", bridge=bridge)
            yield [
                port,
                docker_rules(
                    "the published port",
                    least=3,
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
    with _network(lab, "one") as first, _network(lab, "two") as second:
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
    with _network(lab, "later") as bridge, _container(lab, "joins"):
        yield ()
        lab.docker("network", "connect", "later", "joins")
        (veth,) = (name for name in lab.veths_of("joins") if lab.links()[name]["master"] == bridge)
        yield [
            docker_port(veth, "joins", network="later", bridge=bridge),
            docker_rules("the rules for names"),
        ]


@scenario("network disconnect")
def disconnect(lab: Lab) -> Steps:
    with _container(lab, "parts") as veth:
        yield ()
        lab.docker("network", "disconnect", "bridge", "parts")
        yield [docker_port(veth, "parts", enters=False, bare=CONFIRMED | INCONCLUSIVE)]


@scenario("named bridge")
def named_bridge(lab: Lab) -> Steps:
    option = "com.docker.network.bridge.name=lan0"
    with _network(lab, "renamed", "-o", option) as bridge:
        yield ()
        try:
            _run(lab, "guest", "--network", "renamed")
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
        yield [docker_port(lab.veth_of(name), name) for name in names]
    finally:
        lab.remove(*names)


@scenario("no network of its own")
def no_network(lab: Lab) -> Steps:
    yield ()
    try:
        _run(lab, "nonet", "--network", "none")
        _run(lab, "hostnet", "--network", "host")
        lab.docker("exec", "nonet", "true")
        yield []
    finally:
        lab.remove("nonet", "hostnet")


@scenario("engine restarted since")
def restarted_since(lab: Lab) -> Steps:
    yield ()
    try:
        _run(lab, "early", "-p", "18084:84")
        veth = lab.veth_of("early")
        lab.stop_engine()
        lab.start_engine()
        # What the engine did before it was restarted is forgotten, and its pid is gone.
        either = CONFIRMED | INCONCLUSIVE
        yield [
            docker_port(veth, None, bare=either, verdict=either),
            docker_port(veth, None, enters=False, bare=either, verdict=either),
            docker_rules("the published port", least=3, verdict=either),
        ]
    finally:
        lab.remove("early")


# Attacks on interfaces


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
    with _container(lab, "overheard") as veth:
        yield ()
        with lab.sniffer("-i", veth, "-Z", "root"):
            yield []  # it is promiscuous already


@scenario("tcpdump before the container's interface joins the bridge")
def sniffer_on_toggled(lab: Lab) -> Steps:
    with _container(lab, "toggled") as veth:
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
    with _veth(lab, "byhand0") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield [attack_on_link("enter by hand", veth, command="ip")]


@scenario("promisc on, on a container's interface")
def promiscuous_port(lab: Lab) -> Steps:
    with _container(lab, "forced") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield []  # it is promiscuous already


@scenario("hand-made veth with Docker's name on docker0")
def look_alike(lab: Lab) -> Steps:
    with _veth(lab, "veth1234567") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by hand", veth, command="ip")]


@scenario("hand-made veth into a real container")
def second_interface(lab: Lab) -> Steps:
    with _container(lab, "invaded"), _veth(lab, "veth89abcde", "evil0") as veth:
        pid = lab.inspect("invaded", "{{.State.Pid}}")
        lab.run("ip", "link", "set", "evil0", "netns", pid)
        yield ()
        lab.run("ip", "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by hand", veth, command="ip")]


@scenario("renamed to Docker's name after joining docker0")
def renamed_after(lab: Lab) -> Steps:
    with _veth(lab, "before0") as veth:
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
    with _container(lab, "moved") as veth:
        started = time.time()
        with lab.out_of_turn():
            wait_until(lambda: time.time() - started > 5, "the container to have run for a while")
        yield ()
        yield _toggled(lab, veth)


@scenario("a container's interface taken off docker0 and put back at once")
def off_and_on_at_once(lab: Lab) -> Steps:
    with _container(lab, "jostled") as veth:
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
    with _veth(lab, 'v"prom=0') as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield [attack_on_link("enter by hand", re.escape(veth), command="ip")]


@scenario("a process that calls itself dockerd")
def false_dockerd(lab: Lab) -> Steps:
    imposter = lab.directory / "dockerd"
    shutil.copy2(installed("ip"), imposter)
    with _veth(lab, "veth2345678") as veth:
        yield ()
        lab.run(imposter, "link", "set", veth, "master", "docker0")
        yield [attack_on_link("enter by the imposter", veth, command="dockerd")]


@scenario("a process with dockerd's own path, in a chroot")
def false_path(lab: Lab) -> Steps:
    imposter = lab.tools / "usr/sbin/dockerd"
    shutil.copy2(installed("ip"), imposter)
    with _veth(lab, "veth3456789") as veth:
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


# Attacks on the firewall


@scenario("a rule in DOCKER-USER")
def user_rule(lab: Lab) -> Steps:
    rule = ("DOCKER-USER", "-s", "203.0.113.9", "-j", "ACCEPT")
    yield ()
    lab.iptables("-I", *rule)
    try:
        yield [attack_on_rules("the rule", command="iptables", bare=REFUTED)]
    finally:
        lab.iptables("-D", *rule)


@scenario("a rule in DOCKER for a real container")
def rule_for_container(lab: Lab) -> Steps:
    with _container(lab, "opened"):
        address = lab.inspect("opened", "{{.NetworkSettings.IPAddress}}")
        rule = (
            "DOCKER",
            "-d",
            address,
            "!",
            "-i",
            "docker0",
            "-o",
            "docker0",
            "-p",
            "tcp",
            "--dport",
            "22",
            "-j",
            "ACCEPT",
        )
        yield ()
        lab.iptables("--wait", "-t", "filter", "-I", *rule)
        try:
            yield [attack_on_rules("the rule", command="iptables", bare=REFUTED)]
        finally:
            lab.iptables("-D", *rule)


@scenario("Docker's own rule a second time")
def docker_rule_again(lab: Lab) -> Steps:
    with _container(lab, "doubled", "-p", "18085:85"):
        address = lab.inspect("doubled", "{{.NetworkSettings.IPAddress}}")
        rule = (
            "DOCKER",
            "!",
            "-i",
            "docker0",
            "-o",
            "docker0",
            "-p",
            "tcp",
            "-d",
            address,
            "--dport",
            "85",
            "-j",
            "ACCEPT",
        )
        yield ()
        lab.iptables("--wait", "-t", "filter", "-A", *rule)
        try:
            yield [attack_on_rules("the rule", command="iptables", bare=REFUTED)]
        finally:
            lab.iptables("-D", *rule)


@scenario("Docker's jump taken away")
def jump_deleted(lab: Lab) -> Steps:
    yield ()
    lab.iptables("-D", "FORWARD", "-j", "DOCKER-USER")
    try:
        yield [attack_on_rules("the deletion", command="iptables")]
    finally:
        lab.iptables("-I", "FORWARD", "-j", "DOCKER-USER")


@scenario("a chain named like Docker's")
def chain_by_hand(lab: Lab) -> Steps:
    yield ()
    lab.iptables("-N", "DOCKER-X")
    try:
        yield [attack_on_rules("the chain", command="iptables", bare=REFUTED)]
    finally:
        lab.iptables("-X", "DOCKER-X")


def _by_hand(lab: Lab, *commands: Sequence[str]) -> frozenset[int]:
    """Run these one after the other; their pids, which bare records name as well."""
    pids = set()
    for command in commands:
        process = lab.popen(*command)
        pids.add(process.pid)
        if process.wait(10):
            raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}")
    return frozenset(pids)


@scenario("a chain made and unmade right after the engine starts", needs_engine=False)
def chain_amid_start(lab: Lab) -> Steps:
    lab.stop_engine()
    yield ()
    lab.start_engine()
    pids = _by_hand(lab, ("iptables", "-N", "DOCKER-X"), ("iptables", "-X", "DOCKER-X"))
    yield [
        attack_on_rules("by hand", command="iptables", pids=pids, least=2),
        docker_rules("Docker's chains", least=3),
    ]


@scenario("rules and chains of one's own right after the engine starts", needs_engine=False)
def own_rules_amid_start(lab: Lab) -> Steps:
    lab.stop_engine()
    yield ()
    try:
        lab.start_engine()
        pids = _by_hand(
            lab,
            ("iptables", "-I", "INPUT", "-s", "203.0.113.7", "-j", "ACCEPT"),
            ("iptables", "-N", "MINE"),
            ("iptables", "-P", "OUTPUT", "ACCEPT"),
        )
        yield [
            attack_on_rules("by hand", command="iptables", pids=pids, least=2),
            docker_rules("Docker's chains", least=3),
        ]
    finally:
        lab.iptables("-D", "INPUT", "-s", "203.0.113.7", "-j", "ACCEPT", check=False)
        lab.iptables("-X", "MINE", check=False)


@scenario("Docker's rule made and unmade right after Docker made it")
def rule_amid_run(lab: Lab) -> Steps:
    yield ()
    try:
        _run(lab, "shadowed", "-p", "18086:86")
        address = lab.inspect("shadowed", "{{.NetworkSettings.IPAddress}}")
        rule = (
            *("DOCKER", "!", "-i", "docker0", "-o", "docker0", "-p", "tcp", "-d", address),
            *("--dport", "86", "-j", "ACCEPT"),
        )
        pids = _by_hand(lab, ("iptables", "--wait", "-A", *rule), ("iptables", "--wait", "-D", *rule))
        yield [
            attack_on_rules("by hand", command="iptables", pids=pids, least=2),
            docker_port(lab.veth_of("shadowed"), "shadowed"),
            docker_rules("the published port", least=3, container="shadowed"),
        ]
    finally:
        lab.remove("shadowed")


@scenario("a rule inside a container's namespace right after Docker's")
def rule_amid_connect(lab: Lab) -> Steps:
    with _network(lab, "crowded") as bridge:
        yield ()
        try:
            _run(lab, "victim", "--network", "crowded")
            pid = lab.inspect("victim", "{{.State.Pid}}")
            inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-t", "nat")
            rule = ("DOCKER_OUTPUT", "-d", "203.0.113.9", "-j", "ACCEPT")
            pids = _by_hand(lab, (*inside, "-A", *rule), (*inside, "-D", *rule))
            yield [
                attack_on_rules("by hand", "nat", command="iptables", pids=pids, least=2),
                docker_port(lab.veth_of("victim"), "victim", network="crowded", bridge=bridge),
                docker_rules("the rules for names"),
            ]
        finally:
            lab.remove("victim")


@scenario("iptables-restore by hand")
def restored(lab: Lab) -> Steps:
    yield ()
    text = "*filter\n:EVIL - [0:0]\n-A EVIL -j ACCEPT\nCOMMIT\n*nat\n:EVIL - [0:0]\nCOMMIT\n"
    lab.run("iptables-restore", "--noflush", input=text)
    try:
        yield [attack_on_rules("both tables", "filter|nat", command="iptables-restor.*")]
    finally:
        lab.iptables("-F", "EVIL")
        lab.iptables("-X", "EVIL")
        lab.iptables("-t", "nat", "-X", "EVIL")


@scenario("a rule inside a container's namespace")
def rule_in_container(lab: Lab) -> Steps:
    with _network(lab, "inner"), _container(lab, "entered", "--network", "inner"):
        pid = lab.inspect("entered", "{{.State.Pid}}")
        yield ()
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-t", "nat")
        lab.run(*inside, "-A", "DOCKER_OUTPUT", "-d", "203.0.113.9", "-j", "ACCEPT")
        yield [attack_on_rules("the rule", "nat", command="iptables")]


@scenario("an nft table")
def nft_table(lab: Lab) -> Steps:
    yield ()
    lab.run("nft", "add table ip evil")
    try:
        yield [attack_on_rules("the table", "evil", command="nft", bare=REFUTED)]
    finally:
        lab.run("nft", "delete table ip evil")


INJECTED = 'nat:2 family=2 entries=1 op=nft_register_rule pid=1 comm="iptables"'

_NEW_TABLE = """
import socket, struct, sys
def message(kind, flags, family, resource, body=b""):
    body = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body
name = sys.argv[2].encode() + b"\\0"
attribute = struct.pack("=HH", 4 + len(name), 1) + name + b"\\0" * (-len(name) % 4)
new, delete = 0xA00, 0xA02
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
    netlink.send(
        message(0x10, 1, 0, 10)
        + message(*((new, 0x405) if sys.argv[1] == "add" else (delete, 5)), 2, 0, attribute)
        + message(0x11, 1, 0, 10)
    )
    reply = netlink.recv(4096)
    error = struct.unpack_from("=i", reply, 16)[0]
    sys.exit(f"netlink: {error}" if error else 0)
"""


@scenario("an nft table whose name imitates fields")
def hostile_table(lab: Lab) -> Steps:
    script = lab.directory / "table.py"
    script.write_text(_NEW_TABLE)
    yield ()
    lab.run(sys.executable, "-I", script, "add", INJECTED)
    try:
        yield [
            attack_on_rules("the table", re.escape(INJECTED), command="python.*", bare=REFUTED | INCONCLUSIVE)
        ]
    finally:
        lab.run(sys.executable, "-I", script, "delete", INJECTED)


@scenario("Docker's nft table in an unprivileged namespace")
def table_elsewhere(lab: Lab) -> Steps:
    yield ()
    lab.run("unshare", "--user", "--map-root-user", "--net", "nft", "add table ip docker-bridges")
    yield [attack_on_rules("the table", "docker-bridges", command="nft")]


@scenario("a container with NET_ADMIN on the host's network adds a rule")
def container_rule(lab: Lab) -> Steps:
    rule = "DOCKER-USER -s 203.0.113.10 -j ACCEPT"
    yield ()
    try:
        lab.docker(
            "run", "-d", "--name", "admin", "--network", "host", "--cap-add", "NET_ADMIN", TOOLS,
            "/bin/sh", "-c", f"/usr/sbin/iptables-{lab.backend} -I {rule}; sleep 1000",
        )  # fmt: skip
        yield [attack_on_rules("the rule", cause="container", container="admin", command="iptables.*")]
    finally:
        lab.remove("admin")
        lab.iptables("-D", *rule.split(), check=False)
