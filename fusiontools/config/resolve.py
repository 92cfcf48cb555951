"""Which options hold for a record, from what was said of them in all places.

What is typed wins: a flag, a word of a chain, an override of a request. Then the recipe named with `-c`, then the one
that the record carries, then the one that the environment or the working directory names, then the default one; and
a router never heeds what a record carries. `RecordOptions` does this, in `_resolve` and `_section`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config import recipe_yaml
from fusiontools.config.chain_syntax import LAYER_STEPS, Step
from fusiontools.config.models import (
    ENDPOINTS,
    Model,
    environment_endpoints,
    merge_members,
    require_ready,
    unnamed_endpoint,
)
from fusiontools.config.options import OptionsFor, flags_of
from fusiontools.config.recipe import Recipe, judges_of, parse_model, read_section, summary, summary_of
from fusiontools.config.stage_table import (
    MOST_CALLS,
    MOST_WEIGHT,
    STAGES,
    FewShot,
    PanelOptions,
    PickOptions,
    RouteOptions,
    StageOptions,
    SynthOptions,
)
from fusiontools.config.templates import load_template
from fusiontools.config.tool_options import WEB_TOOLS, require_tool
from fusiontools.errors import InputError, UsageError
from fusiontools.record import jsonl
from fusiontools.record.types import Record

#: Options that exclude each other: typed together they are an error, one typed replaces one from a recipe.
EXCLUSIVE = {
    "panel": (
        ("debate", "sequential"),
        *((layer, "scout") for layer in LAYER_STEPS),
        ("sequential", "quorum"),
        *(("first_call", other) for other in (*LAYER_STEPS, "quorum", "scout", "stop_when_agreed")),
        *(("until", other) for other in (*LAYER_STEPS, "quorum", "stop_when_agreed", "first_call")),
        ("samples", "max_samples"),
    ),
    "pick": (("pairwise", "consistent"), ("check", "pairwise"), ("check", "consistent")),
}
#: Options that say nothing without another one.
NEEDS = {
    "panel": {"window": "sequential"},
    "pick": {"check_files": "check", "check_s": "check", "check_retries": "check"},
}
#: Options that mean another one, too: whoever names a model wants it asked, whatever the recipe would do without it.
IMPLIES: dict[str, dict[str, dict[str, Any]]] = {
    "route": {
        "models": {"method": "model"},
        "command": {"method": "command"},
        "table": {"method": "learned"},
    },
    "panel": {"agree_models": {"agree": "judge"}},
    "judge": {"models": {"method": "model"}},
    "synth": {"models": {"method": "model"}, "guard_models": {"guard": True}},
    "vote": {"weights": {"weighing": "given"}},
}
#: Fields whose models may be asked more than once: `MODEL*3`.
_SAMPLED = ("members", "baselines")
#: How many different recipes of records are remembered, resolved.
_REMEMBERED = 256
Options = TypeVar("Options", bound=StageOptions)


def read_typed(section: str, given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return typed options with names turned into models, `A=1` into weights, and what they imply filled in.

    Raises:
        UsageError: a model or a key that cannot be, options that contradict each other.
    """
    typed = dict(given)
    for name, flag in flags_of(STAGES[section].options).items():
        if not flag.model or name not in typed:
            continue
        if not flag.multiple:
            typed[name] = _asked_once(parse_model(typed[name], recipe), flag.names[-1])
            continue
        typed[name] = merge_members(tuple(parse_model(text, recipe) for text in typed[name]))
        if name not in _SAMPLED:
            for model in typed[name]:
                _asked_once(model, flag.names[-1])
    _refuse_contradictions(section, typed)
    for name, implied in IMPLIES.get(section, {}).items():
        if name in typed:
            typed = {**implied, **typed}
    if "tools" in typed or typed.pop("web_search", False):
        typed["tools"] = _tool_names(typed.get("tools", ()), web="web_search" in given)
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


def merge(section: str, options: Options, typed: Mapping[str, Any]) -> Options:
    """Return a section's options with what was typed put over them.

    A later layer is asked for by what is typed alone: that the first one had scouts says nothing about it.
    """
    gone = {other for pair in EXCLUSIVE.get(section, ()) for other in pair if any(typed.get(name) for name in pair)}
    if adds_layer(section, typed):
        gone |= {"scout", "stop_when_agreed", "quorum", "until"}
    if "until" in gone and not typed.get("until"):
        gone |= {"max_samples", "at_once"}
    if gone:
        options = options.replace(**{f.name: f.default for f in fields(options) if f.name in gone})
    if isinstance(options, PanelOptions) and options.few_shot is not None:
        # What is typed wins over what the worked turns of a recipe would set, too.
        hidden: dict[str, Any] = {f.name: None for f in fields(FewShot) if f.name in typed}
        typed = {"few_shot": options.few_shot.replace(**hidden), **typed}
    return options.replace(**typed) if typed else options


