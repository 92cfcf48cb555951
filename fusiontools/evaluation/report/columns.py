"""Graded records as columns of numbers, so that what is told of one record is told of all at once.

A batch has a row for each record. Its texts stand in three grids, its calls in a fourth (`took.py`):

    panel       rows × places   the responses of the panel, as they stand in the record
    members     rows × seats    what each seat said in the first layer, before it saw the others' responses
    baselines   rows × seats    what each seat said outside the panel

A seat is one sample of one model, and has one number in all grids. Of a text is kept what `Texts` names; what it votes
for is a number within its record, the same for texts that vote for the same. Of a record is kept what `Facts` names.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from fusiontools.evaluation.report.graded import Graded, Place, confidence_of
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.report.took import NO_ROUND, Caller, CallSums, CallTable, Seat
from fusiontools.evaluation.report.votes import weighted_votes
from fusiontools.record.types import Grade

Grid = Literal["panel", "members", "baselines"]


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


class Facts(NamedTuple):
    """What is known of a record beside its texts and calls: numbers, or arrays over the rows."""

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
    #: The scores of what a vote and a pick took, where they made the answer, and of the votes in which not all count
    #: the same; NaN where there is none.
    vote: Any
    pick: Any
    given: Any
    learned: Any
    logprob: Any
    surer: Any


class _Cell(NamedTuple):
    """A graded text as it is read: its row, its place among those beside it, its seat, and what `Texts` keeps of it."""

    row: Any
    place: Any
    seat: Any
    score: Any
    key: Any
    failed: Any
    sure: Any


class Batch:
    """Some records: read one by one, then looked at as columns."""

    def __init__(self) -> None:
        self.rows = 0
        self._seats: dict[Seat, int] = {}
        self._calls = CallTable()
        self._cells = {name: array("d") for name in ("panel", "members", "baselines")}
        self._facts = array("d")
        #: Row, place in the panel and place in the ranking.
        self._ranked = array("d")

    def add(self, graded: Graded) -> None:
        """Take a record's numbers."""
        row, record = self.rows, graded.record
        self.rows += 1
        numbers: dict[str, int] = {}
        self._put("panel", row, graded.panel, graded.sure, numbers)
        self._put("members", row, graded.first, graded.sure, numbers)
        if graded.baselines:
            self._put("baselines", row, graded.baselines, confidence_of(record, "baselines"), numbers)
        if graded.ranked:
            for place, at in enumerate(graded.order[: graded.ranked]):
                self._ranked.extend((row, at, place))
        self._calls.add(row, record.get("calls", ()))
        self._facts.extend(_facts_of(graded))

    @property
    def seats(self) -> dict[Seat, int]:
        """Return the number of each seat, also of those that have calls alone."""
        for caller in self._calls.callers:
            if caller.stage in ("panel", "baseline"):
                self._seats.setdefault(caller.seat, len(self._seats))
        return self._seats

    @property
    def callers(self) -> list[Caller]:
        """Return everybody who made a call."""
        return self._calls.callers

    @cached_property
    def facts(self) -> Facts:
        """Return what is known of each record."""
        return Facts(*load_numpy().array(self._facts).reshape(-1, len(Facts._fields)).T)

    @cached_property
    def panel(self) -> Texts:
        """Return the panels."""
        cells = self._read_cells("panel")
        return self._spread(cells, cells.place, int(cells.place.max(initial=-1)) + 1)

    @cached_property
    def members(self) -> Texts:
        """Return what members said alone."""
        cells = self._read_cells("members")
        return self._spread(cells, cells.seat, len(self.seats))

    @cached_property
    def baselines(self) -> Texts:
        """Return what baselines said."""
        cells = self._read_cells("baselines")
        return self._spread(cells, cells.seat, len(self.seats))

    @cached_property
    def order(self) -> Any:
        """Return the places of the panel in the order of the ranking, and then as they are: `rows × places`."""
        np = load_numpy()
        rows, places, turns = np.array(self._ranked).reshape(-1, 3).astype(np.intp).T
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

    def _read_cells(self, grid: Grid) -> _Cell:
        np = load_numpy()
        cells = _Cell(*np.array(self._cells[grid]).reshape(-1, len(_Cell._fields)).T)
        return cells._replace(
            **{name: getattr(cells, name).astype(np.intp) for name in ("row", "place", "seat", "key")}
        )

    def _spread(self, cells: _Cell, columns: Any, width: int) -> Texts:
        """Return a grid so wide, with each text in its row and in this column."""
        np = load_numpy()
        missing = Texts(there=False, score=math.nan, key=-1, failed=True, sure=-math.inf, seat=0)
        known = Texts(True, cells.score, cells.key, cells.failed > 0, cells.sure, cells.seat)
        texts = Texts(*(np.full((self.rows, width), each) for each in missing))
        for grid, values in zip(texts, known, strict=True):
            grid[cells.row, columns] = values
        return texts

    def _put(
        self,
        name: Grid,
        row: int,
        grades: Sequence[Grade],
        sure: Mapping[Place, float | None],
        numbers: dict[str, int],
    ) -> None:
        """Take some texts.

        Args:
            numbers: what stands for each key within this record.
        """
        cells, seats = self._cells[name], self._seats
        for place, grade in enumerate(grades):
            key, seat = grade["key"], (grade["member"], grade["sample"])
            known = sure.get((grade["layer"], *seat)) if sure else None
            cells.extend(
                (
                    row,
                    place,
                    seats.setdefault(seat, len(seats)),
                    grade["score"],
                    numbers.setdefault(key, len(numbers)) if key else -1,
                    "error" in grade,
                    -math.inf if known is None else known,
                )
            )


def _facts_of(graded: Graded) -> Facts:
    record, answer = graded.record, graded.answer
    until, at_once = graded.asked_until
    votes = weighted_votes(graded) if graded.panel else {}
    return Facts(
        score=answer["score"] if answer else 0.0,
        failed=answer is None or "error" in answer,
        abstained=graded.has_abstained,
        checked=graded.is_checked,
        looked_at="error" in record or bool(record.get("grades")),
        layered=bool(record.get("layers")),
        until=until,
        at_once=at_once,
        ranked=graded.ranked,
        vote=_score_of(graded.copied if graded.is_by("vote") else None),
        pick=_score_of(graded.copied if graded.is_by("pick") else None),
        **{kind: _score_of(votes.get(kind)) for kind in ("given", "learned", "logprob", "surer")},
    )


def _score_of(grade: Grade | None) -> float:
    return math.nan if grade is None else grade["score"]
