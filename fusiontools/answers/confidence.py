"""What responses count by how sure their models were, and which are left out of a vote as the least sure.

Log probabilities are compared within a member only: what is much for one model is little for another, whose tokens are
cut otherwise. So each response counts `exp(mean_logprob)`, the probability of its tokens on a geometric average, over
the mean of that over its member's responses: a member counts as much as without, and of its samples the surer one more.
A response of which nothing is known counts 1, which is its member's average, and is never left out.

Source  Wang et al. 2022, self-consistency, arXiv:2203.11171, equation 1 (the weight, normalized by length); Fu et al.
        2025, DeepConf, arXiv:2508.15260 (leaving out the share whose lowest group confidence is lowest)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Digits of a weight: machines differ in the last digits of an exponential, and a record must not.
_DIGITS = 6


def weigh_by_confidence(members: Sequence[str], logprobs: Sequence[float | None]) -> list[float]:
    """Return what each response counts.

    Args:
        members: who gave it.
        logprobs: its `mean_logprob`, None where it has none.
    """
    weights = [1.0] * len(members)
    for own in _known_of_members(members, logprobs).values():
        highest = max(value for _, value in own)
        # Over the highest, so that nothing comes to 0 over 0.
        shares = [math.exp(value - highest) for _, value in own]
        mean = math.fsum(shares) / len(shares)
        for (at, _), share in zip(own, shares, strict=True):
            weights[at] = round(share / mean, _DIGITS)
    return weights


def find_least_confident(members: Sequence[str], windows: Sequence[float | None], share: float) -> list[int]:
    """Return the positions of this share of each member's responses, rounded down: those least sure, in order.

    Args:
        members: who gave each response.
        windows: its `lowest_window_logprob`, None where it has none; of equals the later one is left out.
    """
    found: list[int] = []
    for own in _known_of_members(members, windows).values():
        least = sorted(own, key=lambda each: (each[1], -each[0]))
        # A tenth of 30 is 3, and in floats a little less.
        found += [at for at, _ in least[: math.floor(share * len(own) + 1e-9)]]
    return sorted(found)


def is_comparable(members: Sequence[str], logprobs: Sequence[float | None]) -> bool:
    """Return whether any member gave two responses whose log probabilities are known."""
    return any(len(own) > 1 for own in _known_of_members(members, logprobs).values())


def _known_of_members(members: Sequence[str], values: Sequence[float | None]) -> dict[str, list[tuple[int, float]]]:
    """Return of each member the positions of its responses that have a number, and the numbers."""
    known: dict[str, list[tuple[int, float]]] = {}
    for at, (member, value) in enumerate(zip(members, values, strict=True)):
        if value is not None and math.isfinite(value):
            known.setdefault(member, []).append((at, value))
    return known
