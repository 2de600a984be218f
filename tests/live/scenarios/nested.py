"""Engines inside containers, and what is done by hand beside them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.live.auditlog import wait_until
from tests.live.lab import IMAGE, Lab
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    REFUTED,
    Expected,
    Steps,
    attack_on_link,
    attack_on_rules,
    scenario,
)

# An engine inside a container

_CAPABILITIES = (
    *(
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_RAW",
    ),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"),
)
_INNER = """
while read -r _ where kind _; do
    case $kind in cgroup* | tmpfs) mount -o remount,bind,rw "$where" ;; esac
done </proc/mounts
mkdir -p /run
until [ -e /go ]; do sleep 0.05; done
"$@" >/log 2>&1
sleep 1000
"""
_DOCKERD = ("dockerd", "--host=unix:///run/docker.sock", "--storage-driver=vfs")


class Inner:
    """A container that can have an engine in it, with the lab's programs."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._lab = lab
        self.name = name

    @property
    def pid(self) -> int:
        """Of its first process."""
        return int(self._lab.inspect(self.name, "{{.State.Pid}}"))

    @property
    def socket(self) -> Path:
        """Its engine's, as it is reached from outside."""
        return Path(f"/proc/{self.pid}/root/run/docker.sock")

    def docker(self, *arguments: str, check: bool = True) -> str:
        """The client, on the engine in it."""
        return self._lab.docker("-H", f"unix://{self.socket}", *arguments, check=check)

    def keep_running(self, *commands: str) -> None:
        """Have a shell in it run these, and stay; return when it has run them."""
        script = "\n".join(("set -e", *commands, ": >/done", "sleep 1000"))
        self._lab.docker("exec", "-d", self.name, "/bin/busybox", "sh", "-c", script)
        done = Path(f"/proc/{self.pid}/root/done")
        wait_until(done.exists, f"the commands in {self.name}")

    def links(self) -> set[str]:
        """The interfaces in its namespace."""
        listed = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-j", "link"], check=True, capture_output=True
        ).stdout
        return {link["ifname"] for link in json.loads(listed)}


@contextmanager
def a_container_for(lab: Lab, name: str, *command: str, more: Sequence[Path] = ()) -> Iterator[Inner]:
    """A running container with all that an engine needs, and more files, that will run a command when there is /go."""
    options = [option for each in _CAPABILITIES for option in ("--cap-add", each)]
    options += ["--security-opt=seccomp=unconfined", "--security-opt=systempaths=unconfined"]
    options += [f"--volume={each}:{each}:ro" for each in ("/usr", "/lib", "/lib64", str(lab.bin))]
    options += [f"--volume={each}:/{each.name}:ro" for each in more]
    path = f"PATH={lab.bin}:/usr/sbin:/usr/bin:/bin"
    try:
        lab.docker(
            "run", "-d", "--name", name, "--volume=/var/lib/docker", "--env", path, *options, IMAGE,
            "/bin/busybox", "sh", "-c", f"set -- {' '.join(command)}\n{_INNER}",
        )  # fmt: skip
        yield Inner(lab, name)
    finally:
        lab.remove(name)


@contextmanager
def a_nested_engine(lab: Lab, name: str) -> Iterator[Inner]:
    """A container with an engine that runs and has an image."""
    with a_container_for(lab, name, *_DOCKERD) as inner:
        Path(f"/proc/{inner.pid}/root/go").touch()

        def answers() -> bool:
            return bool(inner.docker("version", "-f", "{{.Server.Version}}", check=False))

        wait_until(answers, f"the engine inside {name} to answer", 60)
        archive = subprocess.run(
            ["tar", "-C", lab.tools, "-c", "bin"], check=True, capture_output=True
        ).stdout
        subprocess.run(
            ["docker", "-H", f"unix://{inner.socket}", "import", "-", IMAGE],
            check=True,
            capture_output=True,
            input=archive,
            env=lab.environment,
        )
        yield inner


