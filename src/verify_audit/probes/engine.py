"""The engine's API: asked with docker-py, read into facts with msgspec.

GET only, one time-out for each answer, and a bound on the whole, which the caller keeps (a server that
sends a byte a second never times out by itself). What comes back is checked against the shapes below:
an engine that answers rubbish is Unobservable, not empty.

References: Docker Engine API v1.24 to v1.52, https://docs.docker.com/reference/api/engine/.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from verify_audit.host.facts import (
    Container,
    Endpoint,
    Engine,
    EngineEvent,
    History,
    Life,
    Network,
    Product,
    PublishedPort,
    Subnet,
)

if TYPE_CHECKING:
    from docker import APIClient

EVENTS_KEPT = 256
"""How many events the engine keeps: moby daemon/events/events.go, eventsLimit."""

LOCAL = ("unix://", "http+unix://")
ELSEWHERE = "that is no UNIX socket, and only an engine on this host can be shown to have done it"
"""What is said of every other address; nothing is sent there."""

_OLDEST, _NEWEST = (1, 24), (1, 52)
_FIRST_EVENT = 1
_OK = 200
Shape = TypeVar("Shape")


class EngineError(Exception):
    """The engine did not answer, or not as an engine does; the text says which."""


class GoneError(EngineError):
    """The engine knows no such thing (HTTP 404)."""


# Numbers as an engine can give them: others may come from what is none, and are of no use to anyone.
_Pid = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Loose(msgspec.Struct, rename="pascal"):
    """A shape of which only what is named here is looked at."""


class _Component(_Loose):
    name: str = ""


class _Platform(_Loose):
    name: str = ""


class _Version(_Loose):
    version: str
    api_version: str
    components: list[_Component] | None = None


class _FirewallBackend(_Loose):
    driver: str = ""


class _Info(_Loose):
    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    docker_root_dir: str = ""
    live_restore_enabled: bool = False
    security_options: list[str] | None = None
    firewall_backend: _FirewallBackend | None = None


class _EndpointSettings(_Loose):
    network_id: str = msgspec.field(default="", name="NetworkID")
    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    mac_address: str = ""
    ip_address: str = msgspec.field(default="", name="IPAddress")
    ipv6: str = msgspec.field(default="", name="GlobalIPv6Address")


class _NetworkSettings(_Loose):
    networks: dict[str, _EndpointSettings | None] | None = None


class _HostConfig(_Loose):
    network_mode: str = ""


class _Port(_Loose):
    private_port: int
    type: str = "tcp"
    ip: str = msgspec.field(default="", name="IP")
    public_port: int = 0


class _Container(_Loose):
    id: str
    names: list[str] | None = None
    image: str = ""
    state: str = ""
    created: _Seconds | None = None
    host_config: _HostConfig | None = None
    network_settings: _NetworkSettings | None = None
    ports: list[_Port] | None = None


class _State(_Loose):
    running: bool = False
    pid: _Pid = 0
    started_at: str = ""
    finished_at: str = ""


class _Sandbox(_Loose):
    sandbox_key: str = ""


class _Binding(_Loose):
    host_ip: str = ""
    host_port: str = ""


class _Publishing(_Loose):
    port_bindings: dict[str, list[_Binding] | None] | None = None
    publish_all_ports: bool = False


class _Inspected(_Loose):
    id: str
    state: _State
    network_settings: _Sandbox | None = None
    host_config: _Publishing | None = None


class _Pool(_Loose):
    subnet: str = ""
    gateway: str = ""


class _Ipam(_Loose):
    config: list[_Pool] | None = None


class _Network(_Loose):
    id: str
    name: str
    driver: str = ""
    scope: str = ""
    internal: bool = False
    enable_ipv6: bool = msgspec.field(default=False, name="EnableIPv6")
    created: str = ""
    ipam: _Ipam | None = msgspec.field(default=None, name="IPAM")
    options: dict[str, str] | None = None


class _EventActor(_Loose):
    id: str = msgspec.field(default="", name="ID")
    attributes: dict[str, str] | None = None


class _Event(msgspec.Struct):
    type: str = msgspec.field(name="Type")
    action: str = msgspec.field(default="", name="Action")
    actor: _EventActor | None = msgspec.field(default=None, name="Actor")
    time: _Seconds = 0
    nanoseconds: _Nanoseconds = msgspec.field(default=0, name="timeNano")


class EngineApi:
    """One engine, asked over its socket.

    docker_host is an address as in DOCKER_HOST ("unix:///run/docker.sock"); timeout is seconds for each
    answer. Nothing is sent before the first question. Every method raises EngineError.
    """

    def __init__(self, docker_host: str, timeout: float) -> None:
        self._docker_host = docker_host
        self._timeout = timeout
        self._client: APIClient | None = None
        self._version: _Version | None = None
        self._engine: Engine | None = None
        self._clients: list[APIClient] = []

    def version(self) -> _Version:
        """GET /version, once; from then on the API version is the highest that both sides know."""
        if self._version is None:
            unversioned = self._connect(".".join(map(str, _OLDEST)))
            answer = _ask(lambda: unversioned.version(api_version=False))
            self._version = _shaped(answer, _Version, "GET /version")
            self._client = self._connect(_negotiated(self._version.api_version))
        return self._version

    def engine(self) -> Engine:
        """GET /version and GET /info, once."""
        if self._engine is None:
            version = self.version()
            answer = _shaped(_ask(self._api().info), _Info, "GET /info")
            self._engine = parse_engine(version, answer, self._docker_host)
        return self._engine

    def containers(self) -> tuple[Container, ...]:
        """GET /containers/json?all=1."""
        api = self._api()
        answer = _ask(lambda: api.containers(all=True))
        return tuple(map(parse_container, _shaped(answer, list[_Container], "GET /containers/json")))

    def life(self, container_id: str) -> Life:
        """GET /containers/ID/json. GoneError when the container is no more."""
        api = self._api()
        answer = _ask(lambda: api.inspect_container(container_id), may_be_gone=True)
        return parse_life(_shaped(answer, _Inspected, "GET /containers/ID/json"))

    def networks(self) -> tuple[Network, ...]:
        """GET /networks."""
        answer = _ask(self._api().networks)
        return tuple(map(parse_network, _shaped(answer, list[_Network], "GET /networks")))

    def history(self, daemon_started_at: float | None) -> History:
        """GET /events from the first that the engine still has until now.

        daemon_started_at: when its process started, None when that could not be found.
        """
        api = self._api()
        now = time.time()
        # Not api.events(): it takes an error, or a stream that breaks off, for the end of the events.
        url = f"{api.base_url}/v{api.api_version}/events"
        reach = {"since": str(_FIRST_EVENT), "until": f"{now:.6f}"}  # whole seconds would wait for one to end
        response = _ask(lambda: api.get(url, params=reach, timeout=self._timeout))
        if response.status_code != _OK:
            raise EngineError(f"the engine answered with HTTP {response.status_code}")
        return parse_history(_events(response.content), daemon_started_at, now)

    def _api(self) -> APIClient:
        self.version()
        if self._client is None:
            raise AssertionError
        return self._client

    def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients:
            client.close()

    def _connect(self, version: str) -> APIClient:
        import docker  # 90 ms, and not every run asks the engine
        from docker.errors import DockerException

        if not self._docker_host:
            raise EngineError("no address of an engine was given")  # docker-py would take its default
        if not self._docker_host.startswith(LOCAL):
            # docker-py would ask over the network, or start ssh, and nothing could come of it.
            raise EngineError(ELSEWHERE)
        try:
            # No credentials, proxies or contexts of the user's: only this address.
            connect: Any = docker.APIClient  # its stubs know of whole seconds only
            client: APIClient = connect(base_url=self._docker_host, version=version, timeout=self._timeout)
        except (DockerException, ValueError) as error:
            raise EngineError(f"{self._docker_host} is not an address that can be asked: {error}") from error
        client.trust_env = False
        client.max_redirects = 0  # or a false engine could send us anywhere
        self._clients.append(client)
        return client


def _ask(question: Callable[[], Any], *, may_be_gone: bool = False) -> Any:
    """The answer, or EngineError in words that fit a report.

    may_be_gone: a 404 says that the thing is no more; to any other question it is no engine's answer.
    """
    from docker.errors import APIError, DockerException, NotFound
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import JSONDecodeError, RequestException, Timeout
    from urllib3.exceptions import HTTPError

    try:
        return question()
    except NotFound as error:
        if may_be_gone:
            raise GoneError("the engine has no such thing any more (HTTP 404)") from error
        raise EngineError("the engine does not know the question (HTTP 404)") from error
    except APIError as error:
        status = error.response.status_code if error.response is not None else "error"
        raise EngineError(f"the engine answered with HTTP {status}") from error
    except Timeout as error:
        raise EngineError("the engine accepted the connection and did not answer in time") from error
    except NoConnection as error:
        raise EngineError(f"no engine answers there ({_innermost(error)})") from error
    except JSONDecodeError as error:
        raise EngineError("the answer is not an engine's (it is no JSON)") from error
    except (RequestException, HTTPError, DockerException) as error:
        raise EngineError(f"the engine's answer broke off or is no HTTP ({_innermost(error)})") from error
    except (ValueError, TypeError, KeyError, AttributeError, LookupError, RecursionError) as error:
        # docker-py takes the shape of an answer for granted; a server that is no engine need not keep to it.
        raise EngineError(f"the answer is not an engine's ({type(error).__name__})") from error
    except MemoryError as error:
        raise EngineError("the engine's answer does not fit into memory") from error
    except OSError as error:
        raise EngineError(f"no engine answers there ({error.strerror or error})") from error


def _innermost(error: BaseException) -> str:
    """The system's own words under the layers that libraries wrap them in."""
    seen: BaseException | None = error
    for _ in range(10):
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        following = seen and (seen.__cause__ or seen.__context__)
        arguments = [part for part in getattr(seen, "args", ()) if isinstance(part, BaseException)]
        seen = arguments[0] if arguments else following
        if seen is None:
            break
    return type(error).__name__


