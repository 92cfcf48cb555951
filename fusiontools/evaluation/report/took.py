"""What the calls of one record took, by who needs them: every call is added up once, and the sums are put together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct

from fusiontools.llm.ledger import Spending

#: A member's name and the number of its sample.
Seat = tuple[str, int]
#: Stage, layer, step and round of a call: one of these comes after the other, within one all seats work at once.
_Lane = tuple[str, int, str | None, int | None]


class Took(NamedTuple):
    """What some calls took, together: how many they are, what they were worth as far as that is known, how long."""

    calls: int
    usd: float
    #: How many calls nobody knows the cost of.
    unknown: int
    tokens: int
    #: Seconds on the wall; NaN where there is no call, or one was replayed: nobody measured.
    latency_s: float

    def then(self, other: Took) -> Took:
        """Return what these calls and others take that come after them."""
        if not other.calls:
            return self
        return self._with(other, self.latency_s + other.latency_s) if self.calls else other

    def beside(self, other: Took) -> Took:
        """Return what these calls and others take that are made at the same time."""
        if not other.calls:
            return self
        one, two = self.latency_s, other.latency_s
        # A maximum would pass over a NaN.
        return self._with(other, max(one, two) if one == one and two == two else math.nan) if self.calls else other

    def paid_for(self, *, failed: bool) -> Took:
        """Return the same of a text: one that came though no call is known of was not free for that."""
        return self if self.calls or failed else _UNKNOWN

    def _with(self, other: Took, latency_s: float) -> Took:
        calls, usd, unknown, tokens, _ = other
        return Took(self.calls + calls, self.usd + usd, self.unknown + unknown, self.tokens + tokens, latency_s)


NOTHING = Took(0, 0.0, 0, 0, math.nan)
_UNKNOWN = NOTHING._replace(unknown=1)


class CallSums(Struct):
    """What a record's calls took, by who needs them."""

    panel: Took = NOTHING
    judge: Took = NOTHING
    #: All that the fusion's answer took.
    fusion: Took = NOTHING
    #: The calls of one response of the first layer, and of one baseline's.
    members: dict[Seat, Took] = {}
    baselines: dict[Seat, Took] = {}


def add_up(calls: Iterable[Mapping[str, Any]], rounds: Mapping[Seat, int] = MappingProxyType({})) -> CallSums:
    """Return what the calls of a record took.

    A seat's attempts come one after the other, and so do stages, layers and steps, and the rounds of a panel that was
    asked until it was sure.

    Args:
        rounds: in which round a seat of such a panel was asked.
    """
    spent: dict[_Lane, dict[Seat, Spending]] = defaultdict(lambda: defaultdict(Spending))
    for call in calls:
        # A grade measures: no system pays for it.
        if (stage := call["stage"]) != "grade":
            seat = (call.get("member", ""), call.get("sample", 0))
            asked_in = rounds.get(seat) if stage == "panel" else None
            spent[stage, call.get("layer", 1), call.get("step"), asked_in][seat].add(call)
    sums, rest = CallSums(), NOTHING
    for (stage, layer, step, _), own in spent.items():
        each = {seat: _took(spending) for seat, spending in own.items()}
        if stage == "baseline":
            for seat, took in each.items():
                sums.baselines[seat] = sums.baselines.get(seat, NOTHING).then(took)
            continue
        together = reduce(Took.beside, each.values())
        if stage == "judge":
            sums.judge = sums.judge.then(together)
        elif stage == "panel":
            sums.panel = sums.panel.then(together)
            # A step is a call about responses, none of a member's own.
            if layer == 1 and step is None:
                sums.members |= each
        else:
            rest = rest.then(together)
    sums.fusion = sums.panel.then(sums.judge).then(rest)
    return sums


def _took(spent: Spending) -> Took:
    """Return what one seat's calls took, each made after the other."""
    latency_s = math.nan if spent.replayed else spent.time_s
    tokens = spent.prompt_tokens + spent.completion_tokens
    return Took(spent.calls, spent.worth_usd, spent.worth_unknown, tokens, latency_s)
