"""What an answer gives as its result, and who gives none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from votes import OPTIONS, key_of

from fusiontools.answers import extract, normalize, numbers
from fusiontools.answers.keys import vote_keys


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "...",
        "**",
        "\\boxed{}",
        "<think>42</think>",
        "no answer",
        "I don't know",
        "I don't really know.",
        "I'm not sure.",
        "Not sure",
        "N/A",
        "No idea",
        "I have no idea.",
        "It cannot be determined from this.",
        "Cannot determine",
        "Answer: I don't know",
        "I'm sorry, but I can't help with that.",
        "I can't answer that.",
        "As an AI, I cannot say whether it is 42.",
        "There is not enough information.",
        "Unable to determine: 3 or 4",
    ],
)
@pytest.mark.parametrize("key", ["auto", "number", "choice", "text"])
def test_who_says_nothing_refuses_or_does_not_know_abstains(text: str, key: str) -> None:
    assert key_of(text, key, OPTIONS) is None


def test_a_refusal_that_still_answers_is_an_answer() -> None:
    assert key_of("I cannot be certain.\n\nAnswer: 42", "number") == "42"


def test_what_the_question_offers_is_an_answer_also_where_it_sounds_like_a_refusal() -> None:
    question = "How many? A) 5 B) 6 C) Cannot be determined"

    assert vote_keys(["Cannot be determined", "C"], "auto", question) == ("choice", ["C", "C"])


@pytest.mark.parametrize("text", ["3" + " million" * 31, "1" + " 000" * 31])
def test_what_is_one_number_is_not_long(text: str) -> None:
    assert not extract.is_long(normalize.fold(text))


@given(
    st.lists(st.sampled_from(["on", "a1", "3", "1,000", "two", "million", "x-1", "_", "don't", "über"]), max_size=45),
    st.sampled_from([" ", ", ", "\n"]),
)
def test_a_text_is_long_from_so_many_tokens_on_however_they_are_counted(words: list[str], between: str) -> None:
    folded = normalize.fold(between.join(words))

    assert extract.is_long(folded) == (
        len(folded) > extract.SHORT_CHARS or len(normalize.tokens(folded)) > extract.SHORT_WORDS
    )


@given(st.lists(st.sampled_from(["so", "also", "this gives", "total of", "totals", "resulting in", "=", "river"])))
def test_what_may_conclude_is_what_the_pattern_finds_or_an_equation(words: list[str]) -> None:
    piece = " ".join(words)

    assert numbers.may_conclude(piece) == ("=" in piece or numbers.CUE.search(piece) is not None)


@given(st.text(alphabet="15 \nABJKMkbap.x", max_size=12))
def test_signs_of_units_in_ascii_are_those_of_all_scripts(text: str) -> None:
    assert bool(extract.ASCII_UNIT_MARK.search(text)) == bool(extract.UNIT_MARK.search(text))
