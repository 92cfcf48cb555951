"""What a response counts by how sure its model was, and which are left out as the least sure."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers.confidence import find_least_confident, weigh_by_confidence


def test_the_surer_of_a_members_responses_counts_more_and_the_member_as_much_as_without() -> None:
    weights = weigh_by_confidence(["a", "a", "b", "b"], [math.log(0.9), math.log(0.3), math.log(0.01), math.log(0.03)])

    assert weights == [1.5, 0.5, 0.5, 1.5]


def test_a_response_of_which_nothing_is_known_counts_as_its_members_others_on_average() -> None:
    assert weigh_by_confidence(["a", "a", "a"], [math.log(0.9), None, math.log(0.3)]) == [1.5, 1.0, 0.5]
    assert weigh_by_confidence(["a", "b", "b"], [-0.1, None, -9.0]) == [1.0, 1.0, 1.0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.floats()), max_size=12))
def test_whatever_a_record_holds_the_weights_of_a_member_are_numbers_of_mean_1(
    told: list[tuple[str, float | None]],
) -> None:
    members = [member for member, _ in told]
    weights = weigh_by_confidence(members, [value for _, value in told])

    for name in set(members):
        own = [weight for member, weight in zip(members, weights, strict=True) if member == name]
        assert min(own) >= 0
        assert math.fsum(own) / len(own) == pytest.approx(1, abs=1e-5)


def test_of_each_member_the_same_share_is_left_out_rounded_down() -> None:
    members, windows = ["a"] * 5 + ["b"] * 2 + ["c"], [-0.1, -0.5, -0.3, -0.2, -0.4, -2.0, -1.0, -9.0]

    assert find_least_confident(members, windows, 0.5) == [1, 4, 5]
    assert find_least_confident(members, windows, 0.2) == [1]
    assert find_least_confident(members, windows, 0.99) == [1, 2, 3, 4, 5]


def test_who_is_not_known_to_be_unsure_is_never_left_out_and_of_equals_the_later_is() -> None:
    assert find_least_confident(["a"] * 4, [None, -0.1, None, -0.1], 0.5) == [3]
    assert find_least_confident(["a"] * 30, [-0.1] * 30, 0.1) == [27, 28, 29]
