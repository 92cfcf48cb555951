"""`fuse-calibrate`: from which agreement on a vote may be answered at a stated risk."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command, leave
from fusiontools.config.evaluation_options import CalibrateOptions

HELP = """\
\b
  fuse-calibrate graded.jsonl --risk 0.05 -o threshold.json
  fuse-calibrate --of answered --risk 0.1 -c recipe.yaml --apart-from tuned.jsonl graded.jsonl

From which agreement on a vote may be answered, so that no more than a stated share of the answers is wrong.

Reads records with `panel` and `grades`, counts each vote as fuse-vote does, and fits the least share of the panel that
must agree. With --of asked, of all questions asked no more than RISK are answered wrongly, on average over questions
like these (conformal risk control). With --of answered, of those that are answered, with CONFIDENCE.

It holds for this panel, its prompts and its weights (fuse-vote refuses another), for questions like these, and only
where these records were not used to choose the panel: give the file that fuse-tune has read with --apart-from, and what
stands in both is left out.

\b
Exit status:
  0    fitted
  1    some lines could not be read; the rest counts
  2    wrong usage, or records of several panels
  3    nothing to fit on: no graded panels
  5    no threshold keeps to the risk: nothing would be answered
"""


@command("fuse-calibrate", CalibrateOptions, help=HELP)
def main(files: tuple[str, ...], config: str | None, calibrate: dict[str, Any]) -> None:
    import asyncio

    from fusiontools.cli.calibrate_run import run

    options = CalibrateOptions(**calibrate)
    with asyncio.Runner() as runner:
        leave(runner.run(run(files, config, options)))
