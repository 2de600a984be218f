from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.made_up import (
    BRIDGE,
    CONNECT,
    CONTAINER,
    DOCKERD,
    ENDPOINT,
    ENGINE,
    LIFE,
    NETWORK,
    NOT_THERE,
    NOW,
    WEB,
    docker_host,
    link,
    process,
    seen,
    unseen,
)
from verify_audit.findings.finding import ContainerRef, NetworkRef
from verify_audit.host import questions as ask
from verify_audit.host.facts import Daemon, History, Peer, ProcessIdentity, Product
from verify_audit.host.observation import Observation
from verify_audit.host.questions import Question
from verify_audit.probes.processes import container_of
from verify_audit.rules.picture import START_SLACK, Picture, Standing

VETH = "veth766e490"


def picture(changes: dict[Question[Any], Observation[Any]] | None = None) -> Picture:
    return Picture(docker_host(changes))


# Where a device stands


def test_the_end_of_a_containers_link() -> None:
    place = picture().place(VETH)
    assert place.standing is Standing.CONTAINERS
    assert (place.container, place.network, place.endpoint) == (CONTAINER, NETWORK, ENDPOINT)


def test_a_docker_bridge_itself() -> None:
    assert picture().place("docker0").standing is Standing.DOCKER_BRIDGE


@pytest.mark.parametrize(
    ("changes", "standing", "reason"),
    [
        ({ask.link(VETH): NOT_THERE}, Standing.GONE, "no such interface"),
        ({ask.link_at(2): NOT_THERE}, Standing.GONE, "went while we looked"),
        ({ask.peer(0, 14): NOT_THERE}, Standing.GONE, "could not be seen"),
        ({ask.link(VETH): seen(link(VETH, 15, slave_kind="", master=None))}, Standing.NO_PORT, "no bridge"),
        ({ask.link(VETH): seen(link(VETH, 15, slave_kind="bond"))}, Standing.NO_PORT, "no bridge"),
        ({ask.link_at(2): seen(link("br0", 2, kind="bridge"))}, Standing.OTHER_BRIDGE, "br0 is no Docker"),
        ({ask.link(VETH): seen(link(VETH, 15, kind="tun"))}, Standing.ODD_END, "a tun device"),
        ({ask.link(VETH): seen(link(VETH, 15, kind=""))}, Standing.ODD_END, "a physical device"),
        ({ask.link(VETH): seen(link(VETH, 15, peer_nsid=None))}, Standing.ODD_END, "own network namespace"),
        (
            {ask.peer(0, 14): seen(Peer(0, 14, "eth1", "02:42:00:00:00:99"))},
            Standing.ODD_END,
            "the endpoint of no container",
        ),
        ({ask.nsid_of(4000): seen(7)}, Standing.ODD_END, "the endpoint of no container"),
        ({ask.nsid_of(4000): NOT_THERE}, Standing.UNSEEN, "ending or starting"),
        ({ask.life(WEB): seen(replace(LIFE, pid=0, running=False))}, Standing.UNSEEN, "ending or starting"),
        ({ask.life(WEB): NOT_THERE}, Standing.UNSEEN, "ending or starting"),
        (
            {ask.CONTAINERS: seen((replace(CONTAINER, endpoints=(replace(ENDPOINT, network_id="other"),)),))},
            Standing.ODD_END,
            "of no container",
        ),
    ],
)
def test_all_else(changes: dict[Question[Any], Observation[Any]], standing: Standing, reason: str) -> None:
    place = picture(changes).place(VETH)
    assert place.standing is standing
    assert reason in place.reason
    assert place.container is None


@pytest.mark.parametrize(
    "question",
    [
        ask.link(VETH),
        ask.DAEMON,
        ask.NETWORKS,
        ask.CONTAINERS,
        ask.link_at(2),
        ask.peer(0, 14),
        ask.life(WEB),
        ask.nsid_of(4000),
    ],
)
def test_whatever_cannot_be_seen_on_the_way_the_device_is_unseen_and_never_odd(
    question: Question[Any],
) -> None:
    blind = unseen()
    place = picture({question: blind}).place(VETH)
    assert (place.standing, place.unseen) == (Standing.UNSEEN, blind)


def test_a_device_is_followed_once() -> None:
    host = docker_host()
    seen_once = Picture(host)
    assert seen_once.place(VETH) is seen_once.place(VETH)
    assert host.asked.count(ask.link(VETH)) == 1


# The engine


@pytest.mark.parametrize(
    ("product", "docker", "other"),
    [(Product.DOCKER, True, False), (Product.PODMAN, False, True), (Product.UNKNOWN, False, True)],
)
def test_who_answers(product: Product, docker: bool, other: bool) -> None:
    found = picture({ask.ENGINE: seen(replace(ENGINE, product=product))})
    assert (found.is_docker, found.is_other_product) == (docker, other)


def test_an_engine_that_does_not_answer_is_neither_docker_nor_another() -> None:
    found = picture({ask.ENGINE: unseen()})
    assert (found.is_docker, found.is_other_product) == (False, False)
    assert found.layout.version is None


def test_whether_it_ran_then() -> None:
    began = DOCKERD.started_at
    assert picture().ran_at(began) is True
    assert picture().ran_at(began - START_SLACK) is True
    assert picture().ran_at(began - START_SLACK - 0.01) is False
    assert picture({ask.DAEMON: unseen()}).ran_at(began) is None
    assert picture().started_before(NOW) == began
    assert picture().started_before(began - 60) is None
    assert picture({ask.DAEMON: unseen()}).started_before(NOW) is None