def adds_layer(section: str, typed: Mapping[str, Any]) -> bool:
    """Return whether a step goes on from the panel that stands."""
    return section == "panel" and any(typed.get(name) for name in LAYER_STEPS)


def models_of(typed: Mapping[str, Any]) -> list[Model]:
    """Return every model that typed options name."""
    found: list[Model] = []
    for value in typed.values():
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Model)]
    return found


def named_models(section: str, given: Mapping[str, Any], recipe: Recipe) -> list[Model]:
    """Return every model that a step may ask: those typed for it, else those of the recipe.

    Raises:
        UsageError: options that cannot be.
    """
    options = merge(section, recipe.stages[section], read_typed(section, given, recipe))
    return models_of({f.name: getattr(options, f.name) for f in fields(options)})


def count_panel_calls(steps: Sequence[Step], recipe: Recipe) -> int:
    """Return how many responses the panels of a chain ask for, at most: every layer's, and the baselines'.

    Raises:
        UsageError: options that cannot be.
    """
    panel = recipe.panel
    calls = responses = 0
    for step in steps:
        if step.name != "panel":
            continue
        options = merge("panel", panel, read_typed("panel", step.given, recipe))
        if step.adds_layer:
            made = options.layer_calls(responses)
            responses = len(options.members) if options.sequential else made // options.most_rounds
        else:
            panel, made, responses = options, options.most_calls, options.most_responses
        calls += made
    return calls


def _refuse_contradictions(section: str, typed: Mapping[str, Any]) -> None:
    def spelled(name: str) -> str:
        return flags_of(STAGES[section].options)[name].names[-1]

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


def _tool_names(spelled: Sequence[str], *, web: bool) -> tuple[str, ...]:
    """Return the tools that `--tools a,b` and `--web-search` name, each once.

    Raises:
        UsageError: there is no such tool.
    """
    names = [name.strip() for text in spelled for name in text.split(",") if name.strip()]
    names += WEB_TOOLS if web else ()
    for name in names:
        require_tool(name)
    return tuple(dict.fromkeys(names))


def _weight(text: str) -> tuple[str, float]:
    member, _, weight = text.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not member or not 0 <= value <= MOST_WEIGHT:
        raise UsageError(f"--weight {text!r}: write MEMBER=W, where W is a number from 0 to {MOST_WEIGHT:,}")
    return member, value


class Resolver(Struct, frozen=True):
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

    def options_for(self, section: str, given: Mapping[str, Any]) -> OptionsFor[StageOptions]:
        """Return each record's options; the keys of typed models are asked for here, before anything is read."""
        found = RecordOptions(self, section, given)
        if not self.offline:
            endpoints = self.recipe.endpoints if self.recipe else environment_endpoints(ENDPOINTS)
            for model in models_of(found.typed):
                require_ready(endpoints[model.endpoint])
        if "template" in found.typed:
            load_template(found.typed["template"])
        return found

    def check(self, section: str, given: Mapping[str, Any]) -> None:
        """Raise `UsageError` for options that cannot hold for any record of a run by the chosen recipe."""
        RecordOptions(self, section, given).check()


def require_endpoints(recipe: Recipe | None, models: Sequence[Model], section: str) -> None:
    """Raise `UsageError` where a record names an endpoint that nobody here knows: it would fail for every record."""
    endpoints = recipe.endpoints if recipe else ENDPOINTS
    for model in models:
        if model.endpoint not in endpoints and unnamed_endpoint(model.endpoint) is None:
            raise UsageError(
                f"$.recipe.{section}: the endpoint {model.endpoint!r} of {model.name} is not known here; "
                "give this tool the recipe that defines it, too: -c FILE, or FUSION_CONFIG=FILE for all of a pipeline"
            )


