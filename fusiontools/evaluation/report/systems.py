"""The systems that one graded record holds: what each of them scored on it, what its calls took, and how long."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

from fusiontools.answers.certainty import rounds_until_sure
from fusiontools.evaluation.report.votes import confidence_of, counted_in, earliest, voted, weighting_of, weightings
from fusiontools.llm.ledger import Spending
from fusiontools.record.types import Grade, Record

#: Stages that no system pays for: they measure.
BESIDE = frozenset(("baseline", "grade"))
#: A member's name and the number of its sample.
Seat = tuple[str, int]


@dataclass(slots=True)
class Calls:
    """A record's calls, by who needs them."""

    panel: list[Mapping[str, Any]] = field(default_factory=list)
    judge: list[Mapping[str, Any]] = field(default_factory=list)
    #: All calls that the fusion's answer took.
    fusion: list[Mapping[str, Any]] = field(default_factory=list)
    #: The calls of one response of the first layer, and of one baseline's.
    members: dict[Seat, list[Mapping[str, Any]]] = field(default_factory=dict)
    baselines: dict[Seat, list[Mapping[str, Any]]] = field(default_factory=dict)


def sorted_out(calls: Iterable[Mapping[str, Any]]) -> Calls:
    """Return the calls of a record by who needs them."""
    sorted_calls = Calls()
    for call in calls:
        stage = call["stage"]
        seat = (call.get("member", ""), call.get("sample", 0))
        if stage == "baseline":
            sorted_calls.baselines.setdefault(seat, []).append(call)
        if stage in BESIDE:
            continue
        sorted_calls.fusion.append(call)
        if stage == "judge":
            sorted_calls.judge.append(call)
        elif stage == "panel":
            sorted_calls.panel.append(call)
            # A step is a call about responses, none of a member's own.
            if call.get("layer", 1) == 1 and "step" not in call:
                sorted_calls.members.setdefault(seat, []).append(call)
    return sorted_calls


def wall_clock(calls: Iterable[Mapping[str, Any]]) -> float:
    """Estimate the seconds that calls take: stages, layers and steps in sequence, within one all seats at once.

    A seat's attempts come one after the other, and so do the rounds of a panel that was asked until it was sure. NaN
    where there is no call, or one was replayed: nobody measured.
    """
    groups: dict[tuple[Any, ...], dict[Seat, float]] = {}
    for call in calls:
        if call.get("replayed"):
            return math.nan
        lanes = groups.setdefault((call["stage"], call.get("layer"), call.get("step"), call.get("round")), {})
        seat = (call.get("member", ""), call.get("sample", 0))
        lanes[seat] = lanes.get(seat, 0.0) + call.get("latency_s", 0.0)
    return sum(max(lanes.values()) for lanes in groups.values()) if groups else math.nan


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


@dataclass(slots=True)
class Outcome:
    """How a system fared on one record; `failed` is the share of its texts that are failures.

    `spent` is what all its `samples` took together; its score and its time on the wall are those of one on average.
    """

    score: float
    failed: float
    spent: Spending
    latency_s: float
    samples: int = 1


def outcomes(record: Record) -> dict[System, Outcome]:
    """Return every system that can be told from a record.

    A record with an `error`, or without grades, has only what was paid for: whoever has no grade there scores 0.
    """
    grades = record.get("grades") or []
    panel = [grade for grade in grades if grade["of"] == "panel"]
    calls = sorted_out(_in_rounds(record, panel))
    found: dict[System, Outcome] = {FUSION: _of_answer(grades, calls.fusion)}
    if not has_abstained(record):
        found[ANSWERED] = found[FUSION]
    if _is_checked(record):
        found[CHECKED] = found[FUSION]
    found |= _alone("member", first_layer(grades), calls.members, confidence_of(record, "panel"))
    baselines = [grade for grade in grades if grade["of"] == "baseline"]
    found |= _alone("baseline", baselines, calls.baselines, confidence_of(record, "baselines"))
    if not panel:
        return found
    found[VOTE] = _outcome(_voted_in(record, panel), panel, calls.panel)
    own = weighting_of(record)
    for kind, weights in weightings(record, panel).items():
        taken = _copied(record, panel) if kind == own else None
        found[System(kind)] = _outcome(taken or counted_in(record, panel, weights), panel, calls.panel)
    # Where nobody knows how sure they were, all count the same.
    found = {LOGPROB: found[VOTE], SURER: found[VOTE]} | found
    is_whole = is_asked_until(record) or bool(record.get("layers"))
    found[UNTIL] = found[VOTE] if is_whole else _until_sure(record, panel, calls)
    found[PICK] = _outcome(_picked_in(record, panel), panel, [*calls.panel, *calls.judge])
    found[ORACLE] = _outcome(max(panel, key=lambda grade: grade["score"]), panel, calls.panel)
    return found


