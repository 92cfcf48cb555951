"""People's own rows: what of them becomes a task, and what is refused with a reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasking import PLAIN, asked, own, run

from fusiontools.errors import InputError, UsageError
from fusiontools.evaluation.tasks.rows import (
    Draft,
    criteria_of,
    record_of,
    repeated,
    typed_prompts,
)
from fusiontools.record import jsonl


def test_a_row_of_fusion_engine_reads_as_it_is() -> None:
    record = own({"id": "mc1", "prompt": "A or B?", "target": "B", "grader": "multiple_choice", "category": "science"})

    assert record == {
        "id": "mc1",
        "messages": [{"role": "user", "content": "A or B?"}],
        "meta": {"target": "B", "grader": "choice", "category": "science"},
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("exact_match", "exact"), ("multiple_choice", "choice"), ("numeric", "numeric"), ("contains", "contains")],
)
def test_the_graders_of_fusion_engine_are_known(theirs: str, ours: str) -> None:
    assert own({"prompt": "?", "target": "B", "grader": theirs})["meta"]["grader"] == ours


def test_a_program_task_of_fusion_engine_brings_its_tests_along() -> None:
    row = {"id": "HumanEval/0", "prompt": "Complete it.", "target": "", "grader": "code_exec", "category": "code",
           "test": "def check(candidate):\n    assert candidate() == 1", "entry_point": "one"}  # fmt: skip

    meta = own(row)["meta"]

    assert meta["grader"] == "code"
    assert meta["tests"].endswith("\n\ncheck(one)\n")
    exec("def one(): return 1\n" + meta["tests"], {})  # noqa: S102 - written above


def test_weighted_criteria_make_a_rubric_task() -> None:
    row = {
        "id": "t1",
        "prompt": "Explain.",
        "criteria": [{"text": "Right.", "weight": 10}, {"text": "Wrong.", "weight": -5}],
    }

    assert own(row)["meta"] == {
        "rubric": [{"criterion": "Right.", "weight": 10}, {"criterion": "Wrong.", "weight": -5}],
        "grader": "rubric",
    }


def test_what_has_no_meaning_goes_to_meta_and_what_is_wanted_of_the_answer_to_params() -> None:
    record = own({"prompt": "?", "target": 1, "difficulty": "hard", "max_tokens": 5, "system": "Be brief."})

    assert record["meta"] == {"target": 1, "difficulty": "hard"}
    assert record["params"] == {"max_tokens": 5}
    assert record["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_record_stays_as_it_is() -> None:
    record = {
        "id": "a",
        "messages": [{"role": "user", "content": "?"}],
        "mine": [1],
        "answer": {"content": "x", "by": "synth", "model": "m", "finish_reason": "stop", "tool_calls": []},
        "meta": {"target": "y", "grader": {"name": "numeric", "tolerance": 0.1}, "lang": "en"},
    }

    assert own(record) == record


def test_a_task_without_an_id_gets_one_from_its_question() -> None:
    first, again, other = (own({"prompt": text, "target": "x"}) for text in ("a?", "a?", "b?"))

    assert first["id"] == again["id"] != other["id"]
    assert re.fullmatch(r"[0-9a-f]{16}", first["id"])


def test_an_id_that_is_a_number_becomes_text() -> None:
    assert own({"id": 17, "prompt": "?", "target": "x"})["id"] == "17"


@pytest.mark.parametrize("target", ["B", "b", "four", 1])
def test_the_right_option_is_a_letter_a_text_or_a_position(target: Any) -> None:
    record = own({"question": "2+2?", "choices": ["three", "four"], "answer": target})

    assert record["meta"] == {"target": "B", "grader": "choice"}
    assert asked(record) == "2+2?\nA) three\nB) four"


def test_a_number_that_could_be_position_or_text_is_refused() -> None:
    with pytest.raises(InputError, match="1 is a position and an option's text; give the letter"):
        own({"question": "?", "choices": ["1", "2"], "answer": 1})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"target": "x"}, "no `prompt`, `question` or `messages`"),
        ({"prompt": " ", "target": "x"}, "$.prompt: a question is text, and not empty"),
        ({"prompt": "?"}, "nothing to grade by"),
        ({"prompt": "?", "target": True}, "$.target: a target is text, a number"),
        ({"prompt": "?", "target": []}, "$.target: a target is text, a number"),
        ({"prompt": "?", "target": "x", "grader": "exakt"}, "there is no grader 'exakt'; did you mean 'exact'"),
        ({"prompt": "?", "target": "x", "grader": "rubric"}, "the grader 'rubric' needs `rubric`"),
        ({"prompt": "?", "grader": "code", "target": "x"}, "the grader 'code' needs `tests`"),
        ({"prompt": "?", "options": ["a"], "target": "A"}, "$.options: options are a list of 2 to 26"),
        ({"prompt": "?", "options": ["a", "b"], "target": "C"}, "'C' is not one of the 2 options"),
        ({"prompt": "?", "rubric": "be good"}, "$.rubric: a rubric is a list of criteria"),
        ({"prompt": "?", "rubric": [{"weight": 1}]}, "$.rubric[0]: this criterion has no text"),
        ({"prompt": "?", "rubric": [{"text": "x", "weight": "1"}]}, "$.rubric[0].weight: a weight is a number"),
        ({"prompt": "?", "rubric": [{"text": "x", "weight": -1}]}, "no criterion has a positive weight"),
        ({"prompt": "?", "target": "x", "meta": 3}, "$.meta: `meta` is an object"),
        ({"messages": [], "target": "x"}, "$.messages"),
    ],
)
def test_a_row_that_is_no_task_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        own(row)


def test_any_json_is_a_target_of_the_json_grader() -> None:
    assert own({"prompt": "?", "target": {"a": [True]}, "grader": "json"})["meta"]["target"] == {"a": [True]}


@given(st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=6))
def test_weights_survive_in_order_and_a_rubric_needs_a_positive_one(weights: list[float]) -> None:
    rubric = [{"criterion": f"c{at}", "weight": weight} for at, weight in enumerate(weights)]

    if max(weights) > 0:
        assert criteria_of(rubric) == rubric
    else:
        with pytest.raises(InputError, match="no criterion has a positive weight"):
            criteria_of(rubric)


def test_a_text_cannot_open_another_gap_of_the_prompt() -> None:
    draft = Draft("show {options} and {question}", ["{question}", "b"], {"meta": {"target": "A"}})

    assert asked(record_of(draft, PLAIN)) == "show {options} and {question}\nA) {question}\nB) b"


@given(st.text(min_size=1).filter(str.strip), st.lists(st.text(), min_size=2, max_size=5))
def test_question_and_options_stand_in_the_prompt_unchanged(question: str, options: list[str]) -> None:
    record = record_of(Draft(question, options, {}), PLAIN)

    shown = "\n".join(f"{letter}) {option}" for letter, option in zip("ABCDE", options, strict=False))
    assert asked(record) == f"{question}\n{shown}"


def test_a_typed_prompt_is_a_known_name_or_a_text_with_the_question() -> None:
    known = {"plain": "{question}", "math": "Solve. {question}"}

    assert typed_prompts("math", known).plain == "Solve. {question}"
    assert typed_prompts("Q: {question}", known).plain == "Q: {question}"
    with pytest.raises(UsageError, match="'mth': no such prompt; did you mean 'math'"):
        typed_prompts("mth", known)


def test_a_typed_prompt_without_options_is_refused_where_tasks_have_some() -> None:
    done = run("short", "--category", "choice", "--template", "Q: {question}")

    assert done.returncode == 2
    assert "the template needs {options}" in done.stderr


@given(st.integers(1, 6))
def test_each_epoch_has_an_id_of_its_own_and_names_the_task(epochs: int) -> None:
    record: Any = {"id": "a", "messages": [], "meta": {"target": 1}}

    made = list(repeated(record, epochs))

    assert [each["id"] for each in made] == ["a", *(f"a#{k}" for k in range(1, epochs))]
    assert [each.get("epoch", 0) for each in made] == list(range(epochs))
    assert made[0] == record if epochs == 1 else {each["meta"]["task"] for each in made} == {"a"}


def test_epochs_pass_the_schema() -> None:
    done = run("code", "-n", "2", "--epochs", "3")

    lines = done.stdout.encode().splitlines()
    assert [jsonl.parse(line).get("epoch", 0) for line in lines] == [0, 1, 2, 0, 1, 2]
