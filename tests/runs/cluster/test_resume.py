"""What is left of a run: after a kill at any moment, and where the input or the size of blocks has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fusiontools.errors import UsageError
from fusiontools.runs.cluster.output_folder import FAILED, OutputFolder
from fusiontools.runs.cluster.record_blocks import FileBlock, index_file, keys_of_output
from fusiontools.runs.cluster.record_files import Location, locate
from fusiontools.runs.cluster.resume import LeftOver, claim_output, drop_retried, find_left


class Desk:
    """A file of records, the folder of their output, and what is left between them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.output = folder / "q.jsonl", OutputFolder(locate(str(folder / "out")), "jsonl")

    def ask(self, *ids: str) -> None:
        self.source.write_text("".join(line(name) for name in ids))

    def blocks(self, size: int = 2) -> list[FileBlock]:
        return list(index_file(0, locate(str(self.source)), size, None, 2**20))

    def left(self, size: int = 2) -> LeftOver:
        def read_keys(files: Sequence[Location]) -> list[bytes]:
            return [b"".join(keys_of_output(file, 2**20)) for file in files]

        return find_left(self.output, [locate(str(self.source))], self.blocks(size), read_keys)

    def write(self, name: str, *ids: str, folder: str = "") -> None:
        self.output.write(name, [line(each).encode() for each in ids], folder)


def line(name: str) -> str:
    return json.dumps({"id": name, "messages": [{"role": "user", "content": f"{name}?"}]}) + "\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.ask("a", "b", "c", "d")
    return made


def test_a_block_with_answers_and_no_failures_is_done(desk: Desk) -> None:
    first, second = desk.left().tasks
    desk.write(first.name, "a", "b")

    assert [task.name for task in desk.left().tasks] == [second.name]


@pytest.mark.parametrize("answered", [True, False])
def test_a_block_with_failures_is_left_whether_or_not_its_answers_were_written(desk: Desk, answered: bool) -> None:
    first, second = desk.left().tasks
    desk.write(first.name, "b", folder=FAILED)
    desk.write(second.name, "c", "d")
    if answered:
        desk.write(first.name, "a")

    [task] = desk.left().tasks

    assert task.name == first.name


def test_records_that_are_out_are_done_however_the_input_is_cut_now(desk: Desk) -> None:
    for task, ids in zip(desk.left().tasks, (("a", "b"), ("c", "d")), strict=True):
        desk.write(task.name, *ids)
    desk.ask("new", "a", "b", "c", "d", "e")

    [first, second] = desk.left(size=3).tasks

    assert (sorted(first.done), first.left) == ([1, 2], 1)
    assert (sorted(second.done), second.left) == ([0, 1], 1)


def test_records_with_a_number_are_found_again(desk: Desk) -> None:
    desk.ask("a", "a", "b")
    desk.write(desk.left().tasks[0].name, "a", "a#2")
    desk.ask("b", "a", "a")

    left = desk.left(size=3)

    assert (left.repeated, sorted(left.tasks[0].done)) == (1, [1, 2])


def test_failures_of_blocks_that_are_no_more_go_when_their_records_were_tried_again(desk: Desk) -> None:
    desk.write("q-00000-0123456789abcdef", "b", "gone", folder=FAILED)

    drop_retried(desk.output, desk.left().unknown, desk.blocks())

    [kept] = desk.output.read("q-00000-0123456789abcdef", FAILED)
    assert json.loads(kept)["id"] == "gone"


def test_a_folder_is_for_one_chain(desk: Desk) -> None:
    claim_output(desk.output, {"chain": "panel", "format": "jsonl"})
    claim_output(desk.output, {"chain": "panel", "format": "jsonl"})

    with pytest.raises(UsageError, match=r"out: made with the chain 'panel', and this is .panel \| vote."):
        claim_output(desk.output, {"chain": "panel | vote", "format": "jsonl"})