def find_equal(record: Record) -> set[tuple[System, System]] | None:
    """Return the systems that give the same answer here by construction, in pairs; None where nothing was answered.

    A fusion that votes is the vote, one that picks is the pick, and the vote of a panel of one model's samples is that
    model's vote.
    """
    grades = record.get("grades") or []
    panel = [grade for grade in grades if grade["of"] == "panel"]
    if not panel or (all("error" in grade for grade in panel) and "answer" not in record):
        return None
    equal = {(FUSION, system) for system in (VOTE, PICK) if _answers(record, system.kind, panel)}
    if (weighting := weighting_of(record)) not in (None, "plain"):
        equal.add((FUSION, System(str(weighting))))
    if _is_checked(record):
        equal.add((FUSION, CHECKED))
    if is_asked_until(record):
        equal.add((VOTE, UNTIL))
    alone = {grade["member"] for grade in panel}
    if len(alone) == 1 and len(panel) > 1 and first_layer(grades) == panel:
        equal.add((VOTE, System("member", alone.pop(), len(panel))))
    return equal


def _answers(record: Record, stage: str, panel: Sequence[Grade]) -> bool:
    """Return whether this stage took the answer from the panel; where it could not choose, it says so."""
    if has_abstained(record) or (stage == "pick" and _is_checked(record)):
        return False
    if stage == "vote" and "vote" in record.get("answer", {}) and weighting_of(record) != "plain":
        return False
    by = record["answer"].get("by") if "answer" in record else None
    could_not = len(panel) == 1 or any(note["stage"] == stage for note in record.get("degraded", []))
    return by == stage or (by == "panel" and could_not)


def _taken(record: Record, stage: str, panel: Sequence[Grade]) -> Grade | None:
    """Return the grade of what this stage took, where it made the answer."""
    return _copied(record, panel) if _answers(record, stage, panel) else None


def _copied(record: Record, panel: Sequence[Grade]) -> Grade | None:
    """Return the grade of the response that the answer is, else the answer's own."""
    place = record["answer"].get("response")
    if place is not None and place < len(panel):
        return panel[place]
    return next((grade for grade in record["grades"] if grade["of"] == "answer"), None)


def _voted_in(record: Record, panel: Sequence[Grade]) -> Grade:
    """Return the grade of the response that `fuse-vote` takes: the one that it took, where it made the answer."""
    if (taken := _taken(record, "vote", panel)) is not None:
        return taken
    return counted_in(record, panel)


def _until_sure(record: Record, panel: Sequence[Grade], calls: Calls) -> Outcome:
    """Return the vote of the first responses that make sure what most say, members in turn, asked in rounds."""
    in_turn = sorted(panel, key=lambda grade: grade["sample"])
    rounds = rounds_until_sure([grade["key"] or None for grade in in_turn], SURE)
    heard = in_turn[: rounds[-1]]
    paid = [calls.members.get((grade["member"], grade["sample"]), []) for grade in heard]
    lasted = [wall_clock(call for own in paid[begun:ended] for call in own) for begun, ended in pairwise([0, *rounds])]
    every = [call for own in paid for call in own]
    outcome = _outcome(voted(heard, confidence_of(record, "panel")), heard, every)
    return replace(outcome, latency_s=sum(lasted))


def _in_rounds(record: Record, panel: Sequence[Grade]) -> list[Mapping[str, Any]]:
    """Return a record's calls, those of a panel that was asked until it was sure with the number of their round."""
    calls: list[Mapping[str, Any]] = [*record.get("calls", [])]
    if not is_asked_until(record) or record.get("layers"):
        return calls
    asked: Any = record["recipe"]["panel"]
    rounds = rounds_until_sure([grade["key"] or None for grade in panel], asked["until"], asked.get("at_once", 1))
    numbers = {
        (grade["member"], grade["sample"]): sum(ended <= place for ended in rounds) for place, grade in enumerate(panel)
    }
    seats = [(call.get("member", ""), call.get("sample", 0)) for call in calls]
    return [
        {**call, "round": numbers[seat]} if call["stage"] == "panel" and seat in numbers else call
        for call, seat in zip(calls, seats, strict=True)
    ]


