"""Kinds of questions, found in the questions alone, and which treatment each kind gets.

A kind's treatment is the one that scores best on its questions, its mean drawn towards the mean of all kinds as if so
many more of them had been seen: a kind with few questions gets what is best for all.

Source  Zhang et al. 2025, Avengers-Pro, arXiv:2508.12631 (k-means over questions, scores per cluster)
"""

from __future__ import annotations

import random
from typing import Any

from msgspec import Struct

from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.tune.groups import feature_matrix
from fusiontools.evaluation.tune.panels import Panels

#: As so many questions counts what is known of all kinds together.
_DRAWN = 20.0
#: A kind has so many questions at least, on average.
_PER_KIND = 25
_ROUNDS = 20
#: Kinds are found in so many questions, drawn by lot.
_LOOKED_AT = 2_000
KINDS = (4, 8, 16)


class Routing(Struct, frozen=True):
    """Kinds of questions by their centres (rows of length 1), and the place of the treatment that each kind gets."""

    centres: Any
    treatments: list[int]
    #: How many questions each kind was learned from.
    sizes: list[int]

    def follow(self, features: Any) -> Any:
        """Return the place of the treatment of each question."""
        np = load_numpy()
        return np.array(self.treatments)[(features @ self.centres.T).argmax(axis=1)]


def question_rows(panels: Panels) -> Any:
    """Return what is seen of each group's question, the first of it."""
    return feature_matrix([panels.questions[int(start)] for start in panels.starts])


def kinds_worth_trying(questions: int) -> list[int]:
    """Return into how many kinds so many questions can be told apart."""
    return [kinds for kinds in KINDS if questions >= kinds * _PER_KIND]


def learn_routing(centres: Any, features: Any, scores: Any, costs: Any, train: Any) -> Routing:
    """Return what each kind of questions gets.

    Args:
        centres: of the kinds; found in the questions alone, without their scores.
        features: what is seen of every question.
        scores: of each treatment on every question; `costs` likewise: of two that score the same the cheaper is taken.
        train: which questions are learned from.
    """
    own, price = scores[train], costs[train].mean(axis=0)
    near = (features[train] @ centres.T).argmax(axis=1)
    overall = own.mean(axis=0)
    treatments, sizes = [], []
    for kind in range(len(centres)):
        members = near == kind
        count = int(members.sum())
        drawn = (own[members].sum(axis=0) + _DRAWN * overall) / (count + _DRAWN)
        among = [i for i in range(len(drawn)) if drawn[i] >= drawn.max() - 1e-6]
        treatments.append(min(among, key=lambda i: (price[i], i)))
        sizes.append(count)
    return Routing(centres, treatments, sizes)


def find_centres(rows: Any, kinds: int) -> Any:
    """Return the centres of k-means on the sphere; begun from rows that are far from each other, drawn by lot."""
    np = load_numpy()
    source = random.Random(f"kinds {kinds} {len(rows)}")  # noqa: S311 - statistics, no secret
    if len(rows) > _LOOKED_AT:
        rows = rows[sorted(source.sample(range(len(rows)), _LOOKED_AT))]
    chosen = [source.randrange(len(rows))]
    far = 1 - rows @ rows[chosen[0]]
    while len(chosen) < kinds:
        weights = np.maximum(far, 0).astype(np.float64)
        if weights.sum() <= 1e-9:
            break
        chosen.append(source.choices(range(len(rows)), weights.tolist())[0])
        far = np.minimum(far, 1 - rows @ rows[chosen[-1]])
    centres = rows[chosen]
    near = None
    for _ in range(_ROUNDS):
        before, near = near, (rows @ centres.T).argmax(axis=1)
        if before is not None and (before == near).all():
            break
        sums = (near[None, :] == np.arange(len(centres))[:, None]).astype(np.float32) @ rows
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), centres)
    return centres
