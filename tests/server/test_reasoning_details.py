"""Thoughts that a model wants back: from its reply into the record and to the client, and from there to the models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from scripted import Scripted, model, open_door, said
from serving import Server, asking
from workdir import Upstream

from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import PanelOptions, SynthOptions
from fusiontools.llm.ledger import Spending
from fusiontools.record import schemas
from fusiontools.runs.chain import Chain
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ChatRequest, ChatResult, ResponseMeta, StreamStyle
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
