"""Ask every panel member the same question; or, where a panel stands, let its members answer anew: the next layer.

Reads   messages, params, route; recipe and panel for a later layer
Adds    panel: [Response × members × samples], recipe order, for `--until` as they were asked; recipe; layers; spared;
        calls; baselines: like members, and seen by nobody who compares or writes, their calls under the stage
        `baseline`
Calls   members × samples completions at once, baselines beside them, one for a solo record; in a later layer one for
        each response, for `--sequential` (responses - 1) / (window - 1) for each member, one after the other; for
        `--until` in rounds, cheapest members first, at most max_samples: until the answer with the most votes is the
        most frequent one with this probability, by the Beta rule: P(x > 1/2) for x of Beta(v1 + 1, v2 + 1), v1 and v2
        the votes of the two leading answers, the prior Beta(1, 1); wall clock ≤ deadline_s
Fails   all_failed when nobody answers; one member's failure is data in its response; not_sure in `degraded` where
        `--until` ends without certainty. In a later layer whoever fails keeps the earlier response, and where all fail
        the earlier panel stands
Source  Wang et al. 2024, Mixture-of-Agents, arXiv:2406.04692; Li et al. 2025, Self-MoA and Self-MoA-Seq,
        arXiv:2502.00674; Du et al. 2023, multiagent debate, arXiv:2305.14325; Chen et al. 2023, FrugalGPT,
        arXiv:2305.05176 (ask the cheap ones first); Aggarwal et al. 2023, Adaptive-Consistency, arXiv:2305.11860
        (`--until`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import MOST_CALLS, PanelOptions
from fusiontools.errors import CallFailed, InputError, RecordCode
from fusiontools.llm.completion import Completion
from fusiontools.llm.ledger import Ledger
from fusiontools.record import sections
from fusiontools.record.sections import display_names, question_text, usable_positions, usable_responses, with_error
from fusiontools.record.types import Call, Degraded, Record, Response, Spared
from fusiontools.stages import prompts
from fusiontools.stages.panel_calls import Outcomes, Patience, ask
from fusiontools.stages.panel_plan import PanelPlanner, PlannedCall, Seat
from fusiontools.stages.runtime import (
    Runtime,
    Stage,
    compare_apart,
    note_no_tools,
    skips_failed,
    with_section,
    without_response,
)

Why = Literal["scouts", "majority", "layer", "call", "until"]
#: So many calls in a row that gave no answer, some of them to every member, are not followed by more (`--until`).
_IN_VAIN = 4


class _Asked(NamedTuple):
    """What came of asking a panel.

    Args:
        why: why some calls of the plan were not made; None where none was spared.
    """

    outcomes: Outcomes
    why: Why | None
    notes: list[Degraded]


async def ask_baselines(
    record: Record, options: PanelOptions, runtime: Runtime
) -> tuple[list[tuple[PlannedCall, Completion | CallFailed]], list[Call]]:
    """Ask the models that stand outside the panel; return each call with its outcome, and the ledger's lines."""
    if not options.baselines:
        return [], []
    ledger = runtime.ledger("baseline", record)
    alone = options.replace(members=options.baselines, until=None, max_samples=None)
    planned = PanelPlanner(record, alone, runtime).first()
    outcomes = await ask(planned, {}, replace(runtime, on_delta=None, drafts=None), ledger, Patience())
    return [(call, outcomes[i]) for i, call in enumerate(planned)], ledger.calls


def panel(options_for: OptionsFor[PanelOptions]) -> Stage:
    """Return the stage."""

    @skips_failed
    async def run(record: Record, runtime: Runtime) -> Record:
        if sections.is_kept(record):
            return record
        options = options_for(record)
        if not options.members and not sections.is_solo(record):
            raise InputError(
                "no panel member is named; name some with -m, or choose a recipe with -c", "$.recipe.panel"
            )
        if options.adds_layer:
            return await _next_layer(record, options, runtime)
        if (recipe := options_for.recipe_of(record)) is not None:
            record = {**record, "recipe": recipe}
        return await _first_layer(record, options, runtime)

    return run


