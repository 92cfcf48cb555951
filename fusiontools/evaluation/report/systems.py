"""The systems that one graded record holds: what each of them scored on it, what its calls took, and how long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from fusiontools.answers.certainty import rounds_until_sure
from fusiontools.evaluation.report.graded import Graded, Place, confidence_of
from fusiontools.evaluation.report.took import NOTHING, CallSums, Seat, Took, add_up
from fusiontools.evaluation.report.votes import counted_in, earliest, voted, weightings
from fusiontools.record.types import Grade


class System(NamedTuple):
    """Who answers: `fusion`, `vote`, `pick`, `oracle`, or one model alone.

    `kind` of a model is `member` or `baseline`; with `votes` it is the vote of the first so many of its samples.
    """

    kind: str
    model: str = ""
    votes: int = 0


#: The same system again: a report asks for the same few on every record.
system_of = cache(System)

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
    """How a system fared on one record; `failed` is the share of its texts that are failures.

    `took` is what all its `samples` took together; its score and its time on the wall are those of one on average.
    """

    score: float
    failed: float
    took: Took
    samples: int = 1


def outcomes(graded: Graded) -> dict[System, Outcome]:
    """Return every system that can be told from a record.

    A record with an `error`, or without grades, has only what was paid for: whoever has no grade there scores 0.
    """
    panel = graded.panel
    rounds = _find_rounds(graded)
    sums = add_up(graded.record.get("calls", ()), rounds)
    found: dict[System, Outcome] = {FUSION: _of_answer(graded.answer, sums.fusion)}
    if not graded.has_abstained:
        found[ANSWERED] = found[FUSION]
    if graded.is_checked:
        found[CHECKED] = found[FUSION]
    _add_alone(found, "member", graded.first, sums.members, graded.sure, rounds)
    _add_alone(found, "baseline", graded.baselines, sums.baselines, confidence_of(graded.record, "baselines"), {})
    if not panel:
        return found
    # Who chooses from the panel needs the calls of all of it, whatever is chosen.
    found[VOTE] = whole = _outcome(_voted_in(graded), panel, sums.panel)
    # Where nobody knows how sure they were, all count the same.
    found[LOGPROB] = found[SURER] = whole
    for kind, weights in weightings(graded).items():
        taken = _copied(graded) if kind == graded.weighting else None
        found[System(kind)] = whole._replace(score=(taken or counted_in(graded, weights))["score"])
    is_whole = graded.is_asked_until or bool(graded.record.get("layers"))
    found[UNTIL] = whole if is_whole else _until_sure(graded, sums)
    found[PICK] = _outcome(_picked_in(graded), panel, sums.panel.then(sums.judge))
    found[ORACLE] = Outcome(max([grade["score"] for grade in panel]), whole.failed, whole.took)
    return found


def find_equal(graded: Graded) -> set[tuple[System, System]] | None:
    """Return the systems that give the same answer here by construction, in pairs; None where nothing was answered.

    A fusion that votes is the vote, one that picks is the pick, and the vote of a panel of one model's samples is that
    model's vote.
    """
    panel = graded.panel
    if not panel or ("answer" not in graded.record and all("error" in grade for grade in panel)):
        return None
    equal = {(FUSION, system) for system in (VOTE, PICK) if _answers(graded, system.kind)}
    if graded.weighting not in (None, "plain"):
        equal.add((FUSION, System(str(graded.weighting))))
    if graded.is_checked:
        equal.add((FUSION, CHECKED))
    if graded.is_asked_until:
        equal.add((VOTE, UNTIL))
    alone = {grade["member"] for grade in panel}
    if len(alone) == 1 and len(panel) > 1 and graded.first == panel:
        equal.add((VOTE, System("member", alone.pop(), len(panel))))
    return equal


def _answers(graded: Graded, stage: str) -> bool:
    """Return whether this stage took the answer from the panel; where it could not choose, it says so."""
    record = graded.record
    if "answer" not in record or graded.has_abstained or (stage == "pick" and graded.is_checked):
        return False
    if stage == "vote" and "vote" in record["answer"] and graded.weighting != "plain":
        return False
    if (by := record["answer"].get("by")) == stage:
        return True
    return by == "panel" and (
        len(graded.panel) == 1 or any(note["stage"] == stage for note in record.get("degraded", ()))
    )


def _taken(graded: Graded, stage: str) -> Grade | None:
    """Return the grade of what this stage took, where it made the answer."""
    return _copied(graded) if _answers(graded, stage) else None


def _copied(graded: Graded) -> Grade | None:
    """Return the grade of the response that the answer is, else the answer's own."""
    place = graded.record["answer"].get("response")
    return graded.panel[place] if place is not None and place < len(graded.panel) else graded.answer


def _voted_in(graded: Graded) -> Grade:
    """Return the grade of the response that `fuse-vote` takes: the one that it took, where it made the answer."""
    return _taken(graded, "vote") or counted_in(graded)


