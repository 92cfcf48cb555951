"""Tool calls as servers really send them: whose piece a piece is, and what leaves with a call."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.llm.tool_calls import CallMerger, read_calls

OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'
NAMES = {"get_weather", "get_time"}


def piece(arguments: Any = None, name: str | None = "get_weather", **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


def merged(*chunks: Any, names: Any = ()) -> list[dict[str, Any]]:
    """Return the calls of a stream; holds that what is handed on comes to the same calls."""
    merger = CallMerger(names)
    said = [told for chunk in chunks for told in merger.take(chunk if isinstance(chunk, list) else [chunk])]
    said += merger.finish()
    calls: list[Any] = merger.calls()
    assert put_together(said) == calls
    return calls


def put_together(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put pieces together as a client does: by index, the id and the type of the first one."""
    calls: dict[int, Any] = {}
    for told in said:
        more = {name: value for name, value in told.items() if name not in ("index", "function")}
        call = calls.setdefault(told["index"], {"function": {"name": "", "arguments": ""}})
        assert "id" not in more or "id" not in call, "a call begins once"
        call |= more
        for name, text in told["function"].items():
            call["function"][name] += text
    return [calls[index] for index in sorted(calls)]


def said_by(calls: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


BOTH = [("get_weather", OSLO), ("get_weather", ROME)]
TWO = {
    "one index, two ids": [piece(OSLO, index=0, id="a"), piece(ROME, index=0, id="b")],
    "one index, two ids, in pieces": [
        piece("", index=0, id="a"),
        piece(OSLO[:5], None, index=0),
        piece(OSLO[5:], None, index=0),
        piece("", index=0, id="b"),
        piece(ROME, None, index=0),
    ],
    "one chunk": [[piece(OSLO, index=0, id="a"), piece(ROME, index=0, id="b")]],
    "one chunk, no index": [[piece(OSLO, id="a"), piece(ROME, id="b")]],
    "neither index nor id": [piece(OSLO), piece(ROME)],
    "neither, in one chunk, as objects": [[piece({"city": "Oslo"}), piece({"city": "Rome"})]],
    "neither, in pieces": [piece(OSLO[:5]), piece(OSLO[5:], None), piece(ROME[:5]), piece(ROME[5:], None)],
    "null in place of both": [piece(OSLO, index=None, id=None), piece(ROME, index=None, id=None)],
    "empty ids": [piece(OSLO, index=0, id=""), piece(ROME, index=1, id="")],
    "one index, no ids": [piece(OSLO, index=0), piece(ROME, index=0)],
    "in turns": [
        piece(OSLO[:5], index=0, id="a"),
        piece(ROME[:5], index=1, id="b"),
        piece(OSLO[5:], None, index=0),
        piece(ROME[5:], None, index=1),
    ],
    "in turns, by id": [
        piece(OSLO[:5], id="a"), piece(ROME[:5], id="b"), piece(OSLO[5:], None, id="a"), piece(ROME[5:], None, id="b"),
    ],
    "one id, two indexes": [piece(OSLO, index=0, id="a"), piece(ROME, index=1, id="a")],
    "one id, two indexes, in pieces": [
        piece("", index=0, id="a"),
        piece(OSLO, None, index=0),
        piece("", index=1, id="a"),
        piece(ROME, None, index=1),
    ],
    "one id, no index": [piece(OSLO, id="a"), piece(ROME, id="a")],
}  # fmt: skip


@pytest.mark.parametrize("how", TWO)
def test_two_calls_are_two_with_ids_of_their_own(how: str) -> None:
    calls = merged(*TWO[how])

    assert said_by(calls) == BOTH
    assert len({call["id"] for call in calls}) == 2


ONE = {
    "id again": [piece(OSLO[:5], id="a"), piece(OSLO[5:], None, id="a")],
    "id and name again": [piece(OSLO[:5], id="a"), piece(OSLO[5:], id="a")],
    "name again": [piece(OSLO[:5], index=0), piece(OSLO[5:], index=0)],
    "name again, and no arguments with it": [piece(OSLO), piece("")],
    "an empty name": [piece(OSLO[:5], index=0, id="a"), piece(OSLO[5:], "", index=0, id="")],
    "a name in pieces": [piece(None, "get_"), piece(None, "weather"), piece(OSLO, None)],
    "a name that grows": [piece(None, "get_"), piece(None, "get_weather"), piece(OSLO, None)],
    "an id that comes late": [piece("", index=0), piece(OSLO, None, index=0, id="a")],
    "an id made up for each piece": [piece(OSLO[:5], index=0, id="a"), piece(OSLO[5:], None, index=0, id="b")],
    "an empty object first": [piece("{}", index=0, id="a"), piece(OSLO, None, index=0)],
    "the whole again at the end": [piece(OSLO, index=0, id="a"), piece(OSLO, index=0, id="a")],
    "its arguments again at the end": [piece(OSLO, index=0, id="a"), piece(OSLO, None, index=0)],
    "an index that comes late": [piece(OSLO[:5], id="a"), piece(OSLO[5:], None, index=0)],
    "an index for each piece": [piece(OSLO[:5], index=0, id="a"), piece(OSLO[5:], None, index=1, id="a")],
}


@pytest.mark.parametrize("how", ONE)
@pytest.mark.parametrize("names", [(), NAMES])
def test_one_call_is_one_whatever_is_repeated(how: str, names: Any) -> None:
    assert said_by(merged(*ONE[how], names=names)) == [("get_weather", OSLO)]


@given(st.sampled_from([OSLO, '{"a":{"b":[1,{}]}}', "{}", '{"q":"}{"}']), st.data())
def test_a_call_is_the_same_however_its_arguments_are_cut(arguments: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(arguments)), max_size=6))
    pieces = [arguments[start:end] for start, end in pairwise([0, *sorted(cuts), len(arguments)])]
    repeats = data.draw(st.sampled_from([{}, {"id": "a"}]))
    first, *rest = pieces

    calls = merged(piece(first, index=0, id="a"), *(piece(more, None, index=0, **repeats) for more in rest))

    assert said_by(calls) == [("get_weather", arguments)]


