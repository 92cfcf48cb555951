"""The sandboxes in which tests run programs: none, and bubblewrap where it works."""

from __future__ import annotations

import textwrap

import pytest

from fusiontools.errors import UsageError
from fusiontools.evaluation.code_grader import ProgramRunner, find_runner
from fusiontools.evaluation.task import Code

ADDING = Code("def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n", "", "add")
RIGHT = "def add(a, b):\n    return a + b\n"


def _find() -> ProgramRunner | None:
    try:
        return find_runner()
    except UsageError:
        return None


#: For what must end by itself: no test waits for it.
LONG_S = 60.0
FOUND = _find()
OPEN = ProgramRunner()
BOXES = [
    pytest.param(OPEN, id="unsafe"),
    pytest.param(FOUND, id="bwrap", marks=pytest.mark.skipif(FOUND is None, reason="no bubblewrap that works here")),
]
every_box = pytest.mark.parametrize("box", BOXES)
#: For what no box makes a difference to: the real one where there is one.
any_box = pytest.mark.parametrize("box", [FOUND or OPEN], ids=["box"])
boxed_only = pytest.mark.skipif(FOUND is None, reason="no bubblewrap that works here")


def passes(box: ProgramRunner, program: str, code: Code = ADDING, seconds: float = LONG_S) -> bool:
    return box.run(textwrap.dedent(program), code, seconds).passed


def checks(text: str) -> Code:
    return Code(textwrap.dedent(text), "", "f")
