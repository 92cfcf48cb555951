"""Say a tool's schema as a provider takes it: one that it does not take fails the whole request, and is not named.

What a provider cannot express is said more loosely where a looser schema accepts all that the true one does; arguments
are held to the true one in any case, before a tool runs. What cannot be said at all is left out, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fusiontools.record import jsonl

Provider = Literal["openai", "anthropic", "gemini"]
Schema = dict[str, Any]

_PROPERTY_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_MOST_BYTES = 64 << 10
_DEEPEST = 20
_COMBINED = ("oneOf", "anyOf", "allOf")
#: What describes a schema and not a value.
_ABOUT = {"$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "$vocabulary"}
#: What holds values and no schemas.
_VALUES = {"enum", "const", "default", "examples"}
#: All that Gemini's declarations know.
_GEMINI = {
    "type", "format", "title", "description", "nullable", "enum", "maxItems", "minItems", "properties", "required",
    "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "example", "anyOf", "default", "items",
    "minimum", "maximum",
}  # fmt: skip
_GEMINI_FORMATS = {"string": {"enum", "date-time"}, "integer": {"int32", "int64"}, "number": {"float", "double"}}


class Inexpressible(ValueError):
    """A provider has no way to say this schema."""


def schema_for(provider: Provider, schema: Mapping[str, Any]) -> Schema:
    """Return a schema of arguments as this provider takes it.

    Raises:
        Inexpressible: there is none.
    """
    whole = _inlined(dict(schema), schema, ())
    if whole.get("type", "object") not in ("object", ["object"]):
        raise Inexpressible(f"its arguments are no object but {whole.get('type')}")
    said = _object_at_the_top(whole)
    said["properties"] = {name: _said(provider, value) for name, value in said["properties"].items()}
    if provider == "gemini":
        said = {key: value for key, value in said.items() if key in _GEMINI}
    for name in said["properties"]:
        if not _PROPERTY_NAME.fullmatch(name):
            raise Inexpressible(f"an argument is called {name[:70]!r}")
    if len(jsonl.dumps(said)) > _MOST_BYTES:
        raise Inexpressible("its schema is longer than 64 KiB")
    return said


def _inlined(schema: Any, root: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Put definitions where they are referred to; what refers to itself, or to elsewhere, may be anything there."""
    if isinstance(schema, list):
        return [_inlined(item, root, path) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in path or len(path) > _DEEPEST or (found := _defined(reference, root)) is None:
            return {key: value for key, value in schema.items() if key in ("title", "description")}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined({**found, **beside}, root, (*path, reference))
    said: Schema = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, Mapping):
            said[key] = {name: _inlined(each, root, path) for name, each in value.items()}
        elif key in _VALUES:
            said[key] = value
        elif key not in _ABOUT:
            said[key] = _inlined(value, root, path)
    return said


def _defined(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a reference within the schema leads to."""
    if not reference.startswith("#/"):
        return root if reference == "#" else None
    found: Any = root
    for step in reference[2:].split("/"):
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _object_at_the_top(schema: Schema) -> Schema:
    """Return the schema without a choice at its top: the properties of all forms, those required that all require."""
    said = {key: value for key, value in schema.items() if key not in (*_COMBINED, "enum", "not", "const", "if")}
    said = {key: value for key, value in said.items() if key not in ("then", "else", "dependentSchemas")}
    properties, required = dict(said.get("properties") or {}), set(said.get("required") or ())
    for part in _schemas(schema.get("allOf")):
        top = _object_at_the_top(part)
        properties = {**top["properties"], **properties}
        required |= set(top.get("required", ()))
    for key in ("anyOf", "oneOf"):
        forms = [_object_at_the_top(form) for form in _schemas(schema.get(key))]
        for form in forms:
            for name, value in form["properties"].items():
                properties[name] = value if properties.get(name, value) == value else {}
        if forms:
            required |= set.intersection(*(set(form.get("required", ())) for form in forms))
    said |= {"type": "object", "properties": properties}
    said.pop("required", None)
    if known := [name for name in properties if name in required]:
        said["required"] = known
    return said


def _said(provider: Provider, schema: Any, depth: int = 0) -> Any:
    """Return a schema inside the top one as the provider takes it."""
    if not isinstance(schema, Mapping):
        # `true` accepts everything, as an empty schema does.
        return {} if provider != "gemini" else {"type": "string"}
    if depth > _DEEPEST:
        return {}
    said: Schema = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, Mapping):
            said[key] = {name: _said(provider, each, depth + 1) for name, each in value.items()}
        elif key in _COMBINED:
            said[key] = [_said(provider, each, depth + 1) for each in _schemas(value)]
        elif key in ("items", "additionalProperties", "not") and isinstance(value, Mapping):
            said[key] = _said(provider, value, depth + 1)
        else:
            said[key] = value
    if "required" in said and not isinstance(said.get("properties"), dict):
        del said["required"]
    if _holds_arrays(said) and not isinstance(said.get("items"), Mapping):
        said["items"] = {"type": "string"} if provider == "gemini" else {}
    return _for_gemini(said) if provider == "gemini" else said


def _for_gemini(schema: Schema) -> Schema:
    """Return a schema, its parts said already, in Gemini's subset of OpenAPI."""
    said = _without_choices(schema)
    if isinstance(said.get("type"), list):
        kinds = [kind for kind in said["type"] if kind != "null"]
        said["nullable"] = len(kinds) < len(said["type"])
        said["type"] = kinds[0] if kinds else "string"
        if len(kinds) > 1:
            said = {**_about(said), "anyOf": [_for_gemini({**schema, "type": kind}) for kind in kinds]}
    if "anyOf" in said:
        return {"anyOf": said["anyOf"]}
    if "const" in said:
        said["enum"] = [said["const"]]
    if "enum" in said:
        if said.get("type", "string") == "string" and any(isinstance(value, str) for value in said["enum"]):
            said |= {"type": "string", "enum": [str(value) for value in said["enum"] if value not in (None, "")]}
        else:
            values = ", ".join(jsonl.dumps(value).decode() for value in said.pop("enum"))
            said["description"] = f"{said.get('description', '')} One of: {values}.".strip()
    said.setdefault("type", "object" if "properties" in said else "array" if "items" in said else "string")
    kind = said["type"]
    if said.get("format") not in _GEMINI_FORMATS.get(kind, ()):
        said.pop("format", None)
    if kind != "object":
        said = {key: value for key, value in said.items() if key not in ("properties", "required")}
    elif "required" in said:
        said["required"] = [name for name in said["required"] if name in said["properties"]]
    if kind != "array":
        said.pop("items", None)
    return {key: value for key, value in said.items() if key in _GEMINI and value not in ([], None)}


def _without_choices(schema: Schema) -> Schema:
    """Return the schema with one `anyOf` of what can be chosen from, and the parts of `allOf` in it."""
    said = {key: value for key, value in schema.items() if key not in _COMBINED}
    for part in schema.get("allOf", ()):
        said = {**part, **said}
    forms = [form for key in ("anyOf", "oneOf") for form in schema.get(key, ())]
    real = [form for form in forms if form.get("type") != "null"]
    if len(real) == 1:
        return {**real[0], **said, "nullable": len(real) < len(forms) or real[0].get("nullable", False)}
    return {**said, "anyOf": real} if real else said


def _holds_arrays(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "array" or (isinstance(kind, list) and "array" in kind)


def _about(schema: Mapping[str, Any]) -> Schema:
    return {key: schema[key] for key in ("title", "description") if key in schema}


def _schemas(value: Any) -> Iterable[Schema]:
    return [dict(each) for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
