"""What a record says was chosen from its panel, and the votes in which not all count the same, counted from its grades.

Each vote is what `fuse-vote` would have answered, told from what the record holds: no model is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fusiontools.answers.confidence import find_least_confident, is_comparable, weigh_by_confidence
from fusiontools.answers.tally import count_votes
from fusiontools.evaluation.report.graded import Graded, Place, Weighting, vote_section
from fusiontools.record.types import Grade, Record

#: What may be known to be chosen from a panel: what a vote and a pick took, where they made the answer, and what wins
#: the votes in which not all count the same.
Chosen = Literal["vote", "pick"] | Weighting
#: What the vote of the surer leaves out where the record's recipe does not say.
HALF = 0.5


def chosen_by(graded: Graded) -> dict[Chosen, Grade]:
    """Return the grade of what is chosen from the panel by stages and votes of which the record says enough.

    That is what the answer took, where this made it; else what wins the vote by its weights.
    """
    found: dict[Chosen, Grade | None] = {stage: graded.copied for stage in ("vote", "pick") if graded.is_by(stage)}
    if graded.panel:
        for kind, weights in _weightings(graded).items():
            found[kind] = (graded.copied if kind == graded.weighting else None) or _count(graded, weights)
    return {name: grade for name, grade in found.items() if grade is not None}


def _weightings(graded: Graded) -> dict[Weighting, list[float]]:
    """Return what each of the panel's responses counts in each such vote."""
    found: dict[Weighting, list[float]] = {}
    record, panel = graded.record, graded.panel
    if vote := vote_section(record):
        for name, key in (("given", "weights"), ("learned", "learned")):
            own = vote.get(key)
            if isinstance(own, dict) and own:
                found[name] = [_number(own.get(grade["member"]), 1.0) for grade in panel]  # type: ignore[index]
    if not graded.sure:
        return found
    members, known = [grade["member"] for grade in panel], _each(record, panel, "mean_logprob")
    if is_comparable(members, known):
        found["logprob"] = weigh_by_confidence(members, known)
        left_out = _least_sure(record, panel)
        found["surer"] = [float(place not in left_out) for place in range(len(panel))]
    return found


def is_weighable(graded: Graded) -> bool:
    """Return whether a member gave two responses of which it is known how sure they are."""
    if not graded.sure:
        return False
    panel = graded.record.get("panel") or []
    return is_comparable([each["member"] for each in panel], [each.get("mean_logprob") for each in panel])


def _count(graded: Graded, weights: Sequence[float]) -> Grade:
    """Return the grade of the response that wins a vote, a tie broken as in `fuse-vote`.

    It goes to the most confident, else by the ranking, else to the first; as does a vote where nobody votes.

    Args:
        weights: what each of the panel counts.
    """
    ordered = [graded.panel[place] for place in graded.order]
    tally = count_votes(
        [grade["key"] for grade in ordered],
        [weights[place] for place in graded.order],
        [graded.sure.get(_place_of(grade)) for grade in ordered],
    )
    if tally is None:
        return next((grade for grade in ordered if "error" not in grade), ordered[0])
    return ordered[tally.winner]


def _least_sure(record: Record, panel: Sequence[Grade]) -> list[int]:
    """Return the places that the vote of the surer leaves out: those that the record's own left out, where it did."""
    vote: Mapping[str, Any] = record.get("answer", {}).get("vote") or {}
    if "dropped" in vote:
        return list(vote["dropped"])
    share = _number(vote_section(record).get("drop_lowest"), 0.0) or HALF
    members = [grade["member"] for grade in panel]
    return find_least_confident(members, _each(record, panel, "lowest_window_logprob"), share)


def _each(
    record: Record, panel: Sequence[Grade], name: Literal["mean_logprob", "lowest_window_logprob"]
) -> list[float | None]:
    known = {(r.get("layer", 1), r["member"], r.get("sample", 0)): r.get(name) for r in record.get("panel") or []}
    return [known.get(_place_of(grade)) for grade in panel]


def _place_of(grade: Grade) -> Place:
    return grade["layer"], grade["member"], grade["sample"]


def _number(said: Any, otherwise: float) -> float:
    return said if isinstance(said, int | float) and not isinstance(said, bool) else otherwise
