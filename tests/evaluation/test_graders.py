"""What counts as right by code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from grading import LONG, OPTIONS, answered, marked, run_grade
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers.keys import vote_keys


def rows(grader: Any, target: Any, asked: str, right: Sequence[str], wrong: Sequence[str]) -> list[Any]:
    return [(grader, target, asked, text, 1) for text in right] + [(grader, target, asked, text, 0) for text in wrong]


TRICKY = [
    *rows(
        "numeric", 391, "What is 17 * 23?",
        ["391", "It is 391.0.", "$391$", "\\boxed{391}", "#### 391", "17 * 23 = 391", "391 (per Model 1, Model 3)",
         "The answer is 391 (Model 2 says 401).", "<think>3</think>391", "**Answer:** 391\n\nLet me know!"],
        ["", "3", "319", "-391", "39.1", "391 or 401", "I don't know", "about Model 391x", "<think>391</think>17"],
    ),
    *rows("numeric", "18", "How much does she earn?", ["$18", "18 dollars", "She earns $18 a day."], ["$180", "18%"]),
    *rows("numeric", 0.5, "What share?", ["50%", "1/2", ".5", "0.50"], ["5%", "50", "2"]),
    *rows("numeric", "-5", "", ["-5", "minus 5", "The result is -5."], ["5", "3-5"]),
    *rows("numeric", ["4", "5"], "", ["4", "5"], ["4 and 5", "6"]),
    *rows({"name": "numeric", "tolerance": 0.01}, 3.14, "", ["3.14159", "3.13"], ["3.12", "3.16"]),
    *rows({"name": "numeric", "relative": 0.01}, 200, "How far?", ["198 km", "202"], ["197", "203 km"]),
    *rows({"name": "numeric", "tolerance": 1}, "5 km", "How far?", ["6 km", "5"], ["5 kg", "7 km"]),
    *rows(
        "choice", "B", OPTIONS,
        ["B", "(b)", "**B)** an apple", "The answer is B.", "an apple", "Not A, so B.", "Answer: B) an apple"],
        ["A", "### Synthesized Answer\nBecause it grows.", "The answer depends.", "A stone is no fruit.", "A, B", ""],
    ),
    *rows(
        "exact", "Paris", "What is the capital of France?",
        ["paris", "**Paris**.", "The capital of France is Paris.", "Answer: Paris"],
        ["London", "Not Paris", "Paris, Texas", "I don't know"],
    ),
    *rows("exact", "yes", "Is it so?", ["Yes.", "Yes, it is.", "true"], ["No.", "Maybe", "Yesterday"]),
    *rows("exact", "C++", "Which language?", ["C++"], ["C", "C#"]),
    *rows("exact", "42 km", "", ["42 km"], ["42", "42 m"]),
    *rows("exact", "3.10", "Which version of Python?", ["3.10", "Python 3.10"], ["3.1"]),
    *rows("contains", "def", "", ["Use `def` here.", "**def**", "DEF"], ["definitely", "undef", "<think>def</think>x"]),
    *rows("contains", "3", "", ["It is 3.", "(3)", "3, as said"], ["3.5", "1,300", "13", "-3", "x3"]),
    *rows("contains", "New York", "", ["It is **New\nYork**.", "new york!"], ["New Yorkshire", "York, New"]),
    *rows("contains", ["Rom", "Rome"], "", ["rome", "Rom"], ["Romeo"]),
    *rows({"name": "contains", "all": True}, ["red", "blue"], "", ["blue and red"], ["red", "reddish blue"]),
    *rows("contains", "北京", "", ["首都是北京。"], ["首都是南京。"]),
    *rows("regex", r"(?i)\banswer:\s*42\b", "", ["ANSWER:  42."], ["answer: 421", "42", "<think>answer: 42</think>"]),
    *rows({"name": "regex", "pattern": r"Answer: (\S+)"}, "42", "", ["Answer: 41\nAnswer: 42.0"], ["Answer: 41", "42"]),
    *rows(
        "json", {"a": 1, "b": ["x"]}, "",
        ['{"b":["x"],"a":1.0}', '```json\n{"a": 1, "b": ["X"],}\n```', 'Here: {"a": "1", "b": ["x"]} as asked.'],
        ['{"a":1}', '{"a":1,"b":["x"],"c":0}', "a: 1", ""],
    ),
    *rows("json", [1, 2], "", ["[1, 2]", "The list is [1, 2]."], ["[2, 1]", "1, 2"]),
    *rows({"name": "json", "path": "r.label"}, "spam", "", ['{"r":{"label":"Spam"}}'], ['{"label":"spam"}', "spam"]),
]  # fmt: skip


@pytest.mark.parametrize(("grader", "target", "asked", "text", "expected"), TRICKY)
def test_what_counts_as_right(grader: Any, target: Any, asked: str, text: str, expected: int) -> None:
    assert marked({"target": target, "grader": grader}, text, asked)[1] == expected


def test_a_long_text_is_read_to_its_end() -> None:
    assert marked({"target": 391}, f"{LONG}\nThe answer is 391.")[1] == 1
    assert marked({"target": "apple", "grader": "contains"}, f"{LONG} apple {LONG}")[1] == 1
    assert marked({"target": {"a": 1}}, f'{LONG}{{"a": 1}}')[1] == 1
    assert marked({"target": r"\bapple$", "grader": "regex"}, f"{LONG} apple")[1] == 1


GRADERS_BY_CODE = st.sampled_from(["exact", "numeric", "choice", "contains", "regex", "json"])


@given(st.text(max_size=200), st.integers(-(10**9), 10**9), GRADERS_BY_CODE)
def test_any_text_has_a_score_and_a_key_that_can_be_written(text: str, target: int, grader: str) -> None:
    meta = {"target": "B" if grader == "choice" else str(target), "grader": grader}
    record = answered(text, text + "1", meta=meta, messages=[{"role": "user", "content": OPTIONS}])

    result = run_grade(record)

    assert all(each["score"] in (0, 1) and each["key"] != "" for each in result["grades"])
    json.dumps(result).encode()


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{}", "The answer is {}.", "**{}**", "so it is\n\n#### {}", "\\boxed{{{}}}"]),
)
def test_a_number_is_right_however_it_is_presented_and_another_is_wrong(number: int, form: str) -> None:
    meta = {"target": number}

    assert marked(meta, form.format(number))[1] == 1
    assert marked(meta, form.format(number + 1))[1] == 0


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=50), st.integers(0, 40))
def test_a_tolerance_is_how_far_off_a_number_may_be(offset: Any, tolerance: int) -> None:
    meta = {"target": "1000", "grader": {"name": "numeric", "tolerance": tolerance}}

    right = marked(meta, f"{(1000 + offset).numerator}/{(1000 + offset).denominator}")[1]

    assert right == (abs(offset) <= tolerance)


@given(st.text(max_size=60))
def test_two_texts_that_fuse_vote_counts_as_one_answer_have_one_key(text: str) -> None:
    record = answered(text, text, f"{text} ", meta={"target": "x", "grader": "exact"})

    keys = [each["key"] for each in run_grade(record)["grades"]]

    assert keys == [keys[0]] * 3
    assert keys[0] == vote_keys([text], "auto", "What is 17 * 23?")[1][0]
