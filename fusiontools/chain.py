"""Chains of stages: bound to a recipe and run on a record, or over a stream of records in a bounded window."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

from fusiontools.chain_text import ANSWERING, Step, parse
from fusiontools.errors import UsageError
from fusiontools.recipe import Recipe
from fusiontools.record import Record
from fusiontools.resolve import Resolver, require_members, suited_to
from fusiontools.stages.runtime import Runtime, Stage

In = TypeVar("In")
Out = TypeVar("Out")


class StepRefused(UsageError):
    """A step of a chain asks for something that cannot be; `reason` says what, without the place."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(f"column {step.column}: {step.name}: {reason}", code="chain")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as text and as steps: `panel | judge | synth` without the tools' prefix."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> Chain:
        """Read a chain.

        Raises:
            UsageError: what cannot work, with the column.
        """
        return cls(text, parse(text))

    @property
    def first_panel(self) -> int | None:
        """The place of the step that makes the panel; None where the records bring one along."""
        return next((i for i, s in enumerate(self.steps) if s.name == "panel" and not s.adds_layer), None)

    @property
    def answers(self) -> bool:
        """Whether a step of it writes an answer."""
        return any(step.name in ANSWERING for step in self.steps)

    def with_members(self, members: tuple[str, ...]) -> Chain:
        """Return the chain with these panel members, where its panel names none itself."""
        made = self.first_panel
        if made is None or not members or self.steps[made].given.get("members"):
            return self
        step = self.steps[made]
        named = replace(step, given={**step.given, "members": members})
        return replace(self, steps=(*self.steps[:made], named, *self.steps[made + 1 :]))

    def bind(self, recipe: Recipe, *, binding: bool = True, offline: bool = False, limited: bool = False) -> Stage:
        """Return the chain as one stage.

        The steps up to the panel go by the recipe, the later ones by what the panel wrote of it into the record: as
        in a shell pipeline where the recipe is given to the first tools.

        Args:
            binding: whether the recipe holds even over one that a record carries.
            offline: ask for no keys; a key that is missing is then the failure of a call.
            limited: a cost limit holds, which no price in a record may lift.

        Raises:
            UsageError: options that cannot be, a missing key, a panel without members; with the column.
        """
        made = self.first_panel
        if made is not None and not binding:
            recipe = suited_to(recipe, self.steps[made].given)
        stages = []
        for i, step in enumerate(self.steps):
            chosen = binding and (made is None or i <= made)
            try:
                if i == made:
                    require_members(recipe, step.given, offline)
                resolver = Resolver(recipe, chosen, offline, limited)
                resolver.check(step.name, step.given)
                stages.append(stage_of(step.name, step.given, resolver))
            except UsageError as error:
                raise StepRefused(step, error.message) from error
        return self._run(stages)

    def _run(self, stages: Sequence[Stage]) -> Stage:
        """Return the stages as one; the text of an answer is heard from the step whose text will be the answer."""
        last_panel = max((i for i, step in enumerate(self.steps) if step.name == "panel"), default=-1)
        last_answer = max((i for i, step in enumerate(self.steps) if step.name in ANSWERING), default=-1)

        async def run(record: Record, runtime: Runtime) -> Record:
            runtime = runtime.timed()
            quiet = replace(runtime, on_delta=None)
            for i, stage in enumerate(stages):
                heard = i in (last_answer, last_panel) and self.answers
                record = await stage(record, runtime if heard else quiet)
            return record

        return run


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
