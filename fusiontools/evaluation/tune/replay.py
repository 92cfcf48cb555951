"""What any selection of seats would have answered, cost and taken, replayed on all records at once.

The rules are those of `fuse-vote`, `fuse-pick`, `fuse-panel --scout` and `--until`, written over matrices of vote keys,
for a thousand selections of ten thousand records are ten million votes. A test holds them against `count_votes` and
against the stages themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from fusiontools.answers.certainty import votes_to_be_sure
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.tune.panels import LAST, Panels

How = Literal["solo", "vote", "weighted", "first", "pick", "scouts", "until", "fuse", "routed"]
#: In what part weights are exact: they are multiples of it.
WEIGHT_PART = 1000
#: How many cells of `records × seats × selections` are worked on at a time.
_CELLS = 4_000_000
#: Beyond so many members not every sub-panel is looked at: those that vote best are grown by one member at a time.
MOST_EXHAUSTIVE = 12
_BEAM = 12
#: How sure it may have to be what most say before nobody else is asked; samples are replayed as they were recorded.
_SURE = (0.8, 0.95)
#: So many votes that ways begin with are remembered: those of one sub-panel come one after the other.
_MOST_BEGUN = 64
#: Up to so many sub-panels the rarer ways are tried on each of them; beyond, on those of few members.
_MOST_SUBPANELS, _FEW = 300, 4


class Way(NamedTuple):
    """A way to an answer: who is asked, how often each, and how their responses become one.

    Args:
        members: as they are asked, one after the other.
        samples: how often each is asked.
        scouts: how many responses of the first are waited for alone; where they agree nobody else is asked.
        until: how sure it must be what most say for nobody else to be asked; members take turns.
    """

    how: How
    members: tuple[str, ...] = ()
    samples: int = 1
    scouts: int = 0
    until: float = 0.0

    @property
    def label(self) -> str:
        """What it is called in a table."""
        times = f"*{self.samples}" if self.samples > 1 else ""
        who = " + ".join(f"{member}{times}" for member in self.members)
        if self.how == "solo":
            return who
        if self.how == "fuse":
            return "the recorded fusion"
        if self.how == "routed":
            return f"routed by kind of question ({self.samples} kinds)"
        if self.how == "scouts":
            return f"vote, {self.scouts} scouts: {who}"
        if self.how == "until":
            return f"vote until {100 * self.until:g} % sure: {who}"
        return f"{_WORDS[self.how]}: {who}"


_WORDS = {"vote": "vote", "weighted": "weighted vote", "first": "first that answers", "pick": "judge's pick"}


class Columns(Struct, frozen=True):
    """What ways came to for each group of questions: `groups × ways`; seconds are NaN where nobody measured."""

    score: Any
    cost: Any
    latency: Any


class Replay:
    """All that can be replayed of some panels."""

    def __init__(self, panels: Panels) -> None:
        np = load_numpy()
        self.panels = panels
        keys = panels.keys
        self._counted = (keys >= 0) & panels.usable
        both = self._counted[:, :, None] & self._counted[:, None, :]
        #: Whether two seats of a record vote for the same: `records × seats × seats`.
        self.same = ((keys[:, :, None] == keys[:, None, :]) & both).astype(np.float32)
        self._sure = bool(np.isfinite(panels.confidence).any())
        self._cheap_first = self._order_by_cost()
        self._timed = bool(np.isfinite(panels.latencies).all())
        #: The scores of votes that several ways begin with.
        self._begun: dict[tuple[int, ...], Any] = {}

    def seats_of(self, way: Way, weights: Mapping[str, float] | None = None) -> list[int]:
        """Return the places of the seats that a way asks, in their order; whose vote counts nothing is not asked."""
        heard = [member for member in way.members if weights is None or weights.get(member, 1.0) > 0]
        return [place for member in heard for place in self.panels.seats_of(member)[: way.samples]]

    def ways(self, subpanels: Sequence[tuple[str, ...]]) -> list[Way]:
        """Return every way over these sub-panels that needs neither weights nor kinds of questions."""
        panels = self.panels
        members = panels.members
        most = {member: len(panels.seats_of(member)) for member in members}
        found = [Way("solo", (member,)) for member in members]
        is_many = len(subpanels) > _MOST_SUBPANELS
        for subpanel in subpanels:
            for samples in range(1, min(most[member] for member in subpanel) + 1):
                size = len(subpanel) * samples
                # Two votes are decided by a tie: by confidence, where it is known, or by who comes first.
                if size > 2 or (size == 2 and self._sure):
                    found.append(Way("vote", subpanel, samples))
                if size > 1 and not (is_many and _FEW < len(subpanel) < len(members)):
                    found += self._rarer(subpanel, samples, size)
        return [*found, *([Way("fuse")] if panels.fusion is not None else [])]

    def _rarer(self, subpanel: tuple[str, ...], samples: int, size: int) -> list[Way]:
        cheap = tuple(sorted(subpanel, key=self._cheap_first.index))
        found = [Way("scouts", cheap, samples, scouts) for scouts in (2, 3) if scouts < size]
        found += [Way("until", cheap, samples, until=until) for until in _SURE if votes_to_be_sure(0, until) < size]
        if samples == 1 and self._timed:
            found.append(Way("first", subpanel))
        if self.panels.judge is not None:
            found.append(Way("pick", subpanel, samples))
        return found

    def subpanels(self, train: Any) -> list[tuple[str, ...]]:
        """Return the sub-panels that are looked at: all of them, or those that vote best on the groups of `train`."""
        members = self.panels.members
        if len(members) <= MOST_EXHAUSTIVE:
            sizes = range(1, len(members) + 1)
            return [each for size in sizes for each in itertools.combinations(members, size)]
        beam: list[tuple[str, ...]] = [(member,) for member in members]
        found = list(beam)
        while len(beam[0]) < len(members):
            grown = {tuple(m for m in members if m in {*each, new}) for each in beam for new in members}
            wider = sorted(each for each in grown if len(each) > len(beam[0]))
            scores = self.columns([Way("vote", each) for each in wider]).score[train].mean(axis=0)
            beam = [wider[i] for i in sorted(range(len(wider)), key=lambda i: -scores[i])[:_BEAM]]
            found += beam
        return found

    def columns(self, ways: Sequence[Way], weights: Sequence[Mapping[str, float] | None] | None = None) -> Columns:
        """Return what these ways came to.

        Args:
            weights: for each way what its members' votes count.
        """
        np = load_numpy()
        score, cost, latency = (np.full((self.panels.groups, len(ways)), np.nan, dtype=np.float32) for _ in range(3))
        given = weights or [None] * len(ways)
        voting = [i for i, way in enumerate(ways) if way.how in ("vote", "weighted", "scouts")]
        at_once = max(1, _CELLS // max(1, self.panels.keys.size))
        for begun in range(0, len(voting), at_once):
            part = voting[begun : begun + at_once]
            seats = [self.seats_of(ways[i], given[i]) for i in part]
            voted = self._scores_of(self.elect(seats, [given[i] for i in part]))
            for i, asked, scores in zip(part, seats, voted.T, strict=True):
                found = self._scouted(asked, ways[i].scouts, scores)
                score[:, i], cost[:, i], latency[:, i] = map(self.panels.by_group, found)
        for i in sorted({*range(len(ways))} - {*voting}):
            score[:, i], cost[:, i], latency[:, i] = map(self.panels.by_group, self._unvoted(ways[i]))
        return Columns(score, cost, latency)

    def elect(
        self, selections: Sequence[Sequence[int]], weights: Sequence[Mapping[str, float] | None] | None = None
    ) -> Any:
        """Return the seat whose response wins each vote: `records × selections`; -1 where nobody answered."""
        np = load_numpy()
        panels = self.panels
        masks = np.zeros((len(panels.seats), len(selections)), dtype=np.float32)
        places = np.full(masks.shape, LAST)
        for i, seats in enumerate(selections):
            own = weights[i] if weights is not None else None
            counts = [1.0 if own is None else own.get(panels.seats[at][0], 1.0) for at in seats]
            masks[list(seats), i] = [round(WEIGHT_PART * count) for count in counts]
            places[list(seats), i] = range(len(seats))
        asked = masks > 0
        voting = self._counted[:, :, None] & asked[None]
        votes = np.where(voting, self.same @ masks, -1.0)
        tied = voting & (votes == votes.max(axis=1, keepdims=True))
        if self._sure:
            tied = self._surest(tied, asked.astype(np.float32))
        first = np.where(tied, places[None], LAST).argmin(axis=1)
        winner = np.take_along_axis(panels.keys, first, axis=1)
        same = voting & (panels.keys[:, :, None] == winner[:, None, :])
        stands = np.where(same, panels.standing[:, :, None], LAST).argmin(axis=1)
        usable = panels.usable[:, :, None] & asked[None]
        best = np.where(usable, panels.unranked[:, :, None], LAST).argmin(axis=1)
        return np.where(usable.any(axis=1), np.where(tied.any(axis=1), stands, best), -1)

    def _surest(self, tied: Any, asked: Any) -> Any:
        """Return of tied votes those whose voters are the most confident, where that is known of all that are tied."""
        np = load_numpy()
        known = np.isfinite(self.panels.confidence)
        confidence = np.where(known, self.panels.confidence, 0.0).astype(np.float32)
        voters = np.maximum(self.same @ asked, 1)
        mean = np.where(tied, (self.same * confidence[:, None, :]) @ asked / voters, -np.inf)
        all_known = ~(tied & ((self.same * ~known[:, None, :]) @ asked > 0)).any(axis=1, keepdims=True)
        return np.where(all_known, tied & (mean == mean.max(axis=1, keepdims=True)), tied)

    def _scores_of(self, elected: Any) -> Any:
        np = load_numpy()
        return np.where(elected >= 0, np.take_along_axis(self.panels.scores, np.maximum(elected, 0), axis=1), 0.0)

    def _scouted(self, seats: Sequence[int], scouts: int, voted: Any) -> tuple[Any, Any, Any]:
        """Return score, cost and seconds of each record's vote; without scouts all are asked at once."""
        np = load_numpy()
        usd, latencies = self.panels.usd, self.panels.latencies
        if not scouts:
            return voted, usd[:, seats].sum(axis=1), latencies[:, seats].max(axis=1)
        first, rest = list(seats[:scouts]), list(seats[scouts:])
        agreed = (self.same[:, first[0]][:, first] > 0).all(axis=1)
        stands = np.array(first)[self.panels.standing[:, first].argmin(axis=1)]
        own = self.panels.scores[np.arange(len(stands)), stands]
        cost = usd[:, first].sum(axis=1) + np.where(agreed, 0.0, usd[:, rest].sum(axis=1))
        taken = latencies[:, first].max(axis=1) + np.where(agreed, 0.0, latencies[:, rest].max(axis=1))
        return np.where(agreed, own, voted), cost, taken

    def _until(self, way: Way) -> tuple[Any, Any, Any]:
        """Return score, cost and seconds of each record's vote where members are asked in turn until it is sure."""
        np = load_numpy()
        panels = self.panels
        own = [panels.seats_of(member)[: way.samples] for member in way.members]
        seats = [seat for turn in itertools.zip_longest(*own) for seat in turn if seat is not None]
        size = len(seats)
        needed = np.array([votes_to_be_sure(second, way.until) for second in range(size + 1)])
        asked = np.zeros(len(panels.keys), dtype=np.int64)
        taken = np.zeros(len(panels.keys))
        for heard in range(size):
            rows = np.flatnonzero(asked == heard)
            first, second = self._leading(rows, seats[:heard])
            wanted = np.minimum(size, heard + np.maximum(0, needed[second] - first))
            asked[rows] = wanted
            for more in set(wanted.tolist()) - {heard}:
                late = rows[wanted == more]
                taken[late] += panels.latencies[late][:, seats[heard:more]].max(axis=1)
        score = np.zeros(len(asked))
        for heard in set(asked.tolist()):
            rows = asked == heard
            score[rows] = self._scores_begun(tuple(seats[:heard]))[rows]
        cost = np.cumsum(panels.usd[:, seats], axis=1)[np.arange(len(asked)), asked - 1]
        return score, cost, taken

    def _leading(self, rows: Any, seats: Sequence[int]) -> tuple[Any, Any]:
        """Return the votes of the two answers with the most on some records, as whole numbers."""
        np = load_numpy()
        if not seats:
            return np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
        same = self.same[rows][:, seats][:, :, seats]
        votes = same.sum(axis=2)
        leader = votes.argmax(axis=1)
        others = np.where(same[np.arange(len(rows)), leader] > 0, 0, votes)
        return votes.max(axis=1).astype(np.int64), others.max(axis=1).astype(np.int64)

    def _scores_begun(self, seats: tuple[int, ...]) -> Any:
        """Return the scores of the vote of these seats, which other ways may begin with, too."""
        if seats not in self._begun:
            if len(self._begun) >= _MOST_BEGUN:
                self._begun.clear()
            self._begun[seats] = self._scores_of(self.elect([seats]))[:, 0]
        return self._begun[seats]

    def _unvoted(self, way: Way) -> tuple[Any, Any, Any]:
        """Return score, cost and seconds on each record of a way that counts no votes, or only those it needs."""
        np = load_numpy()
        panels = self.panels
        if way.how == "until":
            return self._until(way)
        if way.how == "fuse":
            return panels.fusion[:, 0], panels.fusion[:, 1], panels.fusion[:, 2]
        if way.how == "solo":
            own = panels.seats_of(way.members[0])
            score, cost, taken = (v[:, own].mean(axis=1) for v in (panels.scores, panels.usd, panels.latencies))
            return score, cost, taken
        seats = self.seats_of(way)
        cost, latency, usable = panels.usd[:, seats].sum(axis=1), panels.latencies[:, seats], panels.usable[:, seats]
        if way.how == "first":
            came = np.where(usable, latency, np.inf)
            chosen, taken = came.argmin(axis=1), np.where(usable.any(axis=1), came.min(axis=1), latency.max(axis=1))
        else:
            chosen = np.where(usable, panels.ranked[:, seats], LAST).argmin(axis=1)
            cost, taken = cost + panels.judge[:, 1], latency.max(axis=1) + panels.judge[:, 2]
        scores = panels.scores[np.arange(len(chosen)), np.array(seats)[chosen]]
        return np.where(usable.any(axis=1), scores, 0.0), cost, taken

    def _order_by_cost(self) -> list[str]:
        """Return the members, the cheap ones first; those that cost about the same as they come."""
        members = self.panels.members
        costs = {m: float(self.panels.usd[:, self.panels.seats_of(m)].mean()) for m in members}
        whole = max(costs.values(), default=0.0) or 1.0
        return sorted(members, key=lambda m: (round(20 * costs[m] / whole), members.index(m)))