def _shaped(answer: Any, shape: type[Shape], query: str) -> Shape:
    try:
        return msgspec.convert(answer, shape, strict=False)
    except (ValueError, RecursionError, OverflowError) as error:
        raise EngineError(f"the answer to {query} is not an engine's: {error}") from error


def _events(stream: bytes) -> list[_Event]:
    """The events of GET /events, one a line."""
    try:
        return msgspec.json.Decoder(_Event, strict=False).decode_lines(stream)
    except (ValueError, RecursionError, OverflowError) as error:
        raise EngineError(f"the answer to GET /events is not an engine's: {error}") from error


def _negotiated(offered: str) -> str:
    try:
        major, minor = (int(part) for part in offered.split(".", 1))
    except ValueError as error:
        raise EngineError("the engine names an API version that is none") from error
    version = min((major, minor), _NEWEST)
    if version < _OLDEST:
        raise EngineError(
            f"API {offered} is older than {_OLDEST[0]}.{_OLDEST[1]}, the oldest that is understood"
        )
    return f"{version[0]}.{version[1]}"


def parse_engine(version: _Version, answer: _Info, docker_host: str) -> Engine:
    """The engine from its two answers. Podman names itself among the components."""
    components = [component.name for component in version.components or ()]
    if any("podman" in name.lower() for name in components):
        product = Product.PODMAN
    elif any(name == "Engine" for name in components) or not components:
        product = Product.DOCKER
    else:
        product = Product.UNKNOWN
    options = answer.security_options or []
    return Engine(
        product=product,
        version=version.version,
        api_version=version.api_version,
        engine_id=answer.id,
        name=answer.name,
        firewall_backend=answer.firewall_backend.driver if answer.firewall_backend else None,
        live_restore=answer.live_restore_enabled,
        rootless=any(option.startswith("name=rootless") for option in options),
        userns_remap=any(option.startswith("name=userns") for option in options),
        docker_host=docker_host,
        root=answer.docker_root_dir,
    )


