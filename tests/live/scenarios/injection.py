"""Names that imitate what stands beside them: fields, records, what a terminal obeys.

As hostile as kernel and engine let them be. The kernel takes any byte in a device's name but blanks, `/`, `:` and
NUL (net/core/dev.c dev_valid_name()), in a table's and a chain's name any but NUL; the engine takes anything for a
label, and before 26 for a network's name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.live.lab import Lab, installed
from tests.live.play import (
    INCONCLUSIVE,
    REFUTED,
    Expected,
    Steps,
    a_container,
    a_veth,
    attack_on_link,
    attack_on_rules,
    docker_port,
    docker_rules,
    scenario,
    start,
)
from tests.live.scenarios.on_firewall import new_table

DEVICES = (
    b"v\x1b[2Jprom=0",
    b"a\x1dUID=0",
    b'b\x1dUID="root"',
    b"v\xe2\x80\xaegnp.exe",
    b"v\xff\x9b2J",
    b"v\x1b]0;x\x07",
    b"v'$(id)`id`;#",
    b"[red]\\x1b[b]",
)
"""The separator of enriched records, quotes, terminal codes, what turns the direction of writing, bytes that are no
UTF-8, a shell's and rich's words."""


def _said(name: bytes) -> str:
    """A name as reports and the suite's own reader have it."""
    return name.decode("utf-8", "backslashreplace")


@contextmanager
def _a_device(lab: Lab, name: bytes, peer: str = "other0") -> Iterator[str]:
    """A veth of that name."""
    lab.adopt(_said(name))
    with a_veth(lab, os.fsdecode(name), peer) as device:
        yield device


@scenario("devices whose names imitate fields, the separator and terminal codes")
def hostile_devices(lab: Lab) -> Steps:
    with ExitStack() as stack:
        names = [
            stack.enter_context(_a_device(lab, name, f"other{number}")) for number, name in enumerate(DEVICES)
        ]
        yield ()
        for name in names:
            lab.run("ip", "link", "set", name, "promisc", "on")
        yield [attack_on_link("enter by hand", re.escape(_said(name)), command="ip") for name in DEVICES]


@scenario("programs whose names imitate fields and lines")
def hostile_programs(lab: Lab) -> Steps:
    names = (
        "dockerd (deleted)",
        'dockerd" exe="dockerd" key=(null)',
        "x\ntype=EOE msg=audit(1.000:1): ",
        "\x1b[2J\x1b[32mCONFIRMED",
    )
    programs = [lab.directory / f"{name} dir" / name for name in names]
    for program in programs:
        program.parent.mkdir(exist_ok=True)
        shutil.copy2(installed("ip"), program)
    with ExitStack() as stack:
        devices = [f"odd{number}" for number in range(len(programs))]
        for device in devices:
            stack.enter_context(a_veth(lab, device))
        yield ()
        for program, device in zip(programs, devices, strict=True):
            lab.run(program, "link", "set", device, "promisc", "on")
        yield [attack_on_link("enter by the program", device) for device in devices]


_RECORD = "type=NETFILTER_CFG msg=audit(1795436137.259:6): table=nat:2 family=2 entries=2 op=nft_register_rule pid=1"
RECORDS = (f'{_RECORD} comm="iptables"', f'x\n{_RECORD} comm="iptables"', "x\x1dAUID=0 \x1b[2J\r\u202e")


def _table(name: str) -> Expected:
    """auditd writes a blank for the end of a line."""
    said = re.escape(name.replace("\n", " "))
    return attack_on_rules("the table", said, command="python.*", bare=REFUTED | INCONCLUSIVE)


@scenario("nft tables named like whole records")
def hostile_tables(lab: Lab) -> Steps:
    yield ()
    with ExitStack() as stack:
        for name in RECORDS:
            new_table(lab, "add", name)
            stack.callback(new_table, lab, "delete", name)
        yield [_table(name) for name in RECORDS]


@scenario("an nft table named like a whole record in an unprivileged namespace")
def hostile_table_elsewhere(lab: Lab) -> Steps:
    yield ()
    new_table(lab, "add", RECORDS[1], "unshare", "--user", "--map-root-user", "--net")
    yield [_table(RECORDS[1])]


@scenario("a chain and a comment with terminal codes")
def hostile_chain(lab: Lab) -> Steps:
    chain = "DOCKER\x1b[32m\u202eX"
    rule = (
        "-s",
        "203.0.113.9",
        "-m",
        "comment",
        "--comment",
        "\x1b]8;;x\x1b\\\n CONFIRMED \x9b2J",
        "-j",
        "ACCEPT",
    )
    yield ()
    lab.iptables("-N", chain)
    try:
        lab.iptables("-A", chain, *rule)
        lab.iptables("-I", "DOCKER-USER", *rule)
        yield [attack_on_rules("chain and rules", command="iptables", bare=REFUTED, least=3)]
    finally:
        lab.iptables("-D", "DOCKER-USER", *rule, check=False)
        lab.iptables("-F", chain, check=False)
        lab.iptables("-X", chain, check=False)


@scenario("a container whose labels and network are named like records")
def hostile_container(lab: Lab) -> Steps:
    name = "evil\x1b[2J\n \u202e[bold]prom=0" if lab.engine_version < (26,) else "evil.prom_0"
    labels = {
        "com.docker.network.bridge.name": "docker0",
        'x"}],"verdict":"refuted': "\x1b]0;x\x07",
        "type=ANOM_PROMISCUOUS": "msg=audit(1.000:1): dev=eth0 prom=256 old_prom=0\n\u202e\x9b",
    }
    network = lab.docker("network", "create", name)
    try:
        yield ()
        try:
            options = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
            start(lab, "prom-0_old_prom.256", *options, "--hostname", "dockerd", "--network", network)
            yield [
                docker_port(
                    lab.veth_of("prom-0_old_prom.256"),
                    "prom-0_old_prom.256",
                    network=name,
                    bridge=f"br-{network[:12]}",
                ),
                docker_rules("the rules for names"),
            ]
        finally:
            lab.remove("prom-0_old_prom.256")
    finally:
        lab.docker("network", "rm", network, check=False)


@contextmanager
def _a_dead_veth(lab: Lab, container: str) -> Iterator[str]:
    """The name that a container's interface had; both are gone."""
    with a_container(lab, container) as veth:
        pass
    yield veth


@scenario("another name like that of a dead container's interface")
def altname(lab: Lab) -> Steps:
    with _a_dead_veth(lab, "departed") as veth, a_veth(lab, "living0"):
        lab.run("ip", "link", "property", "add", "dev", "living0", "altname", veth)
        yield ()
        lab.run("ip", "link", "set", veth, "promisc", "on")
        yield [attack_on_link("enter by hand", "living0", command="ip")]


@scenario("renamed to the name of a dead container's interface")
def heir(lab: Lab) -> Steps:
    with _a_dead_veth(lab, "bequeather") as veth, a_veth(lab, "heir0"):
        lab.run("ip", "link", "set", "heir0", "name", veth)
        try:
            yield ()
            lab.run("ip", "link", "set", veth, "master", "docker0")
            yield [attack_on_link("enter by hand", veth, command="ip")]
        finally:
            lab.run("ip", "link", "del", veth, check=False)
