"""Anthropic's Messages API, as a server: what is read, what is said, and what the real SDK makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fusiontools.llm.ledger import Spending
from fusiontools.llm.prices import SEEN_TOKENS, estimate_tokens, prompt_tokens
from fusiontools.record.schemas import check_record
from fusiontools.server.protocols.exchange import (
    ApiError,
    ChatRequest,
    ChatResult,
    ResponseMeta,
    StreamStyle,
)
from fusiontools.server.protocols.messages import Messages, count
from fusiontools.server.protocols.messages_reply import MessagesWriter
from fusiontools.server.protocols.messages_request import SIGNATURE

HELLO = {"role": "user", "content": "Hello"}
LOOK_UP = {"name": "look_up", "description": "Looks up.", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}}
SEEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
ABOUT = ResponseMeta("0123456789abcdef0123456789abcdef", 1_700_000_000, "fusion", prompt_tokens=7)
SPENT = Spending(
    prompt_tokens=100, completion_tokens=20, cached_tokens=30, cache_write_tokens=10, reasoning_tokens=5, known_usd=0.25
)


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def tool_use(given: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": given, "name": "look_up", "input": {"q": "x"}, **more}


def tool_result(content: Any, given: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": given, "content": content, **more}


def body(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"model": "fusion", "max_tokens": 64, "messages": list(turns or [HELLO]), **more}


def read(*turns: Any, **more: Any) -> ChatRequest:
    return Messages().read(body(*turns, **more))


def told(*turns: Any, **more: Any) -> list[Any]:
    return list(read(*turns, **more).messages)


def refusal(**more: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        Messages().read(body(**more))
    return caught.value


def call(given: str, arguments: str = '{"q":"x"}', name: str = "look_up") -> Any:
    return {"id": given, "type": "function", "function": {"name": name, "arguments": arguments}}


def done(content: str = "Yes.", calls: Any = (), finish: str = "stop", **more: Any) -> ChatResult:
    return ChatResult(content, calls, finish, SPENT, **more)


def whole(answer: ChatResult, asked: ChatRequest | None = None) -> dict[str, Any]:
    return Messages().whole(asked or read(), ABOUT, answer)


def writer(asked: ChatRequest | None = None, **style: str) -> MessagesWriter:
    return Messages().writer(asked or read(), ABOUT, StreamStyle(**style))


def events(stream: bytes) -> Iterator[dict[str, Any]]:
    """Yield what an event-stream reader hears; every event's name is its type."""
    for frame in stream.decode().split("\n\n"):
        if not (lines := [line for line in frame.split("\n") if line and not line.startswith(":")]):
            continue
        name, data = lines
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        yield event


def kinds(stream: bytes) -> list[str]:
    return [event["type"].removeprefix("content_block_") for event in events(stream)]


def heard(stream: bytes) -> dict[str, Any]:
    """Put a stream together as the protocol says: blocks in order, none begun before the one before it is closed."""
    message: dict[str, Any] = {}
    pieces: list[str] = []
    is_open = False
    for event in events(stream):
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            assert not is_open
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
            pieces, is_open = [], True
        elif kind == "content_block_delta":
            assert is_open
            assert event["index"] == len(message["content"]) - 1
            _add(message["content"][-1], event["delta"], pieces)
        elif kind == "content_block_stop":
            assert is_open
            assert event["index"] == len(message["content"]) - 1
            is_open = False
            if pieces:
                message["content"][-1]["input"] = json.loads("".join(pieces))
        elif kind == "message_delta":
            message |= {**event["delta"], "usage": event["usage"], "fusion": event["fusion"]}
    assert not is_open
    assert kind == "message_stop"
    return message


def _add(block: dict[str, Any], delta: dict[str, Any], pieces: list[str]) -> None:
    kind = delta["type"]
    if kind == "text_delta":
        block["text"] += delta["text"]
    elif kind == "thinking_delta":
        block["thinking"] += delta["thinking"]
    elif kind == "signature_delta":
        block["signature"] = delta["signature"]
    else:
        pieces.append(delta["partial_json"])


def streamed(answer: ChatResult, texts: list[str], deltas: list[Any], asked: ChatRequest | None = None) -> bytes:
    said = writer(asked)
    return b"".join(
        [said.open(), *(said.text(t) for t in texts), *(said.calls([d]) for d in deltas), said.close(answer)]
    )


