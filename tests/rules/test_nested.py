from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, SYSCALL
from tests.made_up import (
    CONNECT,
    CONTAINER,
    DOCKERD,
    ENGINE,
    LIFE,
    NETNS,
    NOT_THERE,
    NOW,
    WEB,
    MadeUpHost,
    docker_host,
    event,
    link,
    process,
    seen,
    unseen,
)
from verify_audit.findings.finding import CauseKind, Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import Daemon, History, Process, Product
from verify_audit.host.firewall import Backend, Firewall, FirewallRule, RuleSpec
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.investigate import investigate
from verify_audit.rules.nested import MOST

Answers = dict[Question[Any], Observation[Any]]
OUTER = "c" * 64
INNER_NETNS = NETNS + 1
DIND = replace(CONTAINER, id=OUTER, name="dind", endpoints=())
CGROUP = f"0::/docker/{OUTER}"
INSIDE = {"container_id": OUTER, "cgroup": CGROUP, "netns": INNER_NETNS}
INNER = process(3059, comm="dockerd", exe="/usr/sbin/dockerd", **INSIDE)
HOSTS = process(2000, comm="dockerd", exe="/usr/sbin/dockerd")

BUSY: Answers = {
    ask.FIREWALL: seen(Firewall(INNER_NETNS, nft_generation=7)),
    ask.HISTORY: seen(History((replace(CONNECT, at=1795436137.3),), NOW - 1000, NOW + 100)),
}
"""It changed its firewall when RULE was written."""

ATTACHED = event(ANOM, ANOM_SYSCALL)
BARE = event(ANOM)
RULE = event(NETFILTER, SYSCALL)


def of(engine: Process, answers: Answers) -> Answers:
    """The answers as those of an engine in that process."""
    key = f"{engine.identity.pid}.{engine.identity.start_ticks}"
    return {Question(each.topic, each.subject, key): answer for each, answer in answers.items()}


def inner_answers(engine: Process) -> Answers:
    """An engine in a container that has what `docker_host` has."""
    answers = docker_host({ask.DAEMON: seen(Daemon(engine, "holds the other end"))}).answers
    return of(engine, {each: answer for each, answer in answers.items() if each.topic != "process"})


def a_host(changes: Answers | None = None, *engines: Process) -> MadeUpHost:
    """A host with a container in which there is an engine; what is made up for the host's own is in the other."""
    engines = engines or (INNER,)
    answers: Answers = {
        ask.DAEMON: seen(Daemon(HOSTS, "holds the other end")),
        ask.CONTAINERS: seen((DIND,)),
        ask.HISTORY: seen(History((), NOW - 1000, NOW + 100)),
        ask.link("veth766e490"): NOT_THERE,
        ask.NESTED: seen(engines),
        ask.life(OUTER): seen(replace(LIFE, container_id=OUTER, pid=4100)),
        ask.process(4100): seen(process(4100, **INSIDE)),
    }
    for engine in engines:
        answers |= inner_answers(engine) | {ask.process(engine.identity.pid): seen(engine)}
    return docker_host(answers | (changes or {}))


def judged(found: Any, changes: Answers | None = None, *engines: Process) -> Finding:
    (finding,) = investigate([found], a_host(changes, *engines))
    return finding


@pytest.mark.parametrize("found", [ATTACHED, BARE], ids=["companions", "bare"])
def test_the_work_of_an_engine_in_a_container_is_that_engines_and_not_the_hosts(found: Any) -> None:
    finding = judged(found)
    assert (finding.verdict, finding.cause.kind) == (Verdict.CONFIRMED, CauseKind.NESTED_DOCKER)
    assert finding.headline.startswith(
        "A nested engine inside container dind, not the host's: Docker attached"
    )
    assert finding.container is not None
    assert (finding.container.name, finding.network) == ("dind", None)
    assert "whoever controls container dind controls that engine" in finding.warnings[-1]
    told = [piece for piece in finding.evidence if "inside container dind" in piece.provenance.source]
    assert told
    assert not [piece.by_hand for piece in told if piece.by_hand.startswith(("docker events", "ip "))]
    assert any(piece.by_hand.startswith(f"docker exec {OUTER[:12]} docker ") for piece in told)


def test_a_child_of_it_changes_its_firewall() -> None:
    finding = judged(RULE, of(INNER, BUSY))
    assert (finding.verdict, finding.cause.kind) == (Verdict.CONFIRMED, CauseKind.NESTED_DOCKER)
    assert finding.cause.pid == 3095


