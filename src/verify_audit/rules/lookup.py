"""A command of the log, looked up on the host: what its rule is for, and whether it is there now."""

from __future__ import annotations

from shlex import quote
from typing import NamedTuple

from verify_audit.findings.evidence import Evidence, Step
from verify_audit.findings.finding import ContainerRef, NetworkRef
from verify_audit.findings.words import short
from verify_audit.host.docker_layout import ExpectedRule
from verify_audit.host.iptables_command import FirewallCommand
from verify_audit.host.observation import Observed
from verify_audit.rules.picture import Picture
from verify_audit.rules.statement import neutral


class Found(NamedTuple):
    """What was found of a command: whom its words or its rule name, and what there is to say of the rule."""

    command: FirewallCommand
    container: ContainerRef | None
    network: NetworkRef | None
    evidence: Evidence | None


class Lookup:
    """Looks commands up on one host, each once."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._layout = picture.layout
        self._found: dict[int, Found] = {}

    def find(self, command: FirewallCommand) -> Found:
        """What the host knows of a command."""
        found = self._found.get(id(command))
        if found is None:
            # Kept with the command in it, so that its id() stays its own.
            found = self._found[id(command)] = self._look(command)
        return found

    def _look(self, command: FirewallCommand) -> Found:
        if command.chain is None:
            return Found(command, None, None, None)
        expected = self._layout.explain(command)
        container, network = self._named_by_rule(expected) if expected else self._named_by_words(command)
        return Found(command, container, network, self._standing(command, expected))

    def _standing(self, command: FirewallCommand, expected: ExpectedRule | None) -> Evidence | None:
        """Whether the rule is there now, and what for."""
        if command.spec is None:
            return None
        table = command.table or "filter"
        program = command.program if command.program in ("iptables", "ip6tables") else "iptables"
        by_hand = f"{program} -t {quote(table)} -S {quote(command.chain or '')}"
        firewall, raw = self._layout.firewall, ""
        found = self._layout.live(command)
        if command.truncated or command.spec.opaque:
            statement = "the record has only the beginning of the command, so its rule could not be looked up"
        elif found:
            handle = f", handle {found[0].handle}" if found[0].handle is not None else ""
            purpose = f"for this: {expected.because}" if expected else "for nothing that this engine sets up"
            statement = f"the rule is in {table} {command.chain} now ({found[0].backend}{handle}), {purpose}"
            raw = str(found[0])
        elif isinstance(firewall, Observed):
            statement = f"the rule is not in {table} {command.chain} now"
        else:
            return None
        return neutral(Step.FIREWALL, statement, firewall, by_hand, raw)

    def _named_by_rule(self, expected: ExpectedRule) -> tuple[ContainerRef | None, NetworkRef | None]:
        return (
            self._picture.container_ref(expected.container_id or ""),
            self._picture.network_ref(expected.network_id or ""),
        )

    def _named_by_words(self, command: FirewallCommand) -> tuple[ContainerRef | None, NetworkRef | None]:
        """What the words of a command name: a container's address, a bridge also when it is gone.

        For a command that is cut short, or whose rule has nothing left to be explained by.
        """
        words = command.text.split()
        hosts = {word.partition("/")[0].rpartition(":")[0] or word.partition("/")[0] for word in words}
        for endpoint, container in self._picture.endpoints:
            if endpoint.ipv4 and endpoint.ipv4 in hosts:
                network = self._picture.network_ref(endpoint.network_id)
                return self._picture.container_ref(container.id), network
        for network_there in self._picture.network_by_bridge.values():
            if network_there.bridge in words:
                return None, self._picture.network_ref(network_there.id)
        for event in self._picture.events:
            # libnetwork names a bridge by the first 12 digits of its network's id.
            if event.network_id and f"br-{short(event.network_id)}" in words:
                return None, NetworkRef(event.network_id, event.network_name, f"br-{short(event.network_id)}")
        return None, None
