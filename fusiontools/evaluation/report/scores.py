"""The numbers of a whole run: a few for each record and system, never a text.

Records are read into batches (`columns.py`), and all systems are told from a batch at once.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from fusiontools.answers.certainty import votes_to_be_sure
from fusiontools.evaluation.report.columns import Batch
from fusiontools.evaluation.report.graded import Graded
from fusiontools.evaluation.report.panel_tally import PanelTally
from fusiontools.evaluation.report.statistics import add_in_turn, load_numpy
from fusiontools.evaluation.report.systems import (
    ANSWERED,
    CHECKED,
    FUSION,
    LOGPROB,
    ORACLE,
    PICK,
    SURE,
    SURER,
    UNTIL,
    VOTE,
    WEIGHTED,
    Outcome,
    System,
    find_equal,
    not_asked,
    tell,
)
from fusiontools.evaluation.report.took import CallOwner
from fusiontools.evaluation.report.votes import is_weighable
from fusiontools.record.types import Record

#: So many responses of a panel are twice what makes sure at the least: of fewer, hardly any is spared.
_AMPLE = 2 * votes_to_be_sure(0, SURE)
_REPETITION = re.compile(r"#\d+\Z")
#: What `SYSTEM` can be besides a model's name.
_WORDS = {"best-single", "same-cost", "judge", "before"}


class Column(Struct):
    """One system over all records: arrays; NaN where it was not asked, or its time not measured."""

    scores: Any
    latencies: Any
    #: What each record took, so that costs too can be compared on what two systems were both asked.
    calls: Any
    usd: Any
    unknown: float
    tokens: float
    failed: float

    @classmethod
    def of(cls, parts: Sequence[Outcome]) -> Column:
        """Return how it fared, batch by batch."""
        np = load_numpy()
        rows = [
            (score, took.measured_s, took.calls / samples, took.usd / samples, took.unknown / samples,
             took.tokens / samples, failed)
            for score, failed, took, samples in parts
        ]  # fmt: skip
        scores, latencies, calls, usd, *sums = map(np.concatenate, zip(*rows, strict=True))
        unknown, tokens, failed = (add_in_turn(0.0, each) for each in sums)
        return cls(scores, latencies, calls, usd, unknown, tokens, failed)


class ScoreTable(Struct):
    """What was read so far; `finish` closes it."""

    #: So many records are told at a time: what is kept of their texts and calls is let go then.
    at_a_time: int = 4096
    columns: dict[System, Column] = {}
    panel: PanelTally = field(default_factory=PanelTally)
    records: int = 0
    graded: int = 0
    #: Records with an `error`, and those that nobody graded.
    errors: int = 0
    ungraded: int = 0
    #: How many records have a ranking.
    ranked: int = 0
    answers: int = 0
    abstained: int = 0
    #: Whether asking until it is sure was, or would have been, worth it: nothing can be spared of a small panel.
    is_ample: bool = False
    #: How many records say how sure two responses of one member were.
    weighable: int = 0
    has_votes: bool = False
    #: Of each vote, which share of the panel agrees, and the score of its answer.
    agreements: list[tuple[float, float]] = []
    #: Models, with their endpoints, that judged, that wrote, and that were asked alone as this or that system.
    judges: set[tuple[str, str]] = set()
    writers: set[tuple[str, str]] = set()
    models: dict[System, set[tuple[str, str]]] = {}
    categories: list[str] = []
    repeated: int = 0
    #: Systems that give the same answer by construction on every record; None before the first.
    equal: set[tuple[System, System]] | None = None
    _batch: Batch = field(default_factory=Batch)
    #: How many records each batch had, and how the systems fared that it held.
    _told: list[tuple[int, dict[System, Outcome]]] = []
    _tasks: dict[str, int] = {}
    _task_of: array[int] = field(default_factory=lambda: array("l"))
    _category_of: list[int] = []
    _seen: set[tuple[str, int]] = set()
    #: Records in which whoever has no grade scores 0, and whether he failed.
    _lost: dict[int, bool] = {}

    def add(self, record: Record) -> None:
        """Take a record's numbers."""
        row, self.records = self.records, self.records + 1
        self._place(record)
        grades, failed = record.get("grades") or [], "error" in record
        self.errors += failed
        self.graded += bool(grades)
        self.ungraded += not grades and not failed
        if failed or not grades:
            self._lost[row] = failed
        graded = Graded.of(record)
        if self.equal != set() and (equal := find_equal(graded)) is not None:
            self.equal = equal if self.equal is None else self.equal & equal
        self.answers += graded.answer is not None
        self.abstained += graded.has_abstained
        self.weighable += is_weighable(graded)
        self.is_ample |= len(graded.panel) >= _AMPLE or bool(graded.asked_until[0])
        self.has_votes = self.has_votes or any(grade["key"] for grade in grades)
        self.ranked += bool(record.get("analysis", {}).get("ranking"))
        self._batch.add(graded)
        if self._batch.rows == self.at_a_time:
            self._take_batch()

    def _take_batch(self) -> None:
        """Tell the systems of the records that were read since the last time."""
        np = load_numpy()
        batch, self._batch = self._batch, Batch()
        told = tell(batch)
        self._told.append((batch.rows, told.outcomes))
        has_voted = ~np.isnan(told.agreement)
        self.agreements += zip(told.agreement[has_voted].tolist(), told.voted[has_voted].tolist(), strict=True)
        self.panel.add(batch)
        for owner in batch.owners:
            self._name_model(owner)

    def finish(self) -> None:
        """Fill in what is missing: 0 where a record failed as a whole, and no system that nobody is."""
        np = load_numpy()
        if self._batch.rows:
            self._take_batch()
        every = dict.fromkeys(system for _, outcomes in self._told for system in outcomes)
        columns = {
            system: Column.of([outcomes.get(system) or not_asked(rows) for rows, outcomes in self._told])
            for system in every
        }
        # In the order in which they came.
        self.columns = dict(sorted(columns.items(), key=lambda each: int(np.isnan(each[1].scores).argmin())))
        self._told.clear()
        if not self.answers:
            self.columns.pop(FUSION, None)
        if not self.answers or not self.abstained or self.abstained == self.records:
            self.columns.pop(ANSWERED, None)
        if not self.ranked:
            self.columns.pop(PICK, None)
        if not self.is_ample:
            self.columns.pop(UNTIL, None)
        if not self.weighable:
            for system in (LOGPROB, SURER):
                self.columns.pop(system, None)
        if not self.has_votes:
            for system in [system for system in self.columns if system in (VOTE, UNTIL, *WEIGHTED) or system.votes]:
                del self.columns[system]
        if ORACLE in self.columns and not self.panel.has_choice:
            for system in (ORACLE, VOTE, UNTIL, *WEIGHTED, PICK):
                self.columns.pop(system, None)
        for column in self.columns.values():
            for row, failed in self._lost.items():
                if math.isnan(column.scores[row]):
                    column.scores[row] = 0.0
                    column.failed += failed
        self._seen.clear()

    @property
    def tasks(self) -> list[str]:
        """Return the tasks' names, in the order in which they came."""
        return list(self._tasks)

    def of_tasks(self, system: System) -> Any:
        """Return a system's score on each task, the mean over its repetitions; NaN where it was not asked."""
        np = load_numpy()
        scores = self.columns[system].scores
        is_asked = scores == scores
        tasks = np.array(self._task_of)[is_asked]
        counts = np.bincount(tasks, minlength=len(self._tasks))
        sums = np.bincount(tasks, scores[is_asked], len(self._tasks))
        return np.where(counts, sums / np.maximum(counts, 1), math.nan)

    def same_as(self, system: System) -> list[System]:
        """Return the systems of this table that give the same answers by construction, this one among them."""
        found = [system]
        for one in found:  # which grows meanwhile
            beside = [b if a == one else a for a, b in sorted(self.equal or ()) if one in (a, b)]
            found += [each for each in beside if each in self.columns and each not in found]
        return found

    def tasks_of(self, category: str) -> Any:
        """Return the numbers of the tasks of a category, as an array."""
        np = load_numpy()
        return np.flatnonzero(np.array(self._category_of) == self.categories.index(category))

    def labels(self) -> dict[System, str]:
        """Return a name for each system: its model's, unless two would be called the same."""
        labels: dict[System, str] = {}
        taken = {
            *_WORDS,
            *(system.kind for system in (FUSION, ANSWERED, CHECKED, VOTE, UNTIL, *WEIGHTED, PICK, ORACLE)),
        }
        for system in sorted(self.columns, key=lambda s: (s.model != "", s.kind != "member", s.model, s.votes)):
            name = system.model + (f"*{system.votes}" if system.votes else "") if system.model else system.kind
            if system.model and name in taken:
                name = f"{system.kind}:{name}"
            taken.add(name)
            labels[system] = name
        return labels

    def _place(self, record: Record) -> None:
        """Note of which task a record is, and of which category the task."""
        meta: Mapping[str, Any] = record.get("meta", {})
        epoch = record.get("epoch") or 0
        name = str(meta.get("task") or (_REPETITION.sub("", record["id"]) if epoch else record["id"]))
        task = self._tasks.setdefault(name, len(self._tasks))
        self._task_of.append(task)
        self.repeated += (record["id"], epoch) in self._seen
        self._seen.add((record["id"], epoch))
        if task == len(self._category_of):
            category = str(meta.get("category") or "")
            if category not in self.categories:
                self.categories.append(category)
            self._category_of.append(self.categories.index(category))

    def _name_model(self, owner: CallOwner) -> None:
        identity = (owner.model, owner.endpoint)
        if owner.stage == "judge":
            self.judges.add(identity)
        elif owner.stage == "synth":
            self.writers.add(identity)
        elif owner.stage in ("panel", "baseline") and owner.step is None and owner.member is not None:
            system = System("member" if owner.stage == "panel" else "baseline", owner.member)
            self.models.setdefault(system, set()).add(identity)
