"""Schemas as providers take them: what each refuses is not sent, and what a schema accepts is still accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fusiontools.record.schemas import fits
from fusiontools.tools.provider_schema import Inexpressible, Provider, schema_for

PROVIDERS: list[Provider] = ["openai", "anthropic", "gemini"]


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


#: Schemas as servers have them, and arguments that fit.
SCHEMAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({**of(q={"type": "string"}), "required": ["q"]}, {"q": "x"}),
    "empty": ({"type": "object"}, {}),
    "nothing at all": ({}, {}),
    "said which draft": (
        {"$schema": "http://json-schema.org/draft-07/schema#", **of(q={"type": "string"})},
        {"q": "x"},
    ),
    "a choice at the top": (
        {"type": "object", "anyOf": [{**of(a={"type": "string"}), "required": ["a"]}, of(b={"type": "integer"})]},
        {"a": "x"},
    ),
    "all of several": (
        {"allOf": [{**of(a={"type": "string"}), "required": ["a"]}, of(b={"type": "integer"})]},
        {"a": "x"},
    ),
    "null or not": (of(q={"type": ["string", "null"]}), {"q": "x"}),
    "null in items": (of(q={"type": "array", "items": {"type": ["object", "null"]}}), {"q": [{}]}),
    "optional by pydantic": (of(q={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}), {"q": "x"}),
    "beside anyOf": (
        of(q={"description": "d", "title": "t", "anyOf": [{"type": "string"}, {"type": "integer"}]}),
        {"q": 1},
    ),
    "required without property": ({**of(q={"type": "string"}), "required": ["q", "gone"]}, {"q": "x", "gone": 1}),
    "properties of no object": (of(q={"type": "string", "properties": {"x": {}}, "required": ["x"]}), {"q": "x"}),
    "a list of anything": (of(q={"type": "array"}), {"q": ["x"]}),
    "defined elsewhere": (
        {**of(q={"$ref": "#/$defs/Word"}), "$defs": {"Word": {"type": "string", "description": "A word."}}},
        {"q": "x"},
    ),
    "defined by itself": (
        {**of(q={"$ref": "#/definitions/Tree"}), "definitions": {"Tree": of(left={"$ref": "#/definitions/Tree"})}},
        {"q": {"left": {}}},
    ),
    "defined at another site": (of(q={"$ref": "https://there.example/schema.json"}), {"q": {}}),
    "one value": (of(q={"const": "only"}), {"q": "only"}),
    "one of some": (of(q={"enum": ["a", "b"]}), {"q": "b"}),
    "one of numbers": (of(q={"type": "integer", "enum": [1, 2]}), {"q": 2}),
    "bounds and formats": (of(q={"type": "integer", "exclusiveMinimum": 0, "format": "uint32"}), {"q": 1}),
    "free values": (of(q={"type": "object", "additionalProperties": {"type": "string"}}), {"q": {"x": "y"}}),
    "anything": (of(q=True), {"q": "x"}),
    "named as keywords are": (
        of(definitions={"type": "string"}, enum={"type": "integer"}),
        {"definitions": "x", "enum": 1},
    ),
}


def parts(schema: Any, name: str = "") -> Iterator[dict[str, Any]]:
    """Yield every schema in a schema."""
    yield schema
    for key, value in schema.items():
        if key == "properties":
            for each in value.values():
                yield from parts(each)
        elif isinstance(value, dict):
            yield from parts(value)
        elif key in ("anyOf", "oneOf", "allOf"):
            for each in value:
                yield from parts(each)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_what_a_provider_refuses_is_not_in_a_schema_for_it(provider: Provider, name: str) -> None:
    said = schema_for(provider, SCHEMAS[name][0])

    assert said["type"] == "object"
    assert isinstance(said["properties"], dict)
    assert not said.keys() & {"oneOf", "anyOf", "allOf", "enum", "not"}
    for part in parts(said):
        assert not part.keys() & {"$schema", "$ref", "$defs", "definitions"}
        assert part.get("type") != "array" or isinstance(part["items"], dict)
        assert set(part.get("required", ())) <= set(part.get("properties", ()))
        if provider == "gemini":
            assert isinstance(part.get("type", ""), str)
            assert "anyOf" not in part or part.keys() == {"anyOf"}
            assert "properties" not in part or part["type"] == "object"
            assert not part.keys() & {"additionalProperties", "const", "oneOf", "allOf", "exclusiveMinimum"}
            assert part.get("format") in (None, "int32", "int64", "float", "double", "date-time", "enum")
            assert all(isinstance(value, str) for value in part.get("enum", ()))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_arguments_that_fit_the_true_schema_fit_what_is_said(provider: Provider, name: str) -> None:
    schema, arguments = SCHEMAS[name]

    assert fits(schema, arguments)
    # Gemini has no word for "anything": it is asked for text.
    loose = provider == "gemini" and name in ("defined by itself", "defined at another site")
    assert loose or fits(schema_for(provider, schema), arguments)


def test_descriptions_and_what_is_required_stay() -> None:
    schema = {**of(q={"type": "string", "description": "A question."}, n={"type": "integer"}), "required": ["q"]}

    for provider in PROVIDERS:
        said = schema_for(provider, schema)
        assert said["properties"]["q"]["description"] == "A question."
        assert said["required"] == ["q"]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array"}, "no object but array"),
        (of(**{"what is this?": {"type": "string"}}), "an argument is called 'what is this?'"),
        (of(q={"type": "string", "description": "x" * 70_000}), "longer than 64 KiB"),
    ],
)
def test_what_cannot_be_said_is_refused_with_the_reason(schema: dict[str, Any], why: str) -> None:
    for provider in PROVIDERS:
        with pytest.raises(Inexpressible, match=why.replace("?", r"\?")):
            schema_for(provider, schema)
