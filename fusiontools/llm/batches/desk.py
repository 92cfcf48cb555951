"""What becomes of a call where calls go as batch jobs: it is answered, has failed, waits, or is noted to be sent.

A record is taken through its stages as ever. A call that nobody has bought yet waits, with all that waits for it; once
everything in the record waits, the record is put aside, and what it asked for goes into jobs. When those have ended,
the record is taken through its stages again, and comes a step further. So no stage knows of jobs, and what is sent is
just what a record needs next: calls that depend on an answer are not asked before it is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import BatchTerms
from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm import prices
from fusiontools.llm.batches.batch_lines import BatchLines, digest
from fusiontools.llm.batches.batch_money import BatchMoney, in_a_job
from fusiontools.llm.batches.dispatch import Dispatch, Spool, SpooledCall, reason_of
from fusiontools.llm.batches.job_file import BatchJob, JobFile, KnownCall, failure_of, kept_failure
from fusiontools.llm.batches.job_store import JobStore
from fusiontools.llm.budget import costs_nothing
from fusiontools.llm.completion import say_whole
from fusiontools.llm.failures import read_failure
from fusiontools.llm.ledger import Ledger, Slot, paid, paid_for
from fusiontools.llm.quirks import MOST_LESSONS

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint, Model
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
    from fusiontools.llm.state.store import KeptCalls
    from fusiontools.record.types import Record

#: So many turns of the loop, and every task of a record has come to its call, or waits for one that has.
_TURNS = 8
_SLOT = ("member", "sample", "layer", "step")
#: HTTP's: from here on an answer is a refusal. So much of one is kept, to learn from it.
_REFUSED, _KEPT_BYTES = 300, 20_000


class _Watch:
    """Watches over one record: whether all that happens in it waits for jobs."""

    def __init__(self) -> None:
        self.waiting = self.begun = self.working = 0
        self._changed = asyncio.Event()

    async def wait(self) -> None:
        """Wait for ever."""
        self.waiting += 1
        self._changed.set()
        await asyncio.get_running_loop().create_future()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Count a call that is made at once."""
        self.begun += 1
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1
            self._changed.set()

    async def all_wait(self) -> None:
        """Return once something waits and nothing else goes on."""
        while True:
            if not self.waiting or self.working:
                self._changed.clear()
                await self._changed.wait()
            before = (self.waiting, self.begun)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if self.waiting and not self.working and before == (self.waiting, self.begun):
                return


_WATCH: ContextVar[_Watch | None] = ContextVar("batch_watch", default=None)


async def attempt(work: Callable[[], Awaitable[Record]]) -> Record | None:
    """Return what comes of a record; None where it waits for jobs."""
    task = await _far_as_it_comes(work)
    return None if task is None else task.result()


async def waits(work: Callable[[], Awaitable[Record]]) -> bool:
    """Return whether a record waits for jobs; one that cannot be used is said when it leaves.

    Raises:
        UsageError: no record can be used.
    """
    task = await _far_as_it_comes(work)
    if task is not None and isinstance(failure := task.exception(), UsageError):
        raise failure
    return task is None


