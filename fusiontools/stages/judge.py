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
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.answers import lexical
from fusiontools.answers.keys import read_responses, surely_vague
from fusiontools.config.models import Model
from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import JudgeOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.ledger import Slot
from fusiontools.record import sections
from fusiontools.record.sections import display_names, question_text, texts_of, usable_positions
from fusiontools.record.sources import merge_sources
from fusiontools.record.types import Analysis, Degraded, PanelClaim, Record, Response, Source, ToolUse
from fusiontools.stages import prompts
from fusiontools.stages.analysis import FIVE, analysis_schema, merge_analyses, read_analysis, unread_places
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
from fusiontools.stages.verdicts import ask, form, on_panel, verdict_params, verdict_request, with_settings

if TYPE_CHECKING:
    from fusiontools.llm.ledger import Ledger
    from fusiontools.stages.tool_loop import Ask


class _Reader(Struct, frozen=True):
    """A judge that reads the responses in one order; `who` names both, as `degraded` shows them."""

    model: Model
    params: Mapping[str, Any]
    slot: Slot
    who: str
    reverses: bool = False


class _Reading(Struct, frozen=True):
    """A look at a record's responses.

    Args:
        names: what the record calls the response of each label.
    """

    reader: _Reader
    labels: Mapping[str, int]
    names: Mapping[str, str]


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
    names = display_names(record["panel"])
    readings = _plan_readings(options, labels, names)
    looked_up = _LookedUp(record, options)
    asked = [_ask(reading, runtime, ledger, looked_up) for reading in readings]
    replies = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
    heard: list[tuple[_Reading, dict[str, Any]]] = []
    for reading, reply in zip(readings, replies, strict=True):
        found, notes = _read_reply(reading, reply, with_claims=options.claims)
        degraded += notes
        heard += [(reading, found)] if found else []
    if not heard:
        return with_section(record, "analysis", None, ledger.calls, degraded)
    degraded += _note_order_sensitive(names, heard) if options.swap else []
    usable = [response for response in record["panel"] if "error" not in response]
    texts = [response.get("content") or "" for response in usable]
    agreement = await compare_apart(texts, "auto", _agreement, usable, texts, question_text(record))
    section = _complete_section(_merge_readings(heard), agreement, labels, seed)
    if options.claims:
        by_name = {names[i]: record["panel"][i].get("content") or "" for i in labels.values()}
        section = _with_claims(section, await compare_apart(texts, "auto", located, section["claims"], by_name))
    if options.tools:
        section = looked_up.add_to(section)
    return with_section(record, "analysis", section, ledger.calls, degraded)


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


def _ask(reading: _Reading, runtime: Runtime, ledger: Ledger, looked_up: _LookedUp) -> Awaitable[str | CallFailed]:
    reader, record, options = reading.reader, looked_up.record, looked_up.options
    added = ["judge claims"] if options.claims else []
    prompt = prompts.about_responses(record, "judge", options.template, reading.labels, added)
    endpoint = runtime.client.endpoints.get(reader.model.endpoint)
    if not options.tools or (endpoint is not None and endpoint.embedded):
        return ask(reader.params, prompt, reader.model, runtime, ledger, reader.slot)
    from fusiontools.stages.tool_loop import Ask

    prompt = prompts.Prompt(prompts.with_tool_rules(prompt.messages, options.template), prompt.mark)
    # Several endpoints take tools or a strict form, not both; what comes back is read leniently.
    request = verdict_request(verdict_params(reader.model), prompt, reader.model, runtime)
    return looked_up.ask(Ask(request, reader.model, reader.slot, runtime, ledger))


def _plan_readings(options: JudgeOptions, labels: Mapping[str, int], names: Sequence[str]) -> list[_Reading]:
    """Return who reads the responses in which order."""
    if "readers" not in options.planned:
        options.planned["readers"] = _readers_of(options)
    readings = []
    for reader in options.planned["readers"]:
        shown = dict(zip(labels, [*labels.values()][::-1], strict=True)) if reader.reverses else labels
        readings.append(_Reading(reader, shown, {label: names[position] for label, position in shown.items()}))
    return readings


