"""Where the fuzzer begins: what real logs, hosts, kernels and engines said (tests/samples)."""

from __future__ import annotations

from tests.audit.log import ANOM, ANOM_SYSCALL, ENRICHED, NETFILTER, PROCTITLE, SYSCALL, TCPDUMP
from tests.firewall_samples import legacy_copy, replies
from tests.fuzz.decision import cases
from tests.fuzz.targets import ANSWERS
from tests.hostile import NAMES
from tests.probe_samples import answer, reply
from tests.probe_samples import replies as dumped

_LINKS = ("link lo", "link docker0", "link veth62fbe28", "link veth1234567", "link vethabcdef0")


WORDS = (
    *(
        b"type=%b msg=audit(1795436164.311:31): " % kind
        for kind in (b"ANOM_PROMISCUOUS", b"NETFILTER_CFG", b"SYSCALL")
    ),
    *(
        b" prom=256",
        b" old_prom=0",
        b" family=2",
        b" entries=2",
        b" op=nft_register_chain",
        b' comm="iptables"',
    ),
    *(
        b"dev=",
        b"table=nat:2",
        b" subj=",
        b" exe=",
        b" key=(null)",
        b"\x1d",
        b"node=host1 ",
        b" auid=4294967295",
    ),
    *(
        b"argc=2 a0=",
        b"a1[0]=",
        b"proctitle=",
        b"nargs=5 a0=3 a1=0 a2=40",
        b"UNKNOWN[1700]",
        b"----\n",
        b"EOE",
    ),
)
"""What a log is made of, for the fuzzer to put in."""


def seeds(target: str) -> list[bytes]:
    """The inputs to begin with."""
    return _SEEDS[target]()


def _log() -> list[bytes]:
    one = b"\n".join((ANOM, ANOM_SYSCALL + ENRICHED, NETFILTER, SYSCALL, PROCTITLE, TCPDUMP, b""))
    hostile = [
        b"\x40type=ANOM_PROMISCUOUS msg=audit(1.000:1): dev=%b prom=256 old_prom=0 auid=0 uid=0 gid=0 ses=1\n"
        b'type=NETFILTER_CFG msg=audit(1.000:1): table=%b:2 family=2 entries=2 op=nft_register_chain pid=1 comm="x"\n'
        % (name, name)
        for name in (each.encode("utf-8", "surrogatepass") for each in NAMES if len(each) < 200)
    ]
    return [b"\x10" + one, *hostile, *(b"\xff" + b"".join(case.log)[:4000] for case in cases())]


def _decision() -> list[bytes]:
    changes = (b"\0\3\1", b"\1\4\1", b"\2\5\1\2\3\4\5\6", b"\5\0\2", b"\6\2\1\3\1\4", b"\7\4\0\7\2\1")
    return [
        bytes((number,)) + change
        for number in range(len(cases()))
        for change in (b"", changes[number % len(changes)])
    ]


def _recording() -> list[bytes]:
    hosts = sorted((case.written for case in cases()), key=len)
    return [b"\1" + hosts[0], *(b"\0" + bytes(range(number, number + 30)) for number in range(100))]


def _kernel() -> list[bytes]:
    found = [b"\0" + reply(name) for name in _LINKS]
    found += [b"\1" + reply("nsid of h1"), b"\2\0" + reply("link lo")]
    found += [b"\3\0" + each for each in dumped("packet sockets")]
    found += [
        b"\4" + reply("unix peer, accepted"),
        b"\5" + reply("unix listener"),
        b"\6" + reply("nsid of h1") * 3,
    ]
    for name in ("docker-20.10", "iptables-nft", "nft-native", "docker-29-native"):
        dump = replies(name)
        found += [b"\10" + each[16:17] + each[20:] for each in dump.rules]
        found += [b"\11" + each[16:17] + each[20:] for each in dump.chains[:4]]
        found += [b"\f" + each[16:17] + b"\0\0" + each[20:] for each in dump.elements[:4]]
        small = [each for each in (dump.tables[0], dump.chains[0], dump.rules[0]) if len(each) < 256]
        found.append(b"\7" + b"".join(bytes((len(each),)) + each for each in small))
    for family in ("docker-20.10-legacy", "iptables-legacy"):
        for table in legacy_copy(family).tables:
            for entry in (entry for chain in table.chains for entry in chain.entries):
                target = entry.target.encode()
                found.append(b"\n" + bytes((table.family == "ip6", len(target))) + target + b"\0" + entry.raw)
    found.append(
        b"\v\x48/docker/" + b"a" * 64 + b"4711 (a) b) S 1 " + b" ".join(map(b"%d".__mod__, range(5, 53)))
    )
    return list(dict.fromkeys(found))


def _engine() -> list[bytes]:
    whole = [bytes((number, 1)) + answer(name) for number, name in enumerate(ANSWERS.values())]
    return whole + [bytes((one % 6, 0, *range(one, one + 20))) for one in range(60)]


_SEEDS = {
    "log": _log,
    "decision": _decision,
    "recording": _recording,
    "kernel": _kernel,
    "engine": _engine,
}