@scenario("an engine inside a container")
def nested_engine(lab: Lab) -> Steps:
    with a_nested_engine(lab, "dind") as inner:
        before = inner.links()
        yield ()
        inner.docker("run", "-d", "--name", "web", "-p", "18090:80", IMAGE, "sleep", "1000")
        (veth,) = inner.links() - before
        inner.docker("network", "create", "within")
        lab.adopt(veth)
        yield [
            _nested("enter of the nested container's interface", "promiscuous", device=veth),
            _nested("its rules", "firewall", table="nat|filter|raw", command="iptables|ip6tables", least=8),
        ]


@scenario("an engine inside a container, asked itself", everywhere=False)
def nested_engine_asked(lab: Lab) -> Steps:
    with a_nested_engine(lab, "dind") as inner:
        before = inner.links()
        lab.asked = inner.socket
        try:
            yield ()
            inner.docker("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
            (veth,) = inner.links() - before
            lab.adopt(veth)
            port = _nested("enter of the nested container's interface", "promiscuous", device=veth)
            yield [replace(port, container="web")]
        finally:
            lab.asked = lab.socket


def _nested(
    what: str, rule: str, device: str = ".*", table: str = ".*", command: str = ".*", least: int = 1
) -> Expected:
    return Expected(
        what,
        CONFIRMED,
        CONFIRMED | INCONCLUSIVE,
        rule,
        device=device,
        table=table,
        command=command,
        least=least,
        cause="nested-docker",
        container="dind",
    )


@scenario("by hand in a container that has an engine", everywhere=False)
def beside_nested_engine(lab: Lab) -> Steps:
    with a_nested_engine(lab, "dind") as inner:
        yield ()
        inner.keep_running(*_BY_HAND)
        lab.adopt("veth1234567")
        yield _done_by_hand()


_BY_HAND = (
    "iptables -I DOCKER-USER -s 203.0.113.9 -j ACCEPT",
    "/usr/bin/ip link add veth1234567 type veth peer name other0",
    "/usr/bin/ip link set veth1234567 master docker0",
)


def _done_by_hand() -> list[Expected]:
    bare = REFUTED | INCONCLUSIVE
    return [
        attack_on_rules("the rule", cause="container", container="dind"),
        attack_on_link("the interface", "veth1234567", cause="container", container="dind", bare=bare),
    ]


# A server that says what an engine would say of the interface that it has just put on a bridge.
_FALSE_ENGINE = r"""
import http.server, json, os, socketserver, subprocess, time
open("/proc/self/comm", "w").write("dockerd")
for command in ("link add docker0 type bridge", "link add veth2345678 type veth peer name other0",
                "link set veth2345678 master docker0"):
    subprocess.run(["/usr/bin/ip", *command.split()], check=True)
now = time.time()
network = {"Id": "f" * 64, "Name": "bridge", "Driver": "bridge", "Scope": "local", "Created": "",
           "Options": {"com.docker.network.bridge.name": "docker0"}}
answers = {
    "version": {"Version": "20.10.24", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}]},
    "info": {"ID": "x", "Name": "x", "DockerRootDir": "/var/lib/docker"},
    "containers/json": [],
    "networks": [network],
}
event = {"Type": "network", "Action": "connect", "timeNano": int(now * 1e9),
         "Actor": {"ID": "f" * 64, "Attributes": {"container": "e" * 64, "name": "bridge"}}}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = self.path.partition("?")[0].strip("/")
        path = path.partition("/")[2] if path.startswith("v1.") else path
        body = json.dumps(event).encode() if path == "events" else json.dumps(answers.get(path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return ""
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass
with Server("/run/docker.sock", Handler) as server:
    os.close(os.open("/done", os.O_CREAT))
    server.serve_forever()
"""


@scenario("what answers as an engine inside a container", everywhere=False)
def false_nested_engine(lab: Lab) -> Steps:
    script = lab.directory / "dockerd.py"
    script.write_text(_FALSE_ENGINE)
    with a_container_for(lab, "dind", "/usr/bin/python3", "-I", "/dockerd.py", more=(script,)) as inner:
        go, done = (Path(f"/proc/{inner.pid}/root/{name}") for name in ("go", "done"))
        yield ()
        go.touch()
        wait_until(done.exists, "the false engine")
        lab.adopt("veth2345678")
        yield [
            attack_on_link(
                "the interface",
                "veth2345678",
                cause="container",
                container="dind",
                bare=REFUTED | INCONCLUSIVE,
            )
        ]