def test_ancestors_are_followed_as_far_as_they_live() -> None:
    shim, child = process(50, ppid=3059), process(51, ppid=50)
    found = picture({ask.process(50): seen(shim)})
    assert [each.identity.pid for each in found.ancestry(child)] == [50, 3059, 1]
    assert found.descends_from_engine(child)
    assert not found.descends_from_engine(process(52, ppid=1))
    assert not picture({ask.process(50): NOT_THERE}).descends_from_engine(child)
    assert not picture({ask.process(50): seen(shim), ask.DAEMON: unseen()}).descends_from_engine(child)


def test_a_pid_that_was_used_again_is_no_ancestor() -> None:
    child = process(51, ppid=50, started_at=NOW - 500)
    late = process(50, ppid=3059, started_at=NOW - 100)
    assert picture({ask.process(50): seen(late)}).ancestry(child) == []
    other = replace(DOCKERD, identity=ProcessIdentity(3059, 1))
    assert not picture({ask.process(3059): seen(other)}).descends_from_engine(process(51, ppid=3059))


def test_a_circle_of_parents_ends() -> None:
    found = picture(
        {ask.process(50): seen(process(50, ppid=51)), ask.process(51): seen(process(51, ppid=50))}
    )
    assert len(found.ancestry(process(52, ppid=50))) == 32


# Names


def test_a_container_that_is_gone_is_named_by_the_engines_events() -> None:
    gone = replace(
        CONNECT, type="container", action="start", container_id="c" * 64, container_name="old", image="i"
    )
    found = picture({ask.HISTORY: seen(History((gone,), 0, NOW))})
    assert found.container_ref(WEB) == ContainerRef(WEB, "web", "nginx")
    assert found.container_ref("c" * 64) == ContainerRef("c" * 64, "old", "i")
    assert found.container_ref("d" * 64) == ContainerRef("d" * 64, "", "")
    assert found.container_ref("") is None


def test_a_network_that_is_gone_is_named_by_the_engines_events() -> None:
    gone = replace(CONNECT, network_id="c" * 64, network_name="old")
    found = picture({ask.HISTORY: seen(History((gone,), 0, NOW))})
    assert found.network_ref(BRIDGE) == NetworkRef(BRIDGE, "bridge", "docker0")
    assert found.network_ref("c" * 64) == NetworkRef("c" * 64, "old", "")
    assert found.network_ref("d" * 64) == NetworkRef("d" * 64, "", "")
    assert found.network_ref("") is None


# The engine's events


def test_events_between_two_times_both_included() -> None:
    events = tuple(replace(CONNECT, at=at) for at in (3.0, 1.0, 2.0, 2.0))
    found = picture({ask.HISTORY: seen(History(events, 0, 10))})
    assert [each.at for each in found.events] == [1.0, 2.0, 2.0, 3.0]
    assert [each.at for each in found.events_between(2.0, 3.0)] == [2.0, 2.0, 3.0]
    assert found.events_between(2.1, 2.9) == []


def test_events_that_could_not_be_seen_cover_nothing() -> None:
    found = picture({ask.HISTORY: unseen()})
    assert (found.events, found.covers(NOW, NOW)) == ([], False)
    assert picture().covers(NOW - 1, NOW + 1)
    assert not picture().covers(NOW - 5000, NOW)


@pytest.mark.parametrize("product", [Product.PODMAN, Product.UNKNOWN])
@pytest.mark.parametrize("device", ["veth766e490", "docker0"])
def test_what_is_no_docker_knows_nothing_of_dockers_bridges(product: Product, device: str) -> None:
    found = picture({ask.ENGINE: seen(replace(ENGINE, product=product)), ask.NETWORKS: seen(())}).place(
        device
    )
    assert (found.standing, found.unseen) == (Standing.UNSEEN, None)
    assert "not Docker" in found.reason


X, Y = "d" * 64, "e" * 64


@pytest.mark.parametrize(
    ("own", "cgroup", "expected"),
    [
        (None, f"0::/docker/{X}", X),
        (X, f"0::/docker/{X}", None),
        (X, f"0::/system.slice/docker-{X}.scope/init", None),
        (X, f"0::/docker/{X}/docker/{Y}", Y),
        (X, f"0::/system.slice/docker-{X}.scope/system.slice/docker-{Y}.scope", Y),
        (X, f"9:name=systemd:/docker/{X}\n4:memory:/docker/{X}/docker/{Y}", Y),
        (X, f"0::/docker/{Y}", Y),
        (X, "0::/", None),
    ],
)
def test_which_container_a_process_is_in_as_the_engine_counts_them(
    own: str | None, cgroup: str, expected: str | None
) -> None:
    engine = replace(DOCKERD, container_id=own, cgroup=f"0::/docker/{own}")
    one = process(4711, cgroup=cgroup, container_id=container_of(cgroup))
    assert picture({ask.DAEMON: seen(Daemon(engine, "how"))}).container_of(one) == expected


def test_orphans_are_no_children_of_the_engine() -> None:
    child = process(4711, ppid=3059)
    assert picture().descends_from_engine(child)
    adopting = picture({ask.DAEMON: seen(Daemon(DOCKERD, "how", is_init=True))})
    assert adopting.adopts_orphans
    assert not adopting.descends_from_engine(child)
