"""Read the JSON objects in what an endpoint sends, however it comes: one body, server-sent events, lines of JSON.

What comes is told by what it is, not by its content type, which gateways leave out or get wrong. All that the standard
of server-sent events allows is read (a byte-order mark, every kind of line break, an event on several lines), and what
servers do beyond it: one line break between events, JSON without `data:`, a body before `[DONE]`.

Source: WHATWG HTML, "Server-sent events"; the deviations are those of real servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.record import jsonl

#: What stands for the end that a stream says itself.
DONE: dict[str, Any] = {}
_LIMIT_BYTES = 64 * 2**20
_BOM = b"\xef\xbb\xbf"
_DATA = b"data: "
#: How often it is learned how the lines of a stream go: where each has a number of its own it is in vain.
_MOST_LESSONS = 3
_FIELD = re.compile(rb"[ \t]*(data|event|id|retry)?:")
_BETWEEN = re.compile(r"(?:\s|\ufeff|data:)*")
_SAYS_DONE = re.compile(r"\"?\[done\]\"?", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")


class EventReader:
    """Bytes in, however they are cut into pieces, objects out.

    Args:
        show: puts bytes in words that may be shown to a person.
    """

    def __init__(self, show: Callable[[bytes], str]) -> None:
        self._show = show
        #: The start of what came, for a person.
        self.start = b""
        #: The line that has no end yet.
        self._line: list[bytes] = []
        #: The lines of an event, or of a body, that is not whole yet.
        self._lines: list[bytes] = []
        self._size = 0
        self._bare = self._after_cr = self._past_mark = False
        self._event = b""
        #: Whether an object came, and whether a line that only server-sent events have.
        self.found = self.streams = False
        #: The line of the last object of a stream; how lines go that differ in one text alone: no line begins so yet.
        self._last = b""
        self._before, self._after, self._between = b"\n", b"", slice(0)
        self._lessons = _MOST_LESSONS

    def learn(self, text: str, read: Callable[[dict[str, Any]], str]) -> None:
        """Take note that all that is read of the last object is this text: lines like its own need not be read whole.

        Args:
            read: returns the text of such an object. It is asked whether it finds another text in the same place.
        """
        if not self._lessons or mend(text) != text:
            return
        self._lessons -= 1
        before, _, after = self._last.rpartition(jsonl.dumps(text))
        other = f"{text}."
        found = _object(b"%b%b%b" % (before[len(_DATA) :], jsonl.dumps(other), after))
        if found is not None and read(found) == other:
            self._before, self._after, self._between = before, after, slice(len(before), -len(after))

    def feed(self, piece: bytes) -> Iterator[Any]:
        """Yield each object that is whole by now, and `DONE` for the end that a stream says itself; of an object that
        goes like one that was learned, its text.

        Raises:
            CallFailed: what can be read as nothing; what stands before it has been yielded.
        """
        if not self._past_mark:
            piece = self._skip_mark(piece)
        if len(self.start) < 4000:
            self.start += piece[:4000]
        if self._after_cr or b"\r" in piece:
            piece = self._with_line_feeds(piece)
        self._size += len(piece)
        if self._size > _LIMIT_BYTES:
            raise CallFailed("bad_response", f"the endpoint sent more than {_LIMIT_BYTES >> 20} MiB in one piece")
        self._line.append(piece)
        if b"\n" not in piece:
            return
        *lines, rest = b"".join(self._line).split(b"\n")
        self._line = [rest]
        for line in lines:
            if not (self._lines or self._event):
                # The common case: an object on a line of its own, and blank lines between.
                if not line:
                    continue
                if (
                    line.startswith(self._before)
                    and line.endswith(self._after)
                    and (text := _text(line[self._between]))
                ):
                    yield text
                    continue
                if line.startswith(b"data: {") and (found := _object(line[len(_DATA) :])) is not None:
                    self.found = self.streams = True
                    self._last = line
                    yield found
                    continue
            yield from self._take(line)
        if not self._lines:
            self._size = len(rest)

    def finish(self) -> Iterator[Any]:
        """Yield what the end makes whole."""
        if not self._past_mark:
            self._past_mark, left = True, b"".join(self._line)
            self._line = []
            yield from self.feed(left)
        yield from self._take(b"".join(self._line))
        self._line = []
        yield from self._flush()

    def _skip_mark(self, piece: bytes) -> bytes:
        start = b"".join(self._line) + piece
        self._line = []
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._line = [start]
            return b""
        self._past_mark = True
        return start.removeprefix(_BOM)

    def _with_line_feeds(self, piece: bytes) -> bytes:
        """Return the piece with a line feed in the place of every other end of a line, also of one cut in two."""
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def _take(self, line: bytes) -> Iterator[dict[str, Any]]:
        field = _FIELD.match(line)
        if field is None and not self._bare and line.lstrip()[:1] not in (b"{", b"["):
            if not line.strip():
                yield from self._flush()
                self._event = b""
            return
        if field is None:
            # A body, or a line of JSON without `data:`.
            if not self._bare:
                yield from self._flush()
            self._bare = True
            yield from self._add(line)
            return
        self.streams = True
        if self._bare:
            yield from self._flush()
        value = line[field.end() :].removeprefix(b" ")
        if field[1] == b"data":
            yield from self._add(value)
        elif field[1] == b"event":
            self._event = value.strip()

    def _add(self, line: bytes) -> Iterator[dict[str, Any]]:
        """Take one line of data: most are a whole object, and some servers put no blank line behind it."""
        if self._lines:
            self._lines.append(line)
            return
        stripped = line.strip()
        if not stripped:
            return
        if stripped == b"[DONE]":
            self._bare, self.found = False, True
            yield DONE
            return
        try:
            value = jsonl.loads(stripped)
        except ValueError:
            self._lines.append(line)
            return
        self._bare = False
        yield from self._objects(value, stripped)

    def _flush(self) -> Iterator[dict[str, Any]]:
        """Read the lines so far as what is whole now."""
        self._bare = False
        if not self._lines:
            return
        data, self._lines = b"\n".join(self._lines), []
        try:
            text = data.decode("utf-8", "surrogatepass")
            values = list(_values(text))
        except (RecursionError, ValueError):
            if self._event == b"error":
                yield {"error": {"message": data.decode("utf-8", "replace")}}
                return
            raise CallFailed(
                "bad_response", f"the endpoint did not answer JSON: {self._show(data)}", retryable=not self.found
            ) from None
        for value in values:
            if value is DONE:
                self.found = True
                yield DONE
            else:
                yield from self._objects(value, data)

    def _objects(self, value: Any, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield an object, or those of a list; null says nothing."""
        objects = value if isinstance(value, list) else [] if value is None else [value]
        for found in objects:
            if isinstance(found, str) and _SAYS_DONE.fullmatch(found):
                yield DONE
                continue
            if not isinstance(found, dict):
                raise CallFailed("bad_response", f"the endpoint did not answer a JSON object: {self._show(data)}")
            self.found = True
            if self._event == b"error" and not found.get("error"):
                found = {"error": found}
            yield found


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = jsonl.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(data: bytes) -> str:
    """Return the text that JSON is; nothing where it is no JSON, or no text."""
    try:
        found = jsonl.loads(data)
    except ValueError:
        return ""
    return found if type(found) is str else ""


