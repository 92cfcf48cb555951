"""Write down every attempt of a record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusiontools.errors import CallFailed, CallStatus

if TYPE_CHECKING:
    from fusiontools.config.recipe import Redact
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.llm.payment import RecordBudget
    from fusiontools.llm.purses import Budget
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
    #: What pays for its calls, each with a limit to hold.
    budgets: tuple[Budget | RecordBudget, ...] = ()
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
