"""`fuse-tune`: the recipe, weights and routes that graded panels support."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command, leave
from fusiontools.config.evaluation_options import TuneOptions

HELP = """\
\b
  fuse-tune graded.jsonl -o recipe.yaml
  fuse-tune --max-cost-usd 0.002 --explain graded.jsonl

Which members, how often each, and how their responses become one answer: what graded panels say, without a call.

Reads records with `grades`, as fuse-grade writes them. Every sub-panel is replayed with every way to an answer that
needs no new call: one member alone, the vote, the vote with learned weights, the first that answers, the pick by the
recorded ranking, scouts, the recorded fusion, and a route by kind of question. Printed is what nobody beats in score,
cost and time at once; the recipe is the cheapest within a standard error of the best, unless a limit says which.

Scores are those of questions that the choice has not seen (nested cross-validation), with intervals of 95 %. The same
question, or nearly the same, never stands on both sides of a split. Where the records cannot tell, that is said, and
how many would.

\b
Exit status:
  0    chosen
  1    some lines could not be read; the rest counts
  2    wrong usage, or records that no recipe can be made of
  3    nothing to learn from: no grades, or fewer than 30 different questions
  5    nothing keeps to the limits
"""


@command("fuse-tune", TuneOptions, help=HELP)
def main(files: tuple[str, ...], config: str | None, tune: dict[str, Any]) -> None:
    import asyncio

    from fusiontools.cli.tune_run import run

    options = TuneOptions(**tune)
    with asyncio.Runner() as runner:
        leave(runner.run(run(files, config, options)))
