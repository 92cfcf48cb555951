"""Everything that a report says of one run, computed: systems, costs, comparisons, categories, the panel, notes.

Compared is money, where all of it is known and somebody pays; else the number of calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from fusiontools.errors import UsageError, nearest
from fusiontools.evaluation.report.comparisons import Contest, compare_with_best, correct_for_number
from fusiontools.evaluation.report.notes import NoteContext, write_notes
from fusiontools.evaluation.report.panel_tally import MemberPair, Rank
from fusiontools.evaluation.report.reliability import AgreementPart, sort_by_agreement
from fusiontools.evaluation.report.scores import Column, ScoreTable
from fusiontools.evaluation.report.statistics import (
    Draws,
    Mean,
    PairedDifference,
    add_exactly,
    compare_paired,
    estimate,
    is_binary,
    load_numpy,
    present,
    quantile,
)
from fusiontools.evaluation.report.systems import FUSION, LEARNED, ORACLE, PICK, UNTIL, VOTE, System

Measure = Literal["usd", "calls"]
#: How far a cost may lie from the fusion's and still be called the same: the half, or twice as much.
_NEAR = 2.0


class Cost(Struct, frozen=True):
    """What a system costs for one record; `unknown` calls make `usd` a lower bound."""

    usd: float
    calls: float
    tokens: float
    unknown: float

    def of(self, measure: Measure) -> float:
        """Return the cost that is compared."""
        return self.usd if measure == "usd" else self.calls


def cost_of(column: Column) -> Cost:
    """Return what a system costs for one record that it was asked."""
    asked = len(present(column.scores)) or 1
    return Cost(
        add_exactly(column.usd) / asked, add_exactly(column.calls) / asked, column.tokens / asked, column.unknown
    )


def usd_per_right(column: Column) -> float | None:
    """Return what a right answer costs: nobody knows where a cost is unknown, or nothing is right."""
    right = add_exactly(present(column.scores))
    return add_exactly(column.usd) / right if right and not column.unknown else None


def measure_of(table: ScoreTable, subject: System) -> Measure:
    """Return whether money can be compared."""
    alone = [column for system, column in table.columns.items() if system.model]
    columns = [table.columns[subject], *alone]
    return "usd" if all(column.usd.any() and not column.unknown for column in columns) else "calls"


def find_ratios(table: ScoreTable, subject: System) -> dict[System, float]:
    """Return what each system costs as a multiple of what the subject does, on the records that both were asked.

    There is none where that is nothing.
    """
    measure, own = measure_of(table, subject), table.columns[subject]
    ratios: dict[System, float] = {}
    for system, column in table.columns.items():
        both = (own.scores == own.scores) & (column.scores == column.scores)
        costs = [each.usd if measure == "usd" else each.calls for each in (own, column)]
        whole, theirs = (add_exactly(cost[both]) for cost in costs)
        if whole:
            ratios[system] = theirs / whole
    return ratios


def find_nearest_in_cost(ratios: Mapping[System, float], subject: System) -> dict[System, float]:
    """Return of each model alone the one use whose cost is nearest to the subject's: so many samples, and their vote.

    Args:
        ratios: what each system costs as a multiple of what the subject does; so are the values returned.
    """
    uses: dict[tuple[str, str], dict[System, float]] = {}
    for system, ratio in ratios.items():
        if system.model and system != subject and ratio > 0:
            uses.setdefault((system.kind, system.model), {})[system] = ratio
    chosen = (min(each, key=lambda system: (abs(math.log(each[system])), system.votes)) for each in uses.values())
    return {system: uses[system.kind, system.model][system] for system in chosen}


def is_near(ratio: float) -> bool:
    """Return whether a cost may be called the same."""
    return 1 / _NEAR <= ratio <= _NEAR


_ORDER = {
    "fusion": 0, "answered": 0.5, "checked": 0.6, "vote": 1, "given": 1.1, "learned": 1.2, "logprob": 1.3, "surer": 1.4,
    "until": 1.5, "pick": 2, "member": 3, "baseline": 4, "oracle": 6,
}  # fmt: skip


class SummaryRow(Struct, frozen=True):
    """One system: its score, and what it takes for one record."""

    name: str
    system: System
    #: `judge` and `synth`, where its model had these parts in the fusion.
    parts: tuple[str, ...]
    score: Mean
    records: int
    #: Systems that give the same answers by construction: they have no row of their own.
    same: tuple[str, ...]
    #: Whether it was asked the same tasks as the subject, so that the two can stand in one picture.
    is_beside: bool
    cost: Cost
    #: What it costs as a multiple of what the subject does, in the measure of the summary.
    ratio: float | None
    usd_per_right: float | None
    p50_s: float | None
    p95_s: float | None
    failed: float


class Category(Struct, frozen=True):
    """The tasks of one category; `differences` are the subject's, against the rivals of the whole."""

    name: str
    tasks: int
    scores: dict[str, Mean]
    differences: dict[str, PairedDifference]


