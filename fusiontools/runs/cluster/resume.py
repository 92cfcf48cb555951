"""What a folder of output holds of a run already, and what is left to do.

A block is done when its answers are there and no failures are; else it is worked on again, less what is answered. Where
the input has changed, blocks have other names; then the ids in the files of unknown blocks say what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import UsageError
from fusiontools.record import jsonl
from fusiontools.runs.cluster.output_folder import FAILED, OutputFolder
from fusiontools.runs.cluster.record_blocks import (
    BlockTask,
    FileBlock,
    digest_of,
    key_of,
    keys_in,
    less_done,
    number_repeated,
    plan_tasks,
)
from fusiontools.runs.cluster.record_files import Location

#: What a folder of output was made with.
_MANIFEST = "_fuse-ray.json"


class LeftOver(Struct, frozen=True):
    """What is left to do.

    Args:
        repeated: how many records have an id that stands before them.
        unknown: files of failed records in which records of these blocks may stand.
    """

    tasks: tuple[BlockTask, ...]
    repeated: int
    unknown: tuple[str, ...]


def claim_output(output: OutputFolder, made_with: Mapping[str, str]) -> None:
    """Note in a folder what it is made with, and remove what killed writers have left there.

    Raises:
        UsageError: it was made with something else.
        OSError: it cannot be read or written.
    """
    kept = output.read_whole(_MANIFEST)
    if kept is None:
        output.write_whole(_MANIFEST, jsonl.dumps(made_with) + b"\n")
    else:
        try:
            before = jsonl.loads(kept)
        except ValueError as error:
            raise UsageError(f"{output.at.shown}/{_MANIFEST}: no JSON; take another folder") from error
        for name, value in made_with.items():
            if before.get(name) != value:
                raise UsageError(
                    f"{output.at.shown}: made with the {name} {before.get(name)!r}, and this is {value!r}: "
                    "say the same, or take another folder"
                )
    output.sweep()


def find_left(
    output: OutputFolder,
    files: Sequence[Location],
    blocks: Sequence[FileBlock],
    read_keys: Callable[[Sequence[Location]], Iterable[bytes]],
) -> LeftOver:
    """Return what is left of these blocks.

    Args:
        read_keys: returns the keys in files of the output, joined.

    Raises:
        OSError: the folder cannot be read.
    """
    numbers = number_repeated(blocks)
    tasks = plan_tasks(files, blocks, numbers)
    answered = {digest_of(name): name for name in output.names()}
    failed = {digest_of(name): name for name in output.names(FAILED)}
    known = {digest_of(task.name) for task in tasks}
    others = [output.location(name) for digest, name in answered.items() if digest not in known]
    done = keys_in(read_keys(others)) if others else set()
    left = []
    for task in tasks:
        digest = digest_of(task.name)
        if digest in answered and digest not in failed:
            continue
        named = replace(task, name=answered.get(digest) or failed.get(digest) or task.name)
        if (less := less_done(named, done) if done else named).left:
            left.append(less)
    unknown = tuple(name for digest, name in failed.items() if digest not in known)
    return LeftOver(tuple(left), sum(map(len, numbers.values())), unknown)


def drop_retried(output: OutputFolder, names: Sequence[str], blocks: Sequence[FileBlock]) -> None:
    """Remove from files of failed records those that now stand in blocks of other names: they were tried again.

    Raises:
        OSError: they cannot be read or written.
    """
    current = keys_in(block.keys for block in blocks)
    for name in names:
        lines = output.read(name, FAILED)
        output.write(name, [line for line in lines if key_of(jsonl.loads(line)["id"]) not in current], FAILED)
