"""Writes what live labs give as samples, for the tests that have no lab: RULE/CASE/event.log and host.json.

    python -m tests.live.record [WORD]...     as root; scenarios whose name holds a word, else all

event.log holds the scenario's records of that rule, host.json what the host answered when they were judged,
truth.json what really caused each.
Names of this machine and paths of the lab are replaced in both. A sample whose verdict is not what the
scenario expects is not written. Nor is one that is judged otherwise when it is read back.
"""

from __future__ import annotations

import json
import platform
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from tests.live.auditlog import LogEvent
from tests.live.engines import KINDS
from tests.live.lab import ROOT, Lab, cannot_run, judged, machine, program
from tests.live.play import Played, Scenario, played
from tests.live.pool import Pool, pool
from tests.live.scenarios import SCENARIOS

SAMPLES = ROOT / "tests" / "samples"

_KINDS = [kind for kind in KINDS if kind.root is None and kind.backend != "both"]
_RULES = {"promiscuous": "ANOM_PROMISCUOUS", "firewall": "NETFILTER_CFG"}
_PROCTITLE = re.compile(rb"^(type=PROCTITLE msg=audit\([^)]*\): proctitle=)([0-9A-F]+)$", re.MULTILINE)


def record(words: Sequence[str]) -> int:
    """Record all scenarios that were chosen; the exit status."""
    chosen = [one for one in SCENARIOS if not words or any(word in one.name for word in words)]
    failed = 0
    with machine() as shared, pool(shared, _KINDS) as labs:
        for scenario, future in list(_submitted(labs, chosen)):
            for line in _outcome(scenario, future):
                failed += not line.startswith("wrote")
                print(line, flush=True)
    return int(failed > 0)


def _submitted(labs: Pool, chosen: Sequence[Scenario]) -> Iterator[tuple[Scenario, Future[list[str]]]]:
    for scenario in chosen:
        for kind in filter(scenario.runs_on, _KINDS):
            yield scenario, labs.submit(kind, partial(record_scenario, scenario))


def _outcome(scenario: Scenario, future: Future[list[str]]) -> list[str]:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - the others are still to be recorded
        return [f"FAILED {scenario.name}: {error}"]


def record_scenario(scenario: Scenario, lab: Lab) -> list[str]:
    """Play a scenario and write a sample for each rule that it concerns; a line on each."""
    said = []
    with played(scenario, lab) as state:
        faults = state.faults()
        if faults:
            raise RuntimeError("; ".join(faults))
        for rule, record_type in _RULES.items():
            if lab.backend != "nft" and (lab.bare or rule == "promiscuous"):
                continue  # the firewall makes no difference to an interface, and little to a bare record
            events = [event for event in state.events if event.of(record_type)]
            if events:
                case = scenario.slug
                case += f"-{lab.backend}" if lab.backend != "nft" else ""
                case += "-bare" if lab.bare else ""
                said.append(record_sample(SAMPLES / rule / case, lab, state, events))
    return said


def record_sample(directory: Path, lab: Lab, state: Played, events: Sequence[LogEvent]) -> str:
    """Judge these events on the live host and write both down, if they are judged as they should be."""
    name = f"{directory.parent.name}/{directory.name}"
    saved = lab.directory / "host.json"
    live = lab.judge(events, "--save-host", str(saved))
    verdicts = [(found["event"]["id"], found["verdict"]) for found in live.findings]
    for event in events:
        expected = state.expectation(event)
        wanted = expected.allowed(lab.bare) if expected else frozenset()
        got = [found["verdict"] for found in live.of(event)]
        if not got or not wanted.issuperset(got):
            return f"LEFT OUT {name}: {event.id} is {got}, not {sorted(wanted)}; {live.stderr}"
    log = neutral(lab.host_log(events), lab)
    host = neutral_host(saved.read_text(), lab)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "event.log").write_bytes(log)
    (directory / "host.json").write_bytes(host)
    (directory / "truth.json").write_text(json.dumps(truth(state, events), indent=1) + "\n")
    command = program(
        "--format", "jsonl", "--host", str(directory / "host.json"), str(directory / "event.log")
    )
    again = judged(command)
    if [(found["event"]["id"], found["verdict"]) for found in again.findings] != verdicts:
        for file in ("event.log", "host.json", "truth.json"):
            (directory / file).unlink()
        return f"LEFT OUT {name}: judged otherwise from the recorded host: {again.stdout}{again.stderr}"
    return f"wrote {name}: {len(events)} events, {len(host) // 1024} KiB"


