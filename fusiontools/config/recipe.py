"""A resolved recipe: the options of every stage, the chain they stand in, the models and endpoints they name.

The fields are the options of the command line too (see `stage_options.py`); `recipe_file.py` reads them from YAML.

The recipe that a record carries: written by its panel, read by the stages after it, and never trusted.

A record may come from anywhere. Its recipe names no file and no command, asks for a bounded number of calls, and says
nothing about prices where a cost limit holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fusiontools.config.models import ENDPOINTS, Endpoint, Model, model_from, plain_model, spelled
from fusiontools.config.options import given_only
from fusiontools.config.stage_table import (
    STAGES,
    FewShot,
    JudgeOptions,
    LimitOptions,
    PanelOptions,
    PickOptions,
    RouteOptions,
    SynthOptions,
    VoteOptions,
)
from fusiontools.config.templates import is_template_name, load_template
from fusiontools.errors import InputError, UsageError
from fusiontools.record import jsonl, schemas

#: Where models are asked when nothing is said; a record says it only of another place.
_DEFAULT_HOMES = ("openrouter", "local")
#: What becomes of a question with tools, where one is served: members propose and the synthesizer decides; the first
#: proposal that comes; the best one as it is; or one model alone is asked.
TOOL_FUSIONS = ("fuse", "first", "pick", "pass")
#: What a recipe without `chain:` does.
CHAIN = "panel | judge | synth"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A resolved recipe: every model is known, every endpoint has a URL."""

    name: str
    description: str = ""
    chain: str = CHAIN
    tool_fusion: str = "fuse"
    route: RouteOptions = RouteOptions()
    panel: PanelOptions = PanelOptions()
    judge: JudgeOptions = JudgeOptions()
    synth: SynthOptions = SynthOptions()
    vote: VoteOptions = VoteOptions()
    pick: PickOptions = PickOptions()
    limits: LimitOptions = LimitOptions()
    endpoint: str = "openrouter"
    aliases: Mapping[str, Model] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=lambda: ENDPOINTS)


def parse_model(text: str, recipe: Recipe) -> Model:
    """Read `MODEL[*N][@ENDPOINT]` as typed on a command line; an alias of the recipe keeps its settings."""
    name, samples, endpoint = spelled(text, recipe.endpoints, "--model ")
    if name in recipe.aliases and endpoint is None:
        alias = recipe.aliases[name]
        return replace(alias, samples=samples) if samples else alias
    if endpoint is None and recipe.endpoints[recipe.endpoint].embedded:
        raise UsageError(
            f"--model {name!r}: the recipe {recipe.name!r} runs the embedded model only; "
            f"say where: {name}@openrouter, or choose another recipe with -c"
        )
    return Model(name=name, model=name, endpoint=endpoint or recipe.endpoint, samples=samples or 1)


def panel_with(panel: PanelOptions, typed: Mapping[str, Any]) -> PanelOptions:
    """Return the panel with what was typed put over it, also over what its worked turns would set."""
    few_shot = panel.few_shot
    if few_shot is not None:
        hidden: dict[str, Any] = {f.name: None for f in fields(FewShot) if f.name in typed}
        few_shot = replace(few_shot, **hidden)
    return replace(panel, **{"few_shot": few_shot, **typed})


def summary(recipe: Recipe) -> dict[str, Any]:
    """Return what a record keeps of its recipe: enough to run any later stage again, no URL and no key.

    The router decides before there is anything to keep; what is left at its defaults by `vote` and `pick` is left out.
    """
    kept = {name: _plain(getattr(recipe, name)) for name in ("panel", "judge", "synth", "vote", "pick")}
    home = {"endpoint": recipe.endpoint} if recipe.endpoint not in _DEFAULT_HOMES else {}
    said = {name: data for name, data in kept.items() if data or name in ("judge", "synth")}
    return {"name": recipe.name} | home | said