# --- The conversation ---


def test_system_text_is_the_first_message() -> None:
    assert told(system="Be brief.") == [{"role": "system", "content": "Be brief."}, HELLO]


def test_system_blocks_are_one_message_without_their_cache_marks() -> None:
    blocks = [text("Be brief.", cache_control={"type": "ephemeral"}), text("Be kind.")]

    assert told(system=blocks)[0] == {"role": "system", "content": "Be brief.\n\nBe kind."}


def test_the_billing_line_of_claude_code_reaches_no_model() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.197.84c; cc_entrypoint=cli; cch=fa690;"

    alone = told(system=[text(line), text("Be brief.")])
    on_top = told(system=f"{line}\nBe brief.")

    assert alone[0] == on_top[0] == {"role": "system", "content": "Be brief."}


def test_a_system_message_in_the_middle_stays_where_it_is() -> None:
    assert told(HELLO, {"role": "system", "content": "Be brief."}) == [
        HELLO,
        {"role": "system", "content": "Be brief."},
    ]


def test_a_system_message_at_the_beginning_joins_the_system_text() -> None:
    messages = told({"role": "system", "content": [text("Be kind.")]}, HELLO, system="Be brief.")

    assert messages == [{"role": "system", "content": "Be brief.\n\nBe kind."}, HELLO]


def test_a_system_message_that_only_sets_options_is_left_out() -> None:
    assert told({"role": "system", "content": [], "output_config": {"effort": "low"}}, HELLO) == [HELLO]


def test_text_blocks_of_a_user_are_text() -> None:
    assert told(user(text("One.", cache_control={"type": "ephemeral"}), text(" "), text("Two."))) == [
        {"role": "user", "content": "One.\n\nTwo."}
    ]


def test_images_are_image_parts() -> None:
    by_url = {"type": "image", "source": {"type": "url", "url": "https://there.example/a.png"}}

    [message] = told(user(text("What?"), PIXEL, by_url))

    assert message["content"] == [
        text("What?"),
        SEEN,
        {"type": "image_url", "image_url": {"url": "https://there.example/a.png"}},
    ]


@pytest.mark.parametrize(
    ("source", "data"),
    [
        (
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "data:application/pdf;base64,JVBERi0=",
        ),
        ({"type": "url", "url": "https://there.example/a.pdf"}, "https://there.example/a.pdf"),
    ],
)
def test_a_pdf_is_a_file_part(source: Any, data: str) -> None:
    [message] = told(user({"type": "document", "title": "a.pdf", "context": "Old.", "source": source}))

    assert message["content"] == [
        text("Old."),
        {"type": "file", "file": {"filename": "a.pdf", "file_data": data}},
    ]


@pytest.mark.parametrize(
    "source",
    [
        {"type": "text", "media_type": "text/plain", "data": "Words."},
        {"type": "content", "content": "Words."},
        {"type": "content", "content": [text("Words.")]},
    ],
)
def test_a_document_of_text_is_text_after_its_title(source: Any) -> None:
    assert told(user({"type": "document", "title": "Letter", "source": source})) == [
        {"role": "user", "content": "Letter\n\nWords."}
    ]


def test_a_search_result_is_text() -> None:
    found = {"type": "search_result", "title": "Hens", "source": "https://h.example", "content": [text("They lay.")]}

    assert told(user(found)) == [{"role": "user", "content": "Hens\nhttps://h.example\nThey lay."}]


def test_calls_and_their_results_are_those_of_a_chat() -> None:
    messages = told(HELLO, assistant(text("Let me see."), tool_use()), user(tool_result("42")))

    assert messages[1:] == [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call("toolu_1")]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "42"},
    ]


def test_a_call_without_text_has_null_content_and_one_without_input_an_empty_object() -> None:
    messages = told(HELLO, assistant(tool_use(input=None)), user(tool_result(None)))

    assert messages[1] == {"role": "assistant", "content": None, "tool_calls": [call("toolu_1", "{}")]}
    assert messages[2]["content"] == ""


def test_results_come_before_what_the_user_says_in_the_same_turn() -> None:
    messages = told(
        HELLO,
        assistant(tool_use("a"), tool_use("b")),
        user(text("Well?"), tool_result([text("1")], "b"), tool_result("2", "a")),
    )

    assert [(m["role"], m["content"]) for m in messages[2:]] == [("tool", "1"), ("tool", "2"), ("user", "Well?")]


