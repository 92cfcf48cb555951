"""People's own files: JSON Lines, JSON, CSV and YAML, with the place of each bad row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tasking import PLAIN, asked, records, run, written

from fusiontools.evaluation.tasks.datasets import own_tasks
from fusiontools.evaluation.tasks.files import rows_of
from fusiontools.evaluation.tasks.rows import (
    BadRow,
)


def test_a_table_reads_line_breaks_letters_and_json_cells(tmp_path: Path) -> None:
    text = 'id,question,A,B,answer,category\nq1,"Two\nlines?",left,right,B,x\nq2,Plain?,,,42,\n'
    name = written(tmp_path / "t.csv", text)

    first, second = own_tasks(name, PLAIN)

    assert asked(first) == "Two\nlines?\nA) left\nB) right"
    assert first["meta"] == {"target": "B", "category": "x", "grader": "choice", "source": "t.csv"}  # type: ignore[index]
    assert second["meta"] == {"target": "42", "source": "t.csv"}  # type: ignore[index]


def test_the_rubric_of_a_table_is_json_in_a_cell(tmp_path: Path) -> None:
    name = written(tmp_path / "t.tsv", 'prompt\trubric\nDo.\t"[{""criterion"": ""Done."", ""weight"": 2}]"\n')

    [record] = own_tasks(name, PLAIN)

    assert record["meta"]["rubric"] == [{"criterion": "Done.", "weight": 2}]  # type: ignore[index]


@pytest.mark.parametrize("head", ["", "tasks:\n"])
def test_yaml_is_a_list_or_a_mapping_with_tasks(head: str, tmp_path: Path) -> None:
    text = head + "- prompt: Is it?\n  target: yes\n- prompt: When?\n  target: 2024-05-01\n"

    yes, day = own_tasks(written(tmp_path / "t.yaml", text), PLAIN)

    assert yes["meta"]["target"] == "yes"  # type: ignore[index]
    assert day["meta"]["target"] == "2024-05-01"  # type: ignore[index]


@pytest.mark.parametrize("text", ['[{"prompt": "a?", "target": 1}]', '{"tasks": [{"prompt": "a?", "target": 1}]}',
                                  '{"prompt": "a?", "target": 1}\n'])  # fmt: skip
def test_a_json_file_is_a_list_an_object_with_tasks_or_lines(text: str, tmp_path: Path) -> None:
    [record] = own_tasks(written(tmp_path / "t.json", text), PLAIN)

    assert record["meta"] == {"target": 1, "source": "t.json"}  # type: ignore[index]


BROKEN = {
    "t.jsonl": ('{"prompt": "a?", "target": 1}\nnot json\n\n{"prompt": "c?"}\n{"prompt": "d?", "target": 1}\n', [2, 4]),
    "t.csv": ("prompt,target\na?,1\nb?\nc?,1,2\nd?,1\n", [3, 4]),
    "t.yaml": ("- prompt: a?\n  target: 1\n- just text\n- prompt: c?\n- {prompt: d?, target: 1}\n", [3, 4]),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_bad_row_is_told_with_file_line_and_reason_and_the_rest_goes_on(name: str, tmp_path: Path) -> None:
    text, lines = BROKEN[name]
    path = written(tmp_path / name, text)

    done = run(path)

    assert done.returncode == 1
    assert [asked(record) for record in records(done)] == ["a?", "d?"]
    said = [line.split(": ", 2) for line in done.stderr.splitlines()]
    assert [place for _, place, _ in said] == [f"{path}:{line}" for line in lines]
    assert all(len(reason) > 5 for _, _, reason in said)


def test_yaml_that_ends_in_the_middle_says_where() -> None:
    [bad] = [row for row in own_tasks_of_text("- prompt: a?\n  target: [1\n") if isinstance(row, BadRow)]

    assert re.search(r":\d+$", bad.place)
    assert "not YAML" in bad.reason


def own_tasks_of_text(text: str) -> list[Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return list(own_tasks(written(Path(folder) / "t.yaml", text), PLAIN))


def test_bytes_that_are_no_text_are_bad_rows_and_no_crash(tmp_path: Path) -> None:
    for name in ("t.jsonl", "t.csv", "t.yaml", "t.json"):
        path = tmp_path / name
        path.write_bytes(b'prompt,target\n"\xff\xfe",\x00\n')

        assert any(isinstance(row, BadRow) for row in rows_of(str(path)))


def test_an_alias_that_holds_itself_is_a_bad_row(tmp_path: Path) -> None:
    name = written(tmp_path / "t.yaml", "- &a {prompt: a?, target: x, self: *a}\n- {prompt: b?, target: x}\n")

    bad, good = own_tasks(name, PLAIN)

    assert isinstance(bad, BadRow)
    assert asked(good) == "b?"


def test_a_scalar_of_yaml_stays_as_it_is_written(tmp_path: Path) -> None:
    kept = ["12:30", "90:00", "22:22:22", "0777", "010", "0x1F", "1_000", "3.10", "1.", ".5", "no", "ON", "2024-05-01"]
    text = "".join(f"- question: What is it?\n  target: {one}\n" for one in [*kept, "42", "-1.5"])
    graded = "- prompt: a?\n  target: 2\n  grader: {name: numeric, tolerance: 0.50}\n"

    records = list(own_tasks(written(tmp_path / "t.yaml", text), PLAIN))
    [own] = own_tasks(written(tmp_path / "u.yaml", graded), PLAIN)

    assert [record["meta"]["target"] for record in records] == [*kept, 42, -1.5]
    assert own["meta"]["grader"]["tolerance"] == 0.5
