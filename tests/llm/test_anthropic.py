"""Anthropic's Messages API: what goes out, what comes back, and real tools against a stand-in as strict as it is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic_rules
import anthropic_upstream
import fake_models
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import lines, poll, question
from workdir import SUPPORT, Run, Upstream

from fusiontools.config.models import ENDPOINTS, Endpoint, Model, environment_endpoints
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm import prices
from fusiontools.llm.anthropic import MESSAGES, MessagesQuirks
from fusiontools.llm.anthropic_reply import EventTranslator
from fusiontools.llm.anthropic_request import Conversation, close_schema
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest, Thoughts
from fusiontools.llm.http import HttpBackend
from fusiontools.llm.ledger import Slot
from fusiontools.llm.quirks import Quirks
from fusiontools.llm.reply_reader import ReplyReader, read_completion
from fusiontools.record.schemas import check_record
from fusiontools.record.types import Call
from fusiontools.runs.chain import chain_of, open_runtime
from fusiontools.runs.chain import question as asked
from fusiontools.stages.analysis import analysis_schema
from fusiontools.stages.runtime import Runtime

KEY = "sk-ant-0123456789"
PIXEL = base64.b64encode(b"\x89PNG\r\n").decode()
WHY = {"role": "user", "content": "Why?"}
MARK = {"cache_control": {"type": "ephemeral"}}
NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
LOOK_UP = {"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": NAMED}}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def call(given: str = "call_0", arguments: str = '{"name": "x"}') -> dict[str, Any]:
    return {"id": given, "type": "function", "function": {"name": "look_up", "arguments": arguments}}


def calls(*which: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(which)}


def result(given: str = "call_0", content: Any = "42") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": given, "content": content}


def request(messages: list[Any], cached: int = 0, model: str = "claude", **params: Any) -> CompletionRequest:
    return CompletionRequest("claude", model, messages, params, cached_messages=cached)


def sent(*messages: Any, quirks: MessagesQuirks | None = None, cached: int = 0, **params: Any) -> dict[str, Any]:
    """Return the body for these messages, which the strict rules let pass."""
    body = (quirks or MessagesQuirks(marks_cache=True)).body(
        request(list(messages or [WHY]), cached, **params), stream=False
    )
    anthropic_rules.check(json.loads(json.dumps(body)), {})
    return body


def turns(*messages: Any, **more: Any) -> list[dict[str, Any]]:
    return sent(*messages, **more)["messages"]


def refused(*messages: Any, **params: Any) -> CallFailed:
    with pytest.raises(CallFailed) as failure:
        sent(*messages, **params)
    return failure.value


# The conversation


def test_a_question_is_sent_with_a_limit_of_its_tokens_and_no_more() -> None:
    assert sent(WHY) == {
        "model": "claude",
        "max_tokens": prices.ANTHROPIC_MAX_TOKENS,
        "messages": [{"role": "user", "content": [text("Why?")]}],
    }


def test_leading_system_and_developer_text_becomes_the_system_blocks_in_order() -> None:
    body = sent(
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [text("Two."), text("Three.")]},
        WHY,
    )

    assert body["system"] == [text("One."), text("Two."), text("Three.")]
    assert [turn["role"] for turn in body["messages"]] == ["user"]


LATE = {"role": "system", "content": "Now briefly."}
HELLO = {"role": "assistant", "content": "Hello."}


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([WHY, LATE], ["user", "system"]),
        ([WHY, LATE, HELLO, WHY], ["user", "system", "assistant", "user"]),
        ([WHY, HELLO, LATE, WHY], ["user", "assistant", "user", "system"]),
        ([WHY, LATE, WHY], ["user", "system"]),
        ([WHY, LATE, LATE], ["user", "system"]),
    ],
)
def test_a_system_message_in_the_middle_stands_behind_its_user_turn(messages: list[Any], roles: list[str]) -> None:
    assert [turn["role"] for turn in turns(*messages)] == roles


def test_a_system_message_that_has_no_place_in_the_middle_joins_the_leading_ones() -> None:
    body = sent({"role": "system", "content": "First."}, WHY, HELLO, LATE)

    assert body["system"] == [text("First."), text("Now briefly.")]


def test_turns_of_one_role_are_merged() -> None:
    merged = turns(WHY, {"role": "user", "content": "And how?"}, HELLO, {"role": "assistant", "content": "Well."}, WHY)

    assert [[b["text"] for b in turn["content"]] for turn in merged] == [
        ["Why?", "And how?"],
        ["Hello.", "Well."],
        ["Why?"],
    ]


@pytest.mark.parametrize("first", [HELLO, calls(call())])
def test_where_the_assistant_speaks_first_a_word_of_the_user_opens(first: dict[str, Any]) -> None:
    rest = [result()] if first.get("tool_calls") else [WHY]

    assert turns(first, *rest)[0] == {"role": "user", "content": [text("Begin.")]}


def test_a_system_prompt_alone_is_opened_too() -> None:
    body = sent({"role": "system", "content": "Tell a joke."})

    assert (body["system"], body["messages"]) == (
        [text("Tell a joke.")],
        [{"role": "user", "content": [text("Begin.")]}],
    )


@pytest.mark.parametrize("nothing", ["", " \n", None, [], [text("")], [text("\t")]])
def test_text_that_is_nothing_is_left_out_and_so_is_its_turn(nothing: Any) -> None:
    body = sent({"role": "system", "content": nothing}, {"role": "assistant", "content": nothing}, WHY)

    assert "system" not in body
    assert body["messages"] == [{"role": "user", "content": [text("Why?")]}]


def test_an_answer_that_is_to_be_gone_on_with_ends_without_white_space() -> None:
    assert turns(WHY, {"role": "assistant", "content": "Because \n"})[-1]["content"] == [text("Because")]


def test_a_refusal_is_what_the_assistant_said() -> None:
    said = turns(WHY, {"role": "assistant", "content": None, "refusal": "I cannot."}, WHY)

    assert said[1]["content"] == [text("I cannot.")]


def test_tool_calls_and_their_results_are_blocks_and_results_come_first() -> None:
    _, used, answered = turns(
        WHY, calls(call("a"), call("b"), content="Looking."), result("b", "2"), result("a", "1"), WHY
    )

    assert used["content"] == [
        text("Looking."),
        {"type": "tool_use", "id": "a", "name": "look_up", "input": {"name": "x"}},
        {"type": "tool_use", "id": "b", "name": "look_up", "input": {"name": "x"}},
    ]
    assert answered["content"] == [
        {"type": "tool_result", "tool_use_id": "b", "content": [text("2")]},
        {"type": "tool_result", "tool_use_id": "a", "content": [text("1")]},
        text("Why?"),
    ]


def test_results_come_first_even_where_the_user_has_spoken_before_them() -> None:
    blocks = turns(WHY, calls(call()), WHY, result())[-1]["content"]

    assert [block["type"] for block in blocks] == ["tool_result", "text"]


def test_a_block_of_the_apis_own_travels_without_a_mark_of_its_own() -> None:
    shown = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}

    assert turns({"role": "user", "content": [{**shown, **MARK}]})[0]["content"] == [shown]


def test_a_tool_that_says_nothing_has_a_result_all_the_same() -> None:
    assert turns(WHY, calls(call()), result(content=""))[-1]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_0"}
    ]


def test_ids_that_count_from_nought_in_every_turn_are_told_apart() -> None:
    told = turns(WHY, calls(call()), result(content="1"), calls(call()), result(content="2"))

    blocks = [block for turn in told for block in turn["content"] if block["type"] != "text"]
    assert [block.get("id") or block["tool_use_id"] for block in blocks] == ["call_0", "call_0", "call_0_2", "call_0_2"]


def test_ids_and_names_are_spelled_in_the_apis_alphabet() -> None:
    odd = {"id": "functions.f:0", "type": "function", "function": {"name": "a.b", "arguments": ""}}

    _, used, answered = turns(WHY, calls(odd), result("functions.f:0"))

    assert used["content"] == [{"type": "tool_use", "id": "functions_f_0", "name": "a_b", "input": {}}]
    assert answered["content"][0]["tool_use_id"] == "functions_f_0"


@pytest.mark.parametrize("written", ['{"name": "x', "[1]", "3"])
def test_arguments_that_are_no_object_are_wrapped_in_one(written: str) -> None:
    used = turns(WHY, calls(call(arguments=written)), result())[1]["content"][0]["input"]

    assert list(used) == ["arguments"]


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://x.example/a.png", {"type": "url", "url": "https://x.example/a.png"}),
        (f"data:image/png;base64,{PIXEL}", {"type": "base64", "media_type": "image/png", "data": PIXEL}),
        (f"data:image/jpg;base64,{PIXEL}", {"type": "base64", "media_type": "image/jpeg", "data": PIXEL}),
        (
            "data:image/gif,GIF8",
            {"type": "base64", "media_type": "image/gif", "data": base64.b64encode(b"GIF8").decode()},
        ),
    ],
)
def test_an_image_goes_by_address_or_as_base64(url: str, source: dict[str, Any]) -> None:
    [turn] = turns({"role": "user", "content": [text("What?"), {"type": "image_url", "image_url": {"url": url}}]})

    assert turn["content"] == [text("What?"), {"type": "image", "source": source}]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            {"file_data": "data:application/pdf;base64,JVBERg=="},
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
        ),
        ({"file_data": "JVBERg=="}, {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}),
        ({"file_data": "https://x.example/a.pdf"}, {"type": "url", "url": "https://x.example/a.pdf"}),
        ({"file_data": "data:text/markdown,%23%20H"}, {"type": "text", "media_type": "text/plain", "data": "# H"}),
    ],
)
def test_a_file_is_a_document(file: dict[str, Any], source: dict[str, Any]) -> None:
    [turn] = turns({"role": "user", "content": [{"type": "file", "file": {**file, "filename": "a"}}]})

    assert turn["content"] == [{"type": "document", "source": source, "title": "a"}]


def test_a_tool_may_answer_with_an_image() -> None:
    shown = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}

    blocks = turns(WHY, calls(call()), result(content=[text("Look:"), shown]))[-1]["content"]

    assert [block["type"] for block in blocks[0]["content"]] == ["text", "image"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "takes no 'input_audio' part"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}}]},
            "image/svg\\+xml is none of",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]},
            "neither a web address nor a data URL",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}]},
            "this 'image_url' part",
        ),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}, "a file's data must stand"),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:audio/wav,x"}}]},
            "audio/wav is neither",
        ),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a"}}]},
            "'image_url' part in a system message",
        ),
        ({"role": "function", "name": "f", "content": "x"}, "a message of role 'function'"),
        ({"role": "user", "content": [{"text": "x"}]}, "message 0 cannot be read"),
        ({"role": "user", "content": 3}, "message 0 cannot be read"),
    ],
)
def test_what_the_api_has_no_place_for_fails_by_name_and_costs_nothing(message: Any, words: str) -> None:
    with pytest.raises(CallFailed, match=words) as failure:
        sent(message)

    assert (failure.value.code, failure.value.status, failure.value.retryable) == ("bad_request", 400, False)


# Parameters


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"temperature": 0.4}, {"temperature": 0.4}),
        ({"temperature": 1.7}, {"temperature": 1}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["END", "\n\n"]}, {"stop_sequences": ["END"]}),
        ({"stop": "\n"}, {}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "flex"}, {}),
        ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}),
        ({"metadata": {"run": "7"}}, {}),
        ({"top_k": 5}, {"top_k": 5}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        ({"output_config": {"effort": "low"}}, {"output_config": {"effort": "low"}}),
        ({"tool_choice": "required", "parallel_tool_calls": False}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"n": 1, "seed": 3, "user": "u", "logprobs": True, "repeat_penalty": 1.1, "frequency_penalty": 1}, {}),
    ],
)
def test_a_parameter_becomes_the_apis_own_or_stays_at_home(params: dict[str, Any], expected: dict[str, Any]) -> None:
    body = sent(WHY, **params)

    assert body == {
        "model": "claude",
        "max_tokens": prices.ANTHROPIC_MAX_TOKENS,
        "messages": body["messages"],
        **expected,
    }


@pytest.mark.parametrize(
    ("params", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "look_up"}}}, {"type": "tool", "name": "look_up"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"tool_choice": "required", "parallel_tool_calls": False}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, {"type": "auto"}),
    ],
)
def test_a_tool_choice_is_none_auto_any_or_a_tool(params: dict[str, Any], choice: Any) -> None:
    body = sent(WHY, tools=[LOOK_UP], **params)

    assert body["tools"] == [{"name": "look_up", "description": "Looks up.", "input_schema": NAMED}]
    assert body.get("tool_choice") == choice


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {}}])
def test_a_tool_without_parameters_takes_an_empty_object(parameters: dict[str, Any]) -> None:
    body = sent(WHY, tools=[{"type": "function", "function": {"name": "now", **parameters}}])

    assert body["tools"] == [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]


def test_a_tool_of_the_apis_own_passes_through() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}

    assert sent(WHY, tools=[search])["tools"] == [search]


@pytest.mark.parametrize(
    "params",
    [
        {"tools": [LOOK_UP], "tool_choice": {"type": "allowed_tools"}},
        {"tools": [LOOK_UP], "tool_choice": "sometimes"},
        {"tools": ["look_up"]},
        {"temperature": "hot"},
        {"stop": [3]},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_a_parameter_that_cannot_be_read_fails_by_name(params: dict[str, Any]) -> None:
    assert refused(WHY, **params).code == "bad_request"


def test_a_schema_is_a_structured_output() -> None:
    body = sent(WHY, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": NAMED}})

    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {**NAMED, "additionalProperties": False}}
    }


def test_the_judges_schema_is_a_structured_output_as_it_stands() -> None:
    assert close_schema(analysis_schema()) == analysis_schema()


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "minLength": 3, "format": "color"}, {"type": "string"}),
        (
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 3, "minItems": 2},
            {"type": "array", "items": {"type": "integer"}},
        ),
        (
            {"type": "object", "properties": {"minimum": {"type": "null"}}, "additionalProperties": True},
            {"type": "object", "properties": {"minimum": {"type": "null"}}, "additionalProperties": False},
        ),
        (
            {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "number", "maximum": 2}}},
            {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "number"}}},
        ),
        ({"type": "object", "additionalProperties": {"type": "string"}}, None),
        ({**NAMED, "additionalProperties": {"type": "string"}}, None),
        ({"type": "object"}, None),
        ({}, None),
        ({"oneOf": [{"type": "null"}]}, None),
        ({"$ref": "#"}, None),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}, None),
        ({"$ref": "https://x.example/schema"}, None),
        ({"properties": 3}, None),
    ],
)
def test_a_schema_is_put_into_the_language_of_structured_outputs_or_not_at_all(schema: Any, expected: Any) -> None:
    assert close_schema(schema) == expected


@pytest.mark.parametrize(
    ("asked_for", "words"),
    [
        ({"type": "json_object"}, "one JSON object"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, '{"type":"object"}'),
    ],
)
def test_a_format_that_cannot_be_asked_for_is_asked_for_in_words(asked_for: dict[str, Any], words: str) -> None:
    body = sent({"role": "system", "content": "Be kind."}, WHY, response_format=asked_for)

    assert "output_config" not in body
    assert body["system"][0] == text("Be kind.")
    assert words in body["system"][1]["text"]


def test_a_schema_that_fans_out_is_read_in_time() -> None:
    defs = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(100)}
    wide = {"$ref": "#/$defs/a0", "$defs": {**defs, "a100": {"type": "null"}}}

    assert close_schema(wide) == wide


def test_an_effort_is_asked_for_with_adaptive_thinking_and_without_a_temperature() -> None:
    body = sent(WHY, reasoning_effort="medium", temperature=0.5, top_k=3)

    assert body["output_config"] == {"effort": "medium"}
    assert body["thinking"] == {"type": "adaptive"}
    assert not body.keys() & {"temperature", "top_k"}


@pytest.mark.parametrize(("effort", "expected"), [("minimal", "low"), ("xhigh", "xhigh")])
def test_an_effort_is_spelled_as_the_api_spells_it(effort: str, expected: str) -> None:
    assert sent(WHY, reasoning_effort=effort)["output_config"] == {"effort": expected}


def test_no_effort_is_no_thinking() -> None:
    body = sent(WHY, reasoning_effort="none", temperature=0.5)

    assert (body["thinking"], body["temperature"]) == ({"type": "disabled"}, 0.5)
    assert "output_config" not in body


def test_a_call_that_must_be_of_a_tool_leaves_no_room_for_thoughts() -> None:
    assert "thinking" not in sent(WHY, tools=[LOOK_UP], tool_choice="required", reasoning_effort="high")


@pytest.mark.parametrize(
    ("params", "budget"),
    [
        ({"reasoning_effort": "low"}, 2048),
        ({"reasoning_effort": "high", "max_tokens": 4000}, 2000),
        ({"reasoning_effort": "high", "max_tokens": 1000}, None),
    ],
)
def test_for_older_models_an_effort_is_a_budget_that_leaves_half_for_the_answer(
    params: dict[str, Any], budget: int | None
) -> None:
    body = sent(WHY, quirks=MessagesQuirks(thinking_rung=1), **params)

    assert body.get("thinking") == (budget and {"type": "enabled", "budget_tokens": budget})


def test_a_budget_is_not_asked_for_after_tools_as_their_thoughts_are_gone() -> None:
    body = sent(WHY, calls(call()), result(), quirks=MessagesQuirks(thinking_rung=1), reasoning_effort="high")

    assert "thinking" not in body


SIGNED = {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0}
HIDDEN = {"type": "reasoning.encrypted", "data": "aGlkZGVu", "index": 1}
OF_ANOTHER = {"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1", "id": "rs_1", "index": 2}


def test_thoughts_of_a_model_of_theirs_open_the_turn_that_they_led_to() -> None:
    told = {**calls(call(), content="Let me see."), "reasoning_details": [SIGNED, HIDDEN, OF_ANOTHER]}

    body = sent(WHY, told, result(), quirks=MessagesQuirks(thinking_rung=1), reasoning_effort="high")

    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "redacted_thinking", "text", "tool_use"]  # fmt: skip  # noqa: E501
    assert body["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    assert body["thinking"]["type"] == "enabled"


def test_thoughts_of_anothers_are_sent_once() -> None:
    told = [WHY, {"role": "assistant", "content": "So.", "reasoning_details": [SIGNED]}, WHY]
    quirks, asked = MessagesQuirks(), request(told)
    why = "messages.1.content.0: Invalid `signature` in `thinking` block"

    learned = quirks.learn(CallFailed("bad_request", why, status=400), asked, quirks.body(asked, stream=False))

    assert learned
    assert turns(*told, quirks=quirks)[1] == {"role": "assistant", "content": [text("So.")]}


@pytest.mark.parametrize(
    "params",
    [{"reasoning_effort": "high"}, {"response_format": {"type": "json_schema", "json_schema": {"schema": NAMED}}}],
)
def test_where_an_answer_cannot_be_gone_on_with_the_user_asks_for_it(params: dict[str, Any]) -> None:
    told = turns(WHY, HELLO, **params)

    assert [turn["role"] for turn in told] == ["user", "assistant", "user"]


# Cache marks


def marks(body: dict[str, Any]) -> list[str]:
    """Return what is marked."""
    holders = [*body.get("tools", []), *body.get("system", []), *(b for t in body["messages"] for b in t["content"])]
    return [str(h.get("name") or h.get("text") or h["type"]) for h in holders if "cache_control" in h]


SHARED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [text("One."), text("Two.")]}]


def test_the_shared_prefix_is_marked_where_its_parts_end() -> None:
    assert marks(sent(*SHARED, HELLO, WHY, cached=2, tools=[LOOK_UP])) == ["look_up", "Be kind.", "Two."]


def test_what_follows_the_shared_prefix_in_the_same_turn_is_not_marked() -> None:
    assert marks(sent(*SHARED, WHY, cached=2)) == ["Be kind.", "Two."]


def test_a_system_prompt_alone_can_be_shared() -> None:
    assert marks(sent(*SHARED, cached=1)) == ["Be kind."]


def test_the_instruction_of_a_format_comes_after_the_mark() -> None:
    body = sent(*SHARED, cached=2, response_format={"type": "json_object"})

    assert marks(body)[0] == "Be kind."
    assert len(body["system"]) == 2


@pytest.mark.parametrize(("cached", "quirks"), [(0, MessagesQuirks(marks_cache=True)), (2, MessagesQuirks())])
def test_nothing_is_marked_unasked(cached: int, quirks: MessagesQuirks) -> None:
    assert marks(sent(*SHARED, cached=cached, quirks=quirks)) == []


def test_the_askers_own_messages_are_never_changed() -> None:
    before = json.dumps(SHARED)

    sent(*SHARED, cached=2, tools=[LOOK_UP])

    assert json.dumps(SHARED) == before


@pytest.mark.parametrize(
    ("base_url", "model", "marked"),
    [
        ("https://openrouter.ai/api/v1", "anthropic/claude-opus-4.8", True),
        ("https://openrouter.ai/api/v1", "google/gemini-3-flash", True),
        ("https://openrouter.ai/api/v1", "openai/gpt-5.5", False),
        ("https://there.example/v1", "anthropic/claude-opus-4.8", False),
    ],
)
def test_openrouter_is_sent_marks_for_models_that_cache_by_them(base_url: str, model: str, marked: bool) -> None:
    bodies: list[Any] = []

    def handler(asked: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(asked.content))
        return httpx.Response(200, json={"choices": [{"message": {"content": "x"}}]})

    backend = HttpBackend(Endpoint("there", base_url), httpx.MockTransport(handler))
    asyncio.run(backend.complete(request([*SHARED, WHY], 2, model)))

    [body] = bodies
    last = {"role": "user", "content": [text("One."), text("Two.", **MARK)]}
    assert body["messages"] == [SHARED[0], last if marked else SHARED[1], WHY]


def test_a_mark_in_openais_shape_stands_on_the_last_text_of_the_shared_messages() -> None:
    shared = [WHY, calls(call()), result(content=""), WHY]

    body = Quirks(marks_cache=True).body(request(shared, 3), stream=False)

    assert body["messages"] == [{"role": "user", "content": [text("Why?", **MARK)]}, *shared[1:]]


def test_an_endpoint_that_refuses_marks_is_sent_none() -> None:
    quirks, wanted = Quirks(marks_cache=True), request(SHARED, 2)
    body = quirks.body(wanted, stream=False)

    learned = quirks.learn(CallFailed("bad_request", "cache_control: unknown field", status=400), wanted, body)

    assert learned
    assert quirks.body(wanted, stream=False)["messages"] == SHARED


# Lessons


def taught(words: str, **params: Any) -> tuple[bool, dict[str, Any]]:
    """Return whether a refusal in these words teaches anything, and what is sent from then on."""
    quirks, wanted = MessagesQuirks(), request([WHY], **params)
    body = quirks.body(wanted, stream=False)
    learned = quirks.learn(CallFailed("bad_request", f"HTTP 400: {words}", status=400), wanted, body)
    return learned, quirks.body(wanted, stream=False)


STRUCTURED = {"type": "json_schema", "json_schema": {"name": "n", "schema": NAMED}}


def test_an_effort_that_is_too_high_is_asked_for_as_high() -> None:
    learned, body = taught("This model does not support effort level 'xhigh'.", reasoning_effort="xhigh")

    assert learned
    assert body["output_config"] == {"effort": "high"}


def test_a_refused_effort_does_not_cost_the_format() -> None:
    params = {"reasoning_effort": "high", "response_format": STRUCTURED}

    _, body = taught("output_config.effort: Extra inputs are not permitted", **params)

    assert body["output_config"].keys() == {"format"}
    assert body["thinking"]["type"] == "enabled"


def test_a_refused_format_does_not_cost_the_effort() -> None:
    params = {"reasoning_effort": "high", "response_format": STRUCTURED}

    _, body = taught("output_config.format: Extra inputs are not permitted", **params)

    assert body["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    "params", [{"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"reasoning_effort": "none"}]
)
def test_thinking_that_a_model_does_not_know_is_left_out(params: dict[str, Any]) -> None:
    learned, body = taught('"thinking.type" is not supported for this model', **params)

    assert learned
    assert "thinking" not in body


def test_an_answer_gets_the_room_that_the_prompt_leaves() -> None:
    words = "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000, decrease input length"

    assert taught(words, max_tokens=32_000)[1]["max_tokens"] == 10_000


def test_a_tools_name_that_is_refused_goes_out_short_and_plain() -> None:
    name = "data base/" + "x" * 150
    tools = [{"type": "function", "function": {"name": name}}]
    choice = {"type": "function", "function": {"name": name}}

    learned, body = taught("tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", tools=tools,
        tool_choice=choice)  # fmt: skip

    assert learned
    anthropic_rules.check(json.loads(json.dumps(body)), {})
    assert body["tool_choice"] == {"type": "tool", "name": body["tools"][0]["name"]}


@pytest.mark.parametrize(
    ("form", "in_words"),
    [({"type": "json_object"}, True), (STRUCTURED, False), ({"type": "text"}, False), (None, False)],
)
def test_a_form_that_is_asked_for_in_words_is_to_be_checked(form: Any, in_words: bool) -> None:
    assert (MessagesQuirks().form_in_words(request([WHY], response_format=form)) is not None) == in_words


@pytest.mark.parametrize("words", ["tools.0.custom.input_schema: no", "model: not found", "system: no"])
def test_a_refusal_that_names_nothing_of_ours_teaches_nothing(words: str) -> None:
    assert not taught(words, tools=[LOOK_UP], response_format=STRUCTURED, temperature=1)[0]


# What comes back

USAGE = {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 3}
COUNTED = {
    "prompt_tokens": 22,
    "completion_tokens": 3,
    "cached_tokens": 7,
    "reasoning_tokens": 0,
    "cache_write_tokens": 5,
}


def said(*blocks: dict[str, Any], stop_reason: Any = "end_turn", **more: Any) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-real"}
    return {**head, "content": list(blocks), "stop_reason": stop_reason, "usage": USAGE, **more}


def read(message: dict[str, Any]) -> Completion:
    return read_completion(json.dumps(message).encode(), "claude", EventTranslator())


def failed(message: dict[str, Any]) -> CallFailed:
    with pytest.raises(CallFailed) as failure:
        read(message)
    return failure.value


def streamed(*pieces: bytes) -> tuple[Completion, list[str]]:
    shown: list[str] = []
    reader = ReplyReader("claude", EventTranslator(), shown.append)  # type: ignore[arg-type]
    for piece in pieces:
        reader.feed(piece)
    return reader.finish(), shown


def stream_failure(*pieces: bytes) -> CallFailed:
    with pytest.raises(CallFailed) as failure:
        streamed(*pieces)
    return failure.value


def event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def whole(message: dict[str, Any], *behaviours: str) -> list[bytes]:
    """Return the stream in which the stand-in sends a message."""
    a = fake_models.Answer({"model": "claude"}, "claude", 1)
    return [piece for _, piece in anthropic_upstream.events(a, message, dict.fromkeys(behaviours, ""))]


def test_text_thoughts_and_tool_calls_are_told_apart() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"name": "é"}}
    thoughts = [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "redacted_thinking", "data": "y"}]

    completion = read(said(*thoughts, text("Let me "), text("see."), use, stop_reason="tool_use"))

    assert completion == Completion(
        "Let me see.",
        "claude-real",
        "tool_calls",
        [{"id": "toolu_1", "type": "function", "function": {"name": "look_up", "arguments": '{"name":"é"}'}}],
        "Hm.",
        COUNTED,
        native=[*thoughts, text("Let me "), text("see."), use],
        reasoning_details=[
            {"type": "reasoning.text", "text": "Hm.", "signature": "x", "index": 0},
            {"type": "reasoning.encrypted", "data": "y", "index": 1},
        ],
    )


def test_what_the_api_searched_and_cited_by_itself_is_a_source() -> None:
    found = {"type": "web_search_result", "url": "https://a.example/1", "title": "One", "page_age": "May 1, 2026"}
    cited = {"type": "web_search_result_location", "url": "https://a.example/2", "title": "Two", "cited_text": "x"}
    blocks: Any = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
        {**text("So."), "citations": [cited]},
    ]

    completion = read(said(*blocks))

    assert completion.content == "So."
    assert list(completion.sources) == [
        {"url": "https://a.example/1", "how": "search", "title": "One", "date": "May 1, 2026"},
        {"url": "https://a.example/2", "how": "search", "title": "Two"},
    ]
    assert completion.native is None


def test_a_turn_that_the_api_has_paused_comes_back_as_it_is_and_is_no_empty_answer() -> None:
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}

    completion = read(said(use, stop_reason="pause_turn"))

    assert (completion.paused, completion.native, completion.content) == (True, [use], "")
    turn: Any = {"role": "assistant", "content": None, "native": completion.native}
    assert Conversation([{"role": "user", "content": "?"}, turn], 0, system_turns=True).turns[-1]["content"] == [use]


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("of_tomorrow", "length"),
        (None, "stop"),
    ],
)
def test_why_a_model_stopped_is_said_in_openais_words(stop_reason: Any, finish_reason: str) -> None:
    assert read(said(text("Yes."), stop_reason=stop_reason)).finish_reason == finish_reason


@pytest.mark.parametrize(
    ("message", "code", "words", "retryable"),
    [
        (
            said(text("Half"), stop_reason="refusal", stop_details={"explanation": "No."}),
            "refused",
            "the model refused: No.",
            False,
        ),
        (said(stop_reason="refusal"), "refused", "the model refused: it gave no reason", False),
        (said(), "empty", "the model answered nothing", False),
        (said(text(" ")), "empty", "the model answered nothing", False),
        (said(stop_reason="max_tokens"), "truncated", "max_tokens went into nothing visible", False),
        (
            said({"type": "thinking", "thinking": "Hm"}, stop_reason="max_tokens"),
            "truncated",
            "max_tokens went into thinking",
            False,
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "upstream",
            "HTTP 529: Overloaded",
            True,
        ),
        (
            {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow"}},
            "rate_limited",
            "HTTP 429: Slow",
            True,
        ),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "No"}},
            "bad_request",
            "HTTP 400: No",
            False,
        ),
        ({"type": "error", "error": {"type": "of_tomorrow", "message": "Odd"}}, "upstream", "HTTP 502: Odd", True),
        ({"error": "broken"}, "upstream", "HTTP 502: broken", True),
        ({}, "empty", "the endpoint answered no choices", True),
        ({"content": 3}, "bad_response", "the endpoint's answer cannot be read", False),
        ({"content": ["x"]}, "bad_response", "the endpoint's answer cannot be read", False),
    ],
)
def test_what_is_no_answer_fails_by_name(message: Any, code: str, words: str, retryable: bool) -> None:
    failure = failed(message)

    assert (failure.code, failure.retryable) == (code, retryable)
    assert failure.message.startswith(words)


def test_a_refusal_was_paid_for_all_the_same() -> None:
    assert failed(said(stop_reason="refusal")).usage == COUNTED


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None, "output_tokens": None}])
def test_tokens_that_nobody_counts_are_none(usage: Any) -> None:
    counted = read(said(text("Yes."), usage=usage)).usage

    assert counted in (None, {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0})


BLOCKS = st.lists(
    st.one_of(
        st.text(min_size=1).map(text),
        st.text(min_size=1).map(lambda t: {"type": "thinking", "thinking": t}),
        st.fixed_dictionaries(
            {
                "type": st.just("tool_use"),
                "id": st.text("abc", min_size=1),
                "name": st.just("f"),
                "input": st.dictionaries(st.text(max_size=3), st.integers(-9, 9) | st.text(max_size=5), max_size=3),
            }
        ),
    ),
    max_size=5,
)


@given(
    blocks=BLOCKS,
    stop_reason=st.sampled_from(["end_turn", "max_tokens", "tool_use", "refusal"]),
    pings=st.booleans(),
    data=st.data(),
)
def test_a_stream_says_what_the_plain_answer_says_however_it_is_cut_up(
    blocks: list[Any], stop_reason: str, pings: bool, data: st.DataObject
) -> None:
    message = said(*blocks, stop_reason=stop_reason)
    body = b"".join(whole(message, *(["pings"] if pings else [])))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    def outcome(act: Callable[[], Completion]) -> Any:
        try:
            completion = act()
        except CallFailed as failure:
            return failure.code, failure.usage
        return (
            completion.content,
            completion.finish_reason,
            completion.tool_calls,
            completion.reasoning,
            completion.usage,
        )

    shown: list[str] = []

    def stream() -> Completion:
        completion, parts = streamed(*pieces)
        shown.extend(parts)
        return completion

    plain, live = outcome(lambda: read(message)), outcome(stream)

    assert live == plain
    if shown:
        assert "".join(part for part in shown if isinstance(part, str)) == live[0]


def test_text_is_handed_on_as_it_comes() -> None:
    delta = {"type": "text_delta"}
    pieces = [
        event("message_start", message=said()),
        event("content_block_start", index=0, content_block=text("")),
        event("content_block_delta", index=0, delta={**delta, "text": "Pa"}),
        event("content_block_delta", index=0, delta={**delta, "text": "ris."}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9}),
        event("message_stop"),
    ]

    completion, shown = streamed(*pieces)

    assert shown == ["Pa", "ris."]
    assert completion.usage == {**COUNTED, "completion_tokens": 9}


def test_an_input_that_came_whole_with_its_start_is_the_input() -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}
    pieces = [
        event("message_start", message=said()),
        event("content_block_start", index=0, content_block=use),
        event("content_block_stop", index=0),
        event("message_stop"),
    ]

    assert streamed(*pieces)[0].tool_calls[0]["function"]["arguments"] == '{"x":1}'


def test_an_input_that_comes_in_pieces_is_the_pieces() -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 0}}
    pieces = [
        event("message_start", message=said()),
        event("content_block_start", index=0, content_block=use),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"x": 1}'}),
        event("content_block_stop", index=0),
        event("message_stop"),
    ]

    assert streamed(*pieces)[0].tool_calls[0]["function"]["arguments"] == '{"x": 1}'


def test_what_the_endpoints_own_tools_write_is_no_call_of_ours() -> None:
    use = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    pieces = [
        event("message_start", message=said()),
        event("content_block_start", index=0, content_block=use),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"q": 1}'}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block=text("Found.")),
        event("message_stop"),
    ]

    completion, _ = streamed(*pieces)

    assert (completion.content, completion.tool_calls) == ("Found.", [])


def test_a_stream_without_its_end_was_cut_off_and_nobody_knows_what_it_cost() -> None:
    pieces = whole(said(text("Paris.")))

    failure = stream_failure(*pieces[:-2])

    assert (failure.code, failure.retryable, failure.usage) == ("connection", False, None)
    assert stream_failure(*pieces[:1]).retryable


def test_an_error_in_a_stream_is_retried_only_where_nothing_was_shown() -> None:
    start, *_ = pieces = whole(said(text("Paris.")))
    broken = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    early, late = stream_failure(start, broken), stream_failure(*pieces[:-3], broken)

    assert [(f.code, f.message, f.retryable) for f in (early, late)] == [
        ("upstream", "HTTP 529: Overloaded", True),
        ("upstream", "HTTP 529: Overloaded", False),
    ]


@given(st.binary(max_size=60), st.integers(0, 400))
def test_whatever_stands_in_a_stream_it_is_a_completion_or_a_named_failure(noise: bytes, at: int) -> None:
    body = b"".join(whole(said(text("Paris."))))

    with contextlib.suppress(CallFailed):
        streamed(body[:at] + noise + body[at:])


# Whatever OpenAI's wire accepts

LABEL = st.text("abc.:-_ é", min_size=0, max_size=6)
WORDS = st.text(max_size=8) | st.sampled_from(["", " ", "\n", "Yes. "])
PART = WORDS.map(text) | st.just({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}})
PROSE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "assistant"]),
        "content": WORDS | st.lists(WORDS.map(text), max_size=3),
    }
)
ASKING = st.fixed_dictionaries({"role": st.just("user"), "content": WORDS | st.lists(PART, max_size=3)})


@st.composite
def tool_round(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw an assistant's calls and every one's result, in any order, as OpenAI demands them."""
    ids = draw(st.lists(LABEL, min_size=1, max_size=3, unique=True))
    arguments = st.sampled_from(["", "{}", '{"a": 1}', "[", "null"])
    used = calls(*(call(given, draw(arguments)) for given in ids), content=draw(st.none() | WORDS))
    return [used, *(result(given, draw(WORDS)) for given in draw(st.permutations(ids)))]


