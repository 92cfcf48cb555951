"""Standard input, files and standard output as bytes: lines in, lines out, each on a thread of its own.

A record leaves before the next one arrives, and a slow reader never stalls the calls in flight.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from fusiontools.cli.command import complain, leave
from fusiontools.errors import EXIT_OK, EXIT_SOME_FAILED, UsageError

_CHUNK_BYTES = 1 << 16
_HELD_BYTES = 1 << 20
_IDS_REMEMBERED = 16_384
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Line:
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


class Source:
    """The input of a tool, in batches of lines, as many as one read gave; nothing is parsed beyond finding the lines.

    Args:
        files: paths; `-` and nothing are standard input.
        form: `auto` (the first byte that is no space decides: `{` is JSON Lines), `text`, `lines` or `jsonl`.
        max_line_bytes: a longer line is a problem, and is not kept in memory.
    """

    def __init__(self, files: Sequence[str], form: str, max_line_bytes: int) -> None:
        self._files = [(name, _open(name)) for name in (files or ["-"])]
        self._form = form
        self._max = max_line_bytes
        self._queue: queue.Queue[list[Line] | None] = queue.Queue(maxsize=2)
        self._handed_over = 0
        #: How many lines there are, once all are read.
        self.count: int | None = None
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
        for name, fd in self._files:
            shown = "stdin" if name == "-" else name
            try:
                self._read(shown, fd)
            except OSError as error:
                self._hand_over([Line(shown, 0, b"", problem=f"cannot be read: {error.strerror}")])
        self.count = self._handed_over
        self._hand_over(None)

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
        if self._form == "text" or (self._form == "auto" and not head.lstrip().startswith(b"{")):
            self._read_text(name, fd, head)
        else:
            self._read_lines(name, fd, head)

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

    def _line(self, name: str, number: int, pieces: list[bytes], size: int) -> list[Line]:
        """Return the line, or nothing where it is blank."""
        as_text = self._form == "lines"
        if size > self._max:
            return [Line(name, number, b"", as_text, self._too_long("the line"))]
        data = b"".join(pieces)
        return [Line(name, number, data, as_text)] if data.strip() else []

    def _too_long(self, what: str) -> str:
        return f"{what} is longer than {self._max / 2**20:g} MiB (--max-line-mib)"


def _open(name: str) -> int:
    if name == "-":
        return 0
    try:
        return os.open(name, os.O_RDONLY)
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
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._work = threading.Condition()
        self._drained = asyncio.Event()
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    async def put(self, data: bytes) -> None:
        """Hand over bytes; waits while the reader is far behind."""
        self.put_nowait(data)
        while self._held > _HELD_BYTES and not self.closed.is_set():
            self._drained.clear()
            if self._held > _HELD_BYTES:
                await self._drained.wait()

    def put_nowait(self, data: bytes) -> None:
        """Hand over bytes without waiting."""
        with self._work:
            self._pieces.append(data)
            self._held += len(data)
            self._work.notify()

    def finish(self, timeout_s: float | None = None) -> None:
        """Return when everything is written, or when the time is over."""
        with self._work:
            self._ended = True
            self._work.notify()
        self._thread.join(timeout_s)

    def _write(self) -> None:
        while True:
            with self._work:
                while not self._pieces and not self._ended:
                    self._work.wait()
                data = b"".join(self._pieces)
                self._pieces.clear()
            if not data:
                return
            try:
                write_all(1, data)
            except OSError as error:
                self.failure = None if isinstance(error, BrokenPipeError) else error
                self._tell(self.closed)
                self._tell(self._drained)
                return
            with self._work:
                self._held -= len(data)
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
