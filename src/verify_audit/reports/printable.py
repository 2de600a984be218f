"""Hostile text made fit to be shown.

Names of devices, tables, processes and containers can hold anything: terminal codes, markup, marks
that turn the direction of writing. What is not a printable character is shown as its code.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with everything that is not printable as \xNN, \uNNNN or \UNNNNNNNN.

    str.isprintable() is False for control and format characters, surrogates, unassigned code points and
    every separator but the blank (Python's documentation, Unicode categories "Other" and "Separator").
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _code(each) for each in text)


def _code(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, kept by surrogateescape (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
