"""Recipes and endpoints: what may stand in them, what the environment changes, and where a key may go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import stage_schemas
import yaml
from workdir import Run, Upstream

from fusiontools.config import recipe_yaml
from fusiontools.config.models import ENDPOINTS, Endpoint, Model, environment_endpoints, merge_members, require_key
from fusiontools.config.recipe import Recipe, from_summary, parse_model, summary
from fusiontools.config.recipe_yaml import build_recipe, default_choice, load_recipe, recipe_names
from fusiontools.config.resolve import merge
from fusiontools.config.stage_table import (
    RUN_GROUPS,
    STAGES,
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
from fusiontools.llm.client import Client
from fusiontools.llm.http import HttpBackend
from fusiontools.record import jsonl, schemas

KEYS = ("FUSION_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY")
SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, "FUSION_BASE_URL", "FUSION_CONFIG", "FUSION_LOCAL_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def build(text: str) -> Recipe:
    return build_recipe(yaml.safe_load(text), "mine.yaml", "mine")


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as refused:
        build(text)
    return refused.value.message


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


# One declaration


@pytest.mark.parametrize("name", sorted(stage_schemas.MADE))
def test_the_schemas_say_of_stages_what_the_code_says(name: str) -> None:
    schema = schemas.load(name)

    assert schema == stage_schemas.MADE[name](schema), "run `make schemas`"


def test_the_schema_has_exactly_the_settings_of_models_endpoints_and_recipes() -> None:
    schema = schemas.load("recipe")

    assert set(schema["$defs"]["model"]["properties"]) == {f.name for f in fields(Model)}
    assert set(schema["$defs"]["endpoint"]["properties"]) == {f.name for f in fields(Endpoint)} - {"name"}
    ours = {f.name for f in fields(Recipe)} - {"aliases", "stages"}
    assert set(schema["properties"]) == ours | {"models"} | STAGES.keys()


@pytest.mark.parametrize("group", [*(spec.options for spec in STAGES.values()), *RUN_GROUPS])
def test_every_option_has_a_default(group: type) -> None:
    assert all(field.default is not MISSING for field in fields(group))


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
        judge: {models: [m], swap: true, template: creative, temperature: 0.5, max_tokens: 11}
        synth: {model: m, method: auto, top: 2, refine: true, guard: true, guard_models: [m], template: creative,
                temperature: 0.6, max_tokens: 12, extra: {top_k: 4}}
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
            "judge": JudgeOptions((m,), swap=True, template="creative", temperature=0.5, max_tokens=11),
            "synth": SynthOptions((m,), "auto", 2, True, True, (m,), "creative", 0.6, 12, {"top_k": 4}),
            "vote": VoteOptions("number", {"m": 2}),
            "pick": PickOptions((m,), True, False, "creative", 0.7, 13),
        },
        limits=LimitOptions(1, 2, 0, 0, 1, 0, 3),
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
        ("zzz", "no recipe is called 'zzz'; known: budget"),
        ("./none.yaml", "./none.yaml: no such recipe file; shipped recipes: budget"),
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


# How a model is spelled


def test_an_asterisk_counts_and_a_colon_does_not() -> None:
    recipe = Recipe("r")

    assert parse_model("a/b*3", recipe) == Model("a/b", "a/b", "openrouter", samples=3)
    assert parse_model("x/y:free", recipe) == Model("x/y:free", "x/y:free", "openrouter")
    assert parse_model("llama3:8b@ollama", recipe) == Model("llama3:8b", "llama3:8b", "ollama")
    assert parse_model("llama3:8b*2@ollama", recipe) == Model("llama3:8b", "llama3:8b", "ollama", samples=2)
    assert parse_model("llama3:8b@ollama*2", recipe) == Model("llama3:8b", "llama3:8b", "ollama", samples=2)


def test_an_at_sign_before_no_endpoint_belongs_to_the_name() -> None:
    assert parse_model("@cf/meta/llama", Recipe("r")).model == "@cf/meta/llama"
    assert parse_model("claude@20240229", Recipe("r")).model == "claude@20240229"


def test_a_word_after_an_at_sign_that_is_no_endpoint_is_a_typing_error() -> None:
    with pytest.raises(UsageError, match="no endpoint is called 'olama'; did you mean 'ollama'"):
        parse_model("llama3:8b@olama", Recipe("r"))


@pytest.mark.parametrize("text", ["", "  ", "@ollama", "*3", "a/b*0", "*3@ollama"])
def test_a_model_without_a_name_or_a_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write MODEL, MODEL\*3 or MODEL@ENDPOINT"):
        parse_model(text, Recipe("r"))


@pytest.mark.parametrize("text", ["a/b", "a/b*3", "llama3:8b@ollama", "llama3:8b*2@ollama", "x/y:free"])
def test_a_recipe_spells_a_model_as_the_command_line_does(text: str) -> None:
    assert build(f"panel: ['{text}']").panel.members == (parse_model(text, Recipe("r")),)


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


def test_a_model_named_twice_is_asked_twice() -> None:
    models = tuple(parse_model(text, Recipe("r")) for text in ("a/b", "c/d", "a/b*2"))

    assert [(m.name, m.samples) for m in merge_members(models)] == [("a/b", 3), ("c/d", 1)]


def test_a_recipe_of_the_embedded_engine_runs_no_other_model_unasked() -> None:
    recipe = load_recipe("local")

    with pytest.raises(UsageError, match="say where: gpt@openrouter"):
        parse_model("gpt", recipe)
    assert parse_model("gpt@openai", recipe).endpoint == "openai"


def test_typed_options_win_over_what_worked_turns_would_set() -> None:
    panel = PanelOptions(few_shot=FewShot((("q", "a"),), samples=5, temperature=0.1, max_tokens=3))

    typed = merge("panel", panel, {"samples": 2, "max_tokens": 50})

    assert typed == PanelOptions(
        samples=2, max_tokens=50, few_shot=FewShot((("q", "a"),), samples=None, temperature=0.1, max_tokens=None)
    )


# What a record keeps


@pytest.mark.parametrize("name", recipe_names())
def test_the_summary_in_a_record_gives_every_later_stage_back(name: str) -> None:
    recipe = load_recipe(name)

    kept = jsonl.loads(jsonl.dumps(summary(recipe)))

    assert kept.keys() <= {"name", "panel", "judge", "synth", "vote", "pick"}
    assert from_summary(PanelOptions, kept["panel"]) == recipe.panel
    assert from_summary(JudgeOptions, kept["judge"]) == recipe.judge
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


# The environment


def keys_of(endpoints: Any) -> dict[str, str | None]:
    return {name: endpoint.key() for name, endpoint in endpoints.items()}


@pytest.fixture
def all_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Every key set, to its own name in lower case."""
    for name in KEYS:
        monkeypatch.setenv(name, name.lower())
    return monkeypatch


