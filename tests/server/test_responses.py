"""The Responses API as a protocol: what is read of a request, what is said of an answer, whole and event by event."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.llm.ledger import Spending
from fusiontools.record import schemas
from fusiontools.record.types import Message, ToolCall
from fusiontools.server.protocols.exchange import (
    ApiError,
    ChatRequest,
    ChatResult,
    ResponseMeta,
    StreamStyle,
)
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.protocols.responses_request import NO_OUTPUT

ABOUT = ResponseMeta(id="0123456789abcdef0123456789abcdef", created=1_790_000_000, model="fusion")
SPENT = Spending(
    prompt_tokens=120,
    completion_tokens=40,
    cached_tokens=100,
    cache_write_tokens=5,
    reasoning_tokens=7,
    known_usd=0.0125,
)
PATCH = '*** Begin Patch\n*** Add File: a.txt\n+"hello"\n*** End Patch\n'
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
APPLY = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch"'},
}


def read(given: Any = "Hello", **more: Any) -> ChatRequest:
    return Responses().read({"model": "fusion", "input": given, **more})


def refused(given: Any = "Hello", **more: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(given, **more)
    assert caught.value.status == 400
    assert str(caught.value.param) in caught.value.message
    return caught.value


def namespace(name: str, *tools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": list(tools), **more}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, **more}


def names_shown(asked: ChatRequest) -> list[str]:
    return [tool["function"]["name"] for tool in asked.params.get("tools", [])]


def message(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts]}


def called(call_id: str, name: str = "weather", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def came_back(call_id: str, output: Any = "sunny") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def tool_call(call_id: str, name: str = "weather", arguments: str = "{}") -> ToolCall:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def done(content: str = "", *calls: ToolCall, reason: str = "stop", **fusion: Any) -> ChatResult:
    return ChatResult(content, calls, reason, SPENT, fusion)


def frames(stream: bytes) -> list[tuple[str, Any]]:
    """Return what an SSE reader makes of the stream: the name and the data of each event, comments under no name."""
    read = []
    for block in stream.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            read.append(("", block))
            continue
        name, data = block.split("\n")
        assert data.startswith("data: ")
        read.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return read


def events(stream: bytes) -> list[dict[str, Any]]:
    return [data for name, data in frames(stream) if name]


def kinds(stream: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events(stream)]


def writer(asked: ChatRequest | None = None, **style: str) -> Any:
    return Responses().writer(asked or read(), ABOUT, StreamStyle(**style))


# Reading: the conversation


def test_a_text_is_a_question() -> None:
    asked = read("How tall is Etna?", stream=True)

    assert asked.messages == [{"role": "user", "content": "How tall is Etna?"}]
    assert asked.stream
    assert asked.says_usage


def test_a_request_that_names_no_model_means_the_fusion() -> None:
    assert Responses().read({"input": "Hello"}).model == "fusion"


def test_instructions_lead_the_conversation() -> None:
    asked = read([message("user", "Hello")], instructions="Be brief.")

    assert asked.messages[0] == {"role": "system", "content": "Be brief."}


def test_every_role_is_kept() -> None:
    given = [message("system", "a"), message("developer", "b"), message("user", "c"), message("assistant", "d")]

    assert [(m["role"], m["content"]) for m in read(given).messages] == [
        ("system", "a"),
        ("developer", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]


def test_a_message_needs_no_type_and_its_content_may_be_a_text() -> None:
    asked = read([{"role": "user", "content": "Hello"}])

    assert asked.messages == [{"role": "user", "content": "Hello"}]


def test_texts_of_a_user_stay_apart_and_those_of_others_become_one() -> None:
    given = [message("developer", "a", "b"), message("assistant", "c", "d"), message("user", "e", "f")]

    contents = [m["content"] for m in read(given).messages]

    assert contents == ["a\n\nb", "cd", [{"type": "text", "text": "e"}, {"type": "text", "text": "f"}]]


def test_images_and_files_are_said_as_a_chat_says_them() -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_file", "file_url": "https://example.com/b.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]

    [asked] = read([{"role": "user", "content": content}]).messages

    assert asked["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "https://example.com/b.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


@pytest.mark.parametrize("kind", ["input_image", "input_file"])
def test_a_file_that_is_stored_elsewhere_is_refused(kind: str) -> None:
    error = refused([{"role": "user", "content": [{"type": kind, "file_id": "file-1"}]}])

    assert (error.param, error.code) == ("input[0].content[0].file_id", "unsupported")


def test_a_refusal_of_an_earlier_answer_is_its_text() -> None:
    given = [
        message("user", "Hello"),
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        message("user", "Why?"),
    ]

    assert read(given).messages[1] == {"role": "assistant", "content": "No."}


def test_calls_that_follow_each_other_are_one_turn_and_their_outputs_stand_behind_it() -> None:
    given = [
        message("user", "Where is it warm?"),
        called("1"),
        called("2"),
        came_back("2", "cold"),
        came_back("1", "warm"),
    ]

    assert read(given).messages[1:] == [
        {"role": "assistant", "content": None, "tool_calls": [tool_call("1"), tool_call("2")]},
        {"role": "tool", "tool_call_id": "1", "content": "warm"},
        {"role": "tool", "tool_call_id": "2", "content": "cold"},
    ]


def test_reasoning_between_calls_does_not_part_them() -> None:
    given = [message("user", "?"), called("1"), {"type": "reasoning", "id": "rs_1", "summary": []}, called("2")]

    assert len(read(given).messages[1]["tool_calls"]) == 2


def test_calls_after_an_output_are_a_turn_of_their_own() -> None:
    given = [message("user", "?"), called("1"), came_back("1"), called("2"), came_back("2")]

    assert [m["role"] for m in read(given).messages] == ["user", "assistant", "tool", "assistant", "tool"]


def test_what_was_said_right_before_a_call_is_of_the_same_turn() -> None:
    given = [message("user", "?"), message("assistant", "Let me look."), called("1"), came_back("1")]

    [_, turn, _] = read(given).messages

    assert (turn["content"], len(turn["tool_calls"])) == ("Let me look.", 1)


def test_a_call_without_an_output_gets_one_that_says_so() -> None:
    given = [message("user", "?"), called("1"), message("user", "Never mind.")]

    assert read(given).messages[2] == {"role": "tool", "tool_call_id": "1", "content": NO_OUTPUT}


def test_an_output_whose_call_is_not_shown_becomes_a_message() -> None:
    [first, _] = read([came_back("9", "sunny"), message("user", "?")]).messages

    assert first["role"] == "user"
    assert [part["text"] for part in first["content"]][1] == "sunny"
    assert "9" in first["content"][0]["text"]


def test_an_id_that_is_used_again_belongs_to_the_latest_call() -> None:
    given = [message("user", "?"), called("1"), came_back("1", "a"), called("1"), came_back("1", "b")]

    assert [m["content"] for m in read(given).messages if m["role"] == "tool"] == ["a", "b"]


def test_pictures_that_a_tool_gave_are_shown_after_all_outputs() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    output = [{"type": "input_text", "text": "here"}, picture]
    given = [message("user", "?"), called("1"), called("2"), came_back("1", output), came_back("2", [picture])]

    [*_, first, second, shown] = read(given).messages

    assert (first["content"], second["content"]) == ("here", "(shown in the next message)")
    assert (shown["role"], [part["type"] for part in shown["content"]]) == ("user", ["image_url", "image_url"])


def test_an_output_of_another_shape_is_shown_as_json() -> None:
    given = [message("user", "?"), called("1"), came_back("1", {"content": "a", "success": True})]

    assert read(given).messages[-1]["content"] == '{"content":"a","success":true}'


def test_a_call_of_a_custom_tool_is_a_call_with_one_text() -> None:
    given = [
        message("user", "?"),
        {"type": "custom_tool_call", "call_id": "1", "name": "apply_patch", "input": PATCH},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "Done."},
    ]

    [_, turn, output] = read(given).messages

    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"input": PATCH}
    assert output["content"] == "Done."


def test_a_local_shell_call_is_a_call_of_that_name() -> None:
    given = [
        message("user", "?"),
        {"type": "local_shell_call", "id": "ls_1", "call_id": None, "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "ls_1", "output": "a.txt"},
    ]

    [_, turn, output] = read(given).messages

    assert turn["tool_calls"][0]["function"] == {
        "name": "local_shell",
        "arguments": '{"type":"exec","command":["ls"]}',
    }
    assert output == {"role": "tool", "tool_call_id": "ls_1", "content": "a.txt"}


@pytest.mark.parametrize("kind", ["reasoning", "web_search_call", "additional_tools", "of_tomorrow"])
def test_an_item_that_no_other_model_could_be_shown_is_left_out(kind: str) -> None:
    asked = read([{"type": kind, "id": "1", "tools": []}, message("user", "Hello")])

    assert asked.messages == [{"role": "user", "content": "Hello"}]


def test_a_reference_to_an_item_is_refused_because_its_turn_would_be_lost() -> None:
    error = refused([{"type": "item_reference", "id": "msg_1"}, message("user", "And then?")])

    assert (error.param, error.code) == ("input[0]", "unsupported")
    assert "store: false" in error.message


@pytest.mark.parametrize("nothing", ["", [], [message("user", "")], [{"type": "reasoning"}]])
def test_a_request_with_nothing_to_answer_is_refused(nothing: Any) -> None:
    assert refused(nothing, instructions="Be brief.").param == "input"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ("Hello", "input[0]"),
        ({}, "input[0].type"),
        ({"type": 5}, "input[0].type"),
        ({"role": "critic", "content": "a"}, "input[0].role"),
        ({"role": ["user"], "content": "a"}, "input[0].role"),
        ({"role": "user", "content": 5}, "input[0].content"),
        ({"role": "user", "content": ["a"]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "user", "content": [{"type": "of_tomorrow"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": ["input_text"]}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": {}}]}, "input[0].content[0].image_url"),
        ({"role": "user", "content": [{"type": "input_file", "file_data": 5}]}, "input[0].content[0].file_data"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "input[0].content[0].input_audio"),
        ({"type": "function_call", "name": "a", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "1", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call", "call_id": "1", "name": "a", "arguments": 5}, "input[0].arguments"),
        ({"type": "function_call", "call_id": "1", "name": "a", "namespace": 5}, "input[0].namespace"),
        ({"type": "custom_tool_call", "call_id": "1", "name": "a"}, "input[0].input"),
        ({"type": "function_call_output", "output": "a"}, "input[0].call_id"),
    ],
)
def test_a_broken_item_is_refused_with_its_place(item: Any, param: str) -> None:
    assert refused([item]).param == param


# Reading: what is wanted


def test_parameters_get_their_names_in_a_chat() -> None:
    asked = read(
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=800,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "high", "format": {"type": "text"}},
    )

    assert asked.params == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 800,
        "reasoning_effort": "low",
        "verbosity": "high",
    }


def test_a_schema_is_nested_as_in_a_chat() -> None:
    schema = {"type": "object", "properties": {}}

    asked = read(text={"format": {"type": "json_schema", "name": "a", "schema": schema, "strict": True}})

    assert asked.params["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": schema, "strict": True},
    }


def test_any_json_may_be_asked_for() -> None:
    assert read(text={"format": {"type": "json_object"}}).params["response_format"] == {"type": "json_object"}


def test_what_says_nothing_here_is_taken_all_the_same() -> None:
    asked = read(
        metadata={"a": "b"},
        store=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="a",
        service_tier="auto",
        truncation="auto",
        user="a",
        safety_identifier="a",
        stream_options={"include_obfuscation": False},
        client_metadata={"a": "b"},
        background=False,
        previous_response_id=None,
        temperature=None,
        tools=None,
    )

    assert asked.params == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("background", True),
    ],
)
def test_what_needs_a_store_is_refused(name: str, value: Any) -> None:
    error = refused(**{name: value})

    assert (error.param, error.code) == (name, "unsupported")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"instructions": ["a"]}, "instructions"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": []}, "top_p"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"metadata": []}, "metadata"),
        ({"reasoning": "low"}, "reasoning"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort"),
        ({"text": "json"}, "text"),
        ({"text": {"verbosity": 5}}, "text.verbosity"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": 1}}}, "text.format.strict"),
        ({"tools": {}}, "tools"),
        ({"tools": ["a"]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "name": "a", "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [{"type": "custom", "name": "a", "format": 5}]}, "tools[0].format"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "a"}]}, "tools[0].tools"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [5]}]}, "tools[0].tools[0]"),
        (
            {"tools": [{"type": "namespace", "name": "a", "tools": [WEATHER, {"type": "custom"}]}]},
            "tools[0].tools[1].name",
        ),
        ({"tools": [{"type": "namespace", "name": "a", "description": 5, "tools": []}]}, "tools[0].description"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "a"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "all", "tools": []}}, "tool_choice.mode"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [5]}}, "tool_choice.tools[0]"),
        ({"fusion": []}, "fusion"),
        ({"plugins": {}}, "plugins"),
        ({"plugins": ["fusion"]}, "plugins[0]"),
        ({"fusion": {"plugins": 5}}, "fusion.plugins"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        Responses().read({"model": "fusion", "input": "Hello", **body})

    assert (caught.value.status, caught.value.param) == (400, param)


def test_overrides_of_both_spellings_are_passed_on_together() -> None:
    plugins = [{"id": "fusion", "preset": "general-high"}]

    assert read(fusion={"recipe": "budget"}, plugins=plugins).fusion == {"recipe": "budget", "plugins": plugins}
    assert read(plugins=plugins).fusion == {"plugins": plugins}
    assert read().fusion == {}


@pytest.mark.parametrize("place", ["metadata", "fusion", "text"])
def test_what_could_not_be_written_again_is_refused(place: str) -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"type": "json_schema", "name": "a", "schema": deep, "a": deep}

    assert refused(**{place: {"a": deep, "format": deep}}).status == 400


# Reading: tools


def test_functions_are_nested_as_in_a_chat() -> None:
    asked = read(tools=[WEATHER], parallel_tool_calls=False)

    function = {key: value for key, value in WEATHER.items() if key != "type"}
    assert asked.params == {"tools": [{"type": "function", "function": function}], "parallel_tool_calls": False}


def test_what_a_function_says_nothing_of_is_not_passed_on() -> None:
    tool = {"type": "function", "name": "a", "description": None, "parameters": None, "strict": None}

    assert read(tools=[tool]).params["tools"] == [{"type": "function", "function": {"name": "a"}}]


def test_tools_in_the_spelling_of_a_chat_are_understood() -> None:
    nested = {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}

    assert read(tools=[nested]).params["tools"] == [nested]


def test_a_custom_tool_is_a_function_of_one_text_that_tells_the_grammar() -> None:
    [tool] = read(tools=[APPLY]).params["tools"]

    function = tool["function"]
    assert function["name"] == "apply_patch"
    assert function["description"].startswith("Edit files.")
    assert 'start: "*** Begin Patch"' in function["description"]
    assert function["parameters"]["required"] == ["input"]
    assert function["parameters"]["properties"]["input"]["type"] == "string"


def test_tools_that_nobody_here_can_run_are_not_shown_to_models() -> None:
    hosted = ["web_search", "file_search", "image_generation", "local_shell", "mcp", "of_tomorrow"]

    asked = read(tools=[*({"type": kind} for kind in hosted), WEATHER, namespace("agents", {"type": "web_search"})])

    assert names_shown(asked) == ["weather"]
    assert [part["param"] for part in asked.ignored] == [*(f"tools[{i}]" for i in range(6)), "tools[7].tools[0]"]
    assert all(repr(kind) in part["reason"] for kind, part in zip(hosted, asked.ignored, strict=False))


def test_where_no_tool_is_left_nothing_is_said_of_tools() -> None:
    asked = read(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True)

    assert asked.params == {}


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_by_word_is_the_same_in_a_chat(choice: str) -> None:
    assert read(tools=[WEATHER], tool_choice=choice).params["tool_choice"] == choice


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "weather"},
        {"type": "custom", "name": "weather"},
        {"type": "function", "function": {"name": "weather"}},
    ],
)
def test_a_choice_of_one_tool_is_nested_as_in_a_chat(choice: dict[str, Any]) -> None:
    expected = {"type": "function", "function": {"name": "weather"}}

    assert read(tools=[WEATHER], tool_choice=choice).params["tool_choice"] == expected


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([{"type": "web_search"}], "required"),
        ([], "required"),
        ([{"type": "web_search"}], {"type": "web_search"}),
        ([WEATHER, {"type": "web_search"}], {"type": "web_search"}),
        ([WEATHER], {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}),
    ],
)
def test_a_choice_that_leaves_no_tool_is_refused(tools: list[Any], choice: Any) -> None:
    with pytest.raises(ApiError) as raised:
        read(tools=tools, tool_choice=choice)

    assert (raised.value.status, raised.value.param) == (400, "tool_choice")


def test_only_allowed_tools_are_shown() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "apply_patch"}]}

    asked = read(tools=[WEATHER, APPLY], tool_choice=allowed)

    assert [tool["function"]["name"] for tool in asked.params["tools"]] == ["apply_patch"]
    assert asked.params["tool_choice"] == "required"


# Namespaces


DEMO = namespace("mcp__demo", WEATHER, function("greet"), description="Say it politely.")
GREET = {"type": "function_call", "call_id": "1", "namespace": "mcp__demo", "name": "greet", "arguments": "{}"}


def test_each_tool_of_a_namespace_is_a_function_of_its_own() -> None:
    asked = read(tools=[namespace("mcp__demo", WEATHER)])

    shown = {key: value for key, value in WEATHER.items() if key != "type"} | {"name": "mcp__demo__weather"}
    assert asked.params["tools"] == [{"type": "function", "function": shown}]


def test_what_is_said_of_a_namespace_is_said_once() -> None:
    described = [tool["function"].get("description") for tool in read(tools=[DEMO]).params["tools"]]

    assert described == ["The weather of a city.\n\nOf all tools of mcp__demo: Say it politely.", None]


def test_what_is_said_of_a_namespace_is_not_lost_where_its_first_tool_says_nothing() -> None:
    asked = read(tools=[namespace("a", function("b"), description="Say it politely.")])

    assert asked.params["tools"][0]["function"]["description"] == "Say it politely."


@pytest.mark.parametrize(
    ("group", "name", "flat"),
    [
        ("mcp__demo", "greet", "mcp__demo__greet"),
        ("mcp__demo__", "greet", "mcp__demo__greet"),
        ("mcp__my.demo", "größe", "mcp__my_demo__gr__e"),
    ],
)
def test_the_name_of_a_function_is_spelled_as_endpoints_want_it(group: str, name: str, flat: str) -> None:
    assert names_shown(read(tools=[namespace(group, function(name))])) == [flat]


def test_a_name_that_is_taken_or_too_long_is_marked_with_what_it_stands_for() -> None:
    tools = [namespace("a", function("b"), function("_b"), function("c" * 70)), function("a__b")]

    plain, *marked = names_shown(read(tools=tools))

    assert plain == "a__b"
    assert [name[:5] for name in marked] == ["a__b_", "a__b_", "a__cc"]
    assert len(marked[2]) == 64


def test_a_tool_that_a_namespace_has_twice_is_shown_once() -> None:
    assert names_shown(read(tools=[DEMO, DEMO])) == ["mcp__demo__weather", "mcp__demo__greet"]


def test_calls_go_back_to_the_namespace_under_the_tools_own_name() -> None:
    calls = (tool_call("1", "mcp__demo__greet"), tool_call("2", "weather"))

    output = Responses().whole(read(tools=[DEMO, WEATHER]), ABOUT, done("", *calls, reason="tool_calls"))["output"]

    assert [(item["name"], item.get("namespace")) for item in output] == [("greet", "mcp__demo"), ("weather", None)]


def test_a_custom_tool_of_a_namespace_goes_back_as_one() -> None:
    call = tool_call("1", "edit__apply_patch", json.dumps({"input": PATCH}))

    [item] = Responses().whole(read(tools=[namespace("edit", APPLY)]), ABOUT, done("", call))["output"]

    assert (item["type"], item["namespace"], item["name"]) == ("custom_tool_call", "edit", "apply_patch")
    assert item["input"] == PATCH


def test_every_event_that_shows_a_call_names_its_namespace() -> None:
    said = writer(read(tools=[DEMO]))
    call = tool_call("1", "mcp__demo__greet")

    stream = said.calls([{"index": 0, **call}]) + said.close(done("", call, reason="tool_calls"))

    last = events(stream)[-1]["response"]["output"][0]
    shown = [event["item"] for event in events(stream) if "item" in event]
    assert [(item["namespace"], item["name"]) for item in [*shown, last]] == [("mcp__demo", "greet")] * 3


@pytest.mark.parametrize(
    ("tools", "goes_to"),
    [
        ([DEMO], "mcp__demo"),
        ([DEMO, function("greet")], None),
        ([DEMO, namespace("other", function("greet"))], None),
        ([WEATHER], None),
    ],
)
def test_a_name_without_its_namespace_is_understood_where_only_one_tool_can_be_meant(
    tools: list[Any], goes_to: str | None
) -> None:
    [item] = Responses().whole(read(tools=tools), ABOUT, done("", tool_call("1", "greet")))["output"]

    assert (item["name"], item.get("namespace")) == ("greet", goes_to)


@pytest.mark.parametrize(
    ("tools", "name"),
    [([DEMO], "mcp__demo__greet"), ([], "mcp__demo__greet"), ([DEMO, function("mcp__demo__greet")], None)],
)
def test_an_earlier_call_has_the_name_that_models_know_now(tools: list[Any], name: str | None) -> None:
    asked = read([message("user", "?"), GREET, came_back("1")], tools=tools)

    [call] = asked.messages[1]["tool_calls"]
    assert call["function"]["name"] == (name or names_shown(asked)[-1])


def test_a_call_of_the_namespace_of_all_plain_functions_is_a_plain_call() -> None:
    asked = read([message("user", "?"), {**called("1"), "namespace": "functions"}], tools=[WEATHER])

    assert asked.messages[1]["tool_calls"] == [tool_call("1")]


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "greet", "namespace": "mcp__demo"},
        {"name": "greet"},
        {"name": "mcp__demo__greet"},
        {"function": {"name": "greet", "namespace": "mcp__demo"}},
    ],
)
def test_a_choice_may_name_a_tool_of_a_namespace(choice: dict[str, Any]) -> None:
    chosen = read(tools=[DEMO, WEATHER], tool_choice={"type": "function", **choice}).params["tool_choice"]

    assert chosen == {"type": "function", "function": {"name": "mcp__demo__greet"}}


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"name": "greet"}, "a__greet, b__greet"),
        ({"name": "greet", "namespace": "c"}, "in `tools`"),
        ({"name": "_greet", "namespace": "a"}, "in `tools`"),
    ],
)
def test_a_choice_that_means_no_tool_or_several_is_refused(choice: dict[str, Any], words: str) -> None:
    tools = [namespace("a", function("greet")), namespace("b", function("greet"))]

    error = refused(tools=tools, tool_choice={"type": "function", **choice})

    assert error.param == "tool_choice.name"
    assert words in error.message


@pytest.mark.parametrize(
    ("allowed", "shown"),
    [
        ({"type": "function", "name": "weather"}, ["weather"]),
        ({"type": "function", "name": "weather", "namespace": "mcp__demo"}, ["mcp__demo__weather"]),
        ({"type": "namespace", "name": "mcp__demo"}, ["mcp__demo__weather", "mcp__demo__greet"]),
    ],
)
def test_tools_of_a_namespace_are_allowed_by_name_or_all_at_once(allowed: dict[str, Any], shown: list[str]) -> None:
    asked = read(tools=[DEMO, WEATHER], tool_choice={"type": "allowed_tools", "tools": [allowed]})

    assert names_shown(asked) == shown


SPELLED = st.text(st.sampled_from("ab_.é"), min_size=1, max_size=5)
LONG = st.builds(lambda text, times: text * times, SPELLED, st.sampled_from([1, 1, 30]))


@given(
    groups=st.lists(st.tuples(LONG, st.lists(LONG, min_size=1, max_size=3)), max_size=4),
    plain=st.lists(st.sampled_from(["a__a", "a__b", "_____"]), unique=True, max_size=3),
)
def test_every_tool_has_a_name_of_its_own_that_leads_back_to_it(
    groups: list[tuple[str, list[str]]], plain: list[str]
) -> None:
    tools = [*(namespace(group, *map(function, names)) for group, names in groups), *map(function, plain)]
    declared = {(group, name) for group, names in groups for name in names} | {(None, name) for name in plain}

    asked = read(tools=tools)
    shown = names_shown(asked)
    calls = [tool_call(f"call_{n}", name) for n, name in enumerate(shown)]
    output = Responses().whole(asked, ABOUT, done("", *calls))["output"] if calls else []

    assert len(set(shown)) == len(shown) == len(declared)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in shown)
    assert {(item.get("namespace"), item["name"]) for item in output} == declared
    again = read([message("user", "?"), *output], tools=tools).messages[1].get("tool_calls", []) if output else []
    assert [call["function"]["name"] for call in again] == shown


# Whole answers


def test_a_text_is_a_message_of_one_part() -> None:
    response = Responses().whole(read(), ABOUT, done("Hello!", recipe="budget"))

    assert response["id"] == f"resp_{ABOUT.id}"
    assert (response["object"], response["status"], response["error"]) == ("response", "completed", None)
    assert (response["created_at"], response["model"]) == (ABOUT.created, "fusion")
    assert response["output"] == [
        {
            "id": f"msg_{ABOUT.id}_0",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello!", "annotations": [], "logprobs": []}],
        }
    ]
    assert response["fusion"] == {"recipe": "budget"}


def test_what_it_took_is_said_in_the_words_of_the_protocol() -> None:
    response = Responses().whole(read(), ABOUT, done("Hello!"))

    assert response["usage"] == {
        "input_tokens": 120,
        "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 5},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 7},
        "total_tokens": 160,
        "cost": 0.0125,
    }


def test_an_unknown_cost_is_null() -> None:
    nobody_knows = ChatResult("Hello!", [], "stop", Spending(unknown=1))

    assert Responses().whole(read(), ABOUT, nobody_knows)["usage"]["cost"] is None


def test_calls_are_items_and_go_back_as_their_tools_were_declared() -> None:
    calls = (tool_call("1", "weather", '{"city":"Bern"}'), tool_call("2", "apply_patch", json.dumps({"input": PATCH})))

    response = Responses().whole(read(tools=[WEATHER, APPLY]), ABOUT, done("", *calls, reason="tool_calls"))

    assert response["output"] == [
        {
            "id": f"fc_{ABOUT.id}_0",
            "type": "function_call",
            "status": "completed",
            "call_id": "1",
            "name": "weather",
            "arguments": '{"city":"Bern"}',
        },
        {
            "id": f"ctc_{ABOUT.id}_1",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "2",
            "name": "apply_patch",
            "input": PATCH,
        },
    ]


@pytest.mark.parametrize("arguments", [PATCH, json.dumps(PATCH), json.dumps({"input": PATCH})])
def test_an_input_that_a_model_forgot_to_wrap_is_still_the_input(arguments: str) -> None:
    response = Responses().whole(read(tools=[APPLY]), ABOUT, done("", tool_call("1", "apply_patch", arguments)))

    assert response["output"][0]["input"] == PATCH


@pytest.mark.parametrize(("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(reason: str, said: str) -> None:
    response = Responses().whole(read(), ABOUT, done("Hel", reason=reason))

    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": said})
    assert response["output"][0]["status"] == "incomplete"


def test_an_answer_says_again_what_was_asked_for() -> None:
    said = {
        "tools": [{"type": "web_search"}, WEATHER],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "max_output_tokens": 9,
    }

    response = Responses().whole(read(**said), ABOUT, done("Hello!"))

    assert {name: response[name] for name in said} == said


def test_a_function_is_said_again_with_the_keys_that_typed_clients_want() -> None:
    asked = read(tools=[{"type": "function", "name": "a"}])

    [tool] = Responses().whole(asked, ABOUT, done("Hello!"))["tools"]

    assert tool == {"type": "function", "name": "a", "parameters": None, "strict": None}


def test_an_error_is_in_the_envelope_of_openai() -> None:
    error = Responses().error(ApiError(400, "unsupported", "input: no", "input"))

    assert error == {
        "error": {"message": "input: no", "type": "invalid_request_error", "param": "input", "code": "unsupported"}
    }


# Streams


def test_a_text_is_said_in_the_order_of_the_protocol() -> None:
    said = writer()

    stream = said.open() + said.text("Hel") + said.text("") + said.text("lo") + said.close(done("Hello"))

    assert kinds(stream) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [name for name, _ in frames(stream)] == [event["type"] for event in events(stream)]
    assert events(stream)[4] == {
        "type": "response.output_text.delta",
        "item_id": f"msg_{ABOUT.id}_0",
        "output_index": 0,
        "content_index": 0,
        "logprobs": [],
        "delta": "Hel",
        "sequence_number": 4,
    }


def test_every_event_has_the_next_number() -> None:
    said = writer(read(tools=[WEATHER]), keepalive="chunk", progress="reasoning")

    stream = said.open() + said.progress("panel") + said.alive() + said.text("a") + said.event({"panel": 1})
    stream += said.calls([{"index": 0, **tool_call("1")}]) + said.close(done("a", tool_call("1")))

    assert [event["sequence_number"] for event in events(stream)] == list(range(len(events(stream))))


def test_a_response_under_way_is_whole_but_for_its_output() -> None:
    created = events(writer(read(instructions="Be brief.")).open())[0]["response"]

    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    assert created["instructions"] == "Be brief."


def test_arguments_of_a_call_are_said_as_they_come() -> None:
    said = writer(read(tools=[WEATHER]))

    stream = said.open() + said.calls([{"index": 0, **tool_call("1", arguments='{"city"')}])
    stream += said.calls([{"index": 0, "function": {"arguments": ':"Bern"}'}}])
    stream += said.close(done("", tool_call("1", arguments='{"city":"Bern"}'), reason="tool_calls"))

    assert kinds(stream)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    added, first, *_, finished, item, _ = events(stream)[2:]
    assert (added["item"]["arguments"], added["item"]["status"]) == ("", "in_progress")
    assert (first["delta"], first["item_id"]) == ('{"city"', f"fc_{ABOUT.id}_0")
    assert finished["arguments"] == item["item"]["arguments"] == '{"city":"Bern"}'


def test_a_custom_tool_is_told_its_input_when_all_of_it_is_there() -> None:
    said = writer(read(tools=[APPLY]))
    arguments = json.dumps({"input": PATCH})

    stream = said.open() + said.calls([{"index": 0, **tool_call("1", "apply_patch", arguments[:9])}])
    stream += said.calls([{"index": 0, "function": {"arguments": arguments[9:]}}])
    stream += said.close(done("", tool_call("1", "apply_patch", arguments), reason="tool_calls"))

    assert kinds(stream)[2:-1] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert events(stream)[3]["delta"] == events(stream)[4]["input"] == events(stream)[5]["item"]["input"] == PATCH


def test_a_message_is_closed_before_a_call_opens() -> None:
    said = writer(read(tools=[WEATHER]))

    stream = said.text("Let me look.") + said.calls([{"index": 0, **tool_call("1")}])

    added = [n for n, kind in enumerate(kinds(stream)) if kind == "output_item.added"]
    assert kinds(stream).index("output_item.done") < added[1]
    assert [events(stream)[n]["output_index"] for n in added] == [0, 1]


def test_text_after_a_call_is_a_message_of_its_own() -> None:
    said = writer(read(tools=[WEATHER]))

    said.text("a")
    said.calls([{"index": 0, **tool_call("1")}])
    said.text("b")
    response = events(said.close(done("ab", tool_call("1"))))[-1]["response"]

    assert [item["type"] for item in response["output"]] == ["message", "function_call", "message"]
    assert len({item["id"] for item in response["output"]}) == 3


def test_calls_may_be_written_side_by_side() -> None:
    said = writer(read(tools=[WEATHER]))

    said.calls([{"index": 0, **tool_call("1", arguments="{")}, {"index": 1, **tool_call("2", arguments="{")}])
    said.calls([{"index": 0, "function": {"arguments": "}"}}, {"index": 1, "function": {"arguments": "}"}}])
    response = events(said.close(done("", tool_call("1"), tool_call("2"))))[-1]["response"]

    assert [(item["call_id"], item["arguments"]) for item in response["output"]] == [("1", "{}"), ("2", "{}")]


def test_an_empty_answer_is_an_empty_message() -> None:
    stream = writer().close(done(""))

    assert kinds(stream) == [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_an_answer_that_was_cut_ends_as_incomplete() -> None:
    said = writer()

    last = events(said.text("Hel") + said.close(done("Hel", reason="length")))[-1]

    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


PIECES = st.lists(st.text(max_size=12), max_size=8)
NAMES = st.sampled_from(["weather", "apply_patch"])
ARGUMENTS = st.one_of(st.text(max_size=20), st.builds(lambda text: json.dumps({"input": text}), st.text(max_size=20)))


def cut(text: str, places: Sequence[int]) -> Iterator[str]:
    """Yield the text in pieces, some of them empty."""
    marks = sorted(place % (len(text) + 1) for place in places)
    yield from (text[start:end] for start, end in zip([0, *marks], [*marks, len(text)], strict=True))


@given(
    pieces=PIECES,
    calls=st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3),
    places=st.lists(st.integers(0, 40), max_size=4),
    said_share=st.integers(0, 8),
    reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
)
def test_whatever_the_pieces_a_stream_ends_with_the_whole_answer(
    pieces: list[str], calls: list[tuple[str, str]], places: list[int], said_share: int, reason: str
) -> None:
    asked = read(tools=[WEATHER, APPLY])
    made = [tool_call(f"call_{n}", name, arguments) for n, (name, arguments) in enumerate(calls)]
    answer = done("".join(pieces), *made, reason=reason)
    said = writer(asked)

    stream = said.open() + b"".join(said.text(piece) for piece in pieces[:said_share])
    if said_share >= len(pieces):
        for index, call in enumerate(made[:said_share]):
            first, *rest = cut(call["function"]["arguments"], places)
            begun = {**call, "function": {**call["function"], "arguments": first}}
            stream += said.calls([{"index": index, **begun}])
            stream += said.calls([{"index": index, "function": {"arguments": piece}} for piece in rest])
    stream += said.close(answer)

    whole = Responses().whole(asked, ABOUT, answer)
    assert events(stream)[-1]["response"] == whole
    assert reassembled(events(stream)) == whole["output"]


def reassembled(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the output that a client builds from the deltas alone, in the order of the protocol or not at all."""
    output: dict[int, dict[str, Any]] = {}
    texts: dict[int, str] = {}
    for event in stream:
        index = event.get("output_index")
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert index == len(output)
                output[index], texts[index] = event["item"], ""
            case "content_part.added":
                output[index]["content"].append(event["part"])
            case "output_text.delta" | "function_call_arguments.delta" | "custom_tool_call_input.delta":
                assert event["item_id"] == output[index]["id"]
                texts[index] += event["delta"]
            case "output_item.done":
                output[index]["status"] = event["item"]["status"]
    for index, item in output.items():
        if item["type"] == "message":
            item["content"][0]["text"] = texts[index]
        else:
            item["arguments" if item["type"] == "function_call" else "input"] = texts[index]
    return list(output.values())


