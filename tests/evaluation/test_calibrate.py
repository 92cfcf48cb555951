"""A threshold keeps the share of wrong answers within the risk, at the rate that is promised."""

from __future__ import annotations

import random
from typing import Any

import pytest
import scipy.stats
from grading import run_grade

from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import UsageError
from fusiontools.evaluation.calibrate import (
    NEVER,
    Calibration,
    Counted,
    _chance_of_so_few,
    controls_asked,
    fit_answered,
)
from fusiontools.evaluation.report.reliability import sort_by_agreement

LEVELS = [0.25, 0.5, 0.75, 1.0]


def drawn(count: int, source: random.Random) -> list[list[Counted]]:
    """Return votes of which the more are right the more agree; even of all that agree fully, some are wrong."""
    found = []
    for i in range(count):
        agreement = source.choice(LEVELS)
        found.append([Counted(str(i), agreement, float(source.random() < 0.3 + 0.66 * agreement))])
    return found


def lost_at(level: float) -> tuple[float, float]:
    """Return the true share of all questions that is answered wrongly, and of those answered."""
    answered = [each for each in LEVELS if each >= level]
    wrong = sum(1 - (0.3 + 0.66 * each) for each in answered) / len(LEVELS)
    return wrong, wrong * len(LEVELS) / len(answered) if answered else 0.0


def lowest(groups: list[list[Counted]], risk: float) -> float:
    return next((level for level in LEVELS if controls_asked(groups, level, risk)), NEVER)


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.2])
def test_of_all_that_is_asked_no_more_is_wrong_than_the_risk_on_average(risk: float) -> None:
    source = random.Random(1)

    lost = [lost_at(lowest(drawn(60, source), risk))[0] for _ in range(200)]

    assert sum(lost) / len(lost) <= risk


def test_of_what_is_answered_no_more_is_wrong_than_the_risk_nine_times_of_ten() -> None:
    source = random.Random(2)

    broken = sum(lost_at(fit_answered(drawn(200, source), LEVELS, 0.15, 0.9))[1] > 0.15 for _ in range(150))

    assert broken <= 15


def test_the_lowest_level_is_taken_that_keeps_to_the_risk() -> None:
    votes = [[Counted(str(i), 1.0 if i < 50 else 0.5, float(i < 50 or i % 2))] for i in range(100)]

    assert lowest(votes, 0.05) == 0.75
    assert lowest(votes, 0.3) == 0.25
    assert fit_answered(votes, [0.5, 1.0], 0.06, 0.9) == 1.0


def test_few_questions_promise_nothing() -> None:
    right = [[Counted(str(i), 1.0, 1.0)] for i in range(18)]

    assert lowest(right, 0.05) == NEVER
    assert lowest([*right, [Counted("19", 1.0, 1.0)]], 0.05) == 0.25
    assert fit_answered(right, LEVELS, 0.05, 0.9) == NEVER


@pytest.mark.parametrize(("wrong", "answered", "risk"), [(0, 10, 0.1), (3, 40, 0.05), (12, 100, 0.1), (7, 7, 0.5)])
def test_the_chance_of_so_few_wrong_answers_is_the_binomial_s(wrong: int, answered: int, risk: float) -> None:
    assert _chance_of_so_few(wrong, answered, risk) == pytest.approx(scipy.stats.binom.cdf(wrong, answered, risk))


def graded(name: str, *texts: str, question: str = "", **more: Any) -> Any:
    panel = [
        {"member": "abcd"[i], "sample": 0, "layer": 1, "content": text, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    asked = [{"role": "user", "content": question or f"What is {name} and 6*7?"}]
    return run_grade({"id": name, "messages": asked, "meta": {"target": 42}, "panel": panel, **more})


def test_votes_are_counted_as_fuse_vote_counts_them() -> None:
    calibration = Calibration()
    for i, texts in enumerate([("42", "42.0", "7"), ("42", "I don't know", "I don't know"), ("1", "1", "Answer: 1")]):
        calibration.add(graded(f"q{i}", *texts), VoteOptions())

    assert [(round(v.agreement, 3), v.score) for v in calibration.votes] == [(0.667, 1), (0.333, 1), (1, 0)]
    assert [part.votes for part in calibration.parts()] == [1, 1, 1]


def test_one_question_asked_twice_is_one_observation() -> None:
    calibration = Calibration()
    for name in ("q1", "q2"):
        calibration.add(graded(name, "42", "42", question="What is 6*7?"), VoteOptions())

    assert calibration.fit(0.5, "asked", 0.9).questions == 1


def test_records_of_two_panels_and_ids_that_repeat_are_refused() -> None:
    two, twice = Calibration(), Calibration()
    two.add(graded("q1", "42", "42"), VoteOptions())
    two.add(graded("q2", "42", "42", "42"), VoteOptions())
    for _ in range(2):
        twice.add(graded("q1", "42", "42"), VoteOptions())

    with pytest.raises(UsageError, match="2 different panels"):
        two.fit(0.1, "asked", 0.9)
    with pytest.raises(UsageError, match="repeat an id"):
        twice.fit(0.1, "asked", 0.9)


def test_what_was_learned_from_is_left_out_by_its_question() -> None:
    calibration = Calibration()
    calibration.keep_apart(graded("tuned", "42", "42", question="what is 6 * 7"))
    calibration.add(graded("q1", "42", "42", question="What is 6*7?"), VoteOptions())

    assert (calibration.apart, calibration.votes) == (1, [])


def test_agreement_is_cut_into_tenths_and_each_vote_stands_in_one() -> None:
    parts = sort_by_agreement([(0.0, 0), (0.1, 0), (2 / 3, 1), (0.7, 0), (1.0, 1), (1.0, 1)])

    assert [(part.low, part.votes, part.score) for part in parts] == [(0.0, 2, 0), (0.6, 2, 0.5), (0.9, 2, 1)]