def test_images_of_a_result_follow_in_the_users_message() -> None:
    messages = told(HELLO, assistant(tool_use()), user(tool_result([text("Look:"), PIXEL]), text("What?")))

    assert messages[2]["content"] == "Look:\n\n(It stands in the next message.)"
    assert messages[3] == {"role": "user", "content": [text("The tools returned:"), SEEN, text("What?")]}


def test_a_failed_result_says_so() -> None:
    messages = told(HELLO, assistant(tool_use()), user(tool_result("no such file", is_error=True)))

    assert messages[2]["content"] == "The tool failed.\n\nno such file"


def test_a_found_tool_is_named_in_the_result() -> None:
    found = [{"type": "tool_reference", "tool_name": "mail"}]

    assert told(HELLO, assistant(tool_use()), user(tool_result(found)))[2]["content"] == "Found the tool mail."


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "thinking", "thinking": "panel 2/3", "signature": SIGNATURE},
        {"type": "redacted_thinking", "data": ""},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "of tomorrow"},
    ],
)
def test_what_says_nothing_to_another_model_is_left_out(block: Any) -> None:
    messages = told(HELLO, assistant(text("Yes."), block), user(block, text("Why?")))

    assert messages == [HELLO, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]


def test_an_unknown_block_keeps_its_text_and_a_compaction_its_summary() -> None:
    later = {"type": "of tomorrow", "text": "Words."}
    compaction = {"type": "compaction", "content": "We spoke of hens."}

    messages = told(HELLO, assistant(compaction), user(later))

    assert [m["content"] for m in messages[1:]] == ["We spoke of hens.", "Words."]


def test_pieces_of_cited_text_join_and_texts_around_a_search_stay_apart() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}

    messages = told(HELLO, assistant(text("I look."), search, text("Hens "), text("lay.")), user(text("Why?")))

    assert messages[1]["content"] == "I look.\n\nHens lay."


def test_a_message_with_nothing_in_it_is_left_out() -> None:
    assert told(HELLO, assistant(text("")), HELLO) == [HELLO, HELLO]


def test_what_is_read_is_a_valid_question() -> None:
    asked = read(
        user(text("What?"), PIXEL), assistant(tool_use()), user(tool_result("1")), system="Hi", tools=[LOOK_UP]
    )

    check_record({"id": "x", "messages": asked.messages, "params": asked.params})


# --- Parameters ---


def test_parameters_have_openais_names() -> None:
    asked = read(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], stream=True)

    assert asked.params == {"max_tokens": 64, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop": ["END"]}
    assert asked.model == "fusion"
    assert asked.stream
    assert asked.says_usage


def test_unknown_fields_are_told_and_nulls_say_nothing() -> None:
    unheard = {"metadata": {"user_id": "u"}, "service_tier": "auto", "context_management": {}, "betas": ["x"], "new": 1}
    nulls = dict.fromkeys(["system", "tools", "tool_choice", "thinking", "temperature", "stop_sequences", "stream"])

    asked = read(**unheard, **nulls)

    assert [part["param"] for part in asked.ignored] == ["metadata", "betas", "new"]
    assert replace(asked, ignored=[]) == read()


@pytest.mark.parametrize(
    ("given", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 4000}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "high"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}, "medium"),
        ({"output_config": {"effort": "max"}}, "high"),
        ({"output_config": {"effort": "of tomorrow"}}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, None),
    ],
)
def test_thinking_is_a_reasoning_effort(given: dict[str, Any], effort: str | None) -> None:
    assert read(**given).params.get("reasoning_effort") == effort


@pytest.mark.parametrize("place", ["output_format", "output_config"])
def test_a_wanted_schema_is_a_response_format(place: str) -> None:
    schema = {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}
    wanted = {"type": "json_schema", "schema": schema}

    params = read(**{place: wanted if place == "output_format" else {"format": wanted}}).params

    assert params["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        {"type": "array", "items": {"anyOf": [{"type": "object", "properties": {"a": {}}, "required": []}]}},
    ],
)
def test_a_schema_with_open_objects_is_not_strict(schema: Any) -> None:
    params = read(output_format={"type": "json_schema", "schema": schema}).params

    assert params["response_format"]["json_schema"]["strict"] is False


