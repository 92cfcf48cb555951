"""Who has the majority of votes, and when that is sure: counted on all records at once.

The rules are those of `answers/tally.py`, where each vote counts the same, and of `answers/certainty.py`; tests hold
them equal.
"""

from __future__ import annotations

import math
from typing import Any

from fusiontools.answers.certainty import votes_to_be_sure
from fusiontools.evaluation.report.statistics import load_numpy


class Majority:
    """Votes that are added one after the other.

    A tie goes to the key whose voters are the surest on average, where that is known of all that are tied, else to the
    key that was voted for first. The surest voter of the key stands for it, else the first. Where nobody votes the
    first text does that did not fail, else the first.

    Args:
        keys: `records × places`: what each votes for, as a number within its record from 0; below 0 is no vote.
        sure: the log probability of each, -inf where it is not known.
        failed: whether each is a failure.
    """

    def __init__(self, keys: Any, sure: Any, failed: Any) -> None:
        np = load_numpy()
        self._keys, self._sure, self._failed = keys, sure, failed
        records, self._nowhere = keys.shape
        options = int(keys.max(initial=0)) + 1
        self._votes, self._total = np.zeros((2, records, options))
        #: Of each key the place of its first voter, and of its surest one.
        self._first, self._stands = np.full((2, records, options), self._nowhere)
        self._surest = np.full((records, options), -math.inf)
        self._earliest = np.full(records, self._nowhere)

    def add(self, place: int) -> None:
        """Count the votes in one place."""
        np = load_numpy()
        voting = np.flatnonzero(self._keys[:, place] >= 0)
        at, own = (voting, self._keys[voting, place]), self._sure[voting, place]
        is_first = self._votes[at] == 0
        self._first[at] = np.where(is_first, place, self._first[at])
        self._stands[at] = np.where(is_first | (own > self._surest[at]), place, self._stands[at])
        self._surest[at] = np.maximum(self._surest[at], own)
        self._votes[at] += 1
        self._total[at] += own
        is_earliest = ~self._failed[:, place] & (self._earliest == self._nowhere)
        self._earliest[is_earliest] = place

    def winners(self) -> Any:
        """Return in which place the text stands that is the answer by the votes so far: an array over the records."""
        np = load_numpy()
        tied = (self._votes == self._votes.max(axis=1, keepdims=True)) & (self._votes > 0)
        means = np.where(tied, self._total / np.maximum(self._votes, 1), math.inf)
        is_unknown = means.min(axis=1, keepdims=True) == -math.inf
        means[~tied] = -math.inf
        wins = tied & (is_unknown | (means == means.max(axis=1, keepdims=True)))
        key = np.where(wins, self._first, self._nowhere).argmin(axis=1)
        won = self._stands[np.arange(len(key)), key]
        return np.where(won < self._nowhere, won, np.where(self._earliest < self._nowhere, self._earliest, 0))


def find_majority(keys: Any, sure: Any, failed: Any) -> Any:
    """Return in which place the text stands that is the answer by all votes, as `Majority` counts them."""
    majority = Majority(keys, sure, failed)
    for place in range(keys.shape[1]):
        majority.add(place)
    return majority.winners()


def ask_until_sure(keys: Any, asked: Any, until: Any, at_once: Any) -> tuple[Any, Any]:
    """Return in which round each vote is asked for, and how many votes are asked for in all, by record.

    A round asks for as many votes as make sure at the least; those that are not asked for come in a round after it.

    Args:
        keys: `records × places`, as for `Majority`, in the order in which they are asked for.
        asked: how many votes each record has.
        until: how sure each record wants to be what most say.
        at_once: a round asks for so many at least.
    """
    np = load_numpy()
    records, places = keys.shape
    levels, level = np.unique(until, return_inverse=True)
    needed = np.array([[votes_to_be_sure(second, each) for second in range(places + 1)] for each in levels.tolist()])
    votes = np.zeros((records, int(keys.max(initial=0)) + 2), np.intp)
    rounds, heard, current = np.zeros((records, places), np.intp), np.zeros(records, np.intp), np.full(records, -1)
    for place in range(places):
        second, leading = np.partition(votes, (-2, -1), axis=1)[:, -2:].T
        more = needed[level, second] - leading
        begins = (heard == place) & (place < asked) & (more > 0)
        heard = np.where(begins, np.minimum(asked, place + np.maximum(more, at_once)), heard)
        current += begins
        rounds[:, place] = current + (place >= heard)
        voting = np.flatnonzero(keys[:, place] >= 0)
        votes[voting, keys[voting, place]] += 1
    return rounds, heard
