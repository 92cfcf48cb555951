"""The evaluation as a whole: tasks, a fusion, grades, a report, joined by real pipes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from workdir import Run, Upstream

EVAL = Path(__file__).parents[2] / "examples" / "eval"
TASKS = [
    {"id": f"q{i}", "prompt": f"What is {i} plus {i}?", "target": 2 * i, "grader": "numeric", "category": "sums"}
    for i in range(1, 7)
]


def test_the_whole_pipe_says_whether_the_fusion_is_better(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    panel = "fuse-panel -q -m fake/right+echo -m fake/wrong+text=7 --baseline fake/other+text=7"
    pipe = f"fuse-tasks ./mine.jsonl | {panel} | fuse-vote -q | fuse-grade -q | fuse-report -o json"

    result = run(pipe, pipefail=True)

    report = json.loads(result.text)
    assert (result.status, result.err) == (0, "")
    systems = {system["system"]: system for system in report["systems"]}
    # The chain is the vote: one row for both.
    assert systems["fusion"]["same_as"] == ["vote"]
    assert "fake/other+text=7" in systems
    assert report["tasks"] == len(TASKS)


def test_a_condition_that_holds_is_an_exit_status_of_its_own(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    pipe = "fuse-tasks ./mine.jsonl | fuse-panel -q -m fake/wrong+text=7 | fuse-vote -q | fuse-grade -q"

    low = run(f"{pipe} | fuse-report --fail-under 0.9 > /dev/null")
    high = run(f"{pipe} | fuse-report --fail-under 0 > /dev/null")

    assert (low.status, high.status) == (5, 0)


def test_epochs_ask_the_same_question_anew(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps(TASKS[0]) + "\n")

    run("fuse-tasks ./mine.jsonl --epochs 3 | fuse-panel -q -m fake/a > /dev/null")

    assert upstream.stats()["requests"] == 3


@pytest.mark.slow
def test_the_example_runs_on_the_embedded_model(env: dict[str, str], tmp_path: Path) -> None:
    small = {**{k: v for k, v in env.items() if not k.startswith("FUSION_")}, "N": "2", "WORK": str(tmp_path / "work")}

    done = subprocess.run(
        ["sh", str(EVAL / "run.sh")], cwd=tmp_path, env=small, capture_output=True, text=True, timeout=500, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    titles = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert titles == [
        "## panel | vote",
        "## panel | judge --method lexical | pick",
        "## panel | judge | synth",
        "## panel | judge | synth --guard",
    ]
