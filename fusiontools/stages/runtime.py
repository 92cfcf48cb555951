"""What a stage is: what it is handed beside the record, which records it passes on, how it gives a section back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.recipe import Redact, redact_from
from fusiontools.config.stage_table import STAGES
from fusiontools.errors import InputError, UsageError
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.record.sections import DERIVED, has_sources, has_usable, is_kept, take_verbatim, with_error
from fusiontools.record.sources import cite_answer
from fusiontools.record.types import Call, Degraded, Record

if TYPE_CHECKING:
    from fusiontools.config.models import Model
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.config.tool_options import ToolOptions
    from fusiontools.llm.client import Client
    from fusiontools.llm.completion import OnDelta
    from fusiontools.llm.drafts import Drafts
    from fusiontools.llm.ledger import Event, Ledger
    from fusiontools.llm.purses import Budget
    from fusiontools.llm.spans import Traces
    from fusiontools.tools.toolbox import Toolbox


_T = TypeVar("_T")


class Runtime(Struct, frozen=True):
    """The outside world of a stage.

    Args:
        client: the way to every model.
        on_delta: takes the answer's text as it is written, where somebody watches.
        deadline: monotonic time at which the record's time is over; None starts a deadline with each stage.
        limits: what bounds the calls of this record, where that is not what bounds all of the client's.
        tools: what its tools go by, where that is not what all of the client's do.
        max_cost_usd: what this record may cost, where that is less than any record may.
        purse: whose money it is, where it has a limit of its own.
        on_call: told of every attempt at a model.
        notify: told of every call of this record that begins or settles.
        redact: what is hidden of this record, besides what the client hides of all.
        on_stage: told of the record as each named stage of a chain leaves it.
        drafts: takes the text of each member of the panel as it is written, where somebody watches.
    """

    client: Client
    on_delta: OnDelta | None = None
    deadline: float | None = None
    limits: LimitOptions | None = None
    tools: ToolOptions | None = None
    max_cost_usd: float | None = None
    purse: Budget | None = None
    on_call: Callable[[Call], None] | None = None
    notify: Callable[[Event], None] | None = None
    redact: Redact = ()
    on_stage: Callable[[str, Record], None] | None = None
    drafts: Drafts | None = None

    @property
    def limited(self) -> bool:
        """Whether a cost limit holds."""
        limits = (self.client.limits.max_cost_usd, self._record_usd, self.purse.limit_usd if self.purse else None)
        return any(limit is not None for limit in limits)

    def timed(self) -> Runtime:
        """Return the runtime with one deadline for all stages of a record, running from now."""
        if self.deadline is not None:
            return self
        return replace(self, deadline=time.monotonic() + self._limits.deadline_s)

    def ledger(self, stage: str, record: Record) -> Ledger:
        """Open the ledger of a stage: within the record's deadline, and with what the record has cost so far."""
        ledger = self.client.ledger(stage, record["id"])
        ledger.limits = self.limits
        if self.deadline is not None:
            ledger.deadline = self.deadline
        if (record_usd := self._record_usd) is not None:
            spent_usd = sum(call.get("cost_usd") or 0.0 for call in record.get("calls", []))
            ledger.budgets = self.client.budgets(record_usd, spent_usd)
        if self.purse is not None:
            ledger.budgets = (*ledger.budgets, self.purse)
        ledger.epoch = record.get("epoch", 0)
        ledger.on_call = self.on_call
        ledger.notify = self.notify or ledger.notify
        ledger.redact = self._redact(record)
        return ledger

    def _redact(self, record: Record) -> Redact:
        """Return all that is to be hidden: a record may want more than the recipe, and never less."""
        recipe: Any = record.get("recipe")
        carried = recipe.get("redact") if isinstance(recipe, dict) else None
        if not carried and not self.redact:
            return self.client.redact
        from fusiontools.llm.sensitive import finder_for

        try:
            own = redact_from(carried or [])
            finder_for(own)
        except UsageError as error:
            raise InputError(error.message, "$.recipe.redact") from error
        return tuple(dict((*self.client.redact, *self.redact, *own)).items())

    @property
    def tool_options(self) -> ToolOptions:
        """What the tools of this record go by."""
        return self.tools or self.client.tools

    async def open_tools(self, names: Sequence[str]) -> tuple[Toolbox, list[str]]:
        """Return the open tools of this run, and what those that a person calls by these names are called in it."""
        from fusiontools.llm.journal import folder_of
        from fusiontools.tools.opening import OpenTools

        client, settings = self.client, self.tool_options
        if client.batch is not None:
            loops = "each turn of a member with tools waits for the one before, and a job may take a day"
            raise UsageError(f"--batch: {loops}; leave out the tools ({', '.join(names)}), or --batch")
        if id(settings) not in client.opened:
            store = KeptResults(client) if client.journal else None
            folder = folder_of(client.journal) if client.journal else None
            client.opened[id(settings)] = OpenTools(settings, store, offline=client.offline, state_dir=folder)
        opened = client.opened[id(settings)]
        assert isinstance(opened, OpenTools)  # noqa: S101 - nobody else opens anything
        return opened.box, await opened.open(names)

    @property
    def _record_usd(self) -> float | None:
        any_record, this = self._limits.max_record_cost_usd, self.max_cost_usd
        return any_record if this is None else this if any_record is None else min(this, any_record)

    @property
    def _limits(self) -> LimitOptions:
        return self.limits or self.client.limits


