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

_BUILT_IN: dict[str, Callable[..., Any]] = {
    "__getattr__": getattr, "__setattr__": setattr, "__str__": str, "__repr__": repr, "__len__": len, "__iter__": iter,
    "__next__": next, "__bool__": bool, "__float__": float, "__int__": int,
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
        return {"at": self._numbers[id(value)]}

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
        value = DEEDS[request["do"]](subject, *args, **kwargs)
        # Who is handed a list may sort it in place.
        after = [self.pack(each) if isinstance(each, _CHANGEABLE) else None for each in args]
        return {"value": self.pack(value), "args": after}

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
    module = types.ModuleType("program")
    sys.modules["program"] = module
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
