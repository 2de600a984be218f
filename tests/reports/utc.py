"""Reports in UTC, wherever the tests run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from verify_audit.findings.words import clock


@contextmanager
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block times are told in UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        clock.cache_clear()
        yield
    time.tzset()
    clock.cache_clear()
