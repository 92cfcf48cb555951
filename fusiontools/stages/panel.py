"""Ask every panel member the same question; or, where a panel stands, let its members answer anew: the next layer.

Reads   messages, params, route; recipe and panel for a later layer
Adds    panel: [Response × members × samples], recipe order; recipe; layers; spared; calls; baselines: like members, and
        seen by nobody who compares or writes, their calls under the stage `baseline`
Calls   members × samples completions at once, baselines beside them, one for a solo record; in a later layer one for
        each response, for `--sequential` (responses - 1) / (window - 1) for each member, one after the other; wall
        clock ≤ deadline_s
Fails   all_failed when nobody answers; one member's failure is data in its response. In a later layer whoever fails
        keeps the earlier response, and where all fail the earlier panel stands
Source  Wang et al. 2024, Mixture-of-Agents, arXiv:2406.04692; Li et al. 2025, Self-MoA and Self-MoA-Seq,
        arXiv:2502.00674; Du et al. 2023, multiagent debate, arXiv:2305.14325; Chen et al. 2023, FrugalGPT,
        arXiv:2305.05176 (ask the cheap ones first)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import MOST_CALLS, PanelOptions
from fusiontools.errors import CallFailed, InputError, RecordCode
from fusiontools.llm.completion import Completion, Delta, OnDelta, say_whole
from fusiontools.llm.ledger import Ledger
from fusiontools.record import sections
from fusiontools.record.sections import display_names, question_text, usable_responses, with_error
from fusiontools.record.types import Call, Degraded, Record, Response, Spared
from fusiontools.stages import prompts
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

Why = Literal["scouts", "majority", "layer", "call"]
#: The outcome of each call by its place in the plan; a call that was cut because the others agree has none.
Outcomes = dict[int, Completion | CallFailed]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long calls are waited for.

    Args:
        quorum: once so many have answered, the rest get `grace_s` more; None waits for all.
        enough: says of the outcomes so far whether nothing that is still to come matters.
    """

    quorum: int | None = None
    grace_s: float = 0.0
    enough: Callable[[Outcomes], Awaitable[bool]] | None = None


async def ask_baselines(
    record: Record, options: PanelOptions, runtime: Runtime
) -> tuple[list[tuple[PlannedCall, Completion | CallFailed]], list[Call]]:
    """Ask the models that stand outside the panel; return each call with its outcome, and the ledger's lines."""
    if not options.baselines:
        return [], []
    ledger = runtime.ledger("baseline", record)
    planned = PanelPlanner(record, replace(options, members=options.baselines), runtime).first()
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
        (outcomes, notes), beside = await asyncio.gather(
            _ask_members(record, planned, options, runtime, ledger), ask_baselines(record, options, runtime)
        )
    else:
        (outcomes, notes), beside = await _ask_members(record, planned, options, runtime, ledger), ([], [])
    places = sorted(outcomes)
    responses = [_response_to(planned[i], outcomes[i]) for i in places]
    failed = _note_failed(responses)
    ledger.calls += beside[1]
    if len(failed) == len(responses):
        return _fail_all(record, responses, ledger)
    notes += note_no_tools(record, "panel", options.tools, options.members, runtime.client)
    new = with_section(record, "panel", responses, ledger.calls, [*failed, *notes, *_note_unmet(ledger)])
    if beside[0]:
        new = {**new, "baselines": [_response_to(call, outcome) for call, outcome in beside[0]]}
    unasked = [call for i, call in enumerate(planned) if i not in outcomes]
    scouted = options.scout is not None and len(outcomes) == options.scout
    why: Why = "call" if options.first_call else "scouts" if scouted else "majority"
    return _with_spared(new, [call.seat for call in unasked], why)