CONVERSATION = st.lists(
    st.one_of(PROSE.map(lambda m: [m]), ASKING.map(lambda m: [m]), tool_round()), min_size=1, max_size=6
).map(lambda groups: [message for group in groups for message in group])
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 100_000),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 50),
        "stop": WORDS | st.lists(WORDS, max_size=4),
        "seed": st.integers(),
        "user": st.text(max_size=3),
        "tools": st.just([]) | st.just([LOOK_UP]),
        "tool_choice": st.sampled_from(
            ["auto", "none", "required", {"type": "function", "function": {"name": "look_up"}}]
        ),
        "parallel_tool_calls": st.booleans(),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
        "response_format": st.sampled_from(
            [
                {"type": "text"},
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "n", "schema": NAMED}},
            ]
        ),
    },
)


@given(
    conversation=CONVERSATION,
    params=PARAMS,
    cached=st.integers(0, 8),
    traits=st.sets(st.sampled_from(sorted(anthropic_rules.TRAITS))),
)
@settings(max_examples=150)
def test_whatever_openais_wire_accepts_the_api_accepts_once_it_has_taught_its_lessons(
    conversation: list[Any], params: dict[str, Any], cached: int, traits: set[str]
) -> None:
    quirks, wanted = MessagesQuirks(marks_cache=True), request(conversation, cached, **params)
    fake_models.check(json.dumps({"model": "m", "messages": conversation, **params}).encode())
    wishes = dict.fromkeys(traits, "5000")

    lessons = 0
    while True:
        body = quirks.body(wanted, stream=True)
        try:
            anthropic_rules.check(json.loads(json.dumps(body)), wishes)
            break
        except anthropic_rules.Refused as refusal:
            lessons += 1
            taught = quirks.learn(CallFailed("bad_request", str(refusal), status=400), wanted, body)
            if not taught:
                raise

    # A thinking model may refuse thrice, every other trait once.
    assert lessons <= len(traits) + 4
    kept = json.dumps(body["messages"]) + json.dumps(body.get("system"))
    assert all(json.dumps(m["content"].strip())[1:-1] in kept for m in conversation if isinstance(m["content"], str))


# The stand-in is strict

SAID = {"role": "assistant", "content": "Yes."}
USED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
GIVEN = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
BARE = {"type": "base64", "data": PIXEL}
FIVE = [text("x", **MARK)] * 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed: Extra inputs are not permitted"),
        ({"mcp_servers": []}, "mcp_servers: Extra inputs are not permitted"),
        ({"max_tokens": None}, "max_tokens: Input should be a valid int"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{**WHY, "name": "me"}]}, "messages.0.name: Extra inputs are not permitted"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
        ({"messages": [{"role": "user", "content": [text("")]}]}, "text content blocks must be non-empty"),
        ({"messages": [{"role": "user", "content": [text(" ")]}]}, "must contain non-whitespace text"),
        ({"messages": [{"role": "user", "content": [text("x", x=1)]}]}, "text.x: Extra inputs are not permitted"),
        ({"messages": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}, "Input tag 'input_text'"),
        ({"messages": [SAID, WHY]}, 'first message must use the "user" role'),
        ({"messages": [WHY, WHY]}, "roles must alternate"),
        ({"messages": [WHY, SAID, LATE, WHY]}, "a system message must follow a user message"),
        ({"messages": [WHY, {"role": "assistant", "content": "Yes. "}]}, "trailing whitespace"),
        ({"messages": [WHY, USED, WHY]}, "`tool_use` ids were found without `tool_result` blocks"),
        ({"messages": [WHY, USED]}, "`tool_use` ids were found without `tool_result` blocks"),
        ({"messages": [GIVEN]}, "unexpected `tool_use_id` found"),
        ({"messages": [WHY, USED, GIVEN, USED, GIVEN]}, "`tool_use` ids must be unique"),
        (
            {"messages": [WHY, USED, {"role": "user", "content": [text("x"), *GIVEN["content"]]}]},
            "without `tool_result`",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": BARE}]}]},
            "media_type: Field required",
        ),
        ({"messages": [{"role": "user", "content": FIVE}]}, "A maximum of 4 blocks with cache_control"),
        ({"system": [{"type": "image", "source": BARE}]}, "system.0: Input tag 'image'"),
        ({"stop_sequences": ["\n"]}, "each stop sequence must contain non-whitespace"),
        ({"stop_sequences": "END"}, "stop_sequences: Input should be a valid list"),
        ({"temperature": 1.5}, "temperature: range: 0..1"),
        ({"temperature": 1, "top_p": 1}, "cannot both be specified for this model"),
        ({"metadata": {"run": 1}}, "metadata.run: Extra inputs are not permitted"),
        ({"tools": [TOOL, TOOL]}, "Tool names must be unique"),
        ({"tools": [{**TOOL, "name": "a.b"}]}, "tools.0.custom.name: String should match pattern"),
        ({"tools": [{**TOOL, "parameters": {}}]}, "tools.0.custom.parameters: Extra inputs are not permitted"),
        ({"tools": [{"name": "f"}]}, "input_schema: Field required"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice may only be specified while providing tools"),
        ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice: Input tag"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "Tool 'g' not found"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "adaptive"}, "temperature": 0}, "may only be set to 1 when thinking is enabled"),
        ({"output_config": {"effort": "minimal"}}, "output_config.effort: Input should be"),
        ({"output_config": {"format": {"type": "json_schema", "schema": NAMED}}}, "must be explicitly set to false"),
    ],
)
def test_the_stand_in_refuses_what_the_api_refuses(changes: dict[str, Any], words: str) -> None:
    body = {"model": "claude", "max_tokens": 100, "messages": [WHY]}
    anthropic_rules.check(body, {})

    with pytest.raises(anthropic_rules.Refused) as refusal:
        anthropic_rules.check({**body, **changes}, {})

    assert words in str(refusal.value)


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_the_stand_in_refuses_a_request_that_lacks_what_it_must_have(name: str) -> None:
    body = {"model": "claude", "max_tokens": 100, "messages": [WHY]}
    del body[name]

    with pytest.raises(anthropic_rules.Refused, match=f"{name}: Field required"):
        anthropic_rules.check(body, {})


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({}, 401, "x-api-key header is required"),
        ({"x-api-key": KEY}, 400, "anthropic-version: header is required"),
        ({"x-api-key": KEY, "anthropic-version": "2024-01-01"}, 400, "anthropic-version: header is required"),
        ({"x-api-key": "other", "anthropic-version": "2023-06-01"}, 401, "invalid x-api-key"),
    ],
)
def test_the_stand_in_wants_the_apis_headers(api: Upstream, headers: dict[str, str], status: int, words: str) -> None:
    body = {"model": "claude", "max_tokens": 100, "messages": [WHY]}

    response = httpx.post(f"{api.url}/messages", json=body, headers=headers)

    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["message"] == words


# Over HTTP


@pytest.fixture(scope="module")
def api_process() -> Iterator[Upstream]:
    command = [sys.executable, str(SUPPORT / "anthropic_upstream.py"), "--key", KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Upstream(process.stdout.readline().strip())
        finally:
            process.terminate()


@pytest.fixture
def api(api_process: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    monkeypatch.setenv("CLAUDE_KEY", KEY)
    api_process.reset()
    return api_process


def endpoint_of(api: Upstream) -> Endpoint:
    return Endpoint("claude", api.url, "CLAUDE_KEY", api="anthropic")


def ask(
    api: Upstream,
    *models: str,
    messages: Any = None,
    cached: int = 0,
    on_delta: Any = None,
    limits: Any = None,
    **params: Any,
) -> tuple[list[Completion | CallFailed], list[Call]]:
    """Ask models one after the other through one door; returns what came, and the ledger."""

    async def work() -> tuple[list[Any], list[Call]]:
        endpoint = endpoint_of(api)
        door = Client({"claude": endpoint}, LimitOptions(**{"backoff_s": 0, **(limits or {})}))
        ledger, results = door.ledger("panel", "1"), []
        for sample, name in enumerate(models):
            model = Model(name, name, "claude")
            wanted = CompletionRequest("claude", name, messages or [WHY], params, sample, cached)
            asking = door.complete(wanted, model, ledger, Slot(name, sample), on_delta)
            results += await asyncio.gather(asking, return_exceptions=True)
        await door.aclose()
        return results, ledger.calls

    return asyncio.run(work())


def statuses(calls: list[Call]) -> list[str]:
    return [call["status"] for call in calls]


def test_the_key_the_version_and_the_body_are_all_that_is_sent(api: Upstream) -> None:
    ask(api, "claude")

    [seen] = api.requests()
    assert seen["headers"]["x-api-key"] == KEY
    assert seen["headers"]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in seen["headers"]
    assert seen["body"] == {
        "model": "claude",
        "max_tokens": prices.ANTHROPIC_MAX_TOKENS,
        "messages": [{"role": "user", "content": [text("Why?")]}],
    }


def test_an_answer_is_the_same_plain_and_streamed(api: Upstream) -> None:
    shown: list[Any] = []

    [plain], _ = ask(api, "claude+thinks")
    [live], _ = ask(api, "claude+thinks+pings", on_delta=shown.append)

    assert isinstance(plain, Completion)
    assert isinstance(live, Completion)
    assert (plain.content, plain.reasoning, plain.usage) == (live.content, "claude thinks about it.", live.usage)
    thoughts, *texts = shown
    assert thoughts == Thoughts(plain.reasoning_details or ())
    assert "".join(texts) == live.content
    assert len(texts) > 2
    assert live.ttft_s is not None


def test_tools_are_called_and_answered(api: Upstream) -> None:
    [first], _ = ask(api, "claude+tool+twice", tools=[LOOK_UP])

    assert isinstance(first, Completion)
    assert [c["function"] for c in first.tool_calls] == [{"name": "look_up", "arguments": '{"name":"Why?"}'}] * 2
    answered = [WHY, calls(*first.tool_calls), *(result(c["id"]) for c in first.tool_calls)]
    [second], _ = ask(api, "claude+tool", messages=answered, tools=[LOOK_UP])
    assert isinstance(second, Completion)
    assert second.content.startswith("claude says")


@pytest.mark.parametrize(
    ("model", "params", "lessons"),
    [
        ("claude+nosampling", {"temperature": 0.5, "top_k": 3}, 2),
        ("claude+noprefill", {}, 1),
        ("claude+nosystemturns", {}, 1),
        ("claude+noadaptive", {"reasoning_effort": "high"}, 1),
        ("claude+nothinking+noadaptive", {"reasoning_effort": "high"}, 2),
        ("claude+noxhigh", {"reasoning_effort": "xhigh"}, 1),
        ("claude+noschema", {"response_format": {"type": "json_schema", "json_schema": {"schema": NAMED}}}, 1),
        ("claude+nocache", {}, 1),
        ("claude+most=4096", {}, 1),
    ],
)
def test_a_refusal_teaches_and_the_lesson_holds(
    api: Upstream, model: str, params: dict[str, Any], lessons: int
) -> None:
    messages = [WHY, LATE, HELLO]

    results, ledger = ask(api, model, model, messages=messages, cached=1, limits={"retries": 0}, **params)

    assert all(isinstance(completion, Completion) for completion in results), results
    assert statuses(ledger) == ["bad_request"] * lessons + ["ok", "ok"]
    assert [call["cost_usd"] for call in ledger[:lessons]] == [0.0] * lessons


@pytest.mark.parametrize(
    ("model", "code", "attempts"),
    [
        ("claude+status=400", "bad_request", 1),
        ("claude+status=401", "auth", 1),
        ("claude+status=402", "payment", 1),
        ("claude+status=403", "auth", 1),
        ("claude+status=404", "not_found", 1),
        ("claude+status=413", "context_length", 1),
        ("claude+status=429", "rate_limited", 2),
        ("claude+status=500", "upstream", 2),
        ("claude+status=504", "upstream", 2),
        ("claude+status=529", "upstream", 2),
        ("claude+err200", "upstream", 2),
        ("claude+garbage", "bad_response", 2),
        ("claude+html", "bad_response", 2),
        ("claude+empty", "empty", 1),
        ("claude+length", "truncated", 1),
        ("claude+refuses", "refused", 1),
        ("claude+closeearly", "connection", 2),
        ("claude+closehalf", "connection", 2),
    ],
)
def test_a_failure_has_the_code_that_it_has_everywhere(api: Upstream, model: str, code: str, attempts: int) -> None:
    [failure], ledger = ask(api, model, limits={"retries": 1})

    assert isinstance(failure, CallFailed)
    assert statuses(ledger) == [code] * attempts
    assert KEY not in failure.message


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("prompt is too long: 208310 tokens > 200000 maximum", "context_length"),
        ("input length and `max_tokens` exceed context limit: 199990 + 21333 > 200000", "context_length"),
        ("Your credit balance is too low to access the Anthropic API.", "payment"),
    ],
)
def test_a_400_that_says_more_has_a_code_that_says_more(words: str, code: str) -> None:
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": words}}
    transport = httpx.MockTransport(lambda _: httpx.Response(400, json=body))
    backend = HttpBackend(Endpoint("claude", "https://there.example/v1", api="anthropic"), transport, MESSAGES)

    with pytest.raises(CallFailed) as failure:
        asyncio.run(backend.complete(request([WHY])))

    assert (failure.value.code, failure.value.adapted) == (code, False)


def test_an_endpoint_that_is_busy_once_is_asked_again_when_it_says(api: Upstream) -> None:
    [completion], ledger = ask(api, "claude+retryafter=0")

    assert isinstance(completion, Completion)
    assert statuses(ledger) == ["rate_limited", "ok"]


@pytest.mark.parametrize("model", ["claude+nostop", "claude+midfail", "claude+closehalf"])
def test_a_stream_that_breaks_off_fails_and_is_not_asked_for_again(api: Upstream, model: str) -> None:
    shown: list[str] = []

    [failure], ledger = ask(api, model, on_delta=shown.append)

    assert isinstance(failure, CallFailed)
    assert failure.code in ("connection", "upstream")
    assert shown
    assert len(ledger) == 1


def test_a_wrong_key_is_named_and_not_shown(api: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDE_KEY", "sk-ant-wrong-wrong")

    [failure], _ = ask(api, "claude")

    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.message) == ("auth", "HTTP 401: invalid x-api-key")


def test_no_repr_holds_a_key(api: Upstream) -> None:
    backend = HttpBackend(endpoint_of(api), api=MESSAGES)

    assert KEY not in repr([backend, vars(backend), MESSAGES])


def test_calls_share_a_connection(api: Upstream) -> None:
    ask(api, "claude", "claude", "claude")

    assert api.stats()["connections_total"] == 1


def test_a_call_that_is_given_up_closes_its_socket(api: Upstream) -> None:
    [failure], [entry] = ask(api, "claude+hang", limits={"timeout_s": 0.2, "retries": 0})

    assert isinstance(failure, CallFailed)
    assert (entry["status"], entry["cost_usd"]) == ("timeout", None)
    assert poll(api, lambda stats: stats["in_flight"] == 0)["aborted"] == 1


def test_an_endpoint_that_drips_is_cut_all_the_same(api: Upstream) -> None:
    [failure], _ = ask(api, "claude+drip=0.05", on_delta=lambda _: None, limits={"deadline_s": 0.3})

    assert isinstance(failure, CallFailed)
    assert failure.code == "deadline"
    assert poll(api, lambda stats: stats["in_flight"] == 0)["aborted"] == 1


def test_a_marked_prefix_is_written_once_and_read_from_then_on(api: Upstream) -> None:
    messages = [{"role": "system", "content": "Be kind. " * 1000}, WHY]

    results, _ = ask(api, "claude", "claude", "claude", messages=messages, cached=2)

    usages = [completion.usage for completion in results if isinstance(completion, Completion)]
    written = [usage.get("cache_write_tokens", 0) for usage in usages if usage]
    assert written == [api.stats()["cache_write_tokens"], 0, 0]
    assert [usage["cached_tokens"] for usage in usages if usage] == [0, written[0], written[0]]
    assert len({usage["prompt_tokens"] for usage in usages if usage}) == 1


# Money and places


def test_tokens_read_from_the_cache_and_written_to_it_have_prices_of_their_own() -> None:
    usage: Any = {"prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 200, "cache_write_tokens": 500}
    model = Model("m", "claude-opus-4-8", "anthropic")

    dear = prices.listed_usd(ENDPOINTS["anthropic"], model, usage)

    # $5 in, $25 out, a tenth of the first for what is read, 1.25 of it for what is written; per million tokens.
    assert dear == pytest.approx((300 * 5 + 200 * 0.5 + 500 * 6.25 + 100 * 25) / 1e6)


def test_what_is_reserved_is_what_the_call_may_write() -> None:
    model = Model("m", "claude", "anthropic", price_usd_per_mtok={"prompt": 0, "completion": 1e6})

    bounds = [prices.upper_bound_usd(ENDPOINTS["anthropic"], model, [], params) for params in ({}, {"max_tokens": 7})]

    assert bounds == [sent(WHY)["max_tokens"], 7]


def test_an_address_for_everything_speaks_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", "http://127.0.0.1:9/v1")

    assert {endpoint.api for endpoint in environment_endpoints(ENDPOINTS).values()} == {"openai"}


def test_anthropic_itself_is_spoken_to_in_its_own_api() -> None:
    assert (ENDPOINTS["anthropic"].api, ENDPOINTS["anthropic"].base_url) == (
        "anthropic",
        "https://api.anthropic.com/v1",
    )


# Real tools


@pytest.fixture
def claude_env(api: Upstream, env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a person whose recipe names the stand-in, and nothing else."""
    recipe = {
        "endpoint": "claude",
        "endpoints": {"claude": {"base_url": api.url, "api_key_env": "CLAUDE_KEY", "api": "anthropic"}},
        "panel": ["claude-a", "claude-b+nosampling"],
        "judge": "claude-judge+noadaptive",
        "synth": "claude-s",
    }
    (tmp_path / "fusion.yaml").write_text(json.dumps(recipe))
    kept = {name: value for name, value in env.items() if not name.startswith("FUSION_")}
    return {**kept, "CLAUDE_KEY": KEY}


def test_a_whole_pipeline_runs_on_it(run: Run, claude_env: dict[str, str], api: Upstream) -> None:
    done = run("fuse-panel -q | fuse-judge -q | fuse-synth -q", "Why?", env=claude_env, pipefail=True)

    assert done.status == 0, done.err
    [record] = done.records
    check_record(record)
    assert [r["content"][:13] for r in record["panel"]] == ["claude-a says", "claude-b says"]
    assert record["analysis"]["ranking"]
    assert "degraded" not in record
    assert record["answer"]["content"].startswith("claude-s says")
    assert sorted(statuses(record["calls"])) == ["bad_request", "ok", "ok", "ok", "ok"]
    assert api.bodies("claude-judge+noadaptive")[0]["output_config"]["format"]["type"] == "json_schema"
    assert KEY not in done.text + done.err


def test_the_askers_tools_go_through_a_whole_pipeline(run: Run, claude_env: dict[str, str]) -> None:
    stdin = lines([question("q1", params={"tools": [LOOK_UP], "tool_choice": "required", "stop": ["\n", "END"]})])
    line = "fuse-panel -q -m claude-a+tool -m claude-b+tool | fuse-judge -q | fuse-synth -q -m claude-s+tool"

    done = run(line, stdin, env=claude_env, pipefail=True)

    [record] = done.records
    assert done.status == 0, done.err
    assert [c["function"]["name"] for c in record["answer"]["tool_calls"]] == ["look_up"]
    assert record["answer"]["finish_reason"] == "tool_calls"


def test_one_members_failure_is_data_and_the_rest_goes_on(run: Run, claude_env: dict[str, str]) -> None:
    done = run("fuse-panel -q -m claude-a -m claude-b+refuses -m claude-c+status=400", "Why?", env=claude_env)

    [record] = done.records
    assert done.status == 0
    assert [r.get("error", {}).get("code") for r in record["panel"]] == [None, "refused", "bad_request"]


def test_without_its_key_it_is_never_asked(run: Run, claude_env: dict[str, str], api: Upstream) -> None:
    del claude_env["CLAUDE_KEY"]

    done = run("fuse-panel", "Why?", env=claude_env)

    assert (done.status, api.stats()["requests"]) == (2, 0)
    assert "export CLAUDE_KEY=" in done.err


def test_a_quorum_cuts_the_stragglers_socket_and_all(run: Run, claude_env: dict[str, str], api: Upstream) -> None:
    done = run("fuse-panel -q --quorum 1 --grace 0 -m claude-a -m claude-b+hang", "Why?", env=claude_env)

    [record] = done.records
    assert [r.get("error", {}).get("code") for r in record["panel"]] == [None, "cut"]
    assert poll(api, lambda stats: stats["in_flight"] == 0)["aborted"] == 1


def test_the_first_sample_warms_the_cache_for_the_rest(run: Run, claude_env: dict[str, str], api: Upstream) -> None:
    stdin = lines([question("q1", messages=[{"role": "user", "content": "Why? " * 2000}])])

    done = run("fuse-panel -q --prompt-cache --samples 4 -m claude-a", stdin, env=claude_env)

    [record] = done.records
    assert done.status == 0, done.err
    assert len(record["panel"]) == 4
    stats = api.stats()
    assert (stats["cache_writes"], stats["cache_reads"]) == (1, 3)


def test_a_finished_call_is_replayed_from_the_journal(run: Run, claude_env: dict[str, str], api: Upstream) -> None:
    first = run("fuse-panel -q", "Why?", env=claude_env)
    bought = api.stats()["requests"]

    again = run("fuse-panel -q --replay", "Why?", env=claude_env)

    assert again.records[0]["panel"] == first.records[0]["panel"]
    assert api.stats()["requests"] == bought


def test_a_chain_hands_on_the_answer_as_it_is_written(
    claude_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FUSION_BASE_URL", "FUSION_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    recipe = load_recipe(str(tmp_path / "fusion.yaml"))
    shown: list[str] = []

    async def work() -> Any:
        async with open_runtime(recipe, keep=False) as runtime:
            return await chain_of(recipe)(asked("Why?"), Runtime(runtime.client, shown.append))

    record = asyncio.run(work())

    assert "".join(shown) == record["answer"]["content"]
    assert len(shown) > 2


@pytest.mark.parametrize("kind", ["_call__", "_class__", "_init__", "inputs", "usage", "count", None, 5, ["error"], {}])
def test_an_event_that_nobody_knows_says_nothing(kind: Any) -> None:
    assert EventTranslator()({"type": kind}) is None
