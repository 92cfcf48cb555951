"""A graded record as a report looks at it: its grades by what was graded, its ranking, and how it came to its answer.

Each is found once, however many systems are told from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from fusiontools.record.types import Grade, Record

#: A response's place: its layer, member and sample.
Place = tuple[int, str, int]
#: A vote whose responses do not all count the same: by weights that the recipe gives or has learned, by how sure each
#: was, or without those that were least sure.
Weighting = Literal["given", "learned", "logprob", "surer"]


class Graded(Struct):
    """A record, and what several systems ask of it."""

    record: Record
    answer: Grade | None
    panel: list[Grade]
    #: What members answered alone, before they saw each other's responses.
    first: list[Grade]
    baselines: list[Grade]
    #: The places of the panel in the order of the ranking, and then as they are.
    order: list[int]
    #: How many of these the ranking names.
    ranked: int
    #: How sure each of the members' responses was, where that is known of any.
    sure: dict[Place, float | None]
    #: Which vote the answer was; None where it is another one, or no vote.
    weighting: Weighting | Literal["plain"] | None
    #: The vote gave no answer.
    has_abstained: bool
    #: A check picked the answer, or passed none so that the best ranked response stands in.
    is_checked: bool
    #: The panel was asked until it was sure.
    is_asked_until: bool

    @classmethod
    def of(cls, record: Record) -> Graded:
        """Look through a record."""
        grades = record.get("grades") or []
        panel = [grade for grade in grades if grade["of"] == "panel"]
        answer: Mapping[str, Any] = record.get("answer", {})
        ranking = record.get("analysis", {}).get("ranking", [])
        ranked = list(dict.fromkeys([place for place in ranking if place < len(panel)]))
        pick: Any = answer.get("pick") or {}
        return cls(
            record=record,
            answer=next((grade for grade in grades if grade["of"] == "answer"), None),
            panel=panel,
            first=first_layer(grades),
            baselines=[grade for grade in grades if grade["of"] == "baseline"],
            order=list(dict.fromkeys([*ranked, *range(len(panel))])),
            ranked=len(ranked),
            sure=confidence_of(record, "panel"),
            weighting=_weighting_of(record, answer),
            has_abstained="abstained" in answer,
            is_checked=pick.get("method") == "check"
            or any(note["code"] == "check_failed" for note in record.get("degraded", ())),
            is_asked_until=_is_asked_until(record),
        )


def first_layer(grades: Sequence[Grade]) -> list[Grade]:
    """Return the grades of what members answered alone, before they saw each other's responses."""
    earlier = [grade for grade in grades if grade["of"] == "layer" and grade["layer"] == 1]
    return earlier or [grade for grade in grades if grade["of"] == "panel" and grade["layer"] <= 1]


def confidence_of(record: Record, section: Literal["panel", "baselines"]) -> dict[Place, float | None]:
    """Return how sure each response was, by layer, member and sample."""
    responses = record.get(section) or []
    layers = record.get("layers") or [] if section == "panel" else []
    every = [*(response for layer in layers for response in layer), *responses]
    return {
        (r.get("layer", 1), r["member"], r.get("sample", 0)): r["mean_logprob"] for r in every if "mean_logprob" in r
    }


def vote_section(record: Record) -> Mapping[str, Any]:
    """Return what the record's recipe says of its vote."""
    recipe: Any = record.get("recipe") or {}
    vote = recipe.get("vote")
    return vote if isinstance(vote, dict) else {}


def _weighting_of(record: Record, answer: Mapping[str, Any]) -> Weighting | Literal["plain"] | None:
    """Return which vote the answer was, by what stands in the record: a `--weight` that was typed does not."""
    vote: Mapping[str, Any] = answer.get("vote") or {}
    if not vote or "abstained" in answer:
        return None
    weighing, has_weights = vote.get("weighing", "given"), bool(vote_section(record).get("weights"))
    if "dropped" in vote:
        return "surer" if weighing == "given" and not has_weights else None
    if weighing == "logprob":
        return None if has_weights else "logprob"
    return "learned" if weighing == "learned" else "given" if has_weights else "plain"


def _is_asked_until(record: Record) -> bool:
    recipe: Any = record.get("recipe") or {}
    panel = recipe.get("panel")
    until = panel.get("until") if isinstance(panel, dict) else None
    return isinstance(until, float) and 0.5 <= until < 1
