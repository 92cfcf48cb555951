"""How votes are counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers.tally import count_votes


def test_the_most_votes_win() -> None:
    counted = count_votes(["b", "a", None, "a"])

    assert counted is not None
    assert (counted.key, counted.winner, counted.votes, counted.of) == ("a", 1, 2.0, 3.0)
    assert counted.counts == {"a": 2.0, "b": 1.0}
    assert list(counted.counts) == ["a", "b"]
    assert (counted.abstained, counted.tie) == ([2], None)


def test_nobody_who_votes_is_no_result() -> None:
    assert count_votes([]) is None
    assert count_votes([None, None]) is None
    assert count_votes(["a", "b"], [0, 0]) is None


def test_an_empty_key_is_no_vote() -> None:
    assert count_votes(["", ""]) is None
    assert count_votes(["", "a"]).abstained == [0]  # type: ignore[union-attr]


def test_weights_count_and_0_silences() -> None:
    counted = count_votes(["a", "b", "b", "c"], [3, 1, 1, 0])

    assert counted is not None
    assert (counted.key, counted.votes, counted.of) == ("a", 3.0, 5.0)
    assert counted.counts == {"a": 3.0, "b": 2.0}


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_silences(weight: float) -> None:
    assert count_votes(["a", "b"], [weight, 1]).key == "b"  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [[1e308, 1e308, 1e308], [1.7976931348623157e308, 5e-324, 1e308], [5e-324] * 3])
def test_no_finite_weight_is_too_large_or_too_small(weights: list[float]) -> None:
    counted = count_votes(["a", "a", "b"], weights)

    assert counted is not None
    assert counted.key == "a"
    assert math.isfinite(counted.of)
    assert math.isfinite(counted.votes)


def test_weights_are_added_exactly() -> None:
    counted = count_votes(["b", *["a"] * 10], [1, *[0.1] * 10])

    assert counted is not None
    assert (counted.key, counted.tie, counted.of) == ("b", "order", 2.0)


def test_a_tie_goes_to_the_more_confident_where_that_is_known_of_all() -> None:
    keys = ["a", "b", "b", "a", "c"]

    sure = count_votes(keys, None, [-3.0, -1.0, -1.5, -0.1, None])
    unknown = count_votes(keys, None, [-3.0, -1.0, -1.5, None, -0.1])
    equal = count_votes(keys, None, [-1.0, -1.0, -1.0, -1.0, None])

    assert sure is not None
    assert unknown is not None
    assert equal is not None
    assert (sure.key, sure.winner, sure.tie) == ("b", 1, "confidence")
    assert (unknown.key, unknown.winner, unknown.tie) == ("a", 0, "order")
    assert (equal.key, equal.winner, equal.tie) == ("a", 0, "order")


def test_the_most_confident_of_those_who_agree_stands_for_them() -> None:
    assert count_votes(["a", "a", "a"], None, [-2.0, -1.0, None]).winner == 1  # type: ignore[union-attr]
    assert count_votes(["a", "a"], None, [None, float("nan")]).winner == 0  # type: ignore[union-attr]


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8), st.lists(st.integers(0, 3), min_size=8, max_size=8)
)
def test_all_votes_are_counted_once(keys: list[str | None], weights: list[float]) -> None:
    counted = count_votes(keys, weights[: len(keys)])

    total = sum(weight for key, weight in zip(keys, weights, strict=False) if key)
    assert total == (counted.of if counted else 0)
    if counted:
        assert sum(counted.counts.values()) == counted.of
        assert counted.votes == max(counted.counts.values())
        assert keys[counted.winner] == counted.key
        assert counted.abstained == [at for at, key in enumerate(keys) if key is None]
