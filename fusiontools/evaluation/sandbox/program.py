"""The process in which a program under test runs: it loads the program, then does what the checks ask for.

Nothing of the checks ever comes here but the arguments of each call.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable
from typing import Any

from fusiontools.evaluation.sandbox.protocol import (
    ASKED,
    COMPARED,
    JOINED,
    PROGRAM,
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


def is_instance(kind: type, value: Any) -> bool:
    """Say whether a value is of a class, whatever the class's own class says."""
    return kind in type.mro(type(value))


def is_subclass(kind: type, other: type) -> bool:
    """Say whether a class is one of another's."""
    return kind in type.mro(other)


_BUILT_IN: dict[str, Callable[..., Any]] = {
    "__getattr__": getattr, "__setattr__": setattr, "__str__": str, "__repr__": repr, "__len__": len, "__iter__": iter,
    "__next__": next, "__bool__": bool, "__float__": float, "__int__": int, "__instancecheck__": is_instance,
    "__subclasscheck__": is_subclass,
    "__contains__": operator.contains,
}  # fmt: skip
#: What can be asked of an object; bound before the program can replace anything.
DEEDS = _BUILT_IN | {n: getattr(operator, n) for n in (*ASKED, *COMPARED, *JOINED) if n not in _BUILT_IN}
_CHANGEABLE = (list, dict, set, bytearray)


class ProgramServer:
    """The program's objects, under the numbers by which the checks know them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held: list[Any] = []
        self._numbers: dict[int, int] = {}

    def hold(self, value: Any) -> dict[str, Any]:
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._held)
            self._held.append(value)
        kind = value if isinstance(value, type) else type(value)
        kinds = [each.__name__ for each in type.mro(kind) if each.__module__ == PROGRAM]
        return {"at": self._numbers[id(value)], "kinds": kinds}

    def find(self, data: dict[str, Any]) -> Any:
        if "at" in data:
            return self._held[data["at"]]
        return self._callback(data["back"])

    def pack(self, value: Any) -> Any:
        return pack(value, self.hold)

    def serve(self) -> None:
        while True:
            request = self._link.receive()
            self._link.send(self._answer(request))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        done, error = attempt(self._do, request)
        if isinstance(error, Broken):
            raise error
        return pack_error(error) if error is not None else done

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        subject = self._held[request["on"]]
        args = [unpack(each, self.find) for each in request["args"]]
        kwargs = {key: unpack(each, self.find) for key, each in request["kwargs"].items()}
        value, error = attempt(DEEDS[request["do"]], subject, *args, **kwargs)
        if error is not None:
            if isinstance(error, Broken):
                raise error
            return pack_error(error) | {"args": self._changed(args)}
        # Whose own list it is that comes back is told, too.
        same = next((at for at, each in enumerate(args) if each is value and isinstance(each, _CHANGEABLE)), None)
        packed = {"argument": same} if same is not None else self.pack(value)
        return {"value": packed, "args": self._changed(args)}

    def _changed(self, args: list[Any]) -> list[Any]:
        """Return the arguments that may have been changed in place, as they are now."""
        return [self.pack(each) if isinstance(each, _CHANGEABLE) else None for each in args]

    def _callback(self, number: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            packed = {key: self.pack(each) for key, each in kwargs.items()}
            self._link.send({"back": number, "args": list(map(self.pack, args)), "kwargs": packed})
            while "do" in (reply := self._link.receive()):
                self._link.send(self._answer(reply))
            if "raised" in reply:
                raise_packed(reply)
            return unpack(reply["value"], self.find)

        return call


def main() -> None:
    """Load the program and serve it until the checks are through."""
    job, link = begin()
    module = types.ModuleType(PROGRAM)
    sys.modules[PROGRAM] = module
    _, error = attempt(lambda: exec(compile(job["program"], "<program>", "exec"), module.__dict__))  # noqa: S102
    if error is not None:
        link.send({"failed": describe(error)})
        return
    server = ProgramServer(link)
    names = {name: value for name, value in list(vars(module).items()) if not name.startswith("__")}
    link.send({"names": {name: _offer(server, value) for name, value in names.items()}})
    server.serve()


def _offer(server: ProgramServer, value: Any) -> Any:
    packed, error = attempt(server.pack, value)
    return server.hold(value) if error is not None else packed
