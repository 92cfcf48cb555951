"""What is read of graded records before anything is chosen."""

from __future__ import annotations

from typing import Any

import pytest
from graded import analysis, answer, call, grade, record
from simulated import Member, panels_of, simulate

from fusiontools.errors import UsageError
from fusiontools.evaluation.tune.groups import find_groups
from fusiontools.evaluation.tune.panels import PanelReader


def asked(name: str, question: str = "", **more: Any) -> Any:
    grades = [grade("panel", "a", 1.0), grade("panel", "b", 0.0)]
    calls = [call("panel", "a", 0.001), call("panel", "b", 0.002)]
    messages = [{"role": "user", "content": question or f"What is {name}?"}]
    return record(name, grades, calls, messages=messages, **more)


def test_ids_that_repeat_are_refused_with_their_number() -> None:
    with pytest.raises(UsageError, match="2 records repeat an id"):
        panels_of([asked("q1"), asked("q1"), asked("q1"), asked("q2")])


def test_repetitions_of_a_task_are_one_question() -> None:
    panels = panels_of([asked("q1#1", "Why?", epoch=1), asked("q1#2", "Why?", epoch=2), asked("q2")])

    assert panels.groups == 2
    assert panels.by_group(panels.scores)[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("questions", "groups"),
    [
        (["What is the capital of France?", "what is the CAPITAL of france"], [0, 0]),
        (["What is 31 minus 8?", "What is 31 minus 9?"], [0, 1]),
        (["Name a river.", "Name a lake.", "name a river"], [0, 1, 0]),
        (
            ["Write a long and careful essay about the history of the city of Vienna in ten parts, please.",
             "Write a long and careful essay about the history of the city of Vienna in ten parts, please!! Now."],
            [0, 0],
        ),
        (["", "", "?"], [0, 1, 2]),
    ],
)  # fmt: skip
def test_questions_that_are_nearly_the_same_are_one_group(questions: list[str], groups: list[int]) -> None:
    assert find_groups(questions, [f"t{i}" for i in range(len(questions))]) == groups


def test_a_task_or_a_group_of_ones_own_joins_whatever_is_asked() -> None:
    assert find_groups(["one", "two", "three"], ["x", "y", "x"]) == [0, 1, 0]
    assert panels_of([asked("q1", meta={"group": "page 7"}), asked("q2", meta={"group": "page 7"})]).groups == 1


def test_a_record_that_lacks_a_member_is_left_out_and_counted() -> None:
    rows = [asked(f"q{i}") for i in range(20)]
    rows[3]["grades"] = rows[3]["grades"][:1]

    panels = panels_of(rows)

    assert (len(panels.ids), panels.dropped, panels.members) == (19, 1, ["a", "b"])


def test_where_a_price_is_unknown_the_cost_is_the_number_of_calls() -> None:
    rows = [asked(f"q{i}") for i in range(3)]
    assert panels_of(rows).usd.tolist() == [[0.001, 0.002]] * 3

    rows[0]["calls"][0]["cost_usd"] = None

    panels = panels_of(rows)
    assert not panels.priced
    assert panels.usd.tolist() == [[1, 1]] * 3


def test_a_baseline_is_a_member_like_any_other() -> None:
    rows = [asked(f"q{i}") for i in range(3)]
    for row in rows:
        row["grades"].append(grade("baseline", "solo", 1.0))
        row["calls"].append(call("baseline", "solo", 0.004))

    panels = panels_of(rows)

    assert panels.members == ["a", "b", "solo"]
    assert panels.usd[0].tolist() == [0.001, 0.002, 0.004]


def test_a_written_answer_is_a_system_of_its_own_and_a_copied_one_is_none() -> None:
    rows = [asked(f"q{i}", answer=answer(), analysis=analysis([0, 1])) for i in range(2)]
    for row in rows:
        row["grades"].insert(0, grade("answer", "j", 1.0))
        row["calls"] += [call("judge", "j", 0.01), call("synth", "j", 0.02)]

    written = panels_of(rows).fusion
    copied = panels_of([{**row, "answer": answer("vote")} for row in rows]).fusion

    assert written[:, 1].tolist() == pytest.approx([0.033, 0.033])
    assert copied is None


def test_failed_and_ungraded_records_are_counted_apart() -> None:
    reader = PanelReader()
    for row in ({**asked("q1"), "error": {"stage": "panel", "code": "all_failed", "message": "x"}}, record("q2", [])):
        reader.add(row)

    assert (reader.records, reader.failed, reader.ungraded) == (2, 1, 1)


def test_simulated_members_are_as_good_as_they_are_said_to_be() -> None:
    panels = panels_of(simulate({"a": Member(0.8), "b": Member(0.4)}, 800, 1))

    assert panels.scores.mean(axis=0) == pytest.approx([0.8, 0.4], abs=0.05)
