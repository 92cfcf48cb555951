"""A graded record as a report looks at it: its grades by what was graded, its ranking, and how it came to its answer.

Each is found once, however many systems are told from it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    #: The grades by what was graded.
    grades: Mapping[str, list[Grade]]
    answer: Grade | None
    panel: list[Grade]
    #: The places of the panel that the ranking names, in its order.
    ranked: list[int]
    #: How sure each of the members' responses was, where that is known of any.
    sure: dict[Place, float | None]
    #: Which vote the answer was; None where it is another one, or no vote.
    weighting: Weighting | Literal["plain"] | None
    #: The vote gave no answer.
    has_abstained: bool
    #: A check picked the answer, or passed none so that the best ranked response stands in.
    is_checked: bool
    #: How sure the panel had to be what most say for nobody else to be asked, and how many were asked at once at the
    #: least; 0 where it was asked as a whole.
    asked_until: tuple[float, int]

    @classmethod
    def of(cls, record: Record) -> Graded:
        """Look through a record."""
        grades: dict[str, list[Grade]] = {}
        for grade in record.get("grades", ()):
            grades.setdefault(grade["of"], []).append(grade)
        panel = grades.get("panel", [])
        answer: Mapping[str, Any] = record.get("answer", {})
        ranking = record.get("analysis", {}).get("ranking", [])
        pick: Any = answer.get("pick") or {}
        return cls(
            record,
            grades,
            grades["answer"][0] if "answer" in grades else None,
            panel,
            list(dict.fromkeys([place for place in ranking if place < len(panel)])),
            confidence_of(record, "panel"),
            _weighting_of(record, answer),
            "abstained" in answer,
            pick.get("method") == "check" or "check_failed" in [note["code"] for note in record.get("degraded", ())],
            _asked_until(record),
        )

    @property
    def first(self) -> list[Grade]:
        """Return the grades of what members answered alone, before they saw each other's responses."""
        earlier = [grade for grade in self.grades.get("layer", ()) if grade["layer"] == 1]
        return earlier or [grade for grade in self.panel if grade["layer"] <= 1]

    @property
    def baselines(self) -> list[Grade]:
        """Return the grades of what models answered outside the panel."""
        return self.grades.get("baseline", [])

    @property
    def order(self) -> list[int]:
        """Return the places of the panel in the order of the ranking, and then as they are."""
        return list(dict.fromkeys([*self.ranked, *range(len(self.panel))]))

    @property
    def copied(self) -> Grade | None:
        """Return the grade of the response that the answer is, else the answer's own."""
        place = self.record["answer"].get("response")
        return self.panel[place] if place is not None and place < len(self.panel) else self.answer

    def is_by(self, stage: str) -> bool:
        """Return whether this stage, `vote` or `pick`, took the answer from the panel; one that could not says so."""
        record = self.record
        by = record["answer"].get("by") if "answer" in record else None
        if by not in (stage, "panel") or self.has_abstained or (stage == "pick" and self.is_checked):
            return False
        if stage == "vote" and "vote" in record["answer"] and self.weighting != "plain":
            return False
        return by == stage or len(self.panel) == 1 or any(note["stage"] == stage for note in record.get("degraded", ()))


def confidence_of(record: Record, section: Literal["panel", "baselines"]) -> dict[Place, float | None]:
    """Return how sure each response was, by layer, member and sample."""
    layers = record.get("layers") or () if section == "panel" else ()
    return {
        (r.get("layer", 1), r["member"], r.get("sample", 0)): r["mean_logprob"]
        for responses in (*layers, record.get(section) or ())
        for r in responses
        if "mean_logprob" in r
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


def _asked_until(record: Record) -> tuple[float, int]:
    recipe: Any = record.get("recipe") or {}
    panel = recipe.get("panel")
    until = panel.get("until") if isinstance(panel, dict) else None
    return (until, panel.get("at_once", 1)) if isinstance(until, float) and 0.5 <= until < 1 else (0.0, 0)
