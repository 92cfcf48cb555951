"""Whose word a cost is."""

from __future__ import annotations

import pytest
from calling import (
    DEAR,
    PAID_USD,
    SILENT,
    UNPRICED,
    M,
    ask_once,
)
from scripted import ENDPOINT, Scripted, model, said

from fusiontools.config.models import Endpoint, Model
from fusiontools.llm.completion import Completion


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
