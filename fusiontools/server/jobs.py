"""An answer on its way, and whoever waits for it: made once, heard by any number of clients, given up with the last.

A flight has a task that makes the record and says pieces of the answer meanwhile. A listener is one client: it hears
every piece from the first on, finds out when its client has gone, and rings when the line has been silent for long.

Answers kept in memory for a while, and equal questions under way at once asked once; each caller has its own.

Where orders become records: the chain runs within the limits, and what goes on is said to whoever listens.

The stages are the ones of the shell, unchanged.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fusiontools.config.models import plain_model
from fusiontools.errors import InputError
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Delta
from fusiontools.llm.ledger import Budget, Event
from fusiontools.record import jsonl
from fusiontools.record.sections import question_id
from fusiontools.record.types import Record
from fusiontools.server.limits import ConcurrencyLimiter
from fusiontools.server.metrics import Metrics
from fusiontools.server.plan import Plan
from fusiontools.server.protocols.exchange import ApiError, ChatRequest
from fusiontools.stages.runtime import Runtime

Receive = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Note:
    """What goes on, in words, and richer for who asked for events; a note without words is for those alone."""

    words: str
    event: dict[str, Any]


Piece = Delta | Note


class Job:
    """The task that makes one record, and what it has said so far."""

    def __init__(self, work: Callable[[Job], Awaitable[Record]]) -> None:
        self.pieces: list[Piece] = []
        #: Whether somebody has been told what it cost: whoever hears the end after that has it for nothing.
        self.paid = False
        self._listeners: set[Subscriber] = set()
        self.task: asyncio.Task[Record] = asyncio.ensure_future(work(self))
        self.task.add_done_callback(self._wake_all)

    def say(self, piece: Piece) -> None:
        """Hand on a piece of the answer, or what goes on."""
        self.pieces.append(piece)
        for listener in self._listeners:
            listener.wake()

    def join(self, listener: Subscriber) -> None:
        """Add a client."""
        self._listeners.add(listener)

    def leave(self, listener: Subscriber) -> None:
        """Take a client away; with the last one the work ends, sockets and all."""
        self._listeners.discard(listener)
        if not self._listeners and not self.task.done():
            self.task.cancel()

    def _wake_all(self, _: asyncio.Task[Record]) -> None:
        for listener in self._listeners:
            listener.wake()
        if not self.task.cancelled():
            self.task.exception()  # somebody may hear of it, or everybody has left


class Subscriber:
    """One client of a flight: `async with`, then `more` until `finished` or `gone`.

    Args:
        receive: ASGI's, after the whole body has been read: it tells when the client leaves.
        ring_s: after how many silent seconds `rang` is set; None never rings.
    """

    def __init__(self, flight: Job, receive: Receive, ring_s: float | None = None) -> None:
        self.gone = self.rang = False
        self._flight = flight
        self._receive = receive
        self._at = 0
        self._ring_s = ring_s
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Subscriber:
        self._loop = asyncio.get_running_loop()
        self._watch = asyncio.ensure_future(self._until_gone())
        self._flight.join(self)
        self._heard = self._loop.time()
        if self._ring_s is not None:
            self._timer = self._loop.call_later(self._ring_s, self._ring)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        del self._watch  # its traceback would hold on to us, a ring for each request
        if self._timer is not None:
            self._timer.cancel()
        self._flight.leave(self)

    @property
    def finished(self) -> bool:
        """Whether all has been heard and the record is there."""
        return self._flight.task.done() and self._at == len(self._flight.pieces)

    async def more(self) -> list[Piece]:
        """Return what was said since the last time; waits for something, the end, a ring, or the client to go."""
        self.rang = False
        while self._at == len(self._flight.pieces) and not (self.gone or self.rang or self._flight.task.done()):
            self._waiter = self._loop.create_future()
            await self._waiter
        pieces = self._flight.pieces[self._at :]
        self._at += len(pieces)
        self._heard = self._loop.time()
        return pieces

    def wake(self) -> None:
        """Let the client look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.wake()

    def _ring(self) -> None:
        assert self._ring_s is not None  # noqa: S101 - only then there is a timer
        left_s = self._heard + self._ring_s - self._loop.time()
        self.rang = left_s <= 0
        self._timer = self._loop.call_later(self._ring_s if self.rang else left_s, self._ring)
        if self.rang:
            self.wake()


#: What `degraded` says that no second try would change.
_NO_FAILURES = ("judge_on_panel",)


