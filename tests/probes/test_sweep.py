"""The sweep against this kernel. For root: namespaces are made, and sockets in them."""

from __future__ import annotations

import array
import ctypes
import mmap
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.probes.own_namespace import can, device, in_a_namespace, sh
from verify_audit.host.facts import PacketSocket
from verify_audit.host.hearing import Hearing
from verify_audit.host.sweep import Conclusion, Swept, SweptNamespace
from verify_audit.probes import census as counting
from verify_audit.probes import sweep as sweeping
from verify_audit.probes.census import Census, census
from verify_audit.probes.namespace import netns_of, own_netns, through
from verify_audit.probes.netlink import NetlinkError, request
from verify_audit.probes.sweep import sweep

ALL = 3


@contextmanager
def packet(protocol: int = ALL, device: str = "", promiscuous: bool = False) -> Iterator[socket.socket]:
    """A packet socket of this process."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol)) as made:
        if device:
            made.bind((device, protocol))
        if promiscuous:
            made.setsockopt(263, 1, struct.pack("=IHH8s", socket.if_nametoindex(device), 1, 0, b""))
        yield made


@contextmanager
def another_namespace() -> Iterator[int]:
    """A process that does nothing in a namespace of its own; its pid."""
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as process:
        try:
            while netns_of(process.pid) == own_netns():
                assert process.poll() is None
            yield process.pid
        finally:
            process.kill()


def inode(made: socket.socket) -> int:
    return os.fstat(made.fileno()).st_ino


def found(swept: Swept, number: int) -> tuple[SweptNamespace, PacketSocket]:
    """The socket of that inode, and where it was found."""
    ((namespace, entry),) = [
        (namespace, entry)
        for namespace in swept.namespaces
        for entry in namespace.sockets or ()
        if entry.inode == number
    ]
    return namespace, entry


def held_by_us(entry: PacketSocket) -> bool:
    return os.getpid() in [holder.identity.pid for holder in entry.holders]


def test_a_sniffer_here_and_one_on_every_device() -> None:
    def act() -> None:
        sh("ip link set lo up")
        with packet(device="lo", promiscuous=True) as bound, packet() as on_all, packet(0x88CC) as lldp:
            swept = sweep()
            conclusion = Conclusion(swept, None)
            listeners = {each.socket.inode: each for each in conclusion.listeners}
            for made in (bound, on_all, lldp):
                namespace, entry = found(swept, inode(made))
                assert namespace.netns == own_netns()
                assert held_by_us(entry)
            assert (listeners[inode(bound)].device, listeners[inode(bound)].promiscuous_on) == ("lo", ("lo",))
            assert listeners[inode(on_all)].device is None
            assert listeners[inode(lldp)].hearing is Hearing.CONTROL
            (loopback,) = [each for each in conclusion.devices if each.ledger.link.netns == own_netns()]
            assert (loopback.ledger.least, loopback.ledger.count, loopback.unexplained) == (1, 1, False)

    in_a_namespace(act)


def test_a_sniffer_in_a_namespace_that_only_a_thread_is_in() -> None:
    """The thread of in_a_namespace() is such: its process is elsewhere."""

    def act() -> tuple[int, int]:
        with packet() as made:
            namespace, entry = found(sweep(), inode(made))
            assert held_by_us(entry)
            assert namespace.door.startswith(f"/proc/{os.getpid()}/task/")
            return namespace.netns or 0, netns_of(os.getpid()) or 0

    theirs, ours = in_a_namespace(act)
    assert theirs != ours


def test_a_namespace_without_packet_sockets_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []

    def watched(door: str, netns: int, look: Callable[[], object], name: str) -> object:
        entered.append(netns)
        return through(door, netns, look, name)

    monkeypatch.setattr(sweeping, "through", watched)

    def act() -> None:
        with another_namespace() as pid:
            sh(f"ip link add v0 type veth peer name v1 netns {pid}", "ip link set v0 up")
            swept = sweep()
            (other,) = [each for each in swept.namespaces if each.netns == netns_of(pid)]
            assert other.sockets == ()
            assert {link.name for link in other.links or ()} == {"lo", "v1"}
            assert other.nsid is not None
            assert netns_of(pid) not in entered
            assert own_netns() in entered
            # Promiscuous for a reason that the list of interfaces does not show.
            add = "bridge fdb add 02:11:22:33:44:55 dev v1 self permanent"
            sh(f"nsenter -t {pid} -n ip link set v1 up", f"nsenter -t {pid} -n {add}")
            unexplained = [each for each in Conclusion(sweep(), None).devices if each.unexplained]
            assert "v1" in [
                each.ledger.link.name for each in unexplained if each.place.netns == netns_of(pid)
            ]
            assert netns_of(pid) in entered

    in_a_namespace(act)


def test_a_macvlan_in_another_namespace_explains_its_parent() -> None:
    def act() -> None:
        sh("ip link add v0 type veth peer name v1", "ip link set v0 up")
        if not can("ip link add link v0 name m0 type macvlan mode passthru"):
            pytest.skip("the kernel has no macvlan")
        with another_namespace() as pid:
            sh(f"ip link set m0 netns {pid}", f"nsenter -t {pid} -n ip link set m0 up")
            (parent,) = [
                each for each in Conclusion(sweep(), None).devices if each.ledger.link.netns == own_netns()
            ]
            assert (parent.ledger.count, parent.ledger.least, parent.unexplained) == (1, 1, False)
            (hold,) = parent.ledger.holds
            assert hold.text.startswith("the macvlan m0 of process")

    in_a_namespace(act)


def test_a_child_made_in_a_namespace_that_ours_has_no_id_for() -> None:
    def act() -> None:
        sh("ip link add v0 type veth peer name v1", "ip link set v0 up")
        with another_namespace() as pid:
            if not can(f"ip link add link v0 name m0 netns {pid} type macvlan mode bridge"):
                pytest.skip("the kernel has no macvlan")
            sh(f"nsenter -t {pid} -n ip link set m0 up")
            (parent,) = [
                each for each in Conclusion(sweep(), None).devices if each.ledger.link.netns == own_netns()
            ]
            assert (parent.ledger.count, parent.ledger.most, parent.unexplained) == (1, 1, False)

    in_a_namespace(act)


def test_a_namespace_that_is_only_mounted(tmp_path: Path) -> None:
    """As `ip netns add` leaves it; here in a mount namespace of another process."""
    point = tmp_path / "a name"
    point.touch()
    script = "unshare -n sh -c \"readlink /proc/self/ns/net; mount --bind /proc/self/ns/net '$0'\"; echo; exec sleep 60"
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(point)]

    def act() -> None:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                netns = int(process.stdout.readline().strip("net:[]\n"))
                assert process.stdout.readline() == "\n"
                (mounted,) = [each for each in sweep().namespaces if each.netns == netns]
            finally:
                process.kill()
        assert mounted.first is None
        assert mounted.door == f"/proc/{process.pid}/root{point}"
        assert [link.name for link in mounted.links or ()] == ["lo"]
        assert mounted.sockets == ()

    in_a_namespace(act)


def test_a_namespace_that_is_mounted_where_somebody_could_keep_us_waiting_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = (
        b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"30 21 0:40 / /mnt/a\\040b rw,nosuid - fuse.sshfs x rw\n"
        b"31 30 0:4 net:[77] /mnt/a\\040b/ns rw - nsfs nsfs rw\n"
        b"32 21 0:4 net:[78] /mnt/a\\040bc rw shared:3 - nsfs nsfs rw\n"
    )
    monkeypatch.setattr(counting, "read_file", lambda _: table)
    taken = census()
    assert taken.namespaces[78].doors[0].endswith("/mnt/a bc")
    assert taken.avoided[77].endswith("/mnt/a b/ns")
    assert 77 not in taken.namespaces
    monkeypatch.undo()
    monkeypatch.setattr(sweeping, "census", lambda: taken)
    assert [
        "could keep us waiting" in each.reason for each in sweep().failures if "77" in each.provenance.query
    ] == [True]


@pytest.mark.parametrize("linked", [False, True])
def test_a_namespace_that_only_a_descriptor_is_open_on(linked: bool) -> None:
    def act() -> None:
        with another_namespace() as pid:
            netns = netns_of(pid) or 0
            descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            # Its interfaces are listed from here then, and its sockets are to be looked at all the same.
            sh(*[f"ip link add v0 type veth peer name v1 netns {pid}"] * linked)
            made = through(
                f"/proc/{pid}/ns/net",
                netns,
                lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)),
                "theirs",
            )
        with made:
            try:
                swept = sweep()
            finally:
                os.close(descriptor)
            kept, entry = found(swept, inode(made))
        assert (kept.netns, kept.door) == (netns, f"/proc/{os.getpid()}/fd/{descriptor}")
        assert held_by_us(entry)

    in_a_namespace(act)


def test_a_socket_whose_namespace_nothing_leads_to_is_a_stray() -> None:
    made: list[socket.socket] = []
    in_a_namespace(lambda: made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))))
    (packet_socket,) = made
    with packet_socket:
        swept = sweep()
        (stray,) = [each for each in swept.strays if each.inode == inode(packet_socket)]
        assert held_by_us(stray)
        conclusion = Conclusion(swept, None)
        assert conclusion.exit_status == 11
        (listener,) = [each for each in conclusion.listeners if each.socket is stray]
        assert listener.unexplained


def test_a_namespace_that_only_an_id_is_known_of_could_not_be_looked_at() -> None:
    def act() -> None:
        with another_namespace() as pid:
            sh(f"ip link add v0 type veth peer name v1 netns {pid}")
            kept = socket.socket  # a socket in it keeps it alive when the process has ended
            made: list[socket.socket] = []

            def enter() -> None:
                with open(f"/proc/{pid}/ns/net") as there:  # noqa: PTH123
                    assert ctypes.CDLL(None).setns(there.fileno(), 0x40000000) == 0
                made.append(kept(socket.AF_INET, socket.SOCK_DGRAM))

            thread = threading.Thread(target=enter)
            thread.start()
            thread.join()
        with made[0]:
            swept = sweep()
        (only_id,) = [each for each in swept.namespaces if each.netns is None and each.links]
        assert {link.name for link in only_id.links or ()} == {"lo", "v1"}
        assert only_id.sockets is None
        assert any("no process, mount or descriptor leads to it" in each.reason for each in swept.failures)

    in_a_namespace(act)


def test_a_socket_on_its_way_to_another_process_has_no_holder() -> None:
    def act() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            with packet() as made:
                number = inode(made)
                ours.sendmsg(
                    [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))]
                )
            _, entry = found(sweep(), number)
            assert entry.holders == ()

    in_a_namespace(act)


def test_a_socket_of_which_only_the_ring_is_left_has_its_holder() -> None:
    def act() -> None:
        with packet() as made:
            number = inode(made)
            made.setsockopt(263, 5, struct.pack("=IIII", 4096, 1, 2048, 2))  # PACKET_RX_RING
            # Not by mmap.mmap(), which keeps a descriptor of its own.
            libc = ctypes.CDLL(None, use_errno=True)
            libc.mmap.restype = ctypes.c_void_p
            ring = libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_SHARED, made.fileno(), 0)
        try:
            _, entry = found(sweep(), number)
        finally:
            assert libc.munmap(ctypes.c_void_p(ring), ctypes.c_size_t(4096)) == 0
        assert held_by_us(entry)

    in_a_namespace(act)


def attach_xdp(name: str) -> None:
    """A program that passes everything on: two instructions, mov r0, XDP_PASS and exit."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack("=IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(licence)) + bytes(96)
    numbers = {"x86_64": 321, "aarch64": 280}
    program = libc.syscall(numbers.get(os.uname().machine, -1), 5, ctypes.c_char_p(load), len(load))
    if program < 0:
        pytest.skip(f"no XDP here: {os.strerror(ctypes.get_errno())}")
    xdp = struct.pack("=HHI", 8, 1, program) + struct.pack("=HHI", 8, 3, 1 << 1)  # IFLA_XDP_FLAGS: generic
    body = struct.pack("=BxHiII", 0, 0, device(name).ifindex, 0, 0)
    body += struct.pack("=HH", 4 + len(xdp), 0x8000 | 43) + xdp
    request(0, 19, 4, body)  # RTM_SETLINK, acknowledged
    os.close(program)


