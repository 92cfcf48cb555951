"""`fuse-tasks`: names in, records out, and a word for whatever is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tasking import asked, records, run, written

from fusiontools.evaluation.tasks.datasets import TaskSet, load_sets
from fusiontools.record import jsonl


def test_the_cli_takes_the_beginning_of_the_same_sample() -> None:
    small = records(run("short", "-n", "5", "--seed", "3"))
    large = records(run("short", "-n", "9", "--seed", "3"))

    assert small == large[:5]


def test_only_tasks_of_the_category_are_taken_whatever_its_case(tmp_path: Path) -> None:
    done = run("short", "--category", "Choice", "--category", "facts", "--split", "extra")

    assert {(r["meta"]["category"], r["meta"]["split"]) for r in records(done)} == {("choice", "extra")}


def test_a_category_that_no_task_has_names_the_nearest() -> None:
    done = run("short", "--category", "fact")

    assert (done.returncode, done.stdout) == (3, "")
    assert "short: no task has the category 'fact'; did you mean 'facts'?" in done.stderr


def test_the_list_shows_every_set_with_tasks_licence_source_and_gate() -> None:
    done = run("--list")

    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for name, task_set in load_sets().sets.items():
        assert task_set.source in lines[name]
        assert f"{task_set.tasks:,}" in lines[name]
        assert task_set.licence in lines[name]
        assert ("gated" in lines[name]) == task_set.gated


def test_an_unknown_name_names_the_nearest_set_and_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    unknown, path = run("gsm8"), run(str(tmp_path / "none.jsonl"))

    assert (unknown.returncode, path.returncode) == (2, 2)
    assert "no set is called 'gsm8'; did you mean 'gsm8k'?" in unknown.stderr
    assert "none.jsonl: no such file" in path.stderr


def test_no_name_at_all_says_what_to_do() -> None:
    done = run()

    assert done.returncode == 2
    assert "name a set or a file of tasks" in done.stderr


def test_a_second_name_that_is_wrong_stops_before_anything_is_written() -> None:
    done = run("code", "cod")

    assert (done.returncode, done.stdout) == (2, "")


def test_several_names_follow_one_another() -> None:
    done = run("rubric", "code", "-n", "2")

    assert [r["id"].split("/")[0] for r in records(done)] == ["rubric", "rubric", "code", "code"]


def test_an_id_that_comes_again_is_warned_of(tmp_path: Path) -> None:
    row = '{"id": "same", "prompt": "?", "target": 1}\n'

    done = run(written(tmp_path / "t.jsonl", row * 2))

    assert done.returncode == 0
    assert len(records(done)) == 2
    assert "warning: the id 'same' was seen before" in done.stderr


def test_a_file_without_tasks_is_no_success(tmp_path: Path) -> None:
    assert run(written(tmp_path / "t.jsonl", "\n")).returncode == 3


def test_a_set_s_name_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "code", '{"prompt": "mine?", "target": 1}\n')

    named, by_path = run("code", "-n", "1"), run("./code")

    assert records(named)[0]["meta"]["source"] == "fusiontools"
    assert asked(records(by_path)[0]) == "mine?"


def test_the_first_record_leaves_before_the_next_line_comes() -> None:
    code = "from fusiontools.cli.tasks import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        tool.stdin.write('{"prompt": "a?", "target": 1}\n')
        tool.stdin.flush()

        first = json.loads(tool.stdout.readline())

        tool.stdin.close()
        assert tool.wait() == 0
    assert asked(first) == "a?"
    assert first["meta"] == {"target": 1}


def test_a_reader_that_has_gone_is_no_error() -> None:
    code = "from fusiontools.cli.tasks import main; main()"
    line = f"{sys.executable} -c '{code}' short --epochs 40 | head -1; echo ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


def test_what_is_written_is_read_by_the_next_tool_as_it_is() -> None:
    for line in run("short").stdout.encode().splitlines():
        assert jsonl.write(jsonl.parse(line)) == line + b"\n"


def test_a_set_without_a_usual_split_does_not_exist() -> None:
    for task_set in load_sets().sets.values():
        assert isinstance(task_set, TaskSet)
        assert (task_set.file is None) == bool(task_set.splits)
