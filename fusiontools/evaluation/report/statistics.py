"""How sure a number is: intervals, exact and resampled tests, and how many tasks it takes to see a difference.

Each column is sorted first and has the draws of its own length, so that neither the order of records nor what else is
asked changes a digit. The random words are those of numpy's SFC64: of a generator of bits, and of nothing that is made
of them, numpy promises that a seed gives the same in every version and on every machine (NEP 19). Sums are of whole
numbers, so that they are exact in whichever order they are made.

Ours and not scipy's, which would weigh 100 MB for a few lines each; scipy is what the tests hold them against.

Source  Wilson 1927; Efron 1979; Bonett and Price 2012, J. Educ. Behav. Stat. 37(4), 479-488; McNemar 1947; Fisher
        1935; Holm 1979, Scand. J. Stat. 6, 65-70; Connor 1987, Biometrics 43, 207-211 (paired shares, with the step
        that the exact test loses; with the mean of the squared differences it serves scores between 0 and 1)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import NormalDist
from types import ModuleType
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError, install_line

#: How many numbers are drawn at a time: as many as a processor keeps near.
_CHUNK = 1 << 15
#: Scores and differences are resampled as whole numbers of billionths: sums of four million tasks are exact.
_UNIT = 1e-9
#: How many random bits decide which task is drawn, and which sign: of n tasks none is likelier than another by more
#: than a share of n / 2³².
_BITS_OF_TASK, _BITS_OF_SIGN = 32, 1
#: The square root of the most tasks that are told as a number.
_MOST_ROOT = 1e7
Columns = Sequence[Any]


class Draws(Struct, frozen=True):
    """How often is drawn, and from which seed."""

    seed: int = 0
    resamples: int = 2000


@cache
def load_numpy() -> ModuleType:
    """Return numpy.

    Raises:
        UsageError: it is not installed.
    """
    # Its products are small here: a second thread for them costs more to start than it saves.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        import numpy as np
    except ImportError:
        raise UsageError(f"a report resamples with numpy: {install_line('eval')}") from None
    return np


def present(scores: Any) -> Any:
    """Return the numbers among numbers and NaNs, as an array."""
    scores = load_numpy().asarray(scores, dtype=float)
    return scores[scores == scores]


def is_binary(scores: Any) -> bool:
    """Return whether every text is either right or wrong."""
    scores = load_numpy().asarray(scores)
    return bool(((scores == 0) | (scores == 1)).all())


def add_exactly(numbers: Any) -> float:
    """Return a sum that does not depend on the order of the numbers in an array."""
    return math.fsum(numbers.tolist())


def add_in_turn(total: float, numbers: Any) -> float:
    """Return a sum with the numbers of an array added one by one, so that it is the same in however many pieces."""
    np = load_numpy()
    return float(np.append(total, numbers).cumsum()[-1])


def resampled_means(columns: Columns, draws: Draws) -> list[list[float]]:
    """Return for each column the means of samples drawn from it with replacement, in ascending order."""
    np = load_numpy()
    drawn = _draw_by_length(columns, draws, _draw_samples)
    # To a billionth: what is equal but for the rounding of thirds is equal.
    return [(np.sort(sums) * (_UNIT / len(own))).round(9).tolist() for own, sums in zip(columns, drawn, strict=True)]


def draw_together(columns: Any, draws: Draws) -> Any:
    """Return by how many standard errors each mean may be above its truth: `draws × columns`, drawn for all at once.

    Every task's deviation has its sign drawn by lot, the same for all columns, so that what they share is kept.

    Args:
        columns: `tasks × columns`; one in which nothing differs is never off.
    """
    np = load_numpy()
    off = columns - columns.mean(axis=0)
    length = np.sqrt((off * off).sum(axis=0))
    off = off / np.where(length > 0, length, 1.0)
    return _draw_signs(_in_units(off), draws) * _UNIT


def _in_units(values: Any) -> Any:
    return (load_numpy().asarray(values, dtype=float) / _UNIT).round()


def _draw_by_length(columns: Columns, draws: Draws, draw: Callable[[Any, Draws], Any]) -> list[Any]:
    """Return what is drawn from each column, in units; those of one length share their draws."""
    np = load_numpy()
    places: dict[int, list[int]] = {}
    for place, column in enumerate(columns):
        places.setdefault(len(column), []).append(place)
    drawn: list[Any] = [None] * len(columns)
    for alike in places.values():
        values = _in_units(np.sort([columns[place] for place in alike])).T
        for place, own in zip(alike, draw(values, draws).T, strict=True):
            drawn[place] = own
    return drawn


def _random_words(n: int, bits: int, draws: Draws) -> Iterator[Any]:
    """Yield rows of random words of 64 bits, some at a time and in all one for each resample, always the same.

    Args:
        bits: a row has so many for each of `n` tasks, or a few more.
    """
    source = load_numpy().random.SFC64([draws.seed, bits, n])
    words = -(-n * bits // 64)
    at_once = max(1, _CHUNK // n)
    for begun in range(0, draws.resamples, at_once):
        rows = min(at_once, draws.resamples - begun)
        yield source.random_raw((rows, words)).astype("<u8", copy=False)


def _draw_samples(values: Any, draws: Draws) -> Any:
    """Return the sums of samples drawn with replacement: `draws × columns`."""
    np = load_numpy()
    n, sums = len(values), []
    for words in _random_words(n, _BITS_OF_TASK, draws):
        tasks = np.multiply(words.view("<u4")[:, :n], np.uint64(n), dtype=np.uint64)
        tasks >>= np.uint64(_BITS_OF_TASK)
        # Each sample counts in a stretch of its own, so that one count serves all of them.
        tasks += np.arange(0, tasks.size, n, dtype=np.uint64)[:, None]
        weights = np.bincount(tasks.view(np.int64).ravel(), minlength=tasks.size).reshape(tasks.shape)
        sums.append(weights.astype(np.float64) @ values)
    return np.concatenate(sums)


def _draw_signs(values: Any, draws: Draws) -> Any:
    """Return the sums with every task's sign drawn by lot: `draws × columns`."""
    np = load_numpy()
    n = len(values)
    bits = (np.unpackbits(words.view(np.uint8), axis=1, count=n) for words in _random_words(n, _BITS_OF_SIGN, draws))
    return 2 * np.concatenate([each.astype(np.float64) @ values for each in bits]) - values.sum(axis=0)


