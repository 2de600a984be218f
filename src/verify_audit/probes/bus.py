"""Which process is the firewalld that an engine hands its rules to: the bus that the engine is on knows.

The engine holds a connection to the system bus. Its other end names the bus's socket (UNIX sock_diag); there we
ask who owns firewalld's name, which the bus knows by the credentials that the kernel gave it with the connection.
That our own connection ends in the same process as the engine's proves that it is the same bus.

Two messages are sent, Hello and GetConnectionUnixProcessID, both to the bus itself.

References: D-Bus specification 0.43, "Authentication Protocol", "Message Protocol", org.freedesktop.DBus; sock_diag(7);
moby libnetwork/iptables/firewalld.go, newConnection().
"""

from __future__ import annotations

import os
import re
import socket
import struct

from verify_audit.probes.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, request
from verify_audit.probes.processes import holders

NAME = "org.fedoraproject.FirewallD1"

_SOCK_DIAG_BY_FAMILY = 20
_SHOW_NAME, _SHOW_PEER = 0x1, 0x4
_ESTABLISHED = 1 << 1
_ATTRIBUTE = struct.Struct("=HH")
_UNIX_DIAG_NAME, _UNIX_DIAG_PEER = 0, 2

_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 5, 6, 8
_LONGEST = 1 << 16


class BusError(Exception):
    """The bus could not be asked; the text says why."""


class NobodyError(Exception):
    """The engine is on no bus, or nobody on it owns firewalld's name; the text says which."""


def find_firewalld(engine: int, timeout: float) -> int:
    """The pid of the firewalld on the bus that the process `engine` is on. BusError, NobodyError, OSError.

    In the network namespace of the engine, to which its sockets belong.
    """
    buses = _buses(engine)
    if not buses:
        raise NobodyError(f"the engine (pid {engine}) holds no connection to a system bus")
    for path, inode in buses.items():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            owner = _owner(connection)
            ours = _peers().get(os.fstat(connection.fileno()).st_ino, (0, b""))[0]
            found = holders([inode, ours])
            if not found[inode] or found[inode] != found[ours]:
                raise BusError(f"the bus at {path} is not the one that the engine is on")
            return owner
    raise NobodyError("no bus")  # pragma: no cover - there is one


def _buses(pid: int) -> dict[str, int]:
    """Paths of the system buses that a process is connected to, with the inode of the socket at the other end."""
    peers = _peers()
    found: dict[str, int] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
        other = peers.get(int(inode[1]), (0, b""))[0] if inode else 0
        path = os.fsdecode(peers.get(other, (0, b""))[1].rstrip(b"\0"))
        if path.startswith("/") and path.endswith("/system_bus_socket"):
            found[path] = other
    return found


def _peers() -> dict[int, tuple[int, bytes]]:
    """Every connected UNIX socket of this network namespace by inode: its peer's inode, and its name."""
    wanted = struct.pack(
        "=BBHIIIQ", socket.AF_UNIX, 0, 0, _ESTABLISHED, 0, _SHOW_NAME | _SHOW_PEER, 2**64 - 1
    )
    return dict(map(parse_socket, request(NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, wanted)))


def parse_socket(reply: bytes) -> tuple[int, tuple[int, bytes]]:
    """Inode, peer's inode and name of a socket in a reply of UNIX sock_diag; 0 and empty where it has none."""
    # By hand: a host may have thousands, and each takes a decoder of netlink messages 0.1 ms.
    at = 16
    inode = struct.unpack_from("=I", reply, at + 4)[0]
    at += 16
    peer, name = 0, b""
    while at + 4 <= len(reply):
        length, kind = _ATTRIBUTE.unpack_from(reply, at)
        if length < 4:
            break
        value = reply[at + 4 : at + length]
        if kind == _UNIX_DIAG_PEER and len(value) == 4:
            peer = struct.unpack("=I", value)[0]
        elif kind == _UNIX_DIAG_NAME:
            name = value
        at += (length + 3) & ~3
    return inode, (peer, name)


def _owner(connection: socket.socket) -> int:
    """Who owns firewalld's name, by a connection to a bus that has not said anything yet."""
    connection.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        more = connection.recv(512)
        if not more or len(answer) > _LONGEST:
            raise BusError("the bus does not let us in")
        answer += more
    if not answer.startswith(b"OK"):
        raise BusError("the bus does not let us in")
    connection.sendall(b"BEGIN\r\n" + call(1, "Hello") + call(2, "GetConnectionUnixProcessID", NAME))
    received = b""
    while True:
        more = connection.recv(4096)
        if not more or len(received) > _LONGEST:
            raise BusError("the bus gave no answer")
        received += more
        while (size := message_size(received)) is not None and size <= len(received):
            kind, serial, body = parse_message(received[:size])
            received = received[size:]
            if serial == 2 and kind == _RETURN and len(body) >= 4:
                return int(struct.unpack_from("<I", body)[0])
            if serial == 2 and kind == _ERROR:
                raise NobodyError(f"nobody on the engine's bus owns the name {NAME}")


def call(serial: int, member: str, argument: str | None = None) -> bytes:
    """A method call to the bus itself, in little-endian."""
    fields = [
        (_PATH, b"o", "/org/freedesktop/DBus"),
        (_INTERFACE, b"s", "org.freedesktop.DBus"),
        (_MEMBER, b"s", member),
        (_DESTINATION, b"s", "org.freedesktop.DBus"),
    ]
    array = b""
    for code, signature, value in fields:
        array += b"\0" * (-len(array) % 8) + bytes((code, 1)) + signature + b"\0" + _text(value)
    body = b""
    if argument is not None:
        array += b"\0" * (-len(array) % 8) + bytes((_SIGNATURE, 1)) + b"g\0\x01s\0"
        body = _text(argument)
    head = struct.pack("<BBBBIII", ord("l"), _CALL, 0, 1, len(body), serial, len(array)) + array
    return head + b"\0" * (-len(head) % 8) + body


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def message_size(received: bytes) -> int | None:
    """How long the first message is; None when too little of it has come. BusError."""
    if len(received) < 16:
        return None
    if received[:1] != b"l":
        raise BusError("the bus speaks another byte order than ours")
    body, _, array = struct.unpack_from("<III", received, 4)
    if body > _LONGEST or array > _LONGEST:
        raise BusError("the bus sent a message that is too long")
    return int(16 + array + (-array % 8) + body)


def parse_message(message: bytes) -> tuple[int, int, bytes]:
    """Kind of a whole message, serial of the call that it answers (0 for none), and its body. BusError."""
    body, _, array = struct.unpack_from("<III", message, 4)
    at, end, serial = 16, 16 + array, 0
    try:
        while at < end:
            at += -at % 8
            code, length = message[at], message[at + 1]
            signature = message[at + 2 : at + 2 + length]
            at += 3 + length
            if signature in (b"s", b"o"):
                at += -at % 4
                at += 5 + struct.unpack_from("<I", message, at)[0]
            elif signature == b"g":
                at += 2 + message[at]
            elif signature == b"u":
                at += -at % 4
                if code == _REPLY_SERIAL:
                    serial = struct.unpack_from("<I", message, at)[0]
                at += 4
            else:
                raise BusError("the bus sent a header field of no known type")
    except (IndexError, struct.error) as error:
        raise BusError("the bus sent a message that is cut short") from error
    return message[1], serial, message[len(message) - body :] if body else b""
