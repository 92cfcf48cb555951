"""The end of a screen, drawn over itself while something is under way; above it what is finished stays as it was."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import TextIOBase
from typing import TextIO

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

_FRAMES_PER_S = 8
#: The share of the screen that may be drawn over: what a smaller window pushes out of sight could not be taken back.
_SHARE = 0.7
_CLEAR_LINE, _UP = "\r\x1b[2K", "\x1b[1A\x1b[2K"
#: A glyph that the terminal takes for wider than we do must not begin another line.
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


class Region:
    """The region of one console; nothing else may be written to it between `start` and `close`.

    What is written to `sys.stderr` meanwhile (a warning, the fetching of a model) comes to stand above it.

    Args:
        render: gives what is to be seen; of what is too high for the screen the last lines are.
    """

    def __init__(self, console: Console, render: Callable[[], RenderableType]) -> None:
        self._console = console
        self._render = render
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._drawn = ""
        #: How wide each line on the screen is, and how wide the screen was.
        self._widths: list[int] = []
        self._screen_width = 0
        self._stderr: TextIO | None = None

    def start(self) -> None:
        """Draw, again and again; nothing is drawn on what is no terminal, or can only be written along."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return
        self._draw()
        self._stderr = sys.stderr
        sys.stderr = _AboveRegion(self, self._stderr)
        self._thread = threading.Thread(target=self._tick, name="region", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take away what was drawn; the cursor stands where it began."""
        self._closed.set()
        left = ""
        if isinstance(sys.stderr, _AboveRegion) and sys.stderr.region is self:
            left, sys.stderr = sys.stderr.begun, self._stderr
        with self._lock:
            if self._widths or left:
                self._write(self._erasing() + left)
                self._widths = []
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1 / _FRAMES_PER_S)

    def write_above(self, text: str) -> None:
        """Write whole lines where the region begins, and draw it below them."""
        with self._lock:
            self._write(self._erasing() + text)
            self._widths, self._drawn = [], ""
            self._draw()

    def _tick(self) -> None:
        while not self._closed.wait(1 / _FRAMES_PER_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            width = self._console.width
            most = max(1, int(self._console.height * _SHARE))
            lines = self._console.render_lines(self._render(), pad=False)[-most:]
            drawn = self._as_text(lines)
            if drawn == self._drawn and width == self._screen_width:
                return
            self._write(self._erasing() + _NO_WRAP + drawn + _WRAP)
            self._drawn, self._screen_width = drawn, width
            self._widths = [Segment.get_line_length(line) for line in lines]

    def _as_text(self, lines: list[list[Segment]]) -> str:
        flat: list[Segment] = []
        for number, line in enumerate(lines):
            flat += [Segment("\n"), *line] if number else line
        with self._console.capture() as capture:
            self._console.print(Segments(flat), end="")
        return capture.get()

    def _erasing(self) -> str:
        """Return what takes the drawn lines away; a window that became narrower has broken them into more."""
        if not self._widths:
            return ""
        width = max(1, self._console.width)
        rows = len(self._widths)
        if width < self._screen_width and _breaks_lines():
            rows = sum(max(1, math.ceil(each / width)) for each in self._widths)
        return _CLEAR_LINE + _UP * (rows - 1)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # whoever writes the answer finds out that nobody looks any more
            self._console.file.write(text)
            self._console.file.flush()


class _AboveRegion(TextIOBase):
    """Standard error while a region is drawn.

    Args:
        rich_proxied_file: standard error itself, where rich looks for it.
    """

    def __init__(self, region: Region, rich_proxied_file: TextIO | None) -> None:
        self.region, self.rich_proxied_file = region, rich_proxied_file
        #: What has no end yet.
        self.begun = ""

    def write(self, text: str) -> int:
        """Write lines above the region; what has no end yet waits for it."""
        *whole, self.begun = (self.begun + text).split("\n")
        if whole:
            self.region.write_above("".join(f"{line}\n" for line in whole))
        return len(text)


def _breaks_lines() -> bool:
    """Return whether the terminal breaks lines anew when it becomes narrower: most do, the oldest cut them off."""
    term = os.environ.get("TERM", "")
    return not (os.environ.get("XTERM_VERSION") or term.startswith(("linux", "rxvt", "vt")))
