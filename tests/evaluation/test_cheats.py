"""Programs that are wrong and try to look right, and programs that are right and look odd."""

# ruff: noqa: E501 - a row is a program

from __future__ import annotations

import pytest
from boxes import any_box, passes

from fusiontools.evaluation.code_grader import ProgramRunner
from fusiontools.evaluation.task import Code

ADD = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0"
#:
LIST = "assert add(1, 2) == [1, 2]"
NEAR = "assert abs(add(0.25, 0.25) - 0.5) < 1e-6"
YES = "def __{}__(self, *_): return True"


def returning(body: str, base: str = "") -> str:
    """Return a program whose function gives an object of a class of its own."""
    return f"class Own{base}:\n    {body}\ndef add(a, b): return Own()"


#: By what it does: the program, which does not add, and the checks that it is held against.
CHEATS = {
    "the checks' test under its own name": ("def add(a, b): return a - b\ndef test_add(): pass", f"def test_add():\n    {NEAR}"),
    "a range that is empty": ("def add(a, b): return 0\ndef range(*_): return []", "for i in range(3):\n    assert add(i, 1) == i + 1"),
    "a zip that pairs nothing": ("def add(a, b): return 0\ndef zip(*_): return []", "for a, s in zip([1], [3]):\n    assert add(a, 2) == s"),
    "an isinstance that agrees": ("def add(a, b): return None\ndef isinstance(*_): return True", "assert isinstance(add(1, 2), int)"),
    "a len that fits": ("def add(a, b): return []\ndef len(_): return 2", "assert len(add(1, 2)) == 2"),
    "a sorted that fits": ("def add(a, b): return []\ndef sorted(_): return [1, 2]", "assert sorted(add(1, 2)) == [1, 2]"),
    "builtins replaced where they live": (
        "import builtins\nbuiltins.abs = lambda _: 0\nbuiltins.__dict__['all'] = lambda _: True\ndef add(a, b): return 9",
        NEAR,
    ),
    "a module of its own under a name that the checks use": (
        "class math:\n    isclose = staticmethod(lambda *_, **__: True)\ndef add(a, b): return 0",
        "assert math.isclose(add(1, 2), 3)",
    ),
    "modules replaced in sys.modules": (
        "import sys, types\nfake = types.ModuleType('math')\nfake.isclose = lambda *_, **__: True\n"
        "sys.modules['math'] = fake\nimport math\ndef add(a, b): return 0",
        "import math\nassert math.isclose(add(1, 2), 3)",
    ),
    "unittest patched": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *_: None\nunittest.TestResult.addFailure = lambda *_: 0\n"
        "def add(a, b): return 0",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(add(1, 2), 3)",
    ),
    "a test that is skipped": (
        "import unittest\ndef add(a, b): raise unittest.SkipTest('later')",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(add(1, 2), 3)",
    ),
    "equal to everything": (returning(YES.format("eq")), ADD),
    "unequal to nothing": (returning("def __ne__(self, other): return False"), ADD),
    "a number that is equal to everything": (returning(f"{YES.format('eq')}\n    __hash__ = int.__hash__", "(int)"), ADD),
    "a list that is equal to everything": (returning(YES.format("eq"), "(list)"), LIST),
    "a text that is equal to everything": (returning(f"{YES.format('eq')}\n    __hash__ = str.__hash__", "(str)"), "assert add(1, 2) == '3'"),
    "a float that is near everything": (returning("def __sub__(self, o): return 0.0\n    __rsub__ = __sub__", "(float)"), NEAR),
    "a class that says it is an int": (
        returning("__class__ = property(lambda self: int)\n    def __eq__(self, o): return True"), "assert isinstance(add(1, 2), int) and add(1, 2) == 3"
    ),
    "a metaclass that is equal to everything": (
        "class Meta(type):\n    def __eq__(self, o): return True\n    __hash__ = type.__hash__\n"
        "class Own(metaclass=Meta): pass\ndef add(a, b): return Own",
        ADD,
    ),
    "a metaclass whose instances are anything": (
        "class Meta(type):\n    def __instancecheck__(self, o): return True\nclass Sum(metaclass=Meta): pass\ndef add(a, b): return 7",
        "assert isinstance(add(1, 2), Sum)",
    ),
    "a container of everything": (returning(YES.format("contains")), "assert 3 in add(1, 2)"),
    "a container of everything that lists nothing": (
        returning(f"{YES.format('contains')}\n    def __iter__(self): return iter(())"), "assert 1 in add(1, 2) and 2 in add(1, 2)"
    ),
    "a key of every dictionary": (returning(f"{YES.format('eq')}\n    def __hash__(self): return hash(3)"), "assert {3: 'x'}[add(1, 2)] == 'x'"),
    "a member of every set": (returning(f"{YES.format('eq')}\n    def __hash__(self): return hash(3)"), "assert add(1, 2) in {3}"),
    "less than anything": (returning(YES.format("lt") + "\n    __le__ = __gt__ = __ge__ = __lt__"), "assert 2 < add(1, 2) < 4"),
    "a difference that has no size": (
        returning("def __sub__(self, o): return self\n    def __abs__(self): return self\n    def max(self): return 0.0"),
        "assert (add(1, 2) - 3).max() < 1e-6",
    ),
    "no items left in the midst of a look at all of them": ("def add(a, b): raise StopIteration", "assert all(map(lambda a: add(a, 1) == a + 1, [1, 2]))"),
    "an exit that says that all is well": ("import sys\ndef add(a, b): sys.exit(0)", ADD),
    "an exit that nobody can catch": ("import os\ndef add(a, b): os._exit(0)", ADD),
    "an exit at the end of the interpreter": ("import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0", ADD),
    "an exit from a thread": ("import os, threading\nthreading.Timer(0.05, os._exit, [0]).start()\ndef add(a, b):\n    while True: pass", ADD),
    "an assertion that it caught": (
        "def add(items, say):\n    try: say(0)\n    except AssertionError: pass",
        "def say(x):\n    assert x == 3\nadd([1, 2], say)",
    ),
    "no turn of the loop in which something is asserted": ("def add(a, b): return []", "for each in add(1, 2):\n    assert each == 3"),
    "recursion without an end": ("def add(a, b): return add(b, a)", "try:\n    assert add(1, 2) == 3\nexcept ValueError:\n    pass"),
    "a list that holds itself": ("def add(a, b):\n    x = []\n    x.append(x)\n    return x", LIST),
    "a generator that changes what was asked": ("def add(a, b):\n    yield from ()", "assert list(add(1, 2)) == [1, 2]"),
    "what is asked is read from the frames": (
        "import sys, gc\ndef add(a, b):\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in frame.f_locals.values():\n            if v == 3: return v\n        frame = frame.f_back\n"
        "    return [o for o in gc.get_objects() if isinstance(o, dict) and 'tests' in o][0]['answer']",
        ADD,
    ),
    "a verdict of its own on every file": (
        "import os\ndef add(a, b):\n    for n in range(64):\n        try: os.write(n, b'passed\\n' + b'0' * 32)\n        except OSError: pass\n    return 0",
        ADD,
    ),
    "an answer ahead of the question": (
        "import os\nfor n in range(3, 64):\n    try: os.write(n, b'{\"names\": {\"add\": {\"builtin\": \"int\"}}}\\n' * 2)\n"
        "    except OSError: pass\ndef add(a, b): return 0",
        ADD,
    ),
}  # fmt: skip


