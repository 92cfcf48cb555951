"""What an answer says of its cost: with the caller's own key, in parts, in ticks; what cannot be is unknown."""

from __future__ import annotations

from typing import Any

import pytest

from fusiontools.llm.usage import usage_of

OWN = {"is_byok": True}


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
    for said in (
        {"cost": bad},
        {"cost": {"total_cost": bad}},
        {"cost": {"input": 0.1, "output": bad}} if not isinstance(bad, str) else {"cost": {}},
        {"cost": 0, **OWN, "cost_details": {"upstream_inference_cost": bad}},
        {"cost": bad, **OWN, "cost_details": {"upstream_inference_cost": 0.1}},
        {"cost_in_usd_ticks": bad if not isinstance(bad, float) or bad < 1e9 else 1e15},
    ):
        assert usage_of({"usage": said})[1] is None, said


@pytest.mark.parametrize("details", [None, {}, {"upstream_inference_cost": None}, "none", []])
def test_what_the_caller_pays_a_provider_is_unknown_where_nobody_says_it(details: Any) -> None:
    assert usage_of({"usage": {"cost": 0, **OWN, "cost_details": details}})[1] is None


def test_tokens_are_read_under_the_names_of_others() -> None:
    said = {"input_tokens": 9, "output_tokens": 2, "prompt_cache_hit_tokens": 4}

    assert usage_of({"usage": said})[0] == {
        "prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4, "reasoning_tokens": 0,
    }  # fmt: skip
