"""The tools of a run: opened and closed once, each call checked, made once, kept, and answered whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import InputError, UsageError
from fusiontools.record import jsonl
from fusiontools.record.schemas import why_not
from fusiontools.tools.provider_schema import Inexpressible, Provider, schema_for
from fusiontools.tools.tool import Tool, ToolContext, ToolResult, ToolRun, ToolStatus, bounded, known_names

#: What the model is shown of its own call that could not be read.
_QUOTED_CHARS = 800
_SCHEMA_CHARS = 4000
#: The third equal call in a row is not made.
_EQUAL_IN_A_ROW = 3
_OFFLINE = "Not run: the journal holds no such run, and --offline makes none"


class ResultStore(Protocol):
    """Where results are kept: the journal, for `--replay` and for a batch that was killed."""

    async def get(self, key: bytes) -> bytes | None:
        """Return what was kept under this key; None where nothing was, or nothing is to be replayed."""

    async def put(self, key: bytes, kept: bytes, name: str) -> None:
        """Keep what a tool of this name gave; returns when it is safe."""


class _Planned(Struct, frozen=True):
    """A call that was read: what to run under which keys, or the run that it is already."""

    tool: Tool
    arguments: Mapping[str, Any]
    shared: bytes
    own: bytes

    @property
    def flight(self) -> bytes:
        """Under which key equal calls wait for one another."""
        return self.shared if self.tool.repeatable else self.own


class Toolbox:
    """Tools by their names.

    Args:
        tools: those that need no opening.
        opens: what is opened with the box and gives tools as long as it is open.
        store: where results are kept and found.
        offline: whether only kept results are given.

    Raises:
        UsageError: two tools have one name.
    """

    def __init__(
        self,
        tools: Sequence[Tool] = (),
        opens: Sequence[AbstractAsyncContextManager[Sequence[Tool]]] = (),
        *,
        store: ResultStore | None = None,
        offline: bool = False,
    ) -> None:
        self.store = store
        self.offline = offline
        self._tools: dict[str, Tool] = {}
        self._declared: dict[tuple[Provider, frozenset[str] | None], tuple[list[dict[str, Any]], dict[str, str]]] = {}
        self._opens = opens
        self._stack = AsyncExitStack()
        self._flights: dict[bytes, asyncio.Future[ToolResult]] = {}
        self.add(tools)

    async def __aenter__(self) -> Toolbox:
        async with AsyncExitStack() as stack:
            for opening in self._opens:
                self.add(await stack.enter_async_context(opening))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    def leaves(self, name: str) -> bool:
        """Return whether what a tool of this name is told may leave this machine."""
        tool = self._tools.get(name)
        return tool is None or "machine" not in tool.reach

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools, by name, so that equal boxes are declared equally."""
        return tuple(self._tools[name] for name in sorted(self._tools))

    def declarations(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the tools, or those of these names, as OpenAI's `tools`."""
        return [tool.declaration() for tool in self.tools if names is None or tool.name in names]

    def declared_for(
        self, provider: Provider, names: Sequence[str] | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Return the tools as this provider takes their schemas, and why the others are left out, by true name.

        It is the same for every response, so it is made once; nobody changes it.
        """
        asked = (provider, None if names is None else frozenset(names))
        if asked not in self._declared:
            declared, left_out = [], {}
            for tool in self.tools:
                if names is None or tool.name in names:
                    try:
                        declared.append(replace(tool, parameters=schema_for(provider, tool.parameters)).declaration())
                    except Inexpressible as error:
                        left_out[tool.true_name or tool.name] = str(error)
            self._declared[asked] = declared, left_out
            for name, why in left_out.items():
                logging.getLogger("fusiontools").warning(
                    "the tool %s is not given to models of %s: %s", name, provider, why
                )
        return self._declared[asked]

    def key(self, tool: Tool, arguments: Mapping[str, Any], epoch: int = 0) -> bytes:
        """Return what a result is kept under: everything that decides it."""
        asked = ["tool", tool.true_name or tool.name, tool.settings, arguments, epoch]
        return hashlib.sha256(jsonl.canonical(asked)).digest()[:16]

    async def run(self, name: str, arguments: str | Mapping[str, Any], context: ToolContext) -> ToolRun:
        """Run one call; see `run_all`."""
        [run] = await self.run_all([(name, arguments)], context)
        return run

    async def run_all(
        self, calls: Sequence[tuple[str, str | Mapping[str, Any]]], context: ToolContext
    ) -> list[ToolRun]:
        """Run the calls of one message, and return a run for each, in their order.

        Calls that change nothing are made at once, others one after another. A call that is wrong, forbidden or the
        same for the third time in a row is answered without being run.

        Args:
            calls: names, and arguments as the model wrote them or as an object.
        """
        planned = [self._plan(name, arguments, context) for name, arguments in calls]
        if all(isinstance(call, ToolRun) or call.tool.repeatable for call in planned):
            runs = list(await asyncio.gather(*(self._answer(call, context) for call in planned)))
        else:
            runs = [await self._answer(call, context) for call in planned]
        for call, run in zip(planned, runs, strict=True):
            # A failure repeats the call's own words, and what a command says the model can make it say.
            if isinstance(call, _Planned) and run.result.status == "ok" and self.leaves(call.tool.name):
                context.note(run.result, call.arguments)
        return runs

    def _plan(self, name: str, arguments: str | Mapping[str, Any], context: ToolContext) -> _Planned | ToolRun:
        tool = self._tools.get(name)
        if tool is None:
            why = f"there is no tool {name[:100]!r}; there are: {known_names(self._tools) or 'none'}"
            return _rejected(name[:100], arguments, why)
        true_name = tool.true_name or name
        try:
            read = read_arguments(arguments, tool)
        except InputError as error:
            return _rejected(true_name, arguments, error.message)
        shared = self.key(tool, read, context.epoch)
        context.last = (shared, context.last[1] + 1 if context.last[0] == shared else 1)
        if context.last[1] >= _EQUAL_IN_A_ROW:
            why = "this very call was made just now, and its result stands above; do something else, or answer"
            return replace(_rejected(true_name, read, why, "refused"), repeats=True)
        if tool.check is not None and (why_forbidden := tool.check(read, context)) is not None:
            return _rejected(true_name, read, why_forbidden, "refused")
        if tool.repeatable:
            own = _key_within(shared, [context.record])
        else:
            nth = context.made[shared] = context.made.get(shared, 0) + 1
            own = _key_within(shared, [context.record, *context.place, nth])
        return _Planned(tool, read, shared, own)

    async def _answer(self, call: _Planned | ToolRun, context: ToolContext) -> ToolRun:
        run = call if isinstance(call, ToolRun) else await self._result_of(call, context)
        if context.on_run is not None:
            await context.on_run(run)
        return run

    async def _result_of(self, call: _Planned, context: ToolContext) -> ToolRun:
        started = time.monotonic()
        how: Any = "shared"
        while (result := context.memory.get(call.own)) is None:
            flight = self._flights.get(call.flight)
            if flight is None:
                how, result = await self._lead(call, context)
                break
            joined = await _outcome(flight)
            # A failure of the moment is another record's own; this one tries for itself.
            if joined is not None and joined.cacheable:
                context.memory.setdefault(call.own, joined)
        return ToolRun(call.tool.true_name or call.tool.name, call.arguments, result, how, time.monotonic() - started)

    async def _lead(self, call: _Planned, context: ToolContext) -> tuple[str, ToolResult]:
        """Find or make the result, while equal calls wait for it."""
        flight = self._flights[call.flight] = asyncio.get_running_loop().create_future()
        try:
            if (kept := await self._kept(call)) is not None:
                how, result = "replayed", kept
            elif self.offline:
                how, result = "rejected", ToolResult(_OFFLINE, "error", cacheable=False)
            else:
                how, result = "made", await self._make(call, context)
            context.memory[call.own] = result
            flight.set_result(result)
            return how, result
        finally:
            flight.cancel()
            del self._flights[call.flight]

    async def _kept(self, call: _Planned) -> ToolResult | None:
        if self.store is None:
            return None
        for key in (call.own, call.shared) if call.tool.repeatable else (call.own,):
            if (kept := await self.store.get(key)) is not None:
                return ToolResult.from_json(kept)
        return None

    async def _make(self, call: _Planned, context: ToolContext) -> ToolResult:
        tool = call.tool
        try:
            async with asyncio.timeout(tool.timeout_s):
                result = await tool.run(call.arguments, context)
        except TimeoutError:
            cut_off = f"{tool.name} was cut off after {tool.timeout_s:g} s"
            result = ToolResult(cut_off, "timeout", cost_usd=None, cacheable=False)
        result = replace(result, text=bounded(result.text, tool.max_chars))
        if self.store is not None:
            shared = tool.repeatable and result.cacheable
            await self.store.put(call.shared if shared else call.own, result.to_json(), tool.true_name or tool.name)
        return result

    async def open(self, opening: AbstractAsyncContextManager[Sequence[Tool]]) -> list[str]:
        """Open something that gives tools as long as the box is open; return their names."""
        return self.add(await self._stack.enter_async_context(opening))

    def add(self, tools: Sequence[Tool]) -> list[str]:
        """Put tools into the box; return their names.

        Raises:
            UsageError: two tools have one name.
        """
        for tool in tools:
            if tool.name in self._tools:
                raise UsageError(f"two tools are called {tool.name!r}; give one of them another name")
            self._tools[tool.name] = tool
            self._declared.clear()
        return [tool.name for tool in tools]


def read_arguments(written: str | Mapping[str, Any], tool: Tool) -> dict[str, Any]:
    """Return the arguments of a call as an object that fits the tool's schema.

    Raises:
        InputError: they are no JSON, no object, or do not fit; what is wrong and the schema, in words for the model.
    """
    arguments: Any = written
    if isinstance(written, str):
        try:
            arguments = jsonl.loads(written) if written.strip() else {}
        except ValueError as error:
            raise _unusable(f"the arguments are no JSON: {error}", written, tool) from None
    if not isinstance(arguments, Mapping):
        raise _unusable("the arguments are no JSON object", written, tool)
    try:
        jsonl.canonical(dict(arguments))
    except TypeError as error:  # half a character, an integer of more than 64 bits
        raise _unusable(f"the arguments cannot be written as JSON: {error}", str(arguments), tool) from None
    if (fault := why_not(dict(tool.parameters), arguments)) is not None:
        path, reason = fault
        raise _unusable(f"the arguments do not fit: {path}: {reason}", written, tool)
    return dict(arguments)


def _unusable(why: str, written: str | Mapping[str, Any], tool: Tool) -> InputError:
    shown = written if isinstance(written, str) else jsonl.dumps(dict(written)).decode()
    quoted = shown if len(shown) <= _QUOTED_CHARS else shown[:_QUOTED_CHARS] + "…"
    schema = jsonl.dumps(dict(tool.parameters)).decode()
    return InputError(f"{why}\nThey were: {quoted}\nThe schema of {tool.name}: {schema[:_SCHEMA_CHARS]}")


def _rejected(name: str, arguments: Any, why: str, status: ToolStatus = "error") -> ToolRun:
    result = ToolResult(f"Not run: {why}", status, cacheable=False)
    return ToolRun(name, arguments, result, "rejected", 0.0)


def _key_within(shared: bytes, place: list[Any]) -> bytes:
    return hashlib.sha256(shared + jsonl.canonical(place)).digest()[:16]


async def _outcome(flight: asyncio.Future[ToolResult]) -> ToolResult | None:
    """Wait for somebody else's run; None where that was cut off, and it is our turn or the next waiter's."""
    try:
        return await asyncio.shield(flight)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not flight.cancelled() or (task is not None and task.cancelling()):
            raise
        return None
