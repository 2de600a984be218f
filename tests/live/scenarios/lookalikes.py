"""Other software that does what Docker does: bridges, veths, promiscuous devices, rules.

Each runs for real, in the foreground, in the lab's network namespace, and in a mount namespace where what it writes to
/etc, /var and /run is its own and gone with it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.live.auditlog import wait_until
from tests.live.lab import Lab, end
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    REFUTED,
    Steps,
    a_container,
    a_network,
    a_veth,
    attack_on_link,
    attack_on_rules,
    docker_port,
    docker_rules,
    scenario,
    start,
)

# $1 is an empty directory. /sys is made anew, to show the interfaces of the lab's namespace; the cgroups are as they
# were.
_OWN_FILES = """
set -e
mount -t tmpfs own "$1"
mkdir "$1/cgroup"
for each in etc var; do
    mkdir "$1/$each" "$1/$each.work"
    mount -t overlay -o "lowerdir=/$each,upperdir=$1/$each,workdir=$1/$each.work" overlay "/$each"
done
mount -t tmpfs run /run
mkdir /run/lock /run/netns
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$1/cgroup" /sys/fs/cgroup
touch "$1/ready"
exec sleep 1000
"""


class Own:
    """A mount namespace in which /etc, /var and /run can be written to, and are the machine's again at its end."""

    def __init__(self, lab: Lab, keeper: subprocess.Popen[bytes]) -> None:
        self._lab = lab
        self.started: list[subprocess.Popen[bytes]] = []
        self._enter = ("nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt")

    def run(self, *command: str | Path, check: bool = True) -> str:
        """Run a command there; its output."""
        return self._lab.run(*self._enter, *command, check=check)

    def popen(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a command there; what it writes is in the lab's directory."""
        with (self._lab.directory / "others.log").open("ab") as out:
            self.started.append(self._lab.popen(*self._enter, *command, stdout=out, stderr=out))
        return self.started[-1]

    def answers(self, *command: str | Path) -> bool:
        """Whether a command ends well there."""
        inside = self._lab.inside(*self._enter, *command)
        return not subprocess.run(
            inside, check=False, capture_output=True, env=self._lab.environment
        ).returncode


@contextmanager
def own_files(lab: Lab) -> Iterator[Own]:
    """Such a mount namespace; what was started in it is ended with it."""
    directory = lab.directory / "own"
    directory.mkdir()
    before, groups = lab.kin.living(), _groups()
    keeper = lab.popen(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_FILES, "sh", directory
    )
    own = Own(lab, keeper)
    ready = Path(f"/proc/{keeper.pid}/root", *directory.parts[1:], "ready")
    try:
        wait_until(lambda: keeper.poll() is not None or ready.exists(), "files of one's own")
        yield own
    finally:
        end(keeper)
        lab.end_all(lab.kin.living() - before)
        for process in own.started:
            process.wait(10)
        for left in sorted(_groups() - groups, reverse=True):
            with contextlib.suppress(OSError):
                left.rmdir()
        shutil.rmtree(directory)


def _groups() -> set[Path]:
    """The cgroups of LXC and podman, which neither removes."""
    every = Path("/sys/fs/cgroup")
    parents = {*every.glob("**/lxc.*/"), *every.glob("**/libpod_parent/")}
    return {path for parent in parents for path in (parent, *parent.glob("**/"))}


def small_root(lab: Lab) -> Path:
    """A root directory with nothing but busybox and an os-release."""
    root = lab.directory / "small"
    if not root.exists():
        for name in ("bin", "proc", "sys", "dev", "etc", "usr", "tmp", "run", "var"):
            (root / name).mkdir(parents=True)
        for each in (lab.tools / "bin").iterdir():
            shutil.copy2(each, root / "bin" / each.name, follow_symlinks=False)
        (root / "etc/os-release").touch()
    return root


# Software with bridges and containers of its own


_NETWORK = """
<network>
  <name>guests</name><forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>
"""


@scenario("libvirt starts a network", needs=("libvirtd", "virsh", "dnsmasq"), everywhere=False)
def libvirt_network(lab: Lab) -> Steps:
    drivers = lab.directory / "libvirt-drivers"
    drivers.mkdir(exist_ok=True)
    for module in Path("/usr/lib").glob("*/libvirt/connection-driver/libvirt_driver_network.so"):
        with contextlib.suppress(FileExistsError):
            (drivers / module.name).symlink_to(module)
    (lab.directory / "network.xml").write_text(_NETWORK)
    with own_files(lab) as own:
        own.run("mkdir", "/run/libvirt")
        daemon = own.popen("env", f"LIBVIRT_DRIVER_DIR={drivers}", "libvirtd")
        virsh = ("virsh", "--connect", "network:///system")
        wait_until(partial(own.answers, *virsh, "net-list"), "libvirtd to answer")
        yield ()
        try:
            own.run(*virsh, "net-create", lab.directory / "network.xml")
            yield [
                attack_on_rules(
                    *("libvirt's rules", "filter|nat|mangle"),
                    command="ip6?tables",
                    least=20,
                    looks_like="libvirt",
                ),
            ]
        finally:
            own.run(*virsh, "net-destroy", "guests", check=False)
            end(daemon)


@scenario("a tap of a virtual machine on virbr0", everywhere=False)
def tap_on_bridge(lab: Lab) -> Steps:
    with a_bridge(lab, "virbr0"):
        lab.run("ip", "tuntap", "add", "vnet0", "mode", "tap")
        try:
            yield ()
            lab.run("ip", "link", "set", "vnet0", "master", "virbr0")
            yield [attack_on_link("enter by hand", "vnet0", command="ip", looks_like="libvirt")]
        finally:
            lab.run("ip", "link", "del", "vnet0", check=False)


@contextmanager
def a_bridge(lab: Lab, name: str) -> Iterator[str]:
    """A bridge made by hand."""
    lab.run("ip", "link", "add", name, "type", "bridge")
    try:
        yield name
    finally:
        lab.run("ip", "link", "del", name, check=False)


_LXC = """
lxc.uts.name = guest
lxc.rootfs.path = dir:{root}
lxc.net.0.type = veth
lxc.net.0.link = lxcbr0
lxc.net.0.flags = up
lxc.apparmor.profile = unconfined
lxc.cgroup.relative = 1
"""


@scenario("a container of LXC", needs=("lxc-start", "dnsmasq"), everywhere=False)
def lxc_container(lab: Lab) -> Steps:
    conf = lab.directory / "lxc.conf"
    conf.write_text(_LXC.format(root=small_root(lab)))
    name = lab.name
    with own_files(lab) as own:
        own.run("mkdir", "/run/lxc")
        yield ()
        try:
            own.run("/usr/libexec/lxc/lxc-net", "start")
            own.popen("lxc-start", "-n", name, "-f", conf, "-F", "--", "/bin/sleep", "1000")
            wait_until(lambda: any(_is_port(link, "lxcbr0") for link in lab.links().values()), "LXC's veth")
            yield [
                attack_on_link("enter by LXC", r"veth\w{6}", command="lxc-start", looks_like="LXC"),
                attack_on_rules("lxc-net's tables", "lxc", command="nft", bare=REFUTED, looks_like="LXC"),
            ]
        finally:
            own.run("/usr/libexec/lxc/lxc-net", "stop", check=False)


def _is_port(link: dict[str, object], bridge: str) -> bool:
    return link.get("master") == bridge


@contextmanager
def podman(lab: Lab, backend: str) -> Iterator[tuple[Own, tuple[str, ...]]]:
    """podman with an image."""
    conf = lab.directory / "containers.conf"
    conf.write_text(f'[network]\nnetwork_backend = "{backend}"\n')
    command = (
        *(
            "env",
            "-u",
            "DOCKER_CONFIG",
            f"CONTAINERS_CONF={conf}",
            "podman",
            "--cgroup-manager=cgroupfs",
            "--storage-driver=vfs",
        ),
        *("--events-backend=file", "--tmpdir=/run/podman"),
    )
    archive = lab.directory / "podman.tar"
    subprocess.run(["tar", "-C", small_root(lab), "-cf", archive, "."], check=True)
    with own_files(lab) as own:
        own.run(*command, "import", archive, "busybox:pod")
        try:
            yield own, command
        finally:
            own.run(*command, "rm", "-f", "-t", "0", "-a", check=False)


_PODMAN_RUN = (
    *("run", "-d", "-p", "18190:80", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
    *("busybox:pod", "/bin/sleep", "1000"),
)


@scenario("podman run -p, networks by CNI", needs=("podman", "runc"), everywhere=False)
def podman_cni(lab: Lab) -> Steps:
    with podman(lab, "cni") as (own, command):
        yield ()
        own.run(*command, *_PODMAN_RUN)
        yield [
            attack_on_link("enter by CNI", r"veth[0-9a-f]{8}", command="bridge", looks_like="a CNI plugin"),
            attack_on_rules(
                *("CNI's rules", "filter|nat|mangle"),
                command="ip6?tables.*",
                least=5,
                looks_like="a CNI plugin",
            ),
        ]


@scenario(
    "podman run -p, networks by netavark",
    needs=("podman", "runc", "/usr/lib/podman/netavark"),
    everywhere=False,
)
def podman_netavark(lab: Lab) -> Steps:
    with podman(lab, "netavark") as (own, command):
        yield ()
        own.run(*command, *_PODMAN_RUN)
        yield [
            attack_on_link(
                "enter by netavark", r"veth\d+", command="netavark", looks_like="podman's netavark"
            ),
            attack_on_rules(
                "netavark's rules",
                "filter|nat|mangle",
                command="ip6?tables.*",
                least=3,
                looks_like="podman's netavark",
            ),
        ]


@scenario("systemd-nspawn on a bridge", needs=("systemd-nspawn",), everywhere=False)
def nspawn(lab: Lab) -> Steps:
    with a_bridge(lab, "br9"), own_files(lab) as own:
        yield ()
        own.popen(
            *(
                "systemd-nspawn",
                "--register=no",
                "--keep-unit",
                "--network-bridge=br9",
                f"--machine={lab.name}",
            ),
            *("-D", small_root(lab), "/bin/sleep", "1000"),
        )
        wait_until(lambda: any(_is_port(link, "br9") for link in lab.links().values()), "nspawn's veth")
        yield [
            attack_on_link("enter by nspawn", "vb-.*", command="systemd-nspawn", looks_like="systemd-nspawn")
        ]


@scenario("ufw enabled, a port allowed, reloaded", needs=("ufw",), everywhere=False)
def ufw(lab: Lab) -> Steps:
    with own_files(lab) as own:
        yield ()
        try:
            own.run("ufw", "--force", "enable")
            own.run("ufw", "allow", "8080/tcp")
            own.run("ufw", "reload")
            yield [
                # Docker too sets that policy, and sets it back when it cannot go on.
                attack_on_rules(
                    *("the policy", "filter"),
                    title=".*-P FORWARD.*",
                    least=0,
                    verdict=REFUTED | INCONCLUSIVE,
                ),
                attack_on_rules(
                    "rules",
                    "filter",
                    command="ip6?tables",
                    title=".* ufw6?-.*",
                    least=0 if lab.bare else 5,
                    looks_like="ufw",
                ),
                attack_on_rules("whole tables", "filter|nat|mangle", command="ip6?tables.*", least=0),
            ]
        finally:
            own.run("ufw", "--force", "disable", check=False)
            for family in ("iptables", "ip6tables"):
                for line in lab.run(family, "-S", check=False).splitlines():
                    if " -j ufw" in line and not line.startswith("-A ufw"):
                        lab.run(family, "-D", *line.split()[1:], check=False)
                names = re.findall(r"^-N (ufw\S*)", lab.run(family, "-S", check=False), re.MULTILINE)
                for action in ("-F", "-X"):
                    for name in names:
                        lab.run(family, action, name, check=False)
                lab.run(family, "-P", "INPUT", "ACCEPT", check=False)
                lab.run(family, "-P", "OUTPUT", "ACCEPT", check=False)


# Docker's own, on a physical device


@contextmanager
def a_parent(lab: Lab) -> Iterator[str]:
    """A device that stands for a network card."""
    with a_veth(lab, "card0", "wire0"):
        lab.run("ip", "link", "set", "card0", "up")
        lab.run("ip", "link", "set", "wire0", "up")
        yield "card0"


def _on_parent(lab: Lab, *options: str) -> Steps:
    with (
        a_parent(lab) as parent,
        a_network(lab, "outside", "-d", "macvlan", "-o", f"parent={parent}", *options),
    ):
        yield ()
        try:
            start(lab, "outsider", "--network", "outside")
            yield [
                docker_port(parent, "outsider", network="outside", bridge=""),
                docker_rules("the rules for names, in the container"),
            ]
        finally:
            lab.remove("outsider")


@scenario("a macvlan network of Docker's, passthru", everywhere=False)
def macvlan_passthru(lab: Lab) -> Steps:
    yield from _on_parent(lab, "-o", "macvlan_mode=passthru")


@scenario("a macvlan network of Docker's, bridge mode", everywhere=False)
def macvlan_bridge(lab: Lab) -> Steps:
    yield from _on_parent(lab)


@scenario("network connect to a macvlan network", everywhere=False)
def macvlan_connect(lab: Lab) -> Steps:
    with (
        a_parent(lab) as parent,
        a_network(lab, "outside", "-d", "macvlan", "-o", f"parent={parent}"),
        a_container(lab, "outgoing"),
    ):
        yield ()
        lab.docker("network", "connect", "outside", "outgoing")
        yield [
            docker_port(parent, "outgoing", network="outside", bridge=""),
            docker_rules("the rules for names, in the container"),
        ]


@scenario("a container of a macvlan network stopped", everywhere=False)
def macvlan_stop(lab: Lab) -> Steps:
    with a_parent(lab) as parent, a_network(lab, "outside", "-d", "macvlan", "-o", f"parent={parent}"):
        yield ()
        start(lab, "outsider", "--network", "outside")
        lab.remove("outsider")
        yield [
            docker_port(parent, None, network="outside", bridge="", bare=CONFIRMED | INCONCLUSIVE),
            docker_port(
                *(parent, "outsider"),
                network="outside",
                bridge="",
                enters=False,
                verdict=CONFIRMED | INCONCLUSIVE,
                bare=CONFIRMED | INCONCLUSIVE,
            ),
            docker_rules("the rules for names, in the container", verdict=CONFIRMED | INCONCLUSIVE),
        ]


@scenario("tcpdump on the parent of Docker's macvlan network", everywhere=False)
def sniffer_on_parent(lab: Lab) -> Steps:
    with a_parent(lab) as parent, a_network(lab, "outside", "-d", "macvlan", "-o", f"parent={parent}"):
        yield ()
        with lab.sniffer("-i", parent, "-Z", "root"):
            yield [attack_on_link("enter by tcpdump", parent, command="tcpdump", looks_like="tcpdump")]


@scenario("a hand-made veth on a bridge of one's own", everywhere=False)
def bridge_by_hand(lab: Lab) -> Steps:
    with a_bridge(lab, "br-0123456789ab") as bridge, a_veth(lab, "veth4567890") as veth:
        yield ()
        lab.run("ip", "link", "set", veth, "master", bridge)
        yield [attack_on_link("enter by hand", veth, command="ip")]
