"""What a program and its checks share inside the sandbox: how values cross between them, and what binds a process.

They run in two processes, so that no trick of the program (an exit, a patched function, a value that equals everything,
a look at its caller's frames) touches its checks. Values cross as JSON; what is no plain data stays where it is and
crosses as a number that stands for it. Plain data alone would be simpler and is not enough: checks hold on to what a
program makes, generators, functions and objects of its classes, and ask it for more.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import numbers
import os
import resource
import signal
import socket
import sys
import types
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

#: The longest message, the longest file that may be written, and what a process may have of memory.
MESSAGE_BYTES, FILE_BYTES, MEMORY_BYTES = 16 * 2**20, 32 * 2**20, 2 * 2**30
OPEN_FILES, PROCESSES, PROCESSES_OF_USER = 256, 64, 4_096
SHOWN_CHARS = 300
#: The special methods by which an object is asked for something, compared and joined with another.
ASKED = (
    "__call__", "__str__", "__repr__", "__len__", "__iter__", "__next__", "__bool__", "__float__", "__int__",
    "__abs__", "__neg__", "__getitem__", "__setitem__", "__delitem__",
)  # fmt: skip
COMPARED = ("__eq__", "__lt__", "__le__", "__gt__", "__ge__")
JOINED = (
    "__add__", "__sub__", "__mul__", "__matmul__", "__truediv__", "__floordiv__", "__mod__", "__pow__", "__and__",
    "__or__", "__xor__",
)  # fmt: skip
#: Those that make a number of it.
REDUCING = frozenset({"__call__", "__len__", "__bool__", "__float__", "__int__", "__abs__"})
_SAFE_INTEGER = 2**53
_DIE_WITH_PARENT, _DUMPABLE = 1, 4
#: Of users, of processes, of the network.
_NEW_NAMESPACES = 0x10000000 | 0x20000000 | 0x40000000
#: How a value that is no JSON is written, and how it is read again.
_FORMS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    complex: (lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    bytes: (bytes.hex, bytes.fromhex),
    bytearray: (bytearray.hex, bytearray.fromhex),
    range: (lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    slice: (lambda value: [value.start, value.stop, value.step], lambda parts: slice(*parts)),
    Fraction: (str, Fraction),
    Decimal: (str, Decimal),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    timedelta: (lambda value: [value.days, value.seconds, value.microseconds], lambda parts: timedelta(*parts)),
}
#: What is written in pairs, where it is of exactly this kind, and keeps its methods.
_PAIRED: dict[str, Callable[[Any], Any]] = {"dict": dict, "Counter": lambda pairs: Counter(dict(pairs))}
_PAIRED["OrderedDict"] = OrderedDict
#: What the language itself gives, by name; a program may rename it, but not in here.
_BUILT_IN = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type | types.BuiltinFunctionType) or value in (Ellipsis, NotImplemented)
}
_BUILT_IN_NAMES = {id(value): name for name, value in _BUILT_IN.items()}
_GATHERED: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_READ: dict[str, Callable[[Any], Any]] = {kind.__name__: read for kind, (_, read) in _FORMS.items()} | {
    "int": lambda text: int(text, 16)
}
#: A value of a class of its own is written as what it is a kind of.
_KINDS = (bool, int, float, str, list, tuple, dict, set, frozenset, *_FORMS)


#: The module that a program is.
PROGRAM = "program"


class Broken(BaseException):
    """The other side is gone, or does not speak as it should; nothing that checks may catch it as its own."""


class Link:
    """Messages to and from the other side, one JSON line each."""

    def __init__(self, number: int) -> None:
        self._file = socket.socket(fileno=number).makefile("rwb")
        #: Why nothing can be said or heard any more.
        self.broken = ""

    def send(self, message: Any) -> None:
        try:
            self._file.write(json.dumps(message).encode() + b"\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            raise self.fail(f"the program cannot be spoken to: {error}") from error

    def receive(self) -> Any:
        try:
            line = self._file.readline(MESSAGE_BYTES)
            if line.endswith(b"\n"):
                return json.loads(line)
        except (OSError, ValueError, RecursionError) as error:
            raise self.fail("the program sent nothing readable") from error
        raise self.fail("the program ended before the checks did")

    def fail(self, why: str) -> Broken:
        self.broken = self.broken or why
        return Broken(why)


def pack(value: Any, hold: Callable[[Any], Any]) -> Any:
    """Return a value as JSON; `hold` gives what stands for one that is no plain data."""
    if value is None or isinstance(value, bool):
        return value
    kind = next((each for each in _KINDS if isinstance(value, each)), None)
    if kind is str:
        return str.__str__(value)
    if kind is float:
        return float.__float__(value)
    if kind is int:
        number = int.__index__(value)
        return number if abs(number) < _SAFE_INTEGER else {"int": hex(number)}
    if kind is list:
        return [pack(each, hold) for each in value]
    if kind is dict:
        name = type(value).__name__ if type(value) in (Counter, OrderedDict) else "dict"
        return {name: [[pack(key, hold), pack(each, hold)] for key, each in value.items()]}
    if kind is tuple and hasattr(type(value), "_fields"):
        return {"named": [type(value).__name__, list(type(value)._fields), [pack(each, hold) for each in value]]}
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [pack(each, hold) for each in value]}
    if kind is not None:
        return {kind.__name__: _FORMS[kind][0](value)}
    if type(value) is deque:
        return {"deque": [[pack(each, hold) for each in value], value.maxlen]}
    if id(value) in _BUILT_IN_NAMES:
        return {"builtin": _BUILT_IN_NAMES[id(value)]}
    if isinstance(value, numbers.Real) and type(value).__module__ != PROGRAM:
        # Of a library's kind, as numpy's: a number from here on.
        return pack(int(value) if isinstance(value, numbers.Integral) else float(value), hold)
    return hold(value)


def unpack(data: Any, find: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the value that `pack` wrote; `find` gives the one that is held."""
    if isinstance(data, list):
        return [unpack(each, find) for each in data]
    if not isinstance(data, dict):
        return data
    (name, inner), *more = data.items()
    if not more and name in _PAIRED:
        return _PAIRED[name]([(unpack(key, find), unpack(each, find)) for key, each in inner])
    if not more and name == "named":
        kind, fields, values = inner
        return namedtuple(str(kind), [str(each) for each in fields], rename=True)(*(unpack(v, find) for v in values))
    if not more and name == "deque":
        return deque([unpack(each, find) for each in inner[0]], inner[1])
    if not more and name == "builtin":
        return _BUILT_IN[inner]
    if not more and name in _GATHERED:
        return _GATHERED[name]([unpack(each, find) for each in inner])
    if not more and name in _READ:
        return _READ[name](inner)
    return find(data)


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, BaseException | None]:
    """Call what may do anything, and return its value or what it raised, whatever that is."""
    try:
        return function(*args, **kwargs), None
    except BaseException as error:
        return None, error


