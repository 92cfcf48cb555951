"""The table of parameters, row by row over HTTP: who hears of each, who does not, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from serving import CHAT, Server, asking
from workdir import Upstream

from fusiontools.record import params
from fusiontools.record.params import BOTH, NOBODY, POLICY, REFUSED, SERVER, WRITER

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
PANEL = ["fake/a", "fake/b", "fake/c"]
#: Parameters that a stage gives to its model of its own accord.
OWN = {"panel": {"temperature"}, "judge": {"temperature", "response_format"}, "synth": set()}
#: What the server needs to know of its own calls, whatever a client says of its own.
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Case:
    """A value of a parameter.

    Args:
        value: what the client says.
        heard: what is heard of it by who hears of it; by default the same under the same name.
        with_it: what it makes sense with.
    """

    value: Any
    heard: dict[str, Any] | None = None
    with_it: tuple[tuple[str, Any], ...] = ()


CASES: dict[str, Case] = {
    "tools": Case([TOOL]),
    "tool_choice": Case("required", with_it=(("tools", [TOOL]),)),
    "parallel_tool_calls": Case(False, with_it=(("tools", [TOOL]),)),
    "response_format": Case({"type": "text"}),
    "max_tokens": Case(40),
    "max_completion_tokens": Case(40, heard={"max_tokens": 40}),
    "temperature": Case(0.11),
    "top_p": Case(0.5),
    "top_k": Case(20),
    "stop": Case(["END", "FIN"]),
    "seed": Case(7),
    "presence_penalty": Case(0.5),
    "frequency_penalty": Case(-0.5),
    "reasoning_effort": Case("low"),
    "reasoning": Case({"effort": "high"}, heard={"reasoning_effort": "high"}),
    "verbosity": Case("low"),
    "model": Case("fusion"),
    "messages": Case([{"role": "user", "content": "What?"}]),
    "stream": Case(True),
    "stream_options": Case({"include_usage": False}, with_it=(("stream", True),)),
    "fusion": Case({"include": ["panel"]}),
    "plugins": Case([{"id": "fusion", "model": "fake/judge"}]),
    "n": Case(2),
    "modalities": Case(["text", "audio"]),
    "audio": Case({"voice": "alloy", "format": "wav"}),
    "functions": Case([{"name": "look", "parameters": {"type": "object", "properties": {}}}]),
    "function_call": Case({"name": "look"}),
    "logprobs": Case(True),
    "top_logprobs": Case(2),
    "logit_bias": Case({"50256": -100}),
    "prediction": Case({"type": "content", "content": "So."}),
    "web_search_options": Case({}),
    "user": Case("ann"),
    "safety_identifier": Case("ann"),
    "prompt_cache_key": Case("ann"),
    "metadata": Case({"a": "b"}),
    "store": Case(True),
    "service_tier": Case("flex"),
}


def rows(*whose: str) -> list[str]:
    return [name for name, row in POLICY.items() if row in whose]


def body_of(name: str, **more: Any) -> dict[str, Any]:
    case = CASES[name]
    return {**asking(), **dict(case.with_it), name: case.value, **more}


def heard_of(name: str) -> dict[str, Any]:
    case = CASES[name]
    return {name: case.value} if case.heard is None else case.heard


def said_to(upstream: Upstream, model: str) -> dict[str, Any]:
    [body] = upstream.bodies(model)
    return body


def said_of(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what a body says of a parameter, under whichever name."""
    return {key: body[key] for key in {name, *heard_of(name)} if key in body}


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in names}


def test_every_row_of_the_table_has_a_case_and_every_case_a_row() -> None:
    assert CASES.keys() == POLICY.keys()


def test_every_row_says_one_of_five_things() -> None:
    assert set(POLICY.values()) == {BOTH, WRITER, SERVER, NOBODY, REFUSED}


@pytest.mark.parametrize("name", rows(BOTH))
def test_what_shapes_every_draft_goes_to_the_members_and_to_who_writes(
    server: Server, upstream: Upstream, name: str
) -> None:
    reply = server.post(CHAT, body_of(name))

    assert reply.status_code == 200, reply.text
    for model in (*PANEL, "fake/synth"):
        assert said_of(name, said_to(upstream, model)) == heard_of(name)


@pytest.mark.parametrize("name", rows(WRITER))
def test_what_shapes_the_visible_answer_goes_to_who_writes_it_and_to_no_member(
    server: Server, upstream: Upstream, name: str
) -> None:
    reply = server.post(CHAT, body_of(name))

    assert reply.status_code == 200, reply.text
    assert said_of(name, said_to(upstream, "fake/synth")) == heard_of(name)
    for member in PANEL:
        assert said_of(name, without(said_to(upstream, member), *OWN["panel"])) == {}


