from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit.log import ANOM, ANOM_SYSCALL, NETFILTER, SYSCALL
from tests.made_up import (
    DOCKERD,
    ENGINE,
    NOT_THERE,
    NOW,
    WEB,
    docker_host,
    event,
    process,
    seen,
    unseen,
)
from verify_audit.findings.evidence import Bearing, Weight
from verify_audit.findings.finding import CauseKind
from verify_audit.findings.verdict import Verdict, decide
from verify_audit.host import questions as ask
from verify_audit.host.facts import Daemon, Process, Product
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.rules.actor import Actor, Actors, Relation
from verify_audit.rules.picture import Picture

Changes = dict[Question[Any], Observation[Any]]
OTHER = ANOM_SYSCALL.replace(b"pid=3059", b"pid=4711").replace(b"ppid=1 ", b"ppid=4000 ")
RESTARTED: Changes = {ask.DAEMON: seen(Daemon(replace(DOCKERD, started_at=NOW + 50), "how"))}


def actor(
    call: bytes | None = ANOM_SYSCALL, changes: Changes | None = None, *, itself: bool = False
) -> Actor:
    lines = (ANOM,) if call is None else (ANOM, call)
    return Actors(Picture(docker_host(changes))).of(event(*lines), engine_acts_itself=itself)


def verdict(found: Actor) -> Verdict:
    return decide(found.evidence)


def test_the_engine_itself() -> None:
    found = actor()
    assert (found.relation, verdict(found)) == (Relation.ENGINE, Verdict.CONFIRMED)
    assert (found.cause.kind, found.cause.pid) == (CauseKind.DOCKER, 3059)
    assert found.is_docker
    assert not found.is_other


def test_a_child_of_the_engine_that_is_gone() -> None:
    found = Actors(Picture(docker_host())).of(event(NETFILTER, SYSCALL), engine_acts_itself=False)
    assert (found.relation, verdict(found)) == (Relation.ENGINES_CHILD, Verdict.CONFIRMED)
    assert found.cause.pid == 3095


def test_what_a_process_calls_itself_decides_nothing() -> None:
    """It says dockerd, and is another process."""
    found = actor(OTHER, {ask.process(4711): seen(process(4711, comm="dockerd", exe="/usr/sbin/dockerd"))})
    assert (found.relation, verdict(found)) == (Relation.OTHER, Verdict.REFUTED)
    renamed = ANOM_SYSCALL.replace(b"dockerd", b"tcpdump")
    assert actor(renamed).relation is Relation.ENGINE


def test_no_syscall_record_no_actor() -> None:
    found = actor(None)
    assert (found.relation, found.evidence, found.call) == (Relation.UNRECORDED, (), None)
    assert not found.is_docker
    assert not found.is_other
    assert actor(ANOM_SYSCALL[:150]).relation is Relation.UNRECORDED


@pytest.mark.parametrize(
    "changed", [(b"auid=4294967295", b"auid=1000"), (b"ses=4294967295", b"ses=3")], ids=["auid", "ses"]
)
def test_the_engines_pid_with_another_login_is_in_doubt(changed: tuple[bytes, bytes]) -> None:
    found = actor(ANOM_SYSCALL.replace(*changed))
    assert verdict(found) is Verdict.INCONCLUSIVE
    assert any(
        each.bearing is Bearing.AGAINST and each.weight is Weight.SUPPORTING for each in found.evidence
    )


def test_an_engine_that_an_admin_started_carries_the_admins_login() -> None:
    started = replace(DOCKERD, loginuid=1000, session=3)
    record = ANOM_SYSCALL.replace(b"auid=4294967295", b"auid=1000").replace(b"ses=4294967295", b"ses=3")
    assert verdict(actor(record, {ask.DAEMON: seen(Daemon(started, "how"))})) is Verdict.CONFIRMED


