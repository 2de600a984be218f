"""One target under the fuzzer:  python -m tests.fuzz.child TARGET OPTION... DIRECTORY...

What is ours is imported under the fuzzer's eyes, so that it sees which inputs lead to new places.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["verify_audit"]):
    from tests.fuzz.targets import TARGETS

# To merge corpora libFuzzer starts itself again, by a line for the shell that begins with this.
itself = f"{sys.executable} -m tests.fuzz.child {sys.argv[1]}"
atheris.Setup([itself, *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
