"""Graded records as columns of numbers, so that what is told of one record is told of all at once.

A batch has a row for each record. Its texts stand in three grids, its calls in a fourth (`took.py`):

    panel       rows × places   the responses of the panel, as they stand in the record
    members     rows × seats    what each seat said in the first layer, before it saw the others' responses
    baselines   rows × seats    what each seat said outside the panel

A seat is one sample of one model, and has one number in all grids. Of a text is kept what `Texts` names; what it votes
for is a number within its record, the same for texts that vote for the same. Of a record itself is kept what
`RecordFacts` names, and what it says was chosen from its panel.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from functools import cached_property
from typing import Any, NamedTuple

from fusiontools.evaluation.report.graded import Graded, confidence_of
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.report.took import NO_ROUND, CallOwner, CallSums, CallTable, Seat, columns_of
from fusiontools.evaluation.report.votes import Chosen, chosen_by


class Texts(NamedTuple):
    """Graded texts in a grid, `rows × columns`."""

    #: Whether there is one; where there is none the score is NaN, and it failed.
    there: Any
    score: Any
    #: What it votes for; -1 where for nothing.
    key: Any
    failed: Any
    #: How sure its model was, as a log probability; -inf where nobody knows.
    sure: Any
    seat: Any

    def of(self, columns: Any) -> Texts:
        """Return these columns."""
        return Texts(*(each[:, columns] for each in self))

    def along(self, order: Any) -> Texts:
        """Return the texts of each row in this order."""
        return Texts(*(load_numpy().take_along_axis(each, order, axis=1) for each in self))

    def scores_at(self, columns: Any) -> Any:
        """Return the score of one text of each row."""
        return load_numpy().take_along_axis(self.score, columns[:, None], axis=1)[:, 0]


class RecordFacts(NamedTuple):
    """What is known of each record beside its texts and calls: arrays over the rows."""

    #: The score of its answer, 0 where it has none, and whether it failed or has none.
    score: Any
    failed: Any
    #: The vote gave no answer; a check picked it; the record has an error, or grades.
    abstained: Any
    checked: Any
    looked_at: Any
    #: Members answered again, having seen each other's responses.
    layered: Any
    #: How sure the panel had to be what most say for nobody else to be asked, 0 where it was asked as a whole, and how
    #: many were asked at once at the least.
    until: Any
    at_once: Any
    #: How many of the panel's responses the ranking names, and how many texts were graded beside the answer.
    ranked: Any
    texts: Any


#: A number for each.
_CHOSEN: tuple[Chosen, ...] = ("vote", "pick", "given", "learned", "logprob", "surer")


class _Cells(NamedTuple):
    """Graded texts as columns, one behind the other; `of` is a number of `_OF`."""

    row: Any
    of: Any
    layer: Any
    seat: Any
    score: Any
    key: Any
    failed: Any
    sure: Any


#: What graded texts are; the answer is kept among the facts.
_OF = {"panel": 0, "layer": 1, "baseline": 2}


class Batch:
    """Some records: read one by one, then looked at as columns."""

    def __init__(self) -> None:
        self.rows = 0
        self._calls = CallTable()
        #: The number of each place where a text was graded: what it is, its layer, member and sample.
        self._places: dict[tuple[str, int, str, int], int] = defaultdict(itertools.count().__next__)
        # One behind the other, so many for each text, record, ranked text and choice: lists are filled the fastest.
        self._texts: list[Any] = []
        self._facts: list[float] = []
        self._ranked: list[int] = []
        self._chosen: list[float] = []

    def add(self, graded: Graded) -> None:
        """Take a record's numbers."""
        row, record, answer = self.rows, graded.record, graded.answer
        self.rows += 1
        self._calls.add(record.get("calls", ()))
        texts = self._add_texts(graded)
        self._ranked += graded.ranked
        for chosen, grade in chosen_by(graded).items():
            self._chosen += (row, _CHOSEN.index(chosen), grade["score"])
        self._facts += (
            answer["score"] if answer else 0.0,
            answer is None or "error" in answer,
            graded.has_abstained,
            graded.is_checked,
            bool(graded.grades) or "error" in record,
            bool(record.get("layers")),
            *graded.asked_until,
            len(graded.ranked),
            texts,
        )

    def _add_texts(self, graded: Graded) -> int:
        """Take the texts of a record and return how many they are."""
        texts, places = self._texts, self._places
        keys: dict[str, int] = {}
        #: Where there is a text here already: the next of the same sample is told as another sample of the model.
        taken: set[int] = set()
        for of, grades in graded.grades.items():
            if of == "answer":
                continue
            sure = graded.sure if of != "baseline" else confidence_of(graded.record, "baselines")
            for grade in grades:
                key, layer, member, sample = grade["key"], grade["layer"], grade["member"], grade["sample"]
                vote = keys.setdefault(key, len(keys)) if key else -1
                known = sure.get((layer, member, sample)) if sure else None
                while (place := places[of, layer, member, sample]) in taken:  # as in panels put together by hand
                    sample += 1
                taken.add(place)
                texts += (place, grade["score"], vote, "error" in grade, known)
        return len(taken)

    @cached_property
    def seats(self) -> dict[Seat, int]:
        """Return the number of each seat, also of those that have calls alone."""
        seats = [(member, sample) for _, _, member, sample in self._places]
        seats += [owner.seat for owner in self.owners if owner.stage in ("panel", "baseline")]
        return {seat: number for number, seat in enumerate(dict.fromkeys(seats))}

    @property
    def owners(self) -> list[CallOwner]:
        """Return everybody whose calls there are."""
        return self._calls.owners

    @cached_property
    def facts(self) -> RecordFacts:
        """Return what is known of each record."""
        return RecordFacts(*columns_of(self._facts, len(RecordFacts._fields)))

    def _rows_of(self, counts: Any) -> Any:
        """Return the row of each of what stands one behind the other, so much in each record."""
        np = load_numpy()
        return np.arange(self.rows).repeat(counts.astype(np.intp))

    @cached_property
    def chosen(self) -> dict[Chosen, Any]:
        """Return the scores of what is chosen from each panel; NaN where nothing is known to be."""
        np = load_numpy()
        rows, chosen, scores = columns_of(self._chosen, 3)
        found = np.full((len(_CHOSEN), self.rows), math.nan)
        found[chosen.astype(np.intp), rows.astype(np.intp)] = scores
        return dict(zip(_CHOSEN, found, strict=True))

    @cached_property
    def panel(self) -> Texts:
        """Return the panels."""
        np, cells = load_numpy(), self._cells
        own = np.flatnonzero(cells.of == _OF["panel"])
        places = _turns(cells.row[own])
        return self._spread(own, places, int(places.max(initial=-1)) + 1)

    @cached_property
    def members(self) -> Texts:
        """Return what members said alone: in the first layer, or on the panel where there is no other."""
        np, cells = load_numpy(), self._cells
        is_earlier = (cells.of == _OF["layer"]) & (cells.layer == 1)
        is_alone = (cells.of == _OF["panel"]) & (cells.layer <= 1)
        is_layered = np.bincount(cells.row[is_earlier], minlength=self.rows) > 0
        own = np.flatnonzero(is_earlier | (is_alone & ~is_layered[cells.row]))
        return self._spread(own, cells.seat[own], len(self.seats))

    @cached_property
    def baselines(self) -> Texts:
        """Return what baselines said."""
        cells = self._cells
        own = load_numpy().flatnonzero(cells.of == _OF["baseline"])
        return self._spread(own, cells.seat[own], len(self.seats))

    @cached_property
    def order(self) -> Any:
        """Return the places of the panel in the order of the ranking, and then as they are: `rows × places`."""
        np = load_numpy()
        rows, width = self._rows_of(self.facts.ranked), self.panel.key.shape[1]
        order = np.broadcast_to(np.arange(width, 2 * width), self.panel.key.shape).copy()
        order[rows, np.array(self._ranked, np.intp)] = _turns(rows)
        return order.argsort(axis=1)

    def add_up(self, rounds: Any = NO_ROUND) -> CallSums:
        """Return what the calls of each record took.

        Args:
            rounds: in which round each seat of a panel was asked that was asked in rounds: `rows × seats`.
        """
        shape = (self.rows, len(self.seats))
        return self._calls.add_up(self.seats, load_numpy().broadcast_to(rounds, shape))

    @cached_property
    def _cells(self) -> _Cells:
        np = load_numpy()
        place, score, key, failed, sure = columns_of(self._texts, 5)
        known = [(_OF[of], layer, self.seats[member, sample]) for of, layer, member, sample in self._places]
        of, layer, seat = np.array(known, float).reshape(-1, 3)[place.astype(np.intp)].T
        return _Cells(
            self._rows_of(self.facts.texts), of, layer, seat.astype(np.intp), score, key.astype(np.intp), failed > 0,
            np.where(np.isfinite(sure), sure, -math.inf),
        )  # fmt: skip

    def _spread(self, own: Any, columns: Any, width: int) -> Texts:
        """Return a grid so wide, with some of the texts, each in its row and in this column."""
        np, cells = load_numpy(), self._cells
        missing = Texts(there=False, score=math.nan, key=-1, failed=True, sure=-math.inf, seat=0)
        known = Texts(np.True_, cells.score[own], cells.key[own], cells.failed[own], cells.sure[own], cells.seat[own])
        texts = Texts(*(np.full((self.rows, width), each) for each in missing))
        for grid, values in zip(texts, known, strict=True):
            grid[cells.row[own], columns] = values
        return texts


def _turns(rows: Any) -> Any:
    """Return which one in its row each is, from 0, where those of a row stand together."""
    np = load_numpy()
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
