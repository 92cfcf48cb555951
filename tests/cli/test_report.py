"""`fuse-report`: graded records in, a report and an exit status out."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from graded import World, lines, record, run_of, scored
from workdir import Run


def test_the_answer_comes_first_and_the_numbers_after_it(run: Run) -> None:
    result = run(["fuse-report"], lines(run_of(World(mended=0.4), 120)))

    first, *_ = result.text.splitlines()
    assert first == "Is fusion better than the best single model at its cost?  NOT MEASURED"
    assert "Is it better than the best single member, whatever that costs?  YES" in result.text
    assert "\x1b" not in result.text
    assert (result.status, result.err) == (0, "")


def test_json_csv_and_markdown_hold_the_same_scores(run: Run) -> None:
    graded = lines(run_of(World(mended=0.2), 40))

    as_json = run(["fuse-report", "-o", "json"], graded).records[0]
    as_csv = list(csv.DictReader(io.StringIO(run(["fuse-report", "-o", "csv"], graded).text)))
    as_markdown = run(["fuse-report", "-o", "markdown"], graded).text

    scores = {row["system"]: row["score"] for row in as_json["systems"]}
    assert {row["system"]: float(row["score"]) for row in as_csv} == scores
    assert f"| fusion | {100 * scores['fusion']:.1f} |" in as_markdown


def test_without_numpy_a_report_says_what_to_install() -> None:
    code = 'import sys; sys.modules["numpy"] = None; from fusiontools.cli.report import main; main()'

    done = subprocess.run(
        [sys.executable, "-c", code], input=lines([scored("q", 1, a=1)]), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "[eval]" in done.stderr


@pytest.fixture
def runs(tmp_path: Path) -> None:
    for name, world in (("before", World(mended=0.4)), ("after", World(mended=0.05))):
        (tmp_path / f"{name}.jsonl").write_text(lines(run_of(world, 150)))


def test_two_runs_are_paired_by_task_and_only_what_changed_has_changed(run: Run, runs: None) -> None:
    result = run(["fuse-report", "--compare", "before.jsonl", "after.jsonl", "-o", "json"])

    found = {row["system"]: row for row in result.records[0]["systems"]}
    fusion = found.pop("fusion")
    assert fusion["changed"]
    assert fusion["wins"] == 0
    assert fusion["difference"] == pytest.approx(-fusion["losses"] / 150)
    assert not any(row["changed"] or row["wins"] or row["losses"] for row in found.values())


def test_tasks_of_one_run_only_are_left_out_and_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(lines([scored("q", 1, a=1), scored("r", 1, a=1)]))
    (tmp_path / "b").write_text(lines([scored("r", 0, a=1), scored("s", 1, b=1), scored("t", 1, b=1)]))

    found = run(["fuse-report", "--compare", "a", "b", "-o", "json"]).records[0]
    told = run("fuse-report --compare a - < b").text

    assert (found["tasks"], found["only_before"], found["only_after"]) == (1, 1, 2)
    assert (found["gone"], found["new"]) == ([], ["b"])
    assert found["systems"][0]["difference"] == -1
    assert "2 tasks in the second run only" in told


@pytest.mark.parametrize(
    ("world", "options", "status"),
    [
        (World(), ["--fail-under", "0.3"], 0),
        (World(), ["--fail-under", "0.9"], 5),
        (World(), ["--fail-under", "0.55", "--system", "c"], 5),
        (World(mended=0.4), ["--fail-if-worse-than", "best-single"], 0),
        (World(broken=0.5), ["--fail-if-worse-than", "best-single"], 5),
        (World(broken=0.5), ["--fail-if-worse-than", "vote", "--fail-if-worse-than", "c"], 5),
        (World(broken=0.02), ["--fail-if-worse-than", "a"], 0),
        (World(broken=0.5), ["--fail-if-worse-than", "a*5"], 5),
        (World(), ["--fail-if-worse-than", "same-cost"], 2),
        (World(), ["--fail-if-worse-than", "vot"], 2),
        (World(), ["--system", "nobody"], 2),
        (World(), ["--fail-under", "70"], 2),
        (World(), ["--plot", "out.gif"], 2),
        (World(), ["--fail-if-worse-than", "before"], 2),
    ],
)
def test_the_exit_status_says_whether_a_condition_holds(
    world: World, options: list[str], status: int, run: Run
) -> None:
    result = run(["fuse-report", *options], lines(run_of(world, 80)))

    assert result.status == status
    assert bool(result.err) == bool(status)


@pytest.mark.parametrize(
    ("options", "status"), [([], 0), (["--fail-if-worse-than", "before"], 5), (["--fail-under", "1"], 5)]
)
def test_a_run_that_is_worse_than_the_one_before_fails_where_it_shall(
    options: list[str], status: int, run: Run, runs: None
) -> None:
    assert run(["fuse-report", "--compare", "before.jsonl", "after.jsonl", *options]).status == status


def test_a_line_that_cannot_be_read_is_told_with_its_place_and_the_rest_is_reported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "g.jsonl").write_text(lines([scored("q", 1, a=1)]) + "{oops\n")

    result = run(["fuse-report", "g.jsonl", "-o", "json"])

    assert result.status == 1
    assert result.err.startswith("fuse-report: g.jsonl:2: not JSON")
    assert result.records[0]["tasks"] == 1


@pytest.mark.parametrize(
    ("graded", "why"), [("", "nothing came in"), (lines([record("q", [])]), "no record has grades")]
)
def test_without_grades_there_is_nothing_to_report(graded: str, why: str, run: Run) -> None:
    result = run(["fuse-report"], graded)

    assert (result.status, result.out) == (3, b"")
    assert why in result.err


def test_a_closed_pipe_is_no_error(run: Run) -> None:
    result = run("fuse-report | head -1", lines([scored("q", 1, a=1)]), pipefail=True)

    assert (result.status, result.err) == (0, "")
