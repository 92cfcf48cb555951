"""What the schemas say of stages, made from the table of stages; run by `make schemas` it writes them."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from fusiontools.config.models import Model
from fusiontools.config.options import Flag
from fusiontools.config.stage_table import ANSWERING, STAGES, LimitOptions

SCHEMAS = Path(__file__).parents[2] / "schemas"
MODEL = {"$ref": "#/$defs/model_or_name"}
SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string"}


def recipe_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of recipes with what the options classes say of every stage, and of the limits."""
    groups: dict[str, type] = {name: spec.options for name, spec in STAGES.items()} | {"limits": LimitOptions}
    properties = schema["properties"] | {
        name: {"$ref": f"#/$defs/{name}"} for name in groups if name not in schema["properties"]
    }
    return schema | {
        "properties": properties,
        "$defs": schema["$defs"] | {name: section(group) for name, group in groups.items()},
    }


def answer_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of answers with the names of the stages that write one."""
    by = schema["properties"]["by"] | {"enum": [*ANSWERING, "panel", "solo"]}
    return schema | {"properties": schema["properties"] | {"by": by}}


def section(group: type) -> dict[str, Any]:
    """Return the schema of a section of a recipe: what can be said in it."""
    hints, properties = get_type_hints(group, localns={"Model": Model}), {}
    said = [field for field in fields(group) if field.metadata["flag"].recipe]
    for field in said:
        if field.name == "models":
            properties["model"] = MODEL
        properties[field.name] = value(said_kind(hints[field.name]), field.metadata["flag"])
    required = [field.name for field in said if has_no_default(field)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def said_kind(hint: Any) -> Any:
    """Return the type of an option; of one that may be left out, what it is when it is not."""
    return get_args(hint)[0] if get_origin(hint) in (Union, types.UnionType) else hint


def value(kind: Any, flag: Flag) -> dict[str, Any]:
    if flag.model:
        several = bounded({"type": "array", "items": MODEL}, 1, flag.most, "minItems", "maxItems")
        return several if flag.multiple else MODEL
    if flag.choices:
        return {"enum": list(flag.choices)}
    if is_dataclass(kind):
        return section(kind)
    if kind is str:
        return bounded({"type": "string"}, flag.minimum, flag.maximum, "minLength", "maxLength")
    if kind in SIMPLE:
        return bounded({"type": SIMPLE[kind]}, flag.minimum, flag.maximum, "minimum", "maximum")
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        item = {"type": "string"} if inner[0] is str else {"type": "array", "items": {"type": "string"}}
        if inner[0] is not str:
            item |= {"minItems": len(get_args(inner[0])), "maxItems": len(get_args(inner[0]))}
        return bounded({"type": "array", "items": item}, flag.minimum, flag.maximum, "minItems", "maxItems")
    assert get_origin(kind) is Mapping, kind
    if inner[1] is Any:
        return {"$ref": "#/$defs/extra"}
    item = bounded({"type": SIMPLE[inner[1]]}, flag.minimum, flag.maximum, "minimum", "maximum")
    return {"type": "object", "additionalProperties": item}


def bounded(schema: dict[str, Any], low: Any, high: Any, least: str, most: str) -> dict[str, Any]:
    return schema | ({least: low} if low is not None else {}) | ({most: high} if high is not None else {})


def has_no_default(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


MADE = {"recipe": recipe_schema, "answer": answer_schema}


def read(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


if __name__ == "__main__":
    for name, made in MADE.items():
        text = json.dumps(made(read(name)), indent=2, ensure_ascii=False)
        (SCHEMAS / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")