@pytest.mark.parametrize("product", [Product.PODMAN, Product.UNKNOWN])
def test_what_speaks_the_api_and_is_not_docker_is_not_docker(product: Product) -> None:
    found = actor(changes={ask.ENGINE: seen(replace(ENGINE, product=product))})
    assert (found.relation, verdict(found)) == (Relation.OTHER, Verdict.REFUTED)


@pytest.mark.parametrize("product", [Product.PODMAN, Product.UNKNOWN])
@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("living", [False, True])
def test_where_something_else_answers_a_docker_engine_may_answer_elsewhere(
    product: Product, itself: bool, living: bool
) -> None:
    changes: Changes = {ask.ENGINE: seen(replace(ENGINE, product=product))}
    if living:
        changes[ask.process(4711)] = seen(process(4711))
    found = actor(OTHER, changes, itself=itself)
    assert (found.relation, verdict(found)) == (Relation.UNCERTAIN, Verdict.INCONCLUSIVE)
    assert "--docker-host" in found.missing[0].remedy


def test_a_process_on_the_socket_that_does_not_answer_is_not_yet_docker() -> None:
    found = actor(changes={ask.ENGINE: unseen("it hung")})
    assert (found.relation, verdict(found)) == (Relation.UNCERTAIN, Verdict.INCONCLUSIVE)
    assert found.missing[0].why == "it hung"


@pytest.mark.parametrize("itself", [False, True])
def test_the_engines_pid_before_the_engines_start_proves_nothing(itself: bool) -> None:
    found = actor(changes=RESTARTED | {ask.process(3059): NOT_THERE}, itself=itself)
    assert (found.relation, verdict(found)) == (Relation.UNCERTAIN, Verdict.INCONCLUSIVE)
    assert "restarted since" in found.missing[0].why


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("parent", [NOT_THERE, seen(process(4000, comm="sh"))])
def test_right_before_the_engine_was_restarted(itself: bool, parent: Observation[Any]) -> None:
    """What the one before did last, a tenth of a second earlier, is not another's: whoever started it may live."""
    at = event(ANOM).time
    restarted: Changes = {ask.DAEMON: seen(Daemon(replace(DOCKERD, started_at=at + 0.1), "how"))}
    gone: Changes = {ask.process(4711): NOT_THERE, ask.process(4000): parent}
    assert verdict(actor(OTHER, restarted | gone, itself=itself)) is Verdict.INCONCLUSIVE


def test_another_process_that_still_lives() -> None:
    found = actor(OTHER, {ask.process(4711): seen(process(4711, exe="/usr/bin/tcpdump"))})
    assert (found.relation, verdict(found)) == (Relation.OTHER, Verdict.REFUTED)
    assert found.cause.kind is CauseKind.PROCESS
    assert found.is_other


def test_another_engine_of_the_host_is_named_as_one_if_it_proves_it() -> None:
    theirs = process(4711, comm="dockerd", exe="/usr/sbin/dockerd")
    found = actor(OTHER, {ask.process(4711): seen(theirs), ask.is_engine(4711): seen(True)})
    assert (found.relation, verdict(found)) == (Relation.OTHER, Verdict.REFUTED)
    assert found.cause.kind is CauseKind.OTHER_DOCKER
    for proof in (seen(False), unseen(), NOT_THERE):
        found = actor(OTHER, {ask.process(4711): seen(theirs), ask.is_engine(4711): proof})
        assert (found.cause.kind, verdict(found)) == (CauseKind.PROCESS, Verdict.REFUTED)


def test_one_whose_pid_was_used_again_is_not_looked_at() -> None:
    late = process(4711, started_at=NOW + 30)
    found = actor(OTHER, {ask.process(4711): seen(late)})
    assert (found.relation, verdict(found)) == (Relation.UNCERTAIN, Verdict.INCONCLUSIVE)


def test_a_process_in_a_container() -> None:
    inside = process(4711, container_id=WEB, cgroup=f"0::/docker/{WEB}")
    found = actor(OTHER, {ask.process(4711): seen(inside)})
    assert (found.relation, verdict(found)) == (Relation.CONTAINER, Verdict.REFUTED)
    assert found.container is not None
    assert found.container.name == "web"
    foreign = actor(OTHER, {ask.process(4711): seen(replace(inside, container_id="f" * 64))})
    assert (foreign.relation, foreign.container) == (Relation.CONTAINER, None)


