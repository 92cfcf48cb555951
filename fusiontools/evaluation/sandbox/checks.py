"""The side of a check on which the tests run: the program's functions stand in for themselves, far away.

The nonce is written only after the last test, to a file that the program has never seen.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import types
import unittest
from collections.abc import Callable, Mapping
from typing import Any

from fusiontools.evaluation.sandbox.program import JOINED
from fusiontools.evaluation.sandbox.protocol import (
    Broken,
    Link,
    attempt,
    begin,
    described,
    pack,
    raised,
    reraise,
    unpack,
)

#: The special methods of an object of the program's, and what they ask of it.
_ASKED = {
    "__call__": "call", "__str__": "str", "__repr__": "repr", "__len__": "len", "__iter__": "iter", "__next__": "next",
    "__bool__": "bool", "__float__": "float", "__int__": "int", "__abs__": "abs", "__neg__": "neg",
    "__getitem__": "item", "__setitem__": "put", "__delitem__": "drop", "__contains__": "in",
}  # fmt: skip
_REDUCING = frozenset({"call", "len", "bool", "float", "int", "abs"})
_COMPARED = ("eq", "lt", "le", "gt", "ge")


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
        return self._client.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._client.ask("set", self, name, value)

    def __hash__(self) -> int:
        return hash(self._number)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _asking(deed: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any, **kwargs: Any) -> Any:
        if self._derived and deed in _REDUCING:
            raise TypeError("the program's own kind of number cannot be compared with plain data")
        return self._client.ask(deed, self, *args, **kwargs)

    return method


def _comparing(deed: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        if not isinstance(other, Remote):
            return False if deed == "eq" else NotImplemented
        return self._client.ask(deed, self, other)

    return method


def _joining(deed: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        value = self._client.ask(deed, self, other)
        if isinstance(other, Remote):
            return value
        if not isinstance(value, Remote):
            return NotImplemented
        value.__dict__["_derived"] = True
        return value

    return method


for _name, _deed in _ASKED.items():
    setattr(Remote, _name, _asking(_deed))
for _deed in _COMPARED:
    setattr(Remote, f"__{_deed}__", _comparing(_deed))
for _deed in JOINED:
    setattr(Remote, f"__{_deed.rstrip('_')}__", _joining(_deed))


class CheckClient:
    """The way to the program's objects."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[int, Remote] = {}
        self._callbacks: list[Any] = []

    def ask(self, deed: str, remote: Remote, *args: Any, **kwargs: Any) -> Any:
        """Have something done with an object, and return what comes of it."""
        told = [pack(each, self._hold) for each in args]
        named = {key: pack(each, self._hold) for key, each in kwargs.items()}
        self._link.send({"do": deed, "on": remote._number, "args": told, "kwargs": named})
        while "back" in (reply := self._received()):
            self._link.send(self._called_back(reply))
        if "raised" in reply:
            reraise(reply)
        for given, after in zip(args, reply.get("args", []), strict=False):
            self._change(given, after)
        return self.unpacked(reply["value"])

    def unpacked(self, data: Any) -> Any:
        value, error = attempt(unpack, data, self._find)
        if error is not None:
            raise self._link.failed("the program sent nothing readable")
        return value

    def _received(self) -> dict[str, Any]:
        reply = self._link.receive()
        if not isinstance(reply, dict) or not reply.keys() & {"value", "raised", "back"}:
            raise self._link.failed("the program sent nothing readable")
        return reply

    def _hold(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"at": value._number}
        if not callable(value):
            raise TypeError(f"a {type(value).__name__} cannot be handed to the program")
        self._callbacks.append(value)
        return {"back": len(self._callbacks) - 1}

    def _find(self, data: dict[str, Any]) -> Any:
        if "module" in data:
            return _module(data["module"])
        number = int(data["at"])
        return self._known.setdefault(number, Remote(self, number))

    def _called_back(self, message: dict[str, Any]) -> dict[str, Any]:
        function = self._callbacks[int(message["back"])]
        args = [self.unpacked(each) for each in message["args"]]
        kwargs = {key: self.unpacked(each) for key, each in message["kwargs"].items()}
        value, error = attempt(function, *args, **kwargs)
        if isinstance(error, Broken):
            raise error
        return raised(error) if error is not None else {"value": pack(value, self._hold)}

    def _change(self, given: Any, after: Any) -> None:
        """Make of a list, set or dict that was handed over what the program made of it."""
        if after is None or isinstance(given, Remote):
            return
        value = self.unpacked(after)
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
    sys.excepthook = lambda kind, error, trace: _write(verdict, f"failed\n{link.broken or described(error)}")
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
    # What the task itself gave is taken from the task, not from the program.
    exec(compile(job["head"], "<prompt>", "exec"), space)  # noqa: S102
    given = set(space)
    space.update(
        {name: client.unpacked(told) for name, told in names.items() if name not in given or name == entry_point}
    )
    if entry_point:
        if entry_point not in names:
            raise NameError(f"the program defines no {entry_point!r}")
        space["candidate"] = space[entry_point]
    brought = set(space)
    # Its own tests are run below, and by us.
    unittest.main = lambda *args, **kwargs: None  # type: ignore[assignment]
    tree = ast.parse(job["tests"])
    exec(compile(tree, "<tests>", "exec"), space)  # noqa: S102
    _run_uncalled(tree, space, {name for name in space if name not in brought or name == "check"})


def _run_uncalled(tree: ast.Module, space: dict[str, Any], own: set[str]) -> None:
    """Run the tests that the text only defines: `check(candidate)`, `test_…()`, and those of `unittest`."""
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    suite = unittest.TestSuite()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name not in own or node.name in called:
            continue
        test = space[node.name]
        if node.name == "check" and "candidate" in space:
            test(space["candidate"])
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test") and not node.args.args:
            test()
        elif isinstance(test, type) and issubclass(test, unittest.TestCase):
            suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(test))
    result = unittest.TestResult()
    suite.run(result)
    for _, why in (*result.failures, *result.errors):
        raise AssertionError(why.strip().splitlines()[-1].removeprefix("AssertionError: "))


def _module(name: Any) -> types.ModuleType:
    """Return a module that the program imports, where it belongs to the language: checks often use it, too."""
    if not isinstance(name, str) or name.partition(".")[0] not in sys.stdlib_module_names:
        return types.ModuleType(str(name))
    return importlib.import_module(name)


def _write(file: int, text: str) -> None:
    os.write(file, text.encode("utf-8", "replace"))
