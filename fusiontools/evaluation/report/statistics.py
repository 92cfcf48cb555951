"""How sure a number is: intervals, exact and resampled tests, and how many tasks it takes to see a difference.

Each column is sorted first and has the draws of its own length, so that neither the order of records nor what else is
asked changes a digit. The random numbers are Python's, whose stream no version of numpy changes; numpy does the sums.

Ours and not scipy's, which would weigh 100 MB for a few lines each; scipy is what the tests hold them against.

Source  Wilson 1927; Efron 1979; Bonett and Price 2012, J. Educ. Behav. Stat. 37(4), 479-488; McNemar 1947; Fisher
        1935; Holm 1979, Scand. J. Stat. 6, 65-70; Connor 1987, Biometrics 43, 207-211 (paired shares, with the step
        that the exact test loses; with the mean of the squared differences it serves scores between 0 and 1)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from types import ModuleType
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError, install_line

#: How many numbers are drawn at a time: as many as a processor keeps near.
_CHUNK = 1 << 17
Columns = Sequence[Any]


class Draws(Struct, frozen=True):
    """How often is drawn, and from which seed."""

    seed: int = 0
    resamples: int = 2000


def load_numpy() -> ModuleType:
    """Return numpy.

    Raises:
        UsageError: it is not installed.
    """
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
    return [sorted(means) for means in _draw_by_length(columns, draws, _draw_means)]


def signed_sums(columns: Columns, draws: Draws) -> list[list[float]]:
    """Return for each column its sums with every sign drawn by lot."""
    return _draw_by_length(columns, draws, _draw_sums)


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
    return np.concatenate(list(_draw_sums(off, draws)))


def _draw_by_length(columns: Columns, draws: Draws, draw: Callable[[Any, Draws], Iterator[Any]]) -> list[list[float]]:
    """Return what is drawn from each column; those of one length share their draws."""
    np = load_numpy()
    places: dict[int, list[int]] = {}
    for place, column in enumerate(columns):
        places.setdefault(len(column), []).append(place)
    drawn: list[list[float]] = [[] for _ in columns]
    for alike in places.values():
        values = np.sort(np.array([columns[place] for place in alike], dtype=np.float64)).T
        # The last bits depend on how the sum was made.
        numbers = np.concatenate(list(draw(values, draws))).round(12).T.tolist()
        for place, own in zip(alike, numbers, strict=True):
            drawn[place] = own
    return drawn


def _random_words(kind: str, n: int, size: int, draws: Draws) -> Iterator[tuple[int, Any]]:
    """Yield random words of 32 bits for some resamples at a time, always the same; `size` bytes for each, or more."""
    np = load_numpy()
    # Python says where the stream begins, and numpy goes on with it: both are the Mersenne Twister, and their words are
    # the same, at a quarter of the time.
    _, state, _ = random.Random(f"{draws.seed} {kind} {n}").getstate()  # noqa: S311 - statistics, no secret
    source = np.random.RandomState()
    source.set_state(("MT19937", state[:-1], state[-1]))
    words = -(-size // 4)
    at_once = max(1, _CHUNK // size)
    for begun in range(0, draws.resamples, at_once):
        count = min(at_once, draws.resamples - begun)
        yield count, source.randint(0, 1 << 32, words * count, dtype=np.uint32)


def _draw_means(values: Any, draws: Draws) -> Iterator[Any]:
    """Yield the means of resamples, a row for each."""
    np = load_numpy()
    n = len(values)
    for count, drawn in _random_words("bootstrap", n, 4 * n, draws):
        # Each resample counts in a stretch of its own, so that one count serves all of them.
        places = drawn.astype(np.int64).reshape(count, n)
        places *= n
        places >>= 32
        places += np.arange(count)[:, None] * n
        weights = np.bincount(places.ravel(), minlength=count * n).reshape(count, n)
        yield weights.astype(np.float64) @ values / n


def _draw_sums(values: Any, draws: Draws) -> Iterator[Any]:
    """Yield sums with signs by lot, a row for each draw."""
    np = load_numpy()
    n = len(values)
    for count, drawn in _random_words("signs", n, n, draws):
        bits = (drawn.astype("<u4", copy=False).view(np.uint8) & 1).reshape(count, -1)[:, :n]
        yield 2 * (bits.astype(np.float64) @ values) - values.sum(axis=0)


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


def means(columns: Columns, draws: Draws) -> list[Mean | None]:
    """Return the mean of each column, without its NaNs; None where nothing else is in it."""
    known = [present(column) for column in columns]
    by_draws = [i for i, scores in enumerate(known) if len(scores) and not is_binary(scores)]
    drawn = resampled_means([_widen(known[i], add_exactly(known[i]) / len(known[i]), 0.5) for i in by_draws], draws)
    intervals = {i: (m[_rank(TAIL, len(m))], m[-1 - _rank(TAIL, len(m))]) for i, m in zip(by_draws, drawn, strict=True)}
    found: list[Mean | None] = []
    for i, scores in enumerate(known):
        if not len(scores):
            found.append(None)
            continue
        total = add_exactly(scores)
        interval = intervals[i] if i in intervals else wilson(total, len(scores))
        mean = total / len(scores)
        found.append(Mean(len(scores), mean, (max(0.0, min(mean, interval[0])), min(1.0, max(mean, interval[1])))))
    return found


def compare_paired(pairs: Sequence[Scores], draws: Draws) -> list[PairedDifference | None]:
    """Compare systems task by task; None where two have no task in common."""
    # What is equal but for the last bits of a mean is a tie.
    np = load_numpy()
    differences = [present(np.subtract(*pair)).round(12) for pair in pairs]
    widened = resampled_means([_widen(d, 0.0, 1.0) for d in differences if len(d)], draws)
    tests = _test(pairs, differences, draws)
    found: list[PairedDifference | None] = []
    drawn = iter(widened)
    for difference, (p, binary) in zip(differences, tests, strict=True):
        found.append(_make_difference(difference, p, binary, next(drawn)) if len(difference) else None)
    return found


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


def quantile(numbers: Sequence[float], share: float) -> float:
    """Return the smallest of the numbers that at least so large a share of them does not exceed."""
    ordered = sorted(numbers)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _test(pairs: Sequence[Scores], differences: Columns, draws: Draws) -> list[tuple[float, bool]]:
    """Return the p of each comparison, and whether it is McNemar's."""
    binary = [all(is_binary(present(scores)) for scores in pair) for pair in pairs]
    by_lot = [i for i, d in enumerate(differences) if len(d) and not binary[i]]
    sums = dict(zip(by_lot, signed_sums([differences[i] for i in by_lot], draws), strict=True))
    return [
        (_test_by_lot(difference, sums[i]), False)
        if i in sums
        else (mcnemar(int((difference > 0).sum()), int((difference < 0).sum())), True)
        for i, difference in enumerate(differences)
    ]


def _test_by_lot(difference: Any, sums: Sequence[float]) -> float:
    """Return how often signs by lot give as large a sum; the one that was seen counts among them."""
    seen = abs(add_exactly(difference)) - 1e-9
    return (1 + sum(abs(drawn) >= seen for drawn in sums)) / (1 + len(sums))


def _make_difference(difference: Any, p: float, binary: bool, drawn: Sequence[float]) -> PairedDifference:
    n, wins, losses = len(difference), int((difference > 0).sum()), int((difference < 0).sum())
    squared = add_exactly(difference * difference) / n
    return PairedDifference(n, add_exactly(difference) / n, wins, n - wins - losses, losses, p, binary, squared, drawn)


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
    """Return how many tasks show such a difference with a chance of 80 %; None where there is none to show.

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
    return math.ceil(root * root - 1e-9)


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
