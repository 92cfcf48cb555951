"""Make the planned calls of a panel, all at once, and decide how long to wait for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fusiontools.errors import CallFailed
from fusiontools.models.ledger import Ledger
from fusiontools.models.types import Completion, OnDelta
from fusiontools.stages.panel_calls import Planned
from fusiontools.stages.runtime import Runtime

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
    enough: Callable[[Outcomes], bool] | None = None


async def ask(
    planned: Sequence[Planned], known: Outcomes, runtime: Runtime, ledger: Ledger, patience: Patience
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
        recalled = runtime.door.recall(call.request, call.model, ledger, call.slot)
        if recalled is not None:
            outcomes[i] = recalled
            if on_delta is not None:
                on_delta(recalled.content)
        elif call.request.cached_messages:
            tasks[asyncio.create_task(_cached(call, runtime, ledger, warm))] = i
        else:
            tasks[asyncio.create_task(_one(call, runtime, ledger, on_delta))] = i
    try:
        await _settle(tasks, outcomes, patience)
    finally:
        for task in tasks:
            task.cancel()
    return outcomes


async def _one(call: Planned, runtime: Runtime, ledger: Ledger, on_delta: OnDelta | None = None) -> Completion:
    return await runtime.door.complete(call.request, call.model, ledger, call.slot, on_delta)


async def _cached(call: Planned, runtime: Runtime, ledger: Ledger, warm: dict[str, asyncio.Event]) -> Completion:
    """Make a call whose prompt its endpoint keeps: the first sample begins to answer before the others are asked."""
    first = call.model.name not in warm
    begun = warm.setdefault(call.model.name, asyncio.Event())
    if not first:
        await begun.wait()
        return await _one(call, runtime, ledger)
    try:
        return await _one(call, runtime, ledger, lambda _: begun.set())
    finally:
        begun.set()


async def _settle(tasks: Mapping[asyncio.Task[Completion], int], outcomes: Outcomes, patience: Patience) -> None:
    """Wait for all calls, for the quorum and its grace, or until enough is known; cancel the rest, sockets and all."""
    pending = set(tasks)
    cut_at: float | None = None
    clock = asyncio.get_running_loop().time
    while pending:
        answered = sum(isinstance(outcome, Completion) for outcome in outcomes.values())
        if patience.enough is not None and patience.enough(outcomes):
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