# Streams: what goes on


def test_progress_is_a_comment_unless_told_otherwise() -> None:
    assert writer().progress("panel 2/3") == b": panel 2/3\n"
    assert writer().progress("a\nb\r\nc") == b": a b c\n"
    assert writer(progress="off").progress("panel 2/3") == b""


def test_a_draft_is_reasoning_as_it_is_written_and_progress_beside_it_a_comment() -> None:
    said = writer(progress="draft")
    assert said.progress("panel 1/2") == b": panel 1/2\n"

    stream = said.open() + said.draft("One.\n\n") + said.draft(" Two.") + said.text("Hi") + said.close(done("Hi"))

    thoughts, _ = events(stream)[-1]["response"]["output"]
    assert thoughts["summary"] == [{"type": "summary_text", "text": "One.\n\n Two."}]
    assert said.draft("late") == b""


def test_progress_as_reasoning_is_an_item_that_ends_before_the_message() -> None:
    said = writer(progress="reasoning")

    stream = (
        said.open() + said.progress("panel 1/2") + said.progress("judge") + said.text("Hi") + said.close(done("Hi"))
    )

    assert kinds(stream)[2:11] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    thoughts, answer = events(stream)[-1]["response"]["output"]
    assert thoughts == {
        "id": f"rs_{ABOUT.id}_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "panel 1/2\njudge"}],
    }
    assert answer == Responses().whole(read(), ABOUT, done("Hi"))["output"][0]


