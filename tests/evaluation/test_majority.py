"""Majorities and rounds of many records at once are those that the rules for one record give."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rounds import rounds_until_sure

from fusiontools.answers.tally import count_votes
from fusiontools.evaluation.report.majority import Majority, ask_until_sure, find_majority

OPTIONS = ["a", "b", "c"]
#: What a text votes for, how sure its model was, and whether it failed.
TEXTS = st.tuples(
    st.sampled_from([*OPTIONS, None]), st.sampled_from([None, -0.5, -1.0, -1.5, -math.inf]), st.booleans()
)
RECORDS = st.lists(st.lists(TEXTS, min_size=5, max_size=5), min_size=1, max_size=4)
KEYS = st.lists(st.sampled_from([*OPTIONS, None]), max_size=16)


def numbered(keys: Any) -> Any:
    return np.array([[OPTIONS.index(key) if key else -1 for key in row] for row in keys], np.intp).reshape(
        len(keys), -1
    )


@given(RECORDS)
def test_after_each_vote_the_majority_is_the_one_that_a_whole_count_finds(records: Any) -> None:
    keys, sure, failed = ([[text[i] for text in row] for row in records] for i in range(3))
    logprobs = np.array([[-math.inf if each is None else each for each in row] for row in sure])
    majority = Majority(numbered(keys), logprobs, np.array(failed))

    for place in range(5):
        majority.add(place)
        for row, winner in enumerate(majority.winners().tolist()):
            counted = count_votes(keys[row][: place + 1], confidence=sure[row][: place + 1])
            heard = failed[row][: place + 1]
            earliest = heard.index(False) if False in heard else 0
            assert winner == (earliest if counted is None else counted.winner)
    assert find_majority(numbered(keys), logprobs, np.array(failed)).tolist() == majority.winners().tolist()


@given(st.lists(st.tuples(KEYS, st.sampled_from([0.5, 0.8, 0.95]), st.integers(1, 6)), min_size=1, max_size=4))
def test_records_of_any_size_are_asked_for_the_rounds_that_each_alone_would_be(asked: Any) -> None:
    keys, until, at_once = zip(*asked, strict=True)
    places = max(map(len, keys))
    padded = numbered([[*row, *[None] * (places - len(row))] for row in keys])

    rounds, heard = ask_until_sure(padded, np.array([*map(len, keys)]), np.array(until), np.array(at_once))

    for row, own in enumerate(keys):
        ends = rounds_until_sure(own, until[row], at_once[row])
        assert heard[row] == (ends[-1] if ends else 0)
        for number, (begin, end) in enumerate(itertools.pairwise([0, *ends, len(own)])):
            assert rounds[row, begin:end].tolist() == [number] * (end - begin)
