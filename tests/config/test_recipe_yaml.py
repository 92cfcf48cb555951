"""Recipes as YAML: which are shipped, what may stand in one, which is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import SECRET, build, refusal

from fusiontools.config import recipe_yaml
from fusiontools.config.models import ENDPOINTS, Endpoint, Model
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import default_choice, load_recipe, recipe_names
from fusiontools.config.stage_table import (
    FewShot,
    JudgeOptions,
    LimitOptions,
    PanelOptions,
    PickOptions,
    RouteOptions,
    SynthOptions,
    VoteOptions,
)
from fusiontools.config.templates import template_names
from fusiontools.errors import UsageError

# The shipped recipes


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)

    assert recipe.name == name
    assert recipe.description
    assert recipe.panel.members
    assert {recipe.judge.template, recipe.synth.template} <= set(template_names())


def test_the_recipes_of_the_documentation_are_shipped() -> None:
    assert set(recipe_names()) >= {"budget", "frontier", "quality", "code", "self", "local"}


@pytest.mark.parametrize("name", recipe_names())
def test_a_judge_stands_outside_its_panel(name: str) -> None:
    recipe = load_recipe(name)

    assert not {judge.model for judge in recipe.judge.models} & {member.model for member in recipe.panel.members}


def test_the_recipe_self_asks_one_model_several_times() -> None:
    recipe = load_recipe("self")

    assert len(recipe.panel.members) == 1
    assert recipe.panel.samples > 1


def test_a_shipped_recipe_names_models_of_several_families() -> None:
    for name in ("budget", "frontier", "quality", "code"):
        families = {member.model.partition("/")[0] for member in load_recipe(name).panel.members}
        assert len(families) == len(load_recipe(name).panel.members) >= 3


# What arrives


def test_every_setting_of_a_recipe_arrives_in_its_options() -> None:
    recipe = build("""
        name: all
        description: everything
        endpoint: mine
        endpoints:
          mine: {base_url: "http://h/v1", api_key_env: MY_KEY, free: true, headers: {X-Title: t}, context_tokens: 512}
        models:
          m: {model: a/b, samples: 2, temperature: 0, top_p: 0.9, max_tokens: 7, reasoning_effort: low,
              system: Be brief., extra: {k: 1}, fallbacks: [c/d], price_usd_per_mtok: {prompt: 1, completion: 2}}
        chain: panel | vote
        route: {method: model, model: m, command: "true", fast: m, balanced: m, strong: m, min_chars: 3}
        panel: {members: [m, {model: e/f, name: second}], samples: 3, temperature: 0.1, diversity: false, jitter: 0.2,
                max_tokens: 9, system: Hi., quorum: 1, grace_s: 0, extra: {top_k: 3}, window: 4, scout: 2,
                stop_when_agreed: true, agree: judge, agree_models: [m], template: creative, prompt_cache: true,
                few_shot: {turns: [[q, a]], unless: [why], max_chars: 5}}
        judge: {models: [m], swap: true, claims: true, template: creative, temperature: 0.5, max_tokens: 11}
        synth: {model: m, method: auto, top: 2, min_support: 3, refine: true, guard: true, guard_models: [m],
                template: creative, temperature: 0.6, max_tokens: 12, extra: {top_k: 4}}
        vote: {key: number, weights: {m: 2}}
        pick: {model: m, pairwise: true, consistent: false, template: creative, temperature: 0.7, max_tokens: 13}
        limits: {timeout_s: 1, deadline_s: 2, retries: 0, backoff_s: 0, max_concurrency: 1, max_cost_usd: 0,
                 max_record_cost_usd: 3}
        """)
    m = Model("m", "a/b", "mine", 2, 0, 0.9, 7, "low", "Be brief.", {"k": 1}, ("c/d",), {"prompt": 1, "completion": 2})

    assert recipe == Recipe(
        name="all",
        description="everything",
        chain="panel | vote",
        endpoint="mine",
        aliases={"m": m},
        endpoints={**ENDPOINTS, "mine": Endpoint("mine", "http://h/v1", "MY_KEY", True, {"X-Title": "t"}, None, 512)},
        stages={
            "panel": PanelOptions(
                members=(m, Model("second", "e/f", "mine")),
                samples=3,
                temperature=0.1,
                diversity=False,
                jitter=0.2,
                max_tokens=9,
                system="Hi.",
                quorum=1,
                grace_s=0,
                few_shot=FewShot((("q", "a"),), unless=("why",), max_chars=5),
                extra={"top_k": 3},
                window=4,
                scout=2,
                stop_when_agreed=True,
                agree="judge",
                agree_models=(m,),
                template="creative",
                prompt_cache=True,
            ),
            "route": RouteOptions("model", (m,), "true", m, m, m, 3),
            "judge": JudgeOptions((m,), swap=True, claims=True, template="creative", temperature=0.5, max_tokens=11),
            "synth": SynthOptions((m,), "auto", 2, 3, True, True, (m,), "creative", 0.6, 12, {"top_k": 4}),
            "vote": VoteOptions("number", {"m": 2}),
            "pick": PickOptions((m,), True, False, "creative", 0.7, 13),
        },
        limits=LimitOptions(1, 2, 0, 0, None, 1, 0, 3),
    )


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("panl: [a/b]", "mine.yaml: $: unknown key 'panl'; did you mean 'panel'?"),
        ("panel: {membrs: [a/b]}", "mine.yaml: $.panel: unknown key 'membrs'; did you mean 'members'?"),
        ("judge: {modl: a/b}", "mine.yaml: $.judge: unknown key 'modl'; did you mean 'model'?"),
        ("limits: {time_out_s: 3}", "mine.yaml: $.limits: unknown key 'time_out_s'; did you mean 'timeout_s'?"),
        ("models: {m: {model: a/b, temprature: 1}}", "unknown key 'temprature'; did you mean 'temperature'?"),
        ("panel: [{model: a/b, sample: 1}]", "unknown key 'sample'; did you mean 'samples'?"),
        ("endpoints: {e: {base_uri: 'http://h'}}", "unknown key 'base_uri'; did you mean 'base_url'?"),
        ("zzz: 1", "mine.yaml: $: unknown key 'zzz'; known: name, description, endpoint"),
        ("models: {kimi: a/b}\npanel: [kimmi]", "no model is called 'kimmi' under `models:`; did you mean 'kimi'?"),
        ("endpoint: opnrouter\npanel: [a/b]", "no endpoint is called 'opnrouter'; did you mean 'openrouter'?"),
        ("panel: {samples: 0, members: [a/b]}", "$.panel.samples: 0 is less than the minimum of 1"),
        ("panel: []", "$.panel: [] should be non-empty"),
        ("panel: ['a/b*0']", "mine.yaml: $.panel[0]: 'a/b*0'"),
        ("judge: {model: a/b, models: [c/d]}", "give `model` or `models`, not both"),
        ("synth: {models: [a/b, c/d]}", "$.synth.models: ['a/b', 'c/d'] is too long"),
        ("panel: [{model: a/b}, {model: a/b, temperature: 1}]", "two panel members are called 'a/b' but differ"),
        ("1: x", "mine.yaml: $: the key 1 is not text; put it in quotes"),
        ("on: x", "mine.yaml: $: the key True is not text; put it in quotes"),
        ("panel: {members: [a/b], extra: {1: x}}", "mine.yaml: $.panel.extra: the key 1 is not text"),
        ("description: 2024-01-01", "mine.yaml: $.description: 2024-01-01 is not text; put it in quotes"),
        ("limits: {timeout_s: .inf}", "mine.yaml: $.limits.timeout_s: inf is no number that can be used"),
        ("panel: &loop [*loop]", "mine.yaml: "),
        ("[a, b]", "mine.yaml: a recipe is a mapping of keys"),
        ("", "mine.yaml: a recipe is a mapping of keys"),
    ],
)
def test_a_wrong_recipe_is_refused_by_place_and_cause(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"endpoints: {{e: {{base_url: 'http://h/v1', api_key: {SECRET}}}}}", "$.endpoints.e.api_key"),
        (f"endpoints: {{e: {{base_url: 'http://h/v1', headers: {{Authorization: {SECRET}}}}}}}", "Authorization"),
        (f"endpoints: {{e: {{base_url: 'http://h/v1', headers: {{api-key: {SECRET}}}}}}}", "api-key"),
        (f"endpoints: {{e: {{base_url: 'http://h/v1', headers: {{X-Title: 'Bearer {SECRET}'}}}}}}", "X-Title"),
        (f"endpoints: {{e: {{base_url: 'https://user:{SECRET}@h/v1'}}}}", "$.endpoints.e.base_url"),
        (f"endpoints: {{e: {{base_url: 'http://h/v1', api_key_env: {SECRET}}}}}", "$.endpoints.e.api_key_env"),
        (f"panel: [{{model: a/b, extra: {{token: {SECRET}}}}}]", "$.panel[0].extra.token"),
        (f"api_key: {SECRET}", "$.api_key"),
        (f"panel: [sk-{SECRET}]", "$.panel[0]"),
    ],
)
def test_a_key_in_a_recipe_is_refused_and_not_shown(text: str, place: str) -> None:
    message = refusal(text)

    assert "a key must not stand in a recipe" in message
    assert place in message
    assert SECRET not in message


def test_settings_that_only_look_like_keys_are_accepted() -> None:
    recipe = build("panel: {members: [{model: a/b, max_tokens: 5}], system: 'Tokens: use the API key sparingly.'}")

    assert recipe.panel.members[0].max_tokens == 5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("budgt", "no recipe is called 'budgt'; did you mean 'budget'?"),
        ("zzz", "no recipe is called 'zzz'; known: anthropic, budget"),
        ("./none.yaml", "./none.yaml: no such recipe file; known by name: anthropic, budget"),
        ("../configs/budget", "../configs/budget: no such recipe file"),
    ],
)
def test_a_recipe_that_is_not_there_is_named(choice: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_recipe(choice)

    assert refused.value.message.startswith(message)


@pytest.mark.parametrize("content", [b"panel: [", b"panel: \xff", b"a: b: c", b"\x00"])
def test_what_is_no_yaml_is_refused_in_one_line(content: bytes) -> None:
    Path("mine.yaml").write_bytes(content)

    with pytest.raises(UsageError, match=r"^mine.yaml: not YAML: ") as refused:
        load_recipe("mine.yaml")

    assert "\n" not in refused.value.message


# Which one is taken


@pytest.mark.parametrize(
    ("environment", "file", "choice"),
    [
        ({}, False, "local"),
        ({"OPENAI_API_KEY": "k"}, False, "openai"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": ""}, False, "anthropic"),
        ({"GEMINI_API_KEY": "k"}, False, "gemini"),
        ({"GEMINI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, False, "anthropic"),
        ({"OPENAI_API_KEY": "k", "OPENROUTER_API_KEY": "k"}, False, "budget"),
        ({"MISTRAL_API_KEY": "k"}, False, "local"),
        ({"OPENROUTER_API_KEY": "k"}, False, "budget"),
        ({"FUSION_API_KEY": "k"}, False, "budget"),
        ({"FUSION_BASE_URL": "http://h/v1"}, False, "budget"),
        ({"FUSION_BASE_URL": ""}, False, "local"),
        ({"OPENROUTER_API_KEY": "k"}, True, "./fusion.yaml"),
        ({"FUSION_CONFIG": "code", "OPENROUTER_API_KEY": "k"}, True, "code"),
    ],
)
def test_the_recipe_is_chosen_by_the_environment_then_the_directory_then_the_keys(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], file: bool, choice: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if file:
        Path("fusion.yaml").write_text("panel: [a/b]\n")

    assert default_choice() == choice
    assert load_recipe().name == choice.removeprefix("./").removesuffix(".yaml")
    assert recipe_yaml.chosen_by_person() == (file or "FUSION_CONFIG" in environment)


def test_a_shipped_name_wins_over_a_file_of_that_name() -> None:
    Path("budget").write_text("panel: [a/b]\n")

    assert load_recipe("budget").panel.members[0].model != "a/b"
    assert load_recipe("./budget").panel.members[0].model == "a/b"


def test_a_recipe_of_ones_own_is_found_by_name_and_wins_over_a_shipped_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "fusiontools" / "recipes"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("panel: [a/b]\n")
    (folder / "budget.yaml").write_text("panel: [c/d]\n")

    assert recipe_yaml.own_recipe_names() == ["budget", "mine"]
    assert load_recipe("mine").panel.members[0].model == "a/b"
    assert load_recipe("budget").panel.members[0].model == "c/d"
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        load_recipe("mien")


def test_a_scalar_of_a_recipe_is_the_text_that_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: 010\ndescription: 2024-05-01\npanel: {members: [a/b], system: 12:30, temperature: 0.50}\n")

    recipe = load_recipe(str(path))

    assert (recipe.name, recipe.description, recipe.panel.system) == ("010", "2024-05-01", "12:30")
    assert recipe.panel.temperature == 0.5
