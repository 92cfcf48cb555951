"""Which systems a graded record holds, and what each of them cost."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from graded import analysis, answer, call, grade, record, scored
from reporting import data, read, summed, system
from scripted import Scripted
from stage_runs import run_stage

from fusiontools.cli.report_text import format_report
from fusiontools.config.options import fixed
from fusiontools.config.stage_table import VoteOptions
from fusiontools.evaluation.report.columns import Batch
from fusiontools.evaluation.report.graded import Graded
from fusiontools.evaluation.report.systems import (
    CHECKED,
    FUSION,
    GIVEN,
    LEARNED,
    LOGPROB,
    ORACLE,
    PICK,
    SURER,
    UNTIL,
    VOTE,
    Outcome,
    System,
    tell,
)
from fusiontools.evaluation.report.took import Took
from fusiontools.record import jsonl
from fusiontools.stages.vote import vote

A, B = System("member", "a"), System("member", "b")


def outcomes_of(record: Any) -> dict[System, Outcome]:
    """Return how each system fared on a record: numbers, and not arrays of one."""
    batch = Batch()
    batch.add(Graded.of(record))
    return {
        system: Outcome(score[0], failed[0], Took(*(each[0] for each in took)), np.ravel(samples)[0])
        for system, (score, failed, took, samples) in tell(batch).outcomes.items()
    }


def outcome_of(graded: dict[str, Any], system: System) -> Outcome:
    return outcomes_of(jsonl.parse(json.dumps(graded).encode()))[system]


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

    spent = {name: outcome.took.usd / outcome.samples for name, outcome in outcomes_of(graded).items()}

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

    assert outcome_of(record("q", [], calls), FUSION).took.measured_s == 3 + 2 + 4 + 5
    assert math.isnan(outcome_of(record("q", []), FUSION).took.measured_s)


def test_a_sample_works_on_while_another_one_uses_its_tool() -> None:
    grades = [grade("baseline", "m", 1, sample=n) for n in range(2)]
    calls = [
        *(call("baseline", "m", sample=n, latency_s=seconds) for n, seconds in enumerate((1, 3))),
        *(call("baseline", "m", sample=n, latency_s=seconds, step="tool") for n, seconds in enumerate((5, 1))),
    ]

    assert outcome_of(record("q", grades, calls), System("baseline", "m", 2)).took.latency_s == 1 + 5


def test_a_tie_is_broken_as_fuse_vote_breaks_it() -> None:
    grades = [{**grade("panel", name, float(name == "b")), "key": name} for name in "ab"]
    taken = {"answer": {"content": "b", "by": "vote", "response": 1}}
    sure = {"panel": [{"member": name, "mean_logprob": sure} for name, sure in (("a", -2.0), ("b", -1.0))]}

    assert outcomes_of({**record("q", grades), **taken})[VOTE].score == 1
    assert outcomes_of({**record("q", grades), **sure})[VOTE].score == 1
    assert outcomes_of(record("q", grades))[VOTE].score == 0


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

    found = outcomes_of(jsonl.parse(json.dumps(record("q", grades, **copied)).encode()))

    assert {system: found[system].score for system in (VOTE, PICK)} == {
        system: float(system == taken) for system in (VOTE, PICK)
    }


# Votes in which not all count the same

#: What each sample of one member says, and how sure it is: the plain vote is wrong, the surest two are right.
SAMPLES = [("x", -3.0), ("t", -0.1), ("x", -2.0), ("t", -0.2), ("x", -1.0)]


def sampled(name: str = "q", said: Any = SAMPLES, recipe: Any = None) -> dict[str, Any]:
    """A record of one member's samples, with a grade for each."""
    grades = [grade("panel", "m", float(text == "t"), text, sample=n) for n, (text, _) in enumerate(said)]
    panel = [
        {"member": "m", "sample": n, "layer": 1, "content": text, "finish_reason": "stop", "tool_calls": []}
        | ({} if sure is None else {"mean_logprob": sure, "lowest_window_logprob": sure})
        for n, (text, sure) in enumerate(said)
    ]
    return record(name, grades, [call("panel", "m", sample=n) for n in range(len(said))], panel=panel) | (
        {"recipe": recipe} if recipe else {}
    )


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"weighing": "logprob"}, LOGPROB),
        ({"drop_lowest": 0.5}, SURER),
        ({"drop_lowest": 0.2}, SURER),
        ({"weights": {"m": 3.0}}, GIVEN),
        ({"weighing": "learned", "learned": {"m": 0.5}}, LEARNED),
        ({}, VOTE),
    ],
)
def test_each_vote_is_told_from_the_record_as_fuse_vote_counts_it(told: Any, kind: System) -> None:
    graded: Any = sampled(recipe={"vote": told})
    voted = run_stage(vote(fixed(VoteOptions(key="text", **told))), graded, Scripted())
    taken = graded["grades"][voted["answer"]["response"]]
    whole = {**voted, "grades": [*graded["grades"], grade("answer", "m", taken["score"], taken["key"])]}

    found = outcomes_of(whole)

    assert found[kind].score == found[FUSION].score == taken["score"]
    assert found[kind].took.calls == 5
    assert read([whole]).same_as(FUSION) == [FUSION, *([kind] if kind != VOTE else [VOTE, System("member", "m", 5)])]
    assert found[VOTE].score == 0


