"""Tables: aligned, as wide as what they hold, folded only where a screen bounds them."""

from __future__ import annotations

import pytest

from fusiontools.cli.table import Styled, table_text

HEAD = ["name", "cost"]


def test_texts_stand_left_and_numbers_right_and_no_line_ends_in_blanks() -> None:
    text = table_text(["name", "cost", "why"], [["a", "1", "x"], ["long name", "22,222", ""]], left={0, 2})

    assert text == "name         cost  why\na               1  x\nlong name  22,222\n"


def test_what_no_screen_bounds_is_never_folded() -> None:
    long = "word " * 400 + "end"

    assert table_text(HEAD, [[long, "1"]], left={0}).splitlines()[1] == f"{long}     1"


def test_a_screen_folds_the_one_column_and_loses_nothing() -> None:
    text = table_text(HEAD, [["an answer of many words", "1,000"]], left={0}, width=20)

    assert max(map(len, text.splitlines())) <= 20
    assert text.split() == ["name", "cost", "an", "answer", "of", "1,000", "many", "words"]


def test_wide_characters_take_two_places() -> None:
    assert table_text(HEAD, [["日本", "1"], ["abcd", "2"]], left={0}) == "name  cost\n日本     1\nabcd     2\n"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\x1b[31mb", "ab"),
        ("a\x07b", "ab"),
        ("a\x9b1mb", "ab"),
        ("a\u202eb", "ab"),
        ("[red]ab[/]", "[red]ab[/]"),
        (":smile:", ":smile:"),
    ],
)
def test_no_cell_steers_the_terminal_or_is_markup(text: str, seen: str) -> None:
    shown = table_text(HEAD, [[text, "1"]], left={0})

    assert seen in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_line_break_makes_no_line() -> None:
    assert len(table_text(HEAD, [["a\nb\tc", "1"]], left={0}).splitlines()) == 2


def test_colour_is_written_where_it_is_asked_for_only() -> None:
    rows = [[Styled("better", "green"), "1"]]

    assert "\x1b[32m" in table_text(HEAD, rows, left={0}, colour=True)
    assert table_text(HEAD, rows, left={0}) == "name    cost\nbetter     1\n"
