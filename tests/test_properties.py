"""What must hold of every verdict, over the recorded samples and made-up hosts.

A verdict may fall back to INCONCLUSIVE when less is known. Nothing but evidence moves it the other way: no
failed look-up, no order, no name, no missing record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.decision import Case, cases
from tests.hostile import NAMES
from tests.made_up import docker_host, listener, process, seen, unseen
from tests.test_investigate import EVENTS, HERE
from verify_audit.audit.assemble import Losses
from verify_audit.audit.read import events
from verify_audit.audit.record import Event, Record
from verify_audit.findings.finding import CauseKind, Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.facts import Engine, History, Link, PacketSockets, Product
from verify_audit.host.firewall import Backend, Firewall, FirewallRule, RuleSpec
from verify_audit.host.observation import Observation, Observed
from verify_audit.host.questions import TOPICS, Question
from verify_audit.investigate import investigate
from verify_audit.probes.recorded import RecordedHost

CONFIRMED, REFUTED, INCONCLUSIVE = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.INCONCLUSIVE
TOWARDS_DOCKER = [REFUTED, INCONCLUSIVE, CONFIRMED]
Answers = Mapping[Question[Any], Observation[Any]]

each_case = pytest.mark.parametrize("case", cases(), ids=[case.name for case in cases()])
some_case = st.sampled_from(cases())
of_samples = settings(max_examples=60, deadline=None)


def log_of(lines: Sequence[bytes]) -> list[Event]:
    losses = Losses()
    found = list(events([b"".join(lines)], losses))
    assert losses.total == 0
    return found


@cache
def as_recorded(case: Case) -> tuple[list[Event], list[Finding]]:
    """The events of a case, and what is said of them when nothing is changed."""
    log = log_of(case.log)
    return log, judged(log, case.host.answers)


def judged(log: Sequence[Event], answers: Answers) -> list[Finding]:
    return list(investigate(log, RecordedHost(answers, 0.0)))


def verdicts(found: Sequence[Finding]) -> dict[str, Verdict]:
    return {f"{each.event.id} {each.rule}": each.verdict for each in found}


def nothing_rose(before: Mapping[str, Verdict], after: Mapping[str, Verdict]) -> None:
    """No verdict has moved towards CONFIRMED."""
    assert before.keys() == after.keys()
    for key, verdict in after.items():
        assert TOWARDS_DOCKER.index(verdict) <= TOWARDS_DOCKER.index(before[key]), (key, before[key], verdict)


def no_attack_is_confirmed(case: Case, found: Sequence[Finding]) -> None:
    for each in found:
        assert case.truth.get(each.event.id) != "other" or each.verdict is not CONFIRMED, each.headline


def only_fell_back(before: Sequence[Finding], after: Sequence[Finding]) -> None:
    """Every verdict is the same, or open.

    But for what an engine inside a container did: where that engine cannot be asked, the process that acted is
    still known not to be the host's engine.
    """
    assert verdicts(before).keys() == verdicts(after).keys()
    for was, now in zip(before, after, strict=True):
        if was.cause.kind is CauseKind.NESTED_DOCKER and now.verdict is REFUTED:
            assert now.cause.pid is not None
        else:
            assert now.verdict in (was.verdict, INCONCLUSIVE), (was.headline, now.headline)


def rests_on_the_actor(finding: Finding) -> bool:
    """Whether the record names the engine itself, so that what the host shows could only have spoken against it."""
    return finding.cause.kind is CauseKind.DOCKER and finding.cause.pid is not None


# What cannot be seen


@of_samples
@given(st.data())
def test_what_cannot_be_seen_settles_nothing(data: st.DataObject) -> None:
    """No verdict becomes REFUTED that was not, and none CONFIRMED, whatever could not be looked at."""
    case = data.draw(some_case)
    hidden = data.draw(st.frozensets(st.sampled_from(case.questions)))
    log, before = as_recorded(case)
    answers = dict(case.host.answers) | {question: unseen() for question in hidden}
    only_fell_back(before, judged(log, answers))


@each_case
def test_a_whole_kind_of_question_that_cannot_be_asked_settles_nothing(case: Case) -> None:
    log, before = as_recorded(case)
    for topic in {question.topic for question in case.questions}:
        hidden = {question: unseen() for question in case.questions if question.topic == topic}
        only_fell_back(before, judged(log, dict(case.host.answers) | hidden))


# Evidence against


def _sniffed(answers: Answers) -> Answers:
    """Somebody sniffs on every device, and has done so since long ago."""
    sniffer = process(666, exe="/usr/bin/tcpdump", started_at=1.0)
    changed = dict(answers)
    for link in _links(answers):
        changed |= _with_link(changed, replace(link, promiscuity=link.promiscuity + 1))
        question = ask.packet_sockets(link.ifindex)
        found = changed.get(question)
        sockets = found.fact.sockets if isinstance(found, Observed) else ()
        opened = listener(link.ifindex, link.ifindex, holders=(sniffer,))
        changed[question] = seen(PacketSockets(link.netns, (*sockets, opened)))
    return changed


def _flagged(answers: Answers) -> Answers:
    """Every device was made promiscuous by hand."""
    changed = dict(answers)
    for link in _links(answers):
        changed |= _with_link(
            changed, replace(link, promiscuity=link.promiscuity + 1, asked_promiscuous=True)
        )
    return changed


def _meddled(answers: Answers) -> Answers:
    """Rules that nobody's engine made stand in Docker's chains."""
    changed = dict(answers)
    for question, answer in answers.items():
        if isinstance(answer, Observed) and isinstance(answer.fact, Firewall):
            own = [
                FirewallRule(
                    Backend.NFT,
                    chain.family,
                    chain.table,
                    chain.name,
                    9000 + number,
                    RuleSpec(target="ACCEPT"),
                    "",
                )
                for number, chain in enumerate(answer.fact.chains)
            ]
            changed[question] = seen(replace(answer.fact, rules=(*answer.fact.rules, *own)))
    return changed


def _links(answers: Answers) -> list[Link]:
    found = [answer.fact for answer in answers.values() if isinstance(answer, Observed)]
    return list({fact.ifindex: fact for fact in found if isinstance(fact, Link)}.values())


def _with_link(answers: Answers, link: Link) -> dict[Question[Any], Observation[Any]]:
    return {
        question: seen(link)
        for question in (ask.link(link.name), ask.link_at(link.ifindex))
        if question in answers
    }


def _unchanged(answers: Answers) -> Answers:
    return answers


def _deep(answers: Answers) -> Answers:
    """Who acted has parents and theirs."""
    line = {
        pid: process(pid, ppid=ppid) for pid, ppid in ((4711, 4700), (4000, 4700), (4700, 4600), (4600, 1))
    }
    return {**answers, **{ask.process(pid): seen(each) for pid, each in line.items()}}


def _descended(answers: Answers) -> Answers:
    """A helper of the engine's has parents, and the eldest is the engine's child."""
    line = {pid: process(pid, ppid=ppid) for pid, ppid in ((4000, 4700), (4700, 4600), (4600, 3059))}
    return {**answers, **{ask.process(pid): seen(each) for pid, each in line.items()}}


def _another_product(answers: Answers) -> Answers:
    engine = answers[ask.ENGINE]
    assert isinstance(engine, Observed)
    assert isinstance(engine.fact, Engine)
    return {**answers, ask.ENGINE: seen(replace(engine.fact, product=Product.PODMAN))}


def _no_containers(answers: Answers) -> Answers:
    return {**answers, ask.CONTAINERS: seen(())}


def _no_networks(answers: Answers) -> Answers:
    return {**answers, ask.NETWORKS: seen(())}


def _did_nothing(answers: Answers) -> Answers:
    return {**answers, ask.HISTORY: seen(History((), 0.0, 4e9))}


def _started_later(answers: Answers) -> Answers:
    daemon = answers[ask.DAEMON]
    assert isinstance(daemon, Observed)
    return {
        **answers,
        ask.DAEMON: seen(replace(daemon.fact, process=replace(daemon.fact.process, started_at=4e9))),
    }


AGAINST = [_sniffed, _flagged, _meddled]
"""What there is besides, and speaks against Docker."""
LACKING = [_another_product, _no_containers, _no_networks, _did_nothing, _started_later]
"""What Docker's own account then lacks. It can also be what spoke against it, so that a REFUTED may fall back."""


