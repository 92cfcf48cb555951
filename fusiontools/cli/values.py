"""JSON that is laid out over several lines, or in an array: where each of its objects begins and ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: What matters for where an object ends: braces, and texts, in which braces mean nothing.
_TOKEN = re.compile(rb'[{}]|"(?:[^"\\\n]|\\.)*"')
_BETWEEN = b" \t\r\n,[]"


def spans_lines(head: bytes) -> bool:
    """Return whether JSON begins that is no JSON Lines: an array of objects, or an object over several lines.

    Args:
        head: how the input begins. A first line that was cut off stands before a line that begins an object, and is a
            bad line and no layout.
    """
    text = head.lstrip()
    if text[:1] == b"[":
        return text[1:].lstrip()[:1] in (b"{", b"]")
    first, newline, rest = text.partition(b"\n")
    return bool(newline) and _depth(first) > 0 and rest.lstrip()[:1] not in (b"{", b"")


def is_undecided(head: bytes) -> bool:
    """Return whether the second line has to come before it is known how JSON is laid out."""
    text = head.lstrip()
    if text[:1] == b"[":
        return not text[1:].strip()
    first, newline, rest = text.partition(b"\n")
    return bool(newline) and not rest.strip() and _depth(first) > 0


class ObjectReader:
    """Cuts objects out of lines as they come; memory grows with the longest object, not with the input."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._depth = 0
        self._began = 0
        self._indented = False
        #: How many bytes wait for the end of their object.
        self.held = 0

    def feed(self, line: bytes, number: int) -> Iterator[tuple[int, bytes]]:
        """Yield what ends in this line, each with the number of the line in which it began.

        An object that never ends is given up where a new one begins at the margin, if its own lines are indented.
        """
        if self._depth and self._indented and line[:1] == b"{":
            yield from self.finish()
        elif self._depth and line[:1].isspace():
            self._indented = True
        start = 0
        for found in _TOKEN.finditer(line):
            if found[0] == b"{":
                if not self._depth:
                    yield from _strange(line[start : found.start()], number)
                    start, self._began = found.start(), number
                self._depth += 1
            elif found[0] == b"}" and self._depth:
                self._depth -= 1
                if not self._depth:
                    yield self._began, b"".join([*self._lines, line[start : found.end()]])
                    start = found.end()
                    self._lines, self.held, self._indented = [], 0, False
        rest = line[start:]
        if self._depth:
            self._lines.append(rest + b"\n")
            self.held += len(rest) + 1
        else:
            yield from _strange(rest, number)

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """Yield what has no end."""
        if self._depth:
            yield self._began, b"".join(self._lines)
        self.drop()

    def drop(self) -> None:
        """Forget the object under way."""
        self._lines, self._depth, self.held, self._indented = [], 0, 0, False


def _strange(between: bytes, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield what stands between two objects and belongs to neither."""
    if left := between.strip(_BETWEEN):
        yield number, left


def _depth(line: bytes) -> int:
    tokens = [found[0] for found in _TOKEN.finditer(line)]
    return tokens.count(b"{") - tokens.count(b"}")
