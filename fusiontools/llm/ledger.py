"""Write down every attempt of a record, and keep the money of a run, a record or a caller within its limit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fusiontools.errors import CallCode, CallFailed, CallStatus

if TYPE_CHECKING:
    from fusiontools.config.recipe import Redact
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.record.types import Call, Usage


#: Failures for want of money, before anything is asked.
NO_MONEY = ("budget", "record_budget", "caller_budget", "price_unknown")


@dataclass(frozen=True, slots=True)
class Slot:
    """Whose call it is: the labels by which a response finds its calls."""

    member: str | None = None
    sample: int | None = None
    layer: int | None = None
    #: What a person is shown; the member's or model's name by default.
    label: str | None = None
    #: What the call is for, where a stage makes calls for more than one purpose.
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One call has begun or settled: what a person wants to know of it."""

    stage: str
    record_id: str
    label: str
    latency_s: float
    cost_usd: float | None
    replayed: bool
    failure: CallFailed | None = None
    began: bool = False
    #: What the call is for, where a stage makes several kinds: a later layer, a revision.
    purpose: str = ""
    #: What its answer is long, where the endpoint says so.
    completion_tokens: int | None = None


@dataclass(slots=True)
class Ledger:
    """The attempts that one stage makes for one record.

    Args:
        deadline: monotonic time after which no call of this record may run.
    """

    stage: str
    record_id: str
    deadline: float
    calls: list[Call] = field(default_factory=list)
    #: The purses that pay for its calls, each with a limit to hold.
    budgets: tuple[Budget, ...] = ()
    #: What was asked for and is not in an answer, for a person.
    unmet: list[str] = field(default_factory=list)
    #: What bounds its calls, where that is not what bounds all of the client's.
    limits: LimitOptions | None = None
    #: What no endpoint that is not trusted may see of its calls.
    redact: Redact = ()
    #: Which repetition of the same question this is.
    epoch: int = 0
    #: Told of every attempt, where somebody counts them.
    on_call: Callable[[Call], None] | None = None
    #: Told of every call that begins or settles, where somebody watches this record.
    notify: Callable[[Event], None] | None = None

    def enter(
        self,
        slot: Slot,
        *,
        attempt: int,
        model: str,
        endpoint: str,
        status: CallStatus = "ok",
        usage: Usage | None = None,
        cost_usd: float | None = None,
        cost_source: str | None = None,
        latency_s: float = 0.0,
        ttft_s: float | None = None,
        replayed: bool = False,
        saved_usd: float | None = None,
    ) -> Call:
        """Write down one attempt."""
        call: Call = {"stage": self.stage}  # type: ignore[typeddict-item]
        if slot.layer is not None:
            call["layer"] = slot.layer
        if slot.member is not None:
            call["member"] = slot.member
        if slot.sample is not None:
            call["sample"] = slot.sample
        if slot.step is not None:
            call["step"] = slot.step
        call["attempt"] = attempt
        call["model"] = model
        call["endpoint"] = endpoint
        call["usage"] = usage
        call["cost_usd"] = cost_usd
        call["cost_source"] = cost_source  # type: ignore[typeddict-item]
        if replayed:
            call["saved_usd"] = saved_usd
        call["latency_s"] = round(latency_s, 4)
        call["ttft_s"] = ttft_s
        call["status"] = status
        call["replayed"] = replayed
        self.calls.append(call)
        if self.on_call is not None:
            self.on_call(call)
        return call

    def remaining_s(self) -> float:
        """Return the seconds left until the deadline."""
        return self.deadline - time.monotonic()


class Account(Protocol):
    """Where the money of a purse is counted: in memory, or where several processes see it."""

    def total_usd(self) -> float:
        """Return what has been spent and what is set aside."""

    def add(self, usd: float, most_usd: float | None = None) -> bool:
        """Add, or take away what is negative; returns False, and adds nothing, where the total would pass `most_usd`.

        Raises:
            CallFailed: nobody can count now.
        """


