"""One run of `fuse-calibrate`; apart from `calibrate.py`, whose `--help` needs nothing of it."""

from __future__ import annotations

import math
import signal
import textwrap
from collections.abc import Sequence
from typing import Any

from fusiontools.cli.command import complain, leave
from fusiontools.cli.io import Flood, is_colour_welcome, write_or_leave, write_whole
from fusiontools.cli.report_text import bar, points, span
from fusiontools.cli.table import screen_width, table_text
from fusiontools.config.evaluation_options import CalibrateOptions
from fusiontools.config.recipe import read_section
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import (
    EXIT_CONDITION,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    InputError,
    UsageError,
)
from fusiontools.evaluation.calibrate import NEVER, Calibration
from fusiontools.evaluation.report.statistics import wilson
from fusiontools.record import jsonl
from fusiontools.record.types import Record
from fusiontools.stages.threshold import Threshold

_TOOL = "fuse-calibrate"
_WIDTH = 100


async def run(files: Sequence[str], config: str | None, options: CalibrateOptions) -> int:
    """Fit and return the exit status."""
    from fusiontools.cli.tune_run import read_graded

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: leave(EXIT_INTERRUPTED))
    own = load_recipe(config).vote if config else None
    calibration, flood, unread = Calibration(), Flood(_TOOL), 0
    for path in options.apart_from:
        async for place, record, problem in read_graded(_TOOL, [path], options.max_line_mib):
            if record is None:
                raise UsageError(f"--apart-from {place}: {problem}")
            calibration.keep_apart(record)
    async for place, record, problem in read_graded(_TOOL, files, options.max_line_mib):
        if record is None:
            flood.say(place, problem)
            unread += 1
            continue
        try:
            calibration.add(record, _vote_options(record, own, options.weighing))
        except InputError as error:
            flood.say(place, error.message)
            unread += 1
    flood.sum_up()
    if not calibration.votes:
        complain(_TOOL, _why_nothing(calibration))
        return EXIT_NOTHING_USABLE
    threshold = calibration.fit(options.risk, options.of, options.confidence)  # type: ignore[arg-type]
    return _tell(calibration, threshold, options, unread)


def _vote_options(record: Record, own: VoteOptions | None, weighing: str | None) -> VoteOptions:
    """Return how a record's votes are counted: as the recipe that was named says, else as its own."""
    if own is None:
        carried: Any = record.get("recipe") or {}
        own = read_section("vote", carried.get("vote", {}), limited=False)  # type: ignore[assignment]
    assert own is not None  # noqa: S101 - it is read from the record
    if weighing is not None:
        own = own.replace(weighing=weighing)
    if own.weighing == "learned" and not own.learned:
        raise UsageError("--weights learned: there are none; give the recipe that fuse-tune wrote with -c")
    return own


def _why_nothing(calibration: Calibration) -> str:
    if not calibration.records:
        return "nothing came in: no records"
    if calibration.apart:
        return "every record stands in the file of --apart-from, too: nothing is left to fit on"
    return "no record has a graded panel; `fuse-grade` makes it: fuse-panel | fuse-vote | fuse-grade | fuse-calibrate"


def _tell(calibration: Calibration, threshold: Threshold, options: CalibrateOptions, unread: int) -> int:
    if options.plot:
        from fusiontools.evaluation.report.plot import draw_calibration

        draw_calibration(calibration.parts(), threshold.agreement, options.plot)
    if options.output:
        write_whole(options.output, threshold.as_bytes())
    text = _as_json(calibration, threshold) if options.as_json else _as_text(calibration, threshold)
    write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    if threshold.agreement >= NEVER:
        complain(_TOOL, _why_never(threshold))
        return EXIT_CONDITION
    return EXIT_SOME_FAILED if unread else EXIT_OK


def _why_never(threshold: Threshold) -> str:
    """Return why nothing would be answered, and what it would take."""
    if threshold.of == "asked" and (least := _least_questions(threshold.risk)) > threshold.questions:
        return f"not enough records to tell: a risk of {threshold.risk:g} takes {least} questions at least"
    return "no threshold keeps to this risk: even where all agree, too many are wrong, or too few are graded to tell"


def _least_questions(risk: float) -> int:
    """Return how many questions it takes where none is answered wrongly."""
    return math.ceil(1 / risk - 1e-9) - 1


def _as_text(calibration: Calibration, threshold: Threshold) -> str:
    count = threshold.questions
    rows = []
    for part in calibration.parts():
        mark = "answered" if part.high >= threshold.agreement - 1e-9 else ""
        right = [points(part.score, signed=False), bar(part.interval), span(part.interval, signed=False)]
        rows.append([f"{100 * part.low:.0f}-{100 * part.high:.0f}", f"{part.votes:,}", *right, mark])
    head = ["agree, %", "votes", "right", "", "95 %", ""]
    table = table_text(head, rows, left={3, 5}, colour=is_colour_welcome(), width=screen_width())
    answered = span(wilson(threshold.answered * count, count), signed=False)
    if threshold.agreement >= NEVER:
        said = ["Nothing is answered."]
    else:
        share = points(threshold.answered, signed=False)
        said = [
            f"Answer where {100 * threshold.agreement:.4g} % of the panel agree: {share} % of the questions "
            f"({answered}), {100 * threshold.wrong:.2g} % of {'all' if threshold.of == 'asked' else 'the answers'} "
            "wrong here."
        ]
    sure = "on average" if threshold.confidence is None else f"with a confidence of {threshold.confidence:g}"
    of = "questions asked" if threshold.of == "asked" else "questions answered"
    said.append(
        f"Of the {of}, at most {100 * threshold.risk:g} % are answered wrongly, {sure}, as long as they are like these "
        f"{count:,}, which chose nothing else; for one question it promises nothing."
    )
    for number, why in (
        (calibration.unused, "without a graded panel: left out."),
        (calibration.apart, "that stand in the file of --apart-from, too: left out."),
    ):
        if number:
            said.append(f"Note: {number:,} record{'s' * (number > 1)} {why}")
    return table + "\n" + "".join(textwrap.fill(each, _WIDTH, subsequent_indent="  ") + "\n" for each in said)


def _as_json(calibration: Calibration, threshold: Threshold) -> str:
    low, high = wilson(threshold.answered * threshold.questions, threshold.questions)
    data = jsonl.loads(threshold.as_bytes()) | {
        "answered_low": low,
        "answered_high": high,
        "left_out": calibration.unused,
        "apart": calibration.apart,
        "calibration": [
            {
                "low": part.low,
                "high": part.high,
                "votes": part.votes,
                "agreement": part.agreement,
                "score": part.score,
                "score_low": part.interval[0],
                "score_high": part.interval[1],
            }
            for part in calibration.parts()
        ],
    }
    return jsonl.dumps(data).decode() + "\n"
