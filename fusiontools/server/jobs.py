"""Jobs, each of which makes one record: how many run at once, and who waits for one.

A job has a task that runs the chain and says pieces of the answer meanwhile, which it keeps, so that who joins late
hears everything. A subscriber is one client: with the last of them the job is given up.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from fusiontools.config.models import plain_model
from fusiontools.errors import InputError, UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Delta
from fusiontools.llm.drafts import Drafts
from fusiontools.llm.ledger import Event
from fusiontools.llm.purses import Budget
from fusiontools.record import jsonl
from fusiontools.record.sections import question_id
from fusiontools.record.types import Record
from fusiontools.server.metrics import Metrics
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ResponseMeta
from fusiontools.server.request import Peer, RequestLog
from fusiontools.server.scrubbing import scrub_record, words_of
from fusiontools.stages.runtime import Runtime

if TYPE_CHECKING:
    from fusiontools.server.plan import Plan


class Note(Struct, frozen=True):
    """What goes on, in words, and richer for who asked for events; a note without words is for those alone."""

    words: str
    event: dict[str, Any]


Piece = Delta | Note


class Listener(Protocol):
    """Somebody for whom a job works."""

    def wake(self) -> None:
        """Hear that there is more, or that it is done."""


class Job:
    """The task that makes one record, and what it has said so far."""

    def __init__(self, work: Callable[[Job], Awaitable[Record]]) -> None:
        self.pieces: list[Piece] = []
        #: Whether a request has paid for it: whoever reads the end after that has it for nothing.
        self.paid = False
        #: The members' texts, where somebody wants to read along.
        self.drafts: Drafts | None = None
        self._subscribers: set[Listener] = set()
        self.task: asyncio.Task[Record] = asyncio.ensure_future(work(self))
        self.task.add_done_callback(self._wake_all)

    def say(self, piece: Piece) -> None:
        """Hand on a piece of the answer, or what goes on."""
        self.pieces.append(piece)
        for subscriber in self._subscribers:
            subscriber.wake()

    def join(self, subscriber: Listener) -> None:
        """Add a client."""
        self._subscribers.add(subscriber)

    def leave(self, subscriber: Listener) -> None:
        """Take a client away; with the last one the work ends, sockets and all."""
        self._subscribers.discard(subscriber)
        if not self._subscribers and not self.task.done():
            self.task.cancel()

    def _wake_all(self, _: asyncio.Task[Record]) -> None:
        for subscriber in self._subscribers:
            subscriber.wake()
        if not self.task.cancelled():
            self.task.exception()  # somebody may hear of it, or everybody has left


class Hold:
    """Keeps a job going while no client listens to it: `with`."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> Hold:
        self._job.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._job.leave(self)

    def wake(self) -> None:
        """Do nothing: nobody listens."""


