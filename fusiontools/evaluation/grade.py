"""Grade the answer, every panel response, every layer's and every baseline's: by code, by running it, or by judges.

Reads   messages, answer, panel, layers, baselines, meta, recipe
Adds    grades: one for each text, in that order; calls
Calls   none for graders by code; for `rubric` texts × criteria × judges × runs, for `pairwise` texts × 2 × judges ×
        runs, all at once; equal texts are graded once
Fails   never: what nothing can be held against has no grades, and `no_target`, `bad_task` or `no_judge` in `degraded`;
        `no_sandbox` ends the run where programs are to be run and nothing can shut them in
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from fusiontools.config.evaluation_options import GradeOptions
from fusiontools.config.models import Model
from fusiontools.errors import InputError, StageFailed
from fusiontools.evaluation.code_grader import CodeGrader
from fusiontools.evaluation.graders import read_votes, score_text
from fusiontools.evaluation.model_grader import ModelGrader
from fusiontools.evaluation.task import ASKING, Task, task_of
from fusiontools.record.sections import question_text
from fusiontools.record.types import Call, CallError, Degraded, Grade, Record, Response
from fusiontools.stages import prompts
from fusiontools.stages.runtime import Runtime, Stage, skips_failed
from fusiontools.stages.verdicts import on_panel


class GradedText(Struct, frozen=True):
    """Whose text it is; a response that failed has an error and no text."""

    of: Literal["answer", "panel", "layer", "baseline"]
    member: str
    sample: int
    layer: int
    text: str
    error: CallError | None = None


def list_texts(record: Record, *, layers: bool) -> list[GradedText]:
    """Return the answer, the panel, the earlier layers, the first one first, and the baselines."""
    texts: list[GradedText] = []
    if (answer := record.get("answer")) is not None:
        texts.append(GradedText("answer", str(answer.get("model", "")), 0, 0, answer.get("content") or ""))
    texts += _list_responses("panel", record.get("panel", []))
    for number, panel in enumerate(record.get("layers", []) if layers else (), start=1):
        texts += _list_responses("layer", panel, number)
    return [*texts, *_list_responses("baseline", record.get("baselines", []))]


def _list_responses(of: Any, responses: Sequence[Response], layer: int = 1) -> Iterator[GradedText]:
    for response in responses:
        error = response.get("error")
        text = "" if error else prompts.response_text(response)
        yield GradedText(of, response["member"], response["sample"], response.get("layer", layer), text, error)


def with_grades(
    record: Record, grades: list[Grade] | None, calls: list[Call] | None = None, notes: Sequence[Degraded] = ()
) -> Record:
    """Return the record with its grades, or without any; an earlier grading leaves only what it cost."""
    new: dict[str, Any] = {key: kept for key, kept in record.items() if key != "grades"}
    if grades is not None:
        new["grades"] = grades
    if calls:
        new["calls"] = [*record.get("calls", []), *calls]
    kept_notes = [*(note for note in record.get("degraded", []) if note.get("stage") != "grade"), *notes]
    if kept_notes:
        new["degraded"] = kept_notes
    else:
        new.pop("degraded", None)
    return new  # type: ignore[return-value]


#: Who judges a record's texts, where nobody was typed.
JudgesFor = Callable[[Record], Sequence[Model]]


def grade(options: GradeOptions, judges_for: JudgesFor, jobs: int = 8) -> Stage:
    """Return the stage.

    Args:
        jobs: the most programs that run at once.
    """
    code_grader = CodeGrader(jobs, unsafe=options.unsafe, seconds=options.code_s)

    @skips_failed
    async def run(record: Record, runtime: Runtime) -> Record:
        texts = list_texts(record, layers=options.layers)
        if not texts:
            raise InputError("nothing to grade: no `answer` and no `panel`; fuse-panel makes responses", "$")
        try:
            task = task_of(record.get("meta"), question_text(record), options.grader)
            different = list(dict.fromkeys(text.text for text in texts if text.error is None))
            scores, calls, notes = await _score(record, task, different, runtime)
        except StageFailed as failure:
            note: Degraded = {"stage": "grade", "code": failure.code, "detail": failure.message}
            return with_grades(record, None, notes=[note])
        score_of = dict(zip(different, scores, strict=True))
        return with_grades(record, [_make_grade(text, task, score_of) for text in texts], calls, notes)

    async def _score(
        record: Record, task: Task, texts: list[str], runtime: Runtime
    ) -> tuple[list[dict[str, Any]], list[Call], list[Degraded]]:
        """Return what the grade of each text says, with the calls that were made for it."""
        if task.code is not None:
            return await code_grader.grade(texts, task.code), [], []
        if task.grader not in ASKING:
            return _score_by_code(task, texts), [], []
        judges = options.models or judges_for(record)
        if not judges:
            raise StageFailed("no_judge", f"no judge is named for {task.grader} (-m, or a recipe)")
        notes = on_panel(record, "grade", judges) if "panel" in record else []
        model_grader = ModelGrader(record, task, judges, options.runs, runtime, runtime.ledger("grade", record), notes)
        return await model_grader.grade(texts), model_grader.ledger.calls, model_grader.notes

    return run


def _score_by_code(task: Task, texts: Sequence[str]) -> list[dict[str, Any]]:
    scores = []
    for text, key in zip(texts, read_votes(task, texts), strict=True):
        found = score_text(task, text)
        said = {} if found.said is None else {"said": found.said}
        scores.append({"score": found.score, "key": key, **said})
    return scores


def _make_grade(text: GradedText, task: Task, score_of: dict[str, dict[str, Any]]) -> Grade:
    whose = {"of": text.of, "member": text.member, "sample": text.sample, "layer": text.layer, "grader": task.grader}
    if text.error is not None:
        error = {"code": text.error["code"], "message": text.error["message"]}
        return {**whose, "score": 0.0, "key": None, "error": error}  # type: ignore[typeddict-item]
    found = {"key": None, **score_of[text.text]}
    return {**whose, "score": found.pop("score"), "key": found.pop("key"), **found}  # type: ignore[typeddict-item]
