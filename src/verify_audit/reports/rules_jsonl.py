"""JSON lines of `rules`: an object for each rule, and a summary at the end.

The form is that of reports/rule.schema.json and rules-summary.schema.json. Keys may be added, those that are
there stay.
"""

from __future__ import annotations

from typing import Any

from verify_audit.findings.inventory import Inventory, Origin, Row, Standing
from verify_audit.reports.jsonl import encoded, failure, timestamp

RULE = "verify-audit.rule/1"
SUMMARY = "verify-audit.rules-summary/1"


def rule_line(row: Row) -> str:
    """One rule as one line, without its line end."""
    return encoded(
        {
            "schema": RULE,
            "standing": row.standing.value,
            "backend": row.backend,
            "family": row.family,
            "table": row.table,
            "chain": row.chain,
            "handle": row.handle,
            "position": row.position,
            "rule": row.spec,
            "because": row.because,
            "container": row.container
            and {"id": row.container.id, "name": row.container.name, "image": row.container.image},
            "network": row.network
            and {"id": row.network.id, "name": row.network.name, "bridge": row.network.bridge},
            "origin": row.origin and _origin(row.origin),
        }
    )


def summary_line(inventory: Inventory) -> str:
    """The last line, without its line end."""
    return encoded(
        {
            "schema": SUMMARY,
            "engine": inventory.engine,
            **{standing.value: inventory.count(standing) for standing in Standing},
            "logged": inventory.logged,
            "unparsed": inventory.unread,
            "unobservable": [failure(each) for each in inventory.unobservable],
        }
    )


def _origin(origin: Origin) -> dict[str, Any]:
    cause = origin.cause
    return {
        "event": origin.event.id,
        "time": timestamp(origin.event.time),
        "node": origin.event.node,
        "actor": {
            "kind": cause.kind.value,
            "pid": cause.pid,
            "exe": cause.exe,
            "auid": cause.auid,
            "text": cause.text,
        },
        "command": origin.command or None,
        "doubt": origin.doubt or None,
    }
