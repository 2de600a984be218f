from __future__ import annotations

import gc
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_engine import Behaviour, FakeEngine, close, docker, hang, raw, reply
from tests.probe_samples import answer
from verify_audit.host.facts import Endpoint, Product, PublishedPort, Subnet
from verify_audit.probes import engine as engine_module
from verify_audit.probes.engine import (
    EVENTS_KEPT,
    EngineApi,
    EngineError,
    GoneError,
    parse_history,
    parse_time,
)

C1 = "a4b5aa6d9209cccb04f2def7c2e6351ea8b69272832030f0bda14aabfe3378cb"
Question = Callable[[EngineApi], Any]
QUESTIONS: dict[str, Question] = {
    "info": EngineApi.engine,
    "containers": EngineApi.containers,
    "networks": EngineApi.networks,
    "events": lambda api: api.history(None),
    "life": lambda api: api.life(C1),
}


# docker-py leaves a socket that it could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def _freeze() -> Iterator[None]:
    """All that is there already is left out of the searches for garbage, which makes them quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


def asked(path: Path, behaviours: dict[str, Behaviour], question: Question, timeout: float = 5.0) -> Any:
    with FakeEngine(path, behaviours) as server, closing(EngineApi(server.address, timeout)) as api:
        return question(api)


# What a real engine answered


def test_the_engine(socket_path: Path) -> None:
    engine = asked(socket_path, docker(), EngineApi.engine)
    assert engine.product is Product.DOCKER
    assert (engine.version, engine.api_version, engine.name) == ("20.10.24+dfsg1", "1.41", "host1")
    assert engine.firewall_backend is None
    assert (engine.live_restore, engine.rootless, engine.userns_remap) == (False, False, False)
    assert engine.docker_host == f"unix://{socket_path}"


def test_the_containers(socket_path: Path) -> None:
    containers = {each.name: each for each in asked(socket_path, docker(), EngineApi.containers)}
    assert set(containers) == {"c1", "c2", "c3", "h1", "h2"}
    assert containers["h2"].running is False
    assert containers["h2"].network_mode == "host"
    c1 = containers["c1"]
    assert (c1.id, c1.running, c1.network_mode) == (C1, True, "default")
    assert c1.created_at == 1795438538
    assert c1.endpoints[0] == Endpoint(
        network_id=c1.endpoints[0].network_id,
        network_name="bridge",
        endpoint_id=c1.endpoints[0].endpoint_id,
        mac="02:42:ac:11:00:02",
        ipv4="172.17.0.2",
        ipv6="",
    )
    assert [each.network_name for each in c1.endpoints] == ["bridge", "n1"]
    assert containers["c2"].ports == (PublishedPort("tcp", 80, "127.0.0.1", 8080),)
    assert (containers["c2"].exposed, containers["c2"].linked_from) == ((("tcp", 80),), ())


def test_names_of_links_and_ports_that_are_routed_or_only_exposed(socket_path: Path) -> None:
    """As engine 28.5 lists them."""
    listed = {
        "Id": C1,
        "Names": ["/web/kid", "/db"],
        "State": "running",
        "Ports": [
            {"PrivatePort": 53, "Type": "udp"},
            {"IP": "0.0.0.0", "PrivatePort": 88, "Type": "tcp"},  # noqa: S104
            {"IP": "::", "PrivatePort": 88, "PublicPort": 18088, "Type": "tcp"},
        ],
    }
    behaviour = docker(containers=reply(json.dumps([listed]).encode()))
    (found,) = asked(socket_path, behaviour, EngineApi.containers)
    assert (found.name, found.linked_from) == ("db", ("web",))
    assert found.ports == (PublishedPort("tcp", 88, "0.0.0.0", 0), PublishedPort("tcp", 88, "::", 18088))  # noqa: S104
    assert found.exposed == (("udp", 53), ("tcp", 88))


def test_the_networks(socket_path: Path) -> None:
    networks = {each.name: each for each in asked(socket_path, docker(), EngineApi.networks)}
    assert networks["bridge"].bridge == "docker0"
    assert networks["n1"].bridge == "br-9caceccac3b9"
    assert networks["host"].bridge == ""
    assert networks["n1"].subnets == (Subnet("172.18.0.0/16", "172.18.0.1"),)
    assert networks["bridge"].option("com.docker.network.bridge.name") == "docker0"
    assert networks["bridge"].created_at is not None


def test_the_life_of_a_container_that_runs_and_of_one_that_does_not(socket_path: Path) -> None:
    life = asked(socket_path, docker(), QUESTIONS["life"])
    assert (life.container_id, life.running, life.pid) == (C1, True, 13591)
    assert life.started_at == pytest.approx(1795438538.540209)
    assert life.finished_at is None
    assert life.sandbox == "/var/run/docker/netns/9cccfc04daa5"
    socket_path.unlink()
    ended = docker(life=reply(answer("engine-20.10/inspect-h2.json")))
    life = asked(socket_path, ended, QUESTIONS["life"])
    assert (life.running, life.pid) == (False, 0)
    assert life.finished_at == pytest.approx(1795438634.181361)


def test_the_events(socket_path: Path) -> None:
    history = asked(socket_path, docker(), lambda api: api.history(1795438000.0))
    assert len(history.events) == 44
    connect = next(each for each in history.events if each.action == "connect")
    assert connect.type == "network"
    assert len(connect.container_id) == len(connect.network_id) == 64
    assert connect.network_name
    assert (connect.container_name, connect.image) == ("", "")
    start = next(each for each in history.events if (each.type, each.action) == ("container", "start"))
    assert (start.container_name != "", start.network_id) == (True, "")
    assert len(start.container_id) == 64
    assert start.image
    assert history.events[0].at == pytest.approx(1795438510.910420)
    assert history.complete_since == 1795438000.0


def test_only_get_is_asked_and_no_more_than_is_needed(socket_path: Path) -> None:
    with FakeEngine(socket_path, docker()) as server:
        with closing(EngineApi(server.address, 5)) as api:
            assert server.requests == []
            for question in QUESTIONS.values():
                question(api)
        paths = [line.split(" ") for line in server.requests]
    assert {method for method, _, _ in paths} == {"GET"}
    assert [path.split("?")[0] for _, path, _ in paths] == [
        "/version",
        "/v1.41/info",
        "/v1.41/containers/json",
        "/v1.41/networks",
        "/v1.41/events",
        f"/v1.41/containers/{C1}/json",
    ]


def test_proxies_and_contexts_of_the_user_are_not_asked(
    socket_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "DOCKER_HOST"):
        monkeypatch.setenv(name, "tcp://127.0.0.1:1")
    (tmp_path / "config.json").write_text('{"currentContext": "away"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "away")
    assert asked(socket_path, docker(), EngineApi.engine).product is Product.DOCKER


# Who it is


def version_with(**changes: Any) -> bytes:
    return json.dumps(json.loads(answer("engine-20.10/version.json")) | changes).encode()


def test_podman_is_not_taken_for_docker(socket_path: Path) -> None:
    podman = docker(version=reply(answer("podman-version.json")))
    engine = asked(socket_path, podman, EngineApi.engine)
    assert (engine.product, engine.version) == (Product.PODMAN, "4.3.1")


@pytest.mark.parametrize(
    ("components", "product"),
    [
        (None, Product.DOCKER),  # engines before 18.06 name none
        ([{"Name": "Engine"}], Product.DOCKER),
        ([{"Name": "Engine"}, {"Name": "podman"}], Product.PODMAN),
        ([{"Name": "Something Else"}], Product.UNKNOWN),
    ],
)
def test_who_it_is_by_its_components(socket_path: Path, components: Any, product: Product) -> None:
    behaviours = docker(version=reply(version_with(Components=components)))
    assert asked(socket_path, behaviours, EngineApi.engine).product is product


def test_settings_of_the_engine_that_matter(socket_path: Path) -> None:
    info = {
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=userns"],
        "LiveRestoreEnabled": True,
        "FirewallBackend": {"Driver": "nftables+firewalld"},
    }
    engine = asked(socket_path, docker(info=reply(json.dumps(info).encode())), EngineApi.engine)
    assert (engine.rootless, engine.userns_remap, engine.live_restore) == (True, True, True)
    assert engine.firewall_backend == "nftables+firewalld"


@pytest.mark.parametrize(
    ("offered", "used"), [("1.24", "v1.24"), ("1.52", "v1.52"), ("1.99", "v1.52"), ("2.0", "v1.52")]
)
def test_the_api_version_is_the_highest_that_both_know(socket_path: Path, offered: str, used: str) -> None:
    with FakeEngine(socket_path, docker(version=reply(version_with(ApiVersion=offered)))) as server:
        with closing(EngineApi(server.address, 5)) as api:
            api.engine()
        assert f"GET /{used}/info HTTP/1.1" in server.requests


@pytest.mark.parametrize("offered", ["1.23", "0.9", "", "1", "one.two", "1.2.3"])
def test_an_api_version_that_is_none_or_too_old_is_said(socket_path: Path, offered: str) -> None:
    with pytest.raises(EngineError, match="API"):
        asked(socket_path, docker(version=reply(version_with(ApiVersion=offered))), EngineApi.engine)


# Whoever does not answer as an engine does

EMPTY = reply(b"")
SERVER_ERROR = reply(b'{"message":"no"}', "500 Internal Server Error")


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (SERVER_ERROR, "HTTP 500"),
        (reply(b"<html>", "503 Service Unavailable", "text/html"), "HTTP 503"),
        (reply(b"not json"), "not an engine's|broke off|is no HTTP"),
        (EMPTY, "not an engine's"),
        (reply(b"7"), "not an engine's"),
        (reply(b'{"Id": 5, "State": 3}' + b" " * 9), "not an engine's"),
        (reply(b"[" * 100_000), "not an engine's"),
        (raw(b"SSH-2.0-OpenSSH_9.2p1\r\n", go_on=False), "is no HTTP|no engine answers"),
        (raw(b"\0" * 100, go_on=False), "is no HTTP|no engine answers"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", go_on=False), "broke off"),
        (close, "no engine answers there"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_an_error_that_says_what_was_bad(
    socket_path: Path, name: str, behaviour: Behaviour, reason: str
) -> None:
    if name == "events" and behaviour is EMPTY:
        return  # no line is no event: a whole answer
    if name == "info" and behaviour is not SERVER_ERROR:
        name = "version"
    with pytest.raises(EngineError, match=reason) as caught:
        asked(socket_path, docker(**{name: behaviour}), QUESTIONS.get(name, EngineApi.engine))
    assert not isinstance(caught.value, GoneError)


def test_not_found_is_gone_for_a_container_and_no_answer_to_all_else(socket_path: Path) -> None:
    missing = reply(b'{"message":"No such container"}', "404 Not Found")
    with FakeEngine(socket_path, docker(**dict.fromkeys(QUESTIONS, missing))) as server:
        for name, question in QUESTIONS.items():
            with (
                pytest.raises(EngineError, match="HTTP 404") as caught,
                closing(EngineApi(server.address, 5)) as api,
            ):
                question(api)
            assert isinstance(caught.value, GoneError) == (name == "life")


@pytest.mark.parametrize("name", ["version", "info", "events"])
def test_an_engine_that_hangs_is_waited_for_as_long_as_was_said(socket_path: Path, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(EngineError, match="accepted the connection and did not answer in time"):
        asked(socket_path, docker(**{name: hang}), QUESTIONS.get(name, EngineApi.engine), timeout=0.1)
    assert time.monotonic() - started < 2


def test_a_stream_of_events_that_stops_half_way_is_an_error(socket_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    line = answer("engine-20.10/events.jsonl").splitlines()[0] + b"\n"

    def half(engine: FakeEngine, connection: socket.socket) -> bool:
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(line), line))
        return hang(engine, connection)

    with pytest.raises(EngineError):
        asked(socket_path, docker(events=half), QUESTIONS["events"], timeout=0.1)
    socket_path.unlink()
    with pytest.raises(EngineError):
        asked(socket_path, docker(events=raw(head + b"50\r\n{", go_on=False)), QUESTIONS["events"])


def test_no_server_and_no_socket(socket_path: Path) -> None:
    api = EngineApi(f"unix://{socket_path}", 1)
    with pytest.raises(EngineError, match=r"no engine answers there \(No such file or directory\)"):
        api.engine()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
    with pytest.raises(EngineError, match=r"no engine answers there \(Connection refused\)"):
        api.engine()


@pytest.mark.parametrize(
    "address", ["", "docker", "unix://", "ftp://host", "tcp://host:port", "http://[::1", "npipe:////./pipe/x"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(EngineError):
        EngineApi(address, 0.2).engine()


def test_nobody_is_followed_elsewhere_and_no_proxy_is_asked(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        there = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", there)
        moved = reply(b"", "302 Found", "text/plain", f"Location: {there}/version")
        with (
            FakeEngine(socket_path, docker(version=moved)) as server,
            closing(EngineApi(server.address, 0.5)) as api,
            pytest.raises(EngineError, match="TooManyRedirects"),
        ):
            api.engine()
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@pytest.mark.parametrize("scheme", ["tcp", "http", "https", "ssh"])
def test_an_engine_elsewhere_is_not_asked(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        api = EngineApi(f"{scheme}://127.0.0.1:{elsewhere.getsockname()[1]}", 0.5)
        with pytest.raises(EngineError, match="only an engine on this host"):
            api.engine()
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1.41"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


class Answered(NamedTuple):
    status_code: int
    content: bytes


class Canned:
    """In docker-py's place: answers that were parsed already."""

    base_url, api_version = "http+docker://localhost", "1.41"

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: self._answers[name]

    def get(self, url: str, **_: Any) -> Answered:
        assert url == "http+docker://localhost/v1.41/events"
        events = self._answers["events"]
        lines = [json.dumps(each) for each in (events if isinstance(events, list) else [events])]
        return Answered(200, "\n".join(lines).encode())