#: What lies outside an interval of 95 %, on either side.
TAIL = 0.025
Interval = tuple[float, float]
#: Two systems' scores on the same tasks.
Scores = tuple[Any, Any]


class Mean(Struct, frozen=True):
    """A mean score over tasks with its interval: Wilson's where every score is 0 or 1, else a bootstrap."""

    tasks: int
    mean: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How one system differs from another on the tasks that both were asked."""

    tasks: int
    mean: float
    wins: int
    ties: int
    losses: int
    p: float
    #: Whether every score is 0 or 1, so that `p` is McNemar's, exactly; else signs were drawn by lot.
    binary: bool
    #: The mean of the squared differences: for 0 and 1, the share of tasks on which the two differ.
    squared: float
    drawn: Sequence[float] = field(repr=False, compare=False)

    def lower(self, tail: float = TAIL) -> float:
        """Return the bound below which a share `tail` of the resampled means lies."""
        return self.drawn[_rank(tail, len(self.drawn))]

    def upper(self, tail: float = TAIL) -> float:
        """Return the bound above which a share `tail` of the resampled means lies."""
        return self.drawn[-1 - _rank(tail, len(self.drawn))]

    @property
    def interval(self) -> Interval:
        """Return the interval of 95 %."""
        return self.lower(), self.upper()


def wilson(right: float, n: int, tail: float = TAIL) -> Interval:
    """Return Wilson's score interval of a share."""
    z = NormalDist().inv_cdf(1 - tail)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def estimate(
    columns: Columns, pairs: Sequence[Scores], draws: Draws
) -> tuple[list[Mean | None], list[PairedDifference | None]]:
    """Return the mean of each column, without its NaNs, and how the two of each pair differ, task by task.

    It is None where there is nothing, and where two have no task in common. What is asked for together is drawn once
    for all that have as many tasks.
    """
    np = load_numpy()
    known = [present(column) for column in columns]
    # What is equal but for the last bits of a mean is a tie.
    differences = [present(np.subtract(*pair)).round(12) for pair in pairs]
    by_draws = [_widen(scores, _mean_of(scores), 0.5) for scores in known if len(scores) and not is_binary(scores)]
    drawn = iter(resampled_means([*by_draws, *(_widen(d, 0.0, 1.0) for d in differences if len(d))], draws))
    scored = [_make_mean(scores, drawn) if len(scores) else None for scores in known]
    tests = _test(pairs, differences, draws)
    found = [
        _make_difference(difference, p, binary, next(drawn)) if len(difference) else None
        for difference, (p, binary) in zip(differences, tests, strict=True)
    ]
    return scored, found


def means(columns: Columns, draws: Draws) -> list[Mean | None]:
    """Return the means alone, as `estimate` does."""
    return estimate(columns, (), draws)[0]