class KeptResults(Struct, frozen=True):
    """What tools gave, in the journal of a client: found again under its rules of replay, like its calls."""

    client: Client

    async def get(self, key: bytes) -> bytes | None:
        """Return what was kept under this key; None where nothing was, or nothing is to be replayed."""
        journal = self.client.journal
        if journal is None or not (self.client.replay or self.client.offline):
            return None
        found = await journal.find(key)
        return None if found is None else found[0].content.encode()

    async def put(self, key: bytes, kept: bytes, name: str) -> None:
        """Keep what a tool of this name gave; returns when it is safe."""
        if self.client.journal is not None:
            request = CompletionRequest("tools", name, ())
            await self.client.journal.put(key, request, Completion(kept.decode(), name), None)


Stage = Callable[[Record, Runtime], Awaitable[Record]]

#: So many characters are compared in a few milliseconds.
_SOON_CHARS = 20_000

#: The stages that make each section; what they noted is dropped together with it.
_MAKERS = {spec.adds: [name for name in STAGES if STAGES[name].adds == spec.adds] for spec in STAGES.values()}
#: For each section what is computed from it, and the stages whose notes speak of any of that.
_STALE = {
    section: (frozenset(derived), frozenset(maker for name in (section, *derived) for maker in _MAKERS.get(name, ())))
    for section, derived in DERIVED.items()
}


async def compare_apart(texts: Sequence[str], key: str, compare: Callable[..., _T], *args: Any) -> _T:
    """Return what a comparison of texts gives; where it may take long, on a thread: others are served meanwhile.

    Args:
        key: how they are compared; what a client wrote himself may take long whatever the texts are.
        compare: called with the arguments that follow.
    """
    if sum(map(len, texts)) <= _SOON_CHARS and ":" not in key:
        return compare(*args)
    return await asyncio.to_thread(compare, *args)


def note_no_tools(
    record: Record, stage: str, tools: Sequence[str], models: Sequence[Model], client: Client
) -> list[Degraded]:
    """Say who was to have tools and has none.

    Args:
        tools: those that the stage's models may use.
        models: who is asked.
    """
    detail = ""
    if tools:
        embedded = [m.name for m in models if (e := client.endpoints.get(m.endpoint)) is not None and e.embedded]
        if embedded:
            detail = f"{', '.join(embedded)}: the embedded model cannot call tools and was asked without"
    else:
        carried = record.get("recipe", {}).get(stage)
        if isinstance(carried, dict) and carried.get("tools"):
            detail = "the record's recipe names tools, and a record turns none on: give the recipe with -c, or --tools"
    return [{"stage": stage, "code": "no_tools", "detail": detail}] if detail else []


