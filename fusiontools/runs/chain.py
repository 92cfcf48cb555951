"""The library's front door: take a question through a chain, bind chains to recipes, run stages over many records.

    import fusiontools

    record = fusiontools.fuse_sync("What is the capital of France?", "local")
    print(record["answer"]["content"])

`fuse_sync`, and `fuse` for programs that are asynchronous themselves, open and close everything for one question. For
many, open a runtime once, bind a chain, and give it to `over`, which works on a bounded number of records at once.
What a run would cost is told by `costs.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.chain_syntax import Step, parse, spell
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.config.resolve import Resolver, named_models, require_members, suited_to
from fusiontools.config.stage_table import ANSWERING, VoteOptions
from fusiontools.errors import InputError, UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.state.shared import open_budget, open_kept
from fusiontools.llm.traces import open_traces
from fusiontools.record import jsonl
from fusiontools.record.types import Message, Record
from fusiontools.stages.runtime import Runtime, Stage, in_turn, traced

In = TypeVar("In")
Out = TypeVar("Out")


class StepRefused(UsageError):
    """A step of a chain asks for something that cannot be; `reason` says what, without the place."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(f"column {step.column}: {step.name}: {reason}", code="chain")
        self.reason = reason


class Chain(Struct, frozen=True):
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
        steps = (*self.steps[:made], named, *self.steps[made + 1 :])
        return Chain(spell(steps), steps)

    def with_models(self, stage: str, model: str | None) -> Chain:
        """Return the chain with this model asked by every step of this stage that names none itself.

        Raises:
            UsageError: there is no such step.
        """
        if model is None:
            return self
        if not any(step.name == stage for step in self.steps):
            raise UsageError(f"--{stage} {model!r}: the chain {self.text!r} has no `{stage}`")
        steps = [
            replace(step, given={"models": (model,), **step.given}) if step.name == stage else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps))

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
        if made is not None and any(
            VoteOptions(**step.given).wants_logprobs for step in self.steps[made:] if step.name == "vote"
        ):
            recipe = replace(recipe, stages={**recipe.stages, "panel": recipe.panel.replace(logprobs=True)})
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
        last_panel = max((i for i, step in enumerate(self.steps) if step.name == "panel"), default=-1)
        last_answer = max((i for i, step in enumerate(self.steps) if step.name in ANSWERING), default=-1)
        # An answer is heard from the step whose text it will be.
        heard = {last_answer, last_panel} if self.answers else set()
        run = in_turn(stages, [step.name for step in self.steps], heard)
        if recipe.compact is not None:
            from fusiontools.runs.compaction import compacting

            readers = [model for step in self.steps for model in named_models(step.name, step.given, recipe)]
            run = compacting(run, recipe.compact, readers, recipe)
        return traced(recipe.name, run, whole=True)


def compose(*stages: Stage) -> Stage:
    """Return the stages as one: each reads what the one before it wrote, all within the record's one deadline."""
    return in_turn(stages, [""] * len(stages), range(len(stages)))


def stage_of(name: str, given: Mapping[str, Any], resolver: Resolver) -> Stage:
    """Return one stage with its typed options.

    Raises:
        UsageError: options that cannot be, or a key that is missing.
    """
    module = import_module(f"fusiontools.stages.{name}")
    stage: Stage = getattr(module, name)(resolver.options_for(name, given))
    return traced(name, stage)


