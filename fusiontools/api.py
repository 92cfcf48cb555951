"""The stages of the command line, from Python.

    import asyncio
    import fusiontools

    record = asyncio.run(fusiontools.fuse("What is the capital of France?", "local"))
    print(record["answer"]["content"])

`fuse` opens and closes everything for one question. For many, open a runtime once and run any stages over records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fusiontools.chain import Chain
from fusiontools.ids import question_id
from fusiontools.models.door import Door
from fusiontools.models.journal import Journal, default_path
from fusiontools.recipe import Recipe
from fusiontools.recipe_file import load_recipe
from fusiontools.record import Message, Record
from fusiontools.stages.runtime import Runtime, Stage


def question(asked: str | Sequence[Message]) -> Record:
    """Return the record of a question: text, or chat messages."""
    messages: list[Message] = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
    return {"id": question_id(messages), "messages": messages}


def chain_of(recipe: Recipe) -> Stage:
    """Return the recipe's chain as one stage: panel, judge and synthesizer, where it names no other."""
    return Chain.parse(recipe.chain).bind(recipe, offline=True)


@asynccontextmanager
async def open_runtime(
    recipe: Recipe, *, journal: Path | None = None, keep: bool = True, replay: bool = False, offline: bool = False
) -> AsyncIterator[Runtime]:
    """Open what stages need, and close it again.

    Args:
        recipe: whose endpoints and limits hold.
        journal: the journal's file; the user's own where none is given.
        keep: False keeps nothing on disk.
        replay: answer from the journal what it holds.
        offline: answer from the journal only.

    Raises:
        UsageError: the journal cannot be opened.
    """
    opened = Journal(journal or default_path()) if keep else None
    door = Door(recipe.endpoints, recipe.limits, opened, replay=replay, offline=offline)
    try:
        yield Runtime(door)
    finally:
        await door.aclose()


async def fuse(
    asked: str | Sequence[Message], recipe: Recipe | str | None = None, chain: Chain | str | None = None
) -> Record:
    """Take one question through a chain.

    Args:
        asked: text, or chat messages.
        recipe: a recipe, its name or its path; by default the one the command line would take.
        chain: by default the recipe's own.

    Returns:
        The record, with `answer`, or with `error` where nobody answered.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    steps = chain if isinstance(chain, Chain) else Chain.parse(chain or chosen.chain)
    async with open_runtime(chosen) as runtime:
        return await steps.bind(chosen, binding=recipe is not None, offline=True)(question(asked), runtime)