class RecordOptions:
    """The options of one step for each record, resolved once for each recipe that records bring along."""

    def __init__(self, resolver: Resolver, section: str, given: Mapping[str, Any]) -> None:
        self._resolver, self._section_name, self._given = resolver, section, given
        self._base = resolver.recipe or Recipe(name="")
        self.typed = read_typed(section, given, self._base)
        #: What a record keeps of the chosen recipe.
        self._chosen = summary(resolver.recipe) if resolver.recipe else None
        says = () if resolver.binding or STAGES[section].kept == "never" else (section, "judge", "endpoint")
        self._read = (*says, "panel") if says and self.typed.get("check_retries") else says
        self._resolved = lru_cache(_REMEMBERED)(self._resolve)
        self._kept = lru_cache(_REMEMBERED)(lambda key: summary_of(section, self._resolved(key)))

    def __call__(self, record: Record) -> StageOptions:
        """Return a record's options."""
        return self._resolved(self._key(record))

    def recipe_of(self, record: Record) -> dict[str, Any]:
        """Return the recipe that a record carries from this stage on, with the stage's options as they were."""
        own = None if self._resolver.binding else record.get("recipe")
        base = self._chosen if own is None and self._chosen is not None else own or {}
        return {**base, **self._kept(self._key(record))}

    def check(self) -> None:
        """Raise `UsageError` for options that cannot hold for any record."""
        self._put_together(self.typed, None if self._resolver.binding else self._chosen)

    def _key(self, record: Record) -> bytes | None:
        """Return what decides of a record's recipe, as bytes; None where the record has no say or says nothing."""
        carried = record.get("recipe") if self._read else None
        if carried is None:
            return None
        return jsonl.dumps({name: carried[name] for name in self._read if name in carried})

    def _resolve(self, key: bytes | None) -> StageOptions:
        if key is None:
            return self._put_together(self.typed, None)
        carried = jsonl.loads(key)
        typed = self.typed if self._resolver.recipe else self._typed_at_home(carried.get("endpoint"))
        options = self._put_together(typed, carried)
        if getattr(options, "method", None) not in ("lexical", "copy", "call"):
            require_endpoints(
                self._resolver.recipe,
                models_of({f.name: getattr(options, f.name) for f in fields(options)}),
                self._section_name,
            )
        return options

    def _put_together(self, typed: Mapping[str, Any], carried: Mapping[str, Any] | None) -> StageOptions:
        try:
            options = merge(self._section_name, self._section(typed, carried), typed)
            if options.wants_judge and not getattr(options, options.judge_field):
                options = options.replace(**{options.judge_field: self._judges(carried)[:1]})
            if isinstance(options, PickOptions) and options.wants_members:
                options = options.replace(panellists=self._members(carried))
            check(self._section_name, options)
        except UsageError as error:
            if carried is None:
                raise
            raise InputError(error.message, f"$.recipe.{self._section_name}") from error
        return options

    def _section(self, typed: Mapping[str, Any], carried: Mapping[str, Any] | None) -> StageOptions:
        """Return the section as the record's own recipe has it, else as the chosen or the default one does."""
        section, resolver = self._section_name, self._resolver
        if carried is not None and (section in carried or STAGES[section].kept == "said"):
            own = carried.get(section, {})
            if resolver.recipe is not None and self._is_chosen(section, own):
                return resolver.recipe.stages[section]
            return read_section(section, own, limited=resolver.limited)
        strangers = not resolver.binding and not recipe_yaml.chosen_by_person()
        if strangers and adds_layer(section, typed) and "members" not in typed:
            raise InputError("nobody says who sat on this panel; name the members with -m, or a recipe with -c", "$")
        return (resolver.recipe or recipe_yaml.load_recipe()).stages[section]

    def _members(self, carried: Mapping[str, Any] | None) -> tuple[Model, ...]:
        """Return who sat on the panel, each with what the panel is told as a whole."""
        resolver = self._resolver
        if carried is not None and "panel" in carried and not self._is_chosen("panel", carried["panel"]):
            panel: Any = read_section("panel", carried["panel"], limited=resolver.limited)
        else:
            panel = (resolver.recipe or recipe_yaml.load_recipe()).panel
        return tuple(
            replace(
                member,
                system=member.system or panel.system,
                temperature=panel.temperature if member.temperature is None else member.temperature,
                max_tokens=member.max_tokens or panel.max_tokens,
                extra={**(panel.extra or {}), **member.extra},
            )
            for member in panel.members
        )

    def _judges(self, carried: Mapping[str, Any] | None) -> tuple[Model, ...]:
        if carried is not None and "judge" in carried and not self._is_chosen("judge", carried["judge"]):
            return judges_of(carried, limited=self._resolver.limited)
        return (self._resolver.recipe or recipe_yaml.load_recipe()).judge.models

    def _is_chosen(self, section: str, own: Any) -> bool:
        """Return whether this is what the chosen recipe says itself: then it is as trustworthy as that."""
        return self._chosen is not None and self._chosen.get(section, {}) == own

    def _typed_at_home(self, home: Any) -> dict[str, Any]:
        """Return the typed options with models where the record's recipe is at home, unless they say another place."""
        if not isinstance(home, str):
            return self.typed
        known = {home: replace(ENDPOINTS["openrouter"], name=home)} | dict(self._base.endpoints)
        return read_typed(self._section_name, self._given, replace(self._base, endpoint=home, endpoints=known))


