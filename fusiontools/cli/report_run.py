"""One run of `fuse-report`; apart from `report.py`, whose `--help` needs nothing of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from fusiontools.cli import report_export, report_text
from fusiontools.cli.command import collect_less, complain, leave
from fusiontools.cli.io import Input, is_colour_welcome, write_or_leave
from fusiontools.cli.table import screen_width
from fusiontools.config.evaluation_options import ReportOptions
from fusiontools.errors import (
    EXIT_CONDITION,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    InputError,
    UsageError,
    nearest,
)
from fusiontools.evaluation.report.comparisons import Runs, compare_runs
from fusiontools.evaluation.report.scores import ScoreTable
from fusiontools.evaluation.report.statistics import Draws, Interval, load_numpy
from fusiontools.evaluation.report.summary import Summary, SummaryBuilder
from fusiontools.record import jsonl

_TOOL = "fuse-report"
#: A file that is no JSON Lines at all would fill the screen.
_UNREAD_SHOWN = 5


class _Input(Struct):
    """What was read of one run."""

    gathered: ScoreTable = field(default_factory=ScoreTable)
    unread: int = 0


async def run(files: Sequence[str], options: ReportOptions) -> int:
    """Report and return the exit status."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Not the loop's own handler: that one would wait until the numbers are drawn.
        signal.signal(signal.SIGINT, lambda *_: leave(EXIT_INTERRUPTED))
    load_numpy()
    collect_less()
    if (not files or "-" in files) and os.isatty(0):
        complain(_TOOL, "reads graded records on stdin; press Ctrl-D to end (--help explains)")
    runs = [[name] for name in files] if options.compare else [files]
    inputs = [await _read(names, int(options.max_line_mib * 2**20)) for names in runs]
    for names, each in zip(runs, inputs, strict=True):
        if (why := _find_nothing(each)) is not None:
            complain(_TOOL, f"{names[0]}: {why}" if options.compare else why)
            return EXIT_NOTHING_USABLE
    draws = Draws(options.seed, options.resamples)
    if options.compare:
        failed = _compare([each.gathered for each in inputs], options, draws)
    else:
        failed = _report(inputs[0].gathered, options, draws)
    for condition in failed:
        complain(_TOOL, condition)
    if failed:
        return EXIT_CONDITION
    return EXIT_SOME_FAILED if any(each.unread for each in inputs) else EXIT_OK


async def _read(files: Sequence[str], max_line_bytes: int) -> _Input:
    taken = _Input()
    async for batch in Input(files, "jsonl", max_line_bytes).batches():
        for line in batch:
            try:
                if line.problem:
                    raise InputError(line.problem)
                taken.gathered.add(jsonl.parse(line.data))
            except InputError as error:
                taken.unread += 1
                if taken.unread <= _UNREAD_SHOWN:
                    complain(_TOOL, f"{line.place}: {error.message}")
    if (more := taken.unread - _UNREAD_SHOWN) > 0:
        complain(_TOOL, f"and {more:,} more line{'s' * (more > 1)} cannot be read")
    taken.gathered.finish()
    return taken


def _find_nothing(taken: _Input) -> str | None:
    """Return why there is nothing to report."""
    if not taken.gathered.records:
        return "nothing came in: no records"
    if not taken.gathered.graded:
        return "no record has grades; `fuse-grade` makes them: fuse-grade < answers.jsonl | fuse-report"
    return None


def _report(gathered: ScoreTable, options: ReportOptions, draws: Draws) -> list[str]:
    """Print one run; return the conditions that it does not meet."""
    summing = SummaryBuilder(gathered, options.system, draws)
    summary = summing.build()
    rivals = {rival: _find_interval(summary, summing, rival) for rival in options.worse}
    if options.plot:
        from fusiontools.evaluation.report.plot import draw

        draw(summary, options.plot)
    text = report_export.export(summary, options.output) or _report_text(summary)
    write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    score = summary.row(summary.subject).score.mean
    return [*_check_score(summary.subject, score, options), *_check_rivals(summary.subject, rivals)]


def _compare(runs: Sequence[ScoreTable], options: ReportOptions, draws: Draws) -> list[str]:
    """Print what changed between two runs; return the conditions that the second does not meet."""
    changes = compare_runs(runs[0], runs[1], draws)
    if not changes.tasks:
        raise UsageError("the two files have no task in common: records are paired by id (`meta.task`)")
    name = options.system or "fusion"
    subject = next((each for each in changes.systems if each.name == name), None)
    if subject is None and (options.system or options.worse or options.fail_under is not None):
        known = [each.name for each in changes.systems]
        raise UsageError(f"no system is called {name!r} in both files{nearest(name, known)}")
    text = report_export.export_runs(changes, options.output) or _runs_text(changes)
    write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    if subject is None:
        return []
    rivals = dict.fromkeys(options.worse, subject.difference.interval)
    return [*_check_score(name, subject.after.mean, options), *_check_rivals(name, rivals)]


def _report_text(summary: Summary) -> str:
    return report_text.format_report(summary, is_colour_welcome(), screen_width())


def _runs_text(changes: Runs) -> str:
    return report_text.format_runs(changes, is_colour_welcome(), screen_width())


def _find_interval(summary: Summary, summing: SummaryBuilder, rival: str) -> Interval:
    """Return the interval of the difference to a rival: of a comparison by its name, or of a system."""
    for contest in summary.contests:
        if contest.against == rival:
            return contest.interval
    if rival in ("best-single", "same-cost", "judge"):
        raise UsageError(f"--fail-if-worse-than {rival}: there is none in these records (the notes say why)")
    return summing.difference(rival).interval


def _check_score(name: str, score: float, options: ReportOptions) -> Iterator[str]:
    if options.fail_under is not None and score < options.fail_under:
        yield f"{name} scores {score:.4f}, under --fail-under {options.fail_under:g}"


def _check_rivals(name: str, rivals: dict[str, Interval]) -> Iterator[str]:
    for rival, (low, high) in rivals.items():
        if high < 0:
            points = f"{100 * low:+.1f} … {100 * high:+.1f} points"
            yield f"{name} is worse than {rival}: the interval of the difference lies below 0 ({points})"
