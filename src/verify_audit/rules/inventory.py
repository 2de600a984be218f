"""The firewall, rule by rule: what explains each, what is missing, and which event of the log it was.

Blind spots: those of host/attribution.py and rules/origins.py. The namespaces of containers are not looked
at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from verify_audit.audit.record import Event
from verify_audit.findings.finding import ContainerRef, NetworkRef
from verify_audit.findings.inventory import Inventory, Origin, Row, Standing
from verify_audit.host import questions as ask
from verify_audit.host.attribution import Attribution, concerns_docker, explain_spec, is_foreign
from verify_audit.host.docker_layout import is_docker_chain, looks_like_docker_chain
from verify_audit.host.expected import ExpectedRule
from verify_audit.host.firewall import Chain, Firewall, FirewallRule
from verify_audit.host.observation import Observation, Observed, Unobservable
from verify_audit.host.questions import Host
from verify_audit.rules.actor import Actors
from verify_audit.rules.here import is_here
from verify_audit.rules.origins import Origins
from verify_audit.rules.picture import Picture

_NEWEST = ""
"""Of an engine that cannot be asked: the newest version that is known."""

_OTHER_VERSIONS = ("1.12", "17.06", "20.10", "28.5", "29.0")
"""One for each set of chains that Docker has had."""


def inventory(host: Host, events: Iterable[Event], *, logged: bool = True, unread: int = 0) -> Inventory:
    """Every rule that concerns Docker.

    events: those of the log, in its order. logged: whether there was a log; unread: how
    many of its lines could not be read.
    """
    picture = Picture(host)
    found = picture.layout.firewall
    if not isinstance(found, Observed):
        return Inventory(picture.layout.version, (), _unobservable(found), logged, unread)
    boot = host.ask(ask.BOOT)
    since = boot.fact.at if isinstance(boot, Observed) else None
    here = (event for event in events if is_here(event.node, host))
    origins = Origins(here, Actors(picture), found.fact.nft_generation, since)
    rows = _Rows(picture, found.fact, origins).all()
    if not rows:
        return Inventory(picture.layout.version, (), (), logged, unread)
    needed = (picture.engine, picture.daemon, picture.networks, picture.containers)
    return Inventory(picture.layout.version, rows, _unobservable(*needed), logged, unread)


def changing_at(host: Host) -> float | None:
    """When the engine last reported that it did something to a container or a network; None if it did not."""
    history = host.ask(ask.HISTORY)
    if not isinstance(history, Observed):
        return None
    kinds = ("container", "network")
    return max((event.at for event in history.fact.events if event.type in kinds), default=None)


def _unobservable(*answers: Observation[object]) -> tuple[Unobservable, ...]:
    failures = [answer for answer in answers if isinstance(answer, Unobservable)]
    return tuple({(each.provenance.source, each.reason): each for each in failures}.values())


class _Rows:
    def __init__(self, picture: Picture, firewall: Firewall, origins: Origins) -> None:
        self._picture = picture
        self._layout = picture.layout
        self._firewall = firewall
        self._origins = origins
        self._positions = _positions(firewall)

    def all(self) -> tuple[Row, ...]:
        """In the order of the firewall; what is missing stands at the end of its chain."""
        attribution = self._layout.attribution
        version = self._layout.version if attribution is not None else None
        if attribution is None:
            rows = [
                self._row(rule, Standing.UNKNOWN, self._why_unknown)
                for rule in self._firewall.rules
                if concerns_docker(_NEWEST, rule)
            ]
        else:
            rows = self._attributed(attribution)
        for chain in self._firewall.chains:
            if is_foreign(version or _NEWEST, chain):
                rows.append(self._foreign(chain, version))
        if not any(self._is_dockers(chain) for chain in self._firewall.chains) and not any(
            row.standing is not Standing.MISSING or row.origin for row in rows
        ):
            return ()  # nothing of Docker's was ever here: iptables=false
        places = {
            (chain.family, chain.table, chain.name): at for at, chain in enumerate(self._firewall.chains)
        }
        after = len(places)
        rows.sort(key=lambda row: places.get((row.family, row.table, row.chain), after))
        return tuple(rows)

    def _is_dockers(self, chain: Chain) -> bool:
        version = self._layout.version or _NEWEST
        return looks_like_docker_chain(chain.name) or is_docker_chain(version, chain.table, chain.name)

    @property
    def _why_unknown(self) -> str:
        if self._picture.is_other_product:
            return "what answers on the API socket is not Docker, so it cannot be explained"
        return "it cannot be explained without the engine"

    def _attributed(self, attribution: Attribution) -> list[Row]:
        because = {id(rule): expected for rule, expected in attribution.explained}
        unexplained = {id(rule) for rule in attribution.unexplained}
        shown = [rule for rule in self._firewall.rules if id(rule) in because or id(rule) in unexplained]
        made = self._makers(shown)
        neighbours = _Neighbours(shown, made)
        rows = []
        for rule in shown:
            expected = because.get(id(rule))
            if expected is not None:
                row = self._row(rule, Standing.EXPLAINED, expected.because, expected, made[id(rule)])
            else:
                origin = made[id(rule)] or self._origins.may_have_made(rule, *neighbours.of(rule))
                row = self._row(rule, Standing.UNEXPLAINED, self._why_unexplained(rule), None, origin)
            rows.append(row)
        return rows + [self._missing(expected) for expected in attribution.missing]

    def _makers(self, rules: Iterable[FirewallRule]) -> dict[int, Origin | None]:
        """By the rule's id(). Of several that are equal the one with the highest handle is the youngest."""
        equal: dict[tuple[object, ...], list[FirewallRule]] = defaultdict(list)
        for rule in rules:
            equal[rule.backend, rule.family, rule.table, rule.chain, rule.spec].append(rule)
        made: dict[int, Origin | None] = {}
        for same in equal.values():
            same.sort(key=lambda rule: rule.handle or 0)
            for rule, origin in zip(same, self._origins.makers(same), strict=True):
                made[id(rule)] = origin
        return made

    def _row(
        self,
        rule: FirewallRule,
        standing: Standing,
        because: str,
        expected: ExpectedRule | None = None,
        origin: Origin | None = None,
    ) -> Row:
        container, network = self._for(expected)
        return Row(
            standing,
            rule.backend.value,
            rule.family,
            rule.table,
            rule.chain,
            rule.handle,
            self._positions[id(rule)],
            str(rule.spec),
            because,
            container,
            network,
            origin,
        )

    def _for(self, expected: ExpectedRule | None) -> tuple[ContainerRef | None, NetworkRef | None]:
        if expected is None:
            return None, None
        return (
            self._picture.container_ref(expected.container_id or ""),
            self._picture.network_ref(expected.network_id or ""),
        )

    def _missing(self, expected: ExpectedRule) -> Row:
        container, network = self._for(expected)
        return Row(
            Standing.MISSING,
            None,
            expected.family,
            expected.table,
            expected.chain,
            None,
            None,
            str(expected.spec),
            expected.because,
            container,
            network,
            self._origins.remover(expected),
        )

    def _why_unexplained(self, rule: FirewallRule) -> str:
        expected = explain_spec(rule.spec, rule.family, rule.table, rule.chain, self._layout.expected)
        if expected is not None:
            return f"once too often: Docker makes such a rule once ({expected.because})"
        if rule.chain == "DOCKER-USER":
            return "in the chain that Docker leaves to the admin: an admin's or an intruder's"
        if rule.spec.opaque:
            return "part of it could not be understood, which is so of no rule that Docker makes"
        inside = is_docker_chain(self._layout.version or _NEWEST, rule.table, rule.chain)
        if not inside and not looks_like_docker_chain(rule.chain):
            return f"leads into {rule.spec.target}, and this engine leads nothing there from here"
        return "nothing that this engine runs calls for it"

    def _foreign(self, chain: Chain, version: str | None) -> Row:
        if version is None:
            standing, because = Standing.UNKNOWN, self._why_unknown
        else:
            standing, because = Standing.UNEXPLAINED, f"Docker {version} makes no such chain"
            if any(not is_foreign(other, chain) for other in _OTHER_VERSIONS):
                because += "; other versions do, and it may be left over"
        return Row(
            *(standing, chain.backend.value, chain.family, chain.table, chain.name, chain.handle, None, None),
            because,
        )


