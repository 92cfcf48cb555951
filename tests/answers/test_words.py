"""Letters, verdicts, and words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from votes import CAPITAL, OPTIONS, key_of, voted

from fusiontools.answers.keys import vote_keys
from fusiontools.answers.words import FORMULA, FORMULA_KEY, MATH_SIGN

PRIME = "Is 91 prime?"


# Choices


@voted(
    "letter",
    ("B", "B"),
    ("b.", "B"),
    ("(B)", "B"),
    ("[B]", "B"),
    ("**B**", "B"),
    ("B)", "B"),
    ("B) Canberra", "B"),
    ("B. Canberra", "B"),
    ("**B. Canberra**", "B"),
    ("B: Canberra", "B"),
    ("B - Canberra", "B"),
    ("B, Canberra", "B"),
    ("Option B", "B"),
    ("Option B is right.", "B"),
    ("The answer is (B).", "B"),
    ("The answer is B: Canberra", "B"),
    ("The correct answer is option B.", "B"),
    ("Correct option: B", "B"),
    ("Answer: **B** (Canberra)", "B"),
    ("Answer: B) Canberra", "B"),
    ("\\boxed{\\text{B}}", "B"),
    ("\\boxed{\\textbf{(B)}}", "B"),
    ("I'd go with B.", "B"),
    ("I'd say B) since it is so.", "B"),
    ("The answer is B, not A.", "B"),
    ("It's B because Sydney is only larger.", "B"),
    ("B is correct", "B"),
    ("B\n\nSydney is the largest city, but it has never been the capital of the country.", "B"),
    ("Answer: B\n\nThe answer is not A because it is only the largest.", "B"),
    ("A) is wrong.\nB) is right.\nC) is wrong.\n\nSo B.", "B"),
    ("Canberra", "B"),
    ("canberra!", "B"),
    ("Answer: Canberra", "B"),
    ("The capital is Canberra, not Sydney.", "B"),
    ("A and C", "A, C"),
    ("C, A", "A, C"),
    ("Option A is incorrect. Option B is correct.", "B"),
    ("A is wrong because it is the larger one. So B.", "B"),
    ("A - no. B - yes. C - no.", "B"),
    ("C is tempting, however B is correct", "B"),
    ("(A) is close, but (B) is best", "B"),
    ("It's not A; it's B", "B"),
    ("B\n\nA) Sydney is much larger, but it is no capital.", "B"),
    ("B. Canberra is the capital.\nC is in Victoria.", "B"),
    ("B) Canberra\n\nA) Sydney is the largest in size.", "B"),
    ("**B) Canberra**\n\n- A) Sydney is large\n- C) Melbourne is second", "B"),
    ("B\n\nExplanation:\nA) Sydney is large.", "B"),
    ("B, because of the parliament.\nA is larger.", "B"),
    ("Option B\n\nC) Melbourne was the seat until 1927.", "B"),
    ("The answer is option (B) and not (C).", "B"),
    ("I would pick B \u2014 a safe choice.", "B"),
    ("A) Sydney is large.\nB) Canberra it is.\nC) Melbourne is not.\nB", "B"),
    ("C) Melbourne is not the capital.\nB) Canberra is it.\nB", "B"),
)
def test_a_choice_is_its_letter(text: str, key: str) -> None:
    assert vote_keys([text], "auto", OPTIONS) == ("choice", [key])
    assert vote_keys([text], "choice", OPTIONS) == ("choice", [key])


@pytest.mark.parametrize(
    "text",
    [
        "The answer depends on the context.",
        "Answer depends",
        "Synthesized Answer\nBecause it is so.",
        "D",
        "Sydney or Canberra",
        "Not Canberra",
        "It isn't (B).",
        "A capital city is a matter of law.",
        "Option A is wrong.",
        "A is wrong. C is wrong.",
        "-a",
        "!b",
        "- b + c",
        "sin(a)",
        "∀b P(b)",
        "",
    ],
)
def test_what_chooses_nothing_is_no_choice(text: str) -> None:
    assert key_of(text, "choice", OPTIONS) is None


@pytest.mark.parametrize("text", ["A", "(A)", "A) Paris", "Option A", "a."])
def test_a_letter_is_a_choice_also_where_the_question_lists_none(text: str) -> None:
    assert vote_keys([text]) == ("choice", ["A"])


@pytest.mark.parametrize("text", ["B", "B) False", "B: False", "B - False", "(B) False.", "False", "A is wrong. So B."])
def test_the_words_of_an_option_reject_nothing(text: str) -> None:
    assert key_of(text, "choice", "Is it so? A) True B) False") == "B"


def test_an_article_or_an_initial_is_no_choice() -> None:
    assert key_of("I choose a book", "choice") is None
    assert vote_keys(["A. Lincoln"]) == ("text", ["lincoln"])


def test_the_longer_of_two_options_that_contain_each_other_is_meant() -> None:
    assert key_of("New York it is", "choice", "Where? A) York B) New York") == "B"


# Yes or no


@voted(
    "verdict",
    ("Yes", "yes"),
    ("**Yes**, because 91 has no divisor.", "yes"),
    ("Yes it is.", "yes"),
    ("True", "yes"),
    ("No.", "no"),
    ("No, 91 = 7 * 13.", "no"),
    ("It is not prime.", "no"),
    ("91 is not prime.", "no"),
    ("Answer: no", "no"),
    ("Nope.", "no"),
    ("Absolutely not.", "no"),
    ("Absolutely.", "yes"),
    ("7 divides it.\n\nSo no, it is not.", "no"),
    ("\\boxed{\\text{No}}", "no"),
)
def test_a_verdict_is_yes_or_no(text: str, key: str) -> None:
    assert vote_keys([text], "auto", PRIME) == ("yes_no", [key])


def test_no_one_is_not_a_no() -> None:
    assert vote_keys(["No one knows."]) == ("text", ["no one knows"])


# Text


@voted(
    "text",
    ("Paris", "paris"),
    ("**Paris**", "paris"),
    ("_Paris_.", "paris"),
    ("# Paris", "paris"),
    ("- Paris", "paris"),
    ("`paris`", "paris"),
    ("“Paris”", "paris"),
    ("It's Paris.", "paris"),
    ("I think it is Paris", "paris"),
    ("In Paris.", "paris"),
    ("Capital: Paris", "paris"),
    ("Result: Paris", "paris"),
    ("Mission: Impossible", "mission impossible"),
    ("1. Paris\n2. Lyon", "paris lyon"),
    ("- Nice\n- Lyon", "nice lyon"),
    ("$O(n \\log n)$", "o n log n"),
    ("The answer is Paris.", "paris"),
    ("The capital of France is Paris.", "paris"),
    ("The capital of France is **Paris**.", "paris"),
    ("Paris is the capital of France.", "paris"),
    ("Let me think.\nThe capital is Paris.", "paris"),
    ("Paris\n\nIt has been the seat of the government of the country for more than a thousand years.", "paris"),
    ("not Paris", "not paris"),
    ("The Hague", "hague"),
    ("Vitamin A", "vitamin a"),
    ("Café", "cafe"),
    ("北京", "北京"),
    ("答案是北京。", "北京"),
    ("東京です。", "東京"),
    ("July 20, 1969", "1969 7 20"),
    ("20 July 1969", "1969 7 20"),
    ("1969-07-20", "1969 7 20"),
    ("Sunday, July 20, 1969", "1969 7 20"),
    ("Nice, Lyon, and Metz", "nice lyon metz"),
    ("C++", "c++"),
    ("C#", "c#"),
    ("x+1", "x+1"),
    ("x - 1", "x-1"),
    ("y = x+1", "x+1"),
    ("[1, 2)", "[1, 2)"),
    ("(1,2]", "(1, 2]"),
    ("2\\sqrt{3}", "2 sqrt 3"),
    ("2√3", "2 sqrt 3"),
    ("unknown", "unknown"),
    ("x ≤ 3", "x≤3"),
    ("x \\leq 3", "x≤3"),
    ("x <= 3", "x≤3"),
    ("x ≥ 3", "x≥3"),
    ("p ∧ q", "p∧q"),
    ("p ∨ q", "p∨q"),
    ("¬p", "¬p"),
    ("∀x P", "∀x p"),
    ("A ∉ B", "a¬∈b"),
    ("A ⊂ B", "a⊂b"),
    ("⌈3.5⌉", "⌈3.5⌉"),
    ("∜2", "∜2"),
    ("5!", "5!"),
    ("Paris!", "paris"),
    ("-x", "-x"),
    ("!x", "!x"),
    ("-\\sin x", "-sin x"),
    ("x²³", "x23"),
)
def test_text_is_compared_by_its_words(text: str, key: str) -> None:
    assert key_of(text, "text", CAPITAL) == key


def test_the_words_of_the_question_are_the_answer_where_it_names_the_alternatives() -> None:
    assert vote_keys(["Tabs.", "spaces", "The tabs"], "text", "Is it tabs or spaces?")[1] == ["tabs", "spaces", "tabs"]


def test_a_word_that_the_question_offers_is_an_answer_in_a_sentence_of_its_own() -> None:
    texts = ["positive", "The sentiment is positive.", "not positive"]

    keys = ["positive", "positive", "not positive"]
    assert vote_keys(texts, "auto", "Classify the sentiment: positive, negative or neutral.") == ("text", keys)


def test_a_question_for_a_name_gives_all_but_the_name() -> None:
    texts = ["Leonardo painted the Mona Lisa.", "The Mona Lisa was painted by Leonardo.", "It was Leonardo"]

    assert vote_keys(texts, "auto", "Who painted the Mona Lisa?") == ("text", ["leonardo"] * 3)


def test_a_question_for_a_year_is_answered_by_a_number() -> None:
    texts = ["1945", "In 1945.", "World War II ended in 1945."]

    assert vote_keys(texts, "auto", "When did World War II end?") == ("number", ["1945"] * 3)
    assert vote_keys(["In 1945 Japan gave up.", "In 1945 Germany lost."], "number", "When?")[1] == ["1945", "1945"]
    assert key_of("September 2, 1945", "number", "In which year did it end?") == "1945"


#: What the two patterns find, in the order in which it is read: they begin with the sign, for speed.
PLAIN_SIGN = re.compile(
    rf"[\^<>=±|∞\\{FORMULA}]|\b(?:sqrt|pi)\b|(?<!\w)-\s?(?:sin|cos|tan|log|ln|exp|sqrt|pi)\b|(?<!\w)!\s?(?=\w)"
    r"|(?:(?<=[\d)])|(?<=\b[a-z]))\s?!|(?<=[\w)\]])\s?[+*]\s?(?=[\w(\[-])|(?<=\w)[+#]|(?<!\w)-\s?[a-z]\b"
    r"|(?<=\b[a-z])\s?-\s?(?=\d|[a-z]\b|\()|(?<=[\d)])\s?-\s?(?=[a-z]\b|\()"
    r"|(?<=[)\]])\s?/|(?<=\d)\s?/\s?(?=[a-z(\[])|(?<!\d)/\s?(?=[\d(\[])|(?<=\b[a-z])\s?/|/\s?(?=[a-z]\b)"
)
PLAIN_KEY = re.compile(rf"[+*^<>=±|∞#()\[\]!{FORMULA}]|\b(?:sqrt|pi)\b|(?<=\S)-|-(?!\d)|(?<!\d)/|/(?!\d)")
PIECES = st.sampled_from([*"-+*/!#^=()[] \t\\axpq17é∫.", "pi", "sqrt", "sin", "ln", "words"])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_formula_is_told_by_the_same_signs_however_they_are_looked_for(text: str) -> None:
    assert bool(MATH_SIGN.search(text)) == bool(PLAIN_SIGN.search(text))
    assert bool(FORMULA_KEY.search(text)) == bool(PLAIN_KEY.search(text))