@dataclass(slots=True)
class Cache:
    """Finished records by key, the latest used last.

    Args:
        keep_s: how long an answer is kept; 0 keeps none.
        entries: how many are kept.
        clock: seconds, rising.
    """

    keep_s: float
    entries: int
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[bytes, tuple[float, Record]] = field(default_factory=OrderedDict)
    _flights: dict[bytes, Job] = field(default_factory=dict)

    @property
    def keeps(self) -> bool:
        """Whether there is a cache at all."""
        return self.keep_s > 0

    def get(self, key: bytes) -> Record | None:
        """Return a finished record that is still fresh."""
        found = self._kept.get(key)
        if found is None:
            return None
        expires, record = found
        if expires <= self.clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return record

    def under_way(self, key: bytes) -> Job | None:
        """Return the flight of this key, where one can still be joined."""
        flight = self._flights.get(key)
        return flight if flight is not None and not flight.task.done() and not flight.task.cancelling() else None

    def begin(self, key: bytes, work: Callable[[Job], Awaitable[Record]]) -> Job:
        """Return a new flight, which others may join."""
        flight = self._flights[key] = Job(work)
        flight.task.add_done_callback(lambda _: self._landed(key, flight))
        return flight

    def _landed(self, key: bytes, flight: Job) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task.cancelled() or flight.task.exception() is not None:
            return
        record = flight.task.result()
        failed = [note for note in record.get("degraded", []) if note["code"] not in _NO_FAILURES]
        if "error" in record or failed:
            return  # another try may do better
        self._kept[key] = (self.clock() + self.keep_s, record)
        while len(self._kept) > self.entries:
            self._kept.popitem(last=False)


def key_of(asked: ChatRequest, caller: str) -> bytes:
    """Return what tells requests apart: everything that changes the answer, and who asks."""
    said = [caller, asked.model, asked.messages, asked.params, asked.fusion]
    return hashlib.sha256(jsonl.canonical(said)).digest()


@dataclass(frozen=True, slots=True)
class JobRunner:
    """What all requests share."""

    door: Client
    gate: ConcurrencyLimiter
    metrics: Metrics
    max_request_cost_usd: float | None = None
    #: Whether others may join a flight: then it says what it writes, whoever asked first.
    joined: bool = False

    def work(
        self, asked: ChatRequest, order: Plan, purse: Budget | None, named: Mapping[str, Any] | None = None
    ) -> Callable[[Job], Any]:
        """Return what makes a record: the work of a flight.

        Args:
            named: the record's `id` and `meta`, where they are given.

        Raises of the work:
            Refused: no place was free in time, or the request is no question that the chain can read.
        """

        async def make(flight: Job) -> Record:
            async with self.gate:
                runtime = self._runtime(flight, asked, order, purse)
                try:
                    record = await order.stage(record_of(asked, order, named), runtime)
                except InputError as error:
                    raise ApiError(400, "invalid_request", error.message) from error
            self.metrics.record(record)
            return record

        return make

    def _runtime(self, flight: Job, asked: ChatRequest, order: Plan, purse: Budget | None) -> Runtime:
        heard = asked.stream or self.joined
        limits = [usd for usd in (self.max_request_cost_usd, order.fusion.get("max_cost_usd")) if usd is not None]
        return Runtime(
            self.door,
            limits=order.recipe.limits,
            on_delta=flight.say if heard else None,
            max_cost_usd=min(limits, default=None),
            purse=purse,
            on_call=self.metrics.call,
            notify=_Progress(flight).take if heard else None,
        )


def record_of(asked: ChatRequest, order: Plan, named: Mapping[str, Any] | None = None) -> Record:
    """Return the record that a chain starts from."""
    named = named or {}
    record: Record = {"id": named.get("id") or question_id(asked.messages), "messages": asked.messages}
    if asked.params:
        record["params"] = asked.params
    if "meta" in named:
        record["meta"] = named["meta"]
    if order.model is not None:
        route: Any = {"to": "solo", "reason": "asked by name", "method": "name", "model": plain_model(order.model)}
        record["route"] = route
    return record


class _Progress:
    """Turns what happens to the calls of one record into words: `panel 2/3`, `judge`, `synth`."""

    def __init__(self, flight: Job) -> None:
        self._flight = flight
        self._begun: dict[str, int] = {}
        self._settled: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """Say what a call that begins or settles means."""
        step = event.stage if event.purpose in ("", "layer 1") else f"{event.stage} {event.purpose}"
        told: dict[str, Any] = {"stage": event.stage, "model": event.label}
        if event.purpose:
            told["step"] = event.purpose
        if event.began:
            first = step not in self._begun
            self._begun[step] = self._begun.get(step, 0) + 1
            words = step if first and event.stage != "panel" else ""
            self._flight.say(Note(words, {"type": "call.began", **told}))
            return
        self._settled[step] = self._settled.get(step, 0) + 1
        if event.failure is not None:
            told["error"] = event.failure.code
        words = f"{step} {self._settled[step]}/{self._begun.get(step, 1)}" if event.stage == "panel" else ""
        settled = {
            "type": "call.failed" if event.failure else "call.done",
            **told,
            "latency_s": round(event.latency_s, 4),
        }
        self._flight.say(Note(words if event.failure is None else "", {**settled, "cost_usd": event.cost_usd}))
