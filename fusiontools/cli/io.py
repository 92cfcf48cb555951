"""Standard input, files and standard output as bytes: lines in, lines out, a thread for each to wait on.

A record leaves before the next one arrives, and a slow reader never stalls the calls in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import re
import select
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from msgspec import Struct

from fusiontools.cli.command import complain, leave
from fusiontools.cli.values import ObjectReader, is_undecided, spans_lines
from fusiontools.errors import EXIT_OK, EXIT_SOME_FAILED, UsageError

#: Linux: write what there is room for and fail rather than wait, whoever else writes to the same pipe meanwhile.
try:
    from os import RWF_NOWAIT as _WITHOUT_WAITING
except ImportError:  # another system, or a Python that was built on an older one
    _WITHOUT_WAITING = 0  # type: ignore[misc]

_CHUNK_BYTES = 1 << 18
_HELD_BYTES = 1 << 20
_IDS_REMEMBERED = 16_384
#: A text in another encoding has a few bad bytes, each in a line that is refused; what has more is no text.
_BROKEN_SHARE = 0.1
_FEW_BROKEN = 16
#: Of complaints that differ in such things only, the first few say it all.
_VARYING = re.compile(r"'(?:[^'\\]|\\.)*'|\d[\d,.]*|0x[0-9a-f]+")
_ALIKE_SHOWN = 5
#: So many lines may be a list of questions.
_LIST_LINES = 5
_BEGINNING = re.compile(rb"[A-Z0-9\"'*\xc2-\xf4]")
_BOM = b"\xef\xbb\xbf"


class Line(Struct):
    """One unit of input: a line, or all of a plain text; `problem` is why its bytes are not to be had."""

    name: str
    number: int
    data: bytes
    as_text: bool = False
    problem: str | None = None

    @property
    def place(self) -> str:
        """Return where it came from, for a person."""
        return f"{self.name}:{self.number}" if self.number else self.name


class Input:
    """The input of a tool, in batches of lines, as many as one read gave; nothing is parsed beyond finding the lines.

    Args:
        files: paths; `-` and nothing are standard input.
        form: `auto` (the first byte that is no space decides: `{` is JSON Lines), `text`, `lines` or `jsonl`.
        max_line_bytes: a longer line is a problem, and is not kept in memory.
        counts_ahead: count the lines of regular files before they are read, for somebody who watches.
    """

    def __init__(self, files: Sequence[str], form: str, max_line_bytes: int, *, counts_ahead: bool = False) -> None:
        self._files = [(name, _open(name)) for name in (files or ["-"])]
        self._form = form
        self._max = max_line_bytes
        self._queue: queue.Queue[list[Line] | None] = queue.Queue(maxsize=2)
        self._handed_over = 0
        #: How many lines there are, once all are read.
        self.count: int | None = None
        #: The same before they are read, where all of them are regular files.
        self.expected: int | None = None
        self._counts_ahead = counts_ahead
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def batches(self) -> AsyncIterator[list[Line]]:
        """Yield what arrives."""
        threading.Thread(target=self._read_all, name="input", daemon=True).start()
        while True:
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                self._arrived.clear()
                if self._queue.empty():
                    await self._arrived.wait()
                continue
            if batch is None:
                return
            yield batch

    def _read_all(self) -> None:
        self.expected = self._count_ahead()
        for name, fd in self._files:
            shown = "stdin" if name == "-" else name
            try:
                self._read(shown, fd)
            except OSError as error:
                self._hand_over([Line(shown, 0, b"", problem=f"cannot be read: {error.strerror}")])
        self.count = self._handed_over
        self._hand_over(None)

    def _count_ahead(self) -> int | None:
        """Return how many lines the files have; None where one is no regular file, or is no list of lines."""
        if not self._counts_ahead or self._form == "text":
            return None
        count = 0
        for _, fd in self._files:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            at = os.lseek(fd, 0, os.SEEK_CUR)
            if self._form == "auto" and not os.pread(fd, _CHUNK_BYTES, at).lstrip().startswith(b"{"):
                return None
            last = b"\n"
            while chunk := os.pread(fd, 1 << 20, at):
                at += len(chunk)
                count += chunk.count(b"\n")
                last = chunk[-1:]
            count += last != b"\n"
        return count

    def _hand_over(self, batch: list[Line] | None) -> None:
        self._handed_over += len(batch or ())
        self._queue.put(batch)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    def _read(self, name: str, fd: int) -> None:
        head = b""
        while not head.strip():
            chunk = os.read(fd, _CHUNK_BYTES)
            head += chunk
            if not chunk or len(head) > self._max:
                break
            head = head.removeprefix(_BOM) if len(head) >= len(_BOM) else head
        is_json = self._form == "jsonl" or (self._form == "auto" and head.lstrip().startswith(b"{"))
        if not is_json and (problem := _why_no_text(head)):
            self._hand_over([Line(name, 0, head, as_text=True, problem=problem)])
        elif not is_json and self._form != "lines":
            self._read_text(name, fd, head)
        elif is_json and spans_lines(head := self._with_second_line(fd, head)):
            self._read_objects(name, fd, head)
        else:
            self._read_lines(name, fd, head)

    def _with_second_line(self, fd: int, head: bytes) -> bytes:
        """Return the head with the beginning of its second line, where the first line is no whole record."""
        while is_undecided(head) and len(head) <= self._max and (chunk := os.read(fd, _CHUNK_BYTES)):
            head += chunk
        return head

    def _read_text(self, name: str, fd: int, head: bytes) -> None:
        pieces, size = [head], len(head)
        while size <= self._max and (chunk := os.read(fd, _CHUNK_BYTES)):
            pieces.append(chunk)
            size += len(chunk)
        if size > self._max:
            self._hand_over([Line(name, 0, b"", as_text=True, problem=self._too_long("the question"))])
        elif data := b"".join(pieces):
            self._hand_over([Line(name, 0, data, as_text=True)])

    def _read_lines(self, name: str, fd: int, head: bytes) -> None:
        number, size = 0, 0
        kept: list[bytes] = []
        chunk = head
        while chunk:
            *ended, rest = chunk.split(b"\n")
            batch: list[Line] = []
            for piece in ended:
                number += 1
                batch += self._line(name, number, [*kept, piece], size + len(piece))
                kept, size = [], 0
            size += len(rest)
            # A line too long is counted, not kept.
            kept = [*kept, rest] if size <= self._max else []
            if batch:
                self._hand_over(batch)
            chunk = os.read(fd, _CHUNK_BYTES)
        if last := self._line(name, number + 1, kept, size):
            self._hand_over(last)

    def _read_objects(self, name: str, fd: int, head: bytes) -> None:
        """Read JSON that is laid out over several lines; an object's number is that of the line in which it begins."""
        reader, number, rest = ObjectReader(), 0, b""
        chunk = head
        while chunk or rest:
            *ended, rest = (rest + chunk).split(b"\n") if chunk else (rest, b"")
            batch: list[Line] = []
            for piece in ended:
                number += 1
                batch += [Line(name, at, data) for at, data in reader.feed(piece, number)]
                if reader.held > self._max:
                    batch.append(Line(name, number, b"", problem=self._too_long("the record")))
                    reader.drop()
            if batch:
                self._hand_over(batch)
            chunk = os.read(fd, _CHUNK_BYTES) if chunk else b""
        if unended := [Line(name, at, data) for at, data in reader.finish()]:
            self._hand_over(unended)

    def _line(self, name: str, number: int, pieces: list[bytes], size: int) -> list[Line]:
        """Return the line, or nothing where it is blank."""
        as_text = self._form == "lines"
        if size > self._max:
            return [Line(name, number, b"", as_text, self._too_long("the line"))]
        data = b"".join(pieces)
        return [Line(name, number, data, as_text)] if data.strip() else []

    def _too_long(self, what: str) -> str:
        return f"{what} is longer than {self._max / 2**20:g} MiB (--max-line-mib)"


