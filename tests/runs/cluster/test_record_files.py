"""Files of records: which of them a person means, and what is read and written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from fusiontools.errors import UsageError
from fusiontools.runs.cluster.output_folder import FAILED, OutputFolder
from fusiontools.runs.cluster.record_files import find_files, locate, read_lines, stem_of

OUT = locate("/nowhere/out")
LINE = b'{"id": "a", "prompt": "Why?"}'


def found(*texts: str) -> list[str]:
    return [Path(file.path).name for file in find_files(texts, OUT)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.ndjson", "c.parquet", "notes.md", ".hidden.jsonl", "deep/d.jsonl.gz", "_own/e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_folder_is_all_files_of_records_in_it_and_below(folder: Path) -> None:
    assert found(str(folder)) == ["a.ndjson", "b.jsonl", "c.parquet", "d.jsonl.gz"]


def test_a_pattern_is_what_it_matches_folder_by_folder(folder: Path) -> None:
    assert found(f"{folder}/*.jsonl") == ["b.jsonl"]
    assert found(f"{folder}/.h*") == [".hidden.jsonl"]
    assert found(f"{folder}/d*/*.gz") == ["d.jsonl.gz"]
    assert found(f"{folder}/[ab].*") == ["a.ndjson", "b.jsonl"]


def test_an_address_of_this_machine_is_a_path(folder: Path) -> None:
    assert found(f"file://{folder}/b.jsonl") == ["b.jsonl"]


def test_a_file_that_is_named_twice_is_read_once(folder: Path) -> None:
    assert found(f"{folder}/b.jsonl", f"{folder}/*.parquet", f"{folder}/b.jsonl") == ["b.jsonl", "c.parquet"]


def test_the_output_is_no_input(folder: Path) -> None:
    files = find_files([str(folder)], locate(str(folder / "deep")))

    assert [stem_of(file) for file in files] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["none.jsonl", "*.txt", "_own/none"])
def test_what_names_nothing_is_said(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no such file"):
        found(f"{folder}/{name}")


def test_a_place_that_nobody_knows_is_said() -> None:
    with pytest.raises(UsageError, match="nowhere://x: cannot be reached"):
        found("nowhere://x")


def test_lines_have_their_numbers_and_blank_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + LINE + b"\r\n\n  \n" + LINE))

    assert list(read_lines(locate(str(tmp_path / "q.jsonl.gz")), 1000)) == [(1, LINE), (4, LINE)]


def test_rows_of_parquet_are_records_whichever_way_they_hold_json(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Why?"}, {"role": "user", "content": None}]
    table = {
        "id": [7, 8],
        "messages": [messages, messages],
        "params": ['{"max_tokens": 5}', None],
        "year": [1999, None],
    }
    parquet.write_table(pa.table(table), tmp_path / "q.parquet")

    records = [json.loads(line) for _, line in read_lines(locate(str(tmp_path / "q.parquet")), 1000) if line]

    told = [{"role": "user", "content": "Why?"}, {"role": "user"}]
    assert records == [
        {"id": "7", "messages": told, "params": {"max_tokens": 5}, "year": 1999},
        {"id": "8", "messages": told},
    ]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, form: str) -> None:
    output = OutputFolder(locate(str(tmp_path / "out")), form)
    lines = [b'{"id":"a","messages":[],"answer":{"content":"B"}}', b'{"id":"b","messages":[],"odd":{"x":[1,null]}}']

    output.write("part", lines, FAILED)

    assert output.names() == set()
    assert output.names(FAILED) == {"part"}
    assert output.read("part", FAILED) == lines


def test_without_records_there_is_no_file(tmp_path: Path) -> None:
    output = OutputFolder(locate(str(tmp_path / "out")), "jsonl")
    output.write("part", [LINE])

    output.write("part", [])

    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_writer_left_is_no_record_and_is_swept_away(tmp_path: Path) -> None:
    output = OutputFolder(locate(str(tmp_path)), "jsonl")
    (tmp_path / ".unfinished-1-part.jsonl").write_bytes(LINE[:9])

    assert output.names() == set()
    output.sweep()
    assert list(tmp_path.iterdir()) == []


def test_parquet_shows_what_is_asked_for_most(tmp_path: Path) -> None:
    output = OutputFolder(locate(str(tmp_path)), "parquet")
    call = {"cost_usd": 0.25}
    record = {"id": "a", "answer": {"content": "B"}, "calls": [call, call]}

    output.write("part", [json.dumps(record).encode()])

    [row] = parquet.read_table(tmp_path / "part.parquet").to_pylist()
    assert json.loads(row.pop("record")) == record
    assert row == {"id": "a", "answer": "B", "error": None, "cost_usd": 0.5}
