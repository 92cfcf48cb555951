"""What `fuse-ask --list` prints: recipes, endpoints and models, what is ready, and what the rest still lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from fusiontools.cli.io import is_colour_welcome
from fusiontools.cli.table import Cell, Styled, screen_width, table_text
from fusiontools.config.models import ENDPOINTS, Model, environment_endpoints
from fusiontools.config.readiness import lacks, served_models, unused_keys
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import default_choice, load_recipe, own_folder, own_recipe_names, recipe_names
from fusiontools.errors import UsageError

_READY = Styled("ready", "green")


def listing() -> str:
    """Return three tables, and what is taken without `-c`."""
    chosen = default_choice()
    rows: list[list[Cell]] = []
    known: dict[str, Recipe] = {}
    for name in sorted({*own_recipe_names(), *recipe_names()}):
        try:
            recipe = known[name] = load_recipe(name)
        except UsageError as error:
            rows.append([name, Styled("cannot be read", "red"), error.message])
            continue
        taken = "* " if name == chosen else "  "
        own = ("yours",) if name in own_recipe_names() else ()
        what_for = ": ".join(filter(None, (*own, recipe.description)))
        rows.append([taken + name, _state(missing_of(recipe)), what_for])
    rows.sort(key=lambda row: row[1] != _READY)
    parts = [
        _table(["  recipe", "", "what for"], rows),
        f"* is what -c is by default. {_where_own(chosen)}\n",
        _table(["endpoint", "", "URL"], _endpoint_rows()),
        _table(["model", "endpoint", "in"], _model_rows(known)),
        "Name a model with -m MODEL@ENDPOINT; any that an endpoint knows will do, not only these.\n",
    ]
    if keys := unused_keys():
        parts.append(f"{', '.join(keys)}: no endpoint reads it; a recipe can: `api_key_env: {keys[0]}`.\n")
    return "\n".join(parts)


def _where_own(chosen: str) -> str:
    taken = f"Here that is {chosen}. " if chosen.endswith((".yaml", ".yml")) else ""
    return f"{taken}Recipes of your own are found by name as {own_folder()}/NAME.yaml."


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    return table_text(
        head, rows, left=range(len(head)), folding=len(head) - 1, colour=is_colour_welcome(), width=screen_width()
    )


def _state(missing: str | None) -> Cell:
    return _READY if missing is None else Styled(missing, "yellow")


def missing_of(recipe: Recipe) -> str | None:
    """Return the first thing that a recipe still lacks."""
    for model in _models(recipe):
        if missing := lacks(recipe.endpoints[model.endpoint]):
            return missing
    return None


def _endpoint_rows() -> list[list[Cell]]:
    return [
        [name, _state(lacks(endpoint)), endpoint.base_url or "in this process"]
        for name, endpoint in environment_endpoints(ENDPOINTS).items()
    ]


def _model_rows(recipes: dict[str, Recipe]) -> list[list[Cell]]:
    """Return the models that are ready: those of recipes with their recipes, and those that servers here have."""
    where: dict[tuple[str, str], list[str]] = {}
    for name, recipe in recipes.items():
        for model in _models(recipe):
            if lacks(recipe.endpoints[model.endpoint]) is None:
                names = where.setdefault((model.model, model.endpoint), [])
                names += [] if name in names else [name]
    for endpoint in environment_endpoints(ENDPOINTS).values():
        for model_name in served_models(endpoint):
            where.setdefault((model_name, endpoint.name), [])
    return [[model, endpoint, ", ".join(names)] for (model, endpoint), names in where.items()]


def _models(recipe: Recipe) -> Iterator[Model]:
    """Yield every model that a recipe's stages name."""
    for options in recipe.stages.values():
        for field in fields(options):
            value = getattr(options, field.name)
            yield from (item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Model))
