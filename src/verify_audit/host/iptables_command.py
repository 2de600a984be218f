"""What a firewall command asked for: iptables and its kin, and nft, from their arguments.

The arguments come from PROCTITLE or EXECVE. iptables blanks each `!` in its own argv, so that it reads
as an empty argument; PROCTITLE is cut at 128 bytes. All of it is what a process said of itself.

References: iptables(8), iptables-extensions(8), iptables-restore(8), nft(8); iptables/xshared.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from verify_audit.host.firewall import (
    ADDRESS_TYPES,
    STATES,
    Match,
    RuleSpec,
    network,
    ordered,
    ports,
    protocol,
)


@dataclass(frozen=True, slots=True)
class FirewallCommand:
    """One command line, understood as far as it goes.

    program:  the name it ran under, without directory ("iptables").
    family:   "ip", "ip6", "arp", "bridge", or with nft what it says there; None when it is for all.
    table:    None when the command names none, or was cut before it could.
    action:   "append", "insert", "delete", "check", "replace", "new_chain", "delete_chain", "rename",
              "flush", "zero", "policy", "list", "restore" (rules on standard input or in a file);
              with nft also "new_table", "delete_table" and VERB_OBJECT ("add_set"); "unknown".
    chain:    None when it is for all chains, or was cut.
    spec:     the rule; None when there is none or it goes by number. Cut or not understood in part:
              it has opaque parts.
    truncated: whether the command was longer than what we have of it.
    wait_position: where `--wait` stood: "first" (before the action, as Docker has it), "last" or None.
    text:     the arguments as one line.
    """

    program: str
    family: str | None
    table: str | None
    action: str
    chain: str | None = None
    spec: RuleSpec | None = None
    truncated: bool = False
    wait_position: str | None = None
    text: str = ""


_PROGRAM = re.compile(r"(iptables|ip6tables|arptables|ebtables)(-nft|-legacy)?(-restore|-save)?")
_FAMILIES = {"iptables": "ip", "ip6tables": "ip6", "arptables": "arp", "ebtables": "bridge"}
_CUT = "cut here"

# Option: action, and how many arguments it takes at least and at most.
_ACTIONS = {
    "-A": ("append", 1, 1),
    "-C": ("check", 1, 1),
    "-D": ("delete", 1, 2),
    "-I": ("insert", 1, 2),
    "-R": ("replace", 2, 2),
    "-L": ("list", 0, 2),
    "-S": ("list", 0, 2),
    "-F": ("flush", 0, 1),
    "-Z": ("zero", 0, 2),
    "-N": ("new_chain", 1, 1),
    "-X": ("delete_chain", 0, 1),
    "-P": ("policy", 2, 2),
    "-E": ("rename", 2, 2),
}
_WITH_RULE = ("append", "check", "delete", "insert", "replace")
_LONG = {
    "--append": "-A",
    "--check": "-C",
    "--delete": "-D",
    "--insert": "-I",
    "--replace": "-R",
    "--list": "-L",
    "--list-rules": "-S",
    "--flush": "-F",
    "--zero": "-Z",
    "--new-chain": "-N",
    "--new": "-N",
    "--delete-chain": "-X",
    "--policy": "-P",
    "--rename-chain": "-E",
    "--table": "-t",
    "--wait": "-w",
    "--wait-interval": "-W",
    "--protocol": "-p",
    "--proto": "-p",
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--jump": "-j",
    "--goto": "-g",
    "--match": "-m",
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--modprobe": "-M",
    "--set-counters": "-c",
    "--numeric": "-n",
    "--verbose": "-v",
    "--exact": "-x",
    "--line-numbers": "-n",
    "--ipv4": "-4",
    "--ipv6": "-6",
}
_QUIET = ("-n", "-v", "-x", "-4", "-6")
# Without meaning here, and how many values each takes.
_IGNORED = {"-M": 1, "-W": 1, "-c": 2, **dict.fromkeys(_QUIET, 0)}
_LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_WITHOUT_OPTIONS_OF_INTEREST = (
    "tcp",
    "udp",
    "sctp",
    "conntrack",
    "state",
    "addrtype",
    "set",
    "mark",
    "comment",
)


def parse_command(argv: Sequence[bytes], *, truncated: bool = False) -> FirewallCommand | None:
    """What the command asked for; None when it is no firewall command. Never raises.

    truncated: whether the last argument may be cut, and others be missing after it.
    """
    words = [word.decode("utf-8", "surrogateescape") for word in argv]
    if words and re.fullmatch(r"xtables-(nft-|legacy-)?multi", _name(words[0])):
        words = words[1:]
    if not words:
        return None
    program = _name(words[0])
    if program == "nft":
        return _nft(words[1:], truncated)
    known = _PROGRAM.fullmatch(program)
    if known is None:
        return None
    family = _FAMILIES[known[1]]
    # A blanked "!" is two zero bytes, which read as two empty arguments.
    text = " ".join(word or "!" for word in words[1:]).replace("! !", "!")
    if known[3] == "-save":
        return FirewallCommand(program, family, None, "list", truncated=truncated, text=text)
    if known[3] == "-restore":
        table = _restored(words[1:])
        return FirewallCommand(program, family, table, "restore", truncated=truncated, text=text)
    reader = _Reader(words[1:], family, truncated)
    reader.read()
    spec = reader.spec() if known[1] in ("iptables", "ip6tables") else None
    return FirewallCommand(
        program,
        family,
        reader.table or (None if truncated else "filter"),
        reader.action,
        reader.chain,
        spec,
        truncated,
        reader.wait_position,
        text,
    )


def _restored(words: list[str]) -> str | None:
    """The one table that iptables-restore is to restore; its `-t` is for a test."""
    for word, following in pairwise(words):
        if word in ("-T", "--table"):
            return following
    return None


def parse_rule(words: Sequence[str], family: str) -> RuleSpec:
    """The rule that these words, as they follow the chain in an iptables command, describe.

    family: "ip" or "ip6". Never raises; what is not understood is opaque.
    """
    reader = _Reader(list(words), family, truncated=False)
    reader.read()
    return reader.spec() or RuleSpec(opaque=tuple(words))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


class _Reader:
    """Goes through the arguments as getopt_long(3) does."""

    def __init__(self, words: list[str], family: str, truncated: bool) -> None:
        self._words = words
        self._family = family
        self._truncated = truncated
        self._at = 0
        self._fields: dict[str, Any] = {}
        self._opaque: list[str] = []
        self._options: list[str] = []
        self.table: str | None = None
        self.action = "unknown"
        self.chain: str | None = None
        self.wait_position: str | None = None
        self._by_number = False

    def read(self) -> None:
        """All of them."""
        negated = False
        while self._at < len(self._words):
            word = self._words[self._at]
            self._at += 1
            if word in ("", "!"):
                negated = True
                continue
            option, value = _split(word)
            self._take(option, value, negated)
            negated = False

    def spec(self) -> RuleSpec | None:
        """The rule; None when the action has none."""
        if self.action not in (*_WITH_RULE, "unknown") or self._by_number:
            return None
        if self._truncated:
            self._opaque.append(_CUT)
        if self._fields.get("target") == "REJECT" and not self._options:
            kind = "icmp6" if self._family == "ip6" else "icmp"
            self._options.append(f"--reject-with {kind}-port-unreachable")
        return RuleSpec(**self._fields, options=tuple(self._options), opaque=tuple(self._opaque))

    def _next(self, value: str | None = None) -> str:
        """The value of an option: what was written to it, or the next argument."""
        if value is not None:
            return value
        if self._at < len(self._words):
            self._at += 1
            return self._words[self._at - 1]
        self._opaque.append("without a value")
        return ""

    def _optional(self) -> str | None:
        """The next argument unless it is an option, or may be a `!`."""
        if self._at < len(self._words) and self._words[self._at] not in ("", "!"):
            word = self._words[self._at]
            if not word.startswith("-"):
                self._at += 1
                return word
        return None

    def _put(self, field: str, value: object) -> None:
        if field in self._fields:
            self._opaque.append(f"and {field} {value}")
        else:
            self._fields[field] = value

    def _take(self, option: str, value: str | None, negated: bool) -> None:
        if option in _ACTIONS:
            self._act(option, value)
        elif option == "-t":
            at = self._at
            table = self._next(value)
            # The last word of a cut line may be half a name.
            self.table = None if self._truncated and max(at, self._at) >= len(self._words) else table
        elif option == "-w":
            self._wait(value)
        elif option in _IGNORED:
            for _ in range(_IGNORED[option]):
                value = self._next(value) and None
        elif option == "-m":
            name = self._next(value)
            if name not in _WITHOUT_OPTIONS_OF_INTEREST:
                self._opaque.append(f"-m {name}")
        elif option in ("-j", "-g"):
            self._put("target", self._next(value))
            if option == "-g":
                self._put("goto", True)
        elif option in _CONDITIONS:
            self._condition(option, value, negated)
        elif option in _TARGET_OPTIONS:
            self._target_option(option, value)
        else:
            self._unknown(option, value, negated)

    def _act(self, option: str, value: str | None) -> None:
        action, least, most = _ACTIONS[option]
        words = [] if value is None else [value]
        while len(words) < most:
            word = self._next() if len(words) < least else self._optional()
            if word is None:
                break
            words.append(word)
        if self.action != "unknown":  # `-L -Z` is allowed, and changes; the rest is an error
            self.action = action if self.action == "list" else self.action
        else:
            self.action = action
        if words and not (self._truncated and len(words) == 1 and self._at >= len(self._words)):
            self.chain = words[0]
        number = words[1] if len(words) > 1 else ""
        if action == "delete" and number:
            self._by_number = True

    def _wait(self, value: str | None) -> None:
        if value is None:
            following = self._words[self._at] if self._at < len(self._words) else ""
            if following.isascii() and following.isdigit():
                self._at += 1
        if self.action == "unknown":
            self.wait_position = "first"
        elif self._at >= len(self._words) and not self._truncated:
            self.wait_position = "last"

    def _condition(self, option: str, value: str | None, negated: bool) -> None:
        field, canonical = _CONDITIONS[option]
        text = self._next(value)
        if text in ("", "!"):  # the old form, `-s ! ADDRESS`
            negated, text = True, self._next()
        if option == "--match-set":
            text = f"{text} {self._next()}"
        try:
            known = canonical(text)
        except ValueError:
            self._opaque.append(f"{'! ' if negated else ''}{option} {text}")
            return
        if known is None:
            if negated:
                self._opaque.append(f"! {option} {text}")
        elif field == "sets":
            self._fields["sets"] = (*self._fields.get("sets", ()), Match(known, negated))
        elif field == "comment":
            self._put(field, known)
        else:
            self._put(field, Match(known, negated))

    def _target_option(self, option: str, value: str | None) -> None:
        takes, where = _TARGET_OPTIONS[option]
        text = self._next(value) if takes else ""
        if where == "to":
            self._put("to", text)
        elif option == "--log-level":
            level = _LOG_LEVELS.index(text) if text in _LOG_LEVELS else text
            if str(level) != "4":
                self._options.append(f"--log-level {level}")
        elif option == "--log-prefix":
            self._options.append(f'--log-prefix "{text}"')
        else:
            self._options.append(f"{option} {text}".rstrip())

    def _unknown(self, option: str, value: str | None, negated: bool) -> None:
        words = [option] if value is None else [option, value]
        while (word := self._optional()) is not None:
            words.append(word)
        self._opaque.append(("! " if negated else "") + " ".join(words))


def _split(word: str) -> tuple[str, str | None]:
    """An option in its short form where it has one, and the value written to it (`-tnat`, `--table=nat`)."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return _LONG.get(name, name), value if equals else None
    if len(word) > 2 and word.startswith("-"):
        if word[:2] in _QUIET:  # flags in one word, `-nvL`
            return _split("-" + word[2:])
        return word[:2], word[2:]
    return word, None


