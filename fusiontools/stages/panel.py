"""Ask every panel member the same question.

Reads   messages, params
Adds    panel: [Response × members × samples], recipe order; recipe; calls
Calls   members × samples completions at once; wall clock ≤ deadline_s
Fails   all_failed when nobody answers; one member's failure is data in its response
Source  Wang et al. 2024, Mixture-of-Agents, arXiv:2406.04692; Li et al. 2025, Self-MoA, arXiv:2502.00674
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.model import Model
from fusiontools.models.ledger import Ledger, Slot
from fusiontools.models.types import Completion, Request
from fusiontools.options import OptionsFor
from fusiontools.prompts import with_system
from fusiontools.record import (
    Degraded,
    Message,
    Record,
    Response,
    digest,
    display_names,
    question_text,
    with_error,
    with_section,
)
from fusiontools.stage_options import FewShot, PanelOptions
from fusiontools.stages.runtime import Runtime, Stage

#: What of the asker's parameters a member gets; the rest shapes the visible answer and is the synthesizer's.
MEMBER_PARAMS = ("tools", "tool_choice", "parallel_tool_calls")
_LAYER = 1


@dataclass(frozen=True, slots=True)
class Planned:
    """One call that the panel will make."""

    model: Model
    slot: Slot
    request: Request


def panel(
    options_for: OptionsFor[PanelOptions], carried: Callable[[Record, PanelOptions], dict[str, Any]] | None = None
) -> Stage:
    """Return the stage; `carried` gives the recipe that the record carries from here on."""

    async def run(record: Record, runtime: Runtime) -> Record:
        if "error" in record:
            return record
        options = options_for(record)
        ledger = runtime.ledger("panel", record)
        planned = plan(record, options, runtime)
        outcomes = await _ask(planned, options, runtime, ledger)
        responses = [_response(call, outcome) for call, outcome in zip(planned, outcomes, strict=True)]
        if carried is not None:
            record = {**record, "recipe": carried(record, options)}
        failed = _failed(responses)
        if len(failed) == len(responses):
            return _all_failed(record, responses, ledger)
        return with_section(record, "panel", responses, ledger.calls, failed)

    return run


def plan(record: Record, options: PanelOptions, runtime: Runtime) -> list[Planned]:
    """Return every call the panel makes for a record, in recipe order."""
    few_shot = options.few_shot if _is_short(record, options.few_shot) else None
    samples = few_shot.samples if few_shot and few_shot.samples else options.samples
    asked = [(model, sample) for model in options.members for sample in range(model.samples * samples)]
    spread = _spread(asked, options, few_shot)
    return [
        Planned(
            model,
            Slot(model.name, sample, _LAYER, f"{model.name}#{sample}" if model.samples * samples > 1 else None),
            runtime.door.request(
                model,
                _messages(record, options, model, few_shot),
                _params(record, options, model, few_shot, temperature, sample, runtime),
                sample,
            ),
        )
        for (model, sample), temperature in zip(asked, spread, strict=True)
    ]


async def _ask(
    planned: list[Planned], options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> list[Completion | CallFailed]:
    """Return each call's outcome: what the journal holds at once, the rest all at the same time."""
    door = runtime.door
    outcomes: dict[int, Completion | CallFailed] = {}
    tasks: dict[asyncio.Task[Completion], int] = {}
    for i, call in enumerate(planned):
        recalled = door.recall(call.request, call.model, ledger, call.slot)
        if recalled is not None:
            outcomes[i] = recalled
        else:
            asked = door.complete(call.request, call.model, ledger, call.slot)
            tasks[asyncio.create_task(asked)] = i
    try:
        await _settle(tasks, outcomes, options)
    finally:
        for task in tasks:
            task.cancel()
    return [outcomes[i] for i in range(len(planned))]


async def _settle(
    tasks: Mapping[asyncio.Task[Completion], int],
    outcomes: dict[int, Completion | CallFailed],
    options: PanelOptions,
) -> None:
    """Wait for all calls, or for the quorum and its grace; then cancel the rest, sockets and all."""
    pending = set(tasks)
    cut_at: float | None = None
    clock = asyncio.get_running_loop().time
    while pending:
        answered = sum(isinstance(outcome, Completion) for outcome in outcomes.values())
        if cut_at is None and options.quorum is not None and answered >= options.quorum:
            cut_at = clock() + options.grace_s
        left_s = None if cut_at is None else max(0.0, cut_at - clock())
        done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            failure = task.exception()
            if failure is not None and not isinstance(failure, CallFailed):
                raise failure
            outcomes[tasks[task]] = failure if failure is not None else task.result()
        if not done and pending:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
            cut = CallFailed("cut", f"not in {options.grace_s:g} s after {answered} had answered (--quorum)")
            outcomes.update({tasks[task]: cut for task in pending})
            return


