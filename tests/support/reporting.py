"""Reports of graded records, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from graded import World, record, run_of, scored

from fusiontools.cli.report_export import as_data
from fusiontools.evaluation.report.scores import ScoreTable
from fusiontools.evaluation.report.statistics import Draws
from fusiontools.evaluation.report.summary import Summary, SummaryBuilder
from fusiontools.record import jsonl

FEW = Draws(resamples=200)


def read(records: Iterable[Any], **more: Any) -> ScoreTable:
    gathered = ScoreTable(**more)
    for each in records:
        gathered.add(jsonl.parse(json.dumps(each).encode()))
    gathered.finish()
    return gathered


def summed(records: Iterable[Any], subject: str | None = None) -> Summary:
    return SummaryBuilder(read(records), subject, FEW).build()


def data(records: Iterable[Any], subject: str | None = None) -> dict[str, Any]:
    return as_data(summed(records, subject))


def system(found: dict[str, Any], name: str) -> dict[str, Any]:
    [row] = [row for row in found["systems"] if row["system"] == name]
    return row


def comparison(found: dict[str, Any], against: str) -> dict[str, Any]:
    [row] = [row for row in found["comparisons"] if row["against"] == against]
    return row


MIXED = [
    *run_of(World(mended=0.2), 20),
    *(scored(f"x{i}", 0.5, a=0.25 * (i % 4), d=0.1) for i in range(6)),
    record("z", []),
]
AS_READ = data(MIXED)