ANSWERS: dict[str, Any] = {
    "version": json.loads(answer("engine-20.10/version.json")),
    "info": json.loads(answer("engine-20.10/info.json")),
    "containers": json.loads(answer("engine-20.10/containers.json")),
    "networks": json.loads(answer("engine-20.10/networks.json")),
    "inspect_container": json.loads(answer("engine-20.10/inspect-c1.json")),
    "events": [json.loads(line) for line in answer("engine-20.10/events.jsonl").splitlines()][:3],
}
PLACES = {name: _places(value) for name, value in ANSWERS.items()}
METHODS = {
    "version": EngineApi.engine,
    "info": EngineApi.engine,
    "containers": EngineApi.containers,
    "networks": EngineApi.networks,
    "inspect_container": QUESTIONS["life"],
    "events": QUESTIONS["events"],
}


@given(data=st.data())
def test_an_answer_with_anything_in_any_place_is_read_or_an_engine_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ANSWERS)))
    place = data.draw(st.sampled_from(PLACES[name]))
    changed = _replaced(ANSWERS[name], place, data.draw(JSON))
    with pytest.MonkeyPatch.context() as monkeypatch:
        canned = Canned(**(ANSWERS | {name: changed}))
        monkeypatch.setattr(EngineApi, "_connect", lambda *_: canned)
        try:
            METHODS[name](EngineApi("unix:///nowhere", 1))
        except EngineError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("inspect_container", ("State", "Pid"), -1),
        ("inspect_container", ("State", "Pid"), 2**31),
        ("events", (0, "timeNano"), 10**400),
        ("events", (0, "time"), -1),
        ("containers", (0, "Created"), 10**400),
        ("containers", (0, "Id"), None),
    ],
)
def test_numbers_that_no_engine_gives_make_the_answer_none(
    monkeypatch: pytest.MonkeyPatch, name: str, place: tuple[Any, ...], value: Any
) -> None:
    canned = Canned(**(ANSWERS | {name: _replaced(ANSWERS[name], place, value)}))
    monkeypatch.setattr(EngineApi, "_connect", lambda *_: canned)
    with pytest.raises(EngineError, match="is not an engine's"):
        METHODS[name](EngineApi("unix:///nowhere", 1))


