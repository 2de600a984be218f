"""Which events are looked at: those that are flagged, those of a window of time, or one by its id.

References:
    ausearch(8), --start and --end: today, yesterday, recent, boot, now
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from verify_audit.audit.decode import SETSOCKOPT_NUMBERS, firewall_sockopt, syscall
from verify_audit.audit.record import Event, EventId, Record

RECENT = 600.0
"""Seconds that `recent` goes back, as in ausearch(8)."""


class TimeError(ValueError):
    """A time that cannot be understood, or a window that ends before it begins."""


class EventIdError(ValueError):
    """An event id that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, both ends included; None is open. Seconds since the epoch, compared to the millisecond.

    Raises TimeError when it ends before it begins.
    """

    since: float | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise TimeError(f"the window ends at {self.until}, before it begins at {self.since}")

    def __contains__(self, time: float) -> bool:
        """Whether a time lies in the window."""
        stamp = round(time * 1000)
        if self.since is not None and stamp < round(self.since * 1000):
            return False
        return self.until is None or stamp <= round(self.until * 1000)


def flagged(event: Event) -> bool:
    """Whether the event is one to be judged: an interface or the firewall was changed.

    That is an ANOM_PROMISCUOUS or NETFILTER_CFG record, decodable or not, or a SYSCALL record that
    replaces a table of x_tables or ebtables.
    """
    for record in event.records:
        if record.type in _FLAGGED:
            return True
        if record.type == "SYSCALL" and _replaces_table(event, record):
            return True
    return False


def may_be_flagged(log: bytes) -> bool:
    """Whether there can be a flagged event in this piece of a log: one line, or a whole file.

    Only looks for bytes. True can be wrong, False never is: a piece for which it is False can be
    skipped without parsing it.
    """
    return any(mark in log for mark in _MARKS)


def parse_time(text: str, now: float, boot: float | None = None, tz: tzinfo | None = None) -> float:
    """A time as a person gives it, in seconds since the epoch.

    now and boot are seconds since the epoch; boot is None where it is not known. tz is the zone of
    times that name none; None is the zone of this process. Raises TimeError.
    """
    word = text.strip()
    if word in _WORDS:
        return _WORDS[word](now, tz)
    if word == "boot":
        if boot is None:
            raise TimeError("it is not known when the host was booted, so `boot` cannot be used as a time")
        return boot
    if _EPOCH.fullmatch(word):
        return float(word)
    if match := _DATE.fullmatch(word):
        try:
            return _local(match, tz).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise TimeError(f"{text!r} is not a time: {error}. {_ACCEPTED}") from error
    raise TimeError(f"{text!r} is not a time that is understood. {_ACCEPTED}")


def parse_event_id(text: str) -> EventId:
    """An event id as the log or ausearch(8) writes it: "1545458152.159:227", "audit(1545458152.159:227)".

    Raises EventIdError.
    """
    match = _EVENT_ID.fullmatch(text.strip())
    if match is None:
        raise EventIdError(
            f"{text!r} is not an event id. Give it as the log has it: "
            "1545458152.159:227 or audit(1545458152.159:227)."
        )
    return EventId(int(match["seconds"]), int(match["millis"]), int(match["serial"]))


_FLAGGED = frozenset(("ANOM_PROMISCUOUS", "NETFILTER_CFG"))

# One regular expression before the whole record is decoded: nearly every SYSCALL record fails it.
_SETSOCKOPT = re.compile(
    rb"arch=[0-9a-f]+ syscall=(?:"
    + b"|".join(b"%d" % number for number in sorted(SETSOCKOPT_NUMBERS))
    + rb") "
)
_MARKS: tuple[bytes, ...] = (
    b"NETFILTER_CFG ",
    b"ANOM_PROMISCUOUS ",
    b"UNKNOWN[1325] ",
    b"UNKNOWN[1700] ",
    *(b" syscall=%d " % number for number in sorted(SETSOCKOPT_NUMBERS)),
)

_ACCEPTED = (
    "Accepted: now, recent (10 minutes ago), today, yesterday, boot, YYYY-MM-DD, YYYY-MM-DD HH:MM[:SS] "
    "(also with T, and with Z or an offset such as +02:00), or seconds since the epoch (1545458152.159)."
)
_EPOCH = re.compile(r"[0-9]{1,11}\.[0-9]{1,9}|[0-9]{9,11}")
_DATE = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[ T](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)"
    r" ?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_EVENT_ID = re.compile(
    r"(?:msg=)?(?P<audit>audit\()?(?P<seconds>[0-9]{1,12})\.(?P<millis>[0-9]{3}):(?P<serial>[0-9]{1,20})(?(audit)\):?)"
)


def _replaces_table(event: Event, record: Record) -> bool:
    if _SETSOCKOPT.match(record.body) is None:
        return False
    call = syscall(record)
    return call is not None and firewall_sockopt(call, event.first("SOCKETCALL")) is not None


def _midnight(now: float, tz: tzinfo | None, days_ago: int) -> float:
    day = datetime.fromtimestamp(now, tz).date() - timedelta(days=days_ago)
    return datetime(day.year, day.month, day.day, tzinfo=tz).timestamp()


_WORDS: dict[str, Callable[[float, tzinfo | None], float]] = {
    "now": lambda now, _: now,
    "recent": lambda now, _: now - RECENT,
    "today": lambda now, tz: _midnight(now, tz, 0),
    "yesterday": lambda now, tz: _midnight(now, tz, 1),
}


def _local(match: re.Match[str], tz: tzinfo | None) -> datetime:
    given = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}{match['zone'] or ''}")
    return given if given.tzinfo is not None else given.replace(tzinfo=tz)
