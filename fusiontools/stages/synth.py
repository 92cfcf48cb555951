"""Write one answer, grounded in the panel's responses and in their analysis.

Reads   messages, params, panel, analysis (where there is one), recipe
Adds    answer; calls
Calls   one completion; none where a response is copied
Fails   never with a panel that answered: the best ranked response, else the longest finished one, is the answer
Source  Wang et al. 2024, Mixture-of-Agents, arXiv:2406.04692, section 2 (aggregate and synthesize)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusiontools import answers, compare, jsonl, prompts
from fusiontools.analysis import FIVE, labelled_as
from fusiontools.errors import CallFailed
from fusiontools.model import Model
from fusiontools.models.ledger import Slot
from fusiontools.models.types import Completion
from fusiontools.options import OptionsFor
from fusiontools.record import (
    Answer,
    Degraded,
    Message,
    Record,
    answered,
    digest,
    display_names,
    with_error,
    with_section,
)
from fusiontools.stage_options import SynthOptions
from fusiontools.stages.runtime import Runtime, Stage

#: The asker's parameters that shape the visible answer.
ANSWER_PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
)


def synth(options_for: OptionsFor[SynthOptions]) -> Stage:
    """Return the stage."""

    async def run(record: Record, runtime: Runtime) -> Record:
        if "error" in record:
            return record
        options = options_for(record)
        usable = answered(record)
        if not usable:
            return with_error(record, "synth", "all_failed", "no response in this panel is usable")
        if len(usable) == 1:
            return answers.copied(record, usable[0][0], answers.one_survivor(record, "synth"))
        if options.method == "copy" or (options.method == "auto" and _best_is_short(record)):
            return answers.copied(record, answers.best(record), [])
        if not options.models:
            detail = "no synthesizer is named (-m, or a recipe): the best response is the answer"
            return answers.copied(
                record, answers.best(record), [{"stage": "synth", "code": "no_synth", "detail": detail}]
            )
        return await _written(record, options, runtime)

    return run


async def _written(record: Record, options: SynthOptions, runtime: Runtime) -> Record:
    model = options.models[0]
    ledger = runtime.ledger("synth", record)
    messages = synth_messages(record, _template(record, options))
    request = runtime.door.request(
        model, prompts.with_system(messages, model.system), _params(record, options, model, runtime)
    )
    try:
        completion = await runtime.door.complete(request, model, ledger, Slot(model.name), runtime.on_delta)
    except CallFailed as failure:
        note: Degraded = {
            "stage": "synth",
            "code": "synth_failed",
            "detail": f"{model.name}: {failure.message}; a panel response stands in",
        }
        return answers.copied(record, answers.best(record), [note], ledger.calls)
    return with_section(record, "answer", _answer(completion), ledger.calls)


def synth_messages(record: Record, template: str) -> list[Message]:
    """Return what the synthesizer reads: its rules, the conversation itself, then the fenced responses and analysis."""
    sections = prompts.load(template)
    panel = record["panel"]
    analysis = record.get("analysis")
    usable = [position for position, _ in answered(record)]
    labels = prompts.blind_order(record["id"], usable)[1]
    mark = prompts.nonce(record["id"], panel, usable)
    values = {
        "nonce": mark,
        "labels": ", ".join(labels),
        "conversation": prompts.conversation(record["messages"]),
        "responses": prompts.fenced_responses(panel, labels, mark),
        "analysis": _analysis_text(analysis, panel, labels) if analysis else "(none)",
        "best": panel[answers.best(record)].get("content", ""),
    }
    turn: Message = {"role": "user", "content": prompts.fill(sections["synth user"], values)}
    return [*prompts.with_system(record["messages"], sections["synth system"]), turn]


def _answer(completion: Completion) -> Answer:
    return {
        "content": completion.content,
        "by": "synth",
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "tool_calls": list(completion.tool_calls),
    }


def _template(record: Record, options: SynthOptions) -> str:
    """Return the template's name; a question with tools has a template of its own unless one was chosen."""
    tools = record.get("params", {}).get("tools")
    return "tool_calls" if tools and options.template == "default" else options.template


def _params(record: Record, options: SynthOptions, model: Model, runtime: Runtime) -> dict[str, Any]:
    asked = record.get("params", {})
    own = {
        "temperature": model.temperature if model.temperature is not None else options.temperature,
        "top_p": model.top_p,
        "max_tokens": model.max_tokens or options.max_tokens,
        "reasoning_effort": model.reasoning_effort,
        **(options.extra or {}),
        **model.extra,
    }
    params = {**own, **{name: asked[name] for name in ANSWER_PARAMS if asked.get(name) is not None}}
    endpoint = runtime.door.endpoints.get(model.endpoint)
    if endpoint is not None and endpoint.embedded:
        params.setdefault("seed", digest("seed", record["id"], model.name, "synth"))
    return {name: value for name, value in params.items() if value is not None}


def _analysis_text(analysis: Mapping[str, Any], panel: Any, labels: Mapping[str, int]) -> str:
    """Return the analysis as JSON with labels in the place of names."""
    names = display_names(panel)
    blind = labelled_as({key: analysis[key] for key in FIVE}, {names[i]: label for label, i in labels.items()})
    return jsonl.dumps(blind).decode()


def _best_is_short(record: Record) -> bool:
    return compare.is_short([record["panel"][answers.best(record)].get("content", "")])
