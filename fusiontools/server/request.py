"""A request over HTTP: read within bounds, its head by the connection and its body by a route; what is noted of it, and
a plain answer to it.

What a connection needs that uvicorn lacks: heads of a bounded size that come in within a bounded time, which name one
host; and an answer for a client that has closed its own side and listens on. Measured beside it on this app, granian
bounds heads by itself; but it ends a drain by killing its workers, so that nobody is told, and like uvicorn alone it
does not notice that a client left which had sent a second request ahead.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fusiontools.errors import InputError
from fusiontools.llm.completion import DEPTH_HEADER
from fusiontools.record import jsonl
from fusiontools.server.protocols.exchange import ApiError, ChatRequest
from fusiontools.server.serve_options import ServeOptions

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
ANONYMOUS = "anonymous"
#: How many levels an answer puts around what was asked: an event, its `fusion`, the record in it, `params`, …
_AROUND = 16
_DEPTHS = (DEPTH_HEADER.encode(), b"x-openrouter-fusion-depth")
#: The place of what is no JSON, and the text that stands there.
_QUOTED = re.compile(r"(\(column \d+\)).*", re.DOTALL)
_HEAD_LIMIT_BYTES = 128 * 2**10
#: Requests of one connection that wait for their turn while it is still read.
_MOST_WAITING = 16
#: How long a client that still sends a head may go on, so that it reads why it was refused before the line is cut.
_LINGER_S = 1.0
#: When it is looked, first and then at doubling intervals, whether a client that sends no more is still there.
_LOOKS_S = (0.05, 1.0)
#: How often it is told to continue meanwhile; some clients take more of that for a fault.
_MOST_CONTINUES = 4
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: A comment between two events.
_COMMENT = b"2\r\n:\n\r\n"
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
#: Java's client offers HTTP/2 with each request, and the parser would take the body for it.
_OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class JsonRoute(Struct, frozen=True):
    """An ASGI app around a method that answers with JSON; a bare method starlette would call with a `Request`."""

    answer: App

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)


class RequestLog(Struct):
    """A request, as it is counted and logged: nothing of what it says."""

    id: str
    started: float
    caller: str = ANONYMOUS
    status: int = 0
    model: str = ""
    outcome: str = ""
    cost_usd: float | None = None

    def cost_header(self) -> dict[str, str]:
        """Return the header that says what the request cost, where anybody knows."""
        return {} if self.cost_usd is None else {"x-fusion-cost-usd": f"{self.cost_usd:.8f}"}


async def read_body(scope: Any, receive: Receive, options: ServeOptions) -> dict[str, Any]:
    """Return a request's body.

    Raises:
        ApiError: too large, too slow, not JSON.
    """
    data = await read_bytes(scope, receive, options)
    try:
        return jsonl.read_object(data, "a request's body", levels=_AROUND)
    except InputError as error:
        # What was said stays out of errors, which clients keep in logs.
        raise ApiError(400, "invalid_json", _QUOTED.sub(r"\1", error.message)) from None


async def read_bytes(scope: Any, receive: Receive, options: ServeOptions) -> bytes:
    """Return a request's body as it came.

    Raises:
        ApiError: too large, too slow.
    """
    limit_bytes = int(options.max_body_mib * 2**20)
    if scope.get("whole"):
        return await _read_all(receive, limit_bytes)
    try:
        async with asyncio.timeout(options.read_s):
            return await _read_all(receive, limit_bytes)
    except TimeoutError:
        why = f"the body did not come in within {options.read_s:g} s (--read-timeout)"
        raise ApiError(408, "request_timeout", why, headers={"connection": "close"}) from None


async def _read_all(receive: Receive, limit_bytes: int) -> bytes:
    message = await _read_some(receive)
    data = message.get("body", b"")
    if not message.get("more_body") and len(data) <= limit_bytes:
        return data  # type: ignore[no-any-return]
    parts = bytearray(data)
    while message.get("more_body") and len(parts) <= limit_bytes:
        message = await _read_some(receive)
        parts += message.get("body", b"")
    if len(parts) > limit_bytes:
        raise too_large(limit_bytes)
    return bytes(parts)


async def _read_some(receive: Receive) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ApiError(400, "client_left", "the client left before its request was whole")
    return message


def speaks_anthropic(scope: Any) -> bool:
    """Return whether a client speaks Anthropic's protocol, on the paths that other clients ask too."""
    return scope["path"].startswith("/v1/messages") or b"anthropic-version" in scope["named"]


