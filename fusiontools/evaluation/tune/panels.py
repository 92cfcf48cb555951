"""Graded panels as columns of numbers: what each seat said, scored, cost and took on each record.

A seat is one sample of one member in the first layer, where nobody had seen the others' responses; so any selection of
seats would have said the same. A baseline is a seat like any other. What a text votes for is the key that `fuse-grade`
read with the functions of `fuse-vote`; nothing is read anew.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from fusiontools.errors import UsageError
from fusiontools.evaluation.report.columns import Batch
from fusiontools.evaluation.report.graded import Graded
from fusiontools.evaluation.report.panel_tally import PanelTally
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.report.took import Seat, Took
from fusiontools.evaluation.tune.groups import find_groups
from fusiontools.record import jsonl
from fusiontools.record.sections import by_rank, question_text
from fusiontools.record.types import Grade, Record, Response
from fusiontools.stages.ballot import stands_for

#: A seat that so large a share of the records lack is no part of the panel.
_MISSING = 0.1
#: Ranks that come after all others.
LAST = 1 << 30


class _PanelRow(Struct):
    """One record; each list in the order of `seats`."""

    #: Its row in the batch, where its calls are.
    row: int
    id: str
    task: str
    question: str
    seats: list[Seat]
    keys: list[str | None]
    scores: list[float]
    failed: list[bool]
    confidence: list[float]
    #: Which response stands for all that say the same, which is the best by the judge's ranking, and which without
    #: one: 0 first.
    standing: list[int]
    ranked: list[int]
    unranked: list[int]
    #: The score of the answer that a judge and a writer made, where there is one.
    fusion: float | None
    #: Whether there is a judge's ranking of these responses.
    is_ranked: bool


class Panels(Struct, frozen=True):
    """All records as arrays of numpy: `records × seats`, in the order of the groups of questions.

    Args:
        keys: what each votes for, as a number within its record; -1 where it votes for nothing.
        standing: which one stands for those that say the same, lowest first.
        ranked: which one is the best by the judge's ranking, and `unranked` without one, lowest first.
        usd: dollars, or the number of calls where not every price is known.
        fusion: score, cost and seconds of the answer that was written; None where not every record has one.
        judge: the same of the ranking, without a score.
        starts: where each group of records begins.
        recipes: what the records keep of how they were asked, and how many do.
    """

    seats: list[Seat]
    ids: list[str]
    questions: list[str]
    keys: Any
    scores: Any
    usable: Any
    usd: Any
    latencies: Any
    confidence: Any
    standing: Any
    ranked: Any
    unranked: Any
    fusion: Any
    judge: Any
    starts: Any
    priced: bool
    tally: PanelTally
    graders: set[str]
    recipes: Mapping[bytes, int]
    dropped: int

    @property
    def members(self) -> list[str]:
        """Return the members, in panel order."""
        return list(dict.fromkeys(member for member, _ in self.seats))

    @property
    def groups(self) -> int:
        """Return how many questions there are: those that are the same, or nearly, are one."""
        return len(self.starts)

    def seats_of(self, member: str) -> list[int]:
        """Return the places of a member's samples."""
        return [place for place, seat in enumerate(self.seats) if seat[0] == member]

    def by_group(self, values: Any) -> Any:
        """Return the mean over each group of what was counted for each record."""
        np = load_numpy()
        sizes = np.diff(np.append(self.starts, len(self.ids)))
        sums = np.add.reduceat(values, self.starts, axis=0)
        return sums / (sizes if sums.ndim == 1 else sizes[:, None])


