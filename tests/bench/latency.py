"""How long a person waits for a fusion, and what shortens it, on models of known distributions of latency.

Usage: PYTHONPATH=tests/support python tests/bench/latency.py [RECORDS]. Prints a Markdown table for each panel.

The chain is the real one, `panel | judge | synth`, over a back end that sleeps; the time is the event loop's own, which
leaps from one thing that happens to the next, so that thousands of slow fusions take a minute. Every way sees the same
draws: the same model is as slow on the same question in each of them.

A call takes the time to its first token, log-normal, and as long as its tokens take, both log-normal too; a few stall
before the first token, by a Pareto distribution, whose tail is heavy. See `HABITS`.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leaping

from fusiontools.config.models import Endpoint
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.config.stage_table import LimitOptions
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
from fusiontools.llm.drafts import Drafts
from fusiontools.runs.chain import Chain
from fusiontools.stages.runtime import Runtime


@dataclass(frozen=True)
class Habit:
    """How long a model takes; medians, and the sigma of the logarithm.

    Args:
        first_s: to the first token.
        tokens_per_s: how fast it writes.
        tokens: how much it writes.
        stalls: the share of calls that stall before the first token,
        stall_s: at least so long, with a tail of exponent `alpha`.
    """

    first_s: float = 0.8
    first_sigma: float = 0.5
    tokens_per_s: float = 70.0
    speed_sigma: float = 0.35
    tokens: float = 400.0
    tokens_sigma: float = 0.4
    stalls: float = 0.03
    stall_s: float = 5.0
    alpha: float = 1.3

    def draw(self, source: random.Random) -> tuple[float, float]:
        """Return the seconds to the first token, and to the last."""
        first = self.first_s * math.exp(source.gauss(0, self.first_sigma))
        if source.random() < self.stalls:
            first += min(300.0, self.stall_s * source.paretovariate(self.alpha))
        tokens = self.tokens * math.exp(source.gauss(0, self.tokens_sigma))
        return first, first + tokens / (self.tokens_per_s * math.exp(source.gauss(0, self.speed_sigma)))


ALIKE = {f"m{i}": Habit() for i in range(4)}
HABITS: dict[str, dict[str, Habit]] = {
    "four members alike": ALIKE,
    "one member thinks: 12 s to its first token": {**ALIKE, "m3": Habit(first_s=12.0)},
}
#: The judge writes a verdict, the synthesizer an answer; fallbacks are as the members, and judge and synthesizer, are.
OTHERS = {"judge": Habit(tokens=250.0), "synth": Habit(tokens=500.0)}
#: Each way: its chain, the limits, and whether members are heard while they write.
WAYS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "wait for all": ("panel | judge | synth", {}, False),
    "the first draft shown as thoughts": ("panel | judge | synth", {}, True),
    "`--quorum 3 --grace 2`": ("panel --quorum 3 --grace 2 | judge | synth", {}, False),
    "`--quorum 3 --grace 0`": ("panel --quorum 3 --grace 0 | judge | synth", {}, False),
    "`--quorum 2 --grace 0`": ("panel --quorum 2 --grace 0 | judge | synth", {}, False),
    "`--hedge 10`": ("panel | judge | synth", {"hedge_s": 10.0}, False),
    "`--hedge 15`": ("panel | judge | synth", {"hedge_s": 15.0}, False),
    "`--hedge 3`, members heard": ("panel | judge | synth", {"hedge_s": 3.0}, True),
    "`--hedge 10 --quorum 3 --grace 0`": ("panel --quorum 3 --grace 0 | judge | synth", {"hedge_s": 10.0}, False),
    "no judge": ("panel | synth", {}, False),
}
RECIPE = """
panel: [m0, m1, m2, m3]
judge: judge
synth: synth
endpoints:
  there: {base_url: "http://127.0.0.1:9", free: true}
