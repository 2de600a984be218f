"""firewalld, to which the engine hands its rules over D-Bus: Docker's own work, firewalld's, and others'."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.live.auditlog import wait_until
from tests.live.lab import Lab, end
from tests.live.play import (
    CONFIRMED,
    INCONCLUSIVE,
    REFUTED,
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
from tests.live.scenarios.lookalikes import Own, own_files

_NEEDS = ("dbus-daemon", "firewalld", "firewall-cmd")

_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="root"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow send_type="method_call"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Firewalld:
    """A bus, and a firewalld on it, for one lab."""

    def __init__(self, lab: Lab, own: Own) -> None:
        self._lab = lab
        self._own = own
        self._settings = lab.directory / "firewalld"

    def start(self) -> None:
        """Start firewalld and wait until it answers."""
        if not self._settings.exists():
            for name in ("zones", "services", "policies", "ipsets", "helpers", "icmptypes"):
                (self._settings / name).mkdir(parents=True)
            shutil.copy2("/etc/firewalld/firewalld.conf", self._settings)
        self.process = self._own.popen(
            *("firewalld", "--nofork", "--nopid", "--log-target=console", f"--system-config={self._settings}")
        )
        wait_until(partial(self._own.answers, "firewall-cmd", "--state"), "firewalld to answer", 30)

    def command(self, *arguments: str) -> str:
        """firewall-cmd."""
        return self._own.run("firewall-cmd", *arguments)


@contextmanager
def a_bus(lab: Lab) -> Iterator[Own]:
    """A system bus of the lab's own, and files of its own for what is on it."""
    conf = lab.directory / "bus.conf"
    conf.write_text(_BUS.format(path=lab.bus))
    with own_files(lab) as own, (lab.directory / "others.log").open("ab") as out:
        bus = lab.popen(
            "dbus-daemon", f"--config-file={conf}", "--nofork", "--nopidfile", stdout=out, stderr=out
        )
        try:
            wait_until(lambda: bus.poll() is not None or lab.bus.exists(), "the bus")
            yield own
        finally:
            end(bus)
            lab.bus.unlink(missing_ok=True)


@contextmanager
def firewalld(lab: Lab) -> Iterator[Firewalld]:
    """A firewalld, and an engine that was started after it; afterwards neither."""
    lab.stop_engine()
    with a_bus(lab) as own:
        daemon = Firewalld(lab, own)
        try:
            daemon.start()
            lab.ensure_engine()
            # The first start on a host gives firewalld a zone for Docker, and reloads it.
            lab.await_silence()
            yield daemon
        finally:
            lab.stop_engine(with_containers=True)
            end(daemon.process)
            lab.run("nft", "flush", "ruleset")


def own_tables(least: int = 0, verdict: frozenset[str] = INCONCLUSIVE) -> Expected:
    """firewalld's own tables, changed by itself: for its own sake, or as Docker has it put bridges into a zone."""
    return Expected(
        *("firewalld's own tables", verdict, verdict, "firewall"),
        table="firewalld|firewalld_policy_drop",
        command="firewalld",
        least=least,
    )


def cut_short(lab: Lab) -> list[Expected]:
    """The one command of Docker's that is longer than PROCTITLE."""
    if lab.bare:
        return []
    title = ".* DOCKER-ISOLATION-STAGE-1 -i br-.* -j DOCKER-ISOLATION-STAGE-"
    return [docker_rules("a command that is cut", title=title, verdict=CONFIRMED | INCONCLUSIVE)]


@scenario("firewalld: the engine starts", needs_engine=False, needs=_NEEDS, everywhere=False)
def engine_start(lab: Lab) -> Steps:
    with firewalld(lab):
        lab.stop_engine()
        yield ()
        lab.start_engine()
        yield [own_tables(), docker_rules("Docker's chains", least=30)]


@scenario("firewalld: run -p", needs_engine=False, needs=_NEEDS, everywhere=False)
def run_published(lab: Lab) -> Steps:
    with firewalld(lab):
        yield ()
        start(lab, "walled", "-p", "18280:80")
        yield [
            docker_port(lab.veth_of("walled"), "walled"),
            docker_rules("the published port", least=3, container="walled"),
        ]


@scenario("firewalld: stop", needs_engine=False, needs=_NEEDS, everywhere=False)
def stop(lab: Lab) -> Steps:
    with firewalld(lab), a_container(lab, "halted", "-p", "18281:81") as veth:
        yield ()
        lab.docker("stop", "-t", "0", "halted")
        yield [
            docker_port(veth, "halted", enters=False, bare=CONFIRMED | INCONCLUSIVE),
            docker_rules("the port that was published", least=3, network="bridge"),
        ]


@scenario("firewalld: network create", needs_engine=False, needs=_NEEDS, everywhere=False)
def network_create(lab: Lab) -> Steps:
    with firewalld(lab):
        yield ()
        with a_network(lab, "fenced"):
            yield [own_tables(least=1), *cut_short(lab), docker_rules("the network's rules", least=4)]


@scenario("firewalld: network rm", needs_engine=False, needs=_NEEDS, everywhere=False)
def network_rm(lab: Lab) -> Steps:
    with firewalld(lab), a_network(lab, "unfenced"):
        yield ()
        lab.docker("network", "rm", "unfenced")
        yield [own_tables(least=1), *cut_short(lab), docker_rules("the network's rules", least=6)]


