"""`fuse-ask --list`: what is ready, and what the rest still lacks."""

from __future__ import annotations

from pathlib import Path

from workdir import Run

RECIPE = """
description: Three friends.
endpoints: {there: {base_url: "https://there.example/v1", api_key_env: THERE_KEY}}
models: {one: {model: their/one, endpoint: there}}
panel: [one]
judge: one
synth: one
"""


def rows(run: Run, env: dict[str, str]) -> dict[str, str]:
    """Return the lines of the list by their first word."""
    result = run(["fuse-ask", "--list"], env=env)
    assert (result.status, result.err) == (0, "")
    lines = [line.removeprefix("* ").strip() for line in result.text.splitlines()]
    return {line.split()[0]: line for line in reversed(lines) if line}


def test_a_recipe_of_ones_own_is_listed_with_what_it_lacks(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "config"
    (folder / "fusiontools" / "recipes").mkdir(parents=True)
    (folder / "fusiontools" / "recipes" / "friends.yaml").write_text(RECIPE)
    env = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_API_KEY")}
    env["XDG_CONFIG_HOME"] = str(folder)

    without, with_key = rows(run, env), rows(run, {**env, "THERE_KEY": "sk-0123456789"})

    assert "export THERE_KEY=" in without["friends"]
    assert "Three friends." in without["friends"]
    assert "their/one" not in without
    assert "ready" in with_key["friends"]
    assert "friends" in with_key["their/one"]
    assert "sk-0123456789" not in str(with_key)


def test_a_recipe_that_cannot_be_read_hides_no_other(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "config" / "fusiontools" / "recipes"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("panel: 5\n")

    listed = rows(run, {**env, "XDG_CONFIG_HOME": str(tmp_path / "config")})

    assert "cannot be read" in listed["broken"]
    assert "local" in listed
