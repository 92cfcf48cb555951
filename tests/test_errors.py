"""The codes of failures: each that the program gives stands in its table, and the tables hold no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fusiontools
from fusiontools import errors
from fusiontools.errors import API_CODES, CODES, EXITS

PACKAGE = Path(fusiontools.__file__).parent
#: The argument that holds the code, by the function that is called.
PLACES = {"CallFailed": 0, "StageFailed": 0, "_note": 0, "ApiError": 1, "Budget": 1, "with_error": 2}


def test_codes_are_the_ones_of_the_program() -> None:
    known = {*CODES, *(code for _, code, _ in API_CODES)}
    said = {node.value for node in nodes(ast.Constant) if isinstance(node.value, str)}

    assert set(given_codes()) - known == set()
    assert known - said == set()


def given_codes() -> Iterator[str]:
    """Yield the codes that stand as such in the source; others come from tables and are found by their words alone."""
    for node in nodes(ast.Call):
        place = PLACES.get(getattr(node.func, "id", getattr(node.func, "attr", "")), len(node.args))
        if place < len(node.args):
            yield from words(node.args[place])
    for node in nodes(ast.Dict):
        entries = {
            key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)
        }
        if {"code"} < entries.keys() & {"code", "detail", "message"}:
            yield from words(entries["code"])


def words(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*words(node.body), *words(node.orelse))


def nodes(kind: type) -> Iterator[Any]:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "errors.py":
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind))


def test_every_exit_status_says_what_it_means() -> None:
    assert set(EXITS) == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
