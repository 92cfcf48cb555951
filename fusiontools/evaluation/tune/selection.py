"""Choose a way, and say how good the choice is: never by the records that it was chosen on.

Of K ways the one that scores best on some questions owes a part of that to the questions. So the rule that chooses is
run again on four fifths of the questions, and what it chooses there is scored on the fifth that it has not seen: the
score reported is that of the rule. What has to be learned (weights, kinds of questions) is learned inside those four
fifths, and is compared there with what need not be by a split of its own.

A question is one observation; the same one, or nearly, is never on both sides of a split (`groups.py`).

The folds share their questions, though: where chance favours one way on all of them, each fold chooses it and each
other one confirms it. So a score's interval is not that of the held-out scores but a band that holds, at once, for
every way that might have been chosen: it reaches as far down as the luckiest of them is above its truth.

Source  Cawley and Talbot 2010, JMLR 11, 2079-2107 (nested cross-validation); Romano and Wolf 2005, Econometrica 73,
        1237-1282 (the band, by resampling); Andrews and Soares 2010, Econometrica 78, 119-157 (who might have been
        chosen: within √(ln n) standard errors); Nadeau and Bengio 2003, Machine Learning 52, 239-281 (how much wider
        the interval of a difference is); Breiman et al. 1984, section 3.4.3 (of all that are within a standard error
        of the best, the cheapest)
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.evaluation.report.statistics import (
    TAIL,
    Draws,
    Mean,
    PairedDifference,
    compare_paired,
    difference_seen,
    draw_together,
    load_numpy,
    means,
    tasks_needed,
)
from fusiontools.evaluation.tune.learned_weights import learn_weights
from fusiontools.evaluation.tune.panels import Panels
from fusiontools.evaluation.tune.replay import Columns, Replay, Way
from fusiontools.evaluation.tune.routing import (
    Routing,
    find_centres,
    kinds_worth_trying,
    learn_routing,
    question_rows,
)

#: With fewer questions there is nothing to split.
LEAST_QUESTIONS = 30
_OUTER, _INNER = 5, 3
#: Weights are learned for so many of the sub-panels that vote best, each of three members at least.
_WEIGHTED, _LEAST_MEMBERS = 5, 3
#: A limit is kept on average; one fold's questions may be a little dearer than all of them.
_SLACK = 1.03
_FRONT = 8
#: Differences that are dust of adding floats.
_DUST = 1e-7


class Rule(Struct, frozen=True):
    """How a way is chosen.

    Args:
        min_score: the cheapest that scores so much, less a standard error, is taken.
        frugal: of those within a standard error of the best, the cheapest is taken.
        solo: one member alone is wanted.
    """

    max_cost: float = math.inf
    max_latency_s: float = math.inf
    min_score: float | None = None
    frugal: bool = True
    solo: bool = False


class Learned(Struct, frozen=True):
    """What was learned for a way: the weights of its votes, or which kind of question gets which treatment."""

    weights: Mapping[str, float] | None = None
    routing: Routing | None = None
    treatments: tuple[Way, ...] = ()


class Offer:
    """All ways as they fare on some groups of questions.

    Args:
        train: the groups.
        ways: those of `base` come first, then those that had to be learned, by a split of these groups.
        learned: score, cost and seconds of each of the latter, on all groups; only those of `train` are numbers.
        centres: of the kinds of these questions, by how many kinds there are.
    """

    def __init__(
        self,
        train: Any,
        ways: list[Way],
        base: Columns,
        learned: Sequence[Sequence[Any]],
        centres: Mapping[int, Any],
    ) -> None:
        np = load_numpy()
        self.train, self.ways, self.centres, self._base, self._learned = train, ways, centres, base, learned
        self.base = base.score.shape[1]

        def mean(columns: Any, part: int) -> Any:
            own = [each[part][train].mean() for each in learned]
            return np.concatenate([columns[train].mean(axis=0), np.array(own, dtype=np.float32)]).astype(np.float64)

        self.score, self.cost, self.latency = mean(base.score, 0), mean(base.cost, 1), mean(base.latency, 2)

    def choose(self, rule: Rule) -> int:
        """Return the place of the way that a rule chooses; the cheapest one where none keeps to its limits."""
        np = load_numpy()
        score, cost, latency = np.round(self.score, 6), np.round(self.cost, 9), self.latency
        allowed, within = self._allowed(rule)
        if not within.any():
            return int(min(np.flatnonzero(allowed), key=lambda i: (cost[i], latency[i], i)))
        places = np.flatnonzero(within)
        if rule.min_score is not None:
            errors = self.scores_of(places).std(axis=0) / math.sqrt(np.count_nonzero(self.train))
            enough = places[score[places] - errors >= rule.min_score]
            if len(enough):
                return int(min(enough, key=lambda i: (cost[i], -score[i], i)))
        best = min(places, key=lambda i: (-score[i], cost[i], i))
        if not rule.frugal or rule.min_score is not None:
            return int(best)
        near = self._near(int(best), places, 1.0)
        return int(min(near, key=lambda i: (cost[i], -score[i], i)))

    def contenders(self, rule: Rule, place: int, luck: Any) -> Any:
        """Return the places of the ways that a rule might have chosen in the place of this one.

        Args:
            luck: by how many standard errors each way is above its truth, in each draw.
        """
        np = load_numpy()
        within = np.flatnonzero(self._allowed(rule)[1])
        return self._near(place, within, luckiest(luck[:, within]))

    def _allowed(self, rule: Rule) -> tuple[Any, Any]:
        """Return for each way whether a rule may choose it, and whether it keeps to the rule's limits, too."""
        np = load_numpy()
        allowed = np.array([not rule.solo or way.how == "solo" for way in self.ways])
        within = allowed & (np.round(self.cost, 9) <= _SLACK * rule.max_cost)
        if rule.max_latency_s < math.inf:
            within &= self.latency <= _SLACK * rule.max_latency_s
        return allowed, within

    def _near(self, place: int, places: Any, errors: float) -> Any:
        """Return those of some ways that are at most so many standard errors behind one."""
        np = load_numpy()
        behind = self.scores_of(np.array([place])) - self.scores_of(places)
        error = errors * behind.std(axis=0) / math.sqrt(len(behind))
        return places[behind.mean(axis=0) <= error + _DUST]

    def front(self) -> list[int]:
        """Return the ways that nobody beats in score, cost and time at once, the cheapest first."""
        np = load_numpy()
        score, cost = np.round(self.score, 6), np.round(self.cost, 9)
        latency = np.nan_to_num(np.round(self.latency, 6))
        found: list[int] = []
        for i in sorted(range(len(score)), key=lambda i: (cost[i], -score[i], latency[i], i)):
            if not any(score[j] >= score[i] and cost[j] <= cost[i] and latency[j] <= latency[i] for j in found):
                found.append(i)
        return found

    def scores_of(self, places: Any) -> Any:
        """Return the scores of some ways on the groups: `groups × ways`."""
        np = load_numpy()
        columns = np.empty((int(np.count_nonzero(self.train)), len(places)), dtype=np.float32)
        for column, place in enumerate(places):
            own = self._base.score[:, place] if place < self.base else self._learned[place - self.base][0]
            columns[:, column] = own[self.train]
        return columns


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule chooses on all questions, and how the rule fares on questions that it has not seen.

    Args:
        seen: the score on the questions that it was chosen on: too good.
        held_out: the score of the rule; its interval is one of the choice's, and holds whichever way was chosen.
        cost: of one question, in dollars or calls; `latency_s` None where nobody measured.
        tried: among how many ways it was chosen.
        unsteady: in which share of the folds the rule chooses another way.
        by_group: the rule's score on each question, held out.
    """

    way: Way
    learned: Learned
    seen: float
    held_out: Mean
    cost: float
    latency_s: float | None
    tried: int
    unsteady: float
    by_group: list[float] = field(repr=False)


class Tuning(Struct, frozen=True):
    """What can be said of some graded panels.

    Args:
        best_solo: the rule that takes the best member alone, within the same limits.
        gain: of the chosen way over that, on questions held out.
        front: what nobody beats in score, cost and time at once, the cheapest first.
        reached: whether what was asked for is there.
    """

    chosen: Choice
    best_solo: Choice
    gain: PairedDifference
    front: list[Choice]
    reached: bool

    @property
    def verdict(self) -> str:
        """What can be said of the chosen way against the best member alone."""
        if self.chosen.way == self.best_solo.way:
            return "the same"
        low, high = self.gain.interval
        if low > 0 and self.gain.p < 0.05:
            return "better"
        return "worse" if high < 0 and self.gain.p < 0.05 else "cannot tell"

    @property
    def questions_needed(self) -> int | None:
        """How many questions would show a difference of this size, 4 times of 5; None where there is none."""
        return tasks_needed(self.gain.mean, self.gain.squared, binary=self.gain.binary)

    @property
    def difference_seen(self) -> float | None:
        """Which difference so many questions would have shown, 4 times of 5; None where none."""
        return difference_seen(self.gain.tasks, self.gain.squared, binary=self.gain.binary)


class Tuner:
    """Chooses by one set of panels.

    Raises:
        UsageError: numpy is not installed.
    """

    def __init__(self, panels: Panels, draws: Draws) -> None:
        np = load_numpy()
        self.panels, self.draws = panels, draws
        self.replay = Replay(panels)
        self._features = question_rows(panels)
        self._columns: dict[tuple[Way, ...], Columns] = {}
        self._ways: dict[tuple[tuple[str, ...], ...], list[Way]] = {}
        self._everything = np.ones(panels.groups, dtype=bool)
        self.all = self._offer(self._everything)
        folds = split(self._everything, _OUTER, draws.seed)
        self._folds = [(test, self._offer(~test)) for test in folds]

    def tune(self, rule: Rule) -> Tuning:
        """Choose by a rule, and say how good that is."""
        alone = replace(rule, min_score=None, frugal=False, solo=True)
        chosen, solo, *front = self._choices([rule, alone, *self._front_rules()])
        [gain] = compare_paired([(chosen.by_group, solo.by_group)], self.draws)
        assert gain is not None  # noqa: S101 - both stand on all questions
        gain = _widen_difference(gain, max(chosen.unsteady, solo.unsteady))
        different = {each.way: each for each in front}
        return Tuning(chosen, solo, gain, sorted(different.values(), key=lambda each: each.cost), _keeps(rule, chosen))

    def weights_for(self, choice: Choice) -> Mapping[str, float]:
        """Return what the votes of a way's members shall count, whether it counts them so or not."""
        if choice.learned.weights is not None:
            return choice.learned.weights
        way = choice.way if choice.way.how != "routed" else choice.learned.treatments[-1]
        if way.how == "pick" or len(way.members) < _LEAST_MEMBERS:
            return {}
        return learn_weights(self.replay, Way("weighted", way.members, way.samples), self._everything)

    def _front_rules(self) -> list[Rule]:
        """Return rules that choose what nobody beats, for a few limits from the lowest cost to the best score."""
        front = self.all.front()
        if len(front) > _FRONT:
            front = [front[round(i * (len(front) - 1) / (_FRONT - 1))] for i in range(_FRONT)]
        best = max(front, key=lambda i: self.all.score[i])
        rules = []
        for i in dict.fromkeys([*front, best]):
            latency_s = float(self.all.latency[i])
            rules.append(Rule(float(self.all.cost[i]), math.inf if math.isnan(latency_s) else latency_s, frugal=False))
        return rules

    def _offer(self, train: Any) -> Offer:
        """Return all ways as they fare on these groups of questions."""
        np = load_numpy()
        ways = self._list_ways(train)
        base = self._base(ways)
        centres = {kinds: find_centres(self._features[train], kinds) for kinds in _kinds_tried(train)}
        inner = split(train, _INNER, self.draws.seed + 1)
        learnable = [*self._weighted(ways, base, train), *(Way("routed", (), kinds) for kinds in centres)]
        learned = []
        for way in learnable:
            columns = [np.full(len(train), np.nan, dtype=np.float32) for _ in range(3)]
            for test in inner:
                for own, column in zip(
                    columns, self._apply(way, self._learn(way, train & ~test, centres)), strict=True
                ):
                    own[test] = column[test]
            learned.append(columns)
        return Offer(train, [*ways, *learnable], base, learned, centres)

    def _list_ways(self, train: Any) -> list[Way]:
        subpanels = tuple(self.replay.subpanels(train))
        if subpanels not in self._ways:
            self._ways[subpanels] = self.replay.ways(subpanels)
        return self._ways[subpanels]

    def _weighted(self, ways: Sequence[Way], base: Columns, train: Any) -> list[Way]:
        """Return the votes for which weights are learned."""
        np = load_numpy()
        votes = [i for i, way in enumerate(ways) if way.how == "vote" and len(way.members) >= _LEAST_MEMBERS]
        scores = np.round(base.score[train].mean(axis=0), 6)
        best = sorted(votes, key=lambda i: (-scores[i], i))[:_WEIGHTED]
        # All members, whatever their plain vote is worth: weights can silence those that do harm.
        best += [i for i in votes if len(ways[i].members) == len(self.panels.members) and i not in best]
        return [Way("weighted", ways[i].members, ways[i].samples) for i in best]

    def _learn(self, way: Way, train: Any, centres: Mapping[int, Any]) -> Learned:
        if way.how == "weighted":
            return Learned(weights=learn_weights(self.replay, way, train))
        treatments = self._treatments(train)
        columns = self._base(treatments)
        routing = learn_routing(centres[way.samples], self._features, columns.score, columns.cost, train)
        return Learned(routing=routing, treatments=tuple(treatments))

    def _treatments(self, train: Any) -> list[Way]:
        """Return what a kind of questions may get: each member alone, and the best panel; or the vote and the fusion.

        One panel, for a recipe has one; where answers were written, the panel that they were written from.
        """
        np = load_numpy()
        members = tuple(self.panels.members)
        solos = [Way("solo", (member,)) for member in members]
        if self.panels.fusion is not None:
            return [*solos, Way("vote", members), Way("fuse")]
        ways = self._list_ways(train)
        scores = np.round(self._base(ways).score[train].mean(axis=0), 6)
        votes = [i for i, way in enumerate(ways) if way.how == "vote" and len(way.members) > 1]
        return [*solos, *(ways[i] for i in sorted(votes, key=lambda i: (-scores[i], len(ways[i].members), i))[:1])]

    def _apply(self, way: Way, known: Learned) -> tuple[Any, Any, Any]:
        """Return what a way with what was learned for it comes to on all questions."""
        np = load_numpy()
        if known.routing is None:
            columns = self.replay.columns([way], [known.weights])
            return columns.score[:, 0], columns.cost[:, 0], columns.latency[:, 0]
        columns = self._base(known.treatments)
        place = known.routing.follow(self._features)
        rows = np.arange(len(place))
        return columns.score[rows, place], columns.cost[rows, place], columns.latency[rows, place]

    def _base(self, ways: Sequence[Way]) -> Columns:
        """Return the columns of ways that need nothing learned; those of one list of ways are computed once."""
        key = tuple(ways)
        if key not in self._columns:
            self._columns[key] = self.replay.columns(ways)
        return self._columns[key]

    def _choices(self, rules: Sequence[Rule]) -> list[Choice]:
        np = load_numpy()
        held = [np.full(self.panels.groups, np.nan) for _ in rules]
        chosen: list[list[Way]] = [[] for _ in rules]
        for test, offer in self._folds:
            known: dict[Way, Any] = {}
            base = self._base(offer.ways[: offer.base])
            for column, rule, each in zip(held, rules, chosen, strict=True):
                place = offer.choose(rule)
                way = offer.ways[place]
                each.append(way)
                if place >= offer.base and way not in known:
                    known[way] = self._apply(way, self._learn(way, offer.train, offer.centres))[0]
                column[test] = (base.score[:, place] if place < offer.base else known[way])[test]
        scores = [[round(value, 6) for value in column.tolist()] for column in held]
        places = [self.all.choose(rule) for rule in rules]
        seen = [[round(value, 6) for value in column] for column in self.all.scores_of(np.array(places)).T.tolist()]
        luck = draw_together(self.all.scores_of(np.arange(len(self.all.ways))), self.draws)
        found = []
        for rule, place, own, mean, each in zip(rules, places, scores, means(seen, self.draws), chosen, strict=True):
            assert mean is not None  # noqa: S101 - every question has a score
            band = _reach_down(mean, luckiest(luck[:, self.all.contenders(rule, place, luck)]))
            unsteady = sum(way != self.all.ways[place] for way in each) / len(each)
            found.append(self._choice(place, own, _including(math.fsum(own) / len(own), band), unsteady))
        return found

    def _choice(self, place: int, held_out: list[float], mean: Mean, unsteady: float) -> Choice:
        offer = self.all
        way = offer.ways[place]
        latency_s = float(offer.latency[place])
        return Choice(
            way=way,
            learned=self._learn(way, self._everything, offer.centres) if place >= offer.base else Learned(),
            seen=float(offer.score[place]),
            held_out=mean,
            cost=float(offer.cost[place]),
            latency_s=None if math.isnan(latency_s) else latency_s,
            tried=len(offer.ways),
            unsteady=unsteady,
            by_group=held_out,
        )


