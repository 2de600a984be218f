"""Changes of the packet filter through firewalld, to which an engine hands its rules over D-Bus where it runs.

Known to be the engine's firewalld is a process that the bus itself names (host question `firewalld`). It changes the
packet filter for others too: for itself, for an admin, for whoever may talk to it. So its change is Docker's only when
- the command is to the letter one that this engine gives for what it runs, or for what it has just ended;
- what it adds is there, and not once too often; what it takes away is not needed, or is there again;
- the engine did something then that calls for it: by its own event, at its start, or after firewalld was started or
  reloaded, which the log shows by firewalld's own table, made anew.

Blind spots: on whose behalf firewalld acted is not recorded. Somebody else who may talk to it can have it give a
command of Docker's at that moment, in Docker's place; what then stands is what Docker wanted. Docker also has firewalld
put its bridges into a zone, and reload at the first start on a host: changes of firewalld's own at such times are left
open.

References: moby libnetwork/iptables/firewalld.go, iptables.go ProgramRule() and its callers; firewalld
src/firewall/core/fw.py, fw_direct.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from verify_audit.audit.decode import netfilter, syscall
from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import Cause, CauseKind
from verify_audit.findings.words import apart, who
from verify_audit.host import questions as ask
from verify_audit.host.attribution import explain_spec
from verify_audit.host.docker_commands import never_dockers
from verify_audit.host.docker_layout import ExpectedRule, expected_rules, is_docker_chain
from verify_audit.host.facts import (
    Container,
    Daemon,
    Endpoint,
    EngineEvent,
    Network,
    PublishedPort,
    Subnet,
)
from verify_audit.host.firewall import RuleSpec
from verify_audit.host.iptables_command import FirewallCommand
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.activity import Activity
from verify_audit.rules.case import Case
from verify_audit.rules.change import Change, command_of, text_of
from verify_audit.rules.picture import Picture

RELOADING = 15.0
"""Seconds after firewalld has made its table anew until which the engine may be giving its rules again. On 20.10 it
begins at once; it takes 0.1 s for each rule."""

STARTING = 60.0
"""Seconds after the engine's start until which it may be setting up, as long as it has reported nothing."""

_OWN_TABLES = ("firewalld", "firewalld_policy_drop")
_ADDS = ("append", "insert")
_WHOLE_CHAIN = ("flush", "delete_chain", "new_chain", "policy")
_DOCKERS_JUMPS = (
    "DOCKER-USER",
    "DOCKER-ISOLATION-STAGE-1",
    "DOCKER-ISOLATION",
    "DOCKER-FORWARD",
    "DOCKER-INGRESS",
)
_GONE = "gone"
_RETURN = RuleSpec(target="RETURN")
_OPENING = ("connect", "create", "start", "restart")
_CLOSING = ("disconnect", "destroy", "remove", "die", "stop", "kill", "restart", "create")