def test_progress_does_not_cut_the_answer_in_two() -> None:
    said = writer(progress="reasoning")

    said.text("Hi")

    assert said.progress("guard") == b": guard\n"


def test_reasoning_that_no_answer_follows_is_closed_all_the_same() -> None:
    said = writer(progress="reasoning")

    said.progress("panel")
    last = events(said.close(done("")))[-1]

    assert [item["status"] for item in last["response"]["output"]] == ["completed", "completed"]


def test_a_silent_stream_is_kept_open_as_the_operator_wants() -> None:
    assert writer().alive() == b": alive\n"
    assert kinds(writer(keepalive="chunk").alive()) == ["in_progress"]
    assert writer(keepalive="off").alive() == b""


def test_richer_events_are_wrapped_in_one_of_our_own() -> None:
    assert events(writer().event({"type": "panel", "done": 2})) == [
        {"type": "response.fusion.event", "fusion": {"type": "panel", "done": 2}, "sequence_number": 0}
    ]


# Streams that fail


def test_a_stream_that_fails_ends_with_what_was_said_and_what_can_stand_in() -> None:
    said = writer()

    stream = said.text("Hel") + said.broken(
        ApiError(424, "stalled", "synth stalled"), done("A draft.", recipe="budget")
    )

    last = events(stream)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["fusion"] == {"recipe": "budget", "answer": "A draft."}
    assert last["response"]["usage"]["total_tokens"] == 160


