"""What an answer votes for, and how votes are counted."""

from __future__ import annotations

import json
import math
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fusiontools.answers import normalize
from fusiontools.answers.keys import check_key, vote_keys
from fusiontools.answers.structured import calls_key
from fusiontools.answers.tally import count_votes
from fusiontools.errors import UsageError

CAPITAL = "What is the capital of France?"
OPTIONS = "Which city is the capital of Australia?\nA) Sydney\nB) Canberra\nC) Perth"
PRIME = "Is 91 prime?"

PIECES_TEXT = r"""
Paris Lyon 42 1,000 -5 3-5 1/2 50% $5 km yes not B) (C) Answer: \boxed{ } \frac{1}{2} -\frac12 ** 北京 = x { "a": [1]
the is
"""
WORDS = st.sampled_from([*PIECES_TEXT.split(), "\n", "I don't know"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=8).map(" ".join))
KEYS = st.sampled_from(["auto", "number", "choice", "text", "json:$", "json:a[0]", "regex:\\w+"])


def key_of(text: str, key: str = "auto", question: str = "") -> str | None:
    return vote_keys([text], key, question)[1][0]


def voted(kind: str, *rows: tuple[str, str]) -> Any:
    return pytest.mark.parametrize(("text", "key"), [pytest.param(*row, id=f"{kind}-{row[0][:30]!r}") for row in rows])


# Numbers


@voted(
    "number",
    ("42", "42"),
    ("42.", "42"),
    ("42.0", "42"),
    ("007", "7"),
    ("+5", "5"),
    (".5", "0.5"),
    ("1/2", "0.5"),
    ("1 / 2", "0.5"),
    ("3/6", "0.5"),
    ("½", "0.5"),
    ("1/3", "1/3"),
    ("1 1/2", "1.5"),
    ("1½", "1.5"),
    ("-1 1/2", "-1.5"),
    ("1e3", "1000"),
    ("1.0e3", "1000"),
    ("1E3", "1000"),
    ("10^3", "1000"),
    ("10**3", "1000"),
    ("10³", "1000"),
    ("1.5 × 10^3", "1500"),
    ("2 × 10^-3", "0.002"),
    ("10^{-3}", "0.001"),
    ("2^10", "1024"),
    ("1,234,567", "1234567"),
    ("1'234'567", "1234567"),
    ("1 234 567", "1234567"),
    ("1_000", "1000"),
    ("1.234,56", "1234.56"),
    ("3,5", "3.5"),
    ("3,14159", "3.14159"),
    ("2.5 million", "2500000"),
    ("8.3M", "8300000"),
    ("100k", "100000"),
    ("-5", "-5"),
    ("−5", "-5"),
    ("x = −5", "-5"),
    ("x = - 5", "-5"),
    ("Answer: - 5", "-5"),
    ("3-5", "3 to 5"),
    ("3–5", "3 to 5"),
    ("3 to 5", "3 to 5"),
    ("between 3 and 5", "3 to 5"),
    ("three", "3"),
    ("twenty-one apples", "21"),
    ("two hundred and five", "205"),
    ("１２", "12"),
    ("٣٤", "34"),
    ("12:30", "12:30"),
    ("3 : 2", "3:2"),
    ("9" * 100, "9" * 100),
    ("1.6 × 10⁻¹", "0.16"),
    ("6.022 × 10²³", "602200000000000000000000"),
    ("10¹⁰", "10000000000"),
    ("2¹⁰", "1024"),
    ("- 5", "-5"),
    ("minus five", "-5"),
    ("negative 5", "-5"),
    ("The answer is - 5", "-5"),
    ("one half", "0.5"),
    ("a half", "0.5"),
    ("one third", "1/3"),
    ("two-fifths", "0.4"),
    ("three quarters", "0.75"),
    ("one and a half", "1.5"),
    ("0.(3)", "1/3"),
    ("0.1(6)", "1/6"),
    ("0.\\overline{3}", "1/3"),
    ("0.333… repeating", "1/3"),
    ("0.3 repeating", "1/3"),
    ("0.333...", "1/3"),
    ("0.333", "0.333"),
    ("1,00,000", "100000"),
)
def test_a_number_has_one_spelling(text: str, key: str) -> None:
    assert vote_keys([text], "auto") == ("number", [key])
    assert vote_keys([text], "number") == ("number", [key])


