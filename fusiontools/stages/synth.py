"""Write one answer, grounded in the panel's responses and in their analysis; revise it; guard it.

Reads   messages, params, panel, analysis (where there is one), route, recipe; answer for `--refine`
Adds    answer; calls
Calls   one completion; one more for `--refine`, two more for `--guard`; none where a response is copied, as it is where
        scouts agreed, or where the router has asked for a vote
Fails   never with a panel that answered: the best ranked response, else the longest finished one, is the answer;
        where a revision or the guard fails, what was written stays; what fewer than `--min-support` hold is named
        in `answer.support` and in `degraded`, with those who hold it
Source  Wang et al. 2024, Mixture-of-Agents, arXiv:2406.04692, section 2 (aggregate and synthesize); Jiang et al.
        2023, LLM-Blender, arXiv:2306.02561 (rank, then fuse the top); Madaan et al. 2023, Self-Refine,
        arXiv:2303.17651
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.config.models import Model
from fusiontools.config.options import OptionsFor
from fusiontools.config.recipe import read_section
from fusiontools.config.stage_table import ANSWERING, SynthOptions
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed, StageCode
from fusiontools.llm.completion import Completion, Delta, OnDelta, say_whole
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record import jsonl
from fusiontools.record.params import ANSWER, select_params
from fusiontools.record.sections import (
    by_rank,
    digest,
    display_names,
    has_sources,
    is_settled,
    is_solo,
    is_voted_on,
    one_survivor,
    take_verbatim,
    texts_of,
)
from fusiontools.record.types import Answer, Degraded, Message, Record, Response
from fusiontools.stages import prompts
from fusiontools.stages.analysis import labelled_as
from fusiontools.stages.ballot import cast
from fusiontools.stages.runtime import Runtime, Stage, compare_apart, copy_response, reads_panel, with_section

if TYPE_CHECKING:
    from fusiontools.stages.claims import Weighed


def synth(options_for: OptionsFor[SynthOptions]) -> Stage:
    """Return the stage."""

    @reads_panel("synth")
    async def run(record: Record, runtime: Runtime) -> Record:
        options = options_for(record)
        support = await _weigh(record, options)
        answered = await answer(record, options, runtime, support)
        return answered if support is None else support.told_in(answered)

    async def answer(record: Record, options: SynthOptions, runtime: Runtime, support: Weighed | None) -> Record:
        ranked = by_rank(record)
        if options.refine and "answer" in record and not is_solo(record):
            return await _revise(record, options, runtime, ranked, support)
        if len(ranked) == 1:
            return copy_response(record, ranked[0], one_survivor(record, "synth"))
        if is_voted_on(record):
            return await compare_apart(texts_of(record), "auto", _vote, record)
        if options.method == "call":
            proposed = next((i for i in sorted(ranked) if record["panel"][i].get("tool_calls")), ranked[0])
            return copy_response(record, proposed, [])
        short = options.method == "auto" and _is_short(record["panel"][ranked[0]])
        if is_settled(record) or options.method == "copy" or short:
            return copy_response(record, ranked[0], [])
        if not options.models:
            return copy_response(record, ranked[0], [_note_nobody("the best response is the answer")])
        return await _Writing(record, options, runtime, ranked, runtime.ledger("synth", record), support).finish()

    return run


async def _weigh(record: Record, options: SynthOptions) -> Weighed | None:
    """Return which claims enough responses hold; None where that is not asked, or nobody writes by it."""
    asked = options.min_support
    if asked is None and options.refine:
        # A revision keeps to what the answer that it revises was built on.
        asked = record.get("answer", {}).get("support", {}).get("min_support")
    if asked is None or is_solo(record) or is_voted_on(record):
        return None
    from fusiontools.stages.claims import weigh

    return await compare_apart(texts_of(record), "auto", weigh, record, asked)


def _vote(record: Record) -> Record:
    """Return the record with the answer of the vote that the router has asked for."""
    carried: Any = record.get("recipe", {})
    options: Any = read_section("vote", carried.get("vote", {}), limited=False)
    ballot, position, notes = cast(record, options)
    if ballot.tally is None:
        return copy_response(record, position, notes)
    return with_section(record, "answer", take_verbatim(record, position, "vote", vote=ballot.section()))


async def _revise(
    record: Record, options: SynthOptions, runtime: Runtime, ranked: list[int], support: Weighed | None
) -> Record:
    """Return the record with the answer that stands revised; it stays where nobody can do that."""
    standing = [n for n in record.get("degraded", []) if n.get("stage") in ANSWERING]
    if not options.models:
        notes = [*standing, _note_nobody("the answer stays as it was")]
        return with_section(record, "answer", record["answer"], degraded=notes)
    ledger = runtime.ledger("synth", record)
    return await _Writing(record, options, runtime, ranked, ledger, support, standing).finish(record["answer"])


def _note_nobody(so: str) -> Degraded:
    return {"stage": "synth", "code": "no_synth", "detail": f"no synthesizer is named (-m, or a recipe): {so}"}


class _Writing(Struct):
    """The passes over one answer: write, revise, guard.

    Args:
        ranked: the positions of all usable responses, best first.
    """

    record: Record
    options: SynthOptions
    runtime: Runtime
    ranked: list[int]
    ledger: Ledger
    support: Weighed | None
    notes: list[Degraded] = []
    heard: bool = False

    async def finish(self, standing: Answer | None = None) -> Record:
        """Return the record with the answer that the last pass left; one that stands is revised, none is written."""
        answer = standing or await self._write()
        if self.options.refine and (standing or answer["by"] == "synth"):
            answer = await self._refine(answer)
        if self.options.guard and answer["by"] == "synth":
            answer = await self._guard(answer)
        unmet: list[Degraded] = [
            {"stage": "synth", "code": "bad_form", "detail": detail} for detail in self.ledger.unmet
        ]
        return with_section(self.record, "answer", answer, self.ledger.calls, [*self.notes, *unmet])

    async def _write(self) -> Answer:
        messages = self._messages()
        try:
            return _answer_of(await self._ask(messages, "", is_last=not self.options.refine))
        except CallFailed as failure:
            self._note("synth_failed", f"{failure.message}; a panel response stands in")
            return take_verbatim(self.record, self.ranked[0])

    async def _refine(self, before: Answer) -> Answer:
        messages = self._messages(before)
        try:
            after = _answer_of(await self._ask(messages, "refine", is_last=True))
        except CallFailed as failure:
            self._note("refine_failed", f"{failure.message}; the answer stays as it was")
            if self.runtime.on_delta is not None and self._is_watched() and not self.heard:
                say_whole(self.runtime.on_delta, before["content"], before.get("reasoning_details"))
            return before
        return {**after, "draft": _keep_text(before)}

    async def _guard(self, written: Answer) -> Answer:
        """Return the better of the written answer and the best single response, as a blind judge sees them.

        A tie goes to the response: what is no better than a member's own words need not have been written.
        """
        from fusiontools.stages.pairwise import duel

        model = self.options.guard_models[0]
        single = take_verbatim(self.record, self.ranked[0])
        texts = (_text_of(written), _text_of(single))
        fought = await duel(self.record, texts, model, self.options.template, self.runtime, self.ledger, step="guard")
        verdicts = [{"first": "synth", "second": "panel"}.get(verdict, verdict) for verdict in fought.verdicts]
        compared = bool({"synth", "panel", "tie"} & set(verdicts))
        winner, loser = (single, written) if compared and fought.winner != 0 else (written, single)
        if self.runtime.on_delta is not None:
            say_whole(self.runtime.on_delta, winner["content"], winner.get("reasoning_details"))
        if not compared:
            self._note("guard_failed", f"{fought.problem}; the written answer stays", model)
            return written
        name = "synth" if winner is written else "panel"
        return {
            **winner,
            "guard": {"winner": name, "judge": model.name, "verdicts": verdicts, "loser": _keep_text(loser)},
        }

    def _messages(self, before: Answer | None = None) -> prompts.Prompt:
        """Return what the synthesizer reads: its rules, the conversation itself, the fenced responses and analysis.

        Args:
            before: the answer that is to be revised; None asks for a first one.
        """
        record, asked = self.record, "synth" if before is None else "refine"
        sections = load_template(prompts.choose_template(self.options.template, record))
        panel, analysis, fused = record["panel"], record.get("analysis"), self._choose_fused()
        # The labels are those of all usable responses, as the judge saw them; its analysis may speak of one left out.
        everyone = prompts.blind_order(record["id"], sorted(self.ranked))[1]
        responses = {label: panel[i] for label, i in everyone.items() if i in fused}
        texts = [prompts.response_text(response) for response in responses.values()]
        standing = [] if before is None else [_text_of(before)]
        mark = prompts.mark_for(asked, record, [*texts, *standing])
        given = prompts.with_evidence(record, mark)
        told = analysis or self.support
        values = {
            "nonce": mark,
            "labels": ", ".join(responses),
            "conversation": prompts.conversation(given),
            "responses": prompts.fence_responses(responses, texts, mark),
            "analysis": _analysis_text(analysis, panel, everyone, self.support) if told else "(none)",
            "best": panel[fused[0]].get("content", ""),
            "answer": "".join(standing),
        }
        turn: Message = {"role": "user", "content": prompts.fill(sections[f"{asked} user"], values)}
        system = sections[f"{asked} system"]
        if has_sources(record):
            system += "\n\n" + sections["synth sources"]
        if self.support is not None:
            system += "\n\n" + sections["synth support"]
        return prompts.Prompt([*prompts.with_system(given, system), turn], mark)

    async def _ask(self, prompt: prompts.Prompt, step: str, *, is_last: bool) -> Completion:
        model, client = self.options.models[0], self.runtime.client
        params = _params_for(self.record, self.options, model, step, self.runtime)
        request = client.request(model, prompts.with_system(prompt.messages, model.system), params, marks=prompt.marks)
        on_delta: OnDelta | None = self._hear if is_last and self._is_watched() else None
        return await client.complete(request, model, self.ledger, Slot(model.name, step=step or None), on_delta)

    def _hear(self, delta: Delta) -> None:
        self.heard = True
        self.runtime.on_delta(delta)  # type: ignore[misc]

    def _is_watched(self) -> bool:
        """Return whether somebody sees the answer as it is written; a guarded one is shown when it has won."""
        return self.runtime.on_delta is not None and not self.options.guard

    def _choose_fused(self) -> list[int]:
        """Return the positions that are fused, best first."""
        if self.options.top is None or self.options.top >= len(self.ranked):
            return self.ranked
        if not self.record.get("analysis", {}).get("ranking") and not any(
            n["code"] == "no_ranking" for n in self.notes
        ):
            detail = f"no judge ranked the responses: the {self.options.top} longest finished ones are fused (--top)"
            self.notes.append({"stage": "synth", "code": "no_ranking", "detail": detail})
        return self.ranked[: self.options.top]

    def _note(self, code: StageCode, detail: str, model: Model | None = None) -> None:
        name = (model or self.options.models[0]).name
        self.notes.append({"stage": "synth", "code": code, "detail": f"{name}: {detail}"})


def _answer_of(completion: Completion) -> Answer:
    answer: Answer = {
        "content": completion.content,
        "by": "synth",
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "tool_calls": list(completion.tool_calls),
    }
    if completion.reasoning_details:
        answer["reasoning_details"] = [dict(each) for each in completion.reasoning_details]
    return answer


def _keep_text(answer: Answer) -> Answer:
    """Return what is kept of an answer that another one replaced: its text, and how it came to be the answer."""
    whole: Any = answer
    told = {key: whole[key] for key in ("response", "vote", "pick", "draft", "guard") if key in whole}
    kept: Any = {"content": _text_of(answer), "by": answer["by"], "model": answer.get("model", "")} | told
    return kept  # type: ignore[no-any-return]


def _text_of(answer: Answer) -> str:
    return prompts.response_text(answer)  # type: ignore[arg-type]


def _params_for(record: Record, options: SynthOptions, model: Model, step: str, runtime: Runtime) -> dict[str, Any]:
    if "params" not in options.planned:
        options.planned["params"] = _own_params(options, model)
    params: dict[str, Any] = options.planned["params"]
    if asked := record.get("params"):
        params = params | select_params(asked, ANSWER)
    endpoint = runtime.client.endpoints.get(model.endpoint)
    if endpoint is not None and endpoint.embedded:
        params = {"seed": digest("seed", record["id"], model.name, step or "synth"), **params}
    return params


def _own_params(options: SynthOptions, model: Model) -> dict[str, Any]:
    """Return the parameters of the synthesizer's calls, where the record has none of its own."""
    params = {
        "temperature": model.temperature if model.temperature is not None else options.temperature,
        "top_p": model.top_p,
        "max_tokens": model.max_tokens or options.max_tokens,
        "reasoning_effort": model.reasoning_effort,
        **(options.extra or {}),
        **model.extra,
    }
    return {name: value for name, value in params.items() if value is not None}


def _analysis_text(
    analysis: Mapping[str, Any] | None, panel: Any, labels: Mapping[str, int], support: Weighed | None
) -> str:
    """Return the analysis, and what of it enough responses hold, as JSON with labels in the place of names."""
    names = display_names(panel)
    by_name = {names[i]: label for label, i in labels.items()}
    blind = labelled_as(analysis, by_name) if analysis else {}
    return jsonl.dumps(blind | (support.shown(by_name) if support else {})).decode()


def _is_short(response: Response) -> bool:
    from fusiontools.answers import lexical

    return lexical.is_short([response.get("content", "")])
