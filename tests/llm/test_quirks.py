"""What one refusal teaches, and that a server which really refuses is given what it understands."""

from __future__ import annotations

import asyncio
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
from scripted import MESSAGES, model
from workdir import Upstream

from fusiontools.config.models import Endpoint
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest
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


SCHEMA = {"type": "json_schema", "json_schema": {"name": "analysis", "schema": {}}}


def test_nothing_is_known_beforehand() -> None:
    request = request_with(max_tokens=5, response_format=SCHEMA, temperature=0)

    assert Quirks().body(request, stream=False) == {
        "model": "m", "messages": MESSAGES, "max_tokens": 5, "response_format": SCHEMA, "temperature": 0,
    }  # fmt: skip
    assert Quirks().body(request_with(), stream=True) == {
        "model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_format_goes_down_a_ladder() -> None:
    request = request_with(response_format=SCHEMA)
    no = refusal("'response_format' is not supported")

    assert taught(request, no) == (
        {"model": "m", "messages": MESSAGES, "response_format": {"type": "json_object"}},
        [True],
    )
    assert taught(request, no, no) == ({"model": "m", "messages": MESSAGES}, [True, True])
    assert taught(request, no, no, no)[1] == [True, True, False]


def test_a_plain_format_that_is_refused_is_left_out() -> None:
    request = request_with(response_format={"type": "json_object"})

    assert "response_format" not in taught(request, refusal("json_object is not supported"))[0]


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


@pytest.mark.parametrize("name", ["temperature", "top_p", "seed", "reasoning_effort", "parallel_tool_calls", "stop"])
def test_a_parameter_that_may_go_is_left_out(name: str) -> None:
    body, learned = taught(request_with(**{name: 1}), refusal(f"unsupported: '{name}'"))

    assert (name in body, learned) == (False, [True])


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
