"""What is chosen on panels of known skill, and that its score is no better than it is."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import Member, panels_of, simulate

from fusiontools.evaluation.report.statistics import Draws
from fusiontools.evaluation.tune.explain import explain
from fusiontools.evaluation.tune.replay import Replay, Way
from fusiontools.evaluation.tune.selection import Rule, Tuner, Tuning

DRAWS = Draws(resamples=200)
#: Two answers, and everybody right on half of the questions: no way to an answer is better than any other.
EQUAL = {f"m{i}": Member(0.5) for i in range(5)}
#: The best member is dear, and the others together are as good.
MIXED = {
    "cheap": Member(0.62, 0.0002),
    "mid": Member(0.66, 0.0006),
    "twin": Member(0.66, 0.0006, copies=1.0),
    "other": Member(0.68, 0.001, latency_s=2.0),
    "dear": Member(0.82, 0.01, latency_s=5.0),
}


def tuner_of(members: Any, questions: int, seed: int = 0, **world: Any) -> Tuner:
    return Tuner(panels_of(simulate(members, questions, seed, **world)), DRAWS)


@pytest.fixture(scope="module")
def mixed() -> Tuner:
    return tuner_of(MIXED, 240, together=0.2)


def gains(runs: int, questions: int) -> list[Tuning]:
    rule = Rule(frugal=False)
    return [tuner_of(EQUAL, questions, seed, wrong=1).tune(rule) for seed in range(runs)]


def test_a_choice_among_equals_looks_better_than_it_is_only_where_it_was_made() -> None:
    found = gains(6, 60)

    seen = sum(each.chosen.seen for each in found) / len(found)
    unseen = sum(each.chosen.held_out.mean for each in found) / len(found)
    assert seen > 0.57
    assert 0.42 < unseen < 0.55
    assert not [each for each in found if each.verdict == "better"]


@pytest.mark.slow
def test_where_members_are_equal_the_gain_covers_nothing_nine_times_of_ten() -> None:
    found = gains(60, 80)

    covered = sum(each.gain.interval[0] <= 0 <= each.gain.interval[1] for each in found)
    truth = sum(each.chosen.held_out.interval[0] <= 0.5 <= each.chosen.held_out.interval[1] for each in found)
    assert covered >= 54
    assert truth >= 51
    assert sum(each.verdict == "better" for each in found) <= 3


@pytest.mark.slow
def test_what_is_chosen_is_near_the_best_there_is_as_the_interval_says() -> None:
    members = {f"m{i}": Member(0.5 + 0.05 * i) for i in range(4)}
    replay = Replay(panels_of(simulate(members, 4_000, 99, together=0.2)))
    best = float(replay.columns(replay.ways(replay.subpanels(None))).score.mean(axis=0).max())

    near = 0
    for seed in range(30):
        chosen = tuner_of(members, 120, seed, together=0.2).tune(Rule(frugal=False)).chosen
        low, high = chosen.held_out.interval
        near += low <= best <= high

    assert near >= 26


def test_a_limit_on_cost_time_or_score_chooses_what_keeps_to_it(mixed: Tuner) -> None:
    free = mixed.tune(Rule(frugal=False)).chosen
    cheap, quick = mixed.tune(Rule(max_cost=0.002)), mixed.tune(Rule(max_latency_s=1.5))
    enough = mixed.tune(Rule(min_score=0.7))

    assert free.cost > 0.002
    assert cheap.chosen.cost <= 0.00206
    assert quick.chosen.latency_s is not None
    assert quick.chosen.latency_s <= 1.55
    assert {cheap.best_solo.way.label, quick.best_solo.way.label}.isdisjoint({"dear"})
    assert enough.chosen.cost < free.cost
    assert enough.chosen.seen >= 0.7
    assert all(each.reached for each in (cheap, quick, enough))
    assert not mixed.tune(Rule(max_cost=0.0001)).reached


def test_of_what_is_within_a_standard_error_the_cheapest_is_taken(mixed: Tuner) -> None:
    best, frugal = mixed.tune(Rule(frugal=False)).chosen, mixed.tune(Rule()).chosen

    assert frugal.cost <= best.cost
    assert frugal.seen >= best.seen - 0.05


def test_nothing_on_the_front_is_beaten_in_score_cost_and_time_at_once(mixed: Tuner) -> None:
    front = mixed.tune(Rule()).front

    assert [each.cost for each in front] == sorted(each.cost for each in front)
    assert len(front) > 2
    for each in front:
        better = [
            other
            for other in front
            if other.seen > each.seen and other.cost <= each.cost and (other.latency_s or 0) <= (each.latency_s or 0)
        ]
        assert better == []


def test_members_that_err_alike_weigh_less_than_one_that_errs_alone() -> None:
    from fusiontools.evaluation.tune.learned_weights import learn_weights

    members = {"a": Member(0.65, copies=1.0), "twin": Member(0.65, copies=1.0), "alone": Member(0.65)}
    tuner = tuner_of(members, 600)
    everything = [True] * tuner.panels.groups

    weights = learn_weights(tuner.replay, Way("weighted", tuple(members)), everything)

    assert weights["alone"] > 1.3 * max(weights["a"], weights["twin"])
    assert sum(weights.values()) == pytest.approx(3, abs=0.01)


def test_few_records_leave_the_weights_of_a_plain_vote() -> None:
    from fusiontools.evaluation.tune.learned_weights import learn_weights

    tuner = tuner_of({"a": Member(0.7), "b": Member(0.6), "c": Member(0.6)}, 30)
    everything = [True] * tuner.panels.groups
    weights = learn_weights(tuner.replay, Way("weighted", ("a", "b", "c")), everything)

    assert all(0.5 < weight < 1.6 for weight in weights.values())


def test_a_route_by_kind_of_question_is_found_where_each_kind_has_its_own_best_member() -> None:
    members = {"sums": Member(0.5), "books": Member(0.5)}
    kinds = [{"sums": 0.95, "books": 0.2}, {"sums": 0.2, "books": 0.95}]

    tuning = tuner_of(members, 200, kinds=kinds).tune(Rule())

    assert tuning.chosen.way.how == "routed"
    assert tuning.chosen.held_out.mean > 0.85
    assert tuning.verdict == "better"


def test_a_route_learned_from_shuffled_grades_with_doubled_questions_scores_at_chance() -> None:
    source = simulate({"a": Member(0.5), "b": Member(0.5)}, 160, 3, wrong=1)
    doubled = [*source, *({**each, "id": f"{each['id']}-again"} for each in source)]

    tuner = tuner_from(doubled)
    routed = [i for i, way in enumerate(tuner.all.ways) if way.how == "routed"]

    assert tuner.panels.groups == 160
    assert routed
    held_out = tuner.tune(Rule(frugal=False)).chosen.held_out
    assert held_out.interval[0] <= 0.5 <= held_out.interval[1] + 0.02


def tuner_from(records: list[Any]) -> Tuner:
    return Tuner(panels_of(records), DRAWS)


def test_the_same_records_give_the_same_choice_in_any_order() -> None:
    records = simulate(MIXED, 60, 4)

    one, other = tuner_from(records).tune(Rule()), tuner_from(records).tune(Rule())

    assert one == other


def test_what_a_member_adds_and_whom_it_copies_is_told() -> None:
    members = {"a": Member(0.6, copies=1.0), "twin": Member(0.6, copies=1.0), "b": Member(0.6), "c": Member(0.6)}

    parts = {part.member: part for part in explain(tuner_of(members, 300))}

    assert (parts["a"].like, parts["twin"].like) == ("twin", "a")
    assert parts["a"].correlation == pytest.approx(1)
    assert parts["a"].same_error == 1
    assert parts["a"].saves == 0
    assert parts["b"].saves > 0
    assert parts["b"].correlation is not None
    assert parts["b"].correlation < 0.3
