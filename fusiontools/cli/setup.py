"""What the tools that call models share: from typed options to a recipe, the options of each record, and a client."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fusiontools.cli.command import complain
from fusiontools.config import recipe_yaml
from fusiontools.config.models import ENDPOINTS, LOCAL, environment_endpoints
from fusiontools.config.readiness import unused_keys
from fusiontools.config.recipe import Recipe
from fusiontools.config.resolve import Resolver, check_calls, missing_keys, require_members, suited_to
from fusiontools.config.stage_table import BatchOptions, LimitOptions
from fusiontools.config.tool_options import ToolOptions
from fusiontools.errors import UsageError
from fusiontools.runs.chain import Chain

if TYPE_CHECKING:
    from fusiontools.llm.purses import Purses

#: How the environment says no.
_OFF = ("0", "false", "no", "off")


def own_recipe(config: str | None) -> Recipe | None:
    """Return the recipe that a person chose, by flag, environment or file; None where the record's own shall hold."""
    if config is None and not recipe_yaml.chosen_by_person():
        return None
    return recipe_yaml.load_recipe(config)


def named_recipe(
    config: str | None, tool: str, journal: Mapping[str, Any], *, typed: bool = False, quiet: bool = False
) -> Recipe:
    """Return the recipe that holds; say which model answers where nobody asked for the embedded one.

    Args:
        typed: whether models are named on the command line.
    """
    recipe = recipe_yaml.load_recipe(config)
    if config is None and recipe.name == LOCAL and not (typed or quiet or recipe_yaml.chosen_by_person()):
        keys = ", ".join(unused_keys())
        if keys and not journal.get("offline"):
            complain(
                tool,
                f"{keys}: no recipe here uses {'them' if ', ' in keys else 'it'}, so the embedded {_names(recipe)} "
                "answers, which is for trying the tools; `fuse-ask --list` shows what else there is",
            )
    return recipe


def panel_recipe(config: str | None, typed: Mapping[str, Any], journal: Mapping[str, Any], *, quiet: bool) -> Recipe:
    """Return the recipe that holds for a panel, and suits the members that were typed.

    Raises:
        UsageError: it makes more calls than may be.
    """
    recipe = named_recipe(config, "fuse-panel", journal, typed=bool(typed.get("members")), quiet=quiet)
    check_calls(recipe)
    return suited_to(recipe, typed) if config is None else recipe


def check_members(recipe: Recipe, typed: Mapping[str, Any], offline: bool) -> None:
    """Raise `UsageError` where nobody sits on a panel; say whose key is missing."""
    require_members(recipe, typed, offline)
    for warning in missing_keys(recipe, offline):
        complain("fuse-panel", f"warning: {warning}")


def _names(recipe: Recipe) -> str:
    return ", ".join(member.name for member in recipe.panel.members)


def resolver(
    config: str | None, recipe: Recipe | None, journal: Mapping[str, Any], limit: Mapping[str, Any] | None = None
) -> Resolver:
    """Return how a tool's options are found for each record."""
    limits = (recipe.limits if recipe else LimitOptions()).replace(**(limit or {}))
    limited = limits.max_cost_usd is not None or limits.max_record_cost_usd is not None
    return Resolver(recipe, binding=config is not None, offline=bool(journal.get("offline")), limited=limited)


def read_chain(text: str | None, recipe: Recipe) -> Chain:
    """Return the chain that was typed, else the recipe's own."""
    if text is None:
        return Chain.parse(recipe.chain)
    try:
        return Chain.parse(text)
    except UsageError as error:
        raise UsageError(f"--chain: {error.message}") from error


def make_client(
    recipe: Recipe | None,
    limit: Mapping[str, Any],
    journal: Mapping[str, Any],
    tool: str,
    tools: Mapping[str, Any] | None = None,
    purses: Purses | None = None,
) -> Callable[[], Any]:
    """Return what makes the client, once the event loop runs; of the groups of options, what was typed.

    Args:
        purses: where the money of several clients is counted together.
    """

    def make() -> Any:
        from fusiontools.llm.client import Client
        from fusiontools.llm.state.shared import open_budget, open_kept
        from fusiontools.llm.traces import open_traces

        limits = (recipe.limits if recipe else LimitOptions()).replace(**limit)
        kept, state = open_kept(journal, partial(complain, tool))
        own, run = open_budget(journal.get("budget"), limits.max_cost_usd, state)
        return Client(
            endpoints=recipe.endpoints if recipe else environment_endpoints(ENDPOINTS),
            limits=limits,
            journal=kept,
            state=state,
            replay=bool(journal.get("replay")),
            offline=bool(journal.get("offline")),
            tools=(recipe.tools if recipe else ToolOptions()).replace(**(tools or {})),
            redact=recipe.redact if recipe else (),
            purses=own if purses is None or "budget" in journal else purses,
            run=run,
            traces=open_traces(tool, partial(complain, tool)),
        )

    return make


def batch_options(given: Mapping[str, Any]) -> BatchOptions | None:
    """Return how calls go as batch jobs; None where they do not."""
    options = BatchOptions(**given)
    if options.batch is None and options.or_buy_s is not None:
        raise UsageError("--batch-or-buy goes with --batch")
    return None if options.batch is None else options


def keeps_nothing(journal: Mapping[str, Any]) -> bool:
    """Return whether a person has said that no text of a run is kept."""
    return bool(journal.get("no_journal")) or os.environ.get("FUSION_LOG", "").strip().lower() in _OFF


def run_keeper(
    tool: str, recipe: Recipe | None, journal: Mapping[str, Any] | None = None
) -> Callable[[Any], None] | None:
    """Return what keeps a finished run's record, where somebody has said that runs are kept; None elsewhere."""
    said = os.environ.get("FUSION_LOG", "").strip()
    if keeps_nothing(journal or {}) or not (said or (recipe is not None and recipe.log)):
        return None
    from fusiontools.runs.run_log import keep_run, log_dir

    broken = False

    def keep(record: Any) -> None:
        nonlocal broken
        try:
            if not broken:
                keep_run(record, tool)
        except OSError as error:
            broken = True
            complain(tool, f"warning: runs are not kept: {log_dir()}: {error.strerror}")

    return keep


def warm_up() -> None:
    """Import and build what the first record will need, on a thread, while the tool on the left is still working."""
    import threading

    def work() -> None:
        from fusiontools.config import recipe_yaml
        from fusiontools.config.templates import load_template
        from fusiontools.record import jsonl, schemas

        schemas.check_of("record")(jsonl.loads(b"{}"))
        schemas.check_of("recipe")(jsonl.loads(b"{}"))
        load_template("default")
        # What is wrong with the choice is said by whoever needs it.
        with suppress(UsageError):
            if recipe_yaml.default_choice() != "local":
                from fusiontools.llm import http  # noqa: F401 - the import is what takes time

    threading.Thread(target=work, name="warm-up", daemon=True).start()
