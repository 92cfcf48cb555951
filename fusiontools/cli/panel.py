"""`fuse-panel`: ask every member of a panel the same question."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.stage_table import InputOptions, JournalOptions, LimitOptions, PanelOptions, StreamOptions
from fusiontools.config.tool_options import ToolOptions

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-panel -m openai/gpt-5.5 -m 'moonshotai/kimi-k2.6*3' --quorum 3 < questions.jsonl > panel.jsonl

Ask every member of a panel the same question.

Reads a question: plain text, or JSON Lines of records, prompts, chat requests or OpenAI Batch lines. Adds `panel`:
one response for each member and sample, failures included. With --revise, --debate or --sequential it reads records
that have a panel, and adds the next layer.
"""


@command("fuse-panel", InputOptions, PanelOptions, ToolOptions, LimitOptions, JournalOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    panel: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    input: dict[str, Any],  # noqa: A002 - named after its options
    stream: dict[str, Any],
) -> None:
    from fusiontools.cli.command import complain
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_client, named_recipe, resolver, run_keeper
    from fusiontools.config.chain_syntax import LAYER_STEPS
    from fusiontools.config.resolve import check_calls, missing_keys, require_members, suited_to
    from fusiontools.runs.chain import stage_of

    recipe = named_recipe(
        config, "fuse-panel", journal, typed=bool(panel.get("members")), quiet=bool(stream.get("quiet"))
    )
    check_calls(recipe)
    if config is None:
        recipe = suited_to(recipe, panel)
    found = resolver(config, recipe, journal, limit)
    stage = stage_of("panel", panel, found)
    layered = any(panel.get(name) for name in LAYER_STEPS)
    if not layered:
        require_members(recipe, panel, found.offline)
        for warning in missing_keys(recipe, found.offline):
            complain("fuse-panel", f"warning: {warning}")
    needs = ("panel", "fuse-panel") if layered else None
    client, keep = make_client(recipe, limit, journal, "fuse-panel", tool), run_keeper("fuse-panel", recipe, journal)
    plan = FilterPlan("fuse-panel", stage, client, needs=needs, keep=keep)
    run_filter(plan, files, stream, input)
