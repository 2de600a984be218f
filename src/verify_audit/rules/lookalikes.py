"""Which software something looks like, in plain words, for what is not Docker's or may not be.

By the process first: what acted and its ancestors, by their programs and cgroups; then by the names of chains, tables,
bridges and devices. All of these are names, which anybody may give: they are told as "looks like", and no verdict
ever hangs on them. Someone who calls his chain LIBVIRT_FWI is said to look like libvirt, and is not confirmed for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from verify_audit.findings.finding import Likeness
from verify_audit.host.facts import Process


class Signature(NamedTuple):
    """The names that a software goes by; each a regular expression for the whole name.

    programs: last part of the path of its executables, or of the script that an interpreter runs; with a "/" the whole
    path. units: parts of a cgroup's path. slaves: kinds of a master, as the kernel names them (IFLA_INFO_SLAVE_KIND).
    """

    software: str
    source: str
    programs: str = ""
    units: str = ""
    chains: str = ""
    tables: str = ""
    bridges: str = ""
    devices: str = ""
    slaves: str = ""


SIGNATURES = (
    Signature(
        "libvirt",
        "libvirt: src/network/network_iptables.c, network_nftables.c, src/nwfilter/nwfilter_ebiptables_driver.c; "
        "src/util/virnetdevtap.h",
        programs="libvirtd|virt(qemu|lxc|network|nwfilter)d|libvirt_lxc",
        units=r"(libvirtd|virt(qemu|lxc|network|nwfilter)d)\.service",
        chains=r"LIBVIRT_.+|(FI|FO|HI|FJ|HJ)-vnet\d+",
        tables="libvirt_network",
        bridges=r"virbr\d+",
        devices=r"vnet\d+|virbr\d+(-nic)?",
    ),
    Signature(
        "Proxmox VE",
        "pve-common: src/PVE/Network.pm; pve-firewall: src/PVE/Firewall.pm",
        programs="pvedaemon|pve-firewall|proxmox-firewall|qm|pct|pve-bridge|lxc-pve-.+",
        chains="PVEFW-.+",
        tables="proxmox-firewall(-guests)?",
        bridges=r"vmbr\d+|fwbr\d+i\d+",
        devices=r"(tap|veth|fwbr|fwln)\d+i\d+|fwpr\d+p\d+|vmbr\d+",
    ),
    Signature(
        "podman's netavark",
        "netavark: src/firewall/iptables.rs, nft.rs; src/network/core_utils.rs",
        programs="netavark|aardvark-dns",
        chains="NETAVARK.*",
        tables="netavark",
        bridges=r"podman\d+",
        devices=r"podman\d+|veth\d{1,4}",
    ),
    Signature(
        "podman",
        "podman: libpod/networking_linux.go; containers-common: libnetwork/cni",
        programs="podman|conmon|crun",
        units=r"libpod(-conmon)?-.+\.scope|podman\.service",
        bridges=r"cni-podman\d+",
        devices=r"cni-podman\d+",
    ),
    Signature(
        "Kubernetes",
        "kubernetes: pkg/proxy; flannel: pkg/trafficmngr; calico: felix/rules; cilium: pkg/datapath/iptables",
        programs="kubelet|kube-proxy|k3s.*|rke2|microk8s|flanneld|calico-node|cilium-agent|kube-router",
        units=r"(kubelet|k3s|rke2-.+)\.service|kubepods.*",
        chains="KUBE-.+|FLANNEL-.+|cali-.+|CILIUM_.+",
        tables="kube-proxy|calico|flannel-ipv[46]",
        bridges="cni0|cbr0|kube-bridge",
        devices=r"cali[0-9a-f]{11}|flannel\.\d+|cilium_\w+|lxc[0-9a-f]{12,}|lxc_health|cni0|kube-ipvs0",
    ),
    Signature(
        "a CNI plugin",
        "containernetworking/plugins: pkg/ip/link_linux.go, plugins/meta/portmap, pkg/utils",
        programs=r"/.*/cni/(bin/)?[\w-]+|nerdctl",
        chains="CNI-.+",
        tables="cni_hostport|cni_plugins_masquerade",
        bridges=r"nerdctl\d+",
        devices=r"veth[0-9a-f]{8}|nerdctl\d+",
    ),
    Signature(
        "Incus",
        "incus: internal/server/firewall/drivers/drivers_nftables.go",
        programs="incusd?|incus-agent",
        units=r"incus\.service",
        tables="incus",
        bridges=r"incusbr\d+",
        devices=r"incusbr\d+",
    ),
    Signature(
        "LXD",
        "lxd: lxd/firewall/drivers/drivers_nftables.go, drivers_xtables.go",
        programs="lxd",
        units=r"(snap\.)?lxd(\.daemon)?\.service",
        chains="lxd_.+",
        tables="lxd",
        bridges=r"lxdbr\d+",
        devices=r"lxdbr\d+",
    ),
    Signature(
        "LXC",
        "lxc: config/init/common/lxc-net.in; src/lxc/network.c",
        programs="lxc-(start|execute|autostart|net|user-nic|containers)",
        units=r"lxc\.(monitor|payload)\..+|lxc(-net)?\.service",
        tables="lxc",
        bridges=r"lxcbr\d+",
        devices=r"lxcbr\d+|veth[0-9A-Za-z]{6}",
    ),
    Signature(
        "systemd-nspawn",
        "systemd: src/nspawn/nspawn-network.c",
        programs="systemd-nspawn",
        units=r"systemd-nspawn@.+\.service|machine-.+\.scope",
        devices="(ve|vb|vz)-.+",
        bridges="vz-.+",
    ),
    Signature(
        "systemd-networkd",
        "systemd: src/shared/firewall-util-nft.c",
        programs="systemd-networkd",
        units=r"systemd-networkd\.service",
        tables=r"io\.systemd\.nat",
    ),
    Signature(
        "firewalld",
        "firewalld: src/firewall/core/nftables.py, ipXtables.py, fw_direct.py",
        programs="firewalld|firewall-cmd",
        units=r"firewalld\.service",
        chains=r"(INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING)_(direct|ZONES|POLICIES_(pre|post))(_SOURCE)?"
        "|(IN|OUT|FWD[IO]?|PRE|POST)_.+_(log|deny|allow|pre|post)",
        tables="firewalld(_policy_drop)?",
    ),
    Signature(
        "ufw",
        "ufw: src/backend_iptables.py, conf/*.rules",
        programs="ufw|ufw-init",
        units=r"ufw\.service",
        chains="ufw6?-.+",
    ),
    Signature(
        "fail2ban",
        "fail2ban: config/action.d/iptables.conf, nftables.conf",
        programs="fail2ban-(server|client)",
        units=r"fail2ban\.service",
        chains="(f2b|fail2ban)-.+",
        tables="f2b-.+",
    ),
    Signature(
        "Tailscale",
        "tailscale: util/linuxfw",
        programs="tailscaled?",
        units=r"tailscaled\.service",
        chains="ts-.+",
        devices=r"tailscale\d+",
    ),
    Signature(
        "NetworkManager",
        "NetworkManager: src/core/nm-firewall-utils.c",
        programs="NetworkManager",
        units=r"NetworkManager\.service",
        chains="nm-sh-.+",
        tables="nm-shared-.+",
    ),
    Signature(
        "Open vSwitch",
        "linux: net/openvswitch/vport-netdev.c",
        programs="ovs-vswitchd|ovs-vsctl",
        bridges="ovs-system|br-int|br-tun|ovsbr.*",
        slaves="openvswitch",
    ),
    Signature("bonding", "linux: drivers/net/bonding/bond_main.c", programs="ifenslave", slaves="bond"),
    Signature("a team of devices", "linux: drivers/net/team", programs="teamd", slaves="team"),
    Signature(
        "VirtualBox",
        "VirtualBox: src/VBox/HostDrivers/VBoxNetFlt, VBoxNetAdp",
        programs="VBox(Headless|SVC|NetDHCP|NetAdpCtl)|VirtualBoxVM",
        devices=r"vboxnet\d+",
    ),
    Signature("VMware", "VMware Workstation: vmnet", programs="vmware-.+|vmnet-.+", devices=r"vmnet\d+"),
    Signature("QEMU", "qemu: net/tap-linux.c, qemu-bridge-helper.c", programs="qemu(-.+)?|kvm"),
    Signature("OpenVPN", "openvpn: src/openvpn/tun.c", programs="openvpn"),
    Signature("a tap device of QEMU or OpenVPN", "linux: drivers/net/tun.c", devices=r"tap\d+"),
    *(
        Signature(name, f"its program; {url}", programs=programs)
        for name, programs, url in (
            ("tcpdump", "tcpdump", "tcpdump.org"),
            ("Wireshark", "dumpcap|tshark|wireshark|rawshark", "wireshark.org"),
            ("Suricata", "suricata|Suricata-Main", "suricata.io"),
            ("Zeek", "zeek|bro", "zeek.org"),
            ("Snort", "snort3?", "snort.org"),
            ("arpwatch", "arpwatch", "ee.lbl.gov"),
            ("ntopng", "ntopng|nprobe", "ntop.org"),
            ("ettercap", "ettercap|bettercap", "ettercap-project.org"),
            (
                "a network monitor",
                "darkstat|iftop|nethogs|iptraf-ng|ngrep|netsniff-ng|arp-scan",
                "its own pages",
            ),
        )
    ),
)
"""In the order in which they are tried."""

_GROUP = re.compile(r"(?<!\\)\((?!\?)")

KINDS = ("chain", "table", "bridge", "device", "slave")
"""Kinds of names, the telling ones first."""


def look_alike(
    program: str, ancestors: Sequence[Process], names: Iterable[tuple[str, str]]
) -> Likeness | None:
    """What it looks like; None when it looks like nothing known.

    program: path of what acted, as the kernel recorded it, empty when it did not. ancestors: the process that acted, or
    its parent, and its living ancestors, nearest first. names: kind (of KINDS) and name of what it touched.
    """
    found = _software("program", _last(program)) if program else None
    if found:
        return Likeness(found, f"program {program}")
    for process in ancestors:
        likeness = _of_process(process)
        if likeness is not None:
            return likeness
    known = [(KINDS.index(kind), kind, name) for kind, name in names]
    for _, kind, name in sorted(known, key=lambda each: each[0]):
        found = _software(kind, name)
        if found:
            return Likeness(found, f"{kind if kind != 'slave' else 'slave of a'} {name}")
    return None


def _of_process(process: Process) -> Likeness | None:
    pid = process.identity.pid
    # An interpreter's own name says nothing: what it runs is in its arguments.
    for path in (process.exe, *process.argv[:3]):
        found = _software("program", _last(path)) if path else None
        if found:
            return Likeness(found, f"{path.rpartition('/')[2]}, pid {pid}" if path else "")
    for part in re.split(r"[/\n]", process.cgroup):
        found = _software("unit", part)
        if found:
            return Likeness(found, f"{part}, pid {pid}")
    return None


def _last(path: str) -> str:
    """The last part of a path; all of it for CNI's plugins, whose own names are common words."""
    return path if "/cni/" in path else path.rpartition("/")[2]


@lru_cache(maxsize=1024)
def _software(kind: str, name: str) -> str:
    match = _pattern(kind).fullmatch(name)
    return SIGNATURES[int(match.lastgroup[1:])].software if match and match.lastgroup else ""


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    """One pattern for all software, with a group for each, which are named by their place in SIGNATURES."""
    fields = {"program": "programs", "unit": "units"}
    parts = []
    for number, signature in enumerate(SIGNATURES):
        pattern = getattr(signature, fields.get(kind, f"{kind}s"))
        if pattern:
            # A group of its own would be the last group.
            pattern = _GROUP.sub("(?:", pattern)
            parts.append(f"(?P<n{number}>{pattern})")
    return re.compile("|".join(parts) or r"(?!)")
