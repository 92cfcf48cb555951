"""The tools by which other programs' models ask the panel, by the Model Context Protocol: `fuse-mcp`, and `/mcp`.

A fusion takes a minute or several, and clients give up after one. So a call waits for 45 s at most and then gives a
handle, by which `fuse_result` waits on. The same question asked again leads to the same run while that is remembered,
and to the journal after that. A call that its client takes back stops the run, unless a handle was given for it: that
is a promise.

The official SDK speaks the protocol, of every revision.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations
from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.recipe import Recipe
from fusiontools.config.templates import load_template
from fusiontools.errors import FusionError, InputError, UsageError, __version__, nearest
from fusiontools.llm.client import Client
from fusiontools.llm.ledger import Event, Spending
from fusiontools.record import jsonl
from fusiontools.record.clean import clean
from fusiontools.record.schemas import why_not
from fusiontools.record.types import Record
from fusiontools.runs.chain import Chain
from fusiontools.runs.mcp_cards import CARDS, FRESH, PATIENCE_S, RESULT_SCHEMA, WAIT, ToolCard
from fusiontools.stages.prompts import fill
from fusiontools.stages.runtime import Runtime

_MOST_TEXT_CHARS = 4 * 2**20
_REMEMBERED, _REMEMBERED_S = 256, 3600.0
_INSTRUCTIONS = (
    "A panel of language models answers, a judge compares what they say, and one answer is written from it. Ask it "
    "what is hard, contested or costly to get wrong. It knows nothing but what you send. Where a call returns a handle "
    "instead of an answer, collect the answer with fuse_result."
)
_LISTS = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
#: The section of the prompt templates that puts each question; what `fuse` is asked goes to the panel as it is.
_SECTIONS = {"second_opinion": "second opinion", "compare": "comparison"}

Tell = Callable[[str], None]
Progress = Callable[..., Awaitable[None]]


async def _to_nobody(*_: object) -> None:
    """Take no interest."""


class PanelQuestion(Struct, frozen=True):
    """What a panel is to be asked: a record without an answer, and the name of a recipe."""

    record: Record
    recipe: str


class PanelHost(Protocol):
    """Where questions go: the models of this process, or a server with its keys and limits."""

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """What may be asked for, by name; the first is what holds where none is named."""

    def caller(self, request: Any) -> str:
        """Return who asks by this request of HTTP; None on standard input."""

    def begin(self, question: PanelQuestion, request: Any, tell: Tell) -> Coroutine[Any, Any, Record]:
        """Return what makes the record.

        Args:
            tell: called with a few words as each model is done.

        Raises:
            FusionError: whoever asks may not, or not now.
        """


class Milestones:
    """What a run has done so far, in words, for whoever wants to hear it as it goes."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._more = asyncio.Event()

    def add(self, words: str) -> None:
        """Say what was done."""
        self._said.append(words)
        self._more.set()

    async def report(self, to: Progress) -> None:
        """Report all that was said and will be, by how many there were and what the last one was; never ends."""
        at = 0
        while True:
            while at < len(self._said):
                at += 1
                await to(float(at), None, self._said[at - 1])
            self._more.clear()
            await self._more.wait()


class PanelRun:
    """A question on its way to its result, and how many calls wait for it."""

    def __init__(self, made: Coroutine[Any, Any, dict[str, Any]], steps: Milestones) -> None:
        self.steps = steps
        self.task = asyncio.ensure_future(made)
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # somebody may hear of it
        self.began = time.monotonic()
        #: Whether somebody has a handle of it, or its answer.
        self.promised = self.told = False
        self._waiting = 0

    @property
    def can_be_joined(self) -> bool:
        """Whether it may still lead to an answer, or has, and not long ago."""
        if not self.task.done():
            return not self.task.cancelling()
        fresh = time.monotonic() - self.began < _REMEMBERED_S
        return fresh and not self.task.cancelled() and self.task.exception() is None

    async def wait(self, seconds: float | None) -> bool:
        """Return whether it is done after so many seconds; with the last call that is taken back it ends."""
        self._waiting += 1
        try:
            await asyncio.wait([self.task], timeout=seconds)
        except asyncio.CancelledError:
            if self._waiting == 1 and not self.promised:
                self.task.cancel()
            raise
        finally:
            self._waiting -= 1
        return self.task.done()

    async def end(self) -> None:
        """Stop it, members and all."""
        self.task.cancel()
        await asyncio.wait([self.task])


