"""From what was typed to a recipe, a journal and keys: what cannot be is named before anything is bought."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from mistakes import JUDGE, PANEL, SECRET, SYNTH, clear, panel
from samples import judged, lines, panelled, question
from workdir import Run, Upstream

from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.errors import UsageError


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("panel: {members: [fake/a], max_tokn: 5}", "$.panel: unknown key 'max_tokn'; did you mean 'max_tokens'?"),
        ("panel: {members: [fake/a], max_token: 5}", "$.panel: unknown key 'max_token'; did you mean 'max_tokens'?"),
        ("panl: [fake/a]", "$: unknown key 'panl'; did you mean 'panel'?"),
        (
            "{models: {cheap: fake/a}, panel: [chep]}",
            "$.panel[0]: no model is called 'chep' under `models:`; did you mean 'cheap'?",
        ),
        (
            "panel: [{model: fake/a, endpoint: opnrouter}]",
            "$.panel[0]: no endpoint is called 'opnrouter'; did you mean 'openrouter'?",
        ),
        ("panel: {members: [fake/a], samples: many}", "$.panel.samples: 'many' is not of type 'integer'"),
        ("panel: [fake/a", "not YAML: "),
        ("[fake/a]", "a recipe is a mapping of keys such as `panel:`, `judge:` and `synth:`"),
        ("", "a recipe is a mapping of keys such as `panel:`, `judge:` and `synth:`"),
    ],
    ids=["key", "token", "section", "alias", "endpoint", "type", "yaml", "list", "empty"],
)
def test_a_wrong_recipe_is_named_with_file_place_and_cause(
    recipe: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(recipe)

    with pytest.raises(UsageError) as refused:
        load_recipe("mine.yaml")

    assert refused.value.message.startswith(f"mine.yaml: {said}")


def test_a_wrong_recipe_ends_a_tool_before_it_asks(run: Run, tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "mine.yaml").write_text("panl: [fake/a]")

    result = run(["fuse-panel", "-c", "mine.yaml"], "Why?")

    assert (result.status, result.out) == (2, b"")
    assert clear(result).startswith("fuse-panel: mine.yaml: $: unknown key 'panl'")
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    "recipe",
    [
        "endpoints: {mine: {base_url: 'http://x/v1', api_key: KEY}}",
        "endpoints: {mine: {base_url: 'http://x/v1', key: KEY}}",
        "endpoints: {mine: {base_url: 'http://x/v1', api_key_env: KEY}}",
        "endpoints: {mine: {base_url: 'http://x/v1', headers: {Authorization: Bearer KEY}}}",
        "endpoints: {mine: {base_url: 'http://user:KEY@x/v1'}}",
        "models: {m: {model: fake/a, token: KEY}}",
        "api_key: 'KEY",
    ],
    ids=["api_key", "key", "api_key_env", "header", "url", "model", "broken"],
)
@pytest.mark.parametrize("key", [SECRET, "sk-proj-0123456789abcdef"], ids=["plain", "sk"])
def test_a_key_in_a_recipe_is_refused_and_never_told(
    recipe: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(f"panel: [fake/a]\n{recipe.replace('KEY', key)}\n")

    with pytest.raises(UsageError) as refused:
        load_recipe("mine.yaml")
    Path("mine.yaml").unlink()

    assert refused.value.message.startswith("mine.yaml: ")
    assert key not in refused.value.message


def test_a_key_in_a_recipe_is_never_printed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"panel: [fake/a]\napi_key: '{SECRET}")

    result = run(["fuse-panel", "-c", "mine.yaml"], "Why?")
    (tmp_path / "mine.yaml").unlink()

    assert (result.status, result.out) == (2, b"")
    assert clear(result).startswith("fuse-panel: mine.yaml: ")


def test_a_recipe_nobody_knows_is_named_with_the_nearest(run: Run) -> None:
    result = run(["fuse-panel", "-c", "budgett"], "Why?")

    assert (result.status, result.out) == (2, b"")
    assert clear(result).startswith("fuse-panel: no recipe is called 'budgett'; did you mean 'budget'?")


def test_a_template_nobody_knows_is_named_before_anything_is_read(run: Run) -> None:
    result = run([*JUDGE, "--template", "deep_reserch"], lines([panelled()]))

    assert (result.status, result.out) == (2, b"")
    assert clear(result) == "fuse-judge: no prompt template is called 'deep_reserch'; did you mean 'deep_research'?\n"


def test_a_missing_key_is_asked_for_before_anything_is_bought(run: Run, env: dict[str, str]) -> None:
    bare = {name: value for name, value in env.items() if not name.startswith("FUSION_")}

    result = run(["fuse-panel", "-c", "budget"], "Why?", env=bare)

    assert (result.status, result.out) == (2, b"")
    assert "endpoint openrouter needs a key: export OPENROUTER_API_KEY=…" in clear(result)


def test_a_record_whose_judge_has_no_key_here_goes_on_and_one_at_an_unknown_place_ends_the_run(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"endpoints: {{mine: {{base_url: '{upstream.url}', free: true}}}}\npanel: [fake/a]\n"
    )
    bare = {
        **{name: value for name, value in env.items() if not name.startswith("FUSION_")},
        "FUSION_CONFIG": "mine.yaml",
    }

    def by(endpoint: str) -> dict[str, Any]:
        return {"judge": {"models": [{"name": "j", "model": "fake/judge", "endpoint": endpoint}]}}

    stdin = lines([panelled(f"q{i}", recipe=by(name)) for i, name in enumerate(("mine", "openai", "elsewhere"))])
    result = run(["fuse-judge", "-j", "1"], stdin, env=bare)

    assert result.status == 2
    assert ["analysis" in r for r in result.records] == [True, False]
    assert "needs a key: export OPENAI_API_KEY=…" in result.records[1]["degraded"][0]["detail"]
    assert "stdin:3: $.recipe.judge: the endpoint 'elsewhere'" in clear(result)


def test_a_judge_named_without_its_key_is_refused_before_anything_is_read(run: Run, env: dict[str, str]) -> None:
    bare = {name: value for name, value in env.items() if not name.startswith("FUSION_")}

    result = run(["fuse-judge", "-m", "gpt-5.5@openai"], lines([panelled("q1")]), env=bare)

    assert (result.status, result.out) == (2, b"")
    assert "endpoint openai needs a key: export OPENAI_API_KEY=…" in clear(result)


def test_a_disk_that_fills_under_the_journal_costs_no_answer(run: Run, env: dict[str, str]) -> None:
    # A limit on the size of a file stands in for a full disk: it works without mounting anything.
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    names = [f"q{i}" for i in range(40)]

    big = panel("fake/a+big=9000", "fake/b")
    result = run([sys.executable, "-c", limited, *big, "-j", "2"], lines(map(question, names)))

    assert result.status == 0
    assert [r["id"] for r in result.records] == names
    assert all("error" not in r for record in result.records for r in record["panel"])
    said = r"fuse-panel: warning: the journal \S+ cannot be written: .+\n(.+\n)*.+ \d+ finished calls .+\n"
    assert re.fullmatch(said, clear(result))


@pytest.mark.parametrize("place", ["file/journal.db", "folder"], ids=["below-a-file", "a-folder"])
@pytest.mark.parametrize("tool", [PANEL, JUDGE, SYNTH], ids=lambda tool: tool[0])
def test_a_journal_that_was_asked_for_must_be_writable(
    tool: list[str], place: str, run: Run, tmp_path: Path, upstream: Upstream
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    result = run([*tool, "--journal", place], lines([judged()]))

    assert (result.status, result.out) == (2, b"")
    assert clear(result).startswith(f"{tool[0]}: journal {place}: cannot be written: ")
    assert upstream.stats()["requests"] == 0


def test_a_file_that_is_no_journal_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "diary").write_bytes(b"Dear diary, " * 100)

    result = run([*PANEL, "--journal", "diary"], "Why?")

    assert (result.status, result.out) == (2, b"")
    assert clear(result) == "fuse-panel: journal diary: cannot be written: file is not a database\n"
    assert (tmp_path / "diary").read_bytes() == b"Dear diary, " * 100


def test_an_answer_does_not_depend_on_the_default_journal(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = run(PANEL, "Why?", env={**env, "XDG_STATE_HOME": str(tmp_path / "file")})

    assert (result.status, len(result.records)) == (0, 1)
    said = clear(result)
    assert said.startswith(f"fuse-panel: warning: journal {tmp_path}/file/fusiontools/journal.db: cannot be written: ")
    assert said.endswith("; going on without it\n")


def test_a_replay_needs_its_journal(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = run([*PANEL, "--replay"], "Why?", env={**env, "XDG_STATE_HOME": str(tmp_path / "file")})

    assert (result.status, result.out) == (2, b"")
    assert "cannot be written" in clear(result)
