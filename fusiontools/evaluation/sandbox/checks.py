"""The process in which the checks of a program run: what the program made stands in for itself, far away.

Names and builtins of the checks are their own. The nonce is written only after the last test, to a file that the
program has never seen.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import os
import sys
import types
import unittest
from collections.abc import Callable, Mapping
from typing import Any

from fusiontools.evaluation.sandbox.protocol import (
    ASKED,
    COMPARED,
    JOINED,
    REDUCING,
    Broken,
    Link,
    attempt,
    begin,
    describe,
    pack,
    pack_error,
    raise_packed,
    unpack,
)

#: What a test calls first, with the number of its line.
_MARK = "__reached__"
_TESTS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Remote:
    """An object of the program's.

    What is expected is never shown to it: beside plain data it is never equal, and it has no order. What comes of
    arithmetic with plain data (`derived`) cannot be made a number, or `result - 0.5` could be whatever suits.
    """

    def __init__(self, client: CheckClient, number: int) -> None:
        self.__dict__.update(_client=client, _number=number, _derived=False)

    def __getattr__(self, name: str) -> Any:
        if name in ("_client", "_number", "_derived"):
            raise AttributeError(name)
        return self._client.ask("__getattr__", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._client.ask("__setattr__", self, name, value)

    def __hash__(self) -> int:
        return hash(self._number)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any, **kwargs: Any) -> Any:
        if self._derived and name in REDUCING:
            raise TypeError("the program's own kind of number cannot be compared with plain data")
        return self._client.ask(name, self, *args, **kwargs)

    return method


def _compare(name: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        if not isinstance(other, Remote):
            return False if name == "__eq__" else NotImplemented
        return self._client.ask(name, self, other)

    return method


def _join(name: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        value = self._client.ask(name, self, other)
        if isinstance(other, Remote):
            return value
        if not isinstance(value, Remote):
            return NotImplemented
        value.__dict__["_derived"] = True
        return value

    return method


for _names, _make in ((ASKED, _forward), (COMPARED, _compare), (JOINED, _join)):
    for _name in _names:
        setattr(Remote, _name, _make(_name))


class CheckClient:
    """The way to the program's objects."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[int, Remote] = {}
        self._callbacks: list[Any] = []

    def ask(self, deed: str, remote: Remote, *args: Any, **kwargs: Any) -> Any:
        """Have something done with an object, and return what comes of it."""
        packed = [pack(each, self._hold) for each in args]
        named = {key: pack(each, self._hold) for key, each in kwargs.items()}
        self._link.send({"do": deed, "on": remote._number, "args": packed, "kwargs": named})
        while "back" in (reply := self._link.receive()):
            self._link.send(self._call_back(reply))
        if "raised" in reply:
            raise_packed(reply)
        for given, after in zip(args, reply.get("args", []), strict=False):
            self._change(given, after)
        return self.unpack(reply["value"])

    def unpack(self, data: Any) -> Any:
        """Return a value of the program's: plain data as our own, anything else as what stands for it."""
        return unpack(data, self._find)

    def _hold(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"at": value._number}
        if not callable(value):
            raise TypeError(f"a {type(value).__name__} cannot be handed to the program")
        self._callbacks.append(value)
        return {"back": len(self._callbacks) - 1}

    def _find(self, data: dict[str, Any]) -> Any:
        if "module" in data:
            return _import_module(data["module"])
        number = int(data["at"])
        return self._known.setdefault(number, Remote(self, number))

    def _call_back(self, message: dict[str, Any]) -> dict[str, Any]:
        function = self._callbacks[int(message["back"])]
        args = [self.unpack(each) for each in message["args"]]
        kwargs = {key: self.unpack(each) for key, each in message["kwargs"].items()}
        value, error = attempt(function, *args, **kwargs)
        if isinstance(error, Broken):
            raise error
        return pack_error(error) if error is not None else {"value": pack(value, self._hold)}

    def _change(self, given: Any, after: Any) -> None:
        """Make of a list, set or dict that was handed over what the program made of it."""
        if after is None or isinstance(given, Remote):
            return
        value = self.unpack(after)
        if isinstance(given, list | bytearray) and isinstance(value, list | bytearray):
            given[:] = value
        elif isinstance(given, dict | set) and isinstance(value, type(given)):
            given.clear()
            given.update(value)


