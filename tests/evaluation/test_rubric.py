"""The score that verdicts on weighted criteria come to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.evaluation.rubric import Criterion, runs_of, score


def criteria(*weights: float) -> list[Criterion]:
    return [Criterion(f"c{i}", weight) for i, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("weights", "met", "expected"),
    [
        ((6, 4), (1, 0), 0.6),
        ((6, 4, -5), (1, 1, 1), 0.5),
        ((6, 4, -5), (0, 0, 1), 0.0),
        ((6, 4, -5), (1, 1, 0), 1.0),
        ((6, 4, -20), (1, 1, 1), 0.0),
        ((1,), (0.5,), 0.5),
    ],
)
def test_a_score_is_what_was_earned_less_what_was_forfeited_of_what_can_be_earned(
    weights: Any, met: Any, expected: float
) -> None:
    assert score(criteria(*weights), met) == pytest.approx(expected)


WEIGHTS = st.lists(st.integers(-20, 20), min_size=1, max_size=8).filter(lambda weights: max(weights) > 0)


@given(WEIGHTS, st.data())
def test_a_score_is_between_0_and_1_and_no_fault_raises_it(weights: list[int], data: Any) -> None:
    met = data.draw(st.lists(st.sampled_from([0, 1]), min_size=len(weights), max_size=len(weights)))
    at = data.draw(st.integers(0, len(weights) - 1))
    more = [*met[:at], 1, *met[at + 1 :]]

    before, after = score(criteria(*weights), met), score(criteria(*weights), more)

    assert 0 <= min(before, after) <= max(before, after) <= 1
    assert after >= before if weights[at] >= 0 else after <= before


@given(WEIGHTS, st.data())
def test_a_missing_verdict_never_helps(weights: list[int], data: Any) -> None:
    given_ = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
    at = data.draw(st.integers(0, len(weights) - 1))
    lost = [[None if i == at else verdict] for i, verdict in enumerate(given_)]

    [whole], [without] = runs_of(criteria(*weights), [[v] for v in given_]), runs_of(criteria(*weights), lost)

    assert without <= whole


def test_a_verdict_that_one_run_lacks_is_taken_from_the_others() -> None:
    assert runs_of(criteria(5, 5), [[True, None, True], [False, True, None]]) == [0.5, 1.0, 0.75]
