"""A record as a person reads it."""

from __future__ import annotations

from typing import Any

import pytest
from graded import analysis

from fusiontools.cli.text import record_as_text

APART = [{"topic": "when", "stances": [{"model": "a", "stance": "1648"}, {"model": "b", "stance": "1658"}]}]


@pytest.mark.parametrize(
    ("found", "is_said"),
    [
        ({"agreement": 1.0}, True),
        ({"agreement": None}, False),
        ({"agreement": 1.0, "contradictions": APART, "judges": ["fake/judge"]}, False),
        ({"agreement": 0.5, "contradictions": APART, "judges": ["lexical"]}, True),
    ],
)
def test_an_agreement_is_said_where_code_can_tell_and_no_judge_contradicts(found: Any, is_said: bool) -> None:
    compared: Any = {"id": "q", "messages": [], "analysis": {**analysis([0, 1]), **found}}

    assert ("agreement: " in record_as_text(compared, verbose=False)) == is_said


def test_why_members_failed_is_said_once() -> None:
    error = {"code": "connect", "message": "cannot reach http://h: refused"}
    panel = [{"member": name, "sample": 0, "layer": 1, "error": error} for name in ("a", "b", "c")]
    record: Any = {"id": "1", "messages": [{"role": "user", "content": "Why?"}], "panel": panel}

    text = record_as_text(record, verbose=False)

    assert text.count("cannot reach") == 1
    assert text.count("(failed: ") == 3