def parse_container(listed: _Container) -> Container:
    """A container from its line in the list.

    A name with a second slash is that of a link: "/web/db" stands at db, which web is linked to.
    """
    names = [name.lstrip("/") for name in listed.names or ()]
    ports = listed.ports or ()
    networks = (listed.network_settings.networks if listed.network_settings else None) or {}
    return Container(
        id=listed.id,
        name=next((name for name in names if "/" not in name), ""),
        image=listed.image,
        running=listed.state in ("running", "paused", "restarting"),
        created_at=listed.created,
        network_mode=listed.host_config.network_mode if listed.host_config else "",
        endpoints=tuple(_endpoint(name, settings) for name, settings in networks.items() if settings),
        ports=tuple(
            PublishedPort(port.type, port.private_port, port.ip, port.public_port)
            for port in ports
            # Without an address it is only exposed; without a port of the host's it is routed (gateway_mode).
            if port.public_port or port.ip
        ),
        linked_from=tuple(name.partition("/")[0] for name in names if "/" in name),
        exposed=tuple(dict.fromkeys((port.type, port.private_port) for port in ports)),
    )


def _endpoint(name: str, settings: _EndpointSettings) -> Endpoint:
    return Endpoint(
        network_id=settings.network_id,
        network_name=name,
        endpoint_id=settings.endpoint_id,
        mac=settings.mac_address.lower(),
        ipv4=settings.ip_address,
        ipv6=settings.ipv6,
    )


