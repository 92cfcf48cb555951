"""Ask for a form of the answer in words, where an endpoint takes no `response_format`, and hold the answer to it.

What a model wrote is repaired once, by code: fences and prose around it go, marks that are missing are set. What then
still is not what was asked for is kept as it is, and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from fusiontools.llm.completion import Completion
from fusiontools.record import jsonl
from fusiontools.record.schemas import fits

ONE_OBJECT = "Answer with one JSON object and nothing else: no prose around it, no code fence."
_BY_SCHEMA = "Answer with JSON that this schema describes and nothing else: no prose around it, no code fence."
_NO_FORM = object()


def words_for(asked: Mapping[str, Any]) -> str:
    """Return an instruction that says what this `response_format` says."""
    schema = schema_of(asked)
    return ONE_OBJECT if schema is None else f"{_BY_SCHEMA}\n\n{jsonl.dumps(schema).decode()}"


def schema_of(asked: Mapping[str, Any]) -> Any:
    """Return the schema that this `response_format` carries; None where it asks for any object."""
    if asked.get("type") != "json_schema":
        return None
    holder = asked.get("json_schema")
    return (holder.get("schema") if isinstance(holder, dict) else None) or {}


def hold_to(completion: Completion, asked: Mapping[str, Any]) -> Completion:
    """Return the completion in the form that was asked for, repaired where that is needed and possible.

    An answer that was cut off is not repaired: it would pass for a whole one.
    """
    if completion.tool_calls and not completion.content.strip():
        return completion
    if _is_right(_parse(completion.content), asked):
        return completion
    if completion.finish_reason == "stop":
        found = _repair(completion.content)
        # Several objects are drafts and the answer.
        for data in (found, found[-1] if isinstance(found, list) and found else _NO_FORM):
            if _is_right(data, asked):
                return replace(completion, content=jsonl.dumps(data).decode())
    what = "JSON object" if schema_of(asked) is None else "schema"
    return replace(completion, unmet=f"the endpoint takes no such response_format, and the answer is not the {what}")


def _parse(text: str) -> Any:
    try:
        return jsonl.loads(text)
    except ValueError:
        return _NO_FORM


def _repair(text: str) -> Any:
    import json_repair

    try:
        data = json_repair.loads(text)
        jsonl.dumps(data)
    except (RecursionError, TypeError, ValueError):
        return _NO_FORM
    return _NO_FORM if data == "" else data


def _is_right(data: Any, asked: Mapping[str, Any]) -> bool:
    if data is _NO_FORM:
        return False
    schema = schema_of(asked)
    return isinstance(data, dict) if schema is None else fits(schema, data)
