"""Stages run on a record with a scripted model, and the records and ledgers that are expected of them."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from scripted import USAGE, Scripted, model, open_door

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, SynthOptions
from fusiontools.errors import CallFailed
from fusiontools.record import schemas
from fusiontools.record.types import Record
from fusiontools.stages import prompts
from fusiontools.stages.judge import judge
from fusiontools.stages.panel import panel
from fusiontools.stages.runtime import Runtime, Stage
from fusiontools.stages.synth import synth

ASKED: Record = {"id": "q1", "messages": [{"role": "user", "content": "Why?"}]}
SLOW = CallFailed("timeout", "no answer within 1 s (--timeout)")
DOWN = CallFailed("auth", "HTTP 401: bad key", status=401)
A, B, C = model("a"), model("b"), model("c")
THREE = PanelOptions(members=(A, B, C))
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
TOOL_CALL: Any = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
LABELS = prompts.blind_order("q1", range(3))[1]
LABEL = {position: label for label, position in LABELS.items()}


def run_stage(made: Stage, record: Any, backend: Scripted | None = None, **settings: Any) -> Any:
    """Run a stage; it never changes what it is given, and what it gives is a record."""
    before = copy.deepcopy(record)
    on_delta = settings.pop("on_delta", None)

    async def work() -> Record:
        return await made(record, Runtime(open_door(backend or Scripted(), **settings), on_delta))

    result = asyncio.run(work())
    assert record == before
    schemas.check_record(result)
    return result


def ask_panel(options: PanelOptions, backend: Scripted | None = None, record: Any = ASKED, **settings: Any) -> Any:
    return run_stage(panel(fixed(options)), record, backend, **settings)


def ask_judge(options: JudgeOptions, record: Any, backend: Scripted | None = None, **settings: Any) -> Any:
    return run_stage(judge(fixed(options)), record, backend, **settings)


def ask_synth(options: SynthOptions, record: Any, backend: Scripted | None = None, **settings: Any) -> Any:
    return run_stage(synth(fixed(options)), record, backend, **settings)


def without_calls(record: Any) -> Any:
    return {key: value for key, value in record.items() if key != "calls"}


def says(member: str, content: str = "", **more: Any) -> dict[str, Any]:
    return {
        "member": member, "sample": 0, "layer": 1, "content": content or f"{member} says.", "finish_reason": "stop",
        "tool_calls": [], **more,
    }  # fmt: skip


def failed(member: str) -> dict[str, Any]:
    return {"member": member, "sample": 0, "layer": 1, "error": {"code": "timeout", "message": SLOW.message}}


def answered(*responses: Any, **more: Any) -> Any:
    return {**ASKED, "panel": list(responses or [says("a"), says("b"), says("c")]), **more}


def entry(stage_: str, member: str, **more: Any) -> dict[str, Any]:
    return {
        "stage": stage_, **({"layer": 1} if stage_ == "panel" else {}), "member": member,
        **({"sample": 0} if stage_ == "panel" else {}), "attempt": 1, "model": member, "endpoint": "there",
        "usage": USAGE, "cost_usd": 0.001, "cost_source": "upstream", "status": "ok", "replayed": False, **more,
    }  # fmt: skip


def entries(record: Any) -> list[dict[str, Any]]:
    """Return the ledger without what differs from run to run."""
    return [{k: v for k, v in call.items() if k not in ("latency_s", "ttft_s")} for call in record["calls"]]


def verdict(**changes: Any) -> dict[str, Any]:
    """Return what a judge writes; labels stand for the panel positions 0, 1, 2."""
    return {
        "reasoning": "hm",
        "consensus": ["All agree."],
        "contradictions": [
            {"topic": "size", "stances": [{"model": LABEL[0], "stance": "big"}, {"model": LABEL[1], "stance": "small"}]}
        ],
        "partial_coverage": [{"models": [LABEL[0], LABEL[2]], "point": "p"}],
        "unique_insights": [{"model": LABEL[2], "insight": "i"}],
        "blind_spots": ["nothing on cost"],
        "ranking": [LABEL[2], LABEL[0], LABEL[1]],
        **changes,
    }


NAMED = {
    "consensus": ["All agree."],
    "contradictions": [
        {"topic": "size", "stances": [{"model": "a", "stance": "big"}, {"model": "b", "stance": "small"}]}
    ],
    "partial_coverage": [{"models": ["a", "c"], "point": "p"}],
    "unique_insights": [{"model": "c", "insight": "i"}],
    "blind_spots": ["nothing on cost"],
    "ranking": [2, 0, 1],
}
