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
import threading
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
_OWN_NUMBER = "the program's own kind of number cannot be compared with plain data"
_TESTS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Remote:
    """An object of the program's.

    What is expected is never shown to it: beside plain data it is never equal, it has no order, and it is looked
    through for what it is said to contain. What comes of arithmetic with plain data (`derived`) cannot be made a
    number, or `result - 0.5` could be whatever suits. Only a class that the checks name themselves (`known`) is what
    they are about, and speaks for itself.
    """

    def __init__(self, client: CheckClient, number: int, *, known: bool) -> None:
        self.__dict__.update(_client=client, _number=number, _known=known, _derived=False)

    def __getattr__(self, name: str) -> Any:
        if name in ("_client", "_number", "_known", "_derived"):
            raise AttributeError(name)
        if self._derived and not self._known:
            raise TypeError(_OWN_NUMBER)
        return self._client.ask("__getattr__", self, name)

    def __contains__(self, item: object) -> bool:
        if self._known or isinstance(item, Remote):
            return bool(self._client.ask("__contains__", self, item))
        return any(each is item or each == item for each in self._client.ask("__iter__", self))

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Remote) and bool(self._client.ask("__instancecheck__", self, value))

    def __subclasscheck__(self, kind: type) -> bool:
        return isinstance(kind, Remote) and bool(self._client.ask("__subclasscheck__", self, kind))

    def __setattr__(self, name: str, value: Any) -> None:
        self._client.ask("__setattr__", self, name, value)

    def __hash__(self) -> int:
        return hash(self._number)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any, **kwargs: Any) -> Any:
        if self._derived and (name in REDUCING or not self._known):
            raise TypeError(_OWN_NUMBER)
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

    def __init__(self, link: Link, names: frozenset[str]) -> None:
        self._link = link
        self._names = names
        self._remotes: dict[int, Remote] = {}
        self._callbacks: list[Any] = []
        #: What an assertion in a function that the program was handed said; the program may have caught it.
        self.failed: AssertionError | None = None

    def ask(self, deed: str, remote: Remote, *args: Any, **kwargs: Any) -> Any:
        """Have something done with an object, and return what comes of it."""
        packed = [pack(each, self._hold) for each in args]
        named = {key: pack(each, self._hold) for key, each in kwargs.items()}
        self._link.send({"do": deed, "on": remote._number, "args": packed, "kwargs": named})
        while "back" in (reply := self._link.receive()):
            self._link.send(self._call_back(reply))
        for given, after in zip(args, reply.get("args", []), strict=False):
            self._change(given, after)
        if "raised" in reply:
            self._raise(deed, reply)
        value = reply["value"]
        if isinstance(value, dict) and "argument" in value:
            return args[int(value["argument"])]
        return self.unpack(value)

    def fail(self, error: BaseException | None) -> None:
        """Remember what failed where nobody sees it."""
        self.failed = self.failed or AssertionError(describe(error) if error else "a thread failed")

    def _raise(self, deed: str, reply: dict[str, Any]) -> None:
        """Raise what the program raised; only who is asked for the next item may say that there is none."""
        if deed != "__next__" and "StopIteration" in reply["raised"] and "StopIteration" not in self._names:
            raise RuntimeError("the program raised StopIteration")
        raise_packed(reply)

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
        known = not self._names.isdisjoint(map(str, data.get("kinds", ())))
        return self._remotes.setdefault(number, Remote(self, number, known=known))

    def _call_back(self, message: dict[str, Any]) -> dict[str, Any]:
        function = self._callbacks[int(message["back"])]
        args = [self.unpack(each) for each in message["args"]]
        kwargs = {key: self.unpack(each) for key, each in message["kwargs"].items()}
        value, error = attempt(function, *args, **kwargs)
        if isinstance(error, Broken):
            raise error
        if isinstance(error, AssertionError):
            self.failed = self.failed or error
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
    tree = ast.parse(job["tests"])
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    client = CheckClient(link, names | {job["entry_point"]})
    _check(job, tree, client, hello["names"])
    if client.failed is not None:
        raise client.failed
    # A test that catches everything has not seen that the program was gone.
    _write(verdict, f"failed\n{link.broken}" if link.broken else f"passed\n{nonce}")


