"""Add up ledgers, and foresee one: what a run cost by stage, model, endpoint or record, and what a run would cost.

Reads   calls (of any records), or for an estimate messages
Adds    nothing
Source  the same plan that the panel runs, the same prompts that judge and synthesizer read
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusiontools.model import Model
from fusiontools.models import prices
from fusiontools.models.door import Door
from fusiontools.prompts import with_system
from fusiontools.recipe import Recipe
from fusiontools.record import Record, Response
from fusiontools.stages.judge import judge_messages
from fusiontools.stages.panel import plan
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.synth import synth_messages

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
    """Sums of calls by some of `GROUPS`; memory grows with the number of groups, not of records."""

    by: Sequence[str]
    rows: dict[tuple[str, ...], Row] = field(default_factory=dict)
    total: Row = field(default_factory=lambda: Row(("total",)))
    records: int = 0

    def add(self, record: Record) -> None:
        """Add every call of a record."""
        self.records += 1
        for call in record.get("calls", []):
            key = tuple(record["id"] if group == "record" else str(call.get(group, "")) for group in self.by)
            self.rows.setdefault(key, Row(key)).add(call)
            self.total.add(call)


def estimate(recipe: Recipe, record: Record, completion_tokens: int) -> list[dict[str, Any]]:
    """Return the calls that a recipe's panel, judge and synthesizer would make for a record, as a ledger.

    Args:
        completion_tokens: how long an answer is taken to be; a smaller `max_tokens` bounds it.

    The costs are list prices; where no list knows a model, `cost_usd` is null.
    """
    if "error" in record:
        return []
    door = Door(recipe.endpoints)
    planned = plan(record, recipe.panel, Runtime(door))
    calls = []
    panel: list[Response] = []
    for call in planned:
        tokens = min(completion_tokens, call.request.params.get("max_tokens") or completion_tokens)
        calls.append(_foreseen("panel", door, call.model, call.request.messages, tokens))
        filler = "word " * max(1, int(tokens * 3.5 / 5))
        panel.append({"member": call.model.name, "sample": call.slot.sample or 0, "layer": 1, "content": filler})
    answered: Record = {**record, "panel": panel}
    labels = {str(i): i for i in range(len(panel))}
    if len(panel) > 1 and recipe.judge.method == "model":
        for model in recipe.judge.models:
            messages = with_system(judge_messages(answered, recipe.judge.template, labels), model.system)
            limit = model.max_tokens or recipe.judge.max_tokens or completion_tokens
            calls.append(_foreseen("judge", door, model, messages, min(completion_tokens, limit)))
    if len(panel) > 1 and recipe.synth.method != "copy":
        wanted = record.get("params", {}).get("max_tokens")
        for model in recipe.synth.models:
            messages = with_system(synth_messages(answered, recipe.synth.template), model.system)
            limit = wanted or model.max_tokens or recipe.synth.max_tokens or completion_tokens
            calls.append(_foreseen("synth", door, model, messages, min(completion_tokens, limit)))
    return calls


def _foreseen(stage: str, door: Door, model: Model, messages: Iterable[Any], tokens: int) -> dict[str, Any]:
    endpoint = door.endpoints[model.endpoint]
    messages = list(messages)
    usage: Any = {
        "prompt_tokens": prices.estimate_tokens(messages),
        "completion_tokens": tokens,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    }
    cost_usd = 0.0 if endpoint.free else prices.listed_usd(endpoint, model, usage)
    return {"stage": stage, "model": model.model, "endpoint": endpoint.name, "usage": usage, "cost_usd": cost_usd}
