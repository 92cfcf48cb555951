"""What stays in the denominators: failed records, missing grades, repetitions."""

from __future__ import annotations

import pytest
from graded import call, grade, record, scored
from reporting import comparison, data, system


def test_a_record_that_failed_counts_0_for_everybody_without_a_grade_there() -> None:
    error = {"stage": "panel", "code": "all_failed", "message": "nobody answered"}
    failed = record("r", [], [call("panel", "a", status="timeout")], error=error)

    found = data([scored("q", 1, a=1, b=1), failed])

    assert {row["system"]: row["score"] for row in found["systems"]} == dict.fromkeys(
        ("fusion", "a", "b", "vote", "oracle"), 0.5
    )
    assert {row["failed"] for row in found["systems"]} == {1}
    assert system(found, "a")["calls_per_task"] == 1


def test_a_fusion_that_failed_where_a_member_did_not_is_no_tie() -> None:
    error = {"stage": "synth", "code": "budget", "message": "spent"}
    found = data([scored("q", 1, a=1), record("r", [grade("panel", "a", 1)], error=error)])

    assert system(found, "fusion")["score"] == 0.5
    assert system(found, "a")["score"] == 1


def test_a_record_without_grades_counts_0_and_is_told() -> None:
    found = data([scored("q", 1, a=1), record("r", [])])

    assert [system(found, name)["score"] for name in ("fusion", "a")] == [0.5, 0.5]
    assert any("without any grade" in note for note in found["notes"])


def test_a_member_that_was_not_asked_is_compared_where_it_was() -> None:
    found = data([scored("q", 1, a=1, b=0), scored("r", 0, a=1), scored("s", 1, a=1, b=1)])

    assert (system(found, "b")["score"], system(found, "b")["tasks"]) == (0.5, 2)
    assert comparison(found, "best-single")["rivals"]["b"]["tasks"] == 2
    assert any("b on 2 of 3 tasks" in note for note in found["notes"])


@pytest.mark.parametrize("named", ["meta", "epoch"])
def test_repetitions_of_a_task_are_one_observation(named: str) -> None:
    again = {"epoch": 1} | ({"meta": {"task": "q"}} if named == "meta" else {})
    first = {"meta": {"task": "q"}} if named == "meta" else {}

    found = data([{**scored("q", 1, a=1), **first}, {**scored("q#1", 0, a=1), **again}, scored("r", 1, a=1)])

    assert (found["tasks"], found["records"]) == (2, 3)
    assert system(found, "fusion")["score"] == 0.75


def test_an_id_of_the_users_own_with_a_number_is_no_repetition() -> None:
    assert data([scored("issue#1", 1, a=1), scored("issue#2", 1, a=1)])["tasks"] == 2


def test_an_id_that_comes_twice_is_told() -> None:
    found = data([scored("q", 1, a=1), scored("q", 0, a=1)])

    assert found["tasks"] == 1
    assert any("came before" in note for note in found["notes"])