class Firewalld:
    """What the engine's firewalld did, on one host and in one log."""

    def __init__(self, picture: Picture, activity: Activity) -> None:
        self._picture = picture
        self._activity = activity
        self._renewals: list[float] = []
        self._own: set[int] = set()
        self._given: dict[tuple[object, ...], list[float]] = {}

    @property
    def _process(self) -> Observed[Daemon] | None:
        answer = self._picture.firewalld
        return answer if isinstance(answer, Observed) else None

    def survey(self, events: Sequence[Event]) -> None:
        """Note when firewalld made its table anew; what it does itself from there to the next command is its own."""
        renewing, pid = False, None
        for event in events:
            record = event.first("SYSCALL")
            call = syscall(record) if record is not None else None
            if call is None or pid == 0:
                continue
            if not pid:
                # The bus is only asked when something in the log was done by a process that goes by that name.
                answer = self._picture.host.ask(ask.process(call.ppid))
                parent = answer.fact.comm if isinstance(answer, Observed) else ""
                if b"firewalld" not in call.comm and parent != "firewalld":
                    continue
                process = self._process
                pid = process.fact.process.identity.pid if process is not None else 0
                if not pid:
                    continue
            if call.pid != pid:
                command = command_of(event) if call.ppid == pid else None
                renewing = renewing and (command is None or command.action == "restore")
                if command is not None:
                    self._given.setdefault(_key(command), []).append(event.time)
                continue
            changes = [netfilter(each) for each in event.of_type("NETFILTER_CFG")]
            ops = {(text_of(each.table), each.op) for each in changes if each is not None}
            if ("firewalld", "nft_register_table") in ops or any(
                op == "nft_unregister_table" or table == "firewalld_policy_drop" for table, op in ops
            ):
                renewing = True
                if ("firewalld", "nft_register_table") in ops:
                    self._renewals.append(event.time)
            if renewing:
                self._own.add(id(event))

    def judge(self, case: Case, change: Change) -> None:
        """An event whose actor, or the parent of it, is the engine's firewalld."""
        process = self._process
        if process is None or case.actor.call is None:  # pragma: no cover - the actor says so
            return
        if case.actor.call.pid == process.fact.process.identity.pid:
            if not self.left_open(case, change):
                self._not_dockers(case, "Docker's rules are not made in its own process", process)
            return
        command = change.command
        if command is None or change.unread:
            case.lacks(
                "what firewalld was asked for",
                "the records hold no command that can be read",
                "have PROCTITLE or EXECVE records written",
            )
            return
        never = never_dockers(command)
        if never and self._starting(case.event.time):
            case.lacks(
                "whether Docker had firewalld do it",
                f"{never}, but it has firewalld reload at its first start",
                "",
            )
        elif never:
            self._not_dockers(case, never, process)
        elif _puts_in_user_chain(command):
            self._not_dockers(case, "Docker puts nothing but `-j RETURN` into DOCKER-USER", process)
        else:
            self._command(case, command, process)

    def unseen(self) -> Unobservable | None:
        """A look-up that failed, without which a change of firewalld's own tables may be one that Docker asked for."""
        picture = self._picture
        needed = (picture.daemon, picture.engine, picture.history, picture.firewalld)
        return next((each for each in needed if isinstance(each, Unobservable)), None)

    def left_open(self, case: Case, change: Change) -> bool:
        """Whether a change is of firewalld's own tables, and Docker may have asked for it; says so if it is."""
        time = case.event.time
        own = all(family == "inet" and table in _OWN_TABLES for family, table in change.places)
        if not own or not change.places:
            return False
        unseen = self.unseen()
        if unseen is not None:
            case.could_not_see("whether Docker had firewalld do it", unseen)
            return True
        if not self._picture.is_docker:
            return False
        zones = any(each.type == "network" for each in self._activity.explaining(time))
        renewed = self._renewed(time) is not None and id(case.event) not in self._own
        if not zones and not renewed and not self._starting(time):
            return False
        case.lacks(
            "whether Docker had firewalld do it",
            "Docker has firewalld put its bridges into a zone, and did something then that calls for it; on whose "
            "behalf firewalld changes its own tables is not recorded",
            "",
        )
        return True

    def _not_dockers(self, case: Case, why: str, process: Observed[Daemon]) -> None:
        text = f"firewalld, {who(process.fact.process)}"
        call = case.actor.call
        case.other = Cause(
            CauseKind.PROCESS, text, call.pid if call else None, process.fact.process.exe, None
        )
        case.disproves(Step.ACTOR, f"{text} did it, and not for Docker: {why}", process)

    # A command that may be Docker's

    def _command(self, case: Case, command: FirewallCommand, process: Observed[Daemon]) -> None:
        if self._stands_for_nothing(command):
            why = (
                "what it added is there, under Docker's names, and nothing that this engine runs calls for it"
            )
            self._not_dockers(case, why, process)
            return
        expected, because = self._letter(command)
        if not because:
            case.lacks(
                "whether the command is Docker's",
                "it is not to the letter one that this engine gives for what it runs"
                if not command.truncated
                else "the record has only the beginning of it",
                "have EXECVE records written: `auditctl -a always,exit -S execve -F ppid=PID` for firewalld's"
                if command.truncated
                else "",
            )
            return
        fault = self._state(command) or self._repeated(command, expected, case.event.time)
        if fault:
            case.doubts(Step.FIREWALL, fault, self._picture.layout.firewall)
            return
        moment = self._moment(case, command, expected)
        if not moment:
            case.lacks(
                "an occasion for Docker to ask for it",
                "the engine reported nothing that calls for it, had not just been started, and firewalld had not been "
                "reloaded in this log",
                "judge sooner, and with the whole log",
            )
            return
        if expected is not None:
            gone = expected.container_id == _GONE
            case.container = None if gone else self._picture.container_ref(expected.container_id or "")
            case.network = self._picture.network_ref(expected.network_id or "")
        text = f"the Docker engine, through firewalld (pid {process.fact.process.identity.pid})"
        call = case.actor.call
        case.through = Cause(
            CauseKind.DOCKER,
            text,
            call.pid if call else None,
            text_of(call.exe) if call else None,
            call.auid if call else None,
        )
        case.proves(
            Step.ACTOR,
            f"{who(process.fact.process)} did it, which {process.fact.how}; the command is to the letter what this "
            f"engine gives ({because}), and {moment}",
            process,
            "busctl call org.freedesktop.DBus / org.freedesktop.DBus GetConnectionUnixProcessID s "
            "org.fedoraproject.FirewallD1",
        )

    def _letter(self, command: FirewallCommand) -> tuple[ExpectedRule | None, str]:
        """What of Docker's a command is for, to the letter, as a clause; empty when it is nothing of Docker's."""
        layout = self._picture.layout
        if layout.version is None or command.truncated:
            return None, ""
        table = command.table or "filter"
        if command.action in _WHOLE_CHAIN:
            if command.action == "policy":
                return None, "it forbids forwarding" if command.text.endswith("-P FORWARD DROP") else ""
            dockers = command.chain is not None and is_docker_chain(layout.version, table, command.chain)
            emptied = command.chain == "DOCKER-USER" and command.action != "new_chain"
            return None, "a chain of Docker's" if dockers and not emptied else ""
        if command.spec is None or command.spec.opaque or command.action not in (*_ADDS, "delete"):
            return None, ""
        if command.spec == _RETURN and command.action == "insert":
            return (
                None,
                "",
            )  # at the end of a chain it does nothing, at the beginning it switches the chain off
        expected = layout.explain(command) or self._of_what_is_gone(command)
        return expected, expected.because if expected is not None else ""

    def _of_what_is_gone(self, command: FirewallCommand) -> ExpectedRule | None:
        """The rule as this engine makes it for a container or network that has gone since; its events name it.

        A container is made up with the addresses and ports that the command has, and a network with the bridge.
        """
        picture, layout, spec = self._picture, self._picture.layout, command.spec
        if spec is None or layout.version is None or command.family is None:
            return None
        known = list(picture.network_by_id.values())
        taken = {
            address
            for endpoint, container in picture.endpoints
            if container.running
            for address in (endpoint.ipv4, endpoint.ipv6)
        }
        gone = {
            each.network_id: each.network_name
            for each in picture.events
            if each.network_id and each.network_id not in picture.network_by_id and each.type == "network"
        }
        cidr = spec.source.value if spec.source is not None else "192.0.2.0/24"
        for network_id, name in gone.items():
            for internal in (False, True):
                known.append(
                    Network(
                        *(
                            network_id,
                            name,
                            "bridge",
                            "local",
                            internal,
                            False,
                            None,
                            f"br-{network_id[:12]}",
                        ),
                        (Subnet(cidr, ""),),
                        (),
                    )
                )
        address = (spec.to.rpartition(":")[0] or spec.to).strip("[]") or (
            spec.destination.value.partition("/")[0] if spec.destination else ""
        )
        inner = spec.to.rpartition(":")[2] or (spec.destination_ports.value if spec.destination_ports else "")
        outer = spec.destination_ports.value if spec.destination_ports and spec.to else ""
        host_ip = spec.destination.value.partition("/")[0] if spec.to and spec.destination else ""
        ports: tuple[PublishedPort, ...] = ()
        if inner.isdigit() and (outer.isdigit() or not outer) and spec.protocol is not None:
            ports = (PublishedPort(spec.protocol.value, int(inner), host_ip, int(outer or 1)),)
        place = (command.family, command.table or "filter", command.chain or "")
        for network in known:
            v6 = command.family == "ip6"
            endpoint = Endpoint(
                network.id, network.name, "", "", "" if v6 else address, address if v6 else ""
            )
            ghosts = _ghost(endpoint, ports) if address and address not in taken else ()
            if network.driver != "bridge":
                continue
            expected = expected_rules(layout.version, (network,), ghosts)
            found = explain_spec(spec, *place, expected)
            if found is not None:
                return found
        return None

    def _repeated(self, command: FirewallCommand, expected: ExpectedRule | None, time: float) -> str:
        """Whether a rule for a container was made or unmade more than once: an engine that runs on does so once."""
        if expected is None or expected.container_id in (None, _GONE):
            return ""
        if self._renewed(time) is not None or self._starting(time):
            return ""
        near = [each for each in self._given.get(_key(command), ()) if abs(each - time) <= RELOADING]
        return (
            f"the log has this command {len(near)} times, and the engine gives it once"
            if len(near) > 1
            else ""
        )

    def _stands_for_nothing(self, command: FirewallCommand) -> bool:
        """Whether what a command adds is there now and is nothing of Docker's, not even once."""
        attribution, standing = self._picture.layout.attribution, self._picture.layout.live(command)
        if attribution is None or not standing or command.action not in _ADDS:
            return False
        unexplained = {id(rule) for rule in attribution.unexplained}
        return all(id(rule) in unexplained for rule in standing)

    def _state(self, command: FirewallCommand) -> str:
        """What of the firewall as it is now speaks against Docker's having asked for it; empty when nothing does."""
        layout = self._picture.layout
        attribution = layout.attribution
        if attribution is None or not isinstance(layout.firewall, Observed):
            return "what stands in the firewall now could not be held against it"
        firewall = layout.firewall.fact
        table = command.table or "filter"
        if command.action in _WHOLE_CHAIN:
            if not command.chain or not firewall.chain(command.family or "", table, command.chain):
                return f"there is no chain {command.chain} now"
            place = (command.family, table, command.chain)
            empties = command.action in ("flush", "delete_chain")
            if empties and any(
                (each.family, each.table, each.chain) == place for each in attribution.missing
            ):
                return f"rules that this engine needs are missing in {command.chain}"
            return ""
        standing = layout.live(command)
        unexplained = {id(rule) for rule in attribution.unexplained}
        if any(id(rule) in unexplained for rule in standing):
            return "the rule is there once too often, so one of the two is not Docker's"
        needed = layout.explain(command) is not None
        if needed and not standing:
            return "this engine needs the rule for what it runs, and it is not there"
        if not needed and standing:
            return "the rule is there, and this engine needs it for nothing"
        return ""

    # When

    def _moment(self, case: Case, command: FirewallCommand, expected: ExpectedRule | None) -> str:
        """What the engine did then that calls for it, as a clause; empty when nothing is known."""
        time = case.event.time
        renewed = self._renewed(time)
        if renewed is not None:
            return (
                f"firewalld had made its own table anew {apart(time, renewed).removesuffix(' after')} before"
            )
        jump = command.spec is not None and command.spec.target in _DOCKERS_JUMPS
        wanted = _OPENING if command.action in _ADDS else _CLOSING
        if command.action not in _WHOLE_CHAIN:
            for each in sorted(self._activity.explaining(time), key=lambda one: abs(one.at - time)):
                if each.action in wanted and (
                    (each.type, each.action) == ("network", "create")
                    if jump
                    else self._concerns(each, expected)
                ):
                    return (
                        f"the engine reported `{each.type} {each.action}` {apart(each.at, time)} the record"
                    )
        return "the engine was starting" if self._starting(time) else ""

    def _concerns(self, event: EngineEvent, expected: ExpectedRule | None) -> bool:
        """Whether an event is of the container or network that a rule is for."""
        if expected is None:
            return False
        if expected.container_id == _GONE:
            # Which container it was is not known; one that runs now it was not.
            now = self._picture.container_by_id.get(event.container_id)
            return bool(event.container_id) and (now is None or not now.running)
        if expected.container_id is not None:
            return event.container_id == expected.container_id
        return event.type == "container" or expected.network_id in (None, event.network_id)

    def _renewed(self, time: float) -> float | None:
        """When firewalld last made its table anew, if that is not long ago."""
        return next((each for each in reversed(self._renewals) if 0 <= time - each <= RELOADING), None)

    def _starting(self, time: float) -> bool:
        started = self._picture.started_before(time)
        return (
            started is not None
            and time - started <= STARTING
            and not self._picture.events_between(started, time)
        )


def _key(command: FirewallCommand) -> tuple[object, ...]:
    """What is the same for the same change, in whatever order its words are."""
    return (command.family, command.table or "filter", command.action, command.chain, command.spec)


def _puts_in_user_chain(command: FirewallCommand) -> bool:
    """Whether it adds to DOCKER-USER what Docker never puts there."""
    spec = command.spec
    adds = command.chain == "DOCKER-USER" and command.action in _ADDS
    return adds and spec is not None and not command.truncated and spec != _RETURN


def _ghost(endpoint: Endpoint, ports: tuple[PublishedPort, ...]) -> tuple[Container, ...]:
    """A container that has gone, as far as a rule for it can tell."""
    return (Container(_GONE, "a container that has gone", "", True, None, "", (endpoint,), ports),)