def in_turn(stages: Sequence[Stage], names: Sequence[str], heard: Collection[int]) -> Stage:
    """Return stages as one: each reads what the one before it wrote, all within the record's one deadline.

    Args:
        heard: the places of those whose text is handed on as it is written.
    """

    async def run(record: Record, runtime: Runtime) -> Record:
        runtime = runtime.timed()
        quiet = runtime if runtime.on_delta is None else replace(runtime, on_delta=None)
        for i, stage in enumerate(stages):
            record = await stage(record, runtime if i in heard else quiet)
            if runtime.on_stage is not None and names[i]:
                runtime.on_stage(names[i], record)
        return record

    return run


def skips_failed(run: Stage) -> Stage:
    """Return a stage that passes on, untouched, a record that an earlier stage has marked as failed."""

    async def guarded(record: Record, runtime: Runtime) -> Record:
        return record if "error" in record else await run(record, runtime)

    return guarded


def traced(name: str, run: Stage, *, whole: bool = False) -> Stage:
    """Return a stage that is a span, where its run is traced.

    Args:
        whole: it is a record's whole way through a tool or a chain.
    """

    def told(record: Record, runtime: Runtime) -> Awaitable[Record]:
        traces = runtime.client.traces
        if traces is None or "error" in record:
            return run(record, runtime)
        return in_span(traces, record, runtime)

    async def in_span(traces: Traces, record: Record, runtime: Runtime) -> Record:
        with (traces.record if whole else traces.stage)(name, record) as span:
            return span.end_with(await run(record, runtime))

    return told


def reads_panel(name: str) -> Callable[[Stage], Stage]:
    """Make a stage that reads a panel: failed and kept records pass, one without a usable response fails here.

    Args:
        name: what the record calls the stage.
    """

    def decorate(run: Stage) -> Stage:
        async def guarded(record: Record, runtime: Runtime) -> Record:
            if "error" in record or is_kept(record):
                return record
            return await run(record, runtime) if has_usable(record) else without_response(record, name)

        return guarded

    return decorate


def without_response(record: Record, stage: str) -> Record:
    """Return the record as failed, because nobody on its panel answered."""
    return with_error(record, stage, "all_failed", "no response in this panel is usable")


def with_section(
    record: Record, section: str, value: Any, calls: list[Call] | None = None, degraded: list[Degraded] | None = None
) -> Record:
    """Return the record with one section (re)computed: what was derived from it is dropped, the ledger is kept.

    Args:
        section: `route`, `panel`, `analysis` or `answer`.
        value: the section; None leaves it out (a judge that failed has no analysis).
        calls: the attempts made for it, appended to the ledger.
        degraded: what went wrong on the way; earlier notes on the section, and on what is dropped, go.
    """
    stale, makers = _STALE[section]
    degraded = degraded or []
    if section == "answer" and value is not None and has_sources(record):
        value, unknown = cite_answer(record, value)
        by = value["by"] if value["by"] in makers else "synth"
        why = "is no source of the panel: nobody looked it up"
        unsourced: list[Degraded] = [
            {"stage": by, "code": "unknown_source", "detail": f"{url} {why}"} for url in unknown
        ]
        degraded = [*degraded, *unsourced]
    new: dict[str, Any] = dict(record)
    for key in stale & new.keys():
        del new[key]
    if value is None:
        new.pop(section, None)
    else:
        new[section] = value
    if calls:
        new["calls"] = [*record.get("calls", []), *calls]
    notes = [note for note in record.get("degraded", []) if note.get("stage") not in makers] + degraded
    if notes:
        new["degraded"] = notes
    else:
        new.pop("degraded", None)
    return new  # type: ignore[return-value]


def copy_response(
    record: Record, position: int, degraded: list[Degraded], calls: list[Call] | None = None, by: str = "panel"
) -> Record:
    """Return the record with a response as its answer, word for word."""
    return with_section(record, "answer", take_verbatim(record, position, by), calls, degraded)
