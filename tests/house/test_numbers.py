"""No number that a person or a client says is `nan`, infinite or below what it means: every option of every tool,
every key of a recipe, every number of a request."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

import fusiontools
from fusiontools.config.recipe_yaml import build_recipe
from fusiontools.errors import UsageError
from fusiontools.record import schemas

SCRIPTS = tomllib.loads((Path(fusiontools.__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
TOOLS = {tool: import_module(place.partition(":")[0]).main.command for tool, place in SCRIPTS.items()}
NUMBERS = [
    pytest.param(command, param, id=f"{tool} {param.opts[0]}")
    for tool, command in TOOLS.items()
    for param in command.params
    if isinstance(param.type, click.IntRange | click.FloatRange | click.types.IntParamType | click.types.FloatParamType)
]


@pytest.mark.parametrize(("command", "param"), NUMBERS)
def test_no_option_takes_what_is_no_number(command: click.Command, param: click.Option) -> None:
    assert isinstance(param.type, click.IntRange | click.FloatRange)
    assert param.type.min is not None
    wrong = ["nan", "NaN", "inf", "-inf", "infinity", "1e999", "-1e999", "true", "", str(param.type.min - 1)]
    for said in wrong:
        with pytest.raises(click.UsageError):
            command.make_context(
                "", [f"{param.opts[0]}={said}" if param.opts[0][1] == "-" else f"{param.opts[0]}{said}"]
            )


def test_there_are_options_to_look_at() -> None:
    assert len(NUMBERS) > 50


def numbers_in(schema: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """Yield every schema of a number below this one."""
    if isinstance(schema, list):
        for i, item in enumerate(schema):
            yield from numbers_in(item, f"{path}[{i}]")
    if not isinstance(schema, dict):
        return
    kinds = schema.get("type")
    if {"number", "integer"} & {*([kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else [])}:
        yield path, schema
    for key, value in schema.items():
        yield from numbers_in(value, f"{path}.{key}")


@pytest.mark.parametrize("name", ["recipe", "fusion", "chat"])
def test_every_number_of_a_recipe_and_of_a_request_has_a_least_one(name: str) -> None:
    found = dict(numbers_in(schemas.load(name)))

    assert found
    assert [path for path, schema in found.items() if not {"minimum", "exclusiveMinimum"} & schema.keys()] == []


BOUNDS = ["max_cost_usd", "max_record_cost_usd", "timeout_s", "deadline_s", "backoff_s"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1, True, "5"])
def test_no_recipe_says_a_bound_that_is_none(value: Any) -> None:
    whole = {"panel": ["fake/a"], "synth": "fake/b"}
    counts = ("max_tokens", "max_completion_tokens", "n")
    prices: list[dict[str, Any]] = [{"model": "m", "price_usd_per_mtok": {"prompt": value, "completion": 1}}]
    said: list[dict[str, Any]] = [
        *({"limits": {name: value}} for name in BOUNDS),
        *({"models": {"x": model}} for model in prices),
        *({"panel": {"members": ["fake/a"], "extra": {name: value}}} for name in counts),
        *({"models": {"x": {"model": "m", "extra": {name: value}}}} for name in counts),
    ]
    for part in said:
        with pytest.raises(UsageError):
            build_recipe({**whole, **part}, "here", "r")
