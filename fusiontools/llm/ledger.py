"""Write down every attempt of a record, and keep the money of a run, a record or a caller within its limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusiontools.errors import CallCode, CallFailed, CallStatus

if TYPE_CHECKING:
    from fusiontools.config.recipe import Redact
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.record.types import Call, Usage


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


class Budget:
    """The money of one purse, set aside before each call and settled after it.

    Args:
        limit_usd: what it may spend; None is no limit.
        code: how a call fails that would pass the limit.
        whose: whose purse it is, for a person.
        committed_usd: what has been spent from it already.
    """

    def __init__(
        self,
        limit_usd: float | None = None,
        code: CallCode = "budget",
        whose: str = "the run",
        committed_usd: float = 0.0,
    ) -> None:
        self.limit_usd = limit_usd
        self.committed_usd = committed_usd
        self.stopped = False
        self._code = code
        self._whose = whose

    def check(self, usd: float) -> None:
        """Raise `CallFailed` where a call of this price would pass the limit."""
        if self.limit_usd is not None and self.committed_usd + usd > self.limit_usd:
            self.stopped = True
            raise CallFailed(
                self._code,
                f"{self._whose} has committed ${self.committed_usd:.4f} of ${self.limit_usd:g}; "
                f"this call may cost ${usd:.4f}",
            )


def reserve(budgets: Sequence[Budget], usd: float | None, model: str) -> float:
    """Set aside in every purse what a call may cost.

    Raises:
        CallFailed: `price_unknown` where a limit could not be held, the code of the purse whose limit would be passed.
    """
    if usd is None:
        raise CallFailed(
            "price_unknown",
            f"no price is known for {model} at this endpoint, so the cost limit cannot be held; "
            "give `price_usd_per_mtok` in the recipe, or lift the limit (list prices: fusiontools[prices])",
        )
    for budget in budgets:
        budget.check(usd)
    for budget in budgets:
        budget.committed_usd += usd
    return usd


def settle(budgets: Sequence[Budget], reserved_usd: float, paid_usd: float | None) -> None:
    """Put what was paid in the place of what was set aside; an unknown cost stays at the reservation."""
    if paid_usd is not None:
        for budget in budgets:
            budget.committed_usd += paid_usd - reserved_usd
