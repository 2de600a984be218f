"""Who listens on a device, and who holds promiscuous mode on it: packet sockets, and the ledger.

A device goes into promiscuous mode when the first asks for it, and stays there while one still does. So a
socket that is as old as the record may be its cause, and a younger one writes no record at all.

References: packet(7); net/packet/af_packet.c packet_dev_mc(); net/core/dev.c __dev_set_promiscuity().
"""

from __future__ import annotations

from shlex import quote

from verify_audit.audit.record import Event
from verify_audit.findings.evidence import Step
from verify_audit.findings.finding import Cause, CauseKind
from verify_audit.findings.words import short, who
from verify_audit.host import questions as ask
from verify_audit.host.facts import Link, PacketSocket
from verify_audit.host.hearing import Hearing, hearing, protocol_name
from verify_audit.host.ledger import Holder, Ledger, ledger
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.rules.case import Case
from verify_audit.rules.picture import START_SLACK, Picture

_BY_HAND = "ss -0 -p -n"
_UNRECORDED = "which the audit log does not show"


class Listeners:
    """The packet sockets of one host, as evidence on a device."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def tell(self, case: Case, link: Observed[Link], device: str, *, enters: bool) -> None:
        """Who has a packet socket that hears the device: the cause, or at least worth a warning."""
        self._tell_holders(case, link, device)
        sockets = self._picture.listeners(link.fact.ifindex)
        if not isinstance(sockets, Observed):
            if isinstance(sockets, Unobservable):
                case.could_not_see("who listens", sockets)
            return
        port = link.fact.slave_kind == "bridge"
        for socket in sockets.fact.sockets:
            asked = link.fact.ifindex in socket.memberships
            name, cause = self._named(socket)
            statement = f"{name} {_listens(socket, link.fact, device)}"
            if hearing(socket) is not Hearing.OVERHEARS:
                case.notes(Step.LISTENERS, statement, sockets, _BY_HAND)
                continue
            began = min((holder.started_at for holder in socket.holders), default=None)
            before = began is not None and began <= case.event.time + START_SLACK
            recorded = False
            if asked and enters and before and not port:
                recorded = True
                case.other = cause
                case.disproves(Step.LISTENERS, f"{statement}, since before the record", sockets, _BY_HAND)
            elif asked and enters and before and not case.actor.is_docker:
                recorded = True
                case.other = cause
                case.doubts(Step.LISTENERS, f"{statement}, since before the record", sockets, _BY_HAND)
            else:
                case.notes(Step.LISTENERS, statement, sockets, _BY_HAND)
            case.warnings.append(statement if recorded else f"{statement}, {_UNRECORDED}")

    def _tell_holders(self, case: Case, link: Observed[Link], device: str) -> None:
        """Who else than a bridge and packet sockets holds promiscuous mode; and whether all can be seen."""
        held = self.ledger(link.fact)
        by_hand = f"ip -d link show dev {quote(device)} | grep promiscuity; verify-audit sniffers"
        others = [
            hold.text for hold in held.holds if hold.holder in (Holder.UPPER, Holder.ADDRESS) and hold.most
        ]
        if others and held.count > sum(hold.least for hold in held.holds if hold.holder is not Holder.UPPER):
            case.notes(
                Step.LISTENERS,
                f"promiscuous mode is held {held.count} times on {device}; it may be held by {'; '.join(others)}",
                link,
                by_hand,
            )
        if link.fact.master is not None:
            # Elsewhere it may be what the record is of.
            case.warnings += [
                f"{hold.text} holds promiscuous mode on {device} now, {_UNRECORDED}"
                for hold in held.unexplained
            ]
        if held.remainder:
            case.warnings.append(
                f"promiscuous mode is held {held.count} times on {device}, and all that can be seen here account for "
                f"{held.most}: somebody holds it whom nothing here shows, {_UNRECORDED}"
            )

    def _named(self, socket: PacketSocket) -> tuple[str, Cause]:
        if not socket.holders:
            text = f"a process that could not be found (packet socket {socket.inode}, uid {socket.uid})"
            return text, Cause(CauseKind.UNKNOWN, text)
        holder = socket.holders[0]
        ref = self._picture.container_ref(holder.container_id or "")
        text = who(holder) + (f", in container {ref.name or short(ref.id)}" if ref else "")
        kind = CauseKind.CONTAINER if ref else CauseKind.PROCESS
        return text, Cause(kind, text, holder.identity.pid, holder.exe, holder.loginuid)

    def ledger(self, link: Link) -> Ledger:
        """Who holds promiscuous mode on a device. What stands on it is only looked at when the rest falls short."""
        sockets = self._picture.listeners(link.ifindex)
        found = sockets.fact.sockets if isinstance(sockets, Observed) else None
        master = self._picture.host.ask(ask.link_at(link.master)) if link.master is not None else None
        bridge = master.fact if isinstance(master, Observed) else None
        held = ledger(link, bridge, found, None)
        if held.count <= held.least:
            return held
        stack = self._picture.host.ask(ask.stack(link.ifindex))
        return ledger(link, bridge, found, stack.fact) if isinstance(stack, Observed) else held

    def held_once(self, link: Link, event: Event) -> bool:
        """Whether nothing but its bridge can have held promiscuous mode on a device at an event.

        Sockets that were opened afterwards are left out.
        """
        held = self.ledger(link)
        bridges = [hold for hold in held.holds if hold.holder is Holder.MASTER]
        after = event.time + START_SLACK
        later = sum(
            hold.least
            for hold in held.holds
            if hold.socket is not None
            and hold.socket.holders
            and all(holder.started_at > after for holder in hold.socket.holders)
        )
        return held.count - later == 1 and [hold.least for hold in bridges] == [1]


def _listens(socket: PacketSocket, link: Link, device: str) -> str:
    on = device if socket.ifindex or link.ifindex in socket.memberships else f"every device, {device} too"
    match hearing(socket):
        case Hearing.DEAF:
            return f"has a packet socket on {on} that hears nothing"
        case Hearing.CONTROL:
            return f"hears {protocol_name(socket.protocol)} on {on}, and nothing else"
    if link.ifindex in socket.memberships:
        return f"listens now on {on}, in promiscuous mode"
    if not socket.whole:
        return f"listens now on {on}; whether in promiscuous mode the kernel did not tell"
    return f"listens now on {on}, without asking for promiscuous mode"
