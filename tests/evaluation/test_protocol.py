"""What crosses between a program and its checks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from boxes import LONG_S, any_box, checks
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.evaluation.code_grader import ProgramRunner
from fusiontools.evaluation.sandbox.protocol import pack, unpack


@any_box
@pytest.mark.parametrize(
    ("program", "check"),
    [
        ("def f(x): return [x, (1, 2.5), {3: {4}}, None, b'x', 2**80, -2**70, 1j, range(3), float('inf')]",
         "assert f('ü') == ['ü', (1, 2.5), {3: {4}}, None, b'x', 2**80, -2**70, 1j, range(3), float('inf')]"),
        ("from fractions import Fraction\nfrom decimal import Decimal\ndef f(): return Fraction(1, 3), Decimal('0.10')",
         "from fractions import Fraction as F\nfrom decimal import Decimal as D\nassert f() == (F(1, 3), D('0.1'))"),
        ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("def f(items): items.sort()", "x = [3, 1, 2]\nassert f(x) is None\nassert x == [1, 2, 3]"),
        ("def f(items, by): return sorted(items, key=by)", "assert f([1, 2, 3], lambda x: -x) == [3, 2, 1]"),
        ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]\nassert next(f(1)) == 0"),
        ("def f(n): return (str(i) for i in range(n))", "assert ','.join(f(3)) == '0,1,2'"),
        ("def f(x):\n    if x < 0: raise ValueError('no ' + str(x))",
         "try:\n    f(-1)\nexcept ValueError as e:\n    assert 'no -1' in str(e)\nelse:\n    raise AssertionError"),
        ("class Odd(ValueError): pass\ndef f(): raise Odd('x')",
         "try:\n    f()\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError"),
        ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
         "    def __len__(self): return len(self.items)\ndef f(): return Stack()",
         "s = f()\ns.push(4)\nassert len(s) == 1 and s.items == [4] and bool(s)\nt = Stack()\nassert not t"),
        ("class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)\n"
         "    def __mul__(self, n): return V(self.x * n)\n    def __eq__(self, o): return self.x == o.x\ndef f(): pass",
         "assert V(1) + V(2) == V(3)\nassert V(1) != V(2)\nassert (V(2) * 3).x == 6"),
        ("def outer(g): return lambda x: g(g(x))\ndef f(): pass", "assert outer(lambda x: x + 1)(1) == 3"),
        ("import math\nLIMIT = 7\ndef f(): return math.pi", "assert math.isclose(f(), math.pi) and LIMIT == 7"),
        ("def f(**kwargs): return kwargs", "assert f(a=1, b=[2]) == {'a': 1, 'b': [2]}"),
        ("def f(): return f", "assert f() is f\nassert callable(f())"),
    ],
)  # fmt: skip
def test_a_right_program_is_right_from_afar(box: ProgramRunner, program: str, check: str) -> None:
    assert box.run(program, checks(check), LONG_S).said == "passed"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=12,
)


def nothing_held(value: Any) -> Any:
    raise AssertionError(f"{value!r} is plain data")


@given(PLAIN)
def test_plain_data_crosses_as_it_is(value: Any) -> None:
    crossed = unpack(json.loads(json.dumps(pack(value, nothing_held))), nothing_held)

    assert crossed == value
    assert repr(type(crossed)) == repr(type(value))