def _check(job: dict[str, Any], tree: ast.Module, client: CheckClient, names: Mapping[str, Any]) -> None:
    entry_point = job["entry_point"]
    module = types.ModuleType("checks")
    sys.modules["checks"] = module
    space = module.__dict__
    # What the task itself gave is taken from the task, and what the language gives from the language.
    exec(compile(job["head"], "<prompt>", "exec"), space)  # noqa: S102
    own = {*space, *dir(builtins)} - {entry_point}
    wanted = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {entry_point}
    if "candidate" in wanted and hasattr(builtins, entry_point):
        own.add(entry_point)
    modules = {name: _used_module(tree, name) for name in wanted - own - {entry_point}}
    modules = {name: module for name, module in modules.items() if module is not None}
    space.update({name: client.unpack(names[name]) for name in wanted & names.keys() - own - modules.keys()})
    space.update(modules)
    if entry_point:
        if entry_point not in names:
            raise NameError(f"the program defines no {entry_point!r}")
        space["candidate"] = client.unpack(names[entry_point])
    # Its own tests are run below, and by us.
    unittest.main = lambda *args, **kwargs: None  # type: ignore[assignment]
    # What fails on a thread of the checks' has failed.
    threading.excepthook = lambda told: client.fail(told.exc_value)
    reached: set[int] = set()
    space[_MARK] = reached.add
    marking = _Marking()
    marked: ast.Module = ast.fix_missing_locations(marking.visit(tree))
    exec(compile(marked, "<tests>", "exec"), space)  # noqa: S102
    _run_uncalled(marked, space, reached)
    if marking.expected and not marking.expected & reached:
        raise AssertionError("no assertion was reached")


class _Marking(ast.NodeTransformer):
    """Has every function and every assertion say that it was reached."""

    def __init__(self) -> None:
        #: The lines of the assertions that a right program reaches: not those behind a call that is to raise.
        self.expected: set[int] = set()
        self._guarded = 0

    def visit_FunctionDef(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, self._mark(node))
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Assert(self, node: ast.Assert) -> Any:
        # One that cannot hold says that nobody is to come there.
        if not self._guarded and not isinstance(node.test, ast.Constant):
            self.expected.add(-node.lineno)
        return [self._mark(node, -1), node]

    def visit_Try(self, node: ast.Try) -> Any:
        return self._visit_guarded(node, bool(node.handlers))

    def visit_With(self, node: ast.With) -> Any:
        return self._visit_guarded(node, any("raises" in ast.unparse(each).lower() for each in node.items))

    def _visit_guarded(self, node: ast.AST, guarded: bool) -> Any:
        self._guarded += guarded
        self.generic_visit(node)
        self._guarded -= guarded
        return node

    def _mark(self, node: ast.stmt, sign: int = 1) -> ast.stmt:
        return ast.copy_location(ast.parse(f"{_MARK}({sign * node.lineno})").body[0], node)


def _used_module(tree: ast.Module, name: str) -> types.ModuleType | None:
    """Return the language's module of a name that the checks use as one without importing it."""
    if name not in sys.stdlib_module_names:
        return None
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }
    module = importlib.import_module(name) if used else None
    return module if module is not None and all(hasattr(module, each) for each in used) else None


def _run_uncalled(tree: ast.Module, space: dict[str, Any], reached: set[int]) -> None:
    """Run the tests that the text only defines: `check(candidate)`, `test_…()`, and those in classes.

    Raises:
        AssertionError: a test fails or cannot be run, or nothing that asserts was run: such checks pass nobody.
    """
    functions = [node for node in tree.body if isinstance(node, _TESTS)]
    tests = [node for node in functions if node.name == "check" or node.name.startswith("test")]
    classes = [space[node.name] for node in tree.body if isinstance(node, ast.ClassDef)]
    classes = [each for each in classes if isinstance(each, type)]
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
    holding = {node.lineno: _find_assertions(node) for node in ast.walk(tree) if isinstance(node, _TESTS)}
    holding = {line: assertions for line, assertions in holding.items() if assertions}
    outside = _find_assertions(tree).difference(*holding.values())
    if holding and not outside and not holding.keys() & reached:
        raise AssertionError("no function that asserts anything was run")


def _find_assertions(node: ast.AST) -> set[int]:
    """Return the lines on which something is asserted."""
    return {each.lineno for each in ast.walk(node) if isinstance(each, ast.Assert)}


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
    if result.skipped or result.unexpectedSuccesses:
        raise AssertionError("a test was skipped, or passed where it was to fail")


def _import_module(name: Any) -> types.ModuleType:
    """Return a module that the program imports, where it belongs to the language: checks often use it, too."""
    if not isinstance(name, str) or name.partition(".")[0] not in sys.stdlib_module_names:
        return types.ModuleType(str(name))
    return importlib.import_module(name)


def _write(file: int, text: str) -> None:
    os.write(file, text.encode("utf-8", "replace"))
