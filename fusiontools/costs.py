"""Add up ledgers, and foresee one: what a run cost by stage, model, endpoint or record, and what a run would cost.

Reads   calls (of any records), or for an estimate messages
Adds    nothing
Source  an estimate runs the chain itself, behind a door whose backends make no call
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusiontools.chain import Chain
from fusiontools.chain_text import Step
from fusiontools.endpoints import ENDPOINTS
from fusiontools.model import Model
from fusiontools.models import prices
from fusiontools.models.door import Door
from fusiontools.models.imagined import Imagined
from fusiontools.recipe import Recipe
from fusiontools.record import Call, Record, Spared
from fusiontools.stage_options import LimitOptions
from fusiontools.stages.runtime import Runtime

GROUPS = ("stage", "model", "endpoint", "record")


@dataclass(slots=True)
class Row:
    """The sum of some calls.

    `cost_usd` adds up what is known; `unknown` counts the calls whose cost nobody said. `saved_usd` is what replayed
    calls cost when they were bought.
    """

    key: tuple[str, ...]
    calls: int = 0
    failed: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unknown: int = 0
    saved_usd: float = 0.0
    latency_s: float = 0.0

    def add(self, call: Mapping[str, Any]) -> None:
        """Add one call."""
        usage = call.get("usage") or {}
        self.calls += 1
        self.failed += call.get("status", "ok") != "ok"
        self.latency_s += call.get("latency_s") or 0.0
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.completion_tokens += usage.get("completion_tokens", 0)
        if call.get("replayed"):
            self.replayed += 1
            self.saved_usd += call.get("saved_usd") or 0.0
        elif call.get("cost_usd") is None:
            self.unknown += 1
        else:
            self.cost_usd += call["cost_usd"]


@dataclass(slots=True)
class Costs:
    """Sums of calls by some of `GROUPS`; memory grows with the number of groups, not of records.

    `solo` counts the records that one model answered alone. `spared` counts the calls that were planned and not made
    because enough of the others agreed (one that was cut off may be billed), `spared_usd` what they would have cost: as
    much as the record's other calls to the same model did, else the list price of as many tokens; `spared_unknown`
    counts those of which neither is known.
    """

    by: Sequence[str]
    rows: dict[tuple[str, ...], Row] = field(default_factory=dict)
    total: Row = field(default_factory=lambda: Row(("total",)))
    records: int = 0
    solo: int = 0
    spared: int = 0
    spared_usd: float = 0.0
    spared_unknown: int = 0

    def add(self, record: Record) -> None:
        """Add every call of a record, and those it was spared."""
        self.records += 1
        self.solo += 1 if record.get("route", {}).get("to") == "solo" else 0
        for spared in record.get("spared", []):
            if _was_begun(spared, record):
                continue
            cost_usd = _would_have_cost(spared, record)
            self.spared += 1
            self.spared_usd += cost_usd or 0.0
            self.spared_unknown += cost_usd is None
        for call in record.get("calls", []):
            key = tuple(record["id"] if group == "record" else str(call.get(group, "")) for group in self.by)
            self.rows.setdefault(key, Row(key)).add(call)
            self.total.add(call)


def _was_begun(spared: Spared, record: Record) -> bool:
    seat = (spared["member"], spared["sample"], spared["layer"])
    return any((c.get("member"), c.get("sample"), c.get("layer")) == seat for c in record.get("calls", []))


def _would_have_cost(spared: Spared, record: Record) -> float | None:
    """Return what a spared call would have cost, by what the record's other calls of the panel were like."""
    made = [
        call
        for call in record.get("calls", [])
        if call["stage"] == "panel" and call["status"] == "ok" and "step" not in call
    ]
    alike = [call for call in made if (call["model"], call["endpoint"]) == (spared["model"], spared["endpoint"])]
    paid = [call.get("saved_usd") if call["replayed"] else call["cost_usd"] for call in alike]
    known = [usd for usd in paid if usd is not None]
    if known:
        return sum(known) / len(known)
    endpoint = ENDPOINTS.get(spared["endpoint"])
    usages: list[Any] = [call["usage"] for call in made if call["usage"]]
    if endpoint is None or not usages:
        return None
    if endpoint.free:
        return 0.0
    mean: Any = {key: round(sum(usage.get(key, 0) for usage in usages) / len(usages)) for key in usages[0]}
    return prices.listed_usd(endpoint, Model(spared["member"], spared["model"], spared["endpoint"]), mean)


async def estimate(recipe: Recipe, chain: Chain, record: Record, completion_tokens: int) -> list[Call]:
    """Return the calls that a chain would make for a record, as a ledger: the chain itself runs, without calls.

    Args:
        completion_tokens: how long an answer is taken to be; a smaller `max_tokens` bounds it.

    Nobody agrees, so this is the dearest case; a router's rules decide as they would, its model says `fuse`, and a
    router that is a shell command is not run. The costs are list prices; where no list knows a model, `cost_usd` is
    null.
    """
    if "error" in record:
        return []
    steps = tuple(step for step in chain.steps if not _runs_a_command(step, recipe))
    imagined = Imagined(completion_tokens)
    door = Door(recipe.endpoints, LimitOptions(), backends=dict.fromkeys(recipe.endpoints, imagined))
    asked: Record = {**record, "calls": []}
    done = await Chain(chain.text, steps).bind(recipe, offline=True)(asked, Runtime(door))
    return [{**call, "latency_s": 0.0} for call in done.get("calls", [])]


def _runs_a_command(step: Step, recipe: Recipe) -> bool:
    method = step.given.get("method") or ("command" if step.given.get("command") else recipe.route.method)
    return step.name == "route" and method == "command"
