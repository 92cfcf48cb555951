"""Which questions are the same, or nearly: such a group is one observation and never stands in both parts of a split.

Source  what a split by record does to a measurement is told in arXiv:2107.06499 (near-duplicates in both parts)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusiontools.answers.normalize import fold, tokens
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.stages.route_table import DIMENSIONS, question_features

#: From this cosine of their n-grams on, two questions are nearly the same.
_NEAR = 0.95
#: How many questions are compared with all others at a time.
_BLOCK = 1024


def feature_matrix(questions: Sequence[str]) -> Any:
    """Return what `route_table` sees of each question as a row; rows are of length 1, or 0 where there is no word."""
    np = load_numpy()
    rows = np.zeros((len(questions), DIMENSIONS), dtype=np.float32)
    for i, question in enumerate(questions):
        for place, weight in question_features(question).items():
            rows[i, place] = weight
    return rows


def find_groups(questions: Sequence[str], tasks: Sequence[str]) -> list[int]:
    """Return the number of each question's group, counted in the order in which they come.

    Args:
        tasks: records of one task are one group whatever they ask.
    """
    np = load_numpy()
    parents = list(range(len(questions)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        parents[high] = low

    first_of: dict[tuple[str, str], int] = {}
    different: list[int] = []
    for i, (question, task) in enumerate(zip(questions, tasks, strict=True)):
        words = " ".join(tokens(fold(question)))
        for name in (("task", task), ("words", words)):
            # Records without words cannot be told apart by them.
            if name[1]:
                join(first_of.setdefault(name, i), i)
        if first_of.get(("words", words)) == i:
            different.append(i)
    features = feature_matrix([questions[i] for i in different])
    for begun in range(0, len(different), _BLOCK):
        near = features[begun : begun + _BLOCK] @ features[begun:].T >= _NEAR
        for one, other in zip(*np.nonzero(near), strict=True):
            if one < other:
                join(different[begun + int(one)], different[begun + int(other)])
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(questions))]
