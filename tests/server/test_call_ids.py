"""Calls of one answer are told apart by their ids, on every protocol, whole and in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fusiontools.llm.ledger import Spending
from fusiontools.record.types import Message, ToolCall
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ChatRequest, ChatResult, ResponseMeta, StreamStyle
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.protocols.responses import Responses

META = ResponseMeta("0123456789ab" + "0" * 20, 1, "fusion")
HELLO: Message = {"role": "user", "content": "Hello"}
#: By protocol: how it is spoken, and where its answer says ids.
PROTOCOLS: dict[str, tuple[Any, Callable[[dict[str, Any]], list[str]]]] = {
    "chat": (Chat(), lambda body: [call["id"] for call in body["choices"][0]["message"]["tool_calls"]]),
    "messages": (Messages(), lambda body: [block["id"] for block in body["content"]]),
    "responses": (Responses(), lambda body: [item["call_id"] for item in body["output"]]),
}


def calls(*ids: str) -> list[ToolCall]:
    return [
        {"id": each, "type": "function", "function": {"name": "look_up", "arguments": f'{{"at":{i}}}'}}
        for i, each in enumerate(ids)
    ]


def streamed_ids(protocol: str, stream: bytes) -> list[str]:
    """Return the ids in the order in which calls begin."""
    data = [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith("data: {")]
    found = []
    for event in map(json.loads, data):
        if protocol == "chat":
            deltas = [call for choice in event["choices"] for call in choice["delta"].get("tool_calls", ())]
            found += [delta["id"] for delta in deltas if "id" in delta]
        elif event["type"] == "content_block_start":
            found.append(event["content_block"]["id"])
        elif event["type"] == "response.output_item.added":
            found.append(event["item"]["call_id"])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("given", "before", "expected"),
    [
        (("call_0", "call_0"), (), ["call_0", "call_0_0123456789ab"]),
        (("a", "a", "a", "b"), (), ["a", "a_0123456789ab", "a_0123456789ab_2", "b"]),
        (("call_0", "call_1"), ("call_0",), ["call_0_0123456789ab", "call_1"]),
        (("a", "b"), (), ["a", "b"]),
    ],
    ids=["two alike", "three alike", "one of an earlier turn", "all their own"],
)
def test_no_two_calls_go_out_under_one_id(
    protocol: str, given: tuple[str, ...], before: tuple[str, ...], expected: list[str]
) -> None:
    speaker, ids_of = PROTOCOLS[protocol]
    told: Any = [HELLO, {"role": "assistant", "content": None, "tool_calls": calls(*before)}] if before else [HELLO]
    request = ChatRequest("fusion", told)
    result = ChatResult("", calls(*given), "tool_calls", Spending())
    writer = speaker.writer(request, META, StreamStyle())

    whole = speaker.whole(request, META, result)
    stream = writer.open()
    for i, call in enumerate(result.tool_calls):
        stream += writer.calls([{"index": i, **call, "function": {"name": "look_up", "arguments": ""}}])
        stream += writer.calls([{"index": i, "function": {"arguments": call["function"]["arguments"]}}])
    stream += writer.close(result)

    assert ids_of(whole) == expected
    assert streamed_ids(protocol, stream) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calls_without_an_id_get_one_each(protocol: str) -> None:
    speaker, ids_of = PROTOCOLS[protocol]

    ids = ids_of(speaker.whole(ChatRequest("fusion", [HELLO]), META, ChatResult("", calls("", ""), "stop", Spending())))

    assert all(ids)
    assert len(set(ids)) == 2
