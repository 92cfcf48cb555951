"""The table of failures: complete, and without a code that nothing uses."""

from __future__ import annotations

import ast
import shlex
import sys
from pathlib import Path
from typing import Any, get_args

from parsed import MODULES
from parsed import nodes as nodes_of

from fusiontools import errors
from fusiontools.errors import EXITS, FAILURE_CODES, CallCode, CallStatus, RecordCode, StageCode, install_line
from fusiontools.server.protocols.exchange import API_CODES


def names(union: Any) -> set[str]:
    """Return the words of a `Literal`, or of a union of some."""
    return {word for part in get_args(union) for word in (names(part) if get_args(part) else {part})}


def test_every_code_has_one_meaning() -> None:
    codes = {*names(CallStatus), *names(StageCode), *names(RecordCode)}

    assert FAILURE_CODES.keys() == codes
    assert names(CallCode) < names(CallStatus)
    assert not names(CallStatus) & names(StageCode)


def nodes(*but: str) -> list[ast.AST]:
    """Return every node of the program, of all modules but these."""
    return [node for module in MODULES if module not in but for node in nodes_of(module)]


def test_every_code_is_used() -> None:
    parts = nodes("errors")
    used = {node.value for node in parts if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    by_status = {code for code, row in FAILURE_CODES.items() if row.statuses}

    assert FAILURE_CODES.keys() - used - by_status == set()


def test_an_http_status_has_one_code() -> None:
    statuses = [status for row in FAILURE_CODES.values() for status in row.statuses]

    assert len(statuses) == len(set(statuses))


def test_every_exit_status_says_what_it_means() -> None:
    assert set(EXITS) == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_every_refusal_of_the_server_is_in_its_table() -> None:
    listed = {code for _, code, _ in API_CODES}
    calls = [node for node in nodes() if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError"]
    given = {call.args[1].value for call in calls if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)}

    assert given
    assert given - listed - FAILURE_CODES.keys() == set()


def test_an_extra_that_is_missing_is_hinted_at_with_a_command_that_this_installation_can_run() -> None:
    words = shlex.split(install_line("serve"))

    folder, _, extra = words[-1].rpartition("[")
    assert sys.executable in words
    assert extra == "serve]"
    # Tests run on a checkout, or on what was built from one: nothing that only a registry could know.
    assert (Path(folder) / "pyproject.toml").is_file() or "file://" in folder
