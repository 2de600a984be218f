"""What an event of the packet filter says: the tables of its records, and the command that made it. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from verify_audit.audit import decode
from verify_audit.audit.decode import NetfilterChange, SockoptChange
from verify_audit.audit.record import Event
from verify_audit.findings.finding import Subject
from verify_audit.host.iptables_command import FirewallCommand, parse_command
from verify_audit.rules.layout import FAMILIES


class Change(NamedTuple):
    """What is known of one event: its records, the command that made it, and the tables (family, name).

    unread: how many of its records are cut or of no known form.
    """

    records: tuple[NetfilterChange, ...]
    unread: int
    command: FirewallCommand | None
    places: tuple[tuple[str, str], ...]

    @property
    def _tables(self) -> str | None:
        if len(self.places) == 1:
            return self.places[0][1]
        return ", ".join(dict.fromkeys(table for _, table in self.places)) or None

    @property
    def subject(self) -> Subject:
        """What the report says that the event is about."""
        return Subject(
            table=self._tables,
            chain=self.command.chain if self.command else None,
            command=f"{self.command.program} {self.command.text}" if self.command else None,
        )


def read_change(event: Event) -> Change:
    """The change that an event records."""
    decoded = [decode.netfilter(record) for record in event.of_type("NETFILTER_CFG")]
    records = tuple([change for change in decoded if change is not None])
    command = command_of(event)
    places = dict.fromkeys((family_of(each), text_of(each.table)) for each in records)
    if not records and command is not None and command.family and command.table:
        places = {(command.family, command.table): None}
    return Change(records, len(decoded) - len(records), command, tuple(places))


def family_of(change: NetfilterChange) -> str:
    """The family of a record by name, or its number where it has none."""
    return FAMILIES.get(change.family, str(change.family))


def command_of(event: Event) -> FirewallCommand | None:
    """The firewall command of an event; the same value for the same words."""
    command = decode.command(event)
    return _parsed(command.argv, command.truncated) if command is not None else None


@lru_cache(maxsize=4096)
def _parsed(argv: tuple[bytes, ...], truncated: bool) -> FirewallCommand | None:
    return parse_command(argv, truncated=truncated)


def sockopt_of(event: Event) -> SockoptChange | None:
    """The change of x_tables that the event's system call asked for, None if it asked for none."""
    record = event.first("SYSCALL")
    call = decode.syscall(record) if record is not None else None
    return decode.firewall_sockopt(call, event.first("SOCKETCALL")) if call is not None else None


def text_of(name: bytes) -> str:
    """A name of the log as text, which any bytes can be turned into and back."""
    return name.decode("utf-8", "surrogateescape")
