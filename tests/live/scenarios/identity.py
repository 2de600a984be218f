"""Which process the engine is: others beside it, before it, or with its pid."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.live.auditlog import wait_until
from tests.live.lab import IMAGE, Lab, end
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    REFUTED,
    Expected,
    Steps,
    a_veth,
    attack_on_link,
    docker_port,
    docker_rules,
    scenario,
    start,
)

NEVER_CONFIRMED = REFUTED | INCONCLUSIVE
NEVER_REFUTED = CONFIRMED | INCONCLUSIVE


def load_image(lab: Lab, socket: Path) -> None:
    """Give another engine the image of the lab's."""
    archive = subprocess.run(["tar", "-C", lab.tools, "-c", "bin"], check=True, capture_output=True).stdout
    subprocess.run(
        ["docker", "-H", f"unix://{socket}", "import", "-", IMAGE],
        check=True,
        capture_output=True,
        input=archive,
        env=lab.environment,
    )


def await_answer(lab: Lab, socket: Path) -> None:
    """Return when an engine answers there."""

    def answers() -> bool:
        return bool(lab.docker("-H", f"unix://{socket}", "version", "-f", "{{.Server.Version}}", check=False))

    wait_until(answers, f"an engine to answer on {socket}", 60)


@contextmanager
def asking(lab: Lab, socket: Path) -> Iterator[None]:
    """Have the program ask there."""
    lab.asked = socket
    try:
        yield
    finally:
        lab.asked = lab.socket


def _a_directory(lab: Lab) -> Path:
    return Path(tempfile.mkdtemp(dir=lab.directory))


# Before the engine

# Runs a command, then passes on every byte between its socket and the engine's.
_RELAY = """
import contextlib, shlex, socket, subprocess, sys, threading
subprocess.run(shlex.split(sys.argv[3]), check=True)
def pass_on(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        near, far = listener.accept()[0], socket.socket(socket.AF_UNIX)
        far.connect(sys.argv[2])
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pass_on, args=pair, daemon=True).start()
"""


@scenario("asked through a proxy", everywhere=False)
def through_a_proxy(lab: Lab) -> Steps:
    """What it passes on is the engine's; which process that is, it hides. It may also act itself."""
    socket = lab.directory / "proxy.sock"
    with a_veth(lab, "veth4567890") as veth, asking(lab, socket):
        yield ()
        by_hand = shlex.join(["ip", "link", "set", veth, "master", "docker0"])
        relay = lab.popen(sys.executable, "-I", "-c", _RELAY, socket, lab.socket, by_hand)
        try:
            wait_until(socket.exists, "the proxy")
            start(lab, "behind")
            name = lab.veth_of("behind")
            yield [
                docker_port(name, "behind", verdict=INCONCLUSIVE, bare=INCONCLUSIVE),
                attack_on_link("by the proxy", veth, verdict=NEVER_CONFIRMED, bare=NEVER_CONFIRMED),
            ]
        finally:
            lab.remove("behind")
            end(relay)


# Beside the engine


@contextmanager
def another_engine(lab: Lab) -> Iterator[Path]:
    """A second one in the same namespace; gives its socket."""
    directory = _a_directory(lab)
    socket = directory / "docker.sock"
    with (directory / "log").open("wb") as out:
        engine = lab.popen(
            *("dockerd", f"--data-root={directory / 'data'}", f"--exec-root={directory / 'exec'}"),
            *(f"--pidfile={directory / 'docker.pid'}", f"--host=unix://{socket}", "--bridge=none"),
            stdout=out,
            stderr=out,
        )
    try:
        await_answer(lab, socket)
        load_image(lab, socket)
        yield socket
    finally:
        client = ("-H", f"unix://{socket}")
        lab.docker(*client, "rm", "-f", "-v", "theirs", check=False)
        lab.docker(*client, "network", "rm", "others", check=False)
        end(engine)
        # It has flushed and made anew the chains that both use.
        lab.stop_engine()
        lab.start_engine()


def _its_work(lab: Lab, socket: Path) -> tuple[str, str]:
    """Have it make a network and a container there; the interface and the bridge."""
    client = ("-H", f"unix://{socket}")
    lab.docker(*client, "network", "create", "others")
    bridge = f"br-{lab.docker(*client, 'network', 'inspect', '-f', '{{.Id}}', 'others')[:12]}"
    lab.docker(
        *client,
        "run",
        "-d",
        "--name",
        "theirs",
        "--network",
        "others",
        "-p",
        "18092:92",
        IMAGE,
        "sleep",
        "1000",
    )
    (veth,) = (name for name, link in lab.links().items() if link.get("master") == bridge)
    return veth, bridge


