"""The command of a stage: what is the same in `fuse-panel`, `fuse-judge`, `fuse-synth` and the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusiontools.cli.command import command
from fusiontools.config.options import flags_of
from fusiontools.config.stage_table import (
    STAGES,
    BatchOptions,
    InputOptions,
    JournalOptions,
    LimitOptions,
    StreamOptions,
)
from fusiontools.config.tool_options import ToolOptions

if TYPE_CHECKING:
    from fusiontools.config.recipe import Recipe


def stage_command(stage: str, help: str, *, streams: bool = False) -> Callable[[], None]:  # noqa: A002 - click's own word
    """Make the console script of a stage: records in, the stage over each, records out.

    Args:
        streams: whether a model writes the answer, so that it can be shown as it comes.
    """
    spec = STAGES[stage]
    # What needs no section of a record reads a question.
    reading = [] if spec.needs else [InputOptions]
    calling = [LimitOptions, JournalOptions, BatchOptions] if spec.calls_models else []
    # Whoever may use tools is told what these go by.
    with_tools = [ToolOptions] if "tools" in flags_of(spec.options) else []

    @command(f"fuse-{stage}", *reading, spec.options, *with_tools, *calling, StreamOptions, help=help)
    def main(files: tuple[str, ...], config: str | None, **given: dict[str, Any]) -> None:
        _run(stage, files, config, given, streams=streams)

    return main


def _run(
    stage: str, files: Sequence[str], config: str | None, given: Mapping[str, Mapping[str, Any]], *, streams: bool
) -> None:
    """Run a stage as a filter, with the options that were typed, by group."""
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import (
        batch_options,
        check_members,
        make_client,
        own_recipe,
        panel_recipe,
        resolver,
        run_keeper,
        warm_up,
    )
    from fusiontools.config.recipe_yaml import load_recipe
    from fusiontools.config.resolve import adds_layer
    from fusiontools.runs.chain import stage_of

    tool, spec, typed = f"fuse-{stage}", STAGES[stage], given[stage]
    limit, journal = given.get("limit", {}), given.get("journal", {"no_journal": True})
    goes_on = adds_layer(stage, typed)
    recipe: Recipe | None
    if stage == "panel":
        recipe = panel_recipe(config, typed, journal, quiet=bool(given["stream"].get("quiet")))
    else:
        recipe = own_recipe(config) if spec.needs else load_recipe(config)
    found = resolver(config, recipe, journal, limit)
    work = stage_of(stage, typed, found)
    if stage == "panel" and recipe is not None and not goes_on:
        check_members(recipe, typed, found.offline)
    client = make_client(recipe, limit, journal, tool, given.get("tool"))
    if spec.needs and spec.calls_models:
        warm_up()
    needs = ("panel", "fuse-panel") if goes_on else spec.needs
    keep = run_keeper(tool, recipe, given.get("journal"))
    batch = batch_options(given.get("batch", {}))
    plan = FilterPlan(tool, work, client, needs=needs, stream=streams, keep=keep, batch=batch)
    run_filter(plan, files, given["stream"], given.get("input"))
