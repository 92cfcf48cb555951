"""Which options hold for a record: what was typed, over `-c`, over the record's own recipe, over the default one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fusiontools import jsonl, prompts, recipe_file, schemas
from fusiontools.chain_text import LAYER_STEPS, STAGES
from fusiontools.endpoints import ENDPOINTS, environment_endpoints
from fusiontools.errors import InputError, UsageError
from fusiontools.model import Model, merge_members
from fusiontools.models.door import require_key
from fusiontools.options import OptionsFor, flags_of, merged
from fusiontools.recipe import Recipe, from_summary, panel_with, parse_model, summary, summary_of
from fusiontools.record import Record
from fusiontools.stage_options import PanelOptions

#: Options that exclude each other: typed together they are an error, one typed replaces one from a recipe.
EXCLUSIVE = {"panel": ("debate", "sequential", "scout"), "pick": ("pairwise", "consistent")}
#: The fields that the recipe's judge fills where they name nobody.
_JUDGES = {"pick": "models", "synth": "guard_models", "panel": "agree_models"}


@dataclass(frozen=True, slots=True)
class Resolver:
    """How the steps of one run find their options.

    Args:
        recipe: the recipe that a person chose; None where each record's own, else the default one, shall hold.
        binding: whether the chosen recipe holds even over a record's own (it was named with `-c`).
        offline: no key is asked for.
    """

    recipe: Recipe | None
    binding: bool = False
    offline: bool = False

    def options_for(self, section: str, given: Mapping[str, Any]) -> OptionsFor[Any]:
        """Return each record's options; the keys of typed models are asked for here, before anything is read."""
        cache: dict[bytes, Any] = {}
        typed = read_typed(section, given, self.recipe or Recipe(name=""))
        if not self.offline:
            endpoints = self.recipe.endpoints if self.recipe else environment_endpoints(ENDPOINTS)
            for model in models_of(typed):
                require_key(endpoints[model.endpoint])
        if "template" in typed:
            prompts.load(typed["template"])

        def resolve(record: Record) -> Any:
            # A router may be a shell command, and a record may come from anywhere: it names none.
            carried = record.get("recipe") if not self.binding and section != "route" else None
            key = jsonl.dumps([carried.get(name) for name in (section, "judge")] if carried else None)
            if key not in cache:
                options, judges = self._found(section, carried)
                try:
                    cache[key] = _complete(section, merge(section, options, typed), judges)
                except UsageError as error:
                    if carried is None:
                        raise
                    raise InputError(error.message, f"$.recipe.{section}") from error
            return cache[key]

        return resolve

    def carried(self, record: Record, panel: PanelOptions) -> dict[str, Any]:
        """Return the recipe that a record carries from its panel on, with the panel's options as they were."""
        if self.recipe is not None and (self.binding or "recipe" not in record):
            base: Mapping[str, Any] = summary(self.recipe)
        else:
            base = record.get("recipe", {})
        return {**base, **summary_of("panel", panel)}

    def _found(self, section: str, carried: Mapping[str, Any] | None) -> tuple[Any, tuple[Model, ...]]:
        """Return a section's options and the judges, from the record's own recipe where it has them."""
        own = {} if carried is None else {name: carried[name] for name in (section, "judge") if name in carried}
        if carried is not None and section not in own and section in ("vote", "pick"):
            own[section] = {}  # left out of the record because nothing in it was said
        if missing := {section, "judge"} - own.keys():
            chosen = self.recipe or recipe_file.load_recipe()
            found = {name: getattr(chosen, name) for name in missing}
        else:
            found = {}
        found |= {name: _read(name, data) for name, data in own.items()}
        return found[section], found["judge"].models


