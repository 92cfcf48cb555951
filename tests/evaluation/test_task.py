"""Which grader a task gets, and which tasks cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from grading import OPTIONS, RUBRIC, marked, refused

from fusiontools.evaluation.task import task_of


@pytest.mark.parametrize(
    ("meta", "asked", "grader"),
    [
        ({"target": 42}, "", "numeric"),
        ({"target": "1,000"}, "", "numeric"),
        ({"target": "$18"}, "", "numeric"),
        ({"target": "1/2"}, "", "numeric"),
        ({"target": [4, "4.0"]}, "", "numeric"),
        ({"target": ["4", "four"]}, "", "exact"),
        ({"target": "3.10"}, "Which version of Python?", "exact"),
        ({"target": "Apollo 11"}, "In 1969 and 1970, which missions flew?", "exact"),
        ({"target": True}, "", "exact"),
        ({"target": "B"}, OPTIONS, "choice"),
        ({"target": "B"}, "Which vitamin?", "exact"),
        ({"target": "I"}, "Who am I?", "exact"),
        ({"target": {"a": 1}}, "", "json"),
        ({"target": "x", "tests": "assert f"}, "", "code"),
        ({"target": "x", "rubric": RUBRIC}, "", "rubric"),
        ({"target": "x", "grader": "contains"}, "", "contains"),
        ({"target": "x", "grader": {"name": "regex"}}, "", "regex"),
        ({"target": "5", "grader": {"tolerance": 1}}, "", "numeric"),
    ],
)
def test_the_grader_is_the_task_s_own_else_what_suits_the_target(meta: Any, asked: str, grader: str) -> None:
    assert task_of(meta, asked).grader == grader


def test_a_typed_grader_goes_before_the_task_s_and_takes_options_only_where_they_are_its_own() -> None:
    meta = {"target": "40", "grader": {"name": "numeric", "tolerance": 2}}

    assert task_of(meta, "", "exact").options == {}
    assert marked(meta, "42", wanted="numeric") == ("numeric", 1)
    assert marked(meta, "42", wanted="exact") == ("exact", 0)


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({"target": "x", "grader": "exakt"}, "there is no grader 'exakt'; did you mean 'exact'?"),
        ({"target": "x", "grader": 7}, "there is no grader 7"),
        ({"target": 5, "grader": {"name": "numeric", "tolerence": 1}}, "did you mean 'tolerance'?"),
        ({"target": 5, "grader": {"name": "numeric", "tolerance": True}}, "tolerance: True"),
        ({"target": 5, "grader": {"name": "numeric", "tolerance": -1}}, "tolerance: -1"),
        ({"target": "x", "grader": {"name": "exact", "tolerance": 1}}, "exact has no options"),
        ({"target": "x+1", "grader": "numeric"}, "'x+1' is nothing that numeric can compare"),
        ({"target": "(", "grader": "regex"}, "no regular expression"),
        ({"target": r"(a)\1", "grader": "regex"}, "a back-reference is unknown to RE2"),
        ({"target": "1", "grader": {"name": "regex", "pattern": "("}}, "no regular expression"),
        ({"target": {}, "grader": {"name": "json", "path": "a..b"}}, "no path"),
        ({"rubric": "be nice", "grader": "rubric"}, "a list of criteria is wanted"),
        ({"rubric": [{"weight": 1}]}, "meta.rubric[0]"),
        ({"rubric": [{"criterion": "x", "weight": "10"}]}, "meta.rubric[0].weight"),
        ({"rubric": [{"criterion": "x", "weight": -1}]}, "nothing can be earned"),
        ({"tests": ["assert 1"]}, "meta.tests: text is wanted"),
    ],
)
def test_a_task_that_cannot_be_read_is_said_and_not_guessed(meta: Any, why: str) -> None:
    code, message = refused(meta)

    assert code == "bad_task"
    assert why in message


def test_a_letter_that_is_no_option_is_no_target() -> None:
    assert refused({"target": "E", "grader": "choice"}, OPTIONS)[0] == "bad_task"


@pytest.mark.parametrize(
    "grader", ["exact", "numeric", "choice", "contains", "regex", "json", "code", "rubric", "pairwise"]
)
def test_every_grader_needs_something_to_hold_texts_against(grader: str) -> None:
    assert refused({"grader": grader})[0] == "no_target"