@voted(
    "unit",
    ("$1,234.50", "1234.5 $"),
    ("1234.5 dollars", "1234.5 $"),
    ("USD 1234.50", "1234.5 $"),
    ("-$5", "-5 $"),
    ("$-5", "-5 $"),
    ("$5 million", "5000000 $"),
    ("$5m", "5000000 $"),
    ("5€", "5 €"),
    ("€ 5.00", "5 €"),
    ("£5", "5 pound"),
    ("5 km", "5 km"),
    ("5 kilometers", "5 km"),
    ("5-kilometre", "5 km"),
    ("5 m/s", "5 m/s"),
    ("5 meters per second", "5 m/s"),
    ("5 m²", "5 m2"),
    ("5 square meters", "5 m2"),
    ("20 °C", "20 °c"),
    ("20 degrees Celsius", "20 °c"),
    ("$20^\\circ$C", "20 °c"),
    ("5 feet 10 inches", "5 ft, 10 inch"),
    ("5 ft 10 in", "5 ft, 10 inch"),
    ("3 hours and 20 minutes", "3 h, 20 min"),
    ("$4.20 per gallon", "4.2 $"),
    ("42 apples", "42"),
    ("5 in total", "5"),
    ("50%", "50%"),
    ("50 %", "50%"),
    ("50 percent", "50%"),
    ("12,5 %", "12.5%"),
    ("5-10%", "5 to 10%"),
    ("minus 40 degrees Fahrenheit", "-40 °f"),
    ("5 GB", "5 gb"),
    ("5 gigabytes", "5 gb"),
    ("5 Mb", "5 mbit"),
    ("5 MB", "5 mb"),
    ("10 N", "10 newton"),
    ("10 mN", "10 mn"),
    ("10 MN", "10 meganewton"),
    ("10 kN", "10 kn"),
    ("300 K", "300 kelvin"),
    ("5 µm", "5 μm"),
    ("5 kΩ", "5 kω"),
    ("60 mph", "60 mi/h"),
    ("60 miles per hour", "60 mi/h"),
    ("CHF 500", "500 chf"),
    ("500 Swiss francs", "500 chf"),
    ("A$500", "500 aud"),
    ("CAD 500", "500 cad"),
    ("Rs. 5,00,000", "500000 ₹"),
    ("INR 5", "5 ₹"),
    ("500 kr", "500 kr"),
    ("44 BC", "44 bc"),
    ("AD 44", "44 ad"),
    ("the 1960s", "1960 era"),
    ("3:45 PM", "3:45 pm"),
    ("3:45 p.m.", "3:45 pm"),
    ("3:45 a.m.", "3:45 am"),
)
def test_a_unit_belongs_to_the_number_and_has_one_name(text: str, key: str) -> None:
    assert vote_keys([text]) == ("number", [key])


