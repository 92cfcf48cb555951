"""The one way to a model: `Client.complete`, before the journal, the retries, the ledger and the endpoint.

A request is looked up in the journal (`replay`), joined to an identical one under way (single flight), or bought and
then kept. Cancelling whoever asked cancels the call, socket and all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from fusiontools.config.models import Endpoint, Model, require_ready, unnamed_endpoint
from fusiontools.config.stage_table import LimitOptions
from fusiontools.config.tool_options import ToolOptions
from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.budget import RecordBudget
from fusiontools.llm.completion import TRACED, Backend, Completion, CompletionRequest, HeardDeltas, OnDelta, say_whole
from fusiontools.llm.drafts import MemberDraft
from fusiontools.llm.journal_entry import request_key
from fusiontools.llm.ledger import Event, Ledger, Slot
from fusiontools.llm.pacing import Pace
from fusiontools.llm.purses import Budget, Purses
from fusiontools.llm.retry import Caller, Slots, TimeLimits, call_with_retries
from fusiontools.llm.single_flight import Shared, SingleFlight
from fusiontools.llm.state.store import Found, KeptCalls, Lease

if TYPE_CHECKING:
    from fusiontools.config.recipe import Redact
    from fusiontools.llm.batches.desk import Desk, DeskCall
    from fusiontools.llm.redact import HiddenRequest, Marks
    from fusiontools.llm.spans import Traces
    from fusiontools.llm.state.shared import State
    from fusiontools.record.types import Call, Message

_NO_SLOT = Slot()
#: Of so many records at once the marks are kept.
_REMEMBERED_RECORDS = 1024
#: Failures of whoever asked, not of the endpoint: no fallback helps, and another record may fare better.
_OWN_LIMITS = frozenset({"budget", "record_budget", "caller_budget", "deadline"})


class Closable(Protocol):
    """Something that is closed when its run is over."""

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Client:
    """Everything that stands between a stage and a model.

    Args:
        endpoints: by name, as the environment wants them.
        limits: timeouts, retries, concurrency and money.
        journal: where finished calls are kept; None keeps nothing.
        state: what is shared with other processes, where anything is; its journal is `journal`.
        replay: answer from the journal what it holds.
        offline: buy nothing; what the journal lacks fails as `offline_miss`.
        shares: whether identical calls under way at once are made once.
        redact: what no endpoint that is not trusted may see.
        notify: told of every call that begins or settles, of records that nobody watches apart.
        backends: made when first needed; given here by tests and embedders.
        tools: what the tools of members go by, where a record's recipe says nothing else.
        batch: sends calls as batch jobs, where that is wanted.
        traces: where the spans of calls, and of all around them, are told; None tells none.
    """

    endpoints: Mapping[str, Endpoint]
    limits: LimitOptions = field(default_factory=LimitOptions)
    journal: KeptCalls | None = None
    state: State | None = None
    replay: bool = False
    offline: bool = False
    shares: bool = True
    notify: Callable[[Event], None] | None = None
    backends: dict[str, Backend] = field(default_factory=dict)
    #: Where money is counted, and under which name that of the run.
    purses: Purses = field(default_factory=Purses)
    run: str = "run"
    tools: ToolOptions = field(default_factory=ToolOptions)
    batch: Desk | None = None
    traces: Traces | None = None
    #: What stages opened for the whole run beside the back ends, by what it was opened with; closed with them.
    opened: dict[int, Closable] = field(default_factory=dict, init=False)
    redact: Redact = ()
    budget: Budget = field(init=False)
    _slots: Slots = field(init=False)
    _embedded_slot: Slots = field(init=False)
    _paces: dict[str, Pace] = field(default_factory=dict, init=False)
    _time_limits: TimeLimits = field(default_factory=TimeLimits, init=False)
    _flights: SingleFlight = field(init=False)
    _marks: dict[tuple[Redact, str], Marks] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.budget = Budget(self.purses, self.run, self.limits.max_cost_usd)
        self._slots = Slots(self.limits.max_concurrency)
        self._embedded_slot = Slots(1)
        self._flights = SingleFlight(self.journal, self.state)
        if self.redact:
            from fusiontools.llm.sensitive import finder_for

            finder_for(self.redact)  # a pattern that is none is said now

    def ledger(self, stage: str, record_id: str) -> Ledger:
        """Open the ledger of one stage for one record; the record's deadline starts to run."""
        deadline, budgets = time.monotonic() + self.limits.deadline_s, self.budgets(self.limits.max_record_cost_usd)
        return Ledger(stage, record_id, deadline, budgets=budgets, redact=self.redact, notify=self.notify)

    def budgets(self, record_usd: float | None, spent_usd: float = 0.0) -> tuple[Budget | RecordBudget, ...]:
        """Return what has a limit: the run, and a record that has cost so much already."""
        run = () if self.budget.limit_usd is None else (self.budget,)
        return run if record_usd is None else (*run, RecordBudget(record_usd, spent_usd=spent_usd))

    def request(
        self,
        model: Model,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        sample: int = 0,
        cached: int = 0,
        marks: tuple[str, ...] = (),
    ) -> CompletionRequest:
        """Return the request that this model would be sent.

        Args:
            cached: how many of the first messages other requests share.
            marks: the marks of the fences in the messages.
        """
        return CompletionRequest(model.endpoint, model.model, messages, params, sample, cached, marks)

    def recall(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None = None
    ) -> Completion | None:
        """Return a finished call from the journal, without waiting; None where nothing is replayed, held or near."""
        if self.journal is None or self.journal.remote or not (self.replay or self.offline):
            return None
        endpoint = self.endpoints.get(request.endpoint) or unnamed_endpoint(request.endpoint)
        if endpoint is None:
            return None  # whoever asks is told so
        hidden = self._hide(request, ledger) if ledger.redact else None
        asked = request if hidden is None else hidden
        found = self.journal.get(request_key(asked, endpoint.identity, ledger.epoch))
        if found is None:
            return None
        if ledger.notify is not None:
            self._send_event(ledger, slot, model, 0.0, None, began=True)
        completion = self._take_kept(found, asked, model, ledger, slot)
        if hidden is not None:
            completion = hidden.restore(completion)
        if on_delta is not None:
            say_whole(on_delta, completion.content, completion.reasoning_details)
        return completion

    def _key(self, request: CompletionRequest, ledger: Ledger) -> bytes:
        return request_key(request, self._endpoint(request.endpoint).identity, ledger.epoch)

    def _take_kept(
        self, found: Found, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot
    ) -> Completion:
        completion, saved_usd = found
        if self.batch is not None and self.batch.recall(self._batch_call(request, model, ledger, slot), completion):
            pass  # it is entered as it was bought
        elif self.traces is not None and TRACED.get() is None:
            with self.traces.call(request, self._endpoint(request.endpoint), slot, streams=False) as span:
                ledger.enter_replayed(slot, request.endpoint, span.end_with(completion), saved_usd)
        else:
            ledger.enter_replayed(slot, request.endpoint, completion, saved_usd)
        _note_unmet(completion, model, ledger, slot)
        if ledger.notify is not None:
            self._send_event(ledger, slot, model, 0.0, 0.0, replayed=True)
        return completion

    async def complete(
        self,
        request: CompletionRequest,
        model: Model,
        ledger: Ledger,
        slot: Slot = _NO_SLOT,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Return a completion of the request: a kept one, else what `ask` returns.

        Raises:
            CallFailed: every model failed; the failure is the first one's.
        """
        asked = (request, model, ledger, slot, on_delta)
        return self.recall(*asked) or await self.ask(*asked)

    def ask(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None = None
    ) -> Coroutine[Any, Any, Completion]:
        """Return a completion of a request that `recall` does not know, or of the first fallback that gives one."""
        ask = self._ask_hidden if ledger.redact else self._ask
        return ask(request, model, ledger, slot, on_delta)

    async def _ask_hidden(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None
    ) -> Completion:
        from fusiontools.llm.redact import RestoringDeltas, wants_json

        hidden = self._hide(request, ledger)
        if on_delta is None:
            return hidden.restore(await self._ask(hidden, model, ledger, slot, None))
        deltas = RestoringDeltas(hidden.hidden, on_delta, in_json=wants_json(request.params))
        completion = await self._ask(hidden, model, ledger, slot, deltas.take)
        deltas.finish()
        return hidden.restore(completion)

    def hide(self, data: Any, ledger: Ledger) -> Any:
        """Return JSON data of a record as it may leave for a stranger: with marks in the place of what is hidden."""
        if not ledger.redact:
            return data
        from fusiontools.llm.redact import Hidden

        return Hidden(self._marks_of(ledger)).hide(data)

    def _hide(self, request: CompletionRequest, ledger: Ledger) -> HiddenRequest:
        """Return the request in the marks of its record."""
        from fusiontools.llm.redact import hide_request

        return hide_request(request, self._marks_of(ledger))

    def _marks_of(self, ledger: Ledger) -> Marks:
        """Return the marks of a ledger's record."""
        from fusiontools.llm.redact import Marks
        from fusiontools.llm.sensitive import finder_for

        key = (ledger.redact, ledger.record_id)
        marks = self._marks.pop(key, None) or Marks(finder_for(ledger.redact))
        self._marks[key] = marks
        if len(self._marks) > _REMEMBERED_RECORDS:
            del self._marks[next(iter(self._marks))]
        return marks

    def _ask(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None
    ) -> Coroutine[Any, Any, Completion]:
        ask = self._ask_in_turn if self.traces is None else self._ask_traced
        return ask(request, model, ledger, slot, on_delta)

    async def _ask_traced(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None
    ) -> Completion:
        assert self.traces is not None  # noqa: S101 - only then it is called
        endpoint = self.endpoints.get(request.endpoint)
        with self.traces.call(request, endpoint, slot, streams=on_delta is not None) as span:
            return span.end_with(await self._ask_in_turn(request, model, ledger, slot, on_delta))

    async def _ask_in_turn(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None
    ) -> Completion:
        """Ask the model, and then its fallbacks."""
        started, entered = time.monotonic(), len(ledger.calls)
        if ledger.notify is not None:
            self._send_event(ledger, slot, model, 0.0, None, began=True)
        first: CallFailed | None = None
        heard = None if on_delta is None or isinstance(on_delta, MemberDraft) else HeardDeltas(on_delta)
        hear = on_delta if heard is None else heard.take
        left = [(request, model)]
        if model.fallbacks:
            # The recipe's price is the first model's own.
            left += [
                (replace(request, model=name), replace(model, model=name, price_usd_per_mtok=None))
                for name in model.fallbacks
            ]
        hedge_s = (ledger.limits or self.limits).hedge_s if self.batch is None else None
        journal = self.journal if self.replay or self.offline else None
        while left:
            turn = [left.pop(0)]
            if hedge_s is not None and left:
                turn.append(left.pop(0))
            for asked, _ in turn:
                if journal is None or (asked is request and not journal.remote):
                    continue  # `recall` has looked there
                found = await journal.find(self._key(asked, ledger))
                if found is not None:
                    recalled = self._take_kept(found, asked, model, ledger, slot)
                    if on_delta is not None:
                        say_whole(on_delta, recalled.content, recalled.reasoning_details)
                    return recalled
            try:
                if self.offline:
                    self._endpoint(request.endpoint)  # that there is none is said first
                    raise CallFailed("offline_miss", "the journal holds no such call, and --offline buys none")
                buy = self._join_or_buy if self.batch is None else self._buy_by_batch
                if hedge_s is None or len(turn) == 1:
                    completion = await buy(*turn[0], ledger, slot, hear)
                else:
                    from fusiontools.llm.hedge import Hedged

                    hedged = Hedged(*(partial(buy, *each, ledger, slot) for each in turn))
                    try:
                        completion = await hedged.complete(hedge_s, hear)
                    finally:
                        left = left if hedged.asked_second else [turn[1], *left]
            except CallFailed as failure:
                first = first or failure
                if (heard is not None and heard.any) or failure.code in _OWN_LIMITS:
                    break
                if isinstance(on_delta, MemberDraft):
                    on_delta.begin_anew()
                continue
            _note_unmet(completion, model, ledger, slot)
            if ledger.notify is not None:
                cost_usd = _cost_of_slot(ledger.calls[entered:], slot)
                tokens = completion.usage["completion_tokens"] if completion.usage else None
                self._send_event(ledger, slot, model, time.monotonic() - started, cost_usd, tokens=tokens)
            return completion
        assert first is not None  # noqa: S101 - the loop ran at least once
        self._send_event(ledger, slot, model, time.monotonic() - started, None, failure=first)
        raise first

    @property
    def slots(self) -> Slots:
        """The turns of all calls but the embedded engine's."""
        return self._slots

    def pace_of(self, name: str) -> Pace:
        """Return the turns of an endpoint."""
        if name not in self._paces:
            self._paces[name] = Pace(self._endpoint(name), self.state)
        return self._paces[name]

    def backend_of(self, name: str) -> Backend:
        """Return the backend of an endpoint, for what goes there as it stands.

        Raises:
            CallFailed: there is no such endpoint, or no key for it.
        """
        return self._backend(self._endpoint(name))

    async def aclose(self) -> None:
        """Close the endpoints' connections, what was opened beside them, and the journal."""
        for opened in self.opened.values():
            await opened.aclose()
        for backend in self.backends.values():
            await backend.aclose()
        if self.batch is not None:
            await self.batch.aclose()
        for pace in self._paces.values():
            await pace.aclose()
        if self.journal is not None:
            await self.journal.aclose()
        await self.purses.aclose()
        if self.state is not None:
            await self.state.aclose()

    async def _buy_by_batch(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None
    ) -> Completion:
        assert self.batch is not None  # noqa: S101 - only then it is called
        at_once = partial(self._join_or_buy, request, model, ledger, slot, on_delta)
        return await self.batch.buy(self._batch_call(request, model, ledger, slot), on_delta, at_once)

    def _batch_call(self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot) -> DeskCall:
        from fusiontools.llm.batches.desk import DeskCall

        endpoint = self._endpoint(request.endpoint)
        return DeskCall(self._key(request, ledger), request, endpoint, model, ledger, slot)

    async def _join_or_buy(
        self, request: CompletionRequest, model: Model, ledger: Ledger, slot: Slot, on_delta: OnDelta | None
    ) -> Completion:
        """Buy the call, or have what an identical one brings that is under way."""
        if not self.shares:
            key = b"" if self.journal is None else self._key(request, ledger)
            return await self._buy(request, key, model, ledger, slot, on_delta)
        key = self._key(request, ledger)
        buy = partial(self._buy, request, key, model, ledger, slot, on_delta)
        limits = ledger.limits or self.limits
        shared = await self._flights.join_or_buy(key, buy, ledger.remaining_s, limits, replays=self.replay)
        if not isinstance(shared, Shared):
            return shared
        ledger.enter_replayed(slot, request.endpoint, shared.completion, shared.saved_usd)
        if on_delta is not None:
            say_whole(on_delta, shared.completion.content, shared.completion.reasoning_details)
        return shared.completion

    async def _buy(
        self,
        request: CompletionRequest,
        key: bytes,
        model: Model,
        ledger: Ledger,
        slot: Slot,
        on_delta: OnDelta | None,
        lease: Lease | None = None,
    ) -> Completion:
        endpoint = self._endpoint(request.endpoint)
        # One at a time through the embedded engine: a timeout must not run while a call waits for its turn.
        slots = self._embedded_slot if endpoint.embedded else self._slots
        limits = ledger.limits or self.limits
        pace = self._paces.get(endpoint.name) or self.pace_of(endpoint.name)
        backend = self.backends.get(endpoint.name)
        if backend is None:
            if endpoint.wants_key:
                from fusiontools.llm.key_mask import current_key

                await current_key(endpoint)  # others are served while a command or a keyring looks for it
            backend = self._backend(endpoint)
        if ledger.redact and (endpoint.trusted or endpoint.embedded):
            from fusiontools.llm.redact import Revealing

            backend = Revealing(backend)
        caller = Caller(backend, endpoint, model, limits, slots, pace, ledger, slot, self.purses, self._time_limits)
        completion, paid_usd = await call_with_retries(request, caller, on_delta)
        if self.journal is not None:
            await self.journal.put(key, request, completion, paid_usd, lease)
        return completion

    def _endpoint(self, name: str) -> Endpoint:
        endpoint = self.endpoints.get(name) or unnamed_endpoint(name)
        if endpoint is None:
            known = f"the endpoint {name!r} is not known here; give the recipe that defines it with -c"
            raise CallFailed("unknown_endpoint", known)
        return endpoint

    def _backend(self, endpoint: Endpoint) -> Backend:
        if endpoint.name not in self.backends:
            self.backends[endpoint.name] = _make_backend(endpoint)
        return self.backends[endpoint.name]

    def _send_event(
        self,
        ledger: Ledger,
        slot: Slot,
        model: Model,
        latency_s: float,
        cost_usd: float | None,
        *,
        replayed: bool = False,
        failure: CallFailed | None = None,
        began: bool = False,
        tokens: int | None = None,
    ) -> None:
        if ledger.notify is not None:
            label, purpose = slot.label or model.name, slot.step or (f"layer {slot.layer}" if slot.layer else "")
            about = (ledger.stage, ledger.record_id, label, latency_s, cost_usd)
            ledger.notify(Event(*about, replayed, failure, began, purpose, tokens))


def _make_backend(endpoint: Endpoint) -> Backend:
    try:
        require_ready(endpoint)
    except UsageError as error:
        # Between records it is one call's failure, like any other; what was paid for goes on.
        raise CallFailed("auth", error.message) from error
    if endpoint.embedded:
        from fusiontools.llm.local import LocalEngine

        return LocalEngine(endpoint.path, endpoint.context_tokens)
    if endpoint.runs_program:
        from fusiontools.llm.command import CommandBackend

        return CommandBackend(endpoint)
    from fusiontools.llm.http import HttpBackend

    if endpoint.api == "anthropic":
        from fusiontools.llm.anthropic import MESSAGES

        return HttpBackend(endpoint, api=MESSAGES)
    return HttpBackend(endpoint)


def _note_unmet(completion: Completion, model: Model, ledger: Ledger, slot: Slot) -> None:
    """Enter that a response or an answer is not of the form that was asked for; a verdict's reader says so itself."""
    if completion.unmet is not None and slot.step in (None, "refine"):
        ledger.unmet.append(f"{slot.label or model.name}: {completion.unmet}")


def _cost_of_slot(calls: Sequence[Call], slot: Slot) -> float | None:
    """Return what all attempts of a slot cost, or None where nobody knows it of one."""
    costs = [c["cost_usd"] for c in calls if c.get("member") == slot.member and c.get("sample") == slot.sample]
    return None if None in costs else sum(cost for cost in costs if cost)
