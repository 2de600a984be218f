"""Findings to report on: each as full, or as hostile, as can be."""

from __future__ import annotations

from tests.audit.log import ANOM, ANOM_SYSCALL, line
from tests.made_up import BRIDGE, WEB, event
from verify_audit.findings.evidence import Bearing, Evidence, Missing, Step, Weight
from verify_audit.findings.finding import Cause, CauseKind, ContainerRef, Finding, NetworkRef, Subject
from verify_audit.findings.verdict import Verdict
from verify_audit.host.observation import Provenance, Unobservable

AT = 1795436200.5
SOCK = Provenance("UNIX sock_diag and /proc", "the peer of a connection to /run/docker.sock", AT)
LINKS = Provenance("rtnetlink", "RTM_GETLINK veth766e490 in net:[4026532000]", AT)

CONFIRMED = Finding(
    event=event(ANOM, ANOM_SYSCALL),
    rule="promiscuous",
    verdict=Verdict.CONFIRMED,
    headline="Docker attached veth766e490 to its bridge docker0 of network bridge for container web (nginx)",
    subject=Subject(device="veth766e490"),
    cause=Cause(CauseKind.DOCKER, "the Docker engine (pid 3059)", 3059, "/usr/sbin/dockerd", None),
    container=ContainerRef(WEB, "web", "nginx"),
    network=NetworkRef(BRIDGE, "bridge", "docker0"),
    evidence=(
        Evidence(
            Bearing.FOR, Weight.DECISIVE, Step.DEVICE, "it is the host's end of web's link", LINKS, "raw",
            "ip -d link show dev veth766e490",
        ),
        Evidence(
            Bearing.FOR, Weight.DECISIVE, Step.ACTOR, "process 3059 did it: the engine", SOCK, "",
            "ps -o pid,lstart,args -p 3059",
        ),
        Evidence(Bearing.NEUTRAL, Weight.SUPPORTING, Step.ENGINE, "Docker 20.10.24 answers", SOCK),
    ),
)  # fmt: skip

REFUTED = CONFIRMED._replace(
    event=event(line("ANOM_PROMISCUOUS", b"dev=eth0 prom=256 old_prom=0 auid=1000 uid=0 gid=0 ses=3", 9)),
    verdict=Verdict.REFUTED,
    headline="Not Docker: /usr/bin/tcpdump (pid 99, uid 0) put eth0 into promiscuous mode",
    subject=Subject(device="eth0"),
    cause=Cause(CauseKind.PROCESS, "/usr/bin/tcpdump (pid 99, uid 0)", 99, "/usr/bin/tcpdump", 1000),
    container=None,
    network=None,
    evidence=(Evidence(Bearing.AGAINST, Weight.DECISIVE, Step.LISTENERS, "tcpdump listens on eth0", LINKS),),
    warnings=("tcpdump listens on eth0, which the audit log need not show",),
)

INCONCLUSIVE = REFUTED._replace(
    event=event(b"node=db1 " + line("ANOM_PROMISCUOUS", b"dev=eth1 prom=0 old_prom=256", 12)),
    verdict=Verdict.INCONCLUSIVE,
    headline="Cannot tell who put eth1 out of promiscuous mode: the event has no SYSCALL record",
    subject=Subject(device="eth1"),
    cause=Cause(CauseKind.UNKNOWN, "no actor was recorded"),
    evidence=(),
    missing=(
        Missing("who did it", "the event has no SYSCALL record", "remove `-a never,task`"),
        Missing("the engine", "it was not asked", ""),
    ),
    warnings=(),
)

HOSTILE = (
    "\x1b[31mred\x1b[0m [bold]x[/bold] [/] \u202eabc\u2066 \udcff\ud800 "
    '\x07\x7f\x9b \r\n\t\u2028 "\\udc80\U000e0041'
)
"""Terminal codes, rich's markup, marks that turn the direction, halves of characters, what ends a line."""

EVIL = Finding(
    event=event(line("ANOM_PROMISCUOUS", b"dev=\x1b[2J\xff\x9b[red] prom=256 old_prom=0")),
    rule="promiscuous",
    verdict=Verdict.INCONCLUSIVE,
    headline=HOSTILE,
    subject=Subject(HOSTILE, HOSTILE, HOSTILE, HOSTILE),
    cause=Cause(CauseKind.UNKNOWN, HOSTILE, 1, HOSTILE, 1),
    container=ContainerRef(HOSTILE, HOSTILE, HOSTILE),
    network=NetworkRef(HOSTILE, HOSTILE, HOSTILE),
    evidence=(
        Evidence(
            Bearing.FOR, Weight.DECISIVE, Step.ACTOR, HOSTILE, Provenance(HOSTILE, HOSTILE, AT), HOSTILE, HOSTILE
        ),
    ),
    missing=(Missing(HOSTILE, HOSTILE, HOSTILE),),
    warnings=(HOSTILE,),
)  # fmt: skip

FAILURE = Unobservable(
    Provenance("Docker API", "GET /version", AT), "no engine answers on /run/docker.sock", "start the engine"
)
EVIL_FAILURE = Unobservable(Provenance(HOSTILE, HOSTILE, AT), HOSTILE, HOSTILE)


def later(finding: Finding, seconds: int, serial: int) -> Finding:
    """The same again, some time later."""
    again = finding.event._replace(seconds=finding.event.seconds + seconds, serial=serial)
    return finding._replace(event=again)
