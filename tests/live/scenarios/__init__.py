"""Every scenario: a module for each kind, which enters its own into the list of `tests.live.play`."""

from tests.live.play import SCENARIOS
from tests.live.scenarios import (
    docker_work,
    fooling,
    hiding,
    identity,
    injection,
    lookalikes,
    nested,
    on_firewall,
    on_links,
    with_firewalld,
)

__all__ = [
    "SCENARIOS",
    "docker_work",
    "fooling",
    "hiding",
    "identity",
    "injection",
    "lookalikes",
    "nested",
    "on_firewall",
    "on_links",
    "with_firewalld",
]
