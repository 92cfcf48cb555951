"""Whatever an endpoint sends, whole or streamed, in OpenAI's words or in Anthropic's, with whatever status and headers:
the worst is one failed call with a code of ours, and what is read can be written down and read again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fusiontools.errors import FAILURE_CODES, CallFailed
from fusiontools.llm.anthropic_reply import EventTranslator
from fusiontools.llm.completion import Completion
from fusiontools.llm.failures import read_failure
from fusiontools.llm.ledger import usage_of
from fusiontools.llm.openai_reply import read_plain
from fusiontools.llm.reply_reader import ReplyReader
from fusiontools.record import jsonl, schemas

#: What breaks readers: deep nests, numbers that nobody can hold, halves of characters, the wrong kind of everything.
ODD: list[Any] = [
    None, True, False, 0, -1, 1e30, -1e30, 2**63, 2**64, 10**400, 1e-320, "", " ", "\0", "\ud800", "x\udfff", "\u2028",
    "NaN", "9" * 400, "https://h/", [], {}, [None], [[]], {"": None}, {"\ud800": "\udc00"}, ["text"], {"type": None},
]  # fmt: skip


def nested(depth: int, bottom: Any, key: str) -> Any:
    for i in range(depth):
        bottom = [bottom] if i % 2 and key == "text" else {key: bottom}
    return bottom


ANY_JSON: SearchStrategy[Any] = st.one_of(
    st.sampled_from(ODD),
    st.builds(
        nested, st.sampled_from([2, 130, 200, 300, 480, 990]), st.sampled_from(ODD), st.sampled_from(["text", "cost"])
    ),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
)
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
USAGE = {
    "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14, "cost": 0.5, "is_byok": True,
    "cost_details": {"upstream_inference_cost": 0.1}, "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 2},
}  # fmt: skip
PLAIN = {
    "id": "1", "object": "chat.completion", "model": "m", "usage": USAGE, "x_groq": {"usage": USAGE},
    "choices": [{
        "index": 0, "finish_reason": "stop", "usage": USAGE,
        "logprobs": {"content": [{"token": "P", "logprob": -0.5, "bytes": [80], "top_logprobs": []}], "refusal": None},
        "message": {
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Paris."}],
            "tool_calls": [{**CALL, "extra_content": {"google": {"s": "x"}}}],
            "role": "assistant", "reasoning_content": "hm", "refusal": None,
        },
    }],
}  # fmt: skip
CHUNKS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "reasoning": "hm"}}], "model": "m"},
    {"choices": [{"index": 0, "delta": {"content": "Paris."}, "logprobs": {"content": [{"logprob": -0.5}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{**CALL, "thought_signature": "x"}]}}]},
    {"choices": [{"index": 0, "delta": {"function_call": {"name": "g", "arguments": "{}"}}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE},
]
ERRORS = [
    {"error": {"message": "no", "type": "t", "code": "c", "param": "p", "metadata": {"raw": '{"error": {"code": 1}}'}}},
    {"error": "no", "choices": [{"error": {"message": "no", "code": 502}}]},
    {"base_resp": {"status_code": 1, "status_msg": "no"}, "detail": [{"msg": "no"}], "errors": {"message": "no"}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "busy", "details": [{"reason": "r"}]}},
]
ANTHROPIC = {
    "type": "message", "model": "m", "stop_reason": "tool_use", "stop_details": {"explanation": "x"},
    "content": [
        {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Paris."},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
    ],
    "usage": {
        "input_tokens": 11, "output_tokens": 3, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1,
        "output_tokens_details": {"thinking_tokens": 1},
    },
}  # fmt: skip
ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 11}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Paris."}},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON value, down to where an answer has any."""
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inside = inside if len(path) < 9 else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


