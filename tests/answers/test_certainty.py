"""How sure it is which answer is the most frequent one: the Beta rule, its thresholds, and what it asks for."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounds import rounds_until_sure

from fusiontools.answers.certainty import leading, mode_probability, still_needed, votes_to_be_sure

VOTES = st.integers(0, 60)
UNTIL = st.floats(0.5, 0.9999)
KEYS = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30)


def integrated(first: int, second: int, steps: int = 2_000) -> float:
    """Return the share of a Beta(first + 1, second + 1) above one half, by Simpson's rule."""

    def area(low: float, high: float) -> float:
        width = (high - low) / steps
        heights = [(x := low + i * width) ** first * (1 - x) ** second for i in range(steps + 1)]
        return width / 3 * (heights[0] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]) + heights[-1])

    return area(0.5, 1.0) / area(0.0, 1.0)


@given(VOTES, VOTES)
def test_the_closed_form_is_the_integral(first: int, second: int) -> None:
    assert mode_probability(first, second) == pytest.approx(integrated(first, second), abs=1e-8)


@given(VOTES, VOTES)
def test_one_answer_or_the_other_is_the_more_frequent(first: int, second: int) -> None:
    assert mode_probability(first, second) + mode_probability(second, first) == pytest.approx(1, abs=1e-12)
    assert mode_probability(first, first) == 0.5


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_vote_more_is_surer_and_a_vote_against_less_sure(first: int, second: int) -> None:
    assert mode_probability(first + 1, second) > mode_probability(first, second) > mode_probability(first, second + 1)


@given(VOTES, UNTIL)
def test_so_many_votes_make_sure_and_one_less_does_not(second: int, until: float) -> None:
    first = votes_to_be_sure(second, until)

    assert first > second
    assert mode_probability(first, second) >= until
    assert first - 1 == second or mode_probability(first - 1, second) < until


@pytest.mark.parametrize(
    ("until", "needed"),
    [(0.5, [1, 2, 3]), (0.75, [1, 3, 4]), (0.8, [2, 3, 5]), (0.9, [3, 5, 6]), (0.95, [4, 6, 8]), (0.99, [6, 9, 11])],
)
def test_the_usual_thresholds(until: float, needed: list[int]) -> None:
    assert [votes_to_be_sure(second, until) for second in range(3)] == needed


def test_ten_thousand_votes_are_counted_as_soon_as_ten() -> None:
    assert 5_000 < votes_to_be_sure(5_000, 0.95) < 5_200
    assert mode_probability(9_000, 1_000) == pytest.approx(1.0)


@given(KEYS, UNTIL)
def test_a_round_asks_for_nothing_that_one_by_one_would_not(keys: list[str | None], until: float) -> None:
    asked = 0
    while asked < len(keys) and still_needed(leading(keys[:asked]), until):
        asked += 1

    assert (rounds_until_sure(keys, until) or [0])[-1] == asked


@given(KEYS, UNTIL, st.integers(1, 8))
def test_a_round_is_no_smaller_than_was_said_and_the_last_one_ends_sure_or_with_all(
    keys: list[str | None], until: float, at_once: int
) -> None:
    asked = [0, *rounds_until_sure(keys, until, at_once)]

    assert all(after - before >= min(at_once, len(keys) - before) for before, after in itertools.pairwise(asked))
    assert asked[-1] == len(keys) or not still_needed(leading(keys[: asked[-1]]), until)


@pytest.mark.parametrize(
    ("keys", "rounds"),
    [
        ("aaaaaaaa", [4]),
        ("abaaaaaa", [4, 7]),
        ("ababab", [4, 6]),
        ([None] * 6, [4, 6]),
        ([None, "a", "a", "a", "a"], [4, 5]),
        ("", []),
    ],
)
def test_rounds_end_with_certainty_or_with_all(keys: list[str | None], rounds: list[int]) -> None:
    assert rounds_until_sure(list(keys), 0.95) == rounds


def test_averaged_over_its_prior_the_rule_errs_no_oftener_than_it_says_whenever_it_stops() -> None:
    source = random.Random(7)
    stopped = wrong = 0
    for _ in range(4_000):
        share = source.random()
        keys: list[str | None] = ["a" if source.random() < share else "b" for _ in range(24)]
        votes = keys[: rounds_until_sure(keys, 0.9)[-1]]
        if not still_needed(leading(votes), 0.9):
            stopped += 1
            wrong += (votes.count("a") > votes.count("b")) != (share > 0.5)

    assert stopped > 3_000
    assert wrong / stopped < 0.1