def has_an_engine(answers: Answers) -> bool:
    return isinstance(answers.get(ask.ENGINE), Observed) and isinstance(answers.get(ask.DAEMON), Observed)


@pytest.mark.parametrize("change", AGAINST)
@each_case
def test_more_evidence_against_never_moves_towards_confirmed(
    case: Case, change: Callable[[Answers], Answers]
) -> None:
    log, before = as_recorded(case)
    nothing_rose(verdicts(before), verdicts(judged(log, change(case.host.answers))))


@pytest.mark.parametrize("change", LACKING)
@each_case
def test_an_engine_that_did_less_confirms_nothing_more(
    case: Case, change: Callable[[Answers], Answers]
) -> None:
    if not has_an_engine(case.host.answers):
        return
    log, found = as_recorded(case)
    before = verdicts(found)
    for key, verdict in verdicts(judged(log, change(case.host.answers))).items():
        assert verdict is not CONFIRMED or before[key] is CONFIRMED


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("change", [*AGAINST, *LACKING])
def test_the_same_on_a_host_that_is_made_up(name: str, change: Callable[[Answers], Answers]) -> None:
    whole = docker_host(HERE).answers
    (before,), (after,) = judged([EVENTS[name]], whole), judged([EVENTS[name]], change(whole))
    assert after.verdict is not CONFIRMED or before.verdict is CONFIRMED or rests_on_the_actor(after)
    if change in AGAINST:
        nothing_rose(verdicts([before]), verdicts([after]))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_cannot_be_seen_on_a_host_that_is_made_up_settles_nothing(data: st.DataObject) -> None:
    """These hosts contradict themselves, and the events, so that a failed look-up may hide what speaks against."""
    change = data.draw(st.sampled_from([_unchanged, _deep, _descended, *AGAINST, *LACKING]))
    event = data.draw(st.sampled_from(sorted(EVENTS)))
    whole = change(docker_host(HERE).answers)
    hidden = data.draw(st.frozensets(st.sampled_from(sorted(whole, key=str)), min_size=1))
    (before,) = judged([EVENTS[event]], whole)
    (after,) = judged([EVENTS[event]], {**whole, **{question: unseen() for question in hidden}})
    if after.verdict not in (before.verdict, INCONCLUSIVE):
        assert after.verdict is CONFIRMED
        assert rests_on_the_actor(after)