@voted(
    "stated",
    ("\\boxed{42}", "42"),
    ("\\boxed{-\\frac{84}{2}}", "-42"),
    ("$x = -\\dfrac{84}{2}$", "-42"),
    ("We get $\\boxed{42}$.", "42"),
    ("$$\\boxed{42}$$", "42"),
    ("\\[ x = 42 \\]", "42"),
    ("\\boxed{\\frac{84}{2}}", "42"),
    ("\\boxed{\\dfrac{84}{2}}", "42"),
    ("\\boxed{\\text{42}}", "42"),
    ("\\boxed{42\\text{ apples}}", "42"),
    ("\\fbox{42}", "42"),
    ("First \\boxed{7}, rather \\boxed{42}", "42"),
    ("**Answer:** 42", "42"),
    ("**Answer**: 42", "42"),
    ("Answer:\n\n42", "42"),
    ("## Final Answer\n42", "42"),
    ("**Final answer**\n\n**42**\n\nThis took 3 steps and 12 lines.", "42"),
    ("Final answer: 84/2", "42"),
    ("The answer is $42$.", "42"),
    ("Final Answer: The final answer is $x=42$. I hope it is correct.", "42"),
    ("The product is 391.\n\n_(per Model 1, Model 3)_", "391"),
    ("6 * 7 = 42\n#### 42", "42"),
    ("Answer: 42 because 6*7 = 42 and 3 < 5", "42"),
    ("Answer: 42 (of 100)", "42"),
    ("Answer: 41. No, wait.\nAnswer: 42", "42"),
    ("<think>Is it 7?</think>42", "42"),
    ("So 12 + 30 = 42 apples.", "42"),
    ("The total is **42** after 3 days.", "42"),
    ("Therefore, 42.", "42"),
    ("We count 3 and 4.\n\nThe total is 42.", "42"),
    ("42\n\nI counted all of the boxes in the room one after another, and those outside.", "42"),
    ("The total is 42.\n\nLet me know if you need 3 more!", "42"),
    ("The total is 42 (per Model 1, Model 3)", "42"),
    ("The total is 42 [1][3].", "42"),
    ("I'm not sure, but I think it's 42.", "42"),
    ("There are 42 left, out of 50.", "42"),
    ("It is 42 if you count 8 of them twice.", "42"),
    ("Tom had 50 apples and ate 8, leaving 42.", "42"),
    ("I first thought 41, but it is 42.", "42"),
    ("It's not 41; it is 42.", "42"),
    ("It is 42, i.e. 0.7 times 60.", "42"),
)
def test_what_an_answer_gives_as_its_result_is_counted(text: str, key: str) -> None:
    assert key_of(text, "number", "How many are there?") == key
    assert vote_keys([text], "auto", "How many are there?") == ("number", [key])


def test_a_number_of_the_question_is_no_answer_where_another_stands() -> None:
    assert key_of("Of the 100 students, 42 stay, that is out of 100", "number", "Of 100 students, how many?") == "42"


@voted(
    "none",
    ("x > 5", ""),
    ("x ≠ 5", ""),
    ("±5", ""),
    ("2n", ""),
    ("2\\sqrt{3}", ""),
    ("3π", ""),
    ("0.1 + 0.2", ""),
    ("3/0", ""),
    ("July 20, 1969", ""),
    ("1969-07-20", ""),
    ("Paris", ""),
    ("no one", ""),
    ("5!", ""),
    ("x ≤ 5", ""),
    ("⌊3.5⌋", ""),
    ("∛2", ""),
)
def test_what_has_no_number_as_its_value_is_no_number(text: str, key: str) -> None:
    assert (key_of(text, "number") or "") == key


@voted(
    "several",
    ("x = 2 or x = 3", "2, 3"),
    ("x = 3 or x = 2", "2, 3"),
    ("- x = 2\n- x = 3", "2, 3"),
    ("x = 2 and y = 3", "2, 3"),
    ("2, 3", "2, 3"),
    ("(2,3)", "2, 3"),
    ("\\{2, 3\\}", "2, 3"),
    ("a) x = 2\nb) y = 3", "2, 3"),
)
def test_several_numbers_are_one_answer(text: str, key: str) -> None:
    assert vote_keys([text]) == ("number", [key])


def test_a_bare_number_has_the_unit_that_most_others_name() -> None:
    assert vote_keys(["5", "5 km", "5 kilometers", "5 miles"], "number")[1] == ["5 km", "5 km", "5 km", "5 mi"]
    assert vote_keys(["5", "5 km", "5 miles"], "number")[1] == ["5", "5 km", "5 mi"]
    assert vote_keys(["8:30 pm", "20:30"], "number")[1] == ["8:30 pm", "20:30"]
    assert vote_keys(["2, 3", "5 km"], "number")[1] == ["2, 3", "5 km"]


def test_things_that_are_counted_are_told_apart_where_not_all_count_the_same() -> None:
    assert vote_keys(["5 apples", "5", "5 apples"], "number")[1] == ["5", "5", "5"]
    assert vote_keys(["5 apples", "5 pears"], "number")[1] == ["5 apple", "5 pear"]
    assert vote_keys(["5 apples", "5 pears", "5"], "number", "How many apples?")[1] == ["5", "5", "5"]