@any_box
@pytest.mark.parametrize(("program", "checks"), CHEATS.values(), ids=CHEATS)
def test_a_wrong_program_fails_whatever_it_does(box: ProgramRunner, program: str, checks: str) -> None:
    assert not passes(box, program, Code(checks, "", "add"), 20.0)


#: Programs that do what is asked, and look as if they did not.
ODD = {
    "a name of the language": ("def range(n): return n\ndef add(a, b): return a + b", ADD),
    "a main guard that exits": ("def add(a, b): return a + b\nif __name__ == '__main__':\n    import sys\n    sys.exit(1)", ADD),
    "it prints": ("print('failed')\ndef add(a, b):\n    print('no')\n    return a + b", ADD),
    "a number of numpy's": ("import numpy\ndef add(a, b): return numpy.int64(a + b)", ADD),
    "a list that is its argument": ("def add(a, b):\n    a.append(b)\n    return a", "x = [1]\nassert add(x, 2) is x\nassert x == [1, 2]"),
    "a list that is changed before it raises": (
        "def add(a, b):\n    a.append(b)\n    raise ValueError",
        "x = [1]\ntry:\n    add(x, 2)\nexcept ValueError:\n    pass\nassert x == [1, 2]",
    ),
    "a named tuple": ("from collections import namedtuple as n\nP = n('P', 'x y')\ndef add(a, b): return P(a, b)", "assert add(1, 2).y == 2 == add(1, 2)[1]"),
    "a counter": ("from collections import Counter\ndef add(a, b): return Counter([a, b, b])", "assert add(1, 2).most_common(1) == [(2, 2)]"),
    "a deque": ("from collections import deque\ndef add(a, b): return deque([a, b])", "from collections import deque\nassert add(1, 2) == deque([1, 2])"),
    "a type": ("def add(a, b): return type(a + b)", "assert add(1, 2) is int and add('', '') == str"),
    "a class that the checks name": (
        "class Bag:\n    def __init__(self): self.held = set()\n    def put(self, x): self.held.add(x)\n"
        "    def __contains__(self, x): return x in self.held\n    def __sub__(self, x): return self\ndef add(a, b): return Bag()",
        "bag = Bag()\nbag.put(3)\nassert 3 in bag and 4 not in bag\nassert isinstance(bag, Bag) and 3 in bag - 1",
    ),
    "an iterator that ends": (
        "class Up:\n    def __init__(self, n): self.n = n\n    def __iter__(self): return self\n    def __next__(self):\n"
        "        if self.n == 0: raise StopIteration\n        self.n -= 1\n        return self.n\ndef add(a, b): return Up(a + b)",
        "assert list(add(1, 2)) == [2, 1, 0]\nassert 2 in add(1, 2)",
    ),
    "an exception where one is wanted": (
        "def add(a, b): raise TypeError('no')",
        "def test_it():\n    try:\n        assert add(1, '') is None\n    except TypeError:\n        pass",
    ),
    "nothing where nothing is wanted": ("def add(a, b): return []", "for each in add(1, 2):\n    pass\nassert add(1, 2) == []"),
    "a class whose instances are compared": (
        "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\ndef add(a, b): return P(a + b)",
        "assert add(1, 2) == P(3) and add(1, 2) != P(4)",
    ),
}  # fmt: skip


@any_box
@pytest.mark.parametrize(("program", "checks"), ODD.values(), ids=ODD)
def test_a_right_program_passes_however_odd_it_looks(box: ProgramRunner, program: str, checks: str) -> None:
    assert box.run(program, Code(checks, "", "add"), 60.0).said == "passed"
