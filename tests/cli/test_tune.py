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


def heard(record: Any) -> Any:
    """Return a graded record with what its members said."""
    said = {"sample": 0, "layer": 1, "finish_reason": "stop"}
    return {**record, "panel": [{"member": g["member"], "content": g["key"], **said} for g in record["grades"]]}


GRADED = lines(tunable(MEMBERS, 120))
#: What fuse-calibrate reads, too.
CALIBRATED = lines([heard(record) for record in tunable(MEMBERS, 120)])


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


@pytest.mark.parametrize("tool", ["fuse-tune", "fuse-calibrate --risk 0.3"])
def test_what_cannot_be_written_whole_leaves_the_old_file_and_nothing_beside_it(
    run: Run, tmp_path: Path, tool: str
) -> None:
    (tmp_path / "kept").write_text("old")

    result = run(f"ulimit -f 0; {tool} -o kept", CALIBRATED)

    assert (result.status, result.text) == (2, "")
    assert result.err.endswith("kept: cannot be written: File too large\n")
    assert (tmp_path / "kept").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".kept")] == []


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["fuse-tune", "fuse-calibrate --risk 0.3"])
def test_a_reader_that_has_left_is_no_error_and_a_full_disk_is_one(run: Run, tool: str) -> None:
    closed = run(f"{tool} | true", CALIBRATED, pipefail=True)
    full = run(f"{tool} > /dev/full", CALIBRATED)
    device = run(f"{tool} -o /dev/full", CALIBRATED)

    assert (closed.status, closed.err) == (0, "")
    assert (full.status, full.err) == (1, f"{tool.split()[0]}: stdout: No space left on device\n")
    assert (device.status, device.err) == (
        2,
        f"{tool.split()[0]}: /dev/full: cannot be written: No space left on device\n",
    )


def test_a_recipe_that_is_written_anew_keeps_its_permissions_and_stays_where_its_link_leads(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "real.yaml").write_text("old")
    (tmp_path / "real.yaml").chmod(0o640)
    (tmp_path / "link.yaml").symlink_to("real.yaml")

    run(["fuse-tune", "-o", "link.yaml"], GRADED)

    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / "real.yaml").stat().st_mode & 0o777 == 0o640
    assert load_recipe(str(tmp_path / "real.yaml")).panel.members


@pytest.mark.parametrize("tool", [["fuse-tune"], ["fuse-calibrate", "--risk", "0.3"]])
def test_a_record_that_cannot_be_used_is_told_with_file_and_line(run: Run, tmp_path: Path, tool: list[str]) -> None:
    bad = [{"grades": 3}, {"panel": "x"}, {"calls": [{}]}, {"grades": [{"of": "panel", "score": 7}]}]
    first = json.loads(CALIBRATED.splitlines()[0])
    (tmp_path / "bad.jsonl").write_text(
        lines([{**first, "id": f"b{i}", **each} for i, each in enumerate(bad)]) + "{x\n"
    )
    (tmp_path / "good.jsonl").write_text(CALIBRATED)

    result = run([*tool, "bad.jsonl", "good.jsonl"])

    assert result.status == 1
    places = [line.split(": ")[1] for line in result.err.splitlines()]
    assert places == [f"bad.jsonl:{n}" for n in range(1, 6)]