@scenario("another engine on the same host", everywhere=False)
def beside_another_engine(lab: Lab) -> Steps:
    with another_engine(lab) as socket:
        yield ()
        veth, _ = _its_work(lab, socket)
        yield [
            attack_on_link(
                "enter by the other engine",
                veth,
                command="dockerd",
                cause="other-docker",
                bare=NEVER_CONFIRMED,
            ),
            _others_rules("the other engine's rules", NEVER_CONFIRMED, "other-docker"),
        ]


@scenario("another engine on the same host, asked itself", everywhere=False)
def another_engine_asked(lab: Lab) -> Steps:
    with another_engine(lab) as socket, asking(lab, socket):
        yield ()
        veth, bridge = _its_work(lab, socket)
        yield [
            docker_port(veth, "theirs", network="others", bridge=bridge, bare=NEVER_REFUTED),
            docker_rules("its rules", bare=NEVER_REFUTED),
        ]


def _others_rules(what: str, verdict: frozenset[str], cause: str | None = None) -> Expected:
    return Expected(
        what,
        verdict,
        NEVER_CONFIRMED,
        "firewall",
        table="nat|filter|raw",
        command="ip6?tables.*",
        cause=cause,
    )


_ROOTLESS = r"""
set -e
cd "$1"
mkdir run home
printf 'labuser:300000:65536\n' >sub
printf 'root:x:0:0:root:/root:/bin/sh\nlabuser:x:12345:12345::%s/home:/bin/sh\n' "$1" >passwd
mknod tun c 10 200
chmod 666 tun
chown 12345:12345 . run home
for each in subuid subgid; do mount --bind sub "/etc/$each"; done
mount --bind passwd /etc/passwd
mount --bind tun /dev/net/tun
exec setpriv --reuid 12345 --regid 12345 --clear-groups env HOME="$1/home" XDG_RUNTIME_DIR="$1/run" \
    rootlesskit --net=slirp4netns --mtu=65520 --slirp4netns-sandbox=false --slirp4netns-seccomp=false \
    --disable-host-loopback --port-driver=builtin --copy-up=/etc --copy-up=/run --propagation=rslave sh -c '
    rm -f /run/docker /run/containerd /run/xtables.lock
    exec dockerd --rootless --data-root "$1/data" --exec-root "$1/run/exec" --pidfile "$1/run/docker.pid" \
        --host "unix://$1/run/docker.sock" --storage-driver vfs' sh "$1"
"""


@contextmanager
def a_rootless_engine(lab: Lab) -> Iterator[Path]:
    """An engine of an ordinary user's, in namespaces of its own; gives its socket."""
    directory = _a_directory(lab)
    with directory.with_suffix(".log").open("wb") as out:
        engine = lab.popen(
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _ROOTLESS, "sh", directory),
            stdout=out,
            stderr=out,
        )
    socket = directory / "run/docker.sock"
    try:
        await_answer(lab, socket)
        load_image(lab, socket)
        yield socket
    finally:
        lab.docker("-H", f"unix://{socket}", "rm", "-f", "-v", "theirs", check=False)
        end(engine)


def _rootless_work(lab: Lab, socket: Path) -> str:
    """Have it run a container with a port; the interface."""
    client = ("-H", f"unix://{socket}")
    lab.docker(*client, "run", "-d", "--name", "theirs", "-p", "18093:93", IMAGE, "sleep", "1000")
    pid = (socket.parent / "docker.pid").read_text().strip()
    names = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-o", "link", "show", "type", "veth"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    veth = names.split(": ")[1].partition("@")[0]
    lab.adopt(veth)
    return veth


_ROOTLESS_NEEDS = ("rootlesskit", "slirp4netns", "newuidmap")


@scenario("a rootless engine beside the engine", needs=_ROOTLESS_NEEDS, everywhere=False)
def beside_rootless_engine(lab: Lab) -> Steps:
    with a_rootless_engine(lab) as socket:
        yield ()
        veth = _rootless_work(lab, socket)
        yield [
            attack_on_link(
                "enter by the rootless engine",
                veth,
                command="dockerd",
                cause="other-docker",
                bare=NEVER_CONFIRMED,
            ),
            _others_rules("the rootless engine's rules", REFUTED, "other-docker"),
        ]


@scenario("a rootless engine, asked itself", needs=_ROOTLESS_NEEDS, everywhere=False)
def rootless_engine_asked(lab: Lab) -> Steps:
    with a_rootless_engine(lab) as socket, asking(lab, socket):
        yield ()
        veth = _rootless_work(lab, socket)
        yield [
            docker_port(veth, "theirs", bare=NEVER_REFUTED),
            docker_rules("its rules", bare=NEVER_REFUTED),
        ]


