"""Replies of judges: the last object of the wanted shape counts, and a label is read where it is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.stages.replies import find_object, label_in, labels_in, object_in, ranked, truth_in

YES, NO = '{"reasoning": "r", "met": true}', '{"reasoning": "r", "met": false}'
AB = {"A": 0, "B": 1, "C": 2}


@pytest.mark.parametrize(
    "reply",
    [
        NO,
        f"At first {YES}. But no.\n{NO}",
        f"Draft:\n```json\n{YES}\n```\nOn reflection:\n```json\n{NO}\n```",
        f"I could say {YES}\n</think>\n{NO}",
        f"<thinking>{YES}</thinking>{NO}",
        f"[THINK]{YES}[/THINK]{NO}",
        f"<think>{NO}</think><think>{YES}</think>\n\n{NO}",
        f'It uses {{"x": 1}} and {{a, b}} and {{5" pipe}}.\n{NO}\nThat is all, {{really}}.',
        f"[{YES}, {NO}]",
        json.dumps({"verdict": json.loads(NO)}),
        json.dumps({"reasoning": "r", "result": [json.loads(NO)]}),
        json.dumps(NO),
        '{reasoning: "r", "met": false}',
        '{reasoning: "r", met: no}',
        "{'met': False}",
        '{"reasoning": "they say "yes" there", "met": false,}',
        f'{{"reasoning": "a 5" pipe", "met": true}}\n{NO}',
        '{"reasoning": "they close with </think> in B", "met": false}',
        '{"reasoning": "r", "met": false, "more": "',
        f'{YES}\nNo: {{"reasoning": "r", "met": false',
        "No.",
        "not met",
        "**Unmet**",
        "<think>It is met: yes</think>no",
    ],
)
def test_the_last_verdict_counts_however_it_is_wrapped(reply: str) -> None:
    assert truth_in(reply, "met") is False


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "{}",
        f"<think>{YES}</think>",
        f'{YES}\nBut no: {{"reasoning": "I had overlooked that',
        f'{YES} {{"met": "perhaps"}}',
        "It is met.",
        '{"met": null}',
        '{"met": 1}',
    ],
)
def test_a_draft_is_never_the_verdict_where_there_is_none(reply: str) -> None:
    assert truth_in(reply, "met") is None


def test_a_reply_full_of_braces_is_read_in_bounded_time() -> None:
    assert object_in('{"' * 20_000, "met") == {}
    assert object_in(f"{'{a: ' * 20_000}{NO}", "met") == {}


@given(st.text(alphabet='{}[]"\\:,amet \n', max_size=60))
def test_no_reply_breaks_the_reader(reply: str) -> None:
    found = find_object(reply, lambda data: "met" in data)

    assert found is None or "met" in found


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("B", "B"),
        ("b", "B"),
        ("Response B", "B"),
        ("response_b", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("`B`", "B"),
        ("B.", "B"),
        ("b) for its sources", "B"),
        ("B (fuller than A)", "B"),
        ("B: A is too short", "B"),
        ("B - fuller than A", "B"),
        ("Response B, which corrects Response A", "B"),
        ("A is fuller than B", "A"),
        ("the best is B", "B"),
        ({"model": "B", "reason": "A is too short"}, "B"),
        ({"reason": "A is too short", "response": "Response B"}, "B"),
        ({"rank": 1, "label": "B (not A)"}, "B"),
        ({"choice": "B", "reason": "A is too short"}, "B"),
    ],
)
def test_the_named_field_or_the_leading_label_says_which_response_is_meant(said: Any, label: str) -> None:
    assert label_in(said, AB) == label


@pytest.mark.parametrize(
    "said",
    [
        *("A and B", "A/B", "A = Response B", "A, B", "both A and B", "A fuller answer than B", "A short one", "none"),
        *("", 7, None, {"reason": "A is shorter than B"}, {"model": "A or B"}, ["A", "B"]),
    ],
)
def test_what_names_no_response_or_two_is_unread(said: Any) -> None:
    assert label_in(said, AB) not in AB


@pytest.mark.parametrize(
    ("said", "read", "unread"),
    [
        ([{"model": "B", "reason": "A is too short"}, {"model": "A", "reason": "B is fuller"}], [1, 0], 0),
        (["B (fuller than A)", "A (shorter than B)"], [1, 0], 0),
        ([{"rank": 2, "model": "A"}, {"rank": 1, "model": "B"}], [1, 0], 0),
        ({"1": "B", "2": "A"}, [1, 0], 0),
        ("Response B > Response A", [1, 0], 0),
        (["B > A"], [1, 0], 0),
        ("1. B\n2. A", [1, 0], 0),
        ("B A", [1, 0], 0),
        ([["B"], ["A", "C"]], [1], 1),
        ("C > A = B", [2], 1),
        (["the longer one", "A"], [0], 1),
    ],
)
def test_a_ranking_is_read_place_by_place(said: Any, read: list[int], unread: int) -> None:
    found, left = ranked(said, AB)

    assert (found, len(left)) == (read, unread)


def test_a_list_of_responses_names_them_all() -> None:
    assert labels_in(["A", "Response B and C"], AB) == ["A", "B", "C"]
    assert labels_in("responses A, B", AB) == ["A", "B"]
