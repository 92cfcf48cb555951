"""What `fuse-tune` found, for a person and for programs: the answer first, then what nobody beats."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fusiontools.cli.report_text import points, span, usd
from fusiontools.cli.table import Cell, Styled, table_text
from fusiontools.cli.text import Paint
from fusiontools.evaluation.report.plot import FrontMark
from fusiontools.evaluation.tune.panels import Panels, digest_of
from fusiontools.record.clean import clean

if TYPE_CHECKING:
    from fusiontools.evaluation.tune.explain import MemberPart
    from fusiontools.evaluation.tune.selection import Choice, Tuning

_WIDTH = 100
_ANSWERS = {"better": "YES", "worse": "NO", "cannot tell": "NOT ENOUGH RECORDS TO TELL", "the same": "NOTHING IS"}
_STYLES = {"better": "green", "worse": "red", "cannot tell": "yellow", "the same": "yellow"}


def format_tuning(
    panels: Panels, tuning: Tuning, parts: Sequence[MemberPart], notes: Sequence[str], colour: bool, width: int | None
) -> str:
    """Return what was found as text; its table is as wide as it needs to be where no width bounds it."""
    paint = Paint(colour)
    question = "Is the chosen way better than the best member alone?"
    lines = [f"{paint(question, 'bold')}  {paint(_ANSWERS[tuning.verdict], _STYLES[tuning.verdict])}"]
    lines += textwrap.wrap(clean(why_of(tuning)), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    cost = "$" if panels.priced else "calls"
    head = ["", "unseen", "95 %", "as chosen", cost, "s"]
    rows: list[list[Cell]] = []
    for name, choice in _rows(tuning):
        label = Styled(choice.way.label, "bold") if name == "chosen" else choice.way.label
        rows.append([name, label, *_numbers(panels, choice)])
    found = ["\n".join(lines) + "\n", table_text(["", *head], rows, left={0, 1}, folding=1, colour=colour, width=width)]
    if parts:
        found.append(_parts(parts, colour, width))
    said = [*learned_words(tuning.chosen), *(f"Note: {note}" for note in notes), method_words(panels, tuning)]
    found.append("\n".join(textwrap.fill(clean(each), _WIDTH, subsequent_indent="  ") for each in said) + "\n")
    return "\n".join(found)


def _rows(tuning: Tuning) -> Iterator[tuple[str, Choice]]:
    yield "chosen", tuning.chosen
    yield "best alone", tuning.best_solo
    for i, choice in enumerate(tuning.front):
        yield "" if i else "front", choice


def _numbers(panels: Panels, choice: Choice) -> list[str]:
    mean = choice.held_out
    cost = usd(choice.cost) if panels.priced else f"{choice.cost:.3g}"
    seconds = "-" if choice.latency_s is None else f"{choice.latency_s:.2g}"
    return [
        points(mean.mean, signed=False),
        span(mean.interval, signed=False),
        points(choice.seen, signed=False),
        cost,
        seconds,
    ]


def why_of(tuning: Tuning) -> str:
    """Return what the answer rests on, and what it would take to tell."""
    gain = tuning.gain
    if tuning.verdict == "the same":
        return (
            f"{tuning.chosen.way.label} alone is chosen: nothing within the limits is better by more than a standard "
            "error."
        )
    p = "< 0.001" if gain.p < 0.001 else f"= {gain.p:.3f}"
    at = f" at {tuning.chosen.cost / tuning.best_solo.cost:.2g}x its cost" if tuning.best_solo.cost else ""
    said = f"{points(gain.mean)} points ({span(gain.interval)}) against {tuning.best_solo.way.label}{at}, p {p}."
    if tuning.verdict == "cannot tell":
        needed, seen = tuning.questions_needed, tuning.difference_seen
        if needed is not None and needed > gain.tasks:
            said += f" To see {points(gain.mean)} takes about {needed:,} questions, {needed - gain.tasks:,} more."
        if seen is not None:
            said += f" These {gain.tasks:,} show {100 * seen:.1f} points or more, 4 times of 5."
        elif needed is None:
            said += " The two hardly ever differ: these questions cannot tell them apart."
    return said


def learned_words(choice: Choice) -> Iterator[str]:
    """Yield what was learned for a way."""
    if choice.learned.weights is not None:
        each = ", ".join(f"{member} {weight:g}" for member, weight in choice.learned.weights.items())
        yield f"A vote counts: {each}."
    if (routing := choice.learned.routing) is not None:
        for place, size in zip(routing.treatments, routing.sizes, strict=True):
            yield f"A kind of {size:,} questions: {choice.learned.treatments[place].label}."


def notes_of(panels: Panels, tuning: Tuning, failed: int, ungraded: int) -> list[str]:
    """Return what a reader must know before believing it."""
    notes = []
    if left := failed + ungraded:
        notes.append(f"{left:,} records failed or have no grades: left out.")
    if panels.dropped:
        notes.append(
            f"{panels.dropped:,} records lack a member that most have: left out (ask the whole panel, without scouts)."
        )
    if (same := len(panels.ids) - panels.groups) > 0:
        notes.append(f"{same:,} records ask what another one asks, or nearly: a question counts once.")
    if panels.groups < 100:
        notes.append(f"Only {panels.groups} questions: take every number here as a hint.")
    if not panels.priced:
        notes.append("Not every price is known, or all are 0: the cost is the number of calls.")
    return notes


def method_words(panels: Panels, tuning: Tuning) -> str:
    """Return how it was computed."""
    return (
        f"{panels.groups:,} questions, {len(panels.members)} members, {tuning.chosen.tried:,} ways tried. `unseen` is "
        "the score of the rule that chooses, on questions that it had not seen (5 folds, 3 within each); `as chosen` "
        "is that of the choice on all of them, which flatters it."
    )


def _parts(parts: Sequence[MemberPart], colour: bool, width: int | None) -> str:
    head = ["member", "alone", "adds to the vote of all", "right alone", "vote needs it", "most like", "", "same error"]
    rows: list[list[Cell]] = []
    for part in parts:
        adds = "-" if part.adds is None else f"{points(part.adds.mean)} ({span(part.adds.interval)})"
        alike = "-" if part.correlation is None else f"{part.correlation:.2f}"
        same = "-" if part.same_error is None else f"{100 * part.same_error:.0f} %"
        alone = points(part.alone.mean, signed=False)
        rows.append([part.member, alone, adds, f"{part.saves:,}", f"{part.needed:,}", part.like or "-", alike, same])
    return table_text(head, rows, left={0, 5}, folding=0, colour=colour, width=width)


def front_marks(panels: Panels, tuning: Tuning) -> list[FrontMark]:
    """Return what is drawn."""
    marks = []
    for name, choice in _rows(tuning):
        marks.append(FrontMark(choice.way.label, choice.cost, choice.held_out, choice.seen, name or "front"))
    return marks


def comments_of(panels: Panels, tuning: Tuning) -> list[str]:
    """Return what stands above the recipe."""
    mean = tuning.chosen.held_out
    return [
        f"Written by fuse-tune from {panels.groups} questions (records {digest_of(panels)}).",
        f"The way: {tuning.chosen.way.label}.",
        f"On questions that the choice had not seen: {points(mean.mean, signed=False)} of 100 "
        f"({span(mean.interval, signed=False)}), chosen among {tuning.chosen.tried} ways.",
        f"Better than the best member alone? {_ANSWERS[tuning.verdict].capitalize()}. {why_of(tuning)}",
    ]


def as_data(panels: Panels, tuning: Tuning, parts: Sequence[MemberPart], notes: Sequence[str]) -> dict[str, Any]:
    """Return all of it."""
    gain = tuning.gain
    low, high = gain.interval
    return {
        "questions": panels.groups,
        "records": len(panels.ids),
        "digest": digest_of(panels),
        "members": panels.members,
        "cost_measure": "usd" if panels.priced else "calls",
        "ways_tried": tuning.chosen.tried,
        "reached": tuning.reached,
        "verdict": tuning.verdict,
        "why": why_of(tuning),
        "gain": {
            "difference": gain.mean,
            "low": low,
            "high": high,
            "p": gain.p,
            "questions_needed": tuning.questions_needed,
        },
        "chosen": _choice_data(tuning.chosen),
        "best_alone": _choice_data(tuning.best_solo),
        "front": [_choice_data(choice) for choice in tuning.front],
        "explain": [_part_data(part) for part in parts],
        "notes": list(notes),
    }


def _choice_data(choice: Choice) -> dict[str, Any]:
    way, mean, learned = choice.way, choice.held_out, choice.learned
    data: dict[str, Any] = {
        "way": way.how,
        "label": way.label,
        "members": list(way.members),
        "samples": way.samples if way.how != "routed" else 1,
        "scouts": way.scouts,
        "until": way.until or None,
        "score": mean.mean,
        "low": mean.interval[0],
        "high": mean.interval[1],
        "score_as_chosen": choice.seen,
        "cost": choice.cost,
        "latency_s": choice.latency_s,
    }
    if learned.weights is not None:
        data["weights"] = dict(learned.weights)
    if learned.routing is not None:
        pairs = zip(learned.routing.treatments, learned.routing.sizes, strict=True)
        data["kinds"] = [{"questions": size, "gets": learned.treatments[place].label} for place, size in pairs]
    return data


def _part_data(part: MemberPart) -> dict[str, Any]:
    adds = None
    if part.adds is not None:
        low, high = part.adds.interval
        adds = {"difference": part.adds.mean, "low": low, "high": high, "p": part.adds.p}
    return {
        "member": part.member,
        "score": part.alone.mean,
        "adds": adds,
        "right_alone": part.saves,
        "vote_needs_it": part.needed,
        "most_like": part.like,
        "correlation": part.correlation,
        "same_error": part.same_error,
    }
