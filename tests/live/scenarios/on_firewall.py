"""The firewall, changed by somebody else."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from tests.live.lab import TOOLS, Lab
from tests.live.play import (
    INCONCLUSIVE,
    REFUTED,
    Steps,
    a_container,
    a_network,
    attack_on_rules,
    docker_port,
    docker_rules,
    scenario,
    start,
)


@scenario("a rule in DOCKER-USER")
def user_rule(lab: Lab) -> Steps:
    rule = ("DOCKER-USER", "-s", "203.0.113.9", "-j", "ACCEPT")
    yield ()
    lab.iptables("-I", *rule)
    try:
        # Bare, and soon after the engine's start, it may have been a part of that.
        yield [attack_on_rules("the rule", command="iptables")]
    finally:
        lab.iptables("-D", *rule)


@scenario("a rule in DOCKER for a real container")
def rule_for_container(lab: Lab) -> Steps:
    with a_container(lab, "opened"):
        address = lab.inspect("opened", "{{.NetworkSettings.IPAddress}}")
        rule = (
            "DOCKER",
            "-d",
            address,
            "!",
            "-i",
            "docker0",
            "-o",
            "docker0",
            "-p",
            "tcp",
            "--dport",
            "22",
            "-j",
            "ACCEPT",
        )
        yield ()
        lab.iptables("--wait", "-t", "filter", "-I", *rule)
        try:
            yield [attack_on_rules("the rule", command="iptables", bare=REFUTED)]
        finally:
            lab.iptables("-D", *rule)


@scenario("Docker's own rule a second time")
def docker_rule_again(lab: Lab) -> Steps:
    with a_container(lab, "doubled", "-p", "18085:85"):
        address = lab.inspect("doubled", "{{.NetworkSettings.IPAddress}}")
        rule = (
            "DOCKER",
            "!",
            "-i",
            "docker0",
            "-o",
            "docker0",
            "-p",
            "tcp",
            "-d",
            address,
            "--dport",
            "85",
            "-j",
            "ACCEPT",
        )
        yield ()
        lab.iptables("--wait", "-t", "filter", "-A", *rule)
        try:
            yield [attack_on_rules("the rule", command="iptables", bare=REFUTED)]
        finally:
            lab.iptables("-D", *rule)


@scenario("Docker's jump taken away")
def jump_deleted(lab: Lab) -> Steps:
    yield ()
    lab.iptables("-D", "FORWARD", "-j", "DOCKER-USER")
    try:
        # Where the old backend's jump still stands, none is missing.
        bare = REFUTED | INCONCLUSIVE if lab.backend == "both" else REFUTED
        yield [attack_on_rules("the deletion", command="iptables", bare=bare)]
    finally:
        lab.iptables("-I", "FORWARD", "-j", "DOCKER-USER")


@scenario("a chain named like Docker's")
def chain_by_hand(lab: Lab) -> Steps:
    yield ()
    lab.iptables("-N", "DOCKER-X")
    try:
        yield [attack_on_rules("the chain", command="iptables", bare=REFUTED)]
    finally:
        lab.iptables("-X", "DOCKER-X")


def _by_hand(lab: Lab, *commands: Sequence[str]) -> frozenset[int]:
    """Run these one after the other; their pids, which bare records name as well."""
    pids = set()
    for command in commands:
        process = lab.popen(*command)
        pids.add(process.pid)
        if process.wait(10):
            raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}")
    return frozenset(pids)


@scenario("a chain made and unmade right after the engine starts", needs_engine=False)
def chain_amid_start(lab: Lab) -> Steps:
    lab.stop_engine()
    yield ()
    lab.start_engine()
    pids = _by_hand(lab, ("iptables", "-N", "DOCKER-X"), ("iptables", "-X", "DOCKER-X"))
    yield [
        attack_on_rules("by hand", command="iptables", pids=pids, least=2),
        docker_rules("Docker's chains", least=3),
    ]


@scenario("rules and chains of one's own right after the engine starts", needs_engine=False)
def own_rules_amid_start(lab: Lab) -> Steps:
    lab.stop_engine()
    yield ()
    try:
        lab.start_engine()
        pids = _by_hand(
            lab,
            ("iptables", "-I", "INPUT", "-s", "203.0.113.7", "-j", "ACCEPT"),
            ("iptables", "-N", "MINE"),
            ("iptables", "-P", "OUTPUT", "ACCEPT"),
        )
        yield [
            attack_on_rules("by hand", command="iptables", pids=pids, least=2),
            docker_rules("Docker's chains", least=3),
        ]
    finally:
        lab.iptables("-D", "INPUT", "-s", "203.0.113.7", "-j", "ACCEPT", check=False)
        lab.iptables("-X", "MINE", check=False)


@scenario("Docker's rule made and unmade right after Docker made it")
def rule_amid_run(lab: Lab) -> Steps:
    yield ()
    try:
        start(lab, "shadowed", "-p", "18086:86")
        address = lab.inspect("shadowed", "{{.NetworkSettings.IPAddress}}")
        rule = (
            *("DOCKER", "!", "-i", "docker0", "-o", "docker0", "-p", "tcp", "-d", address),
            *("--dport", "86", "-j", "ACCEPT"),
        )
        pids = _by_hand(lab, ("iptables", "--wait", "-A", *rule), ("iptables", "--wait", "-D", *rule))
        yield [
            attack_on_rules("by hand", command="iptables", pids=pids, least=2),
            docker_port(lab.veth_of("shadowed"), "shadowed"),
            docker_rules("the published port", least=3, container="shadowed"),
        ]
    finally:
        lab.remove("shadowed")


@scenario("a rule inside a container's namespace right after Docker's")
def rule_amid_connect(lab: Lab) -> Steps:
    with a_network(lab, "crowded") as bridge:
        yield ()
        try:
            start(lab, "victim", "--network", "crowded")
            pid = lab.inspect("victim", "{{.State.Pid}}")
            inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-t", "nat")
            rule = ("DOCKER_OUTPUT", "-d", "203.0.113.9", "-j", "ACCEPT")
            pids = _by_hand(lab, (*inside, "-A", *rule), (*inside, "-D", *rule))
            yield [
                attack_on_rules("by hand", "nat", command="iptables", pids=pids, least=2),
                docker_port(lab.veth_of("victim"), "victim", network="crowded", bridge=bridge),
                docker_rules("the rules for names"),
            ]
        finally:
            lab.remove("victim")


@scenario("iptables-restore by hand")
def restored(lab: Lab) -> Steps:
    yield ()
    text = "*filter\n:EVIL - [0:0]\n-A EVIL -j ACCEPT\nCOMMIT\n*nat\n:EVIL - [0:0]\nCOMMIT\n"
    lab.run("iptables-restore", "--noflush", input=text)
    try:
        yield [attack_on_rules("both tables", "filter|nat", command="iptables-restor.*")]
    finally:
        lab.iptables("-F", "EVIL")
        lab.iptables("-X", "EVIL")
        lab.iptables("-t", "nat", "-X", "EVIL")


@scenario("a rule inside a container's namespace")
def rule_in_container(lab: Lab) -> Steps:
    with a_network(lab, "inner"), a_container(lab, "entered", "--network", "inner"):
        pid = lab.inspect("entered", "{{.State.Pid}}")
        yield ()
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-t", "nat")
        lab.run(*inside, "-A", "DOCKER_OUTPUT", "-d", "203.0.113.9", "-j", "ACCEPT")
        yield [attack_on_rules("the rule", "nat", command="iptables")]


@scenario("an nft table")
def nft_table(lab: Lab) -> Steps:
    yield ()
    lab.run("nft", "add table ip evil")
    try:
        yield [attack_on_rules("the table", "evil", command="nft", bare=REFUTED)]
    finally:
        lab.run("nft", "delete table ip evil")


INJECTED = 'nat:2 family=2 entries=1 op=nft_register_rule pid=1 comm="iptables"'

_NEW_TABLE = """
import socket, struct, sys
def message(kind, flags, family, resource, body=b""):
    body = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body
