"""What bounds the work: how many requests at once, how many wait, how many a minute, how much money a day."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fusiontools.errors import CallFailed
from fusiontools.llm.purses import Budget, Purses
from fusiontools.server.protocols.exchange import ApiError

_DAY_S = 86_400
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


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


@dataclass(slots=True)
class RateLimiter:
    """A token bucket for each caller.

    Args:
        per_min: tokens that flow in each minute, and how many a bucket holds; 0 is no limit.
        clock: seconds, rising.
    """

    per_min: float
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, caller: str) -> None:
        """Take a token.

        Raises:
            ApiError: there is none, with the time until there is one.
        """
        if not self.per_min:
            return
        now, holds = self.clock(), max(1.0, self.per_min)
        bucket = self._buckets.setdefault(caller, _Bucket(holds, now))
        bucket.tokens = min(holds, bucket.tokens + (now - bucket.filled) * self.per_min / 60)
        bucket.filled = now
        if bucket.tokens < 1:
            wait_s = max(1, math.ceil((1 - bucket.tokens) * 60 / self.per_min))
            why = f"this key may ask {self.per_min:g} times a minute; try again in {wait_s} s"
            raise ApiError(429, "rate_limit_exceeded", why, headers={"retry-after": str(wait_s)})
        bucket.tokens -= 1


@dataclass(slots=True)
class DailyBudgets:
    """A budget for each caller, filled anew each day (UTC).

    Args:
        day_usd: what is in it; None is no limit.
        purses: where it is counted, for all processes and after a restart.
        clock: Unix time.
    """

    day_usd: float | None
    purses: Purses = field(default_factory=Purses)
    clock: Callable[[], float] = time.time

    def of(self, caller: str) -> Budget | None:
        """Return today's budget of a caller.

        Raises:
            ApiError: there is nothing in it any more.
        """
        if self.day_usd is None:
            return None
        today = time.strftime("%Y-%m-%d", time.gmtime(self.clock()))
        budget = Budget(self.purses, f"{today} {caller}", self.day_usd, "caller_budget", "this key")
        try:
            spent_usd = budget.committed_usd
        except CallFailed as failed:
            raise ApiError(503, failed.code, failed.message) from failed
        if spent_usd >= self.day_usd:
            why = f"this key has spent its ${self.day_usd:g} of today; it can go on tomorrow (UTC)"
            raise refuse_for_today(why, self.clock())
        return budget


def refuse_for_today(why: str, now: float | None = None) -> ApiError:
    """Return the refusal of what a day's money does not reach for, with the time until there is more.

    Args:
        now: Unix time.
    """
    left_s = int(_DAY_S - (time.time() if now is None else now) % _DAY_S) + 1
    return ApiError(402, "caller_budget", why, headers={"retry-after": str(left_s)})
