"""Take answers apart into claims by code: who makes each, in which words, and who says what cannot stand beside it.

With the precision of `lexical`, and its blindness: a paraphrase that shares no words is a claim of its own, and nobody
here knows what is true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusiontools.answers import lexical
from fusiontools.answers.keys import Votes


def find_claims(texts: Mapping[str, str], votes: Votes) -> list[Any]:
    """Return the claims of some answers, in the shape of `record.PanelClaim`; those that most hold come first.

    Args:
        texts: the answers by the names of their members.
        votes: what they vote for, in the same order.
    """
    names, answers = list(texts), list(texts.values())
    told = [at for at, text in enumerate(answers) if text.strip()]
    short = lexical.is_short(answers)
    found = _results(names, answers, votes, told) if short or not votes.vague else []
    if not short:
        found += _points(names, answers, told)
    return sorted(found, key=lambda each: -len(each["supporters"]))


def _results(names: Sequence[str], answers: Sequence[str], votes: Votes, told: Sequence[int]) -> list[Any]:
    """Return what the answers come to as claims, each against all others; who says nothing contradicts nobody."""
    groups = [[at for at in group if at in told] for group in lexical.clusters_of(votes)]
    groups = [group for group in groups if group and votes.said[group[0]]]
    found = []
    for group in groups:
        others = sorted(at for other in groups if other is not group for at in other)
        found.append(
            _claim(names, answers[group[0]], {at: answers[at] for at in group}, {at: answers[at] for at in others})
        )
    return found


def _points(names: Sequence[str], answers: Sequence[str], told: Sequence[int]) -> list[Any]:
    """Return the sentences of the answers as claims: those alike are one, those opposed are on its other side."""
    points = lexical.points_of(answers, told, lexical.Stems())
    placed: set[lexical.Point] = set()
    found = []
    for lead, near in zip(points, lexical.neighbours(points), strict=True):
        if lead in placed:
            continue
        group = [lead, *(point for point in near if point not in placed and lexical.alike(lead, point))]
        placed.update(group)
        behind: dict[int, str] = {}
        for point in group:
            behind.setdefault(point.owner, point.text)
        against: dict[int, str] = {}
        for point in near:
            if lexical.opposed(lead, point) and point.owner not in behind:
                against.setdefault(point.owner, point.text)
        found.append(_claim(names, lead.text, behind, against))
    return found


def _claim(names: Sequence[str], text: str, behind: Mapping[int, str], against: Mapping[int, str]) -> Any:
    def holders(sides: Mapping[int, str]) -> list[dict[str, str]]:
        return [{"model": names[at], "quote": lexical.shorten(sides[at])} for at in sorted(sides)]

    return {"claim": lexical.shorten(text), "supporters": holders(behind), "opponents": holders(against)}
