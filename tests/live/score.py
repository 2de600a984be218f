"""How often the program was right: causes against verdicts, counted and told.

What really caused an event is what the scenario says that made it (`play.Expected.cause`), never what the
program says. A case is one kind of event of one scenario, on one engine and firewall, with companions
(SYSCALL, PROCTITLE) or without; its verdict is the worst that one of its events was given.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from verify_audit.reports.printable import printable

DOCKER, NESTED, OTHER = CAUSES = ("docker", "nested docker", "other")
CONFIRMED, INCONCLUSIVE, REFUTED = VERDICTS = ("confirmed", "inconclusive", "refuted")

WANTED_SCENARIOS = 40
WANTED_SHARE = {True: 2.0, False: 15.0}
"""Percent of inconclusive, with companions and without, that it is to stay under."""

_LONGEST = 150
"""Characters of a reason that are told."""


def cause_of(kind: str | None) -> str:
    """What a scenario says that caused an event, as one of CAUSES."""
    return {"docker": DOCKER, "nested-docker": NESTED}.get(kind or "", OTHER)


@dataclass(frozen=True)
class Said:
    """What was said of one event: the verdict, the kind of cause that is named, and why it was left open."""

    verdict: str
    kind: str = "unknown"
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: dict[str, Any]) -> Said:
        """From a finding in JSON."""
        reasons = [f"{missing['what']}: {missing['why']}" for missing in found["missing"]]
        if not reasons:
            reasons = [piece["statement"] for piece in found["evidence"] if piece["bearing"] == "against"]
        if found["verdict"] != INCONCLUSIVE:
            reasons = []
        return cls(found["verdict"], (found["cause"] or {}).get("kind") or "unknown", tuple(reasons))

    def is_wrong(self, cause: str) -> bool:
        """Whether Docker's work is refuted, another's confirmed, or one engine's taken for the other's."""
        if self.verdict == CONFIRMED:
            mistaken = {DOCKER: "nested-docker", NESTED: "docker"}
            return cause == OTHER or self.kind == mistaken[cause]
        return self.verdict == REFUTED and cause != OTHER


@dataclass(frozen=True)
class Case:
    """One kind of event of one scenario, in one lab.

    engine: its version; backend: its firewall; what: the events; cause: one of CAUSES; said: of each event.
    """

    scenario: str
    engine: str
    backend: str
    companions: bool
    what: str
    cause: str
    said: tuple[Said, ...]

    @property
    def wrong(self) -> list[Said]:
        """What was said wrongly."""
        return [said for said in self.said if said.is_wrong(self.cause)]

    @property
    def verdict(self) -> str:
        """The worst: a wrong one, else inconclusive, else what is right. There must be an event."""
        given = [said.verdict for said in self.wrong or self.said]
        return INCONCLUSIVE if INCONCLUSIVE in given else given[0]


@dataclass(frozen=True)
class Score:
    """What has been played: cases with an event, the names of all scenarios, and what could not be played."""

    cases: Sequence[Case]
    scenarios: frozenset[str]
    unplayed: Sequence[str] = ()

    @property
    def exit_status(self) -> int:
        """1 when a verdict is wrong, or when something was not played and so might have been; else 0."""
        return int(any(case.wrong for case in self.cases) or bool(self.unplayed) or not self.cases)

    def lines(self) -> list[str]:
        """For people."""
        return [
            *_confusion("events", self.cases, lambda case: [said.verdict for said in case.said]),
            "",
            *_confusion("cases", self.cases, lambda case: [case.verdict]),
            "",
            *_by_lab(self.cases),
            "",
            *self._against_what_is_wanted(),
            *_wrong(self.cases),
            *_open(self.cases, True),
            *_open(self.cases, False),
        ]

    def _against_what_is_wanted(self) -> list[str]:
        wrong = Counter(said.verdict for case in self.cases for said in case.wrong)
        rows = [["", "seen", "wanted", ""]]
        for verdict in (CONFIRMED, REFUTED):
            rows.append([f"wrong {verdict.upper()}", str(wrong[verdict]), "0", _met(not wrong[verdict])])
        for companions, most in WANTED_SHARE.items():
            for what, share in (("events", _event_share), ("cases", _case_share)):
                seen = share([case for case in self.cases if case.companions is companions])
                name = f"inconclusive {_with(companions)}, of {what}"
                rows.append([name, _percent(seen), f"under {most:g} %", _met(seen is None or seen < most)])
        count = len(self.scenarios)
        rows.append(
            ["scenarios", str(count), f"at least {WANTED_SCENARIOS}", _met(count >= WANTED_SCENARIOS)]
        )
        if self.unplayed:
            rows.append(["not played", str(len(self.unplayed)), "0", _met(False)])
        return [*_columns(rows), *(f"  not played: {printable(each)}" for each in self.unplayed)]

    def as_json(self) -> dict[str, Any]:
        """All of it, so that anything else can be counted from it."""
        return {
            "schema": "verify-audit.score/1",
            "scenarios": sorted(self.scenarios),
            "unplayed": list(self.unplayed),
            "wrong": sum(len(case.wrong) for case in self.cases),
            "inconclusive_percent": {
                f"{what} {_with(companions)}": share(
                    [case for case in self.cases if case.companions is companions]
                )
                for companions in (True, False)
                for what, share in (("events", _event_share), ("cases", _case_share))
            },
            "cases": [asdict(case) for case in self.cases],
        }


def _with(companions: bool) -> str:
    return "with companions" if companions else "without"


def _met(is_met: bool) -> str:
    return "ok" if is_met else "NOT MET"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1f} %"


def _event_share(cases: Iterable[Case]) -> float | None:
    return _share([said.verdict for case in cases for said in case.said])


def _case_share(cases: Iterable[Case]) -> float | None:
    return _share([case.verdict for case in cases])


def _share(verdicts: Sequence[str]) -> float | None:
    """Percent of inconclusive; None without any verdict."""
    return 100 * verdicts.count(INCONCLUSIVE) / len(verdicts) if verdicts else None


def _confusion(title: str, cases: Iterable[Case], given: Callable[[Case], Sequence[str]]) -> list[str]:
    counts = Counter((case.cause, case.companions, verdict) for case in cases for verdict in given(case))
    rows = [
        [title, *(f"{verdict}{'' if each else ', bare'}" for each in (True, False) for verdict in VERDICTS)]
    ]
    rows += [
        [cause, *(f"{counts[cause, each, verdict]:,}" for each in (True, False) for verdict in VERDICTS)]
        for cause in CAUSES
    ]
    return _columns(rows)


def _by_lab(cases: Iterable[Case]) -> list[str]:
    labs: defaultdict[tuple[str, str, bool], list[Case]] = defaultdict(list)
    for case in cases:
        labs[case.engine, case.backend, case.companions].append(case)
    rows = [["engine", "firewall", "companions", "events", "inconclusive", "cases", "inconclusive", "wrong"]]
    for (engine, backend, companions), played in sorted(labs.items(), key=_order):
        rows.append(
            [
                engine,
                backend,
                "yes" if companions else "no",
                f"{sum(len(case.said) for case in played):,}",
                _percent(_event_share(played)),
                f"{len(played):,}",
                _percent(_case_share(played)),
                str(sum(len(case.wrong) for case in played)),
            ]
        )
    return _columns(rows)


def _order(lab: tuple[tuple[str, str, bool], Any]) -> tuple[Any, ...]:
    (engine, backend, companions), _ = lab
    return [int(number) for number in re.findall(r"\d+", engine)], not companions, backend


def _wrong(cases: Iterable[Case]) -> list[str]:
    return [
        f"WRONG: {printable(case.scenario)}: {printable(case.what)}, caused by {case.cause}, {said.verdict.upper()} "
        f"({printable(said.kind)}) on {case.engine} {case.backend} {_with(case.companions)}"
        for case in cases
        for said in case.wrong
    ]


def _open(cases: Iterable[Case], companions: bool) -> list[str]:
    """Each inconclusive case and why, those of the same kind of event together."""
    alike: defaultdict[tuple[str, str, str], list[Case]] = defaultdict(list)
    for case in cases:
        if case.companions is companions:
            alike[case.scenario, case.what, case.cause].append(case)
    lines = []
    for (scenario, what, cause), played in alike.items():
        left_open = [case for case in played if case.verdict == INCONCLUSIVE]
        if left_open:
            share = f"{len(left_open)} of {_counted(len(played), 'case')}"
            lines.append(
                f"  {printable(scenario)}: {printable(what)} ({cause}): {share}, {_where(left_open)}"
            )
            lines += [f"      {reason}" for reason in _reasons(left_open)]
    return ["", f"Inconclusive {_with(companions)}:", *lines] if lines else []


def _where(cases: Iterable[Case]) -> str:
    """The labs: `20.10.24 nft legacy, 26.1.5 nft`."""
    backends: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.backend not in backends[case.engine]:
            backends[case.engine].append(case.backend)
    return ", ".join(" ".join([engine, *listed]) for engine, listed in backends.items())


def _reasons(cases: Iterable[Case]) -> list[str]:
    """Why, each once with the number of its events; reasons that differ in names or numbers only are the same."""
    counts: Counter[str] = Counter()
    for case in cases:
        for said in case.said:
            if said.verdict == INCONCLUSIVE:
                counts["; ".join(map(_shortened, said.reasons)) or "no reason is given"] += 1
    return [f"{_counted(count, 'event')}: {reason}" for reason, count in counts.most_common()]


def _shortened(reason: str) -> str:
    plain = re.sub(r"\b(veth|br-)[0-9a-f]{7,}\b", r"\1...", printable(reason))
    plain = re.sub(r"\b[0-9a-f]{12,}\b", "...", plain)
    plain = re.sub(r"\b\d+(?:\.\d+)*\b", "N", plain)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}..."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, numbers to the right, words to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_number = [
        all(re.fullmatch(r"[\d,.]+(?: %)?|-|", row[column]) for row in rows[1:])
        for column in range(len(widths))
    ]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in rows
    ]
