"""Types and schemas say the same of a record."""

from __future__ import annotations

from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from fusiontools.record import schemas
from fusiontools.record.types import (
    Analysis,
    Answer,
    Call,
    Degraded,
    Grade,
    Message,
    Record,
    RecordError,
    Response,
    ToolCall,
)

TYPES = {
    "record": (Record, ()),
    "panel": (Response, ("$defs", "response")),
    "analysis": (Analysis, ()),
    "answer": (Answer, ()),
    "calls": (Call, ("$defs", "call")),
    "degraded": (Degraded, ("items",)),
    "grades": (Grade, ("items",)),
    "error": (RecordError, ()),
    "messages": (Message, ("$defs", "message")),
    "tool_call": (ToolCall, ()),
}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_type_and_schema_have_the_same_keys(name: str) -> None:
    typed, path = TYPES[name]
    schema = schemas.load(name)
    for key in path:
        schema = schema[key]

    assert list(typed.__annotations__) == list(schema["properties"])
    assert set(schema["required"]) <= set(schema["properties"])


@pytest.mark.parametrize("name", ["answer", "calls", "tool_call"])
def test_a_choice_of_words_is_the_same_in_type_and_schema(name: str) -> None:
    typed, path = TYPES[name]
    schema = schemas.load(name)
    for key in path:
        schema = schema[key]

    for key, hint in get_type_hints(typed).items():
        literals = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
        spelled = schema["properties"][key]
        allowed = spelled.get("enum", [spelled["const"]] if "const" in spelled else [])
        if literals:
            assert [word for literal in literals for word in get_args(literal)] == [w for w in allowed if w is not None]
