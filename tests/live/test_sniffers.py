"""The sweep on a live host: each sniffer is found, in whichever namespace, and nobody else is suspected."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live.auditlog import wait_until
from tests.live.lab import TOOLS, Lab, program, program_environment
from tests.live.play import a_container, a_network, a_veth, start


@dataclass(frozen=True)
class Seen:
    """What the sweep said, of this lab only: on the same machine there is more."""

    status: int
    listeners: list[dict[str, Any]]
    devices: dict[str, dict[str, Any]]
    total: dict[str, Any]

    def of(self, pid: int) -> dict[str, Any]:
        """The one listener that a process is."""
        (found,) = [each for each in self.listeners if pid in [one["pid"] for one in each["processes"]]]
        return found

    @property
    def unexplained(self) -> list[dict[str, Any]]:
        """What the lab is to be blamed for."""
        return [each for each in (*self.listeners, *self.devices.values()) if each["unexplained"]]


@pytest.fixture(scope="module")
def host(nft_lab: Lab) -> Lab:
    """A lab with an engine: a host of its own."""
    return nft_lab


def swept(lab: Lab) -> Seen:
    """One sweep, from the lab's network namespace."""
    command = program("sniffers", "--format", "jsonl", "--docker-host", f"unix://{lab.socket}")
    done = subprocess.run(
        lab.inside(*command),
        check=False,
        capture_output=True,
        text=True,
        env=program_environment(),
        timeout=60,
    )
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ours = {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in lab.kin.living()}  # noqa: PTH116
    here = [each for each in lines[:-1] if each["namespace"]["inode"] in ours]
    return Seen(
        done.returncode,
        [each for each in here if each["schema"] == "verify-audit.listener/1"],
        {each["device"]: each for each in here if each["schema"] == "verify-audit.device/1"},
        lines[-1],
    )


def pid_of(lab: Lab, container: str) -> int:
    return int(lab.inspect(container, "{{.State.Pid}}"))


@contextmanager
def sniffing_container(lab: Lab, name: str, *options: str, device: str = "eth0") -> Iterator[int]:
    """A container that runs tcpdump from its start on; its pid."""
    try:
        lab.docker(
            "run", "-d", "--name", name, *options, TOOLS,
            "/usr/bin/tcpdump", "-i", device, "-Z", "root", "-w", "/dev/null",
        )  # fmt: skip
        wait_until(lambda: "listening on" in logs(lab, name), "tcpdump to listen")
        yield pid_of(lab, name)
    finally:
        lab.remove(name)


def logs(lab: Lab, name: str) -> str:
    done = subprocess.run(
        ["docker", "logs", name], check=False, capture_output=True, text=True, env=lab.environment
    )
    return done.stdout + done.stderr


def test_containers_alone_are_explained(host: Lab) -> None:
    with a_container(host, "calm") as veth:
        seen = swept(host)
    assert seen.unexplained == []
    assert seen.listeners == []
    device = seen.devices[veth]
    assert device["namespace"]["kind"] == "host"
    assert [each["text"] for each in device["holders"]] == ["the bridge docker0"]


@pytest.mark.parametrize(
    ("options", "promiscuous"),
    [(["-i", "docker0"], ["docker0"]), (["-p", "-i", "docker0"], []), (["-i", "any"], [])],
)
def test_tcpdump_on_the_host(host: Lab, options: list[str], promiscuous: list[str]) -> None:
    with host.sniffer("-Z", "root", *options) as process:
        seen = swept(host)
    found = seen.of(process.pid)
    assert seen.status == 11
    assert found["namespace"]["kind"] == "host"
    assert found["device"] == (None if "any" in options else "docker0")
    assert found["promiscuous_on"] == promiscuous
    assert (found["protocol_name"], found["processes"][0]["exe"]) == ("all", "/usr/bin/tcpdump")
    assert [each for each in seen.unexplained if each is not found] == []


def test_tcpdump_in_a_container(host: Lab) -> None:
    with sniffing_container(host, "spy") as pid:
        seen = swept(host)
    found = seen.of(pid)
    assert found["namespace"]["containers"][0]["name"] == "spy"
    assert (found["device"], found["promiscuous_on"]) == ("eth0", ["eth0"])
    assert found["processes"][0]["container"]["name"] == "spy"
    assert seen.devices["eth0"]["unexplained"] is False


