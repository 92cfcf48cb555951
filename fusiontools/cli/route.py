"""`fuse-route`: decide whether a question is fused or answered by one model alone."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.stage_table import InputOptions, JournalOptions, LimitOptions, RouteOptions, StreamOptions

HELP = """\
\b
  fuse-route -c budget --fast google/gemini-3-flash < questions.jsonl | fuse-panel -c budget | fuse-judge | fuse-synth
  fuse-route --command 'jq -r .meta.route' --strong openai/gpt-5.5@openrouter < questions.jsonl > routed.jsonl

Decide whether a question is fused or answered by one model alone, and say why.

Reads a question: plain text, or JSON Lines of records, prompts, chat requests or OpenAI Batch lines. Adds `route`.
fuse-panel asks the one model of a solo record; fuse-judge and fuse-synth pass its answer on without a call.

The rules read the last user turn only. A --command gets the record on stdin and prints `fuse`, `solo`, `solo TIER` or
`TIER` (fast, balanced, strong) with its reason after it, or {"to": …, "tier": …, "reason": …}; it sees your whole
environment. Where it fails, the question is fused.
"""


@command("fuse-route", RouteOptions, LimitOptions, JournalOptions, InputOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    route: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    input: dict[str, Any],  # noqa: A002 - named after its options
    stream: dict[str, Any],
) -> None:
    from fusiontools.chain import stage_of
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_door, resolver
    from fusiontools.config.recipe_yaml import load_recipe

    recipe = load_recipe(config)
    stage = stage_of("route", route, resolver(config, recipe, journal, limit))
    run_filter(FilterPlan("fuse-route", stage, make_door(recipe, limit, journal, "fuse-route")), files, stream, input)
