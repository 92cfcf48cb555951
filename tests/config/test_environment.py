"""The environment variables that are ours: all that are read are listed, and what nobody reads is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from serving import RECIPE
from workdir import ROOT, Run

from fusiontools.config.environment import VARIABLES, explain_unread


def named_in(folder: Path, pattern: str) -> set[str]:
    texts = [path.read_text() for path in folder.rglob(pattern) if path.is_file() and path.name != "environment.py"]
    return {name for text in texts for name in re.findall(r"\bFUSION_[A-Z_]*[A-Z]\b", text)}


def test_every_variable_that_is_read_is_listed_and_no_other() -> None:
    assert named_in(ROOT / "fusiontools", "*.py") == set(VARIABLES)


def test_no_example_and_no_document_names_one_that_nobody_reads() -> None:
    assert explain_unread(named_in(ROOT / "examples", "*") | named_in(ROOT / "docs", "*.md")) == []


def test_every_tool_says_which_variable_nobody_reads_and_which_was_meant(run: Run, env: dict[str, str]) -> None:
    result = run(["fuse-vote"], b"", env={**env, "FUSION_RECIPE": "x", "FUSION_SERVER_APIKEY": "12345678"})

    assert "FUSION_RECIPE" in result.err
    assert "did you mean 'FUSION_SERVER_API_KEY'?" in result.err
    assert "12345678" not in result.err


def test_the_server_listens_where_the_environment_says(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    ask = ["fuse-serve", "-c", "recipe.yaml"]

    away = run(ask, env={**env, "FUSION_HOST": "192.0.2.1", "FUSION_SERVER_API_KEY": "good-enough-1"})
    wrong = run(ask, env={**env, "FUSION_PORT": "http"})

    assert "192.0.2.1" in away.err
    assert "cannot listen" in away.err
    assert (wrong.status, "FUSION_PORT" in wrong.err) == (2, True)


@pytest.mark.parametrize("name", ["FUSION_SERVER_API_KEY", "FUSION_SERVER_API_KEYS"])
def test_a_short_key_is_refused_by_the_name_of_its_variable(
    run: Run, env: dict[str, str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    result = run(["fuse-serve", "-c", "recipe.yaml", "--port", "0"], env={**env, name: "short"})

    assert result.status == 2
    assert f"{name}:" in result.err
