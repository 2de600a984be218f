"""The parts of pyroute2 that are needed, without the rest.

`import pyroute2` loads all of it (conntrack, a database of links, asyncio, multiprocessing): about
120 ms, half of what an answer may take. Its message classes are a tenth of that. A submodule cannot
be imported without its package, so the package is put in place unexecuted; the submodules are then
found and loaded as ever. Whoever has imported pyroute2 already keeps that one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def part(name: str) -> Any:
    """The submodule `pyroute2.NAME`. ImportError when pyroute2 is not installed."""
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None:
            raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"pyroute2.{name}")
