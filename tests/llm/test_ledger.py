"""What calls took: what an answer says of it, what is written down, and what it comes to; the unknown stays unknown."""

from __future__ import annotations

from typing import Any

import pytest
from calling import BUSY, CUT, ENTRY, ask_once, attempts, steady
from hypothesis import given
from hypothesis import strategies as st
from scripted import USAGE, Scripted, said

from fusiontools.llm.completion import Completion
from fusiontools.llm.ledger import Spending, usage_of

OWN = {"is_byok": True}
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


def test_a_call_is_entered_with_its_slot_tokens_and_cost() -> None:
    completion, [call] = ask_once(Scripted(m=said("Paris.", "real/m")))

    assert completion == said("Paris.", "real/m")
    assert steady(call) == {
        **ENTRY, "model": "real/m", "usage": USAGE, "cost_usd": 0.001, "cost_source": "upstream",
        "status": "ok", "replayed": False,
    }  # fmt: skip
    assert call["latency_s"] >= 0


def test_a_backend_that_lets_calls_wait_says_itself_how_long_one_took() -> None:
    _, [call] = ask_once(Scripted(m=said("Paris.", latency_s=7.5)))

    assert call["latency_s"] == 7.5


def test_every_attempt_is_entered_whatever_becomes_of_it() -> None:
    completion, calls = ask_once(Scripted(m=[BUSY, CUT, "Paris."]))

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "connection"), (3, "ok")]


# What an answer says


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ({"cost": 0.25}, 0.25),
        ({"cost": 0}, 0.0),
        ({"cost": 0, **OWN, "cost_details": {"upstream_inference_cost": 0.036}}, 0.036),
        ({"cost": 0.0018, **OWN, "cost_details": {"upstream_inference_cost": 0.036}}, 0.0378),
        ({"cost": 0.036, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.036}}, 0.036),
        ({"cost": 0.036, "cost_details": {"upstream_inference_cost": None}}, 0.036),
        (
            {
                "cost": 0,
                **OWN,
                "cost_details": {"upstream_inference_prompt_cost": 0.01, "upstream_inference_completions_cost": 0.02},
            },
            0.03,
        ),
        ({"cost": {"input_tokens_cost": 0.01, "output_tokens_cost": 0.02, "request_cost": 0.005}}, 0.035),
        ({"cost": {"input_tokens_cost": 0.01, "output_tokens_cost": 0.02, "total_cost": 0.03}}, 0.03),
        ({"cost": {"input": {"text": 0.01, "cached": 0.001}, "output": 0.02, "currency": "USD"}}, 0.031),
        ({"cost_in_usd_ticks": 37_756_000}, 0.0037756),
    ],
)
def test_a_cost_is_all_that_is_paid(said: dict[str, Any], cost: float) -> None:
    assert usage_of({"usage": said})[1] == pytest.approx(cost)


@pytest.mark.parametrize("bad", [-1, -0.001, 1e9, 1e400, float("nan"), True, "0.1", "free", None, [0.1]])
def test_a_cost_that_cannot_be_is_unknown_wherever_it_stands(bad: Any) -> None:
    for reported in (
        {"cost": bad},
        {"cost": {"total_cost": bad}},
        {"cost": {"input": 0.1, "output": bad}} if not isinstance(bad, str) else {"cost": {}},
        {"cost": 0, **OWN, "cost_details": {"upstream_inference_cost": bad}},
        {"cost": bad, **OWN, "cost_details": {"upstream_inference_cost": 0.1}},
        {"cost_in_usd_ticks": bad if not isinstance(bad, float) or bad < 1e9 else 1e15},
    ):
        assert usage_of({"usage": reported})[1] is None, reported


@pytest.mark.parametrize("details", [None, {}, {"upstream_inference_cost": None}, "none", []])
def test_what_the_caller_pays_a_provider_is_unknown_where_nobody_says_it(details: Any) -> None:
    assert usage_of({"usage": {"cost": 0, **OWN, "cost_details": details}})[1] is None


def test_tokens_are_read_under_the_names_of_others() -> None:
    said = {"input_tokens": 9, "output_tokens": 2, "prompt_cache_hit_tokens": 4}

    assert usage_of({"usage": said})[0] == {
        "prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4, "reasoning_tokens": 0,
    }  # fmt: skip


# Sums


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
