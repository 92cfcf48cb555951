"""Count votes by key: exact weights, and one rule for a tie."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from fractions import Fraction

from msgspec import Struct


class Tally(Struct, frozen=True):
    """How a vote went; positions are those in the given sequence."""

    key: str
    #: The position of the text that stands for the winner: the most confident, else the earliest.
    winner: int
    votes: float
    #: The weight of all that voted.
    of: float
    #: The votes of each key, most first.
    counts: dict[str, float]
    abstained: list[int]
    #: What broke a tie: `confidence` or `order`; None where there was none.
    tie: str | None


def count_votes(
    keys: Sequence[str | None],
    weights: Sequence[float] | None = None,
    confidence: Sequence[float | None] | None = None,
) -> Tally | None:
    """Count the votes; None where nobody voted.

    A tie goes to the key whose voters have the highest mean confidence, where it is known for all that are tied, else
    to the key that was voted for first. Weights are added exactly: ten times 0.1 ties with 1. A weight of 0 silences.
    """
    # Whole votes are counted as such: fractions take five times as long.
    worth: list[Fraction | int] = [1] * len(keys) if weights is None else [_exactly(each) for each in weights]
    sure = list(confidence) if confidence is not None else [None] * len(keys)
    voters: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        if key and worth[position]:
            voters.setdefault(key, []).append(position)
    if not voters:
        return None
    counts: dict[str, Fraction | int] = {key: sum(worth[at] for at in voters[key]) for key in voters}
    most = max(counts.values())
    winner, tie = _winner({key: voters[key] for key in voters if counts[key] == most}, sure)
    return Tally(
        key=winner,
        winner=max(voters[winner], key=lambda position: (_sureness(sure[position]), -position)),
        votes=_float(most),
        of=_float(sum(counts.values())),
        counts={key: _float(counts[key]) for key in sorted(voters, key=lambda key: -counts[key])},
        abstained=[position for position, key in enumerate(keys) if not key],
        tie=tie,
    )


def _winner(tied: dict[str, list[int]], sure: Sequence[float | None]) -> tuple[str, str | None]:
    """Return which of the tied keys wins, and by which rule."""
    if len(tied) == 1:
        return next(iter(tied)), None
    means = {key: sum(_sureness(sure[at]) for at in positions) / len(positions) for key, positions in tied.items()}
    highest = max(means.values())
    surest = [key for key in tied if means[key] == highest]
    if min(means.values()) == -math.inf:
        return next(iter(tied)), "order"
    return surest[0], "confidence" if len(surest) == 1 else "order"


def _sureness(confidence: float | None) -> float:
    """Return a confidence that can be compared: below all others where it is unknown."""
    return confidence if confidence is not None and math.isfinite(confidence) else -math.inf


def _exactly(weight: float) -> Fraction:
    return Fraction(str(weight)) if 0 < weight < math.inf else Fraction(0)


def _float(votes: Fraction | int) -> float:
    """Return votes as a number; what is too many for one is the largest there is."""
    try:
        return float(votes)
    except OverflowError:
        return sys.float_info.max
