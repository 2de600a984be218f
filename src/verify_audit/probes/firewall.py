"""The whole firewall of a network namespace: nf_tables and the legacy tables, since a host can have both."""

from __future__ import annotations

from verify_audit.host.firewall import Firewall
from verify_audit.probes import legacy, nft


class FirewallError(Exception):
    """A part of the firewall is there and could not be read. remedy: what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def read_firewall(netns: int) -> Firewall:
    """The firewall of the calling thread's network namespace, of which netns is the inode number.

    Half of it would be taken for the whole, so if either backend fails there is no answer. Raises
    FirewallError, and NetlinkError for nf_tables.
    """
    tables = nft.parse(nft.read(netns))
    try:
        return tables.beside(legacy.parse(legacy.read(netns)))
    except legacy.LegacyError as error:
        raise FirewallError(str(error), error.remedy) from error
