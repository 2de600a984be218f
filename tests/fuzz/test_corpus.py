"""What the fuzzer has found, done again without it. With atheris, python -m tests.fuzz goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_is_read_does_harm(target: str) -> None:
    begun = {f"seed {number}": seed for number, seed in enumerate(seeds(target))}
    kept = {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}
    assert begun
    assert kept
    for name, data in (begun | kept).items():
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target}, {name}") from error


def test_the_corpus_is_small() -> None:
    """It is read with every test run, and kept for ever."""
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 400_000