def compare_paired(pairs: Sequence[Scores], draws: Draws) -> list[PairedDifference | None]:
    """Return the differences alone, as `estimate` does."""
    return estimate((), pairs, draws)[1]


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p of so many wins and losses where either is as likely."""
    n = wins + losses
    term = total = 1
    for i in range(min(wins, losses)):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p of each: below 0.05 with a chance of 0.05 at most that any is so by luck."""
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[i]))
        adjusted[i] = highest
    return adjusted


def quantile(numbers: Any, share: float) -> float:
    """Return the smallest of the numbers that at least so large a share of them does not exceed."""
    rank = max(0, math.ceil(share * len(numbers)) - 1)
    return float(load_numpy().partition(numbers, rank)[rank])


def _test(pairs: Sequence[Scores], differences: Columns, draws: Draws) -> list[tuple[float, bool]]:
    """Return the p of each comparison, and whether it is McNemar's."""
    binary = [all(is_binary(present(scores)) for scores in pair) for pair in pairs]
    by_lot = [i for i, d in enumerate(differences) if len(d) and not binary[i]]
    sums = dict(zip(by_lot, _draw_by_length([differences[i] for i in by_lot], draws, _draw_signs), strict=True))
    return [
        (_test_by_lot(difference, sums[i]), False)
        if i in sums
        else (mcnemar(int((difference > 0).sum()), int((difference < 0).sum())), True)
        for i, difference in enumerate(differences)
    ]


def _test_by_lot(difference: Any, sums: Any) -> float:
    """Return how often signs by lot give as large a sum; the one that was seen counts among them."""
    # Thirds are off by less than a unit: what is as large but for that is as large.
    seen = abs(_in_units(difference).sum()) - len(difference)
    return float(1 + (abs(sums) >= seen).sum()) / (1 + len(sums))


def _mean_of(scores: Any) -> float:
    return add_exactly(scores) / len(scores)


def _make_mean(scores: Any, drawn: Iterator[Sequence[float]]) -> Mean:
    total = add_exactly(scores)
    mean = total / len(scores)
    if is_binary(scores):
        low, high = wilson(total, len(scores))
    else:
        ascending = next(drawn)
        rank = _rank(TAIL, len(ascending))
        low, high = ascending[rank], ascending[-1 - rank]
    return Mean(len(scores), mean, (max(0.0, min(mean, low)), min(1.0, max(mean, high))))


def _make_difference(difference: Any, p: float, binary: bool, drawn: Sequence[float]) -> PairedDifference:
    n, wins, losses = len(difference), int((difference > 0).sum()), int((difference < 0).sum())
    squared = _mean_of(difference * difference)
    return PairedDifference(n, _mean_of(difference), wins, n - wins - losses, losses, p, binary, squared, drawn)


def _widen(values: Any, middle: float, unseen: float) -> Any:
    """Return the values and an imaginary pair, as far from the middle as the farthest value is.

    A sample in which nothing differs is no proof that nothing does, and a small one has not seen the extremes: drawn
    from alone it gives intervals that are too short. Where nothing differs the pair is `unseen` away.
    """
    np = load_numpy()
    farthest = np.abs(values - middle).max() or unseen
    return np.append(values, (middle - farthest, middle + farthest))


def _rank(tail: float, n: int) -> int:
    return max(0, math.floor(tail * (n + 1)) - 1)


#: How often a difference that is there shall be seen.
POWER = 0.8
ALPHA = 0.05


def tasks_needed(difference: float, squared: float, *, binary: bool, alpha: float = ALPHA) -> int | None:
    """Return how many tasks show such a difference with a chance of 80 %; None where nobody can have so many.

    Args:
        squared: the mean of the squared differences; of 0 and 1, the share of tasks on which the two differ.
    """
    size = abs(difference)
    if size < 1e-12 or squared <= 0:
        return None
    squared = max(squared, size * size)
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(POWER)
    reach = z_alpha * math.sqrt(squared) + z_power * math.sqrt(squared - size * size)
    # n × size ≥ reach × √n + 1: the exact test needs one win more than the normal curve says.
    root = (reach + math.sqrt(reach * reach + (4 * size if binary else 0.0))) / (2 * size)
    return math.ceil(root * root - 1e-9) if root < _MOST_ROOT else None


def difference_seen(tasks: int, squared: float, *, binary: bool, alpha: float = ALPHA) -> float | None:
    """Return the smallest difference that so many tasks show with a chance of 80 %; None where none is."""
    low, high = 0.0, squared if binary else math.sqrt(squared)
    needed = tasks_needed(high, squared, binary=binary, alpha=alpha)
    if needed is None or needed > tasks:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        needed = tasks_needed(middle, squared, binary=binary, alpha=alpha)
        low, high = (middle, high) if needed is None or needed > tasks else (low, middle)
    return high
