"""How the members of a panel go together, counted over records: who agrees, who errs alike, what the ranking is worth.

Source  Kim et al. 2025, arXiv:2506.07962 (models that err agree on the error); phi is Pearson's correlation of right
        and wrong
"""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct, field

from fusiontools.evaluation.report.columns import Batch, Texts
from fusiontools.evaluation.report.statistics import add_in_turn, is_binary, load_numpy

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

    def add(self, one: Texts, other: Texts) -> None:
        """Count the records on which both are there: arrays over them."""
        a, b = one.score, other.score
        self.n += len(a)
        self.both = add_in_turn(self.both, a * b)
        self.one = add_in_turn(self.one, a)
        self.other = add_in_turn(self.other, b)
        self.one_squared = add_in_turn(self.one_squared, a * a)
        self.other_squared = add_in_turn(self.other_squared, b * b)
        have_voted, are_wrong = (one.key >= 0) & (other.key >= 0), (a < 1) & (b < 1)
        is_same = have_voted & (one.key == other.key)
        self.voted += int(have_voted.sum())
        self.same += int(is_same.sum())
        self.wrong += int((have_voted & are_wrong).sum())
        self.same_wrong += int((is_same & are_wrong).sum())

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

    def add(self, batch: Batch) -> None:
        """Count the panels of some records."""
        panel = batch.panel
        self.has_choice |= bool((panel.there.sum(axis=1) > 1).any())
        self.is_binary &= is_binary(panel.score[panel.there])
        self.add_pairs(batch)
        self._add_ranks(panel.along(batch.order).score, batch.facts.ranked)

    def add_pairs(self, batch: Batch) -> None:
        """Count how the members go together: by what they said alone, else by what the panel says."""
        np = load_numpy()
        panel, texts = batch.panel, Texts(*(each.copy() for each in batch.members))
        rows, places = np.nonzero(panel.there & ~texts.there.any(axis=1)[:, None])
        for own, theirs in zip(texts, panel, strict=True):
            own[rows, panel.seat[rows, places]] = theirs[rows, places]
        first = {member: place for (member, sample), place in batch.seats.items() if sample == 0}
        every = {f"{member}#{sample}": place for (member, sample), place in batch.seats.items()}
        # One model sampled several times is compared with itself.
        is_many = texts.there[:, list(first.values())].sum(axis=1) > 1
        self._add_named(first, texts, is_many)
        self._add_named(every, texts, ~is_many)

    def _add_named(self, seats: dict[str, int], texts: Texts, is_counted: Any) -> None:
        names = sorted(seats)
        own = Texts(*(each[is_counted] for each in texts)).of([seats[name] for name in names])
        there = own.there & (own.there.cumsum(axis=1) <= _MOST)
        for i, name in enumerate(names):
            for j in range(i + 1, len(names)):
                both = there[:, i] & there[:, j]
                if both.any():
                    pair = self.pairs.setdefault((name, names[j]), MemberPair())
                    pair.add(*(Texts(*(each[both, at] for each in own)) for at in (i, j)))

    def _add_ranks(self, scores: Any, ranked: Any) -> None:
        """Count what stands where in a ranking.

        Args:
            scores: of each panel in the order of its ranking: `rows × places`.
            ranked: how many of these it names; one alone is no ranking.
        """
        for place in range(scores.shape[1]):
            own = scores[(ranked > place) & (ranked > 1), place]
            if len(own) and place == len(self.ranks):
                self.ranks.append(Rank())
            for rank in (self.ranks[place], self.chance) if len(own) else ():
                rank.n += len(own)
                rank.score = add_in_turn(rank.score, own)
