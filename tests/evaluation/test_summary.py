"""What a report says of a run: comparisons, costs, categories, the panel, and notes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from graded import World, analysis, answer, call, grade, record, run_of, scored
from hypothesis import given
from hypothesis import strategies as st
from reporting import AS_READ, MIXED, comparison, data, summed, system

from fusiontools.cli.report_export import export
from fusiontools.cli.report_text import format_report


def test_as_many_samples_vote_as_the_fusion_costs() -> None:
    """Four calls of the fusion: four samples of the baseline, although six were asked."""
    calls = [call("baseline", "m", sample=n) for n in range(6)]
    grades = [grade("baseline", "m", 1, sample=n) for n in range(6)]
    each = scored("q", 1, a=1, b=0)

    found = data([{**each, "grades": [*each["grades"], *grades], "calls": [*each["calls"], *calls]}])

    assert system(found, "m*4")["cost_ratio"] == 1
    assert comparison(found, "same-cost")["rival"] == "m*4"
    assert not [row for row in found["systems"] if row["system"] in ("m*3", "m*5", "m*6")]


def test_a_model_that_costs_far_less_is_not_called_the_same_cost() -> None:
    found = data([scored(f"q{i}", 1, a=1, b=0) for i in range(3)])

    assert not [row for row in found["comparisons"] if row["against"] == "same-cost"]
    assert found["answers"][0]["answer"] == "NOT MEASURED"
    assert any("--baseline MODEL*N" in note for note in found["notes"])


def test_the_fusion_is_better_than_the_best_single_member() -> None:
    found = data(run_of(World(mended=0.4), 200))

    better = comparison(found, "best-single")
    assert (better["rival"], better["verdict"], better["losses"]) == ("a", "better", 0)
    assert better["low"] > 0
    assert found["answers"][1]["answer"] == "YES"


def test_the_fusion_is_worse() -> None:
    found = data(run_of(World(broken=0.4), 200))

    assert comparison(found, "best-single")["verdict"] == "worse"
    assert found["answers"][1]["answer"] == "NO"


def test_what_cannot_be_told_says_how_many_tasks_would_tell() -> None:
    found = data(run_of(World(mended=0.12, broken=0.05), 60, seed=4))

    unsure = comparison(found, "best-single")
    assert unsure["verdict"] == "cannot tell"
    assert unsure["tasks_needed"] > 60
    assert f"takes about {unsure['tasks_needed']:,} tasks" in found["answers"][1]["why"]


def test_p_is_corrected_for_all_that_is_shown() -> None:
    found = data(run_of(World(mended=0.3), 100))["comparisons"]

    lowest = min(found, key=lambda row: row["p"])
    assert len(found) > 2
    assert lowest["p_holm"] == pytest.approx(len(found) * lowest["p"], rel=1e-4)


def test_the_judge_alone_is_compared_where_its_model_was_asked() -> None:
    each = scored("q", 1, a=0)
    asked = {**each, "grades": [*each["grades"], grade("baseline", "jj", 1)]}
    asked["calls"] = [*each["calls"], call("baseline", "jj", model="j")]

    found = data([asked])

    assert comparison(found, "judge")["rival"] == "jj"
    assert system(found, "jj")["parts"] == ["judge", "synth"]
    assert any("was not asked alone" in note for note in data([each])["notes"])


@pytest.mark.parametrize("stage", ["vote", "pick"])
def test_a_fusion_that_is_the_vote_or_the_pick_is_one_row_with_it(stage: str) -> None:
    each = {**scored("q", 1, a=1, b=0), "analysis": analysis([0, 1])}
    copied = {**each, "answer": {**answer(stage), "response": 0}}
    failed = record("r", [], error={"stage": "panel", "code": "all_failed", "message": "nobody answered"})

    found, apart = data([copied, failed]), data([copied, {**each, "id": "r", "answer": answer()}])

    assert system(found, "fusion")["same_as"] == [stage]
    for report, is_apart in ((found, False), (apart, True)):
        assert (stage in [row["system"] for row in report["systems"]]) == is_apart
        assert (stage in [row["against"] for row in report["comparisons"]]) == is_apart
    assert f"fusion = {stage}" in format_report(summed([copied, failed]), colour=False)
    assert system(data([copied], stage), stage)["same_as"] == ["fusion"]


def test_the_vote_of_one_models_samples_is_one_row_with_that_models_vote() -> None:
    grades = [grade("panel", "a", float(n != 1), sample=n) for n in range(3)]
    calls = [call("panel", "a", sample=n) for n in range(3)]
    asked = record("q", [grade("answer", "a", 1), *grades], calls, answer={**answer("vote"), "response": 0})

    found = data([asked])

    assert system(found, "fusion")["same_as"] == ["vote", "a*3"]
    assert [row["system"] for row in found["systems"]] == ["fusion", "a", "oracle"]
    assert not [row for row in found["comparisons"] if row["against"] in ("vote", "same-cost")]


@pytest.fixture
def partly() -> list[Any]:
    """Twenty tasks; a second model was asked twelve of them, which are those that are easy."""
    records = [scored(f"q{i}", float(i < 12), a=float(i < 8)) for i in range(20)]
    for each in records[:12]:
        each["grades"].append(grade("panel", "b", 1))
        each["calls"].append(call("panel", "b", 0.002))
    return records


def test_a_row_says_on_how_many_tasks_it_is_and_is_compared_on_those_alone(partly: list[Any]) -> None:
    found = data(partly)

    assert (system(found, "fusion")["tasks"], system(found, "b")["tasks"]) == (20, 12)
    assert (
        comparison(found, "best-single")["rivals"]["b"] | {"tasks": 12, "difference": 0}
        == (comparison(found, "best-single")["rivals"]["b"])
    )
    assert "b (12 of 20 tasks)" in format_report(summed(partly), colour=False)
    assert "| b (12 of 20 tasks) |" in (export(summed(partly), "markdown") or "")
    assert any("b on 12 of 20 tasks" in note for note in found["notes"])


def test_a_cost_is_compared_on_the_tasks_of_both(partly: list[Any]) -> None:
    """On its tasks the fusion takes four calls for $0.005, on the others three for $0.003."""
    assert system(data(partly), "b")["cost_ratio"] == pytest.approx(0.002 / 0.005)


def test_how_far_the_fusion_goes_is_told_on_the_tasks_of_all() -> None:
    records = [scored(f"q{i}", float(i < 3), a=float(i < 2), b=float(i in (2, 3))) for i in range(4)]
    more = [record(f"r{i}", [grade("answer", "j", 0)], [call("synth", "j")]) for i in range(4)]

    assert data([*records, *more])["panel"]["recovered"] == data(records)["panel"]["recovered"] == 0.5


def test_the_ceiling_and_the_co_failure_share_all_tasks() -> None:
    panel = data(
        [scored("q", 1, a=1, b=0), scored("r", 0, a=0, b=1), scored("s", 0, a=0, b=0), scored("t", 1, a=1, b=1)]
    )["panel"]

    assert panel["ceiling"]["score"] == 0.75
    assert panel["co_failure"] == 0.25
    [together] = panel["pairs"]
    assert (together["members"], together["n"]) == (["a", "b"], 4)
    assert (together["same_answer"], together["same_error"], together["correlation"]) == (0.5, 1, 0)


def test_scores_in_part_have_a_ceiling_and_no_co_failure() -> None:
    found = data([scored("q", 0.9, a=0.3, b=0.6), scored("r", 0.9, a=0.5, b=0.2)])

    assert found["panel"]["ceiling"]["score"] == pytest.approx(0.55)
    assert found["panel"]["co_failure"] is None
    assert comparison(found, "best-single")["test"] == "signs"


def test_the_ranking_is_told_by_place() -> None:
    ranked = [{**scored(f"q{i}", 1, a=1, b=0, c=float(i > 0)), "analysis": analysis([2, 0, 1])} for i in range(4)]

    panel = data(ranked)["panel"]

    assert [rank["score"] for rank in panel["ranking"]] == [0.75, 1, 0]
    assert panel["by_lot"] == pytest.approx(7 / 12)


def test_categories_are_told_apart() -> None:
    records = [
        {**scored(f"q{i}", float(i % 2), a=1), "meta": {"category": "odd" if i % 2 else "even"}} for i in range(5)
    ]

    found = {row["category"]: row for row in data(records)["categories"]}

    assert found["odd"]["scores"]["fusion"]["score"] == 1
    assert (found["even"]["tasks"], found["even"]["scores"]["fusion"]["score"]) == (3, 0)
    assert found["even"]["differences"]["a"]["difference"] == -1


def test_another_system_can_be_the_one_that_is_compared() -> None:
    found = data([scored(f"q{i}", 1, a=1, b=0) for i in range(3)], "a")

    assert found["subject"] == "a"
    assert comparison(found, "best-single")["rival"] == "b"


def test_a_baseline_of_a_members_name_is_told_from_it() -> None:
    each = scored("q", 1, a=1)
    found = data([{**each, "grades": [*each["grades"], grade("baseline", "a", 0), grade("baseline", "vote", 0)]}])

    assert (system(found, "a")["score"], system(found, "baseline:a")["score"]) == (1, 0)
    assert system(found, "baseline:vote")["score"] == 0


@given(st.randoms())
def test_the_order_of_records_changes_nothing(rng: random.Random) -> None:
    records = MIXED[:]
    rng.shuffle(records)

    assert data(records) == AS_READ
