"""Several labs at once, each in a thread of its own.

They act in turns, so that what one writes into the log is not taken for another's (see `lab.Machine`), and
are judged side by side: most of a judgement is waiting for the host to settle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from tests.live.engines import Kind
from tests.live.lab import Lab, Machine, lab

Outcome = TypeVar("Outcome")


class Pool:
    """A lab of each kind. What a lab starts, its own thread starts: see `lab.Kin` and `lab.bare`."""

    def __init__(self, machine: Machine, kinds: Sequence[Kind]) -> None:
        self._machine = machine
        self._threads = {kind: ThreadPoolExecutor(1) for kind in kinds}
        self._stacks = {kind: ExitStack() for kind in kinds}
        self._labs: dict[Kind, Lab] = {}
        self._over = False

    def submit(self, kind: Kind, task: Callable[[Lab], Outcome]) -> Future[Outcome]:
        """Have it done in the lab of that kind, after what it has been given before."""
        return self._threads[kind].submit(self._do, kind, task)

    def _do(self, kind: Kind, task: Callable[[Lab], Outcome]) -> Outcome:
        if self._over:
            raise CancelledError
        if kind not in self._labs:
            self._labs[kind] = self._stacks[kind].enter_context(lab(self._machine, kind))
        return task(self._labs[kind])

    def close(self) -> None:
        """Take all labs down, what has not begun left undone; raises what went wrong, at the end."""
        self._over = True
        futures = [thread.submit(self._stacks[kind].close) for kind, thread in self._threads.items()]
        for thread in self._threads.values():
            thread.shutdown()
        for future in futures:
            future.result()


@contextmanager
def pool(machine: Machine, kinds: Sequence[Kind]) -> Iterator[Pool]:
    """The pool; its labs are brought up when they are first used."""
    made = Pool(machine, kinds)
    try:
        yield made
    finally:
        made.close()