@pytest.mark.parametrize("name", [name for name, whose in POLICY.items() if whose not in (REFUSED, SERVER)])
def test_a_judge_hears_of_no_parameter(server: Server, upstream: Upstream, name: str) -> None:
    server.post(CHAT, body_of(name))

    told = said_to(upstream, "fake/judge")
    assert told.keys() == {"model", "messages", *OWN["judge"]}
    assert told["temperature"] == 0.0
    assert told["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("name", rows(NOBODY))
def test_what_concerns_nobody_is_ignored_and_goes_nowhere(server: Server, upstream: Upstream, name: str) -> None:
    reply = server.post(CHAT, body_of(name))

    assert reply.status_code == 200, reply.text
    assert [body for body in upstream.bodies() if name in body] == []
    assert name in [part["param"] for part in reply.json()["fusion"]["ignored"]]


@pytest.mark.parametrize("name", rows(REFUSED))
def test_what_cannot_be_fused_is_refused_by_its_name_before_anybody_is_asked(
    server: Server, upstream: Upstream, name: str
) -> None:
    reply = server.post(CHAT, body_of(name))

    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", name)
    assert error["type"] == "invalid_request_error"
    assert f"`{name}`" in error["message"]
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 1), ("modalities", ["text"]), ("functions", []), ("function_call", "auto"), ("function_call", "none")],
)
def test_what_asks_for_nothing_is_not_refused(server: Server, name: str, value: Any) -> None:
    assert server.chat(**{name: value}).status_code == 200


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_a_number_of_answers_that_is_not_one_is_refused(server: Server, value: Any) -> None:
    assert server.chat(n=value).status_code == 400


@pytest.mark.parametrize("name", [name for name in POLICY if name not in ("model", "messages")])
def test_null_is_as_if_nothing_were_said(server: Server, upstream: Upstream, name: str) -> None:
    reply = server.post(CHAT, asking(**{name: None}))

    assert reply.status_code == 200, reply.text
    for body in upstream.bodies():
        assert body.keys() <= {"model", "messages", "temperature", "response_format"}
        assert None not in body.values()


#: What may lead to another price: refused without `--allow-model '*'`, which `test_money.py` holds.
LEADING = ("service_tier",)


@pytest.mark.parametrize("name", [name for name in rows(NOBODY, WRITER, BOTH, REFUSED) if name not in LEADING])
def test_what_goes_to_a_member_by_its_own_name_goes_as_it_came(server: Server, upstream: Upstream, name: str) -> None:
    sent = body_of(name, model="fake/a")

    reply = server.post(CHAT, sent)

    assert reply.status_code == 200, reply.text
    assert upstream.bodies() == [sent]


@pytest.mark.parametrize("name", rows(SERVER))
def test_what_is_for_the_server_goes_to_nobody(server: Server, upstream: Upstream, name: str) -> None:
    reply = server.post(CHAT, body_of(name))

    assert reply.status_code == 200, reply.text
    bodies = {body["model"]: body for body in upstream.bodies()}
    for model in PANEL:
        assert bodies[model].keys() == {"model", "messages", "temperature"}
        assert bodies[model]["messages"] == body_of(name)["messages"]
    assert not {"fusion", "plugins"} & set().union(*bodies.values())


@pytest.mark.parametrize("said", [{}, {"stream_options": {"include_usage": False}}])
def test_a_stream_is_asked_of_who_writes_it_always_with_what_it_took(
    server: Server, upstream: Upstream, said: dict[str, Any]
) -> None:
    server.chat_stream(**said)

    told = said_to(upstream, "fake/synth")
    assert {name: told.get(name) for name in STREAMED} == STREAMED


def test_a_member_by_its_own_name_gets_the_stream_as_it_was_asked_for(server: Server, upstream: Upstream) -> None:
    server.chat_stream(model="fake/a", stream_options={"include_usage": False})

    assert upstream.bodies() == [asking(model="fake/a", stream=True, stream_options={"include_usage": False})]


def test_what_the_server_alone_understands_stays_here_when_a_request_passes_through(
    server: Server, upstream: Upstream
) -> None:
    server.chat(model="fake/a", fusion={"include": []}, plugins=[{"id": "fusion", "enabled": False}])

    assert upstream.bodies() == [asking(model="fake/a")]


def test_the_newer_name_of_the_longest_answer_wins(server: Server, upstream: Upstream) -> None:
    server.chat(max_tokens=7, max_completion_tokens=9)

    told = said_to(upstream, "fake/synth")
    assert told["max_tokens"] == 9
    assert "max_completion_tokens" not in told


def test_an_effort_said_by_its_own_name_wins_over_the_object(server: Server, upstream: Upstream) -> None:
    server.chat(reasoning_effort="low", reasoning={"effort": "high", "exclude": True})

    told = said_to(upstream, "fake/synth")
    assert told["reasoning_effort"] == "low"
    assert "reasoning" not in told


@pytest.mark.parametrize("more", [{}, {"tool_choice": "auto"}, {"parallel_tool_calls": False}])
def test_an_empty_list_of_tools_is_none(server: Server, upstream: Upstream, more: dict[str, Any]) -> None:
    server.chat(tools=[], **more)

    assert not [body for body in upstream.bodies() if body.keys() & {"tools", "tool_choice", "parallel_tool_calls"}]


def test_a_form_binds_every_draft_for_one_of_them_may_have_to_stand_in(server: Server, upstream: Upstream) -> None:
    schema = {"name": "place", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    form = {"type": "json_schema", "json_schema": schema}

    server.chat(response_format=form)

    assert [said_to(upstream, model)["response_format"] for model in (*PANEL, "fake/synth")] == [form] * 4
    assert said_to(upstream, "fake/judge")["response_format"]["json_schema"]["name"] == "analysis"


def test_the_tuples_that_stages_read_are_those_of_the_table() -> None:
    assert set(params.MEMBER) == set(rows(BOTH))
    assert set(params.ANSWER) == {*rows(BOTH), *rows(WRITER)} - set(params.SYNONYMS)
