"""Engines inside containers: what the host's engine did not do, one of them may have done.

An event is put down to such an engine where all that makes it Docker's holds for that engine, nothing on
the host fits as well, and it can only have been in the container's own network namespace. Whoever controls
the container controls that engine, its answers and what it does; so it is never called the host's.

Blind spots: the record does not say in which network namespace the change was made; an engine there that goes
by another name than dockerd, or whose socket by another than docker.sock, is not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from shlex import quote

from verify_audit.audit.decode import promiscuous
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Bearing, Evidence, Missing, Step
from verify_audit.findings.finding import Cause, CauseKind, ContainerRef, Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.findings.words import short, who
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container, Process
from verify_audit.host.observation import Absent, Observed
from verify_audit.rules.actor import SYSCALL_REMEDY
from verify_audit.rules.change import read_change
from verify_audit.rules.interface import Rule
from verify_audit.rules.picture import Picture
from verify_audit.rules.statement import neutral

MOST = 8
"""Engines in containers that are asked at all: each may keep us waiting."""

Judges = Callable[[Picture], Sequence[Rule]]


class Nested:
    """One engine inside a container of the host's engine, and the rules as they hold for it."""

    def __init__(self, picture: Picture, container: Container, process: Process, judges: Judges) -> None:
        """judges: makes the rules, which have seen all events, on a picture."""
        self._outer = picture
        self._process = process
        self.container = container
        self.picture = Picture(ask.Inside(picture.host, process))
        self._judges = judges
        self.name = container.name or short(container.id)

    @cached_property
    def _rules(self) -> dict[str, Rule]:
        return {rule.name: rule for rule in self._judges(self.picture)}

    @cached_property
    def is_confined(self) -> bool:
        """Whether it is an engine, in a network namespace that is its container's own."""
        host, outer = self._outer.host, self._outer.daemon
        netns = self._process.netns
        life = host.ask(ask.life(self.container.id))
        if not isinstance(life, Observed) or not life.fact.pid or not isinstance(outer, Observed):
            return False
        main, init = host.ask(ask.process(life.fact.pid)), host.ask(ask.process(1))
        if not isinstance(main, Observed) or not isinstance(init, Observed) or netns is None:
            return False
        shared = self.container.network_mode.partition(":")[0] in ("host", "container")
        own = not shared and main.fact.netns == netns not in (outer.fact.process.netns, init.fact.netns)
        daemon = self.picture.daemon
        return own and isinstance(daemon, Observed) and daemon.fact.process.identity == self._process.identity

    def judge(self, event: Event, rule: str) -> Finding | None:
        """What the event is if it was this engine's; None if it cannot be shown to have been."""
        if not self.is_confined or not self.picture.is_docker:
            return None
        found = self._rules[rule].judge(event)
        return self._retold(found) if found.verdict is Verdict.CONFIRMED else None

    def may_be_elsewhere(self, event: Event) -> bool:
        """Whether the change may have been made in another namespace.

        The host has the device, or the rule that was added and is not here; or, where it is not known, a rule
        in the same table that nothing of Docker's accounts for. Or nf_tables has not come so far here.
        """
        for record in event.of_type("ANOM_PROMISCUOUS"):
            flip = promiscuous(record)
            device = flip.device.decode("utf-8", "surrogateescape") if flip is not None else ""
            if not isinstance(self._outer.host.ask(ask.link(device)), Absent):
                return True
        change, hosts, firewall = read_change(event), self._outer.layout, self.picture.layout.firewall
        latest = firewall.fact.nft_generation if isinstance(firewall, Observed) else None
        if any(each.generation is not None and each.generation > (latest or 0) for each in change.records):
            return True
        command = change.command
        if command is None:
            return any(hosts.strangers(*place) for place in change.places)
        adds = command.action in ("append", "insert", "replace")
        return adds and bool(hosts.live(command)) and not self.picture.layout.live(command)

    def _retold(self, found: Finding) -> Finding:
        """The finding as one on an engine that is not the host's."""
        name = self.name
        pid = self._process.identity.pid
        note = neutral(
            Step.ENGINE,
            f"the engine that is meant is {who(self._process)} inside container {name}, not the host's",
            self.picture.daemon,
            f"docker top {quote(name)}",
        )
        return found._replace(
            headline=f"A nested engine inside container {name}, not the host's: {found.headline}",
            cause=Cause(
                CauseKind.NESTED_DOCKER,
                f"the Docker engine inside container {name} (pid {pid})",
                found.cause.pid,
                found.cause.exe,
                found.cause.auid,
            ),
            container=ContainerRef(self.container.id, self.container.name, self.container.image),
            network=None,
            evidence=(note, *map(self._from_inside, found.evidence)),
            warnings=(
                *found.warnings,
                f"whoever controls container {name} controls that engine, and what it answers",
            ),
        )

    def _from_inside(self, piece: Evidence) -> Evidence:
        if piece.provenance.source == "audit log":
            return piece
        source = f"{piece.provenance.source}, for the engine inside container {self.name}"
        provenance = replace(piece.provenance, source=source)
        return piece._replace(provenance=provenance, by_hand=self._by_hand(piece.by_hand))

    def _by_hand(self, commands: str) -> str:
        """The commands as they are to be given on the host; one that must not be given there is left out."""
        given = []
        for command in commands.split("; "):
            match command.partition(" ")[0]:
                case "docker":
                    given.append(f"docker exec {quote(short(self.container.id))} {command}")
                case "ip" | "ss" | "bridge" | "iptables" | "ip6tables" | "nft":
                    given.append(f"nsenter --net=/proc/{self._process.identity.pid}/ns/net {command}")
                case "ps" | "pstree":
                    given.append(command)
        return "; ".join(given)


