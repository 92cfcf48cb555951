"""Which texts of a record are graded, and what a grade says."""

from __future__ import annotations

from typing import Any

import pytest
from grading import answered, run_grade, scores
from samples import failed, judged, question, response

from fusiontools.errors import InputError


def test_every_text_is_graded_answer_first_then_panel_layers_and_baselines() -> None:
    layers = [[response("a", "390"), failed("b")], [{**response("a", "391"), "layer": 2}]]
    panel = [{**response("a", "391"), "layer": 3}, {**response("a", "392"), "sample": 1, "layer": 3}]
    record = answered("391.", *panel, meta={"target": 391}, layers=layers, baselines=[response("z", "17")])

    result = run_grade(record)

    assert [(g["of"], g["member"], g["sample"], g["layer"], g["score"]) for g in result["grades"]] == [
        ("answer", "s", 0, 0, 1),
        ("panel", "a", 0, 3, 1),
        ("panel", "a", 1, 3, 0),
        ("layer", "a", 0, 1, 0),
        ("layer", "b", 0, 1, 0),
        ("layer", "a", 0, 2, 1),
        ("baseline", "z", 0, 1, 0),
    ]


def test_a_grade_says_whose_it_is_what_was_read_and_what_it_votes_for() -> None:
    result = run_grade(answered("**Answer:** 391", "It is 391.0.", "I don't know", meta={"target": "391"}))

    whose = {"sample": 0, "layer": 1, "grader": "numeric"}
    assert result["grades"] == [
        {"of": "answer", "member": "s", "sample": 0, "layer": 0, "grader": "numeric", "score": 1, "key": "391",
         "said": "391"},
        {"of": "panel", "member": "a", **whose, "score": 1, "key": "391", "said": "391"},
        {"of": "panel", "member": "b", **whose, "score": 0, "key": None},
    ]  # fmt: skip
    assert "calls" not in result


def test_a_failed_response_scores_nothing_and_keeps_its_place_and_its_error() -> None:
    result = run_grade(answered("391", failed("a"), "391", meta={"target": 391}))

    assert scores(result) == [1, 0, 1]
    assert result["grades"][1] == {
        "of": "panel", "member": "a", "sample": 0, "layer": 1, "grader": "numeric", "score": 0, "key": None,
        "error": failed("b")["error"],
    }  # fmt: skip


def test_layers_can_be_left_out() -> None:
    record = answered("1", "1", meta={"target": 1}, layers=[[response("a", "2")]])

    result = run_grade(record, layers=False)

    assert [g["of"] for g in result["grades"]] == ["answer", "panel"]


def test_a_panel_without_an_answer_is_graded() -> None:
    record = {key: value for key, value in answered("", "391", meta={"target": 391}).items() if key != "answer"}

    result = run_grade(record)

    assert [(g["of"], g["score"]) for g in result["grades"]] == [("panel", 1)]


def test_what_the_answer_does_not_say_is_not_graded() -> None:
    answer = {"content": "17", "by": "synth", "model": "s", "draft": {"content": "391", "by": "synth", "model": "s"}}

    result = run_grade({**judged(), "meta": {"target": 391}, "answer": answer, "notes": "391"})

    assert scores(result) == [0, 0, 0]


def test_a_failed_record_passes_untouched() -> None:
    record = question(error={"stage": "panel", "code": "all_failed", "message": "no"}, meta={"target": 1})

    assert run_grade(record) == record


def test_a_record_with_nothing_to_grade_is_refused() -> None:
    with pytest.raises(InputError, match="no `answer` and no `panel`"):
        run_grade(question(meta={"target": 1}))


@pytest.mark.parametrize("meta", [None, {}, {"target": None}, {"target": " "}, {"target": []}])
def test_without_a_target_there_are_no_grades_and_that_is_said(meta: Any) -> None:
    result = run_grade(answered("391", "391", meta=meta))

    assert "grades" not in result
    assert [(note["stage"], note["code"]) for note in result["degraded"]] == [("grade", "no_target")]


def test_a_new_grading_takes_the_place_of_the_old_one_and_keeps_what_that_cost() -> None:
    paid = {"stage": "grade", "attempt": 1, "model": "j", "endpoint": "e", "usage": None, "cost_usd": 1.0,
            "cost_source": "table", "latency_s": 1.0, "ttft_s": None, "status": "ok", "replayed": False}  # fmt: skip
    notes = [{"stage": "panel", "code": "member_failed", "detail": "x"}]
    first = run_grade(answered("391", calls=[paid], degraded=notes))

    again = run_grade({**first, "meta": {"target": "391"}})
    and_again = run_grade({**again, "meta": {"target": "17"}})

    assert [note["code"] for note in first["degraded"]] == ["member_failed", "no_target"]
    assert (scores(again), scores(and_again)) == ([1], [0])
    assert and_again["degraded"] == notes
    assert and_again["calls"] == [paid]


def test_a_bad_task_leaves_the_record_ungraded() -> None:
    result = run_grade(answered("5", meta={"target": "x", "grader": "exakt"}))

    assert "grades" not in result
    assert [note["code"] for note in result["degraded"]] == ["bad_task"]