def test_fusion_and_plugins_are_the_clients_overrides() -> None:
    asked = read(fusion={"recipe": "vote"}, plugins=[{"id": "fusion"}])

    assert asked.fusion == {"recipe": "vote", "plugins": [{"id": "fusion"}]}


# --- Tools ---


def test_tools_are_functions() -> None:
    assert read(tools=[LOOK_UP, {**LOOK_UP, "type": "custom", "cache_control": {}, "strict": True}]).params[
        "tools"
    ] == [
        {"type": "function", "function": FUNCTION},
        {"type": "function", "function": FUNCTION},
    ]


@pytest.mark.parametrize("kind", ["web_search_20250305", "code_execution_20250825", "bash_20250124", "memory_20250818"])
def test_tools_that_nobody_here_can_run_are_left_out(kind: str) -> None:
    native = {"type": kind, "name": "native"}

    asked = read(tools=[native, LOOK_UP], mcp_servers=[{"type": "url", "url": "https://tools.example"}])

    assert [tool["function"]["name"] for tool in asked.params["tools"]] == ["look_up"]
    assert [part["param"] for part in asked.ignored] == ["tools[0]", "mcp_servers[0]"]
    assert repr(kind) in asked.ignored[0]["reason"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "native"}])
@pytest.mark.parametrize("others", [[], [LOOK_UP]], ids=["alone", "beside another"])
def test_a_choice_that_leaves_no_tool_is_refused(choice: dict[str, str], others: list[Any]) -> None:
    if others and choice["type"] == "any":
        assert read(tools=others, tool_choice=choice).params["tool_choice"] == "required"
        return

    refused = refusal(tools=[{"type": "web_search_20250305", "name": "native"}, *others], tool_choice=choice)

    assert (refused.status, str(refused.param).partition(".")[0]) == (400, "tool_choice")


def test_a_typed_tool_with_a_schema_is_the_clients_own() -> None:
    params = read(tools=[{**LOOK_UP, "type": "bash_20250124"}]).params

    assert params["tools"] == [{"type": "function", "function": FUNCTION}]


def test_without_tools_no_choice_among_them_is_asked_for() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}

    assert (
        read(tools=[{"type": "web_search_20250305", "name": "web_search"}], tool_choice=choice).params == read().params
    )


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look_up"}, {"type": "function", "function": {"name": "look_up"}}),
    ],
)
def test_a_tool_choice_is_that_of_a_chat(choice: Any, wanted: Any) -> None:
    assert read(tools=[LOOK_UP], tool_choice=choice).params["tool_choice"] == wanted


def test_one_call_at_a_time_is_no_parallel_calls() -> None:
    params = read(tools=[LOOK_UP], tool_choice={"type": "auto", "disable_parallel_tool_use": True}).params

    assert params["parallel_tool_calls"] is False


# --- What is refused ---


def test_an_answer_without_a_bound_is_refused() -> None:
    refused = refusal(max_tokens=None)

    assert (refused.status, refused.code, refused.param) == (400, "invalid_request", "max_tokens")
    assert refused.message == "max_tokens: is missing: say how many tokens the answer may have, 4096 for example"


