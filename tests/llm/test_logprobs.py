"""How sure a model was: what is read of it, whatever a server writes, and what it comes to."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import MESSAGES
from workdir import Upstream

from fusiontools.config.models import Endpoint
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.http import HttpBackend
from fusiontools.llm.logprobs import LOWEST, WINDOW, read_logprobs, sum_up


def content(*values: Any) -> Any:
    return {"content": [{"token": "x", "logprob": value} for value in values]}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (content(-0.5, 0, -2), [-0.5, 0.0, -2.0]),
        ({"tokens": ["a", "b"], "token_logprobs": [-0.5, None], "content": None}, [-0.5]),
        (content(-9999.0, -(10**400), -math.inf), [LOWEST] * 3),
        (content(math.nan, math.inf, 0.7, 10**400, None, "-0.5", True, [], {}), []),
        (content(1e-7), [0.0]),
        ({"content": [None, 3, "x", [], {}, {"logprob": -1.0}]}, [-1.0]),
        *((odd, []) for odd in (None, True, 3, "x", [], [-0.5], {}, {"content": {}}, {"content": "x"})),
        ({"content": [], "token_logprobs": "x"}, []),
    ],
)
def test_what_is_no_log_probability_is_left_out_and_the_impossible_has_a_floor(said: Any, read: list[float]) -> None:
    assert read_logprobs(said) == read


def test_a_text_is_as_sure_as_its_tokens_on_average_and_as_its_least_sure_window() -> None:
    doubtful = [-0.25] * 100 + [-2.0] * WINDOW + [-0.25] * 36

    assert sum_up(doubtful) == {"mean_logprob": -0.81, "lowest_window_logprob": -2.0}
    assert sum_up([-1.0, -2.0]) == {"mean_logprob": -1.5, "lowest_window_logprob": -1.5}
    assert sum_up([]) == {}


@given(st.lists(st.floats(LOWEST, 0), min_size=1, max_size=3 * WINDOW))
def test_no_window_is_surer_than_the_whole(logprobs: list[float]) -> None:
    found = sum_up(logprobs)

    assert LOWEST - 1e-9 <= found["lowest_window_logprob"] <= found["mean_logprob"] <= 0
    means = [
        math.fsum(part) / len(part)
        for at in range(max(1, len(logprobs) - WINDOW + 1))
        if (part := logprobs[at : at + WINDOW])
    ]
    assert found["lowest_window_logprob"] == pytest.approx(min(means))


def ask(upstream: Upstream, name: str, *, logprobs: bool = True, streamed: bool = False) -> Completion:
    """Ask a model over a real connection."""
    import asyncio

    async def work() -> Completion:
        backend = HttpBackend(Endpoint("there", upstream.url))
        try:
            request = CompletionRequest("there", name, MESSAGES, logprobs=logprobs)
            return await backend.complete(request, (lambda _: None) if streamed else None)
        finally:
            await backend.aclose()

    return asyncio.run(work())


@pytest.mark.parametrize("streamed", [False, True])
def test_an_endpoint_that_can_is_asked_and_says_it_whole_or_piece_by_piece(upstream: Upstream, streamed: bool) -> None:
    asked = ask(upstream, "fake/a+logprobs=-0.5,-1.5", streamed=streamed)
    unasked = ask(upstream, "fake/a+logprobs=-0.5,-1.5", logprobs=False, streamed=streamed)

    assert (asked.mean_logprob, asked.lowest_window_logprob) == (-1.0, -1.0)
    assert (unasked.mean_logprob, unasked.lowest_window_logprob) == (None, None)
    assert (asked.content, asked.usage) == (unasked.content, unasked.usage)
