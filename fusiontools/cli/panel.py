"""`fuse-panel`: ask every member of a panel the same question."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.options import InputOptions, JournalOptions, StreamOptions, command
from fusiontools.recipe import LimitOptions, PanelOptions

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-panel -m openai/gpt-5.5 -m 'moonshotai/kimi-k2.6*3' --quorum 3 < questions.jsonl > panel.jsonl

Ask every member of a panel the same question.

Reads a question: plain text, or JSON Lines of records, prompts, chat requests or OpenAI Batch lines. Adds `panel`:
one response for each member and sample, failures included.
"""


@command("fuse-panel", PanelOptions, LimitOptions, JournalOptions, InputOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    panel: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    input: dict[str, Any],  # noqa: A002 - named after its options
    stream: dict[str, Any],
) -> None:
    from fusiontools.cli.filter import Plan, run_filter
    from fusiontools.cli.options import complain, typed_models
    from fusiontools.cli.setup import make_door
    from fusiontools.errors import UsageError
    from fusiontools.models.door import require_key
    from fusiontools.options import fixed
    from fusiontools.recipe import Recipe, panel_with, summary
    from fusiontools.recipe_file import chosen_by_person, load_recipe
    from fusiontools.stages.panel import panel as panel_stage

    recipe = load_recipe(config)
    embedded = recipe.endpoints[recipe.endpoint].embedded
    if panel.get("members") and embedded and config is None and not chosen_by_person():
        # What the embedded model needs (worked turns, many samples, code as judge) is nothing for another model.
        recipe = Recipe("custom", endpoints=recipe.endpoints, aliases=recipe.aliases)
    options = panel_with(recipe.panel, typed_models(panel, recipe))
    if not options.members:
        raise UsageError(f"the recipe {recipe.name!r} has no panel; name members with -m")
    if not journal.get("offline"):
        for member in options.members:
            require_key(recipe.endpoints[member.endpoint])
        for later in (*recipe.judge.models, *recipe.synth.models):
            try:
                require_key(recipe.endpoints[later.endpoint])
            except UsageError as error:
                complain("fuse-panel", f"warning: {later.name}, for the tools to the right: {error.message}")
    stage = panel_stage(fixed(options), summary(recipe))
    run_filter(Plan("fuse-panel", stage, make_door(recipe, limit, journal, "fuse-panel")), files, stream, input)
