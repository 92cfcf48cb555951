"""The table of failures: complete, and without a code that nothing uses."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import fusiontools
from fusiontools.errors import FAILURE_CODES, CallCode, CallStatus, RecordCode, StageCode

ROOT = Path(fusiontools.__file__).parent


def names(union: Any) -> set[str]:
    """Return the words of a `Literal`, or of a union of some."""
    return {word for part in get_args(union) for word in (names(part) if get_args(part) else {part})}


def test_every_code_has_one_meaning() -> None:
    codes = {*names(CallStatus), *names(StageCode), *names(RecordCode)}

    assert FAILURE_CODES.keys() == codes
    assert names(CallCode) < names(CallStatus)
    assert not names(CallStatus) & names(StageCode)


def test_every_code_is_used() -> None:
    modules = [path for path in ROOT.rglob("*.py") if path.name != "errors.py"]
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    used = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    by_status = {code for code, row in FAILURE_CODES.items() if row.statuses}

    assert FAILURE_CODES.keys() - used - by_status == set()


def test_an_http_status_has_one_code() -> None:
    statuses = [status for row in FAILURE_CODES.values() for status in row.statuses]

    assert len(statuses) == len(set(statuses))