def test_a_decade_is_no_year() -> None:
    assert vote_keys(["1960s", "1960"], "number", "When?")[1] == ["1960 era", "1960"]


def test_a_bare_number_has_the_currency_that_most_others_name() -> None:
    assert vote_keys(["500", "CHF 500", "500 CHF", "$500"], "number")[1] == ["500 chf", "500 chf", "500 chf", "500 $"]


@pytest.mark.parametrize(
    ("question", "texts", "keys"),
    [
        (
            "What is the latest Python version?",
            ["3.10", "3.1", "Python 3.10", "v3.10."],
            ["3.10", "3.1", "3.10", "3.10"],
        ),
        ("Latest Python version?", ["3.10", "3.1"], ["3.10", "3.1"]),
        ("What is his id?", ["007", "7", "The id is 007."], ["007", "7", "007"]),
    ],
)
def test_a_version_an_id_or_a_code_is_no_number(question: str, texts: list[str], keys: list[str]) -> None:
    assert vote_keys(texts, "auto", question) == ("text", keys)


def test_what_code_prints_is_a_number() -> None:
    assert vote_keys(["42", "42.0"], "auto", "What is the output of this code?") == ("number", ["42", "42"])


def test_the_number_of_a_list_item_is_no_answer() -> None:
    texts = ["1. Red\n2. Yellow\n3. Blue", "1. Green\n2. Yellow\n3. Pink", "red, yellow, blue"]

    keys = ["red yellow blue", "green yellow pink", "red yellow blue"]
    assert vote_keys(texts, "auto", "List three colours.") == ("text", keys)


def test_a_percentage_is_a_share_but_a_bare_number_is_one_where_a_percentage_is_asked_for() -> None:
    texts = ["50%", "50", "0.5"]

    assert vote_keys(texts, "number", "What is the chance?")[1] == ["0.5", "50", "0.5"]
    assert vote_keys(texts, "number", "What percentage is that?")[1] == ["50%", "50%", "0.5%"]
    assert vote_keys(["$40", "40"], "number", "What is left of $50 after a 20% discount?")[1] == ["40 $", "40 $"]


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
    ("C++", "c + +"),
    ("C#", "c #"),
    ("x+1", "x + 1"),
    ("x - 1", "x - 1"),
    ("y = x+1", "x + 1"),
    ("[1, 2)", "[ 1 2 )"),
    ("(1,2]", "( 1 2 ]"),
    ("2\\sqrt{3}", "2 sqrt 3"),
    ("2√3", "2 sqrt 3"),
    ("unknown", "unknown"),
    ("x ≤ 3", "x ≤ 3"),
    ("x \\leq 3", "x ≤ 3"),
    ("x <= 3", "x ≤ 3"),
    ("x ≥ 3", "x ≥ 3"),
    ("p ∧ q", "p ∧ q"),
    ("p ∨ q", "p ∨ q"),
    ("¬p", "¬ p"),
    ("∀x P", "∀ x p"),
    ("A ∉ B", "a ¬ ∈ b"),
    ("A ⊂ B", "a ⊂ b"),
    ("⌈3.5⌉", "⌈ 3.5 ⌉"),
    ("∜2", "∜ 2"),
    ("5!", "5 !"),
    ("Paris!", "paris"),
    ("-x", "- x"),
    ("!x", "! x"),
    ("-\\sin x", "- sin x"),
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


def test_long_texts_that_differ_at_the_end_stay_apart_under_short_keys() -> None:
    one, other = vote_keys(["word " * 100 + "a", "word " * 100 + "b"], "text")[1]

    assert one != other
    assert len(str(one)) == len(str(other)) == 120


# Abstentions


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


# One kind for all


