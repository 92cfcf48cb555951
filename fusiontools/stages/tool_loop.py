"""Ask a model that may use tools: call, run what it asks for, call again, until it answers or its runs are used up.

Ours are run here; a client's own tools are proposed, never run. What a tool returns is data from a stranger: it stands
between fences, bounded and cleaned. Every run is a line of the ledger, and its result is kept in the journal.

Source  Yao et al. 2022, ReAct, arXiv:2210.03629
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, cast

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Model
from fusiontools.config.tool_options import PROVIDER, TOOLS_ENDPOINT
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta, say_whole
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.llm.provider_search import provider_search
from fusiontools.record import jsonl
from fusiontools.record.sections import text_of
from fusiontools.record.sources import given_sources, merge_sources, panel_sources, with_claimed
from fusiontools.record.types import Message, Record, Source, ToolCall, ToolUse
from fusiontools.stages import prompts
from fusiontools.stages.runtime import Runtime

if TYPE_CHECKING:
    from fusiontools.llm.client import Client
    from fusiontools.tools.provider_schema import Provider
    from fusiontools.tools.tool import ToolContext, ToolResult, ToolRun
    from fusiontools.tools.toolbox import Toolbox

#: How often a model is told that a call which was cut off, or written as text, is none.
_MOST_REMINDERS = 2
#: How often a turn is sent back to an endpoint that searches by itself and has not finished.
_MOST_PAUSES = 10
#: A whole call in the spellings that models print where an endpoint does not read them.
_AS_TEXT = re.compile(
    r"<(?:tool_call|minimax:tool_call|function_calls|invoke|function)\b.*?"
    r"</(?:tool_call|minimax:tool_call|function_calls|invoke|function)>",
    re.DOTALL,
)
_CODE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
CUT_OFF = (
    "Your message reached its limit of length before the tool call in it was complete, so nothing was run. "
    "Call the tool again with less in its arguments, or answer."
)
WRITTEN_OUT = "You wrote a tool call as text, so nothing was run. Call the tool itself, or answer without it."
_USED_UP = "not run: no tool may be used any more; answer with what you have"


class Ask(Struct, frozen=True):
    """A call that a stage makes: what is asked of whom, and where it is written down."""

    request: CompletionRequest
    model: Model
    slot: Slot
    runtime: Runtime
    ledger: Ledger


class ToolWish(Struct, frozen=True):
    """What tools a call may use.

    Args:
        names: as a person spells them: `web_search`, `mcp:NAME`.
        most_runs: how many runs its response has.
        memory: the results of this record, shared by all its responses.
    """

    record: Record
    names: Sequence[str]
    most_runs: int
    memory: dict[bytes, ToolResult] = {}


async def complete_with_tools(ask: Ask, wish: ToolWish, on_delta: OnDelta | None = None) -> Completion:
    """Return a completion of a model that may use tools; its words are handed on when it has answered.

    Raises:
        CallFailed: a call failed, or nothing was answered although no tool could be run any more.
    """
    own = _endpoints_search(ask, wish)
    box, names = await ask.runtime.open_tools([name for name in wish.names if name != "web_search" or own is None])
    loop, traces = _ToolLoop(ask, wish, box, names, _context_of(ask, wish), own or {}), ask.runtime.client.traces
    with nullcontext() if traces is None else traces.member(ask.slot):
        completion = await loop.run()
    if on_delta is not None and completion.content:
        say_whole(on_delta, completion.content, completion.reasoning_details)
    return completion


class _ToolLoop(Struct):
    """The rounds of one response."""

    ask: Ask
    wish: ToolWish
    box: Toolbox
    names: Sequence[str]
    context: ToolContext
    #: The parameters that give the model its endpoint's own search.
    own: Mapping[str, Any]
    runs: list[ToolRun] = []
    sources: list[Source] = []
    #: The marks of the fences around the results.
    marks: list[str] = []
    reminders: int = 0
    pauses: int = 0
    stopped: Literal["calls", "repeats"] | None = None

    async def run(self) -> Completion:
        """Return the answer to which the rounds lead."""
        request = self.ask.request
        clients = {_name_of(tool) for tool in request.params.get("tools") or []}
        declared, _ = self.box.declared_for(provider_of(self.ask.model, self.ask.runtime.client), self.names)
        ours = [tool for tool in declared if _name_of(tool) not in clients]
        tools = [*(request.params.get("tools") or []), *self.own.get("tools", ()), *ours]
        request = _with_params(request, **{**self.own, "tools": tools or None})
        first = request.marks
        while True:
            completion = await self._complete(request)
            theirs = [call for call in completion.tool_calls if call["function"]["name"] in clients]
            if theirs:
                return self._finished(completion, theirs)
            next_turns = [] if self.stopped else await self._next_turns(completion)
            if not next_turns:
                return self._finished(completion if completion.content.strip() else await self._last_words(request))
            request = replace(request, messages=[*request.messages, *next_turns], marks=(*first, *self.marks))
            if self.stopped:
                # The tools stay declared: some endpoints refuse a history of calls without them.
                request = _with_params(request, tool_choice="none")

    async def _complete(self, request: CompletionRequest) -> Completion:
        ask = self.ask
        completion = await ask.runtime.client.complete(request, ask.model, ask.ledger, ask.slot)
        self.sources += completion.sources
        self.context.note_found(source["url"] for source in completion.sources if source["how"] == "search")
        return completion

    async def _last_words(self, request: CompletionRequest) -> Completion:
        """Ask once more, without any tool, a model that has said nothing although it may run no more."""
        completion = await self._complete(_with_params(request, tools=None, tool_choice=None))
        if not completion.content.strip():
            raise CallFailed("empty", f"{self.ask.model.name} asked for more tools and answered nothing")
        return completion

    async def _next_turns(self, completion: Completion) -> list[Message]:
        """Return what the model reads next: results of its calls, or why there are none; nothing after an answer."""
        calls = completion.tool_calls
        if completion.paused:
            self.pauses += 1
            if self.pauses > _MOST_PAUSES:
                raise CallFailed("truncated", f"{self.ask.model.name} paused {_MOST_PAUSES} times and did not end")
            return [turn_of(completion, ())]
        if calls and completion.finish_reason != "length":
            return [turn_of(completion, calls), *await self._results(calls)]
        reminder = CUT_OFF if calls else WRITTEN_OUT
        if (not calls and not is_written_out(completion.content, self.names)) or self.reminders >= _MOST_REMINDERS:
            return []
        self.reminders += 1
        return [turn_of(completion, ()), {"role": "user", "content": reminder}]

    async def _results(self, calls: Sequence[ToolCall]) -> list[Message]:
        """Run the calls for which runs are left, and answer every one."""
        left = self.wish.most_runs - len(self.runs)
        runs = await self._run([(c["function"]["name"], c["function"]["arguments"]) for c in calls[:left]])
        if runs and all(run.repeats for run in runs):
            self.stopped = "repeats"
        elif len(self.runs) >= self.wish.most_runs:
            self.stopped = "calls"
        # A model may have told a stranger its marks in a call: what comes back with one in it could close a fence.
        known = (*self.ask.request.marks, *self.marks)
        shown = [prompts.without_marks(run.result.text, known) for run in runs]
        marks = [prompts.mark_of("result", self.wish.record["id"], [text]) for text in shown]
        self.marks += marks
        fenced = [fenced_result(run, text, mark) for run, text, mark in zip(runs, shown, marks, strict=True)]
        texts = [*fenced, *[_USED_UP] * (len(calls) - len(runs))]
        return [
            {"role": "tool", "tool_call_id": call["id"], "content": text}
            for call, text in zip(calls, texts, strict=True)
        ]

    async def _run(self, calls: Sequence[tuple[str, str]]) -> list[ToolRun]:
        ledger, client = self.ask.ledger, self.ask.runtime.client
        # What a recipe hides is hidden from whoever is searched, fetched and asked, too.
        calls = [(name, client.hide(told, ledger) if self.box.leaves(name) else told) for name, told in calls]
        try:
            async with asyncio.timeout(max(0.0, ledger.remaining_s())):
                runs = await self.box.run_all(calls, self.context)
        except TimeoutError:
            raise CallFailed("deadline", "the record's time was over while a tool ran (--deadline)") from None
        self.runs += runs
        for run in runs:
            self.sources += [cast(Source, source) for source in run.result.sources]
        return runs

    def _finished(self, completion: Completion, calls: Sequence[ToolCall] = ()) -> Completion:
        """Return the completion with what was looked up for it."""
        given = given_sources(self.wish.record)
        is_answer = completion.finish_reason == "tool_calls" and not calls
        return replace(
            completion,
            finish_reason="stop" if is_answer else completion.finish_reason,
            tool_calls=calls,
            sources=with_claimed(completion.content, merge_sources(self.sources), given),
            tool_runs=[_kept_of(run) for run in self.runs],
            stopped=self.stopped,
        )


def is_written_out(content: str, names: Sequence[str]) -> bool:
    """Return whether a text holds a whole call of an offered tool; what stands in code is an example."""
    found = _AS_TEXT.findall(_CODE.sub("", content)) if "</" in content else []
    return any(name in text for text in found for name in names)


def provider_of(model: Model, client: Client) -> Provider:
    """Return by whose rules the schemas of tools are said to a model."""
    endpoint = client.endpoints.get(model.endpoint)
    if endpoint is not None and endpoint.api == "anthropic":
        return "anthropic"
    about = f"{endpoint.base_url if endpoint else ''} {model.model}".lower()
    return "gemini" if "generativelanguage" in about or "gemini" in about else "openai"


def _endpoints_search(ask: Ask, wish: ToolWish) -> dict[str, Any] | None:
    """Return the parameters of the endpoint's own search, where the model is to search and the settings want it so."""
    endpoint = ask.runtime.client.endpoints.get(ask.model.endpoint)
    engines = ask.runtime.tool_options.search
    if "web_search" not in wish.names or endpoint is None or (engines and engines[0] != PROVIDER):
        return None
    return provider_search(endpoint, ask.model.model, wish.most_runs)


