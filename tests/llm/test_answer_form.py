"""A form that an endpoint takes in words only: the answer is checked, repaired once, and said to be wrong otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from refusing import ask, forward, request_with, strict
from scripted import MESSAGES

from fusiontools.errors import CallFailed
from fusiontools.llm.answer_form import hold_to
from fusiontools.llm.completion import Completion

PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": PLACE}}


def saying(text: str) -> Any:
    """Answer this to a request without a form, and refuse any other."""
    return lambda body: "no response_format here" if "response_format" in body else {"content": text}


@pytest.mark.parametrize(
    ("said", "shown", "fits"),
    [
        ('{"place": "Paris"}', '{"place": "Paris"}', True),
        ('Here it is:\n```json\n{"place": "Paris"}\n```', '{"place":"Paris"}', True),
        ("{place: 'Paris',}", '{"place":"Paris"}', True),
        ("It is Paris.", "It is Paris.", False),
        ('{"town": "Paris"}', '{"town": "Paris"}', False),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_to_a_form_in_words_is_checked_and_repaired(
    streamed: bool, said: str, shown: str, fits: bool
) -> None:
    pieces: list[Any] = []

    completion = ask(strict(saying(said)), request_with(response_format=BY_SCHEMA), pieces.append if streamed else None)

    assert completion.content == shown
    assert (completion.unmet is None) == fits
    assert "".join(pieces) == (shown if streamed else "")


def test_an_answer_that_was_cut_off_is_not_repaired_into_a_whole_one() -> None:
    cut = Completion('{"place": "Par', "m", finish_reason="length")

    held = hold_to(cut, BY_SCHEMA)

    assert (held.content, held.unmet is None) == (cut.content, False)


@pytest.mark.parametrize("schema", [{"$ref": "http://there.example/x"}, {"type": 3}, "x", {"pattern": "("}])
def test_a_schema_that_cannot_be_read_refuses_nothing_and_fetches_nothing(schema: Any) -> None:
    answer = Completion('{"a": 1}', "m")

    assert hold_to(answer, {"type": "json_schema", "json_schema": {"schema": schema}}) == answer


def test_the_form_of_what_passes_through_is_the_clients_own() -> None:
    with pytest.raises(CallFailed, match="response_format"):
        forward(strict(saying("x")), {"model": "m", "messages": MESSAGES, "response_format": BY_SCHEMA})