def _same(text: str) -> str | None:
    return text


def _interface(text: str) -> str | None:
    return None if text == "+" else text


def _ports(text: str) -> str | None:
    first, colon, last = text.partition(":")
    low = int(first) if first or not colon else 0
    high = (int(last) if last else 0xFFFF) if colon else low
    return None if (low, high) == (0, 0xFFFF) else ports(low, high)


def _mark(text: str) -> str | None:
    mark, slash, mask = text.partition("/")
    bits = int(mask, 0) if slash else 0xFFFFFFFF
    return f"{int(mark, 0):#x}" + ("" if bits == 0xFFFFFFFF else f"/{bits:#x}")


_CONDITIONS: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "-p": ("protocol", protocol),
    "-s": ("source", network),
    "-d": ("destination", network),
    "-i": ("in_interface", _interface),
    "-o": ("out_interface", _interface),
    "--sport": ("source_ports", _ports),
    "--dport": ("destination_ports", _ports),
    "--src-type": ("source_type", lambda text: ordered(text.upper().split(","), ADDRESS_TYPES)),
    "--dst-type": ("destination_type", lambda text: ordered(text.upper().split(","), ADDRESS_TYPES)),
    "--ctstate": ("states", lambda text: ordered(text.upper().split(","), STATES)),
    "--state": ("states", lambda text: ordered(text.upper().split(","), STATES)),
    "--match-set": ("sets", _same),
    "--mark": ("mark", _mark),
    "--comment": ("comment", _same),
}
_TARGET_OPTIONS = {
    "--to-destination": (True, "to"),
    "--to-source": (True, "to"),
    "--to-ports": (True, "to"),
    "--reject-with": (True, "options"),
    "--log-prefix": (True, "options"),
    "--log-level": (True, "options"),
    "--checksum-fill": (False, "options"),
    "--random": (False, "options"),
    "--persistent": (False, "options"),
    "--random-fully": (False, "options"),
}

