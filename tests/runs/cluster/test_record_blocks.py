"""Blocks: how files are cut, what a record's id becomes, and how what is done is found again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fusiontools.runs.cluster.record_blocks import (
    FileBlock,
    index_file,
    key_of,
    number_repeated,
    numbered_id,
    plan_tasks,
    read_blocks,
)
from fusiontools.runs.cluster.record_files import Location, locate

MIB = 2**20


def write(path: Path, ids: Sequence[str]) -> Location:
    path.write_text("".join(json.dumps({"id": i, "prompt": f"{i}?"}) + "\n" for i in ids))
    return locate(str(path))


def index(files: Sequence[Location], size: int = 2) -> list[FileBlock]:
    return [block for i, file in enumerate(files) for block in index_file(i, file, size, None, MIB)]


def names(files: Sequence[Location], size: int = 2) -> list[str]:
    blocks = index(files, size)
    return [task.name for task in plan_tasks(files, blocks, number_repeated(blocks))]


def ids_of(files: Sequence[Location], size: int = 2) -> list[str]:
    """Return the ids that the records get, in order."""
    blocks = index(files, size)
    numbers = number_repeated(blocks)
    tasks = plan_tasks(files, blocks, numbers)
    found = []
    for i, file in enumerate(files):
        for task, lines in read_blocks(file, [task for task in tasks if task.block.file == i], MIB):
            for position, line in enumerate(lines):
                given = json.loads(line)["id"]
                number = task.numbers.get(position)
                found.append(given if number is None else numbered_id(given, number))
    return found


def test_a_block_has_so_many_records_and_the_last_one_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", ["a", "b", "c", "d", "e"])

    assert [(block.lines, block.size) for block in index([file])] == [((1, 2), 2), ((3, 4), 2), ((5, 5), 1)]


def test_lines_that_are_no_records_are_in_no_block_and_named(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "a"}\n\nnot json\n{"prompt": "b"}\n{"id": 7, "prompt": "c"}\n')

    [block, last] = index([locate(str(tmp_path / "q.jsonl"))])

    assert (block.size, block.rejected) == (2, (3,))
    assert block.reasons[0][1].startswith("not JSON")
    assert (last.size, last.rejected) == (0, (5,))
    assert "$.id" in last.reasons[0][1]


def test_a_record_whose_id_stands_before_it_gets_the_next_free_number(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", ["q", "é", "q", "r#2"])
    two = write(tmp_path / "2.jsonl", ["é", "r", "r", "q", "q#2"])

    assert ids_of([one, two]) == ["q", "é", "q#3", "r#2", "é#2", "r", "r#3", "q#4", "q#2"]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "b#3", "a#3", "#2", "é"]), max_size=12))
def test_no_two_records_have_one_id(ids: list[str]) -> None:
    blocks = [
        FileBlock(0, i // 3, (i + 1, i + 3), b"".join(map(key_of, ids[i : i + 3]))) for i in range(0, len(ids), 3)
    ]
    numbers = number_repeated(blocks)

    given = [
        numbered_id(name, numbers[i // 3][i % 3]) if i % 3 in numbers.get(i // 3, {}) else name
        for i, name in enumerate(ids)
    ]

    assert len({key_of(name) for name in given}) == len(set(given)) == len(ids)


def test_a_block_keeps_its_name_where_its_file_has_another(tmp_path: Path) -> None:
    before = names([write(tmp_path / "questions.jsonl", ["a", "b"])])
    after = names([write(tmp_path / "moved.jsonl", ["a", "b"])])

    assert [name.rpartition("-")[2] for name in before] == [name.rpartition("-")[2] for name in after]


def test_equal_files_are_blocks_of_different_names(tmp_path: Path) -> None:
    files = [write(tmp_path / name, ["a", "b"]) for name in ("1.jsonl", "2.jsonl")]

    assert len({name.rpartition("-")[2] for name in names(files)}) == 2


def test_only_the_blocks_that_are_left_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", ["a", "b", "c", "d", "e"])
    tasks = plan_tasks([file], index([file]), {})

    read = [
        (task.block.number, [json.loads(line)["id"] for line in lines])
        for task, lines in read_blocks(file, [tasks[1], tasks[2]], MIB)
    ]

    assert read == [(1, ["c", "d"]), (2, ["e"])]


def test_a_line_that_is_too_long_is_no_record_and_the_next_one_is(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": "x" * 500}) + "\n" + json.dumps({"prompt": "short"}) + "\n")
    file = locate(str(tmp_path / "q.jsonl"))

    [block] = index_file(0, file, 10, None, 100)

    assert (block.size, block.rejected) == (1, (1,))