def test_calls_without_arguments_are_told_apart_by_names_that_may_be_called() -> None:
    calls = merged(piece("", "get_weather"), piece("", "get_time"), names=NAMES)

    assert said_by(calls) == [("get_weather", "{}"), ("get_time", "{}")]


def test_a_call_begins_with_its_whole_name() -> None:
    merger = CallMerger(NAMES)

    assert merger.take([piece(None, "get_", id="a")]) == []
    [begun] = merger.take([piece(None, "weather", id="a")])
    assert begun["function"] == {"name": "get_weather", "arguments": ""}


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


@pytest.mark.parametrize(
    "chunks",
    [
        [piece(OSLO, id="a", **SIGNED)],
        [piece("", index=0, id="a", **SIGNED), piece(OSLO, None, index=0)],
        [piece(OSLO, index=0, id="a"), piece("", None, index=0, **SIGNED)],
    ],
)
def test_a_thought_signature_travels_with_its_call(chunks: list[Any]) -> None:
    [call] = merged(*chunks)

    assert call == {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": OSLO}, **SIGNED}


def test_signatures_of_parallel_calls_stay_with_their_own() -> None:
    other = {"extra_content": {"vertex": {"thought_signature": "b3Ro"}}}

    first, second = merged([piece(OSLO, id="a", **SIGNED), piece(ROME, id="b", **other)])

    assert (first["extra_content"], second["extra_content"]) == (SIGNED["extra_content"], other["extra_content"])


@pytest.mark.parametrize("beside", [{"extra_content": None}, {"extra_content": "x"}, {"thought_signature": 7}])
def test_what_is_no_signature_does_not_travel(beside: dict[str, Any]) -> None:
    [call] = read_calls([piece(OSLO, id="a", **beside)])

    assert set(call) == {"id", "type", "function"}


def test_calls_of_a_whole_answer_have_ids_of_their_own() -> None:
    calls = read_calls([piece(OSLO, id="a"), piece(ROME, id="a"), piece(OSLO), piece(ROME, id="call_2")])

    assert [call["id"] for call in calls] == ["a", "a_2", "call_2", "call_2_2"]
    assert read_calls([piece(OSLO, id="a", **SIGNED)])[0] | SIGNED == read_calls([piece(OSLO, id="a", **SIGNED)])[0]


def test_half_a_character_in_arguments_waits_for_the_other() -> None:
    high, low = json.loads('"\\ud83d"'), json.loads('"\\ude00"')

    [call] = merged(piece('{"a":"' + high, index=0, id="a"), piece(low + '"}', None, index=0))

    assert call["function"]["arguments"] == '{"a":"😀"}'


FLAT = {"id": "a", "name": "get_weather", "arguments": {"city": "Oslo"}}
CUSTOM = {"id": "a", "type": "custom", "custom": {"name": "get_weather", "input": "Oslo"}}


@pytest.mark.parametrize(("call", "arguments"), [(FLAT, OSLO), (CUSTOM, '{"input":"Oslo"}')], ids=["flat", "custom"])
def test_a_call_is_read_wherever_its_function_stands(call: dict[str, Any], arguments: str) -> None:
    assert said_by(list[Any](read_calls([call]))) == [("get_weather", arguments)]
    assert said_by(merged({**call, "index": 0})) == [("get_weather", arguments)]
