"""Extract the structure of the panel's answers: where they agree, where not, what is missing, which are best.

Reads   messages, panel, recipe
Adds    analysis; calls
Calls   one completion for each judge, two with `--swap`, all at once; none for `--method lexical`; no more for
        `--claims`
Fails   never: without a readable analysis the record goes on with `bad_analysis` or `judge_failed` in `degraded`
Source  Zheng et al. 2023, LLM-as-a-Judge, arXiv:2306.05685 (blind, order drawn by lot; both orders for `--swap`);
        Verga et al. 2024, juries of small judges, arXiv:2404.18796 (several judges merged)
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.answers import lexical
from fusiontools.answers.keys import Votes, read_responses, surely_vague
from fusiontools.config.models import Model
from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import JudgeOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.ledger import Slot
from fusiontools.record import sections
from fusiontools.record.sections import display_names, question_text, texts_of, usable_positions, usable_responses
from fusiontools.record.sources import merge_sources
from fusiontools.record.types import Analysis, Degraded, PanelClaim, Record, Source, ToolUse
from fusiontools.stages import prompts
from fusiontools.stages.analysis import FIVE, analysis_schema, labelled_as, merge_analyses, read_analysis, unread_places
from fusiontools.stages.claims import (
    ReadClaims,
    claims_by_code,
    claims_schema,
    located,
    merge_claims,
    read_claims,
)
from fusiontools.stages.replies import unreadable
from fusiontools.stages.runtime import Runtime, Stage, compare_apart, note_no_tools, reads_panel, with_section
from fusiontools.stages.verdicts import ask, form, on_panel, verdict_request, with_settings

if TYPE_CHECKING:
    from fusiontools.llm.ledger import Ledger
    from fusiontools.stages.tool_loop import Ask


class _Reading(Struct, frozen=True):
    """One judge's look at the responses in one order; `who` names both, as `degraded` shows them."""

    model: Model
    labels: Mapping[str, int]
    slot: Slot
    who: str


def judge(options_for: OptionsFor[JudgeOptions]) -> Stage:
    """Return the stage."""

    @reads_panel("judge")
    async def run(record: Record, runtime: Runtime) -> Record:
        options = options_for(record)
        usable = usable_positions(record)
        if len(usable) == 1:
            note: Degraded = {"stage": "judge", "code": "one_survivor", "detail": "one response: nothing to compare"}
            return with_section(record, "analysis", None, degraded=[note] if len(record["panel"]) > 1 else [])
        seed, labels = prompts.blind_order(record["id"], usable)
        if sections.is_settled(record) or sections.is_voted_on(record):
            return with_section(record, "analysis", None)
        if options.method == "lexical" or not options.models:
            by_code = await compare_apart(texts_of(record), "auto", _compare_by_code, record, usable, labels, seed)
            claims = ReadClaims([], [])
            if options.claims:
                claims = await compare_apart(texts_of(record), "auto", claims_by_code, record)
                by_code = _with_claims(by_code, claims.claims)
            notes = [*_note_no_judge(options), *_note_partial("code", claims.problems)]
            return with_section(record, "analysis", by_code, degraded=notes)
        return await _ask_judges(record, options, runtime, labels, seed)

    return run


async def _ask_judges(
    record: Record, options: JudgeOptions, runtime: Runtime, labels: Mapping[str, int], seed: int
) -> Record:
    ledger = runtime.ledger("judge", record)
    degraded = on_panel(record, "judge", options.models)
    degraded += note_no_tools(record, "judge", options.tools, options.models, runtime.client)
    readings = _plan_readings(options, labels)
    looked_up = _LookedUp(record, options)
    asked = [_ask(record, options, reading, runtime, ledger, looked_up) for reading in readings]
    replies = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
    heard: list[tuple[_Reading, dict[str, Any]]] = []
    for reading, reply in zip(readings, replies, strict=True):
        found, notes = _read_reply(record, reading, reply, with_claims=options.claims)
        degraded += notes
        heard += [(reading, found)] if found else []
    if not heard:
        return with_section(record, "analysis", None, ledger.calls, degraded)
    degraded += _note_order_sensitive(record, heard) if options.swap else []
    agreement = await compare_apart(texts_of(record), "auto", _agreement, record)
    section = _complete_section(_merge_readings(heard), agreement, labels, seed)
    if options.claims:
        names = display_names(record["panel"])
        texts = {names[i]: record["panel"][i].get("content") or "" for i in labels.values()}
        section = _with_claims(
            section, await compare_apart(list(texts.values()), "auto", located, section["claims"], texts)
        )
    return with_section(record, "analysis", looked_up.add_to(section), ledger.calls, degraded)