def _values(text: str) -> Iterator[Any]:
    """Yield the JSON values of a text one after another; half a surrogate pair is a character of its own in them."""
    decoder = json.JSONDecoder()
    at = _end_of_gap(text, 0)
    while at < len(text):
        if done := _SAYS_DONE.match(text, at):
            yield DONE
            at = done.end()
        else:
            value, at = decoder.raw_decode(text, at)
            yield value
        at = _end_of_gap(text, at)


def _end_of_gap(text: str, at: int) -> int:
    gap = _BETWEEN.match(text, at)
    return gap.end() if gap else at


class Joiner:
    """Joins the pieces of one text where a character of it was cut in half, which JSON's escapes allow."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, piece: str) -> str:
        """Return what is whole; the first half of a character waits for the other one."""
        if piece.isascii() and not self._half:
            return piece
        piece = self._half + piece
        self._half = piece[-1] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        return mend(piece[:-1] if self._half else piece)

    def finish(self) -> str:
        """Return what stands for a half that stayed alone."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""


def mend(text: str) -> str:
    """Return the text with halves of characters joined, and U+FFFD for a half that is alone."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mend_all(value: Any) -> Any:
    """Return a JSON value with every text in it mended."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, list):
        return [mend_all(item) for item in value]
    if isinstance(value, dict):
        return {mend(key): mend_all(item) for key, item in value.items()}
    return value