def check_size(request: ChatRequest, options: ServeOptions) -> None:
    """Raise `ApiError` for a conversation with too many messages."""
    if len(request.messages) > options.max_messages:
        why = f"{len(request.messages):,} messages are more than {options.max_messages:,} (--max-messages)"
        raise ApiError(400, "too_many_messages", why, "messages")


def refuse_unanswerable(request: ChatRequest) -> None:
    """Raise `ApiError` for what only an endpoint itself could answer."""
    if request.unanswerable is not None:
        raise request.unanswerable


def keepalive_of(options: ServeOptions) -> float | None:
    """Return after how many silent seconds a stream says that it is alive; None for never."""
    return None if options.keepalive == "off" else options.keepalive_s


def query_of(scope: Any) -> dict[str, str]:
    """Return what stands behind the question mark; of what is said twice, the last."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def depth_of(scope: Any, most: int) -> int:
    """Return how many fusion servers a request has been through.

    Raises:
        ApiError: too many: it may come from this very server, as a member of its own panel.
    """
    depth = 0
    for name, value in () if scope["named"].keys().isdisjoint(_DEPTHS) else scope["headers"]:
        if name in _DEPTHS:
            depth = max(depth, int(value) if value.isdigit() and len(value) < 9 else most)
    if depth >= most:
        why = f"the request has been through {depth} fusion server(s) already; does one sit on its own panel?"
        raise ApiError(400, "fusion_loop", why)
    return depth


def too_large(limit_bytes: int) -> ApiError:
    """Return the error for a body that is too large."""
    why = f"the body is larger than {limit_bytes / 2**20:g} MiB (--max-body-mib)"
    return ApiError(413, "request_too_large", why)


async def send_json(send: Send, status: int, body: Any, headers: Mapping[str, str]) -> None:
    """Send a whole response."""
    data = body if isinstance(body, bytes) else jsonl.dumps(body)
    kind = {"content-type": "application/json", "content-length": str(len(data))}
    await send({"type": "http.response.start", "status": status, "headers": encode_headers(kind | dict(headers))})
    await send({"type": "http.response.body", "body": data})


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


def new_id() -> str:
    """Return 32 hex digits that were never used before."""
    return secrets.token_hex(16)


def report_bug(request_id: str, error: Exception) -> None:
    """Say on standard error where it happened; neither the message nor a value, for they may hold texts or keys."""
    places = traceback.extract_tb(error.__traceback__)[-6:]
    path = " < ".join(f"{place.filename.rpartition('/')[2]}:{place.lineno}" for place in reversed(places))
    sys.stderr.write(f"fuse-serve: {request_id}: a bug in fusiontools: {type(error).__name__} at {path}\n")


class Peer:
    """The client of a request, at the other end of its connection; each request has one in its scope.

    Args:
        flow: says whether the client takes what is written as fast as it comes.
    """

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        #: Whether it has left.
        self.gone = False
        self._transport, self._flow = transport, flow
        self._told: list[Callable[[], object]] = []

    @property
    def is_slow(self) -> bool:
        """Whether who writes should wait."""
        return self._flow.write_paused

    def write_chunk(self, data: bytes) -> None:
        """Write a piece of a body whose response has begun and said no length."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def add(self, tell: Callable[[], object]) -> None:
        """Have this called when the client leaves; at once where it has left."""
        self._told.append(tell)
        if self.gone:
            tell()

    def remove(self, tell: Callable[[], object]) -> None:
        """Call this no more."""
        self._told.remove(tell)

    def note(self) -> None:
        """Take note that the client has left."""
        self.gone = True
        for tell in list(self._told):
            tell()


