"""Server-sent events: the JSON and the comments of a stream, and the events of somebody else's handed on.

A stream's lines end with a line feed. Many clients split at whatever Unicode calls the end of a line, and would cut
in two what holds one of those; JSON escapes most of them anyway.

A blank line ends an event, and nothing else. Clients that take every blank line for the end of one (openai-go, before
it was mended; openai-python, once an event had an `id`) read an event without data after a comment, and fail on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from fusiontools.record import jsonl

_ENDS = ("\u0085", "\u2028", "\u2029")
_ESCAPED = [(end.encode(), f"\\u{ord(end):04x}".encode()) for end in _ENDS]


#: The end of a stream, as OpenAI says it.
DONE = b"data: [DONE]\n\n"


def line(value: Any) -> bytes:
    """Return JSON that every reader of lines takes for one line."""
    data = jsonl.dumps(value)
    if data.isascii():
        return data
    for end, escaped in _ESCAPED:
        data = data.replace(end, escaped)
    return data


def comment(words: str | bytes) -> bytes:
    """Return a comment: one line, which stands before the next event."""
    return b": %b\n" % (words if isinstance(words, bytes) else words.encode())


_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)", re.DOTALL)
#: The first byte after a blank line.
_FIRST = re.compile(rb"(?:\r\n\r\n|\n\n|\r\r)(.)", re.DOTALL)


class EventBuffer(Struct):
    """Cuts a stream at the ends of its events: what is cut off in the middle is never handed on.

    Comments lose the blank line behind them.

    Args:
        keeps: says of an event whether it is handed on.
    """

    keeps: Callable[[bytes], bool]
    _rest: bytes = b""

    def take(self, chunk: bytes) -> bytes:
        """Add bytes; returns the events that they complete."""
        data = self._rest + chunk
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _EVENT_ENDS)
        whole, self._rest = data[:end], data[end:]
        if b'"usage"' not in whole and b":" not in (whole[:1], *_FIRST.findall(whole)):
            return whole
        return b"".join(_without_end(event) for event in _split(whole) if self.keeps(event))

    def last(self) -> bytes:
        """Return what has no end, of a stream that ended well."""
        return self._rest


def _split(whole: bytes) -> list[bytes]:
    """Return the events, each with its end."""
    return [event for event in _EVENT.findall(whole) if event]


def _without_end(event: bytes) -> bytes:
    """Return an event as it is, and comments that stand alone without the blank line behind them."""
    lines = event.splitlines()
    if all(line.startswith(b":") or not line for line in lines):
        return b"".join(b"%b\n" % line for line in lines if line)
    return event
