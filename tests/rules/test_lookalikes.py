from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.made_up import process
from verify_audit.host.docker_layout import docker_chains
from verify_audit.rules.lookalikes import KINDS, SIGNATURES, Signature, look_alike

FIELDS = ("programs", "units", "chains", "tables", "bridges", "devices", "slaves")


@pytest.mark.parametrize(
    ("kind", "name", "software"),
    [
        ("chain", "LIBVIRT_FWI", "libvirt"),
        ("chain", "CNI-HOSTPORT-DNAT", "a CNI plugin"),
        ("chain", "NETAVARK_FORWARD", "podman's netavark"),
        ("chain", "KUBE-SERVICES", "Kubernetes"),
        ("chain", "cali-FORWARD", "Kubernetes"),
        ("chain", "ufw6-user-input", "ufw"),
        ("chain", "f2b-sshd", "fail2ban"),
        ("chain", "ts-forward", "Tailscale"),
        ("chain", "INPUT_direct", "firewalld"),
        ("table", "firewalld", "firewalld"),
        ("table", "io.systemd.nat", "systemd-networkd"),
        ("table", "nm-shared-eth1", "NetworkManager"),
        ("table", "lxc", "LXC"),
        ("table", "lxd", "LXD"),
        ("table", "incus", "Incus"),
        ("table", "netavark", "podman's netavark"),
        ("bridge", "virbr0", "libvirt"),
        ("bridge", "lxcbr0", "LXC"),
        ("bridge", "cni0", "Kubernetes"),
        ("bridge", "podman0", "podman's netavark"),
        ("bridge", "vmbr0", "Proxmox VE"),
        ("device", "vnet3", "libvirt"),
        ("device", "ve-web", "systemd-nspawn"),
        ("device", "vb-web", "systemd-nspawn"),
        ("device", "veth1a2B3c", "LXC"),
        ("device", "veth0123abcd", "a CNI plugin"),
        ("device", "veth0", "podman's netavark"),
        ("device", "cali0123456789a", "Kubernetes"),
        ("device", "tap101i0", "Proxmox VE"),
        ("device", "tap0", "a tap device of QEMU or OpenVPN"),
        ("slave", "bond", "bonding"),
    ],
)
def test_names_of_domain_knowledge(kind: str, name: str, software: str) -> None:
    likeness = look_alike("", (), [(kind, name)])
    assert likeness is not None
    assert likeness.software == software
    assert name in likeness.by


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("chain", chain) for _, chain in docker_chains("28.5.2")),
        *(
            ("chain", chain)
            for chain in ("FORWARD", "INPUT", "PREROUTING", "POSTROUTING", "OUTPUT", "ACCEPT")
        ),
        *(("table", table) for table in ("filter", "nat", "raw", "mangle", "docker-bridges")),
        *(("bridge", bridge) for bridge in ("docker0", "br-0123456789ab", "docker_gwbridge")),
        *(("device", device) for device in ("veth766e490", "veth1234567", "eth0", "docker0", "lo")),
        ("slave", "bridge"),
        ("slave", ""),
    ],
)
def test_what_is_dockers_or_anybodys_looks_like_nothing(kind: str, name: str) -> None:
    assert look_alike("", (), [(kind, name)]) is None


def test_the_program_goes_before_its_ancestors_and_these_before_names() -> None:
    ancestors = (process(20, comm="sh", exe="/bin/sh"), process(10, exe="/usr/sbin/libvirtd"))
    names = [("chain", "ufw-x")]
    assert str(look_alike("/usr/bin/tcpdump", ancestors, names)) == "tcpdump (program /usr/bin/tcpdump)"
    assert str(look_alike("/usr/sbin/xtables-nft-multi", ancestors, names)) == "libvirt (libvirtd, pid 10)"
    assert str(look_alike("/usr/sbin/xtables-nft-multi", (), names)) == "ufw (chain ufw-x)"
    assert look_alike("/usr/sbin/xtables-nft-multi", (), []) is None


def test_what_an_interpreter_runs_and_the_unit_it_is_in() -> None:
    script = process(
        7, exe="/usr/bin/python3.11", argv=("/usr/bin/python3", "/usr/sbin/firewalld", "--nofork")
    )
    assert str(look_alike("", (script,), [])) == "firewalld (firewalld, pid 7)"
    unit = process(8, exe="/usr/bin/x", cgroup="0::/system.slice/tailscaled.service")
    assert str(look_alike("", (unit,), [])) == "Tailscale (tailscaled.service, pid 8)"
    assert str(look_alike("/usr/lib/cni/bridge", (), [])).startswith("a CNI plugin")
    assert look_alike("/usr/sbin/bridge", (), []) is None


def test_the_telling_kinds_go_first() -> None:
    likeness = look_alike("", (), [("device", "veth0"), ("bridge", "virbr0")])
    assert likeness is not None
    assert likeness.software == "libvirt"


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda each: each.software)
def test_each_signature_names_something_and_its_source(signature: Signature) -> None:
    assert signature.source
    patterns = [getattr(signature, field) for field in FIELDS if getattr(signature, field)]
    assert patterns
    for pattern in patterns:
        re.compile(pattern)


@given(
    st.text(),
    st.lists(st.builds(lambda text: process(5, exe=text, argv=(text,), cgroup=text), st.text()), max_size=3),
    st.lists(st.tuples(st.sampled_from(KINDS), st.text()), max_size=4),
)
def test_any_text_is_taken(program: str, ancestors: list[object], names: list[tuple[str, str]]) -> None:
    look_alike(program, ancestors, names)  # type: ignore[arg-type]