def test_a_stream_that_fails_with_nothing_bought_says_only_why() -> None:
    said = writer()

    last = events(said.open() + said.broken(ApiError(503, "busy", "too many requests"), None))[-1]["response"]

    assert last["error"] == {"code": "server_error", "message": "too many requests", "type": "busy", "param": None}
    assert (last["output"], last["usage"], "fusion" in last) == ([], None, False)


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (ApiError(400, "a", "b"), "invalid_prompt"),
        (ApiError(402, "budget", "b"), "invalid_prompt"),
        (ApiError(424, "all_failed", "b"), "invalid_prompt"),
        (ApiError(502, "all_failed", "b", headers={"x-should-retry": "false"}), "invalid_prompt"),
        (ApiError(502, "a", "b"), "server_error"),
        (ApiError(429, "a", "b"), "rate_limit_exceeded"),
    ],
)
def test_clients_are_kept_from_asking_again_where_that_would_buy_the_panel_again(refused: ApiError, code: str) -> None:
    last = events(writer().broken(refused, None))[-1]["response"]

    assert (last["error"]["code"], last["error"]["type"]) == (code, refused.code)


# Whatever comes in


WORDS_TEXT = """
message function_call function_call_output custom_tool_call custom_tool_call_output local_shell_call reasoning
local_shell_call_output item_reference user assistant developer system input_text output_text input_image input_file
refusal call_1 call_2 weather function custom namespace web_search allowed_tools auto json_schema text required
"""
WORDS = st.sampled_from(WORDS_TEXT.split())
KEYS_TEXT = """
type role content call_id id name arguments input output text image_url file_data action tools mode format schema
function effort verbosity plugins parameters description grammar definition namespace
"""
KEYS = st.sampled_from(KEYS_TEXT.split())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(allow_nan=False), WORDS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=25,
)
TOP_TEXT = """
model input instructions tools tool_choice parallel_tool_calls temperature top_p max_output_tokens reasoning text
metadata fusion plugins stream background previous_response_id
"""
TOP = st.sampled_from(TOP_TEXT.split())
PARTS = st.fixed_dictionaries({"type": WORDS}, optional={"text": VALUES, "image_url": VALUES, "file_data": VALUES})
ITEMS = st.fixed_dictionaries(
    {"type": WORDS},
    optional={
        "role": WORDS,
        "content": st.one_of(WORDS, st.lists(PARTS, max_size=3)),
        "call_id": WORDS,
        "name": WORDS,
        "arguments": st.one_of(WORDS, VALUES),
        "input": WORDS,
        "output": st.one_of(WORDS, VALUES, st.lists(PARTS, max_size=3)),
        "action": VALUES,
    },
)