def split(train: Any, parts: int, seed: int) -> list[Any]:
    """Return so many parts of these groups, drawn by lot: each as a mask over all groups."""
    np = load_numpy()
    places = np.flatnonzero(train).tolist()
    random.Random(f"split {seed}").shuffle(places)  # noqa: S311 - statistics, no secret
    masks = []
    for part in range(parts):
        mask = np.zeros(len(train), dtype=bool)
        mask[places[part::parts]] = True
        masks.append(mask)
    return masks


def _factor(unsteady: float) -> float:
    """Return by how much an interval is wider where the folds do not choose the same.

    What is chosen then depends on questions that the folds share, and their scores on each other: by the correction of
    Nadeau and Bengio the variance of all of it is so much larger.
    """
    return math.sqrt(1 + unsteady * _OUTER / (_OUTER - 1))


def luckiest(luck: Any) -> float:
    """Return by how many standard errors the luckiest of several ways is above its truth at most, but for a `TAIL`."""
    np = load_numpy()
    usual = NormalDist().inv_cdf(1 - TAIL)
    return max(usual, round(float(np.quantile(luck.max(axis=1, initial=0.0), 1 - TAIL)), 3))


def _reach_down(seen: Mean, errors: float) -> Mean:
    """Return a mean with an interval that reaches down by so many standard errors."""
    low, high = seen.interval
    usual = NormalDist().inv_cdf(1 - TAIL)
    return replace(seen, interval=(max(0.0, seen.mean - errors / usual * (seen.mean - low)), high))