def _context_of(ask: Ask, wish: ToolWish) -> ToolContext:
    """Return what the runs of one response share."""
    from fusiontools.tools.tool import ToolContext

    record, slot = wish.record, ask.slot
    place = (slot.member or "", slot.sample or 0, slot.layer or 0, slot.step or "")
    # What a model wrote in an earlier turn is its own word, not the question's.
    texts = [text_of(message) for message in record["messages"] if message.get("role") != "assistant"]
    texts += [f"{text.get('url', '')} {text['text']}" for text in record.get("evidence", [])]
    context = ToolContext(record["id"], place, record.get("epoch", 0), texts, wish.memory)
    context.on_run = functools.partial(_enter, ask)
    context.note_found(source["url"] for source in panel_sources(record) if source["how"] != "given")
    return context


def _with_params(request: CompletionRequest, **params: Any) -> CompletionRequest:
    changed = {name: value for name, value in {**request.params, **params}.items() if value is not None}
    return replace(request, params=changed)


def _name_of(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""


def turn_of(completion: Completion, calls: Sequence[ToolCall]) -> Message:
    """Return the model's own turn as it reads it again."""
    turn: dict[str, Any] = {"role": "assistant", "content": completion.content or None}
    if calls:
        turn["tool_calls"] = list(calls)
        # Some models refuse a turn with calls whose thoughts are gone.
        if completion.reasoning_details:
            turn["reasoning_details"] = list(completion.reasoning_details)
        elif completion.reasoning and not completion.native:
            turn["reasoning_content"] = completion.reasoning
    if completion.native:
        # Not of the API: the turn as its endpoint wrote it, for itself.
        turn["native"] = completion.native
    return cast(Message, turn)


def fenced_result(run: ToolRun, text: str, mark: str) -> str:
    """Return a result's text as its model reads it: data between fences that the text cannot close."""
    title = "RESULT" if run.result.status == "ok" else f"NO RESULT, {run.result.status.upper()}"
    return prompts.fence(title, text, mark)


async def _enter(ask: Ask, run: ToolRun) -> None:
    """Enter a run into the ledger; a call that was not run is none."""
    if run.how == "rejected":
        return
    made = run.how == "made"
    ask.ledger.enter(
        replace(ask.slot, step="tool"),
        attempt=1,
        model=run.name,
        endpoint=TOOLS_ENDPOINT,
        status="ok" if run.result.status == "ok" else "tool_failed",
        cost_usd=run.cost_usd,
        cost_source=None if run.cost_usd is None else "upstream" if run.cost_usd else "free",
        latency_s=run.latency_s,
        replayed=not made,
        saved_usd=None if made else run.result.cost_usd,
    )
    if (traces := ask.runtime.client.traces) is not None:
        traces.tool(run, ask.slot)
    if made and run.result.cost_usd:
        for budget in ask.ledger.budgets:
            await budget.book(run.result.cost_usd)


def _kept_of(run: ToolRun) -> ToolUse:
    """Return what a response keeps of a run."""
    arguments = run.arguments if isinstance(run.arguments, str) else jsonl.dumps(run.arguments).decode()
    return {
        "name": run.name,
        "arguments": arguments,
        "status": run.result.status,
        "size": run.result.size_bytes,
        "digest": run.result.digest,
    }
