"""What one refusal teaches, and that a server which really refuses is given what it understands."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from calling import (
    SLOT,
    attempts,
    real,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from refusing import CALLED, forward, refusal, request_with, strict, taught
from scripted import MESSAGES, model
from workdir import Upstream

from fusiontools.config.models import Endpoint
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.quirks import Quirks
from fusiontools.record.types import Call

SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"properties": {"place": {"type": "string"}}}}}


def test_nothing_is_known_beforehand() -> None:
    request = request_with(max_tokens=5, response_format=SCHEMA, temperature=0)

    assert Quirks().body(request, stream=False) == {
        "model": "m", "messages": MESSAGES, "max_tokens": 5, "response_format": SCHEMA, "temperature": 0,
    }  # fmt: skip
    assert Quirks().body(request_with(), stream=True) == {
        "model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_log_probabilities_are_asked_for_where_they_are_wanted_and_never_again_where_they_are_refused() -> None:
    wanted = replace(request_with(temperature=0), logprobs=True)

    assert Quirks().body(wanted, stream=False)["logprobs"] is True
    assert "logprobs" not in Quirks().body(request_with(), stream=False)
    for refused in (
        refusal("logprobs is not supported with this model"),
        refusal("Logprobs is not enabled for models/gemini-2.5-pro"),
        refusal("[{'type': 'extra_forbidden', 'loc': ['body', 'logprobs'], 'msg': 'Extra inputs are not permitted'}]"),
        CallFailed("auth", "HTTP 403: You are not allowed to request logprobs from this model", status=403),
    ):
        body, learned = taught(wanted, refused)
        assert (body, learned) == ({"model": "m", "messages": MESSAGES, "temperature": 0}, [True])
    assert taught(request_with(), CallFailed("auth", "HTTP 403: no logprobs for you", status=403))[1] == [False]


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


@pytest.mark.parametrize(
    "words", ["Extra inputs are not permitted: reasoning_details", "Invalid `signature` in `thinking` block"]
)
def test_thoughts_that_an_endpoint_does_not_take_back_are_left_out(words: str) -> None:
    told: Any = [*MESSAGES, {"role": "assistant", "content": "Paris.", "reasoning_details": [{"type": "x"}]}, *MESSAGES]
    request = CompletionRequest("there", "m", told)

    body, learned = taught(request, refusal(words))

    assert Quirks().body(request, stream=False)["messages"] == told
    assert (body["messages"][1], learned) == ({"role": "assistant", "content": "Paris."}, [True])


@pytest.mark.parametrize(
    "words",
    [
        "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property "
        "'reasoning_content' is unsupported)]",
        "[{'type': 'extra_forbidden', 'loc': ['body', 'messages', 1, 'assistant', 'reasoning_content'], "
        "'msg': 'Extra inputs are not permitted'}]",
    ],
)
def test_thoughts_in_words_that_an_endpoint_does_not_take_back_are_left_out(words: str) -> None:
    told: Any = [*MESSAGES, {"role": "assistant", "content": "Paris.", "reasoning_content": "Hm."}, *MESSAGES]
    request = CompletionRequest("there", "m", told, {"reasoning_effort": "low"})

    body, learned = taught(request, refusal(words))

    assert Quirks().body(request, stream=False)["messages"] == told
    assert (body["messages"][1], learned) == ({"role": "assistant", "content": "Paris."}, [True])
    assert body["reasoning_effort"] == "low"


STREAMS_ONLY = "parameter.enable_thinking must be set to false for non-streaming calls"


def test_a_model_that_thinks_in_streams_only_does_not_think_elsewhere() -> None:
    request, no = request_with(), refusal(STREAMS_ONLY)

    plain, streamed = taught(request, no), taught(request, no, stream=True)

    assert (plain[0]["enable_thinking"], plain[1]) == (False, [True])
    assert ("enable_thinking" in streamed[0], streamed[1]) == (False, [False])


@pytest.mark.parametrize(("effort", "thinks"), [("none", False), ("low", True), ("high", True)])
def test_an_effort_that_qwen_refuses_is_said_by_its_switch(effort: str, thinks: bool) -> None:
    asked = CompletionRequest("there", "qwen/qwen3-32b", MESSAGES, {"reasoning_effort": effort})
    no = refusal("Unsupported parameter: 'reasoning_effort'")

    body, _ = taught(asked, no)
    neither, learned = taught(asked, no, refusal("Unrecognized request argument supplied: enable_thinking"))

    assert (body.get("enable_thinking"), "reasoning_effort" in body) == (thinks, False)
    assert (neither.keys() & {"enable_thinking", "reasoning_effort"}, learned) == (set(), [True, True])
    assert "enable_thinking" not in taught(request_with(reasoning_effort=effort), no)[0], "others have no such switch"


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


# What a history holds


def messages_after(given: list[Any], *failures: CallFailed, **params: Any) -> list[Any]:
    return taught(CompletionRequest("there", "m", given, params), *failures)[0]["messages"]


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
        ({"role": "assistant"}, {"role": "assistant", "content": ""}),
        ({"role": "assistant", "tool_calls": [CALLED]}, {"role": "assistant", "tool_calls": [CALLED]}),
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
        ("'messages.0' : this must be satisfied[('messages.0.content' : value must be a string)]", 400),
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "name", "function", "id"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PART = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"])}, optional={"text": st.text(max_size=3)})
MESSAGE = st.fixed_dictionaries(
    {"role": ROLES},
    optional={
        "content": st.none() | st.text(max_size=3) | st.lists(PART, max_size=3),
        "tool_calls": st.none() | st.lists(JSON, max_size=3),
        "name": JSON,
        "x": JSON,
    },
)


@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=4),
    params=st.dictionaries(st.sampled_from(["tools", "tool_choice", "stop", "max_tokens", "x"]), JSON, max_size=4),
)
def test_a_body_of_any_shape_is_written_after_all_lessons(messages: Any, params: Any) -> None:
    forms = dict.fromkeys(
        ("developer_role", "system_anywhere", "same_role_twice", "continues", "parts", "own_names"), False
    )
    learned = Quirks(max_tokens_name="max_completion_tokens", learned=True, **forms)
    learned.limit.learn("context length is 4000 tokens, 900 input tokens and 3999 output", 3999, 100)

    body = learned.adapt({"model": "m", "messages": messages, **params})

    assert json.dumps(body)
    assert None not in body.values()


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


# What stands beside calls, and what calls declare

SIGNED: Any = {**CALLED, "extra_content": {"google": {"thought_signature": "c2ln"}}}
NO_SIGNATURE: Any = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
MISSING = "Function call is missing a thought_signature in functionCall parts."


def calling(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


@pytest.mark.parametrize(
    "words",
    [
        "Invalid thought signature.",
        "Unrecognized request argument supplied: messages[1].tool_calls[0].extra_content",
        "[{'type': 'extra_forbidden', 'loc': ['body', 'messages', 1, 'tool_calls', 0, 'extra_content']}]",
    ],
)
def test_a_signature_that_an_endpoint_does_not_take_is_left_out(words: str) -> None:
    assert messages_after([*MESSAGES, calling(SIGNED)], refusal(words))[1:] == [calling(CALLED)]


def test_a_call_of_another_model_gets_the_word_that_stands_for_its_signature() -> None:
    told = [*MESSAGES, calling(CALLED, CALLED), calling(SIGNED)]

    assert messages_after(told, refusal(MISSING))[1:] == [calling({**CALLED, **NO_SIGNATURE}, CALLED), calling(SIGNED)]


def test_a_signature_that_was_refused_and_is_then_missed_is_stood_in_for() -> None:
    told = [*MESSAGES, calling(SIGNED)]

    assert messages_after(told, refusal("Invalid thought signature."), refusal(MISSING))[1:] == [
        calling({**CALLED, **NO_SIGNATURE})
    ]


@pytest.mark.parametrize(
    "words",
    [
        "property 'name' is unsupported",
        "Invalid 'messages[0].name': string does not match pattern.",
        "Extra inputs are not permitted: messages.0.user.name",
    ],
)
def test_who_speaks_is_left_out_where_that_is_refused(words: str) -> None:
    assert messages_after([{**MESSAGES[0], "name": "Ann Lee"}], refusal(words)) == MESSAGES


def test_content_beside_calls_is_an_empty_text_where_it_may_not_be_null() -> None:
    words = "Invalid value for 'content': expected a string, got null."

    assert messages_after([*MESSAGES, calling(CALLED)], refusal(words))[1:] == [{**calling(CALLED), "content": ""}]


@pytest.mark.parametrize(
    "words", ["tools.0.function.strict: Extra inputs are not permitted", "`strict` is unsupported"]
)
def test_a_tool_is_not_strict_where_none_may_be(words: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    strict_tool = {**tool, "function": {**tool["function"], "strict": True}}

    body, learned = taught(request_with(tools=[strict_tool, {"type": "other"}]), refusal(words))

    assert (body["tools"], learned) == ([tool, {"type": "other"}], [True])
