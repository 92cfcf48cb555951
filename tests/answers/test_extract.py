"""What an answer gives as its result, and who gives none."""

from __future__ import annotations

import pytest
from votes import OPTIONS, key_of

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
