"""How often votes of each agreement are right: what a share of the votes is worth."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fusiontools.evaluation.report.statistics import Interval, add_exactly, load_numpy, wilson

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
    np = load_numpy()
    agreements, scores = np.array(votes, float).reshape(-1, 2).T
    part_of = np.clip(np.ceil(agreements * _PARTS - 1e-9) - 1, 0, _PARTS - 1)
    found = []
    for i in range(_PARTS):
        own = part_of == i
        if count := int(own.sum()):
            right, agreement = add_exactly(scores[own]), add_exactly(agreements[own]) / count
            interval = wilson(right, count)
            found.append(AgreementPart(i / _PARTS, (i + 1) / _PARTS, count, agreement, right / count, interval))
    return found
