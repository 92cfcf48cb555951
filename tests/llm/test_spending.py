"""The one adder of ledgers: what is unknown stays unknown, and what is replayed costs nothing now."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.llm.spending import Spending

#: Sums of these are exact, so that the order of adding may not show.
AMOUNTS = st.none() | st.integers(0, 2**20).map(lambda n: n / 1024)
COUNTS = st.integers(0, 1000)
USAGES = st.none() | st.fixed_dictionaries(
    {"prompt_tokens": COUNTS, "completion_tokens": COUNTS, "cached_tokens": COUNTS, "reasoning_tokens": COUNTS},
    optional={"cache_write_tokens": COUNTS},
)
BOUGHT = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["ok", "timeout"]),
        "usage": USAGES,
        "cost_usd": AMOUNTS,
        "latency_s": COUNTS.map(float),
        "replayed": st.just(False),
    }
)
REPLAYED = st.fixed_dictionaries(
    {
        "status": st.just("ok"),
        "usage": USAGES,
        "cost_usd": st.just(0.0),
        "saved_usd": AMOUNTS,
        "latency_s": st.just(0.0),
        "replayed": st.just(True),
    }
)
LEDGERS = st.lists(BOUGHT | REPLAYED, max_size=6)


@given(LEDGERS, LEDGERS, LEDGERS)
def test_adding_is_associative_and_a_whole_is_the_sum_of_its_parts(a: Any, b: Any, c: Any) -> None:
    one, two, three = map(Spending.of, (a, b, c))

    assert (one + two) + three == one + (two + three) == Spending.of([*a, *b, *c])
    assert one + Spending() == Spending() + one == one
    assert one + two == two + one


@given(LEDGERS)
def test_a_cost_that_nobody_said_never_becomes_nothing(calls: Any) -> None:
    costs = [call["cost_usd"] for call in calls if not call["replayed"]]
    spending = Spending.of(calls)

    assert spending.unknown == costs.count(None)
    assert spending.cost_usd == (None if None in costs else sum(costs))
    assert spending.nothing_known == (costs != [] and set(costs) == {None})


@given(LEDGERS)
def test_a_replayed_call_costs_nothing_now_and_is_worth_what_it_once_cost(calls: Any) -> None:
    worth = [call["saved_usd"] if call["replayed"] else call["cost_usd"] for call in calls]
    spending = Spending.of(calls)

    assert (spending.replayed, spending.bought) == (
        sum(call["replayed"] for call in calls),
        sum(not call["replayed"] for call in calls),
    )
    assert spending.worth_usd == sum(usd for usd in worth if usd is not None)
    assert spending.worth_unknown == worth.count(None)


def test_a_line_that_says_little_is_a_call_of_unknown_cost() -> None:
    assert Spending.of([{}]) == Spending(calls=1, unknown=1)


def test_a_failed_call_is_counted_as_one() -> None:
    assert Spending.of([{"status": "timeout", "cost_usd": 0.5, "latency_s": 2.0}]) == Spending(
        calls=1, failed=1, known_usd=0.5, time_s=2.0
    )


@pytest.mark.parametrize(("costs", "total"), [([0.1, 0.2], 0.3), ([], 0.0), ([0.1, None], None)])
def test_a_cost_shows_no_dust_of_adding(costs: list[float | None], total: float | None) -> None:
    assert Spending.of({"cost_usd": usd} for usd in costs).cost_usd == total
