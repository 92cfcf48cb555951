"""One system against others, or against the best of several; and one run against another of the same tasks.

Whoever is best of several on some tasks owes a part of that to the tasks: the best is said to be better than it is. To
be better than the best is to be better than every one, so the highest p of all and the lowest bound of all hold
whoever is best (Berger 1982), with nothing to correct. To be worse than the best is to be worse than any one, and that
is corrected for the number of them (Bonferroni).

Source  Berger 1982, Technometrics 24, 295-300, intersection-union test
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from fusiontools.evaluation.report.scores import ScoreTable
from fusiontools.evaluation.report.statistics import (
    ALPHA,
    TAIL,
    Draws,
    Interval,
    Mean,
    PairedDifference,
    difference_seen,
    estimate,
    holm,
    tasks_needed,
)
from fusiontools.evaluation.report.systems import ORACLE

Verdict = Literal["better", "worse", "cannot tell"]


class Contest(Struct, frozen=True):
    """A comparison that is shown; `rival` is the best of `rivals` on these tasks."""

    against: str
    rival: str
    rivals: dict[str, PairedDifference]
    interval: Interval
    p: float
    p_holm: float = 1.0
    #: How many comparisons are shown, this one among them.
    shown: int = 1

    @property
    def pair(self) -> PairedDifference:
        """Return the comparison with the best of the rivals."""
        return self.rivals[self.rival]

    @property
    def verdict(self) -> Verdict:
        """Return what can be said, after the correction for all that is shown."""
        if self.p_holm >= ALPHA:
            return "cannot tell"
        return "better" if self.pair.mean > 0 else "worse"

    @property
    def tasks_needed(self) -> int | None:
        """Return how many tasks would show this difference, 4 times of 5."""
        pair = self.pair
        return tasks_needed(pair.mean, pair.squared, binary=pair.binary, alpha=ALPHA / self.shown)

    @property
    def difference_seen(self) -> float | None:
        """Return which difference this many tasks would have shown, 4 times of 5."""
        pair = self.pair
        return difference_seen(pair.tasks, pair.squared, binary=pair.binary, alpha=ALPHA / self.shown)


def compare_with_best(against: str, rivals: dict[str, PairedDifference]) -> Contest:
    """Compare with the best of some systems."""
    rival = min(sorted(rivals), key=lambda name: rivals[name].mean)
    pairs = list(rivals.values())
    lower = min(pair.lower() for pair in pairs)
    upper = min(pair.upper(TAIL / len(pairs)) for pair in pairs)
    return Contest(against, rival, rivals, (lower, upper), _find_p(pairs))


def correct_for_number(contests: Sequence[Contest]) -> list[Contest]:
    """Return the comparisons with their p corrected for the number of them."""
    adjusted = holm([each.p for each in contests])
    return [
        Contest(c.against, c.rival, c.rivals, c.interval, c.p, p_holm, len(contests))
        for c, p_holm in zip(contests, adjusted, strict=True)
    ]


def _find_p(pairs: Sequence[PairedDifference]) -> float:
    worse = [pair.p for pair in pairs if pair.mean < 0]
    return min(1.0, len(pairs) * min(worse)) if worse else max(pair.p for pair in pairs)


class Changed(Struct, frozen=True):
    """A system in both runs, on the tasks that stand in both; the difference is the second's minus the first's."""

    name: str
    before: Mean
    after: Mean
    difference: PairedDifference
    p_holm: float


class Runs(Struct, frozen=True):
    """What changed between two runs."""

    tasks: int
    #: How many tasks stand in the first only, and in the second only.
    alone: tuple[int, int]
    systems: list[Changed]
    #: Systems of one run only.
    gone: list[str]
    new: list[str]


def compare_runs(before: ScoreTable, after: ScoreTable, draws: Draws) -> Runs:
    """Compare every system that both runs have, task by task; p is corrected for the number of them."""
    places = [{task: i for i, task in enumerate(run.tasks)} for run in (before, after)]
    common = sorted(places[0].keys() & places[1].keys())
    systems = [
        {name: system for system, name in run.labels().items() if not system.votes and system != ORACLE}
        for run in (before, after)
    ]
    names = [name for name in systems[0] if name in systems[1]]
    columns = []
    for run, of_run, places_of in zip((before, after), systems, places, strict=True):
        scores = [run.of_tasks(of_run[name]) for name in names]
        rows = [places_of[task] for task in common]
        columns.append([column[rows] for column in scores])
    scored, pairs = estimate([*columns[0], *columns[1]], [(b, a) for a, b in zip(*columns, strict=True)], draws)
    found = [
        (name, a, b, pair)
        for name, a, b, pair in zip(names, scored[: len(names)], scored[len(names) :], pairs, strict=True)
        if a is not None and b is not None and pair is not None
    ]
    adjusted = holm([pair.p for *_, pair in found])
    return Runs(
        tasks=len(common),
        alone=(len(before.tasks) - len(common), len(after.tasks) - len(common)),
        systems=[Changed(*each, p) for each, p in zip(found, adjusted, strict=True)],
        gone=sorted(systems[0].keys() - systems[1].keys()),
        new=sorted(systems[1].keys() - systems[0].keys()),
    )