class _InMemory:
    def __init__(self, total_usd: float) -> None:
        self._total_usd = total_usd

    def total_usd(self) -> float:
        return self._total_usd

    def add(self, usd: float, most_usd: float | None = None) -> bool:
        if most_usd is not None and not self._total_usd + usd <= most_usd:
            return False
        self._total_usd += usd
        return True


class Budget:
    """The money of one purse, set aside before each call and settled after it.

    What is set aside is the most that a call may cost, so a call for which there is no room may find some once others
    have settled: it waits for them. One that would pass the limit even then fails.

    Args:
        limit_usd: what it may spend; None is no limit.
        code: how a call fails that would pass the limit.
        whose: whose purse it is, for a person.
        committed_usd: what has been spent from it already.
        account: where it is counted, where that is not in memory.
        shared: many records pay from it. Near its limit fewer calls run at once: there must be room for each of them to
            cost twice what it should, or it runs alone.
    """

    def __init__(
        self,
        limit_usd: float | None = None,
        code: CallCode = "budget",
        whose: str = "the run",
        committed_usd: float = 0.0,
        account: Account | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self.limit_usd = limit_usd
        self.stopped = False
        self.settled = asyncio.Event()  # another one for each call that settles
        self._code = code
        self._whose = whose
        self._account = account or _InMemory(committed_usd)
        self._shared = shared
        self._in_flight_usd = 0.0

    @property
    def committed_usd(self) -> float:
        """What has been spent, and what is set aside for calls in flight."""
        return self._account.total_usd()

    def check(self, usd: float) -> None:
        """Raise `CallFailed` where a call of this price would pass the limit whatever those in flight come to."""
        spent_usd = self.committed_usd - self._in_flight_usd
        if self.limit_usd is not None and not spent_usd + usd <= self.limit_usd:
            self._refuse(spent_usd, usd)

    def has_room(self, usd: float) -> bool:
        """Return whether a call of this price may run beside those in flight."""
        if self.limit_usd is None or self._in_flight_usd <= 0:
            return True
        unforeseen_usd = self._in_flight_usd if self._shared else 0.0
        return self.committed_usd + usd + unforeseen_usd <= self.limit_usd

    def take(self, usd: float) -> None:
        """Set money aside.

        Raises:
            CallFailed: it is not there any more: another process has taken it.
        """
        if not self._account.add(usd, self.limit_usd):
            self._refuse(self.committed_usd, usd)
        self._in_flight_usd += usd

    def settle(self, reserved_usd: float, paid_usd: float | None) -> None:
        """Put what was paid in the place of what was set aside; an unknown cost stays at the reservation."""
        self._in_flight_usd = max(0.0, self._in_flight_usd - reserved_usd)
        if paid_usd is not None and paid_usd != reserved_usd:
            # Where nobody can count now, what was set aside stays: the limit holds.
            with suppress(CallFailed):
                self._account.add(paid_usd - reserved_usd)
        self.settled.set()
        self.settled = asyncio.Event()

    def _refuse(self, spent_usd: float, usd: float) -> None:
        self.stopped = True
        raise CallFailed(
            self._code,
            f"{self._whose} has committed ${spent_usd:.4f} of ${self.limit_usd:g}; this call may cost ${usd:.4f}",
        )


class Trust:
    """What an endpoint's costs have been like beside what was set aside for them, where money is limited.

    Its first call goes alone. Each that costs no more than it might lets one more run at once, so that there are soon
    as many as ever; one that costs more lets few or only one, and is what the next to this model may cost. So an
    endpoint that says $5 of a call has said it once when the money is gone.
    """

    def __init__(self) -> None:
        self._at_once = 1
        self._in_flight = 0
        #: By what their calls have passed their bounds, of the models that have been called.
        self._excess: dict[str, float] = {}
        self._least_usd: dict[str, float] = {}
        self._first: set[str] = set()
        self._changed = asyncio.Event()

    def bound_usd(self, usd: float, model: str) -> float:
        """Return what a call may cost at most, by what others to the model have cost."""
        return max(usd * self._excess.get(model, 1.0), self._least_usd.get(model, 0.0))

    async def begin(self, model: str) -> None:
        """Wait until one more call to this model may run."""
        while self._in_flight >= self._at_once or model in self._first:
            await self._changed.wait()
        self._in_flight += 1
        if model not in self._excess:
            self._first.add(model)

    def end(self, model: str) -> None:
        """Let another call run."""
        self._in_flight -= 1
        self._first.discard(model)
        self._changed.set()
        self._changed = asyncio.Event()

    def note(self, model: str, bound_usd: float, reserved_usd: float, paid_usd: float | None) -> None:
        """Take note of what a call has cost.

        Args:
            bound_usd: what it might have cost by its tokens.
            reserved_usd: what was set aside for it.
        """
        excess = self._excess.setdefault(model, 1.0)
        if paid_usd:
            self._least_usd[model] = min(self._least_usd.get(model, paid_usd), paid_usd)
        if paid_usd is None or paid_usd <= reserved_usd:
            self._at_once += 1
            return
        self._at_once = max(1, self._at_once // 2) if paid_usd <= 2 * reserved_usd else 1
        if bound_usd > 0:
            self._excess[model] = max(excess, paid_usd / bound_usd)


class Payment:
    """The money of one call, from before it begins until it has settled; without budgets it is nobody's business.

    Args:
        bound_usd: what the call may cost at most, by its tokens; None where no price is known.
    """

    def __init__(self, budgets: Sequence[Budget], trust: Trust, bound_usd: float | None, model: str) -> None:
        #: What it has cost; None where nobody knows.
        self.paid_usd: float | None = None
        self._budgets, self._trust, self._model = budgets, trust, model
        self._bound_usd = bound_usd
        self._reserved_usd = 0.0
        self._open = False

    async def open(self) -> None:
        """Set the money aside; waits for other calls where there is no room beside them.

        Raises:
            CallFailed: as `reserve`.
        """
        if not self._budgets:
            return
        await self._trust.begin(self._model)
        try:
            bound = None if self._bound_usd is None else self._trust.bound_usd(self._bound_usd, self._model)
            self._reserved_usd = await reserve(self._budgets, bound, self._model)
            self._open = True
        finally:
            if not self._open:
                self._trust.end(self._model)

    async def __aenter__(self) -> Payment:
        await self.open()
        return self

    async def __aexit__(self, _: object, failure: BaseException | None, __: object) -> None:
        if isinstance(failure, CallFailed) and costs_nothing(failure):
            self.paid_usd = 0.0
        self.settle()

    def settle(self) -> None:
        """Put what was paid in the place of what was set aside, where that was done."""
        if not self._open:
            return
        self._open = False
        self._trust.note(self._model, self._bound_usd or 0.0, self._reserved_usd, self.paid_usd)
        settle(self._budgets, self._reserved_usd, self.paid_usd)
        self._trust.end(self._model)


def costs_nothing(failure: CallFailed) -> bool:
    """Return whether a failed call costs nothing: the endpoint refused it, was not reached, or was never asked."""
    return failure.status is not None or failure.code in ("connect", *NO_MONEY)


async def reserve(budgets: Sequence[Budget], usd: float | None, model: str) -> float:
    """Set aside in every purse what a call may cost; waits for calls in flight where there is no room beside them.

    Raises:
        CallFailed: `price_unknown` where a limit could not be held, the code of the purse whose limit would be passed.
    """
    if usd is None or not 0 <= usd < math.inf:
        raise CallFailed(
            "price_unknown",
            f"no price is known for {model} at this endpoint, so the cost limit cannot be held; "
            "give `price_usd_per_mtok` in the recipe, or lift the limit (list prices: fusiontools[prices])",
        )
    while True:
        for budget in budgets:
            budget.check(usd)
        full = next((budget for budget in budgets if not budget.has_room(usd)), None)
        if full is None:
            break
        await full.settled.wait()
    taken: list[Budget] = []
    try:
        for budget in budgets:
            budget.take(usd)
            taken.append(budget)
    except CallFailed:
        settle(taken, usd, 0.0)
        raise
    return usd


def settle(budgets: Sequence[Budget], reserved_usd: float, paid_usd: float | None) -> None:
    """Put what was paid in the place of what was set aside, in every purse."""
    for budget in budgets:
        budget.settle(reserved_usd, paid_usd)