def test_without_an_address_the_general_key_stands_in_for_openrouters(all_keys: pytest.MonkeyPatch) -> None:
    keys = keys_of(environment_endpoints(ENDPOINTS))

    assert keys == {**dict.fromkeys(ENDPOINTS), "openrouter": "fusion_api_key", "openai": "openai_api_key"}


def test_each_endpoint_has_its_own_key(all_keys: pytest.MonkeyPatch) -> None:
    all_keys.delenv("FUSION_API_KEY")

    keys = keys_of(environment_endpoints(ENDPOINTS))

    assert (keys["openrouter"], keys["openai"]) == ("openrouter_api_key", "openai_api_key")


def test_an_address_takes_every_endpoint_but_the_embedded_engine_there(all_keys: pytest.MonkeyPatch) -> None:
    all_keys.setenv("FUSION_BASE_URL", "https://elsewhere.example/v1/")

    changed = environment_endpoints(ENDPOINTS)

    assert {e.base_url for e in changed.values() if not e.embedded} == {"https://elsewhere.example/v1"}
    assert {e.key() for e in changed.values() if not e.embedded} == {"fusion_api_key"}
    assert changed["local"].embedded


def test_a_password_in_the_address_is_refused_and_not_repeated(all_keys: pytest.MonkeyPatch) -> None:
    all_keys.setenv("FUSION_BASE_URL", f"https://me:{SECRET}@elsewhere.example/v1")

    with pytest.raises(UsageError) as refused:
        environment_endpoints(ENDPOINTS)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/v1",
        "https://openrouter.ai.elsewhere.example/api/v1",
        "https://openrouter.ai:8443/api/v1",
        "http://openrouter.ai/api/v1",
        "http://127.0.0.1:8000/v1",
    ],
)
def test_a_key_is_never_sent_where_it_was_not_made_for(all_keys: pytest.MonkeyPatch, url: str) -> None:
    all_keys.delenv("FUSION_API_KEY")
    all_keys.setenv("FUSION_BASE_URL", url)

    assert set(keys_of(environment_endpoints(ENDPOINTS)).values()) == {None}