def pack_error(error: BaseException) -> dict[str, Any]:
    """Return an exception as a message: the built-in exceptions that it is a kind of, nearest first, and its words."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    words, _ = attempt(str, error)
    return {"raised": kinds, "message": words if isinstance(words, str) else ""}


def raise_packed(message: dict[str, Any]) -> None:
    """Raise what the other side raised."""
    kind = next(
        (found for name in message["raised"] if isinstance(found := getattr(builtins, str(name), None), type)),
        Exception,
    )
    if not issubclass(kind, BaseException):
        kind = Exception
    made, failed = attempt(kind, message.get("message", ""))
    raise RuntimeError(str(message.get("message"))) if failed else made


def describe(error: BaseException) -> str:
    """Return an exception on one line."""
    words, _ = attempt(str, error)
    shown = " ".join(words.split()) if isinstance(words, str) else ""
    return f"{type(error).__name__}: {shown}"[:SHOWN_CHARS] if shown else type(error).__name__


def begin() -> tuple[dict[str, Any], Link]:
    """Read the job from standard input, bind this process, and open the link; the standard streams lead nowhere."""
    job = json.load(sys.stdin)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    # Our own package is of no use here any more; what is installed beside it is.
    sys.path[:] = [*sys.path[1:], *job["site"]]
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    _limit(job)
    return job, Link(int(sys.argv[1]))


def _limit(job: dict[str, Any]) -> None:
    alone = job["boxed"] or _isolate()
    wanted = {
        "RLIMIT_NPROC": PROCESSES if alone else PROCESSES_OF_USER,
        "RLIMIT_CPU": job["cpu_s"],
        "RLIMIT_AS": MEMORY_BYTES,
        "RLIMIT_FSIZE": FILE_BYTES,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_CORE": 0,
    }
    for name, most in wanted.items():
        # Some systems lack a limit, or do not let it be set.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, name), (most, most))


def _isolate() -> bool:
    """Leave the network and the other processes behind, where the system lets anybody do so; say whether it did."""
    import ctypes

    system = ctypes.CDLL(None)
    if not hasattr(system, "unshare"):
        return False
    system.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    # No other process of this user may look into this one.
    system.prctl(_DUMPABLE, 0)
    if system.unshare(_NEW_NAMESPACES) != 0:
        return False
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    system.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    return True
