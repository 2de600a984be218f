"""Who holds promiscuous mode on a device, and how often: the parts of IFLA_PROMISCUITY.

The kernel counts holders and does not list them. Those that can hold it are looked at one by one, and
their sum is set against the count. Where the kernel does not show whether one holds it now (it depends
on the driver, or on the version), it counts from `least` to `most`. What the sum cannot reach is a
remainder: held by somebody whom nothing here shows.

| holder                                 | times  | shown by                | source                                   |
|----------------------------------------|--------|-------------------------|------------------------------------------|
| bridge, no VLAN filtering              | 1      | IFLA_MASTER             | net/bridge/br_if.c br_manage_promisc()   |
| bridge with VLAN filtering             | 0 to 1 | IFLA_BR_VLAN_FILTERING  | the same: up to driver and port flags    |
| Open vSwitch, HSR                      | 1      | IFLA_INFO_SLAVE_KIND    | vport-netdev.c, hsr_slave.c              |
| bond, team and what else has ports     | 0 to 1 | IFLA_INFO_SLAVE_KIND    | bond_main.c bond_set_promiscuity()       |
| `ip link set promisc on`               | 1      | IFF_PROMISC             | net/core/dev.c __dev_change_flags()      |
| packet socket, PACKET_MR_PROMISC       | 1 each | PACKET_DIAG_MCLIST      | net/packet/af_packet.c packet_dev_mc()   |
| macvlan, macvtap passthru that is up   | 1      | IFLA_MACVLAN_MODE       | drivers/net/macvlan.c macvlan_open()     |
| other macvlan, promiscuous itself      | 0 to 1 | IFLA_PROMISCUITY        | macvlan_change_rx_flags(), from 6.6 on   |
| VLAN, MACsec, DSA port, promiscuous    | 1      | IFLA_PROMISCUITY        | 8021q/vlan_dev.c, macsec.c               |
| a further unicast address              | 0 to 1 | RTM_GETNEIGH, PF_BRIDGE | net/core/dev.c __dev_set_rx_mode()       |

A further unicast address (of a macvlan, a PACKET_MR_UNICAST membership, `bridge fdb add`) makes a device
promiscuous whose driver cannot filter by address (veth, bridge, tap): once, however many there are.
A membership is counted again when it comes with another address, which the kernel does not look at.

Blind spots: kernel modules that hold it by themselves; Open vSwitch's own ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from verify_audit.host.facts import Link, PacketSocket, Stack, Upper


class Holder(StrEnum):
    """What kind of thing holds promiscuous mode."""

    MASTER = "master"
    UPPER = "upper"
    ADDRESS = "address"
    FLAG = "flag"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class Hold:
    """A holder, and how often it holds. most is None where nothing bounds it.

    text: who, as a noun phrase, with names as they are. socket: for a packet socket. explained: the
    kernel's own doing, as opposed to something that a process asked for.
    """

    holder: Holder
    text: str
    least: int
    most: int | None
    socket: PacketSocket | None = None
    explained: bool = True


@dataclass(frozen=True, slots=True)
class Ledger:
    """The holders of promiscuous mode on one device."""

    link: Link
    holds: tuple[Hold, ...]

    @property
    def count(self) -> int:
        """The kernel's count."""
        return self.link.promiscuity

    @property
    def least(self) -> int:
        """How often they hold it at least."""
        return sum(hold.least for hold in self.holds)

    @property
    def most(self) -> int | None:
        """How often they hold it at most; None where that cannot be known."""
        bounds = [hold.most for hold in self.holds]
        return None if None in bounds else sum(each or 0 for each in bounds)

    @property
    def remainder(self) -> int:
        """How often at least somebody holds it whom nothing shows."""
        return 0 if self.most is None else max(0, self.count - self.most)

    @property
    def unexplained(self) -> tuple[Hold, ...]:
        """Those who hold it for no reason of the kernel's, and are no packet socket.

        One that need not hold it, since the others reach the count, is none of them.
        """
        others = sum(hold.most or 0 for hold in self.holds if hold.explained or hold.socket)
        return tuple(
            hold
            for hold in self.holds
            if not hold.explained
            and hold.socket is None
            and (hold.least or (self.most is not None and self.count > others))
        )