def _until_sure(graded: Graded, sums: CallSums) -> Outcome:
    """Return the vote of the first responses that make sure what most say, members in turn, asked in rounds."""
    in_turn = sorted(graded.panel, key=itemgetter("sample"))
    rounds = rounds_until_sure([grade["key"] or None for grade in in_turn], SURE)
    heard = in_turn[: rounds[-1]]
    paid = [sums.members.get((grade["member"], grade["sample"]), NOTHING) for grade in heard]
    each = [reduce(Took.beside, paid[begun:ended]) for begun, ended in pairwise([0, *rounds])]
    outcome = _outcome(voted(heard, graded.sure), heard, reduce(Took.then, each))
    # Of a round of which no call is known nobody knows how long it lasted.
    lasted = sum([took.latency_s for took in each])
    return (
        outcome if lasted == outcome.took.latency_s else outcome._replace(took=outcome.took._replace(latency_s=lasted))
    )


def _find_rounds(graded: Graded) -> dict[Seat, int]:
    """Return in which round each seat of a panel was asked that was asked until it was sure."""
    if not graded.is_asked_until or graded.record.get("layers"):
        return {}
    asked: Any = graded.record["recipe"]["panel"]
    rounds = rounds_until_sure(
        [grade["key"] or None for grade in graded.panel], asked["until"], asked.get("at_once", 1)
    )
    return {
        (grade["member"], grade["sample"]): sum(ended <= place for ended in rounds)
        for place, grade in enumerate(graded.panel)
    }


def agreement_of(graded: Graded) -> tuple[float, float] | None:
    """Return which share of the panel's responses the plain vote's answer has, and its score; None without a vote."""
    panel = graded.panel
    if len(panel) < 2 or not any(grade["key"] for grade in panel):
        return None
    winner = counted_in(graded)
    votes = [grade["key"] for grade in panel].count(winner["key"]) if winner["key"] else 0
    return votes / len(panel), winner["score"]


def _of_answer(answer: Grade | None, took: Took) -> Outcome:
    return Outcome(0.0, 1.0, took) if answer is None else _outcome(answer, [answer], took)


def _outcome(grade: Grade, texts: Sequence[Grade], took: Took) -> Outcome:
    failed = "error" in texts[0] and all("error" in text for text in texts)
    return Outcome(grade["score"], float(failed), took.paid_for(failed=failed))


def _picked_in(graded: Graded) -> Grade:
    """Return the grade of the response that `fuse-pick` takes: the one that it took, where it made the answer."""
    if (taken := _taken(graded, "pick")) is not None:
        return taken
    panel = graded.panel
    first = next((i for i in graded.order[: graded.ranked] if "error" not in panel[i]), None)
    return earliest(panel) if first is None else panel[first]


def _add_alone(
    found: dict[System, Outcome],
    kind: str,
    grades: Sequence[Grade],
    took: Mapping[Seat, Took],
    sure: Mapping[Place, float | None],
    rounds: Mapping[Seat, int],
) -> None:
    """Add each model by itself: one answer of it, and the votes of its first samples."""
    graded: dict[str, list[Grade]] = {}
    asked: dict[str, set[int]] = {}
    for grade in sorted(grades, key=itemgetter("sample")):
        graded.setdefault(grade["member"], []).append(grade)
        asked.setdefault(grade["member"], set()).add(grade["sample"])
    for model, number in took:
        asked.setdefault(model, set()).add(number)
    for model, numbers in asked.items():
        samples = graded.get(model, [])
        found[system_of(kind, model)] = _on_average(samples, [took.get((model, n), NOTHING) for n in sorted(numbers)])
        if len(samples) < 2:
            continue
        seats = [(model, grade["sample"]) for grade in samples]
        failed = "error" in samples[0]
        for votes, together in enumerate(_in_rounds(seats, took, rounds), 1):
            failed &= "error" in samples[votes - 1]
            if votes > 1:
                score = voted(samples[:votes], sure)["score"]
                found[system_of(kind, model, votes)] = Outcome(score, float(failed), together.paid_for(failed=failed))


def _in_rounds(seats: Sequence[Seat], took: Mapping[Seat, Took], rounds: Mapping[Seat, int]) -> Iterator[Took]:
    """Yield what the first seat took, the first two, and so on: those of one round at once."""
    earlier, current, asked_in = NOTHING, NOTHING, None
    for seat in seats:
        if rounds.get(seat) != asked_in:
            earlier, current, asked_in = earlier.then(current), NOTHING, rounds.get(seat)
        current = current.beside(took.get(seat, NOTHING))
        yield earlier.then(current)


def _on_average(samples: Sequence[Grade], each: Sequence[Took]) -> Outcome:
    """Return how one answer of a model fares: the mean of its samples, each with its calls."""
    if len(samples) == len(each) == 1 and each[0].calls:
        return Outcome(samples[0]["score"], float("error" in samples[0]), each[0])
    score, failed = math.nan, 0.0
    if samples:
        score = sum([grade["score"] for grade in samples]) / len(samples)
        failed = sum(["error" in grade for grade in samples]) / len(samples)
    calls, usd, unknown, tokens, _ = reduce(Took.then, each)
    unknown = unknown if calls or failed == 1 or not samples else 1
    latency_s = sum([took.latency_s for took in each]) / len(each)
    return Outcome(score, failed, Took(calls, usd, unknown, tokens, latency_s), len(each) if calls else 1)