def await_rules(lab: Lab, port: int) -> None:
    """Return when the engine has given all its rules again; the jump to DOCKER-USER is the last."""
    wait_until(
        lambda: (
            "-j DOCKER-USER" in lab.iptables("-S", "FORWARD", check=False)
            and f"--dport {port}" in lab.iptables("-t", "nat", "-S", "DOCKER", check=False)
        ),
        "Docker's rules again",
    )


def renewal() -> list[Expected]:
    """What firewalld does by itself when it begins, and what Docker then has it do."""
    return [
        own_tables(2, REFUTED | INCONCLUSIVE),
        attack_on_rules(
            "what stood before, cleared", "nat|filter|mangle", command="iptables-restor.*", least=0
        ),
        docker_rules("Docker's rules again", least=15),
    ]


@scenario("firewalld: reload", needs_engine=False, needs=_NEEDS, everywhere=False)
def reload(lab: Lab) -> Steps:
    with firewalld(lab) as daemon, a_container(lab, "stays", "-p", "18282:82"):
        yield ()
        daemon.command("--reload")
        await_rules(lab, 18282)
        yield renewal()


@scenario("firewalld: it starts after the engine", needs_engine=False, needs=_NEEDS, everywhere=False)
def starts_later(lab: Lab) -> Steps:
    with firewalld(lab) as daemon, a_container(lab, "before", "-p", "18283:83"):
        end(daemon.process)
        for table in ("filter", "nat"):
            lab.run("nft", "delete", "table", "ip", table)
        yield ()
        daemon.start()
        await_rules(lab, 18283)
        yield renewal()


@scenario(
    "firewalld: a port and a direct rule of an admin's", needs_engine=False, needs=_NEEDS, everywhere=False
)
def admin(lab: Lab) -> Steps:
    with firewalld(lab) as daemon, a_container(lab, "bystander"):
        lab.await_silence(3)
        yield ()
        daemon.command("--add-port=8080/tcp")
        daemon.command(
            "--direct",
            "--add-rule",
            *["ipv4", "filter", "INPUT", "0", "-p", "tcp", "--dport", "9", "-j", "ACCEPT"],
        )
        yield [
            attack_on_rules(
                *("the port", "firewalld"),
                command="firewalld",
                bare=REFUTED | INCONCLUSIVE,
                looks_like="firewalld",
            ),
            attack_on_rules("the rule", command="iptables-restor.*", looks_like="firewalld"),
        ]


@scenario(
    "firewalld: rules passed through by an intruder", needs_engine=False, needs=_NEEDS, everywhere=False
)
def passed_through(lab: Lab) -> Steps:
    with firewalld(lab) as daemon, a_container(lab, "prey", "-p", "18284:84"):
        address = lab.inspect("prey", "{{.NetworkSettings.IPAddress}}")
        lab.await_silence(3)
        yield ()
        port = f"! -i docker0 -o docker0 -p tcp -d {address} --dport"
        for rule in (
            "-I DOCKER-USER -s 203.0.113.9 -j ACCEPT",
            f"-I DOCKER {port} 22 -j ACCEPT",
            f"-A DOCKER {port} 84 -j ACCEPT",
            "-I DOCKER-USER -j RETURN",
            "-D FORWARD -j DOCKER-USER",
            "-F DOCKER-USER",
        ):
            daemon.command("--direct", "--passthrough", "ipv4", *rule.split())
        yield [
            attack_on_rules("into DOCKER-USER", title=".*203.0.113.9.*", looks_like="firewalld"),
            attack_on_rules("into DOCKER", title=".*--dport 22 .*", least=0 if lab.bare else 1),
            attack_on_rules(
                "to the letter Docker's", verdict=REFUTED | INCONCLUSIVE, least=0 if lab.bare else 4
            ),
        ]


@scenario("firewalld: Docker's rule put in a second time", needs_engine=False, needs=_NEEDS, everywhere=False)
def doubled(lab: Lab) -> Steps:
    with firewalld(lab) as daemon:
        yield ()
        start(lab, "twin", "-p", "18285:85")
        address = lab.inspect("twin", "{{.NetworkSettings.IPAddress}}")
        rule = f"-A DOCKER ! -i docker0 -o docker0 -p tcp -d {address} --dport 85 -j ACCEPT"
        daemon.command("--direct", "--passthrough", "ipv4", *rule.split())
        yield [
            docker_port(lab.veth_of("twin"), "twin"),
            # Which of the two is whose cannot be told: neither is confirmed.
            Expected(
                *("one of the two", INCONCLUSIVE, CONFIRMED | INCONCLUSIVE, "firewall"),
                title=".* -j ACCEPT",
                least=2,
            ),
            docker_rules("the published port", least=0 if lab.bare else 2),
        ]


@scenario("a process named firewalld", needs=("firewalld", "bash"), everywhere=False)
def named_firewalld(lab: Lab) -> Steps:
    imposter = lab.directory / "firewalld-script"
    imposter.write_text(
        "#!/bin/sh\niptables -w10 -t filter -I DOCKER-USER -s 203.0.113.9 -j ACCEPT\nsleep 1000\n"
    )
    imposter.chmod(0o755)
    yield ()
    process = lab.popen("bash", "-c", 'exec -a "$0" "$@"', "/usr/sbin/firewalld", "sh", imposter)
    wait_until(lambda: "203.0.113.9" in lab.iptables("-S", "DOCKER-USER"), "its rule")
    try:
        yield [attack_on_rules("the rule", command="iptables")]
    finally:
        end(process)
        lab.iptables("-D", "DOCKER-USER", "-s", "203.0.113.9", "-j", "ACCEPT")