def _readers_of(options: JudgeOptions) -> list[_Reader]:
    """Return who reads the responses of a record; the same for all for which the same options hold."""
    wanted = form("analysis", analysis_schema(claims=claims_schema()) if options.claims else analysis_schema())
    readers = []
    for model in (with_settings(each, options.temperature, options.max_tokens) for each in options.models):
        asked = (model, verdict_params(model, wanted))
        if not options.swap:
            readers.append(_Reader(*asked, Slot(model.name), model.name))
            continue
        for sample, order in enumerate(("first", "reversed")):
            readers.append(_Reader(*asked, Slot(model.name, sample), f"{model.name}, {order} order", bool(sample)))
    return readers


def _read_reply(
    reading: _Reading, reply: str | CallFailed, *, with_claims: bool
) -> tuple[dict[str, Any] | None, list[Degraded]]:
    """Return a reading's analysis with members' names in it, and what is wrong with it."""
    who = reading.reader.who
    if isinstance(reply, CallFailed):
        return None, [{"stage": "judge", "code": "judge_failed", "detail": f"{who}: {reply.message}"}]
    claims = read_claims(reply, reading.labels, reading.names) if with_claims else ReadClaims([], [])
    found = read_analysis(reply, reading.labels, reading.names)
    if found is None and not claims.claims:
        detail = f"{who}: {unreadable(reply, 'is no analysis')}"
        return None, [{"stage": "judge", "code": "bad_analysis", "detail": detail}]
    found = found or {key: [] for key in (*FIVE, "ranking")}
    if with_claims:
        found["claims"] = claims.claims
    return found, _note_partial(who, [*_ranking_problems(reply, found, reading), *claims.problems])


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
    judges = [reading.reader.model.name for reading, _ in heard]
    whole = {**merge_analyses([found for _, found in heard], judges), "judges": list(dict.fromkeys(judges))}
    if len(heard) > 1 and "claims" in heard[0][1]:
        whole["claims"], behind = merge_claims([found["claims"] for _, found in heard], judges)
        if "supporters" in whole:
            whole["supporters"]["claims"] = behind
    if len(heard) > 1:
        whole["said"] = [
            {
                "judge": reading.reader.model.name,
                "order": list(reading.labels.values()),
                **{key: found[key] for key in (*FIVE, "ranking", "claims") if key in found},
            }
            for reading, found in heard
        ]
    return whole


def _note_order_sensitive(names: Sequence[str], heard: Sequence[tuple[_Reading, dict[str, Any]]]) -> list[Degraded]:
    """Say of each judge whose first place hangs on the order in which it read the responses."""
    first: dict[str, list[str]] = {}
    for reading, found in heard:
        first.setdefault(reading.reader.model.name, []).extend(names[position] for position in found["ranking"][:1])
    return [
        {
            "stage": "judge",
            "code": "order_sensitive",
            "detail": f"{judge_}: best is {best[0]} in the first order, {best[1]} in the reversed one",
        }
        for judge_, best in first.items()
        if len(set(best)) > 1
    ]


def _compare_by_code(record: Record, usable: list[int], labels: Mapping[str, int], seed: int) -> Analysis:
    """Compare by code: no model is asked, and the section says so."""
    panel, names, question = record["panel"], display_names(record["panel"]), question_text(record)
    votes = read_responses([panel[i] for i in usable], question=question)
    found = lexical.analyse(
        question,
        [names[i] for i in usable],
        [prompts.response_text(panel[i]) for i in usable],
        [panel[i].get("mean_logprob") for i in usable],
        votes,
    )
    told = {**found, "ranking": [usable[i] for i in found["ranking"]], "judges": ["lexical"]}
    return _complete_section(told, lexical.agreement_share(votes), labels, seed)


def _agreement(usable: Sequence[Response], texts: Sequence[str], question: str) -> float | None:
    """Return the share of responses that say what most say; None where code cannot tell."""
    if not any(response.get("tool_calls") for response in usable) and surely_vague(texts, question):
        return None
    return lexical.agreement_share(read_responses(usable, question=question))


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