@pytest.mark.parametrize(
    "firewalld",
    [
        replace(process(4711), argv=("/usr/bin/python3", "-s", "/usr/sbin/firewalld", "--nofork")),
        replace(process(4711), cgroup="0::/system.slice/firewalld.service"),
    ],
)
def test_firewalld_is_neither_docker_nor_not(firewalld: Process) -> None:
    found = actor(OTHER, {ask.process(4711): seen(firewalld)})
    assert (found.relation, verdict(found)) == (Relation.UNCERTAIN, Verdict.INCONCLUSIVE)
    # It has no business with bridges: there the name excuses nothing.
    found = actor(OTHER, {ask.process(4711): seen(firewalld)}, itself=True)
    assert (found.relation, verdict(found)) == (Relation.OTHER, Verdict.REFUTED)


def test_a_helper_of_the_engine() -> None:
    found = actor(OTHER, {ask.process(4711): seen(process(4711, ppid=3059))})
    assert (found.relation, verdict(found)) == (Relation.ENGINES_CHILD, Verdict.CONFIRMED)


def test_one_that_has_ended_and_left_nothing() -> None:
    assert verdict(actor(OTHER)) is Verdict.INCONCLUSIVE
    alone = actor(OTHER, itself=True)
    assert (alone.relation, verdict(alone)) == (Relation.OTHER, Verdict.REFUTED)
    logged_in = actor(OTHER.replace(b"auid=4294967295", b"auid=1000"))
    assert (logged_in.relation, verdict(logged_in)) == (Relation.OTHER, Verdict.REFUTED)


@pytest.mark.parametrize("call", [ANOM_SYSCALL, OTHER, OTHER.replace(b"auid=4294967295", b"auid=1000")])
@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize(
    "living", [{}, {ask.process(4711): seen(process(4711))}, {ask.process(4000): seen(process(4000))}]
)
def test_without_the_engines_process_nothing_is_confirmed_and_nothing_refuted(
    call: bytes, itself: bool, living: Changes
) -> None:
    found = actor(call, {ask.DAEMON: unseen(), ask.process(3059): NOT_THERE, **living}, itself=itself)
    assert verdict(found) is Verdict.INCONCLUSIVE
    assert found.missing


def test_a_process_that_cannot_be_looked_up_may_be_a_child_of_the_engine_and_is_not_the_engine() -> None:
    hidden: Changes = {ask.process(4711): unseen("hidden"), ask.process(4000): unseen("hidden")}
    child = actor(OTHER, hidden)
    assert verdict(child) is Verdict.INCONCLUSIVE
    assert child.missing[0].why == "hidden"
    assert verdict(actor(OTHER, hidden, itself=True)) is Verdict.REFUTED


def test_a_living_parent_stands_for_a_child_that_has_ended() -> None:
    found = actor(OTHER, {ask.process(4000): seen(process(4000, exe="/bin/bash"))})
    assert (found.relation, verdict(found)) == (Relation.OTHER, Verdict.REFUTED)
    assert "/bin/bash" in found.cause.text


def test_init_as_parent_tells_nothing() -> None:
    orphan = ANOM_SYSCALL.replace(b"pid=3059", b"pid=4711")
    assert b"ppid=1 " in orphan
    assert verdict(actor(orphan)) is Verdict.INCONCLUSIVE


def test_each_event_has_its_own_record_though_the_engine_is_known() -> None:
    actors = Actors(Picture(docker_host()))
    first = actors.of(event(ANOM, ANOM_SYSCALL), engine_acts_itself=True)
    other = ANOM_SYSCALL.replace(b"exit=40", b"exit=32")
    second = actors.of(event(ANOM, other), engine_acts_itself=True)
    assert first.call is not None
    assert second.call is not None
    assert (first.call.exit, second.call.exit) == (40, 32)
