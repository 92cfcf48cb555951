"""What calls cost and took, and by how much two runs differ in it: as data, and as lines for a person.

Reads   `calls`, the ledger of a record
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls cost and took; `unknown` counts those whose cost nobody said, replayed ones cost nothing."""

    calls: int = 0
    unknown: int = 0
    replayed: int = 0
    known_usd: float = 0.0
    time_s: float = 0.0

    @property
    def cost_usd(self) -> float | None:
        """The cost, or the known part of it; None where no call's cost is known, or where no call is on record."""
        nothing_known = self.unknown > 0 and self.unknown == self.calls - self.replayed
        return None if nothing_known or not self.calls else self.known_usd

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.unknown + other.unknown,
            self.replayed + other.replayed,
            self.known_usd + other.known_usd,
            self.time_s + other.time_s,
        )


def spent_on(calls: Iterable[Mapping[str, Any]]) -> Spent:
    """Return what calls come to."""
    count = unknown = replayed = 0
    known_usd = time_s = 0.0
    for call in calls:
        count += 1
        time_s += call.get("latency_s") or 0.0
        if call.get("replayed"):
            replayed += 1
        elif call.get("cost_usd") is None:
            unknown += 1
        else:
            known_usd += call["cost_usd"]
    return Spent(count, unknown, replayed, known_usd, time_s)


def cost_data(a: Spent, b: Spent) -> dict[str, Any]:
    """Return both costs and their difference; null is unknown."""
    costs = [None if side.cost_usd is None else round(side.cost_usd, 8) for side in (a, b)]
    return {"a": costs[0], "b": costs[1], "delta": cost_delta(a, b), "unknown": {"a": a.unknown, "b": b.unknown}}


def time_data(a: Spent, b: Spent) -> dict[str, Any]:
    """Return the seconds that the calls of either side took, added up, and their difference."""
    return {"a": round(a.time_s, 4), "b": round(b.time_s, 4), "delta": round(b.time_s - a.time_s, 4)}


def cost_delta(a: Spent, b: Spent) -> float | None:
    """Return how much more the second side cost; None where a part of either cost is unknown."""
    if a.unknown or b.unknown or a.cost_usd is None or b.cost_usd is None:
        return None
    return round(b.cost_usd - a.cost_usd, 8)


def spent_lines(a: Spent, b: Spent) -> list[tuple[str, str]]:
    """Return names and values of cost and time, before and after; nothing where nobody was called."""
    if not a.calls and not b.calls:
        return []
    cost = f"{_cost(a)} → {_cost(b)}"
    if delta := cost_delta(a, b):
        sign = "-" if delta < 0 else "+"
        cost += f" ({sign}{_usd(abs(delta))}{_percent(a.known_usd, delta)})"
    delta_s = b.time_s - a.time_s
    time = f"{a.time_s:.1f} s → {b.time_s:.1f} s"
    if delta_s:
        time += f" ({delta_s:+.1f} s{_percent(a.time_s, delta_s)})"
    return [("cost", cost), ("call time", time)]


def _cost(spent: Spent) -> str:
    if spent.cost_usd is None:
        return "unknown" if spent.calls else "no calls"
    return ("≥ " if spent.unknown else "") + _usd(spent.cost_usd)


def _usd(amount: float) -> str:
    """Return an amount with four decimals, and with more where it is small."""
    decimals = 4 if amount >= 0.01 else 6 if amount >= 0.0001 else 8
    whole, _, cents = f"{amount:.{decimals}f}".partition(".")
    return f"${whole}.{cents[:4]}{cents[4:].rstrip('0')}"


def _percent(before: float, delta: float) -> str:
    return f", {delta / before:+.1%}" if before else ""
