"""Recipes from YAML, and what is said of those that are none."""

from __future__ import annotations

import pytest
import yaml

from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import build_recipe
from fusiontools.errors import UsageError

KEYS = ("FUSION_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
SECRET = "hunter2-hunter2"


def build(text: str) -> Recipe:
    return build_recipe(yaml.safe_load(text), "mine.yaml", "mine")


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as refused:
        build(text)
    return refused.value.message
