"""Which systems a graded record holds, and what each of them cost."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from graded import analysis, answer, call, grade, record, scored
from reporting import data, summed, system

from fusiontools.cli.report_text import format_report
from fusiontools.evaluation.report.systems import (
    FUSION,
    ORACLE,
    PICK,
    VOTE,
    Outcome,
    System,
    outcomes,
    wall_clock,
)
from fusiontools.record import jsonl

A, B = System("member", "a"), System("member", "b")


def outcome_of(graded: dict[str, Any], system: System) -> Outcome:
    return outcomes(jsonl.parse(json.dumps(graded).encode()))[system]


def test_a_member_alone_is_the_mean_of_its_samples() -> None:
    graded = record("q", [grade("panel", "a", 1), grade("panel", "a", 0, sample=1), grade("panel", "b", 1)])

    assert outcome_of(graded, A).score == 0.5
    assert outcome_of(graded, B).score == 1


def test_members_alone_are_of_the_first_layer_where_there_are_layers() -> None:
    second = grade("panel", "a", 1, layer=2)
    graded = record("q", [second, grade("layer", "a", 0)], [call("panel", "a"), call("panel", "a", layer=2)])

    assert outcome_of(graded, A).score == 0
    assert outcome_of(graded, A).took.calls == 1
    assert outcome_of(graded, VOTE).score == 1
    assert outcome_of(graded, VOTE).took.calls == 2


@pytest.mark.parametrize(
    ("keys", "score"), [(["x", "t", "t"], 1), (["x", "t"], 0), (["t", "x"], 1), ([None, "t"], 1), ([None, None], 0)]
)
def test_a_vote_goes_to_the_majority_and_a_tie_to_the_earliest(keys: list[str | None], score: float) -> None:
    grades = [{**grade("panel", str(i), float(key == "t")), "key": key} for i, key in enumerate(keys)]

    assert outcome_of(record("q", grades), VOTE).score == score


def test_a_failed_response_neither_votes_nor_is_picked() -> None:
    failed = {**grade("panel", "a", 0), "key": None, "error": {"code": "timeout", "message": "late"}}
    graded = record("q", [failed, grade("panel", "b", 1)], analysis=analysis([0, 1]))

    assert outcome_of(graded, VOTE).score == 1
    assert outcome_of(graded, PICK).score == 1
    assert outcome_of(graded, A).failed == 1
    assert outcome_of(graded, VOTE).failed == 0


def test_the_pick_is_the_first_of_the_ranking_and_the_oracle_the_best() -> None:
    grades = [grade("panel", name, score) for name, score in (("a", 0.0), ("b", 0.5), ("c", 1.0))]
    graded = record("q", grades, analysis=analysis([1, 2, 0]))

    assert outcome_of(graded, PICK).score == 0.5
    assert outcome_of(graded, ORACLE).score == 1


def test_the_first_samples_of_one_model_vote() -> None:
    keys = ["x", "t", "t", "x", "x"]
    grades = [grade("baseline", "m", float(key == "t"), key, sample=n) for n, key in enumerate(keys)]

    scores = [outcome_of(record("q", grades), System("baseline", "m", n)).score for n in (2, 3, 4, 5)]

    assert scores == [0, 1, 0, 0]


def test_each_system_pays_for_the_calls_that_it_needs() -> None:
    calls = [
        call("route", "r", 0.5), call("panel", "a", 1.0), call("panel", "b", 2.0),
        call("panel", "j", 0.25, step="agree"), call("judge", "j", 4.0), call("synth", "s", 8.0),
        call("baseline", "m", 16.0), call("grade", "g", 32.0),
    ]  # fmt: skip
    grades = [grade("answer", "s", 1), grade("panel", "a", 1), grade("panel", "b", 0), grade("baseline", "m", 1)]
    graded = record("q", grades, calls, analysis=analysis([0, 1]))

    spent = {name: outcome.took.usd / outcome.samples for name, outcome in outcomes(graded).items()}  # type: ignore[arg-type]

    assert spent[FUSION] == 15.75
    assert (spent[A], spent[B], spent[System("baseline", "m")]) == (1.0, 2.0, 16.0)
    assert (spent[VOTE], spent[PICK]) == (3.25, 7.25)
    assert System("member", "j") not in spent


def test_a_replayed_call_costs_what_it_cost_when_it_was_bought_and_took_nobody_knows_how_long() -> None:
    replayed = call("panel", "a", 0.0, replayed=True, saved_usd=0.5)
    outcome = outcome_of(record("q", [grade("answer", "a", 1)], [replayed]), FUSION)

    assert outcome.took.usd == 0.5
    assert math.isnan(outcome.took.latency_s)


def test_a_cost_that_nobody_said_is_unknown_and_never_0() -> None:
    found = data([scored("q", 1, a=1, b=1), record("r", [grade("answer", "j", 1)], [call("panel", "a", None)])])

    assert system(found, "fusion")["usd_per_task"] is None
    assert system(found, "fusion")["usd_per_right"] is None
    assert system(found, "b")["usd_per_task"] == 0.001
    assert found["cost_measure"] == "calls"
    assert "≥$0.0025" in format_report(summed([scored("q", 1, a=1), scored("r", 1, a=1) | {"calls": [
        call("panel", "a", 0.002), call("judge", "j", None)]}]), colour=False)  # fmt: skip


def test_an_answer_without_any_call_was_not_free() -> None:
    found = data([record("q", [grade("answer", "j", 1), grade("panel", "a", 1)])])

    assert system(found, "fusion")["usd_per_task"] is None
    assert system(found, "a")["usd_per_right"] is None


def test_members_answer_at_once_and_stages_one_after_the_other() -> None:
    calls = [
        call("panel", "a", latency_s=1), call("panel", "b", latency_s=3), call("panel", "a", latency_s=1, attempt=2),
        call("panel", "a", layer=2, latency_s=2), call("judge", "j", latency_s=4), call("synth", "s", latency_s=5),
    ]  # fmt: skip

    assert wall_clock(calls) == 3 + 2 + 4 + 5
    assert math.isnan(wall_clock([]))


def test_a_tie_is_broken_as_fuse_vote_breaks_it() -> None:
    grades = [{**grade("panel", name, float(name == "b")), "key": name} for name in "ab"]
    taken = {"answer": {"content": "b", "by": "vote", "response": 1}}
    sure = {"panel": [{"member": name, "mean_logprob": sure} for name, sure in (("a", -2.0), ("b", -1.0))]}

    assert outcomes({**record("q", grades), **taken})[VOTE].score == 1  # type: ignore[typeddict-item]
    assert outcomes({**record("q", grades), **sure})[VOTE].score == 1  # type: ignore[typeddict-item]
    assert outcomes(record("q", grades))[VOTE].score == 0  # type: ignore[arg-type]


def test_a_tie_goes_by_the_ranking_as_in_fuse_vote() -> None:
    grades = [grade("panel", name, float(name == "b"), name) for name in "ab"]

    assert outcome_of(record("q", grades, analysis=analysis([1, 0])), VOTE).score == 1
    assert outcome_of(record("q", grades), VOTE).score == 0


def test_a_tie_of_one_models_samples_is_broken_by_the_same_rule() -> None:
    grades = [grade("baseline", "m", float(n == 1), str(n), sample=n) for n in range(2)]
    sure = [{"member": "m", "sample": n, "layer": 1, "content": "x", "mean_logprob": n - 2.0} for n in range(2)]

    assert outcome_of(record("q", grades, baselines=sure), System("baseline", "m", 2)).score == 1
    assert outcome_of(record("q", grades), System("baseline", "m", 2)).score == 0


@pytest.mark.parametrize(
    ("by", "notes", "taken"),
    [
        (VOTE.kind, [], VOTE),
        (PICK.kind, [], PICK),
        ("panel", [{"stage": "vote", "code": "nothing_to_count", "detail": "…"}], VOTE),
        ("panel", [{"stage": "pick", "code": "one_survivor", "detail": "…"}], PICK),
        ("panel", [{"stage": "synth", "code": "synth_failed", "detail": "…"}], None),
        ("synth", [], None),
    ],
)
def test_what_the_fusion_took_is_what_its_stage_takes(by: str, notes: list[Any], taken: System | None) -> None:
    """The vote would take the first, and so would the pick; the second is what was taken."""
    grades = [grade("answer", "b", 1), grade("panel", "a", 0, "a"), grade("panel", "b", 1, "b")]
    copied = {"answer": {**answer(by), "response": 1}, "degraded": notes}

    found = outcomes(jsonl.parse(json.dumps(record("q", grades, **copied)).encode()))

    assert {system: found[system].score for system in (VOTE, PICK)} == {
        system: float(system == taken) for system in (VOTE, PICK)
    }
