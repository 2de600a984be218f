"""JSON lines: an object for each event, and a summary at the end.

The form is that of reports/finding.schema.json. Keys may be added, those that are there stay. All
text beyond ASCII is escaped, so that nothing in it reaches a terminal as it is.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Evidence
from verify_audit.findings.finding import Finding
from verify_audit.host.observation import Unobservable
from verify_audit.reports.printable import printable
from verify_audit.reports.summary import Summary

FINDING = "verify-audit.finding/1"
SUMMARY = "verify-audit.summary/1"


def finding_line(finding: Finding) -> str:
    """One event as one line, without its line end."""
    return encoded(
        {
            "schema": FINDING,
            "event": _event(finding.event),
            "rule": finding.rule,
            "verdict": finding.verdict.value,
            "headline": finding.headline,
            "subject": {
                "device": finding.subject.device,
                "table": finding.subject.table,
                "chain": finding.subject.chain,
                "command": finding.subject.command,
            },
            "cause": {
                "kind": finding.cause.kind.value,
                "pid": finding.cause.pid,
                "exe": finding.cause.exe,
                "auid": finding.cause.auid,
                "text": finding.cause.text,
            },
            "container": finding.container
            and {
                "id": finding.container.id,
                "name": finding.container.name,
                "image": finding.container.image,
            },
            "network": finding.network
            and {
                "id": finding.network.id,
                "name": finding.network.name,
                "bridge": finding.network.bridge,
            },
            "evidence": [_evidence(piece) for piece in finding.evidence],
            "missing": [
                {"what": lack.what, "why": lack.why, "remedy": lack.remedy} for lack in finding.missing
            ],
            "warnings": list(finding.warnings),
            "looks_like": finding.looks_like
            and {"software": finding.looks_like.software, "by": finding.looks_like.by},
        }
    )


def summary_line(summary: Summary) -> str:
    """The last line, without its line end."""
    return encoded(
        {
            "schema": SUMMARY,
            "confirmed": summary.confirmed,
            "refuted": summary.refuted,
            "inconclusive": summary.inconclusive,
            "events": summary.events,
            "unparsed": summary.unparsed,
            "unobservable": [failure(each) for each in summary.unobservable],
        }
    )


def failure(unobservable: Unobservable) -> dict[str, Any]:
    """What could not be looked at."""
    return {
        "source": unobservable.provenance.source,
        "query": unobservable.provenance.query,
        "reason": unobservable.reason,
        "remedy": unobservable.remedy,
    }


@lru_cache(maxsize=1024)
def timestamp(at: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{at:.3f}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _event(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "time": timestamp(event.time),
        "node": event.node,
        "records": [record.raw.decode("utf-8", "backslashreplace") for record in event.records],
    }


@lru_cache(maxsize=1024)
def _evidence(piece: Evidence) -> dict[str, Any]:
    return {
        "bearing": piece.bearing.value,
        "weight": piece.weight.value,
        "step": piece.step.value,
        "statement": piece.statement,
        "source": piece.provenance.source,
        "query": piece.provenance.query,
        "observed_at": timestamp(piece.provenance.at),
        "raw": piece.raw or None,
        "by_hand": piece.by_hand or None,
    }


def encoded(value: dict[str, Any]) -> str:
    """A value as one line of ASCII, without its line end."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = b"\x7f"
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded.decode("ascii")
    # Half the speed, for the few lines that have text to be escaped.
    line = json.dumps(value, separators=(",", ":"))
    if "\\ud" in line:
        # Bytes that were no UTF-8 are half surrogates here, which strict readers of JSON refuse.
        line = json.dumps(_whole(value), separators=(",", ":"))
    return line


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value) if any("\ud800" <= each <= "\udfff" for each in value) else value
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return value
