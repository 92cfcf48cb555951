"""Bodies that an endpoint compresses without being asked: inflated piece by piece, and never beyond a bound.

A megabyte of gzip may hold a gigabyte. So what a body inflates to is bounded, and so is what all bodies in flight at an
endpoint inflate to together. Other codings than those of the standard library are refused: nobody asked for them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from fusiontools.errors import CallFailed

#: The most that a body may have, inflated or not.
BODY_LIMIT_BYTES = 64 * 2**20
_ROOM_BYTES = 256 * 2**20
_PIECE_BYTES = 2**18
#: How often a body may be compressed over and over.
_MOST_CODINGS = 2
_GZIP = ("gzip", "x-gzip")
_GZIP_MAGIC = b"\x1f\x8b"


class Room:
    """What all inflated bodies in flight may have together, in bytes."""

    def __init__(self, most_bytes: int = _ROOM_BYTES) -> None:
        self._left = most_bytes

    def take(self, size: int) -> None:
        """Take room.

        Raises:
            CallFailed: there is none.
        """
        if size > self._left:
            raise CallFailed("bad_response", "the endpoint's compressed answers inflate to more than there is room for")
        self._left -= size

    def give(self, size: int) -> None:
        """Give room back."""
        self._left += size


class Inflater:
    """One body.

    Args:
        codings: the value of `content-encoding`.
        room: what it shares with others; `close` gives back what it has taken.

    Raises:
        CallFailed: a coding that nobody asked for.
    """

    def __init__(self, codings: str, room: Room) -> None:
        names = [name for said in codings.split(",") if (name := said.strip().lower()) not in ("", "identity")]
        unknown = [name for name in names if name not in (*_GZIP, "deflate")]
        if unknown or len(names) > _MOST_CODINGS:
            said = (unknown or [codings])[0][:40]
            raise CallFailed("bad_response", f"the endpoint compressed its answer ({said!r}), and nobody asked it to")
        # What was applied last is undone first.
        self._steps = [_Step(name) for name in reversed(names)]
        self._room = room
        #: The bytes that it has inflated to.
        self.taken = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what bytes inflate to.

        Raises:
            CallFailed: it is too much.
            zlib.error: it is not of the coding that the head says.
        """
        for piece in self._inflate(data, 0):
            self.taken += len(piece)
            self._room.take(len(piece))
            if self.taken > BODY_LIMIT_BYTES:
                raise CallFailed("bad_response", f"the endpoint's answer inflates to over {BODY_LIMIT_BYTES >> 20} MiB")
            yield piece

    def close(self) -> None:
        """Give back the room."""
        self._room.give(self.taken)
        self.taken = 0

    def _inflate(self, data: bytes, step: int) -> Iterator[bytes]:
        if step == len(self._steps):
            yield data
            return
        for piece in self._steps[step].feed(data):
            yield from self._inflate(piece, step + 1)


class _Step:
    """One coding, undone."""

    def __init__(self, name: str) -> None:
        self._gzip = name in _GZIP
        self._first = True
        #: What has come of a head, until it says what it is.
        self._head = b""
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate is None:
                self._head += data
                if len(self._head) < 2:
                    return
                data, self._head = self._head, b""
                if not self._first and data[:2] != _GZIP_MAGIC:
                    return  # padding
                self._inflate = zlib.decompressobj(self._window(data))
                self._first = False
            piece = self._inflate.decompress(data, _PIECE_BYTES)
            if piece:
                yield piece
            if self._inflate.eof:
                # A gzip file may be several, one behind the other.
                data = self._inflate.unused_data if self._gzip else b""
                self._inflate = None
            else:
                data = self._inflate.unconsumed_tail
                if not (data or piece):
                    return

    def _window(self, data: bytes) -> int:
        """Return what zlib is told of a body by its first two bytes; some say `deflate` and leave out its head."""
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        has_head = data[0] & 15 == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0
        return zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS
