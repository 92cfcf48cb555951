"""What a chat completion is in Gemini's own words, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from fusiontools.errors import CallFailed
from fusiontools.llm.batches.gemini_jobs import as_completion, native_request

ASKED = [{"role": "user", "content": "Why?"}]
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}


def request(messages: Any = ASKED, **params: Any) -> dict[str, Any]:
    return native_request({"model": "gemini-3-pro", "messages": messages, **params})


def test_parameters_stand_under_generation_config_by_their_names_there() -> None:
    asked = request(temperature=0, max_tokens=9, top_p=0.5, stop="END", seed=3)

    assert asked == {
        "contents": [{"role": "user", "parts": [{"text": "Why?"}]}],
        "generationConfig": {"temperature": 0, "maxOutputTokens": 9, "topP": 0.5, "seed": 3, "stopSequences": ["END"]},
    }


def test_system_messages_are_an_instruction_and_roles_take_turns() -> None:
    asked = request(
        [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "A"},
            {"role": "user", "content": [{"type": "text", "text": "B"}]},
            {"role": "assistant", "content": "C"},
        ]
    )

    assert asked["systemInstruction"] == {"parts": [{"text": "Be short."}]}
    assert asked["contents"] == [
        {"role": "user", "parts": [{"text": "A"}, {"text": "B"}]},
        {"role": "model", "parts": [{"text": "C"}]},
    ]


def test_a_form_is_a_schema_and_an_effort_is_what_the_model_counts() -> None:
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    assert request(response_format=form)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert request(reasoning_effort="low")["generationConfig"] == {"thinkingConfig": {"thinkingLevel": "low"}}
    older = native_request({"model": "gemini-2.5-flash", "messages": ASKED, "reasoning_effort": "none"})
    assert older["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 0}}


def test_tools_their_calls_and_answers_keep_their_names() -> None:
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    turns = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [signed]}]
    turns.append({"role": "tool", "tool_call_id": "c1", "content": "42"})

    asked = request(turns, tools=[TOOL], tool_choice="required")

    declared = {"name": "look", "description": "Looks.", "parametersJsonSchema": {"type": "object"}}
    assert asked["tools"] == [{"functionDeclarations": [declared]}]
    assert asked["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert asked["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"at": 1}}, "thoughtSignature": "c2ln"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"result": "42"}}}]},
    ]


def test_pictures_go_by_their_bytes_only() -> None:
    def seen(url: str) -> list[Any]:
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    [part] = request(seen("data:image/png;base64,AAAA"))["contents"][0]["parts"]
    assert part == {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    with pytest.raises(CallFailed, match="by their bytes only"):
        request(seen("https://example.org/a.png"))


def test_what_jobs_do_not_know_is_refused_by_name() -> None:
    with pytest.raises(CallFailed, match="do not know the parameter `logit_bias`"):
        request(logit_bias={"1": 1})


def test_thoughts_calls_and_all_tokens_come_back() -> None:
    parts = [
        {"text": "Hm.", "thought": True},
        {"text": "So."},
        {"functionCall": {"name": "look", "args": {"at": 1}}, "thoughtSignature": "c2ln"},
    ]
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "cachedContentTokenCount": 1}
    candidate = {"content": {"parts": parts}, "finishReason": "STOP"}

    said = as_completion({"candidates": [candidate], "usageMetadata": counts, "modelVersion": "gemini-3-pro"})

    [choice] = said["choices"]
    assert (choice["finish_reason"], said["model"]) == ("tool_calls", "gemini-3-pro")
    assert (choice["message"]["content"], choice["message"]["reasoning"]) == ("So.", "Hm.")
    [call] = choice["message"]["tool_calls"]
    assert (call["function"], call["extra_content"]) == (
        {"name": "look", "arguments": '{"at":1}'},
        {"google": {"thought_signature": "c2ln"}},
    )
    assert said["usage"]["completion_tokens"] == 5
    assert said["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert said["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "content_filter"),
        ({"candidates": [{"finishReason": "MAX_TOKENS"}]}, "length"),
        ({"candidates": [{"finishReason": "RECITATION"}]}, "content_filter"),
    ],
)
def test_an_answer_that_is_none_says_why(response: dict[str, Any], reason: str) -> None:
    assert as_completion(response)["choices"][0]["finish_reason"] == reason
