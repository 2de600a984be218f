"""Whether a record is of the host that is asked."""

from __future__ import annotations

from verify_audit.host import questions as ask
from verify_audit.host.observation import Observed
from verify_audit.host.questions import Host


def is_here(node: str | None, host: Host) -> bool:
    """Whether a record is of this host: it names no node, or one with our name up to the first dot."""
    if node is None:
        return True
    boot = host.ask(ask.BOOT)
    return isinstance(boot, Observed) and boot.fact.hostname.partition(".")[0] == node.partition(".")[0]
