from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Self

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verify_audit.probes.netlink import (
    NETLINK_ROUTE,
    NLM_F_DUMP,
    InterruptedDump,
    NetlinkError,
    attributes,
    messages,
    request,
)

ERROR, DONE, LINK = 2, 3, 16
Datagram = bytes | OSError | tuple[bytes, int]


def message(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
    return whole + b"\0" * (-len(whole) % 4)


def status(code: int) -> bytes:
    return struct.pack("=i", code)


class FakeChannel:
    """A netlink socket whose kernel answers from a list: each item is one datagram, or an error to raise."""

    def __init__(self, kernels: Iterator[Sequence[Datagram]]) -> None:
        self._kernels = kernels
        self._answers: list[Datagram] = []
        self.sent: list[bytes] = []
        self.timeouts: list[float] = []

    def __call__(self, family: int, kind: int, protocol: int) -> Self:
        assert family == socket.AF_NETLINK
        assert kind & socket.SOCK_CLOEXEC
        self._answers = list(next(self._kernels))
        self.protocol = protocol
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.timeouts

    def bind(self, address: tuple[int, int]) -> None:
        assert address == (0, 0), "no multicast group"

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def send(self, request: bytes) -> None:
        self.sent.append(request)

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[int, int]]:
        if not self._answers:
            raise TimeoutError("timed out")
        answer = self._answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return (answer, (0, 0)) if isinstance(answer, bytes) else (answer[0], (answer[1], 0))


def kernel(monkeypatch: pytest.MonkeyPatch, *runs: Sequence[Datagram]) -> FakeChannel:
    channel = FakeChannel(iter(runs))
    monkeypatch.setattr(socket, "socket", channel)
    return channel


def test_a_single_reply_is_whole_and_its_request_only_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = kernel(monkeypatch, [message(LINK, b"body")])
    assert request(NETLINK_ROUTE, 18, 0, b"asked") == [message(LINK, b"body")]
    assert channel.sent == [struct.pack("=IHHII", 21, 18, 1, 1, 0) + b"asked"]


def test_a_dump_goes_on_over_datagrams_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(
        monkeypatch,
        [message(LINK, b"a   ") + message(LINK, b"b   "), message(LINK, b"c   "), message(DONE, status(0))],
    )
    bodies = [each[16:] for each in request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"")]
    assert bodies == [b"a   ", b"b   ", b"c   "]


def test_a_dump_that_is_not_done_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, [message(LINK, b"only")])
    with pytest.raises(NetlinkError, match="did not answer in 3 s"):
        request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"")


def test_the_time_for_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = kernel(monkeypatch, [message(LINK) for _ in range(9)])
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(NetlinkError, match="did not finish its answer in 3 s"):
        request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"", timeout=3.0)
    assert channel.timeouts == [2.0, 1.0]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENODEV, "No such device"), (errno.EPERM, "Operation not permitted")]
)
def test_the_kernels_no_has_its_number_and_its_words(
    monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    kernel(monkeypatch, [message(ERROR, status(-code) + b"\0" * 16)])
    with pytest.raises(NetlinkError, match=words) as caught:
        request(NETLINK_ROUTE, 18, 0, b"")
    assert caught.value.code == code


def test_a_dump_that_ends_with_an_error_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, [message(LINK), message(DONE, status(-errno.ENOENT))])
    with pytest.raises(NetlinkError) as caught:
        request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"")
    assert caught.value.code == errno.ENOENT


def test_yes_instead_of_an_answer_is_an_error_unless_nothing_was_there_to_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel(monkeypatch, [message(ERROR, status(0))], [message(DONE, status(0))])
    with pytest.raises(NetlinkError, match="empty"):
        request(NETLINK_ROUTE, 18, 0, b"")
    assert request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"") == []


def test_an_interrupted_dump_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    half = message(LINK, b"half", flags=0x10)
    whole = [message(LINK, b"all "), message(DONE, status(0))]
    channel = kernel(monkeypatch, [half], [half], whole)
    assert [each[16:] for each in request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"")] == [b"all "]
    assert len(channel.sent) == 3


