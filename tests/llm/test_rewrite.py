"""The names of tools: short and plain where an endpoint wants that, and the client's own for the client."""

from __future__ import annotations

import re
from typing import Any

import pytest
from refusing import CALLED, ask, forward, refusal, request_with, strict, taught
from scripted import MESSAGES

from fusiontools.llm.completion import CompletionRequest

LONG = "mcp__plugin_enterprise-database-tools_server__synchronize_all_records_now"
STRANGE = "data base/sync.näu"
NAME_REFUSED = [
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64, but got 73 instead.",
    "Invalid 'tools[0].function.name': string does not match pattern. Expected a match of '^[a-zA-Z0-9_-]+$'.",
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
    deltas = [call["function"] for piece in pieces if not isinstance(piece, str) for call in piece]
    shown = [function["name"] for function in deltas if function.get("name")]
    assert shown == ([LONG] if streamed else [])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_that_passes_through_comes_back_under_the_name_that_the_client_gave(streamed: bool) -> None:
    body = {"model": "m", "messages": MESSAGES, "tools": [tool(LONG)], "stream": streamed}

    reply = forward(strict(calling), body)

    assert f'"name": "{LONG}"'.encode() in reply or f'"name":"{LONG}"'.encode() in reply
