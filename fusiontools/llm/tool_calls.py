"""Read the tool calls of an answer, whole or in the pieces of a stream, however a server numbers and names them.

The id decides whose piece it is, then the index, then the order. A new id begins a new call; without ids a name does
that comes after complete arguments. A name is set once: a further one is a repetition, or the rest of it as long as no
arguments have come. Two calls of one answer never leave with the same id.

Source: what OpenAI, Azure, Gemini, Ollama, vLLM, SGLang, LiteLLM, OCI and others were reported to send.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from fusiontools.llm.events import Joiner, mend, mend_all
from fusiontools.llm.rewrite import SIGNATURES
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.record.types import ToolCall

#: How many levels a record and a server's event put around it, amply.
_AROUND = 40


def read_calls(proposed: Iterable[Mapping[str, Any]]) -> list[ToolCall]:
    """Return the calls of a whole answer in the form of OpenAI, with ids and arguments where a server has none."""
    calls: list[ToolCall] = []
    for call in proposed:
        function = _function_of(call)
        read: Any = {
            "id": _free_id(_text(call.get("id")) or f"call_{len(calls)}", {known["id"] for known in calls}),
            "type": "function",
            "function": {"name": _text(function.get("name")), "arguments": mend(_arguments(function)) or "{}"},
        }
        calls.append(read | _beside(call))
    return calls


class _StreamedCall(Struct):
    """A call as far as it has come, and how much of it has been passed on."""

    position: int
    id: str
    given_id: str
    index: Any
    name: str = ""
    arguments: str = ""
    beside: dict[str, Any] = {}
    #: Whether `{}` came first: the arguments of some, and only a beginning to others.
    empty: bool = False
    begun: bool = False
    #: Whether its name is one of those that may be called, and so is whole.
    known: bool = False
    unsaid_name: str = ""
    unsaid: str = ""
    unsaid_beside: dict[str, Any] = {}
    joiner: Joiner = field(default_factory=Joiner)

    @property
    def complete(self) -> bool:
        """Whether the arguments are whole."""
        if not self.arguments.rstrip().endswith("}"):
            return self.empty and not self.arguments
        try:
            return isinstance(jsonl.loads(self.arguments), dict)
        except ValueError:
            return False

    def take(self, name: str, arguments: str, beside: Mapping[str, Any]) -> None:
        """Add a piece."""
        if name and name != self.name and not (self.arguments or self.known):
            more = name.removeprefix(self.name)
            self.name, self.unsaid_name = self.name + more, self.unsaid_name + more
        self.beside |= beside
        self.unsaid_beside |= beside
        if arguments == "{}" and not self.arguments:
            self.empty = True
        elif not (arguments == self.arguments and self.complete):
            self._add(self.joiner.join(arguments))

    def whole(self) -> ToolCall:
        """Return the call as it stands on the wire."""
        function = {"name": self.name, "arguments": self.arguments or "{}"}
        call: Any = {"id": self.id, "type": "function", "function": function}
        return call | self.beside  # type: ignore[no-any-return]

    def _add(self, arguments: str) -> None:
        self.arguments += arguments
        self.unsaid += arguments

    def say(self, *, begin: bool = False, end: bool = False) -> dict[str, Any] | None:
        """Return what has not been passed on, as OpenAI spells it."""
        if not (self.begun or begin or end):
            return None
        if end:
            self._add(self.joiner.finish() or ("" if self.arguments else "{}"))
        name, arguments, beside = self.unsaid_name, self.unsaid, self.unsaid_beside
        self.unsaid_name, self.unsaid, self.unsaid_beside = "", "", {}
        if self.begun:
            if not (name or arguments or beside):
                return None
            more = {"name": name} if name else {}
            return {"index": self.position, "function": {**more, "arguments": arguments}, **beside}
        self.begun = True
        function = {"name": self.name, "arguments": arguments}
        return {"index": self.position, "id": self.id, "type": "function", "function": function, **beside}


class CallMerger:
    """The calls of one stream.

    Args:
        names: what may be called, where that is known: a call begins when its name is whole.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = names
        self._calls: list[_StreamedCall] = []

    def take(self, pieces: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add pieces; returns what can be passed on: `index` on each, `id` and `type` on the first of each call."""
        said: list[dict[str, Any]] = []
        for piece in pieces:
            function = _function_of(piece)
            given_id, name, arguments = _text(piece.get("id")), _text(function.get("name")), _arguments(function)
            call = self._find(given_id, piece.get("index"), name, arguments)
            if call is None:
                # Whoever comes next, the name of the one before is whole.
                said += [told for told in (call.say(begin=not call.begun) for call in self._calls) if told]
                call = self._begin(given_id, piece.get("index"))
            call.take(name, arguments, _beside(piece))
            call.known = call.name in self._names
            if (
                told := call.say(begin=bool(call.name and (call.known or call.arguments or not self._names)))
            ) is not None:
                said.append(told)
        return said

    def finish(self) -> list[dict[str, Any]]:
        """Return what has not been passed on when the stream is over."""
        return [told for told in (call.say(end=True) for call in self._calls) if told]

    def calls(self) -> list[ToolCall]:
        """Return all calls, in the order in which they began."""
        return [call.whole() for call in self._calls]

    def _begin(self, given_id: str, index: Any) -> _StreamedCall:
        position = len(self._calls)
        unique = _free_id(given_id or f"call_{position}", {call.id for call in self._calls})
        call = _StreamedCall(position, unique, given_id, index)
        self._calls.append(call)
        return call

    def _find(self, given_id: str, index: Any, name: str, arguments: str) -> _StreamedCall | None:
        """Return the call that a piece goes on with; None where it begins a new one."""
        latest = self._latest(given_id, index, name)
        if latest is None:
            return None
        if given_id and given_id != latest.given_id:
            return latest if _goes_on_under_another_id(latest, name, arguments) else None
        if latest.known and name in self._names and name != latest.name and not given_id:
            return None
        if not name or not latest.complete:
            return latest
        if name != latest.name:
            return None
        if given_id and (not latest.arguments or arguments == latest.arguments):
            return latest  # repeated, or what came first was no more than a placeholder
        return None if arguments.strip() else latest

    def _latest(self, given_id: str, index: Any, name: str) -> _StreamedCall | None:
        """Return the last call with this id, else with this index, else where neither is said the last of all."""
        for call in reversed(self._calls):
            if given_id and call.given_id == given_id and (index is None or call.index in (None, index) or not name):
                return call
        for call in reversed(self._calls):
            if index is None or call.index == index:
                return call
        # What has no id and no name begins nothing.
        return self._calls[-1] if self._calls and not (given_id or name) else None


def _goes_on_under_another_id(latest: _StreamedCall, name: str, arguments: str) -> bool:
    """Return whether a piece with a new id belongs to this call: some servers say ids late, or make one up a piece."""
    if latest.complete:
        return False
    if not latest.given_id:
        return name in ("", latest.name)
    return not name and bool(arguments and latest.arguments)


def _function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is called; some gateways put it beside the id, as items of the Responses API have it."""
    if (custom := call.get("custom")) and isinstance(custom, dict):
        return {"name": custom.get("name"), "arguments": {"input": custom.get("input") or ""}}
    return call.get("function") or (call if "name" in call and "function" not in call else {})


def _free_id(wanted: str, taken: set[str]) -> str:
    """Return an id that no other call of the answer has."""
    free, count = wanted, 2
    while free in taken:
        free, count = f"{wanted}_{count}", count + 1
    return free


def _beside(call: Mapping[str, Any]) -> dict[str, Any]:
    holders = (call.get("function") or {}, call)
    found = {
        name: mend_all(said)
        for holder in holders
        for name, kind in SIGNATURES.items()
        if isinstance(said := holder.get(name), kind) and said
    }
    return {name: said for name, said in found.items() if _can_be_written(said)}


def _can_be_written(said: Any) -> bool:
    """Return whether a record, and what a server puts around it, can hold this: neither too deep nor too large."""
    for _ in range(_AROUND):
        said = [said]
    try:
        jsonl.dumps(said)
    except TypeError:
        return False
    return True


def _text(said: Any) -> str:
    if said is not None and not isinstance(said, str):
        raise TypeError("a tool call's id and name are text")
    return mend(said or "")


def _arguments(function: Mapping[str, Any]) -> str:
    """Return a call's arguments as JSON text, which some servers send as the object itself."""
    said = function.get("arguments")
    return said if isinstance(said, str) else "" if said is None else jsonl.dumps(said).decode()