class _LookedUp(Struct):
    """What the judges of a record looked up."""

    record: Record
    options: JudgeOptions
    memory: dict[bytes, Any] = {}
    sources: list[Source] = []
    tool_runs: list[ToolUse] = []

    async def ask(self, call: Ask) -> str | CallFailed:
        """Return the reply of a judge that may use tools."""
        from fusiontools.stages.tool_loop import ToolWish, complete_with_tools

        wish = ToolWish(self.record, self.options.tools, self.options.max_tool_calls, self.memory)
        try:
            completion = await complete_with_tools(call, wish)
        except CallFailed as failure:
            return failure
        self.sources += (source for source in completion.sources if source["how"] != "claimed")
        self.tool_runs += completion.tool_runs
        return completion.content

    def add_to(self, section: Analysis) -> Analysis:
        """Return the analysis with what was looked up for it."""
        found: Any = {"sources": merge_sources(self.sources), "tool_runs": self.tool_runs}
        return section | {name: kept for name, kept in found.items() if kept}  # type: ignore[return-value]


async def _ask(
    record: Record,
    options: JudgeOptions,
    reading: _Reading,
    runtime: Runtime,
    ledger: Ledger,
    looked_up: _LookedUp,
) -> str | CallFailed:
    prompt = judge_messages(record, options.template, reading.labels, with_claims=options.claims)
    endpoint = runtime.client.endpoints.get(reading.model.endpoint)
    if not options.tools or (endpoint is not None and endpoint.embedded):
        return await ask(_analysis_form(options.claims), prompt, reading.model, runtime, ledger, reading.slot)
    from fusiontools.stages.tool_loop import Ask

    prompt = prompts.Prompt(prompts.with_tool_rules(prompt.messages, options.template), prompt.mark)
    # Several endpoints take tools or a strict form, not both; what comes back is read leniently.
    request = verdict_request(prompt, reading.model, runtime, None)
    return await looked_up.ask(Ask(request, reading.model, reading.slot, runtime, ledger))


@functools.cache
def _analysis_form(with_claims: bool) -> dict[str, Any]:
    """Return the `response_format` of an analysis; the same for every call, and changed by nobody."""
    return form("analysis", analysis_schema(claims=claims_schema()) if with_claims else analysis_schema())


def _plan_readings(options: JudgeOptions, labels: Mapping[str, int]) -> list[_Reading]:
    """Return who reads the responses in which order."""
    models = [with_settings(model, options.temperature, options.max_tokens) for model in options.models]
    if not options.swap:
        return [_Reading(model, labels, Slot(model.name), model.name) for model in models]
    reversed_labels = dict(zip(labels, list(labels.values())[::-1], strict=True))
    return [
        _Reading(model, shown, Slot(model.name, sample), f"{model.name}, {order} order")
        for model in models
        for sample, (order, shown) in enumerate((("first", labels), ("reversed", reversed_labels)))
    ]


def _read_reply(
    record: Record, reading: _Reading, reply: str | CallFailed, *, with_claims: bool
) -> tuple[dict[str, Any] | None, list[Degraded]]:
    """Return a reading's analysis with members' names in it, and what is wrong with it."""
    if isinstance(reply, CallFailed):
        return None, [{"stage": "judge", "code": "judge_failed", "detail": f"{reading.who}: {reply.message}"}]
    names = display_names(record["panel"])
    by_label = {label: names[position] for label, position in reading.labels.items()}
    claims = read_claims(reply, reading.labels, by_label) if with_claims else ReadClaims([], [])
    found = read_analysis(reply, reading.labels)
    if found is None and not claims.claims:
        detail = f"{reading.who}: {unreadable(reply, 'is no analysis')}"
        return None, [{"stage": "judge", "code": "bad_analysis", "detail": detail}]
    found = found or {key: [] for key in (*FIVE, "ranking")}
    named = labelled_as(found, by_label)
    if with_claims:
        named["claims"] = claims.claims
    problems = [*_ranking_problems(reply, found, reading), *claims.problems]
    return named, _note_partial(reading.who, problems)


def _ranking_problems(reply: str, found: dict[str, Any], reading: _Reading) -> list[str]:
    unread = unread_places(reply, reading.labels) if len(found["ranking"]) < len(reading.labels) else []
    if unread:
        count = f"{len(unread)} place{'s' if len(unread) > 1 else ''}"
        return [f"{count} of the ranking name{'' if len(unread) > 1 else 's'} no single response: {unread[0][:80]!r}"]
    return [] if found["ranking"] else ["the analysis has no ranking; its reply may have been cut off"]