async def _first_layer(record: Record, options: PanelOptions, runtime: Runtime) -> Record:
    ledger = runtime.ledger("panel", record)
    planned = PanelPlanner(record, options, runtime).first()
    if options.baselines and not sections.is_solo(record):
        (outcomes, why, notes), beside = await asyncio.gather(
            _ask_members(record, planned, options, runtime, ledger), ask_baselines(record, options, runtime)
        )
    else:
        (outcomes, why, notes), beside = await _ask_members(record, planned, options, runtime, ledger), ([], [])
    places = sorted(outcomes)
    responses = [_response_of(planned[i].seat, outcomes[i]) for i in places]
    failed = _note_failed(responses)
    ledger.calls += beside[1]
    if len(failed) == len(responses):
        return _fail_all(record, responses, ledger)
    notes += note_no_tools(record, "panel", options.tools, options.members, runtime.client)
    new = with_section(record, "panel", responses, ledger.calls, [*failed, *notes, *_note_unmet(ledger)])
    if beside[0]:
        new = {**new, "baselines": [_response_of(call.seat, outcome) for call, outcome in beside[0]]}
    unasked = [call for i, call in enumerate(planned) if i not in outcomes]
    return _with_spared(new, [call.seat for call in unasked], why)


async def _ask_members(
    record: Record, planned: list[PlannedCall], options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> _Asked:
    """Ask all, or the scouts alone where those agree, or until it is sure what most say."""
    heard: Outcomes = {}
    notes: list[Degraded] = []
    if options.scout is not None and options.scout < len(planned):
        from fusiontools.stages.panel_agreement import agree

        scouts = planned[: options.scout]
        heard = await ask(scouts, {}, runtime, ledger, Patience())
        responses = [_response_of(call.seat, heard[i]) for i, call in enumerate(scouts)]
        agreed, notes = await agree(record, responses, options, runtime, ledger)
        if agreed:
            return _Asked(heard, "scouts", notes)
    if options.until is not None and len(planned) > 1:
        return await _ask_until(record, planned, _Asked(heard, None, notes), options, runtime, ledger)
    outcomes = await ask(planned, heard, runtime, ledger, _patience_for(record, planned, options))
    return _Asked(outcomes, "call" if options.first_call else "majority", notes)


async def _ask_until(
    record: Record, planned: list[PlannedCall], asked: _Asked, options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> _Asked:
    """Ask on, in rounds of which each is waited for, until it is sure what most say or all have been asked.

    What is asked next goes by what was answered and never by who was quicker: a replay asks the same.
    """
    from fusiontools.answers.certainty import mode_probability, still_needed
    from fusiontools.stages.panel_agreement import leading_votes

    assert options.until is not None  # noqa: S101 - asked only where somebody wants to be sure
    # What one of many writes is not the answer.
    quiet = replace(runtime, on_delta=None)
    outcomes = asked.outcomes
    while True:
        responses = [_response_of(planned[i].seat, outcomes[i]) for i in sorted(outcomes)]
        texts = [response.get("content", "") for response in responses]
        question = question_text(record)
        votes = await compare_apart(texts, options.agree, leading_votes, question, responses, options.agree)
        if not (more := still_needed(votes, options.until)):
            return _Asked(outcomes, "until", asked.notes)
        if len(outcomes) == len(planned) or _are_in_vain(planned, outcomes):
            break
        heard = min(len(planned), len(outcomes) + max(more, options.at_once))
        outcomes = await ask(planned[:heard], outcomes, quiet, ledger, Patience())
    detail = (
        f"{votes[0]} of {len(outcomes)} say the same, {votes[1]} the next: {mode_probability(*votes):.1%} sure, where "
        f"{options.until:.4g} was asked for"
    )
    if unasked := len(planned) - len(outcomes):
        detail += f"; {unasked} more were not asked, for nobody answers"
    return _Asked(outcomes, None, [*asked.notes, {"stage": "panel", "code": "not_sure", "detail": detail}])


def _are_in_vain(planned: Sequence[PlannedCall], outcomes: Outcomes) -> bool:
    """Return whether the last calls, some of them to every member, have all failed."""
    failed = list(takewhile(lambda i: isinstance(outcomes[i], CallFailed), sorted(outcomes, reverse=True)))
    everybody = {call.seat.model.name for call in planned}
    return len(failed) >= _IN_VAIN and {planned[i].seat.model.name for i in failed} == everybody


def _patience_for(record: Record, planned: Sequence[PlannedCall], options: PanelOptions) -> Patience:
    if options.first_call:
        return Patience(enough=_is_call_proposed)
    if not options.stop_when_agreed:
        return Patience(options.quorum, options.grace_s)
    from fusiontools.stages.panel_agreement import majority_is_safe

    async def enough(outcomes: Outcomes) -> bool:
        texts = [outcome.content for outcome in outcomes.values() if isinstance(outcome, Completion)]
        outstanding = len(planned) - len(outcomes)
        if not outstanding:
            return False
        asked = (question_text(record), texts, options.agree, outstanding)
        return await compare_apart(texts, options.agree, majority_is_safe, *asked)

    return Patience(options.quorum, options.grace_s, enough)


async def _is_call_proposed(outcomes: Outcomes) -> bool:
    return any(isinstance(outcome, Completion) and outcome.tool_calls for outcome in outcomes.values())


async def _next_layer(record: Record, options: PanelOptions, runtime: Runtime) -> Record:
    """Return the record with one layer more; a record that one model answers alone has none."""
    if "panel" not in record:
        raise InputError("no `panel` in this record; `fuse-panel` without --revise makes the first layer", "$")
    if (calls := options.layer_calls(len(record["panel"]))) > MOST_CALLS:
        raise InputError(f"the next layer asks for {calls:,} calls, more than {MOST_CALLS:,}", "$.panel")
    usable = [response for _, response in usable_responses(record)]
    if sections.is_solo(record) or not usable:
        return record if usable else without_response(record, "panel")
    ledger = runtime.ledger("panel", record)
    planner = PanelPlanner(record, options, runtime)
    notes: list[Degraded] = []
    if options.stop_when_agreed:
        from fusiontools.stages.panel_agreement import agree

        agreed, notes = await agree(record, usable, options, runtime, ledger)
        if agreed:
            return _with_spared(_with_calls(record, ledger, notes), planner.layer_seats(), "layer")
    if options.sequential:
        folders = planner.folders()
        folds = await asyncio.gather(*(_fold(planner, seat, heat, ledger) for seat, heat in folders))
        outcomes = [(seat, fold) for (seat, _), (fold, _) in zip(folders, folds, strict=True)]
        notes += [note for _, cut in folds for note in cut]
    else:
        planned = planner.layer()
        settled = await ask(planned, {}, runtime, ledger, Patience(options.quorum, options.grace_s))
        outcomes = [(call.seat, settled[i]) for i, call in enumerate(planned)]
    return _replace_panel(record, outcomes, ledger, notes)


async def _fold(
    planner: PanelPlanner, seat: Seat, temperature: float, ledger: Ledger
) -> tuple[Completion | CallFailed, list[Degraded]]:
    """Return what a member makes of all responses: of the first few, then of that and the next few, to the last."""
    record, window = planner.record, planner.options.window
    usable = usable_positions(record)
    order = prompts.shown_to(record["id"], usable, f"{seat.model.name}/{seat.layer}").values()
    left = [prompts.response_text(record["panel"][i]) for i in order]
    quiet = replace(planner.runtime, on_delta=None)
    folded: Completion | None = None
    while left:
        texts = [prompts.response_text(_response_of(seat, folded))] if folded is not None else []
        room = window - len(texts)
        texts, left = [*texts, *left[:room]], left[room:]
        labelled = {prompts.label_of(i): text for i, text in enumerate(texts)}
        call = planner.revision(seat, "revise", labelled, "", temperature)
        outcome = (await ask([call], {}, quiet, ledger, Patience()))[0]
        if isinstance(outcome, CallFailed):
            if folded is None:
                return outcome, []
            missing = len(left) + len(texts) - 1
            detail = f"{seat.model.name}: {outcome.message}; {missing} of {len(order)} responses are not in its fold"
            return folded, [{"stage": "panel", "code": "fold_cut", "detail": detail}]
        folded = outcome
    assert folded is not None  # noqa: S101 - at least one response is usable
    return folded, []


def _replace_panel(
    record: Record, outcomes: list[tuple[Seat, Completion | CallFailed]], ledger: Ledger, notes: list[Degraded]
) -> Record:
    """Return the record with the new panel; whoever failed keeps the earlier response."""
    before = {(r["member"], r["sample"]): r for _, r in usable_responses(record)}
    standing = [note for note in record.get("degraded", []) if note.get("stage") == "panel"]
    panel: list[Response] = []
    sections = 0
    for seat, outcome in outcomes:
        earlier = before.get((seat.model.name, seat.sample))
        sections += isinstance(outcome, Completion)
        if isinstance(outcome, CallFailed) and earlier is not None:
            detail = (
                f"{seat.model.name}: {outcome.code}: {outcome.message}; its response of layer {earlier['layer']} stays"
            )
            notes.append({"stage": "panel", "code": "kept_earlier", "detail": detail})
            panel.append(earlier)
        else:
            panel.append(_response_of(seat, outcome))
    if not sections:
        detail = f"nobody answered in layer {outcomes[0][0].layer}; the panel before it stands"
        notes = [note for note in notes if note["code"] != "kept_earlier"]
        whys = {f"{seat.model.name}: {o.code}: {o.message}" for seat, o in outcomes if isinstance(o, CallFailed)}
        notes.append({"stage": "panel", "code": "layer_failed", "detail": f"{detail} ({'; '.join(sorted(whys))})"})
        return _with_calls(record, ledger, notes)
    new = with_section(
        record, "panel", panel, ledger.calls, [*standing, *notes, *_note_failed(panel), *_note_unmet(ledger)]
    )
    kept: Any = {"layers": [*record.get("layers", []), record["panel"]]}
    kept |= {name: record[name] for name in ("baselines", "spared") if name in record}
    return {**new, **kept}


def _with_calls(record: Record, ledger: Ledger, notes: list[Degraded]) -> Record:
    """Return the record with its panel as it stands, what was paid for since, and what there is to say of it."""
    kept: dict[str, Any] = dict(record)
    if ledger.calls:
        kept["calls"] = [*record.get("calls", []), *ledger.calls]
    if notes:
        kept["degraded"] = [*record.get("degraded", []), *notes]
    return kept  # type: ignore[return-value]


def _with_spared(record: Record, seats: list[Seat], why: Why | None) -> Record:
    if not seats or why is None:
        return record
    spared: list[Spared] = [
        {
            "member": seat.model.name,
            "sample": seat.sample,
            "layer": seat.layer,
            "model": seat.model.model,
            "endpoint": seat.model.endpoint,
            "why": why,
        }
        for seat in seats
    ]
    return {**record, "spared": [*record.get("spared", []), *spared]}


def _response_of(seat: Seat, outcome: Completion | CallFailed) -> Response:
    response: Response = {"member": seat.model.name, "sample": seat.sample, "layer": seat.layer}
    if isinstance(outcome, CallFailed):
        response["error"] = {"code": outcome.code, "message": outcome.message}
        return response
    response["content"] = outcome.content
    response["finish_reason"] = outcome.finish_reason
    response["tool_calls"] = list(outcome.tool_calls)
    if outcome.reasoning_details:
        response["reasoning_details"] = [dict(each) for each in outcome.reasoning_details]
    if outcome.mean_logprob is not None:
        response["mean_logprob"] = round(outcome.mean_logprob, 4)
    if outcome.lowest_window_logprob is not None:
        response["lowest_window_logprob"] = round(outcome.lowest_window_logprob, 4)
    if outcome.sources:
        response["sources"] = list(outcome.sources)
    if outcome.tool_runs:
        response["tool_runs"] = list(outcome.tool_runs)
    if outcome.stopped is not None:
        response["stopped"] = outcome.stopped
    return response


def _note_failed(responses: list[Response]) -> list[Degraded]:
    if not [True for response in responses if "error" in response]:
        return []
    names = display_names(responses)
    return [
        {"stage": "panel", "code": "member_failed", "detail": f"{name}: {r['error']['code']}: {r['error']['message']}"}
        for name, r in zip(names, responses, strict=True)
        if "error" in r
    ]


def _note_unmet(ledger: Ledger) -> list[Degraded]:
    return [{"stage": "panel", "code": "bad_form", "detail": detail} for detail in ledger.unmet]


def _fail_all(record: Record, responses: list[Response], ledger: Ledger) -> Record:
    codes = {r["error"]["code"] for r in responses}
    code: RecordCode = "budget" if codes == {"budget"} else "all_failed"
    failed = with_section(record, "panel", responses, ledger.calls)
    return with_error(failed, "panel", code, "; ".join(sections.reasons_of(responses)))