def test_a_vote_that_was_typed_is_told_from_the_answer_and_is_what_that_took() -> None:
    """The third response is what another way of reading the answers would take: the row follows the answer."""
    typed: Any = sampled()
    for options, kind in (({"drop_lowest": 0.2}, SURER), ({"weighing": "logprob"}, LOGPROB)):
        voted = run_stage(vote(fixed(VoteOptions(key="text", **options))), typed, Scripted())
        voted = {**voted, "answer": {**voted["answer"], "response": 2}}
        whole = {**voted, "grades": [*typed["grades"], grade("answer", "m", 0)]}

        assert outcomes_of(whole)[kind].score == 0
        assert read([whole]).same_as(FUSION) == [FUSION, kind]


def test_without_a_word_of_the_recipe_the_surer_are_the_better_half() -> None:
    found = outcomes_of(sampled())

    assert (found[VOTE].score, found[LOGPROB].score, found[SURER].score) == (0, 1, 1)
    assert (GIVEN in found, LEARNED in found) == (False, False)


def test_a_vote_counted_by_two_rules_is_none_of_these_rows() -> None:
    graded: Any = sampled(recipe={"vote": {"weighing": "logprob", "drop_lowest": 0.2}})
    voted = run_stage(vote(fixed(VoteOptions(weighing="logprob", drop_lowest=0.2))), graded, Scripted())

    equal = read([{**voted, "grades": [*graded["grades"], grade("answer", "m", 1)]}]).equal

    assert equal is not None
    assert not any(FUSION in pair for pair in equal)


def test_where_no_response_says_how_sure_it_is_no_row_claims_it() -> None:
    unknown = [(text, None) for text, _ in SAMPLES]
    nobody, partly = data([sampled(said=unknown)]), data([sampled(), sampled("r", unknown)])

    assert {"logprob", "surer"}.isdisjoint(row["system"] for row in nobody["systems"])
    assert (system(partly, "logprob")["score"], system(partly, "vote")["score"]) == (0.5, 0)
    assert any("in 1 record" in note for note in partly["notes"])


