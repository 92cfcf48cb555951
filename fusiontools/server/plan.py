"""From a request to the plan of what is done for it: a recipe's chain with the request's overrides, or one model alone.

Nothing that a client says names a URL, a key, a file or a command, or a model that the operator does not offer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.chain_syntax import Step, spell
from fusiontools.config.models import Model, split_spelling
from fusiontools.config.options import flags_of
from fusiontools.config.recipe import Recipe, parse_model
from fusiontools.config.resolve import count_panel_calls
from fusiontools.config.stage_table import ANSWERING, STAGES, PanelOptions
from fusiontools.config.templates import is_template_name, template_names
from fusiontools.errors import InputError, UsageError, nearest
from fusiontools.record import jsonl, schemas
from fusiontools.runs.chain import Chain
from fusiontools.server.protocols.exchange import FUSION, ApiError, ChatRequest
from fusiontools.server.serve_options import ServeOptions

if TYPE_CHECKING:
    from fusiontools.server.catalog import Catalog
    from fusiontools.stages.runtime import Stage


def with_options(steps: tuple[Step, ...], name: str, **options: Any) -> tuple[Step, ...]:
    """Return the steps with these options for the first of this name; a synthesizer writes every pass."""
    places = [i for i, step in enumerate(steps) if step.name == name]
    if not places:
        names = ", ".join(options)
        raise UsageError(f"{names}: the chain {' | '.join(step.name for step in steps)!r} has no `{name}`")
    changed = places if (name, *options) == ("synth", "models") else places[:1]
    return tuple(replace(s, given={**s.given, **options}) if i in changed else s for i, s in enumerate(steps))


def set_layers(steps: tuple[Step, ...], layers: int) -> tuple[Step, ...]:
    """Return the steps with so many layers of the panel, later ones as the chain has them: a debate stays one."""
    kept = tuple(step for step in steps if not step.adds_layer)
    made = next(i for i, step in enumerate(kept) if step.name == "panel")
    layer = next((step for step in steps if step.adds_layer), Step("panel", {"revise": True}, kept[made].column))
    return (*kept[: made + 1], *(layer,) * (layers - 1), *kept[made + 1 :])


def answer_with_tools(steps: tuple[Step, ...], style: str) -> tuple[Step, ...]:
    """Return the steps for an answer that may be a tool call."""
    if style == "fuse":
        return steps
    made = next(i for i, step in enumerate(steps) if step.name == "panel")
    if style == "first":
        waiting = ("quorum", "grace_s", "scout", "stop_when_agreed", "until", "max_samples", "at_once")
        given = {name: value for name, value in steps[made].given.items() if name not in waiting}
        hasty = replace(steps[made], given={**given, "first_call": True})
        return (*steps[:made], hasty, Step("synth", {"method": "call"}, 1))
    kept = tuple(step for step in steps if step.name not in ANSWERING)
    judged = () if any(step.name == "judge" for step in kept) else (Step("judge", {}, 1),)
    return (*kept, *judged, Step("pick", {}, 1))


_KEPT = 1024
#: The most steps of a chain that a client writes; `--max-calls` bounds the panel alone.
_MOST_STEPS = 12
_NO_NUMBER = 2**63
#: Overrides that are whole numbers.
_COUNTS = ("samples", "max_samples", "layers")
#: Options of a stage that a request names by themselves.
_SAID_OF = {"claims": "judge", "min_support": "synth", "refine": "synth", "guard": "synth"}
#: Shapes of the three recipes that OpenRouter's presets stand for.
_PRESETS = {"general-high": "quality", "general-budget": "budget", "general-fast": "budget"}
#: What other servers of this kind call the same override; whoever compares in them writes the answer, too.
ALIASES = {
    "models": ("panel",),
    "analysis_models": ("panel",),
    "judge_model": ("judge", "synth"),
    "synthesizer": ("synth",),
}
#: Overrides that are allowed only where the operator names them.
_REACHING = ("web_search",)
_PLUGIN_KEYS = ("id", "enabled", "analysis_models", "model", "judge_model", "preset", "max_tool_calls", "tools")


class Plan(Struct, frozen=True):
    """What is done for a request: a chain for a record, or one model that is asked alone.

    Args:
        stage: the chain, bound.
        model: who is asked alone, where one is.
        fusion: the overrides that hold, checked.
        shows_recipe: whether clients may see all that the recipe says.
        searches: whether members search the web.
    """

    recipe: Recipe
    chain: str
    stage: Stage
    model: Model | None = None
    fusion: Mapping[str, Any] = {}
    shows_recipe: bool = False
    searches: bool = False


class _Draft(Struct, frozen=True):
    """A plan that is not bound yet."""

    recipe: Recipe
    chain: Chain
    fusion: Mapping[str, Any]
    alone: Model | None = None


class Planner(Struct):
    """Plans requests; equal ones are bound once."""

    catalog: Catalog
    options: ServeOptions
    limited: bool
    _bound: dict[bytes, Plan] = {}

    def __post_init__(self) -> None:
        """Refuse a permission for an override that does not exist: a typing error would forbid it silently."""
        known = list(schemas.load("fusion")["properties"])
        for key in self.allowed():
            if key not in known:
                raise UsageError(f"--overrides: no key of `fusion` is called {key!r}{nearest(key, known)}")

    def offer(self, catalog: Catalog) -> None:
        """Plan by another catalog from now on."""
        self.catalog = catalog
        self._bound.clear()

    def plan(self, request: ChatRequest) -> Plan:
        """Return the plan of a request.

        Raises:
            ApiError: an unknown model, an override that is not allowed or cannot be.
        """
        # Hashed: what a client says, however much it is, is not kept.
        spelling = jsonl.canonical([request.model, request.fusion, _may_call(request), request.over_panel])
        key = hashlib.sha256(spelling).digest()
        found = self._bound.get(key)
        if found is None:
            found = self._bind(self._draft(request))
            if len(self._bound) >= _KEPT:
                del self._bound[next(iter(self._bound))]
            self._bound[key] = found
        return found

    def chain_of(self, request: ChatRequest) -> tuple[Recipe, Chain]:
        """Return the recipe and the chain of a request, to see what it would cost.

        Raises:
            ApiError: as `plan`.
        """
        draft = self._draft(request)
        return draft.recipe, draft.chain

    def _draft(self, request: ChatRequest) -> _Draft:
        fusion = self._check_overrides(request.fusion)
        name = self.catalog.find_recipe(request.model)
        if name is None:
            model = self.catalog.find_model(request.model)
            if model is None:
                raise self.catalog.unknown(request.model)
            if fuses(request) or request.over_panel:
                # OpenRouter's plugin beside a model's name: that model writes.
                return self._draft(replace(request, model=FUSION, fusion={"synth": request.model, **request.fusion}))
            home = replace(self.catalog.recipes[self.catalog.default], name=model.name, redact=self.catalog.redact)
            return self._alone(model, home, fusion)
        name = self.catalog.require_recipe(fusion.get("recipe", name))
        recipe = self._add_models(self.catalog.recipes[name])
        may_call = _may_call(request) and not request.over_panel
        style = fusion.get("tool_fusion", recipe.tool_fusion) if may_call else "fuse"
        if style == "pass":
            return self._alone(self._who_passes(recipe, fusion), recipe, fusion)
        return _Draft(recipe, self._chain(name, recipe, fusion, style, over_panel=request.over_panel), fusion)

    def _bind(self, draft: _Draft) -> Plan:
        try:
            stage = draft.chain.bind(draft.recipe, offline=True, limited=self.limited)
        except (InputError, UsageError) as error:
            raise _bad("fusion", error.message) from error
        shows, searches = self.options.show_recipes, _searches(draft)
        return Plan(draft.recipe, draft.chain.text, stage, draft.alone, draft.fusion, shows, searches)

    def _alone(self, model: Model, home: Recipe, fusion: Mapping[str, Any]) -> _Draft:
        """Return the plan for one model: of its home's panel nothing holds for it, of the limits everything."""
        model = replace(model, samples=1)
        panel = PanelOptions(members=(model,))
        recipe = Recipe(
            home.name,
            stages={"panel": panel},
            limits=home.limits,
            endpoints=self.catalog.endpoints,
            redact=home.redact,
        )
        copied = Step("synth", {"method": "copy"}, 1)
        text = spell((Step("panel", {"members": (model.name,)}, 1), copied))
        return _Draft(recipe, Chain(text, (Step("panel", {}, 1), copied)), fusion, model)

    def _who_passes(self, recipe: Recipe, fusion: Mapping[str, Any]) -> Model:
        """Return who answers alone where tools are passed: the synthesizer, else the first member."""
        if "synth" not in fusion:
            return (*recipe.synth.models, *recipe.panel.members)[0]
        self._refuse_strangers((fusion["synth"],), "fusion.synth")
        try:
            return parse_model(fusion["synth"], recipe)
        except UsageError as error:
            raise _bad("fusion.synth", error.message) from error

    def allowed(self) -> tuple[str, ...]:
        """Return which overrides clients may say."""
        named = [key.strip() for key in self.options.overrides.split(",")]
        if named == ["none"]:
            return ()
        if "all" not in named:
            return tuple(named)
        # What reaches out of this machine is named, or it is not allowed.
        usual = [key for key in schemas.load("fusion")["properties"] if key not in _REACHING]
        return (*usual, *(key for key in named if key != "all"))

    def _check_overrides(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return the overrides as we spell them, checked."""
        allowed = self.allowed()
        fusion = _with_plugins(overrides, searches="web_search" in allowed)
        if isinstance(fusion.get("recipe"), str):
            # As `/v1/models` spells it, too.
            fusion["recipe"] = fusion["recipe"].removeprefix(f"{FUSION}/")
        if isinstance(fusion.get("include"), str):
            fusion["include"] = [fusion["include"]]
        if not schemas.check_of("fusion")(fusion):
            path, reason = schemas.explain("fusion", fusion)
            raise _bad(f"fusion{path.removeprefix('$')}", reason)
        # 2.0 is an integer to JSON Schema, and none to `range`.
        fusion |= {name: int(fusion[name]) for name in _COUNTS if name in fusion}
        if fusion.get("web_search") is False and "web_search" not in allowed:
            del fusion["web_search"]  # nobody has to be allowed to want none
        for key in fusion:
            if key not in allowed:
                raise _bad(f"fusion.{key}", "may not be said to this server", "override_not_allowed")
        return fusion

    def _chain(self, name: str, recipe: Recipe, fusion: Mapping[str, Any], style: str, *, over_panel: bool) -> Chain:
        offered = self.catalog.chains[name]
        if over_panel:
            offered = _behind_panel(offered)
        chain = self._parse_chain(fusion["chain"], over_panel=over_panel) if "chain" in fusion else offered
        try:
            steps = answer_with_tools(self._override(chain.steps, fusion), style)
            calls, own = count_panel_calls(steps, recipe), count_panel_calls(offered.steps, recipe)
        except UsageError as error:
            raise _bad("fusion", error.message) from error
        if calls > max(self.options.max_calls, own):
            why = f"the panel would be asked {calls:,} times, more than {self.options.max_calls:,} (--max-calls)"
            raise _bad("fusion", why, "too_many_calls")
        # What a client wrote itself is no secret from it.
        return Chain(spell(steps, private=self.options.show_recipes or "chain" in fusion), steps)

    def _parse_chain(self, text: str, *, over_panel: bool) -> Chain:
        """Return a chain that a client wrote, with nothing in it that only an operator may say."""
        try:
            chain = Chain.parse(text)
        except UsageError as error:
            raise _bad("fusion.chain", error.message) from error
        if over_panel and (chain.first_panel is not None or not chain.answers):
            raise _bad(
                "fusion.chain", "the record has its panel; name what stands behind it (judge, synth, vote, pick)"
            )
        if not over_panel and (chain.first_panel is None or not chain.answers):
            raise _bad(
                "fusion.chain", "it answers no question; it needs a `panel` and what answers (synth, vote, pick)"
            )
        if len(chain.steps) > _MOST_STEPS:
            raise _bad("fusion.chain", f"{len(chain.steps)} steps are more than {_MOST_STEPS}", "too_many_calls")
        for step in chain.steps:
            self._refuse_reaching_out(step)
        return chain

    def _refuse_reaching_out(self, step: Step) -> None:
        if step.given.get("command") or step.given.get("check") or step.given.get("method") == "command":
            raise _bad("fusion.chain", "a request names no command", "override_not_allowed")
        if "tools" in step.given or "web_search" in step.given:
            raise _bad("fusion.chain", "a request turns no tool on", "override_not_allowed")
        if step.given.get("table") or step.given.get("threshold"):
            raise _bad("fusion.chain", "a request names no file", "override_not_allowed")
        template = step.given.get("template")
        if template is not None and (not is_template_name(template) or template not in template_names()):
            why = f"--template {template!r}: a request names no file{nearest(template, template_names())}"
            raise _bad("fusion.chain", why, "override_not_allowed")
        for name, value in step.given.items():
            if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < _NO_NUMBER):
                raise _bad("fusion.chain", f"{name}: {value} is no number that can be used")
        for name, flag in flags_of(STAGES[step.name].options).items():
            if flag.model and name in step.given:
                models = step.given[name]
                self._refuse_strangers(models if flag.multiple else (models,), "fusion.chain")

    def _refuse_strangers(self, names: Sequence[str], where: str) -> None:
        for text in names:
            try:
                name, _, endpoint = split_spelling(text, self.catalog.endpoints, "")
            except UsageError as error:
                raise _bad(where, error.message) from error
            if endpoint is not None or self.catalog.find_model(name) is None:
                why = f"no model {text!r} may be named here; there are: {', '.join(self.catalog.models)}"
                raise _bad(where, why, "override_not_allowed")

    def _override(self, steps: tuple[Step, ...], fusion: Mapping[str, Any]) -> tuple[Step, ...]:
        """Return the steps with what a request says of them."""
        if "panel" in fusion:
            self._refuse_strangers(fusion["panel"], "fusion.panel")
            steps = with_options(steps, "panel", members=tuple(fusion["panel"]))
        if asked := {name: fusion[name] for name in ("samples", "until", "max_samples") if name in fusion}:
            steps = with_options(steps, "panel", **asked)
        if "judge" in fusion:
            judges = (fusion["judge"],) if isinstance(fusion["judge"], str) else tuple(fusion["judge"])
            self._refuse_strangers(judges, "fusion.judge")
            steps = with_options(steps, "judge", models=judges)
        if "synth" in fusion:
            self._refuse_strangers((fusion["synth"],), "fusion.synth")
            steps = with_options(steps, "synth", models=(fusion["synth"],))
        for name, stage in _SAID_OF.items():
            if fusion.get(name) or (name in fusion and any(step.name == stage for step in steps)):
                steps = with_options(steps, stage, **{name: fusion[name]})
        if "web_search" in fusion:
            tools = {"web_search": True} if fusion["web_search"] else {"tools": ()}
            steps = with_options(steps, "panel", **tools)
        if "layers" in fusion:
            steps = set_layers(steps, fusion["layers"])
        return steps

    def _add_models(self, recipe: Recipe) -> Recipe:
        """Return the recipe with every model that may be named under its own name and settings."""
        return replace(recipe, aliases={**self.catalog.models, **recipe.aliases}, endpoints=self.catalog.endpoints)


def _behind_panel(chain: Chain) -> Chain:
    """Return what a chain does once its panel has answered, later layers of it included."""
    panels = [i for i, step in enumerate(chain.steps) if step.name == "panel"]
    steps = chain.steps[panels[-1] + 1 :]
    return Chain(spell(steps), steps)


def _bad(where: str, why: str, code: str = "invalid_override") -> ApiError:
    return ApiError(400, code, f"{where}: {why}", where)


def fuses(request: ChatRequest) -> bool:
    """Return whether OpenRouter's plugin asks for a fusion, whatever the model is."""
    plugins = request.fusion.get("plugins") or []
    return any(_is_fusion(plugin) for plugin in plugins)


def _searches(draft: _Draft) -> bool:
    """Return whether members of a plan search the web."""
    first = next((step for step in draft.chain.steps if step.name == "panel" and not step.adds_layer), None)
    if first is None:
        return False
    if "tools" in first.given or "web_search" in first.given:
        return bool(first.given.get("web_search")) or "web_search" in first.given.get("tools", ())
    panel = draft.recipe.panel
    return "web_search" in panel.tools or any("web_search" in (model.tools or ()) for model in panel.members)


def _is_fusion(plugin: Mapping[str, Any]) -> bool:
    return plugin.get("id") == "fusion" and plugin.get("enabled") is not False


def _may_call(request: ChatRequest) -> bool:
    """Return whether the answer may be a tool call."""
    return bool(request.params.get("tools")) and request.params.get("tool_choice") != "none"


def _with_plugins(overrides: Mapping[str, Any], *, searches: bool) -> dict[str, Any]:
    """Return the overrides with other spellings of them translated, OpenRouter's among them; ours win.

    Args:
        searches: whether a request may turn on the members' search.
    """
    fusion: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is not None and key != "plugins":
            fusion |= {name: value for name in ALIASES.get(key, (key,)) if name == key or overrides.get(name) is None}
    plugins = overrides.get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise _bad("plugins", "not a list of objects")
    for plugin in plugins:
        if searches and plugin.get("id") == "web" and plugin.get("enabled") is not False:
            fusion = {"web_search": True, **fusion}
        if not _is_fusion(plugin):
            continue
        unknown = [key for key in plugin if key not in _PLUGIN_KEYS]
        if unknown:
            raise _bad("plugins", f"unknown key {unknown[0]!r}{nearest(unknown[0], list(_PLUGIN_KEYS))}")
        theirs: dict[str, Any] = {}
        if (preset := plugin.get("preset")) is not None:
            theirs["recipe"] = _PRESETS.get(preset, preset) if isinstance(preset, str) else preset
        if plugin.get("analysis_models") is not None:
            theirs["panel"] = plugin["analysis_models"]
        for name in ("judge_model", "model"):
            if (analyst := plugin.get(name)) is not None:
                theirs |= {"judge": analyst, "synth": analyst}
        fusion = theirs | fusion
    return fusion
