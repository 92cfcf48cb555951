"""`fuse-judge`: extract the structure of the panel's answers."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.stage_table import JournalOptions, JudgeOptions, LimitOptions, StreamOptions

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-judge --swap -m openai/gpt-5.5 -m anthropic/claude-opus-4.8 < panel.jsonl > judged.jsonl

Extract the structure of the panel's answers: consensus, contradictions, partial coverage, unique insights,
blind spots, and a ranking.

Reads records with a `panel`. Adds `analysis`. The judge sees anonymous responses in an order drawn by lot.
Several judges are merged: what any of them found, with who found it (`supporters`), ranked by Borda count; `said`
keeps what each judge said by itself. With --swap, a judge whose first place hangs on the order is named in `degraded`.
"""


@command("fuse-judge", JudgeOptions, LimitOptions, JournalOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    judge: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    stream: dict[str, Any],
) -> None:
    from fusiontools.chain import stage_of
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_door, own_recipe, resolver, warm_up

    recipe = own_recipe(config)
    stage = stage_of("judge", judge, resolver(config, recipe, journal, limit))
    door = make_door(recipe, limit, journal, "fuse-judge")
    warm_up()
    run_filter(FilterPlan("fuse-judge", stage, door, needs=("panel", "fuse-panel")), files, stream)
