"""The same stages from Python: one runtime for many questions, and a stage of your own between two of ours.

python library.py [RECIPE]
"""

import asyncio
import sys

import fusiontools
from fusiontools.record.types import Record
from fusiontools.stages.runtime import Runtime


async def without_duplicates(record: Record, runtime: Runtime) -> Record:
    """A stage is an async function from record to record; what it does not own it passes on untouched."""
    if "error" in record:
        return record
    unique = {response.get("content"): response for response in reversed(record["panel"])}
    return {**record, "panel": [*unique.values()]}


async def main(recipe_name: str) -> None:
    recipe = fusiontools.load_recipe(recipe_name)
    chain = fusiontools.compose(
        fusiontools.panel(fusiontools.fixed(recipe.panel)),
        without_duplicates,
        fusiontools.judge(fusiontools.fixed(recipe.judge)),
        fusiontools.synth(fusiontools.fixed(recipe.synth)),
    )
    questions = ["What is the capital of Peru?", "How many days does a week have?"]
    async with fusiontools.open_runtime(recipe) as runtime:
        records = await asyncio.gather(*(chain(fusiontools.question(text), runtime) for text in questions))
    for text, record in zip(questions, records, strict=True):
        answer = record["error"]["message"] if "error" in record else record["answer"]["content"]
        print(f"{text} {answer} ({len(record['panel'])} different responses)")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
