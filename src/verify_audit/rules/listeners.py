"""Who listens on a device: the packet sockets on it, and the processes that hold them.

A device goes into promiscuous mode when the first asks for it, and stays there while one still does. So a
socket that is as old as the record may be its cause, and a younger one writes no record at all.

References: packet(7); net/packet/af_packet.c packet_dev_mc(); net/core/dev.c __dev_set_promiscuity().
"""

from __future__ import annotations

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import Cause, CauseKind
from verify_audit.findings.words import short, who
from verify_audit.host.facts import Link, PacketSocket
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.case import Case
from verify_audit.rules.picture import START_SLACK, Picture

_BY_HAND = "ss -0 -p -n"


class Listeners:
    """The packet sockets of one host, as evidence on a device."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def tell(self, case: Case, link: Observed[Link], device: str, *, enters: bool) -> None:
        """Who has a packet socket on the device: the cause, or at least worth a warning."""
        sockets = self._picture.listeners(link.fact.ifindex)
        if not isinstance(sockets, Observed):
            if isinstance(sockets, Unobservable):
                case.could_not_see("who listens", sockets)
            return
        port = link.fact.slave_kind == "bridge"
        for socket in sockets.fact.sockets:
            asked = link.fact.ifindex in socket.memberships
            name, cause = self._named(socket)
            how = "in promiscuous mode" if asked else "without asking for promiscuous mode"
            statement = f"{name} listens on {device} {how}"
            began = min((holder.started_at for holder in socket.holders), default=None)
            before = began is not None and began <= case.event.time + START_SLACK
            if asked and enters and before and not port:
                case.other = cause
                case.disproves(Step.LISTENERS, f"{statement}, since before the record", sockets, _BY_HAND)
            elif asked and enters and before and not case.actor.is_docker:
                case.other = cause
                case.doubts(Step.LISTENERS, f"{statement}, since before the record", sockets, _BY_HAND)
            else:
                case.notes(Step.LISTENERS, statement, sockets, _BY_HAND)
            case.warnings.append(f"{statement}, which the audit log need not show")

    def _named(self, socket: PacketSocket) -> tuple[str, Cause]:
        if not socket.holders:
            text = f"a process that could not be found (packet socket {socket.inode}, uid {socket.uid})"
            return text, Cause(CauseKind.UNKNOWN, text)
        holder = socket.holders[0]
        ref = self._picture.container_ref(holder.container_id or "")
        text = who(holder) + (f", in container {ref.name or short(ref.id)}" if ref else "")
        kind = CauseKind.CONTAINER if ref else CauseKind.PROCESS
        return text, Cause(kind, text, holder.identity.pid, holder.exe, holder.loginuid)

    def later_members(self, link: Link, event: Event) -> int:
        """How many sockets hold promiscuous mode on an interface that were opened after an event."""
        answer = self._picture.listeners(link.ifindex)
        sockets = answer.fact.sockets if isinstance(answer, Observed) else ()
        after = event.time + START_SLACK
        return sum(
            link.ifindex in socket.memberships
            and bool(socket.holders)
            and all(holder.started_at > after for holder in socket.holders)
            for socket in sockets
        )
