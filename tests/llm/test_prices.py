"""What a token costs: the recipe's word, the endpoint's list, or unknown."""

from __future__ import annotations

from typing import Any

import pytest
from calling import DEAR, PAID_USD, SILENT, UNPRICED, M, ask_once
from scripted import ENDPOINT, Scripted, model, said

from fusiontools.config.models import ENDPOINTS, Endpoint, Model
from fusiontools.llm import ledger, prices
from fusiontools.llm.completion import Completion
from fusiontools.record.types import Usage


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FUSION_API_KEY", "FUSION_BASE_URL", "FUSION_CONFIG", "FUSION_LOCAL_MODEL"):
        monkeypatch.delenv(name, raising=False)


OPENROUTER, OPENAI = ENDPOINTS["openrouter"], ENDPOINTS["openai"]
TOKENS: Usage = {
    "prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "cached_tokens": 0, "reasoning_tokens": 0,
}  # fmt: skip


def test_list_prices_are_those_of_the_endpoint() -> None:
    model = Model("m", "gpt-4o-mini", "openai")

    assert prices.listed_usd(OPENAI, model, TOKENS) == pytest.approx(0.15 + 0.60)
    assert prices.listed_usd(OPENAI, model, {**TOKENS, "cached_tokens": 1_000_000}) == pytest.approx(0.075 + 0.60)


def test_the_recipes_price_wins_over_the_list() -> None:
    model = Model("m", "gpt-4o-mini", "openai", price_usd_per_mtok={"prompt": 1, "completion": 2})

    assert prices.listed_usd(OPENAI, model, TOKENS) == 3


@pytest.mark.parametrize(
    ("endpoint", "model"),
    [
        (OPENAI, "no-such-model"),
        (Endpoint("x", "http://127.0.0.1:9/v1"), "gpt-4o-mini"),
        (Endpoint("x", "https://elsewhere.example/v1"), "fake/a"),
    ],
)
def test_what_no_list_knows_is_unknown(endpoint: Endpoint, model: str) -> None:
    assert prices.listed_usd(endpoint, Model("m", model, "x"), TOKENS) is None
    assert prices.upper_bound_usd(endpoint, Model("m", model, "x"), [], {}) is None


def test_a_reservation_takes_the_longest_answer_for_granted() -> None:
    model = Model("m", "m", "openrouter", price_usd_per_mtok={"prompt": 1.0, "completion": 10.0})
    messages: Any = [{"role": "user", "content": "x" * 35}]

    assert prices.upper_bound_usd(OPENROUTER, model, messages, {"max_tokens": 5}) == pytest.approx((14 + 50) / 1e6)
    assert prices.upper_bound_usd(OPENROUTER, model, messages, {}) == pytest.approx((14 + 40960) / 1e6)
    assert prices.upper_bound_usd(ENDPOINTS["ollama"], model, messages, {}) == 0.0


@pytest.mark.parametrize(
    ("asked", "endpoint", "completion", "cost", "source"),
    [
        (M, ENDPOINT, said("x"), 0.001, "upstream"),
        (M, ENDPOINT, said("x", cost_usd=0.0), 0.0, "upstream"),
        (DEAR, ENDPOINT, said("x"), 0.001, "upstream"),
        (DEAR, ENDPOINT, UNPRICED, PAID_USD, "table"),
        (DEAR, ENDPOINT, SILENT, None, None),
        (M, ENDPOINT, UNPRICED, None, None),
        (M, ENDPOINT, SILENT, None, None),
        (M, Endpoint("there", "http://h/v1", free=True), SILENT, 0.0, "free"),
        (model("gpt-4o-mini"), Endpoint("there", "https://api.openai.com/v1"), UNPRICED, 3.45e-6, "table"),
        (model("gpt-4o-mini"), ENDPOINT, UNPRICED, None, None),
    ],
)
def test_a_cost_is_the_endpoints_word_else_the_recipes_else_the_lists_else_unknown(
    asked: Model, endpoint: Endpoint, completion: Completion, cost: float | None, source: str | None
) -> None:
    _, [call] = ask_once(Scripted(**{asked.model: completion}), asked, endpoint=endpoint)

    assert (call["cost_usd"], call["cost_source"]) == (pytest.approx(cost) if cost else cost, source)


@pytest.mark.parametrize(
    "counts", [{"prompt_tokens": 0}, {"completion_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 0}]
)
def test_tokens_that_nobody_counted_are_no_cost_of_nothing(counts: dict[str, int]) -> None:
    usage: Usage = {**TOKENS, **counts}  # type: ignore[typeddict-item]

    assert ledger.paid_for(ENDPOINT, DEAR, Completion("Paris.", "m", usage=usage)) == (None, None)


def test_a_prompt_without_an_answer_costs_what_the_prompt_does() -> None:
    assert ledger.paid(ENDPOINT, DEAR, {**TOKENS, "prompt_tokens": 2, "completion_tokens": 0}, None) == (2.0, "table")
