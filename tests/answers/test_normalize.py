"""Folding, tokens, and the one spelling of a number."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers import normalize


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        ("1'000", Fraction(1000)),
        ("1e3", Fraction(1000)),
        ("1.0", Fraction(1)),
        ("007", Fraction(7)),
        ("3/4", Fraction(3, 4)),
        ("0.75", Fraction(3, 4)),
        ("-.5", Fraction(-1, 2)),
        ("3,5", Fraction(7, 2)),
        ("1.234,56", Fraction(123456, 100)),
        ("1.000.000", Fraction(10**6)),
        ("-$5", Fraction(-5)),
    ],
)
def test_a_number_is_read_exactly(text: str, value: Fraction) -> None:
    pair = normalize.rational(text)

    assert pair is not None
    assert Fraction(*pair) == value


@pytest.mark.parametrize("text", ["", "-", "3/0", "1e999", "12:30", "1.2.3", "five", "9" * 5000, "٣" * 70])
def test_what_is_no_plain_number_is_not_read_as_one(text: str) -> None:
    assert normalize.rational(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3-5 or -5", ["3", "5", "or", "-5"]),
        ("x-5 = −5", ["x", "5", "-5"]),
        ("10² km²", ["100", "km2"]),
        ("6.02 × 10^23", [f"602{'0' * 21}"]),
        ("2.5 million", ["2500000"]),
        ("1,2,3", ["1", "2", "3"]),
        ("It isn't Ada's_idea", ["it", "is", "not", "ada", "idea"]),
        ("ＡＢＣ é ß ٣٤", ["abc", "e", "ss", "34"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("東京です", ["東京"]),
        ("中华民国", ["中华", "华民", "民国"]),
    ],
)
def test_text_becomes_words_and_canonical_numbers(text: str, words: list[str]) -> None:
    assert normalize.tokens(normalize.fold(text)) == words


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "1/2"),
        ("thoughts\n#### 42", "42"),
        ("#### A heading\ntext", None),
        ("**Answer:** 42. Because 6*7 is.", "42"),
        ("First the answer is 3. No, wait: the answer is 4 because I erred.", "4"),
        ("The answer is J. K. Rowling. She wrote it.", "j. k. rowling"),
        ("答案是北京。", "北京"),
        ("The answer: " + "a long story " * 9, None),
    ],
)
def test_the_last_stated_result_is_the_answer(text: str, result: str | None) -> None:
    assert normalize.stated(normalize.fold(text)) == result


def test_no_one_is_not_a_no() -> None:
    assert [normalize.yes_no(text) for text in ("no one knows", "no. 5", "no-brainer", "no, never")] == [
        "",
        "",
        "",
        "no",
    ]


def test_a_letter_before_a_point_is_an_initial_unless_offered() -> None:
    assert normalize.choice("a. lincoln", "who was it?") == ("", "a. lincoln")
    assert normalize.choice("a. lincoln", "a. lincoln b. grant") == ("a", "lincoln")


@given(st.text(alphabet="0123456789.,'/e+-$ :%", max_size=80))
def test_a_canonical_number_is_its_own_canonical_form(text: str) -> None:
    numbers = normalize.tokens(normalize.fold(text))

    assert [normalize.canonical(number) for number in numbers] == numbers


#: What numbers are made of, and what stands between them and words.
PIECES = (
    "a",
    "e",
    "_",
    " ",
    "  ",
    "\n",
    "0",
    "7",
    "000",
    " 000",
    "-",
    ".",
    ",",
    "'",
    ":",
    "/",
    "$",
    "(",
    "%",
    "+",
    "one word ",
)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_words_found_by_cutting_are_those_that_the_pattern_finds(text: str) -> None:
    found, places = normalize.ascii_tokens(text)

    assert found == normalize.TOKEN.findall(text)
    assert places == [at for at, word in enumerate(found) if normalize.is_number(word)]


@given(st.lists(st.sampled_from([*PIECES, "“", "»", "→"]), max_size=30).map("".join))
def test_a_text_with_quotes_has_the_words_that_it_has_among_accents(text: str) -> None:
    assert [*normalize.tokens(text), "é"] == normalize.tokens(f"{text} é")