def check_valid(asked: ChatRequest) -> None:
    """Fail unless the record takes it and every chat endpoint would: each call answered at once and exactly once."""
    schemas.check_record({"id": "a", "messages": asked.messages, "params": asked.params})
    waiting: list[str] = []
    for said in asked.messages:
        if said["role"] == "tool":
            assert said["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting
        waiting = [call["id"] for call in said.get("tool_calls", [])]
        assert len(set(waiting)) == len(waiting)
        assert said["content"] or waiting
    assert not waiting


@given(body=st.dictionaries(TOP, VALUES))
def test_whatever_comes_in_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        asked = Responses().read({"input": "Hello", **body})
    except ApiError:
        return

    check_valid(asked)
    assert json.loads(json.dumps(Responses().whole(asked, ABOUT, done("Hello"))))["status"] == "completed"


@given(items=st.lists(ITEMS, min_size=1, max_size=8))
def test_whatever_the_items_the_chat_is_valid(items: list[dict[str, Any]]) -> None:
    try:
        asked = read(items)
    except ApiError:
        return

    check_valid(asked)


@given(
    order=st.lists(
        st.one_of(
            st.builds(called, st.sampled_from("123")),
            st.builds(came_back, st.sampled_from("123")),
            st.builds(message, st.sampled_from(["user", "assistant", "developer"]), st.just("a")),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_was_cut_off_the_chat_is_valid(order: list[dict[str, Any]]) -> None:
    check_valid(read(order))


@given(answer=st.text(max_size=30), calls=st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
def test_an_answer_that_comes_back_as_input_is_the_same_turn(answer: str, calls: list[tuple[str, str]]) -> None:
    asked = read(tools=[WEATHER, APPLY])
    made = [tool_call(f"call_{n}", name, arguments) for n, (name, arguments) in enumerate(calls)]
    response = Responses().whole(asked, ABOUT, done(answer, *made))

    [_, *turns] = read([message("user", "?"), *response["output"]]).messages

    said: list[Message] = [turn for turn in turns if turn["role"] != "tool"]
    assert len(said) <= 1
    if answer:
        assert said[0]["content"] == answer
    assert [call["function"]["name"] for turn in said for call in turn.get("tool_calls", [])] == [n for n, _ in calls]


# What OpenAI's own library makes of it


@pytest.fixture(scope="module")
def adapters() -> tuple[Any, Any]:
    types = pytest.importorskip("openai.types.responses", reason="the openai package is not installed")
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
    return pydantic.TypeAdapter(types.Response), pydantic.TypeAdapter(types.ResponseStreamEvent)


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_openai_reads_whole_answers(adapters: tuple[Any, Any], reason: str) -> None:
    calls = (tool_call("1", "mcp__demo__greet"), tool_call("2", "apply_patch", json.dumps({"input": PATCH})))
    asked = read(
        tools=[DEMO, {"type": "function", "name": "weather"}, APPLY, {"type": "web_search"}], metadata={"a": "b"}
    )

    response = adapters[0].validate_python(Responses().whole(asked, ABOUT, done("Hello", *calls, reason=reason)))

    assert response.output_text == "Hello"
    assert [type(item).__name__ for item in response.output] == [
        "ResponseOutputMessage",
        "ResponseFunctionToolCall",
        "ResponseCustomToolCall",
    ]
    assert (response.output[1].namespace, response.output[1].name) == ("mcp__demo", "greet")
    assert response.usage.total_tokens == 160


@pytest.mark.parametrize("broken", [False, True])
def test_openai_reads_every_event(adapters: tuple[Any, Any], broken: bool) -> None:
    calls = (tool_call("1"), tool_call("2", "apply_patch", json.dumps({"input": PATCH})))
    said = writer(read(tools=[WEATHER, APPLY]), keepalive="chunk", progress="reasoning")
    stream = said.open() + said.progress("panel") + said.alive() + said.text("Hello")
    stream += said.calls([{"index": n, **call} for n, call in enumerate(calls)])
    ended = done("Hello", *calls, reason="tool_calls")

    stream += said.broken(ApiError(424, "all_failed", "no"), ended) if broken else said.close(ended)

    parsed = [adapters[1].validate_python(event) for event in events(stream)]
    assert [event.type for event in parsed] == [event["type"] for event in events(stream)]
    assert parsed[-1].response.status == ("failed" if broken else "completed")
