"""Which options hold for a record, how many calls they may come to, and what is remembered of them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from samples import question
from scripted import model

from fusiontools.config.chain_syntax import parse
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.config.resolve import Resolver, count_panel_calls, merge
from fusiontools.config.stage_table import FewShot, JudgeOptions, PanelOptions
from fusiontools.errors import InputError, UsageError

CHOSEN = Recipe("chosen", stages={"panel": PanelOptions((model("c"),), temperature=0.2)})
MEMBER = {"name": "r", "model": "r", "endpoint": "openrouter"}


def carrying(**sections: Any) -> Any:
    return question(recipe=sections)


def panel_of(record: Any, resolver: Resolver, **typed: Any) -> Any:
    return resolver.options_for("panel", typed)(record)


# What holds


@pytest.mark.parametrize(
    ("typed", "resolver", "record", "temperature"),
    [
        ({"temperature": 0.1}, Resolver(CHOSEN, binding=True), carrying(panel={"temperature": 0.3}), 0.1),
        ({}, Resolver(CHOSEN, binding=True), carrying(panel={"temperature": 0.3}), 0.2),
        ({}, Resolver(CHOSEN), carrying(panel={"temperature": 0.3}), 0.3),
        ({}, Resolver(CHOSEN), question(), 0.2),
        ({}, Resolver(None), carrying(panel={"temperature": 0.3}), 0.3),
        ({}, Resolver(None), question(), load_recipe("local").panel.temperature),
    ],
    ids=["typed", "named with -c", "the record's", "of the environment", "the record's alone", "the default"],
)
def test_what_is_said_nearer_to_the_call_wins(
    typed: dict[str, Any], resolver: Resolver, record: Any, temperature: float
) -> None:
    assert panel_of(record, resolver, **typed).temperature == temperature


def test_a_router_never_heeds_a_record() -> None:
    options_for = Resolver(None, offline=True).options_for("route", {})

    assert options_for(carrying(route={"command": "rm -rf /", "method": "command"})) == load_recipe("local").route


def test_a_record_keeps_the_panel_as_it_was_and_the_rest_of_its_recipe() -> None:
    options_for = Resolver(CHOSEN).options_for("panel", {"samples": 2})
    record = carrying(name="theirs", panel={"members": [MEMBER]}, synth={"method": "copy"}, mood="calm")

    assert options_for.recipe_of(record) == {
        "name": "theirs",
        "panel": {"members": [MEMBER], "samples": 2},
        "synth": {"method": "copy"},
        "mood": "calm",
    }


def test_a_stage_without_a_word_in_a_record_has_its_defaults_where_only_words_are_kept() -> None:
    recipe = Recipe("mine", stages={"judge": JudgeOptions((model("j"),), method="lexical")})

    vote = Resolver(recipe).options_for("vote", {})(carrying(panel={"members": [MEMBER]}))
    judge = Resolver(recipe).options_for("judge", {})(carrying(panel={"members": [MEMBER]}))

    assert vote == Recipe("r").vote
    assert judge == recipe.judge


def test_typed_options_win_over_what_worked_turns_would_set() -> None:
    panel = PanelOptions(few_shot=FewShot((("q", "a"),), samples=5, temperature=0.1, max_tokens=3))

    typed = merge("panel", panel, {"samples": 2, "max_tokens": 50})

    assert typed == PanelOptions(
        samples=2, max_tokens=50, few_shot=FewShot((("q", "a"),), samples=None, temperature=0.1, max_tokens=None)
    )


# Remembered


def test_records_with_equal_recipes_share_their_options() -> None:
    options_for = Resolver(None).options_for("panel", {})

    one, other, different = (options_for(carrying(panel={"system": system})) for system in ("x", "x", "y"))

    assert one is other
    assert different.system == "y"


@pytest.mark.slow
def test_memory_does_not_grow_with_recipes_that_differ() -> None:
    options_for = Resolver(None).options_for("panel", {})

    def resolve(first: int, last: int) -> int:
        for number in range(first, last):
            record = carrying(panel={"members": [MEMBER], "system": f"{number}" * 200})
            options_for(record)
            options_for.recipe_of(record)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before, after = resolve(0, 600), resolve(600, 2400)
    finally:
        tracemalloc.stop()

    assert after - before < 500_000


# Calls


@pytest.mark.parametrize(
    "section",
    [
        {"panel": {"members": [MEMBER], "samples": 3000}},
        {"panel": {"members": [MEMBER], "few_shot": {"turns": [["q", "a"]], "samples": 3000}}},
        {"panel": {"members": [MEMBER], "baselines": [{**MEMBER, "samples": 3000}]}},
        {"judge": {"models": [{**MEMBER, "name": str(i)} for i in range(1001)]}},
    ],
    ids=["samples", "worked turns", "baselines", "judges"],
)
def test_the_recipe_in_a_record_buys_no_thousands_of_calls_however_it_says_so(section: dict[str, Any]) -> None:
    [name] = section

    with pytest.raises(InputError, match=r"it asks for [0-9,]+ calls, more than 1,000; choose a recipe with -c"):
        Resolver(None).options_for(name, {})(carrying(**section))


def test_ten_thousand_calls_for_one_record_are_the_most_that_anybody_may_ask() -> None:
    worked = PanelOptions((model("a", samples=2),), few_shot=FewShot((("q", "a"),), samples=9999))

    with pytest.raises(UsageError, match=r"the panel asks for 19,998 calls for one record, more than 10,000"):
        Resolver(Recipe("r", stages={"panel": worked}), binding=True).check("panel", {})


@pytest.mark.parametrize(
    ("chain", "calls"),
    [
        ("panel | synth", 2),
        ("panel --samples 3 | synth", 6),
        ("panel -m x*4 -m y | synth", 5),
        ("panel --baseline x*7 | synth", 9),
        ("panel | panel --revise | panel --debate | synth", 6),
        ("panel -m x*4 | panel --revise | synth", 8),
        ("panel | panel --revise -m x*5 | panel --revise | synth", 12),
        ("panel -m x*7 -m y | panel --sequential --window 3 | panel --revise | vote", 8 + 2 * 4 + 8),
        ("panel | judge | pick", 2),
    ],
)
def test_the_calls_of_all_panels_of_a_chain_are_counted(chain: str, calls: int) -> None:
    recipe = Recipe("r", stages={"panel": PanelOptions((model("a"), model("b")))})

    assert count_panel_calls(parse(chain), recipe) == calls