@pytest.mark.parametrize(
    ("change", "event", "hidden"),
    [
        (_unchanged, "leave", {ask.ENGINE}),
        (_no_containers, "bare", {ask.HISTORY}),
        (_no_networks, "bare", {ask.HISTORY}),
        (_no_networks, "attached", {ask.ENGINE, ask.HISTORY}),
        (_another_product, "others", {ask.ENGINE, ask.process(4711)}),
        (_started_later, "others", {ask.process(4711)}),
        (_did_nothing, "bare", {ask.HISTORY}),
    ],
)
def test_failed_look_ups_that_once_settled_something(
    change: Callable[[Answers], Answers], event: str, hidden: set[Question[Any]]
) -> None:
    whole = change(docker_host(HERE).answers)
    (found,) = judged([EVENTS[event]], {**whole, **{question: unseen() for question in hidden}})
    assert found.verdict is INCONCLUSIVE


def test_an_actor_with_an_ancestor_that_could_not_be_seen_may_be_the_engines() -> None:
    child = {ask.process(4711): seen(process(4711, exe="/usr/sbin/brctl", ppid=4700))}
    whole = docker_host(HERE | child | {ask.process(4700): seen(process(4700))}).answers
    assert judged([EVENTS["others"]], whole)[0].verdict is REFUTED
    found = judged([EVENTS["others"]], {**whole, ask.process(4700): unseen()})
    assert found[0].verdict is INCONCLUSIVE


