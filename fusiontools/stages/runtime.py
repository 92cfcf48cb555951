"""What a stage is, and what it is handed beside the record."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from fusiontools.models.door import Door
from fusiontools.models.ledger import Ledger
from fusiontools.models.types import OnDelta
from fusiontools.record import Record


@dataclass(frozen=True, slots=True)
class Runtime:
    """The outside world of a stage.

    Args:
        door: the way to every model.
        on_delta: takes the answer's text as it is written, where somebody watches.
        deadline: monotonic time at which the record's time is over; None starts a deadline with each stage.
    """

    door: Door
    on_delta: OnDelta | None = None
    deadline: float | None = None

    def timed(self) -> Runtime:
        """Return the runtime with one deadline for all stages of a record, running from now."""
        if self.deadline is not None:
            return self
        return replace(self, deadline=time.monotonic() + self.door.limits.deadline_s)

    def ledger(self, stage: str, record: Record) -> Ledger:
        """Open the ledger of a stage: within the record's deadline, and with what the record has cost so far."""
        ledger = self.door.ledger(stage, record["id"])
        if self.deadline is not None:
            ledger.deadline = self.deadline
        if self.door.limits.max_record_cost_usd is not None:
            ledger.committed_usd = sum(call.get("cost_usd") or 0.0 for call in record.get("calls", []))
        return ledger


Stage = Callable[[Record, Runtime], Awaitable[Record]]
