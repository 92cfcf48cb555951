"""The command of a stage: what is the same in `fuse-judge`, `fuse-synth`, `fuse-vote` and the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.options import flags_of
from fusiontools.config.stage_table import InputOptions, JournalOptions, LimitOptions, StreamOptions


def stage_command(
    stage: str,
    options: type,
    help: str,  # noqa: A002 - click's own word
    *,
    asks: bool = False,
    streams: bool = False,
) -> Callable[[], None]:
    """Make the console script of a stage: records in, the stage over each, records out.

    Args:
        asks: whether it reads questions; else it reads records that have a panel.
        streams: whether a model writes the answer, so that it can be shown as it comes.
    """
    # A stage that names models calls them.
    calls_models = any(flag.model for flag in flags_of(options).values())
    groups = [*([InputOptions] if asks else []), options, *([LimitOptions, JournalOptions] if calls_models else [])]

    @command(f"fuse-{stage}", *groups, StreamOptions, help=help)
    def main(files: tuple[str, ...], config: str | None, **given: dict[str, Any]) -> None:
        _run(stage, files, config, given, streams=streams)

    return main


def _run(
    stage: str, files: Sequence[str], config: str | None, given: Mapping[str, Mapping[str, Any]], *, streams: bool
) -> None:
    """Run a stage as a filter, with the options that were typed.

    Args:
        given: by group; there is `input` where the tool reads questions, `limit` and `journal` where it calls models.
    """
    from fusiontools.chain import stage_of
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_client, own_recipe, resolver, warm_up
    from fusiontools.config.recipe_yaml import load_recipe

    tool, asks = f"fuse-{stage}", "input" in given
    limit, journal = given.get("limit", {}), given.get("journal", {"no_journal": True})
    recipe = load_recipe(config) if asks else own_recipe(config)
    work = stage_of(stage, given[stage], resolver(config, recipe, journal, limit))
    client = make_client(recipe, limit, journal, tool)
    if "limit" in given and not asks:
        warm_up()
    needs = None if asks else ("panel", "fuse-panel")
    run_filter(FilterPlan(tool, work, client, needs=needs, stream=streams), files, given["stream"], given.get("input"))
