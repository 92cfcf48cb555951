"""Who has the majority after each vote, and when it is sure: counted on all records at once.

The rules are those of `answers/tally.py`, where each vote counts the same, and of `answers/certainty.py`; tests hold
them equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fusiontools.answers.certainty import votes_to_be_sure
from fusiontools.evaluation.report.statistics import load_numpy


def winners(keys: Any, sure: Any, failed: Any) -> Iterator[Any]:
    """Yield after each vote in which place the text stands that would be the answer then: an array over records.

    A tie goes to the key whose voters are the surest on average, where that is known of all that are tied, else to the
    key that was voted for first. The surest voter of the key stands for it, else the first. Where nobody votes the
    first text does that did not fail, else the first.

    Args:
        keys: `records × places`: what each votes for, as a number within its record from 0; below 0 is no vote.
        sure: the log probability of each, -inf where it is not known.
        failed: whether each is a failure.
    """
    np = load_numpy()
    records, places = keys.shape
    options = int(keys.max(initial=0)) + 1
    votes, total = np.zeros((2, records, options))
    first, stands = np.full((2, records, options), places)
    surest = np.full((records, options), -math.inf)
    earliest = np.full(records, places)
    for place in range(places):
        voting = np.flatnonzero(keys[:, place] >= 0)
        at, own = (voting, keys[voting, place]), sure[voting, place]
        first[at] = np.minimum(first[at], place)
        stands[at] = np.where((votes[at] == 0) | (own > surest[at]), place, stands[at])
        surest[at] = np.maximum(surest[at], own)
        votes[at] += 1
        total[at] += own
        earliest = np.where(failed[:, place], earliest, np.minimum(earliest, place))

        tied = (votes == votes.max(axis=1, keepdims=True)) & (votes > 0)
        means = np.where(tied, total / np.maximum(votes, 1), math.inf)
        is_unknown = means.min(axis=1, keepdims=True) == -math.inf
        means = np.where(tied, means, -math.inf)
        wins = tied & (is_unknown | (means == means.max(axis=1, keepdims=True)))
        winner = np.where(wins, first, places).argmin(axis=1)
        won = stands[np.arange(records), winner]
        yield np.where(won < places, won, np.where(earliest < places, earliest, 0))


def ask_until_sure(keys: Any, asked: Any, until: Sequence[float], at_once: Any) -> tuple[Any, Any]:
    """Return in which round each vote is asked for, and how many votes are asked for in all, by record.

    A round asks for as many votes as make sure at the least; those that are not asked for come in a round after it.

    Args:
        keys: `records × places`, as for `winners`, in the order in which they are asked for.
        asked: how many votes each record has.
        until: how sure each record wants to be what most say.
        at_once: a round asks for so many at least.
    """
    np = load_numpy()
    records, places = keys.shape
    levels = list(dict.fromkeys(until))
    needed = np.array([[votes_to_be_sure(second, level) for second in range(places + 1)] for level in levels])
    level = np.array([levels.index(each) for each in until], np.intp)
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
