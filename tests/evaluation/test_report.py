"""`fuse-report`: which systems it finds in graded records, what they cost, and what it says of them."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from graded import World, analysis, answer, call, grade, lines, record, run_of, scored
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from workdir import Run

from fusiontools.cli.report_export import as_data
from fusiontools.cli.report_text import bar, printed, usd
from fusiontools.evaluation.report.scores import ScoreTable
from fusiontools.evaluation.report.statistics import Draws
from fusiontools.evaluation.report.summary import Summary, SummaryBuilder
from fusiontools.evaluation.report.systems import (
    FUSION,
    ORACLE,
    PICK,
    VOTE,
    Outcome,
    System,
    outcomes,
    spent_on,
    wall_clock,
)
from fusiontools.record import jsonl

A, B = System("member", "a"), System("member", "b")
FEW = Draws(resamples=200)


def read(records: Iterable[Any]) -> ScoreTable:
    gathered = ScoreTable()
    for each in records:
        gathered.add(jsonl.parse(json.dumps(each).encode()))
    gathered.finish()
    return gathered


def summed(records: Iterable[Any], subject: str | None = None) -> Summary:
    return SummaryBuilder(read(records), subject, FEW).build()


def data(records: Iterable[Any], subject: str | None = None) -> dict[str, Any]:
    return as_data(summed(records, subject))


def system(found: dict[str, Any], name: str) -> dict[str, Any]:
    [row] = [row for row in found["systems"] if row["system"] == name]
    return row


def comparison(found: dict[str, Any], against: str) -> dict[str, Any]:
    [row] = [row for row in found["comparisons"] if row["against"] == against]
    return row


def outcome_of(graded: dict[str, Any], system: System) -> Outcome:
    return outcomes(jsonl.parse(json.dumps(graded).encode()))[system]


# Which systems a record holds


def test_a_member_alone_is_the_mean_of_its_samples() -> None:
    graded = record("q", [grade("panel", "a", 1), grade("panel", "a", 0, sample=1), grade("panel", "b", 1)])

    assert outcome_of(graded, A).score == 0.5
    assert outcome_of(graded, B).score == 1


def test_members_alone_are_of_the_first_layer_where_there_are_layers() -> None:
    second = grade("panel", "a", 1, layer=2)
    graded = record("q", [second, grade("layer", "a", 0)], [call("panel", "a"), call("panel", "a", layer=2)])

    assert outcome_of(graded, A).score == 0
    assert outcome_of(graded, A).spent.calls == 1
    assert outcome_of(graded, VOTE).score == 1
    assert outcome_of(graded, VOTE).spent.calls == 2


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


# What they cost


def test_each_system_pays_for_the_calls_that_it_needs() -> None:
    calls = [
        call("route", "r", 0.5), call("panel", "a", 1.0), call("panel", "b", 2.0),
        call("panel", "j", 0.25, step="agree"), call("judge", "j", 4.0), call("synth", "s", 8.0),
        call("baseline", "m", 16.0), call("grade", "g", 32.0),
    ]  # fmt: skip
    grades = [grade("answer", "s", 1), grade("panel", "a", 1), grade("panel", "b", 0), grade("baseline", "m", 1)]
    graded = record("q", grades, calls, analysis=analysis([0, 1]))

    spent = {name: outcome.spent.usd for name, outcome in outcomes(graded).items()}  # type: ignore[arg-type]

    assert spent[FUSION] == 15.75
    assert (spent[A], spent[B], spent[System("baseline", "m")]) == (1.0, 2.0, 16.0)
    assert (spent[VOTE], spent[PICK]) == (3.25, 7.25)
    assert System("member", "j") not in spent


def test_a_replayed_call_costs_what_it_cost_when_it_was_bought_and_took_nobody_knows_how_long() -> None:
    spent = spent_on([call("panel", "a", 0.0, replayed=True, saved_usd=0.5)])

    assert spent.usd == 0.5
    assert math.isnan(spent.latency_s)


def test_a_cost_that_nobody_said_is_unknown_and_never_0() -> None:
    found = data([scored("q", 1, a=1, b=1), record("r", [grade("answer", "j", 1)], [call("panel", "a", None)])])

    assert system(found, "fusion")["usd_per_task"] is None
    assert system(found, "fusion")["usd_per_right"] is None
    assert system(found, "b")["usd_per_task"] == 0.001
    assert found["cost_measure"] == "calls"
    assert "≥$0.0025" in printed(summed([scored("q", 1, a=1), scored("r", 1, a=1) | {"calls": [
        call("panel", "a", 0.002), call("judge", "j", None)]}]), colour=False)  # fmt: skip


def test_an_answer_without_any_call_was_not_free() -> None:
    found = data([record("q", [grade("answer", "j", 1), grade("panel", "a", 1)])])

    assert system(found, "fusion")["usd_per_task"] is None
    assert system(found, "a")["usd_per_right"] is None


@pytest.mark.parametrize(
    ("amount", "partly", "shown"),
    [(None, False, "unknown"), (0, True, "unknown"), (0, False, "$0.00"), (2.5, False, "$2.50"),
     (0.0123, True, "≥$0.0123"), (0.000012, False, "$0.000012")],
)  # fmt: skip
def test_an_amount_says_what_is_known(amount: float | None, partly: bool, shown: str) -> None:
    assert usd(amount, partly) == shown


def test_members_answer_at_once_and_stages_one_after_the_other() -> None:
    calls = [
        call("panel", "a", latency_s=1), call("panel", "b", latency_s=3), call("panel", "a", latency_s=1, attempt=2),
        call("panel", "a", layer=2, latency_s=2), call("judge", "j", latency_s=4), call("synth", "s", latency_s=5),
    ]  # fmt: skip

    assert wall_clock(calls) == 3 + 2 + 4 + 5
    assert math.isnan(wall_clock([]))


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


# What stays in the denominators


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
    assert any("b on 2 of 3 records" in note for note in found["notes"])


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


# What is said of them


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


def test_a_fusion_that_votes_is_not_compared_with_its_own_vote() -> None:
    voted = {**scored("q", 1, a=1, b=1), "answer": answer("vote")}

    assert "vote" not in [row["against"] for row in data([voted])["comparisons"]]
    assert "vote" in [row["against"] for row in data([{**voted, "answer": answer()}])["comparisons"]]


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


MIXED = [
    *run_of(World(mended=0.2), 20),
    *(scored(f"x{i}", 0.5, a=0.25 * (i % 4), d=0.1) for i in range(6)),
    record("z", []),
]
AS_READ = data(MIXED)


# How it is printed


@given(
    st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=5, unique=True), st.sampled_from([0.0, 0.5, 1.0])
)
def test_a_terminal_of_100_columns_is_wide_enough_and_no_name_steers_it(names: list[str], score: float) -> None:
    graded = [
        {**scored(f"q{i}", 1, **dict.fromkeys(names, score)), "meta": {"category": names[i % 2]}} for i in range(2)
    ]
    records = [each for each in graded if (json.dumps(each).encode("utf-8", "strict"))]

    text = printed(summed(records), colour=False, width=100)

    # Sentences are wrapped by characters, tables by cells: a Chinese one takes two.
    assert max(min(len(line), cell_len(line)) for line in text.splitlines()) <= 100
    assert not [char for char in text if char != "\n" and (ord(char) < 32 or 127 <= ord(char) < 160)]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_bar_is_as_long_as_its_scale(one: float, other: float) -> None:
    low, high = sorted((one, other))

    drawn = bar((low, high))

    assert len(drawn) == len(bar((0, 1)))
    assert drawn == "█" * drawn.count("█") + "▒" * drawn.count("▒") + "·" * drawn.count("·")


def test_the_answer_comes_first_and_the_numbers_after_it(run: Run) -> None:
    result = run(["fuse-report"], lines(run_of(World(mended=0.4), 120)))

    first, *_ = result.text.splitlines()
    assert first == "Is fusion better than the best single model at its cost?  NOT MEASURED"
    assert "Is it better than the best single member, whatever that costs?  YES" in result.text
    assert "\x1b" not in result.text
    assert (result.status, result.err) == (0, "")


def test_json_csv_and_markdown_hold_the_same_scores(run: Run) -> None:
    graded = lines(run_of(World(mended=0.2), 40))

    as_json = run(["fuse-report", "-o", "json"], graded).records[0]
    as_csv = list(csv.DictReader(io.StringIO(run(["fuse-report", "-o", "csv"], graded).text)))
    as_markdown = run(["fuse-report", "-o", "markdown"], graded).text

    scores = {row["system"]: row["score"] for row in as_json["systems"]}
    assert {row["system"]: float(row["score"]) for row in as_csv} == scores
    assert f"| fusion | {100 * scores['fusion']:.1f} |" in as_markdown


def test_a_picture_is_text_that_can_be_searched_and_comes_out_the_same_again(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    graded = lines(run_of(World(mended=0.2), 40))

    for name in ("one.svg", "two.svg"):
        assert run(["fuse-report", "--plot", name], graded).status == 0

    drawn = (tmp_path / "one.svg").read_bytes()
    assert drawn == (tmp_path / "two.svg").read_bytes()
    assert b"<title>fusion: score against cost, 40 tasks" in drawn
    assert all(f">{word}</text>".encode() in drawn for word in ("fusion", "pick", "a*5", "Pareto front", "arithmetic"))


@pytest.mark.parametrize("graded", [[scored("q", 1, a=1)], [scored("q", 0, a=0) | {"calls": []}], MIXED])
def test_any_report_can_be_drawn(graded: list[Any], run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    result = run(["fuse-report", "--plot", "out.png"], lines(graded))

    assert (result.status, result.err) == (0, "")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_without_numpy_a_report_says_what_to_install() -> None:
    code = 'import sys; sys.modules["numpy"] = None; from fusiontools.cli.report import main; main()'

    done = subprocess.run(
        [sys.executable, "-c", code], input=lines([scored("q", 1, a=1)]), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "install fusiontools[eval]" in done.stderr


# Two runs


@pytest.fixture
def runs(tmp_path: Path) -> None:
    for name, world in (("before", World(mended=0.4)), ("after", World(mended=0.05))):
        (tmp_path / f"{name}.jsonl").write_text(lines(run_of(world, 150)))


def test_two_runs_are_paired_by_task_and_only_what_changed_has_changed(run: Run, runs: None) -> None:
    result = run(["fuse-report", "--compare", "before.jsonl", "after.jsonl", "-o", "json"])

    found = {row["system"]: row for row in result.records[0]["systems"]}
    fusion = found.pop("fusion")
    assert fusion["changed"]
    assert fusion["wins"] == 0
    assert fusion["difference"] == pytest.approx(-fusion["losses"] / 150)
    assert not any(row["changed"] or row["wins"] or row["losses"] for row in found.values())


def test_tasks_of_one_run_only_are_left_out_and_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(lines([scored("q", 1, a=1), scored("r", 1, a=1)]))
    (tmp_path / "b").write_text(lines([scored("r", 0, a=1), scored("s", 1, b=1), scored("t", 1, b=1)]))

    found = run(["fuse-report", "--compare", "a", "b", "-o", "json"]).records[0]
    told = run("fuse-report --compare a - < b").text

    assert (found["tasks"], found["only_before"], found["only_after"]) == (1, 1, 2)
    assert (found["gone"], found["new"]) == ([], ["b"])
    assert found["systems"][0]["difference"] == -1
    assert "2 tasks in the second run only" in told


# What a build waits for


@pytest.mark.parametrize(
    ("world", "options", "status"),
    [
        (World(), ["--fail-under", "0.3"], 0),
        (World(), ["--fail-under", "0.9"], 5),
        (World(), ["--fail-under", "0.55", "--system", "c"], 5),
        (World(mended=0.4), ["--fail-if-worse-than", "best-single"], 0),
        (World(broken=0.5), ["--fail-if-worse-than", "best-single"], 5),
        (World(broken=0.5), ["--fail-if-worse-than", "vote", "--fail-if-worse-than", "c"], 5),
        (World(broken=0.02), ["--fail-if-worse-than", "a"], 0),
        (World(broken=0.5), ["--fail-if-worse-than", "a*5"], 5),
        (World(), ["--fail-if-worse-than", "same-cost"], 2),
        (World(), ["--fail-if-worse-than", "vot"], 2),
        (World(), ["--system", "nobody"], 2),
        (World(), ["--fail-under", "70"], 2),
        (World(), ["--plot", "out.gif"], 2),
        (World(), ["--fail-if-worse-than", "before"], 2),
    ],
)
def test_the_exit_status_says_whether_a_condition_holds(
    world: World, options: list[str], status: int, run: Run
) -> None:
    result = run(["fuse-report", *options], lines(run_of(world, 80)))

    assert result.status == status
    assert bool(result.err) == bool(status)


@pytest.mark.parametrize(
    ("options", "status"), [([], 0), (["--fail-if-worse-than", "before"], 5), (["--fail-under", "1"], 5)]
)
def test_a_run_that_is_worse_than_the_one_before_fails_where_it_shall(
    options: list[str], status: int, run: Run, runs: None
) -> None:
    assert run(["fuse-report", "--compare", "before.jsonl", "after.jsonl", *options]).status == status


def test_a_line_that_cannot_be_read_is_told_with_its_place_and_the_rest_is_reported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "g.jsonl").write_text(lines([scored("q", 1, a=1)]) + "{oops\n")

    result = run(["fuse-report", "g.jsonl", "-o", "json"])

    assert result.status == 1
    assert result.err.startswith("fuse-report: g.jsonl:2: not JSON")
    assert result.records[0]["tasks"] == 1


@pytest.mark.parametrize(
    ("graded", "why"), [("", "nothing came in"), (lines([record("q", [])]), "no record has grades")]
)
def test_without_grades_there_is_nothing_to_report(graded: str, why: str, run: Run) -> None:
    result = run(["fuse-report"], graded)

    assert (result.status, result.out) == (3, b"")
    assert why in result.err


def test_a_closed_pipe_is_no_error(run: Run) -> None:
    result = run("fuse-report | head -1", lines([scored("q", 1, a=1)]), pipefail=True)

    assert (result.status, result.err) == (0, "")