class PanelSummary(Struct, frozen=True):
    """What can be said of the panel: pairs of members, the ceiling of any selection, the judge's ranking."""

    pairs: dict[tuple[str, str], MemberPair]
    #: The score of whoever always chooses the best response.
    ceiling: Mean | None
    #: The share of tasks that nobody gets right; None where texts can be right in part.
    co_failure: float | None
    #: How much of the way from the best member to the ceiling the subject goes; None where there is no way.
    recovered: float | None
    ranks: list[Rank]
    chance: Rank
    #: How often votes are right, by how many agree.
    agreement: list[AgreementPart]


class Summary(Struct, frozen=True):
    """A report."""

    tasks: int
    records: int
    draws: Draws
    subject: str
    measure: Measure
    binary: bool
    rows: list[SummaryRow]
    contests: list[Contest]
    categories: list[Category]
    panel: PanelSummary
    notes: list[str]

    def row(self, name: str) -> SummaryRow:
        """Return a system's row; that of one that gives the same answers where it has none of its own."""
        return next(row for row in self.rows if name == row.name or name in row.same)


class SummaryBuilder:
    """One run on its way to a report.

    Args:
        table: a run, finished.
        subject: the name of the system that is compared with the others; the fusion where none is given.
    """

    def __init__(self, table: ScoreTable, subject: str | None, draws: Draws) -> None:
        self.table = table
        self.draws = draws
        self.labels = table.labels()
        self.systems = {name: system for system, name in self.labels.items()}
        self.subject = (
            self._find(subject) if subject else next(s for s in (FUSION, VOTE, *self.labels) if s in self.labels)
        )
        self.ratios = find_ratios(table, self.subject)
        self.near = find_nearest_in_cost(self.ratios, self.subject)
        self._scores: dict[System, Any] = {}

    def build(self) -> Summary:
        """Return the report."""
        shown, wanted = self._choose_shown(), self._choose_rivals()
        own = self._read_scores(self.subject)
        scores, pairs = estimate(
            [self._read_scores(s) for s in shown],
            [(own, self._read_scores(rival)) for _, rival in wanted],
            self.draws,
        )
        rows = self._make_rows(shown, scores)
        contests = self._compare(wanted, pairs)
        subject = self.labels[self.subject]
        return Summary(
            tasks=len(self.table.tasks),
            records=self.table.records,
            draws=self.draws,
            subject=subject,
            measure=measure_of(self.table, self.subject),
            binary=all(
                is_binary(present(self.table.columns[row.system].scores)) for row in rows if not row.system.model
            ),
            rows=rows,
            contests=contests,
            categories=self._make_categories(rows, contests),
            panel=self._sum_up_panel(rows, contests),
            notes=write_notes(self._note_context(rows, contests)),
        )

    def difference(self, rival: str) -> PairedDifference:
        """Compare the subject with one system that a person named."""
        found = compare_paired([(self._read_scores(self.subject), self._read_scores(self._find(rival)))], self.draws)[0]
        if found is None:
            raise UsageError(f"{self.labels[self.subject]} and {rival} have no task in common")
        return found

    def _find(self, name: str) -> System:
        if name not in self.systems:
            raise UsageError(f"no system is called {name!r} here{nearest(name, list(self.systems))}")
        return self.systems[name]

    def _read_scores(self, system: System) -> Any:
        if system not in self._scores:
            self._scores[system] = self.table.of_tasks(system)
        return self._scores[system]

    def _choose_shown(self) -> list[System]:
        """Return the systems of the table; of votes of one model only those that cost what the subject does.

        Of systems that are the same, the subject is shown, else the first: the fusion, the vote, the pick.
        """
        shown = [s for s in self.labels if not s.votes or s == self.subject or s in self.near]
        shown = [s for s in shown if s == self._choose_among(self.table.same_as(s))]
        known = {s: present(self._read_scores(s)) for s in shown}
        scores = {s: add_exactly(own) / len(own) if len(own) else -1.0 for s, own in known.items()}
        return sorted(shown, key=lambda s: (_ORDER[s.kind] + bool(s.votes), -scores[s], self.labels[s]))

    def _choose_among(self, same: Sequence[System]) -> System:
        return self.subject if self.subject in same else min(same, key=lambda s: (_ORDER[s.kind], s))

    def _was_asked(self, system: System) -> Any:
        """Return of each task whether a system has a score there, as an array."""
        scores = self._read_scores(system)
        return scores == scores

    def _make_rows(self, shown: Sequence[System], scores: Sequence[Mean | None]) -> list[SummaryRow]:
        rows = []
        for system, score in zip(shown, scores, strict=True):
            if score is None:
                continue
            column = self.table.columns[system]
            times = present(column.latencies)
            is_real = system != ORACLE
            is_timed = is_real and len(times) > 0
            rows.append(
                SummaryRow(
                    name=self.labels[system],
                    system=system,
                    parts=self._find_parts(system),
                    score=score,
                    records=len(present(column.scores)),
                    same=tuple(self.labels[s] for s in self.table.same_as(system)[1:]),
                    is_beside=bool((self._was_asked(system) == self._was_asked(self.subject)).all()),
                    cost=cost_of(column),
                    ratio=self.ratios.get(system) if is_real else None,
                    usd_per_right=usd_per_right(column) if is_real else None,
                    p50_s=quantile(times, 0.5) if is_timed else None,
                    p95_s=quantile(times, 0.95) if is_timed else None,
                    failed=column.failed,
                )
            )
        return rows

    def _find_parts(self, system: System) -> tuple[str, ...]:
        """Return what else this model did in the fusion."""
        if not system.model or system.votes:
            return ()
        models = self.table.models.get(system, set())
        had = (("judge", self.table.judges), ("synth", self.table.writers))
        return tuple(part for part, by in had if models & by)

    def _choose_rivals(self) -> list[tuple[str, System]]:
        """Return what the subject must beat to be worth its cost, each with the name of the comparison."""
        asked: dict[str, list[System]] = {
            "same-cost": [system for system, ratio in self.near.items() if is_near(ratio)],
            "best-single": [s for s in self.labels if s.kind == "member" and not s.votes],
        }
        asked |= self._find_part_rivals()
        asked |= {system.kind: [system] for system in (VOTE, UNTIL, LEARNED, PICK) if system in self.labels}
        same = self.table.same_as(self.subject)
        return [(name, rival) for name, rivals in asked.items() for rival in rivals if rival not in same]

    def _compare(self, wanted: Sequence[tuple[str, System]], pairs: Sequence[PairedDifference | None]) -> list[Contest]:
        grouped: dict[str, dict[str, PairedDifference]] = {}
        for (name, rival), pair in zip(wanted, pairs, strict=True):
            if pair is not None:
                grouped.setdefault(name, {})[self.labels[rival]] = pair
        return correct_for_number([compare_with_best(name, rivals) for name, rivals in grouped.items()])

    def _find_part_rivals(self) -> dict[str, list[System]]:
        """Return the models that judged or wrote, asked alone, one comparison for each; a baseline before a member."""
        found: dict[str, list[System]] = {}
        alone = [s for s in self.labels if s.model and not s.votes]
        seen: set[tuple[str, str]] = set()
        for part in ("judge", "synth"):
            for system in sorted(alone, key=lambda s: s.kind):
                models = self.table.models.get(system, set())
                if part in self._find_parts(system) and not models & seen:
                    seen |= models
                    found[f"{part} {self.labels[system]}" if part in found else part] = [system]
        return found

    def _make_categories(self, rows: Sequence[SummaryRow], contests: Sequence[Contest]) -> list[Category]:
        names = sorted(self.table.categories)
        if len(names) < 2:
            return []
        rivals = list(dict.fromkeys(c.rival for c in contests if c.against in ("same-cost", "best-single")))
        tasks = {name: self.table.tasks_of(name) for name in names}
        # A rival that gives the same answers as another system has no row of its own.
        scores = {name: self._read_scores(self.systems[name]) for name in (*(row.name for row in rows), *rivals)}
        subject = self._read_scores(self.subject)

        def within(column: Any, name: str) -> Any:
            return column[tasks[name]]

        every = [(name, row.name) for name in names for row in rows]
        pairs = [(name, rival) for name in names for rival in rivals]
        found, differ = estimate(
            [within(scores[row], name) for name, row in every],
            [(within(subject, name), within(scores[rival], name)) for name, rival in pairs],
            self.draws,
        )
        return [
            Category(
                name,
                len(tasks[name]),
                {row: mean for (of, row), mean in zip(every, found, strict=True) if of == name and mean},
                {rival: pair for (of, rival), pair in zip(pairs, differ, strict=True) if of == name and pair},
            )
            for name in names
        ]

    def _sum_up_panel(self, rows: Sequence[SummaryRow], contests: Sequence[Contest]) -> PanelSummary:
        tally = self.table.panel
        ceiling = next((row.score for row in rows if row.system == ORACLE), None)
        best = next((each for each in contests if each.against == "best-single"), None)
        recovered = None
        if ceiling is not None and best is not None and self.subject != ORACLE:
            recovered = self._find_recovered(self.systems[best.rival])
        agreement = sort_by_agreement(self.table.agreements)
        co_failure = 1 - ceiling.mean if ceiling is not None and tally.is_binary else None
        return PanelSummary(tally.pairs, ceiling, co_failure, recovered, tally.ranks, tally.chance, agreement)

    def _find_recovered(self, best: System) -> float | None:
        """Return how much of the way from the best member to the ceiling the subject goes, where all have a score."""
        columns = [self._read_scores(system) for system in (best, self.subject, ORACLE)]
        common = ~load_numpy().isnan(columns).any(axis=0)
        start, reached, end = (add_exactly(scores[common]) for scores in columns)
        return (reached - start) / (end - start) if end - start > 1e-9 * common.sum() else None

    def _note_context(self, rows: Sequence[SummaryRow], contests: Sequence[Contest]) -> NoteContext:
        shown = {each.against for each in contests}
        far = {self.labels[s]: ratio for s, ratio in self.near.items() if not is_near(ratio)}
        return NoteContext(
            table=self.table,
            subject=self.labels[self.subject],
            shown=shown,
            members=len(next((c.rivals for c in contests if c.against == "best-single"), {})),
            asked={row.name: row.score.tasks for row in rows},
            unknown=[row.name for row in rows if row.cost.unknown and row.system != ORACLE],
            far=far,
            parts={part for row in rows for part in row.parts},
        )