def at(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [HELLO, {"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "64"}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": ["END", 7]}, "stop_sequences[1]"),
        ({"stream": "yes"}, "stream"),
        ({"fusion": []}, "fusion"),
        ({"plugins": {}}, "plugins"),
        ({"system": 7}, "system"),
        ({"system": [text("Hi"), "Ho"]}, "system[1]"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
        ({"tools": {}}, "tools"),
        ({"tools": [LOOK_UP, 7]}, "tools[1]"),
        ({"tools": [{"name": "look_up"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [LOOK_UP], "tool_choice": "auto"}, "tool_choice"),
        ({"tools": [LOOK_UP], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [LOOK_UP], "tool_choice": {"type": "tool", "name": "look_out"}}, "tool_choice.name"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [user(text(" "))]}, "messages"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (at("Hello"), "messages[1].content[0]"),
        (at({"type": "text"}), "messages[1].content[0].text"),
        (at(tool_use()), "messages[1].content[0]"),
        (at(tool_result("1")), "messages[1].content[0].tool_use_id"),
        (at(tool_result("1"), role="assistant"), "messages[1].content[0]"),
        (at(tool_use(id=None), role="assistant"), "messages[1].content[0].id"),
        (at(tool_use(input="{}"), role="assistant"), "messages[1].content[0].input"),
        (at(text("a"), {"type": "image"}), "messages[1].content[1].source"),
        (at({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[1].content[0].source"),
        (at({"type": "image", "source": {"type": "base64", "data": "x"}}), "messages[1].content[0].source.media_type"),
        (at({"type": "document", "source": {"type": "of tomorrow"}}), "messages[1].content[0].source.type"),
        (
            at({"type": "document", "source": {"type": "content", "content": [{"type": "document"}]}}),
            "messages[1].content[0].source.content[0].type",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(wrong: dict[str, Any], place: str) -> None:
    refused = refusal(**wrong)

    assert (refused.status, refused.code, refused.param) == (400, "invalid_request", place)
    assert refused.message.startswith(f"{place}: ")


def nested(depth: int, inner: Any = None) -> Any:
    for _ in range(depth):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (at(tool_use(input=nested(900)), role="assistant"), "messages[1].content[0].input"),
        ({"tools": [{**LOOK_UP, "input_schema": nested(900)}]}, "tools[0].input_schema"),
        ({"output_format": {"type": "json_schema", "schema": nested(900)}}, "output_format.schema"),
        ({"messages": [{"role": nested(900), "content": "Hello"}]}, "messages[0].role"),
    ],
)
def test_what_is_nested_too_deeply_is_refused_with_its_place(wrong: dict[str, Any], place: str) -> None:
    assert refusal(**wrong).param == place


BLOCK_TYPES = ["text", "image", "document", "tool_use", "tool_result", "search_result", "tool_reference", "later"]
FIELDS = ["system", "temperature", "stop_sequences", "tool_choice", "thinking", "output_config", "stream", "fusion"]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "name", "content"]), inner),
    max_leaves=5,
)
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(BLOCK_TYPES)},
    optional={
        name: anything | st.just([PIXEL])
        for name in ("text", "source", "content", "id", "input", "tool_use_id", "title", "context", "tool_name")
    },
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("fusion") | anything,
        "max_tokens": st.just(64) | anything,
        "messages": anything
        | st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system"]), "content": anything | st.lists(blocks)}
            ),
            max_size=4,
        ),
        **dict.fromkeys(FIELDS, anything),
        "tools": anything | st.lists(st.just(LOOK_UP) | st.dictionaries(st.sampled_from(["type", "name"]), anything)),
    },
)


def outcome(reader: Callable[[dict[str, Any]], Any], given: dict[str, Any]) -> ApiError | None:
    try:
        reader(given)
    except ApiError as refused:
        return refused
    return None


@given(bodies)
def test_whatever_comes_is_read_or_refused_by_name(given: dict[str, Any]) -> None:
    outcomes = [outcome(Messages().read, given), outcome(count, given)]

    assert all(refused is None or (refused.status == 400 and refused.param) for refused in outcomes)


# --- A whole answer ---


def test_a_whole_answer_is_a_message() -> None:
    assert whole(done(fusion={"recipe": "budget"})) == {
        "id": "msg_0123456789abcdef0123456789abcdef",
        "type": "message",
        "role": "assistant",
        "model": "fusion",
        "content": [text("Yes.")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 30,
            "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 5},
            "cost": 0.25,
        },
        "fusion": {"recipe": "budget"},
    }


def test_calls_are_blocks_after_the_text() -> None:
    message = whole(done("I look.", [call("a"), call("b", "")], "tool_calls"))

    assert message["content"] == [text("I look."), tool_use("a"), tool_use("b", input={})]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize(("arguments", "given"), [('{"q":', '{"q":'), ("[1]", [1]), ("7", 7)])
def test_arguments_that_are_no_object_are_put_in_one(arguments: str, given: Any) -> None:
    [block] = whole(done("", [call("a", arguments)]))["content"]

    assert block["input"] == {"arguments": given}