def truth(state: Played, events: Sequence[LogEvent]) -> dict[str, str]:
    """What really caused each event: docker, nested-docker or other."""
    found = {}
    for event in events:
        expected = state.expectation(event)
        if expected is not None and expected.cause is not None:
            found[event.id] = expected.cause if expected.cause in ("docker", "nested-docker") else "other"
    return found


def neutral(text: bytes, lab: Lab) -> bytes:
    """The same without names of this machine, of its user's Python and of the lab's directory."""
    replaced = [
        (str(lab.socket), "/run/docker.sock"),
        (f"{lab.bin}/", "/usr/sbin/"),
        (str(lab.directory), "/var/lib/lab"),
        (lab.name, "lab"),
        (str(ROOT), "/usr/src/verify-audit"),
        (str(Path(sys.executable).resolve()), "/usr/bin/python3"),
        (sys.executable, "/usr/bin/python3"),
        (sys.base_prefix, "/usr"),
        (sys.prefix, "/usr"),
    ]

    def plain(part: bytes) -> bytes:
        for old, new in replaced:
            part = part.replace(old.encode(), new.encode())
        return part

    def title(found: re.Match[bytes]) -> bytes:
        return found[1] + plain(bytes.fromhex(found[2].decode())).hex().upper().encode()

    return plain(_PROCTITLE.sub(title, text))


def neutral_host(text: str, lab: Lab) -> bytes:
    """A recorded host without what belongs to this machine: its processes, cgroups, name and boot."""
    node = platform.node()

    def of_a_lab(value: Any) -> Any:
        if isinstance(value, list):
            return [of_a_lab(part) for part in value]
        if not isinstance(value, dict):
            return value
        kept = {name: of_a_lab(part) for name, part in value.items()}
        if "argv" in kept and kept["identity"]["pid"] not in lab.kin:
            kept |= _INIT if kept["identity"]["pid"] == 1 else _SHELL
        if kept.get("outcome") == "observed" and kept.get("text"):
            kept["text"] = json.dumps(kept["fact"], separators=(",", ":"))
        if "cgroup" in kept:
            kept["cgroup"] = "\n".join(map(_cgroup, kept["cgroup"].split("\n")))
        if "boot_id" in kept:
            kept["boot_id"] = "11111111-2222-4333-8444-555555555555"
        for name in ("hostname", "name"):
            if kept.get(name) == node:
                kept[name] = "dockerhost"
        return kept

    plain = neutral(json.dumps(of_a_lab(json.loads(text)), indent=1).encode() + b"\n", lab)
    if left := re.search(rb"/(?:tmp|root|home)/[\w./-]+|va-[0-9a-f]{4}\b", plain):
        raise RuntimeError(f"the recorded host still names {left[0].decode()}")
    return plain


# Who started the suite is nobody's business: in a sample it is a shell, started by init.
_INIT = {"comm": "systemd", "exe": "/usr/lib/systemd/systemd", "argv": ["/sbin/init"]}
_SHELL = {"comm": "bash", "exe": "/usr/bin/bash", "argv": ["-bash"]}


def _cgroup(line: str) -> str:
    """A line of /proc/PID/cgroup: the path only where it is the engine's."""
    head, _, path = line.rpartition(":")
    return f"{head}:{path}" if "/docker" in path or not head else f"{head}:/"


def main() -> int:
    """The command."""
    reasons = cannot_run()
    if reasons:
        print(f"no lab can be brought up here: {'; '.join(reasons)}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _interrupt)  # one that is told to end takes its labs down first
    return record(sys.argv[1:])


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
