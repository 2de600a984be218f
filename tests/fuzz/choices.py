"""Bytes taken for a row of choices, so that a fuzzer that changes bytes changes decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Choices:
    """Reads choices off bytes. When these are used up every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there are bytes that have not been used."""
        return self._at < len(self._data)

    def below(self, end: int) -> int:
        """A number from 0 on, less than end."""
        return int.from_bytes(self.take(1 if end <= 256 else 3), "little") % end

    def of(self, items: Sequence[Item]) -> Item:
        """One of these."""
        return items[self.below(len(items))]

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def some(self) -> bytes:
        """A few bytes: their number, then they."""
        return self.take(self.below(256))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))
