"""Run stages over a stream of records: a bounded window, in order, each result as soon as it may leave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

from fusiontools.record import Record
from fusiontools.resolve import Resolver
from fusiontools.stages.runtime import Runtime, Stage

In = TypeVar("In")
Out = TypeVar("Out")


def compose(*stages: Stage) -> Stage:
    """Return the stages as one: each reads what the one before it wrote, all within the record's one deadline."""

    async def run(record: Record, runtime: Runtime) -> Record:
        runtime = runtime.timed()
        for stage in stages:
            record = await stage(record, runtime)
        return record

    return run


def stage_of(name: str, given: Mapping[str, Any], resolver: Resolver) -> Stage:
    """Return one stage with its typed options.

    Raises:
        UsageError: options that cannot be, or a key that is missing.
    """
    options_for = resolver.options_for(name, given)
    if name == "panel":
        from fusiontools.stages.panel import panel

        return panel(options_for, resolver.carried)
    module = import_module(f"fusiontools.stages.{name}")
    stage: Stage = getattr(module, name)(options_for)
    return stage


async def over(
    batches: AsyncIterator[Sequence[In]],
    work: Callable[[In], Awaitable[Out]],
    *,
    jobs: int,
    unordered: bool = False,
) -> AsyncIterator[list[Out]]:
    """Yield the results of `work` over a stream, whatever is ready at once, in the order of the input.

    Args:
        batches: the input, in whatever pieces it arrives.
        jobs: how many items are worked on at once. At most four times as many wait for an older one to finish, so
            memory does not grow with the input, and one slow item does not stop the rest at once.
        unordered: yield as they finish.
    """
    window: deque[asyncio.Task[Out]] = deque()
    finished: list[Out] = []
    running = asyncio.Semaphore(jobs)
    room = asyncio.Semaphore(jobs * 4)
    changed = asyncio.Event()

    def settled(task: asyncio.Task[Out]) -> None:
        running.release()
        if unordered and not task.cancelled() and task.exception() is None:
            finished.append(task.result())
            window.remove(task)
        if unordered or (window and window[0] is task):
            changed.set()

    async def feed() -> None:
        async for batch in batches:
            for item in batch:
                await room.acquire()
                await running.acquire()
                task: asyncio.Task[Out] = asyncio.ensure_future(work(item))
                window.append(task)
                task.add_done_callback(settled)

    feeder = asyncio.create_task(feed())
    feeder.add_done_callback(lambda _: changed.set())
    try:
        while True:
            while window and window[0].done() and (not unordered or window[0].exception()):
                if finished and window[0].exception():
                    break  # what is finished leaves before the run ends
                finished.append(window.popleft().result())
            if finished:
                ready, finished = finished, []
                for _ in ready:
                    room.release()
                yield ready
            elif feeder.done() and not window:
                feeder.result()
                return
            else:
                changed.clear()
                await changed.wait()
    finally:
        feeder.cancel()
        for task in window:
            task.cancel()
