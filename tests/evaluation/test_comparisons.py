"""One system against the best of several, without paying for the choice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from graded import World
from paired import FEW, as_scores, pair, rate

from fusiontools.evaluation.report.comparisons import compare_with_best, correct_for_number
from fusiontools.evaluation.report.statistics import (
    compare_paired,
    mcnemar,
)


def against_all(fused: Sequence[bool], members: dict[str, list[bool]]) -> tuple[float, float, float]:
    pairs = compare_paired([(as_scores(fused), as_scores(each)) for each in members.values()], FEW)
    [found] = correct_for_number(
        [compare_with_best("best-single", {n: p for n, p in zip(members, pairs, strict=True) if p})]
    )
    return found.p, *found.interval


def test_better_than_the_best_is_better_than_every_one_and_worse_is_worse_than_any() -> None:
    fused = [True] * 12 + [False] * 4
    members = {"good": [True] * 11 + [False] * 5, "bad": [False] * 16}
    ps = {name: pair(as_scores(fused), as_scores(each)).p for name, each in members.items()}
    awful = [False] * 16

    better, *_ = against_all(fused, members)
    worse, *_ = against_all(awful, members)

    assert better == ps["good"] == max(ps.values())
    assert worse == 2 * pair(as_scores(awful), as_scores(members["good"])).p


@pytest.mark.slow
def test_the_choice_of_the_best_finds_nothing_where_nothing_is() -> None:
    """Twelve members and a fusion, all of the same skill: whoever leads does so by luck."""
    world = World({f"m{i}": 0.5 for i in range(13)}, together=0.0)
    rng = random.Random(17)
    naive, honest, covered = [], [], []
    for _ in range(300):
        _, members = world.draw(150, rng)
        fused = members.pop("m0")
        best = max(members.values(), key=sum)
        wins, losses = (sum(x > y for x, y in zip(*two, strict=True)) for two in ((fused, best), (best, fused)))
        naive.append(mcnemar(wins, losses) < 0.05)
        p, low, high = against_all(fused, members)
        honest.append(p < 0.05)
        covered.append(low <= 0 <= high)

    level = 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(honest))
    assert rate(honest) <= level < rate(naive)
    assert rate(covered) >= 0.95