def test_a_dump_that_is_always_interrupted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = kernel(monkeypatch, *[[message(DONE, status(0), flags=0x10)]] * 9)
    with pytest.raises(InterruptedDump) as caught:
        request(NETLINK_ROUTE, 18, NLM_F_DUMP, b"")
    assert caught.value.code == errno.EINTR
    assert len(channel.sent) == 3


def test_what_another_process_sends_is_not_taken_for_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, [(message(LINK, b"fake"), 4711), (b"", 4711), message(LINK, b"true")])
    assert [each[16:] for each in request(NETLINK_ROUTE, 18, 0, b"")] == [b"true"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOBUFS, "No buffer space available"), OSError("words only"), TimeoutError("timed out")],
)
def test_a_socket_that_fails_is_a_netlink_error(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    kernel(monkeypatch, [error])
    with pytest.raises(NetlinkError) as caught:
        request(NETLINK_ROUTE, 18, 0, b"")
    assert caught.value.code == (error.errno or 0)
    assert str(caught.value)


def test_the_real_kernel_answers() -> None:
    (loopback,) = request(NETLINK_ROUTE, 18, 0, struct.pack("=BxHiII", 0, 0, 1, 0, 0))
    assert b"lo\0" in loopback
    with pytest.raises(NetlinkError) as caught:
        request(NETLINK_ROUTE, 18, 0, struct.pack("=BxHiII", 0, 0, 0x7FFFFFFF, 0, 0))
    assert caught.value.code == errno.ENODEV


# Lengths


@given(st.lists(st.tuples(st.integers(4, 65535), st.binary(max_size=20)), max_size=5))
def test_messages_come_out_as_they_went_in(parts: list[tuple[int, bytes]]) -> None:
    datagram = b"".join(message(kind, body) for kind, body in parts)
    assert [(kind, each[16:]) for each, kind in messages(datagram)] == parts


@given(st.data())
def test_a_datagram_that_is_cut_anywhere_but_between_messages_is_an_error(data: st.DataObject) -> None:
    whole = message(LINK, b"x" * 8) + message(LINK, b"y" * 4)
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda at: at != 24))
    with pytest.raises(NetlinkError):
        list(messages(whole[:cut]))


@pytest.mark.parametrize("length", [0, 1, 15, 17, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_an_error(length: int) -> None:
    with pytest.raises(NetlinkError, match="length that cannot be"):
        list(messages(struct.pack("=IHHII", length, LINK, 0, 1, 0)))


@given(st.lists(st.binary(max_size=64), max_size=3), st.booleans())
@example([message(ERROR, status(-(2**31)))], False)
@example([message(ERROR, status(5))], False)
@example([message(DONE, b"\0")], True)
def test_any_bytes_are_an_answer_or_a_netlink_error(datagrams: list[bytes], dump: bool) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        kernel(monkeypatch, *[[*datagrams]] * 3)
        try:
            found = request(NETLINK_ROUTE, 18, NLM_F_DUMP if dump else 0, b"")
        except NetlinkError as error:
            assert str(error)
        else:
            assert found or dump


# Attributes


def test_attributes_are_padded_and_their_flags_left_off() -> None:
    body = struct.pack("=HH", 5, 0x8003) + b"a\0\0\0" + struct.pack("=HH", 4, 0x4007)
    assert list(attributes(b"head" + body, 4)) == [(3, b"a"), (7, b"")]


@given(st.binary(max_size=64), st.integers(0, 70))
def test_attributes_of_any_bytes_end(message: bytes, offset: int) -> None:
    found = list(attributes(message, offset))
    assert sum(4 + len(value) for _, value in found) <= max(0, len(message) - offset)


@pytest.mark.parametrize("length", [0, 3, 9])
def test_a_cut_attribute_ends_the_list(length: int) -> None:
    first = struct.pack("=HH", 8, 1) + b"data"
    assert list(attributes(first + struct.pack("=HH", length, 2) + b"data", 0)) == [(1, b"data")]
