"""What calls cost: sums of ledgers, and what a chain would spend, before it has made a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from fusiontools.config.chain_syntax import Step
from fusiontools.config.models import ENDPOINTS, Model
from fusiontools.config.recipe import Recipe
from fusiontools.config.resolve import Resolver
from fusiontools.config.stage_table import LimitOptions, PanelOptions
from fusiontools.config.tool_options import TOOLS_ENDPOINT
from fusiontools.llm import prices
from fusiontools.llm.client import Client
from fusiontools.llm.dry_run import DryRun, DryRunAgreed
from fusiontools.llm.ledger import Spending
from fusiontools.record.types import Call, Record, Spared
from fusiontools.stages.runtime import Runtime

if TYPE_CHECKING:
    from fusiontools.runs.chain import Chain

GROUPS = ("stage", "model", "endpoint", "record")


class Costs(Struct):
    """Sums of calls by some of `GROUPS`; memory grows with the number of groups, not of records.

    `solo` counts the records that one model answered alone. `spared` counts the calls that were planned and not made
    because enough of the others agreed (one that was cut off may be billed), `spared_usd` what they would have cost: as
    much as the record's other calls to the same model did, else the list price of as many tokens; `spared_unknown`
    counts those of which neither is known. `tool_runs` counts the calls that are runs of members' tools.
    """

    by: Sequence[str]
    rows: dict[tuple[str, ...], Spending] = {}
    total: Spending = field(default_factory=Spending)
    records: int = 0
    solo: int = 0
    spared: int = 0
    spared_usd: float = 0.0
    spared_unknown: int = 0
    tool_runs: int = 0

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
            self.rows.setdefault(key, Spending()).add(call)
            self.total.add(call)
            self.tool_runs += call.get("endpoint") == TOOLS_ENDPOINT


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


async def estimate_calls(
    recipe: Recipe, chain: Chain, record: Record, completion_tokens: int, *, agreed: bool = False
) -> list[Call]:
    """Return the calls that a chain would make for a record, as a ledger: the chain itself runs, without calls.

    Args:
        completion_tokens: how long an answer is taken to be; a smaller `max_tokens` bounds it.
        agreed: the cheapest case: all say the same in a word, no tool is used, a router's model says `solo`, and
            whoever may be cut off is, at no cost.

    Else nobody agrees, and this is the dearest case; a router's rules decide as they would, its model says `fuse`, and
    a router that is a shell command is not run, nor is a check: it passes no response (in the cheapest case, each).
    The costs are list prices; where no list knows a model, `cost_usd` is null. Whoever may use tools uses all of its
    runs, one after another; none of them is opened.
    """
    if "error" in record:
        return []
    from fusiontools.tools.opening import imagined_tools

    steps = tuple(step for step in chain.steps if not _runs_a_command(step, recipe))
    tools = imagined_tools(recipe.tools)
    names = frozenset(tool.name for tool in tools.box.tools)
    imagined = DryRunAgreed(completion_tokens) if agreed else DryRun(completion_tokens, names)
    client = Client(
        recipe.endpoints, LimitOptions(), backends=dict.fromkeys(recipe.endpoints, imagined), tools=recipe.tools
    )
    client.opened[id(client.tools)] = tools
    for step in steps:
        if step.given.get("check"):
            _imagine_check(client, recipe, step, record, passes=agreed)
    asked: Record = {**record, "calls": []}
    done = await replace(chain, steps=steps).bind(recipe, offline=True)(asked, Runtime(client))
    calls: list[Call] = [{**call, "latency_s": 0.0} for call in done.get("calls", [])]
    return _without_cut_off(calls, recipe, steps, done) if agreed else calls


def _without_cut_off(calls: list[Call], recipe: Recipe, steps: Sequence[Step], done: Record) -> list[Call]:
    """Return the calls without those of members that are cut off where the others agree: the dearest ones."""
    resolver = Resolver(recipe, binding=True, offline=True)
    panels = [step for step in steps if step.name == "panel"]
    scouted = any(spared["why"] == "scouts" for spared in done.get("spared", []))
    cut: set[int] = set()
    for layer, step in enumerate(panels, start=1):
        options: Any = resolver.options_for("panel", step.given)(done)
        asked = [i for i, call in enumerate(calls) if call["stage"] == "panel" and call.get("layer", 1) == layer]
        asked = [i for i in asked if "step" not in calls[i]]
        if layer == 1 and scouted:
            continue  # scouts are all waited for
        by_cost = sorted(asked, key=lambda i: calls[i]["cost_usd"] or 0.0)
        cut.update(by_cost[_fewest(options, len(asked)) :])
    return [call for i, call in enumerate(calls) if i not in cut]


def _fewest(options: PanelOptions, asked: int) -> int:
    """Return how many responses of a layer are enough for the others to be cut off."""
    if options.first_call:
        return 1
    enough = [asked]
    if options.quorum is not None and not options.sequential:
        enough.append(options.quorum)
    if options.stop_when_agreed and not options.adds_layer:
        enough.append(asked // 2 + 1)
    return min(enough)


def _runs_a_command(step: Step, recipe: Recipe) -> bool:
    method = step.given.get("method") or ("command" if step.given.get("command") else recipe.route.method)
    return step.name == "route" and method == "command"


def _imagine_check(client: Client, recipe: Recipe, step: Step, record: Record, *, passes: bool) -> None:
    from fusiontools.stages.pick_check import checker_key
    from fusiontools.tools.check import ImaginedChecker

    options: Any = Resolver(recipe, binding=True, offline=True).options_for("pick", step.given)(record)
    client.opened[checker_key(options)] = ImaginedChecker(passes)
