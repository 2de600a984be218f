"""The host that a command asks: this one, or a recorded one."""

from __future__ import annotations

import time
from pathlib import Path

from verify_audit.audit.record import Event
from verify_audit.cli.output import Failure
from verify_audit.host.questions import AskedOnce


def host_to_ask(recorded: Path | None, docker_host: str, timeout: float, events: list[Event]) -> AskedOnce:
    """The recorded host, or this one, already being asked what any event needs. Raises Failure."""
    if recorded is not None:
        from verify_audit.probes.recorded import RecordingError, load

        try:
            return AskedOnce(load(recorded))
        except RecordingError as error:
            raise Failure(str(error)) from error
    if events:
        _let_settle(events)
    from verify_audit.probes.live import LiveHost

    live = LiveHost(docker_host, timeout)
    if events:
        live.ask_ahead()
    return AskedOnce(live)


def _let_settle(events: list[Event]) -> None:
    """Wait until the host has settled after the newest event: the engine tells of it only afterwards."""
    from verify_audit.investigate import SETTLING

    age = time.time() - max(event.time for event in events)
    if 0 <= age < SETTLING:
        time.sleep(SETTLING - age)


def save_answers(path: Path, host: AskedOnce) -> None:
    """Write down what the host answered. Raises Failure."""
    from verify_audit.probes.recorded import save

    try:
        save(path, host.answers, time.time())
    except OSError as error:
        raise Failure(f"{path}: the recorded host could not be written: {error.strerror}") from error
