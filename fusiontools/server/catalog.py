"""What the server offers: recipes as models, and the members' own models by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Endpoint, Model, require_ready
from fusiontools.config.readiness import lacks
from fusiontools.config.recipe import Recipe, Redact
from fusiontools.config.recipe_yaml import ALL, default_choice, load_offered, load_recipe, recipe_names
from fusiontools.config.resolve import check_calls
from fusiontools.config.tool_options import PROVIDER, WEB_TOOLS
from fusiontools.errors import UsageError, install_line
from fusiontools.llm import prices
from fusiontools.llm.provider_search import provider_search
from fusiontools.llm.sensitive import finder_for
from fusiontools.runs.chain import Chain
from fusiontools.server.protocols.exchange import FUSION, ApiError
from fusiontools.server.serve_options import ServeOptions

#: What OpenRouter calls the same thing.
OPENROUTER = "openrouter/fusion"


class Catalog(Struct, frozen=True):
    """What can be asked for.

    Args:
        recipes: by name; the first is what `fusion` means.
        chains: of each recipe, ready to be bound.
        models: those that a client may name, with their settings and the recipe they come from.
        globs: patterns of further models, asked at the first recipe's endpoint.
    """

    recipes: Mapping[str, Recipe]
    chains: Mapping[str, Chain]
    models: Mapping[str, Model]
    endpoints: Mapping[str, Endpoint]
    globs: tuple[str, ...] = ()

    @property
    def default(self) -> str:
        """The name of the recipe that `fusion` means."""
        return next(iter(self.recipes))

    def find_recipe(self, model: str) -> str | None:
        """Return which recipe a model's name means; None where it is no fusion.

        Raises:
            ApiError: a fusion that is not offered.
        """
        if model in (FUSION, OPENROUTER, f"{OPENROUTER}-flash"):
            return self.default
        if not model.startswith(f"{FUSION}/"):
            return None
        return self.require_recipe(model.removeprefix(f"{FUSION}/"))

    def require_recipe(self, name: str) -> str:
        """Return the name of a recipe that is offered.

        Raises:
            ApiError: it is not.
        """
        if name not in self.recipes:
            raise ApiError(
                404,
                "model_not_found",
                f"no recipe {name!r} is offered here; there are: {_names(self.recipes)}",
                "model",
            )
        return name

    @property
    def redact(self) -> Redact:
        """What any of its recipes hides: who asks for a model by its name asks by no recipe."""
        return tuple(dict(pair for recipe in self.recipes.values() for pair in recipe.redact).items())

    def find_model(self, name: str) -> Model | None:
        """Return the model that a client may name so; None where it may not."""
        if name in self.models:
            return self.models[name]
        if any(fnmatchcase(name, glob) for glob in self.globs):
            home = self.recipes[self.default].endpoint
            return None if self.endpoints[home].embedded else Model(name, name, home)
        return None

    def unknown(self, name: str) -> ApiError:
        """Return the error for a model that nobody offers, with what there is."""
        there = _names([FUSION, *(f"{FUSION}/{recipe}" for recipe in self.recipes), *self.models])
        return ApiError(404, "model_not_found", f"no model {name!r} is offered here; there are: {there}", "model")

    def listing(self, created: int) -> list[dict[str, Any]]:
        """Return the entries of `/v1/models`."""
        fusions = [(FUSION, self.recipes[self.default])]
        fusions += [(f"{FUSION}/{name}", recipe) for name, recipe in self.recipes.items()]
        entries = [self._fusion_entry(name, recipe, created) for name, recipe in fusions]
        return entries + [self._model_entry(name, model, created) for name, model in self.models.items()]

    def anthropic_listing(self, created: int) -> list[dict[str, Any]]:
        """Return the entries of `/v1/models` as Anthropic's clients read them."""
        return [_as_anthropic(entry) for entry in self.listing(created)]

    def _fusion_entry(self, name: str, recipe: Recipe, created: int) -> dict[str, Any]:
        contexts = [self._context(model) for model in models_of(recipe)]
        entry = _entry(name, "fusiontools", created) | {"description": recipe.description}
        if contexts and None not in contexts:
            entry["context_length"] = min(contexts)  # type: ignore[type-var]
        return entry | {"supported_parameters": ["tools", "tool_choice", "response_format", "max_tokens", "stop"]}

    def _model_entry(self, name: str, model: Model, created: int) -> dict[str, Any]:
        entry = _entry(name, model.endpoint, created)
        if (context := self._context(model)) is not None:
            entry["context_length"] = context
        if (price := prices.per_token_usd(self.endpoints[model.endpoint], model)) is not None:
            entry["pricing"] = {kind: f"{usd:.12g}" for kind, usd in price.items()}
        return entry

    def _context(self, model: Model) -> int | None:
        return prices.context_tokens(self.endpoints[model.endpoint], model)


