"""`fuse-synth`: write one answer from the panel's responses and their analysis."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.stage_table import JournalOptions, LimitOptions, StreamOptions, SynthOptions

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-synth -m anthropic/claude-opus-4.8 -o text < judged.jsonl

Write one answer, grounded in the panel's responses and their analysis.

Reads records with a `panel`, and `analysis` where a judge has been. Adds `answer`. On a terminal it writes the answer
as it comes, else JSON Lines. Where the model fails, the best response stands in, and the record says so.
"""


@command("fuse-synth", SynthOptions, LimitOptions, JournalOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    synth: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    stream: dict[str, Any],
) -> None:
    from fusiontools.chain import stage_of
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_door, own_recipe, resolver, warm_up

    recipe = own_recipe(config)
    stage = stage_of("synth", synth, resolver(config, recipe, journal, limit))
    door = make_door(recipe, limit, journal, "fuse-synth")
    warm_up()
    run_filter(FilterPlan("fuse-synth", stage, door, needs=("panel", "fuse-panel"), stream=True), files, stream)
