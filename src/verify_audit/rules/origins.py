"""Which event of the log made a rule, and which took one away.

The log is read through once, by what each event says that it did: the command of its PROCTITLE or EXECVE,
its tables, its backend. A command names a rule to the letter or it does not count as certain.

Blind spots: no record says in which network namespace it was made, so a command of another namespace may
be taken for the one that made a rule here. A command line is what a process says of itself.

References: net/netfilter/nf_tables_api.c nf_tables_commit_audit_log(), which gives the lowest message of a
commit as its op; net/netfilter/x_tables.c.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import NamedTuple

from verify_audit.audit import decode
from verify_audit.audit.record import Event
from verify_audit.findings.inventory import Origin
from verify_audit.host.expected import ExpectedRule
from verify_audit.host.firewall import Backend, FirewallRule, RuleSpec
from verify_audit.host.iptables_command import FirewallCommand, parse_command
from verify_audit.rules.actor import Actors
from verify_audit.rules.change import Change, read_change, sockopt_of, text_of

_ADDING = ("append", "insert", "replace")
_EMPTYING = ("flush", "delete_chain", "delete_table")
_NOT_RULES = ("check", "list", "zero", "policy", "new_chain", "new_table", "rename")
# Of one commit the record has the lowest message: with one of these there was no NFT_MSG_NEWRULE in it,
# with one of those neither a NEWRULE nor a DELRULE (linux/netfilter/nf_tables.h).
_ADDS_NONE = ("nft_unregister_rule",)
_NEITHER = (
    *("nft_register_set", "nft_unregister_set", "nft_register_setelem", "nft_unregister_setelem"),
    *("nft_register_obj", "nft_unregister_obj", "nft_reset_obj", "nft_reset_rule", "nft_reset_setelem"),
    *("nft_register_flowtable", "nft_unregister_flowtable", "xt_register", "xt_unregister"),
)
_Place = tuple[str, str, str]
_Key = tuple[str, str, str, RuleSpec]


class _Step(NamedTuple):
    """One event, and what it did to rules. backend: None when the records do not say."""

    order: int
    event: Event
    change: Change
    backend: Backend | None

    def in_backend(self, backend: Backend | None) -> bool:
        """Whether it may have been in that backend; None is any."""
        return backend is None or self.backend in (None, backend)


class Origins:
    """The events of one host's log, to be asked for those of a rule.

    generation: the number of nf_tables' commits so far in the namespace that is looked at; a record with a
    higher one is of another. since: when the host was booted, which no rule outlives; None when not known.
    """

    def __init__(
        self, events: Iterable[Event], actors: Actors, generation: int | None, since: float | None
    ) -> None:
        self._actors = actors
        self._added: dict[_Key, list[_Step]] = defaultdict(list)
        self._deleted: dict[_Key, list[_Step]] = defaultdict(list)
        self._emptied: dict[tuple[str | None, str | None, str | None], list[_Step]] = defaultdict(list)
        self._unclear: dict[tuple[str, str], list[_Step]] = defaultdict(list)
        for order, event in enumerate(events):
            if since is None or event.time >= since:
                self._take(_step(order, event), generation)

    def _take(self, step: _Step, generation: int | None) -> None:
        change, command = step.change, step.change.command
        record = step.event.first("SYSCALL")
        call = decode.syscall(record) if record is not None else None
        if call is not None and call.success is False:
            return
        sockopt = sockopt_of(step.event)
        if not change.records and sockopt is not None and sockopt.option == "add_counters":
            return  # the second call of the same command
        if any(
            each.generation is not None and generation is not None and each.generation > generation
            for each in change.records
        ):
            return
        if command is not None and command.action in _NOT_RULES:
            return
        if command is not None and command.action in _EMPTYING:
            self._emptied[command.family, command.table, command.chain].append(step)
            return
        spec = command.spec if command is not None else None
        if command is None or spec is None or spec.opaque or command.chain is None or command.family is None:
            for place in change.places:
                self._unclear[place].append(step)
            return
        key = (command.family, command.table or "filter", command.chain, spec)
        if command.action in _ADDING:
            self._added[key].append(step)
        elif command.action == "delete":
            self._deleted[key].append(step)
        if command.action == "replace":  # what it replaced goes by number
            for place in change.places:
                self._unclear[place].append(step)

    # Who made it

    def makers(self, rules: Sequence[FirewallRule]) -> list[Origin | None]:
        """For each of the rules that equal one another, in the order of their making, the event that made it.

        The last of them belongs to the last event that was not undone.
        """
        first = rules[0]
        key = (first.family, first.table, first.chain, first.spec)
        standing: list[_Step] = []
        for step, kind in self._story([key], first.backend):
            if kind == "added":
                standing.append(step)
            elif kind == "deleted":
                del standing[-1:]
            else:
                standing.clear()
        certain = standing[max(0, len(standing) - len(rules)) :]
        found: list[Origin | None] = [None] * (len(rules) - len(certain))
        return found + [self._origin(step) for step in certain]

    def may_have_made(
        self, rule: FirewallRule, after: Event | None = None, before: Event | None = None
    ) -> Origin | None:
        """The last event that may have made a rule, where no command says that it did.

        after, before: events that made an older and a younger rule of its table.
        """
        for step in reversed(self._unclear[rule.family, rule.table]):
            command = step.change.command
            if (
                step.in_backend(rule.backend)
                and (after is None or _moment(step.event) > _moment(after))
                and (before is None or _moment(step.event) < _moment(before))
                and (_can(step, adding=True) or rule.chain.startswith("@"))
                and (command is None or command.action not in ("delete", *_EMPTYING))
                and _may_be(step.event, command, rule.chain, rule.spec)
            ):
                return self._origin(step, _doubt(command))
        return None

    # Who took it away

    def remover(self, rule: ExpectedRule) -> Origin | None:
        """The event that took away a rule that is missing; None when the log does not have it."""
        keys = [(rule.family, rule.table, rule.chain, spec) for spec in (rule.spec, *rule.variants)]
        story = self._story(keys, None)
        if story and story[-1][1] != "added":
            return self._origin(story[-1][0])
        since = story[-1][0].order if story else -1
        for step in reversed(self._unclear[rule.family, rule.table]):
            if step.order <= since:
                return None
            command = step.change.command
            if (
                _can(step, adding=False)
                and (command is None or command.action not in ("append", "insert"))
                and _may_be(step.event, command, rule.chain, rule.spec)
            ):
                return self._origin(step, _doubt(command))
        return None

    def _story(self, keys: Sequence[_Key], backend: Backend | None) -> list[tuple[_Step, str]]:
        """What the log says was done to a rule, in order."""
        family, table, chain, _ = keys[0]
        told = [(step, "added") for key in keys for step in self._added.get(key, ())]
        told += [(step, "deleted") for key in keys for step in self._deleted.get(key, ())]
        for place in ((family, table, chain), (family, table, None), (None, None, None)):
            told += [(step, "emptied") for step in self._emptied.get(place, ())]
        return sorted(
            [(step, kind) for step, kind in told if step.in_backend(backend)], key=lambda each: each[0].order
        )

    def _origin(self, step: _Step, doubt: str = "") -> Origin:
        command = step.change.command
        cause = self._actors.of(step.event, engine_acts_itself=False).cause
        acted = next((each for each in step.change.records if each.pid is not None), None)
        if cause.pid is None and acted is not None:
            called = f" that called itself {text_of(acted.comm)}" if acted.comm is not None else ""
            cause = cause._replace(pid=acted.pid, text=f"a process {acted.pid}{called}")
        return Origin(
            step.event,
            cause,
            f"{command.program} {command.text}" if command is not None else "",
            doubt,
        )


def _moment(event: Event) -> tuple[float, int]:
    return event.time, event.serial


def _step(order: int, event: Event) -> _Step:
    change = read_change(event)
    ops = [each.op or "" for each in change.records]
    backend = None
    if any(op.startswith("nft_") for op in ops):
        backend = Backend.NFT
    elif any(op.startswith("xt_") for op in ops) or sockopt_of(event) is not None:
        backend = Backend.LEGACY
    return _Step(order, event, change, backend)


def _can(step: _Step, *, adding: bool) -> bool:
    """Whether its records leave it open that it added a rule, or took one away."""
    without = (*_NEITHER, *_ADDS_NONE) if adding else _NEITHER
    return not step.change.records or any(each.op not in without for each in step.change.records)


def _may_be(event: Event, command: FirewallCommand | None, chain: str, spec: RuleSpec) -> bool:
    """Whether a command that is not wholly known may be about that rule."""
    if command is None:
        return True
    if command.chain is not None and command.chain != chain:
        return False
    if command.spec is None or not command.truncated:
        return True
    known = _without_its_end(event)
    return known is None or _fits(known, spec)


def _without_its_end(event: Event) -> RuleSpec | None:
    """What a cut command says before its last option, which may be half of one."""
    command = decode.command(event)
    words = list(command.argv) if command is not None else []
    del words[-1:]
    while words and (words[-1].startswith(b"-") or not words[-1]):
        del words[-1]
    parsed = parse_command(words, truncated=True)
    return parsed.spec if parsed is not None else None


def _fits(part: RuleSpec, whole: RuleSpec) -> bool:
    nothing = RuleSpec()
    return all(
        getattr(part, field.name) in (getattr(nothing, field.name), getattr(whole, field.name))
        for field in fields(RuleSpec)
        if field.name not in ("options", "opaque")
    )


def _doubt(command: FirewallCommand | None) -> str:
    if command is None:
        return "the records of this event name no command"
    if command.truncated:
        return "only the beginning of its command is recorded"
    if command.action == "restore":
        return "the rules are not in its command"
    if command.program == "nft":
        return "of a command of nft's only the table and the chain are understood"
    if command.spec is None:
        return "its command gives no rule, or a number instead of one"
    return "its command is not wholly understood"
