"""Options as a person typed them: names turned into models, what they imply filled in, what cannot be refused.

Which options hold for a record: what was typed, over `-c`, over the record's own recipe, over the default one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fusiontools.config import recipe_yaml
from fusiontools.config.chain_syntax import LAYER_STEPS
from fusiontools.config.models import ENDPOINTS, Model, environment_endpoints, merge_members, require_key
from fusiontools.config.options import OptionsFor, flags_of, merged
from fusiontools.config.recipe import Recipe, judges_of, panel_with, parse_model, read_section, summary, summary_of
from fusiontools.config.stage_table import STAGES, PanelOptions
from fusiontools.config.templates import load_template
from fusiontools.errors import InputError, UsageError
from fusiontools.record import jsonl
from fusiontools.record.types import Record

#: Options that exclude each other: typed together they are an error, one typed replaces one from a recipe.
EXCLUSIVE = {
    "panel": (("debate", "sequential"), *((layer, "scout") for layer in LAYER_STEPS), ("sequential", "quorum")),
    "pick": (("pairwise", "consistent"),),
    "synth": (),
}
_MOST_WEIGHT = 1_000_000
#: Options that say nothing without another one.
NEEDS = {"panel": {"window": "sequential"}}
#: Options that mean another one, too: whoever names a model wants it asked, whatever the recipe would do without it.
IMPLIES: dict[str, dict[str, dict[str, Any]]] = {
    "route": {"models": {"method": "model"}, "command": {"method": "command"}},
    "panel": {"agree_models": {"agree": "judge"}},
    "judge": {"models": {"method": "model"}},
    "synth": {"models": {"method": "model"}, "guard_models": {"guard": True}},
}


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
    _refuse_contradictions(section, typed)
    for name, implied in IMPLIES.get(section, {}).items():
        if name in typed:
            typed = {**implied, **typed}
    if "weights" in typed and not isinstance(typed["weights"], Mapping):
        typed["weights"] = dict(_weight(text) for text in typed["weights"])
    check_keys(typed)
    return typed


def check_keys(options: Mapping[str, Any]) -> None:
    """Raise `UsageError` where answers could not be made comparable."""
    for key in (options.get("key"), options.get("agree")):
        if key not in (None, "auto", "judge"):
            from fusiontools.answers.keys import check_key

            check_key(key)


def merge(section: str, options: Any, typed: Mapping[str, Any]) -> Any:
    """Return a section's options with what was typed put over them.

    A later layer is asked for by what is typed alone: that the first one had scouts says nothing about it.
    """
    gone = {other for pair in EXCLUSIVE.get(section, ()) for other in pair if any(typed.get(name) for name in pair)}
    if adds_layer(section, typed):
        gone |= {"scout", "stop_when_agreed", "quorum"}
    if gone:
        options = replace(options, **{f.name: f.default for f in fields(options) if f.name in gone})
    return panel_with(options, typed) if section == "panel" else merged(options, typed)


def adds_layer(section: str, typed: Mapping[str, Any]) -> bool:
    """Return whether a step goes on from the panel that stands."""
    return section == "panel" and any(typed.get(name) for name in LAYER_STEPS)


def models_of(typed: Mapping[str, Any]) -> list[Model]:
    """Return every model that typed options name."""
    found: list[Model] = []
    for value in typed.values():
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Model)]
    return found


def _refuse_contradictions(section: str, typed: Mapping[str, Any]) -> None:
    def spelled(name: str) -> str:
        return flags_of(STAGES[section])[name].names[-1]

    for one, other in EXCLUSIVE.get(section, ()):
        if typed.get(one) and typed.get(other):
            raise UsageError(f"{spelled(one)} contradicts {spelled(other)}")
    for name, needed in NEEDS.get(section, {}).items():
        if name in typed and not typed.get(needed):
            raise UsageError(f"{spelled(name)} goes with {spelled(needed)}")
    if adds_layer(section, typed) and "samples" in typed and "members" not in typed:
        raise UsageError("--samples: in a later layer every response is revised once; it goes with -m there")


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
    if not member or not 0 <= value <= _MOST_WEIGHT:
        raise UsageError(f"--weight {text!r}: write MEMBER=W, where W is a number from 0 to {_MOST_WEIGHT:,}")
    return member, value


#: The most that one record's panel may ask, whoever wants it.
MOST_CALLS = 10_000
#: The fields that the recipe's judge fills where they name nobody.
_JUDGES = {"pick": "models", "synth": "guard_models", "panel": "agree_models"}


@dataclass(frozen=True, slots=True)
class Resolver:
    """How the steps of one run find their options.

    Args:
        recipe: the recipe that a person chose; None where each record's own, else the default one, shall hold.
        binding: whether the chosen recipe holds even over a record's own (it was named with `-c`).
        offline: no key is asked for.
        limited: a cost limit holds, which no price in a record may lift.
    """

    recipe: Recipe | None
    binding: bool = False
    offline: bool = False
    limited: bool = False
    _summaries: dict[Any, Any] = field(default_factory=dict)

    def options_for(self, section: str, given: Mapping[str, Any]) -> OptionsFor[Any]:
        """Return each record's options; the keys of typed models are asked for here, before anything is read."""
        cache: dict[bytes, Any] = {}
        base = self.recipe or Recipe(name="")
        typed = read_typed(section, given, base)
        if not self.offline:
            endpoints = self.recipe.endpoints if self.recipe else environment_endpoints(ENDPOINTS)
            for model in models_of(typed):
                require_key(endpoints[model.endpoint])
        if "template" in typed:
            load_template(typed["template"])

        def resolve(record: Record) -> Any:
            # A router may be a shell command, and a record may come from anywhere: it names none.
            carried = record.get("recipe") if not self.binding and section != "route" else None
            key = jsonl.dumps([carried.get(name) for name in (section, "judge", "endpoint")] if carried else None)
            if key not in cache:
                own = typed if carried is None or self.recipe else self._at_home(section, given, base, carried)
                cache[key] = self._options(section, own, carried)
            return cache[key]

        return resolve

    def check(self, section: str, given: Mapping[str, Any]) -> None:
        """Raise `UsageError` for options that cannot hold for any record of a run by the chosen recipe."""
        typed = read_typed(section, given, self.recipe or Recipe(name=""))
        self._options(section, typed, self._summary(self.recipe, summary) if self.recipe and not self.binding else None)

    def carried(self, record: Record, panel: PanelOptions) -> dict[str, Any]:
        """Return the recipe that a record carries from its panel on, with the panel's options as they were."""
        if self.recipe is not None and (self.binding or "recipe" not in record):
            base: Mapping[str, Any] = self._summary(self.recipe, summary)
        else:
            base = record.get("recipe", {})
        return {**base, **self._summary(panel, lambda options: summary_of("panel", options))}

    def _summary(self, options: Any, make: Any) -> Any:
        """Return a summary, made once: the same options hold for many records."""
        kept = self._summaries.get(id(options))
        if kept is None:
            kept = self._summaries[id(options)] = (options, make(options))
        return kept[1]

    def _options(self, section: str, typed: Mapping[str, Any], carried: Mapping[str, Any] | None) -> Any:
        try:
            options = merge(section, self._found(section, typed, carried), typed)
            wanted = _JUDGES.get(section)
            if wanted and not getattr(options, wanted) and _wants_judge(section, options):
                options = replace(options, **{wanted: self._judges(carried)[:1]})
            check(section, options)
        except UsageError as error:
            if carried is None:
                raise
            raise InputError(error.message, f"$.recipe.{section}") from error
        return options

    def _found(self, section: str, typed: Mapping[str, Any], carried: Mapping[str, Any] | None) -> Any:
        """Return a section as the record's own recipe has it, else as the chosen or the default one does."""
        if carried is not None and (section in carried or section in ("vote", "pick")):
            # Vote and pick are left out of a record where nothing in them was said.
            own = carried.get(section, {})
            if self._is_ours(section, own):
                return getattr(self.recipe, section)
            return read_section(section, own, limited=self.limited)
        strangers = not self.binding and not recipe_yaml.chosen_by_person()
        if strangers and adds_layer(section, typed) and "members" not in typed:
            raise InputError("nobody says who sat on this panel; name the members with -m, or a recipe with -c", "$")
        return getattr(self.recipe or recipe_yaml.load_recipe(), section)

    def _judges(self, carried: Mapping[str, Any] | None) -> tuple[Model, ...]:
        if carried is not None and "judge" in carried and not self._is_ours("judge", carried["judge"]):
            return judges_of(carried, limited=self.limited)
        return (self.recipe or recipe_yaml.load_recipe()).judge.models

    def _is_ours(self, section: str, own: Any) -> bool:
        """Return whether this is what the chosen recipe says itself: then it is as trustworthy as that."""
        return self.recipe is not None and self._summary(self.recipe, summary).get(section, {}) == own

    def _at_home(
        self, section: str, given: Mapping[str, Any], base: Recipe, carried: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the typed options with models where the record's recipe is at home, unless they say another place."""
        home = carried.get("endpoint")
        if not isinstance(home, str):
            return read_typed(section, given, base)
        known = {home: replace(ENDPOINTS["openrouter"], name=home)} | dict(base.endpoints)
        return read_typed(section, given, replace(base, endpoint=home, endpoints=known))


def check(section: str, options: Any) -> None:
    """Raise `UsageError` for options that cannot work together, wherever each of them came from."""
    check_keys({name: getattr(options, name, None) for name in ("key", "agree")})
    if section in ("synth", "pick", "route") and len(options.models) > 1:
        raise UsageError(f"one model is asked by `{section}`; its `fallbacks` in a recipe are asked when it fails")
    if section == "panel" and (calls := _panel_calls(options)) > MOST_CALLS:
        raise UsageError(f"the panel asks for {calls:,} calls for one record, more than {MOST_CALLS:,}")
    if section == "panel" and options.agree == "judge":
        if not options.agree_models:
            raise UsageError("--agree judge: no judge is named; give --agree-model, or a recipe with a judge")
        if options.stop_when_agreed and not any(getattr(options, name) for name in LAYER_STEPS):
            raise UsageError("--agree judge contradicts --stop-when-agreed: a judge cannot be asked at every answer")
    if section == "synth" and options.method == "copy" and (options.guard or options.refine):
        raise UsageError(f"{'--guard' if options.guard else '--refine'} contradicts --method copy: nothing is written")
    if section == "synth" and options.guard and not options.guard_models:
        raise UsageError("--guard: no judge is named; give --guard-model, or a recipe with a judge")
    if section == "route" and options.method == "model" and not options.models:
        raise UsageError("--method model: no model is named that decides (-m, or `route: {model: …}` in a recipe)")
    if section == "route" and options.method == "command" and not options.command:
        raise UsageError("--method command: no --command is given")


def _panel_calls(options: PanelOptions) -> int:
    return sum(m.samples for m in (*options.members, *options.baselines)) * options.samples


def _wants_judge(section: str, options: Any) -> bool:
    if section == "panel":
        return bool(options.agree == "judge")
    return section == "pick" or bool(options.guard)


def check_calls(recipe: Recipe) -> None:
    """Raise `UsageError` for what a later tool would refuse, before the panel is bought."""
    for section in STAGES:
        options = getattr(recipe, section)
        try:
            check_keys({name: getattr(options, name, None) for name in ("key", "agree")})
            if hasattr(options, "template"):
                load_template(options.template)
        except UsageError as error:
            raise UsageError(f"{recipe.name}: $.{section}: {error.message}") from error


def suited_to(recipe: Recipe, panel: Mapping[str, Any]) -> Recipe:
    """Return the recipe, or an empty one where members are typed and only the default for the embedded model is there.

    What the embedded model needs (worked turns, many samples, code as judge) is nothing for another model.
    """
    embedded = recipe.endpoints[recipe.endpoint].embedded
    if panel.get("members") and embedded and not recipe_yaml.chosen_by_person():
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
