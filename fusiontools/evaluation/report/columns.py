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

import math
from functools import cached_property
from typing import Any, NamedTuple

from fusiontools.evaluation.report.graded import Graded, confidence_of
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.report.took import NO_ROUND, CallOwner, CallSums, CallTable, Seat
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
    #: How many of the panel's responses the ranking names.
    ranked: Any


#: A number for each.
_CHOSEN: tuple[Chosen, ...] = ("vote", "pick", "given", "learned", "logprob", "surer")


class _Cell(NamedTuple):
    """A graded text as it is read, and as columns; `of` is a number of `_OF`."""

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
        self._seats: dict[Seat, int] = {}
        self._calls = CallTable()
        # One behind the other, so many for each text, record, ranked text and choice: lists are filled the fastest.
        self._cells: list[Any] = []
        self._facts: list[float] = []
        self._ranked: list[int] = []
        self._chosen: list[float] = []

    def add(self, graded: Graded) -> None:
        """Take a record's numbers."""
        row, record, answer = self.rows, graded.record, graded.answer
        self.rows += 1
        self._calls.add(row, record.get("calls", ()))
        self._add_texts(row, graded)
        for turn, place in enumerate(graded.ranked):
            self._ranked += (row, place, turn)
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
        )

    def _add_texts(self, row: int, graded: Graded) -> None:
        cells, seats = self._cells, self._seats
        numbers: dict[str, int] = {}
        #: Who has a text here already: the next of the same sample is told as another sample of the model.
        seated: set[tuple[int, int, Seat]] = set()
        sure = (graded.sure, graded.sure, confidence_of(graded.record, "baselines"))
        for grade in graded.grades:
            if (of := _OF.get(grade["of"])) is None:
                continue
            key, layer, seat = grade["key"], grade["layer"], (grade["member"], grade["sample"])
            known = sure[of].get((layer, *seat)) if sure[of] else None
            while (of, layer, seat) in seated:  # as in panels that were put together by hand
                seat = (seat[0], seat[1] + 1)
            seated.add((of, layer, seat))
            cells += (
                row, of, layer, seats.setdefault(seat, len(seats)), grade["score"],
                numbers.setdefault(key, len(numbers)) if key else -1,
                "error" in grade, known,
            )  # fmt: skip

    @property
    def seats(self) -> dict[Seat, int]:
        """Return the number of each seat, also of those that have calls alone."""
        for owner in self._calls.owners:
            if owner.stage in ("panel", "baseline"):
                self._seats.setdefault(owner.seat, len(self._seats))
        return self._seats

    @property
    def owners(self) -> list[CallOwner]:
        """Return everybody whose calls there are."""
        return self._calls.owners

    @cached_property
    def facts(self) -> RecordFacts:
        """Return what is known of each record."""
        return RecordFacts(*_columns_of(self._facts, len(RecordFacts._fields)))

    @cached_property
    def chosen(self) -> dict[Chosen, Any]:
        """Return the scores of what is chosen from each panel; NaN where nothing is known to be."""
        np = load_numpy()
        rows, chosen, scores = _columns_of(self._chosen, 3)
        found = np.full((len(_CHOSEN), self.rows), math.nan)
        found[chosen.astype(np.intp), rows.astype(np.intp)] = scores
        return dict(zip(_CHOSEN, found, strict=True))

    @cached_property
    def panel(self) -> Texts:
        """Return the panels."""
        np, cells = load_numpy(), self._texts
        own = np.flatnonzero(cells.of == _OF["panel"])
        rows = cells.row[own]
        places = np.arange(len(own)) - np.searchsorted(rows, rows)
        return self._spread(own, places, int(places.max(initial=-1)) + 1)

    @cached_property
    def members(self) -> Texts:
        """Return what members said alone: in the first layer, or on the panel where there is no other."""
        np, cells = load_numpy(), self._texts
        is_earlier = (cells.of == _OF["layer"]) & (cells.layer == 1)
        is_alone = (cells.of == _OF["panel"]) & (cells.layer <= 1)
        is_layered = np.bincount(cells.row[is_earlier], minlength=self.rows) > 0
        own = np.flatnonzero(is_earlier | (is_alone & ~is_layered[cells.row]))
        return self._spread(own, cells.seat[own], len(self.seats))

    @cached_property
    def baselines(self) -> Texts:
        """Return what baselines said."""
        cells = self._texts
        own = load_numpy().flatnonzero(cells.of == _OF["baseline"])
        return self._spread(own, cells.seat[own], len(self.seats))

    @cached_property
    def order(self) -> Any:
        """Return the places of the panel in the order of the ranking, and then as they are: `rows × places`."""
        np = load_numpy()
        rows, places, turns = _columns_of(self._ranked, 3).astype(np.intp)
        width = self.panel.key.shape[1]
        order = np.broadcast_to(np.arange(width, 2 * width), self.panel.key.shape).copy()
        order[rows, places] = turns
        return order.argsort(axis=1)

    def add_up(self, rounds: Any = NO_ROUND) -> CallSums:
        """Return what the calls of each record took.

        Args:
            rounds: in which round each seat of a panel was asked that was asked in rounds: `rows × seats`.
        """
        shape = (self.rows, len(self.seats))
        return self._calls.add_up(self.rows, self.seats, load_numpy().broadcast_to(rounds, shape))

    @cached_property
    def _texts(self) -> _Cell:
        np = load_numpy()
        cells = _Cell(*_columns_of(self._cells, len(_Cell._fields)))
        row, seat, key = (each.astype(np.intp) for each in (cells.row, cells.seat, cells.key))
        sure = np.where(np.isfinite(cells.sure), cells.sure, -math.inf)
        return cells._replace(row=row, seat=seat, key=key, failed=cells.failed > 0, sure=sure)

    def _spread(self, own: Any, columns: Any, width: int) -> Texts:
        """Return a grid so wide, with some of the texts, each in its row and in this column."""
        np, cells = load_numpy(), self._texts
        missing = Texts(there=False, score=math.nan, key=-1, failed=True, sure=-math.inf, seat=0)
        known = Texts(np.True_, cells.score[own], cells.key[own], cells.failed[own], cells.sure[own], cells.seat[own])
        texts = Texts(*(np.full((self.rows, width), each) for each in missing))
        for grid, values in zip(texts, known, strict=True):
            grid[cells.row[own], columns] = values
        return texts


def _columns_of(numbers: list[Any], width: int) -> Any:
    """Return numbers that stand one behind the other as columns; None is NaN."""
    return load_numpy().array(numbers, float).reshape(-1, width).T
