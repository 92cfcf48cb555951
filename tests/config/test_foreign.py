"""Files of fusionHarness, openfusion and Fusion Engine: what is said of them, and the recipes that they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import imported_recipe, load_recipe
from fusiontools.errors import UsageError

HARNESS = """\
name: fusion
panel:
  - anthropic/claude-opus-4.8
  - openai/gpt-5.5
  - model: deepseek/deepseek-v4-pro
    temperature: 0.3
    tools: [web_search]
judge: openai/gpt-5.5
synthesizer: anthropic/claude-opus-4.8
temperature: 0.6
max_tokens: 4096
tools_enabled: false
refine: true
layers: 2
samples: 2
diversity_jitter: 0.1
max_retries: 4
max_concurrency: 0
"""
OPENFUSION = """\
strategy: debate
aggregator: judge
debate: {rounds: 2}
panel:
  - {base_url: https://openrouter.ai/api/v1, api_key: "${OPENROUTER_API_KEY}", model: a/one, label: first}
  - {base_url: http://10.0.0.7:8000/v1, api_key: "sk-proj-very-secret", model: two}
  - {base_url: https://api.anthropic.com/v1, api_key: "${ANTHROPIC_API_KEY}", model: claude-three, provider: anthropic}
judge: {base_url: https://openrouter.ai/api/v1, api_key: "${OPENROUTER_API_KEY}", model: a/judge}
router: {enabled: true, mode: heuristic, min_chars: 300, route_models: [{model: a/cheap, tier: fast}]}
timeouts: {member_seconds: 90, total_seconds: 200}
cost_controls: {panel_max_tokens: 1000, judge_max_tokens: 2000}
response_cache: {enabled: true}
gateway: {api_keys: []}
"""
ENGINE = json.dumps(
    {
        "schema_version": 1,
        "name": "quality",
        "description": "Frontier models.",
        "models": [{"slug": "a/one", "role": "panelist", "max_tokens": 8192}, "a/two"],
        "judge_model": "a/judge",
        "judge_template": "deep_research",
        "estimated_cost_per_query": {"min": 0.5, "max": 1.0},
    }
)


def imported(text: str) -> tuple[str, Recipe]:
    """Return what an import prints, and the recipe that this is."""
    Path("theirs.yaml").write_text(text)
    printed = imported_recipe("theirs.yaml")
    Path("mine.yaml").write_text(printed)
    return printed, load_recipe("mine.yaml")


def test_a_file_of_fusion_harness_is_a_recipe() -> None:
    printed, recipe = imported(HARNESS)

    assert [m.model for m in recipe.panel.members][-1] == "deepseek/deepseek-v4-pro"
    assert recipe.panel.members[-1].temperature == 0.3
    assert (recipe.panel.temperature, recipe.panel.jitter, recipe.panel.samples) == (0.6, 0.1, 2)
    assert recipe.chain == "panel | panel --revise | judge | synth"
    assert recipe.synth.refine
    assert recipe.synth.models[0].model == "anthropic/claude-opus-4.8"
    assert recipe.limits.retries == 4
    assert "# Not taken over: the tools of deepseek/deepseek-v4-pro." in printed


def test_a_file_of_openfusion_is_a_recipe_without_its_keys() -> None:
    printed, recipe = imported(OPENFUSION)

    assert [(m.name, m.endpoint) for m in recipe.panel.members] == [
        ("first", "openrouter"), ("two", "10-0-0-7"), ("claude-three", "anthropic"),
    ]  # fmt: skip
    assert recipe.endpoints["10-0-0-7"].api_key_env == "10_0_0_7_API_KEY" or "_API_KEY" in printed
    assert "very-secret" not in printed
    assert recipe.chain == "route | panel | panel --debate | panel --debate | judge | synth"
    assert recipe.route.fast is not None
    assert recipe.route.min_chars == 300
    assert (recipe.limits.timeout_s, recipe.limits.deadline_s) == (90, 200)
    assert (recipe.panel.max_tokens, recipe.synth.max_tokens) == (1000, 2000)
    assert "# Not taken over: response_cache: fuse-serve --cache" in printed


@pytest.mark.parametrize(
    ("said", "chain", "samples"),
    [
        ("strategy: panel\naggregator: vote\n", "panel | vote", 1),
        ("strategy: panel\naggregator: ranked\n", "panel | judge | pick", 1),
        ("self_fusion: {n: 4, temperature_spread: [0.2, 1.0]}\n", "panel | judge | synth", 4),
    ],
)
def test_the_strategies_of_openfusion_are_chains(said: str, chain: str, samples: int) -> None:
    model = '{base_url: https://openrouter.ai/api/v1, api_key: "${K}", model: a/one}'
    _, recipe = imported(f"{said}panel: [{model}]\njudge: {model}\n")

    assert (recipe.chain, recipe.panel.samples) == (chain, samples)


def test_a_preset_of_openfusion_is_the_panel_of_that_name() -> None:
    _, recipe = imported("preset: budget\n")

    assert recipe.panel.members == load_recipe("budget").panel.members


def test_a_panel_of_fusion_engine_is_a_recipe() -> None:
    printed, recipe = imported(ENGINE)

    assert (recipe.name, recipe.description) == ("quality", "Frontier models.")
    assert [(m.model, m.max_tokens) for m in recipe.panel.members] == [("a/one", 8192), ("a/two", None)]
    assert recipe.judge.template == recipe.synth.template == "deep_research"
    assert "fuse-cost --estimate" in printed


@pytest.mark.parametrize(
    ("text", "program", "pair"),
    [
        (HARNESS, "fusionHarness", "synthesizer → synth"),
        (OPENFUSION, "openfusion", "cost_controls → panel.max_tokens"),
        (ENGINE, "Fusion Engine", "judge_model → judge and synth"),
    ],
)
def test_another_programs_file_is_named_with_what_its_keys_are_here(text: str, program: str, pair: str) -> None:
    Path("theirs.yaml").write_text(text)

    with pytest.raises(UsageError) as refused:
        load_recipe("theirs.yaml")

    message = refused.value.message
    assert message.startswith(f"theirs.yaml: a file of {program}; `fuse-ask --import theirs.yaml > mine.yaml`")
    assert pair in message
    assert "\n" not in message
    assert "very-secret" not in message


@pytest.mark.parametrize("text", ["panel: [a/b]\n", "[]\n", "judge_model: a\nmodels: 3\n", "preset: fast\n"])
def test_what_is_no_such_file_or_broken_is_refused_in_words(text: str, tmp_path: Any) -> None:
    Path("theirs.yaml").write_text(text)

    with pytest.raises(UsageError, match=r"^--import theirs.yaml: "):
        imported_recipe("theirs.yaml")


def test_a_file_that_lacks_a_key_is_told_which(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("judge_model: e/f\ntemperature: 0.3\n")

    with pytest.raises(UsageError, match="Fusion Engine: it lacks `models`"):
        imported_recipe(str(tmp_path / "theirs.yaml"))
