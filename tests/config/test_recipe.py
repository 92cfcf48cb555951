"""Recipes: one declaration of every option, models by their aliases, and what a record keeps."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest
import stage_schemas
from recipes import SECRET, build

from fusiontools.config.models import Endpoint, Model
from fusiontools.config.recipe import Recipe, from_summary, parse_model, summary
from fusiontools.config.recipe_yaml import load_recipe, recipe_names
from fusiontools.config.stage_table import (
    RUN_GROUPS,
    STAGES,
    JudgeOptions,
    PanelOptions,
    PickOptions,
    SynthOptions,
    VoteOptions,
)
from fusiontools.config.tool_options import McpServer, ToolOptions
from fusiontools.errors import UsageError
from fusiontools.record import jsonl, schemas

# One declaration


@pytest.mark.parametrize("name", sorted(stage_schemas.MADE))
def test_the_schemas_say_of_stages_what_the_code_says(name: str) -> None:
    schema = schemas.load(name)

    assert schema == stage_schemas.MADE[name](schema), "run `make schemas`"


def test_the_schema_has_exactly_the_settings_of_models_endpoints_and_recipes() -> None:
    schema = schemas.load("recipe")

    assert set(schema["$defs"]["model"]["properties"]) == set(Model.__struct_fields__)
    assert set(schema["$defs"]["endpoint"]["properties"]) == set(Endpoint.__struct_fields__) - {"name", "embedded"}
    ours = set(Recipe.__struct_fields__) - {"aliases", "stages", "tools"}
    tools = {f.name for f in fields(ToolOptions)} - {"unsafe_shell", "language", "region", "results"}
    assert set(schema["properties"]) == ours | tools | {"models"} | STAGES.keys()
    assert set(schema["$defs"]["mcp_server"]["properties"]) == {f.name for f in fields(McpServer)} - {"name"}


@pytest.mark.parametrize("group", [*(spec.options for spec in STAGES.values()), *RUN_GROUPS])
def test_every_option_has_a_default(group: type) -> None:
    assert all(field.default is not MISSING or field.default_factory is not MISSING for field in fields(group))


# Models


def test_an_alias_keeps_its_settings() -> None:
    recipe = build("models: {m: {model: a/b, samples: 2, temperature: 0.1}}\npanel: [m]")
    alias = Model("m", "a/b", "openrouter", samples=2, temperature=0.1)

    assert recipe.panel.members == (alias,)
    assert parse_model("m", recipe) == alias
    assert parse_model("m*5", recipe).samples == 5
    assert parse_model("c/d", recipe) == Model("c/d", "c/d", "openrouter")


def test_a_count_in_a_recipe_goes_with_an_alias_too() -> None:
    recipe = build("models: {m: a/b}\npanel: ['m*3', 'c/d*2']")

    assert [(m.name, m.samples) for m in recipe.panel.members] == [("m", 3), ("c/d", 2)]


def test_a_recipe_of_the_embedded_engine_runs_no_other_model_unasked() -> None:
    recipe = load_recipe("local")

    with pytest.raises(UsageError, match="say where: gpt@openrouter"):
        parse_model("gpt", recipe)
    assert parse_model("gpt@openai", recipe).endpoint == "openai"


# What a record keeps


@pytest.mark.parametrize("name", recipe_names())
def test_the_summary_in_a_record_gives_every_later_stage_back(name: str) -> None:
    recipe = load_recipe(name)

    kept = jsonl.loads(jsonl.dumps(summary(recipe)))

    assert kept.keys() <= {"name", "endpoint", "panel", "judge", "synth", "vote", "pick"}
    # What a record keeps turns no tool on.
    assert from_summary(PanelOptions, kept["panel"]) == recipe.panel.replace(tools=())
    assert from_summary(JudgeOptions, kept["judge"]) == recipe.judge.replace(tools=())
    assert from_summary(SynthOptions, kept["synth"]) == recipe.synth
    assert from_summary(VoteOptions, kept.get("vote", {})) == recipe.vote
    assert from_summary(PickOptions, kept.get("pick", {})) == recipe.pick


def test_the_summary_keeps_what_else_a_model_is_sent() -> None:
    recipe = build("judge: {model: {model: a/b, extra: {top_k: 3}}}")

    assert from_summary(JudgeOptions, summary(recipe)["judge"]) == recipe.judge


def test_the_summary_keeps_every_setting_also_where_it_is_zero() -> None:
    model = "{model: a/b, name: m, temperature: 0, top_p: 0, max_tokens: 7, system: '', fallbacks: [c/d]}"
    recipe = build(f"judge: {{models: [{model}], temperature: 0.2}}\nsynth: {{model: {model}, temperature: 0}}")

    kept = summary(recipe)

    assert from_summary(JudgeOptions, kept["judge"]) == recipe.judge
    assert from_summary(SynthOptions, kept["synth"]) == recipe.synth


def test_the_summary_holds_no_url_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_API_KEY", SECRET)
    monkeypatch.setenv("FUSION_BASE_URL", "https://elsewhere.example/v1")

    kept = repr(summary(load_recipe("budget")))

    assert SECRET not in kept
    assert "elsewhere" not in kept


def test_a_summary_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    kept = {"models": [{"name": "m", "model": "m", "endpoint": "e", "mood": "calm"}], "style": "x", "temperature": 0.2}

    assert from_summary(JudgeOptions, kept) == JudgeOptions((Model("m", "m", "e"),), temperature=0.2)
