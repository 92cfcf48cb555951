"""What counts as a difference between two records, of which kind it is, and what either cost."""

from __future__ import annotations

from typing import Any

import pytest
from diffs import BASE, FAILED, JSON, RECORDS, answered, call, calling, changed, without
from hypothesis import given
from samples import response

from fusiontools.evaluation.diff.records import RecordCounts, changed_leaves, cost_data, same, side_of

# What counts as a difference


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({**BASE, "error": FAILED}, "failed"),
        (answered("q1", "It is green."), "answer"),
        (without(BASE, "answer"), "answer"),
        ({**BASE, "analysis": {**BASE["analysis"], "ranking": [0, 1]}}, "analysis"),
        ({**BASE, "answer": {**BASE["answer"], "model": "m/t"}}, "other"),
        ({**BASE, "panel": [response("fake/a"), response("fake/b", "Else.")]}, "other"),
        ({**BASE, "panel": BASE["panel"][::-1]}, "other"),
        ({**BASE, "degraded": []}, "other"),
        ({**BASE, "grades": [{"score": 1}]}, "other"),
        ({**BASE, "meta": {"a": {"b": 1}}}, "other"),
        ({**BASE, "mine": None}, "other"),
    ],
)
def test_every_change_but_one_of_the_calls_has_its_kind(other: dict[str, Any], kind: str) -> None:
    forth, back = changed(BASE, other), changed(other, BASE)

    assert forth is not None
    assert back is not None
    assert forth.kind == kind
    assert back.kind == ("answered" if kind == "failed" else kind)


def test_calls_never_make_a_difference() -> None:
    other = {**without(BASE, "calls"), "calls": [call(9.0, 99.0, status="timeout")]}

    assert changed(BASE, other) is None
    assert changed(BASE, without(BASE, "calls")) is None


def test_the_ids_of_tool_calls_are_drawn_anew_and_are_no_other_answer() -> None:
    drawn, other = changed(calling("x", "{}"), calling("y", "{}")), changed(calling("x", "{}"), calling("x", "[]"))

    assert drawn is not None
    assert other is not None
    assert (drawn.kind, other.kind) == ("other", "answer")
    assert changed(calling("x", "{}"), calling("y", "{}"), answers_only=True) is None


def test_equal_numbers_are_equal_however_they_are_spelled_and_true_is_no_number() -> None:
    assert same({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not same({"a": 1}, {"a": True})
    assert not same([0], [False])


def test_answers_only_leaves_out_all_the_rest() -> None:
    rest = {**BASE, "meta": {"a": 1}, "panel": [response("x")], "answer": {**BASE["answer"], "by": "pick"}}
    text = {**rest, "answer": {**BASE["answer"], "content": "It is green.", "by": "pick"}}

    assert changed(BASE, rest, answers_only=True) is None
    assert changed({**BASE, "error": FAILED}, {**BASE, "error": {**FAILED, "code": "x"}}, answers_only=True) is None
    change = changed(BASE, text, answers_only=True)
    assert change is not None
    assert change.sections == {"answer": {"content": {"a": "It is red.", "b": "It is green."}}}


@given(RECORDS, RECORDS)
def test_records_are_the_same_where_all_but_their_calls_is(a: dict[str, Any], b: dict[str, Any]) -> None:
    change = changed(a, b)

    assert (change is None) == same(without(a, "calls"), without(b, "calls"))
    assert changed(a, a) is None
    if change is not None:
        assert set(change.sections) == {
            key for key in {*a, *b} - {"calls"} if key not in a or key not in b or not same(a[key], b[key])
        }
        assert all(change.sections.values())


@given(RECORDS, RECORDS)
def test_swapping_the_files_swaps_the_signs(a: dict[str, Any], b: dict[str, Any]) -> None:
    forth, back = RecordCounts(), RecordCounts()
    forth.add(side_of(a), side_of(b), changed(a, b))
    back.add(side_of(b), side_of(a), changed(b, a))

    assert forth.differ == back.differ
    for key in ("cost_usd", "call_time_s"):
        one, other = forth.data()[key], back.data()[key]
        assert (one["a"], one["b"]) == (other["b"], other["a"])
        assert one["delta"] == (None if other["delta"] is None else -other["delta"])


# Cost


@pytest.mark.parametrize(
    ("calls", "cost", "unknown"),
    [
        ([], None, 0),
        ([call(0.25), call(0.5)], 0.75, 0),
        ([call(None)], None, 1),
        ([call(0.25), call(None)], 0.25, 1),
        ([call(0.0, replayed=True)], 0.0, 0),
        ([call(0.0, replayed=True), call(None)], None, 1),
    ],
    ids=["no-calls", "known", "unknown", "partly-known", "replayed", "replayed-and-unknown"],
)
def test_an_unknown_cost_is_null_and_never_0(calls: list[Any], cost: float | None, unknown: int) -> None:
    spent, known = side_of({"calls": calls}).spent, side_of({"calls": [call(1.0)]}).spent

    data = cost_data(known, spent)

    assert (data["a"], data["b"], data["unknown"]["b"]) == (1.0, cost, unknown)
    assert data["delta"] == (None if unknown or cost is None else cost - 1.0)


# Leaves


@given(JSON, JSON)
def test_the_leaves_of_two_values_say_whether_they_differ(a: Any, b: Any) -> None:
    leaves = changed_leaves("x", {"a": a, "b": b})

    assert (not leaves) == same(a, b)
    assert all(not same(*leaf.sides.values()) for leaf in leaves if len(leaf.sides) == 2)
    assert len({leaf.path for leaf in leaves}) == len(leaves)


@given(JSON)
def test_what_stands_on_one_side_has_leaves_whatever_it_is(value: Any) -> None:
    leaves = changed_leaves("x", {"b": value})

    assert leaves
    assert all(set(leaf.sides) == {"b"} for leaf in leaves)