@pytest.mark.parametrize(
    ("texts", "question", "kind"),
    [
        (["42", "The total is 42.", "forty"], "How many?", "number"),
        (["42", "I don't know", ""], "How many?", "number"),
        (["42 km", "Paris", "Lyon"], "", "text"),
        (["Apollo 11", "Apollo 13"], "Which mission?", "text"),
        (["B", "(C)", "Canberra"], OPTIONS, "choice"),
        (["Yes", "No, never.", "Perhaps"], "Is it?", "yes_no"),
        (['{"a": 1}', '```json\n{"a": 1.0}\n```', "Paris"], "", "json"),
        (["Paris", "42"], "", "text"),
        ([], "", "text"),
        (["", " "], "", "text"),
    ],
)
def test_auto_takes_the_one_kind_that_suits_most_of_those_who_speak(texts: list[str], question: str, kind: str) -> None:
    assert vote_keys(texts, "auto", question)[0] == kind


def test_whoever_cannot_be_read_as_the_others_abstains() -> None:
    assert vote_keys(["42", "Paris", "42.0"], "auto") == ("number", ["42", None, "42"])


# JSON


@pytest.mark.parametrize(
    ("text", "path", "key"),
    [
        ('{"label": "Spam"}', "label", "spam"),
        ('{"label": "Spam"}', "$.label", "spam"),
        ('```json\n{"label": "spam",}\n```', "label", "spam"),
        ('Sure! {"label": "spam"} Anything else?', "label", "spam"),
        ('See [1]: {"label": "spam"} {note}', "label", "spam"),
        ('First {"label": "ham"}, then {"label": "spam"}', "label", "spam"),
        ('{"a": {"b": [{"c": 1.0}]}}', "a.b[0].c", "1"),
        ('{"a": [1, 2]}', "a[-1]", "2"),
        ('{"a": [1, 2]}', "a.1", "2"),
        ("[1e3]", "[0]", "1000"),
        ('{"n": "1,000"}', "n", "1000"),
        ('{"n": 0.1}', "n", "0.1"),
        ('{"n": true}', "n", "true"),
        ('{"n": {"b": 2, "a": 1.0}}', "n", '{"a":1,"b":2}'),
        ("42", "$", "42"),
        ('<think>{"a": 1}</think>{"a": 2}', "a", "2"),
        ('{"a": 1e999999999}', "a", "1e999999999"),
        ('{"a": null}', "a", None),
        ('{"a": ""}', "a", None),
        ('{"a": "I don\'t know"}', "a", None),
        ('{"a": 1}', "b", None),
        ('{"a": [1]}', "a[7]", None),
        ('{"a": NaN}', "a", None),
        ("no JSON", "a", None),
        ('{"a": ', "a", None),
        ("[" * 100_000, "a", None),
    ],
)
def test_a_value_in_json_votes(text: str, path: str, key: str | None) -> None:
    assert vote_keys([text], f"json:{path}") == ("json", [key])


def test_half_an_emoji_can_be_written_as_a_key() -> None:
    key = key_of('{"a": "\\ud83d x"}', "json:a")

    assert key
    assert key.encode()


def test_tool_calls_agree_where_their_names_and_arguments_do() -> None:
    def calls(*told: tuple[str, str]) -> str:
        return calls_key([{"function": {"name": name, "arguments": arguments}} for name, arguments in told])

    assert calls(("f", '{"a": 1, "b": [2.0]}')) == calls(("f", '{"b":[2],"a":1.0}'))
    assert calls(("f", "{}"), ("g", "")) == calls(("g", "{}"), ("f", "{}"))
    assert calls(("f", '{"a": "x"}')) != calls(("f", '{"a": "X"}'))
    assert calls(("f", '{"a": 1}')) != calls(("f", '{"a": "1"}'))
    assert calls(("f", "{broken")) == calls(("f", "{broken"))


# Regular expressions


@pytest.mark.parametrize(
    ("pattern", "text", "key"),
    [
        (r"id=(\d+)", "id=17, no: id=18.0", "18"),
        (r"\d+", "17 and 18", "18"),
        (r"<a>(.*)</a>", "<a>**The Beatles**</a>", "beatles"),
        (r"(?i)LABEL: (\w+)", "label: Spam", "spam"),
        (r"a(b)?", "a", None),
        (r"a()", "a", None),
        (r"z", "a", None),
        (r"\d+", "<think>1</think>", None),
        (r"x(\d)", "x1" + " " * 2_001, None),
    ],
)
def test_the_last_match_votes(pattern: str, text: str, key: str | None) -> None:
    assert vote_keys([text], f"regex:{pattern}") == ("regex", [key])


