"""The numbers of a whole run: a few for each record and system, never a text; and how the members go together.

Of a panel it is counted who agrees with whom, who errs alike, and what the judge's ranking is worth.

Source  Kim et al. 2025, arXiv:2506.07962 (models that err agree on the error); phi is Pearson's correlation of right
        and wrong
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from fusiontools.answers.certainty import votes_to_be_sure
from fusiontools.evaluation.report.graded import Graded
from fusiontools.evaluation.report.statistics import is_binary
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
    agreement_of,
    find_equal,
    outcomes,
    system_of,
)
from fusiontools.evaluation.report.votes import is_weighable
from fusiontools.record.types import Grade, Record

#: So many responses of a panel are twice what makes sure at the least: of fewer, hardly any is spared.
_AMPLE = 2 * votes_to_be_sure(0, SURE)
#: More members are not compared with each other: the pairs grow with their square.
_MOST = 12


class MemberPair(Struct):
    """Two responses of the same panels, counted over records."""

    n: int = 0
    #: Both can be read as a vote, and for the same.
    voted: int = 0
    same: int = 0
    #: Both are wrong and voted, and of these for the same.
    wrong: int = 0
    same_wrong: int = 0
    both: float = 0.0
    one: float = 0.0
    other: float = 0.0
    one_squared: float = 0.0
    other_squared: float = 0.0

    def add(self, one: Grade, other: Grade) -> None:
        """Count a record."""
        a, b = one["score"], other["score"]
        self.n += 1
        self.both += a * b
        self.one += a
        self.other += b
        self.one_squared += a * a
        self.other_squared += b * b
        if one["key"] and other["key"]:
            is_same, are_wrong = one["key"] == other["key"], a < 1 and b < 1
            self.voted += 1
            self.same += is_same
            self.wrong += are_wrong
            self.same_wrong += is_same and are_wrong

    @property
    def correlation(self) -> float | None:
        """Return how much the scores go together; None where one of them never varies."""
        spread = (self.n * self.one_squared - self.one**2) * (self.n * self.other_squared - self.other**2)
        return (self.n * self.both - self.one * self.other) / math.sqrt(spread) if spread > 1e-9 else None


class Rank(Struct):
    """The responses that a judge put in one place of its ranking."""

    n: int = 0
    score: float = 0.0


class PanelTally(Struct):
    """Counts over all panels; what is kept grows with the panel, not with the records."""

    pairs: dict[tuple[str, str], MemberPair] = {}
    ranks: list[Rank] = []
    #: What a response is worth that is drawn by lot from those ranked.
    chance: Rank = field(default_factory=Rank)
    #: Whether any panel had more than one response to choose from.
    has_choice: bool = False
    is_binary: bool = True

    def add(self, graded: Graded) -> None:
        """Count a record's panel."""
        self.has_choice |= len(graded.panel) > 1
        self.is_binary &= is_binary([grade["score"] for grade in graded.panel])
        self.add_pairs(graded.first or graded.panel)
        self._add_ranks([graded.panel[place] for place in graded.order[: graded.ranked]])

    def add_pairs(self, panel: Sequence[Grade]) -> None:
        """Count how the members of a panel go together."""
        first = [grade for grade in panel if grade["sample"] == 0]
        # One model sampled several times is compared with itself.
        asked = first if len(first) > 1 else panel
        names = [grade["member"] + (f"#{grade['sample']}" if asked is panel else "") for grade in asked]
        seats = sorted(zip(names, asked, strict=True), key=lambda seat: seat[0])[:_MOST]
        for i, (name, grade) in enumerate(seats):
            for other_name, other in seats[i + 1 :]:
                self.pairs.setdefault((name, other_name), MemberPair()).add(grade, other)

    def _add_ranks(self, ranked: Sequence[Grade]) -> None:
        if len(ranked) < 2:
            return
        for place, grade in enumerate(ranked):
            if place == len(self.ranks):
                self.ranks.append(Rank())
            for rank in (self.ranks[place], self.chance):
                rank.n += 1
                rank.score += grade["score"]


_REPETITION = re.compile(r"#\d+\Z")
#: What `SYSTEM` can be besides a model's name.
_WORDS = {"best-single", "same-cost", "judge", "before"}