def summary_of(section: str, options: object) -> dict[str, Any]:
    """Return one section as a summary holds it."""
    return {section: _plain(options)}


def from_summary(cls: type, data: Mapping[str, Any]) -> Any:
    """Read a section of a record's `recipe` back into its options class; keys of a newer version are ignored."""
    known = {f.name for f in fields(cls)}
    kept = {key: value for key, value in data.items() if key in known}
    for key in _model_lists(cls) & kept.keys():
        kept[key] = tuple(model_from(item) for item in kept[key])
    if kept.get("few_shot"):
        kept["few_shot"] = few_shot_from(kept["few_shot"])
    return cls(**kept)


def few_shot_from(data: Mapping[str, Any]) -> FewShot:
    """Read worked turns from plain data."""
    turns = tuple((user, assistant) for user, assistant in data["turns"])
    return FewShot(**{**data, "turns": turns, "unless": tuple(data.get("unless", ()))})


def _plain(options: object) -> dict[str, Any]:
    chain_only = {f.name for f in fields(options) if not f.metadata["flag"].recipe}  # type: ignore[arg-type]
    data = {key: value for key, value in given_only(options).items() if key not in chain_only}
    for key in _model_lists(type(options)) & data.keys():
        data[key] = [plain_model(model) for model in data[key]]
    if "few_shot" in data:
        turns = [list(turn) for turn in data["few_shot"].turns]
        data["few_shot"] = {**given_only(data["few_shot"]), "turns": turns, "unless": list(data["few_shot"].unless)}
    return data


def _model_lists(cls: type) -> set[str]:
    return {f.name for f in fields(cls) if f.metadata["flag"].model and f.metadata["flag"].multiple}


_MAX_CALLS = 1_000


def read_section(section: str, own: Any, *, limited: bool) -> Any:
    """Return a section's options; a fault in them is that record's alone.

    Args:
        own: the section as the record has it.
        limited: whether a cost limit holds, which no price from a record may lift.

    Raises:
        InputError: it cannot be read, is no such section, or names what a record may not name.
    """
    where = f"$.recipe.{section}"
    try:
        options = from_summary(STAGES[section], own)
        plain = jsonl.loads(jsonl.dumps(summary_of(section, options)))
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(f"cannot be read ({error}); choose a recipe with -c", where) from error
    if not schemas.is_valid("recipe", plain):
        path, reason = schemas.explain("recipe", plain)
        raise InputError(f"{reason}; choose a recipe with -c", f"$.recipe{path[1:]}")
    _refuse_too_many(options, where)
    template = getattr(options, "template", "default")
    if not is_template_name(template):
        raise InputError("a record names no file; give the recipe that does with -c", f"{where}.template")
    try:
        load_template(template)
    except UsageError as error:
        raise InputError(error.message, f"{where}.template") from error
    return _without_prices(options) if limited else options


def judges_of(carried: Mapping[str, Any], *, limited: bool) -> tuple[Model, ...]:
    """Return the judges that a record's recipe names; what else it says of judging is not needed for them."""
    own = carried.get("judge")
    models = own.get("models") if isinstance(own, Mapping) else None
    judges: tuple[Model, ...] = read_section("judge", {"models": models or []}, limited=limited).models
    return judges


def _refuse_too_many(options: Any, where: str) -> None:
    members = (*getattr(options, "members", ()), *getattr(options, "baselines", ()))
    calls = sum(member.samples for member in members) * getattr(options, "samples", 1) if members else 0
    if calls > _MAX_CALLS:
        raise InputError(f"it asks for {calls:,} calls, more than {_MAX_CALLS:,}; choose a recipe with -c", where)


def _without_prices(options: Any) -> Any:
    changed = {
        f.name: tuple(replace(model, price_usd_per_mtok=None) for model in getattr(options, f.name))
        for f in fields(options)
        if f.metadata["flag"].model and f.metadata["flag"].multiple
    }
    return replace(options, **changed)
