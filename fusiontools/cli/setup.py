"""What the tools that call models share: from typed options to a recipe, options for each record, and a door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fusiontools import recipe_file
from fusiontools.cli.filter import open_journal
from fusiontools.cli.options import typed_models
from fusiontools.endpoints import ENDPOINTS, environment_endpoints
from fusiontools.errors import UsageError
from fusiontools.options import OptionsFor, merged
from fusiontools.recipe import LimitOptions, Recipe, from_summary
from fusiontools.record import Record


def own_recipe(config: str | None) -> Recipe | None:
    """Return the recipe that a person chose, by flag, environment or file; None where the record's own shall hold."""
    if config is None and not recipe_file.chosen_by_person():
        return None
    return recipe_file.load_recipe(config)


def make_door(
    recipe: Recipe | None, limit: Mapping[str, Any], journal: Mapping[str, Any], tool: str
) -> Callable[[], Any]:
    """Return what makes the door, once the event loop runs."""

    def make() -> Any:
        from fusiontools.models.door import Door

        return Door(
            endpoints=recipe.endpoints if recipe else environment_endpoints(ENDPOINTS),
            limits=merged(recipe.limits if recipe else LimitOptions(), limit),
            journal=open_journal(journal, tool),
            replay=bool(journal.get("replay")),
            offline=bool(journal.get("offline")),
        )

    return make


def options_for(
    cls: type, section: str, config: str | None, recipe: Recipe | None, given: Mapping[str, Any]
) -> OptionsFor[Any]:
    """Return each record's options: what was typed, over `-c`, over the record's own recipe, over the default one."""
    from fusiontools import jsonl

    cache: dict[bytes, Any] = {}
    base = recipe or Recipe(name="")
    typed = typed_models(given, base)

    def default() -> Any:
        return getattr(recipe or recipe_file.load_recipe(), section)

    def resolve(record: Record) -> Any:
        own = record.get("recipe", {}).get(section) if config is None else None
        key = jsonl.dumps(own)
        if key not in cache:
            cache[key] = merged(default() if own is None else _read(cls, own, section), typed)
        return cache[key]

    return resolve


def _read(cls: type, own: Any, section: str) -> Any:
    try:
        return from_summary(cls, own)
    except (TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"a record's `recipe.{section}` cannot be read ({error}); choose a recipe with -c") from error
