"""The middle: events and a host in, findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from verify_audit.audit.record import Event
from verify_audit.audit.serials import Serials
from verify_audit.findings.evidence import Missing
from verify_audit.findings.finding import Cause, CauseKind, Finding, Subject
from verify_audit.findings.verdict import Verdict
from verify_audit.host import questions as ask
from verify_audit.host.observation import Observed, Unobservable
from verify_audit.host.questions import Host
from verify_audit.rules.actor import Actors
from verify_audit.rules.here import is_here
from verify_audit.rules.interface import Rule
from verify_audit.rules.nested import NestedEngines
from verify_audit.rules.picture import Picture
from verify_audit.rules.registry import RULES

SETTLING = 2.5
"""Seconds that a host is given to settle: the record is written before the engine's own events, which
follow within 1.7 s when many containers start at once."""


def investigate(
    events: Sequence[Event],
    host: Host,
    wanted: Callable[[Event], bool] = lambda _: True,
    serials: Serials | None = None,
) -> Iterator[Finding]:
    """A finding for each wanted event and each rule that it concerns, in the order of the events.

    The others are only looked at for what they tell of the wanted ones. serials: which the log holds; without
    them nothing is confirmed by being counted.
    """
    picture = Picture(host)
    picture.serials = serials
    rules = _rules(picture)
    concerned = [(event, rule) for event in events for rule in rules if rule.applies(event)]
    here = {
        rule.name: [event for event, its in concerned if its is rule and is_here(event.node, host)]
        for rule in rules
    }

    def surveyed(rules: list[Rule]) -> list[Rule]:
        for rule in rules:
            rule.survey(here[rule.name])
        return rules

    surveyed(rules)
    nested = NestedEngines(picture, lambda inner: surveyed(_rules(inner)))
    for event, rule in concerned:
        if wanted(event):
            if is_here(event.node, host):
                yield nested.reconsider(event, rule.judge(event))
            else:
                yield _foreign(event, rule.name, host)


def _rules(picture: Picture) -> list[Rule]:
    actors = Actors(picture)
    return [rule(picture, actors) for rule in RULES]


def unobservable(host: ask.AskedOnce) -> list[Unobservable]:
    """What the host could not tell in this run, each failure once."""
    failures = [answer for answer in host.answers.values() if isinstance(answer, Unobservable)]
    return list({(failure.provenance.source, failure.reason): failure for failure in failures}.values())


def _foreign(event: Event, rule: str, host: Host) -> Finding:
    """The finding for a record of another machine, about which this host can say nothing."""
    boot = host.ask(ask.BOOT)
    here = boot.fact.hostname if isinstance(boot, Observed) else "not known by name"
    why = f"the record is of node {event.node}, and this host is {here}"
    return Finding(
        event=event,
        rule=rule,
        verdict=Verdict.INCONCLUSIVE,
        headline=f"Cannot tell: {why}",
        subject=Subject(),
        cause=Cause(CauseKind.UNKNOWN, "not looked for"),
        missing=(Missing("the host that the record is of", why, f"run verify-audit on {event.node}"),),
    )
