"""What calls took, added up: the one adder of ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(slots=True)
class Spending:
    """The sum of some lines of a ledger.

    What nobody said of a call's cost is counted and never taken as 0: `unknown` counts the calls that were made now and
    whose cost nobody knows, and `known_usd` adds up the others. A replayed call, answered from the journal or by an
    identical one under way, was not made now: it costs nothing, `saved_usd` adds up what such calls cost when they were
    bought, and `saved_unknown` counts those of which nobody knows that. Tokens and time are those of all calls.
    """

    calls: int = 0
    failed: int = 0
    replayed: int = 0
    unknown: int = 0
    known_usd: float = 0.0
    saved_unknown: int = 0
    saved_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    time_s: float = 0.0

    @classmethod
    def of(cls, calls: Iterable[Mapping[str, Any]]) -> Spending:
        """Return what these calls come to."""
        spending = cls()
        for call in calls:
            spending.add(call)
        return spending

    def add(self, call: Mapping[str, Any]) -> None:
        """Add one call."""
        self.calls += 1
        self.failed += call.get("status", "ok") != "ok"
        self.time_s += call.get("latency_s") or 0.0
        if usage := call.get("usage"):
            self.prompt_tokens += usage.get("prompt_tokens", 0)
            self.completion_tokens += usage.get("completion_tokens", 0)
            self.cached_tokens += usage.get("cached_tokens", 0)
            self.cache_write_tokens += usage.get("cache_write_tokens", 0)
            self.reasoning_tokens += usage.get("reasoning_tokens", 0)
        if call.get("replayed"):
            self.replayed += 1
            saved_usd = call.get("saved_usd")
            self.saved_unknown += saved_usd is None
            self.saved_usd += saved_usd or 0.0
        else:
            cost_usd = call.get("cost_usd")
            self.unknown += cost_usd is None
            self.known_usd += cost_usd or 0.0

    def __add__(self, other: Spending) -> Spending:
        return Spending(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def cost_usd(self) -> float | None:
        """What was paid now, without the dust of adding floats; None where nobody knows it of a call."""
        return None if self.unknown else round(self.known_usd, 10)

    @property
    def worth_usd(self) -> float:
        """What the calls cost when they were bought, now or before, as far as anybody knows."""
        return self.known_usd + self.saved_usd

    @property
    def worth_unknown(self) -> int:
        """How many calls nobody knows that of."""
        return self.unknown + self.saved_unknown

    @property
    def bought(self) -> int:
        """How many calls were made now."""
        return self.calls - self.replayed

    @property
    def nothing_known(self) -> bool:
        """Whether calls were made now and nobody knows the cost of any."""
        return self.unknown > 0 and self.unknown == self.bought


_NAMES = tuple(field.name for field in fields(Spending))