# Order


@of_samples
@given(st.data())
def test_the_order_of_the_records_of_an_event_does_not_matter(data: st.DataObject) -> None:
    case = data.draw(some_case)
    log, before = as_recorded(case)
    shuffled = [each._replace(records=tuple(data.draw(st.permutations(each.records)))) for each in log]
    after = judged(shuffled, case.host.answers)
    assert [(each.verdict, each.cause) for each in before] == [(each.verdict, each.cause) for each in after]


@of_samples
@given(st.data())
def test_how_the_lines_of_different_events_are_interleaved_does_not_matter(data: st.DataObject) -> None:
    """As long as no event is 2 s late: what is, is counted as lost."""
    case = data.draw(some_case)
    waiting: dict[bytes, list[bytes]] = {}
    for line in case.log:
        waiting.setdefault(line.partition(b"audit(")[2].partition(b")")[0], []).append(line)
    mixed = []
    while waiting:
        began = float(next(iter(waiting)).partition(b":")[0])
        ready = [key for key in waiting if float(key.partition(b":")[0]) - began < 1.9]
        chosen = data.draw(st.sampled_from(ready))
        mixed.append(waiting[chosen].pop(0))
        if not waiting[chosen]:
            del waiting[chosen]
    assert sorted(mixed) == sorted(case.log)
    before, after = as_recorded(case)[1], judged(log_of(mixed), case.host.answers)
    assert before == after


# Missing records

_COMPANIONS = ("SYSCALL", "PROCTITLE", "EXECVE", "SOCKADDR", "SOCKETCALL", "CWD", "PATH")


def without(event: Event, dropped: frozenset[str]) -> Event:
    return event._replace(records=tuple(each for each in event.records if each.type not in dropped))


@each_case
def test_no_attack_is_confirmed_once_its_companions_are_dropped(case: Case) -> None:
    found = judged(
        [without(each, frozenset(_COMPANIONS)) for each in as_recorded(case)[0]], case.host.answers
    )
    no_attack_is_confirmed(case, found)


@of_samples
@given(st.data())
def test_nor_once_some_of_them_are(data: st.DataObject) -> None:
    case = data.draw(some_case)
    dropped = st.frozensets(st.sampled_from(_COMPANIONS))
    log = [without(each, data.draw(dropped)) for each in as_recorded(case)[0]]
    no_attack_is_confirmed(case, judged(log, case.host.answers))


# Names

DOCKERS = [
    ("dockerd", "/usr/sbin/dockerd"),
    ("docker-proxy", "/usr/bin/docker-proxy"),
    ("containerd-shim", "/usr/bin/containerd-shim-runc-v2"),
    ("runc:[2:INIT]", "/usr/bin/runc"),
    ("iptables", "/usr/sbin/xtables-nft-multi"),
    ("exe", "/proc/self/exe"),
]
_NAMED = re.compile(rb'(?<= )(comm|exe)=("[^"]*"|[0-9A-F]+)')


def untrusted(text: bytes) -> bytes:
    """A string as the kernel writes it: audit_log_n_untrustedstring()."""
    if re.search(rb'[^!-~]|"', text):
        return text.hex().upper().encode()
    return b'"%b"' % text


def renamed(record: Record, comm: bytes, exe: bytes) -> Record:
    """What the actor calls itself, where the kernel writes it; not what a table was called by him."""
    names = {b"comm": untrusted(comm[:15]), b"exe": untrusted(exe)}
    start = {"SYSCALL": 0, "NETFILTER_CFG": record.body.rfind(b" comm=")}.get(record.type, -1)
    if start < 0:
        return record
    body = record.body[:start] + _NAMED.sub(
        lambda found: found[1] + b"=" + names[found[1]], record.body[start:]
    )
    return record._replace(body=body, raw=record.raw.replace(record.body, body))


