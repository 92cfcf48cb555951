"""What one refusal teaches, and that a server which really refuses is given what it understands."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from typing import Any

import httpx
import pytest
from calling import (
    SLOT,
    attempts,
    real,
)
from hypothesis import given
from hypothesis import strategies as st
from scripted import MESSAGES, model
from workdir import Upstream

from fusiontools.config.models import Endpoint
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.answer_form import hold_to
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.http import HttpBackend
from fusiontools.llm.quirks import Quirks
from fusiontools.record.types import Call


def refusal(message: str, param: str | None = None, status: int = 400) -> CallFailed:
    return CallFailed("bad_request", f"HTTP {status}: {message}", status=status, param=param)


def request_with(**params: Any) -> CompletionRequest:
    return CompletionRequest("there", "m", MESSAGES, params)


def taught(
    request: CompletionRequest, *failures: CallFailed, stream: bool = False
) -> tuple[dict[str, Any], list[bool]]:
    """Return the body after these refusals, each of what was sent before it, and which of them taught something."""
    quirks = Quirks()
    learned = [quirks.learn(failure, request, quirks.body(request, stream=stream)) for failure in failures]
    return quirks.body(request, stream=stream), learned


SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"properties": {"place": {"type": "string"}}}}}


def test_nothing_is_known_beforehand() -> None:
    request = request_with(max_tokens=5, response_format=SCHEMA, temperature=0)

    assert Quirks().body(request, stream=False) == {
        "model": "m", "messages": MESSAGES, "max_tokens": 5, "response_format": SCHEMA, "temperature": 0,
    }  # fmt: skip
    assert Quirks().body(request_with(), stream=True) == {
        "model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def instruction(body: dict[str, Any]) -> str:
    """Return the rules that the body begins with, where there are any."""
    return body["messages"][0]["content"] if body["messages"][0]["role"] == "system" else ""


def test_a_schema_goes_down_a_ladder_and_is_never_dropped() -> None:
    request = request_with(response_format=SCHEMA)
    no = refusal("'response_format' is not supported")

    once, twice = taught(request, no), taught(request, no, no)

    assert (once[0]["response_format"], once[1]) == ({"type": "json_object"}, [True])
    assert ("response_format" in twice[0], twice[1]) == (False, [True, True])
    assert all('"place"' in instruction(body) for body, _ in (once, twice))
    assert taught(request, no, no, no)[1] == [True, True, False]


@pytest.mark.parametrize(
    "words",
    [
        "json_object is not supported",
        "'response_format.type' must be 'json_schema' or 'text'",
        "JSON mode is not enabled for this model",
        "This response_format type is unavailable now",
    ],
)
def test_an_object_that_cannot_be_asked_for_is_asked_for_in_words(words: str) -> None:
    body, _ = taught(request_with(response_format={"type": "json_object"}), refusal(words))

    assert "response_format" not in body
    assert "JSON" in instruction(body)


def test_an_endpoint_that_refuses_any_object_still_takes_a_schema() -> None:
    quirks, any_object, by_schema = (
        Quirks(),
        *(request_with(response_format=f) for f in ({"type": "json_object"}, SCHEMA)),
    )

    quirks.learn(refusal("response_format json_object"), any_object, quirks.body(any_object, stream=False))

    assert quirks.body(by_schema, stream=False)["response_format"] == SCHEMA
    assert quirks.form_in_words(by_schema) is None
    assert quirks.form_in_words(any_object) is not None


def test_what_is_wrong_with_one_schema_is_no_reason_to_put_others_in_words() -> None:
    quirks, other = Quirks(), request_with(response_format=SCHEMA)
    wrong = request_with(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "x"}}})
    no = refusal("Invalid schema for response_format 'n': 'x' is not valid", "response_format")

    assert quirks.learn(no, wrong, quirks.body(wrong, stream=False))
    assert quirks.body(wrong, stream=False)["response_format"] == {"type": "json_object"}
    assert quirks.body(other, stream=False)["response_format"] == SCHEMA


def test_an_object_is_asked_for_in_words_too_where_the_endpoint_wants_that() -> None:
    no = refusal("Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.")

    body, learned = taught(request_with(response_format={"type": "json_object"}), no)

    assert (body["response_format"], learned) == ({"type": "json_object"}, [True])
    assert "JSON" in instruction(body)


def test_a_rule_in_words_joins_the_rules_that_are_there() -> None:
    messages: Any = [{"role": "system", "content": "Be kind."}, *MESSAGES]
    request = CompletionRequest("there", "m", messages, {"response_format": SCHEMA})

    body, _ = taught(request, refusal("no response_format"))

    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert instruction(body).startswith("Be kind.\n\n")


def test_max_tokens_is_renamed_where_that_is_asked_for() -> None:
    no = refusal("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens")

    body, learned = taught(request_with(max_tokens=5), no)

    assert (body["max_completion_tokens"], "max_tokens" in body, learned) == (5, False, [True])


def test_an_endpoint_that_always_names_both_spellings_is_not_asked_forever() -> None:
    no = refusal("'max_tokens' or 'max_completion_tokens' must be at most 4096")

    assert taught(request_with(max_tokens=5), no, no, no)[1] == [True, False, False]


def test_a_prompt_too_long_teaches_nothing() -> None:
    too_long = CallFailed(
        "context_length", "'max_tokens' or 'max_completion_tokens' is too large: context length", status=400
    )

    assert taught(request_with(max_tokens=5), too_long)[1] == [False]


def test_a_developer_becomes_a_system_and_is_joined_with_the_one_before() -> None:
    messages: Any = [
        {"role": "system", "content": "one"}, {"role": "developer", "content": "two"}, {"role": "user", "content": "x"},
    ]  # fmt: skip
    request = CompletionRequest("there", "m", messages, {})

    body, learned = taught(request, refusal("Invalid role 'developer'"))

    assert body["messages"] == [{"role": "system", "content": "one\n\ntwo"}, {"role": "user", "content": "x"}]
    assert learned == [True]


#: What Claude Code sends: a system message after the first word of the user; and what a strict server takes.
SYSTEM_TWICE: Any = [
    {"role": "system", "content": "one"}, {"role": "user", "content": "x"}, {"role": "system", "content": "two"},
    {"role": "user", "content": "y"}, {"role": "developer", "content": "three"},
]  # fmt: skip
SYSTEM_FIRST: Any = [
    {"role": "system", "content": "one\n\ntwo\n\nthree"}, {"role": "user", "content": "x"},
    {"role": "user", "content": "y"},
]  # fmt: skip
#: As llama.cpp says it.
TEMPLATE_FAILED = """
------------
While executing CallExpression at line 85, column 32 in source:
...first %}↵            {{- raise_exception('System message must be at the beginnin...
                                           ^
Error: Jinja Exception: System message must be at the beginning."""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("System message must be at the beginning.", 400),
        ("system message must be at the beginning", 500),
        (TEMPLATE_FAILED, 500),
        ("A 'system' message can only appear at index 0 of the messages array.", 400),
        ("Unexpected role 'system' after role 'user'", 400),
        ("Invalid request: Incorrect role system.", 422),
        ("Only one system-role message can exist, and it can only be in the first message!", 500),
        ("Only one system message can be specified.", 400),
    ],
)
def test_where_only_the_first_message_may_be_a_system_message_all_of_them_are_joined_there(
    words: str, status: int
) -> None:
    request = CompletionRequest("there", "m", SYSTEM_TWICE, {"temperature": 1})

    body, learned = taught(request, refusal(words, status=status))

    assert body == {"model": "m", "messages": SYSTEM_FIRST, "temperature": 1}
    assert learned == [True]


def test_two_system_messages_at_the_beginning_are_one_too_many_as_well() -> None:
    messages: Any = [{"role": "system", "content": "one"}, {"role": "system", "content": "two"}, *MESSAGES]
    no = refusal("System message must be at the beginning.")

    body, _ = taught(CompletionRequest("there", "m", messages, {}), no)

    assert body["messages"] == [{"role": "system", "content": "one\n\ntwo"}, *MESSAGES]


def test_an_endpoint_that_refuses_its_first_message_too_is_believed() -> None:
    no = refusal("System message must be at the beginning.")

    assert taught(CompletionRequest("there", "m", SYSTEM_TWICE, {}), no, no)[1] == [True, False]
    assert taught(request_with(), no)[1] == [False]


@pytest.mark.parametrize(
    "words",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "After the (optional) system message(s), user and assistant roles should be alternating.",
    ],
)
def test_where_roles_must_alternate_the_users_messages_are_joined_as_well(words: str) -> None:
    body, learned = taught(CompletionRequest("there", "m", SYSTEM_TWICE, {}), refusal(words))

    assert body["messages"] == [SYSTEM_FIRST[0], {"role": "user", "content": "x\n\ny"}]
    assert learned == [True]


def test_a_joined_message_keeps_its_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages: Any = [{"role": "user", "content": "x"}, {"role": "user", "content": [picture]}]

    body, _ = taught(CompletionRequest("there", "m", messages, {}), refusal("Conversation roles must alternate"))

    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "x"}, picture]}]


def test_only_the_user_is_joined_where_roles_must_alternate() -> None:
    called: Any = [
        {"role": "user", "content": "x"}, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "tool", "tool_call_id": "1", "content": "c"}, {"role": "tool", "tool_call_id": "2", "content": "d"},
    ]  # fmt: skip

    assert taught(CompletionRequest("there", "m", called, {}), refusal("roles must alternate")) == (
        {"model": "m", "messages": called},
        [False],
    )


def test_a_role_that_a_template_does_not_know_is_the_developer() -> None:
    messages: Any = [{"role": "developer", "content": "one"}, *MESSAGES]
    request = CompletionRequest("there", "m", messages, {})

    body, learned = taught(request, refusal("Unexpected message role.", status=500))

    assert (body["messages"][0], learned) == ({"role": "system", "content": "one"}, [True])


ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])


@given(roles=st.lists(ROLES, min_size=1, max_size=8))
def test_no_word_is_lost_by_a_change_of_order(roles: list[str]) -> None:
    messages: Any = [{"role": role, "content": f"<{n}>"} for n, role in enumerate(roles)]

    body, _ = taught(CompletionRequest("there", "m", messages, {}), refusal("roles must alternate"))

    sent = [(m["role"], m["content"]) for m in body["messages"]]
    assert sorted("".join(text for _, text in sent).replace("\n", "")) == sorted(
        "".join(m["content"] for m in messages)
    )
    assert [n for n, (role, _) in enumerate(sent) if role in ("system", "developer")] in ([], [0])
    assert ("user", "user") not in pairwise(role for role, _ in sent)


@pytest.mark.parametrize(
    "name",
    [
        *("temperature", "top_p", "seed", "reasoning_effort", "parallel_tool_calls", "stop", "presence_penalty"),
        *("frequency_penalty", "verbosity", "logit_bias", "logprobs", "service_tier", "store", "user", "metadata"),
    ],
)
def test_a_parameter_that_may_go_is_left_out(name: str) -> None:
    body, learned = taught(request_with(**{name: 1}), refusal(f"unsupported: '{name}'"))

    assert (name in body, learned) == (False, [True])


@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("presence_penalty", "Model grok-4 does not support parameter presencePenalty.", 400),
        ("frequency_penalty", "Argument not supported on this model: frequencyPenalty", 400),
        ("frequency_penalty", "Penalty is not enabled for models/gemini-2.5-pro", 400),
        ("reasoning_effort", "Model grok-4-latest does not support parameter reasoningEffort.", 400),
        ("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort", 400),
        ("reasoning_effort", '"llama3.1:8b" does not support thinking', 400),
        ("reasoning_effort", 'think value "low" is not supported for this model', 400),
        ("reasoning_effort", '"llama3.1:8b" does not support thinking', 500),
        ("reasoning", "Reasoning is mandatory for this endpoint and cannot be disabled.", 400),
        ("user", "Unrecognized request argument supplied: user", 400),
        (
            "store",
            "[{'type': 'extra_forbidden', 'loc': ['body', 'store'], 'msg': 'Extra inputs are not permitted'}]",
            422,
        ),
        (
            "frequency_penalty",
            'Invalid JSON payload received. Unknown name "frequency_penalty": Cannot find field.',
            400,
        ),
    ],
)
def test_a_parameter_is_known_by_all_its_names(name: str, words: str, status: int) -> None:
    body, learned = taught(request_with(**{name: "low"}), refusal(words, status=status))

    assert (name in body, learned) == (False, [True])


def test_what_is_named_as_allowed_stays() -> None:
    no = refusal("Unsupported parameter: 'verbosity'. Supported are temperature, top_p and 'stop'.")

    body, _ = taught(request_with(verbosity="low", temperature=1, top_p=1, stop=["x"]), no)

    assert body.keys() >= {"temperature", "top_p", "stop"}
    assert "verbosity" not in body


def test_a_word_that_is_also_a_parameters_name_takes_nothing_away() -> None:
    no = refusal("the user must stop using this store of metadata")

    assert taught(request_with(user="u", stop=["x"], store=True, metadata={"a": "b"}), no)[1] == [False]


# How much an answer may have


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
        (31868, f"'max_tokens' or 'max_completion_tokens' is too large: 32000. {ROOM} and your request has 900 input tokens"),
        (31868, f"{ROOM}. However, you requested 32900 tokens (900 in the messages, 32000 in the completion)."),
        (31868, f"{ROOM}. However, you requested about 32900 tokens (800 of text input, 100 of tool input, 32000 in the output)"),
        (11760, "input length and `max_tokens` exceed context limit: 188240 + 32000 > 200000, decrease"),
        (31768, "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested 33000 "
            "tokens: 1000 tokens from the input messages and 32000 tokens for the completion."),
        (3996, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 100 `inputs` tokens and 32000 `max_new_tokens`"),
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


# What a history holds


def messages_after(given: list[Any], *failures: CallFailed, **params: Any) -> list[Any]:
    return taught(CompletionRequest("there", "m", given, params), *failures)[0]["messages"]


CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        (
            {"role": "assistant", "content": "a", "tool_calls": [], "refusal": None, "audio": None, "annotations": []},
            {"role": "assistant", "content": "a"},
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{**CALLED, "index": None}], "function_call": None},
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        ),
        ({"role": "assistant", "content": None, "tool_calls": None}, {"role": "assistant", "content": ""}),
        ({"role": "user", "content": "a", "name": None}, {"role": "user", "content": "a"}),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": None}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
        ),
        ({"role": "tool", "content": "", "tool_call_id": "c"}, {"role": "tool", "content": "", "tool_call_id": "c"}),
    ],
)
def test_what_says_nothing_is_not_sent(told: Any, sent: Any) -> None:
    assert messages_after([*MESSAGES, told]) == [*MESSAGES, sent]
    assert Quirks().adapt({"model": "m", "messages": [*MESSAGES, told]})["messages"] == [*MESSAGES, sent]


@pytest.mark.parametrize("nothing", [None, []])
def test_no_tools_are_no_choice_of_tools(nothing: Any) -> None:
    given = {"tools": nothing, "tool_choice": "auto", "parallel_tool_calls": True, "stop": nothing, "seed": 0}

    body, _ = taught(request_with(**given, logit_bias={}, web_search_options={}))

    assert body.keys() - {"model", "messages"} == {"seed", "web_search_options"}


PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Failed to deserialize the JSON body: messages[0]: invalid type: sequence, expected a string at line 1", 422),
        ("'messages.0' : for 'role:system' the following must be satisfied[('messages.0.content' : value must be a string)]", 400),
        ("messages.1.content.str: Input should be a valid string", 422),
        ('can only concatenate str (not "list") to str', 500),
    ],
)  # fmt: skip
def test_texts_in_parts_become_one_text_for_every_role_where_parts_are_refused(words: str, status: int) -> None:
    given = [{"role": role, "content": PARTS} for role in ("system", "user", "assistant", "tool")]

    sent = messages_after([*given, {"role": "user", "content": [*PARTS, PICTURE]}], refusal(words, status=status))

    assert sent[:-1] == [{**message, "content": "a\nb"} for message in given]
    assert sent[-1]["content"] == [*PARTS, PICTURE]


@pytest.mark.parametrize(
    "words",
    [
        "This model does not support assistant message prefill. The conversation must end with a user message.",
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        "Cannot set `add_generation_prompt` to True when the last message is from the assistant.",
    ],
)
def test_a_prefill_is_said_in_words_where_it_is_refused(words: str) -> None:
    given = [*MESSAGES, {"role": "assistant", "content": "Once"}]

    sent = messages_after(given, refusal(words))

    assert sent[:-1] == given
    assert sent[-1]["role"] == "user"
    assert messages_after(MESSAGES, refusal(words)) == MESSAGES


# The names of tools

LONG = "mcp__plugin_enterprise-database-tools_server__synchronize_all_records_now"
STRANGE = "data base/sync.näu"
NAME_REFUSED = [
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64, but got 73 instead.",
    "Invalid 'tools[0].function.name': string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'.",
    "* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name. Must start with a letter",
]


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


@pytest.mark.parametrize("words", NAME_REFUSED)
@pytest.mark.parametrize("own", [LONG, STRANGE, "1st"])
def test_a_tools_name_that_is_refused_goes_out_short_and_plain(words: str, own: str) -> None:
    call = {**CALLED, "function": {"name": own, "arguments": "{}"}}
    params = {"tools": [tool(own), tool("f")], "tool_choice": {"type": "function", "function": {"name": own}}}
    told: list[Any] = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}]
    request = CompletionRequest("there", "m", told, params)

    body, learned = taught(request, refusal(words))

    short = body["tools"][0]["function"]["name"]
    assert re.fullmatch("[a-zA-Z_][a-zA-Z0-9_-]{0,63}", short)
    assert learned == [True]
    assert body["tools"][1] == tool("f")
    assert body["tool_choice"]["function"]["name"] == short
    assert body["messages"][-1]["tool_calls"][0]["function"]["name"] == short


def test_names_that_begin_alike_stay_apart() -> None:
    names = [LONG + end for end in ("1", "2", "/", ".")]

    body, _ = taught(request_with(tools=[tool(name) for name in names]), refusal(NAME_REFUSED[0]))

    assert len({one["function"]["name"] for one in body["tools"]}) == 4


def test_plain_names_stay_whatever_is_refused() -> None:
    assert taught(request_with(tools=[tool("f")]), refusal(NAME_REFUSED[0]))[1] == [False]


def strict(answer: Any) -> HttpBackend:
    """Return an endpoint that answers a request by this function: of its body, to what the response says."""

    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        said = answer(body)
        if isinstance(said, str):
            return httpx.Response(400, json={"error": {"message": said}})
        whole = {"choices": [{"index": 0, "message": said, "delta": said, "finish_reason": "stop"}]}
        if not body.get("stream"):
            return httpx.Response(200, json=whole)
        return httpx.Response(
            200, content=f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n", headers={"content-type": "text/event-stream"}
        )

    return HttpBackend(Endpoint("there", "http://there.example/v1"), httpx.MockTransport(respond))


def ask(backend: HttpBackend, request: CompletionRequest, on_delta: Any = None) -> Completion:
    """Return what comes of a request once its lessons are learned."""
    while True:
        try:
            return asyncio.run(backend.complete(request, on_delta))
        except CallFailed as failure:
            if not failure.adapted:
                raise


def forward(backend: HttpBackend, body: dict[str, Any]) -> bytes:
    """Return what comes of a client's own body."""

    async def work() -> bytes:
        async with backend.forwarded(body) as reply:
            return b"".join([chunk async for chunk in reply.chunks])

    return asyncio.run(work())


def calling(body: dict[str, Any]) -> Any:
    """Call the first tool, where its name is short enough."""
    name = body["tools"][0]["function"]["name"]
    if len(name) > 64:
        return NAME_REFUSED[0]
    return {"content": None, "tool_calls": [{**CALLED, "index": 0, "function": {"name": name, "arguments": "{}"}}]}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_comes_back_under_the_name_that_the_client_gave(streamed: bool) -> None:
    pieces: list[Any] = []
    request = request_with(tools=[tool(LONG)])

    completion = ask(strict(calling), request, pieces.append if streamed else None)

    assert [call["function"]["name"] for call in completion.tool_calls] == [LONG]
    shown = [call["function"].get("name") for piece in pieces if not isinstance(piece, str) for call in piece]
    assert shown == ([LONG] if streamed else [])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_that_passes_through_comes_back_under_the_name_that_the_client_gave(streamed: bool) -> None:
    body = {"model": "m", "messages": MESSAGES, "tools": [tool(LONG)], "stream": streamed}

    reply = forward(strict(calling), body)

    assert f'"name": "{LONG}"'.encode() in reply or f'"name":"{LONG}"'.encode() in reply


PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": PLACE}}


def saying(text: str) -> Any:
    """Answer this to a request without a form, and refuse any other."""
    return lambda body: "no response_format here" if "response_format" in body else {"content": text}


@pytest.mark.parametrize(
    ("said", "shown", "fits"),
    [
        ('{"place": "Paris"}', '{"place": "Paris"}', True),
        ('Here it is:\n```json\n{"place": "Paris"}\n```', '{"place":"Paris"}', True),
        ("{place: 'Paris',}", '{"place":"Paris"}', True),
        ("It is Paris.", "It is Paris.", False),
        ('{"town": "Paris"}', '{"town": "Paris"}', False),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_to_a_form_in_words_is_checked_and_repaired(
    streamed: bool, said: str, shown: str, fits: bool
) -> None:
    pieces: list[Any] = []

    completion = ask(strict(saying(said)), request_with(response_format=BY_SCHEMA), pieces.append if streamed else None)

    assert completion.content == shown
    assert (completion.unmet is None) == fits
    assert "".join(pieces) == (shown if streamed else "")


def test_an_answer_that_was_cut_off_is_not_repaired_into_a_whole_one() -> None:
    cut = Completion('{"place": "Par', "m", finish_reason="length")

    held = hold_to(cut, BY_SCHEMA)

    assert (held.content, held.unmet is None) == (cut.content, False)


@pytest.mark.parametrize("schema", [{"$ref": "http://there.example/x"}, {"type": 3}, "x", {"pattern": "("}])
def test_a_schema_that_cannot_be_read_refuses_nothing_and_fetches_nothing(schema: Any) -> None:
    answer = Completion('{"a": 1}', "m")

    assert hold_to(answer, {"type": "json_schema", "json_schema": {"schema": schema}}) == answer


def test_the_form_of_what_passes_through_is_the_clients_own() -> None:
    with pytest.raises(CallFailed, match="response_format"):
        forward(strict(saying("x")), {"model": "m", "messages": MESSAGES, "response_format": BY_SCHEMA})


def test_lessons_hold_for_what_passes_through_as_well() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if body.get("max_tokens", 0) > 8192:
            return "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"
        if "verbosity" in body:
            return "Unsupported parameter: 'verbosity' is not supported with this model."
        if body["messages"][-1]["role"] == "assistant":
            return "This model does not support assistant message prefill."
        return {"content": json.dumps(body)}

    told = [*MESSAGES, {"role": "assistant", "content": "Once", "tool_calls": []}]

    reply = forward(strict(answer), {"model": "m", "messages": told, "max_tokens": 32_000, "verbosity": "low", "x": 1})

    sent = json.loads(json.loads(reply)["choices"][0]["message"]["content"])
    assert (sent["max_tokens"], "verbosity" in sent, sent["messages"][-1]["role"], sent["x"]) == (
        8192,
        False,
        "user",
        1,
    )


def test_an_endpoint_that_refuses_everything_for_ever_new_reasons_is_believed() -> None:
    asked: list[int] = []

    def answer(body: dict[str, Any]) -> str:
        asked.append(body["max_tokens"])
        return f"max_tokens: {body['max_tokens']} > {body['max_tokens'] - 1}"

    with pytest.raises(CallFailed):
        forward(strict(answer), {"model": "m", "messages": MESSAGES, "max_tokens": 32_000})

    assert len(asked) < 30


def test_a_refused_parameter_may_also_be_named_beside_the_message() -> None:
    assert taught(request_with(temperature=1), refusal("no", "temperature"))[1] == [True]


def test_stream_options_may_go() -> None:
    body, learned = taught(request_with(), refusal("stream_options is unknown"), stream=True)

    assert ("stream_options" in body, body["stream"], learned) == (False, True, [True])


@pytest.mark.parametrize("failure", [refusal("no temperature", status=429), refusal("no temperature", status=500)])
def test_what_is_no_refusal_teaches_nothing(failure: CallFailed) -> None:
    assert taught(request_with(temperature=1), failure)[1] == [False]


@pytest.mark.parametrize("needed", [{"tools": []}, {"messages": 1}, {}])
def test_what_the_question_needs_is_never_left_out(needed: dict[str, Any]) -> None:
    assert taught(request_with(**needed), refusal("tools and messages are not supported"))[1] == [False]


def test_a_lesson_that_another_call_has_learned_in_the_meantime_is_used_all_the_same() -> None:
    quirks, request = Quirks(), request_with(temperature=1, response_format=SCHEMA)
    sent = quirks.body(request, stream=False)

    first, second = (quirks.learn(refusal("no response_format"), request, sent) for _ in range(2))

    assert (first, second) == (True, True)
    assert quirks.body(request, stream=False)["response_format"] == {"type": "json_object"}


FORMAT = {"response_format": SCHEMA}


@pytest.mark.parametrize(
    ("name", "params", "attempts_made", "left_out"),
    [
        ("fake/a+notemp", {"temperature": 0.5}, 2, "temperature"),
        ("fake/a+maxcompletion", {"max_tokens": 99}, 2, "max_tokens"),
        ("fake/judge+noschema", FORMAT, 2, None),
        ("fake/judge+noformat", FORMAT, 3, "response_format"),
    ],
)
def test_a_server_is_given_what_it_understands(
    upstream: Upstream, name: str, params: Any, attempts_made: int, left_out: str | None
) -> None:
    [completion], [calls] = real(upstream, name, params=params, limits={"retries": 0})

    assert completion.content
    assert attempts(calls) == [(i, "bad_request") for i in range(1, attempts_made)] + [(attempts_made, "ok")]
    assert left_out not in upstream.bodies(name)[-1]


@pytest.mark.parametrize(("status", "code"), [(400, "bad_request"), (500, "upstream")])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_with_a_strict_template_is_given_one_system_message_from_then_on(
    upstream: Upstream, streamed: bool, status: int, code: str
) -> None:
    name = f"fake/a+systemfirst={status}"
    there = Endpoint("there", upstream.url)

    async def work() -> list[Call]:
        client = Client({"there": there}, LimitOptions(retries=0))
        ledger = client.ledger("panel", "1")
        for sample in range(2):
            request = client.request(model(name), SYSTEM_TWICE, {}, sample)
            await client.complete(request, model(name), ledger, SLOT, str if streamed else None)
        await client.aclose()
        return ledger.calls

    calls = asyncio.run(work())

    assert [call["status"] for call in calls] == [code, "ok", "ok"]
    assert [body["messages"] for body in upstream.bodies(name)][-2:] == [SYSTEM_FIRST] * 2


def test_a_server_without_usage_in_streams_still_streams(upstream: Upstream) -> None:
    shown: list[str] = []

    [completion], [calls] = real(upstream, "fake/a+nousageopt", on_delta=shown.append)

    assert "".join(shown) == completion.content
    assert (calls[-1]["usage"], calls[-1]["cost_usd"]) == (None, None)


@pytest.mark.parametrize("name", ["fake/a+notemp", "fake/judge+noformat", "fake/a+maxcompletion"])
def test_samples_that_are_refused_at_once_all_come_through(upstream: Upstream, name: str) -> None:
    params = {"temperature": 0.5, "max_tokens": 99, **FORMAT}

    results, ledgers = real(upstream, name, name, name, params=params, limits={"retries": 0})

    assert all(isinstance(result, Completion) for result in results)
    assert {calls[-1]["status"] for calls in ledgers} == {"ok"}
