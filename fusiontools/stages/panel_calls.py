"""Make the calls of a panel's plan, all at the same time, and cut off those that do not matter any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, Delta, OnDelta
from fusiontools.llm.ledger import Ledger
from fusiontools.stages.panel_plan import PlannedCall
from fusiontools.stages.runtime import Runtime

#: The outcome of each call by its place in the plan; a call that was cut because the others agree has none.
Outcomes = dict[int, Completion | CallFailed]


class Patience(Struct, frozen=True):
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
    outcomes, create_task = dict(known), asyncio.get_running_loop().create_task
    tasks: dict[asyncio.Task[Completion], int] = {}
    warm: dict[str, asyncio.Event] = {}
    on_delta = runtime.on_delta if len(planned) == 1 else None
    try:
        for i, call in enumerate(planned):
            if i in known:
                if isinstance(known[i], Completion):
                    warm.setdefault(call.seat.model.name, asyncio.Event()).set()
                continue
            recalled = None
            if call.wish is None:  # each turn of a member with tools is a call
                recalled = runtime.client.recall(call.request, call.seat.model, ledger, call.seat.slot, on_delta)
            if recalled is not None:
                outcomes[i] = recalled
            elif call.request.cached_messages and len(planned) > 1:
                tasks[create_task(_complete_cached(call, runtime, ledger, warm))] = i
            else:
                tasks[create_task(_ask_watched(call, runtime, ledger, on_delta))] = i
        if tasks:
            await _settle(tasks, outcomes, patience)
    finally:
        for task in tasks:
            task.cancel()
    return outcomes


def _ask_watched(
    call: PlannedCall, runtime: Runtime, ledger: Ledger, on_delta: OnDelta | None
) -> Coroutine[Any, Any, Completion]:
    """Return the completion of a call that is not kept; watched, where somebody follows the drafts."""
    if runtime.drafts is None or (on_delta is not None and not runtime.drafts.twice):
        return _ask(call, runtime, ledger, on_delta)

    def ask(draft: OnDelta) -> Awaitable[Completion]:
        return _ask(call, runtime, ledger, draft if on_delta is None else _both(draft, on_delta))

    seat = call.seat
    return runtime.drafts.follow(seat.slot.label or seat.model.name, seat.layer, ask)


def _both(one: OnDelta, other: OnDelta) -> OnDelta:
    def hear(delta: Delta) -> None:
        one(delta)
        other(delta)

    return hear


def _ask(
    call: PlannedCall, runtime: Runtime, ledger: Ledger, on_delta: OnDelta | None
) -> Coroutine[Any, Any, Completion]:
    if call.wish is None:
        return runtime.client.ask(call.request, call.seat.model, ledger, call.seat.slot, on_delta)
    from fusiontools.stages.tool_loop import Ask, complete_with_tools

    return complete_with_tools(Ask(call.request, call.seat.model, call.seat.slot, runtime, ledger), call.wish, on_delta)


async def _complete_cached(
    call: PlannedCall, runtime: Runtime, ledger: Ledger, warm: dict[str, asyncio.Event]
) -> Completion:
    """Make a call whose prompt its endpoint keeps: the first sample begins to answer before the others are asked."""
    first = call.seat.model.name not in warm
    begun = warm.setdefault(call.seat.model.name, asyncio.Event())
    if not first:
        await begun.wait()
        # Meanwhile the same call of another record may have been made, and kept.
        recalled = None
        if call.wish is None:
            recalled = runtime.client.recall(call.request, call.seat.model, ledger, call.seat.slot)
        return recalled or await _ask_watched(call, runtime, ledger, None)
    try:
        return await _ask_watched(call, runtime, ledger, lambda _: begun.set())
    finally:
        begun.set()


async def _settle(tasks: Mapping[asyncio.Task[Completion], int], outcomes: Outcomes, patience: Patience) -> None:
    """Wait for all calls, for the quorum and its grace, or until enough is known; cancel the rest, sockets and all."""
    if patience.quorum is None and patience.enough is None:
        await _all_ended(tasks)
        for task, i in tasks.items():
            outcomes[i] = _outcome_of(task)
        return
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
            outcomes[tasks[task]] = _outcome_of(task)
        if not done and pending:
            await _cancel(pending)
            cut = CallFailed("cut", f"not in {patience.grace_s:g} s after {answered} had answered (--quorum)")
            outcomes.update({tasks[task]: cut for task in pending})
            return


async def _all_ended(tasks: Collection[asyncio.Task[Completion]]) -> None:
    """Wait for all, or until one fails unexpectedly, which is raised; `asyncio.wait` takes several times as long."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(tasks)

    def count(task: asyncio.Task[Completion]) -> None:
        nonlocal left
        left -= 1
        if ended.done():
            return
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, CallFailed):
            ended.set_exception(failure)
        elif not left:
            ended.set_result(None)

    for task in tasks:
        task.add_done_callback(count)
    await ended


def _outcome_of(task: asyncio.Task[Completion]) -> Completion | CallFailed:
    failure = task.exception()
    if failure is None:
        return task.result()
    if not isinstance(failure, CallFailed):
        raise failure
    return failure


async def _cancel(pending: set[asyncio.Task[Completion]]) -> None:
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