def parse_life(inspected: _Inspected) -> Life:
    """When a container ran, from its inspection."""
    state = inspected.state
    return Life(
        container_id=inspected.id,
        running=state.running,
        pid=state.pid,
        started_at=parse_time(state.started_at),
        finished_at=parse_time(state.finished_at),
        sandbox=inspected.network_settings.sandbox_key if inspected.network_settings else "",
        bindings=_bindings(inspected.host_config),
    )


def _bindings(asked: _Publishing | None) -> tuple[PublishedPort, ...] | None:
    """The ports that were asked for; None where the image has a say in it, or an entry cannot be read."""
    if asked is None or asked.publish_all_ports:
        return None
    found = []
    for name, ways in (asked.port_bindings or {}).items():
        port, _, protocol = name.partition("/")
        if not (port.isascii() and port.isdigit()):
            return None
        for way in ways or [_Binding()]:
            host_port = int(way.host_port) if way.host_port.isascii() and way.host_port.isdigit() else 0
            found.append(PublishedPort(protocol or "tcp", int(port), way.host_ip, host_port))
    return tuple(found)


def parse_network(listed: _Network) -> Network:
    """A network from its line in the list, with the bridge that it lives on."""
    options = dict(listed.options or {})
    pools = (listed.ipam.config if listed.ipam else None) or []
    return Network(
        id=listed.id,
        name=listed.name,
        driver=listed.driver,
        scope=listed.scope,
        internal=listed.internal,
        ipv6=listed.enable_ipv6,
        created_at=parse_time(listed.created),
        bridge=_bridge(listed, options),
        subnets=tuple(Subnet(pool.subnet, pool.gateway) for pool in pools),
        options=tuple(sorted(options.items())),
    )


def _bridge(listed: _Network, options: Mapping[str, str]) -> str:
    """libnetwork drivers/bridge: the option if set, else "br-" and the first 12 digits of the id."""
    if listed.driver != "bridge":
        return ""
    return options.get("com.docker.network.bridge.name") or f"br-{listed.id[:12]}"


def parse_history(events: list[_Event], daemon_started_at: float | None, now: float) -> History:
    """The events, and since when none can be missing.

    With fewer than 256 the engine has forgotten none since its start. With 256 it has all since the
    oldest that it gave.
    """
    parsed = tuple(map(_event, events))
    oldest = min((event.at for event in parsed), default=now)
    whole = len(parsed) < EVENTS_KEPT and daemon_started_at is not None
    return History(parsed, daemon_started_at if whole and daemon_started_at else oldest, now)


def _event(event: _Event) -> EngineEvent:
    actor = event.actor or _EventActor()
    attributes = actor.attributes or {}
    on_network = event.type == "network"
    return EngineEvent(
        at=event.nanoseconds / 1e9 if event.nanoseconds else float(event.time),
        type=event.type,
        action=event.action,
        container_id=attributes.get("container", "")
        if on_network
        else actor.id * (event.type == "container"),
        container_name=attributes.get("name", "") if event.type == "container" else "",
        image=attributes.get("image", "") if event.type == "container" else "",
        network_id=actor.id if on_network else "",
        network_name=attributes.get("name", "") if on_network else "",
        driver=attributes.get("type", "") if on_network else "",
    )


def parse_time(text: str) -> float | None:
    """RFC 3339 with nanoseconds as Go writes it; None for Go's zero time or what is no time."""
    if not text or text.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
