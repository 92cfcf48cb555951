"""Wait for a process that is shut in: within its time, its memory over all processes, and what may be read of it.

A limit per process is none for a program that starts fifty. A control group would count for us, but mostly only root
may make one; so whoever waits looks every few milliseconds at the whole tree.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Literal

from msgspec import Struct

#: How often the tree is looked at, and how often a process is asked where the system cannot tell of its end.
LOOK_S, ASK_S = 0.1, 0.01
_CHUNK_BYTES = 65_536
#: What may come out of one run before it is ended: reading costs us time, too.
_OUTPUT_BYTES = 64 * 2**20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: How a wait ended: by itself, or by which limit.
Ending = Literal["exit", "timeout", "memory", "processes", "output", "disk"]


class Bounds(Struct, frozen=True):
    """What a run may take.

    Args:
        memory_bytes: of all its processes together.
        processes: how many there may be at once.
    """

    seconds: float
    memory_bytes: int = 2 * 2**30
    processes: int = 64


class Output:
    """The head and the tail of what a process says, and all of it, up to a bound, in a file where that is too little.

    Args:
        head_bytes: how much is kept of the beginning.
        tail_bytes: how much is kept of the end.
        file: where all of it is written once head and tail are full; it must not exist.
        file_bytes: the most that is written there.
    """

    def __init__(self, head_bytes: int, tail_bytes: int, file: Path | None = None, file_bytes: int = 0) -> None:
        self.size_bytes = 0
        self.lines = 0
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._held = 0
        self._path = file
        self._file: IO[bytes] | None = None
        self._file_room = file_bytes
        self._last = b""

    def add(self, data: bytes) -> None:
        """Take what came."""
        self.size_bytes += len(data)
        self.lines += data.count(b"\n")
        # The end of a pipe is nothing, too.
        self._last = data[-1:] or self._last
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        if rest := data[room:]:
            self._tail.append(rest)
            self._held += len(rest)
        if self._path is not None and self._held > self._tail_bytes:
            self._write(data)
        while self._tail and self._held - len(self._tail[0]) >= self._tail_bytes:
            self._held -= len(self._tail.popleft())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None and self._path is not None:
            self._file = self._path.open("xb")
            data = bytes(self._head) + b"".join(self._tail)
        if self._file is not None and self._file_room > 0:
            self._file.write(data[: self._file_room])
            self._file_room -= len(data)

    def text(self, rest_in: str = "") -> str:
        """Return the text, or its beginning and its end with what was left out said between and before them.

        Args:
            rest_in: where all of it stands.
        """
        head, tail = bytes(self._head), b"".join(self._tail)[-self._tail_bytes :]
        left_out = self.size_bytes - len(head) - len(tail)
        if left_out <= 0:
            return (head + tail).decode("utf-8", "replace")
        # Whole lines, as far as there are any.
        head = head[: head.rfind(b"\n") + 1] or head
        tail = tail[tail.find(b"\n") + 1 :] or tail
        shown = head.count(b"\n") + tail.count(b"\n") + (not tail.endswith(b"\n"))
        of = self.lines + (self._last != b"\n")
        where = f"; the rest is in {rest_in}" if rest_in else ""
        said = f"[{shown} of {of} lines are shown, the beginning and the end{where}]"
        cut = f"[… {self.size_bytes - len(head) - len(tail)} bytes left out …]"
        return "\n".join([said, head.decode("utf-8", "replace").rstrip("\n"), cut, tail.decode("utf-8", "replace")])


def wait_within(
    process: subprocess.Popen[bytes],
    bounds: Bounds,
    *,
    also: Sequence[subprocess.Popen[bytes]] = (),
    reader: int | None = None,
    output: Output | None = None,
    too_full: Callable[[], bool] | None = None,
) -> Ending:
    """Wait for a process to end, or for a limit to be reached; blocks, and ends nothing.

    Its end is waited for and not that of its output: what it leaves behind may hold that open for ever.

    Args:
        also: other processes whose trees count, too.
        reader: the end of a pipe from which the output is read.
        too_full: whether it has written too much; asked now and then.
    """
    give_up = time.monotonic() + bounds.seconds
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        told = _watch_end(process, selector, stack)
        if reader is not None:
            os.set_blocking(reader, False)
            selector.register(reader, selectors.EVENT_READ, "output")
        look_at = time.monotonic() + LOOK_S
        while process.poll() is None:
            now = time.monotonic()
            if now >= give_up:
                return _after(reader, output, "timeout")
            if now >= look_at:
                look_at = now + LOOK_S
                if over := _over([process.pid, *(each.pid for each in also)], bounds):
                    return _after(reader, output, over)
                if too_full is not None and too_full():
                    return _after(reader, output, "disk")
            ready = selector.select(min(give_up - now, look_at - now, LOOK_S if told else ASK_S))
            if reader is not None and output is not None and any(key.data == "output" for key, _ in ready):
                if not _read(reader, output):
                    selector.unregister(reader)
                    reader = None
                elif output.size_bytes > _OUTPUT_BYTES:
                    return "output"
        return _after(reader, output, "exit")


def _watch_end(process: subprocess.Popen[bytes], selector: selectors.BaseSelector, stack: contextlib.ExitStack) -> bool:
    """Have the selector wake when the process ends, where the system can; say whether it can."""
    try:
        number = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return False
    stack.callback(os.close, number)
    selector.register(number, selectors.EVENT_READ, "end")
    return True


def _read(reader: int, output: Output) -> bool:
    """Read once; return whether more can come."""
    try:
        data = os.read(reader, _CHUNK_BYTES)
    except BlockingIOError:
        return True
    output.add(data)
    return bool(data)


def _after(reader: int | None, output: Output | None, ending: Ending) -> Ending:
    """Read what is there already, but no more than a pipe holds: somebody may still be writing."""
    if reader is None or output is None:
        return ending
    left = 2**20
    while left > 0:
        try:
            data = os.read(reader, _CHUNK_BYTES)
        except BlockingIOError:
            break
        if not data:
            break
        output.add(data)
        left -= len(data)
    return ending


def _over(roots: Sequence[int], bounds: Bounds) -> Ending | None:
    """Say which limit the trees of these processes are over."""
    tree: list[int] = []
    waiting = list(roots)
    while waiting and len(tree) <= bounds.processes + len(roots) + 4:
        number = waiting.pop()
        tree.append(number)
        waiting += _children(number)
    # Whoever shuts a process in is none of its own: two of bubblewrap's, or a keeper, for each.
    if len(tree) > bounds.processes + 2 * len(roots):
        return "processes"
    if sum(map(_resident, tree)) > bounds.memory_bytes and sum(map(_own_share, tree)) > bounds.memory_bytes:
        return "memory"
    return None


def _children(number: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{number}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _resident(number: int) -> int:
    """Return how many bytes of memory a process holds; 0 where nobody can tell."""
    try:
        return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _own_share(number: int) -> int:
    """Return the same with what is shared counted once: slow, and the truth about one that has many children."""
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration, ValueError):
        return _resident(number)