def main() -> None:
    """Run the checks, and write the nonce once they are through; what goes wrong is written in its place."""
    verdict = os.dup(1)
    job, link = begin()
    nonce = job.pop("nonce")
    sys.excepthook = lambda kind, error, trace: _write(verdict, f"failed\n{link.broken or describe(error)}")
    hello = link.receive()
    if "failed" in hello:
        _write(verdict, f"failed\nthe program does not load: {hello['failed']}")
        return
    _check(job, CheckClient(link), hello["names"])
    # A test that catches everything has not seen that the program was gone.
    _write(verdict, f"failed\n{link.broken}" if link.broken else f"passed\n{nonce}")


def _check(job: dict[str, Any], client: CheckClient, names: Mapping[str, Any]) -> None:
    entry_point = job["entry_point"]
    module = types.ModuleType("checks")
    sys.modules["checks"] = module
    space = module.__dict__
    # What the task itself gave is taken from the task, and what the language gives from the language.
    exec(compile(job["head"], "<prompt>", "exec"), space)  # noqa: S102
    own = {*space, *dir(builtins)} - {entry_point}
    space.update({name: client.unpack(packed) for name, packed in names.items() if name not in own})
    if entry_point:
        if entry_point not in names:
            raise NameError(f"the program defines no {entry_point!r}")
        space["candidate"] = space[entry_point]
    # Its own tests are run below, and by us.
    unittest.main = lambda *args, **kwargs: None  # type: ignore[assignment]
    reached: set[int] = set()
    space[_MARK] = reached.add
    tree = ast.fix_missing_locations(_Marking().visit(ast.parse(job["tests"])))
    exec(compile(tree, "<tests>", "exec"), space)  # noqa: S102
    _run_uncalled(tree, space, reached)


class _Marking(ast.NodeTransformer):
    """Has every function and every assertion say that it was reached."""

    def visit_FunctionDef(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, _mark(node))
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Assert(self, node: ast.Assert) -> Any:
        return [_mark(node), node]


def _mark(node: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.parse(f"{_MARK}({node.lineno})").body[0], node)


def _run_uncalled(tree: ast.Module, space: dict[str, Any], reached: set[int]) -> None:
    """Run the tests that the text only defines: `check(candidate)`, `test_…()`, and those in classes.

    Raises:
        AssertionError: a test fails or cannot be run, or no assertion was reached: checks that did not run pass nobody.
    """
    tests = [node for node in tree.body if isinstance(node, _TESTS) and node.name.startswith(("test", "check"))]
    classes = [space[node.name] for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in tests:
        candidate = [space["candidate"]] if node.name == "check" and "candidate" in space else []
        if node.lineno not in reached:
            _run(space[node.name], candidate) or _run(space[node.name], [])
    for node in tests:
        # One test may give another its arguments.
        if node.lineno not in reached:
            raise AssertionError(f"{node.name} was not run: nobody gives it its arguments")
    _run_unittests([each for each in classes if _is_unittest(each)])
    for each in classes:
        if each.__name__.startswith("Test") and not _is_unittest(each):
            _run_methods(each)
    assertions = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)}
    if assertions and not assertions & reached:
        raise AssertionError("no assertion was reached")


def _run(test: Callable[..., Any], args: list[Any]) -> bool:
    """Run a test, and say whether it takes these arguments."""
    try:
        inspect.signature(test).bind(*args)
    except TypeError:
        return False
    result = test(*args)
    if inspect.iscoroutine(result):
        import asyncio

        asyncio.run(result)
    return True


def _run_methods(kind: type) -> None:
    """Run a class of tests as pytest does: each method on an object of its own."""
    for name in [name for name in vars(kind) if name.startswith("test")]:
        tests = kind()
        getattr(tests, "setup_method", lambda: None)()
        if not _run(getattr(tests, name), []):
            raise AssertionError(f"{kind.__name__}.{name} was not run: nobody gives it its arguments")


def _is_unittest(kind: Any) -> bool:
    return issubclass(kind, unittest.TestCase)


def _run_unittests(classes: list[type[unittest.TestCase]]) -> None:
    result = unittest.TestResult()
    for each in classes:
        unittest.defaultTestLoader.loadTestsFromTestCase(each).run(result)
    for _, why in (*result.failures, *result.errors):
        raise AssertionError(why.strip().splitlines()[-1].removeprefix("AssertionError: "))


def _import_module(name: Any) -> types.ModuleType:
    """Return a module that the program imports, where it belongs to the language: checks often use it, too."""
    if not isinstance(name, str) or name.partition(".")[0] not in sys.stdlib_module_names:
        return types.ModuleType(str(name))
    return importlib.import_module(name)


def _write(file: int, text: str) -> None:
    os.write(file, text.encode("utf-8", "replace"))
