from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify_audit.reports.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text, with blanks", "plain text, with blanks"),
        ("é 日本 Ω", "é 日本 Ω"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\r\tc", "a\\x0ab\\x0d\\x09c"),
        ("\x00\x7f\x9b\xa0", "\\x00\\x7f\\x9b\\xa0"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u200b\u2028\ufeff", "\\u200b\\u2028\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff", "\\xff"),
        ("\udc80", "\\x80"),
        ("\udc7f\ud800", "\\udc7f\\ud800"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_what_cannot_be_printed_is_shown_as_its_code(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text() | st.binary().map(lambda each: each.decode("utf-8", "surrogateescape")))
def test_what_comes_out_can_be_printed_and_nothing_else_was_changed(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert [each for each in shown if not each.isascii()] == [
        each for each in text if each.isprintable() and not each.isascii()
    ]
    if text.isprintable():
        assert shown == text


@given(st.characters())
def test_no_control_format_or_surrogate_character_gets_through(character: str) -> None:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        assert printable(character).startswith("\\")
        assert printable(character).isascii()
