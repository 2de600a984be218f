"""What is done with the fuzzer's bytes, and what must hold whatever they are.

Each target takes bytes and raises only when something is wrong. None of them needs the fuzzer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, PROCTITLE, SYSCALL
from tests.fuzz.choices import Choices
from tests.fuzz.decision import cases, changed_json, judge_mutated
from tests.fuzz.judging import judged
from tests.made_up import NETNS, WEB, docker_host, event, seen
from tests.probe_samples import answer
from verify_audit.audit import decode
from verify_audit.audit.assemble import Losses, assemble
from verify_audit.audit.parse import parse_line
from verify_audit.audit.read import lines, records
from verify_audit.audit.record import Event, Record
from verify_audit.audit.select import flagged, may_be_flagged
from verify_audit.host import questions as ask
from verify_audit.host.questions import TOPICS, Question
from verify_audit.probes import daemon, legacy, links, netlink, nft, sniffers
from verify_audit.probes.engine import EngineApi, EngineError
from verify_audit.probes.processes import container_of, parse_stat
from verify_audit.probes.recorded import RecordingError, dump, parse

EVENTS = (event(ANOM, ANOM_SYSCALL), event(ANOM), event(NETFILTER, SYSCALL, PROCTITLE), event(NETFILTER))


def log(data: bytes) -> None:
    """A log: every line becomes part of one event or is counted as lost, and no event has what no line says."""
    choices = Choices(data)
    size = 1 + choices.below(256)
    text = choices.rest()
    whole = list(lines([text]))
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(lines(chunks)) == whole, "how the log was cut into chunks has changed its lines"

    parsed = list(records([text]))
    losses = Losses()
    found = list(assemble(parsed, losses))
    good = [each for each in parsed if isinstance(each, Record)]
    assert losses.unparsed == len(parsed) - len(good)
    kept = sum(len(each.records) for each in found)
    ends = sum(each.type == "EOE" for each in good)
    assert 0 <= len(good) - kept - losses.late - losses.excess <= ends, "a record was lost and not counted"
    for one in found:
        _check_event(one, text)
    judged([one for one in found if flagged(one)][:4], docker_host())


def _check_event(one: Event, text: bytes) -> None:
    assert one.records
    for each in one.records:
        assert each.raw in text
        assert each.body in each.raw
        assert (each.node, each.seconds, each.millis, each.serial) == one[:4]
        assert (
            b"%d.%03d:%d" % (one.seconds, one.millis, one.serial) in each.raw
            or b"(0" in each.raw
            or b":0" in each.raw
        )
        again = parse_line(each.raw)
        assert again == each, "a record reads otherwise when it is read again"
        _check_record(one, each)
    if flagged(one):
        assert any(may_be_flagged(each.raw) for each in one.records)
    decode.command(one)


def _check_record(one: Event, each: Record) -> None:
    change, firewall, call = decode.promiscuous(each), decode.netfilter(each), decode.syscall(each)
    assert sum(found is not None for found in (change, firewall, call)) <= 1
    if change is not None:
        assert each.body.startswith(b"dev=" + change.device + b" prom=%d" % change.prom) or b"=0" in each.body
        assert change.odd or b" " not in change.device
    if firewall is not None:
        assert each.body.startswith(b"table=" + firewall.table)
        assert firewall.odd or not set(firewall.table) & set(b' ="\x1d\x1b')
    if call is not None:
        socketcall = one.first("SOCKETCALL")
        decode.firewall_sockopt(call, socketcall)
        decode.packet_membership(call, socketcall)
        decode.bridge_ioctl(call)


def recording(data: bytes) -> None:
    """A recorded host: RecordingError, or one that can be asked, judged on, and written down again."""
    choices = Choices(data)
    text = choices.rest() if choices.below(2) else changed_json(choices.of(cases()).written, choices)
    try:
        host = parse(text.decode("utf-8", "surrogateescape"), "a file")
    except RecordingError as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    for topic in TOPICS:
        host.ask(Question(topic))
    for one in EVENTS:
        judged([one], host)
    _check_written(dump(host.answers, host.recorded_at))


def _check_written(text: str) -> None:
    """That a recorded host can be read again, and says the same."""
    try:
        again = parse(text, "again")
    except RecordingError as error:
        raise AssertionError("what was written down cannot be read") from error
    # By what they are written as, since NaN is not equal to itself; the second time, when 1 has become 1.0.
    once = dump(again.answers, again.recorded_at)
    assert dump(parse(once, "again").answers, again.recorded_at) == once


def decision(data: bytes) -> None:
    """A real event and the host that it was judged on, both changed."""
    judge_mutated(Choices(data))


def kernel(data: bytes) -> None:
    """A reply of the kernel, or a file of /proc: what it says, or the error of its kind."""
    choices = Choices(data)
    look = choices.of(_REPLIES)
    try:
        look(choices)
    except (netlink.NetlinkError, legacy.LegacyError) as error:
        str(error).encode("utf-8", "backslashreplace")


def _proc(choices: Choices) -> None:
    container_of(choices.some().decode("utf-8", "surrogateescape"))
    with suppress(ValueError):
        parse_stat(choices.some())
    with suppress(ValueError):
        sniffers.parse_listed(choices.rest())


def _firewall(choices: Choices) -> None:
    kinds = [choices.some() for _ in range(5)]
    found = nft.parse(nft.Replies(1, _generation(), *((each,) if each else () for each in kinds)))
    _judged_with_firewall(found)


def _rule(choices: Choices) -> None:
    family = choices.below(256)
    body = bytes((family, 0, 0, 0)) + choices.rest()
    found = nft.parse(nft.Replies(1, _generation(), (), (), (_message(nft._NEWRULE, body),)))
    _judged_with_firewall(found)


def _elements(choices: Choices) -> None:
    family = choices.below(256)
    table = choices.of((b"filter", b"nat", b"docker-bridges"))
    its = b"".join(
        (4 + len(value)).to_bytes(2, "little") + kind.to_bytes(2, "little") + value + bytes(-len(value) % 4)
        for kind, value in ((1, table + b"\0"), (2, b"s\0"))
    )
    head = bytes((family, 0, 0, 0)) + its
    sets, elements = head + choices.some(), head + choices.rest()
    replies = (_message(nft._NEWSET, sets),), (_message(nft._NEWSETELEM, elements),)
    _judged_with_firewall(nft.parse(nft.Replies(1, _generation(), (), (), (), *replies)))


def _chain(choices: Choices) -> None:
    family = choices.below(256)
    body = bytes((family, 0, 0, 0)) + choices.rest()
    nft.parse(nft.Replies(1, _generation(), (), (_message(nft._NEWCHAIN, body),)))


def _generation() -> bytes:
    return _message(nft._NEWGEN, bytes(4) + b"\x08\0\x01\0\0\0\0\x05")


def _message(kind: int, body: bytes) -> bytes:
    return (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10) + body


def _legacy(choices: Choices) -> None:
    family = choices.of(("ip", "ip6"))
    target = choices.some().decode("utf-8", "surrogateescape")
    chain = legacy.CopiedChain(
        "DOCKER", choices.of((None, "ACCEPT")), (legacy.Entry(target, choices.rest()),)
    )
    _judged_with_firewall(legacy.parse(legacy.Copy(1, (legacy.CopiedTable(family, "nat", (chain,)),))))


def _judged_with_firewall(found: Any) -> None:
    for rule in found.rules:
        str(rule)
    judged([EVENTS[3]], docker_host({ask.FIREWALL: seen(found)}))


_REPLIES: tuple[Callable[[Choices], Any], ...] = (
    lambda choices: judged(
        [EVENTS[1]], docker_host({ask.link("veth766e490"): seen(links.parse_link(choices.rest(), NETNS))})
    ),
    lambda choices: links.parse_nsid(choices.rest()),
    lambda choices: links.parse_names([choices.some(), choices.rest()]),
    lambda choices: sniffers.parse_packet_sockets([choices.some(), choices.rest()]),
    lambda choices: daemon.parse_peer(choices.rest()),
    lambda choices: daemon.parse_listener(choices.rest()),
    lambda choices: list(netlink.messages(choices.rest())),
    _firewall,
    _rule,
    _chain,
    _legacy,
    _proc,
    _elements,
    lambda choices: links.parse_addresses([choices.some(), choices.rest()], 2),
    lambda choices: links.parse_hooked([choices.some(), choices.rest()]),
)


class _Client:
    """Stands for docker-py: gives one answer to every question."""

    base_url = ""
    api_version = "1.41"
    status_code = 200

    def __init__(self, version: Any, content: bytes) -> None:
        self._version = version
        self.content = content

    def version(self, **_: Any) -> Any:
        return self._version

    def get(self, *_: Any, **__: Any) -> _Client:
        return self

    def _answer(self, *_: Any, **__: Any) -> Any:
        return json.loads(self.content)

    info = containers = networks = inspect_container = _answer


class _Api(EngineApi):
    def __init__(self, version: Any, content: bytes) -> None:
        super().__init__("unix:///run/docker.sock", 1.0)
        self._fake: Any = _Client(version, content)

    def _connect(self, _: str) -> Any:
        return self._fake


ANSWERS = {
    "version": "engine-20.10/version.json",
    "info": "engine-20.10/info.json",
    "containers": "engine-20.10/containers.json",
    "networks": "engine-20.10/networks.json",
    "life": "engine-20.10/inspect-c1.json",
    "history": "engine-20.10/events.jsonl",
}
"""What the engine can be asked, and what a real one answered."""

_VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}]}


def engine(data: bytes) -> None:
    """An answer of the engine: facts on which can be judged, or EngineError."""
    choices = Choices(data)
    topic = choices.of(tuple(ANSWERS))
    content = choices.rest() if choices.below(2) else changed_json(answer(ANSWERS[topic]), choices)
    version: Any = _VERSION
    try:
        if topic == "version":
            version = json.loads(content)
            content = b"{}"
    except (ValueError, RecursionError):
        return
    api = _Api(version, content)
    changes: dict[Question[Any], Any] = {}
    try:
        match topic:
            case "version" | "info":
                changes[ask.ENGINE] = seen(api.engine())
            case "containers":
                changes[ask.CONTAINERS] = seen(api.containers())
            case "networks":
                changes[ask.NETWORKS] = seen(api.networks())
            case "life":
                changes[ask.life(WEB)] = seen(api.life(WEB))
            case _:
                changes[ask.HISTORY] = seen(api.history(None))
    except EngineError as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    host = docker_host(changes)
    for one in EVENTS:
        judged([one], host)
    _check_written(dump(host.answers, 0.0))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "log": log,
    "decision": decision,
    "recording": recording,
    "kernel": kernel,
    "engine": engine,
}
