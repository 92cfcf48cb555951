"""Every attempt of a record written down, and the money of a run kept within its limit."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fusiontools.errors import CallFailed
from fusiontools.record import Call, Usage


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
    committed_usd: float = 0.0

    def enter(
        self,
        slot: Slot,
        *,
        attempt: int,
        model: str,
        endpoint: str,
        status: str = "ok",
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
        return call

    def remaining_s(self) -> float:
        """Return the seconds left until the deadline."""
        return self.deadline - time.monotonic()


class Budget:
    """Money set aside before each call and settled after it, for the run and for each record.

    Args:
        run_usd: limit of the whole run; None is no limit.
        record_usd: limit of each record.
    """

    def __init__(self, run_usd: float | None = None, record_usd: float | None = None) -> None:
        self.run_usd = run_usd
        self.record_usd = record_usd
        self.committed_usd = 0.0
        self.stopped = False

    @property
    def limited(self) -> bool:
        """Whether there is any limit to hold."""
        return self.run_usd is not None or self.record_usd is not None

    def reserve(self, ledger: Ledger, usd: float | None, model: str) -> float:
        """Set aside what a call may cost.

        Raises:
            CallFailed: `price_unknown` where a limit could not be held, `budget` where it would be passed.
        """
        if usd is None:
            raise CallFailed(
                "price_unknown",
                f"no price is known for {model} at this endpoint, so the cost limit cannot be held; "
                "give `price_usd_per_mtok` in the recipe, or lift the limit (list prices: fusiontools[prices])",
            )
        if self.run_usd is not None and self.committed_usd + usd > self.run_usd:
            self.stopped = True
            raise CallFailed(
                "budget",
                f"the run has committed ${self.committed_usd:.4f} of ${self.run_usd:g}; this call may cost ${usd:.4f}",
            )
        if self.record_usd is not None and ledger.committed_usd + usd > self.record_usd:
            raise CallFailed(
                "record_budget",
                f"the record has committed ${ledger.committed_usd:.4f} of ${self.record_usd:g}; "
                f"this call may cost ${usd:.4f}",
            )
        self._commit(ledger, usd)
        return usd

    def settle(self, ledger: Ledger, reserved_usd: float, paid_usd: float | None) -> None:
        """Put what was paid in the place of what was set aside; an unknown cost stays at the reservation."""
        if paid_usd is not None:
            self._commit(ledger, paid_usd - reserved_usd)

    def _commit(self, ledger: Ledger, usd: float) -> None:
        self.committed_usd += usd
        ledger.committed_usd += usd