# How far back the events reach


def some_events(count: int, first: float = 1000.0) -> list[Any]:
    listed = [{"Type": "network", "timeNano": int((first + at) * 1e9)} for at in range(count)]
    return msgspec.convert(listed, list[engine_module._Event])


@pytest.mark.parametrize(
    ("count", "daemon_started_at", "complete_since"),
    [
        (0, 500.0, 500.0),
        (EVENTS_KEPT - 1, 500.0, 500.0),
        (EVENTS_KEPT, 500.0, 1000.0),  # one more may have been dropped
        (EVENTS_KEPT + 1, 500.0, 1000.0),
        (3, None, 1000.0),  # whose start is not known, may have been started just then
        (0, None, 9000.0),
    ],
)
def test_the_events_are_complete_since(
    count: int, daemon_started_at: float | None, complete_since: float
) -> None:
    history = parse_history(some_events(count), daemon_started_at, 9000.0)
    assert (history.complete_since, history.complete_until) == (complete_since, 9000.0)
    assert history.covers(complete_since, 9000.0)
    assert not history.covers(complete_since - 0.001, 9000.0)
    assert not history.covers(complete_since, 9000.001)


def test_an_event_of_another_kind_has_no_container_and_no_network() -> None:
    (event,) = parse_history(
        msgspec.convert(
            [
                {
                    "Type": "image",
                    "Action": "pull",
                    "Actor": {"ID": "busybox", "Attributes": {"name": "x"}},
                    "time": 7,
                }
            ],
            list[engine_module._Event],
        ),
        None,
        9.0,
    ).events
    assert (event.at, event.container_id, event.container_name, event.network_id) == (7.0, "", "", "")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-23T12:55:38.540209123Z", 1795438538.540209),
        ("2026-11-23T13:55:38.540209123+01:00", 1795438538.540209),
        ("2026-11-23T12:55:38Z", 1795438538.0),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("yesterday", None),
        ("9999-99-99T00:00:00Z", None),
    ],
)
def test_times_as_go_writes_them(text: str, time: float | None) -> None:
    assert parse_time(text) == (None if time is None else pytest.approx(time, abs=1e-5))
