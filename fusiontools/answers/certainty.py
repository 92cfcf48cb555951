"""How sure it is that the answer with the most votes is the one that a model gives most often.

The rule is Adaptive-Consistency's: of the two leading answers with `first` and `second` votes, the share of `first` is
drawn from a Beta(first + 1, second + 1), which supposes a uniform prior, and the probability is that of a share above
one half. Averaged over that prior it holds whenever one looks; for a question on which two answers are nearly as
frequent, looking after each vote errs more often. It speaks of what is answered most, and not of what is right.

Source  Aggarwal et al. 2023, Adaptive-Consistency, arXiv:2305.11860, section 3
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice


def mode_probability(first: int, second: int) -> float:
    """Return the probability that an answer with `first` votes is more frequent than one with `second`."""
    if first < second:
        return 1 - mode_probability(second, first)
    return next(islice(_probabilities(second), first - second, None))


@lru_cache(maxsize=4096)
def votes_to_be_sure(second: int, until: float) -> int:
    """Return how many votes the leading answer must have, where the next one has `second`, for this probability.

    Args:
        until: at least 0.5, below 1; a tie is never sure.
    """
    probabilities = enumerate(_probabilities(second), start=second)
    next(probabilities)
    return next(first for first, probability in probabilities if probability >= until)


def leading(keys: Sequence[str | None]) -> tuple[int, int]:
    """Return the votes of the two answers with the most; an abstention is no vote."""
    if not keys:
        return 0, 0
    first, second = sorted([*Counter(key for key in keys if key is not None).values(), 0, 0], reverse=True)[:2]
    return first, second


def still_needed(votes: tuple[int, int], until: float) -> int:
    """Return how many further votes make sure at the earliest; 0 where it is sure."""
    first, second = votes
    return max(0, votes_to_be_sure(second, until) - first)


def _probabilities(second: int) -> Iterator[float]:
    """Yield the probability for as many votes as the next answer has, for one more, and so on.

    It is the chance that of first + second + 1 tosses of a coin at most `first` are heads: for one vote more it grows
    by one term of the binomial distribution.
    """
    probability, first = 0.5, second
    tosses = 2 * second + 1
    term = math.comb(tosses, second + 1) / 2 ** (tosses + 1)
    while True:
        yield probability
        probability += term
        first += 1
        term *= (first + second + 1) / (2 * (first + 1))
