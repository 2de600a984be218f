"""Changes of the firewall by somebody who knows how Docker's are counted, and hides among them.

What he does is never confirmed. What Docker does meanwhile may be, where it can be told from his.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.live.lab import Lab
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    Expected,
    Steps,
    a_container,
    a_network,
    attack_on_rules,
    docker_port,
    docker_rules,
    scenario,
    start,
)

_TABLES = "filter|nat|raw"

EITHER = CONFIRMED | INCONCLUSIVE


def _by_hand(lab: Lab, *commands: Sequence[str]) -> frozenset[int]:
    """Run iptables with these words, one after the other; the pids, which bare records name as well."""
    pids = set()
    for command in commands:
        process = lab.popen("iptables", "--wait", *command)
        pids.add(process.pid)
        if process.wait(10):
            raise RuntimeError(f"iptables {' '.join(command)}: exit status {process.returncode}")
    return frozenset(pids)


def _his(pids: frozenset[int], least: int = 1) -> Expected:
    return attack_on_rules("by hand", _TABLES, command="iptables", pids=pids, least=least)


MASQUERADE = ("-t", "nat", "-s", "172.17.0.0/16", "!", "-o", "docker0", "-j", "MASQUERADE")


@scenario("a rule put in when the engine starts with one command less", needs_engine=False)
def amid_restart(lab: Lab) -> Steps:
    """He has put Docker's rule there twice: Docker takes one out, finds the other, and puts none back."""
    lab.ensure_engine()
    lab.stop_engine()
    table, rule = MASQUERADE[:2], MASQUERADE[2:]
    lab.iptables(*table, "-I", "POSTROUTING", *rule)
    yield ()
    own = ("-t", "nat", "-I", "POSTROUTING", "-s", "203.0.113.7", "-j", "ACCEPT")
    lab.start_engine()
    pids = _by_hand(lab, own)
    try:
        yield [_his(pids), docker_rules("Docker's chains", least=3)]
    finally:
        lab.iptables("-t", "nat", "-D", *own[3:], check=False)


@scenario("the same rule made and unmade", needs_engine=False)
def amid_restart_and_gone(lab: Lab) -> Steps:
    lab.ensure_engine()
    lab.stop_engine()
    lab.iptables(*MASQUERADE[:2], "-I", "POSTROUTING", *MASQUERADE[2:])
    yield ()
    own = ("-s", "203.0.113.7", "-j", "ACCEPT")
    lab.start_engine()
    pids = _by_hand(lab, ("-t", "nat", "-I", "POSTROUTING", *own), ("-t", "nat", "-D", "POSTROUTING", *own))
    yield [_his(pids, least=2), docker_rules("Docker's chains", least=3)]


@scenario("rules put in when a container starts and taken out when it is removed")
def with_a_container(lab: Lab) -> Steps:
    """As many, and in the same tables, as if it had a port published."""
    rules = [
        ("-t", "nat", "POSTROUTING", "-s", "203.0.113.7", "-j", "MASQUERADE"),
        ("-t", "filter", "DOCKER", "-s", "203.0.113.7", "-j", "ACCEPT"),
        ("-t", "nat", "DOCKER", "-s", "203.0.113.7", "-j", "ACCEPT"),
    ]
    yield ()
    start(lab, "carrier")
    veth = lab.veth_of("carrier")
    pids = _by_hand(lab, *((*rule[:2], "-I", *rule[2:]) for rule in rules))
    pids |= _by_hand(lab, *((*rule[:2], "-D", *rule[2:]) for rule in rules))
    lab.docker("rm", "-f", "carrier")
    yield [
        _his(pids, least=6),
        docker_port(veth, "carrier", bare=EITHER),
        docker_port(veth, "carrier", enters=False, bare=EITHER),
        docker_rules("the address", least=0),
    ]


@scenario("a rule taken out when a network without masquerading is removed")
def with_a_network(lab: Lab) -> Steps:
    """Docker takes out fewer than for a network with its defaults, which his make up for."""
    own = ("-s", "203.0.113.7", "-j", "ACCEPT")
    with a_network(lab, "fewer", "-o", "com.docker.network.bridge.enable_ip_masquerade=false"):
        for _ in range(2):
            lab.iptables("-t", "nat", "-I", "POSTROUTING", *own)
        yield ()
        pids = _by_hand(
            lab, ("-t", "nat", "-D", "POSTROUTING", *own), ("-t", "nat", "-D", "POSTROUTING", *own)
        )
        lab.docker("network", "rm", "fewer")
        yield [_his(pids, least=2), docker_rules("the network's rules", least=3)]


@scenario("a rule taken out when a container stops whose own was taken out before")
def with_a_stop(lab: Lab) -> Steps:
    """Docker finds one less to take out."""
    own = ("-t", "filter", "INPUT", "-s", "203.0.113.7", "-j", "DROP")
    with a_container(lab, "halved", "-p", "18087:87") as veth:
        lab.iptables(*own[:2], "-I", *own[2:])
        address = lab.inspect("halved", "{{.NetworkSettings.IPAddress}}")
        words = ("!", "-i", "docker0", "-o", "docker0", "-p", "tcp", "-d", address)
        yield ()
        pids = _by_hand(lab, ("-D", "DOCKER", *words, "--dport", "87", "-j", "ACCEPT"))
        lab.await_silence(2.0)
        pids |= _by_hand(lab, (*own[:2], "-D", *own[2:]))
        lab.docker("stop", "-t", "0", "halved")
        yield [
            _his(pids, least=2),
            docker_port(veth, "halved", enters=False, bare=EITHER),
            docker_rules("the port that was published"),
        ]
