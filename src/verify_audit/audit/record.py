"""What the audit log says, as plain frozen values: a record is one line, an event the records of one id.

Everything in a record is bytes, because everything in it can be chosen by whoever is being audited.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class EventId(NamedTuple):
    """What `msg=audit(...)` carries. Serials start again at boot, so the time is part of the identity.

    seconds and millis are the kernel's time stamp (seconds since the epoch, or since boot on hosts
    that had no clock yet).
    """

    seconds: int
    millis: int
    serial: int

    def __str__(self) -> str:
        """As ausearch(8) takes and prints it: "1545458152.159:227"."""
        return f"{self.seconds}.{self.millis:03d}:{self.serial}"


class Record(NamedTuple):
    """One audit record.

    type is the name of the message type ("SYSCALL"); a type that is not known by name stays as
    auditd wrote it ("UNKNOWN[1999]"). body is what follows the event id, without the enriched tail
    that auditd adds after 0x1d; raw is the whole line without its line end, tail included.
    """

    type: str
    node: str | None
    seconds: int
    millis: int
    serial: int
    body: bytes
    raw: bytes

    def field(self, name: bytes) -> bytes | None:
        """The first value called `name`, without its quotes and not hex-decoded; None if there is none.

        A name or path in the body can imitate a field. Where that matters use decode.py, which knows
        which part of each record the kernel wrote.
        """
        match = _field(name).search(self.body)
        if match is None:
            return None
        quoted: bytes | None = match[1]
        return match[2] if quoted is None else quoted


class Event(NamedTuple):
    """The records of one event, in the order of the log. Its identity is (node, seconds, millis, serial)."""

    node: str | None
    seconds: int
    millis: int
    serial: int
    records: tuple[Record, ...]

    @property
    def id(self) -> str:
        """The id as ausearch(8) takes it: "1545458152.159:227"."""
        return f"{self.seconds}.{self.millis:03d}:{self.serial}"

    @property
    def event_id(self) -> EventId:
        """The id as numbers."""
        return EventId(self.seconds, self.millis, self.serial)

    @property
    def time(self) -> float:
        """Seconds since the epoch (the float nearest to the stamp, so equal to float("1545458152.159"))."""
        return (self.seconds * 1000 + self.millis) / 1000

    def of_type(self, name: str) -> tuple[Record, ...]:
        """The records of a type; there can be several (two NETFILTER_CFG under one serial)."""
        return tuple([record for record in self.records if record.type == name])

    def first(self, name: str) -> Record | None:
        """The first record of a type, None if there is none."""
        for record in self.records:
            if record.type == name:
                return record
        return None


@lru_cache(maxsize=256)
def _field(name: bytes) -> re.Pattern[bytes]:
    # The quote before a name is for msg='op=... res=success' of user space records.
    return re.compile(rb"(?:\A|[ '])" + re.escape(name) + rb"=(?:\"([^\"]*)\"|([^ ']*))")
