"""Try a call again where that can help: the only place that retries.

408, 409, 425, 429, 5xx, time-outs and connection failures are tried again after a wait with full jitter, or after what
the endpoint's `Retry-After` asks; never past the record's deadline. A refusal from which the backend has learned goes
out again at once. Every attempt is entered in the ledger, whatever becomes of it. Written by hand, because the ledger,
the deadline and the lessons are most of it; a library would bring the backoff, which is one line. The slots and the
time limits of calls are written by hand, too: asyncio's would be a tenth of a call.

Source: Brooker 2015, "Exponential Backoff And Jitter", AWS Architecture Blog.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import CallFailed, CallStatus
from fusiontools.llm import prices
from fusiontools.llm.budget import Payment, costs_nothing
from fusiontools.llm.completion import HeardDeltas
from fusiontools.llm.drafts import MemberDraft
from fusiontools.llm.ledger import Ledger, Slot, deadline_failure, paid, paid_for
from fusiontools.llm.quirks import MOST_LESSONS

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint, Model
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.llm.completion import Backend, Completion, CompletionRequest, OnDelta
    from fusiontools.llm.pacing import Pace, PaceTurn
    from fusiontools.llm.purses import Purses

_LONGEST_WAIT_S = 60.0
#: How long time limits are not looked through again, however many end one after the other.
_BETWEEN_LOOKS_S = 0.01


class Slots:
    """So many calls at once, to whatever endpoint; who waits for a slot gets it in turn.

    `asyncio.Semaphore` looks, for each that it wakes, at all whom it has woken in the same pass of the loop.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_free(self) -> bool:
        """Take a slot that is free; returns whether there was one."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Take a slot, when there is one."""
        if self.take_free():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except (asyncio.CancelledError, GeneratorExit):
            if turn.done() and not turn.cancelled():
                self.give_back()  # it came in the same moment
            turn.cancel()
            raise

    def give_back(self) -> None:
        """Let the next one have a slot."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(self, *_: object) -> None:
        self.give_back()


class TimeLimit(Struct, eq=False):
    """A limit of what a task does while it is entered; over it, the task is cancelled and `TimeoutError` raised."""

    task: asyncio.Task[Any]
    until: float
    cancelling: int
    entered: dict[TimeLimit, None]
    is_over: bool = False

    def __enter__(self) -> None:
        self.entered[self] = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        del self.entered[self]
        if self.is_over and self.task.uncancel() <= self.cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class TimeLimits:
    """The time limits of all calls under way, to a hundredth of a second, with one timer: hardly any comes to its own.

    `asyncio.timeout` makes a timer for each and gives it up again, which is a twentieth of a call.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered: dict[TimeLimit, None] = {}
        #: When they are looked through next.
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> TimeLimit:
        """Return the limit of what this task does next."""
        loop = asyncio.get_running_loop()
        until, task = loop.time() + seconds, asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - it runs
        if self._loop is not loop:
            # What was entered in a loop that is gone has gone with it.
            self._loop, self._entered, self._next, self._timer = loop, {}, math.inf, None
        if until < self._next:
            self._look_at(until, loop)
        return TimeLimit(task, until, task.cancelling(), self._entered)

    def _look_at(self, until: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # uvloop, which counts milliseconds, may be one too early.
        self._next, self._timer = until, loop.call_at(until + 0.001, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the tasks whose time is over, and look again when the next one's is."""
        now, self._next, self._timer = loop.time(), math.inf, None
        left = [limit for limit in self._entered if not limit.is_over]
        if later := [limit.until for limit in left if limit.until > now]:
            self._look_at(max(min(later), now + _BETWEEN_LOOKS_S), loop)
        for limit in left:
            if limit.until <= now:
                limit.is_over = True
                limit.task.cancel()


class Caller(Struct, frozen=True):
    """How and for whom attempts are made."""

    backend: Backend
    endpoint: Endpoint
    model: Model
    limits: LimitOptions
    slots: Slots
    pace: Pace
    ledger: Ledger
    slot: Slot
    purses: Purses
    time_limits: TimeLimits


async def call_with_retries(
    request: CompletionRequest, caller: Caller, on_delta: OnDelta | None
) -> tuple[Completion, float | None]:
    """Return the completion and what it cost.

    Raises:
        CallFailed: the last attempt's failure, or the first that no retry can mend.
    """
    attempt = retried = lessons = 0
    while True:
        attempt += 1
        try:
            turn, usage = await _take_turn(request, caller), None
            try:
                completion, paid_usd = await _attempt(request, caller, on_delta, attempt)
                usage = completion.usage
                return completion, paid_usd
            except CallFailed as failure:
                caller.pace.heed(failure, request.model)
                raise
            finally:
                caller.slots.give_back()
                if turn is not None:
                    caller.pace.end(turn, usage)
        except CallFailed as failure:
            if failure.adapted and lessons < MOST_LESSONS:
                lessons += 1
                continue
            broken_off = isinstance(on_delta, MemberDraft) and on_delta.may_begin_anew(failure)
            if not (failure.retryable or broken_off) or retried >= caller.limits.retries:
                raise
            wait_s = _wait_s(failure, retried, caller.limits)
            if wait_s >= caller.ledger.remaining_s():
                raise
        retried += 1
        if isinstance(on_delta, MemberDraft):
            on_delta.begin_anew()
        await asyncio.sleep(wait_s)


async def _take_turn(request: CompletionRequest, caller: Caller) -> PaceTurn | None:
    """Wait for a turn at the endpoint and a free slot, at most until the deadline: no attempt has been made till then.

    Returns the endpoint's turn, to be given back.
    """
    if not caller.pace.holds:
        await _take_slot(caller)
        return None
    try:
        turn = await caller.pace.begin(request.model, request.messages, request.params, caller.ledger.remaining_s())
    except TimeoutError:
        raise deadline_failure(caller.limits) from None
    taken = False
    try:
        await _take_slot(caller)
        taken = True
    finally:
        if not taken:
            caller.pace.end(turn)
    return turn


async def _take_slot(caller: Caller) -> None:
    if not caller.slots.take_free():
        try:
            with caller.time_limits.within(caller.ledger.remaining_s()):
                await caller.slots.take()
        except TimeoutError:
            raise deadline_failure(caller.limits) from None
    if caller.ledger.remaining_s() <= 0:
        caller.slots.give_back()
        raise deadline_failure(caller.limits)


def _wait_s(failure: CallFailed, retried: int, limits: LimitOptions) -> float:
    if failure.retry_after_s is not None:
        return failure.retry_after_s
    return random.uniform(0, min(_LONGEST_WAIT_S, limits.backoff_s * 2.0 ** min(retried, 64)))  # noqa: S311 - jitter, no secret


async def _attempt(
    request: CompletionRequest, caller: Caller, on_delta: OnDelta | None, attempt: int
) -> tuple[Completion, float | None]:
    ledger, endpoint = caller.ledger, caller.endpoint
    payment: Payment | None = None
    if ledger.budgets and not endpoint.free:
        request = replace(request, params=prices.with_bound(endpoint, request.params))
        bound = prices.upper_bound_usd(endpoint, caller.model, request.messages, request.params)
        payment = Payment(ledger.budgets, caller.purses, endpoint, caller.model, bound)
        await _open_in_time(payment, caller)
    paid_usd: float | None = None
    answered = False
    started = time.monotonic()
    try:
        completion = await _call_in_time(request, caller, on_delta)
        answered = True
        paid_usd, source = paid_for(endpoint, caller.model, completion)
        ledger.enter(
            caller.slot,
            attempt=attempt,
            model=completion.model,
            endpoint=endpoint.name,
            usage=completion.usage,
            cost_usd=paid_usd,
            cost_source=source,
            latency_s=completion.latency_s if completion.latency_s is not None else time.monotonic() - started,
            ttft_s=completion.ttft_s,
        )
        return completion, paid_usd
    except CallFailed as failure:
        paid_usd, source = _cost_of_failure(failure, caller)
        _enter_failure(caller, attempt, request, failure.code, started, paid_usd, source, failure)
        raise
    except asyncio.CancelledError:
        # The endpoint may bill what it wrote until now; nobody knows.
        paid_usd = 0.0 if endpoint.free else None
        _enter_failure(
            caller, attempt, request, "cancelled", started, paid_usd, "free" if endpoint.free else None, None
        )
        raise
    finally:
        if payment is not None:
            payment.paid_usd, payment.answered = paid_usd, answered
            await payment.settle()


async def _open_in_time(payment: Payment, caller: Caller) -> None:
    """Set a call's money aside; it waits for that of others at most until the record's deadline."""
    try:
        with caller.time_limits.within(caller.ledger.remaining_s()):
            await payment.open()
    except TimeoutError:
        raise deadline_failure(caller.limits) from None


async def _call_in_time(request: CompletionRequest, caller: Caller, on_delta: OnDelta | None) -> Completion:
    """Make one call within its own timeout and the record's deadline, however slowly the endpoint drips."""
    timeout_s, remaining_s = caller.limits.timeout_s, caller.ledger.remaining_s()
    heard = None if on_delta is None else HeardDeltas(on_delta)
    try:
        with caller.time_limits.within(min(timeout_s, remaining_s)):
            return await caller.backend.complete(request, None if heard is None else heard.take)
    except TimeoutError:
        if timeout_s < remaining_s:
            late = f"no answer within {timeout_s:g} s (--timeout)"
            raise CallFailed("timeout", late, retryable=heard is None or not heard.any) from None
        raise deadline_failure(caller.limits) from None


def _cost_of_failure(failure: CallFailed, caller: Caller) -> tuple[float | None, str | None]:
    """Return what a failed attempt cost: refusals and dead endpoints cost nothing, a cut answer nobody knows what."""
    if failure.usage is not None or failure.cost_usd is not None:
        return paid(caller.endpoint, caller.model, failure.usage, failure.cost_usd)  # type: ignore[arg-type]
    if caller.endpoint.free:
        return 0.0, "free"
    if costs_nothing(failure):
        return 0.0, "free"
    return None, None


def _enter_failure(
    caller: Caller,
    attempt: int,
    request: CompletionRequest,
    status: CallStatus,
    started: float,
    paid_usd: float | None,
    source: str | None,
    failure: CallFailed | None,
) -> None:
    caller.ledger.enter(
        caller.slot,
        attempt=attempt,
        model=request.model,
        endpoint=caller.endpoint.name,
        status=status,
        usage=failure.usage if failure else None,  # type: ignore[arg-type]
        cost_usd=paid_usd,
        cost_source=source,
        latency_s=time.monotonic() - started,
    )
