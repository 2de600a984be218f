"""Facts about engine, containers, links and processes, as plain frozen values.

Times are seconds since the epoch (CLOCK_REALTIME, float). A network namespace is named by the inode
number of its nsfs file, valid while the namespace lives (namespaces(7)). A number that the kernel or
the engine uses again (pid, ifindex, name) never stands alone: it comes with the start time or the
namespace that makes it an identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Product(StrEnum):
    """Who answers on the API socket. Podman speaks the same API and is not Docker."""

    DOCKER = "docker"
    PODMAN = "podman"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be confused with a later one of the same pid.

    pid is in the initial pid namespace; start_ticks is field 22 of /proc/PID/stat (clock ticks since
    boot, proc(5)).
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Process:
    """A living process as /proc shows it.

    comm, exe and argv are what the process says of itself (bytes decoded with surrogateescape):
    claims, never an identity. loginuid and session are None when unset (4294967295).
    container_id is the 64-digit id in its cgroup path, None when there is none.
    """

    identity: ProcessIdentity
    started_at: float
    ppid: int
    comm: str
    exe: str | None
    argv: tuple[str, ...]
    uid: int | None
    loginuid: int | None
    session: int | None
    cgroup: str
    container_id: str | None
    netns: int | None


@dataclass(frozen=True, slots=True)
class Daemon:
    """The process that holds the other end of our connection to the API socket, and is an engine if it says so.

    is_init: it is the first of a pid namespace, so that every orphan there becomes a child of it.
    """

    process: Process
    how: str
    is_init: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """What the engine says of itself (GET /version and GET /info).

    root is the directory of its data (DockerRootDir), as the engine itself sees it.
    """

    product: Product
    version: str
    api_version: str
    engine_id: str
    name: str
    firewall_backend: str | None
    live_restore: bool
    rootless: bool
    userns_remap: bool
    docker_host: str
    root: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network. mac is lower case; addresses are without prefix length."""

    network_id: str
    network_name: str
    endpoint_id: str
    mac: str
    ipv4: str
    ipv6: str


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port that the host forwards to the container; host_port is 0 where it is routed, not forwarded."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True)
class Container:
    """One container, running or not, as GET /containers/json lists it.

    network_mode is HostConfig.NetworkMode ("bridge", "host", "container:ID", ...). linked_from are the
    names of the containers that were given a --link to this one; exposed are (protocol, port) of what it
    offers to them, published or not.
    """

    id: str
    name: str
    image: str
    running: bool
    created_at: float | None
    network_mode: str
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PublishedPort, ...]
    linked_from: tuple[str, ...] = ()
    exposed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """When a container ran, and as which process (GET /containers/ID/json).

    pid is 0 and sandbox empty unless it runs. The times are None when the engine never set them.
    bindings are the ports that it publishes whenever it runs (HostConfig.PortBindings), host_port 0 for one of
    the engine's choice; None when they are not known.
    """

    container_id: str
    running: bool
    pid: int
    started_at: float | None
    finished_at: float | None
    sandbox: str
    bindings: tuple[PublishedPort, ...] | None = None


@dataclass(frozen=True, slots=True)
class Subnet:
    """One IPAM entry of a network; cidr as the engine writes it ("172.18.0.0/16")."""

    cidr: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """One Docker network. bridge is the interface name that a bridge network lives on, else empty.

    options are the driver options as the engine gives them.
    """

    id: str
    name: str
    driver: str
    scope: str
    internal: bool
    ipv6: bool
    created_at: float | None
    bridge: str
    subnets: tuple[Subnet, ...]
    options: tuple[tuple[str, str], ...]

    def option(self, key: str) -> str | None:
        """The value of a driver option, None when it is not set."""
        for name, value in self.options:
            if name == key:
                return value
        return None


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One line of GET /events. container_id and network_id are empty where they do not apply.

    driver: of the network ("bridge", "host", "null"); empty where that was not said.
    """

    at: float
    type: str
    action: str
    container_id: str
    container_name: str
    image: str
    network_id: str
    network_name: str
    driver: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """The engine's events, and since when they are complete.

    The engine keeps the last 256 in memory and none from before its own start (moby
    daemon/events/events.go, eventsLimit). Before `complete_since` a missing event means nothing.
    """

    events: tuple[EngineEvent, ...]
    complete_since: float
    complete_until: float

    def covers(self, start: float, end: float) -> bool:
        """Whether every event between the two times is in this history."""
        return self.complete_since <= start and end <= self.complete_until


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface in the network namespace `netns`, the engine's.

    promiscuity is the kernel's count (IFLA_PROMISCUITY). asked_promiscuous is the IFF_PROMISC bit that
    user space set itself: dev_get_flags() shows it from gflags, so a bridge port or a packet socket
    does not set it (net/core/dev.c). peer_nsid is the namespace id of the peer (IFLA_LINK_NETNSID),
    None when the peer is in this namespace or there is none; peer_ifindex is IFLA_LINK.

    mode is that of a macvlan or macvtap ("passthru", ...), else empty; spares_promiscuity its flag
    "nopromisc". vlan_filtering is a bridge's. xdp: an XDP program is attached.
    """

    netns: int
    ifindex: int
    name: str
    kind: str
    mac: str
    master: int | None
    slave_kind: str
    peer_ifindex: int | None
    peer_nsid: int | None
    promiscuity: int
    asked_promiscuous: bool
    up: bool
    mode: str = ""
    spares_promiscuity: bool = False
    vlan_filtering: bool = False
    xdp: bool = False


@dataclass(frozen=True, slots=True)
class Upper:
    """An interface that stands on another one.

    nsid: the namespace that it is in, None for this one. where: the same in words, where it is known.
    """

    link: Link
    nsid: int | None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """What stands on an interface, in every namespace that the engine's has an id for.

    addresses are the unicast addresses that the interface takes beside its own (lower case): for each
    there is an upper interface, a socket or somebody who added it by hand. unseen are the namespace ids
    that could not be looked into.
    """

    ifindex: int
    uppers: tuple[Upper, ...]
    addresses: tuple[str, ...]
    unseen: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth, looked at through the namespace id that the kernel gives it here."""

    nsid: int
    ifindex: int
    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class Boot:
    """Which boot of which host this is (/proc/sys/kernel/random/boot_id), and when it began."""

    boot_id: str
    at: float
    hostname: str


@dataclass(frozen=True, slots=True)
class PacketSocket:
    """A packet(7) socket: something that may listen. ifindex 0 is bound to every interface.

    protocol is the ethertype that it takes (3 is every one, ETH_P_ALL; 0 is none: it only sends).
    memberships are the interfaces on which it asked for promiscuous mode, one entry for each time that
    it counts; addresses the unicast addresses that it asked an interface to take (ifindex, address).
    whole is False when the kernel did not tell the memberships. holders are the processes that have it
    open; empty when none could be found. filter: BPF instructions of its filter, None when not known.
    """

    inode: int
    ifindex: int
    protocol: int
    uid: int | None
    memberships: tuple[int, ...]
    holders: tuple[Process, ...]
    addresses: tuple[tuple[int, str], ...] = ()
    whole: bool = True
    filter: int | None = None


@dataclass(frozen=True, slots=True)
class PacketSockets:
    """The packet sockets that hear one interface: bound to it or to all, or promiscuous on it."""

    netns: int
    sockets: tuple[PacketSocket, ...]
