"""Several recipes behind one server, each with limits of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from workdir import Serve, Upstream

from fusiontools.errors import UsageError
from fusiontools.server.catalog import open_catalog
from fusiontools.server.serve_options import ServeOptions

PATIENT = """
panel: [fake/a, fake/b]
synth: fake/synth
chain: panel | synth
limits: {retries: 1, backoff_s: 0}
"""
HASTY = """
panel: [fake/x+status=500, fake/y]
synth: fake/synth
chain: panel | synth
limits: {retries: 0}
"""


def test_each_recipe_keeps_its_own_limits(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "hasty.yaml").write_text(HASTY)
    server = serve("--recipe", str(tmp_path / "hasty.yaml"), recipe=PATIENT)

    server.chat(model="fusion/hasty")

    assert upstream.stats()["per_model"]["fake/x+status=500"] == 1


def test_limits_that_were_typed_hold_over_every_recipe(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "hasty.yaml").write_text(HASTY)
    server = serve("--recipe", str(tmp_path / "hasty.yaml"), "--retries", "2", "--backoff", "0", recipe=PATIENT)

    server.chat(model="fusion/hasty")

    assert upstream.stats()["per_model"]["fake/x+status=500"] == 3


def test_only_the_recipes_that_were_named_are_offered(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "hasty.yaml").write_text(HASTY)
    server = serve("--recipe", str(tmp_path / "hasty.yaml"), recipe=PATIENT)

    offered = [entry["id"] for entry in server.get("/v1/models").json()["data"] if entry["owned_by"] == "fusiontools"]

    assert offered == ["fusion", "fusion/recipe", "fusion/hasty"]


def test_whoever_gives_a_file_of_their_own_offers_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(PATIENT)

    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-only-for-this-test")
    mine = open_catalog(str(tmp_path / "mine.yaml"), ServeOptions(), {})

    assert list(mine.recipes) == ["mine"]


def test_two_recipes_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder, text in (("one", PATIENT), ("two", HASTY)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.yaml").write_text(text)
    options = ServeOptions(recipes=(str(tmp_path / "two" / "same.yaml"),))

    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-only-for-this-test")
    with pytest.raises(UsageError, match="two recipes are called 'same'"):
        open_catalog(str(tmp_path / "one" / "same.yaml"), options, {})
