"""Records to be graded, and the grading of them, for tests."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from samples import response
from scripted import Scripted, model, open_door

from fusiontools.config.evaluation_options import GradeOptions
from fusiontools.errors import StageFailed
from fusiontools.evaluation.grade import grade
from fusiontools.evaluation.graders import score_text
from fusiontools.evaluation.task import task_of
from fusiontools.llm.completion import CompletionRequest
from fusiontools.record import schemas
from fusiontools.stages.runtime import Runtime

J, K = model("j"), model("k")


SUM: Any = [{"role": "user", "content": "What is 17 * 23?"}]
OPTIONS = "Which is a fruit?\nA) a stone\nB) an apple\nC) a spoon"
RUBRIC = [
    {"criterion": "Names the river.", "weight": 6, "category": "facts"},
    {"criterion": "Gives its length.", "weight": 4},
    {"criterion": "Invents a source.", "weight": -5},
]
FENCED = re.compile(r"<<<(RESPONSE|CRITERION) (\w+)>>>\n(.*?)\n<<<END \1 \2>>>", re.DOTALL)


def answered(text: str, *members: Any, meta: Any = None, **more: Any) -> Any:
    """Return a record with this answer, by `s`, after these responses of a, b, c, …"""
    panel = [response("abcdef"[i], one) if isinstance(one, str) else one for i, one in enumerate(members)]
    answer = {"content": text, "by": "synth", "model": "s", "finish_reason": "stop", "tool_calls": []}
    made = {"meta": meta} if meta else {}
    return {"id": "q1", "messages": SUM, **made, **({"panel": panel} if panel else {}), "answer": answer, **more}


def run_grade(
    record: Any, backend: Scripted | None = None, judges: Sequence[Any] = (), door: Any = None, **options: Any
) -> Any:
    """Run the stage; it never changes what it is given, and what it gives is a record."""
    before = copy.deepcopy(record)
    stage = grade(GradeOptions(**options), lambda record: judges)
    result = asyncio.run(stage(record, Runtime(door or open_door(backend or Scripted()))))
    assert record == before
    schemas.check_record(result)
    return result


def scores(result: Any) -> list[float]:
    return [each["score"] for each in result["grades"]]


def marked(meta: Any, text: str, asked: str = "", wanted: str | None = None) -> tuple[str, float]:
    """Return which grader graded a text, and its score."""
    task = task_of(meta, asked, wanted)
    return task.grader, score_text(task, text).score


def refused(meta: Any, asked: str = "", wanted: str | None = None) -> tuple[str, str]:
    with pytest.raises(StageFailed) as refusal:
        task_of(meta, asked, wanted)
    return refusal.value.code, refusal.value.message


LONG = "x " * 20_000


def says(*met: str, of: str = "answers") -> Callable[[CompletionRequest], str]:
    """Return a judge that finds these words' criteria met in responses that hold `of`."""

    def judge(request: CompletionRequest) -> str:
        shown = {kind: text for kind, _, text in FENCED.findall(str(request.messages[1]["content"]))}
        found = of in shown["RESPONSE"] and any(word in shown["CRITERION"] for word in met)
        return json.dumps({"reasoning": "I looked.", "met": found})

    return judge


PAIRED = {"target": "The reference.", "grader": "pairwise"}
