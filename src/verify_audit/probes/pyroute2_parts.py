"""The parts of pyroute2 that are needed, without the rest.

`import pyroute2` loads all of it (conntrack, a database of links, asyncio, multiprocessing): about
120 ms, half of what an answer may take. Its message classes are a tenth of that. A submodule cannot
be imported without its package, so the package is put in place unexecuted; the submodules are then
found and loaded as ever. Whoever has imported pyroute2 already keeps that one.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verify_audit.probes.netlink import NetlinkError


def part(name: str) -> Any:
    """The submodule `pyroute2.NAME`. ImportError when pyroute2 is not installed."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None:
            raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"pyroute2.{name}")


def decoded(kind: Any, reply: bytes) -> Any:
    """The reply as a message of that class of pyroute2's. Use it within reading()."""
    # It logs a traceback for each that it cannot read, which without this would come out on stderr.
    logging.getLogger("pyroute2").addHandler(_SILENT)
    message = kind(reply)
    message.decode()
    return message


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns into NetlinkError whatever pyroute2 raises on bytes that make no sense, be it late: it decodes
    attributes only when they are asked for."""
    try:
        yield
    except NetlinkError:
        raise
    except Exception as error:
        raise NetlinkError(0, f"{what} cannot be read: {error}") from error


_SILENT = logging.NullHandler()
