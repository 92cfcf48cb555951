"""Ask a second model for the same where the first is slow to begin; whichever is there first is the answer.

Source: Dean, Barroso 2013, "The Tail at Scale", CACM 56(2), 74-80 (hedged requests).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusiontools.llm.completion import Completion, Delta, OnDelta

#: Asks a model, which is heard while it writes where somebody listens.
Ask = Callable[["OnDelta | None"], Coroutine[Any, Any, "Completion"]]


class Hedged:
    """One call that may become two."""

    def __init__(self, first: Ask, second: Ask) -> None:
        #: Whether the second was asked.
        self.asked_second = False
        self._first, self._second = first, second
        self._speaker: int | None = None
        self._spoken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def complete(self, hedge_s: float, on_delta: OnDelta | None) -> Completion:
        """Return the answer that is whole first; where it is heard, that of whoever begins first. The other is cut off.

        Args:
            hedge_s: how long the first has for itself, until it is whole, or heard, in seconds.

        Raises:
            CallFailed: the first has failed before the second was asked; or both have, and it is the first one's.
        """
        tasks = [asyncio.ensure_future(self._first(self._voice(0, on_delta)))]
        try:
            await self._wait(tasks, hedge_s)
            if not (tasks[0].done() or self._spoken.done()):
                self.asked_second = True
                tasks.append(asyncio.ensure_future(self._second(self._voice(1, on_delta))))
            while (winner := self._winner(tasks)) is None:
                await self._wait(tasks)
            await _cut_off([task for task in tasks if task is not winner])
            return await winner
        finally:
            await _cut_off(tasks)

    async def _wait(self, tasks: list[asyncio.Task[Completion]], timeout_s: float | None = None) -> None:
        """Wait until one of them is done, or heard."""
        pending: list[asyncio.Future[Any]] = [task for task in tasks if not task.done()]
        await asyncio.wait([*pending, self._spoken], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def _winner(self, tasks: list[asyncio.Task[Completion]]) -> asyncio.Task[Completion] | None:
        if self._speaker is not None:
            return tasks[self._speaker]
        failed = [task for task in tasks if task.done() and task.exception() is not None]
        return tasks[0] if len(failed) == len(tasks) else next((t for t in tasks if t.done() and t not in failed), None)

    def _voice(self, place: int, on_delta: OnDelta | None) -> OnDelta | None:
        if on_delta is None:
            return None

        def hear(delta: Delta) -> None:
            if self._speaker is None and delta != "":
                self._speaker = place
                self._spoken.set_result(None)
            if self._speaker == place:
                on_delta(delta)

        return hear


async def _cut_off(tasks: list[asyncio.Task[Completion]]) -> None:
    """Cancel what still goes on, and wait until it has been entered."""
    if pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it may be nobody's