class PanelReader(Struct):
    """Takes graded records one by one; `finish` makes arrays of them."""

    records: int = 0
    ungraded: int = 0
    failed: int = 0
    _rows: list[_PanelRow] = []
    _seen: set[tuple[str, int]] = set()
    _repeated: int = 0
    _batch: Batch = field(default_factory=Batch)
    _graders: set[str] = field(default_factory=set)
    _recipes: dict[bytes, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Take what can be learned from a record."""
        self.records += 1
        grades = record.get("grades") or []
        if "error" in record or not grades:
            self.failed += "error" in record
            self.ungraded += "error" not in record
            return
        place = (record["id"], record.get("epoch") or 0)
        self._repeated += place in self._seen
        self._seen.add(place)
        graded = Graded.of(record)
        self._graders |= {grade["grader"] for grade in grades}
        kept = jsonl.dumps(record.get("recipe") or {})
        self._recipes[kept] = self._recipes.get(kept, 0) + 1
        self._rows.append(_read_row(self._batch.rows, graded))
        self._batch.add(graded)

    def finish(self) -> Panels:
        """Return the arrays.

        Raises:
            UsageError: ids repeat, or no seat was asked on nearly all records.
        """
        if self._repeated:
            raise UsageError(
                f"{self._repeated:,} records repeat an id: a question in both halves of a split is no test; give each "
                "record once (repetitions of a task have an `epoch`)"
            )
        counts: dict[Seat, int] = {}
        for row in self._rows:
            for seat in row.seats:
                counts[seat] = counts.get(seat, 0) + 1
        enough = (1 - _MISSING) * len(self._rows)
        seats = [seat for seat, count in counts.items() if count >= enough]
        if not seats:
            raise UsageError("no member was asked on nearly all of these records: ask one panel about all questions")
        members = list(dict.fromkeys(member for member, _ in seats))
        seats.sort(key=lambda seat: (members.index(seat[0]), seat[1]))
        wanted = set(seats)
        rows = [row for row in self._rows if wanted <= set(row.seats)]
        groups = find_groups([row.question for row in rows], [row.task for row in rows])
        order = sorted(range(len(rows)), key=lambda i: (groups[i], i))
        return self._make_panels(seats, [rows[i] for i in order], [groups[i] for i in order])

    def _make_panels(self, seats: list[Seat], rows: list[_PanelRow], groups: list[int]) -> Panels:
        np = load_numpy()
        places = [[row.seats.index(seat) for seat in seats] for row in rows]

        def matrix(name: str, kind: Any = float) -> Any:
            columns = [[getattr(row, name)[i] for i in at] for row, at in zip(rows, places, strict=True)]
            return np.array(columns, dtype=kind).reshape(len(rows), len(seats))

        keys = np.array(
            [_number_keys([row.keys[i] for i in at]) for row, at in zip(rows, places, strict=True)], dtype=np.int32
        ).reshape(len(rows), len(seats))
        sums, tally = self._batch.add_up(), PanelTally()
        tally.add_pairs(self._batch)
        at = np.array([row.row for row in rows], np.intp)
        alone = self._batch.members.there
        every = Took(*(np.where(alone, one, other) for one, other in zip(sums.members, sums.baselines, strict=True)))
        numbers = self._batch.seats
        asked = [(row.row, numbers[seat]) for row in rows for seat in row.seats]
        is_unknown = every.paid_for(np.False_).unknown[tuple(np.array(asked, np.intp).reshape(-1, 2).T)]
        took = every.at(at).of([numbers[seat] for seat in seats])
        fused, judged = sums.fusion.at(at).paid_for(np.False_), sums.judge.at(at)
        priced = not is_unknown.any() and bool(took.usd.any())
        starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
        return Panels(
            seats=seats,
            ids=[row.id for row in rows],
            questions=[row.question for row in rows],
            keys=keys,
            scores=matrix("scores"),
            usable=~matrix("failed", bool),
            usd=took.usd if priced else np.ones_like(took.usd),
            latencies=took.measured_s,
            confidence=matrix("confidence"),
            standing=matrix("standing", np.int64),
            ranked=matrix("ranked", np.int64),
            unranked=matrix("unranked", np.int64),
            fusion=_sum_up([row.fusion for row in rows], fused.measured_s, fused, priced),
            judge=_sum_up([0.0 if row.is_ranked else None for row in rows], judged.latency_s, judged, priced),
            starts=np.array(starts, dtype=np.int64),
            priced=priced,
            tally=tally,
            graders=self._graders,
            recipes=self._recipes,
            dropped=len(self._rows) - len(rows),
        )


def digest_of(panels: Panels) -> str:
    """Return 16 hex digits that stand for these records and their scores."""
    text = hashlib.sha256("\0".join(panels.ids).encode())
    text.update(panels.scores.tobytes())
    return text.hexdigest()[:16]


def _sum_up(scores: Sequence[float | None], seconds: Any, took: Took, priced: bool) -> Any:
    """Return score, cost and seconds of each record as columns; None where not every record has them."""
    if not scores or None in scores or (priced and took.unknown.any()):
        return None
    return load_numpy().array([scores, took.usd if priced else took.calls, seconds], dtype=float).T


def _number_keys(keys: Sequence[str | None]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(key, len(numbers)) if key else -1 for key in keys]


def _read_row(row: int, graded: Graded) -> _PanelRow:
    record, first = graded.record, graded.first
    layers: Any = record.get("layers") or []
    panel: list[Response] = layers[0] if layers else record.get("panel") or []
    # A ranking is of the last layer; what the first one said before it is not ranked.
    plain: Any = {"panel": panel}
    ranked: Any = plain if layers else record
    taken = {grade["member"] for grade in first}
    beside = [grade for grade in graded.baselines if grade["member"] not in taken]
    both = [*first, *beside]
    seats = [(grade["member"], grade["sample"]) for grade in both]
    responses: list[Mapping[str, Any]] = [*panel, *_responses_of(record, beside)]
    if len(responses) != len(both):
        responses = [{} for _ in both]
    best, unranked = (by_rank(each) if len(panel) == len(first) else [] for each in (ranked, plain))
    is_ranked = not layers and bool(set(record.get("analysis", {}).get("ranking", [])) & set(best))
    meta: Mapping[str, Any] = record.get("meta", {})
    name = record["id"].rpartition("#")[0] if record.get("epoch") else record["id"]
    return _PanelRow(
        row=row,
        id=record["id"],
        task=str(meta.get("group") or meta.get("task") or name or record["id"]),
        question=question_text(record),
        seats=seats,
        keys=[grade["key"] for grade in both],
        scores=[grade["score"] for grade in both],
        failed=["error" in grade for grade in both],
        confidence=[_known(response.get("mean_logprob")) for response in responses],
        standing=_rank_places([stands_for(i, response) for i, response in enumerate(responses)]),
        ranked=_places_of(best, len(both)),
        unranked=_places_of(unranked, len(both)),
        fusion=_fusion_of(graded),
        is_ranked=is_ranked,
    )


def _responses_of(record: Record, beside: Sequence[Grade]) -> list[Response]:
    asked = {(grade["member"], grade["sample"]) for grade in beside}
    return [each for each in record.get("baselines", []) if (each["member"], each["sample"]) in asked]


def _fusion_of(graded: Graded) -> float | None:
    """Return the score of a written answer; one that copies a response is no other system than the vote or the pick."""
    if graded.answer is None or graded.record.get("answer", {}).get("by") != "synth":
        return None
    return graded.answer["score"]


def _known(confidence: float | None) -> float:
    return confidence if confidence is not None and math.isfinite(confidence) else -math.inf


def _rank_places(worth: Sequence[Any]) -> list[int]:
    """Return for each place how many are worth more."""
    return _places_of(sorted(range(len(worth)), key=lambda i: worth[i], reverse=True), len(worth))


def _places_of(order: Sequence[int], count: int) -> list[int]:
    """Return where each of so many stands in an order; those that are not in it come last, as they are."""
    places = {i: place for place, i in enumerate(order)}
    return [places.get(i, len(order) + i) for i in range(count)]
