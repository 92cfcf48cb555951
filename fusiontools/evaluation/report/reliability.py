"""How often votes of each agreement are right: what a share of the votes is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from fusiontools.evaluation.report.statistics import Interval, wilson

#: Into so many parts agreement is cut.
_PARTS = 10


class AgreementPart(Struct, frozen=True):
    """The votes whose agreement is above `low` and up to `high`: how many, and how often they are right."""

    low: float
    high: float
    votes: int
    agreement: float
    score: float
    interval: Interval


def sort_by_agreement(votes: Sequence[tuple[float, float]]) -> list[AgreementPart]:
    """Return the votes by their agreement, where there are any.

    Args:
        votes: of each the share of the panel that agrees, and the score of its answer.
    """
    parts: list[list[tuple[float, float]]] = [[] for _ in range(_PARTS)]
    for agreement, score in votes:
        parts[min(_PARTS - 1, max(0, math.ceil(agreement * _PARTS - 1e-9) - 1))].append((agreement, score))
    found = []
    for i, own in enumerate(parts):
        if own:
            right = math.fsum(score for _, score in own)
            agreement = math.fsum(share for share, _ in own) / len(own)
            interval = wilson(right, len(own))
            found.append(AgreementPart(i / _PARTS, (i + 1) / _PARTS, len(own), agreement, right / len(own), interval))
    return found