# Keys


@pytest.mark.parametrize(
    "key",
    [
        *["auto", "number", "choice", "text", "json:a.b[0]", "json:$", "json:[0]", "regex:(a++)+", r"regex:(\d{3},)+"],
        r"regex:Answer: (\d+)",
        "regex:answer is ([A-D])",
        r"regex:\b(\d+(?:\.\d+)?)\s*%",
        r"regex:label=(\w+)",
        r'regex:"score":\s*(\d+)',
        r"regex:(?i)final:\s*(.+)$",
        "regex:<answer>(.*?)</answer>",
        r"regex:(?s)Answer:.*?(\d+)",
        r"regex:Answer.*is.*?([A-D])\.",
        r"regex:\$?(\d[\d,]*(?:\.\d+)?)",
        r"regex:(\w+)\s+(\w+)$",
        r"regex:(?:Monday|Tuesday|Sunday), (\d+)",
        r"regex:\s*(\w+)\s*$",
        "regex:[a-d]",
        "regex:(?:a|b)+c",
        r"regex:(?<=id=)\d+",
        r"regex:\(([A-J])\)",
    ],
)
def test_a_key_that_can_be_is_taken(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("nubmer", "did you mean 'number'?"),
        ("yes_no", "known: auto"),
        ("", "known: auto"),
        ("json", "no key 'json'"),
        ("json:", "no path"),
        ("json:a..b", "no path"),
        ("json:a[x]", "no path"),
        ("json:a[", "no path"),
        ("regex:", "is empty"),
        ("regex:(", "no regular expression: missing )"),
        ("regex:(a+)+$", "(a++)+"),
        ("regex:(?:a*b?)*", "(a++)+"),
        ("regex:((?:a{2,}))+?", "(a++)+"),
        ("regex:(a|a)*$", "inside"),
        ("regex:(?:foo|bar)+$", "inside"),
        ("regex:(a|aa)*b", "inside"),
        ("regex:^(a?){40}a{40}$", "inside"),
        ("regex:(?:a{1,9}){1,99}$", "inside"),
        ("regex:(?:(?:a|b+)c){2}", "inside"),
        ("regex:(?=(a+)+b)a", "lookaround"),
        ("regex:(?!a*b)a", "lookaround"),
        (r"regex:(a+)\1b", "refers back"),
        (r"regex:(a)?(?(1)b|c)", "refers back"),
        ("regex:a*a*a*a*a*a*b", "in a row"),
        ("regex:a*a*b", "in a row"),
        ("regex:a*b*a*c", "in a row"),
        ("regex:a*(?:b+)?a*c", "in a row"),
        (r"regex:\w*\w*\W", "in a row"),
        (r"regex:\w*[^ ]*!", "in a row"),
        ("regex:[а-я]*[г-ё]*!", "in a row"),
        ("regex:(?i)[a-f]*[D-X]*!", "in a row"),
        ("regex:ab.*c.*d.*e", "in a row"),
        ("regex:a{0,500}a{0,500}b", "in a row"),
        (r"regex:\d*\d{5,}", "in a row"),
        (r"regex:\w*\w++\W", "in a row"),
        (r"regex:\w*\w{500}-", "in a row"),
        (r"regex:.*(?=a{500})b", "lookaround"),
        (f"regex:{'a?' * 40}{'a' * 40}", "optional parts"),
        (f"regex:{'(?:ab|a)' * 40}c", "optional parts"),
    ],
)
def test_a_key_that_cannot_be_is_refused_in_words(key: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_key(key)

    assert reason in refused.value.message
    with pytest.raises(UsageError):
        vote_keys(["42"], key)


@pytest.mark.parametrize(
    "pattern", ["(?:.*)[xy]", r"\b(\d+(?:\.\d+)?)\s*%", "aa.*aa.*c", "(a++)+b", r"\w+\s+\w+\s*=\s*!", "a{0,999}b"]
)
@pytest.mark.parametrize("piece", ["a", "1", "1.", "a ", " ", "x\n", "aaa= "])
def test_no_pattern_that_is_taken_makes_it_slow(pattern: str, piece: str) -> None:
    started = time.process_time()
    vote_keys([piece * 3_900 + "!"], f"regex:{pattern}")

    assert time.process_time() - started < 5


# Counting


def test_the_most_votes_win() -> None:
    counted = count_votes(["b", "a", None, "a"])

    assert counted is not None
    assert (counted.key, counted.winner, counted.votes, counted.of) == ("a", 1, 2.0, 3.0)
    assert counted.counts == {"a": 2.0, "b": 1.0}
    assert list(counted.counts) == ["a", "b"]
    assert (counted.abstained, counted.tie) == ([2], None)


def test_nobody_who_votes_is_no_result() -> None:
    assert count_votes([]) is None
    assert count_votes([None, None]) is None
    assert count_votes(["a", "b"], [0, 0]) is None


def test_an_empty_key_is_no_vote() -> None:
    assert count_votes(["", ""]) is None
    assert count_votes(["", "a"]).abstained == [0]  # type: ignore[union-attr]


def test_weights_count_and_0_silences() -> None:
    counted = count_votes(["a", "b", "b", "c"], [3, 1, 1, 0])

    assert counted is not None
    assert (counted.key, counted.votes, counted.of) == ("a", 3.0, 5.0)
    assert counted.counts == {"a": 3.0, "b": 2.0}


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_silences(weight: float) -> None:
    assert count_votes(["a", "b"], [weight, 1]).key == "b"  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [[1e308, 1e308, 1e308], [1.7976931348623157e308, 5e-324, 1e308], [5e-324] * 3])
