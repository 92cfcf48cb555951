"""Pick the best response, word for word: the first of the judge's ranking, or the one that a judge prefers when asked.

Reads   messages, panel, analysis (where there is one), recipe
Adds    answer; calls
Calls   none where the analysis has a ranking, or with `--check`; else one completion; two for each pair for
        `--pairwise`, all at once; for `--check-retry N` up to N for each response
Fails   never with a panel that answered: the best ranked response, else the longest finished one, is the answer
        (`check_failed` where `--check` passes none)
Source  Zheng et al. 2023, LLM-as-a-Judge, arXiv:2306.05685 (`--pairwise`: both orders of every pair); Chen et al.
        2023, universal self-consistency, arXiv:2311.17311 (`--consistent`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from msgspec import Struct

from fusiontools.config.models import Model
from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import PickOptions
from fusiontools.errors import CallFailed, StageCode
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record import sections
from fusiontools.record.sections import usable_positions
from fusiontools.record.types import Degraded, Record
from fusiontools.stages import prompts
from fusiontools.stages.pairwise import PairwiseVerdict, duel
from fusiontools.stages.replies import label_in, said_in, unreadable
from fusiontools.stages.runtime import Runtime, Stage, copy_response, reads_panel, with_section
from fusiontools.stages.verdicts import ask, on_panel, verdict_form, verdict_params, with_settings

#: The most responses of which every pair is compared: 56 calls.
MOST_PAIRED = 8
_PROPERTIES = {"reasoning": {"type": "string"}, "best": {"type": "string"}}


def pick(options_for: OptionsFor[PickOptions]) -> Stage:
    """Return the stage."""

    @reads_panel("pick")
    async def run(record: Record, runtime: Runtime) -> Record:
        options = options_for(record)
        if options.check is not None:
            from fusiontools.stages.pick_check import pick_checked  # which can run commands: seldom wanted

            return await pick_checked(record, options, runtime)
        usable = usable_positions(record)
        if len(usable) == 1:
            return copy_response(record, usable[0], sections.one_survivor(record, "pick"), by="pick")
        asks = options.pairwise or options.consistent
        if not asks and sections.is_settled(record):
            return copy_response(record, sections.best(record), [], by="pick")
        if not asks and set(_ranking(record)) & set(usable):
            answer = sections.take_verbatim(record, sections.best(record), "pick", pick={"method": "ranking"})
            return with_section(record, "answer", answer)
        if not options.models:
            detail = "no judge is named (-m, or a recipe)"
            return _fall_back(record, [{"stage": "pick", "code": "no_judge", "detail": detail}])
        return await _Picking(record, options, runtime, runtime.ledger("pick", record)).finish()

    return run


def _ranking(record: Record) -> Sequence[int]:
    return record.get("analysis", {}).get("ranking", [])


def _fall_back(record: Record, notes: list[Degraded], ledger: Ledger | None = None) -> Record:
    """Return the record with the response that is best without a verdict; the last note says why and which."""
    ranked = set(_ranking(record)).intersection(usable_positions(record))
    kind = "best ranked" if ranked else "longest finished"
    last: Degraded = {**notes[-1], "detail": f"{notes[-1]['detail']}; the {kind} response stands in"}
    calls = ledger.calls if ledger is not None else None
    return copy_response(record, sections.best(record), [*notes[:-1], last], calls, by="pick")


class _Picking(Struct):
    """One record on its way to a judge and back."""

    record: Record
    options: PickOptions
    runtime: Runtime
    ledger: Ledger
    notes: list[Degraded] = []

    async def finish(self) -> Record:
        """Return the record with the response that the judge prefers."""
        self.notes += on_panel(self.record, "pick", [self._judge()])
        picked = await (self._ask_pairs() if self.options.pairwise else self._ask_once())
        if picked is None:
            return _fall_back(self.record, self.notes, self.ledger)
        position, how = picked
        answer = sections.take_verbatim(self.record, position, "pick", pick=how)
        return with_section(self.record, "answer", answer, self.ledger.calls, self.notes)

    async def _ask_once(self) -> tuple[int, dict[str, Any]] | None:
        """Ask once, over all responses; None where no response is named."""
        judge, kind = self._judge(), "consistent" if self.options.consistent else "pick"
        labels = prompts.blind_order(self.record["id"], usable_positions(self.record))[1]
        prompt = prompts.about_responses(self.record, kind, self.options.template, labels)
        params = verdict_params(judge, verdict_form(_PROPERTIES))
        reply = await ask(params, prompt, judge, self.runtime, self.ledger, Slot(judge.name))
        if isinstance(reply, CallFailed):
            self._note("pick_failed", reply.message)
            return None
        position = labels.get(label_in(said_in(reply, "best"), labels))
        if position is None:
            self._note("bad_pick", unreadable(reply, "names no response"))
            return None
        return position, {"method": "consistent" if self.options.consistent else "asked", "judge": judge.name}

    async def _ask_pairs(self) -> tuple[int, dict[str, Any]] | None:
        """Ask for every pair, in both orders, equal responses once; None where not one verdict can be read."""
        texts = {
            position: prompts.response_text(self.record["panel"][position]) for position in self._choose_compared()
        }
        pairs = list(combinations(dict.fromkeys(texts.values()), 2))
        duels = await asyncio.gather(*(self._duel(number, pair) for number, pair in enumerate(pairs)))
        if not self._has_verdict(duels):
            return None
        better = {frozenset(pair): pair[d.winner] for pair, d in zip(pairs, duels, strict=True) if d.winner is not None}
        outcomes: dict[tuple[int, int], int | None] = {}
        for one, other in combinations(texts, 2):
            won = better.get(frozenset((texts[one], texts[other])))
            outcomes[one, other] = None if won is None else one if won == texts[one] else other
        points = points_of(outcomes)
        best, tie = winner(points, outcomes, _ranking(self.record))
        shown = {str(position): points[position] for position in points}
        how = {"method": "pairwise", "judge": self._judge().name, "points": shown}
        return best, how | ({"tie": tie} if tie else {})

    async def _duel(self, number: int, texts: tuple[str, str]) -> PairwiseVerdict:
        return await duel(
            self.record,
            texts,
            self._judge(),
            self.options.template,
            self.runtime,
            self.ledger,
            first_sample=2 * number,
        )

    def _choose_compared(self) -> list[int]:
        """Return the positions that are compared, in panel order."""
        ranked = sections.by_rank(self.record)
        if len(ranked) > MOST_PAIRED:
            by = "best ranked" if _ranking(self.record) else "longest finished"
            detail = f"the {MOST_PAIRED} {by} of {len(ranked)} responses are compared"
            self.notes.append({"stage": "pick", "code": "pairwise_bounded", "detail": detail})
        return sorted(ranked[:MOST_PAIRED])

    def _has_verdict(self, duels: Sequence[PairwiseVerdict]) -> bool:
        """Return whether any verdict can be read; say how many cannot."""
        verdicts = [verdict for fought in duels for verdict in fought.verdicts]
        missing = [verdict for verdict in verdicts if verdict in ("failed", "unreadable")]
        if not missing:
            return True
        problem = next(fought.problem for fought in duels if fought.problem)
        if len(missing) < len(verdicts):
            self._note("partial_pick", f"{len(missing)} of {len(verdicts)} verdicts are missing: {problem}")
            return True
        if "unreadable" in missing:
            self._note("bad_pick", str(problem))
        else:
            self._note("pick_failed", str(problem))
        return False

    def _judge(self) -> Model:
        return with_settings(self.options.models[0], self.options.temperature, self.options.max_tokens)

    def _note(self, code: StageCode, detail: str) -> None:
        self.notes.append({"stage": "pick", "code": code, "detail": f"{self._judge().name}: {detail}"})


def points_of(outcomes: Mapping[tuple[int, int], int | None]) -> dict[int, float]:
    """Return each position's points, in panel order.

    Args:
        outcomes: for each pair of positions the better one, None where neither is: one point, or a half for both.
    """
    points = dict.fromkeys(sorted({position for pair in outcomes for position in pair}), 0.0)
    for pair, better in outcomes.items():
        for position in pair if better is None else (better,):
            points[position] += 0.5 if better is None else 1.0
    return points


def winner(
    points: Mapping[int, float], outcomes: Mapping[tuple[int, int], int | None], ranking: Sequence[int]
) -> tuple[int, str | None]:
    """Return who has the most points, and what broke a tie, where there was one.

    A tie goes to the first in the analysis' ranking; else to who has the most points in the duels among the tied alone;
    else to the earliest.
    """
    tied = [position for position in points if points[position] == max(points.values())]
    if len(tied) == 1:
        return tied[0], None
    for position in ranking:
        if position in tied:
            return position, "ranking"
    among = points_of({pair: better for pair, better in outcomes.items() if set(pair) <= set(tied)})
    leaders = [position for position in tied if among[position] == max(among.values())]
    return leaders[0], "duel" if len(leaders) == 1 else "earliest"
