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
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.live.auditlog import Line, LogEvent, proctitle
from tests.live.engines import Kind
from tests.live.lab import IMAGE, Lab, Stretch, is_installed

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
    kind of cause, the container's name, network and bridge, and with companions what it looks like.
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
    looks_like: str | None = None

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
            fields = re.search(r"\Adev=([^ ]+) prom=(\d+) old_prom=\d+ ", line.body)
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
    """One thing done to a lab.

    needs: programs that it runs and that need not be installed. everywhere: whether on each engine and firewall;
    else only on the machine's own engine with iptables-nft.
    """

    name: str
    steps: Callable[[Lab], Steps]
    needs_engine: bool = True
    needs: tuple[str, ...] = ()
    everywhere: bool = True

    @property
    def slug(self) -> str:
        """The name as a directory."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def runs_on(self, kind: Kind) -> bool:
        """Whether it is for labs of that kind."""
        return self.everywhere or (kind.root is None and kind.backend == "nft")

    def lacks(self) -> list[str]:
        """The programs that it needs and that are not installed."""
        return [program for program in self.needs if not is_installed(program)]


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

    Other labs of the same lane do nothing meanwhile that writes into the log, but for the time within the block.
    """
    with ExitStack() as stack:
        steps = scenario.steps(lab)
        lab.turn = lab.machine.turn(lab.bare, alone=not scenario.everywhere)
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
    if lab.listened_to():
        lab.turn = lab.machine.turn(lab.bare, alone=True)
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
    name: str, needs_engine: bool = True, needs: tuple[str, ...] = (), everywhere: bool = True
) -> Callable[[Callable[[Lab], Steps]], Callable[[Lab], Steps]]:
    """Enter a generator into the list."""

    def enter(steps: Callable[[Lab], Steps]) -> Callable[[Lab], Steps]:
        SCENARIOS.append(Scenario(name, steps, needs_engine, needs, everywhere))
        return steps

    return enter


# What is expected, in a few words


def docker_port(
    device: str,
    container: str | None,
    *,
    network: str | None = "bridge",
    bridge: str | None = "docker0",
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


def address_rules(lab: Lab, *containers: str) -> list[Expected]:
    """From 28.2 on each container's address on a bridge has a rule of its own in the table raw."""
    if lab.engine_version < (28, 2):
        return []
    return [
        docker_rules("the rule for the address", container=containers[0] if len(containers) == 1 else None)
    ]


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
    looks_like: str | None = None,
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
        looks_like=looks_like,
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
    title: str = ".*",
    verdict: frozenset[str] = REFUTED,
    looks_like: str | None = None,
) -> Expected:
    """A firewall changed by somebody else."""
    return Expected(
        what,
        verdict,
        bare,
        "firewall",
        table=table,
        command=command,
        title=title,
        looks_like=looks_like,
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


def start(lab: Lab, name: str, *options: str, command: Sequence[str] = ("sleep", "1000")) -> None:
    # As the first process of its namespace `sleep` would not heed SIGTERM.
    lab.docker("run", "-d", "--stop-signal", "KILL", "--name", name, *options, IMAGE, *command)


@contextmanager
def a_container(lab: Lab, name: str, *options: str) -> Iterator[str]:
    """A running container; gives its veth."""
    try:
        start(lab, name, *options)
        yield lab.veth_of(name)
    finally:
        lab.remove(name)


@contextmanager
def a_network(lab: Lab, name: str, *options: str) -> Iterator[str]:
    """A network; gives its bridge."""
    lab.docker("network", "create", *options, name)
    try:
        yield bridge_of(lab, name)
    finally:
        lab.docker("network", "rm", name, check=False)


@contextmanager
def a_veth(lab: Lab, name: str, peer: str = "") -> Iterator[str]:
    """A veth made by hand."""
    lab.run("ip", "link", "add", name, "type", "veth", "peer", "name", peer or f"p{name}"[:15])
    try:
        yield name
    finally:
        lab.run("ip", "link", "del", name, check=False)