async def over(
    batches: AsyncIterator[Sequence[In]],
    work: Callable[[In], Coroutine[Any, Any, Out]],
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
    items, window, finished = deque[In](), deque[asyncio.Task[Out]](), list[Out]()
    running = held = 0
    changed, all_begun = asyncio.Event(), asyncio.Event()
    create_task = asyncio.get_running_loop().create_task

    def begin() -> None:
        nonlocal running, held
        while items and running < jobs and held < 4 * jobs:
            window.append(task := create_task(work(items.popleft())))
            task.add_done_callback(settled)
            running, held = running + 1, held + 1
        if not items:
            all_begun.set()

    def settled(task: asyncio.Task[Out]) -> None:
        nonlocal running
        running -= 1
        if unordered and not task.cancelled() and task.exception() is None:
            finished.append(task.result())
            window.remove(task)
        if unordered or (window and window[0] is task):
            changed.set()
        begin()

    async def feed() -> None:
        async for batch in batches:
            items.extend(batch)
            all_begun.clear()
            begin()
            await all_begun.wait()

    feeder = create_task(feed())
    feeder.add_done_callback(lambda _: changed.set())
    try:
        while True:
            while window and window[0].done() and (not unordered or window[0].exception()):
                if finished and window[0].exception():
                    break  # what is finished leaves before the run ends
                finished.append(window.popleft().result())
            if finished:
                ready, finished = finished, []
                held -= len(ready)
                begin()
                yield ready
            elif feeder.done() and not window:
                feeder.result()
                return
            else:
                changed.clear()
                await changed.wait()
    finally:
        items.clear()
        for task in (feeder, *window):
            task.cancel()


def question(asked: str | Sequence[Message] | Mapping[str, Any]) -> Record:
    """Return the record of a question: text, chat messages, or a record, a prompt or a chat request as a mapping.

    Raises:
        InputError: it is none of these, or says nothing.
    """
    if isinstance(asked, str):
        jsonl.refuse_empty([{"role": "user", "content": asked.strip()}])
        asked = [{"role": "user", "content": asked}]
    elif not isinstance(asked, Mapping | Sequence) or isinstance(asked, bytes):
        raise InputError(f"a question is text, a list of messages or a record, this is {type(asked).__name__}")
    if not isinstance(asked, Mapping):
        asked = {"messages": list(asked)}
    try:
        return jsonl.parse(jsonl.dumps(asked))
    except TypeError as error:
        raise InputError(f"the question is no JSON: {error}") from error


def chain_of(recipe: Recipe) -> Stage:
    """Return the recipe's chain as one stage: panel, judge and synthesizer, where it names no other."""
    return Chain.parse(recipe.chain).bind(recipe, offline=True)


@asynccontextmanager
async def open_runtime(
    recipe: Recipe,
    *,
    journal: Path | None = None,
    state: str | None = None,
    budget: str | None = None,
    keep: bool = True,
    replay: bool = False,
    offline: bool = False,
) -> AsyncIterator[Runtime]:
    """Open what stages need, and close it again.

    Args:
        recipe: whose endpoints and limits hold.
        journal: the journal's file; the user's own where none is given.
        state: the URL of a state that is shared with other processes, as `--state`; that of `FUSION_STATE` where none
            is given.
        budget: counts the recipe's `max_cost_usd` together with all runs that name this budget.
        keep: False keeps nothing on disk.
        replay: answer from the journal what it holds.
        offline: answer from the journal only.

    Raises:
        UsageError: what contradicts itself, or a journal or state that was named and cannot be opened.
    """
    warn = logging.getLogger("fusiontools").warning
    named = {"journal": str(journal) if journal else None, "state": state}
    said = {"no_journal": not keep, "replay": replay, "offline": offline}
    kept, shared = open_kept({name: value for name, value in (named | said).items() if value}, warn)
    purses, run = open_budget(budget, recipe.limits.max_cost_usd, shared)
    client = Client(
        recipe.endpoints,
        recipe.limits,
        kept,
        shared,
        replay=replay,
        offline=offline,
        redact=recipe.redact,
        tools=recipe.tools,
        purses=purses,
        run=run,
        traces=open_traces("fusiontools", warn),
    )
    try:
        yield Runtime(client)
    finally:
        await client.aclose()


def fuse_sync(
    asked: str | Sequence[Message] | Mapping[str, Any],
    recipe: Recipe | str | None = None,
    chain: Chain | str | None = None,
    *,
    state: str | None = None,
) -> Record:
    """Do what `fuse` does, and return when it is done; also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(fuse(asked, recipe, chain, state=state))
    with ThreadPoolExecutor(1, "fuse") as thread:
        return thread.submit(asyncio.run, fuse(asked, recipe, chain, state=state)).result()


async def fuse(
    asked: str | Sequence[Message] | Mapping[str, Any],
    recipe: Recipe | str | None = None,
    chain: Chain | str | None = None,
    *,
    state: str | None = None,
) -> Record:
    """Take one question through a chain.

    Args:
        asked: text, chat messages, or a record, a prompt or a chat request as a mapping.
        recipe: a recipe, its name or its path; by default the one the command line would take.
        chain: by default the recipe's own.
        state: the URL of a state that is shared with other processes; that of `FUSION_STATE` where none is given.

    Returns:
        The record, with `answer`, or with `error` where nobody answered.

    Raises:
        InputError: this is no question; nothing is asked then.
        UsageError: a recipe, a chain or a key that cannot be.
    """
    record = question(asked)
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    steps = chain if isinstance(chain, Chain) else Chain.parse(chain or chosen.chain)
    async with open_runtime(chosen, state=state) as runtime:
        return await steps.bind(chosen, binding=recipe is not None, offline=True)(record, runtime)