def ledger(
    link: Link, master: Link | None, sockets: tuple[PacketSocket, ...] | None, stack: Stack | None
) -> Ledger:
    """Who holds promiscuous mode on a device.

    master: the interface that it is a port of, None when there is none or it could not be looked at.
    sockets: the packet sockets of its namespace, stack: what stands on it; None when that could not be looked at.
    """
    holds = [*_master(link, master)]
    if link.asked_promiscuous:
        holds.append(
            Hold(Holder.FLAG, "whoever set it on the device itself (`promisc on`)", 1, 1, explained=False)
        )
    for socket in sockets or ():
        times = socket.memberships.count(link.ifindex)
        if times or not socket.whole:
            most = times if socket.whole else None
            holds.append(
                Hold(Holder.SOCKET, f"packet socket {socket.inode}", times, most, socket, explained=False)
            )
    if sockets is None:
        holds.append(
            Hold(Holder.SOCKET, "packet sockets that could not be looked at", 0, None, explained=False)
        )
    if stack is None:
        holds.append(Hold(Holder.UPPER, "what stands on it, which could not be looked at", 0, None))
    else:
        holds += _uppers(stack)
        holds += _addresses(link, sockets, stack)
    return Ledger(link, tuple(holds))


def _master(link: Link, master: Link | None) -> list[Hold]:
    if link.master is None:
        return []
    name = master.name if master is not None else f"interface {link.master}"
    match link.slave_kind:
        case "bridge":
            filtering = master is not None and master.vlan_filtering and not master.promiscuity
            return [Hold(Holder.MASTER, f"the bridge {name}", 0 if filtering else 1, 1)]
        case "openvswitch" | "hsr":
            return [Hold(Holder.MASTER, f"{name}, whose port it is ({link.slave_kind})", 1, 1)]
        case "vrf":
            return []
        case kind:
            return [Hold(Holder.MASTER, f"{name}, whose port it is ({kind or 'of no known kind'})", 0, 1)]


def _uppers(stack: Stack) -> list[Hold]:
    holds = []
    for upper in stack.uppers:
        least, most = _passed_down(upper.link)
        if most:
            holds.append(Hold(Holder.UPPER, _upper_text(upper), least, most))
    if stack.unseen:
        numbers = ", ".join(map(str, stack.unseen))
        text = f"what stands on it in network namespaces that could not be looked into (nsid {numbers})"
        holds.append(Hold(Holder.UPPER, text, 0, None))
    return holds


def _passed_down(link: Link) -> tuple[int, int]:
    """How often an interface holds promiscuous mode on the one that it stands on: at least and at most."""
    if not link.up:
        return 0, 0
    promiscuous = link.promiscuity > 0
    match link.kind:
        case "macvlan" | "macvtap" if link.mode == "passthru":
            # Kernels that pass it on did so at first for passthru too.
            return (0, 0) if link.spares_promiscuity else (1, 1 + promiscuous)
        case "vlan" | "macsec" | "dsa":
            return int(promiscuous), int(promiscuous)
        case "ipvlan" | "ipvtap" | "vxlan":
            return 0, 0
        case _:
            return 0, int(promiscuous)


def _upper_text(upper: Upper) -> str:
    link = upper.link
    where = upper.where
    if not where and upper.nsid is not None:
        where = f" in the network namespace with nsid {upper.nsid}"
    mode = f" in mode {link.mode}" if link.mode else ""
    return f"the {link.kind or 'interface'} {link.name}{where}, which stands on it{mode}"


def _addresses(link: Link, sockets: tuple[PacketSocket, ...] | None, stack: Stack) -> list[Hold]:
    """What its further unicast addresses hold: once at most, whoever they are for."""
    if not stack.addresses:
        # A device keeps what it held when it was taken down.
        return [] if link.up else [Hold(Holder.ADDRESS, "an address that it took before it went down", 0, 1)]
    owners = {upper.link.mac: _upper_text(upper) for upper in stack.uppers if upper.link.up}
    asked = {
        address: socket
        for socket in sockets or ()
        for ifindex, address in socket.addresses
        if ifindex == link.ifindex
    }
    known = [owners[address] for address in stack.addresses if address in owners]
    if known:
        more = f" and {len(known) - 1} more" if len(known) > 1 else ""
        return [Hold(Holder.ADDRESS, f"the address of {known[0]}{more}", 0, 1)]
    for address in stack.addresses:
        if address in asked:
            text = f"the address {address}, which packet socket {asked[address].inode} asked for"
            return [Hold(Holder.ADDRESS, text, 0, 1, asked[address], explained=False)]
    text = f"the address {stack.addresses[0]}, which no interface and no socket here is seen to want"
    return [Hold(Holder.ADDRESS, text, 0, 1, explained=False)]
