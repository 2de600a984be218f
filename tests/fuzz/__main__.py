"""Runs the fuzzer on each target for a while; ends with status 1 when it has found something.

References: atheris, https://github.com/google/atheris; libFuzzer's options, https://llvm.org/docs/LibFuzzer.html
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.fuzz.seeds import WORDS, seeds
from tests.fuzz.targets import TARGETS

_CORPUS = Path(__file__).parent / "corpus"
_FOUND = Path(".hypothesis") / "fuzz"
"""Where an input that fails is put, in a directory for each target; not in the repository."""

_LIMITS = (
    "-timeout=20",
    "-rss_limit_mb=2048",
    "-malloc_limit_mb=512",
    "-len_control=10",
    "-print_final_stats=1",
)
_LONGEST = {"decision": 64}
"""Bytes of an input; of choices a few are enough to change much."""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=20, metavar="N", help="for each target (20)")
    parser.add_argument("--keep", action="store_true", help="put what widens the corpus into it, minimised")
    options = parser.parse_args()
    fuzzed = partial(_fuzzed, seconds=options.seconds, keep=options.keep)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        clean = list(pool.map(fuzzed, options.targets or TARGETS))
    if not all(clean):
        print(f"The inputs are in {_FOUND}: mend what they break, then put them into {_CORPUS}.")
    return int(not all(clean))


def _fuzzed(target: str, seconds: int, *, keep: bool) -> bool:
    """Fuzz one target in a process of its own; whether nothing was found."""
    kept, found = _CORPUS / target, _FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        grown, begun, words = (Path(scratch) / name for name in ("grown", "begun", "words"))
        grown.mkdir()
        begun.mkdir()
        for number, seed in enumerate(seeds(target)):
            (begun / str(number)).write_bytes(seed)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
        child = [sys.executable, "-m", "tests.fuzz.child", target, *_LIMITS, f"-artifact_prefix={found}/"]
        child.append(f"-max_len={_LONGEST.get(target, 4096)}")
        corpora = [str(grown), str(kept), str(begun)]
        ran = subprocess.run(
            [*child, f"-max_total_time={seconds}", f"-dict={words}", *corpora],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if ran.returncode:
            told = [line for line in ran.stdout.splitlines() if not line.startswith(("#", "INFO: "))]
            print(f"{target}: FAILED", *told, sep="\n", flush=True)
            return False
        runs, places = (re.findall(form, ran.stdout) for form in (r"Done (\d+) runs", r" cov: (\d+) "))
        print(f"{target}: {runs[-1]} inputs in {seconds} s, {places[-1]} places reached", flush=True)
        if keep:
            # What reaches other places than the rest, and no more: to tell rounds apart would keep ten times as many.
            subprocess.run([*child, "-merge=1", "-use_counters=0", str(kept), str(grown)], check=True)
    return True


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{each:02x}" for each in word)


if __name__ == "__main__":
    sys.exit(main())
