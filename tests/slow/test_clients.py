"""The SDKs that people have, against a real `fuse-serve`: what they ask for, they get, in their own types.

The OpenAI half also runs under the oldest SDK that is held to work: see `tests/clients`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from clients.serving import ANSWER, EXAMPLES, QUESTION, RECIPES, Server, run_client, start_server, start_upstream
from pydantic import BaseModel
from samples import poll
from workdir import Upstream

pytestmark = pytest.mark.slow

ASKED: dict[str, Any] = {"model": "fusion", "messages": QUESTION}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": PARAMETERS}}
ASKED_WITH_TOOL: dict[str, Any] = {"model": "fusion", "messages": QUESTION, "tools": [WEATHER]}
TO_CLAUDE: dict[str, Any] = {"max_tokens": 1000, **ASKED}
TO_CLAUDE_WITH_TOOL = {**TO_CLAUDE, "tools": [{"name": "weather", "input_schema": PARAMETERS}]}
#: What SDKs of the first years keep elsewhere.
OLD = openai.__version__.startswith("1.")


class Capital(BaseModel):
    city: str


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs read their own variables, and those of proxies."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def upstream_process() -> Iterator[Upstream]:
    with start_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(upstream_process, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def locked_server(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("locked")
    with start_server(upstream_process, directory, key="rightful-key") as server:
        yield server


@pytest.fixture
def client(server: Server, upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
def claude(server: Server, upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none") as client:
        yield client


def helpers(client: openai.OpenAI) -> Any:
    """Return where this SDK keeps `parse` and `stream`."""
    return client.beta.chat.completions if OLD else client.chat.completions


# --- OpenAI's SDK: chat completions ---


def test_openai_gets_an_answer(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(**ASKED)

    [choice] = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert (completion.model, completion.object) == ("fusion", "chat.completion")
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0


def test_openai_gets_a_stream_of_the_same_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.create(stream=True, **ASKED) as stream:
        chunks = list(stream)

    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_openai_gets_usage_at_the_end_of_a_stream_where_it_asks(client: openai.OpenAI) -> None:
    with client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ASKED) as stream:
        *before, last = stream

    assert last.choices == []
    assert last.usage.total_tokens > 0
    assert [chunk.usage for chunk in before] == [None] * len(before)


def test_openai_may_ask_a_member_by_its_own_name(client: openai.OpenAI, upstream: Upstream) -> None:
    completion = client.chat.completions.create(model="fake/a", messages=QUESTION)

    assert completion.choices[0].message.content.startswith("fake/a says ")
    assert upstream.stats()["per_model"] == {"fake/a": 1}


def test_openai_sees_the_recipes_and_the_members_as_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]

    assert names[0] == "fusion"
    assert {f"fusion/{name}" for name in RECIPES} <= set(names)
    assert {"fake/a", "fake/judge"} <= set(names)


def test_openai_gets_both_ways_without_blocking(server: Server, upstream: Upstream) -> None:
    async def work() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            plain = await client.chat.completions.create(**ASKED)
            stream = await client.chat.completions.create(stream=True, **ASKED)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return plain.choices[0].message.content, "".join(pieces)

    assert asyncio.run(work()) == (ANSWER, ANSWER)


# --- OpenAI's SDK: tools and forms ---


def test_openai_gets_a_tool_call_and_gives_back_what_came_of_it(client: openai.OpenAI, upstream: Upstream) -> None:
    message = client.chat.completions.create(**ASKED_WITH_TOOL).choices[0].message
    [call] = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    second = client.chat.completions.create(**{**ASKED_WITH_TOOL, "messages": [*QUESTION, message, result]})

    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Canberra"},
    )
    assert second.choices[0].message.content == ANSWER
    assert result in upstream.bodies()[-1]["messages"]


@pytest.mark.parametrize("stream", [False, True])
def test_openai_gets_several_tool_calls_at_once(client: openai.OpenAI, stream: bool) -> None:
    asked = {**ASKED_WITH_TOOL, "model": "fusion/calls_twice"}

    calls = (
        streamed_calls(client, asked)
        if stream
        else client.chat.completions.create(**asked).choices[0].message.tool_calls
    )

    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Canberra"}, {"city": "Hobart"}]
    assert len({call.id for call in calls}) == 2


def streamed_calls(client: openai.OpenAI, asked: dict[str, Any]) -> Any:
    """Return the tool calls as the SDK itself puts them together from a stream."""
    with helpers(client).stream(**asked) as stream:
        return stream.get_final_completion().choices[0].message.tool_calls


def test_openai_gets_a_tool_call_in_pieces(client: openai.OpenAI) -> None:
    with client.chat.completions.create(stream=True, **ASKED_WITH_TOOL) as stream:
        choices = [chunk.choices[0] for chunk in stream]

    first, *rest = [delta for choice in choices for delta in choice.delta.tool_calls or ()]
    assert (first.index, first.type, first.function.name) == (0, "function", "weather")
    assert first.id
    assert [(delta.index, delta.id) for delta in rest] == [(0, None)] * len(rest)
    assert json.loads("".join(delta.function.arguments or "" for delta in (first, *rest))) == {"city": "Canberra"}
    assert choices[-1].finish_reason == "tool_calls"


def test_openai_gets_an_answer_in_a_form(client: openai.OpenAI) -> None:
    completion = helpers(client).parse(**ASKED, response_format=Capital)

    assert completion.choices[0].message.parsed == Capital(city="Canberra")


def test_openai_gets_a_streamed_answer_in_a_form(client: openai.OpenAI) -> None:
    with helpers(client).stream(**ASKED, response_format=Capital) as stream:
        completion = stream.get_final_completion()

    assert completion.choices[0].message.parsed == Capital(city="Canberra")


# --- OpenAI's SDK: who goes away, and what is refused ---


def test_openai_that_leaves_a_stream_ends_its_calls(client: openai.OpenAI, upstream: Upstream) -> None:
    with client.chat.completions.create(model="fusion/stalls", messages=QUESTION, stream=True) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break

    assert poll(upstream, lambda stats: stats["in_flight"] == 0)["aborted"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_openai_that_leaves_before_the_first_byte_ends_its_calls(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    async def work() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            asked = client.chat.completions.create(model="fusion/hangs", messages=QUESTION, stream=stream)
            reading = asyncio.create_task(read(asked))
            await asyncio.to_thread(poll, upstream, lambda stats: stats["in_flight"] == 2)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def read(asked: Any) -> None:
        answer = await asked
        if stream:
            async for _ in answer:
                pass

    asyncio.run(work())

    assert poll(upstream, lambda stats: stats["in_flight"] == 0)["aborted"] == 2


def test_openai_is_told_of_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody/nothing") as caught:
        client.chat.completions.create(model="nobody/nothing", messages=QUESTION)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_openai_is_told_of_a_wrong_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(n=2, **ASKED)

    assert caught.value.param == "n"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_does_not_buy_a_failed_panel_again(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="fusion/fails", messages=QUESTION, stream=stream))

    assert upstream.stats()["requests"] == 2


def test_openai_needs_a_key_where_the_server_has_some(locked_server: Server, upstream: Upstream) -> None:
    url = f"{locked_server.url}/v1"
    with (
        openai.OpenAI(base_url=url, api_key="rightful-key") as one,
        openai.OpenAI(base_url=url, api_key="wrongful-key") as other,
    ):
        allowed = one.chat.completions.create(**ASKED)
        with pytest.raises(openai.AuthenticationError):
            other.chat.completions.create(**ASKED)

    assert allowed.choices[0].message.content == ANSWER
    assert upstream.stats()["per_model"]["fake/a"] == 1


# --- OpenAI's SDK: responses ---

newer = pytest.mark.skipif(OLD, reason="this SDK is older than the Responses API")


@newer
def test_openai_gets_a_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="fusion", input="What is the capital of Australia?")

    assert (response.output_text, response.status) == (ANSWER, "completed")
    assert response.usage.total_tokens > 0


@newer
def test_openai_gets_a_response_as_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="fusion", input="What is the capital of Australia?") as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()

    assert "".join(pieces) == response.output_text == ANSWER


@newer
def test_openai_gets_a_tool_call_in_a_response(client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
    asked: dict[str, Any] = {"model": "fusion", "tools": [tool]}

    [call] = client.responses.create(input=QUESTION, **asked).output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    second = client.responses.create(input=[*QUESTION, call, result], **asked)

    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Canberra"})
    assert second.output_text == ANSWER


@newer
def test_openai_gets_a_response_in_a_form(client: openai.OpenAI) -> None:
    response = client.responses.parse(model="fusion", input="Which city?", text_format=Capital)

    assert response.output_parsed == Capital(city="Canberra")


# --- Anthropic's SDK ---


def test_anthropic_gets_a_message(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(**TO_CLAUDE)

    [block] = message.content
    assert (message.role, block.type, block.text, message.stop_reason) == ("assistant", "text", ANSWER, "end_turn")
    assert message.model == "fusion"
    assert message.usage.output_tokens > 0


def test_anthropic_gets_a_stream_of_the_same_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**TO_CLAUDE) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()

    assert text == message.content[0].text == ANSWER
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_gets_several_tool_calls_and_gives_back_what_came_of_them(
    claude: anthropic.Anthropic, upstream: Upstream, stream: bool
) -> None:
    asked = {**TO_CLAUDE_WITH_TOOL, "model": "fusion/calls_twice"}
    if stream:
        with claude.messages.stream(**asked) as open_stream:
            message = open_stream.get_final_message()
    else:
        message = claude.messages.create(**asked)
    uses = [block for block in message.content if block.type == "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": use.id, "content": f"Sun in {use.input['city']}."} for use in uses
    ]
    turns = [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    second = claude.messages.create(**{**asked, "messages": [*QUESTION, *turns]})

    assert message.stop_reason == "tool_use"
    assert [(use.name, use.input) for use in uses] == [
        ("weather", {"city": "Canberra"}),
        ("weather", {"city": "Hobart"}),
    ]
    assert second.content[0].text == ANSWER
    given = [turn["content"] for turn in upstream.bodies()[-1]["messages"] if turn["role"] == "tool"]
    assert given == ["Sun in Canberra.", "Sun in Hobart."]


def test_anthropic_may_have_its_tokens_counted(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    short = claude.messages.count_tokens(**ASKED)
    long = claude.messages.count_tokens(model="fusion", messages=[{"role": "user", "content": "Why? " * 1000}])

    assert 0 < short.input_tokens < 100 < long.input_tokens
    assert upstream.stats()["requests"] == 0


def test_anthropic_that_leaves_a_stream_ends_its_calls(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    with claude.messages.stream(**{**TO_CLAUDE, "model": "fusion/stalls"}) as stream:
        next(stream.text_stream)

    assert poll(upstream, lambda stats: stats["in_flight"] == 0)["aborted"] == 1


def test_anthropic_is_told_of_an_unknown_model(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="nobody/nothing"):
        claude.messages.create(**{**TO_CLAUDE, "model": "nobody/nothing"})


@pytest.mark.parametrize("how", ["api_key", "auth_token"])
def test_anthropic_needs_a_key_where_the_server_has_some(locked_server: Server, upstream: Upstream, how: str) -> None:
    url = locked_server.url
    with (
        anthropic.Anthropic(base_url=url, **{how: "rightful-key"}) as one,
        anthropic.Anthropic(base_url=url, **{how: "wrongful-key"}) as other,
    ):
        allowed = one.messages.create(**TO_CLAUDE)
        with pytest.raises(anthropic.AuthenticationError):
            other.messages.create(**TO_CLAUDE)

    assert allowed.content[0].text == ANSWER


# --- The examples ---


def lines_of(server: Server, directory: Path, example: str) -> list[str]:
    done = run_client(server, directory, sys.executable, str(EXAMPLES / example))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(OLD, reason="the example is for the newest SDK")
def test_the_example_of_the_openai_sdk_runs(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    said = lines_of(server, tmp_path, "openai_sdk.py")

    assert said == [ANSWER, ANSWER, "city='Canberra'"]


def test_the_example_of_the_anthropic_sdk_runs(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    said = lines_of(server, tmp_path, "anthropic_sdk.py")

    assert said == [ANSWER, ANSWER]
