"""The table of request parameters: the shell and the server know the same ones, and give them to the same calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted import Scripted, model, open_door

from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import PanelOptions, SynthOptions
from fusiontools.errors import InputError
from fusiontools.record import jsonl
from fusiontools.record.params import ANSWER, MEMBER, PARAMETERS, POLICY, REFUSALS, STRUCTURE
from fusiontools.runs.chain import Chain
from fusiontools.server.protocols.chat import Chat
from fusiontools.stages.runtime import Runtime

ASKED = [{"role": "user", "content": "Why?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
#: A value of each parameter that shapes the answer, and of each other spelling of one.
VALUES: dict[str, Any] = {
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "response_format": {"type": "text"},
    "max_tokens": 40,
    "max_completion_tokens": 41,
    "temperature": 0.11,
    "top_p": 0.5,
    "top_k": 20,
    "stop": ["END"],
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "reasoning_effort": "low",
    "reasoning": {"effort": "high"},
    "verbosity": "low",
}
NAMES = {"max_completion_tokens": "max_tokens", "reasoning": "reasoning_effort"}
RECIPE = Recipe(
    "r",
    stages={
        "panel": PanelOptions((model("a"), model("b")), temperature=1.0),
        "synth": SynthOptions((model("s"),)),
    },
    endpoint="there",
    endpoints=open_door(Scripted()).endpoints,
)


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_what_cannot_be_honoured_is_refused_in_the_shell_too(name: str) -> None:
    for line in ({"messages": ASKED, name: ASKED}, {"messages": ASKED, "params": {name: ASKED}}):
        with pytest.raises(InputError, match=f"`{name}` is not supported"):
            jsonl.parse(jsonl.dumps(line))


def test_what_asks_for_nothing_is_no_reason_to_refuse() -> None:
    asked = {"n": 1, "modalities": ["text"], "function_call": "none"}

    assert jsonl.parse(jsonl.dumps({"messages": ASKED, **asked}))["params"] == asked


@pytest.mark.parametrize("name", sorted(POLICY.keys() - REFUSALS.keys()))
def test_the_shell_knows_every_parameter_of_a_request(name: str) -> None:
    record: Any = jsonl.parse(jsonl.dumps({"messages": ASKED, name: VALUES.get(name, ASKED)}))

    if name in STRUCTURE:
        assert "params" not in record
    else:
        assert NAMES.get(name, name) in record["params"]
        assert record.keys() == {"id", "messages", "params"}


def test_the_shell_takes_nothing_else_for_a_parameter() -> None:
    assert POLICY.keys() > PARAMETERS
    assert jsonl.parse(jsonl.dumps({"id": "1", "messages": ASKED, "mine": 1})) == {
        "id": "1",
        "messages": ASKED,
        "mine": 1,
    }


def test_every_parameter_that_shapes_the_answer_has_a_value_here() -> None:
    assert VALUES.keys() == {*ANSWER, *NAMES}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_what_shapes_the_answer_reaches_the_same_calls_from_the_shell_and_from_a_request(name: str) -> None:
    said = {"messages": ASKED, name: VALUES[name]}
    backend = Scripted()

    typed: Any = jsonl.parse(jsonl.dumps(said))
    asyncio.run(Chain.parse("panel | synth").bind(RECIPE)(typed, Runtime(open_door(backend))))

    known = NAMES.get(name, name)
    value = VALUES[name]["effort"] if name == "reasoning" else VALUES[name]
    heard = {request.model: request.params for request in backend.requests}
    assert heard["s"][known] == value
    assert (heard["a"].get(known) == value) == (known in MEMBER)
    assert Chat().read({"model": "fusion", **said}).params == {known: value}
