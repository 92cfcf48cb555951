"""Put a JSON schema into the part of the language that Anthropic's structured outputs know.

Every object is closed; bounds on numbers, lengths and counts are left out, as Anthropic's own libraries do: they say
less about the answer's shape than about its values, which whoever asked checks anyway.

Source: Anthropic's documentation, "Structured outputs", "JSON Schema limitations".
"""

from __future__ import annotations

from typing import Any

_BOUNDS_TEXT = """
minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems minProperties
maxProperties contains minContains maxContains $schema $id examples
"""
#: Without these a schema means something else.
_INEXPRESSIBLE_TEXT = """
patternProperties propertyNames unevaluatedProperties dependentSchemas dependentRequired prefixItems not if then else
oneOf $dynamicRef
"""
_FORMATS_TEXT = "date-time time date duration email hostname uri ipv4 ipv6 uuid"
_BOUNDS, _INEXPRESSIBLE, _FORMATS = (
    frozenset(text.split()) for text in (_BOUNDS_TEXT, _INEXPRESSIBLE_TEXT, _FORMATS_TEXT)
)
_TABLES = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")


def closed(schema: Any) -> dict[str, Any] | None:
    """Return the schema as structured outputs take it; None where they cannot say what it says."""
    try:
        _refuse_circles(schema, schema, (), set())
        return _closed(schema)
    except (AttributeError, TypeError, ValueError):
        return None


def _closed(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict) or not schema or _INEXPRESSIBLE & schema.keys():
        raise ValueError
    kept = {name: value for name, value in schema.items() if name not in _BOUNDS}
    for table in _TABLES:
        if table in kept:
            kept[table] = {name: _closed(value) for name, value in kept[table].items()}
    for several in _LISTS:
        if several in kept:
            kept[several] = [_closed(value) for value in kept[several]]
    if "items" in kept:
        kept["items"] = _closed(kept["items"])
    if kept.get("minItems", 0) not in (0, 1):
        del kept["minItems"]
    if kept.get("format") not in {None, *_FORMATS}:
        del kept["format"]
    kind = kept.get("type")
    if kind == "object" or "properties" in kept or (isinstance(kind, list) and "object" in kind):
        if not kept.get("properties") or isinstance(kept.get("additionalProperties"), dict):
            # An object whose keys nobody names cannot be asked for.
            raise ValueError
        kept["additionalProperties"] = False
    return kept


def _refuse_circles(schema: Any, root: Any, path: tuple[str, ...], sound: set[str]) -> None:
    """Raise `ValueError` where a schema holds itself, or points out of itself."""
    if isinstance(schema, list):
        for value in schema:
            _refuse_circles(value, root, path, sound)
    if not isinstance(schema, dict):
        return
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref not in sound:
        if ref in path or not ref.startswith("#/"):
            raise ValueError
        target = root
        for step in ref[2:].split("/"):
            target = target.get(step)
        _refuse_circles(target, root, (*path, ref), sound)
        sound.add(ref)
    for name, value in schema.items():
        if name not in ("$defs", "definitions", "enum", "const"):
            _refuse_circles(value, root, path, sound)