@pytest.mark.parametrize(("comm", "exe"), DOCKERS)
@each_case
def test_no_name_of_dockers_moves_a_verdict_towards_confirmed(case: Case, comm: str, exe: str) -> None:
    log, before = as_recorded(case)
    answers = with_processes(
        case.host.answers, lambda _: {"comm": comm, "exe": exe, "argv": (exe, "-H", "fd://")}
    )
    other = [
        each._replace(records=tuple(renamed(record, comm.encode(), exe.encode()) for record in each.records))
        for each in log
    ]
    nothing_rose(verdicts(before), verdicts(judged(other, answers)))


@of_samples
@given(st.data())
def test_no_name_of_a_process_makes_a_verdict_confirmed(data: st.DataObject) -> None:
    case = data.draw(some_case)
    names = st.sampled_from([*NAMES, *(name for pair in DOCKERS for name in pair), "firewalld"])
    log, found = as_recorded(case)
    before = verdicts(found)
    other = []
    for each in log:
        comm, exe = (
            data.draw(names).encode("utf-8", "surrogatepass").replace(b"\0", b"") or b"x" for _ in range(2)
        )
        other.append(each._replace(records=tuple(renamed(record, comm, exe) for record in each.records)))
    answers = with_processes(
        case.host.answers,
        lambda _: {
            "comm": data.draw(names),
            "exe": data.draw(names),
            "argv": (data.draw(names), data.draw(names)),
        },
    )
    for key, verdict in verdicts(judged(other, answers)).items():
        assert verdict is not CONFIRMED or before[key] is CONFIRMED


@of_samples
@given(st.data())
def test_what_containers_images_and_networks_are_called_changes_no_verdict(data: st.DataObject) -> None:
    case = data.draw(some_case)
    names = st.sampled_from(NAMES)
    log, before = as_recorded(case)
    changed = dict(case.host.answers)
    for question, answer in case.host.answers.items():
        if isinstance(answer, Observed) and question.topic in ("containers", "history"):
            written = msgspec.to_builtins(answer.fact)
            for each in written if question.topic == "containers" else written["events"]:
                for key in each.keys() & {"name", "image", "container_name"}:
                    each[key] = data.draw(names).encode("utf-8", "replace").decode()
            changed[question] = seen(msgspec.convert(written, TOPICS[question.topic]))
    assert verdicts(before) == verdicts(judged(log, changed))


@each_case
def test_what_a_device_is_called_changes_no_verdict_on_who_made_it_promiscuous(case: Case) -> None:
    """A device that is no container's is called as Docker would call it, on the host and in the log."""
    found = as_recorded(case)[1]
    devices = {
        each.subject.device
        for each in found
        if each.subject.device and case.truth.get(each.event.id) == "other" and each.container is None
    } - {"docker0"}
    for device in devices:
        there = isinstance(case.host.answers.get(ask.link(device)), Observed)
        if not there or not re.fullmatch(r"\w+", device):
            continue
        log = [line.replace(b"dev=%b " % device.encode(), b"dev=vethabcdef0 ") for line in case.log]
        answers: dict[Question[Any], Observation[Any]] = {}
        for question, answer in case.host.answers.items():
            if isinstance(answer, Observed) and isinstance(answer.fact, Link) and answer.fact.name == device:
                answers[replace(question, subject=question.subject.replace(device, "vethabcdef0"))] = seen(
                    replace(answer.fact, name="vethabcdef0")
                )
            else:
                answers[question] = answer
        assert verdicts(judged(log_of(log), answers)) == verdicts(found)


def with_processes(answers: Answers, changes: Callable[[int], dict[str, Any]]) -> Answers:
    """The processes that were asked for by pid, but the engine, under other names."""
    changed = dict(answers)
    daemon = answers.get(ask.DAEMON)
    engine = daemon.fact.process.identity.pid if isinstance(daemon, Observed) else 0
    for question, answer in answers.items():
        if (
            question.topic == "process"
            and isinstance(answer, Observed)
            and answer.fact.identity.pid != engine
        ):
            changed[question] = seen(replace(answer.fact, **changes(answer.fact.identity.pid)))
    return changed
