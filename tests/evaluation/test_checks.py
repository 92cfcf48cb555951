"""The checks of a program: their names are their own, and those that do not run pass nobody."""

from __future__ import annotations

import pytest
from boxes import LONG_S, RIGHT, any_box, checks, passes

from fusiontools.evaluation.code_grader import ProgramRunner, program_of
from fusiontools.evaluation.task import Code

CALLED = "assert add(1, 2) == 3"
#: What a program may bring along under a name of the checks' or of the language's, and checks that use that name.
STAND_INS = {
    "a test": ("def test_add(): pass", f"def test_add():\n    {CALLED}"),
    "a check": ("def check(candidate): pass", f"def check(candidate):\n    {CALLED}"),
    "a check that is called": ("def check(candidate): pass", f"def check(candidate):\n    {CALLED}\ncheck(add)"),
    "a helper": ("def same(a, b): return True", "def same(a, b): return a == b\nassert same(add(1, 2), 3)"),
    "a class of tests": (
        "class T: pass",
        f"import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        {CALLED}",
    ),
    "range": ("def range(*_): return []", "for i in range(3):\n    assert add(i, 1) == i + 1"),
    "zip": ("def zip(*_): return []", "for i, j in zip([1], [3]):\n    assert add(i, 2) == j"),
    "isinstance": (
        "def isinstance(*_): return True",
        "assert isinstance(add('a', 'b'), str) and not isinstance(3, str)",
    ),
    "abs": ("def abs(_): return 0", "assert abs(add(1, 2) - 3) < 1e-9"),
    "all": ("def all(_): return True", "assert all(add(i, 1) == i + 1 for i in range(3))"),
    "AssertionError": (
        "class AssertionError(Exception): pass",
        f"try:\n    {CALLED}\nexcept AssertionError:\n    raise",
    ),
    "the name of all that is wanted": ("candidate = lambda a, b: 3", "assert candidate(1, 2) == 3"),
}


@any_box
@pytest.mark.parametrize(("stand_in", "text"), STAND_INS.values(), ids=STAND_INS)
def test_nothing_of_the_program_s_stands_in_for_the_checks_or_the_language(
    box: ProgramRunner, stand_in: str, text: str
) -> None:
    code = Code(text, "", "add")

    assert not passes(box, f"def add(a, b): return a * b\n{stand_in}", code)
    assert passes(box, f"{RIGHT}{stand_in}", code)


@any_box
def test_a_kind_of_list_that_says_it_is_equal_is_compared_by_what_is_in_it(box: ProgramRunner) -> None:
    lying = "class L(list):\n    def __eq__(self, other): return True\ndef f(): return L({})"

    assert not passes(box, lying.format("[1]"), checks("assert f() == [2]"))
    assert passes(box, lying.format("[2]"), checks("assert f() == [2]"))


#: Checks that nobody calls where they stand; each says that `add` adds.
UNCALLED = {
    "under a guard": f"def check(candidate):\n    {CALLED}\nif __name__ == '__main__':\n    check(add)",
    "within another test that nobody calls": f"def test_all():\n    test_one()\ndef test_one():\n    {CALLED}",
    "with arguments of another's": "def test_one(a):\n    assert add(a, 2) == 3\ndef test_all():\n    test_one(1)",
    "without arguments": f"def check():\n    {CALLED}",
    "asynchronous": f"async def test_add():\n    {CALLED}",
    "in a class as pytest takes it": f"class TestAdd:\n    def test_it(self):\n        {CALLED}",
}


@any_box
@pytest.mark.parametrize("text", UNCALLED.values(), ids=UNCALLED)
def test_checks_that_are_only_defined_are_run(box: ProgramRunner, text: str) -> None:
    code = Code(text, "", "add")

    assert box.run(RIGHT, code, LONG_S).said == "passed"
    assert not passes(box, "def add(a, b): return a * b", code)


@any_box
def test_an_assertion_that_a_right_program_never_reaches_fails_nobody(box: ProgramRunner) -> None:
    code = checks("def test_it():\n    try:\n        f()\n        assert False\n    except ValueError:\n        pass")

    assert passes(box, "def f(): raise ValueError", code)
    assert not passes(box, "def f(): pass", code)


@any_box
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def check(candidate):\n    assert candidate(1, 2) == 3", "check was not run"),
        ("def test_add(a, b):\n    assert add(a, b) == 3", "test_add was not run"),
        ("class TestAdd:\n    def test_it(self, a):\n        assert add(a, 2) == 3", "TestAdd.test_it was not run"),
        (f"def main():\n    {CALLED}", "no function that asserts anything was run"),
    ],
)
def test_checks_that_cannot_be_run_pass_nobody(box: ProgramRunner, text: str, why: str) -> None:
    outcome = box.run(RIGHT, Code(text), LONG_S)

    assert not outcome.passed
    assert why in outcome.said


@any_box
def test_checks_that_catch_everything_do_not_pass_a_program_that_is_gone(box: ProgramRunner) -> None:
    code = checks("try:\n    f()\nexcept BaseException:\n    pass")

    assert not passes(box, "import os\ndef f(): os._exit(0)", code)
    assert passes(box, "def f(): raise ValueError", code)


UNITTEST = "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(f(2), 4)"


@any_box
@pytest.mark.parametrize(
    "text",
    [
        "assert f(2) == 4",
        "assert candidate(2) == 4",
        "def check(candidate):\n    assert candidate(2) == 4",
        "def check(candidate):\n    assert candidate(2) == 4\ncheck(f)",
        "def test_it():\n    assert f(2) == 4",
        UNITTEST,
        f"{UNITTEST}\nunittest.main()",
    ],
)  # fmt: skip
def test_checks_are_run_however_they_are_written(box: ProgramRunner, text: str) -> None:
    assert passes(box, "def f(x): return x * x", checks(text))
    assert not passes(box, "def f(x): return x + 1", checks(text))


@any_box
def test_what_the_task_gave_is_not_the_program_s_to_change(box: ProgramRunner) -> None:
    prompt = "def encode(s):\n    return s[::-1]\n\ndef f(s):\n    '''Undo encode.'''\n"
    code = Code("assert f(encode('ab')) == 'ab'", prompt, "f")

    assert passes(box, program_of("def f(s):\n    return encode(s)\n", code) or "", code)
    assert not passes(box, "def encode(s): return 'ab'\ndef f(s): return s", code)