def _response(call: Planned, outcome: Completion | CallFailed) -> Response:
    response: Response = {"member": call.model.name, "sample": call.slot.sample or 0, "layer": _LAYER}
    if isinstance(outcome, CallFailed):
        response["error"] = {"code": outcome.code, "message": outcome.message}
        return response
    response["content"] = outcome.content
    response["finish_reason"] = outcome.finish_reason
    response["tool_calls"] = list(outcome.tool_calls)
    if outcome.mean_logprob is not None:
        response["mean_logprob"] = round(outcome.mean_logprob, 4)
    return response


def _failed(responses: list[Response]) -> list[Degraded]:
    names = display_names(responses)
    return [
        {"stage": "panel", "code": "member_failed", "detail": f"{name}: {r['error']['code']}: {r['error']['message']}"}
        for name, r in zip(names, responses, strict=True)
        if "error" in r
    ]


def _all_failed(record: Record, responses: list[Response], ledger: Ledger) -> Record:
    codes = {r["error"]["code"] for r in responses}
    code = "budget" if codes == {"budget"} else "all_failed"
    details = list(dict.fromkeys(f"{r['member']}: {r['error']['message']}" for r in responses))
    failed = with_section(record, "panel", responses, ledger.calls)
    return with_error(failed, "panel", code, "; ".join(details))


def _spread(asked: list[tuple[Model, int]], options: PanelOptions, few_shot: FewShot | None) -> list[float]:
    """Return each call's temperature: spread evenly over ±jitter, so that the drafts differ.

    A member with a temperature of its own keeps it; its further samples spread around it.
    """
    middle = few_shot.temperature if few_shot and few_shot.temperature is not None else options.temperature
    jitter = few_shot.jitter if few_shot and few_shot.jitter is not None else options.jitter
    if not options.diversity:
        jitter = 0.0
    free = [i for i, (model, _) in enumerate(asked) if model.temperature is None]
    temperatures = dict(zip(free, _evenly(middle, jitter, len(free)), strict=True))
    for model in {m.name: m for m, _ in asked if m.temperature is not None}.values():
        own = [i for i, (m, _) in enumerate(asked) if m.name == model.name]
        temperatures.update(zip(own, _evenly(model.temperature or 0.0, jitter, len(own)), strict=True))
    return [temperatures[i] for i in range(len(asked))]


def _evenly(middle: float, jitter: float, count: int) -> list[float]:
    if count < 2:
        return [round(middle, 4)] * count
    step = 2 * jitter / (count - 1)
    return [round(min(2.0, max(0.0, middle - jitter + i * step)), 4) for i in range(count)]


def _messages(record: Record, options: PanelOptions, model: Model, few_shot: FewShot | None) -> list[Message]:
    if few_shot is None:
        return with_system(record["messages"], model.system or options.system)
    turns: list[Message] = []
    for user, assistant in few_shot.turns:
        turns += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return with_system([*turns, *record["messages"]], model.system or few_shot.system or options.system)


def _params(
    record: Record,
    options: PanelOptions,
    model: Model,
    few_shot: FewShot | None,
    temperature: float,
    sample: int,
    runtime: Runtime,
) -> dict[str, Any]:
    asked = record.get("params", {})
    few_shot_tokens = few_shot.max_tokens if few_shot else None
    params: dict[str, Any] = {
        "temperature": temperature,
        "top_p": model.top_p,
        "max_tokens": model.max_tokens or few_shot_tokens or options.max_tokens,
        "reasoning_effort": model.reasoning_effort,
        **{name: asked.get(name) for name in MEMBER_PARAMS},
        **(options.extra or {}),
        **model.extra,
    }
    endpoint = runtime.door.endpoints.get(model.endpoint)
    if endpoint is not None and endpoint.embedded:
        # The embedded engine is deterministic by seed: the same question gives the same panel on every run.
        params["seed"] = digest("seed", record["id"], model.name, str(sample))
    return {name: value for name, value in params.items() if value is not None}


def _is_short(record: Record, few_shot: FewShot | None) -> bool:
    """Return whether the worked turns fit this question: one short user turn that asks for no long answer."""
    if few_shot is None or len(record["messages"]) != 1:
        return False
    question = question_text(record)
    if len(question) > few_shot.max_chars or "\n" in question.strip():
        return False
    words = set(re.findall(r"[^\W\d_]+", question.lower()))
    return words.isdisjoint(few_shot.unless)
