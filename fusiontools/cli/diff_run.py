"""One run of `fuse-diff`; apart from `diff.py`, whose `--help` needs nothing of it."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import astuple

from fusiontools.cli.command import collect_less, complain, leave
from fusiontools.cli.diff_text import KIND_WORDS, DiffPrinter, one_line, unread_lines
from fusiontools.cli.io import Input, Line, Sink, is_colour_welcome
from fusiontools.cli.text import Paint
from fusiontools.errors import EXIT_INTERRUPTED, InputError, UsageError
from fusiontools.evaluation.diff.records import Change, RecordCounts, Side, change_data, compare, side_of
from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl

_SAME, _DIFFER, _TROUBLE = 0, 1, 2
_HELD_BYTES = 64 << 20
_DUPLICATES_SHOWN = 5
#: A file that is no JSON Lines at all would fill the screen.
_UNREAD_SHOWN = 5
#: What JSON may hold as it is, and a terminal could take for a command.
_STEERING = re.compile("[\x7f-\x9f]")
#: An id, and how many records with it stand before this one in the same file.
Key = tuple[str, int]


class Wanted(Struct, frozen=True):
    """What is compared, and how it is told; `whole` leaves no text out."""

    form: Literal["text", "json", "brief", "nothing"]
    answers_only: bool
    whole: bool
    max_line_bytes: int


class PendingRecords:
    """Records of one file that wait for their partners; what is known of each in memory is its key and its place."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_HELD_BYTES)  # noqa: SIM115 - lives as long as the records
        self._places: dict[Key, tuple[int, int]] = {}
        self._end = 0

    def put(self, key: Key, side: Side) -> None:
        """Lay down a record."""
        data = jsonl.dumps([side.record, astuple(side.spent)])
        self._file.write(data)
        self._places[key] = (self._end, len(data))
        self._end += len(data)

    def take(self, key: Key) -> Side | None:
        """Return a record, which no longer waits."""
        if (place := self._places.pop(key, None)) is None:
            return None
        self._file.seek(place[0])
        record, spent = jsonl.loads(self._file.read(place[1]))
        return Side(record, Spending(*spent))

    def ids(self) -> list[str]:
        """Return the ids of those that still wait, in the order of their file."""
        return [name for name, _ in self._places]


class Comparison:
    """One run of `fuse-diff`."""

    def __init__(self, files: tuple[str, str], wanted: Wanted) -> None:
        if files == ("-", "-"):
            raise UsageError("only one of the two can be standard input; name a file for the other")
        self.files = files
        self.names = ("stdin" if files[0] == "-" else files[0], "stdin" if files[1] == "-" else files[1])
        self.wanted = wanted
        self.tally = RecordCounts()
        self.writer = DiffPrinter(Paint(is_colour_welcome()), wanted.whole)

    async def run(self) -> int:
        """Compare the files and return the exit status."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # Not the loop's own handler: that one would wait until a long comparison is over.
            signal.signal(signal.SIGINT, lambda *_: leave(EXIT_INTERRUPTED))
        if "-" in self.files and os.isatty(0):
            complain("fuse-diff", "reads records on stdin; press Ctrl-D to end (--help explains)")
        collect_less()
        first, second = (Input([name], "jsonl", self.wanted.max_line_bytes) for name in self.files)
        self.sink = Sink()
        try:
            await self._compare(first, second)
        except OSError as error:
            raise UsageError(f"{error.filename or tempfile.gettempdir()}: {error.strerror}") from error
        finally:
            self.sink.finish()
        if self.sink.failure is not None:
            raise UsageError(f"stdout: {self.sink.failure.strerror}")
        return _TROUBLE if any(self.tally.unread) else _DIFFER if self.tally.differ else _SAME

    async def _compare(self, first: Input, second: Input) -> None:
        pending = PendingRecords()
        async for key, side in self._sides(second, 1):
            pending.put(key, side)
        async for key, side in self._sides(first, 0):
            await self._meet(side, pending.take(key))
            if self.sink.closed.is_set():
                return
        for name in pending.ids():
            await self._alone(name, 1)
        if self.wanted.form == "json":
            await self._write(_json_line({"summary": self.tally.data()}))
        elif self.wanted.form == "text":
            await self._write(self.writer.summary(self.tally, self.names))
        elif any(self.tally.unpaired):
            for line in unread_lines(self.tally, self.names):
                complain("fuse-diff", line)

    async def _sides(self, source: Input, file: int) -> AsyncIterator[tuple[Key, Side]]:
        name = self.names[file]
        seen: Counter[str] = Counter()
        async for batch in source.batches():
            for line in batch:
                if (side := self._read(line, file)) is None:
                    continue
                record_id = side.record["id"]
                seen[record_id] += 1
                yield (record_id, seen[record_id]), side
        if (more := self.tally.unread[file] - _UNREAD_SHOWN) > 0:
            complain("fuse-diff", f"{name}: and {more:,} more line{'s' * (more > 1)} cannot be read")
        twice = [record_id for record_id, count in seen.items() if count > 1]
        if twice and self.wanted.form != "nothing":
            shown = ", ".join(map(one_line, twice[:_DUPLICATES_SHOWN]))
            and_more = ", …" if len(twice) > _DUPLICATES_SHOWN else ""
            complain("fuse-diff", f"{name}: more than one record with the same id, paired in order: {shown}{and_more}")

    def _read(self, line: Line, file: int) -> Side | None:
        """Return what is compared of a record; of a line that is none it is said why, and the rest goes on."""
        if line.problem and not line.number:
            raise UsageError(f"{line.place}: {line.problem}")
        try:
            if line.problem:
                raise InputError(line.problem)
            return side_of(jsonl.parse(line.data))
        except InputError as error:
            self.tally.unread[file] += 1
            if self.tally.unread[file] <= _UNREAD_SHOWN:
                complain("fuse-diff", f"{line.place}: {error.message}")
            return None

    async def _meet(self, a: Side, b: Side | None) -> None:
        if b is None:
            await self._alone(a.record["id"], 0)
            return
        change = compare(a, b, answers_only=self.wanted.answers_only)
        self.tally.add(a, b, change)
        if change is not None and self.wanted.form != "nothing":
            await self._write(self._tell(change))

    def _tell(self, change: Change) -> str:
        if self.wanted.form == "json":
            return _json_line(change_data(change))
        if self.wanted.form == "brief":
            return f"{one_line(change.id)}: {KIND_WORDS[change.kind]}\n"
        return self.writer.change(change)

    async def _alone(self, record_id: str, file: int) -> None:
        """Report a record that stands in one file only; where the other could not be read, nobody knows whether."""
        if not self.tally.add_alone(file):
            return
        if self.wanted.form == "json":
            await self._write(_json_line({"id": record_id, "change": ("only_in_a", "only_in_b")[file]}))
        else:
            end = "\n\n" if self.wanted.form == "text" else "\n"
            await self._write(f"only in {one_line(self.names[file])}: {one_line(record_id)}{end}")

    async def _write(self, text: str) -> None:
        if self.wanted.form != "nothing":
            await self.sink.put(text.encode("utf-8", "replace"))


def _json_line(data: Any) -> str:
    # A record may be nested as deeply as our own writer goes, and here it stands some levels deeper.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
