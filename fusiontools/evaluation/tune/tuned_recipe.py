"""The recipe of a chosen way: who is asked is taken from the records, as they were asked when they were graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.config.models import ENDPOINTS, Model, plain_model
from fusiontools.config.recipe import read_section
from fusiontools.config.stage_table import PanelOptions
from fusiontools.errors import InputError, UsageError
from fusiontools.evaluation.tune.panels import Panels
from fusiontools.evaluation.tune.replay import Way
from fusiontools.record import jsonl
from fusiontools.stages.panel_plan import seat_first
from fusiontools.stages.route_table import RouteTable, Treatment

if TYPE_CHECKING:
    from fusiontools.evaluation.tune.selection import Choice

#: What of the recorded panel says who was asked and when, and not how.
_CHOSEN = (
    *("members", "samples", "baselines", "scout", "stop_when_agreed", "quorum", "grace_s"),
    *("until", "max_samples", "at_once"),
)
#: What a recipe says besides its stages, and a tuned one goes on saying.
_KEPT = (
    *("endpoints", "limits", "redact", "compact", "log"),
    *("search", "fetch", "private_hosts", "sandbox", "mcp"),
)
#: How votes are read where all texts were graded so; else `auto`.
_KEYS = {"numeric": "number", "choice": "choice"}


class AskedPanel(Struct, frozen=True):
    """How the panel was asked: the recipe that the records keep, and its members with the temperatures they had."""

    recipe: Mapping[str, Any]
    members: Mapping[str, Mapping[str, Any]]


def how_asked(panels: Panels) -> AskedPanel:
    """Return how the members were asked.

    Raises:
        UsageError: the records do not say it, or each says something else.
    """
    said = [jsonl.loads(kept) for kept in panels.recipes]
    with_panel = [recipe for recipe in said if isinstance(recipe.get("panel"), dict) and recipe["panel"].get("members")]
    if not with_panel:
        raise UsageError("these records do not say how their panel was asked (`recipe`): no recipe can be written")
    if len(said) > 1:
        raise UsageError(
            f"these records were asked by {len(said):,} different recipes: tune those of one panel, or leave -o out"
        )
    try:
        options = read_section("panel", with_panel[0]["panel"], limited=False)
    except InputError as error:
        raise UsageError(error.message) from error
    assert isinstance(options, PanelOptions)  # noqa: S101 - it is the panel's section
    members = _as_asked(options, options.baselines) | _as_asked(options, options.members)
    missing = [member for member in panels.members if member not in members]
    if missing:
        raise UsageError(f"the records' recipe has no member {missing[0]!r}: no recipe can be written")
    return AskedPanel(with_panel[0], members)


def recipe_of(
    panels: Panels, choice: Choice, asked: AskedPanel, base: Mapping[str, Any], weights: Mapping[str, float], table: str
) -> dict[str, Any]:
    """Return a recipe's data.

    Args:
        base: the recipe that defines endpoints, limits and the like, as it is written.
        weights: what the members' votes count, where it was learned.
        table: where the routes by kind of question will stand.

    Raises:
        UsageError: an endpoint that nobody defines.
    """
    way = choice.way
    panel = {key: value for key, value in asked.recipe["panel"].items() if key not in _CHOSEN}
    members, samples = _members_of(choice, panels)
    panel["members"] = [dict(asked.members[member]) for member in members]
    if samples > 1 or "few_shot" in panel:
        panel["samples"] = samples
    if "few_shot" in panel:
        panel["few_shot"] = {**panel["few_shot"], "samples": samples}
    vote: dict[str, Any] = {}
    if len(panels.graders) == 1 and (key := _KEYS.get(*panels.graders)):
        vote["key"] = key
    if own := {member: weights[member] for member in members if member in weights}:
        vote |= {"weighing": "learned"} if way.how == "weighted" else {}
        vote["learned"] = own
    if way.how in ("scouts", "until"):
        early = {"scout": way.scouts} if way.how == "scouts" else {"until": way.until}
        panel |= early | ({"agree": vote["key"]} if "key" in vote else {})
    if way.how == "first":
        panel |= {"quorum": 1, "grace_s": 0}
    home = asked.recipe.get("endpoint") or asked.members[members[0]]["endpoint"]
    data: dict[str, Any] = {"name": "tuned", "endpoint": home}
    data |= {key: base[key] for key in _KEPT if key in base}
    _require_endpoints(home, [asked.members[member] for member in panels.members], base)
    data["chain"] = _chain_of(choice, asked)
    if way.how == "routed":
        data["route"] = {"method": "learned", "table": table}
    data["panel"] = panel
    for stage in ("judge", "synth"):
        if stage in data["chain"] and asked.recipe.get(stage):
            data[stage] = asked.recipe[stage]
    if vote:
        data["vote"] = vote
    return data


def route_table_of(panels: Panels, choice: Choice, asked: AskedPanel) -> RouteTable:
    """Return the table of a way that goes by kinds of questions."""
    routing, treatments = choice.learned.routing, choice.learned.treatments
    assert routing is not None  # noqa: S101 - asked only of a way that has one
    rows = []
    for place, size in zip(routing.treatments, routing.sizes, strict=True):
        way = treatments[place]
        reason = f"{way.label} scored best on questions like this one ({size:,} of them were graded)"
        if way.how == "solo":
            rows.append(Treatment("solo", reason, asked.members[way.members[0]]))
        else:
            rows.append(Treatment("vote" if _is_written(treatments) and way.how == "vote" else "fuse", reason))
    centres = [{i: float(w) for i, w in enumerate(row) if abs(w) > 1e-4} for row in routing.centres]
    return RouteTable(centres, rows)


def _members_of(choice: Choice, panels: Panels) -> tuple[list[str], int]:
    """Return who is asked, and how often each."""
    way = choice.way
    if way.how == "routed":
        panel = choice.learned.treatments[-1]
        return list(panel.members or panels.members), panel.samples
    if way.how == "fuse":
        return panels.members, len(panels.seats_of(panels.members[0]))
    weights = choice.learned.weights
    return [member for member in way.members if weights is None or weights[member] > 0], way.samples


def _chain_of(choice: Choice, asked: AskedPanel) -> str:
    how = choice.way.how
    written = "panel | judge | synth" if asked.recipe.get("judge") else "panel | synth"
    if how == "fuse":
        return written
    if how == "pick":
        return "panel | judge | pick"
    if how == "routed":
        return f"route | {written}" if _is_written(choice.learned.treatments) else "route | panel | vote"
    return "panel | vote"


def _is_written(treatments: Sequence[Way]) -> bool:
    """Return whether some kinds of questions get a written answer."""
    return any(way.how == "fuse" for way in treatments)


def _as_asked(options: PanelOptions, models: Sequence[Model]) -> dict[str, dict[str, Any]]:
    """Return models as a recipe writes them, each at the temperature that it had among the others."""
    found = {}
    seats = seat_first(_with_members(options, models), short=False).seats
    for model in models:
        own = {key: value for key, value in plain_model(model).items() if key != "samples"}
        heats = [heat for seat, heat, _ in seats if seat.model.name == model.name]
        if model.temperature is None and options.few_shot is None and heats:
            own["temperature"] = round(sum(heats) / len(heats), 4)
        found[model.name] = own
    return found


def _with_members(options: PanelOptions, models: Sequence[Model]) -> PanelOptions:
    return options.replace(members=tuple(models))


def _require_endpoints(home: str, models: Sequence[Mapping[str, Any]], base: Mapping[str, Any]) -> None:
    known = {*ENDPOINTS, *base.get("endpoints", {})}
    for name in (home, *(model["endpoint"] for model in models)):
        if name not in known:
            raise UsageError(f"nobody here defines the endpoint {name!r}: give the recipe that does with -c")