class _Neighbours:
    """The rules of each table of nf_tables whose events are known, by handle: handles are given in order."""

    def __init__(self, rules: Iterable[FirewallRule], made: Mapping[int, Origin | None]) -> None:
        known: dict[tuple[str, str], list[tuple[int, Event]]] = defaultdict(list)
        for rule in rules:
            origin = made[id(rule)]
            if rule.handle is not None and origin is not None:
                known[rule.family, rule.table].append((rule.handle, origin.event))
        self._known = {table: sorted(events, key=lambda each: each[0]) for table, events in known.items()}

    def of(self, rule: FirewallRule) -> tuple[Event | None, Event | None]:
        """The events that made the next older and the next younger rule of its table, where they are known."""
        if rule.handle is None:
            return None, None
        known = self._known.get((rule.family, rule.table), [])
        at = bisect_left(known, rule.handle, key=lambda each: each[0])
        return (known[at - 1][1] if at else None), (known[at][1] if at < len(known) else None)


def _positions(firewall: Firewall) -> dict[int, int]:
    """The place of each rule in its chain, from 1, by its id()."""
    counted: Counter[tuple[str, str, str, str]] = Counter()
    positions = {}
    for rule in firewall.rules:
        place = (rule.backend.value, rule.family, rule.table, rule.chain)
        counted[place] += 1
        positions[id(rule)] = counted[place]
    return positions
