"""Docker's name server for containers: the rules that lead to it, in a container's own namespace.

References: moby libnetwork/resolver_unix.go.
"""

from __future__ import annotations

from shlex import quote

from verify_audit.audit import decode
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.words import short
from verify_audit.host import questions as ask
from verify_audit.host.facts import Container
from verify_audit.host.firewall import Firewall
from verify_audit.host.iptables_command import FirewallCommand
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.activity import Activity
from verify_audit.rules.case import Case
from verify_audit.rules.change import Change, command_of
from verify_audit.rules.layout import live
from verify_audit.rules.picture import Picture

SOONER = "judge sooner, while what was changed is still there"

_DNS_CHAINS = ("DOCKER_OUTPUT", "DOCKER_POSTROUTING")
_DNS_MARKS = (b"DOCKER_", b"DOCKER_".hex().upper().encode())
_DNS = "containers on user-defined networks ask Docker's own name server"


class NameServer:
    """Finds the container that a rule of the name server was made for."""

    def __init__(self, picture: Picture, activity: Activity) -> None:
        self._picture = picture
        self._layout = picture.layout
        self._activity = activity
        self._resolvers: dict[int, set[FirewallCommand]] = {}

    def survey(self, event: Event) -> None:
        """Remember which parent made which rule for a container's name server."""
        title, record = event.first("PROCTITLE") or event.first("EXECVE"), event.first("SYSCALL")
        if title is None or record is None or not any(mark in title.body for mark in _DNS_MARKS):
            return
        call, command = decode.syscall(record), command_of(event)
        if call is None or command is None or command.chain not in _DNS_CHAINS:
            return
        if self._layout.explain_in_container(command) is not None:
            self._resolvers.setdefault(call.ppid, set()).add(command)

    def explains(self, case: Case, change: Change) -> bool:
        """Docker's name server for a container: rules in the container's own namespace. Whether it is that.

        Engine 20.10 has them made by a process that it re-executes and that is gone at once, so the
        parent cannot be told. The ports in them are chosen by the kernel: whoever finds the very rule in
        the namespace of a container that was being started then has found its origin, and that of all else
        that the same parent did.
        """
        command, call = change.command, case.actor.call
        if command is None:
            return False
        # The engine is parent to the rules of every container; a process of its own is to those of one.
        siblings = self._resolvers.get(call.ppid, set()) if call and not case.actor.is_docker else set()
        named = bool(siblings) or (command.chain in _DNS_CHAINS and command.action == "new_chain")
        if not named and self._layout.explain_in_container(command) is None:
            return False
        holding = self._holding(case, change, command, siblings)
        if not holding:
            case.lacks(
                "the firewall of the container's namespace",
                "no container that was being started then holds such a rule now",
                SOONER,
            )
            return True
        container, source = holding[0]
        if len(holding) == 1:
            case.container = self._picture.container_ref(container.id)
            user = [each for each in container.endpoints if each.network_name != "bridge"]
            case.network = self._picture.network_ref(user[0].network_id) if len(user) == 1 else None
        names = ", ".join(each.name for each, _ in holding)
        say = case.notes if case.actor.is_docker else case.proves
        say(
            Step.FIREWALL,
            f"it is in the namespace of container {names}, which was being started then: {_DNS}",
            source,
            f"nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' {quote(short(container.id))}) -n iptables -t nat -S",
        )
        return True

    def _holding(
        self, case: Case, change: Change, command: FirewallCommand, siblings: set[FirewallCommand]
    ) -> list[tuple[Container, Observed[Firewall]]]:
        """The containers being started then whose namespace holds what a command, and its siblings, made."""
        found = []
        for container in self._activity.starting(case.event.time):
            life = self._picture.host.ask(ask.life(container.id))
            if not isinstance(life, Observed) or not life.fact.pid:
                continue
            answer = self._picture.host.ask(ask.container_firewall(life.fact.pid))
            if isinstance(answer, Unobservable):
                case.could_not_see(f"the firewall inside container {container.name}", answer)
            elif (
                isinstance(answer, Observed)
                and _holds(answer.fact, change, command)
                and all(live(answer.fact, sibling) for sibling in siblings)
            ):
                found.append((container, answer))
        return found


def _holds(firewall: Firewall, change: Change, command: FirewallCommand) -> bool:
    """Whether a container's firewall holds what the command made there, and has changed often enough."""
    generation = next((each.generation for each in change.records if each.generation is not None), None)
    if generation is not None and (firewall.nft_generation or 0) < generation:
        return False
    if command.spec is not None and not command.truncated:
        return bool(live(firewall, command))
    if command.chain is None:
        return True  # it only looked (-L, which registers a legacy table)
    return any(
        chain.name == command.chain and chain.table == command.table and chain.family == command.family
        for chain in firewall.chains
    )
