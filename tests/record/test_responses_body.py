"""Batch lines of `/v1/responses`: the same question as in a chat request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fusiontools.errors import InputError
from fusiontools.record import jsonl

SCHEMA = {"name": "n", "strict": True, "schema": {"type": "object"}}


def read(**body: Any) -> Any:
    line = {"custom_id": "r-7", "method": "POST", "url": "/v1/responses", "body": body}
    return jsonl.parse(json.dumps(line).encode())


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"input": "Why?"}, [{"role": "user", "content": "Why?"}]),
        (
            {"input": "Why?", "instructions": "Be brief."},
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]},
            [{"role": "user", "content": "Why?"}],
        ),
        (
            {
                "input": [
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]},
                    {"role": "user", "content": [{"type": "input_image", "image_url": "data:,x", "detail": "low"}]},
                ]
            },
            [
                {"role": "assistant", "content": "So."},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}}],
                },
            ],
        ),
    ],
)
def test_input_becomes_messages(body: dict[str, Any], messages: list[Any]) -> None:
    record = read(**body)

    assert (record["id"], record["custom_id"], record["messages"]) == ("r-7", "r-7", messages)


def test_settings_have_the_names_of_a_chat_request() -> None:
    record = read(
        model="x",
        input="Why?",
        max_output_tokens=9,
        temperature=0.5,
        reasoning={"effort": "low"},
        text={"verbosity": "low", "format": {"type": "json_schema", **SCHEMA}},
    )

    chat = {
        "model": "x",
        "messages": record["messages"],
        "max_tokens": 9,
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": SCHEMA},
    }
    assert record["params"] == jsonl.parse(json.dumps(chat).encode())["params"]
    assert "input" not in record


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"input": 5}, "$.body.input"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "$.body.input[0]"),
        ({"input": [{"role": "user", "content": 5}]}, "$.body.input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "$.body.input[0].content[0]"),
        ({"input": "x", "previous_response_id": "r"}, "$.body.previous_response_id"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "$.body.tools"),
        ({"input": "x", "text": 5}, "$.body.text"),
        ({"input": "x", "text": {"format": "json"}}, "$.body.text.format"),
    ],
)  # fmt: skip
def test_what_no_chat_request_can_say_is_refused_by_its_place(body: dict[str, Any], place: str) -> None:
    with pytest.raises(InputError) as refused:
        read(**body)

    assert place in str(refused.value)


def test_a_batch_line_of_chats_may_have_an_input_of_its_own() -> None:
    assert read(messages=[{"role": "user", "content": "Why?"}], input="mine")["input"] == "mine"
