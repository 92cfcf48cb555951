"""The systems that graded records hold: what each of them scored, what its calls took, and how long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from fusiontools.evaluation.report.columns import Batch, RecordFacts, Texts
from fusiontools.evaluation.report.graded import Graded
from fusiontools.evaluation.report.majority import Majority, ask_until_sure, find_majority
from fusiontools.evaluation.report.statistics import load_numpy
from fusiontools.evaluation.report.took import NO_ROUND, CallSums, Took


class System(NamedTuple):
    """Who answers: `fusion`, `vote`, `pick`, `oracle`, or one model alone.

    `kind` of a model is `member` or `baseline`; with `votes` it is the vote of the first so many of its samples.
    """

    kind: str
    model: str = ""
    votes: int = 0


FUSION, VOTE, PICK, ORACLE = System("fusion"), System("vote"), System("pick"), System("oracle")
#: The fusion where it did not abstain, and where a check picked its answer.
ANSWERED, CHECKED = System("answered"), System("checked")
#: Votes in which not all count the same: by the weights that the record's recipe gives or brings along, by how sure
#: each was, and of the surer alone.
GIVEN, LEARNED, LOGPROB, SURER = (System(kind) for kind in ("given", "learned", "logprob", "surer"))
WEIGHTED = (GIVEN, LEARNED, LOGPROB, SURER)
#: The vote of as many responses of the panel as make sure what most say.
UNTIL = System("until")
#: How sure that is, where the record's recipe does not say.
SURE = 0.95


class Outcome(NamedTuple):
    """How a system fared on some records: arrays over them; where it was not asked its score is NaN, all else 0.

    `failed` is the share of its texts that are failures. `took` is what all its `samples` took together; its score and
    its time on the wall are those of one on average.
    """

    score: Any
    failed: Any
    took: Took
    samples: Any = 1

    def where(self, is_asked: Any) -> Outcome:
        """Return the same for the records on which it was asked."""
        np = load_numpy()
        score = np.where(is_asked, self.score, math.nan)
        return self._replace(score=score, failed=np.where(is_asked, self.failed, 0.0), took=self.took.where(is_asked))


def not_asked(records: int) -> Outcome:
    """Return how a system fared that none of so many records holds."""
    np = load_numpy()
    return Outcome(np.full(records, math.nan), np.zeros(records), Took.nothing(records))


class Told(NamedTuple):
    """What is told of a batch: how each system fared that any record of it holds, and the plain votes.

    Args:
        agreement: which share of the panel's responses has the answer of the plain vote; NaN where nobody votes.
        voted: the score of that answer.
    """

    outcomes: dict[System, Outcome]
    agreement: Any
    voted: Any


def tell(batch: Batch) -> Told:
    """Tell every system of a batch.

    A record with an `error`, or without grades, has only what was paid for: whoever has no grade there scores 0.
    """
    np = load_numpy()
    facts, panel = batch.facts, batch.panel
    rounds = _find_rounds(batch, facts, panel)
    sums = batch.add_up(rounds)
    # Of what nobody looked at, nobody knows whether it failed.
    failed = facts.failed * facts.looked_at
    fused = Outcome(facts.score, failed, sums.fusion.paid_for(facts.failed > 0))
    found = {FUSION: fused}
    for system, is_so in ((ANSWERED, facts.abstained == 0), (CHECKED, facts.checked > 0)):
        if is_so.any():
            found[system] = fused.where(is_so)
    found |= _tell_alone("member", batch, batch.members, sums.members, rounds)
    unheard = np.full_like(rounds, NO_ROUND)
    found |= _tell_alone("baseline", batch, batch.baselines, sums.baselines, unheard)
    nobody = np.full(batch.rows, math.nan)
    if not panel.there.any():
        return Told(found, nobody, nobody)
    ordered = panel.along(batch.order)
    winner = find_majority(ordered.key, ordered.sure, ordered.failed)
    voted = ordered.scores_at(winner)
    found |= _tell_choices(batch, facts, panel, ordered, voted, sums)
    own = np.take_along_axis(ordered.key, winner[:, None], axis=1)
    is_vote = (panel.there.sum(axis=1) > 1) & (own[:, 0] >= 0)
    agreement = (panel.key == own).sum(axis=1) / np.maximum(panel.there.sum(axis=1), 1)
    return Told(found, np.where(is_vote, agreement, math.nan), np.where(is_vote, voted, math.nan))


def _tell_choices(
    batch: Batch, facts: RecordFacts, panel: Texts, ordered: Texts, voted: Any, sums: CallSums
) -> Iterator[tuple[System, Outcome]]:
    """Yield who chooses from the panel: he needs the calls of all of it, whatever is chosen.

    Args:
        ordered: the panel as it was ranked.
        voted: the score of what has the most votes.
    """
    np = load_numpy()
    chosen = batch.chosen
    is_there, failed = panel.there.any(axis=1), panel.failed.all(axis=1)

    def outcome(score: Any, took: Took) -> Outcome:
        return Outcome(score, failed, took.paid_for(failed)).where(is_there)

    vote = outcome(_else(chosen["vote"], voted), sums.panel)
    yield VOTE, vote
    # Where nobody knows how sure they were, all count the same.
    yield LOGPROB, vote._replace(score=_else(chosen["logprob"], vote.score))
    yield SURER, vote._replace(score=_else(chosen["surer"], vote.score))
    for system, score in ((GIVEN, chosen["given"]), (LEARNED, chosen["learned"])):
        if not np.isnan(score).all():
            yield system, vote._replace(score=score).where(~np.isnan(score))
    until, is_whole = _until_sure(batch, panel, sums).where(is_there), (facts.until > 0) | (facts.layered > 0)
    yield (
        UNTIL,
        Outcome(
            np.where(is_whole, vote.score, until.score),
            np.where(is_whole, vote.failed, until.failed),
            vote.took.where(is_whole).then(until.took.where(~is_whole)),
        ),
    )
    usable = ~ordered.failed & (np.arange(ordered.key.shape[1]) < facts.ranked[:, None])
    best = np.where(
        usable.any(axis=1),
        ordered.scores_at(usable.argmax(axis=1)),
        # Else the first that did not fail, or the first.
        panel.scores_at((~panel.failed).argmax(axis=1)),
    )
    yield PICK, outcome(_else(chosen["pick"], best), sums.panel.then(sums.judge))
    yield ORACLE, vote._replace(score=np.fmax.reduce(panel.score, axis=1))


def _find_rounds(batch: Batch, facts: RecordFacts, panel: Texts) -> Any:
    """Return in which round each seat of a panel was asked that was asked until it was sure: `rows × seats`."""
    np = load_numpy()
    rounds = np.full((batch.rows, len(batch.seats)), NO_ROUND)
    is_in_rounds = (facts.until > 0) & (facts.layered == 0)
    if is_in_rounds.any():
        asked = panel.there.sum(axis=1)
        found, _ = ask_until_sure(panel.key, asked, np.where(is_in_rounds, facts.until, SURE), facts.at_once)
        rows, places = np.nonzero(panel.there & is_in_rounds[:, None])
        rounds[rows, panel.seat[rows, places]] = found[rows, places]
    return rounds


def _until_sure(batch: Batch, panel: Texts, sums: CallSums) -> Outcome:
    """Return the vote of the first responses that make sure what most say, members in turn, asked in rounds."""
    np = load_numpy()
    samples = np.array([sample for _, sample in batch.seats])
    turns = np.where(panel.there, samples[panel.seat], samples.max() + 1).argsort(axis=1, kind="stable")
    own = panel.along(turns)
    rounds, asked = ask_until_sure(own.key, own.there.sum(axis=1), np.full(batch.rows, SURE), 1)
    is_heard = np.arange(own.key.shape[1]) < asked[:, None]
    keys, failed = np.where(is_heard, own.key, -1), own.failed | ~is_heard
    paid = sums.members.along(own.seat)
    took = Took.nothing(batch.rows)
    for number in range(int(rounds.max()) + 1):
        is_of = is_heard & (rounds == number)
        together = paid.where(is_of).at_once()
        # Of a round of which no call is known nobody knows how long it lasted.
        is_unmeasured = is_of.any(axis=1) & (together.calls == 0)
        took = took.then(together._replace(latency_s=np.where(is_unmeasured, math.nan, together.latency_s)))
    have_failed = failed.all(axis=1)
    score = own.scores_at(find_majority(keys, own.sure, failed))
    return Outcome(score, have_failed, took.paid_for(have_failed))


def _tell_alone(kind: str, batch: Batch, texts: Texts, took: Took, rounds: Any) -> Iterator[tuple[System, Outcome]]:
    """Yield each model by itself: one answer of it, and the votes of its first samples."""
    models: dict[str, list[int]] = {}
    for (model, _), seat in sorted(batch.seats.items()):
        models.setdefault(model, []).append(seat)
    for model, seats in models.items():
        own, each = texts.of(seats), took.of(seats)
        is_asked = own.there | (each.calls > 0)
        if is_asked.any():
            yield System(kind, model), _on_average(own, each, is_asked)
        if (own.there.sum(axis=1) > 1).any():
            yield from _tell_votes(kind, model, own, each, rounds[:, seats])


def _on_average(own: Texts, each: Took, is_asked: Any) -> Outcome:
    """Return how one answer of a model fares: the mean of its samples, each with its calls."""
    np = load_numpy()
    texts, asked = own.there.sum(axis=1), is_asked.sum(axis=1)
    some = np.maximum(texts, 1)
    score = np.where(texts > 0, sum(np.where(own.there, own.score, 0.0).T) / some, math.nan)
    failed = (own.failed & own.there).sum(axis=1) / some
    latency_s = np.where(is_asked & (each.calls == 0), math.nan, each.latency_s).sum(axis=1) / np.maximum(asked, 1)
    took = each.in_turn()._replace(latency_s=latency_s).paid_for((failed == 1) | (texts == 0))
    return Outcome(score, failed, took, np.where(took.calls > 0, asked, 1)).where(asked > 0)


def _tell_votes(kind: str, model: str, own: Texts, each: Took, rounds: Any) -> Iterator[tuple[System, Outcome]]:
    """Yield the vote of a model's first two samples, its first three, and so on: those of one round work at once."""
    np = load_numpy()
    # The samples that there are, moved together.
    order = (~own.there).argsort(axis=1, kind="stable")
    own, each, rounds = own.along(order), each.along(order), np.take_along_axis(rounds, order, axis=1)
    failed = np.ones(len(order), bool)
    earlier = current = Took.nothing(len(order))
    majority = Majority(own.key, own.sure, own.failed)
    for place in range(own.key.shape[1]):
        majority.add(place)
        failed = failed & own.failed[:, place]
        begins = rounds[:, place] != rounds[:, place - 1]
        earlier, current = earlier.then(current.where(begins)), current.where(~begins).beside(each.of(place))
        is_there = own.there[:, place]
        if place and is_there.any():
            took = earlier.then(current).paid_for(failed)
            yield (
                System(kind, model, place + 1),
                Outcome(own.scores_at(majority.winners()), failed, took).where(is_there),
            )


def _else(scores: Any, others: Any) -> Any:
    """Return the scores, and the others where there is none."""
    np = load_numpy()
    return np.where(np.isnan(scores), others, scores)


def find_equal(graded: Graded) -> set[tuple[System, System]] | None:
    """Return the systems that give the same answer here by construction, in pairs; None where nothing was answered.

    A fusion that votes is the vote, one that picks is the pick, and the vote of a panel of one model's samples is that
    model's vote.
    """
    panel = graded.panel
    if not panel or ("answer" not in graded.record and all("error" in grade for grade in panel)):
        return None
    equal = {(FUSION, system) for system in (VOTE, PICK) if graded.is_by(system.kind)}
    if graded.weighting not in (None, "plain"):
        equal.add((FUSION, System(str(graded.weighting))))
    if graded.is_checked:
        equal.add((FUSION, CHECKED))
    if graded.asked_until[0]:
        equal.add((VOTE, UNTIL))
    alone = {grade["member"] for grade in panel}
    if len(alone) == 1 and len(panel) > 1 and graded.first == panel:
        equal.add((VOTE, System("member", alone.pop(), len(panel))))
    return equal
