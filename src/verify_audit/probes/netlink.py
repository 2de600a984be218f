"""Asking the kernel over netlink: send one request, take every reply, give up in time.

The socket is the standard library's, the messages are pyroute2's. Nothing here binds to a multicast
group or sends anything but the request that it was given.

References: netlink(7), rtnetlink(7), sock_diag(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300

_HEADER = struct.Struct("=IHHII")
_ERROR = 2
_DONE = 3
_DUMP_INTERRUPTED = 0x10
_RECEIVE = 1 << 20
_KERNEL = 0


class NetlinkError(Exception):
    """The kernel said no, said nothing in time, or said something that is no netlink message.

    code is the errno of the kernel's answer, 0 when it gave none.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class InterruptedDump(NetlinkError):
    """What was listed changed while it was being listed; asking again will do."""

    def __init__(self) -> None:
        super().__init__(errno.EINTR, "the list changed while the kernel was giving it")


def request(protocol: int, kind: int, flags: int, body: bytes, timeout: float = 3.0) -> list[bytes]:
    """Every reply to one request, whole messages with their headers.

    protocol: the netlink family, kind: the message type, flags beside NLM_F_REQUEST, body: all after the
    header, timeout: seconds for everything. A dump that was interrupted is asked for again, three times.

    Raises NetlinkError.
    """
    for attempt in range(3):
        try:
            return _request_once(protocol, kind, flags, body, timeout)
        except InterruptedDump:
            if attempt == 2:
                raise
    raise AssertionError


def _request_once(protocol: int, kind: int, flags: int, body: bytes, timeout: float) -> list[bytes]:
    deadline = time.monotonic() + timeout
    replies: list[bytes] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
            channel.bind((0, 0))
            channel.send(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NetlinkError(0, f"the kernel did not finish its answer in {timeout:g} s")
                channel.settimeout(left)
                finished = False
                datagram, sender = channel.recvfrom(_RECEIVE)
                if sender[0] != _KERNEL:
                    continue  # another process may send here too, and what it says is not the kernel's word
                for message, message_kind in messages(datagram):
                    finished = _take(message, message_kind, replies)
                    if finished:
                        break
                if replies and not flags & NLM_F_DUMP:
                    return replies
                if finished:
                    if not flags & NLM_F_DUMP:
                        raise NetlinkError(0, "the kernel's answer is empty")
                    return replies
    except TimeoutError as error:
        raise NetlinkError(0, f"the kernel did not answer in {timeout:g} s") from error
    except OSError as error:
        raise NetlinkError(error.errno or 0, error.strerror or str(error)) from error


def _take(message: bytes, kind: int, replies: list[bytes]) -> bool:
    """Keep a reply; True when it was the last one. Raises NetlinkError where it is the kernel's no."""
    if _HEADER.unpack_from(message)[2] & _DUMP_INTERRUPTED:
        raise InterruptedDump
    if kind in (_ERROR, _DONE):
        code = -struct.unpack_from("=i", message, _HEADER.size)[0] if len(message) >= _HEADER.size + 4 else 0
        if code:
            raise NetlinkError(code, _in_words(code))
        return True
    replies.append(message)
    return False


def messages(datagram: bytes) -> Iterator[tuple[bytes, int]]:
    """The messages of one datagram, each with its type. Raises NetlinkError on a length that cannot be."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind = _HEADER.unpack_from(datagram, offset)[:2]
        if length < _HEADER.size or offset + length > len(datagram):
            raise NetlinkError(0, "a netlink message has a length that cannot be")
        yield datagram[offset : offset + length], kind
        offset += (length + 3) & ~3
    if offset < len(datagram):
        raise NetlinkError(0, "a netlink message is cut in its header")


def _in_words(code: int) -> str:
    return os.strerror(code) if 0 < code < 4096 else f"error {code}"  # MAX_ERRNO, include/linux/err.h


def attributes(message: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The attributes (type, value) of a message from `offset` on; a cut one ends the list."""
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4 or offset + length > len(message):
            return
        yield kind & 0x3FFF, message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
