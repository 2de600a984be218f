"""Firewall commands that no Docker engine ever gives, whatever its version.

Docker runs iptables and ip6tables, one rule or chain at a time, and from 29 `nft -f -`. It names the chains that
every table has, its own, and no others. For a command whose process and parents have ended this tells Docker's
apart from others', since what an engine starts has the engine's own command line or a command of these.

References (github.com/moby/moby, 17.06 to 29): libnetwork/iptables/iptables.go, raw() and its callers; for
targets beside those of docker_layout.py also drivers/overlay/encryption.go (MARK, -m policy, -m bpf or u32),
service_linux.go and daemon/links (ACCEPT, DROP, SNAT, REDIRECT).
"""

from __future__ import annotations

from verify_audit.host.docker_layout import looks_like_docker_chain
from verify_audit.host.iptables_command import FirewallCommand

_PROGRAMS = ("iptables", "ip6tables", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_TARGETS = (
    *("ACCEPT", "DROP", "RETURN", "REJECT"),
    *("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "MARK", "CHECKSUM"),
)


def never_dockers(command: FirewallCommand) -> str:
    """Why a command cannot be Docker's, as a clause; empty when it can."""
    if command.program == "nft":
        return ""  # its table tells
    if command.program not in _PROGRAMS:
        return f"Docker never runs {command.program}"
    if command.action == "flush" and command.chain is None and not command.truncated:
        return "Docker never empties a whole table"
    if (
        command.chain is not None
        and command.chain not in _BUILT_IN
        and not looks_like_docker_chain(command.chain)
    ):
        return f"Docker never touches a chain {command.chain}"
    if command.action == "policy" and command.chain != "FORWARD":
        return f"Docker never sets the policy of {command.chain}"
    target = command.spec.target if command.spec is not None else ""
    if target and not looks_like_docker_chain(target) and not _is_target(target, cut=command.truncated):
        return f"Docker makes no rule that goes to {target}"
    return ""


def _is_target(name: str, *, cut: bool) -> bool:
    """Whether a rule of Docker's may go there; of a command that is cut the name may be only the beginning."""
    if cut and any(target.startswith(name) for target in (*_TARGETS, "DOCKER")):
        return True
    return name in _TARGETS
