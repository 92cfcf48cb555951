"""The bounds of a connection that uvicorn lacks: heads of a bounded size that come in within a bounded time.

Measured beside it on this app, granian bounds heads by itself; but it ends a drain by killing its workers, so that
nobody is told, and like uvicorn alone it does not notice that a client left which had sent a second request ahead.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_HEAD_LIMIT_BYTES = 128 * 2**10
#: Requests of one connection that wait for their turn while it is still read.
_MOST_WAITING = 16
#: How long a client that still sends a head may go on, so that it reads why it was refused before the line is cut.
_LINGER_S = 1.0
#: Java's client offers HTTP/2 with each request, and the parser would take the body for it.
_OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class BoundedProtocol(HttpToolsProtocol):
    """A connection, served by an app that says how long a head may take and counts who is turned away."""

    app: Any
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _in_body = _refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._under_way: list[RequestResponseCycle] = []
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        for cycle in self._under_way:  # uvicorn tells the latest one only
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if b"pgrade" in data or b"PGRADE" in data:
                data = _OFFER.sub(b"\r\nx-grade:", data)
        super().data_received(data)
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()  # bytes between requests, or of a body that nobody reads any more
        if not self._in_body and self._head_bytes > _HEAD_LIMIT_BYTES:
            self._refuse(431, "head_too_large")

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._in_body = True
        self._head_bytes = 0
        super().on_headers_complete()
        self._under_way = [*(cycle for cycle in self._under_way if not cycle.response_complete), self.cycle]
        if 0 < len(self.pipeline) <= _MOST_WAITING:
            self.flow.resume_reading()  # else nobody would notice that the client leaves

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refused = True
        self.app.count_refused(400, "not_http")
        if any(cycle.response_started and not cycle.response_complete for cycle in self._under_way):
            self.transport.close()  # a word now would stand in the middle of an answer
        else:
            super().send_400_response(msg)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.app.read_s, self._refuse, 408, "request_timeout")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, code: str) -> None:
        self._stop_timer()
        self._refused = True
        if self._head_bytes:  # who has said nothing, such as a browser that connects ahead, expects no answer
            self.app.count_refused(status, code)
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
            self.transport.write(f"{head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        self.loop.call_later(_LINGER_S, self.transport.close)
