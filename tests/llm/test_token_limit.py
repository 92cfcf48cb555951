"""How much a model may write is read out of its refusals, in every provider's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusing import refusal, request_with, taught

from fusiontools.errors import CallFailed
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.quirks import Quirks


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (
            16384,
            "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, you provided 32000.",
        ),
        (8192, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        (8192, "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]"),
        (12288, "The parameter `max_tokens` is not valid: expected a value <= 12288, but got 32000 instead."),
        (8192, "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for claude"),
        (8192, "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens`"),
        (4096, "max_tokens must be at most 4,096"),
        (65536, "max_output_tokens must be in the range from 1 (inclusive) to 65537 (exclusive)"),
        (8192, "The maximum tokens you requested exceeds the model limit of 8192. Try again with a lower value."),
        (2048, "Input validation error: `max_new_tokens` must be <= 2048. Given: 32000"),
    ],
)
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_more_than_a_model_writes_is_lowered_to_what_the_refusal_says(name: str, most: int, words: str) -> None:
    quirks, asked = Quirks(), request_with(**{name: 100_000})

    learned = quirks.learn(refusal(words, name), asked, quirks.body(asked, stream=False))

    assert (quirks.body(asked, stream=False)[name], learned) == (most, True)
    assert quirks.body(request_with(**{name: 5}), stream=False)[name] == 5


ROOM = "This model's maximum context length is 32768 tokens"


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (31868, f"'max_tokens' is too large: 32000. {ROOM} and your request has 900 input tokens (32000 > 31868)."),
        (31868, f"{ROOM}. However, you requested 32900 tokens (900 in the messages, 32000 in the completion)."),
        (31868, f"{ROOM}. You requested 32900 tokens (800 of text input, 100 of tool input, 32000 in the output)."),
        (11760, "input length and `max_tokens` exceed context limit: 188240 + 32000 > 200000, decrease"),
        (31768, "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested 33000 "
            "tokens: 1000 tokens from the input messages and 32000 tokens for the completion."),
        (3996, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 100 `inputs` tokens and 32000 others"),
    ],
)  # fmt: skip
def test_an_answer_gets_the_room_that_the_prompt_leaves(room: int, words: str) -> None:
    asked = request_with(max_tokens=32_000)
    too_long = CallFailed("context_length", words, status=400)

    body, learned = taught(asked, too_long, too_long)

    assert (body["max_tokens"], learned) == (room, [True, False])


def test_a_prompt_that_leaves_no_room_is_too_long_itself() -> None:
    words = f"{ROOM}. However, you requested 64700 tokens (32700 in the messages, 32000 in the completion)."

    assert taught(request_with(max_tokens=32_000), CallFailed("context_length", words, status=400))[1] == [False]


def test_the_room_beside_one_prompt_does_not_bound_the_answer_to_a_shorter_one() -> None:
    quirks, short = Quirks(), request_with(max_tokens=32_000)
    long = CompletionRequest("there", "m", [{"role": "user", "content": "x" * 120_000}], {"max_tokens": 32_000})
    words = f"{ROOM}. However, you requested 62000 tokens (30000 in the messages, 32000 in the completion)."

    quirks.learn(CallFailed("context_length", words, status=400), long, quirks.body(long, stream=False))

    assert quirks.body(long, stream=False)["max_tokens"] == 2768
    assert 30_000 < quirks.body(short, stream=False)["max_tokens"] <= 32_000


@given(numbers=st.lists(st.integers(-1, 10**12), min_size=1, max_size=9), words=st.sampled_from([
    "max_tokens: {} > {}", "range of max_tokens is [{}, {}]", "context length is {} tokens, {} input tokens, output {}",
    "at most {} tokens of max_tokens {}", "context limit: {} + {} > {} max_tokens", "{} {} {}",
]))  # fmt: skip
def test_an_endpoint_that_names_another_number_each_time_is_soon_believed(numbers: list[int], words: str) -> None:
    quirks, asked = Quirks(), request_with(max_tokens=4096)
    sent: list[int] = []

    for number in numbers:
        body = quirks.body(asked, stream=False)
        sent.append(body["max_tokens"])
        quirks.learn(refusal(words.format(number, number // 2, number)), asked, body)

    assert sent == sorted(sent, reverse=True)
    assert min(sent) > 0