def open_catalog(
    config: str | None, options: ServeOptions, limit: Mapping[str, Any], *, keys_may_come: bool = False
) -> Catalog:
    """Return what is offered.

    Args:
        config: the recipe that `fusion` means; by default the one that the command line would take.
        limit: options of `LimitOptions` that were typed: they hold over every recipe's own.
        keys_may_come: whether an endpoint's key may be missing as yet.

    Raises:
        UsageError: a recipe that cannot be, or that cannot be asked here.
    """
    found = load_offered(config, options.recipes)
    first = next(iter(found.values()))
    for recipe in map(load_recipe, recipe_names() if _offers_all(config, options) else ()):
        if _has_keys(recipe, options):
            found.setdefault(recipe.name, recipe)
    for recipe in found.values():
        check_calls(recipe)
        _require_what_it_needs(recipe, keys_may_come=keys_may_come)
    found = {name: replace(recipe, limits=recipe.limits.replace(**limit)) for name, recipe in found.items()}
    chains = {name: Chain.parse(recipe.chain) for name, recipe in found.items()}
    if options.chain is not None:
        chains[first.name] = _own_chain(options.chain)
    for name, chain in chains.items():
        if chain.first_panel is None or not chain.answers:
            raise UsageError(
                f"{name}: the chain {chain.text!r} answers no question; it needs a `panel` and what answers"
            )
        _require_tools(found[name], chain, options)
    models: dict[str, Model] = {}
    endpoints: dict[str, Endpoint] = {}
    for recipe in found.values():
        for model in models_of(recipe):
            models.setdefault(model.name, model)
        for name, endpoint in recipe.endpoints.items():
            if endpoints.setdefault(name, endpoint) != endpoint:
                raise UsageError(
                    f"{recipe.name}: the endpoint {name!r} is another one in {first.name}: rename one of them"
                )
    return Catalog(found, chains, models, endpoints, options.allow_models)


def models_of(recipe: Recipe) -> list[Model]:
    """Return every model that a recipe names, in the order in which they are asked, once each and for one sample."""
    named: dict[str, Model] = {}
    for model in _walk_models(recipe):
        named.setdefault(model.name, replace(model, samples=1))
    return list(named.values())


def _walk_models(recipe: Recipe) -> Iterator[Model]:
    for section in ("panel", "judge", "synth", "route", "pick"):
        options = recipe.stages[section]
        for field in fields(options):
            value = getattr(options, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Model):
                    yield item


def _own_chain(text: str) -> Chain:
    try:
        return Chain.parse(text)
    except UsageError as error:
        raise UsageError(f"--chain: {error.message}") from error


def _offers_all(config: str | None, options: ServeOptions) -> bool:
    """Return whether every shipped recipe is offered; whoever gives a file of their own wants that one and no other."""
    return ALL in options.recipes or (not options.recipes and (config or default_choice()) in recipe_names())


def _require_what_it_needs(recipe: Recipe, *, keys_may_come: bool = False) -> None:
    if recipe.redact:
        finder_for(recipe.redact)
    for model in _walk_models(recipe):
        endpoint = recipe.endpoints[model.endpoint]
        if endpoint.embedded and find_spec("xllamacpp") is None:
            raise UsageError(f"{recipe.name}: the embedded engine is not installed: {install_line('local')}")
        if not (keys_may_come and endpoint.api_key_env):
            require_ready(endpoint)


def _require_tools(recipe: Recipe, chain: Chain, options: ServeOptions) -> None:
    """Raise `UsageError` where a tool that models may use, or that a request may turn on, cannot be opened."""
    named = [*recipe.panel.tools, *recipe.judge.tools]
    named += [name for model in recipe.panel.members for name in model.tools or ()]
    for step in chain.steps:
        named += [name.strip() for text in step.given.get("tools", ()) for name in text.split(",")]
        named += WEB_TOOLS if step.given.get("web_search") else ()
    named += WEB_TOOLS if "web_search" in options.overrides.split(",") else ()
    own = [provider_search(recipe.endpoints[model.endpoint], model.model, 1) for model in models_of(recipe)]
    if all(own) and recipe.tools.search[:1] in ((), (PROVIDER,)):
        named = [name for name in named if name != "web_search"]
    if named:
        from fusiontools.tools.opening import require_tools

        try:
            require_tools(named, recipe.tools)
        except UsageError as error:
            raise UsageError(f"{recipe.name}: {error.message}", code=error.code) from error


def _has_keys(recipe: Recipe, options: ServeOptions) -> bool:
    """Return whether all that a recipe asks is ready; a server on this machine is, where it answers."""
    try:
        _require_what_it_needs(recipe)
        _require_tools(recipe, Chain.parse(recipe.chain), options)
    except UsageError:
        return False
    return not any(lacks(recipe.endpoints[model.endpoint]) for model in models_of(recipe))


def _entry(name: str, owner: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def _as_anthropic(entry: Mapping[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(entry["created"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    model = {
        "type": "model",
        "id": entry["id"],
        "display_name": entry["id"],
        "created_at": created,
        "lifecycle": "active",
    }
    return model | ({"max_input_tokens": entry["context_length"]} if "context_length" in entry else {})


def _names(names: Any) -> str:
    return ", ".join(names)