@pytest.mark.parametrize(
    ("url", "key"),
    [("https://openrouter.ai/api/v1", "openrouter_api_key"), ("https://API.openai.com/v1", "openai_api_key")],
)
def test_an_address_that_has_a_key_of_its_own_gets_it(all_keys: pytest.MonkeyPatch, url: str, key: str) -> None:
    all_keys.delenv("FUSION_API_KEY")
    all_keys.setenv("FUSION_BASE_URL", url)

    assert environment_endpoints(ENDPOINTS)["openai"].key() == key


def test_a_recipe_that_moves_openrouter_does_not_get_its_stand_in_key(all_keys: pytest.MonkeyPatch) -> None:
    recipe = build("endpoints: {openrouter: {base_url: 'https://elsewhere.example/v1'}}")

    assert recipe.endpoints["openrouter"].key() is None


def test_an_empty_variable_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "")

    assert ENDPOINTS["openrouter"].key() is None
    with pytest.raises(UsageError, match="endpoint openrouter needs a key: export OPENROUTER_API_KEY="):
        require_key(ENDPOINTS["openrouter"])


@pytest.mark.parametrize("blank", ["\n", "\r\n", " "])
def test_white_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", f"{SECRET}{blank}")

    assert ENDPOINTS["openrouter"].key() == SECRET


@pytest.mark.parametrize("key", [f"{SECRET}\r{SECRET}", f"{SECRET}é", f"{SECRET}…"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", key)

    with pytest.raises(UsageError, match="OPENROUTER_API_KEY holds characters that no key has") as refused:
        require_key(ENDPOINTS["openrouter"])

    assert SECRET not in refused.value.message


def test_a_server_that_is_taken_elsewhere_is_free_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", "https://openrouter.ai/api/v1")
    assert not environment_endpoints(ENDPOINTS)["ollama"].free

    monkeypatch.setenv("FUSION_BASE_URL", "http://127.0.0.1:11434/v1")
    assert environment_endpoints(ENDPOINTS)["ollama"].free
    assert not environment_endpoints(ENDPOINTS)["openrouter"].free


def test_the_embedded_engine_is_free_whatever_it_is_called() -> None:
    assert build("endpoints: {mine: {path: /models/qwen.gguf}}").endpoints["mine"].free


def test_other_weights_name_the_model_of_the_embedded_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_LOCAL_MODEL", "/models/Qwen3-4B.gguf")

    recipe = load_recipe("local")

    assert recipe.endpoints["local"].path == "/models/Qwen3-4B.gguf"
    assert [(m.name, m.model) for m in recipe.panel.members] == [("Qwen3-4B", "Qwen3-4B")]


def test_no_repr_holds_a_key(all_keys: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        all_keys.setenv(name, SECRET)
    recipe = load_recipe("budget")
    door = Client(recipe.endpoints)
    backend = HttpBackend(recipe.endpoints["openrouter"])

    shown = repr([recipe, door, recipe.endpoints, vars(backend), backend])

    assert recipe.endpoints["openrouter"].key() == SECRET
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("environment", "file", "choice"),
    [
        ({}, False, "local"),
        ({"OPENAI_API_KEY": "k"}, False, "local"),
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


# A .env, through the real tool


def authorization(upstream: Upstream) -> set[str]:
    return {request["headers"]["authorization"] for request in upstream.requests()}


def test_a_dotenv_fills_in_what_the_environment_lacks(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    del env["FUSION_API_KEY"]
    (tmp_path / ".env").write_text("FUSION_API_KEY=from-dotenv\nFUSION_BASE_URL=http://127.0.0.1:9/v1\n")

    result = run("fuse-panel -m fake/a", "Why?")

    assert result.status == 0
    assert authorization(upstream) == {"Bearer from-dotenv"}


def test_the_environment_wins_over_a_dotenv(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FUSION_API_KEY=from-dotenv\n")

    run("fuse-panel -m fake/a", "Why?")

    assert authorization(upstream) == {"Bearer test-key"}
