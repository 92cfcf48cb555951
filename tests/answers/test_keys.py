"""What an answer votes for, by the key that is typed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from votes import KEYS, OPTIONS, TEXTS, key_of

from fusiontools.answers import structured
from fusiontools.answers.keys import check_key, read_votes, surely_vague, vote_keys
from fusiontools.answers.lexical import agreement_share
from fusiontools.answers.tally import count_votes
from fusiontools.errors import UsageError

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


@pytest.mark.parametrize(
    ("text", "key", "question"),
    [
        ("ABCDEF" * 40, "auto", "What is the serial code?"),
        ("word " * 70 + ".", "auto", "What is the serial code?"),
        ("word " * 60 + ".", "regex:(?s)(.+)", ""),
        (f'{{"a": "{"word " * 60}"}}', "json:a", ""),
        ('{"x":"\ud800"}', "auto", ""),
        ("word \ud800 " * 40 + ".", "auto", ""),
    ],
)
def test_what_says_the_same_is_compared_by_what_is_written_of_it(text: str, key: str, question: str) -> None:
    [own] = read_votes([text], key, question).keys
    again = f'{{"a": "{own}"}}' if key == "json:a" else own
    votes = read_votes([text, again or "", text.replace("\ud800", "\ud801")], key, question)

    assert len(set(votes.keys)) == len(set(votes.said)) == 1


def test_long_texts_that_differ_stay_apart_under_short_keys() -> None:
    one, other, again = vote_keys(
        ["word " * 100 + "a", "word " * 100 + "b", "**Word** " + "word " * 99 + "a\n"], "text"
    )[1]

    assert one == again != other
    assert str(one).startswith("word word word ")
    assert len(str(one)) <= 120


# Keys


@pytest.mark.parametrize(
    "key",
    [
        *["auto", "number", "choice", "text", "json:a.b[0]", "json:$", "json:[0]", "regex:(a+)+$", r"regex:(\d{3},)+"],
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
        r"regex:\(([A-J])\)",
        r"regex:(?:^|\n)\s*-?\s*(yes|no)\b",
        "regex:([A-Z][a-z]+(?: [A-Z][a-z]+)*)",
        f"regex:{'a?' * 40}{'a' * 40}",
        "regex:a*a*a*a*a*a*b",
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
        (r"regex:(?<=id=)\d+", "a look-behind is unknown to RE2, which searches in linear time"),
        (r"regex:(?<!id=)\d+", "a look-behind is unknown"),
        ("regex:(?=a)b", "a look-ahead is unknown"),
        ("regex:(?!a)b", "a look-ahead is unknown"),
        (r"regex:(a+)\1b", "a back-reference is unknown"),
        ("regex:(?P<n>a)(?P=n)", "a back-reference is unknown"),
        (r"regex:(a)?(?(1)b|c)", "a condition is unknown"),
        ("regex:(?>a)b", "an atomic group is unknown"),
        ("regex:a++b", "a possessive repeat is unknown"),
        ("regex:a**", "no regular expression: bad repetition operator"),
        (f"regex:{'a' * 1001}", "it has 1001 characters; write it with at most 1000"),
        (f"regex:{'()' * 21}", "it has 21 groups, and only the first one counts"),
        (r"regex:((\w{1,30}){1,30})$", "it takes too much memory; repeat less"),
        ("regex:" + "[^a]{0,999}" * 10, "it takes too much memory"),
    ],
)
def test_a_key_that_cannot_be_is_refused_in_words(key: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_key(key)

    assert reason in refused.value.message
    with pytest.raises(UsageError):
        vote_keys(["42"], key)


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


@given(TEXTS, st.sampled_from(["number", "choice", "text"]))
def test_a_key_is_its_own_key(text: str, kind: str) -> None:
    key = key_of(text, kind)

    assert key is None or key_of(key, kind) == key


@given(TEXTS, KEYS, TEXTS, st.sampled_from([" ", "\n", "\t ", " \n \n", "\u00a0"]), st.booleans())
def test_a_key_does_not_depend_on_surrounding_blanks(
    text: str, key: str, question: str, blanks: str, before: bool
) -> None:
    assert vote_keys([f"{blanks}{text}" if before else f"{text}{blanks}"], key, question) == vote_keys(
        [text], key, question
    )


@pytest.mark.parametrize("text", ["0/\\", "x\\", "5 \\", "a = \\", "{\\"])
def test_a_backslash_at_the_end_is_no_latex_space(text: str) -> None:
    assert vote_keys([text, f"{text} "], "text")[1] == [key_of(text, "text")] * 2


def test_a_pattern_that_takes_too_long_finds_nothing() -> None:
    begun = time.monotonic()

    _, keys = vote_keys(["aab" * 666], "regex:(?:[ab]*a(?:[ab]{30}){30}c)|(.)")

    assert keys == [None]
    assert time.monotonic() - begun < 10 * structured.SEARCH_S


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


PROSE_TEXT = "so the river is 12 km wide not x+1 answer: yes (a) b) red [1] {2} = 7 3/4 é"
LONG_PROSE = st.lists(st.sampled_from(PROSE_TEXT.split()), min_size=28, max_size=60).map(" ".join)
ASKED = st.sampled_from(["", "Why?", "Is it wide?", "How wide is it?", "Which one: a) red b) blue?", "Tea or coffee?"])


@given(st.lists(st.one_of(LONG_PROSE, TEXTS), min_size=2, max_size=5), ASKED)
def test_what_is_surely_vague_has_no_share_of_agreement(texts: list[str], question: str) -> None:
    if surely_vague(texts, question):
        assert agreement_share(read_votes(texts, question=question)) is None


def test_two_long_answers_that_differ_are_surely_vague_whoever_stands_beside_them() -> None:
    long = [f"{word} " + "rivers run to the sea and the sea is never full of them " * 3 for word in ("All", "Some")]

    assert surely_vague([*long, "Yes."], "Why?")
    assert not surely_vague([long[0], long[0], "Yes."], "Why?")
    assert surely_vague([*long, "Yes.", "No."], "Why?")
    assert not surely_vague([long[0], "Yes."], "Why?")
