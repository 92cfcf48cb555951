"""What a stage is, and what it is handed beside the record."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fusiontools.record.types import Record

if TYPE_CHECKING:
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.llm.client import Client
    from fusiontools.llm.completion import OnDelta
    from fusiontools.llm.ledger import Budget, Event, Ledger
    from fusiontools.record.types import Call


@dataclass(frozen=True, slots=True)
class Runtime:
    """The outside world of a stage.

    Args:
        door: the way to every model.
        on_delta: takes the answer's text as it is written, where somebody watches.
        deadline: monotonic time at which the record's time is over; None starts a deadline with each stage.
        limits: what bounds the calls of this record, where that is not what bounds all of the door's.
        max_cost_usd: what this record may cost, where that is less than any record may.
        purse: whose money it is, where it has a limit of its own.
        on_call: told of every attempt at a model.
        notify: told of every call of this record that begins or settles.
    """

    door: Client
    on_delta: OnDelta | None = None
    deadline: float | None = None
    limits: LimitOptions | None = None
    max_cost_usd: float | None = None
    purse: Budget | None = None
    on_call: Callable[[Call], None] | None = None
    notify: Callable[[Event], None] | None = None

    @property
    def limited(self) -> bool:
        """Whether a cost limit holds."""
        limits = (self.door.limits.max_cost_usd, self._record_usd, self.purse.limit_usd if self.purse else None)
        return any(limit is not None for limit in limits)

    def timed(self) -> Runtime:
        """Return the runtime with one deadline for all stages of a record, running from now."""
        if self.deadline is not None:
            return self
        return replace(self, deadline=time.monotonic() + self._limits.deadline_s)

    def ledger(self, stage: str, record: Record) -> Ledger:
        """Open the ledger of a stage: within the record's deadline, and with what the record has cost so far."""
        ledger = self.door.ledger(stage, record["id"])
        ledger.limits = self.limits
        if self.deadline is not None:
            ledger.deadline = self.deadline
        if self._record_usd is not None:
            spent_usd = sum(call.get("cost_usd") or 0.0 for call in record.get("calls", []))
            ledger.budgets = self.door.budgets(self._record_usd, spent_usd)
        if self.purse is not None and self.purse.limit_usd is not None:
            ledger.budgets = (*ledger.budgets, self.purse)
        ledger.epoch = record.get("epoch", 0)
        ledger.on_call = self.on_call
        ledger.notify = self.notify or ledger.notify
        return ledger

    @property
    def _record_usd(self) -> float | None:
        limits = [usd for usd in (self._limits.max_record_cost_usd, self.max_cost_usd) if usd is not None]
        return min(limits, default=None)

    @property
    def _limits(self) -> LimitOptions:
        return self.limits or self.door.limits


Stage = Callable[[Record, Runtime], Awaitable[Record]]
