"""What a chain would cost, and what the ledgers of many records come to."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from samples import ASKED, ledger_call
from scripted import Scripted

from fusiontools.config.models import Model
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import load_recipe, recipe_names
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, SynthOptions
from fusiontools.llm.client import Client
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.dry_run import DryRun
from fusiontools.record.types import Call, Record
from fusiontools.runs.chain import Chain, chain_of, compose
from fusiontools.runs.costs import Costs, estimate_calls
from fusiontools.stages.runtime import Runtime


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FUSION_API_KEY", "FUSION_BASE_URL", "FUSION_CONFIG", "FUSION_LOCAL_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_memory_grows_with_groups_and_not_with_records() -> None:
    chain = Costs(["stage"])
    for i in range(1000):
        chain.add({"id": str(i), "messages": [], "calls": [ledger_call()]})  # type: ignore[list-item]

    assert (len(chain.rows), chain.records, chain.total.cost_usd) == (1, 1000, 250.0)


def test_the_embedded_recipe_happens_as_foreseen_and_costs_nothing() -> None:
    recipe = load_recipe("local")
    backend = Scripted(**{"smollm2-135m": "It is so because of many things that nobody knows. " * 10})

    async def work() -> Record:
        door = Client(recipe.endpoints, recipe.limits, backends={"local": backend})
        return await compose(chain_of(recipe))(ASKED, Runtime(door))

    foreseen, executed = estimate(recipe, ASKED, 800), asyncio.run(work())["calls"]

    assert [(c["stage"], c["model"]) for c in foreseen] == [(c["stage"], c["model"]) for c in executed]
    assert [c["cost_usd"] for c in foreseen] == [0.0] * len(foreseen)


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("How many days does a week have?", "It is {}."),
        ("Explain why there are tides.", "It is so because of {} things that nobody knows. It is. And so on. " * 9),
    ],
    ids=["short", "long"],
)
# Of one with tools the most is foreseen.
@pytest.mark.parametrize("name", [name for name in recipe_names() if not load_recipe(name).panel.tools])
def test_as_many_calls_are_foreseen_as_are_made(name: str, question: str, reply: str) -> None:
    recipe = load_recipe(name)
    record: Any = {"id": "1", "messages": [{"role": "user", "content": question}]}
    asked = itertools.count()

    class Imagined(DryRun):
        """Says what a judge would; what a member says differs from what the others say."""

        def _reply(self, request: CompletionRequest, tokens: int) -> str:
            said = super()._reply(request, tokens)
            return said if said.startswith("{") else reply.replace("{}", f"a{next(asked)}b")

    async def work() -> Record:
        backends = dict.fromkeys(recipe.endpoints, Imagined(800))
        return await chain_of(recipe)(record, Runtime(Client(recipe.endpoints, recipe.limits, backends=backends)))

    foreseen, executed = estimate(recipe, record, 800), asyncio.run(work())["calls"]

    assert [(c["stage"], c["model"]) for c in foreseen] == [(c["stage"], c["model"]) for c in executed]


def estimate(recipe: Recipe, record: Any, tokens: int) -> list[Call]:
    return asyncio.run(estimate_calls(recipe, Chain.parse(recipe.chain), record, tokens))


def priced(name: str, **settings: Any) -> Model:
    return Model(name, name, "openrouter", price_usd_per_mtok={"prompt": 1.0, "completion": 10.0}, **settings)


def test_an_estimate_is_prompt_and_answer_at_the_listed_price() -> None:
    recipe = Recipe("r", stages={"panel": PanelOptions(members=(priced("m"),))})

    [foreseen] = estimate(recipe, {"id": "1", "messages": [{"role": "user", "content": "x" * 35}]}, 100)

    assert foreseen["usage"]["prompt_tokens"] == 14
    assert foreseen["cost_usd"] == pytest.approx((14 * 1.0 + 100 * 10.0) / 1e6)


def test_tries_after_a_check_are_foreseen_and_no_check_is_run(tmp_path: Path) -> None:
    recipe = Recipe("r", stages={"panel": PanelOptions((priced("a"), priced("b")))})
    steps = Chain.parse(f"panel | pick --check 'touch {tmp_path}/run' --check-retry 2")

    most = asyncio.run(estimate_calls(recipe, steps, ASKED, 100))
    least = asyncio.run(estimate_calls(recipe, steps, ASKED, 100, agreed=True))

    assert [call["stage"] for call in most] == ["panel"] * 2 + ["pick"] * 4
    assert [call["stage"] for call in least] == ["panel"] * 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "recipe", "tokens"),
    [
        ("panel", Recipe("r", stages={"panel": PanelOptions(members=(priced("m", samples=2),), max_tokens=7)}), 7),
        ("judge", Recipe("r", stages={"judge": JudgeOptions((priced("m"),), max_tokens=7)}), 7),
        ("judge", Recipe("r", stages={"judge": JudgeOptions((priced("m", max_tokens=6),), max_tokens=7)}), 6),
        ("judge", Recipe("r", stages={"judge": JudgeOptions((priced("m", max_tokens=9999),))}), 800),
        ("synth", Recipe("r", stages={"synth": SynthOptions((priced("m"),), max_tokens=7)}), 7),
        ("synth", Recipe("r", stages={"synth": SynthOptions((priced("m", max_tokens=6),), max_tokens=7)}), 6),
    ],
)
def test_a_limit_of_tokens_bounds_the_estimate(stage: str, recipe: Recipe, tokens: int) -> None:
    members = recipe.panel.members or (priced("a"), priced("b"))
    panel = PanelOptions(members, max_tokens=recipe.panel.max_tokens)
    whole = replace(recipe, stages={**recipe.stages, "panel": panel})

    foreseen = [c for c in estimate(whole, ASKED, 800) if c["stage"] == stage]

    assert {c["usage"]["completion_tokens"] for c in foreseen} == {tokens}


def test_the_askers_own_limit_bounds_the_answer() -> None:
    panel, synth = PanelOptions((priced("a"), priced("b"))), SynthOptions((priced("m", max_tokens=6),))
    recipe = Recipe("r", stages={"panel": panel, "synth": synth})

    foreseen = estimate(recipe, {**ASKED, "params": {"max_tokens": 5}}, 800)

    assert [(c["stage"], c["usage"]["completion_tokens"]) for c in foreseen] == [
        ("panel", 800),
        ("panel", 800),
        ("synth", 5),
    ]


def test_a_record_that_has_failed_will_cost_nothing_more() -> None:
    failed: Any = {**ASKED, "error": {"stage": "panel", "code": "all_failed", "message": "x"}}

    assert estimate(load_recipe("budget"), failed, 800) == []


def test_one_member_alone_needs_neither_judge_nor_synthesizer() -> None:
    panel, judge, synth = PanelOptions((priced("a"),)), JudgeOptions((priced("j"),)), SynthOptions((priced("s"),))
    recipe = Recipe("r", stages={"panel": panel, "judge": judge, "synth": synth})

    assert [c["stage"] for c in estimate(recipe, ASKED, 800)] == ["panel"]
