"""What the tools that call models share: from typed options to a recipe, options for each record, and a door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fusiontools import recipe_file
from fusiontools.cli.options import JournalOptions, complain, typed_models
from fusiontools.endpoints import ENDPOINTS, environment_endpoints
from fusiontools.errors import InputError, UsageError
from fusiontools.options import OptionsFor, merged
from fusiontools.recipe import LimitOptions, Recipe, from_summary, summary
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
    cls: type,
    section: str,
    config: str | None,
    recipe: Recipe | None,
    given: Mapping[str, Any],
    *,
    offline: bool = False,
) -> OptionsFor[Any]:
    """Return each record's options: what was typed, over `-c`, over the record's own recipe, over the default one.

    The keys of typed models are asked for here, before anything is read; offline none is needed.
    """
    from fusiontools import jsonl

    cache: dict[bytes, Any] = {}
    base = recipe or Recipe(name="")
    typed = typed_models(given, base)
    if "models" in typed:
        # Whoever names a model wants it asked, whatever the recipe would do without it.
        typed.setdefault("method", "model")
    if not offline:
        from fusiontools.models.door import require_key

        endpoints = recipe.endpoints if recipe else environment_endpoints(ENDPOINTS)
        for model in typed.get("models", ()):
            require_key(endpoints[model.endpoint])
    if "template" in typed:
        from fusiontools import prompts

        prompts.load(typed["template"])

    def default() -> Any:
        return getattr(recipe or recipe_file.load_recipe(), section)

    def resolve(record: Record) -> Any:
        own = record.get("recipe", {}).get(section) if config is None else None
        key = jsonl.dumps(own)
        if key not in cache:
            cache[key] = merged(default() if own is None else _read(cls, own, section), typed)
            if own is not None:
                _check_usable(cache[key], section)
        return cache[key]

    return resolve


def open_journal(given: Mapping[str, Any], tool: str) -> Any:
    """Open the journal that the options name; None where nothing is to be kept.

    A default journal that cannot be written is warned about, for the answers do not depend on it; a journal that was
    asked for by name, or is to be read, must open.
    """
    from pathlib import Path

    from fusiontools.models.journal import Journal, default_path

    options = JournalOptions(**given)
    if options.no_journal:
        if options.replay or options.offline or options.journal:
            raise UsageError("--no-journal contradicts --replay, --offline and --journal")
        return None
    try:
        return Journal(Path(options.journal) if options.journal else default_path())
    except UsageError as error:
        if options.journal or options.replay or options.offline:
            raise
        complain(tool, f"warning: {error.message}; going on without it")
        return None


def warm_up() -> None:
    """Import and build what the first record will need, on a thread, while the tool on the left is still working."""
    import threading

    def work() -> None:
        from fusiontools import jsonl, prompts, recipe_file, schemas

        schemas.is_valid("record", jsonl.loads(b"{}"))
        schemas.is_valid("recipe", jsonl.loads(b"{}"))
        prompts.load("default")
        if recipe_file.default_choice() != "local":
            from fusiontools.models import http

            http.warm_up()

    threading.Thread(target=work, name="warm-up", daemon=True).start()


def _read(cls: type, own: Any, section: str) -> Any:
    """Read a section of a record's own recipe; a fault in it is that record's alone."""
    from dataclasses import replace

    from fusiontools import jsonl, schemas

    try:
        options = from_summary(cls, own)
        plain = jsonl.loads(jsonl.dumps({section: summary(replace(Recipe(name=""), **{section: options}))[section]}))
    except (TypeError, AttributeError, KeyError) as error:
        raise InputError(f"cannot be read ({error}); choose a recipe with -c", f"$.recipe.{section}") from error
    if not schemas.is_valid("recipe", plain):
        path, reason = schemas.explain("recipe", plain)
        raise InputError(f"{reason}; choose a recipe with -c", f"$.recipe{path[1:]}")
    return options


def _check_usable(options: Any, section: str) -> None:
    """Refuse a record whose own recipe names what this installation does not have."""
    from fusiontools import prompts

    if not prompts.is_name(options.template):
        # A record may come from anywhere; only a person may name a file.
        raise InputError("a record names no file; give the recipe that does with -c", f"$.recipe.{section}.template")
    try:
        prompts.load(options.template)
    except UsageError as error:
        raise InputError(error.message, f"$.recipe.{section}.template") from error
