"""What a packet socket can hear, by what the kernel says of it: its protocol, its memberships.

Not by its program's name, which anybody may choose, nor by its filter, which the program may change or
take away at any time without a trace.

References: packet(7); include/uapi/linux/if_ether.h.
"""

from __future__ import annotations

from enum import StrEnum

from verify_audit.host.facts import PacketSocket

ETH_P_ALL = 3

CONTROL = {
    0x0806: "ARP",
    0x8035: "RARP",
    0x8809: "LACP",
    0x888E: "EAPOL",
    0x88C7: "EAPOL preauthentication",
    0x88CC: "LLDP",
    0x88F5: "MVRP",
    0x88F6: "MMRP",
    0x88F7: "PTP",
    0x890D: "TDLS",
    0x8902: "CFM",
}
"""Protocols between neighbours on a link, which carry nobody's traffic."""

_NAMES = CONTROL | {
    0x0000: "none",
    0x0001: "802.3",
    0x0003: "all",
    0x0004: "802.2",
    0x0800: "IPv4",
    0x8100: "VLAN",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE",
    0x86DD: "IPv6",
}


class Hearing(StrEnum):
    """How much a packet socket can hear.

    OVERHEARS:  traffic of others, as far as it reaches the device: it may be a sniffer.
    CONTROL:    only what neighbours say to one another on a link, and it asked for no promiscuous mode.
    DEAF:       nothing: it has no protocol, asked for no promiscuous mode, and is there to send.
    """

    OVERHEARS = "overhears"
    CONTROL = "control"
    DEAF = "deaf"


def hearing(socket: PacketSocket) -> Hearing:
    """What a socket can hear. One that holds promiscuous mode, or may, is never called harmless."""
    if socket.memberships or socket.addresses or not socket.whole:
        return Hearing.OVERHEARS
    if socket.protocol == 0:
        return Hearing.DEAF
    return Hearing.CONTROL if socket.protocol in CONTROL else Hearing.OVERHEARS


def protocol_name(protocol: int) -> str:
    """An ethertype with the name that it goes by."""
    name = _NAMES.get(protocol)
    return f"0x{protocol:04x}" if name is None else name
