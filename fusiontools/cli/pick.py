"""`fuse-pick`: the best response, word for word."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.stage_table import JournalOptions, LimitOptions, PickOptions, StreamOptions

HELP = """\
\b
  echo "Write a haiku about rain." | fuse-panel | fuse-judge | fuse-pick
  fuse-pick --pairwise -m openai/gpt-5.5 < panel.jsonl > picked.jsonl

Pick the best response, word for word.

Reads records with a `panel`. Adds `answer`. Where a judge has ranked the responses, the first of its ranking is the
answer and no model is asked, also where -m names one; --pairwise and --consistent always ask. Without a ranking, the
model is asked once. It sees anonymous responses in an order drawn by lot. Of more than 8 responses, --pairwise
compares the 8 best ranked, else the 8 longest finished ones.
"""


@command("fuse-pick", PickOptions, LimitOptions, JournalOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    pick: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    stream: dict[str, Any],
) -> None:
    from fusiontools.chain import stage_of
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_door, own_recipe, resolver, warm_up

    recipe = own_recipe(config)
    stage = stage_of("pick", pick, resolver(config, recipe, journal, limit))
    door = make_door(recipe, limit, journal, "fuse-pick")
    warm_up()
    run_filter(FilterPlan("fuse-pick", stage, door, needs=("panel", "fuse-panel")), files, stream)
