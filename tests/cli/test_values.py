"""JSON laid out over several lines or in an array is read object by object; JSON Lines stay what they are."""

from __future__ import annotations

import json

import pytest
from samples import judged, question
from workdir import Run, Upstream

from fusiontools.cli.values import ObjectReader, spans_lines

QUESTIONS = [question("q1", note='a "brace" } in \\ text {'), question("q2", deep=[{"a": [1, {"b": "}"}]}])]


@pytest.mark.parametrize("indent", [0, 1, 4, "\t"])
@pytest.mark.parametrize("between", ["\n", "\n\n", " ", ""])
def test_objects_are_read_however_they_are_laid_out(indent: int | str, between: str, run: Run) -> None:
    laid_out = between.join(json.dumps(each, indent=indent) for each in QUESTIONS)

    result = run(["fuse-panel", "-m", "fake/a"], laid_out)

    assert (result.status, result.err) == (0, "")
    assert [record["note" if record["id"] == "q1" else "deep"] for record in result.records] == [
        QUESTIONS[0]["note"], QUESTIONS[1]["deep"],
    ]  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
def test_a_tool_that_reads_records_takes_an_array_of_them(indent: int | None, run: Run) -> None:
    result = run(["fuse-vote"], json.dumps([judged("q1"), judged("q2")], indent=indent))

    assert (result.status, result.err) == (0, "")
    assert [record["id"] for record in result.records] == ["q1", "q2"]


def test_an_object_without_an_end_is_one_bad_line_and_the_rest_goes_on(run: Run) -> None:
    broken = json.dumps(question("q0"), indent=2).rpartition("}")[0]
    good = json.dumps(question("q2"), indent=2)

    result = run(["fuse-panel", "-m", "fake/a"], f"{json.dumps(question('q1'), indent=2)}\n{broken}\n{good}\n")

    assert result.status == 1
    assert [record["id"] for record in result.records] == ["q1", "q2"]
    assert result.err.startswith("fuse-panel: stdin:10: not JSON")


def test_a_first_line_that_was_cut_off_is_a_bad_line_of_json_lines(run: Run) -> None:
    result = run(["fuse-panel", "-m", "fake/a"], '{"id": "q0", "messages": [\n' + json.dumps(question("q1")) + "\n")

    assert [record["id"] for record in result.records] == ["q1"]
    assert result.err.startswith("fuse-panel: stdin:1: not JSON")


@pytest.mark.parametrize("head", [b'{"a": 1}\n', b'{"a": "{"}\n{"b": 2}', b'{"a"', b"{}", b'{"a": {\n{"b": 2}\n'])
def test_json_lines_are_not_taken_for_a_layout(head: bytes) -> None:
    assert not spans_lines(head)


def test_an_objects_number_is_the_line_in_which_it_begins() -> None:
    reader = ObjectReader()
    text = b'[\n  {"a":\n  1},\n\n  {"b": 2}, 3 {"c": 3}\n]'

    found = [one for number, line in enumerate(text.split(b"\n"), start=1) for one in reader.feed(line, number)]

    assert found == [(2, b'{"a":\n  1}'), (5, b'{"b": 2}'), (5, b"3"), (5, b'{"c": 3}')]


def test_the_first_few_bad_lines_of_a_kind_say_it_all(run: Run) -> None:
    result = run(["fuse-vote"], "".join(f"line {i} of a letter\n" for i in range(300)))

    assert result.status == 3
    lines = result.err.splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith("fuse-vote: and 29")


@pytest.mark.parametrize("form", [["--lines"], ["--text"], []])
@pytest.mark.parametrize(
    "data",
    [b"\x7fELF\x02\x01\0\0" + b"Why?\n" * 50, bytes(range(128, 256)) * 20 + b"\nWhy?\n", "Why?\n".encode("utf-16")],
    ids=["program", "noise", "utf16"],
)
def test_what_is_plainly_no_text_is_not_asked(form: list[str], data: bytes, run: Run, upstream: Upstream) -> None:
    result = run(["fuse-panel", "-m", "fake/a", *form], data)

    assert (result.status, result.out) == (3, b"")
    assert "nothing of it is asked" in result.err
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize("tool", [["fuse-panel", "-m", "fake/a"], ["fuse-vote"], ["fuse-cost"], ["fuse-report"]])
def test_a_folder_and_a_missing_file_end_alike(tool: list[str], run: Run) -> None:
    folder, missing = run([*tool, "."]), run([*tool, "none.jsonl"])

    assert (folder.status, missing.status) == (2, 2)
    assert "Is a directory" in folder.err


QUESTION_LIST = "".join(f"What is the capital of country {i}?\n" for i in range(12))
PROSE = "An editor that is shared\nby several people needs a rule\nfor what happens when two\nof them write,\nand " * 4


@pytest.mark.parametrize(
    ("form", "text", "noted"),
    [([], QUESTION_LIST, True), (["--text"], QUESTION_LIST, False), (["-q"], QUESTION_LIST, False), ([], PROSE, False)],
)
def test_a_list_that_becomes_one_question_is_noted(form: list[str], text: str, noted: bool, run: Run) -> None:
    result = run(["fuse-panel", "-m", "fake/a", *form], text)

    assert result.status == 0
    assert ("--lines asks each" in result.err) == noted