def check(section: str, options: StageOptions) -> None:
    """Raise `UsageError` for options that cannot work together, wherever each of them came from."""
    check_keys({name: getattr(options, name, None) for name in ("key", "agree")})
    for name, flag in flags_of(type(options)).items():
        if flag.most == 1 and len(getattr(options, name)) > 1:
            raise UsageError(f"one model is asked by `{section}`; its `fallbacks` in a recipe are asked when it fails")
    if (calls := options.most_calls) > MOST_CALLS:
        raise UsageError(f"the {section} asks for {calls:,} calls for one record, more than {MOST_CALLS:,}")
    if isinstance(options, PanelOptions):
        _refuse_panel(options)
    elif isinstance(options, SynthOptions):
        _refuse_synth(options)
    elif isinstance(options, RouteOptions):
        _refuse_route(options)


def _refuse_panel(options: PanelOptions) -> None:
    if options.until is None and (options.max_samples is not None or options.at_once > 1):
        raise UsageError(f"{'--max-samples' if options.max_samples else '--at-once'} goes with --until")
    if options.until is not None:
        _refuse_until(options, options.until)
    if options.agree != "judge":
        return
    if not options.agree_models:
        raise UsageError("--agree judge: no judge is named; give --agree-model, or a recipe with a judge")
    if options.stop_when_agreed and not options.adds_layer:
        raise UsageError("--agree judge contradicts --stop-when-agreed: a judge cannot be asked at every answer")


def _refuse_until(options: PanelOptions, until: float) -> None:
    from fusiontools.answers.certainty import votes_to_be_sure

    if options.agree == "judge":
        raise UsageError("--agree judge contradicts --until: votes are counted, and a judge does not vote")
    if options.max_samples is not None and options.samples > 1:
        raise UsageError(
            "--samples contradicts --max-samples: the one is each member's, the other that of all together"
        )
    fewest = votes_to_be_sure(0, until)
    if options.members and options.most_responses < fewest:
        raise UsageError(
            f"--until {until:g} takes at least {fewest:,} responses, and this panel has {options.most_responses:,}: "
            "allow more with --max-samples"
        )


def _refuse_synth(options: SynthOptions) -> None:
    if options.method in ("copy", "call") and (options.guard or options.refine):
        what = "--guard" if options.guard else "--refine"
        raise UsageError(f"{what} contradicts --method {options.method}: nothing is written")
    if options.guard and not options.guard_models:
        raise UsageError("--guard: no judge is named; give --guard-model, or a recipe with a judge")


def _refuse_route(options: RouteOptions) -> None:
    if options.method == "model" and not options.models:
        raise UsageError("--method model: no model is named that decides (-m, or `route: {model: …}` in a recipe)")
    if options.method == "command" and not options.command:
        raise UsageError("--method command: no --command is given")
    if options.method == "learned" and not options.table:
        raise UsageError("--method learned: no table is given (--table FILE, which fuse-tune writes)")


def check_calls(recipe: Recipe) -> None:
    """Raise `UsageError` for what a later tool would refuse, before the panel is bought."""
    for section in STAGES:
        options = recipe.stages[section]
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
        require_ready(recipe.endpoints[member.endpoint])


def missing_keys(recipe: Recipe, offline: bool) -> list[str]:
    """Return what a person should know before the panel is bought: which later models have no key."""
    missing = []
    for model in () if offline else (*recipe.judge.models, *recipe.synth.models):
        try:
            require_ready(recipe.endpoints[model.endpoint])
        except UsageError as error:
            missing.append(f"{model.name}, for the tools to the right: {error.message}")
    return missing
