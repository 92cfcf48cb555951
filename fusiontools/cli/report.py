"""`fuse-report`: what graded records say."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command, leave
from fusiontools.config.evaluation_options import ReportOptions
from fusiontools.errors import UsageError

HELP = """\
\b
  fuse-grade < answers.jsonl | fuse-report
  fuse-report graded.jsonl --plot report.svg

What graded records say: is the fusion better than the best single model at its cost, and how sure is that.

Reads `grades` and `calls`. From the same calls come every member alone, the vote of the panel, the judge's pick, the
best that any selection could reach, every baseline, and the vote of as many samples of one model as the fusion costs.
A record with an `error` or without grades counts 0. Where a task was repeated (`epoch`), its mean is one observation.

Intervals are of 95 %: Wilson's where scores are 0 or 1, else bootstrapped, as are differences. p is McNemar's, exact,
or by signs drawn by lot; Holm corrects it for all comparisons shown. A cost that nobody said is unknown, never 0.

\b
Exit status:
  0    reported
  1    some lines could not be read; the rest is reported
  2    wrong usage
  3    nothing to report: no records, or none with a grade
  5    a --fail condition holds
"""


@command("fuse-report", ReportOptions, help=HELP, recipe=False)
def main(files: tuple[str, ...], report: dict[str, Any]) -> None:
    import asyncio

    from fusiontools.cli.report_run import run

    options = ReportOptions(**report)
    _check(files, options)

    with asyncio.Runner() as runner:
        leave(runner.run(run(files, options)))


def _check(files: tuple[str, ...], options: ReportOptions) -> None:
    """Refuse what cannot be meant, before anything is read."""
    if options.fail_under is not None and options.fail_under > 1:
        raise UsageError(f"--fail-under {options.fail_under:g}: a score is between 0 and 1")
    if not options.compare:
        if "before" in options.worse:
            raise UsageError("--fail-if-worse-than before goes with --compare BEFORE AFTER")
        return
    if len(files) != 2 or set(files) == {"-"}:
        raise UsageError("--compare takes two files: BEFORE AFTER (one of them may be `-`)")
    if options.plot:
        raise UsageError("--plot draws one run; it does not go with --compare")
    if others := [rival for rival in options.worse if rival != "before"]:
        raise UsageError(f"--fail-if-worse-than {others[0]}: with --compare it can only be `before`")