class BoundedProtocol(HttpToolsProtocol):
    """A connection, served by an app that says how long a head may take and counts who is turned away."""

    app: Any
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _look_timer: asyncio.TimerHandle | None = None
    _in_body = _refused = _half_closed = False
    _continues = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._under_way: list[RequestResponseCycle] = []
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._look_timer is not None:
            self._look_timer.cancel()
        for cycle in self._under_way:  # uvicorn tells the latest one only
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                cycle.scope["peer"].note()  # type: ignore[typeddict-item]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._in_body:
            if self._head_bytes or data.strip(b"\r\n"):  # an empty line behind a body, as some clients send, is no head
                self._head_bytes += len(data)
            if b"pgrade" in data or b"PGRADE" in data:
                data = _OFFER.sub(b"\r\nx-grade:", data)
        super().data_received(data)
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()  # bytes between requests, or of a body that nobody reads any more
        if not self._in_body and self._head_bytes > _HEAD_LIMIT_BYTES:
            self._refuse(431, "head_too_large")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection for a client that has asked for something whole and may listen on.

        One that has left looks the same at first; it is found out by writing (`_look`). Where nothing can be written
        that means nothing, to a client of HTTP/1.0, it has left, which is what it nearly always means.
        """
        waiting = self._waiting()
        if self._refused or self._in_body or not waiting or waiting[0].scope["http_version"] == "1.0":
            return None
        if not self._half_closed:
            self._half_closed = True
            self._look(_LOOKS_S)
        return True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._half_closed and not self._waiting():
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._in_body = True
        self._head_bytes = 0
        if (authority := _authority_of(self.url)) is not None and [authority] != _hosts_of(self.headers):
            self.headers.append((b"host", authority))  # who names two is refused
        self.scope["peer"] = Peer(self.transport, self.flow)  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self._under_way = [*(cycle for cycle in self._under_way if not cycle.response_complete), self.cycle]
        if 0 < len(self.pipeline) <= _MOST_WAITING:
            self.flow.resume_reading()  # else nobody would notice that the client leaves

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._head_timer is not None:  # that of a body which nobody read
            self._stop_timer()
            self._await_head()
        self.scope["whole"] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()
        if len(self.pipeline) <= _MOST_WAITING:
            self.flow.resume_reading()  # a long body has stopped it

    def send_400_response(self, msg: str) -> None:
        self._refused = True
        self.app.count_refused(400, "not_http")
        if any(cycle.response_started and not cycle.response_complete for cycle in self._under_way):
            self.transport.close()  # a word now would stand in the middle of an answer
        else:
            super().send_400_response(msg)

    def _waiting(self) -> list[RequestResponseCycle]:
        """Return the requests that have no whole answer yet, the one whose turn it is first."""
        return [cycle for cycle in self._under_way if not cycle.response_complete]

    def _look(self, times_s: tuple[float, float]) -> None:
        """Say something that means nothing: who still listens skips it, and who has left answers with a reset."""
        waiting = self._waiting()
        if self.transport.is_closing() or not waiting:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if waiting[0].response_started:
            self.transport.write(_COMMENT if _streams_events(waiting[0].scope) else b"")
        elif self._continues < _MOST_CONTINUES:
            self._continues += 1
            self.transport.write(_CONTINUE)
        now_s, later_s = times_s
        self._look_timer = self.loop.call_later(now_s, self._look, (later_s, later_s * 2))

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


def _streams_events(scope: Any) -> bool:
    """Return whether the answer to a request, which has begun, is a stream of events."""
    headers = scope.get("sent_headers", ())
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _authority_of(target: bytes) -> bytes | None:
    """Return the host that a request's target names, where it names one: `GET http://host/path`."""
    if target.startswith(b"/"):
        return None
    found = _ABSOLUTE.match(target)
    return found[1] if found else None


def _hosts_of(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in headers if name == b"host"]
