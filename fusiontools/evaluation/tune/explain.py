"""What each member adds to the vote of all, and whom it copies."""

from __future__ import annotations

from msgspec import Struct

from fusiontools.evaluation.report.statistics import Mean, PairedDifference, estimate
from fusiontools.evaluation.tune.replay import Way
from fusiontools.evaluation.tune.selection import Tuner


class MemberPart(Struct, frozen=True):
    """One member among the others.

    Args:
        alone: its own score.
        adds: what the vote of all loses without it; None where no vote is left.
        saves: on how many questions it alone is right; `needed`: on how many the vote is right with it only.
        like: with whose scores its own go together the most, and how much (1: always).
        same_error: where both are wrong, how often with the same answer; None where that cannot be told.
    """

    member: str
    alone: Mean
    adds: PairedDifference | None
    saves: int
    needed: int
    like: str | None
    correlation: float | None
    same_error: float | None


def explain(tuner: Tuner) -> list[MemberPart]:
    """Return each member's part, in panel order; by the first sample of each."""
    panels = tuner.panels
    members = tuple(panels.members)
    alone = tuner.replay.columns([Way("solo", (member,)) for member in members]).score
    without = [tuple(m for m in members if m != member) for member in members]
    votes = tuner.replay.columns([Way("vote", each) for each in (members, *without) if each]).score
    columns = [[round(float(score), 6) for score in column] for column in votes.T]
    scores, added = estimate(
        [[round(float(score), 6) for score in column] for column in alone.T],
        [(columns[0], column) for column in columns[1:]],
        tuner.draws,
    )
    firsts = [panels.seats_of(member)[0] for member in members]
    right = panels.by_group(panels.scores[:, firsts]) >= 1
    parts = []
    for i, member in enumerate(members):
        mean = scores[i]
        assert mean is not None  # noqa: S101 - every member was asked everywhere
        others = [j for j in range(len(members)) if j != i]
        saves = int((right[:, i] & ~right[:, others].any(axis=1)).sum()) if others else 0
        needed = sum(a >= 1 > b for a, b in zip(columns[0], columns[i + 1], strict=True)) if others else 0
        like, correlation, same_error = _most_alike(tuner, member)
        parts.append(
            MemberPart(member, mean, added[i] if others else None, saves, needed, like, correlation, same_error)
        )
    return parts


def _most_alike(tuner: Tuner, member: str) -> tuple[str | None, float | None, float | None]:
    """Return whose scores go together with a member's the most, how much, and how often they err alike."""
    found = []
    for names, pair in tuner.panels.tally.pairs.items():
        if member in names and pair.correlation is not None:
            other = names[0] if names[1] == member else names[1]
            found.append((pair.correlation, other, pair.same_wrong / pair.wrong if pair.wrong else None))
    if not found:
        return None, None, None
    correlation, other, same_error = max(found, key=lambda each: (each[0], each[1]))
    return other, correlation, same_error