def is_asked_until(record: Record) -> bool:
    """Return whether the panel was asked until it was sure."""
    recipe: Any = record.get("recipe") or {}
    panel = recipe.get("panel")
    until = panel.get("until") if isinstance(panel, dict) else None
    return isinstance(until, float) and 0.5 <= until < 1


def agreement_of(record: Record) -> tuple[float, float] | None:
    """Return which share of the panel's responses the plain vote's answer has, and its score; None without a vote."""
    panel = [grade for grade in record.get("grades") or [] if grade["of"] == "panel"]
    if len(panel) < 2 or not any(grade["key"] for grade in panel):
        return None
    winner = counted_in(record, panel)
    votes = sum(grade["key"] == winner["key"] for grade in panel) if winner["key"] else 0
    return votes / len(panel), winner["score"]


def _is_checked(record: Record) -> bool:
    """Return whether a check picked the answer, or passed none so that the best ranked response stands in."""
    pick: Any = record.get("answer", {}).get("pick") or {}
    return pick.get("method") == "check" or any(note["code"] == "check_failed" for note in record.get("degraded", []))


def has_abstained(record: Record) -> bool:
    """Return whether a record's vote has given no answer."""
    return "abstained" in record.get("answer", {})


def first_layer(grades: Sequence[Grade]) -> list[Grade]:
    """Return the grades of what members answered alone, before they saw each other's responses."""
    earlier = [grade for grade in grades if grade["of"] == "layer" and grade["layer"] == 1]
    return earlier or [grade for grade in grades if grade["of"] == "panel" and grade["layer"] <= 1]


def _of_answer(grades: Sequence[Grade], calls: Sequence[Mapping[str, Any]]) -> Outcome:
    answer = next((grade for grade in grades if grade["of"] == "answer"), None)
    if answer is None:
        return Outcome(0.0, 1.0, Spending.of(calls), wall_clock(calls))
    return _outcome(answer, [answer], calls)


def _outcome(grade: Grade, texts: Sequence[Grade], calls: Sequence[Mapping[str, Any]]) -> Outcome:
    failed = all("error" in text for text in texts)
    return Outcome(grade["score"], float(failed), _spent_on(calls, failed=failed), wall_clock(calls))


def _spent_on(calls: Sequence[Mapping[str, Any]], *, failed: bool) -> Spending:
    """Return what a text took: one that came though no call is known of was not free for that."""
    return Spending.of(calls) if calls or failed else Spending(unknown=1)


def _picked_in(record: Record, panel: Sequence[Grade]) -> Grade:
    """Return the grade of the response that `fuse-pick` takes: the one that it took, where it made the answer."""
    if (taken := _taken(record, "pick", panel)) is not None:
        return taken
    ranking = record.get("analysis", {}).get("ranking", [])
    first = next((i for i in ranking if i < len(panel) and "error" not in panel[i]), None)
    return earliest(panel) if first is None else panel[first]


def _alone(
    kind: str,
    grades: Sequence[Grade],
    calls: Mapping[Seat, Sequence[Mapping[str, Any]]],
    sure: Mapping[tuple[int, str, int], float | None],
) -> dict[System, Outcome]:
    """Return each model by itself: one answer of it, and the votes of its first samples."""
    graded: dict[str, list[Grade]] = {}
    for grade in sorted(grades, key=lambda grade: grade["sample"]):
        graded.setdefault(grade["member"], []).append(grade)
    found: dict[System, Outcome] = {}
    for model in dict.fromkeys([*graded, *(model for model, _ in calls)]):
        samples = graded.get(model, [])
        asked = sorted({*(grade["sample"] for grade in samples), *(n for name, n in calls if name == model)})
        each = [calls.get((model, number), []) for number in asked]
        found[System(kind, model)] = _on_average(samples, each)
        for votes in range(2, len(samples) + 1):
            first = samples[:votes]
            together = [call for grade in first for call in calls.get((model, grade["sample"]), [])]
            found[System(kind, model, votes)] = _outcome(voted(first, sure), first, together)
    return found


def _on_average(samples: Sequence[Grade], each: Sequence[Sequence[Mapping[str, Any]]]) -> Outcome:
    """Return how one answer of a model fares: the mean of its samples, each with its calls."""
    score, failed = math.nan, 0.0
    if samples:
        score = sum(grade["score"] for grade in samples) / len(samples)
        failed = sum("error" in grade for grade in samples) / len(samples)
    calls = [call for own in each for call in own]
    spent = _spent_on(calls, failed=failed == 1 or not samples)
    latency_s = sum(map(wall_clock, each)) / len(each)
    return Outcome(score, failed, spent, latency_s, len(each) if calls else 1)
