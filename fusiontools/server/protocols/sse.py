"""JSON for the lines of a stream.

A stream's lines end with a line feed. Many clients split at whatever Unicode calls the end of a line, and would cut
in two what holds one of those; JSON escapes most of them anyway.

Server-sent events handed on whole, as they came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusiontools.record import jsonl

_ENDS = ("\u0085", "\u2028", "\u2029")
_ESCAPED = [(end.encode(), f"\\u{ord(end):04x}".encode()) for end in _ENDS]


def line(value: Any) -> bytes:
    """Return JSON that every reader of lines takes for one line."""
    data = jsonl.dumps(value)
    if data.isascii():
        return data
    for end, escaped in _ESCAPED:
        data = data.replace(end, escaped)
    return data


_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")


@dataclass(slots=True)
class EventBuffer:
    """Cuts a stream at the ends of its events: what is cut off in the middle is never handed on.

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
        if b'"usage"' not in whole:
            return whole
        return b"".join(event for event in _split(whole) if self.keeps(event))

    def last(self) -> bytes:
        """Return what has no end, of a stream that ended well."""
        return self._rest


def _split(whole: bytes) -> list[bytes]:
    """Return the events, each with its end."""
    mark = _EVENT_ENDS[1] if _EVENT_ENDS[1] in whole else _EVENT_ENDS[0]
    return [event + mark for event in whole.split(mark) if event]