def _including(held_out: float, seen: Mean) -> Mean:
    """Return the score of a rule with the interval of what it chose, which holds that score, too."""
    low, high = seen.interval
    return Mean(seen.tasks, held_out, (min(held_out, low), max(held_out, high)))


def _widen_difference(pair: PairedDifference, unsteady: float) -> PairedDifference:
    """Return a difference with a wider interval, and the p that goes with it."""
    if not unsteady:
        return pair
    factor = _factor(unsteady)
    low, high = pair.interval
    error = factor * (high - low) / (2 * NormalDist().inv_cdf(1 - TAIL))
    p = 2 * NormalDist().cdf(-abs(pair.mean) / error) if error else 1.0
    drawn = [pair.mean + factor * (each - pair.mean) for each in pair.drawn]
    return dataclasses.replace(pair, p=max(p, pair.p), squared=pair.squared * factor**2, drawn=drawn)


def _kinds_tried(train: Any) -> list[int]:
    """Return into how many kinds the questions are told apart; what is learned of each is learned from a part."""
    return kinds_worth_trying(int(load_numpy().count_nonzero(train)) * (_INNER - 1) // _INNER)


def _keeps(rule: Rule, chosen: Choice) -> bool:
    """Return whether what was asked for is there: a score counts as it was held out."""
    is_quick = rule.max_latency_s == math.inf or (
        chosen.latency_s is not None and chosen.latency_s <= _SLACK * rule.max_latency_s
    )
    is_good = rule.min_score is None or chosen.held_out.mean >= rule.min_score
    return chosen.cost <= _SLACK * rule.max_cost and is_quick and is_good