async def _ask_members(
    record: Record, planned: list[PlannedCall], options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> tuple[Outcomes, list[Degraded]]:
    """Return the outcomes of all calls, or of the scouts alone where those agree."""
    patience = _patience_for(record, planned, options)
    if options.scout is None or options.scout >= len(planned):
        return await ask(planned, {}, runtime, ledger, patience), []
    from fusiontools.stages.panel_agreement import agree

    scouts = planned[: options.scout]
    outcomes = await ask(scouts, {}, runtime, ledger, Patience())
    heard = [_response_to(call, outcomes[i]) for i, call in enumerate(scouts)]
    agreed, notes = await agree(record, heard, options, runtime, ledger)
    return (outcomes if agreed else await ask(planned, outcomes, runtime, ledger, patience)), notes


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
    usable = [i for i, _ in usable_responses(record)]
    order = prompts.shown_to(record["id"], usable, f"{seat.model.name}/{seat.layer}").values()
    left = [prompts.response_text(record["panel"][i]) for i in order]
    folded: Completion | None = None
    while left:
        texts = [prompts.response_text(_response_of(seat, folded))] if folded is not None else []
        room = window - len(texts)
        texts, left = [*texts, *left[:room]], left[room:]
        labelled = {prompts.label_of(i): text for i, text in enumerate(texts)}
        call = planner.revision(seat, "revise", labelled, "", temperature)
        try:
            folded = await complete(call, planner.runtime, ledger)
        except CallFailed as failure:
            if folded is None:
                return failure, []
            missing = len(left) + len(texts) - 1
            detail = f"{seat.model.name}: {failure.message}; {missing} of {len(order)} responses are not in its fold"
            return folded, [{"stage": "panel", "code": "fold_cut", "detail": detail}]
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


async def ask(
    planned: Sequence[PlannedCall], known: Outcomes, runtime: Runtime, ledger: Ledger, patience: Patience
) -> Outcomes:
    """Return the outcomes of a plan, of which some may be known.

    What the journal holds comes at once, the rest is asked all at the same time. The answer of a panel of one is
    handed on as it is written.
    """
    outcomes = dict(known)
    tasks: dict[asyncio.Task[Completion], int] = {}
    warm: dict[str, asyncio.Event] = {}
    on_delta = runtime.on_delta if len(planned) == 1 else None
    for i, call in enumerate(planned):
        if i in known:
            continue
        recalled = None
        if call.wish is None:
            recalled = runtime.client.recall(call.request, call.seat.model, ledger, call.seat.slot)
        if recalled is not None:
            outcomes[i] = recalled
            if on_delta is not None:
                say_whole(on_delta, recalled.content, recalled.reasoning_details)
        elif call.request.cached_messages:
            tasks[asyncio.create_task(_complete_cached(call, runtime, ledger, warm))] = i
        else:
            tasks[asyncio.create_task(complete(call, runtime, ledger, on_delta))] = i
    try:
        await _settle(tasks, outcomes, patience)
    finally:
        for task in tasks:
            task.cancel()
    return outcomes


async def complete(call: PlannedCall, runtime: Runtime, ledger: Ledger, on_delta: OnDelta | None = None) -> Completion:
    """Return the completion of a planned call, of a member that may use tools where it may; watched, where it is."""
    if runtime.drafts is None or (on_delta is not None and not runtime.drafts.twice):
        return await _complete(call, runtime, ledger, on_delta)

    def ask(draft: OnDelta) -> Awaitable[Completion]:
        return _complete(call, runtime, ledger, draft if on_delta is None else _both(draft, on_delta))

    seat = call.seat
    return await runtime.drafts.follow(seat.slot.label or seat.model.name, seat.layer, ask)


def _both(one: OnDelta, other: OnDelta) -> OnDelta:
    def hear(delta: Delta) -> None:
        one(delta)
        other(delta)

    return hear


async def _complete(call: PlannedCall, runtime: Runtime, ledger: Ledger, on_delta: OnDelta | None) -> Completion:
    if call.wish is None:
        return await runtime.client.complete(call.request, call.seat.model, ledger, call.seat.slot, on_delta)
    from fusiontools.stages.tool_loop import Ask, complete_with_tools

    return await complete_with_tools(
        Ask(call.request, call.seat.model, call.seat.slot, runtime, ledger), call.wish, on_delta
    )


async def _complete_cached(
    call: PlannedCall, runtime: Runtime, ledger: Ledger, warm: dict[str, asyncio.Event]
) -> Completion:
    """Make a call whose prompt its endpoint keeps: the first sample begins to answer before the others are asked."""
    first = call.seat.model.name not in warm
    begun = warm.setdefault(call.seat.model.name, asyncio.Event())
    if not first:
        await begun.wait()
        return await complete(call, runtime, ledger)
    try:
        return await complete(call, runtime, ledger, lambda _: begun.set())
    finally:
        begun.set()


async def _settle(tasks: Mapping[asyncio.Task[Completion], int], outcomes: Outcomes, patience: Patience) -> None:
    """Wait for all calls, for the quorum and its grace, or until enough is known; cancel the rest, sockets and all."""
    pending = set(tasks)
    cut_at: float | None = None
    clock = asyncio.get_running_loop().time
    while pending:
        answered = sum(isinstance(outcome, Completion) for outcome in outcomes.values())
        if patience.enough is not None and await patience.enough(outcomes):
            await _cancel(pending)
            return
        if cut_at is None and patience.quorum is not None and answered >= patience.quorum:
            cut_at = clock() + patience.grace_s
        left_s = None if cut_at is None else max(0.0, cut_at - clock())
        done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            failure = task.exception()
            if failure is not None and not isinstance(failure, CallFailed):
                raise failure
            outcomes[tasks[task]] = failure if failure is not None else task.result()
        if not done and pending:
            await _cancel(pending)
            cut = CallFailed("cut", f"not in {patience.grace_s:g} s after {answered} had answered (--quorum)")
            outcomes.update({tasks[task]: cut for task in pending})
            return


async def _cancel(pending: set[asyncio.Task[Completion]]) -> None:
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)


def _with_calls(record: Record, ledger: Ledger, notes: list[Degraded]) -> Record:
    """Return the record with its panel as it stands, what was paid for since, and what there is to say of it."""
    kept: dict[str, Any] = dict(record)
    if ledger.calls:
        kept["calls"] = [*record.get("calls", []), *ledger.calls]
    if notes:
        kept["degraded"] = [*record.get("degraded", []), *notes]
    return kept  # type: ignore[return-value]


def _with_spared(record: Record, seats: list[Seat], why: Why) -> Record:
    if not seats:
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


def _response_to(call: PlannedCall, outcome: Completion | CallFailed) -> Response:
    return _response_of(call.seat, outcome)


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