def _why_no_text(head: bytes) -> str | None:
    """Return why the beginning of an input is plainly no text, so that nobody is asked about it."""
    if (at := head.find(b"\0")) >= 0:
        utf16 = "; if it is UTF-16: iconv -f UTF-16 -t UTF-8" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        return f"binary, not text: NUL byte at offset {at}{utf16}; nothing of it is asked"
    # A character that the chunk cuts in two is no fault.
    broken = head.decode("utf-8", "replace").rstrip("\ufffd").count("\ufffd")
    if broken > max(_FEW_BROKEN, _BROKEN_SHARE * len(head)):
        return f"not UTF-8: {broken:,} bad bytes in the first {len(head):,}; nothing of it is asked"
    return None


def _open(name: str) -> int:
    if name == "-":
        return 0
    try:
        fd = os.open(name, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return fd
    except OSError as error:
        asked = "; a question comes on stdin (echo … | fuse-panel), or is fuse-ask's" if " " in name.strip() else ""
        raise UsageError(f"{name}: cannot be read: {error.strerror}{asked}") from error


class Sink:
    """Standard output.

    What is put is written at once and in order; nothing waits in a buffer of ours. `closed` is set when the reader
    has gone, `failure` holds why nothing can be written (a full disk).
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        #: So many bytes have been handed over, and written, which the thread counts while it has any, else the loop.
        self._given = self._written = 0
        self._waiters = 0
        self._is_finished = False
        self._drained = asyncio.Event()
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    async def put(self, data: bytes) -> None:
        """Hand over bytes; waits while the reader is far behind."""
        self.put_nowait(data)
        while self._given - self._written > _HELD_BYTES and not self.closed.is_set():
            self._drained.clear()
            self._waiters += 1
            try:
                if self._given - self._written > _HELD_BYTES:
                    await self._drained.wait()
            finally:
                self._waiters -= 1

    def put_nowait(self, data: bytes) -> None:
        """Write what can be written without waiting, and hand over the rest."""
        if self._is_finished:
            return
        is_idle = self._given == self._written
        self._given += len(data)
        if is_idle and _WITHOUT_WAITING:
            with contextlib.suppress(OSError, NotImplementedError):  # the thread finds it, too
                written = os.pwritev(1, (data,), -1, _WITHOUT_WAITING)
                self._written += written
                data = data[written:]
        if data:
            self._pieces.put(data)

    def finish(self, timeout_s: float | None = None) -> None:
        """Return when everything is written, or when the time is over; nothing is written that is put later."""
        self._is_finished = True
        self._pieces.put(None)
        self._thread.join(timeout_s)

    def _write(self) -> None:
        ended = False
        while not ended:
            pieces = [self._pieces.get()]
            while not self._pieces.empty():
                pieces.append(self._pieces.get())
            ended = None in pieces
            data = b"".join([piece for piece in pieces if piece is not None])
            try:
                write_all(1, data)
            except OSError as error:
                self.failure = None if isinstance(error, BrokenPipeError) else error
                self._tell(self.closed)
                self._tell(self._drained)
                return
            self._written += len(data)
            if self._waiters:  # else it would wake the loop for nobody
                self._tell(self._drained)

    def _tell(self, event: asyncio.Event) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(event.set)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it; another process may have made a shared pipe non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def write_whole(path: str, data: bytes) -> None:
    """Write a file so that it is the old one or the new one, whatever ends this process: never half of it.

    What is no regular file (a pipe, a device) is written to as it is.

    Raises:
        UsageError: it cannot be written.
    """
    target = Path(path).resolve()
    beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                beside.chmod(target.stat().st_mode & 0o7777)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def write_or_leave(tool: str, data: bytes, fd: int = 1) -> None:
    """Write all of it now, or end the tool: quietly where the reader has gone, with a word where the disk is full."""
    try:
        write_all(fd, data)
    except BrokenPipeError:
        leave(EXIT_OK)
    except OSError as error:
        complain(tool, f"stdout: {error.strerror}")
        leave(EXIT_SOME_FAILED)


def is_colour_welcome() -> bool:
    """Return whether standard output is a terminal that shows colours to somebody who wants them."""
    return os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def note_list(tool: str, line: Line) -> None:
    """Say that `--lines` makes many questions of a plain text that looks like a list of them."""
    lines = [text for text in line.data.split(b"\n") if text.strip()]
    if len(lines) < _LIST_LINES:
        return
    # Prose and code have lines that begin in the middle of something, lists of questions hardly any.
    beginnings = sum(1 for text in lines if _BEGINNING.match(text))
    asked = sum(1 for text in lines if text.rstrip().endswith(b"?"))
    if beginnings >= 0.9 * len(lines) or asked >= 0.5 * len(lines):
        complain(
            tool, f"note: {len(lines):,} lines are one question here; --lines asks each of them (--text: as it is)"
        )


class Flood:
    """Complaints about lines: the first few of each kind are said, the others are counted."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._counts: dict[str, int] = {}

    def say(self, place: str, reason: str) -> None:
        """Complain of a line."""
        kind = _VARYING.sub("…", reason.partition(";")[0])
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] <= _ALIKE_SHOWN:
            complain(self._tool, f"{place}: {reason}")

    def sum_up(self) -> None:
        """Say how many more there were of each kind."""
        for kind, count in self._counts.items():
            if count > _ALIKE_SHOWN:
                complain(self._tool, f"and {count - _ALIKE_SHOWN:,} more like it: {kind}")


class SeenIds:
    """The ids of the last 16,384 records, in bounded memory: later tools join on them."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._places: dict[str, str] = {}

    def note(self, record_id: str, place: str = "") -> None:
        """Remember an id and where it stands; warn of one that was seen before."""
        if (first := self._places.get(record_id)) is not None:
            where, before = (f"{place}: ", f", at {first}") if place else ("", "")
            complain(self._tool, f"{where}warning: the id {record_id[:80]!r} was seen before{before}")
            return
        self._places[record_id] = place
        if len(self._places) > _IDS_REMEMBERED:
            del self._places[next(iter(self._places))]