def test_no_finite_weight_is_too_large_or_too_small(weights: list[float]) -> None:
    counted = count_votes(["a", "a", "b"], weights)

    assert counted is not None
    assert counted.key == "a"
    assert math.isfinite(counted.of)
    assert math.isfinite(counted.votes)


def test_weights_are_added_exactly() -> None:
    counted = count_votes(["b", *["a"] * 10], [1, *[0.1] * 10])

    assert counted is not None
    assert (counted.key, counted.tie, counted.of) == ("b", "order", 2.0)


def test_a_tie_goes_to_the_more_confident_where_that_is_known_of_all() -> None:
    keys = ["a", "b", "b", "a", "c"]

    sure = count_votes(keys, None, [-3.0, -1.0, -1.5, -0.1, None])
    unknown = count_votes(keys, None, [-3.0, -1.0, -1.5, None, -0.1])
    equal = count_votes(keys, None, [-1.0, -1.0, -1.0, -1.0, None])

    assert sure is not None
    assert unknown is not None
    assert equal is not None
    assert (sure.key, sure.winner, sure.tie) == ("b", 1, "confidence")
    assert (unknown.key, unknown.winner, unknown.tie) == ("a", 0, "order")
    assert (equal.key, equal.winner, equal.tie) == ("a", 0, "order")


def test_the_most_confident_of_those_who_agree_stands_for_them() -> None:
    assert count_votes(["a", "a", "a"], None, [-2.0, -1.0, None]).winner == 1  # type: ignore[union-attr]
    assert count_votes(["a", "a"], None, [None, float("nan")]).winner == 0  # type: ignore[union-attr]


# What holds for every text


@given(TEXTS, KEYS, TEXTS)
def test_no_text_votes_for_nothing(text: str, key: str, question: str) -> None:
    found = key_of(text, key, question)

    assert found is None or (found == found.strip() != "" and len(found) <= 120)


@given(st.lists(TEXTS, max_size=6), KEYS, TEXTS, st.randoms(use_true_random=False))
def test_a_permutation_of_the_voters_permutes_the_votes(texts: list[str], key: str, question: str, random: Any) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)
    kind, keys = vote_keys(texts, key, question)

    moved = vote_keys([texts[at] for at in order], key, question)

    assert moved == (kind, [keys[at] for at in order])
    there, here = count_votes(keys), count_votes(moved[1])
    assert (there is None) == (here is None)
    if there and here:
        assert (here.counts, here.of, here.votes) == (there.counts, there.of, there.votes)
        assert here.tie or here.key == there.key


