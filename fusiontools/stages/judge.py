"""Extract the structure of the panel's answers: where they agree, where not, what is missing, which are best.

Reads   messages, panel, recipe
Adds    analysis; calls
Calls   one completion for each judge, all at once; none for `--method lexical`
Fails   never: without a readable analysis the record goes on with `bad_analysis` or `judge_failed` in `degraded`
Source  Zheng et al. 2023, LLM-as-a-Judge, arXiv:2306.05685 (blind, order drawn by lot);
        Verga et al. 2024, juries of small judges, arXiv:2404.18796 (several judges merged)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fusiontools import compare, prompts
from fusiontools.analysis import analysis_schema, labelled_as, merged, read_analysis
from fusiontools.errors import CallFailed
from fusiontools.model import Model
from fusiontools.models.ledger import Ledger, Slot
from fusiontools.options import OptionsFor
from fusiontools.record import (
    Analysis,
    Degraded,
    Message,
    Record,
    answered,
    display_names,
    question_text,
    with_error,
    with_section,
)
from fusiontools.stage_options import JudgeOptions
from fusiontools.stages.runtime import Runtime, Stage


def judge(options_for: OptionsFor[JudgeOptions]) -> Stage:
    """Return the stage."""

    async def run(record: Record, runtime: Runtime) -> Record:
        if "error" in record:
            return record
        options = options_for(record)
        usable = [position for position, _ in answered(record)]
        if not usable:
            return with_error(record, "judge", "all_failed", "no response in this panel is usable")
        if len(usable) == 1:
            note: Degraded = {"stage": "judge", "code": "one_survivor", "detail": "one response: nothing to compare"}
            return with_section(record, "analysis", None, degraded=[note] if len(record["panel"]) > 1 else [])
        seed, labels = prompts.blind_order(record["id"], usable)
        if options.method == "lexical" or not options.models:
            by_code = _complete_section(record, _lexical(record, usable), labels, seed)
            return with_section(record, "analysis", by_code, degraded=_without_model(options))
        return await _by_model(record, options, runtime, labels, seed)

    return run


async def _by_model(
    record: Record, options: JudgeOptions, runtime: Runtime, labels: Mapping[str, int], seed: int
) -> Record:
    ledger = runtime.ledger("judge", record)
    messages = judge_messages(record, options.template, labels)
    degraded = _on_panel(record, options)
    asked = [_ask(model, messages, options, runtime, ledger) for model in options.models]
    outcomes = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
    analyses: list[tuple[str, dict[str, Any]]] = []
    for model, outcome in zip(options.models, outcomes, strict=True):
        if isinstance(outcome, CallFailed):
            degraded.append({"stage": "judge", "code": "judge_failed", "detail": f"{model.name}: {outcome.message}"})
        elif (read := read_analysis(outcome, labels)) is None:
            degraded.append(
                {"stage": "judge", "code": "bad_analysis", "detail": f"{model.name}: {_unreadable(outcome)}"}
            )
        else:
            analyses.append((model.name, read))
            if not read["ranking"]:
                detail = f"{model.name}: the analysis has no ranking; its reply may have been cut off"
                degraded.append({"stage": "judge", "code": "partial_analysis", "detail": detail})
    if not analyses:
        return with_section(record, "analysis", None, ledger.calls, degraded)
    section = {**merged([analysis for _, analysis in analyses]), "judges": [name for name, _ in analyses]}
    named = labelled_as(
        section, dict(zip(labels, (display_names(record["panel"])[i] for i in labels.values()), strict=True))
    )
    return with_section(record, "analysis", _complete_section(record, named, labels, seed), ledger.calls, degraded)


async def _ask(
    model: Model, messages: list[Message], options: JudgeOptions, runtime: Runtime, ledger: Ledger
) -> str | CallFailed:
    params: dict[str, Any] = {
        "temperature": model.temperature if model.temperature is not None else options.temperature,
        "top_p": model.top_p,
        "max_tokens": model.max_tokens or options.max_tokens,
        "reasoning_effort": model.reasoning_effort,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "analysis", "strict": True, "schema": analysis_schema()},
        },
        **model.extra,
    }
    params = {name: value for name, value in params.items() if value is not None}
    request = runtime.door.request(model, prompts.with_system(messages, model.system), params)
    try:
        completion = await runtime.door.complete(request, model, ledger, Slot(model.name))
    except CallFailed as failure:
        return failure
    return completion.content


def judge_messages(record: Record, template: str, labels: Mapping[str, int]) -> list[Message]:
    """Return what a judge reads: the rules, then the whole conversation and the blind responses as fenced data."""
    return prompts.about_responses(record, "judge", template, labels)


def _lexical(record: Record, usable: list[int]) -> dict[str, Any]:
    """Compare by code: no model is asked, and the section says so."""
    panel, names = record["panel"], display_names(record["panel"])
    found = compare.analyse(
        question_text(record),
        [names[i] for i in usable],
        [panel[i].get("content", "") for i in usable],
        [panel[i].get("mean_logprob") for i in usable],
    )
    return {**found, "ranking": [usable[i] for i in found["ranking"]], "judges": ["lexical"]}


def _complete_section(record: Record, found: dict[str, Any], labels: Mapping[str, int], seed: int) -> Analysis:
    """Return the section in its written order, with what is computed by code."""
    texts = [prompts.said(response) for _, response in answered(record)]
    return {
        "consensus": found["consensus"],
        "contradictions": found["contradictions"],
        "partial_coverage": found["partial_coverage"],
        "unique_insights": found["unique_insights"],
        "blind_spots": found["blind_spots"],
        "ranking": found["ranking"],
        "agreement": compare.agreement(question_text(record), texts),
        "labels": dict(labels),
        "seed": seed,
        "judges": found["judges"],
    }


def _on_panel(record: Record, options: JudgeOptions) -> list[Degraded]:
    members = {response["member"] for response in record["panel"]}
    return [
        {"stage": "judge", "code": "judge_on_panel", "detail": f"{m.name} judges its own response"}
        for m in options.models
        if m.name in members
    ]


def _without_model(options: JudgeOptions) -> list[Degraded]:
    if options.method == "lexical":
        return []
    return [{"stage": "judge", "code": "no_judge", "detail": "no judge is named (-m, or a recipe): compared by code"}]


def _unreadable(text: str) -> str:
    shown = " ".join(text.split())[:120]
    return f"the reply is no analysis: {shown!r}"