class NestedEngines:
    """The engines inside the containers of one host, asked only when the host's own explains nothing."""

    def __init__(self, picture: Picture, judges: Judges) -> None:
        self._picture = picture
        self._judges = judges

    @cached_property
    def _engines(self) -> list[Nested]:
        picture = self._picture
        processes = picture.host.ask(ask.NESTED)
        if not picture.is_docker or not isinstance(processes, Observed):
            return []
        known = picture.container_by_id
        return [
            Nested(picture, known[process.container_id], process, self._judges)
            for process in processes.fact
            if process.container_id is not None and process.container_id in known
        ]

    def reconsider(self, event: Event, found: Finding) -> Finding:
        """The host's finding, or that of the one engine in a container whose work the event was."""
        if found.verdict is Verdict.CONFIRMED:
            return self._asked_inside(found)
        if found.cause.kind is CauseKind.CONTAINER:
            # A process of a container did it: was it that container's engine?
            whose = found.container.id if found.container is not None else None
            engines = [each for each in self._engines if each.container.id == whose]
        elif found.verdict is Verdict.REFUTED and found.cause.pid is not None:
            return found
        elif any(piece.bearing is Bearing.FOR for piece in found.evidence):
            return found  # the host's engine fits as well
        else:
            engines = self._engines
        judged = [(each, each.judge(event, found.rule)) for each in engines[:MOST]]
        fitting = [(each, finding) for each, finding in judged if finding is not None]
        if not fitting or found.cause.kind is CauseKind.CONTAINER:
            sure = [finding for each, finding in fitting if not each.may_be_elsewhere(event)]
            return sure[0] if len(sure) == 1 else found
        engine, finding = fitting[0]
        alone = len(fitting) == 1 and len(engines) <= MOST
        if alone and found.verdict is Verdict.INCONCLUSIVE and not engine.may_be_elsewhere(event):
            return finding
        return self._left_open(found, engine)

    def _left_open(self, found: Finding, engine: Nested) -> Finding:
        """A finding without a recorded actor which an engine in a container could be the cause of."""
        why = f"what the engine inside container {engine.name} did then accounts for it, and it may be somebody else's"
        lack = Missing("which engine it was, if one", why, SYSCALL_REMEDY)
        if found.verdict is Verdict.INCONCLUSIVE:
            return found._replace(missing=(*found.missing, lack))
        return found._replace(
            verdict=Verdict.INCONCLUSIVE,
            headline=f"Cannot tell who did it: {why}",
            cause=Cause(CauseKind.UNKNOWN, "somebody, whom nothing recorded"),
            missing=(lack, *found.missing),
        )

    def _asked_inside(self, found: Finding) -> Finding:
        """A finding on the engine that was asked, which may itself be in a container that it knows nothing of."""
        daemon = self._picture.daemon
        container = daemon.fact.process.container_id if isinstance(daemon, Observed) else None
        if container is None:
            return found
        name = f"container {short(container)}"
        return found._replace(
            headline=f"The engine that was asked, which is inside {name}: {found.headline}",
            cause=found.cause._replace(kind=CauseKind.NESTED_DOCKER),
            warnings=(*found.warnings, f"whoever controls {name} controls that engine, and what it answers"),
        )
