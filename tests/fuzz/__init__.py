"""Fuzzing: whatever a log, a recorded host, the kernel or the engine may say.

    python -m tests.fuzz [--seconds N] [--keep] [TARGET]...     needs atheris (pip install -e '.[fuzz]')

`targets` holds what is done with bytes, and what must hold of it. What the fuzzer has found is in corpus/TARGET, small,
and is done again by test_corpus.py without a fuzzer.
"""
