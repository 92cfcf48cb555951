"""One run of `fuse-tune`; apart from `tune.py`, whose `--help` needs nothing of it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fusiontools.cli import tune_text
from fusiontools.cli.command import collect_less, complain, leave
from fusiontools.cli.io import Flood, Input, is_colour_welcome, write_or_leave, write_whole
from fusiontools.cli.table import screen_width
from fusiontools.config.evaluation_options import TuneOptions
from fusiontools.config.recipe_yaml import build_recipe, recipe_data, recipe_text
from fusiontools.errors import (
    EXIT_CONDITION,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    InputError,
    UsageError,
)
from fusiontools.evaluation.report.statistics import Draws, load_numpy
from fusiontools.evaluation.tune.explain import explain
from fusiontools.evaluation.tune.panels import PanelReader, Panels
from fusiontools.evaluation.tune.selection import LEAST_QUESTIONS, Rule, Tuner, Tuning
from fusiontools.evaluation.tune.tuned_recipe import how_asked, recipe_of, route_table_of
from fusiontools.record import jsonl
from fusiontools.record.types import Record
from fusiontools.stages.route_table import write_route_table

_TOOL = "fuse-tune"


async def run(files: Sequence[str], config: str | None, options: TuneOptions) -> int:
    """Tune and return the exit status."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Not the loop's own handler: that one would wait until the numbers are there.
        signal.signal(signal.SIGINT, lambda *_: leave(EXIT_INTERRUPTED))
    load_numpy()
    collect_less()
    base = recipe_data(config) if config else {}
    reader, flood = PanelReader(), Flood(_TOOL)
    unread = 0
    async for place, record, problem in read_graded(_TOOL, files, options.max_line_mib):
        if record is None:
            flood.say(place, problem)
            unread += 1
        else:
            reader.add(record)
    flood.sum_up()
    if why := _find_nothing(reader):
        complain(_TOOL, why)
        return EXIT_NOTHING_USABLE
    panels = reader.finish()
    if panels.groups < LEAST_QUESTIONS:
        complain(
            _TOOL,
            f"not enough records to tell: {panels.groups} different questions, and {LEAST_QUESTIONS} are the least "
            "that can be split; a few hundred show a difference of some points",
        )
        return EXIT_NOTHING_USABLE
    status = _tune(panels, reader, options, base)
    return status if status != EXIT_OK or not unread else EXIT_SOME_FAILED


async def read_graded(
    tool: str, files: Sequence[str], max_line_mib: float
) -> AsyncIterator[tuple[str, Record | None, str]]:
    """Yield each line's place, and its record or why there is none."""
    if (not files or "-" in files) and os.isatty(0):
        complain(tool, "reads graded records on stdin; press Ctrl-D to end (--help explains)")
    async for batch in Input(files, "jsonl", int(max_line_mib * 2**20)).batches():
        for line in batch:
            try:
                if line.problem:
                    raise InputError(line.problem)
                yield line.place, jsonl.parse(line.data), ""
            except InputError as error:
                yield line.place, None, error.message


def _find_nothing(reader: PanelReader) -> str | None:
    """Return why there is nothing to learn from."""
    if not reader.records:
        return "nothing came in: no records"
    if reader.records == reader.failed + reader.ungraded:
        return "no record has grades; `fuse-grade` makes them: fuse-grade < answers.jsonl | fuse-tune"
    return None


def _tune(panels: Panels, reader: PanelReader, options: TuneOptions, base: dict[str, Any]) -> int:
    if options.max_cost_usd is not None and not panels.priced:
        raise UsageError("--max-cost-usd: not every price is known in these records, or all of them are 0")
    tuner = Tuner(panels, Draws(options.seed, options.resamples))
    usd, seconds = options.max_cost_usd, options.max_latency_s
    rule = Rule(
        max_cost=math.inf if usd is None else usd,
        max_latency_s=math.inf if seconds is None else seconds,
        min_score=options.min_score,
    )
    tuning = tuner.tune(rule)
    parts = explain(tuner) if options.explain else []
    notes = tune_text.notes_of(panels, tuning, reader.failed, reader.ungraded)
    if options.plot:
        from fusiontools.evaluation.report.plot import draw_front

        draw_front(tune_text.front_marks(panels, tuning), panels.priced, options.plot)
    if options.output and tuning.reached:
        _write(panels, tuner, tuning, options, base)
    if options.as_json:
        text = jsonl.dumps(tune_text.as_data(panels, tuning, parts, notes)).decode() + "\n"
    else:
        text = tune_text.format_tuning(panels, tuning, parts, notes, is_colour_welcome(), screen_width())
    write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    if not tuning.reached:
        complain(
            _TOOL, f"nothing keeps to the limits; the nearest is {tuning.chosen.way.label}, and no recipe is written"
        )
        return EXIT_CONDITION
    return EXIT_OK


def _write(panels: Panels, tuner: Tuner, tuning: Tuning, options: TuneOptions, base: dict[str, Any]) -> None:
    """Write the recipe, and the routes where it has any."""
    assert options.output is not None  # noqa: S101 - asked only where it is wanted
    asked, chosen = how_asked(panels), tuning.chosen
    table = options.table or f"{Path(options.output).with_suffix('')}.routes.json"
    data = recipe_of(panels, chosen, asked, base, tuner.weights_for(chosen), table)
    build_recipe(data, options.output, "tuned")
    # The recipe last: it names no table that is not there.
    if chosen.way.how == "routed":
        write_whole(table, write_route_table(route_table_of(panels, chosen, asked)))
    write_whole(options.output, recipe_text(data, tune_text.comments_of(panels, tuning)).encode())
