"""What each member's vote shall count, learned from which of the answers on offer was right.

A conditional logit: of the answers that a panel gives to a question, and that none of them is right, each is as likely
as the exponent of the sum of its voters' weights says. Members that err alike explain each other's votes away: two
copies of one member weigh together about as much as one. Weights are drawn towards their mean, the harder the fewer
records there are: with few records they are those of a plain vote. None is below 0.

Source  McFadden 1974, conditional logit; Ai et al. 2025, optimal weights for votes of models, arXiv:2510.01499
"""

from __future__ import annotations

from typing import Any

from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.tune.replay import WEIGHT_PART, Replay, Way

#: How hard weights are drawn together: as a normal prior around their mean, of a standard deviation of 0.5.
_PULL = 4.0
_STEPS = 25
_LEAST_WEIGHT = 0.05
#: From this score on an answer counts as right.
_RIGHT = 0.5


def learn_weights(replay: Replay, way: Way, train: Any) -> dict[str, float]:
    """Return the weight of each member of a sub-panel, 1 on average.

    Args:
        train: which groups of questions are learned from.
    """
    np = load_numpy()
    members = way.members
    if len(members) < 2:
        return dict.fromkeys(members, 1.0)
    weights = np.maximum(_fit(*_choices(replay, way, train)), 0.0)
    weights = np.where(weights < _LEAST_WEIGHT * weights.max(), 0.0, weights)
    mean = weights[weights > 0].mean() if (weights > 0).any() else 0.0
    if mean <= 0:
        return dict.fromkeys(members, 1.0)
    # As exact as they are written down, so that the recipe votes as it was measured.
    rounded = [round(float(weight / mean) * WEIGHT_PART) / WEIGHT_PART for weight in weights]
    return dict(zip(members, rounded, strict=True))


def _choices(replay: Replay, way: Way, train: Any) -> tuple[Any, Any, Any]:
    """Return who votes for which answer, which answers there are, and which of them are right.

    `records × answers × members`, and twice `records × answers`. The last answer is that none of the others is right;
    nobody votes for it, and its own weight, in the last column of the members, says how likely it is.
    """
    np = load_numpy()
    panels = replay.panels
    seats = replay.seats_of(way)
    of = np.repeat(np.asarray(train), np.diff(np.append(panels.starts, len(panels.ids))))
    same = replay.same[of][:, seats][:, :, seats]
    # The first seat that says it stands for an answer.
    offered = (np.einsum("nii->ni", same) > 0) & (np.triu(same, 1).sum(axis=1) == 0)
    whose = np.zeros((len(seats), len(way.members) + 1))
    for place, seat in enumerate(seats):
        whose[place, way.members.index(panels.seats[seat][0])] = 1
    scores = np.where(offered, panels.scores[of][:, seats], 0.0)
    best = scores.max(axis=1, keepdims=True)
    right = offered & (scores >= best) & (best >= _RIGHT)
    votes = np.zeros((len(same), len(seats) + 1, whose.shape[1]))
    votes[:, :-1] = np.where(offered[:, :, None], same @ whose, 0.0)
    votes[:, -1, -1] = 1
    none = np.ones((len(same), 1), dtype=bool)
    return votes, np.hstack([offered, none]), np.hstack([right, ~right.any(axis=1, keepdims=True)])


def _fit(votes: Any, offered: Any, right: Any) -> Any:
    """Return the weights of the members under which the right answers are the most likely, by Newton's method."""
    np = load_numpy()
    count = votes.shape[2]
    flat = votes.reshape(-1, count)
    pull = 1e-3 * np.eye(count)
    pull[:-1, :-1] += _PULL * (np.eye(count - 1) - 1 / (count - 1))
    weights = np.ones(count)
    for _ in range(_STEPS):
        chance = _softmax(votes @ weights, offered)
        truth = _softmax(votes @ weights, right)
        gradient = (chance - truth).ravel() @ flat + pull @ weights
        mean = (chance[:, None, :] @ votes)[:, 0]
        curve = (flat * chance.reshape(-1, 1)).T @ flat - mean.T @ mean + pull
        step = np.linalg.solve(curve, gradient)
        weights = weights - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    return weights[:-1]


def _softmax(values: Any, offered: Any) -> Any:
    np = load_numpy()
    shown = np.where(offered, values, -np.inf)
    likely = np.exp(shown - shown.max(axis=1, keepdims=True))
    return likely / likely.sum(axis=1, keepdims=True)