@pytest.mark.parametrize(
    ("finish", "calls", "reason"),
    [
        ("stop", [], "end_turn"),
        ("length", [], "max_tokens"),
        ("length", [call("a")], "max_tokens"),
        ("tool_calls", [call("a")], "tool_use"),
        ("stop", [call("a")], "tool_use"),
        ("tool_calls", [], "end_turn"),
        ("content_filter", [], "refusal"),
    ],
)
def test_why_it_stopped_is_said_in_anthropics_words(finish: str, calls: list[Any], reason: str) -> None:
    answer = done("Yes.", calls, finish)

    assert whole(answer)["stop_reason"] == reason
    assert heard(streamed(answer, ["Yes."], []))["stop_reason"] == reason


def test_an_id_that_the_conversation_has_already_goes_out_as_another() -> None:
    asked = read(HELLO, assistant(tool_use("call_0")), user(tool_result("1", "call_0")))
    answer = done("", [call("call_0"), call("call_1"), call("call_0")])

    ids = [block["id"] for block in whole(answer, asked)["content"]]

    assert ids == ["call_0_0123456789ab", "call_1", "call_0_0123456789ab_2"]


# --- A stream ---


def test_a_stream_has_its_events_in_order() -> None:
    stream = streamed(done(calls=[call("a")]), ["Ye", "", "s."], [{"index": 0, **call("a")}])

    assert kinds(stream) == [
        "message_start",
        *("start", "delta", "delta", "stop"),
        *("start", "delta", "stop"),
        "message_delta",
        "message_stop",
    ]


def test_a_stream_begins_with_the_tokens_of_the_request_and_ends_with_those_it_took() -> None:
    begun, *_, last, _ = events(streamed(done(fusion={"recipe": "budget"}), ["Yes."], []))

    assert begun["message"]["usage"] == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    assert last["usage"] == whole(done())["usage"]
    assert last["fusion"] == {"recipe": "budget"}


def test_arguments_go_out_as_they_come() -> None:
    said = writer()
    said.open()

    first = said.calls([{"index": 0, "id": "a", "function": {"name": "look_up", "arguments": ""}}])
    second = said.calls([{"index": 0, "function": {"arguments": '{"q":'}}])

    assert [event["content_block"] for event in events(first)] == [tool_use("a", input={})]
    assert [event["delta"] for event in events(second)] == [{"type": "input_json_delta", "partial_json": '{"q":'}]


def test_pieces_of_a_later_call_wait_until_the_first_is_whole() -> None:
    said = writer()
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "look_up", "arguments": ""}},
        {"index": 1, "id": "b", "function": {"name": "look_up", "arguments": '{"q":'}},
        {"index": 0, "function": {"arguments": '{"q":"x"}'}},
        {"index": 1, "function": {"arguments": '"x"}'}},
    ]
    answer = done("", [call("a"), call("b")])

    stream = b"".join([said.open(), *(said.calls([piece]) for piece in pieces), said.close(answer)])

    assert heard(stream)["content"] == [tool_use("a"), tool_use("b")]


def test_text_after_a_call_is_a_block_of_its_own() -> None:
    said = writer()

    stream = b"".join(
        [
            said.open(),
            said.text("I look."),
            said.calls([{"index": 0, **call("a")}]),
            said.text("So"),
            said.text("."),
            said.close(done()),
        ]
    )

    assert heard(stream)["content"] == [text("I look."), tool_use("a"), text("So.")]


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[str], list[Any], list[Any]]:
    """Draw the pieces of a text, calls, and the pieces of those in any order that keeps each call's own."""
    texts = draw(st.lists(st.text(max_size=5), max_size=5))
    inputs = draw(st.lists(st.dictionaries(st.text(max_size=3), anything, max_size=2), max_size=3))
    calls = [call(draw(st.sampled_from(["call_0", f"id_{i}"])), json.dumps(given)) for i, given in enumerate(inputs)]
    waiting = []
    for i, made in enumerate(calls):
        arguments = made["function"]["arguments"]
        cut = draw(st.integers(0, len(arguments)))
        rest = [{"index": i, "function": {"arguments": piece}} for piece in (arguments[:cut], arguments[cut:])]
        head = {"index": i, "id": made["id"], "function": {"name": "look_up", "arguments": ""}}
        waiting.append([head, *rest])
    deltas = [queue.pop(0) for queue in waiting]
    while any(waiting):
        deltas.append(draw(st.sampled_from([queue for queue in waiting if queue])).pop(0))
    return texts, calls, deltas


