"""Firewalls as they were captured: samples/firewall/README.md."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from verify_audit.host.facts import Container, Network
from verify_audit.host.firewall import Firewall
from verify_audit.probes import legacy, nft

_SAMPLES = Path(__file__).parent / "samples" / "firewall"


@cache
def sample(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_SAMPLES / f"{name}.json").read_text())
    return content


def replies(name: str) -> nft.Replies:
    content = sample(name)
    tables, chains, rules, sets, elements = (
        tuple(bytes.fromhex(message) for message in content.get(kind, ()))
        for kind in ("tables", "chains", "rules", "sets", "elements")
    )
    return nft.Replies(1, bytes.fromhex(content["generation"]), tables, chains, rules, sets, elements)


def legacy_copy(name: str) -> legacy.Copy:
    def chain(content: dict[str, Any]) -> legacy.CopiedChain:
        entries = tuple(legacy.Entry(target, bytes.fromhex(raw)) for target, raw in content["entries"])
        return legacy.CopiedChain(content["name"], content["policy"], entries)

    tables = sample(name)["tables"]
    return legacy.Copy(
        1,
        tuple(
            legacy.CopiedTable(table["family"], table["name"], tuple(map(chain, table["chains"])))
            for table in tables
        ),
    )


def firewall(name: str) -> Firewall:
    return legacy.parse(legacy_copy(name)) if "legacy" in name else nft.parse(replies(name))


def engine(name: str) -> tuple[str, list[Network], list[Container]]:
    content = sample(name)
    return (
        content["version"],
        msgspec.convert(content["networks"], list[Network]),
        msgspec.convert(content["containers"], list[Container]),
    )


def words(rule: str) -> tuple[str, ...]:
    """A rule of iptables-save without order, and without the `-m tcp` that says nothing."""
    rule = re.sub(r" -m (tcp|udp|sctp|state|conntrack)\b", "", rule)
    return tuple(sorted(rule.replace("--state", "--ctstate").split()))
