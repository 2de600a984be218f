"""The report for people: a headline for each event, then the steps of the check by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from verify_audit.findings.evidence import Bearing, Evidence, Step
from verify_audit.findings.finding import Finding
from verify_audit.findings.verdict import Verdict
from verify_audit.findings.words import clock
from verify_audit.reports.lines import Line, failures, rendered
from verify_audit.reports.summary import Summary

_GROUP_GAP = 60.0
_LISTED = 60
_STYLES = {
    Verdict.CONFIRMED: "bold green",
    Verdict.REFUTED: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}
_MARKS = {Bearing.FOR: ("+", "green"), Bearing.AGAINST: ("-", "red"), Bearing.NEUTRAL: ("·", "dim")}


@dataclass(slots=True)
class Group:
    """Findings of one rule with the same verdict and the same cause, close together in time."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def first(self) -> Finding:
        """The finding that is told in full."""
        return self.findings[0]


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """The findings with those that repeat one another put together, in the order of their first."""
    groups: list[Group] = []
    open_groups: dict[tuple[object, ...], Group] = {}
    for finding in findings:
        key = _sameness(finding)
        group = open_groups.get(key)
        if group is None or finding.event.time - group.findings[-1].event.time > _GROUP_GAP:
            group = open_groups[key] = Group()
            groups.append(group)
        group.findings.append(finding)
    return groups


def _sameness(finding: Finding) -> tuple[object, ...]:
    cause = finding.cause
    # Each iptables that the engine starts has a pid of its own; what makes them the same is the engine.
    named = cause.kind if finding.verdict is Verdict.CONFIRMED else (cause.kind, cause.exe, cause.auid)
    device = finding.subject.device if finding.verdict is Verdict.REFUTED else None
    return (
        finding.rule,
        finding.verdict,
        named,
        device,
        finding.container,
        finding.network,
        tuple(lack.why for lack in finding.missing),
        finding.warnings,
        finding.event.node,
    )


def report(
    findings: Sequence[Finding], summary: Summary, *, colour: bool, width: int | None, quiet: bool = False
) -> str:
    """The whole report. width: columns of the terminal, None to leave lines as long as they are.

    quiet: only what is not confirmed or has a warning, and nothing at all when nothing is so.
    """
    shown = [each for each in findings if not quiet or each.is_remarkable]
    if quiet and not shown and not summary.unparsed:
        return ""
    lines: list[Line] = []
    for group in grouped(shown):
        lines.extend(_group(group))
        lines.append(Line(""))
    lines.extend(_closing(summary))
    return rendered(lines, colour=colour, width=width)


def _group(group: Group) -> Iterator[Line]:
    finding, style = group.first, _STYLES[group.first.verdict]
    yield Line(f"{finding.verdict.value.upper()}  ", finding.headline, style)
    node = f" on {finding.event.node}" if finding.event.node else ""
    yield Line(
        "    ", f"event {finding.event.id}{node}, {clock(finding.event.time)}, rule {finding.rule}", "dim"
    )
    for warning in finding.warnings:
        yield Line("  ! ", warning, "yellow")
    number = 0
    for step in Step:
        pieces = [piece for piece in finding.evidence if piece.step is step]
        if not pieces:
            continue
        number += 1
        yield Line(f"  {number}. ", step.value, "bold")
        for piece in pieces:
            yield from _piece(piece)
    if finding.missing:
        yield Line("  ? ", "What was missing", "bold")
        for lack in finding.missing:
            yield Line("     · ", f"{lack.what}: {lack.why}")
            if lack.remedy:
                yield Line("       next time: ", lack.remedy, "dim")
    yield from _others(group)


def _piece(piece: Evidence) -> Iterator[Line]:
    mark, style = _MARKS[piece.bearing]
    yield Line(f"     {mark} ", piece.statement, style if piece.bearing is Bearing.AGAINST else "")
    yield Line("       ", f"[{piece.provenance.source}: {piece.provenance.query}]", "dim")
    if piece.by_hand:
        yield Line("       $ ", piece.by_hand, "cyan")


def _others(group: Group) -> Iterator[Line]:
    others = group.findings[1:]
    if not others:
        return
    last = others[-1].event
    plural = "s" if len(others) > 1 else ""
    yield Line("  = ", f"and {len(others)} more event{plural} like it, until {clock(last.time)}:", "bold")
    for finding in others[:_LISTED]:
        yield Line(f"     {finding.event.id}  ", finding.headline, "dim")
    if len(others) > _LISTED:
        yield Line("     ", f"... and {len(others) - _LISTED} more (--format jsonl has each)", "dim")


def _closing(summary: Summary) -> Iterator[Line]:
    yield Line(
        "",
        f"{summary.events} event{'' if summary.events == 1 else 's'}: {summary.confirmed} confirmed, "
        f"{summary.refuted} refuted, {summary.inconclusive} inconclusive",
        "bold",
    )
    if summary.unparsed:
        plural = "" if summary.unparsed == 1 else "s"
        yield Line(
            "", f"{summary.unparsed} line{plural} of the log could not be read as audit records:", "yellow"
        )
        for example in summary.examples:
            yield Line("  ", example, "dim")
    yield from failures(summary.unobservable)
