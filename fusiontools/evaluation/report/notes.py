"""What a reader must know before believing a report: what is missing, and what was chosen on the same tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from fusiontools.evaluation.report.scores import ScoreTable
from fusiontools.evaluation.report.systems import LEARNED, SURE, UNTIL, VOTE

#: Of fewer tasks every number is a hint.
_FEW = 30


class NoteContext(Struct, frozen=True):
    """What the notes are made of."""

    table: ScoreTable
    subject: str
    #: The comparisons that are shown.
    shown: Collection[str]
    #: Of how many members the best is named.
    members: int
    #: On how many tasks each system has a score.
    asked: Mapping[str, int]
    #: Systems whose cost is not known whole.
    unknown: Sequence[str]
    #: Models alone that cost less than half, or more than twice, of what the subject does.
    far: Mapping[str, float]
    #: Parts in the fusion whose model was asked alone too.
    parts: Collection[str]


def write_notes(context: NoteContext) -> list[str]:
    """Return the notes, in the order of their weight."""
    return [*_note_records(context.table), *_note_comparisons(context), *_note_systems(context)]


def _note_records(table: ScoreTable) -> Iterator[str]:
    if table.errors:
        yield f"{_count_records(table.errors)} failed as a whole and count 0 for everybody who has no grade there."
    if table.ungraded:
        yield f"{_count_records(table.ungraded)} without any grade: counted 0 for every system (fuse-grade them)."
    if table.abstained:
        yield (
            f"{_count_records(table.abstained)} without an answer, because the vote abstained: 0 for fusion; "
            f"`answered` is its score on the others (coverage {100 * (1 - table.abstained / table.records):.1f} %)."
        )
    if LEARNED in table.columns:
        yield "`learned` counts votes by weights that the recipe brings: learned from these records, it looks too good."
    if table.weighable:
        some = f" in {_count_records(table.weighable)}" if table.weighable < table.records else ""
        yield (
            f"`logprob` counts votes by how sure a member was beside its other responses{some}, `surer` leaves out its "
            "least sure ones: those that the vote left out, or the share that the recipe says, else half."
        )
    if UNTIL in table.columns and VOTE not in table.same_as(UNTIL):
        yield (
            f"`until` is the vote of the panel's first responses, members in turn: of as many as make {100 * SURE:g} % "
            "sure what most say (`fuse-panel --until`)."
        )
    if table.repeated:
        yield f"{_count_records(table.repeated)} with an id that came before: counted as repetitions of one task."
    if len(table.tasks) < _FEW:
        yield f"Only {len(table.tasks)} tasks: take every number here as a hint."


def _note_comparisons(context: NoteContext) -> Iterator[str]:
    if context.members > 1:
        yield (
            f"The best of {context.members} members is chosen on the same tasks, so it looks better than it is; p and "
            "interval hold whichever is best: `better` needs a win over every member, `worse` pays for the choice."
        )
    if "same-cost" not in context.shown:
        nearest = ", ".join(f"{name} at {ratio:.2g}×" for name, ratio in sorted(context.far.items()))
        seen = f" (nearest: {nearest})" if nearest else ""
        yield (
            f"No single model was asked at about the cost of {context.subject}{seen}: `fuse-panel --baseline MODEL*N` "
            "asks one N times, and its vote is the comparison that counts."
        )
    for part, did, models in (
        ("judge", "compared", context.table.judges),
        ("synth", "wrote", context.table.writers),
    ):
        if models and part not in context.parts:
            names = ", ".join(sorted(model for model, _ in models))
            yield f"The model that {did} ({names}) was not asked alone: `fuse-panel --baseline MODEL` does."


def _note_systems(context: NoteContext) -> Iterator[str]:
    partly = [f"{name} on {n:,}" for name, n in context.asked.items() if n < len(context.table.tasks)]
    if partly:
        of = f"of {len(context.table.tasks):,} tasks"
        yield f"Not asked everywhere ({', '.join(partly)} {of}): compared on the tasks that both were asked."
    if context.unknown:
        yield (
            f"Costs marked ≥, or unknown, lack calls whose price nobody said ({', '.join(context.unknown)}): what a "
            "right answer costs is unknown there."
        )


def _count_records(count: int) -> str:
    return f"{count:,} record{'s' if count > 1 else ''}"