class PanelTools:
    """The tools of one server.

    Args:
        promises: whether handles are given: a client comes back to this very process.
        report: told of an exception that nobody expected.
    """

    def __init__(self, host: PanelHost, report: Callable[[Exception], Any], *, promises: bool = True) -> None:
        self._host = host
        self._report = report
        self._promises = promises
        self._runs: dict[tuple[str, str], PanelRun] = {}

    def server(self) -> Server[Any]:
        """Return the SDK's server around them."""

        async def list_tools(context: Any, params: Any) -> ListToolsResult:
            return ListToolsResult(tools=self.list())

        async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
            # A client that gave no token for it hears nothing.
            progress = context.session.report_progress
            return await self.call(params.name, params.arguments or {}, context.request, progress)

        return Server(
            "fusiontools",
            version=__version__,
            title="fusiontools",
            instructions=_INSTRUCTIONS,
            on_list_tools=list_tools,
            on_call_tool=call_tool,
        )

    def list(self) -> list[Tool]:
        """Return the tools, in one order always."""
        return [
            Tool(
                name=name,
                title=card.title,
                description=card.description,
                input_schema=self._schema(name),
                output_schema=RESULT_SCHEMA,
                annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=True),
            )
            for name, card in self._cards().items()
        ]

    async def call(
        self, name: str, arguments: Mapping[str, Any], request: Any = None, progress: Progress = _to_nobody
    ) -> CallToolResult:
        """Return what a tool gives; what goes wrong is a result, too, in words for the model.

        Args:
            request: that of HTTP which it came by.
            progress: told of each model that is done: the how manieth it is, of how many, and what it was.
        """
        try:
            run, handle, patience_s = self._run_of(name, _parsed(arguments), request)
            reporting = asyncio.create_task(run.steps.report(progress))
            reporting.add_done_callback(lambda task: task.cancelled() or task.exception())  # the client has gone
            try:
                return await self._told(run, handle, patience_s)
            finally:
                reporting.cancel()
        except FusionError as error:
            return _failed(error.message)
        except Exception as error:
            # Nobody expected this one: what it says is for the operator.
            self._report(error)
            return _failed("a bug in fusiontools; the server's standard error says where")

    async def aclose(self) -> None:
        """Stop what is under way."""
        await asyncio.gather(*(run.end() for run in self._runs.values() if not run.task.done()))

    def _cards(self) -> dict[str, ToolCard]:
        return {name: card for name, card in CARDS.items() if self._promises or name != "fuse_result"}

    def _schema(self, name: str) -> dict[str, Any]:
        recipes = self._host.recipes
        named = "; ".join(f"{recipe}: {made.description}" for recipe, made in recipes.items() if made.description)
        recipe = {
            "type": "string",
            "enum": list(recipes),
            "default": next(iter(recipes)),
            "description": f"Who is asked, and how. {named}".strip(),
        }
        card = CARDS[name]
        more = {} if name == "fuse_result" else {"recipe": recipe, "fresh": FRESH}
        waits = {"wait_s": WAIT} if self._promises else {}
        return {
            "type": "object",
            "properties": {**card.takes, **more, **waits},
            "required": list(card.needs),
            "additionalProperties": False,
        }

    def _run_of(self, name: str, arguments: Mapping[str, Any], request: Any) -> tuple[PanelRun, str, float | None]:
        """Return the run that a call is about, its handle, and how long to wait for it."""
        if name not in self._cards():
            raise InputError(f"no tool is called {name!r}{nearest(name, list(self._cards()))}")
        if (fault := why_not(self._schema(name), arguments)) is not None:
            raise InputError(fault[1], fault[0])
        caller = self._host.caller(request)
        if name == "fuse_result":
            handle = arguments["handle"].strip()
            run = self._runs.get((caller, handle))
            if run is None:
                raise InputError(
                    f"no run {handle!r} is known here (any more); ask the question again: what was finished of it is "
                    "in the journal, where one is kept, and is not bought twice"
                )
        else:
            handle, run = self._begin(name, arguments, caller, request)
        patience_s = float(arguments.get("wait_s", PATIENCE_S)) if self._promises else None
        return run, handle, patience_s

    def _begin(self, name: str, arguments: Mapping[str, Any], caller: str, request: Any) -> tuple[str, PanelRun]:
        """Return the run of a question, and its handle: one that there is already, or a new one."""
        question = self._question(name, arguments)
        asked = [caller, question.recipe, question.record]
        handle = hashlib.sha256(jsonl.canonical(asked)).hexdigest()[:16]
        run = self._runs.get((caller, handle))
        if run is None or not run.can_be_joined:
            self._forget_oldest()
            self._runs.pop((caller, handle), None)
            steps = Milestones()
            made = self._host.begin(question, request, steps.add)
            run = self._runs[caller, handle] = PanelRun(_result(made, question.recipe), steps)
        return handle, run

    def _question(self, name: str, arguments: Mapping[str, Any]) -> PanelQuestion:
        texts = [*_answers_in(name, arguments), *arguments.get("context", [])]
        if sum(len(text["text"]) for text in texts) + len(arguments["question"]) > _MOST_TEXT_CHARS:
            raise InputError(f"more than {_MOST_TEXT_CHARS:,} characters in all; send the parts that matter")
        asked = arguments["question"].strip()
        jsonl.refuse_empty([{"role": "user", "content": asked}])
        if name in _SECTIONS:
            asked = fill(load_template("default")[_SECTIONS[name]], {"question": asked})
        record: Any = {"messages": [{"role": "user", "content": asked}]}
        if texts:
            record["evidence"] = [{"title": text["name"], "text": text["text"]} for text in texts]
        if arguments.get("fresh"):
            record["epoch"] = int(time.time())
        return PanelQuestion(jsonl.parse(jsonl.dumps(record)), arguments.get("recipe", next(iter(self._host.recipes))))

    async def _told(self, run: PanelRun, handle: str, patience_s: float | None) -> CallToolResult:
        """Return the result of a run, or that it is not done yet."""
        if not await run.wait(patience_s):
            run.promised = True
            return _shown({"status": "running", "handle": handle, "seconds": _since(run)})
        if run.task.cancelled():
            raise UsageError("the run was stopped; ask again: what was finished of it is not bought twice")
        result = run.task.result()
        if run.told:
            result = {**result, "cost_usd": 0.0}
        run.told = True
        return _shown({**result, **({"handle": handle} if self._promises else {})})

    def _forget_oldest(self) -> None:
        """Make room for one more; what is under way is never forgotten."""
        done = [key for key, run in self._runs.items() if run.task.done()]
        for key in done[: max(0, len(self._runs) + 1 - _REMEMBERED)]:
            del self._runs[key]


