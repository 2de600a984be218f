"""Every rule of the packet filter that concerns Docker, with what explains it and who made it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from verify_audit.audit.record import Event
from verify_audit.findings.finding import Cause, ContainerRef, NetworkRef
from verify_audit.host.observation import Unobservable


class Standing(StrEnum):
    """How a rule stands to what the engine sets up."""

    EXPLAINED = "explained"
    UNEXPLAINED = "unexplained"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Origin:
    """The event of the log that made a rule, or that took a missing one away.

    doubt: why it may have been another event; empty when the command of the event says that it did so.
    command: empty when the event has none.
    """

    event: Event
    cause: Cause
    command: str
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule, or one chain that Docker never makes.

    backend: "nft" or "legacy"; None for a missing rule, which may be called for in either.
    handle: nf_tables' number of the rule; None with x_tables, for an element of a map, and when missing.
    position: of the rule in its chain, from 1; None for a chain and when missing.
    spec: the rule as iptables-save has it; None for a chain.
    because: what explains it, what a missing one is for, or why nothing explains it.
    origin: the event that made it, or that removed a missing one; None when the log has none.
    """

    standing: Standing
    backend: str | None
    family: str
    table: str
    chain: str
    handle: int | None
    position: int | None
    spec: str | None
    because: str
    container: ContainerRef | None = None
    network: NetworkRef | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """All of them, in the order of the firewall.

    engine: its version, None when it could not be asked or is no Docker. unread: how many lines of the log
    could not be read; logged: whether there was a log at all.
    """

    engine: str | None
    rows: tuple[Row, ...]
    unobservable: tuple[Unobservable, ...] = ()
    logged: bool = True
    unread: int = 0

    def count(self, standing: Standing) -> int:
        """How many rows stand so."""
        return sum(row.standing is standing for row in self.rows)

    @property
    def exit_status(self) -> int:
        """0 all explained, 3 there is nothing, 10 something missing or not to be seen, 11 something unexplained."""
        if self.count(Standing.UNEXPLAINED):
            return 11
        if self.unobservable or self.count(Standing.MISSING) or self.count(Standing.UNKNOWN):
            return 10
        return 0 if self.rows else 3