def test_an_xdp_program_is_seen() -> None:
    def act() -> None:
        sh("ip link add v0 type veth peer name v1")
        assert not device("v0").xdp
        try:
            attach_xdp("v0")
        except NetlinkError as error:
            assert "empty" in str(error)  # an acknowledgement and no more
        assert device("v0").xdp
        assert not device("v1").xdp
        (seen,) = [
            each for each in Conclusion(sweep(), None).devices if each.ledger.link.netns == own_netns()
        ]
        assert (seen.ledger.link.name, seen.ledger.count, seen.unexplained) == ("v0", 0, False)

    in_a_namespace(act)


def test_tc_filters_are_seen() -> None:
    def act() -> None:
        sh("ip link add v0 type veth peer name v1")
        if not can("tc qdisc add dev v0 clsact"):
            pytest.skip("the kernel has no clsact")
        (device,) = [
            each for each in Conclusion(sweep(), None).devices if each.ledger.link.netns == own_netns()
        ]
        assert (device.ledger.link.name, device.hooked, device.unexplained) == ("v0", True, False)

    in_a_namespace(act)


def test_our_own_packet_socket_is_in_the_census() -> None:
    def act() -> None:
        with packet() as made, socket.socket() as other:
            taken = census()
            assert taken.holders[inode(made)] == [os.getpid()]
            assert inode(other) not in taken.holders

    in_a_namespace(act)


def test_what_may_not_be_looked_into_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "census", lambda: Census(closed=list(range(1, 9))))
    (failure,) = sweep().failures
    assert failure.provenance.query == "processes 1, 2, 3, 4, 5 and 3 more"
    assert "as root" in failure.remedy
    monkeypatch.setattr(sweeping, "initial_pid_namespace", lambda: False)
    (failure,) = sweep().failures
    assert "pid namespace of our own" in failure.reason


def test_a_namespace_that_has_gone_meanwhile_is_no_failure() -> None:
    def act() -> None:
        with another_namespace() as pid:
            taken = census()
            netns = netns_of(pid)
        assert netns in taken.namespaces
        swept = sweeping._Sweep(taken)
        swept.look()
        assert not [each for each in swept.failures if str(netns) in each.provenance.query]

    in_a_namespace(act)
