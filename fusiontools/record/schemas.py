"""Check records and recipes against `schemas/`: find out fast, explain well.

`jsonschema-rs` says whether something is wrong, which is all that the good case needs; `jsonschema` is imported only
to explain a failure, because its error tree finds the fault that a person would name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from fusiontools.errors import InputError, UsageError, nearest

#: How many faults are named at once.
_SHOWN = 3


def data_dir(kind: str) -> Path:
    """Return the folder of `schemas` or `configs`: inside an installed package, else beside it in a checkout."""
    here = Path(__file__).parents[1]
    inside = here / "data" / kind
    return inside if inside.is_dir() else here.parent / kind


@functools.cache
def load(name: str) -> dict[str, Any]:
    """Return the schema `schemas/<name>.schema.json`."""
    schema: dict[str, Any] = orjson.loads((data_dir("schemas") / f"{name}.schema.json").read_bytes())
    return schema


def names() -> list[str]:
    """Return the names of all schemas."""
    return sorted(path.name.removesuffix(".schema.json") for path in data_dir("schemas").glob("*.schema.json"))


def registry() -> Any:
    """Return a registry in which every schema is found under its `$id`."""
    from referencing import Registry, Resource

    return Registry().with_resources([(load(name)["$id"], Resource.from_contents(load(name))) for name in names()])


@functools.cache
def _fast(name: str, mask: str | None = None) -> Any:
    import jsonschema_rs

    schema = load(name)
    registry = jsonschema_rs.Registry([(load(other)["$id"], load(other)) for other in names()])
    return jsonschema_rs.validator_for(schema, registry=registry, mask=mask)


@functools.cache
def check_of(name: str) -> Callable[[Any], bool]:
    """Return what says whether data fits the schema."""
    return _fast(name).is_valid  # type: ignore[no-any-return]


def fits(schema: Any, data: Any) -> bool:
    """Return whether the data fits a schema that somebody else wrote; nothing is fetched for it.

    A schema that cannot be read refuses nothing.
    """
    import jsonschema_rs

    try:
        return bool(jsonschema_rs.validator_for(schema, retriever=_fetch_nothing).is_valid(data))
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, TypeError, ValueError):
        return True


def why_not(schema: Any, data: Any) -> tuple[str, str] | None:
    """Return the JSON path and the reason of the first fault by somebody else's schema; None where the data fits.

    A schema that cannot be read refuses nothing, as in `fits`.
    """
    import jsonschema_rs

    try:
        checks = jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, TypeError, ValueError):
        return None
    try:
        checks.validate(data)
    except jsonschema_rs.ValidationError as error:
        return _said(error)
    return None


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched")


def explain(name: str, data: Any, *, quoting: bool = True) -> tuple[str, str]:
    """Return the JSON path of the first fault, and why it is one.

    Args:
        quoting: whether the reason may show the value. Without, the first fault is named, quickly, however much there
            is: for what a stranger sends.
    """
    return faults(name, data)[0] if quoting else _first_fault(name, data)


def faults(name: str, data: Any) -> list[tuple[str, str]]:
    """Return the path and the reason of the first few faults, in the order in which they stand in the data."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    errors = Draft202012Validator(load(name), registry=registry()).iter_errors(data)
    # What fits none of several forms is explained by the form that it comes nearest to.
    nearest_forms = [best_match([error]) or error for error in errors]
    nearest_forms.sort(key=lambda error: _place(data, error.absolute_path))
    found = dict.fromkeys((error.json_path, _words(error)) for error in nearest_forms)
    return list(found)[:_SHOWN] or [("$", "not accepted")]


def _place(data: Any, path: Iterable[Any]) -> list[int]:
    """Return where in the data a path leads: the number of each key and item on its way."""
    place = []
    for step in path:
        place.append(step if isinstance(step, int) else list(data).index(step))
        data = data[step]
    return place


def _first_fault(name: str, data: Any) -> tuple[str, str]:
    import jsonschema_rs

    try:
        _fast(name, "it").validate(data)
    except jsonschema_rs.ValidationError as error:
        return _said(error)
    return "$", "not accepted"


def _said(error: Any) -> tuple[str, str]:
    """Return the path and the reason of a fault that `jsonschema_rs` found."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"${path}", error.message if len(error.message) < 400 else error.message[:400] + "…"


def _words(error: Any) -> str:
    """Return the reason in words that stay short however large the offending value is."""
    shown = repr(error.instance)
    message = str(error.message)
    if len(shown) > 80 and shown in message:
        message = message.replace(shown, shown[:60] + "…")
    if error.validator == "additionalProperties" and isinstance(error.schema.get("properties"), dict):
        known = list(error.schema["properties"])
        unknown = [key for key in error.instance if key not in known]
        return f"unknown key {unknown[0]!r}{nearest(unknown[0], known)}"
    if error.validator == "anyOf" and all(branch.validator == "required" for branch in error.context):
        missing = [name for branch in error.context for name in branch.validator_value if name not in branch.instance]
        return f"has neither {' nor '.join(map(repr, missing))}"
    return message if len(message) < 400 else message[:400] + "…"


def check_record(record: Any) -> None:
    """Raise `InputError` with paths and reasons unless this is a record."""
    if not check_of("record")(record):
        [(path, reason), *more] = faults("record", record)
        raise InputError("; ".join([reason, *(f"{where}: {why}" for where, why in more)]), path)


def validate_recipe(data: Any, where: str) -> None:
    """Raise `UsageError` naming file, paths and reasons unless this is a recipe."""
    if not isinstance(data, dict):
        raise UsageError(f"{where}: a recipe is a mapping of keys such as `panel:`, `judge:` and `synth:`")
    if not check_of("recipe")(data):
        found = "; ".join(f"{path}: {reason}" for path, reason in faults("recipe", data))
        raise UsageError(f"{where}: {found}")
