"""What is to be done: files cut into blocks of records, every record under an id of its own, less what is done.

A block is so many records of a file in a row, and the unit of everything: it is handed out, written and remembered as
one. It is called by the ids in it, so its files are found again whatever the input files are called, and records keep
what was done for them where the input has grown or is cut otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import InputError
from fusiontools.record import jsonl
from fusiontools.runs.cluster.record_files import Location, read_lines, stem_of

if TYPE_CHECKING:
    from numpy import ndarray

#: A key is a hash of the id, less its number, and that number.
_HASH_BYTES, _NUMBER_BYTES = 12, 4
KEY_BYTES = _HASH_BYTES + _NUMBER_BYTES
#: An id that stood before it: the second `q1` is `q1#2`.
_NUMBERED = re.compile(r"(?s)(.+)#([2-9]|[1-9][0-9]{1,8})")
#: Of the lines of a block that are no records so many are explained.
_EXPLAINED = 20


class FileBlock(Struct, frozen=True):
    """A block as its file has it.

    Args:
        file: which of the input files.
        number: which block of the file.
        lines: the numbers of its first and last line.
        keys: those of its records, one after another.
        rejected: the numbers of the lines between them that are no records.
        reasons: why the first of these are none.
    """

    file: int
    number: int
    lines: tuple[int, int]
    keys: bytes
    rejected: tuple[int, ...] = ()
    reasons: tuple[tuple[int, str], ...] = ()

    @property
    def size(self) -> int:
        """How many records it has."""
        return len(self.keys) // KEY_BYTES


class BlockTask(Struct, frozen=True):
    """A block that is to be worked on.

    Args:
        name: of its files.
        numbers: of records whose id stands before them too, by their position in the block.
        done: positions of records that are in the output already, in files of other blocks.
    """

    name: str
    block: FileBlock
    numbers: Mapping[int, int] = {}
    done: frozenset[int] = frozenset()

    @property
    def left(self) -> int:
        """How many records of it are not known to be done."""
        return self.block.size - len(self.done)


def key_of(record_id: str) -> bytes:
    """Return the key of an id."""
    numbered = _NUMBERED.fullmatch(record_id)
    base, number = (numbered[1], int(numbered[2])) if numbered else (record_id, 1)
    hashed = hashlib.blake2b(base.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return hashed + number.to_bytes(_NUMBER_BYTES, "big")


def numbered_id(record_id: str, number: int) -> str:
    """Return the id of a record whose own stands before it."""
    numbered = _NUMBERED.fullmatch(record_id)
    return f"{numbered[1] if numbered else record_id}#{number}"


def keys_in(joined: Iterable[bytes]) -> set[bytes]:
    """Return keys that come joined; about a hundred bytes each."""
    return {keys[at : at + KEY_BYTES] for keys in joined for at in range(0, len(keys), KEY_BYTES)}


def index_file(
    number: int, file: Location, size: int, needs: tuple[str, str] | None, most_bytes: int
) -> Iterator[FileBlock]:
    """Yield the blocks of a file.

    Args:
        number: which of the input files it is.
        size: how many records a block has at most.
        needs: the section that a record must bring along, and which tool makes it.
        most_bytes: a longer line is no record.

    Raises:
        OSError: it cannot be read.
    """
    begun, keys = 1, bytearray()
    rejected: list[int] = []
    reasons: list[tuple[int, str]] = []
    at = made = 0
    for at, line in read_lines(file, most_bytes):
        try:
            keys += key_of(_parse(line, needs, most_bytes)["id"])
        except InputError as error:
            rejected.append(at)
            if len(reasons) < _EXPLAINED:
                reasons.append((at, error.message))
        if len(keys) == size * KEY_BYTES:
            yield FileBlock(number, made, (begun, at), bytes(keys), tuple(rejected), tuple(reasons))
            made, begun, keys, rejected, reasons = made + 1, at + 1, bytearray(), [], []
    if keys or rejected:
        yield FileBlock(number, made, (begun, at), bytes(keys), tuple(rejected), tuple(reasons))


def _parse(line: bytes | None, needs: tuple[str, str] | None, most_bytes: int) -> Any:
    if line is None:
        raise InputError(f"the line is longer than {most_bytes / 2**20:g} MiB")
    record = jsonl.parse(line)
    if needs and "error" not in record and needs[0] not in record:
        raise InputError(f"no `{needs[0]}` in this record; {needs[1]} makes it", "$")
    return record


def keys_of_output(file: Location, most_bytes: int) -> Iterator[bytes]:
    """Yield the keys of the records in a file of the output.

    Raises:
        OSError: it cannot be read.
    """
    for _, line in read_lines(file, most_bytes):
        if line is not None:
            yield key_of(jsonl.loads(line)["id"])


def read_blocks(file: Location, tasks: Sequence[BlockTask], most_bytes: int) -> Iterator[tuple[BlockTask, list[bytes]]]:
    """Yield each of these blocks of a file, in order, with the lines of its records.

    Raises:
        OSError: the file cannot be read.
    """
    waiting = iter(tasks)
    task = next(waiting, None)
    lines: list[bytes] = []
    rejected: frozenset[int] = frozenset(task.block.rejected) if task else frozenset()
    for number, line in read_lines(file, most_bytes):
        if task is None:
            return
        first, last = task.block.lines
        if number < first:
            continue
        if number not in rejected and line is not None:
            lines.append(line)
        if number == last:
            yield task, lines
            task, lines = next(waiting, None), []
            rejected = frozenset(task.block.rejected) if task else frozenset()


def number_repeated(blocks: Sequence[FileBlock]) -> dict[int, dict[int, int]]:
    """Return which number each record gets whose id stands before it, by block and position.

    Takes about fifty bytes a record while it works.
    """
    import numpy as np

    keys = np.frombuffer(b"".join(block.keys for block in blocks), dtype=">u8").reshape(-1, 2).astype("u8")
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    again = (ordered[1:] == ordered[:-1]).all(axis=1)
    repeated = np.sort(order[1:][again])
    if not len(repeated):
        return {}
    alike = np.isin(keys[:, 0], keys[repeated, 0])
    taken = {(int(high), int(low)) for high, low in keys[alike]}
    return _by_block(blocks, _numbers(keys, repeated, taken))


def _numbers(keys: ndarray, repeated: ndarray, taken: set[tuple[int, int]]) -> dict[int, int]:
    """Return the next free number of each repeated key, by its place among all."""
    found: dict[int, int] = {}
    bits = 8 * _NUMBER_BYTES
    latest: dict[tuple[int, int], int] = {}
    for place in repeated.tolist():
        high, low = (int(part) for part in keys[place])
        hashed = high, low >> bits
        number = latest.get(hashed, 1) + 1
        while (high, hashed[1] << bits | number) in taken:
            number += 1
        found[place] = latest[hashed] = number
    return found


def _by_block(blocks: Sequence[FileBlock], numbers: Mapping[int, int]) -> dict[int, dict[int, int]]:
    by_block: dict[int, dict[int, int]] = {}
    begin, which = 0, 0
    for place, number in numbers.items():
        while place >= begin + blocks[which].size:
            begin, which = begin + blocks[which].size, which + 1
        by_block.setdefault(which, {})[place - begin] = number
    return by_block


def plan_tasks(
    files: Sequence[Location], blocks: Sequence[FileBlock], numbers: Mapping[int, Mapping[int, int]]
) -> list[BlockTask]:
    """Return every block under the name of its files."""
    return [
        BlockTask(_name_of(files[block.file], block, numbers.get(i, {})), block, numbers.get(i, {}))
        for i, block in enumerate(blocks)
        if block.size
    ]


def _name_of(file: Location, block: FileBlock, numbers: Mapping[int, int]) -> str:
    digest = hashlib.blake2b(b"".join(_keys(block, numbers)), digest_size=8).hexdigest()
    return f"{stem_of(file)}-{block.number:05}-{digest}"


def _keys(block: FileBlock, numbers: Mapping[int, int]) -> Iterator[bytes]:
    """Yield the keys of a block's records under the ids that they get."""
    for position in range(block.size):
        key = block.keys[position * KEY_BYTES : (position + 1) * KEY_BYTES]
        number = numbers.get(position)
        yield key if number is None else key[:_HASH_BYTES] + number.to_bytes(_NUMBER_BYTES, "big")


def digest_of(name: str) -> str:
    """Return what a block is known by, of the name of its files."""
    return name.rpartition("-")[2]


def less_done(task: BlockTask, done: set[bytes]) -> BlockTask:
    """Return the block without the records whose keys are done."""
    positions = [i for i, key in enumerate(_keys(task.block, task.numbers)) if key in done]
    return replace(task, done=frozenset(positions)) if positions else task