@given(answers())
def test_whatever_the_pieces_a_stream_says_what_a_whole_answer_does(drawn: Any) -> None:
    texts, calls, deltas = drawn
    answer = done("".join(texts), calls)

    message = heard(streamed(answer, texts, deltas))

    assert message == whole(answer)


@given(st.text(), st.text())
def test_no_text_breaks_the_frames(first: str, second: str) -> None:
    stream = streamed(done(first + second), [first, second], [])

    assert heard(stream) == whole(done(first + second))


# --- What goes on meanwhile ---


def test_progress_is_a_comment_on_one_line() -> None:
    assert writer().progress("panel\n2/3") == b": panel 2/3\n"


def test_progress_can_be_thoughts_that_end_signed_before_the_text() -> None:
    said = writer(progress="reasoning")

    stream = b"".join(
        [said.open(), said.progress("panel 1/2"), said.progress("panel 2/2"), said.text("Yes."), said.close(done())]
    )

    thought, answer = heard(stream)["content"]
    assert thought["thinking"] == "panel 1/2\npanel 2/2\n"
    assert thought["signature"]
    assert answer == text("Yes.")


def test_a_draft_is_a_thought_as_it_is_written_and_progress_beside_it_a_comment() -> None:
    said = writer(progress="draft")
    assert said.progress("panel 1/2") == b": panel 1/2\n"

    stream = said.open() + said.draft("One.\n\n") + said.draft(" Two.") + said.text("Yes.")

    thought, answer = heard(stream + said.close(done()))["content"]
    assert (thought["thinking"], answer) == ("One.\n\n Two.", text("Yes."))
    assert said.draft("late") == b""


def test_thoughts_that_come_back_are_left_out() -> None:
    said = writer(progress="reasoning")
    thought, *_ = heard(said.open() + said.progress("panel 1/2") + said.text("Yes.") + said.close(done()))["content"]

    assert told(HELLO, assistant(thought, text("Yes.")), HELLO) == [
        HELLO,
        {"role": "assistant", "content": "Yes."},
        HELLO,
    ]


def test_progress_does_not_cut_an_answer_in_two() -> None:
    said = writer(progress="reasoning")
    said.open()
    said.text("Ye")

    assert said.progress("guard") == b": guard\n"


def test_progress_can_be_off() -> None:
    assert writer(progress="off").progress("panel 2/3") == b""


@pytest.mark.parametrize(
    ("keepalive", "said"),
    [("comment", b": alive\n"), ("chunk", b'event: ping\ndata: {"type":"ping"}\n\n'), ("off", b"")],
)
def test_a_silent_line_is_kept_open(keepalive: str, said: bytes) -> None:
    assert writer(keepalive=keepalive).alive() == said


def test_richer_events_are_comments() -> None:
    assert writer().event({"stage": "panel", "of": 3}) == b': fusion {"stage":"panel","of":3}\n'