def test_tcpdump_in_a_container_on_the_hosts_network(host: Lab) -> None:
    with (
        a_container(host, "overheard") as veth,
        sniffing_container(host, "spy", "--network", "host", device=veth) as pid,
    ):
        seen = swept(host)
    found = seen.of(pid)
    assert found["namespace"]["kind"] == "host"
    assert (found["device"], found["processes"][0]["container"]["name"]) == (veth, "spy")
    assert seen.devices[veth]["least"] == seen.devices[veth]["promiscuity"] == 2


def test_tcpdump_of_the_host_in_a_containers_namespace(host: Lab) -> None:
    """No process of the container, and not in the host's namespace either."""
    with a_container(host, "victim"):
        command = ["nsenter", "-t", str(pid_of(host, "victim")), "-n"]
        process = host.popen(
            *command, "tcpdump", "-i", "eth0", "-Z", "root", "-w", "/dev/null", stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            while b"listening on" not in process.stderr.readline():
                assert process.poll() is None
            seen = swept(host)
        finally:
            process.terminate()
            process.communicate()
    found = seen.of(process.pid)
    assert found["namespace"]["containers"][0]["name"] == "victim"
    assert found["processes"][0]["container"] is None


@pytest.mark.parametrize("mode", ["passthru", "bridge"])
def test_dockers_macvlan_explains_its_parent(host: Lab, mode: str) -> None:
    with (
        a_veth(host, "nic0") as parent,
        a_network(host, "lan", "-d", "macvlan", "-o", f"parent={parent}", "-o", f"macvlan_mode={mode}"),
    ):
        host.run("ip", "link", "set", parent, "up")
        try:
            start(host, "direct", "--network", "lan")
            seen = swept(host)
        finally:
            host.remove("direct")
    device = seen.devices[parent]
    assert (device["promiscuity"], device["unexplained"]) == (1, False)
    assert any("of container direct, which stands on it" in each["text"] for each in device["holders"])
    assert seen.unexplained == []


def test_promisc_on_is_somebody_unexplained(host: Lab) -> None:
    with a_veth(host, "byhand0") as veth:
        host.run("ip", "link", "set", veth, "promisc", "on")
        seen = swept(host)
    assert seen.status == 11
    assert [each["device"] for each in seen.unexplained] == [veth]


def test_the_engine_need_not_answer(host: Lab) -> None:
    with sniffing_container(host, "spy") as pid:
        command = program("sniffers", "--format", "jsonl", "--docker-host", "unix:///nonexistent.sock")
        done = subprocess.run(
            host.inside(*command),
            check=False,
            capture_output=True,
            text=True,
            env=program_environment(),
            timeout=60,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
        identity = host.inspect("spy", "{{.Id}}")
    (found,) = [
        each
        for each in lines
        if each["schema"] == "verify-audit.listener/1" and pid in [one["pid"] for one in each["processes"]]
    ]
    assert done.returncode == 11
    assert found["namespace"]["containers"] == [{"id": identity, "name": identity[:12]}]
    assert "containers go by their ids" in done.stderr


def test_a_listener_is_a_warning_on_a_confirmed_event(host: Lab) -> None:
    """Docker attached the device, and somebody has listened on it since, of whom the log has nothing."""
    with (
        host.turn,
        host.stretch() as stretch,
        a_container(host, "web") as veth,
        host.sniffer("-i", veth, "-Z", "root") as process,
        host.sniffer("-p", "-i", "any", "-Z", "root") as other,
    ):
        host.extend(stretch)
        (event,) = [each for each in stretch.events if veth in str(each)]
        (finding,) = host.judge([event]).of(event)
    assert finding["verdict"] == "confirmed"
    warnings = " ".join(finding["warnings"])
    for pid in (process.pid, other.pid):
        assert f"/usr/bin/tcpdump (pid {pid}, uid 0) listens now on" in warnings
    assert "which the audit log does not show" in warnings