def test_another_process_of_its_container_is_that_container() -> None:
    other = process(4711, **INSIDE)
    found = event(ANOM, ANOM_SYSCALL.replace(b"pid=3059", b"pid=4711"))
    finding = judged(found, {ask.process(4711): seen(other)})
    assert (finding.verdict, finding.cause.kind) == (Verdict.REFUTED, CauseKind.CONTAINER)
    assert finding.container is not None
    assert finding.container.name == "dind"


def test_a_process_of_a_container_of_its_own_is_not_the_engine() -> None:
    """Though it descends from it: in 20.10 and later the shim does where the engine is not the first process."""
    below = process(4711, ppid=3059, **INSIDE | {"cgroup": f"{CGROUP}/docker/{WEB}"})
    found = event(NETFILTER, SYSCALL.replace(b"ppid=3059 pid=3095", b"ppid=4700 pid=4711"))
    finding = judged(found, {ask.process(4711): seen(below)})
    assert (finding.verdict, finding.cause.kind) == (Verdict.REFUTED, CauseKind.CONTAINER)


def test_an_orphan_is_a_child_of_an_engine_that_is_the_first_process_and_was_not_started_by_it() -> None:
    init: Answers = {ask.DAEMON: seen(Daemon(INNER, "holds the other end", is_init=True))}
    assert judged(RULE, of(INNER, BUSY | init)).verdict is Verdict.REFUTED
    # What it does in its own process is its own.
    assert judged(ATTACHED, of(INNER, init)).verdict is Verdict.CONFIRMED


@pytest.mark.parametrize("found", [ATTACHED, BARE], ids=["companions", "bare"])
@pytest.mark.parametrize(
    "changes",
    [
        {ask.link("veth766e490"): seen(link("veth766e490", 15))},
        {ask.link("veth766e490"): unseen()},
        {ask.CONTAINERS: seen((replace(DIND, network_mode="host"),))},
        {ask.CONTAINERS: seen((replace(DIND, network_mode=f"container:{WEB}"),))},
        {ask.CONTAINERS: seen((CONTAINER,))},
        {ask.DAEMON: seen(Daemon(replace(HOSTS, netns=INNER_NETNS), "how"))},
        {ask.DAEMON: unseen()},
        {ask.process(1): seen(process(1, netns=INNER_NETNS))},
        {ask.process(1): unseen()},
        {ask.process(4100): seen(process(4100, **INSIDE | {"netns": NETNS + 2}))},
        {ask.process(4100): NOT_THERE},
        {ask.life(OUTER): unseen()},
        {ask.NESTED: unseen()},
        {ask.NESTED: seen(())},
        of(INNER, {ask.DAEMON: unseen("it holds no lock")}),
        of(INNER, {ask.DAEMON: seen(Daemon(replace(INNER, identity=DOCKERD.identity, ppid=7), "how"))})
        | of(INNER, {ask.ENGINE: unseen()}),
        of(INNER, {ask.DAEMON: seen(Daemon(HOSTS, "how"))}),
        of(INNER, {ask.ENGINE: seen(replace(ENGINE, product=Product.PODMAN))}),
    ],
    ids=[
        *("the host has the device", "whether the host has it could not be seen", "the host's network"),
        *(
            "another container's network",
            "not a container of the host's",
            "the namespace of the host's engine",
        ),
        *("the host's engine not known", "the first namespace", "the first namespace not seen"),
        *(
            "a namespace of its own",
            "its container gone",
            "its container not seen",
            "not looked for",
            "none there",
        ),
        *("no proof", "no answer", "another process on the socket", "podman"),
    ],
)
def test_it_is_not_put_down_to_one_that_may_have_worked_elsewhere_or_is_none(
    found: Any, changes: Answers
) -> None:
    assert judged(found, changes).verdict is not Verdict.CONFIRMED


def test_a_change_beyond_what_its_namespace_has_come_to_was_made_elsewhere() -> None:
    later = event(NETFILTER.replace(b"table=nat:2", b"table=nat:8"), SYSCALL)
    assert judged(later, of(INNER, BUSY)).verdict is Verdict.REFUTED
    assert judged(RULE, of(INNER, BUSY | {ask.FIREWALL: unseen()})).verdict is Verdict.REFUTED