@contextmanager
def deeper() -> Iterator[None]:
    """Let the test itself go as deep as it likes; what it tests does not."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def as_json(value: Any) -> bytes:
    with deeper():
        return json.dumps(value).encode()


def copied(value: Any) -> Any:
    with deeper():
        return json.loads(json.dumps(value))


@st.composite
def mutated(draw: Callable[[Any], Any], real: Any) -> Any:
    """Return a real value with something else in a place or two of it."""
    value = copied(real)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(value)))
        odd = copied(draw(ANY_JSON))
        if not path:
            return odd
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = odd
    return value


def as_stream(events: Any) -> bytes:
    lines = events if isinstance(events, list) else [events]
    return b"".join(b"data: %b\n\n" % as_json(event) for event in lines) + b"data: [DONE]\n\n"


REPLIES: dict[str, tuple[SearchStrategy[bytes], Any]] = {
    "any JSON": (ANY_JSON.map(as_json), None),
    "any stream": (st.lists(ANY_JSON, max_size=3).map(as_stream), None),
    "a body": (mutated(PLAIN).map(as_json), None),
    "a stream": (mutated(CHUNKS).map(as_stream), None),
    "an error": (st.sampled_from(ERRORS).flatmap(mutated).map(as_json), None),
    "an error in a stream": (st.sampled_from(ERRORS).flatmap(mutated).map(lambda e: as_stream([CHUNKS[1], e])), None),
    "bytes": (st.binary(max_size=40), None),
    "Anthropic's body": (mutated(ANTHROPIC).map(as_json), EventTranslator),
    "Anthropic's stream": (mutated(ANTHROPIC_EVENTS).map(as_stream), EventTranslator),
    "Anthropic's error": (st.sampled_from(ERRORS).flatmap(mutated).map(as_json), EventTranslator),
}


def in_record(outcome: Completion | CallFailed) -> dict[str, Any]:
    """Return a record in which a call has ended so, as a panel would write it."""
    seat = {"member": "m", "sample": 0, "layer": 1}
    call: dict[str, Any] = {
        "stage": "panel", **seat, "attempt": 1, "model": "m", "endpoint": "there", "usage": outcome.usage,
        "cost_usd": outcome.cost_usd, "cost_source": None if outcome.cost_usd is None else "upstream",
        "latency_s": 0.1, "ttft_s": None, "status": "ok", "replayed": False,
    }  # fmt: skip
    record: dict[str, Any] = {"id": "1", "messages": [{"role": "user", "content": "?"}], "calls": [call]}
    if isinstance(outcome, CallFailed):
        call["status"] = outcome.code
        seat["error"] = {"code": outcome.code, "message": outcome.message}
    else:
        call["model"] = outcome.model
        seat |= {
            "content": outcome.content,
            "finish_reason": outcome.finish_reason,
            "tool_calls": [*outcome.tool_calls],
        }
    return {**record, "panel": [seat]}


def hold_to_it(outcome: Completion | CallFailed) -> None:
    """Assert that an outcome can be written down, read again, and is what was written."""
    if isinstance(outcome, CallFailed):
        assert outcome.code in FAILURE_CODES
        assert "call" in FAILURE_CODES[outcome.code].where
    else:
        assert outcome.content.strip() or outcome.tool_calls
        jsonl.dumps([outcome.reasoning])  # the journal keeps it
    record: Any = in_record(outcome)
    assert schemas.check_of("record")(record), schemas.faults("record", record)
    assert jsonl.parse(jsonl.write(record)) == record


def read(body: bytes, cut: int, make: Any, *, streamed: bool) -> Completion | CallFailed:
    """Read a reply in two pieces, or, where nobody watches it, as a whole."""
    if not (streamed or make) and (plain := read_plain(body, "m")) is not None:
        return plain
    hear = jsonl.dumps if streamed else None  # a server passes it on
    reader = ReplyReader("m", make() if make else None, hear, tools=("f",))
    try:
        for piece in (body[:cut], body[cut:]):
            reader.feed(piece)
        return reader.finish()
    except CallFailed as failure:
        return failure


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", REPLIES)
def test_any_reply_is_an_answer_or_one_failed_call(kind: str, streamed: bool) -> None:
    bodies, make = REPLIES[kind]

    @given(bodies, st.integers(0, 200))
    def hold(body: bytes, cut: int) -> None:
        hold_to_it(read(body, cut, make, streamed=streamed))

    hold()


#: Values of headers that somebody reads: dates without an end, zones that are none, numbers of 400 digits.
HEADER = st.one_of(
    st.sampled_from([
        "", "0", "-1", "1e9", "nan", "inf", "9" * 400, "0." + "9" * 400, "1.", ".5", "٣", "²", "soon",
        "Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999999", "Wed, 21 Oct 0000 07:28:00 -9999",
        "Wed, 32 Foo 2015 99:99:99 GMT", "Mon, 01 Jan 1 00:00:00 +2359", "\x85", "\u2028",
    ]),
    st.text(max_size=40),
)  # fmt: skip
NAMES = st.sampled_from(
    ["retry-after", "retry-after-ms", "location", "x-should-retry", "content-type", "x-ratelimit-reset"]
)


@given(
    st.integers(300, 599),
    st.one_of(*(bodies for bodies, _ in REPLIES.values())),
    st.dictionaries(NAMES, HEADER, max_size=4),
)
def test_any_refusal_is_one_failed_call(status: int, body: bytes, headers: dict[str, str]) -> None:
    failure = read_failure(status, body, headers)

    hold_to_it(failure)
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= 365 * 86_400


@given(mutated(USAGE))
def test_any_usage_is_counts_or_unknown(said: Any) -> None:
    usage, cost_usd = usage_of({"usage": said})

    assert usage is None or all(type(count) is int and count >= 0 for count in usage.values())
    assert cost_usd is None or 0 <= cost_usd <= 1000
