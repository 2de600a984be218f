"""Changes of the firewall that no actor was recorded for, one close upon the other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from verify_audit.audit.decode import NetfilterChange, netfilter
from verify_audit.audit.record import Event
from verify_audit.findings.finding import ContainerRef, NetworkRef
from verify_audit.host.docker_operations import Place
from verify_audit.host.firewall import Backend, Firewall
from verify_audit.host.observation import Observation
from verify_audit.rules.layout import FAMILIES

GAP = 1.0
"""Seconds without a change that end a run of changes."""

_PUTS = "nft_register_"
_TAKES = "nft_unregister_"
_REPLACES = ("xt_replace", "replace")
_REGISTERS = ("xt_register", "register")


@dataclass(frozen=True, slots=True)
class Write:
    """One record of an event that has no actor."""

    event: Event
    change: NetfilterChange

    @property
    def place(self) -> Place:
        """Family and table."""
        return FAMILIES.get(self.change.family, ""), self.change.table.decode("utf-8", "surrogateescape")

    @property
    def op(self) -> str:
        """What was done; up to 5.7 a record does not say, and is of a replacement or a registration."""
        return self.change.op or "replace"

    @property
    def legacy(self) -> bool:
        """Whether it is of x_tables."""
        return not self.op.startswith("nft_")

    @property
    def puts(self) -> int:
        """How many objects of nf_tables it put in."""
        return self.change.entries if self.op.startswith(_PUTS) else 0

    @property
    def takes(self) -> int:
        """How many objects of nf_tables it took out."""
        return self.change.entries if self.op.startswith(_TAKES) else 0

    @property
    def replaces(self) -> bool:
        """Whether it replaced a table of x_tables."""
        return self.op in _REPLACES

    @property
    def registers(self) -> bool:
        """Whether it registered a table of x_tables, as the first to look at it has the kernel do."""
        return self.op in _REGISTERS

    @property
    def counts(self) -> bool:
        """Whether it is of a kind that can be counted. No commit of nf_tables is of nothing."""
        return not self.change.odd and bool(self.puts or self.takes or self.replaces or self.registers)


def writes_of(event: Event) -> list[Write]:
    """The changes of an event without an actor; none unless each of its records can be counted."""
    if event.first("SYSCALL") is not None:
        return []
    changes = [netfilter(record) for record in event.of_type("NETFILTER_CFG")]
    writes = [Write(event, change) for change in changes if change is not None]
    # An event of which a part cannot be counted is not accounted for by the rest.
    return writes if len(writes) == len(changes) and all(write.counts for write in writes) else []


@dataclass(slots=True)
class Run:
    """Changes of one network namespace, one close upon the other."""

    writes: list[Write] = field(default_factory=list)

    @property
    def first(self) -> float:
        """When it begins."""
        return self.writes[0].event.time

    @property
    def last(self) -> float:
        """When it ends."""
        return self.writes[-1].event.time

    @property
    def generation(self) -> int | None:
        """Of nf_tables, after its last change."""
        return self.writes[-1].change.generation

    @property
    def legacy(self) -> bool:
        """Whether any of it is of x_tables."""
        return any(write.legacy for write in self.writes)

    def follows(self, write: Write, border: float | None) -> bool:
        """Whether a change is the next of this run: of nf_tables, by its generation; else by time alone.

        border: a time that no run crosses, the engine's own start.
        """
        if write.event.time - self.last > GAP:
            return False
        if border is not None and self.last < border <= write.event.time:
            return False
        mine, its = self.generation, write.change.generation
        if mine is None or its is None:
            return mine is its
        # A batch that touches two tables writes a record for each under one generation.
        return its in (mine, mine + 1)

    def at(self, place: Place) -> list[Write]:
        """Its changes of one table."""
        return [write for write in self.writes if write.place == place]

    def put(self) -> Counter[Place]:
        """Objects that were put in, by place; with x_tables, replacements of the table."""
        found: Counter[Place] = Counter()
        for write in self.writes:
            found[write.place] += write.puts + write.replaces
        return +found

    def taken(self) -> Counter[Place]:
        """Objects that were taken out, by place."""
        found: Counter[Place] = Counter()
        for write in self.writes:
            found[write.place] += write.takes
        return +found

    def registered(self) -> Counter[Place]:
        """How often each legacy table was registered."""
        return Counter(write.place for write in self.writes if write.registers)


@dataclass(frozen=True, slots=True)
class Settled:
    """What accounts for changes."""

    statement: str
    source: Observation[Firewall]
    container: ContainerRef | None = None
    network: NetworkRef | None = None


def runs_of(writes: Iterable[Write], border: float | None = None) -> list[Run]:
    """The runs that changes form, which are in the order of the log."""
    runs: list[Run] = []
    for write in writes:
        run = next((run for run in reversed(runs[-64:]) if run.follows(write, border)), None)
        if run is None:
            run = Run()
            runs.append(run)
        run.writes.append(write)
    return runs


def steps(writes: Sequence[Write]) -> list[int] | None:
    """What each change of nf_tables put in (+) or took out (-), where a chain counts two.

    None where one is of several kinds.
    """
    found = []
    for write in writes:
        kind = write.op.rpartition("_")[2]
        if kind not in ("rule", "chain") or (kind == "chain" and write.change.entries != 1):
            return None
        found.append((write.puts - write.takes) * (2 if kind == "chain" else 1))
    return found


def steps_legacy(
    writes: Sequence[Write], following: Mapping[int, int], firewall: Firewall
) -> list[int] | None:
    """The same for changes of one table of x_tables: each record has the number of entries before it.

    following: by a change's id(), the entries of its table at the next change of it in the log; where there
    is none, it is what the table has now. None where it cannot be said.
    """
    if not writes or not all(write.replaces for write in writes):
        return None
    last = following.get(id(writes[-1]), entries(firewall, writes[-1].place))
    if last is None:
        return None
    counts = [*(write.change.entries for write in writes), last]
    return [then - now for now, then in pairwise(counts)]


def entries(firewall: Firewall, place: Place) -> int | None:
    """How many entries a table of x_tables has; None when it is not there.

    A policy for each chain of its own, two for each that was made, the rules, and one at the end
    (struct xt_table_info, number; ip_tables.c translate_table()).
    """
    chains = [
        chain
        for chain in firewall.chains
        if chain.backend is Backend.LEGACY and (chain.family, chain.table) == place
    ]
    rules = [
        rule
        for rule in firewall.rules
        if rule.backend is Backend.LEGACY and (rule.family, rule.table) == place
    ]
    return sum(1 if chain.hook else 2 for chain in chains) + len(rules) + 1 if chains else None
