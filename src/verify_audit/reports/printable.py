"""Hostile text made fit to be shown.

Names of devices, tables, processes and containers can hold anything: terminal codes, markup, marks
that turn the direction of writing. What is not a character that stands by itself, in its place, is shown
as its code.
"""

from __future__ import annotations

from unicodedata import bidirectional, category, east_asian_width

LONGEST = 4_096
"""Characters of one statement that are shown: a path is no longer (PATH_MAX), a forged line of a log can be."""

_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols that show nothing: the fillers of Hangul, and a Braille cell without dots."""


def printable(text: str) -> str:
    r"""The text with everything that is not printable as \xNN, \uNNNN or \UNNNNNNNN.

    str.isprintable() is False for control and format characters, surrogates, unassigned code points and
    every separator but the blank (Python's documentation, Unicode categories "Other" and "Separator").
    Also shown as codes: marks that are put over the character before them, what is blank without being a
    blank, and letters that are written from right to left, since they make a terminal turn the numbers
    and brackets beside them (Unicode Standard Annex 9).
    """
    if text.isascii():
        if text.isprintable():
            return text
        return "".join(each if each.isprintable() else _code(each) for each in text)
    return "".join(each if " " <= each <= "~" or _stands_by_itself(each) else _code(each) for each in text)


def _stands_by_itself(character: str) -> bool:
    return (
        character.isprintable()
        and character not in _BLANK
        and category(character) not in ("Mn", "Me")
        and bidirectional(character) not in ("R", "AL", "AN")
    )


def shown(text: str) -> str:
    """The same, cut after LONGEST characters."""
    if len(text) <= LONGEST:
        return printable(text)
    return f"{printable(text[:LONGEST])}... (cut; {len(text)} characters in all)"


def columns(text: str) -> int:
    """How many columns of a terminal a printable text takes (Unicode Standard Annex 11)."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def _code(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, kept by surrogateescape (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