async def _far_as_it_comes(work: Callable[[], Awaitable[Record]]) -> asyncio.Future[Record] | None:
    watch = _Watch()
    token = _WATCH.set(watch)
    try:
        task = asyncio.ensure_future(work())
    finally:
        _WATCH.reset(token)
    waiting = asyncio.create_task(watch.all_wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return task if task.done() else None
    finally:
        waiting.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


class DeskCall(Struct, frozen=True):
    """A call as the client makes it."""

    key: bytes
    request: CompletionRequest
    endpoint: Endpoint
    model: Model
    ledger: Ledger
    slot: Slot


@dataclass(slots=True)
class Desk:
    """The batch jobs of one run.

    Args:
        endpoints: by name.
        limits: how often what fails is sent again.
        money: what jobs cost.
        journal: where answers are kept.
        store: where jobs are noted.
        say: tells a person what goes on.
        or_buy_s: how long a job may take; what it then lacks is bought at once. None waits as long as it takes.
        moneyless: why no call is sent that is in no job yet; it fails so.
    """

    endpoints: Mapping[str, Endpoint]
    limits: LimitOptions
    money: BatchMoney
    journal: KeptCalls
    store: JobStore
    say: Callable[[str], None]
    or_buy_s: float | None = None
    moneyless: str | None = None
    dispatch: Dispatch = field(init=False)
    #: Of this round: the calls to send, the jobs that records wait for, and the calls for which there is no money yet.
    spool: Spool = field(default_factory=Spool, init=False)
    under_way: set[str] = field(default_factory=set, init=False)
    held: set[bytes] = field(default_factory=set, init=False)
    #: The calls that have failed for good.
    _failed: dict[bytes, str] = field(default_factory=dict, init=False)
    _lines: dict[str, BatchLines] = field(default_factory=dict, init=False)
    #: Of equal calls one is sent, and room for one is not taken by two; of equal answers one is read.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _reading: WeakValueDictionary[bytes, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False)
    _warned: set[str] = field(default_factory=set, init=False)
    _lessons: set[tuple[str, str, str]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.dispatch = Dispatch(self.store, self.endpoints, self.say, self.money.reserve)

    def begin_round(self) -> None:
        """Forget what the last round has found."""
        self.spool.close()
        self.spool, self.under_way, self.held = Spool(), set(), set()
        self._failed = {}
        self.money.begin_round()

    async def submit(self) -> int:
        """Send the calls of this round; returns how many must wait for room in a queue.

        Raises:
            CallFailed: a provider refuses a job, or cannot be reached; what was sent before is noted.
        """
        unsent = 0
        for endpoint, model, calls in self.spool.groups():
            sent, waiting = await self.dispatch.submit(self.endpoints[endpoint], model, calls)
            self.under_way.update(job.id for job in sent)
            unsent += waiting
        return unsent

    def jobs(self) -> list[BatchJob]:
        """Return the jobs that records wait for."""
        return [job for job in map(self.store.job, sorted(self.under_way)) if job is not None]

    def poll_s(self, jobs: Iterable[BatchJob]) -> float:
        """Return how long to wait until these jobs are looked at again."""
        named = {job.endpoint for job in jobs}
        terms = [e.batch_terms for e in self.endpoints.values() if e.name in named or not named]
        return min((each.poll_s for each in terms if each is not None), default=BatchTerms().poll_s)

    def failures(self) -> list[str]:
        """Return why calls of this round have failed for good, each with its record."""
        return list(self._failed.values())

    async def forget_failed(self) -> None:
        """Forget what has failed for good, now that every record has been told: who asks again has it sent anew."""
        if self._failed:
            await self.store.write(JobFile.forget, sorted(self._failed))

    async def take(self, call: DeskCall) -> Completion | None:
        """Return the completion of a call, or wait for it until the record is put aside.

        Returns:
            None where the call is to be made at once.

        Raises:
            CallFailed: it has failed for good, or there is no money for it.
        """
        watch, terms = _WATCH.get(), call.endpoint.batch_terms
        if watch is None or terms is None:
            self._note_direct(call.endpoint)
            return None
        call = self._bounded(call)
        with watch.work():
            async with self._reading.setdefault(call.key, asyncio.Lock()):
                known = self.store.find(call.key)
                if known is not None and known.body is not None and known.state in ("answered", "bought"):
                    if (completion := await self._read(call, known, terms)) is not None:
                        return completion
                    known = self.store.find(call.key)
        if known is not None and known.state == "open":
            self.under_way.add(known.job)
            self.money.count_pending(call.key, known.bound_usd, call.ledger.budgets)
            await watch.wait()
        if known is not None and known.state == "failed":
            self._enter_failures(call, known.failures)
            if not self._goes_again(call, known):
                failure = failure_of(known.failures[-1])
                self._failed[call.key] = f"{call.ledger.record_id}: {failure.code}: {failure.message}"
                raise failure
            if self.or_buy_s is not None and time.time() - known.asked_s >= self.or_buy_s:
                return None
        if self.moneyless is not None:
            raise CallFailed("budget", self.moneyless)
        with watch.work():
            async with self._turn:
                await self._spool(call, known, terms)
        await watch.wait()
        return None

    async def buy(
        self, call: DeskCall, on_delta: OnDelta | None, at_once: Callable[[], Awaitable[Completion]]
    ) -> Completion:
        """Return what came of a call in a job, or wait there; or make it at once, where it cannot go so.

        Raises:
            CallFailed: it has failed for good, or there is no money for it.
        """
        if on_delta is not None:
            on_delta("")  # whoever waits for this call to begin has a call of its own to make
        if (completion := await self.take(call)) is not None:
            if on_delta is not None:
                say_whole(on_delta, completion.content, completion.reasoning_details)
            return completion
        watch = _WATCH.get()
        with watch.work() if watch is not None else nullcontext():
            completion = await at_once()
            await self._note_bought(call)
        return completion

    def recall(self, call: DeskCall, completion: Completion) -> bool:
        """Enter a call that the journal holds with what it has cost in a job; False where it was bought otherwise."""
        known = self.store.find(call.key)
        if known is None or known.state != "bought":
            return False
        self._enter(call, known, completion)
        return True

    async def _note_bought(self, call: DeskCall) -> None:
        """Keep what a call has cost that was just made at once: the rounds that follow find it in the journal."""
        slot = (call.slot.member, call.slot.sample, call.slot.layer, call.slot.step)
        of_slot = (c for c in reversed(call.ledger.calls) if tuple(map(c.get, _SLOT)) == slot)
        made = next(of_slot)
        if made["status"] == "ok" and not made["replayed"]:
            paid_as = made["cost_usd"], made["cost_source"], made["latency_s"]
            await self.store.write(JobFile.set_bought, call.key, "", *paid_as, time.time())

    async def aclose(self) -> None:
        """Close the connections and the notes."""
        self.spool.close()
        await self.dispatch.aclose()

    async def _read(self, call: DeskCall, known: KnownCall, terms: BatchTerms) -> Completion | None:
        """Return the completion in an answer that has come, once it is in the journal; None where it is a failure."""
        assert known.body is not None  # noqa: S101 - else there is nothing to read
        lines = self._lines_of(call.endpoint)
        await self._learn_again(call, known)
        job = self.store.job(known.job)
        latency_s = max(0.0, time.time() - job.made_s) if job is not None else 0.0
        try:
            if known.status == 0:
                raise CallFailed("not_run", reason_of(known.body), retryable=True)
            if known.status is not None and known.status >= _REFUSED:
                raise read_failure(known.status, known.body, {})
            completion = await lines.read(call.request, known.status or 0, known.body)
        except CallFailed as failure:
            kept = kept_failure(failure)
            kept["cost_usd"], kept["source"] = self._cost_of_failure(failure, call, terms)
            if known.status is not None and known.status >= _REFUSED:
                kept["refusal"] = [known.status, known.body[:_KEPT_BYTES].decode("utf-8", "replace")]
                kept["adapted"] = await lines.learn(call.request, known.sent, known.status, known.body)
            if await self.store.write(JobFile.set_failed, call.key, [*known.failures, kept]):
                await self.money.settle(known.bound_usd, kept["cost_usd"])
            return None
        paid_usd, source = in_a_job(*paid_for(call.endpoint, call.model, completion), terms)
        await self.journal.put(call.key, call.request, completion, paid_usd)
        paid_as = paid_usd, source, round(latency_s, 4)
        if await self.store.write(JobFile.set_bought, call.key, known.job, *paid_as, time.time()):
            await self.money.settle(known.bound_usd, paid_usd)
        bought = self.store.find(call.key)
        assert bought is not None  # noqa: S101 - it has just been noted
        self._enter(call, bought, completion)
        return completion

    def _enter(self, call: DeskCall, known: KnownCall, completion: Completion) -> None:
        """Enter what came of a call in its jobs, and what it has cost."""
        self._enter_failures(call, known.failures)
        call.ledger.enter(
            call.slot,
            attempt=len(known.failures) + 1,
            model=completion.model,
            endpoint=call.endpoint.name,
            usage=completion.usage,
            cost_usd=known.paid_usd,
            cost_source=known.source,
            latency_s=known.latency_s or 0.0,
        )
        if known.job:
            cost_usd = known.bound_usd if known.paid_usd is None else known.paid_usd
            self.money.count_spent(call.key, cost_usd, call.ledger.budgets)

    def _enter_failures(self, call: DeskCall, failures: Sequence[Any]) -> None:
        for attempt_number, kept in enumerate(failures, start=1):
            call.ledger.enter(
                call.slot,
                attempt=attempt_number,
                model=call.request.model,
                endpoint=call.endpoint.name,
                status=kept["code"],
                usage=kept["usage"],
                cost_usd=kept["cost_usd"],
                cost_source=kept["source"],
            )
            if cost_usd := kept["cost_usd"]:
                self.money.count_spent((call.key, attempt_number), cost_usd, call.ledger.budgets)

    def _cost_of_failure(
        self, failure: CallFailed, call: DeskCall, terms: BatchTerms
    ) -> tuple[float | None, str | None]:
        if failure.usage is not None or failure.cost_usd is not None:
            usage: Any = failure.usage
            return in_a_job(*paid(call.endpoint, call.model, usage, failure.cost_usd), terms)
        free = call.endpoint.free or failure.code == "not_run" or costs_nothing(failure)
        return (0.0, "free") if free else (None, None)

    def _goes_again(self, call: DeskCall, known: KnownCall) -> bool:
        """Return whether a call that failed is sent again."""
        limits: LimitOptions = call.ledger.limits or self.limits
        last = known.failures[-1]
        lessons = sum(bool(each.get("adapted")) for each in known.failures)
        if last.get("adapted"):
            return lessons <= MOST_LESSONS
        return bool(last["retryable"]) and len(known.failures) - lessons <= limits.retries

    async def _learn_again(self, call: DeskCall, known: KnownCall) -> None:
        """Take the lessons of earlier refusals, where another process took them."""
        for each in known.failures:
            if not (refusal := each.get("refusal")):
                continue
            lesson = (call.endpoint.name, call.request.model, refusal[1])
            if lesson not in self._lessons:
                self._lessons.add(lesson)
                lines = self._lines_of(call.endpoint)
                await lines.learn(call.request, digest(await lines.body(call.request)), refusal[0], refusal[1].encode())

    async def _spool(self, call: DeskCall, known: KnownCall | None, terms: BatchTerms) -> None:
        """Note a call to be sent, where there is money for it."""
        if call.key in self.spool:
            return
        if known is not None:
            await self._learn_again(call, known)
        bound_usd = prices.upper_bound_usd(call.endpoint, call.model, call.request.messages, call.request.params)
        bound_usd = None if bound_usd is None else bound_usd * terms.price_factor
        body = await self._lines_of(call.endpoint).body(call.request)
        api = self.dispatch.api(call.endpoint.name)
        line, most_bytes = api.line(call.key.hex(), body), terms.max_bytes or api.max_bytes
        if len(line) > most_bytes:
            too_long = f"a call of {len(line):,} bytes does not go into a batch job of at most {most_bytes:,}"
            raise CallFailed("bad_request", too_long)
        tokens = prices.prompt_tokens(call.request.messages, call.request.params)
        if not await self.money.take_room(call.key, call.request.model, bound_usd, call.ledger.budgets):
            self.held.add(call.key)
            return
        spooled = SpooledCall(call.key, digest(body), bound_usd or 0.0, tokens, line)
        self.spool.add(call.endpoint.name, call.request.model, spooled)

    def _bounded(self, call: DeskCall) -> DeskCall:
        """Return a call as it is where its price is bounded."""
        if not call.ledger.budgets or call.endpoint.free:
            return call
        params = prices.with_bound(call.endpoint, call.request.params)
        return replace(call, request=replace(call.request, params=params))

    def _lines_of(self, endpoint: Endpoint) -> BatchLines:
        if endpoint.name not in self._lines:
            self._lines[endpoint.name] = BatchLines(endpoint)
        return self._lines[endpoint.name]

    def _note_direct(self, endpoint: Endpoint) -> None:
        """Say once of an endpoint that costs money that its calls are made at once."""
        if endpoint.batch_terms or endpoint.free or endpoint.embedded or endpoint.runs_program:
            return
        if endpoint.name not in self._warned:
            self._warned.add(endpoint.name)
            self.say(f"warning: {endpoint.name} takes no batch jobs; calls to it are made at once, at their full price")
