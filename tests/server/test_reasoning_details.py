"""Thoughts that a model wants back: from its reply into the record and to the client, and from there to the models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import fake_models
import pytest
from scripted import Scripted, model, open_door, said
from serving import Server, asking
from workdir import Serve, Upstream

from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import PanelOptions, SynthOptions
from fusiontools.llm.ledger import Spending
from fusiontools.record import schemas
from fusiontools.runs.chain import Chain
from fusiontools.server.protocols import reasoning_seal
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ChatRequest, ChatResult, ResponseMeta, StreamStyle
from fusiontools.server.protocols.responses import Responses
from fusiontools.stages.runtime import Runtime

DETAILS = [{"type": "reasoning.encrypted", "index": 0, "data": "ZGF0YQ=="}]


@pytest.mark.parametrize("chain", ["panel | synth", "panel | synth --method copy"])
def test_the_answer_has_those_of_who_wrote_it(chain: str) -> None:
    thoughtful = said("Paris.", reasoning_details=DETAILS)
    door = open_door(Scripted(a=thoughtful, b="Rome.", s=thoughtful))
    members, writer = PanelOptions(members=(model("a"), model("b"))), SynthOptions(models=(model("s"),))
    recipe = Recipe("r", stages={"panel": members, "synth": writer}, endpoints=door.endpoints)
    question: Any = {"id": "q", "messages": [{"role": "user", "content": "Where?"}]}

    record: Any = asyncio.run(Chain.parse(chain).bind(recipe)(question, Runtime(door)))

    schemas.check_record(record)
    assert [response.get("reasoning_details") for response in record["panel"]] == [DETAILS, None]
    assert record["answer"]["reasoning_details"] == DETAILS


def test_a_client_gets_them_whole_and_at_the_end_of_a_stream() -> None:
    request, meta = ChatRequest("fusion", []), ResponseMeta("0" * 32, 1, "fusion")
    thoughtful = ChatResult("Paris.", (), "stop", Spending(), reasoning_details=DETAILS)
    plain = ChatResult("Paris.", (), "stop", Spending())

    last = Chat().writer(request, meta, StreamStyle()).close(thoughtful).decode()

    assert Chat().whole(request, meta, thoughtful)["choices"][0]["message"]["reasoning_details"] == DETAILS
    assert json.loads(last.split("\n")[0][6:])["choices"][0]["delta"] == {"reasoning_details": DETAILS}
    assert "reasoning_details" not in Chat().whole(request, meta, plain)["choices"][0]["message"]


def test_what_a_client_sends_back_reaches_the_models(server: Server, upstream: Upstream) -> None:
    told = {"role": "assistant", "content": "Paris.", "reasoning_details": DETAILS}
    turns = [*asking()["messages"], told, {"role": "user", "content": "Sure?"}]

    assert server.post("/v1/chat/completions", {"model": "fusion", "messages": turns}).status_code == 200

    assert upstream.bodies("fake/a")[-1]["messages"][1] == told


# --- In the other protocols: to the client, from it, and to the models ---

KINDS = sorted(fake_models.DETAILS)
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4096}
INCLUDE = {"include": ["reasoning.encrypted_content"]}


@pytest.fixture
def thoughtful(standing: Serve) -> Server:
    """Return a server whose clients name the model that thinks."""
    return standing("--allow-model", "*")


def wish(kind: str, **more: Any) -> dict[str, Any]:
    """Return a body whose answer comes with the thoughts of this kind."""
    return {"model": "fusion", "fusion": {"synth": f"fake/synth+details={kind}"}, **more}


def got_back(upstream: Upstream) -> Any:
    """Return the thoughts in the turn of the assistant's that a member was asked with last."""
    [told] = [m for m in upstream.bodies("fake/a")[-1]["messages"] if m["role"] == "assistant"]
    return told.get("reasoning_details")


