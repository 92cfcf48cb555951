"""The command of a stage: what is the same in `fuse-judge`, `fuse-synth`, `fuse-vote` and the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.options import flags_of
from fusiontools.config.stage_table import STAGES, InputOptions, JournalOptions, LimitOptions, StreamOptions
from fusiontools.config.tool_options import ToolOptions


def stage_command(stage: str, help: str, *, streams: bool = False) -> Callable[[], None]:  # noqa: A002 - click's own word
    """Make the console script of a stage: records in, the stage over each, records out.

    Args:
        streams: whether a model writes the answer, so that it can be shown as it comes.
    """
    spec = STAGES[stage]
    # What needs no section of a record reads a question.
    reading = [] if spec.needs else [InputOptions]
    calling = [LimitOptions, JournalOptions] if spec.calls_models else []
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
    from fusiontools.cli.setup import make_client, own_recipe, resolver, run_keeper, warm_up
    from fusiontools.config.recipe_yaml import load_recipe
    from fusiontools.runs.chain import stage_of

    tool, needs = f"fuse-{stage}", STAGES[stage].needs
    limit, journal = given.get("limit", {}), given.get("journal", {"no_journal": True})
    recipe = own_recipe(config) if needs else load_recipe(config)
    work = stage_of(stage, given[stage], resolver(config, recipe, journal, limit))
    client = make_client(recipe, limit, journal, tool, given.get("tool"))
    if needs and STAGES[stage].calls_models:
        warm_up()
    keep = run_keeper(tool, recipe, given.get("journal"))
    plan = FilterPlan(tool, work, client, needs=needs, stream=streams, keep=keep)
    run_filter(plan, files, given["stream"], given.get("input"))
