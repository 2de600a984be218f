"""Which process the engine is: engines inside containers, beside it, before it, and what only answers as one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
def a_container_for(lab: Lab, name: str, *command: str) -> Iterator[Inner]:
    """A running container that has all that an engine needs."""
    options = [option for each in _CAPABILITIES for option in ("--cap-add", each)]
    options += ["--security-opt=seccomp=unconfined", "--security-opt=systempaths=unconfined"]
    options += [f"--volume={each}:{each}:ro" for each in ("/usr", "/lib", "/lib64", str(lab.bin))]
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