models:
"""
VERDICT = (
    '{"consensus": ["yes"], "contradictions": [], "partial_coverage": [], "unique_insights": [], "blind_spots": [], '
    '"ranking": ["A", "B"]}'
)


class Sleeping:
    """Models that do nothing but take their time."""

    def __init__(self, habits: dict[str, Habit]) -> None:
        self.habits = habits
        #: When each member's response was whole, in this record.
        self.whole_at: dict[str, float] = {}
        self.calls = 0

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        self.calls += 1
        name = request.model.partition("+")[0]
        [question] = set(re.findall(r"question \d+", str(request.messages)))
        first, whole = self.habits[name].draw(random.Random(f"{request.model} {question}"))
        await asyncio.sleep(first)
        if on_delta is not None:
            on_delta("So")
        await asyncio.sleep(whole - first)
        self.whole_at[request.model] = asyncio.get_running_loop().time()
        content = VERDICT if name == "judge" else "So"
        usage: Any = {"prompt_tokens": 100, "completion_tokens": 100, "cached_tokens": 0, "reasoning_tokens": 0}
        return Completion(content=content, model=request.model, tool_calls=[], usage=usage, cost_usd=0.0)

    async def aclose(self) -> None:
        """Do nothing."""


class Heard:
    """When somebody was heard first."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def answer(self, _: Any) -> None:
        self.at.setdefault("answer", asyncio.get_running_loop().time())

    def draft(self, *_: Any) -> None:
        self.at.setdefault("draft", asyncio.get_running_loop().time())


@dataclass
class Waited:
    """What a person waited for, in seconds, and what was bought."""

    draft: list[float]
    first: list[float]
    whole: list[float]
    #: From when the judge could have had all but the last response, while that one was still being written.
    early: list[float]
    responses: int = 0
    calls: int = 0


async def wait(
    habits: dict[str, Habit], text: str, limits: dict[str, Any], records: int, *, heard_early: bool
) -> Waited:
    backend = Sleeping({**habits, **OTHERS})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        models = [
            f"  {name}: {{model: {name}, endpoint: there, fallbacks: [{name}+other]}}\n" for name in backend.habits
        ]
        path.write_text(RECIPE + "".join(models))
        recipe = load_recipe(str(path))
    bounds = LimitOptions(timeout_s=900, deadline_s=10**6, **limits)
    client = Client({"there": Endpoint("there", "http://127.0.0.1:9")}, bounds, backends={"there": backend})
    chain = Chain.parse(text).bind(recipe, offline=True)
    clock = asyncio.get_running_loop().time
    waited = Waited([], [], [], [])
    for i in range(records):
        begun = clock()
        backend.whole_at.clear()
        heard = Heard()
        drafts = Drafts(heard.draft) if heard_early else None
        runtime = Runtime(client, on_delta=heard.answer, drafts=drafts)
        record: Any = {"id": str(i), "messages": [{"role": "user", "content": f"question {i}"}]}
        made = await chain(record, runtime)
        whole = clock()
        if made.get("answer") is None:
            raise RuntimeError(made.get("error"))
        waited.first.append(heard.at["answer"] - begun)
        waited.draft.append(min(heard.at.values()) - begun)
        waited.whole.append(whole - begun)
        ends = sorted(at for name, at in backend.whole_at.items() if name[0] == "m")
        judged_s = backend.whole_at.get("judge", ends[-1]) - ends[-1]
        waited.early.append(max(ends[-2] + judged_s, ends[-1]) - ends[-1] - judged_s)
        waited.responses += sum("content" in response for response in made["panel"])
    waited.calls = backend.calls
    await client.aclose()
    return waited


def at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    for panel, habits in HABITS.items():
        print(f"\n{panel}, {records:,} questions; seconds at p50 / p99:\n")
        print("| way | something to read | first token of the answer | whole answer | responses | calls |")
        print("|---|---|---|---|---|---|")
        for way, (text, limits, heard) in WAYS.items():
            waited: Waited = leaping.run(wait(habits, text, limits, records, heard_early=heard))
            cells = [
                f"{at(each, 0.5):.1f} / {at(each, 0.99):.1f}" for each in (waited.draft, waited.first, waited.whole)
            ]
            print(f"| {way} | {' | '.join(cells)} | {waited.responses / records:.2f} | {waited.calls / records:.2f} |")
            if way == "wait for all":
                early = [
                    [f + e for f, e in zip(series, waited.early, strict=True)]
                    for series in (waited.first, waited.whole)
                ]
                cells = [f"{at(each, 0.5):.1f} / {at(each, 0.99):.1f}" for each in (early[0], *early)]
                print(f"| judged while the last one writes (by calculation) | {' | '.join(cells)} | 4.00 | 6.00 |")


if __name__ == "__main__":
    main()