@pytest.mark.parametrize("passed", [True, False])
def test_what_a_check_picked_is_no_pick_of_the_judge(passed: bool) -> None:
    """The judge would pick the first; the check passes the second, or none, and then the first stands in."""
    grades = [grade("answer", "b", float(passed)), grade("panel", "a", 0, "a"), grade("panel", "b", 1, "b")]
    note = [] if passed else [{"stage": "pick", "code": "check_failed", "detail": "…"}]
    how = {"pick": {"method": "check", "checked": 2, "passed": [1]}} if passed else {}
    picked = {"answer": {**answer("pick"), "response": int(passed), **how}, "degraded": note}
    graded = record("q", grades, analysis=analysis([0, 1]), **picked)

    assert outcome_of(graded, CHECKED).score == outcome_of(graded, FUSION).score == float(passed)
    assert outcome_of(graded, PICK).score == 0
    assert read([graded]).same_as(FUSION) == [FUSION, CHECKED]


def test_what_is_abstained_on_is_said_as_coverage() -> None:
    silent = {
        "answer": {**answer("vote"), "content": "", "abstained": {"agreement": 0.3, "threshold": 0.5, "risk": 0.1}}
    }
    answered = [record(str(i), [grade("answer", "a", 1), grade("panel", "a", 1)], answer=answer()) for i in range(3)]

    found = data([*answered, record("x", [grade("answer", "a", 0), grade("panel", "a", 0)], **silent)])

    assert (system(found, "answered")["score"], system(found, "fusion")["score"]) == (1, 0.75)
    assert any("coverage 75.0 %" in note for note in found["notes"])


def one_member(keys: str, **more: Any) -> dict[str, Any]:
    """Return a record of which one member gave a response for each letter; `t` is right. Each took a second more."""
    grades = [grade("panel", "a", float(key == "t"), key, sample=n) for n, key in enumerate(keys)]
    calls = [call("panel", "a", 0.01, sample=n, latency_s=1.0 + n) for n in range(len(keys))]
    return {**record("q", grades, calls), **more}


@pytest.mark.parametrize(
    ("keys", "asked", "score", "seconds"),
    [("tttttttt", 4, 1, 4), ("wtttttttww", 7, 1, 4 + 7), ("wwwwtttttt", 4, 0, 4), ("twtw", 4, 1, 4)],
)
def test_a_vote_until_it_is_sure_hears_and_pays_the_first_responses_alone(
    keys: str, asked: int, score: float, seconds: float
) -> None:
    found = outcome_of(one_member(keys), UNTIL)

    assert (found.took.calls, found.score, found.took.latency_s) == (asked, score, seconds)
    assert found.took.usd == pytest.approx(0.01 * asked)


def test_members_are_heard_in_turn() -> None:
    ones = [grade("panel", "a", 0, "w", sample=n) for n in range(4)]
    others = [grade("panel", "b", 1, "t", sample=n) for n in range(4)]

    assert outcome_of(record("q", [*ones, *others]), UNTIL).score == 0
    assert outcome_of(record("q", [*ones, *others, grade("panel", "c", 1, "t")]), UNTIL).score == 1


def test_the_vote_of_a_panel_that_was_asked_until_it_was_sure_is_that_vote() -> None:
    small, asked = one_member("tttt"), one_member("tttt", recipe={"name": "x", "panel": {"until": 0.8}})

    assert "until" not in [row["system"] for row in data([small])["systems"]]
    assert outcome_of(asked, UNTIL) == outcome_of(asked, VOTE)
    assert "until" in str(data([asked])["systems"])


def test_the_rounds_of_a_panel_that_was_asked_until_it_was_sure_come_one_after_the_other() -> None:
    asked = one_member("wtttttt", recipe={"name": "x", "panel": {"until": 0.95}})

    assert outcome_of(asked, VOTE).took.latency_s == 4 + 7
    assert outcome_of(one_member("wtttttt"), VOTE).took.latency_s == 7


def test_a_report_says_what_a_vote_until_it_is_sure_would_have_spared() -> None:
    told = data([one_member("t" * 10), {**one_member("w" + "t" * 9), "id": "r"}])

    assert system(told, "until")["calls_per_task"] == (4 + 7) / 2 < system(told, "vote")["calls_per_task"] == 10
    assert any("`until` is the vote of the panel's first responses" in note for note in told["notes"])
