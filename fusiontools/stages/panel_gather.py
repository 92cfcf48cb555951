"""Make the planned calls of a panel at once, and decide how long to wait for whom and whether the responses agree.

Source  Chen et al. 2023, FrugalGPT, arXiv:2305.05176 (ask the cheap ones first);
        Aggarwal et al. 2023, Adaptive-Consistency, arXiv:2305.11860 (stop sampling once the majority is safe)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from fusiontools.config.stage_table import PanelOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, OnDelta
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record.sections import question_text
from fusiontools.record.types import Degraded, Record, Response
from fusiontools.stages import prompts, verdicts
from fusiontools.stages.panel_plan import PlannedCall
from fusiontools.stages.replies import truth_in
from fusiontools.stages.runtime import Runtime, compare_apart

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
            recalled = runtime.client.recall(call.request, call.model, ledger, call.slot)
        if recalled is not None:
            outcomes[i] = recalled
            if on_delta is not None:
                on_delta(recalled.content)
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
    """Return the completion of a planned call, of a member that may use tools where it may."""
    if call.wish is None:
        return await runtime.client.complete(call.request, call.model, ledger, call.slot, on_delta)
    from fusiontools.stages.tool_loop import Ask, complete_with_tools

    return await complete_with_tools(Ask(call.request, call.model, call.slot, runtime, ledger), call.wish, on_delta)


async def _complete_cached(
    call: PlannedCall, runtime: Runtime, ledger: Ledger, warm: dict[str, asyncio.Event]
) -> Completion:
    """Make a call whose prompt its endpoint keeps: the first sample begins to answer before the others are asked."""
    first = call.model.name not in warm
    begun = warm.setdefault(call.model.name, asyncio.Event())
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


_SCHEMA = {"reasoning": {"type": "string"}, "agree": {"type": "boolean"}}


def agree_by_code(question: str, texts: Sequence[str], key: str) -> bool:
    """Return whether all texts vote for the same; of long ones that give no result, code cannot tell."""
    from fusiontools.answers.keys import read_votes

    votes = read_votes(texts, key, question)
    return not votes.vague and votes.keys[0] is not None and len(set(votes.keys)) == 1


def majority_is_safe(question: str, texts: Sequence[str], key: str, outstanding: int) -> bool:
    """Return whether no answer that is still to come can change which key has the most votes."""
    from fusiontools.answers.keys import vote_keys

    if not texts:
        return False
    keys = vote_keys(texts, key, question)[1]
    counts: dict[str, int] = {}
    for found in keys:
        if found is not None:
            counts[found] = counts.get(found, 0) + 1
    first, second = sorted([*counts.values(), 0, 0], reverse=True)[:2]
    return first > second + outstanding


async def agree(
    record: Record, responses: Sequence[Response], options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> tuple[bool, list[Degraded]]:
    """Return whether at least two responses, none of them failed, agree; and what went wrong in finding out."""
    if len(responses) < 2 or any("error" in response for response in responses):
        return False, []
    if options.agree != "judge":
        texts = [prompts.response_text(response) for response in responses]
        agreed = await compare_apart(texts, options.agree, agree_by_code, question_text(record), texts, options.agree)
        return agreed, []
    model = options.agree_models[0]
    before: Record = {**record, "panel": list(responses)}
    _, labels = prompts.blind_order(record["id"], range(len(responses)))
    prompt = prompts.about_responses(before, "agree", options.template, labels)
    slot = Slot(model.name, layer=responses[0]["layer"], step="agree")
    reply = await verdicts.ask(verdicts.verdict_form(_SCHEMA), prompt, model, runtime, ledger, slot)
    if isinstance(reply, CallFailed):
        note: Degraded = {"stage": "panel", "code": "judge_failed", "detail": f"{model.name}: {reply.message}"}
        return False, [note]
    verdict = truth_in(reply, "agree")
    if verdict is None:
        return False, [{"stage": "panel", "code": "bad_analysis", "detail": f"{model.name}: no `agree` in the reply"}]
    return verdict, []
