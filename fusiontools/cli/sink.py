"""Write standard output on a thread of its own, so that a slow reader never stalls the calls in flight."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections import deque

_HELD_BYTES = 1 << 20


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
