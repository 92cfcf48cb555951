"""`fuse-grade`: records in, grades out."""

from __future__ import annotations

from typing import Any

import pytest
from grading import PAIRED, RUBRIC, answered, run_grade, scores
from samples import failed, lines, question, response
from workdir import Run, Upstream

from fusiontools.cli.grade import as_text


def graded_by_tool(run: Run, record: Any, *args: str) -> Any:
    result = run(["fuse-grade", *args], lines([record]))
    assert (result.status, result.err) == (0, "")
    [written] = result.records
    return written


def test_the_tool_grades_a_stream(run: Run) -> None:
    records = [answered("391", "17", meta={"target": 391}), answered("x", meta={"target": 391}, id="q2")]

    result = run(["fuse-grade"], lines(records))

    assert (result.status, result.err) == (0, "")
    assert [scores(record) for record in result.records] == [[1, 0], [0]]


def test_a_bad_line_is_reported_and_the_rest_graded(run: Run) -> None:
    stdin = lines([question(meta={"target": 1})]) + b"{\n" + lines([answered("391", meta={"target": 391})])

    result = run(["fuse-grade"], stdin)

    assert result.status == 1
    assert [scores(record) for record in result.records] == [[1]]
    assert result.err.startswith("fuse-grade: stdin:1: $: nothing to grade")


def test_a_judge_that_fails_is_summed_up_and_with_strict_is_a_failure(run: Run) -> None:
    records = lines([answered("x", meta={"rubric": RUBRIC}, id=name) for name in ("q", "r")])
    command = ["fuse-grade", "-m", "fake/j+status=400"]

    lax, strict = run(command, records), run([*command, "--strict"], records)

    assert (lax.status, strict.status, len(strict.records)) == (0, 1, 2)
    assert lax.err.startswith("fuse-grade: 2 of 2 records: ")
    assert lax.err == strict.err


def test_the_tool_asks_the_judge_of_the_record_s_recipe(run: Run, upstream: Upstream) -> None:
    upstream.script("fake/judge", *['text={"met":true}'] * 3)
    judge = {"models": [{"name": "fake/judge", "model": "fake/judge", "endpoint": "openrouter"}]}
    record = answered("x", meta={"rubric": RUBRIC}, recipe={"name": "mine", "judge": judge})

    written = graded_by_tool(run, record)

    assert {call["member"] for call in written["calls"]} == {"fake/judge"}


def test_a_typed_judge_goes_before_the_recipe_s(run: Run, upstream: Upstream) -> None:
    judge = {"models": [{"name": "fake/judge", "model": "fake/judge", "endpoint": "openrouter"}]}
    record = answered("x", meta=PAIRED, recipe={"name": "mine", "judge": judge})

    written = graded_by_tool(run, record, "-m", "fake/other+text=tie")

    assert {call["member"] for call in written["calls"]} == {"fake/other+text=tie"}
    assert scores(written) == [0.5]


def test_a_judge_is_named_once(run: Run) -> None:
    result = run(["fuse-grade", "-m", "fake/judge*3"], lines([answered("x", meta=PAIRED)]))

    assert (result.status, result.out) == (2, b"")
    assert "--runs N" in result.err


def test_an_unknown_grader_is_refused_before_anything_is_read(run: Run) -> None:
    result = run(["fuse-grade", "--grader", "exakt"])

    assert (result.status, result.out) == (2, b"")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (answered("391", "17", failed("b"), meta={"target": 391}), "q1: 1  (a 0, b 0 [timeout])\n"),
        (
            answered(
                "391",
                meta={"target": 391},
                layers=[[response("a", "1")]],
                baselines=[{**response("z", "391"), "sample": 2}],
            ),
            "q1: 1  (layer 1 a 0, baseline z#2 1)\n",
        ),
        (answered("391"), "q1: not graded: the task has no `meta.target` to hold the texts against\n"),
    ],
)
def test_a_person_sees_one_line_of_scores(record: Any, line: str) -> None:
    assert as_text(run_grade(record)) == line