def read_typed(section: str, given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return typed options with names turned into models, `A=1` into weights, and what they imply filled in.

    Raises:
        UsageError: a model or a key that cannot be, options that contradict each other.
    """
    typed = dict(given)
    for name, flag in flags_of(STAGES[section]).items():
        if not flag.model or name not in typed:
            continue
        if not flag.multiple:
            typed[name] = _asked_once(parse_model(typed[name], recipe), flag.names[-1])
            continue
        typed[name] = merge_members(tuple(parse_model(text, recipe) for text in typed[name]))
        if name != "members":
            for model in typed[name]:
                _asked_once(model, flag.names[-1])
    several = [name for name in EXCLUSIVE.get(section, ()) if typed.get(name)]
    if len(several) > 1:
        first, second = (flags_of(STAGES[section])[name].names[-1] for name in several[:2])
        raise UsageError(f"{first} contradicts {second}")
    if "models" in typed and section in ("judge", "synth", "route"):
        # Whoever names a model wants it asked, whatever the recipe would do without it.
        typed.setdefault("method", "model")
    if "command" in typed and "models" not in typed:
        typed.setdefault("method", "command")
    for key in (typed.get("key"), typed.get("agree")):
        if key not in (None, "auto", "judge"):
            from fusiontools import ballot

            ballot.check_key(key)
    if "weights" in typed and not isinstance(typed["weights"], Mapping):
        typed["weights"] = dict(_weight(text) for text in typed["weights"])
    return typed


def merge(section: str, options: Any, typed: Mapping[str, Any]) -> Any:
    """Return a section's options with what was typed put over them."""
    group = EXCLUSIVE.get(section, ())
    if any(typed.get(name) for name in group):
        empty = {f.name: f.default for f in fields(options) if f.name in group}
        options = replace(options, **empty)
    return panel_with(options, typed) if section == "panel" else merged(options, typed)


def suited_to(recipe: Recipe, panel: Mapping[str, Any]) -> Recipe:
    """Return the recipe, or an empty one where members are typed and only the default for the embedded model is there.

    What the embedded model needs (worked turns, many samples, code as judge) is nothing for another model.
    """
    embedded = recipe.endpoints[recipe.endpoint].embedded
    if panel.get("members") and embedded and not recipe_file.chosen_by_person():
        return Recipe("custom", endpoints=recipe.endpoints, aliases=recipe.aliases)
    return recipe


def require_members(recipe: Recipe, panel: Mapping[str, Any], offline: bool) -> None:
    """Raise `UsageError` where nobody would be asked, or where a member's key is missing."""
    if panel.get("members"):
        return
    if not recipe.panel.members:
        raise UsageError(f"the recipe {recipe.name!r} has no panel; name members with -m")
    for member in () if offline else recipe.panel.members:
        require_key(recipe.endpoints[member.endpoint])


def missing_keys(recipe: Recipe, offline: bool) -> list[str]:
    """Return what a person should know before the panel is bought: which later models have no key."""
    missing = []
    for model in () if offline else (*recipe.judge.models, *recipe.synth.models):
        try:
            require_key(recipe.endpoints[model.endpoint])
        except UsageError as error:
            missing.append(f"{model.name}, for the tools to the right: {error.message}")
    return missing


def models_of(typed: Mapping[str, Any]) -> list[Model]:
    """Return every model that typed options name."""
    found: list[Model] = []
    for value in typed.values():
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Model)]
    return found


def _complete(section: str, options: Any, judges: tuple[Model, ...]) -> Any:
    """Return the options with the recipe's judge where a judge is wanted and none is named; refuse what cannot be."""
    field = _JUDGES.get(section)
    wanted = section == "pick" or (section == "synth" and options.guard) or getattr(options, "agree", "") == "judge"
    if field and wanted and judges and not getattr(options, field):
        options = replace(options, **{field: judges[:1]})
    for rule in (_check_panel, _check_synth, _check_one_model, _check_route, _check_key):
        rule(section, options)
    return options


def _check_panel(section: str, options: Any) -> None:
    if section != "panel" or options.agree != "judge":
        return
    if not options.agree_models:
        raise UsageError("--agree judge: no judge is named; give --agree-model, or a recipe with a judge")
    if options.stop_when_agreed and not any(getattr(options, name) for name in LAYER_STEPS):
        raise UsageError("--agree judge contradicts --stop-when-agreed: a judge cannot be asked at every answer")


def _check_synth(section: str, options: Any) -> None:
    if section != "synth":
        return
    if options.method == "copy" and (options.guard or options.refine):
        raise UsageError(f"{'--guard' if options.guard else '--refine'} contradicts --method copy: nothing is written")
    if options.guard and not options.guard_models:
        raise UsageError("--guard: no judge is named; give --guard-model, or a recipe with a judge")


def _check_one_model(section: str, options: Any) -> None:
    if section in ("synth", "pick", "route") and len(options.models) > 1:
        raise UsageError(f"one model is asked by `{section}`; its `fallbacks` in a recipe are asked when it fails")


def _check_route(section: str, options: Any) -> None:
    if section != "route":
        return
    if options.method == "model" and not options.models:
        raise UsageError("--method model: no model is named that decides (-m, or `route: {model: …}` in a recipe)")
    if options.method == "command" and not options.command:
        raise UsageError("--method command: no --command is given")


def _check_key(section: str, options: Any) -> None:
    key = getattr(options, "key" if section == "vote" else "agree", "auto")
    if key not in ("auto", "judge"):
        from fusiontools import ballot

        ballot.check_key(key)


def _asked_once(model: Model, flag: str) -> Model:
    if model.samples > 1:
        raise UsageError(f"{flag} {model.name!r}: only panel members are asked more than once: leave *N out")
    return model


def _weight(text: str) -> tuple[str, float]:
    member, _, weight = text.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not member or not 0 <= value < float("inf"):
        raise UsageError(f"--weight {text!r}: write MEMBER=W, where W is a number that is not negative")
    return member, value


def _read(section: str, own: Any) -> Any:
    """Read a section of a record's own recipe; a fault in it is that record's alone."""
    where = f"$.recipe.{section}"
    try:
        options = from_summary(STAGES[section], own)
        plain = jsonl.loads(jsonl.dumps(summary_of(section, options)))
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(f"cannot be read ({error}); choose a recipe with -c", where) from error
    if not schemas.is_valid("recipe", plain):
        path, reason = schemas.explain("recipe", plain)
        raise InputError(f"{reason}; choose a recipe with -c", f"$.recipe{path[1:]}")
    template = getattr(options, "template", "default")
    if not prompts.is_name(template):
        # A record may come from anywhere; only a person may name a file.
        raise InputError("a record names no file; give the recipe that does with -c", f"{where}.template")
    try:
        prompts.load(template)
    except UsageError as error:
        raise InputError(error.message, f"{where}.template") from error
    return options