ADDED = event(
    NETFILTER,
    SYSCALL,
    b"type=PROCTITLE msg=audit(1795436137.259:6): proctitle="
    + b"iptables\0-A\0DOCKER-USER\0-j\0ACCEPT".hex().upper().encode(),
)
STANDING = FirewallRule(Backend.NFT, "ip", "filter", "DOCKER-USER", 9, RuleSpec(target="ACCEPT"))


@pytest.mark.parametrize(
    ("on_host", "inside", "expected"),
    [
        (False, False, Verdict.CONFIRMED),
        (False, True, Verdict.CONFIRMED),
        (True, True, Verdict.CONFIRMED),
        (True, False, Verdict.REFUTED),
    ],
)
def test_a_rule_that_stands_on_the_host_was_added_there(
    on_host: bool, inside: bool, expected: Verdict
) -> None:
    hosts, inner = ((STANDING,) if there else () for there in (on_host, inside))
    changes = of(INNER, BUSY | {ask.FIREWALL: seen(Firewall(INNER_NETNS, rules=inner, nft_generation=7))})
    changes[ask.FIREWALL] = seen(Firewall(NETNS, rules=hosts))
    assert judged(ADDED, changes).verdict is expected


def test_where_the_change_is_not_known_a_strange_rule_on_the_host_may_be_what_was_added() -> None:
    strange = replace(STANDING, table="nat", chain="DOCKER")
    changes = of(INNER, BUSY) | {ask.FIREWALL: seen(Firewall(NETNS, rules=(strange,)))}
    assert judged(RULE, changes).verdict is Verdict.REFUTED


def test_without_a_recorded_actor_what_fits_the_host_too_is_left_open() -> None:
    connected = replace(CONNECT, container_id=OUTER)
    finding = judged(BARE, {ask.HISTORY: seen(History((connected,), NOW - 1000, NOW + 100))})
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_without_a_recorded_actor_what_fits_two_engines_is_left_open() -> None:
    twin = replace(INNER, identity=replace(INNER.identity, pid=3060))
    finding = judged(BARE, None, INNER, twin)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.missing[-1].what == "which engine it was, if one"


def test_without_a_recorded_actor_what_fits_an_engine_is_not_refuted_by_the_state_of_the_host() -> None:
    """Somebody set promiscuous mode on a device of the same name there."""
    same = link(
        "veth766e490",
        15,
        master=None,
        slave_kind="",
        asked_promiscuous=True,
        peer_nsid=None,
        peer_ifindex=None,
    )
    there: Answers = {ask.link("veth766e490"): seen(same)}
    assert judged(BARE, there | {ask.NESTED: seen(())}).verdict is Verdict.REFUTED
    finding = judged(BARE, there)
    assert (finding.verdict, finding.cause.kind) == (Verdict.INCONCLUSIVE, CauseKind.UNKNOWN)
    assert "the engine inside container dind" in finding.headline


def test_no_more_than_a_few_are_asked() -> None:
    crowd = [replace(INNER, identity=replace(INNER.identity, pid=6000 + number)) for number in range(MOST)]
    host = a_host(None, *crowd, INNER)
    (finding,) = investigate([BARE], host)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert len({each.engine for each in host.asked if each.engine}) <= MOST


def test_none_is_looked_for_where_the_hosts_own_explains_it() -> None:
    host = docker_host()
    assert [found.verdict for found in investigate([ATTACHED, BARE], host)] == [Verdict.CONFIRMED] * 2
    assert ask.NESTED not in host.asked
    assert not [each for each in host.asked if each.engine]


def test_a_process_of_the_host_did_it_and_no_engine_is_looked_for() -> None:
    host = a_host({ask.process(4711): seen(process(4711))})
    found = event(ANOM, ANOM_SYSCALL.replace(b"pid=3059", b"pid=4711"))
    assert [each.verdict for each in investigate([found], host)] == [Verdict.REFUTED]
    assert ask.NESTED not in host.asked


def test_an_engine_that_is_asked_itself_and_is_in_a_container_is_called_so() -> None:
    asked = replace(DOCKERD, container_id=OUTER, cgroup=CGROUP)
    (finding,) = investigate([ATTACHED], docker_host({ask.DAEMON: seen(Daemon(asked, "how"))}))
    assert (finding.verdict, finding.cause.kind) == (Verdict.CONFIRMED, CauseKind.NESTED_DOCKER)
    assert finding.headline.startswith(
        f"The engine that was asked, which is inside container {OUTER[:12]}: Docker"
    )
    assert "whoever controls container" in finding.warnings[-1]
    assert finding.container is not None
    assert finding.container.name == "web"