_PODMAN_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
[network]
network_backend = "netavark"
network_config_dir = "{0}/networks"
"""


@contextmanager
def podman_on_a_socket(lab: Lab) -> Iterator[Path]:
    """Podman, which answers Docker's API there."""
    directory = _a_directory(lab)
    conf = directory / "containers.conf"
    conf.write_text(_PODMAN_CONF.format(directory))
    socket = directory / "podman.sock"
    with (directory / "log").open("wb") as out:
        service = lab.popen(
            *(
                "podman",
                f"--root={directory / 'root'}",
                f"--runroot={directory / 'run'}",
                "--storage-driver=vfs",
            ),
            *(f"--tmpdir={directory / 'tmp'}", "system", "service", "--time=0", f"unix://{socket}"),
            stdout=out,
            stderr=out,
            env=lab.environment | {"CONTAINERS_CONF": str(conf)},
        )
    try:
        await_answer(lab, socket)
        load_image(lab, socket)
        yield socket
    finally:
        lab.docker("-H", f"unix://{socket}", "rm", "-f", "theirs", check=False)
        end(service)
        lab.run("ip", "link", "del", "podman0", check=False)


_PODMAN_NEEDS = ("podman", "/usr/lib/podman/netavark")


def _podmans(bare: frozenset[str], verdict: frozenset[str]) -> Sequence[Expected]:
    return [
        Expected(
            "podman's interface", verdict, bare, "promiscuous", device="veth.*", enters=True, cause="process"
        ),
        Expected("podman's rules", NEVER_CONFIRMED, bare, "firewall"),
    ]


@scenario("podman on a socket of its own", needs=_PODMAN_NEEDS, everywhere=False)
def beside_podman(lab: Lab) -> Steps:
    with podman_on_a_socket(lab) as socket:
        yield ()
        lab.docker(
            "-H",
            f"unix://{socket}",
            "run",
            "-d",
            "--name",
            "theirs",
            "-p",
            "18094:94",
            IMAGE,
            "sleep",
            "1000",
        )
        yield _podmans(NEVER_CONFIRMED, REFUTED)


@scenario("podman on the socket that is asked", needs=_PODMAN_NEEDS, everywhere=False)
def podman_asked(lab: Lab) -> Steps:
    """It did its own work, and not the engine's, of which nothing can be known by its socket."""
    with podman_on_a_socket(lab) as socket, asking(lab, socket):
        yield ()
        start(lab, "ours")
        try:
            name = lab.veth_of("ours")
            client = ("-H", f"unix://{socket}")
            lab.docker(*client, "run", "-d", "--name", "theirs", "-p", "18094:94", IMAGE, "sleep", "1000")
            yield [
                docker_port(name, "ours", verdict=INCONCLUSIVE, bare=INCONCLUSIVE),
                *_podmans(NEVER_CONFIRMED, NEVER_CONFIRMED),
            ]
        finally:
            lab.remove("ours")


# The same pid

# Starts a command with a pid that is free again (clone3(2), set_tid), and ends with it.
_WITH_PID = """
import ctypes, os, signal, struct, sys
wanted = (ctypes.c_int * 1)(int(sys.argv[1]))
arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
child = ctypes.CDLL(None).syscall(435, ctypes.c_char_p(arguments), len(arguments))
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
if child < 0:
    sys.exit("clone3 refused")
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
os.waitpid(child, 0)
"""


@scenario("the engine has the pid of who did it", needs_engine=False, everywhere=False)
def engine_with_that_pid(lab: Lab) -> Steps:
    lab.ensure_engine()
    with a_veth(lab, "veth5678901") as veth:
        lab.stop_engine()
        yield ()
        try:
            culprit = lab.popen("ip", "link", "set", veth, "master", "docker0")
            culprit.wait(10)
            acted = time.time()
            wait_until(lambda: time.time() - acted > 1.5, "some time to pass")
            lab.engine_starter = (sys.executable, "-I", "-c", _WITH_PID, str(culprit.pid))
            lab.start_engine()
            assert Path(f"/proc/{culprit.pid}/exe").readlink().name == "dockerd"
            yield [
                attack_on_link(
                    "enter by hand", veth, verdict=NEVER_CONFIRMED, bare=NEVER_CONFIRMED, command="ip"
                ),
                docker_rules("Docker's chains again", least=3, bare=NEVER_REFUTED),
            ]
        finally:
            lab.engine_starter = ()
            lab.stop_engine()
            lab.start_engine()


@scenario("engine restarted since, its containers left running", everywhere=False)
def live_restored(lab: Lab) -> Steps:
    lab.stop_engine()
    lab.engine_options = ("--live-restore",)
    try:
        lab.start_engine()
        yield ()
        start(lab, "survivor", "-p", "18096:96")
        veth = lab.veth_of("survivor")
        lab.stop_engine()
        lab.start_engine()
        yield [
            docker_port(veth, "survivor", verdict=CONFIRMED, bare=NEVER_REFUTED),
            docker_rules("the published port", least=3, verdict=NEVER_REFUTED, bare=NEVER_REFUTED),
        ]
    finally:
        lab.remove("survivor")
        lab.engine_options = ()
        lab.stop_engine()
        lab.start_engine()