# --- Errors ---


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "request_too_large"),
        (424, "api_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_an_error_has_anthropics_type(status: int, kind: str) -> None:
    assert Messages().error(ApiError(status, "why", "It cannot be.")) == {
        "type": "error",
        "error": {"type": kind, "message": "It cannot be."},
    }


@pytest.mark.parametrize(
    "thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}, "new", {}]
)
@pytest.mark.parametrize("reader", [Messages().read, count], ids=["ask", "count"])
def test_a_thread_is_refused_in_the_words_on_which_clients_go_on_without(reader: Any, thread: Any) -> None:
    with pytest.raises(ApiError) as raised:
        reader(body(HELLO, thread=thread))

    error = Messages().error(raised.value)["error"]
    assert (raised.value.status, error["type"]) == (400, "invalid_request_error")
    assert error["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


@pytest.mark.parametrize("said", ["12 tokens are too many", "Prompt is too long: 12 tokens"])
def test_a_conversation_that_is_too_long_is_said_in_the_words_that_clients_know(said: str) -> None:
    message = Messages().error(ApiError(400, "context_length", said))["error"]["message"]

    assert message.lower().count("prompt is too long") == 1
    assert message.endswith(said)


def test_a_stream_that_breaks_off_ends_with_the_error_and_what_can_stand_in() -> None:
    said = writer()
    said.open()
    said.text("Ye")

    [event] = events(said.broken(ApiError(502, "upstream", "It broke."), done("No.", fusion={"recipe": "budget"})))

    assert event == {
        "type": "error",
        "error": {"type": "api_error", "message": "It broke."},
        "fusion": {"recipe": "budget", "answer": "No."},
    }


def test_a_stream_that_breaks_off_with_nothing_bought_says_the_error_alone() -> None:
    [event] = events(writer().broken(ApiError(503, "busy", "Later."), None))

    assert event == {"type": "error", "error": {"type": "overloaded_error", "message": "Later."}}


# --- Tokens ---


def test_tokens_are_counted_without_a_bound_of_the_answer() -> None:
    given = body()
    del given["max_tokens"]

    assert count(given) == estimate_tokens([HELLO])


@pytest.mark.parametrize(
    "more",
    [
        {"system": "Be brief."},
        {"tools": [LOOK_UP]},
        {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
        {"messages": [HELLO, assistant(tool_use()), user(tool_result(""))]},
    ],
)
def test_everything_that_a_model_reads_counts(more: dict[str, Any]) -> None:
    beside = count(body(**more)) - count(body())

    assert beside > 4 * len(more.get("messages", [HELLO])) - 4


def test_an_image_counts_the_same_whatever_its_size() -> None:
    large = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}

    assert count(body(user(text("Hello"), PIXEL, large))) == estimate_tokens([HELLO]) + 2 * SEEN_TOKENS


def _counted(asked: ChatRequest) -> int:
    return prompt_tokens(asked.messages, asked.params)


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4))
def test_longer_conversations_have_more_tokens(texts: list[str]) -> None:
    turns: list[Any] = [{"role": "user", "content": said} for said in texts]

    counts = [_counted(read(*turns[: i + 1])) for i in range(len(turns))]

    assert counts == sorted(set(counts))


# --- Anthropic's own SDK, which takes a second to import ---


@cache
def sdk() -> Any:
    return pytest.importorskip("anthropic", reason="the package anthropic is not installed")


@cache
def sdk_events() -> Any:
    """Return what checks an event of a stream by the SDK's own types."""
    return import_module("pydantic").TypeAdapter(sdk().types.RawMessageStreamEvent)


def sdk_heard(stream: bytes) -> Any:
    """Put a stream together with the SDK; every event must be valid by its own types."""
    adapter = sdk_events()
    accumulate_event = import_module("anthropic.lib.streaming._messages").accumulate_event
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events(stream):
        parsed = adapter.validate_python(event, strict=True)
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


def reason(said: MessagesWriter) -> bytes:
    return said.progress("panel 1/2")


@pytest.mark.parametrize("before", [reason, lambda said: b""])
def test_the_sdk_reads_a_stream_as_the_whole_answer(before: Callable[[MessagesWriter], bytes]) -> None:
    answer = done("Yes.", [call("a"), call("b", "{}")], "tool_calls")
    said = writer(progress="reasoning")

    stream = b"".join(
        [
            said.open(),
            before(said),
            said.text("Ye"),
            said.text("s."),
            said.calls([{"index": 0, **call("a")}]),
            said.calls([{"index": 1, **call("b", "{}")}]),
            said.close(answer),
        ]
    )

    message = sdk_heard(stream)
    expected = whole(answer)
    content = [block.to_dict() for block in message.content if block.type != "thinking"]
    assert content == expected["content"]
    assert message.stop_reason == "tool_use"
    # Its own snapshot keeps the fields that it knows.
    assert {**message.usage.to_dict(), "cost": 0.25} == expected["usage"]


@pytest.mark.parametrize(
    "answer", [done(), done("", [call("a")], "tool_calls"), done(finish="length"), done("", finish="content_filter")]
)
def test_the_sdk_takes_a_whole_answer(answer: ChatResult) -> None:
    said = whole(answer)

    message = sdk().types.Message.model_validate(said, strict=True)

    assert [block.to_dict() for block in message.content] == said["content"]
    assert message.stop_reason == said["stop_reason"]


@given(answers())
def test_the_sdk_puts_any_stream_together(drawn: Any) -> None:
    texts, calls, deltas = drawn
    answer = done("".join(texts), calls)

    message = sdk_heard(streamed(answer, texts, deltas))

    assert [block.to_dict() for block in message.content] == whole(answer)["content"]
