"""Grade texts by asking models: criterion by criterion, or against a reference in both orders.

A judge sees the conversation, the text and what it is held against, each between fences, and no model's name. A verdict
that is missing or cannot be read is said in the grade's `error`; it never counts for the text.

Source  DRACO, Zhong et al. 2026, arXiv:2602.11685 (rubric);
        Zheng et al. 2023, LLM-as-a-Judge, arXiv:2306.05685 (pairwise)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Model
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed, StageCode
from fusiontools.evaluation.rubric import Criterion, runs_of
from fusiontools.evaluation.task import Task
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record.types import Degraded, Message, Record
from fusiontools.stages import prompts
from fusiontools.stages.pairwise import PairwiseVerdict, duel
from fusiontools.stages.replies import truth_in, unreadable
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.verdicts import ask, verdict_form, verdict_params, with_settings

_TEMPLATE = "default"
_PROPERTIES = {"reasoning": {"type": "string"}, "met": {"type": "boolean"}}
_POINTS = {0: 1.0, 1: 0.0, None: 0.5}


class _Missing(Struct, frozen=True):
    """Why there is no verdict."""

    code: StageCode
    message: str


class ModelGrader(Struct):
    """Those who grade one record.

    Args:
        judges: each of them grades `runs` times; a repetition differs from the first run by its seed.
    """

    record: Record
    task: Task
    judges: Sequence[Model]
    runs: int
    runtime: Runtime
    ledger: Ledger
    notes: list[Degraded] = []

    async def grade(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return for each text what its grade says beside whose it is; all texts are graded at once."""
        grade = self._grade_by_rubric if self.task.grader == "rubric" else self._grade_against_reference
        return await asyncio.gather(*(grade(number, text) for number, text in enumerate(texts)))

    @property
    def _readers(self) -> list[Model]:
        """One judge for each run."""
        judges = [with_settings(judge, 0.0, None) for judge in self.judges]
        again = [
            [replace(judge, extra={**judge.extra, "seed": run}) if run else judge for run in range(self.runs)]
            for judge in judges
        ]
        return [reader for runs in again for reader in runs]

    async def _grade_by_rubric(self, number: int, text: str) -> dict[str, Any]:
        readers, criteria = self._readers, self.task.rubric
        first = number * len(criteria) * len(readers)
        asked = [
            self._ask_verdict(text, criterion, reader, first + at * len(readers) + run)
            for at, criterion in enumerate(criteria)
            for run, reader in enumerate(readers)
        ]
        replies = await asyncio.gather(*asked)
        rows = [replies[at * len(readers) : (at + 1) * len(readers)] for at in range(len(criteria))]
        verdicts = [[None if isinstance(one, _Missing) else one for one in row] for row in rows]
        runs = runs_of(criteria, verdicts)
        told = [_describe_criterion(criterion, row) for criterion, row in zip(criteria, verdicts, strict=True)]
        missing = [one for one in replies if isinstance(one, _Missing)]
        return {"score": fmean(runs), "runs": runs, "criteria": told} | self._report_missing(missing, len(replies))

    async def _ask_verdict(self, text: str, criterion: Criterion, judge: Model, number: int) -> bool | _Missing:
        prompt = _criterion_messages(self.record, text, criterion)
        slot = Slot(judge.name, number, step="criterion")
        params = verdict_params(judge, verdict_form(_PROPERTIES))
        reply = await ask(params, prompt, judge, self.runtime, self.ledger, slot)
        if isinstance(reply, CallFailed):
            return _Missing("judge_failed", f"{judge.name}: {reply.message}")
        verdict = met_in(reply)
        if verdict is None:
            return _Missing("bad_verdict", f"{judge.name}: {unreadable(reply, 'says neither met nor not met')}")
        return verdict

    async def _grade_against_reference(self, number: int, text: str) -> dict[str, Any]:
        readers = self._readers
        first = 2 * number * len(readers)
        comparisons = await asyncio.gather(
            *(self._compare(text, reader, first + 2 * run) for run, reader in enumerate(readers))
        )
        missing = [
            _Missing(
                "judge_failed" if "failed" in compared.verdicts else "bad_verdict", f"{judge.name}: {compared.problem}"
            )
            for judge, compared in zip(readers, comparisons, strict=True)
            for verdict in compared.verdicts
            if verdict in ("failed", "unreadable")
        ]
        # A duel without any verdict is no tie.
        runs = [_POINTS[compared.winner] if _has_verdict(compared) else 0.0 for compared in comparisons]
        known = [points for points, compared in zip(runs, comparisons, strict=True) if _has_verdict(compared)]
        said = self._report_missing(missing, 2 * len(comparisons))
        return {"score": fmean(known) if known else 0.0, "runs": runs} | said

    async def _compare(self, text: str, judge: Model, number: int) -> PairwiseVerdict:
        texts = (text, self.task.targets[0])
        return await duel(
            self.record, texts, judge, _TEMPLATE, self.runtime, self.ledger, first_sample=number, step="pairwise"
        )

    def _report_missing(self, missing: Sequence[_Missing], of: int) -> dict[str, Any]:
        """Return what a grade says of verdicts that are missing, and note it."""
        if not missing:
            return {}
        message = f"{len(missing)} of {of} verdicts are missing: {missing[0].message}"
        self.notes.append({"stage": "grade", "code": missing[0].code, "detail": message})
        return {"error": {"code": missing[0].code, "message": message}}


def met_in(reply: str) -> bool | None:
    """Return the verdict of a judge's reply; None where it gives none."""
    return truth_in(reply, "met")


def _criterion_messages(record: Record, text: str, criterion: Criterion) -> prompts.Prompt:
    sections = load_template(_TEMPLATE)
    mark = prompts.mark_for("criterion", record, [text, criterion.text])
    values: dict[str, Any] = {
        "nonce": mark,
        "conversation": prompts.conversation(record["messages"], record.get("params", {}).get("tools")),
        "response": prompts.fence("RESPONSE", text, mark),
        "criterion": prompts.fence("CRITERION", criterion.text, mark),
    }
    system: Message = {"role": "system", "content": sections["criterion system"]}
    user: Message = {"role": "user", "content": prompts.fill(sections["criterion user"], values)}
    return prompts.Prompt([system, user], mark)


def _describe_criterion(criterion: Criterion, verdicts: Sequence[bool | None]) -> dict[str, Any]:
    """Return a criterion as a grade has it."""
    category = {} if criterion.category is None else {"category": criterion.category}
    return {"criterion": criterion.text, "weight": criterion.weight, **category, "verdicts": list(verdicts)}


def _has_verdict(compared: PairwiseVerdict) -> bool:
    return any(verdict in ("first", "second", "tie") for verdict in compared.verdicts)
