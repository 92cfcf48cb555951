"""Records that differ: their makers, and strategies for records and texts of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from samples import judged, question, response

from fusiontools.evaluation.diff.records import Change, compare, side_of

FAILED = {"stage": "panel", "code": "all_failed", "message": "nobody came"}


def call(cost: float | None = 0.25, seconds: float = 2.0, **more: Any) -> dict[str, Any]:
    base = {"stage": "panel", "model": "m", "endpoint": "e", "status": "ok"}
    return {**base, "cost_usd": cost, "latency_s": seconds, "replayed": False, **more}


def answered(name: str, text: str, *calls: Any, **more: Any) -> dict[str, Any]:
    """Return a record with an answer."""
    answer = {"content": text, "by": "synth", "model": "m/s", "finish_reason": "stop", "tool_calls": []}
    return {**judged(name), "answer": answer, "calls": list(calls), **more}


def calling(name: str, arguments: str) -> dict[str, Any]:
    """Return a record whose answer calls a tool."""
    tool_calls = [{"id": name, "type": "function", "function": {"name": "look_up", "arguments": arguments}}]
    record = answered("q1", "It is red.", call())
    return {**record, "answer": {**record["answer"], "tool_calls": tool_calls}}


def without(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def changed(a: Mapping[str, Any], b: Mapping[str, Any], **options: bool) -> Change | None:
    return compare(side_of(a), side_of(b), **options)


BASE = answered("q1", "It is red.", call())
#: Words from few, so that much recurs, and signs of every kind.
TEXTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["the", "cat", "a", " ", " ", "\n", ". ", "é", "猫", "\u0301", "\u200d", "'"])).map(
        "".join
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
RESPONSES = st.lists(
    st.builds(
        lambda member, content, layer: (
            response(member, content, layer=layer)
            if content
            else response(member, layer=layer, error={"code": "timeout", "message": "late"})
        ),
        st.sampled_from(["m/a", "m/b"]),
        st.sampled_from(["", "It is red.", "It is\n--- q9 --- green \x1b[31m."]),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=3,
)
POINTS = st.lists(st.sampled_from(["one", "two\n--- q9 ---", "three\x9b"]), max_size=2)
RECORDS = st.fixed_dictionaries(
    {"id": st.just("q1"), "messages": st.just(question()["messages"])},
    optional={
        "panel": RESPONSES,
        "layers": st.lists(RESPONSES, max_size=2),
        "analysis": st.builds(
            lambda consensus, ranking, more: {**judged(ranking=ranking)["analysis"], "consensus": consensus, **more},
            POINTS,
            st.sampled_from([(0, 1), (1, 0), ()]),
            st.sampled_from([{}, {"agreement": 0.5}, {"agreement": 0.501}, {"judges": ["j"]}]),
        ),
        "answer": st.fixed_dictionaries(
            {"content": TEXTS, "by": st.sampled_from(["synth", "pick"])},
            optional={"tool_calls": st.just([]), "model": st.sampled_from(["m", "n\x1b[2J"]), "a": JSON},
        ),
        "degraded": st.lists(st.just({"stage": "panel", "code": "member_failed"}), max_size=2),
        "error": st.just(FAILED),
        "meta": st.dictionaries(st.sampled_from("ab"), JSON, max_size=2),
        "mine": JSON,
        "calls": st.lists(st.builds(call, st.sampled_from([None, 0.0, 0.1, 2.5])), max_size=2),
    },
)