@given(TEXTS, st.sampled_from(["number", "choice"]))
def test_a_canonical_number_or_choice_is_its_own_canonical_form(text: str, kind: str) -> None:
    key = key_of(text, kind)

    assert key is None or key_of(key, kind) == key


@given(st.text(alphabet="abcé 421/.,!?'\"*_北京", max_size=40))
def test_a_canonical_text_is_its_own_canonical_form(text: str) -> None:
    key = key_of(text, "text")

    assert key is None or key_of(key, "text") == key


@given(st.fractions(max_denominator=999), st.integers(1, 9))
def test_spellings_of_the_same_rational_agree(value: Fraction, times: int) -> None:
    top, bottom = value.numerator, value.denominator
    assume(abs(top) < 10**15)
    spellings = [
        f"{top}/{bottom}",
        f"{top * times}/{bottom * times}",
        f"Answer: {top}/{bottom}.",
        f"**{top}/{bottom}**",
    ]
    spellings.append(f"\\boxed{{{'-' if top < 0 else ''}\\frac{{{abs(top)}}}{{{bottom}}}}}")

    assert len(set(vote_keys(spellings, "number")[1])) == 1


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3))
def test_spellings_of_the_same_decimal_agree(value: Any) -> None:
    spellings = [
        f"{value}",
        f"{value}0",
        f"{value:,}",
        f"x = {value}",
        f"{value:.6e}" if abs(value) >= 1 else f"{value}",
    ]
    spellings += [f"The answer is {value}.", f"${value}$", f"{value}".replace("-", "−")]
    assume(Fraction(f"{value:.6e}") == Fraction(value) or abs(value) < 1)

    [key, *others] = vote_keys(spellings, "number")[1]

    assert others == [key] * len(others)
    assert key is not None
    assert Fraction(*normalize.rational(key) or (0, 1)) == Fraction(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)))  # fmt: skip  # noqa: E501
def test_json_votes_the_same_however_it_is_laid_out(value: Any) -> None:
    compact, wide = json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False)

    one, other = vote_keys([compact, f"```json\n{wide}\n```"], "json:$")[1]

    assert isinstance(value, str | int | None) or one == other


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8), st.lists(st.integers(0, 3), min_size=8, max_size=8)
)
def test_all_votes_are_counted_once(keys: list[str | None], weights: list[float]) -> None:
    counted = count_votes(keys, weights[: len(keys)])

    total = sum(weight for key, weight in zip(keys, weights, strict=False) if key)
    assert total == (counted.of if counted else 0)
    if counted:
        assert sum(counted.counts.values()) == counted.of
        assert counted.votes == max(counted.counts.values())
        assert keys[counted.winner] == counted.key
        assert counted.abstained == [at for at, key in enumerate(keys) if key is None]


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "\n",
        "1",
        "1,",
        "1 ",
        "100 ",
        "1/",
        "answer ",
        "answer:*",
        "\\boxed{",
        "\\frac{",
        "- ",
        "1. ",
        "(",
        "[",
        "'",
        "北",
        "!",
        ".\t",
        "^{",
        "$",
        "$a",
        "**",
        "a) ",
        "{",
        '{"a":',
        '\\"',
        ",",
        ", ",
        "<think>",
        "```",
        "one ",
        "= ",
        "so ",
        "not ",
        "is ",
        "a, ",
        "¤",
        "5 km ",
        "a=",
        "I do not ",
        "+",
        "a/",
        "-a ",
        "minus 5 ",
        "so 5 ",
        "not 5 ",
        "5 so ",
        "0.3",
        "a is wrong, ",
        "1. a\n",
        "rs. 5 ",
        "1,00",
        "a half ",
        "¹",
    ],
)
@pytest.mark.parametrize("key", ["auto", "json:a", r"regex:\s*(\w+)\s*$"])
def test_no_text_makes_it_slow(piece: str, key: str) -> None:
    text = f"x{piece * (50_000 // len(piece))}x"

    started = time.process_time()
    vote_keys([text, f"({text}", f"Answer: {text}"], key, text)

    assert time.process_time() - started < 5
