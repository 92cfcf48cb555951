"""A rubric as numbers: weighted criteria, and the score that verdicts on them come to.

Source  DRACO, Zhong et al. 2026, arXiv:2602.11685:
        raw = sum of weight·[met], score = clamp(raw / sum of max(0, weight), 0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from msgspec import Struct

from fusiontools.errors import StageFailed


class Criterion(Struct, frozen=True):
    """One thing that a text shall do; with a negative weight, one that it shall not."""

    text: str
    weight: float
    category: str | None = None


def read_rubric(rubric: Any) -> tuple[Criterion, ...]:
    """Read `meta.rubric`.

    Raises:
        StageFailed: `no_target` where there is none, `bad_task` where it is none.
    """
    if not rubric:
        raise StageFailed("no_target", "the task has no `meta.rubric` to hold the texts against")
    if not isinstance(rubric, Sequence) or isinstance(rubric, str):
        raise StageFailed("bad_task", "meta.rubric: a list of criteria is wanted")
    criteria = tuple(_read_criterion(number, one) for number, one in enumerate(rubric))
    if not any(criterion.weight > 0 for criterion in criteria):
        raise StageFailed("bad_task", "meta.rubric: no criterion has a positive weight, so nothing can be earned")
    return criteria


def _read_criterion(number: int, data: Any) -> Criterion:
    where = f"meta.rubric[{number}]"
    if not isinstance(data, Mapping) or not isinstance(data.get("criterion"), str) or not data["criterion"].strip():
        raise StageFailed("bad_task", f"{where}: `criterion` says in text what is wanted")
    weight = data.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise StageFailed("bad_task", f"{where}.weight: a number is wanted, this is {weight!r}")
    category = data.get("category")
    return Criterion(data["criterion"], weight, category if isinstance(category, str) else None)


def score(criteria: Sequence[Criterion], met: Sequence[float]) -> float:
    """Return the score of one run.

    Args:
        met: of each criterion whether it is met: 1 or 0, or between them where several verdicts stand in for one.
    """
    raw = math.fsum(criterion.weight * share for criterion, share in zip(criteria, met, strict=True))
    whole = math.fsum(max(0.0, criterion.weight) for criterion in criteria)
    return min(1.0, max(0.0, raw / whole))


def runs_of(criteria: Sequence[Criterion], verdicts: Sequence[Sequence[bool | None]]) -> list[float]:
    """Return the score of each run.

    Args:
        verdicts: for each criterion one verdict of each run; None where there is none.

    A verdict that is missing is taken from the other runs; where none has one, the criterion counts against the text.
    """
    filled = []
    for criterion, given in zip(criteria, verdicts, strict=True):
        known = [float(verdict) for verdict in given if verdict is not None]
        instead = fmean(known) if known else float(criterion.weight < 0)
        filled.append([instead if verdict is None else float(verdict) for verdict in given])
    return [score(criteria, run) for run in zip(*filled, strict=True)]