_NFT_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_NFT_VERBS = ("add", "create", "insert", "delete", "destroy", "replace", "flush", "list", "rename", "reset")
_NFT_ACTIONS = {
    "add rule": "append",
    "insert rule": "insert",
    "delete rule": "delete",
    "destroy rule": "delete",
    "replace rule": "replace",
    "add chain": "new_chain",
    "create chain": "new_chain",
    "delete chain": "delete_chain",
    "destroy chain": "delete_chain",
    "rename chain": "rename",
    "add table": "new_table",
    "create table": "new_table",
    "delete table": "delete_table",
    "destroy table": "delete_table",
}
_NFT_FLAGS_WITH_VALUE = ("-I", "--includepath", "-D", "--define")


def _nft(words: list[str], truncated: bool) -> FirewallCommand:
    """nft takes its command in one argument or in many; only its beginning is read."""
    at, from_file = 0, False
    while at < len(words) and words[at].startswith("-"):
        if words[at] in ("-f", "--file") or words[at].startswith("--file="):
            from_file = True
        at += 2 if words[at] in _NFT_FLAGS_WITH_VALUE else 1
    text = " ".join(words)
    outside = re.sub(r"\{[^}]*\}?", "", " ".join(words[at:]))
    tokens = " ".join(words[at:]).split()
    if from_file or ";" in outside.rstrip("; ") or "\n" in outside.strip():
        return FirewallCommand("nft", None, None, "restore", truncated=truncated, text=text)
    if not tokens or tokens[0] not in _NFT_VERBS:
        return FirewallCommand("nft", None, None, "unknown", truncated=truncated, text=text)
    verb, what, rest = tokens[0], tokens[1] if len(tokens) > 1 else "", tokens[2:]
    if what in (*_NFT_FAMILIES, ""):  # `nft add ip ...` is no command
        return FirewallCommand("nft", None, None, "unknown", truncated=truncated, text=text)
    family: str | None = "ip"
    if rest and rest[0] in _NFT_FAMILIES:
        family, rest = rest[0], rest[1:]
    elif not rest:
        family = None
    action = verb if verb in ("list", "flush") else _NFT_ACTIONS.get(f"{verb} {what}", f"{verb}_{what}")
    if truncated:  # the last word may be half a name
        rest = rest[:-1]
    names = rest[:2]
    table = names[0] if names else None
    chain = names[1] if len(names) > 1 and what in ("rule", "chain") else None
    return FirewallCommand("nft", family, table, action, chain, None, truncated, None, text)