def _note_partial(who: str, problems: Sequence[str]) -> list[Degraded]:
    return [{"stage": "judge", "code": "partial_analysis", "detail": f"{who}: {problem}"} for problem in problems]


def _merge_readings(heard: Sequence[tuple[_Reading, dict[str, Any]]]) -> dict[str, Any]:
    """Return what all readings found; where there are several, with what each of them said."""
    judges = [reading.model.name for reading, _ in heard]
    whole = {**merge_analyses([found for _, found in heard], judges), "judges": list(dict.fromkeys(judges))}
    if len(heard) > 1 and "claims" in heard[0][1]:
        whole["claims"], behind = merge_claims([found["claims"] for _, found in heard], judges)
        if "supporters" in whole:
            whole["supporters"]["claims"] = behind
    if len(heard) > 1:
        whole["said"] = [
            {
                "judge": reading.model.name,
                "order": list(reading.labels.values()),
                **{key: found[key] for key in (*FIVE, "ranking", "claims") if key in found},
            }
            for reading, found in heard
        ]
    return whole


def _note_order_sensitive(record: Record, heard: Sequence[tuple[_Reading, dict[str, Any]]]) -> list[Degraded]:
    """Say of each judge whose first place hangs on the order in which it read the responses."""
    names = display_names(record["panel"])
    first: dict[str, list[str]] = {}
    for reading, found in heard:
        first.setdefault(reading.model.name, []).extend(names[position] for position in found["ranking"][:1])
    return [
        {
            "stage": "judge",
            "code": "order_sensitive",
            "detail": f"{judge_}: best is {best[0]} in the first order, {best[1]} in the reversed one",
        }
        for judge_, best in first.items()
        if len(set(best)) > 1
    ]


def judge_messages(
    record: Record, template: str, labels: Mapping[str, int], *, with_claims: bool = False
) -> prompts.Prompt:
    """Return what a judge reads: the rules, then the whole conversation and the blind responses as fenced data."""
    return prompts.about_responses(record, "judge", template, labels, ["judge claims"] if with_claims else [])


def _compare_by_code(record: Record, usable: list[int], labels: Mapping[str, int], seed: int) -> Analysis:
    """Compare by code: no model is asked, and the section says so."""
    panel, names, votes = record["panel"], display_names(record["panel"]), _votes(record)
    found = lexical.analyse(
        question_text(record),
        [names[i] for i in usable],
        [prompts.response_text(panel[i]) for i in usable],
        [panel[i].get("mean_logprob") for i in usable],
        votes,
    )
    told = {**found, "ranking": [usable[i] for i in found["ranking"]], "judges": ["lexical"]}
    return _complete_section(told, lexical.agreement_share(votes), labels, seed)


def _agreement(record: Record) -> float | None:
    """Return the share of responses that say what most say; None where code cannot tell."""
    usable = [response for _, response in usable_responses(record)]
    if not any(response.get("tool_calls") for response in usable):
        texts = [response.get("content", "") for response in usable]
        if surely_vague(texts, question_text(record)):
            return None
    return lexical.agreement_share(_votes(record))


def _votes(record: Record) -> Votes:
    return read_responses([response for _, response in usable_responses(record)], question=question_text(record))


def _complete_section(found: dict[str, Any], agreement: float | None, labels: Mapping[str, int], seed: int) -> Analysis:
    """Return the section in its written order, with what is computed by code."""
    section: Analysis = {
        "consensus": found["consensus"],
        "contradictions": found["contradictions"],
        "partial_coverage": found["partial_coverage"],
        "unique_insights": found["unique_insights"],
        "blind_spots": found["blind_spots"],
        "ranking": found["ranking"],
        "agreement": agreement,
        "labels": dict(labels),
        "seed": seed,
        "judges": found["judges"],
    }
    if "claims" in found:
        section["claims"] = found["claims"]
    if "supporters" in found:
        section["supporters"] = found["supporters"]
    if "said" in found:
        section["said"] = found["said"]
    return section


def _with_claims(section: Analysis, claims: list[PanelClaim]) -> Analysis:
    return {**section, "claims": claims}


def _note_no_judge(options: JudgeOptions) -> list[Degraded]:
    if options.method == "lexical":
        return []
    return [{"stage": "judge", "code": "no_judge", "detail": "no judge is named (-m, or a recipe): compared by code"}]
