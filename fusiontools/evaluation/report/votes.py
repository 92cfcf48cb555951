"""The votes that can be counted from a record's grades: the plain one, and those in which not all count the same.

Each is what `fuse-vote` would have answered, told from what the record holds: no model is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fusiontools.answers.confidence import find_least_confident, is_comparable, weigh_by_confidence
from fusiontools.answers.tally import count_votes
from fusiontools.record.types import Grade, Record

#: What the vote of the surer leaves out where the record's recipe does not say.
HALF = 0.5
#: A response's place: its layer, member and sample.
Place = tuple[int, str, int]
#: A vote whose responses do not all count the same: by weights that the recipe gives or has learned, by how sure each
#: was, or without those that were least sure.
Weighting = Literal["given", "learned", "logprob", "surer"]


def weightings(record: Record, panel: Sequence[Grade]) -> dict[Weighting, list[float]]:
    """Return what each of the panel's responses counts in each vote that this record's own words make possible."""
    found: dict[Weighting, list[float]] = {}
    vote = _vote_section(record)
    for name, key in (("given", "weights"), ("learned", "learned")):
        own = vote.get(key)
        if isinstance(own, Mapping) and own:
            found[name] = [_number(own.get(grade["member"]), 1.0) for grade in panel]  # type: ignore[index]
    members, known = [grade["member"] for grade in panel], _each(record, panel, "mean_logprob")
    if is_comparable(members, known):
        found["logprob"] = weigh_by_confidence(members, known)
        left_out = _least_sure(record, panel)
        found["surer"] = [float(place not in left_out) for place in range(len(panel))]
    return found


def is_weighable(record: Record) -> bool:
    """Return whether a member gave two responses of which it is known how sure they are."""
    panel = record.get("panel") or []
    return is_comparable([each["member"] for each in panel], [each.get("mean_logprob") for each in panel])


def weighting_of(record: Record) -> Weighting | Literal["plain"] | None:
    """Return which vote the record's own answer was; None where it is another one, or no vote.

    It goes by what stands in the record: a `--weight` that was typed does not.
    """
    vote: Mapping[str, Any] = record.get("answer", {}).get("vote") or {}
    if not vote or "abstained" in record.get("answer", {}):
        return None
    weighing, has_weights = vote.get("weighing", "given"), bool(_vote_section(record).get("weights"))
    if "dropped" in vote:
        return "surer" if weighing == "given" and not has_weights else None
    if weighing == "logprob":
        return None if has_weights else "logprob"
    return "learned" if weighing == "learned" else "given" if has_weights else "plain"


def counted_in(record: Record, panel: Sequence[Grade], weights: Sequence[float] | None = None) -> Grade:
    """Return the grade of the response that wins a vote, a tie broken by the ranking.

    Args:
        weights: what each of the panel counts; all the same where none are given.
    """
    ranking = record.get("analysis", {}).get("ranking", [])
    order = list(dict.fromkeys([*(place for place in ranking if place < len(panel)), *range(len(panel))]))
    counts = None if weights is None else [weights[place] for place in order]
    return voted([panel[place] for place in order], confidence_of(record, "panel"), counts)


def voted(
    grades: Sequence[Grade], sure: Mapping[Place, float | None] | None = None, weights: Sequence[float] | None = None
) -> Grade:
    """Return the grade that stands for the majority.

    A tie goes as in `fuse-vote`: to the most confident, else to the first of these, as does a vote where nobody votes.
    """
    confidence = [sure.get(_place_of(grade)) for grade in grades] if sure else None
    tally = count_votes([grade["key"] for grade in grades], weights, confidence)
    return earliest(grades) if tally is None else grades[tally.winner]


def earliest(grades: Sequence[Grade]) -> Grade:
    """Return the first that did not fail, else the first."""
    return next((grade for grade in grades if "error" not in grade), grades[0])


def confidence_of(record: Record, section: Literal["panel", "baselines"]) -> dict[Place, float | None]:
    """Return how sure each response was, by layer, member and sample."""
    responses = record.get(section) or []
    layers = record.get("layers") or [] if section == "panel" else []
    every = [*(response for layer in layers for response in layer), *responses]
    return {
        (r.get("layer", 1), r["member"], r.get("sample", 0)): r["mean_logprob"] for r in every if "mean_logprob" in r
    }


def _least_sure(record: Record, panel: Sequence[Grade]) -> list[int]:
    """Return the places that the vote of the surer leaves out: those that the record's own left out, where it did."""
    vote: Mapping[str, Any] = record.get("answer", {}).get("vote") or {}
    if "dropped" in vote:
        return list(vote["dropped"])
    share = _number(_vote_section(record).get("drop_lowest"), 0.0) or HALF
    members = [grade["member"] for grade in panel]
    return find_least_confident(members, _each(record, panel, "lowest_window_logprob"), share)


def _each(
    record: Record, panel: Sequence[Grade], name: Literal["mean_logprob", "lowest_window_logprob"]
) -> list[float | None]:
    known = {(r.get("layer", 1), r["member"], r.get("sample", 0)): r.get(name) for r in record.get("panel") or []}
    return [known.get(_place_of(grade)) for grade in panel]


def _place_of(grade: Grade) -> Place:
    return grade["layer"], grade["member"], grade["sample"]


def _vote_section(record: Record) -> Mapping[str, Any]:
    recipe: Any = record.get("recipe") or {}
    vote = recipe.get("vote")
    return vote if isinstance(vote, Mapping) else {}


def _number(said: Any, otherwise: float) -> float:
    return said if isinstance(said, int | float) and not isinstance(said, bool) else otherwise