def items_of(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the output of a response; that of a stream as its events tell it."""
    if not body.get("stream"):
        return list(server.post("/v1/responses", body).json()["output"])
    events = server.stream("/v1/responses", body).events
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == items
    return items


def blocks_of(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the content of a message; that of a stream put together as Anthropic's SDKs do."""
    if not body.get("stream"):
        return list(server.post("/v1/messages", body).json()["content"])
    blocks: list[dict[str, Any]] = []
    for event in server.stream("/v1/messages", body).events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
            if "input" in blocks[-1]:
                blocks[-1]["partial_json"] = ""
        if event["type"] == "content_block_delta":
            [(name, piece)] = [(key, value) for key, value in event["delta"].items() if key != "type"]
            blocks[event["index"]][name] += piece
    for block in blocks:
        if "partial_json" in block:
            block["input"] = json.loads(block.pop("partial_json"))
    return blocks


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_brings_back_all_that_the_model_thought(
    kind: str, stream: bool, thoughtful: Server, upstream: Upstream
) -> None:
    question = [{"role": "user", "content": "Why?"}]

    items = items_of(thoughtful, wish(kind, input=question, stream=stream, store=False, **INCLUDE))
    thoughtful.post("/v1/responses", wish(kind, input=[*question, *items, *question], store=False))

    assert [item["type"] for item in items] == ["reasoning", "message"]
    assert got_back(upstream) == fake_models.DETAILS[kind]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_is_kept_has_the_thoughts_that_its_client_does_not_want(
    stream: bool, thoughtful: Server, upstream: Upstream
) -> None:
    body = wish("claude", input="Why?", stream=stream)

    said = thoughtful.stream("/v1/responses", body).events[-1]["response"] if stream else thoughtful.post("/v1/responses", body).json()  # fmt: skip  # noqa: E501
    thoughtful.post("/v1/responses", wish("claude", input="Sure?", previous_response_id=said["id"]))

    assert [item["type"] for item in said["output"]] == ["message"]
    assert got_back(upstream) == fake_models.DETAILS["claude"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_bring_back_all_that_the_model_thought(
    kind: str, stream: bool, thoughtful: Server, upstream: Upstream
) -> None:
    question = [{"role": "user", "content": "Why?"}]

    blocks = blocks_of(thoughtful, wish(kind, messages=question, stream=stream, **THINKING))
    told = [*question, {"role": "assistant", "content": blocks}, *question]
    thoughtful.post("/v1/messages", wish(kind, messages=told, **THINKING))

    assert blocks[-1]["type"] == "text"
    assert got_back(upstream) == fake_models.DETAILS[kind]


@pytest.mark.parametrize("stream", [False, True])
def test_a_claude_thinks_in_its_own_blocks(stream: bool, thoughtful: Server, upstream: Upstream) -> None:
    asked = wish("claude", messages=[{"role": "user", "content": "Why?"}], stream=stream, **THINKING)

    *thoughts, _ = blocks_of(thoughtful, asked)

    assert thoughts == [
        {"type": "thinking", "thinking": "Hm, France.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_for_no_thoughts_finds_the_answer_first(stream: bool, thoughtful: Server, upstream: Upstream) -> None:
    asked = wish("claude", messages=[{"role": "user", "content": "Why?"}], stream=stream, max_tokens=4096)

    blocks = blocks_of(thoughtful, asked)

    assert [block["type"] for block in blocks] == ["text", "thinking", "redacted_thinking"]


# --- What a model signs beside a call ---

CALLER: dict[str, Any] = {"panel": ["fake/a+tool+signed"], "synth": "fake/synth+tool+signed"}
TOOL = {"name": "lookup", "description": "Look up a word.", "parameters": {"type": "object", "properties": {}}}


def signed_calls(upstream: Upstream) -> list[Any]:
    """Return what stands beside each call in the turns of the assistant's that a member was asked with last."""
    turns = [m for m in upstream.bodies()[-1]["messages"] if m["role"] == "assistant"]
    return [call.get("extra_content") for turn in turns for call in turn["tool_calls"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wanted", [THINKING, {"max_tokens": 4096}], ids=["thinks", "plain"])
def test_blocks_bring_back_what_was_signed_beside_a_call(
    stream: bool, wanted: dict[str, Any], thoughtful: Server, upstream: Upstream
) -> None:
    tool = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}
    body = {"model": "fusion", "fusion": CALLER, "tools": [tool], **wanted}
    question = [{"role": "user", "content": "Why?"}]

    blocks = blocks_of(thoughtful, {**body, "messages": question, "stream": stream})
    [call] = [block for block in blocks if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "a type"}
    told = [*question, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
    thoughtful.post("/v1/messages", {**body, "messages": told})

    assert [block["type"] for block in blocks] == ["redacted_thinking", "tool_use"]
    [signed] = signed_calls(upstream)
    assert signed["google"]["thought_signature"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_an_item_brings_back_what_was_signed_beside_a_call(
    stream: bool, kept: bool, thoughtful: Server, upstream: Upstream
) -> None:
    body = {"model": "fusion", "fusion": CALLER, "tools": [{"type": "function", **TOOL}]}
    question = [{"role": "user", "content": "Why?"}]
    wanted = {} if kept else {"store": False, **INCLUDE}

    asked = {**body, "input": question, "stream": stream, **wanted}
    if stream:
        said = thoughtful.stream("/v1/responses", asked).events[-1]["response"]
    else:
        said = thoughtful.post("/v1/responses", asked).json()
    [call] = [item for item in said["output"] if item["type"] == "function_call"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "a type"}
    before = {"previous_response_id": said["id"]} if kept else {}
    thoughtful.post(
        "/v1/responses", {**body, **before, "input": [result] if kept else [*question, *said["output"], result]}
    )

    assert [item["type"] for item in said["output"]] == [*(() if kept else ["reasoning"]), "function_call"]
    [signed] = signed_calls(upstream)
    assert signed["google"]["thought_signature"]


def test_thoughts_go_with_the_turn_that_they_led_to() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "1"}
    thought = [{"type": "reasoning", "summary": [], "encrypted_content": f"t{i}"} for i in range(3)]
    said = {"role": "assistant", "content": "Let me see."}
    asked = {"role": "user", "content": "Why?"}

    turns = Responses().read({"input": [asked, thought[0], said, call, output, thought[1], said, thought[2], asked]})

    told = [[detail["data"] for detail in turn.get("reasoning_details", ())] for turn in turns.messages]
    assert [turn["role"] for turn in turns.messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert told == [[], ["t0"], [], ["t1", "t2"], []]


def test_an_item_of_openais_own_keeps_its_name() -> None:
    given = {"type": "reasoning", "id": "rs_68af", "summary": [], "encrypted_content": "gAAAA"}
    turns = Responses().read({"input": [{"role": "user", "content": "Why?"}, given, {"role": "assistant", "content": "So."}]})  # fmt: skip  # noqa: E501

    [detail] = turns.messages[1]["reasoning_details"]

    assert (detail["id"], detail["format"], detail["data"]) == ("rs_68af", "openai-responses-v1", "gAAAA")


@pytest.mark.parametrize("changed", ["fusion1.", "fusion1.e30=", "fusion1.%%%", "fusion1." + "W1tb" * 400])
def test_what_a_client_has_changed_is_no_thought(changed: str) -> None:
    block = {"type": "redacted_thinking", "data": changed}

    assert reasoning_seal.details_of_blocks([block]) == []
    assert reasoning_seal.details_of_item({"type": "reasoning", "encrypted_content": changed}) == []