class Subscriber:
    """One client of a job: `with`, then `more` until `finished` or `gone`.

    Args:
        peer: tells when the client leaves.
        keepalive_s: after how many silent seconds `silent` is set; None for never.
        write: writes pieces at once, while the task waits for more; returns False, and writes nothing, where the task
            must see to it.
    """

    def __init__(
        self,
        job: Job,
        peer: Peer,
        keepalive_s: float | None = None,
        write: Callable[[Sequence[Piece]], bool] | None = None,
    ) -> None:
        self.gone = self.silent = False
        self._job = job
        self._peer = peer
        self._at = 0
        self._keepalive_s = keepalive_s
        self._write = write
        self._writes_soon = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Subscriber:
        self._loop = asyncio.get_running_loop()
        self._peer.add(self._leave)
        self._job.join(self)
        self._last_s = self._loop.time()
        if self._keepalive_s is not None:
            self._timer = self._loop.call_later(self._keepalive_s, self._check_silence)
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.remove(self._leave)
        if self._timer is not None:
            self._timer.cancel()
        self._job.leave(self)

    @property
    def finished(self) -> bool:
        """Whether all pieces have been read and the record is there."""
        return self._job.task.done() and self._at == len(self._job.pieces)

    async def more(self) -> list[Piece]:
        """Return the pieces since the last time, or since what was written; waits for one, the end, silence, or the
        client to go.
        """
        self.silent = False
        while self._at == len(self._job.pieces) and not (self.gone or self.silent or self._job.task.done()):
            self._waiter = self._loop.create_future()
            await self._waiter
        pieces = self._job.pieces[self._at :]
        self._at += len(pieces)
        self._last_s = self._loop.time()
        return pieces

    def wake(self) -> None:
        """Let the client look again; what is said in one pass of the loop is written together, and wakes no task."""
        if self._write is None or self._job.task.done():
            self._wake_task()
        elif not self._writes_soon:
            self._writes_soon = True
            self._loop.call_soon(self._write_new, self._write)

    def _write_new(self, write: Callable[[Sequence[Piece]], bool]) -> None:
        self._writes_soon = False
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # the task is at work, and will look for itself
        pieces = self._job.pieces[self._at :]
        try:
            written = write(pieces)
        except Exception as error:  # is for the task
            waiter.set_exception(error)
            return
        if written:
            self._at += len(pieces)
            self._last_s = self._loop.time()
        else:
            waiter.set_result(None)

    def _wake_task(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _leave(self) -> None:
        self.gone = True
        self._wake_task()

    def _check_silence(self) -> None:
        assert self._keepalive_s is not None  # noqa: S101 - only then there is a timer
        left_s = self._last_s + self._keepalive_s - self._loop.time()
        self.silent = left_s <= 0
        self._timer = self._loop.call_later(self._keepalive_s if self.silent else left_s, self._check_silence)
        if self.silent:
            self._wake_task()


#: How soon a client that was turned away may try again.
_RETRY_S = 1


class ConcurrencyLimiter:
    """A bounded number of requests inside, a bounded number waiting; `async with` is a place inside.

    Args:
        most: how many are inside at once.
        most_waiting: how many wait at most.
        queue_s: how long one waits at most.
    """

    def __init__(self, most: int, most_waiting: int, queue_s: float) -> None:
        self.inside = self.waiting = 0
        self._most_waiting = most_waiting
        self._queue_s = queue_s
        self._places = asyncio.Semaphore(most)
        self._tell_inside: Callable[[int], None] = _nobody
        self._tell_waiting: Callable[[int], None] = _nobody

    def watch(self, inside: Callable[[int], None], waiting: Callable[[int], None]) -> None:
        """Tell these how many are inside, and how many wait, whenever that changes."""
        self._tell_inside, self._tell_waiting = inside, waiting

    def refuse_if_full(self) -> None:
        """Raise `ApiError` where one more would wait in too long a line."""
        if self._places.locked() and self.waiting >= self._most_waiting:
            raise _overloaded("too many requests are waiting")

    async def __aenter__(self) -> None:
        if self._places.locked():
            self.refuse_if_full()  # others may have come in since whoever comes here asked
            await self._wait()
        else:
            await self._places.acquire()
        self.inside += 1
        self._tell_inside(self.inside)

    async def __aexit__(self, *_: object) -> None:
        self.inside -= 1
        self._places.release()
        self._tell_inside(self.inside)

    async def _wait(self) -> None:
        self.waiting += 1
        self._tell_waiting(self.waiting)
        try:
            async with asyncio.timeout(self._queue_s):
                await self._places.acquire()
        except TimeoutError:
            raise _overloaded(f"no place was free within {self._queue_s:g} s") from None
        finally:
            self.waiting -= 1
            self._tell_waiting(self.waiting)


def _nobody(_: int) -> None:
    return


def _overloaded(why: str) -> ApiError:
    return ApiError(503, "server_overloaded", f"the server is busy: {why}", headers={"retry-after": str(_RETRY_S)})


class Exchange(Struct, frozen=True):
    """A request on its way to its answer."""

    request: ChatRequest
    meta: ResponseMeta
    plan: Plan
    job: Job
    log: RequestLog


def key_of(request: ChatRequest, caller: str) -> bytes:
    """Return what tells requests apart: everything that changes the answer, and who asks."""
    question = [caller, request.model, request.messages, request.params, request.fusion]
    return hashlib.sha256(jsonl.canonical(question)).digest()


class JobRunner(Struct, frozen=True):
    """What all requests share."""

    client: Client
    limiter: ConcurrencyLimiter
    metrics: Metrics
    max_request_cost_usd: float | None = None
    #: Whether others may join a job: then it says what it writes, whoever asked first.
    joined: bool = False
    #: Whether streams show the first member's draft.
    drafts: bool = False

    def work(
        self, request: ChatRequest, plan: Plan, budget: Budget | None, named: Mapping[str, Any] | None = None
    ) -> Callable[[Job], Any]:
        """Return what makes a record: the work of a job.

        Args:
            named: the record's `id`, `meta`, `evidence` and `epoch`, where given; all of it where its panel is.

        Raises of the work:
            ApiError: no place was free in time, or the request is no question that the chain can read.
        """

        async def make(job: Job) -> Record:
            async with self.limiter:
                first = record_of(request, plan, named)
                runtime = self._runtime(job, request, plan, budget, first)
                try:
                    record = await plan.stage(first, runtime)
                except InputError as error:
                    raise ApiError(400, "invalid_request", error.message) from error
                except UsageError as error:
                    # Nothing that a request says: what its recipe wants cannot be opened here.
                    raise ApiError(503, error.code, error.message) from error
            self.metrics.count_record(record)
            return record

        return make

    def _runtime(self, job: Job, request: ChatRequest, plan: Plan, budget: Budget | None, first: Record) -> Runtime:
        followed = request.stream or self.joined
        if followed and (request.reads_along or plan.fusion.get("events") == "text"):
            job.drafts = Drafts(functools.partial(_say_text, job))
        elif followed and self.drafts:
            job.drafts = Drafts(functools.partial(_say_text, job), twice=False)
        limits = [usd for usd in (self.max_request_cost_usd, plan.fusion.get("max_cost_usd")) if usd is not None]
        return Runtime(
            self.client,
            deadline=time.monotonic() + plan.recipe.limits.deadline_s,
            limits=plan.recipe.limits,
            tools=plan.recipe.tools,
            on_delta=job.say if followed else None,
            max_cost_usd=min(limits, default=None),
            purse=budget,
            on_call=self.metrics.count_call,
            notify=_Progress(job).take if followed else None,
            redact=plan.recipe.redact,
            on_stage=_Stages(job, first).take if followed else None,
            drafts=job.drafts,
        )


def _say_text(job: Job, label: str, layer: int, text: str | None) -> None:
    """Say what a member writes, to who reads along."""
    about = {"stage": "panel", "model": label, "layer": layer}
    job.say(Note("", {"type": "text.reset", **about} if text is None else {"type": "text", **about, "text": text}))


class _Stages:
    """Says what each stage has found, to who asked for events, before the answer is written."""

    def __init__(self, job: Job, first: Record) -> None:
        self._job, self._last = job, first

    def take(self, stage: str, record: Record) -> None:
        """Say the analysis; to who reads along, every section that the stage has made."""
        if stage == "judge" and "analysis" in record:
            self._job.say(Note("", {"type": "analysis", "stage": stage, "analysis": record["analysis"]}))
        if self._job.drafts is not None and self._job.drafts.twice:
            last: Any = self._last
            made = {name: value for name, value in record.items() if last.get(name) is not value and name != "recipe"}
            self._job.say(Note("", {"type": "stage", "stage": stage, "record": scrub_record(made)}))  # type: ignore[arg-type]
            self._last = record


#: What stays of a record whose panel stands; who pays, what was degraded and what failed is of the run that made it.
STANDING = ("evidence", "epoch", "layers", "panel", "baselines", "spared", "analysis")


def record_of(request: ChatRequest, plan: Plan, named: Mapping[str, Any] | None = None) -> Record:
    """Return the record that a chain starts from."""
    named = named or {}
    record: Record = {"id": named.get("id") or question_id(request.messages), "messages": request.messages}
    if request.params:
        record["params"] = request.params
    kept: Any = {key: named[key] for key in ("meta", "evidence", "epoch") if key in named}
    if request.over_panel:
        kept |= {key: named["record"][key] for key in STANDING if key in named["record"]}
    record |= kept
    if plan.model is not None:
        route: Any = {"to": "solo", "reason": "asked by name", "method": "name", "model": plain_model(plan.model)}
        record["route"] = route
    return record


class _Progress:
    """Turns what happens to the calls of one record into words: `panel 2/3`, `judge`, `synth`."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._begun: dict[str, int] = {}
        self._settled: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """Say what a call that begins or settles means."""
        step = event.stage if event.purpose in ("", "layer 1") else f"{event.stage} {event.purpose}"
        detail: dict[str, Any] = {"stage": event.stage, "model": event.label}
        if event.purpose:
            detail["step"] = event.purpose
        if event.began:
            first = step not in self._begun
            self._begun[step] = self._begun.get(step, 0) + 1
            words = step if first and event.stage != "panel" else ""
            self._job.say(Note(words, {"type": "call.began", **detail}))
            return
        self._settled[step] = self._settled.get(step, 0) + 1
        if event.failure is not None:
            detail |= {"error": event.failure.code, "message": words_of(event.failure.code, event.failure.message)}
        words = f"{step} {self._settled[step]}/{self._begun.get(step, 1)}" if event.stage == "panel" else ""
        settled = {
            "type": "call.failed" if event.failure else "call.done",
            **detail,
            "latency_s": round(event.latency_s, 4),
        }
        if event.completion_tokens is not None:
            settled["completion_tokens"] = event.completion_tokens
        self._job.say(Note(words if event.failure is None else "", {**settled, "cost_usd": event.cost_usd}))