class Column(Struct):
    """One system over all records; NaN where it was not asked, or its time not measured."""

    scores: array[float] = field(default_factory=lambda: array("d"))
    latencies: array[float] = field(default_factory=lambda: array("d"))
    #: What each record took, so that costs too can be compared on what two systems were both asked.
    calls: array[float] = field(default_factory=lambda: array("d"))
    usd: array[float] = field(default_factory=lambda: array("d"))
    unknown: float = 0.0
    tokens: float = 0.0
    failed: float = 0.0

    def put(self, row: int, outcome: Outcome) -> None:
        """Enter what happened on a record; those before it that are missing were not asked."""
        self.fill(row)
        score, failed, (calls, usd, unknown, tokens, latency_s), samples = outcome
        self.scores.append(score)
        self.latencies.append(latency_s)
        self.calls.append(calls / samples)
        self.usd.append(usd / samples)
        self.unknown += unknown / samples
        self.tokens += tokens / samples
        self.failed += failed

    def fill(self, rows: int) -> None:
        """Enter that it was not asked on what is missing up to so many records."""
        if missing := rows - len(self.scores):
            self.scores.extend([math.nan] * missing)
            self.calls.extend([0.0] * missing)
            self.usd.extend([0.0] * missing)


class ScoreTable(Struct):
    """What was read so far; `finish` closes it."""

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
    keys: int = 0
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
        for system, outcome in outcomes(graded).items():
            if (column := self.columns.get(system)) is None:
                column = self.columns[system] = Column()
            # Without grades nobody knows whether it failed: nobody looked.
            column.put(row, outcome if grades or failed else outcome._replace(failed=0.0))
        if (equal := find_equal(graded)) is not None:
            self.equal = equal if self.equal is None else self.equal & equal
        self.answers += graded.answer is not None
        self.abstained += graded.has_abstained
        self.weighable += is_weighable(graded)
        self.is_ample |= len(graded.panel) >= _AMPLE or graded.is_asked_until
        if (vote := agreement_of(graded)) is not None:
            self.agreements.append(vote)
        self.keys += any(grade["key"] for grade in grades)
        self._name_models(record)
        self.ranked += bool(record.get("analysis", {}).get("ranking"))
        self.panel.add(graded)

    def finish(self) -> None:
        """Fill in what is missing: 0 where a record failed as a whole, and no system that nobody is."""
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
        if not self.keys:
            for system in [system for system in self.columns if system in (VOTE, UNTIL, *WEIGHTED) or system.votes]:
                del self.columns[system]
        if ORACLE in self.columns and not self.panel.has_choice:
            for system in (ORACLE, VOTE, UNTIL, *WEIGHTED, PICK):
                self.columns.pop(system, None)
        for column in self.columns.values():
            column.fill(self.records)
            for row, failed in self._lost.items():
                if math.isnan(column.scores[row]):
                    column.scores[row] = 0.0
                    column.failed += failed
        self._seen.clear()

    @property
    def tasks(self) -> list[str]:
        """Return the tasks' names, in the order in which they came."""
        return list(self._tasks)

    def of_tasks(self, system: System) -> list[float]:
        """Return a system's score on each task, the mean over its repetitions; NaN where it was not asked."""
        sums, counts = [0.0] * len(self._tasks), [0] * len(self._tasks)
        for task, score in zip(self._task_of, self.columns[system].scores, strict=True):
            if score == score:
                sums[task] += score
                counts[task] += 1
        return [total / count if count else math.nan for total, count in zip(sums, counts, strict=True)]

    def same_as(self, system: System) -> list[System]:
        """Return the systems of this table that give the same answers by construction, this one among them."""
        found = [system]
        for one in found:  # which grows meanwhile
            beside = [b if a == one else a for a, b in sorted(self.equal or ()) if one in (a, b)]
            found += [each for each in beside if each in self.columns and each not in found]
        return found

    def tasks_of(self, category: str) -> list[int]:
        """Return the numbers of the tasks of a category."""
        wanted = self.categories.index(category)
        return [task for task, found in enumerate(self._category_of) if found == wanted]

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

    def _name_models(self, record: Record) -> None:
        for call in record.get("calls", ()):
            stage, identity = call["stage"], (call["model"], call["endpoint"])
            if stage == "judge":
                self.judges.add(identity)
            elif stage == "synth":
                self.writers.add(identity)
            elif stage in ("panel", "baseline") and "step" not in call and "member" in call:
                system = system_of("member" if stage == "panel" else "baseline", call["member"])
                self.models.setdefault(system, set()).add(identity)
