"""Who listens, for people and as JSON lines (sniffers.schema.json)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from verify_audit.findings.words import clock, who
from verify_audit.host.facts import Process
from verify_audit.host.hearing import Hearing, protocol_name
from verify_audit.host.ledger import Holder
from verify_audit.host.sweep import Conclusion, Device, Listener, Place
from verify_audit.reports.jsonl import encoded, failure, timestamp
from verify_audit.reports.lines import Line, failures, rendered

LISTENER = "verify-audit.listener/1"
DEVICE = "verify-audit.device/1"
SWEEP = "verify-audit.sweep/1"

_NAMED = 8
_XDP = "an XDP program is attached to it, which sees each packet and is no packet socket"
_HOOKED = "tc filters may stand on it (clsact, ingress), which see each packet and are no packet socket"


def text(conclusion: Conclusion, *, colour: bool, width: int | None, quiet: bool) -> str:
    """The whole report. quiet: only what nothing explains and what could not be looked at."""
    lines: list[Line] = []
    for listener in conclusion.listeners:
        if listener.unexplained or not quiet:
            lines += _listener(conclusion, listener)
    explained: dict[tuple[str, str], list[str]] = {}
    for device in conclusion.devices:
        if device.unexplained or any(_notes(device)):
            if device.unexplained or not quiet:
                lines += _device(device)
        else:
            explained.setdefault((device.place.text, _reason(device)), []).append(device.ledger.link.name)
    if not quiet:
        for (place, reason), names in explained.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            each = "each " if len(names) > 1 else ""
            lines.append(
                Line("held     ", f"{', '.join(names[:_NAMED])}{more} {place}: {each}{reason}", "dim")
            )
    if quiet and not lines and not conclusion.failures:
        return ""
    if lines:
        lines.append(Line(""))
    lines.append(Line("", _closing(conclusion), "bold"))
    lines += failures(conclusion.failures)
    return rendered(lines, colour=colour, width=width)


def _listener(conclusion: Conclusion, listener: Listener) -> Iterator[Line]:
    socket = listener.socket
    mark, style = ("LISTENS  ", "bold red") if listener.unexplained else ("deaf     ", "dim")
    if listener.hearing is Hearing.CONTROL:
        mark = "control  "
    names = [_who(conclusion, process) for process in socket.holders] or ["a process that could not be found"]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    yield Line(mark, f"{names[0]}{more}, on {_on(listener)}, {_mode(listener)}", style)
    for process, name in zip(socket.holders, names, strict=False):
        prefix = f"{name}: " if more else ""
        yield Line("    ", f"{prefix}process running since {clock(process.started_at)}", "dim")
    length = socket.filter
    plural = "" if length == 1 else "s"
    filtered = f"a filter of {length} instruction{plural}" if length else "no filter"
    if length is None:
        filtered = "filter not known"
    takes = "protocol not known" if socket.ifindex < 0 else f"takes protocol {protocol_name(socket.protocol)}"
    yield Line("    ", f"{takes}, {filtered}; packet socket {socket.inode}", "dim")


def _who(conclusion: Conclusion, process: Process) -> str:
    container = process.container_id
    return who(process) + (f" in container {conclusion.container_name(container)}" if container else "")


def _on(listener: Listener) -> str:
    if listener.socket.ifindex < 0:
        return f"a device {listener.place.text}"
    return f"{listener.device or 'every device'} {listener.place.text}"


def _mode(listener: Listener) -> str:
    match listener.hearing:
        case Hearing.DEAF:
            return "hears nothing"
        case Hearing.CONTROL:
            return f"hears {protocol_name(listener.socket.protocol)} only"
    if listener.promiscuous_on == (listener.device,):
        return "in promiscuous mode"
    if listener.promiscuous_on:
        return f"in promiscuous mode on {', '.join(listener.promiscuous_on)}"
    if not listener.socket.whole:
        return "in promiscuous mode or not, which the kernel did not tell"
    if listener.socket.addresses:
        return f"for the address {', '.join(address for _, address in listener.socket.addresses)} too"
    return "without asking for promiscuous mode"


def _device(device: Device) -> Iterator[Line]:
    held = device.ledger
    name = f"{held.link.name} {device.place.text}"
    if device.unexplained:
        yield Line("HELD     ", f"{name}: {_reason(device)}", "bold red")
    else:
        yield Line("held     " if held.count else "note     ", f"{name}: {_reason(device)}", "dim")
    for note in _notes(device):
        yield Line("    ! ", note, "yellow")


def _reason(device: Device) -> str:
    """How often it is promiscuous, and by whom; those that need not hold it only where the others fall short."""
    held = device.ledger
    if not held.count:
        return "not promiscuous"
    holds = [hold for hold in held.holds if hold.least or (held.count > held.least and hold.most != 0)]
    reasons = [f"{_range(hold.least, hold.most)} by {hold.text}" for hold in holds]
    if held.remainder:
        reasons.append(f"{held.remainder} by somebody whom nothing here shows")
    once = "once" if held.count == 1 else f"{held.count} times"
    if held.least == held.count == 1:
        return f"promiscuous once, by {holds[0].text}"
    return f"promiscuous {once}: {'; '.join(reasons)}"


def _range(least: int, most: int | None) -> str:
    if most is None:
        return "perhaps" if not least else f"at least {least}"
    return f"{least}" if least == most else f"{least} to {most}"


def _notes(device: Device) -> Iterator[str]:
    if device.ledger.link.xdp:
        yield _XDP
    if device.hooked:
        yield _HOOKED


def _closing(conclusion: Conclusion) -> str:
    swept = conclusion.swept
    devices = sum(len(namespace.links or ()) for namespace in swept.namespaces)
    promiscuous = sum(device.ledger.count > 0 for device in conclusion.devices)
    return (
        f"{len(swept.namespaces)} network namespaces, {devices} devices, {promiscuous} promiscuous, "
        f"{len(conclusion.listeners)} packet sockets: {conclusion.unexplained} unexplained"
    )


def lines(conclusion: Conclusion, *, quiet: bool) -> Iterator[str]:
    """The JSON lines, each without its line end: listeners, devices, and the sum at the end."""
    for listener in conclusion.listeners:
        if listener.unexplained or not quiet:
            yield encoded(_listener_object(conclusion, listener))
    for device in conclusion.devices:
        if device.unexplained or not quiet:
            yield encoded(_device_object(conclusion, device))
    if not quiet or conclusion.exit_status:
        yield encoded(_sum_object(conclusion))


def _listener_object(conclusion: Conclusion, listener: Listener) -> dict[str, Any]:
    socket = listener.socket
    somewhere = socket.ifindex < 0
    return {
        "schema": LISTENER,
        "unexplained": listener.unexplained,
        "hears": listener.hearing.value,
        "text": f"{_on(listener)}, {_mode(listener)}",
        "namespace": _place(conclusion, listener.place),
        "device": listener.device,
        "ifindex": None if somewhere else socket.ifindex,
        "protocol": None if somewhere else socket.protocol,
        "protocol_name": None if somewhere else protocol_name(socket.protocol),
        "promiscuous_on": list(listener.promiscuous_on),
        "addresses": [address for _, address in socket.addresses],
        "memberships_known": socket.whole,
        "filter": socket.filter,
        "inode": socket.inode,
        "uid": socket.uid,
        "processes": [_process(conclusion, process) for process in socket.holders],
    }


def _process(conclusion: Conclusion, process: Process) -> dict[str, Any]:
    return {
        "pid": process.identity.pid,
        "started_at": timestamp(process.started_at),
        "exe": process.exe,
        "comm": process.comm,
        "argv": list(process.argv),
        "uid": process.uid,
        "login_uid": process.loginuid,
        "container": _container(conclusion, process.container_id) if process.container_id else None,
    }


def _container(conclusion: Conclusion, container_id: str) -> dict[str, str]:
    return {"id": container_id, "name": conclusion.container_name(container_id)}


def _place(conclusion: Conclusion, place: Place) -> dict[str, Any]:
    return {
        "inode": place.netns,
        "kind": place.where.value,
        "containers": [_container(conclusion, each) for each in place.containers],
        "text": place.text,
    }


def _device_object(conclusion: Conclusion, device: Device) -> dict[str, Any]:
    held = device.ledger
    return {
        "schema": DEVICE,
        "unexplained": device.unexplained,
        "namespace": _place(conclusion, device.place),
        "device": held.link.name,
        "ifindex": held.link.ifindex,
        "kind": held.link.kind,
        "promiscuity": held.count,
        "least": held.least,
        "most": held.most,
        "remainder": held.remainder,
        "holders": [
            {
                "kind": hold.holder.value,
                "text": hold.text,
                "least": hold.least,
                "most": hold.most,
                "explained": hold.explained,
                "inode": hold.socket.inode
                if hold.socket is not None and hold.holder is Holder.SOCKET
                else None,
            }
            for hold in held.holds
        ],
        "notes": list(_notes(device)),
    }


def _sum_object(conclusion: Conclusion) -> dict[str, Any]:
    swept = conclusion.swept
    return {
        "schema": SWEEP,
        "at": timestamp(swept.at),
        "namespaces": len(swept.namespaces),
        "devices": sum(len(namespace.links or ()) for namespace in swept.namespaces),
        "promiscuous": sum(device.ledger.count > 0 for device in conclusion.devices),
        "listeners": len(conclusion.listeners),
        "unexplained": conclusion.unexplained,
        "unobservable": [failure(each) for each in conclusion.failures],
    }
