"""`fuse-tune`: graded records in; a recipe, a report and an exit status out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from graded import lines
from simulated import Member, panels_of, simulate
from workdir import Run

from fusiontools.config.recipe_yaml import build_recipe, load_recipe
from fusiontools.evaluation.tune.replay import Way
from fusiontools.evaluation.tune.tuned_recipe import how_asked, recipe_of

MEMBERS = {"a": Member(0.7, 0.001), "b": Member(0.7, 0.001), "c": Member(0.65, 0.001)}


def tunable(members: Any, questions: int, **world: Any) -> list[Any]:
    """Return graded records that say how their panel was asked."""
    asked = [{"name": name, "model": f"x/{name}", "endpoint": "openrouter", "temperature": 0.5} for name in members]
    recipe = {"name": "budget", "endpoint": "openrouter", "panel": {"members": asked}, "judge": {}, "synth": {}}
    return [{**record, "recipe": recipe} for record in simulate(members, questions, 5, **world)]


GRADED = lines(tunable(MEMBERS, 120))


def test_a_recipe_is_written_that_loads_and_asks_who_was_chosen(run: Run, tmp_path: Path) -> None:
    result = run(["fuse-tune", "--json", "--explain", "-o", "tuned.yaml"], GRADED)

    assert (result.status, result.err) == (0, "")
    found = json.loads(result.text)
    recipe = load_recipe(str(tmp_path / "tuned.yaml"))
    assert [member.name for member in recipe.panel.members] == found["chosen"]["members"]
    assert {member.temperature for member in recipe.panel.members} == {0.5}
    assert recipe.chain == "panel | vote"
    assert [part["member"] for part in found["explain"]] == ["a", "b", "c"]
    assert found["chosen"]["low"] <= found["chosen"]["score"] <= found["chosen"]["high"]


def test_the_recipe_of_a_vote_until_it_is_sure_asks_as_it_was_replayed() -> None:
    panels = panels_of(tunable(MEMBERS, 40))
    choice: Any = SimpleNamespace(
        way=Way("until", ("c", "a", "b"), 2, until=0.8), learned=SimpleNamespace(weights=None)
    )

    data = recipe_of(panels, choice, how_asked(panels), {}, {}, "")

    panel = build_recipe(data, "tuned.yaml", "tuned").panel
    assert (panel.until, panel.samples, panel.max_samples) == (0.8, 2, None)
    assert [member.name for member in panel.members] == ["c", "a", "b"]
    assert data["chain"] == "panel | vote"


def test_the_answer_comes_first_and_the_same_records_give_the_same_text(run: Run) -> None:
    one, other = run(["fuse-tune"], GRADED), run(["fuse-tune"], GRADED)

    assert one.text == other.text
    assert one.text.startswith("Is the chosen way better than the best member alone?  ")
    assert "\x1b" not in one.text


def test_a_route_by_kind_of_question_is_a_table_beside_the_recipe_and_fuse_route_takes_it(
    run: Run, tmp_path: Path
) -> None:
    kinds = [{"a": 0.95, "b": 0.2}, {"a": 0.2, "b": 0.95}]
    graded = tunable({"a": Member(0.5), "b": Member(0.5)}, 200, kinds=kinds)

    result = run(["fuse-tune", "--json", "-o", "tuned.yaml"], lines(graded))
    questions = lines([{"id": r["id"], "messages": r["messages"]} for r in graded[:8]])
    routed = run(["fuse-route", "-q", "-c", "tuned.yaml"], questions).records

    assert json.loads(result.text)["chosen"]["way"] == "routed"
    assert (tmp_path / "tuned.routes.json").is_file()
    assert [record["route"]["model"]["name"] for record in routed] == ["a", "b"] * 4


def test_limits_that_nothing_keeps_to_write_no_recipe_and_exit_5(run: Run, tmp_path: Path) -> None:
    result = run(["fuse-tune", "--max-cost-usd", "0.0001", "-o", "tuned.yaml"], GRADED)

    assert result.status == 5
    assert "nothing keeps to the limits" in result.err
    assert not (tmp_path / "tuned.yaml").exists()


@pytest.mark.parametrize(
    ("graded", "status", "said"),
    [
        ("", 3, "nothing came in"),
        (lines([{"id": "q", "messages": [{"role": "user", "content": "?"}]}]), 3, "no record has grades"),
        (lines(tunable(MEMBERS, 12)), 3, "not enough records to tell: 12 different questions"),
        (lines(tunable(MEMBERS, 40)[:3] * 2), 2, "3 records repeat an id"),
    ],
)
def test_where_there_is_nothing_to_learn_from_that_is_said(run: Run, graded: str, status: int, said: str) -> None:
    result = run(["fuse-tune"], graded)

    assert (result.status, result.text) == (status, "")
    assert said in result.err


def test_records_of_several_recipes_or_an_endpoint_that_nobody_defines_make_no_recipe(run: Run) -> None:
    two = tunable(MEMBERS, 40)
    two[0] = {**two[0], "recipe": {**two[0]["recipe"], "name": "other"}}
    own = [json.loads(json.dumps(record).replace('"openrouter"', '"mine"')) for record in tunable(MEMBERS, 40)]

    several, unknown = run(["fuse-tune", "-o", "t.yaml"], lines(two)), run(["fuse-tune", "-o", "t.yaml"], lines(own))

    assert (several.status, unknown.status) == (2, 2)
    assert "2 different recipes" in several.err
    assert "the endpoint 'mine'" in unknown.err


def test_a_bad_line_is_told_and_the_rest_counts(run: Run) -> None:
    result = run(["fuse-tune"], "{broken\n" + GRADED)

    assert result.status == 1
    assert result.err.startswith("fuse-tune: stdin:1: ")


def test_the_front_is_drawn(run: Run, tmp_path: Path) -> None:
    assert run(["fuse-tune", "--plot", "front.svg"], GRADED).status == 0

    assert "score on unseen questions" in (tmp_path / "front.svg").read_text()


@pytest.mark.slow
def test_ten_thousand_records_of_eight_members_take_under_a_minute_of_a_processor(run: Run) -> None:
    import resource

    members = {f"m{i}": Member(0.5 + 0.04 * i, 0.001 * (i + 1)) for i in range(8)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime

    assert run(["fuse-tune", "--json"], lines(tunable(members, 10_000)), timeout=600).status == 0

    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 60
