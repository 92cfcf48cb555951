"""Scores of two systems on the same tasks, compared."""

from __future__ import annotations

from collections.abc import Sequence

from fusiontools.evaluation.report.statistics import (
    Draws,
    PairedDifference,
    compare_paired,
)

FEW = Draws(seed=1, resamples=400)


def pair(a: Sequence[float], b: Sequence[float], draws: Draws = FEW) -> PairedDifference:
    [found] = compare_paired([(a, b)], draws)
    assert found is not None
    return found


def as_scores(right: Sequence[bool]) -> list[float]:
    return [float(each) for each in right]


def rate(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)