name = sys.argv[2].encode() + b"\\0"
attribute = struct.pack("=HH", 4 + len(name), 1) + name + b"\\0" * (-len(name) % 4)
new, delete = 0xA00, 0xA02
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
    netlink.send(
        message(0x10, 1, 0, 10)
        + message(*((new, 0x405) if sys.argv[1] == "add" else (delete, 5)), 2, 0, attribute)
        + message(0x11, 1, 0, 10)
    )
    reply = netlink.recv(4096)
    error = struct.unpack_from("=i", reply, 16)[0]
    sys.exit(f"netlink: {error}" if error else 0)
"""


def new_table(lab: Lab, verb: str, name: str, *around: str) -> None:
    """Have nf_tables add or delete a table of any name; around: what the command is given to."""
    script = lab.directory / "table.py"
    script.write_text(_NEW_TABLE)
    lab.run(*around, sys.executable, "-I", script, verb, name)


@scenario("an nft table whose name imitates fields")
def hostile_table(lab: Lab) -> Steps:
    yield ()
    new_table(lab, "add", INJECTED)
    try:
        yield [
            attack_on_rules("the table", re.escape(INJECTED), command="python.*", bare=REFUTED | INCONCLUSIVE)
        ]
    finally:
        new_table(lab, "delete", INJECTED)


@scenario("Docker's nft table in an unprivileged namespace")
def table_elsewhere(lab: Lab) -> Steps:
    yield ()
    lab.run("unshare", "--user", "--map-root-user", "--net", "nft", "add table ip docker-bridges")
    yield [attack_on_rules("the table", "docker-bridges", command="nft")]


@scenario("a container with NET_ADMIN on the host's network adds a rule")
def container_rule(lab: Lab) -> Steps:
    rule = "DOCKER-USER -s 203.0.113.10 -j ACCEPT"
    variant = "legacy" if lab.backend == "legacy" else "nft"
    yield ()
    try:
        lab.docker(
            "run", "-d", "--name", "admin", "--network", "host", "--cap-add", "NET_ADMIN", TOOLS,
            "/bin/sh", "-c", f"/usr/sbin/iptables-{variant} -I {rule}; sleep 1000",
        )  # fmt: skip
        yield [attack_on_rules("the rule", cause="container", container="admin", command="iptables.*")]
    finally:
        lab.remove("admin")
        lab.iptables("-D", *rule.split(), check=False)
