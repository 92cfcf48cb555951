"""HTTP/1 as uvicorn speaks it, within bounds: heads of a bounded size that come in within a bounded time.

It differs from uvicorn's own in what real clients need besides: a client of HTTP/1.0 gets no chunks, a body that comes
with an offer to upgrade is read, and a client that leaves is noticed even where it had asked for more meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_HEAD_LIMIT_BYTES = 64 * 2**10
#: Requests of one connection that wait for their turn while it is still read.
_MOST_WAITING = 16
#: How long a client that still sends a head may go on, so that it reads why it was refused before the line is cut.
_LINGER_S = 2.0
_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Config(uvicorn.Config):
    """uvicorn's configuration, and how long a head may take to come in."""

    read_s: float


class BoundedProtocol(HttpToolsProtocol):
    """A connection.

    The timer of a head runs from the first byte of a connection or of a later head; between requests uvicorn's own
    keep-alive timer runs.
    """

    config: Config
    #: uvicorn sets it: the configuration's app.
    app: Any
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _in_body = False
    _refused = False
    #: Set while a parser is told what another one has read already.
    _repeats = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._unfinished: list[RequestResponseCycle] = []

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        for cycle in self._unfinished:  # uvicorn tells the latest one only
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse_garbage()
            return
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()  # bytes between requests, or of a body that nobody reads any more
        if self._head_timer is not None and not self._in_body:
            # What the parser has not reported yet is a part of a head as well.
            self._head_bytes += len(data)
            self._check_head()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._decline(data[offered.args[0] :])

    def _decline(self, data: bytes) -> None:
        """Go on in HTTP/1.1 where a client offers another protocol, as Java's does with each request.

        The parser takes what follows the head for that protocol; so another parser is told how long the body is.
        """
        told = [
            b"%b: %b\r\n" % (name, value)
            for name, value in self.headers
            if name in (b"content-length", b"transfer-encoding")
        ]
        self.parser = httptools.HttpRequestParser(self)
        self._repeats = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(told))
        self._repeats = False
        self._feed(data)

    def _refuse_garbage(self) -> None:
        self._refused = True
        self.app.turned_away(400, "not_http")
        under_way = [cycle for cycle in self._unfinished if not cycle.response_complete]
        own = self._in_body and under_way == [self.cycle] and not self.cycle.response_started
        if under_way and not own:
            self.transport.close()  # a word now would stand in the answer to an earlier request, or for it
        else:
            self.send_400_response("this is no HTTP/1 request")

    def on_message_begin(self) -> None:
        if self._repeats or self._refused:
            return
        super().on_message_begin()
        self._head_bytes = 0
        if self._head_timer is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        if not self._repeats:
            super().on_url(url)
            self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._repeats:
            super().on_header(name, value)
            self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._repeats or self._refused:
            return
        self._head_is_here()
        self._in_body = True
        super().on_headers_complete()
        self._unfinished = [cycle for cycle in self._unfinished if not cycle.response_complete]
        self._unfinished.append(self.cycle)
        if self.parser.get_http_version() == "1.0":
            self.cycle.send = _Unchunked(self.cycle).send  # type: ignore[method-assign]
        if 0 < len(self.pipeline) <= _MOST_WAITING:
            self.flow.resume_reading()  # else nobody would notice that the client leaves

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        # With an offer to upgrade the head ends the message for the parser; whether it does, `_decline` finds out.
        if not self._refused and not self.parser.should_upgrade():
            self._in_body = False
            super().on_message_complete()

    def _count(self, length: int) -> None:
        self._head_bytes += length
        self._check_head()

    def _check_head(self) -> None:
        if self._head_bytes > 2 * _HEAD_LIMIT_BYTES:
            self._refuse(431, "head_too_large")

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.config.read_s, self._head_is_late)

    def _head_is_late(self) -> None:
        # Who has said nothing, such as a browser that connects ahead, expects no answer.
        if self._head_bytes:
            self._refuse(408, "request_timeout")
        else:
            self._refused = True
            self.transport.close()

    def _head_is_here(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, code: str) -> None:
        if self._refused:
            return  # the parser goes on to the end of what it was given
        self._head_is_here()
        self._refused = True
        self.app.turned_away(status, code)
        if not self.transport.is_closing():
            answer = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(answer.encode())
            self.loop.call_later(_LINGER_S if status == 431 else 0, self.transport.close)


class _Unchunked:
    """Sends a response to a client of HTTP/1.0: what has no length ends with the connection."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._sized = True

    async def send(self, message: Any) -> None:
        """Take an ASGI message."""
        if message["type"] == "http.response.start":
            self._sized = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not self._sized:
                self._cycle.chunked_encoding = False
        elif not self._sized:
            self._cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)
