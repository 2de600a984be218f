from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import unsafe_in_terminal
from verify_audit.reports.printable import LONGEST, columns, printable, shown


@pytest.mark.parametrize(
    ("text", "code"),
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
        ("\u05d0 4711 \u0627\u0661", "\\u05d0 4711 \\u0627\\u0661"),
        ("e\u0301 \u0489", "e\\u0301 \\u0489"),
        ("\u3164\u2800\u115f", "\\u3164\\u2800\\u115f"),
    ],
)
def test_what_cannot_be_printed_is_shown_as_its_code(text: str, code: str) -> None:
    assert printable(text) == code


@given(st.text() | st.binary().map(lambda each: each.decode("utf-8", "surrogateescape")))
def test_what_comes_out_can_be_printed_and_nothing_else_was_changed(text: str) -> None:
    printed = printable(text)
    assert printed.isprintable()
    printed.encode("utf-8")
    assert printable(printed) == printed
    assert unsafe_in_terminal(printed) == []
    assert [each for each in printed if not each.isascii()] == [
        each for each in text if not each.isascii() and not unsafe_in_terminal(each)
    ]
    if not unsafe_in_terminal(text.replace("\n", "\0")):
        assert printed == text


@given(st.characters())
def test_no_control_format_or_surrogate_character_gets_through(character: str) -> None:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        assert printable(character).startswith("\\")
        assert printable(character).isascii()


def test_what_no_name_can_be_so_long_as_is_cut() -> None:
    assert shown("x" * LONGEST) == "x" * LONGEST
    assert shown("\x1b" * 1_000_000) == "\\x1b" * LONGEST + "... (cut; 1000000 characters in all)"


@pytest.mark.parametrize(("text", "number"), [("", 0), ("abc", 3), ("é", 1), ("日本", 4), ("\uff21x", 3)])
def test_how_many_columns_a_text_takes(text: str, number: int) -> None:
    assert columns(text) == number
