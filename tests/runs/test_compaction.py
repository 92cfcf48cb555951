"""Compaction: when a conversation is made shorter, what is left of it, and what the record says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from scripted import ENDPOINT, Scripted, model, open_door

from fusiontools.config.recipe import Compact, Recipe
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, SynthOptions
from fusiontools.errors import CallFailed
from fusiontools.record.schemas import check_of, check_record
from fusiontools.runs.chain import Chain
from fusiontools.runs.compaction import split_summary
from fusiontools.stages.runtime import Runtime

TEXT = "word " * 60
SUMMARY = "[Earlier in this conversation, summarised by scribe:]\nThey talked.\n[End of the summary.]\n\n"


def recipe(over_tokens: int | None = 400, **endpoint: Any) -> Recipe:
    stages = {
        "panel": PanelOptions(members=(model("a"),)),
        "judge": JudgeOptions(method="lexical"),
        "synth": SynthOptions(method="copy"),
    }
    where = {"there": replace(ENDPOINT, **endpoint)}
    return Recipe("r", stages=stages, endpoints=where, endpoint="there", compact=Compact(model("scribe"), over_tokens))


def turns(count: int, text: str = TEXT) -> list[Any]:
    said: list[Any] = [{"role": "system", "content": "Be kind."}]
    for i in range(count):
        said += [{"role": "user", "content": f"{i} {text}"}, {"role": "assistant", "content": f"re {i}"}]
    return [*said[:-1]]


def run(messages: list[Any], *more: list[Any], backend: Scripted, made: Recipe | None = None) -> list[Any]:
    """Return the records of the conversations, one after the other, by one bound chain."""
    made = made or recipe()

    async def go() -> list[Any]:
        stage = Chain.parse("panel | synth").bind(made, offline=True)
        client = open_door(backend, endpoint=made.endpoints["there"])
        return [await stage({"id": "r", "messages": each}, Runtime(client)) for each in (messages, *more)]

    return asyncio.run(go())


def test_a_short_conversation_is_sent_as_it_is() -> None:
    backend = Scripted(a="Yes.")

    [record] = run(turns(2), backend=backend)

    assert backend.asked == ["a"]
    assert record["messages"] == turns(2)
    assert "compaction" not in record


def test_of_a_long_one_the_last_turns_stay_and_a_summary_of_the_others() -> None:
    backend = Scripted(a="Yes.", scribe="They talked.")
    said = turns(8)

    [record] = run(said, backend=backend)

    left = len(record["messages"]) - 1
    assert record["messages"][0] == said[0]
    assert record["messages"][1] == {"role": "user", "content": SUMMARY + said[-left]["content"]}
    assert record["messages"][2:] == said[-left + 1 :]
    assert record["compaction"]["model"] == "scribe"
    assert record["compaction"]["messages"] == len(said) - 1 - left
    assert record["compaction"]["left_tokens"] < 400 < record["compaction"]["tokens"]
    assert [call["stage"] for call in record["calls"]] == ["compact", "panel"]
    assert check_of("record")(record)
    [asked] = [request for request in backend.requests if request.model == "scribe"]
    assert "Be kind." not in str(asked.messages)
    assert "re 0" in str(asked.messages)


def test_the_next_turn_uses_the_summary_that_there_is() -> None:
    backend = Scripted(a="Yes.", scribe=["They talked.", "And went on."])
    said = turns(8)
    next_turn = [*said, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]

    first, second = run(said, next_turn, backend=backend)

    assert backend.asked.count("scribe") == 1
    assert second["messages"][:-2] == first["messages"]
    assert second["compaction"]["messages"] == first["compaction"]["messages"]


def test_a_summary_that_has_no_room_any_more_is_summarised_with_what_came_since() -> None:
    backend = Scripted(a="Yes.", scribe=["They talked.", "They talked and went on."])

    _, second = run(turns(8), turns(14), backend=backend)

    last = [request for request in backend.requests if request.model == "scribe"][-1]
    assert backend.asked.count("scribe") == 2
    assert "They talked." in str(last.messages)
    assert "re 0" not in str(last.messages)
    assert "They talked and went on." in second["messages"][1]["content"]


def test_the_smallest_window_of_those_who_read_it_counts() -> None:
    backend = Scripted(a="Yes.", scribe="They talked.")
    made = recipe(None, base_url="", context_tokens=1000)

    short, long = run(turns(4), turns(8), backend=backend, made=made)

    assert "compaction" not in short
    assert long["compaction"]["left_tokens"] < 500


def test_what_the_writer_cannot_read_at_once_it_reads_in_pieces() -> None:
    backend = Scripted(a="Yes.", scribe=["One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven.", "Eight."])
    made = recipe(None, base_url="", context_tokens=1000)
    long = [{"role": "user", "content": "word " * 1500}, {"role": "assistant", "content": "ok"}, *turns(2)[1:]]

    [record] = run(long, backend=backend, made=made)

    asked = [request for request in backend.requests if request.model == "scribe"]
    assert len(asked) > 3
    assert all(len(str(request.messages)) < 3 * 1000 for request in asked)
    assert "One." in str(asked[1].messages)
    assert record["calls"][len(asked) - 1]["stage"] == "compact"


def test_a_summary_that_fails_sends_everything() -> None:
    backend = Scripted(a="Yes.", scribe=CallFailed("upstream", "broken"))

    [record] = run(turns(8), backend=backend)

    assert record["messages"] == turns(8)
    assert record["answer"]["content"] == "Yes."
    [note] = record["degraded"]
    assert (note["stage"], note["code"]) == ("compact", "compact_failed")


def test_what_is_attached_is_named_to_the_writer_and_calls_are_kept() -> None:
    backend = Scripted(a="Yes.", scribe="They talked.")
    call = {"id": "1", "type": "function", "function": {"name": "read", "arguments": '{"f": "x.py"}'}}
    seen: Any = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    begun = [
        {"role": "user", "content": seen},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "x = 1"},
    ]

    run([*begun, *turns(8)[1:]], backend=backend)

    [asked] = [request for request in backend.requests if request.model == "scribe"]
    assert isinstance(asked.messages[1]["content"], str)
    assert "Look:\n(attached: image_url)" in asked.messages[1]["content"]
    assert '(calls read({"f": "x.py"}))' in asked.messages[1]["content"]


@pytest.mark.parametrize("messages", [turns(1, "word " * 2000)[1:], turns(1, "word " * 2000)])
def test_one_turn_alone_is_sent_as_it_is(messages: list[Any]) -> None:
    backend = Scripted(a="Yes.")

    [record] = run(messages, backend=backend)

    assert record["messages"] == messages


TOO_LONG = CallFailed("context_length", "too many tokens")


def test_a_refusal_says_how_small_a_window_is_that_no_list_knows() -> None:
    backend = Scripted(a=[TOO_LONG, "Yes.", "Yes again."], scribe=["They talked.", "They talked."])

    first, second = run(turns(8), turns(9), backend=backend, made=recipe(None))

    assert backend.asked == ["a", "scribe", "scribe", "a", "a"]
    assert first["answer"]["content"] == "Yes."
    assert first["compaction"]["left_tokens"] <= first["compaction"]["tokens"] / 2
    assert [call["status"] for call in first["calls"]] == ["context_length", "ok", "ok", "ok"]
    assert second["compaction"]["messages"] == first["compaction"]["messages"]
    check_record(first)


def test_what_is_refused_again_is_not_asked_a_third_time() -> None:
    backend = Scripted(a=TOO_LONG, scribe="They talked.")

    [record] = run(turns(8), backend=backend, made=recipe(None))

    assert backend.asked.count("a") == 2
    assert record["error"]["code"] == "all_failed"


def test_a_refused_turn_that_cannot_be_made_shorter_says_so() -> None:
    backend = Scripted(a=TOO_LONG, scribe=CallFailed("upstream", "broken"))

    [record] = run(turns(8), backend=backend, made=recipe(None))

    assert [call["status"] for call in record["calls"]] == ["context_length", "upstream"]
    assert record["error"]["code"] == "all_failed"


def test_a_summary_is_told_from_the_question_that_it_stands_before() -> None:
    assert split_summary(SUMMARY + "And\nwhy?") == (SUMMARY, "And\nwhy?")
    assert split_summary("And why?") == ("", "And why?")
