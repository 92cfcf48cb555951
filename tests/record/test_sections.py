"""What is read from a record: its id; and how it is marked as failed."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from strategies import MESSAGES, RECORDS, UNKNOWN

from fusiontools.record import jsonl
from fusiontools.record.sections import question_id, with_error


@given(RECORDS)
def test_a_failed_record_keeps_everything_and_says_why(whole: Any) -> None:
    before = copy.deepcopy(whole)

    after = with_error(whole, "panel", "all_failed", "nobody answered")

    assert whole == before
    assert after == {**before, "error": {"stage": "panel", "code": "all_failed", "message": "nobody answered"}}


@given(MESSAGES, UNKNOWN)
def test_an_id_depends_on_the_messages_only(messages: Any, unknown: dict[str, Any]) -> None:
    reordered = [dict(reversed(list(message.items()))) for message in messages]
    one, other = {**unknown, "messages": messages}, {"messages": reordered, "params": {"stop": "x"}}

    ids = [jsonl.parse(jsonl.dumps(data))["id"] for data in (one, other)]

    assert ids == [question_id(messages)] * 2


def test_an_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert question_id([{"role": "user", "content": "Why?"}]) == "51ce2e32ea943357"


@given(MESSAGES, MESSAGES)
def test_other_messages_have_another_id(one: Any, other: Any) -> None:
    assert (question_id(one) == question_id(other)) == (one == other)
