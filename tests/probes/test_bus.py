from __future__ import annotations

import os
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.probes import bus
from verify_audit.probes.bus import BusError, NobodyError


def reply(serial: int, body: bytes = b"", kind: int = 2, signature: bytes = b"u") -> bytes:
    array = struct.pack("<BB", 5, 1) + b"u\0" + struct.pack("<I", serial)
    array += struct.pack("<BB", 6, 1) + b"s\0" + struct.pack("<I", 4) + b":1.7\0"
    array += b"\0" * (-len(array) % 8)
    array += struct.pack("<BB", 8, 1) + b"g\0" + struct.pack("<B", len(signature)) + signature + b"\0"
    head = struct.pack("<BBBBIII", ord("l"), kind, 1, 1, len(body), 77, len(array)) + array
    return head + b"\0" * (-len(head) % 8) + body


def asked(*answers: bytes, first: bytes = b"OK 0123\r\n") -> int:
    """What is made of a bus that gives these answers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def serve() -> None:
        theirs.recv(512)
        theirs.sendall(first)
        if first.startswith(b"OK"):
            theirs.recv(4096)
            theirs.sendall(b"".join(answers))
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ours.settimeout(5)
        return bus._owner(ours)
    finally:
        thread.join()
        ours.close()
        theirs.close()


def test_the_owners_pid() -> None:
    signal = reply(0, b"\4\0\0\0:1.7\0", kind=4, signature=b"s")
    assert asked(reply(1, b"\4\0\0\0:1.7\0", signature=b"s"), signal, reply(2, struct.pack("<I", 812))) == 812


def test_nobody_owns_it() -> None:
    with pytest.raises(NobodyError):
        asked(reply(1), reply(2, b"\2\0\0\0no\0", kind=3, signature=b"s"))


@pytest.mark.parametrize(
    ("first", "answers"),
    [
        (b"REJECTED EXTERNAL\r\n", ()),
        (b"OK 1\r\n", ()),
        (b"OK 1\r\n", (b"B" * 64,)),
        (b"OK 1\r\n", (reply(2, b"\0" * (1 << 17)),)),
    ],
)
def test_a_bus_that_says_something_else(first: bytes, answers: tuple[bytes, ...]) -> None:
    with pytest.raises((BusError, OSError)):
        asked(*answers, first=first)


@given(st.binary(min_size=16, max_size=200))
def test_any_bytes_are_taken(noise: bytes) -> None:
    message = b"l" + noise[1:]
    try:
        size = bus.message_size(message)
        if size is not None and size <= len(message):
            bus.parse_message(message[:size])
    except BusError:
        pass


def test_a_call_can_be_read_back() -> None:
    message = bus.call(2, "GetConnectionUnixProcessID", bus.NAME)
    assert bus.message_size(message) == len(message)
    kind, serial, body = bus.parse_message(message)
    assert (kind, serial) == (1, 0)
    assert body == struct.pack("<I", len(bus.NAME)) + bus.NAME.encode() + b"\0"


def test_a_socket_of_sock_diag() -> None:
    head = b"\0" * 16 + struct.pack("=BBBBIII", 1, 1, 1, 0, 42, 0, 0)
    name = b"/run/dbus/system_bus_socket"
    attributes = struct.pack("=HH", 4 + len(name), 0) + name + b"\0" * (-len(name) % 4)
    attributes += struct.pack("=HHI", 8, 2, 43)
    assert bus.parse_socket(head + attributes) == (42, (43, name))
    assert bus.parse_socket(head) == (42, (0, b""))


def test_a_process_on_no_bus() -> None:
    with pytest.raises(NobodyError, match="no connection"):
        bus.find_firewalld(os.getpid(), 1)