def _parsed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments; some clients send a list as its JSON."""
    read = dict(arguments)
    for name in ("context", "answers"):
        if isinstance(text := read.get(name), str) and text.lstrip()[:1] == "[":
            try:
                read[name] = jsonl.loads(text)
            except ValueError:
                continue  # the schema says what is wrong
    return {name: value for name, value in read.items() if value is not None}


def _answers_in(name: str, arguments: Mapping[str, Any]) -> list[Mapping[str, str]]:
    if name == "second_opinion":
        return [{"name": "the answer", "text": arguments["answer"]}]
    return list(arguments["answers"]) if name == "compare" else []


async def _result(made: Coroutine[Any, Any, Record], recipe: str) -> dict[str, Any]:
    """Return what a record has to say, without the texts that were sent along.

    Raises:
        UsageError: it has no answer.
    """
    began = time.monotonic()
    record: Any = await made
    if "error" in record or "answer" not in record:
        error = record.get("error") or {"code": "no_answer", "message": "the chain made no answer"}
        raise UsageError(f"no answer: {error['code']}: {error['message']}", error["code"])
    answer, analysis = record["answer"], record.get("analysis", {})
    cost_usd = Spending.of(record.get("calls", [])).cost_usd
    return {
        "status": "done",
        "answer": clean(answer["content"]),
        "recipe": recipe,
        "panel": [
            {"member": r["member"], "status": r.get("error", {}).get("code", "ok")} for r in record.get("panel", [])
        ],
        **{name: analysis[name] for name in _LISTS if analysis.get(name)},
        **({"sources": answer["sources"]} if answer.get("sources") else {}),
        **({"notes": [f"{n['code']}: {n['detail']}" for n in record["degraded"]]} if record.get("degraded") else {}),
        **({"cost_usd": cost_usd} if cost_usd is not None else {}),
        "seconds": round(time.monotonic() - began, 1),
    }


def _since(run: PanelRun) -> float:
    return round(time.monotonic() - run.began, 1)


def _failed(why: str) -> CallToolResult:
    """Return a failure: without a structure, which would not be the one that is declared."""
    return CallToolResult(content=[TextContent(type="text", text=clean(why))], is_error=True)


def _shown(result: Mapping[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=result_text(result))], structured_content=dict(result))


def result_text(result: Mapping[str, Any]) -> str:
    """Return a result in words, for models whose clients show them no structure."""
    if result["status"] == "running":
        return (
            f"Not done after {result['seconds']:g} s: the panel is at work. Call fuse_result with the handle "
            f"{result['handle']} to wait for the answer; that costs nothing more."
        )
    parts = [result["answer"], "---"]
    said = [_said(member) for member in result["panel"]]
    cost = f", ${result['cost_usd']:g}" if "cost_usd" in result else ""
    parts.append(f"Panel ({result['recipe']}): {', '.join(said)}; {result['seconds']:g} s{cost}")
    for topic in result.get("contradictions", []):
        stances = "; ".join(f"{stance['model']}: {stance['stance']}" for stance in topic["stances"])
        parts.append(f"They contradict each other on {topic['topic']}: {stances}")
    parts += [f"One alone says ({point['model']}): {point['insight']}" for point in result.get("unique_insights", [])]
    parts += [f"None of them says: {point}" for point in result.get("blind_spots", [])]
    parts += [f"Source ({source['how']}): {source['url']}" for source in result.get("sources", [])]
    parts += [f"Note: {note}" for note in result.get("notes", [])]
    return "\n".join(parts)


def step_text(stage: str, model: str, failure: str | None) -> str:
    """Return in words that a model is done, or why it is not."""
    return f"{stage}: {model}" + (f" ({failure})" if failure else "")


def _said(member: Mapping[str, str]) -> str:
    return member["member"] if member["status"] == "ok" else f"{member['member']} ({member['status']})"


# On standard input and output


class OwnModels:
    """The models that this process may ask itself: a client for each recipe, opened when it is first named.

    Args:
        recipes: by name; the first is the usual one.
        open_client: makes the way to the models of one.
    """

    def __init__(self, recipes: Mapping[str, Recipe], open_client: Callable[[Recipe], Client]) -> None:
        self.recipes = recipes
        self._open = open_client
        self._runtimes: dict[str, Runtime] = {}

    def caller(self, request: Any) -> str:
        """Return the one who asks: whoever started the process."""
        return ""

    def begin(self, question: PanelQuestion, request: Any, tell: Tell) -> Coroutine[Any, Any, Record]:
        """Return what makes the record.

        Raises:
            UsageError: the recipe cannot be asked here.
        """

        def note(event: Event) -> None:
            if not event.began:
                tell(step_text(event.stage, event.label, event.failure.code if event.failure else None))

        recipe, runtime = self.recipes[question.recipe], replace(self.open(question.recipe), notify=note)
        stage = Chain.parse(recipe.chain).bind(recipe, offline=True, limited=runtime.limited)
        return stage(question.record, runtime)  # type: ignore[return-value]

    def open(self, recipe: str) -> Runtime:
        """Return what a recipe's stages need.

        Raises:
            UsageError: the journal cannot be opened, or contradicts itself.
        """
        if recipe not in self._runtimes:
            self._runtimes[recipe] = Runtime(self._open(self.recipes[recipe]))
        return self._runtimes[recipe]

    async def aclose(self) -> None:
        """Close all of them."""
        for runtime in self._runtimes.values():
            await runtime.client.aclose()


async def serve_stdio(tools: PanelTools, over: Callable[[], None]) -> None:
    """Serve whoever has started this process, until it closes our standard input or reads no more.

    The SDK keeps the two streams for itself meanwhile: a child reads nothing and prints to standard error.

    Args:
        over: called when nothing more will be served. This may return much later, or never: the SDK waits for its
            thread, and that for the next line.
    """
    server = tools.server()
    async with stdio_server() as (reading, writing):
        try:
            await server.run(reading, writing, server.create_initialization_options())
        finally:
            over()
