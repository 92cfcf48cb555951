"""Carry HTTP/1.1 requests to one origin: a transport for httpx on an asyncio protocol and a parser written in C.

All syntax is the parser's business (llhttp, by way of httptools). Ours are connecting, keeping connections, handing a
body on as it comes, and leaving: a call that is given up closes its socket at once.

Nothing is sent twice from here. A kept connection that shows, before we write, that its server has closed it is
replaced by another, for not a byte has left. Once one may have left, the server may have read the request and bill it:
that is a `ReadError`, and the layer that retries decides and enters every attempt in the ledger.

A response's body on its way: what has come of it, who takes it, and a server that waits while nobody does.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from functools import partial
from typing import Any

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_UNREAD_LIMIT_BYTES = 2**20

#: Takes a piece of a body.
OnBytes = Callable[[bytes], object]


class HttpBody:
    """What the parser reports, for one reader: to be waited for, iterated over, or taken as it comes.

    Args:
        transport: where it comes from; reading pauses there while too much has not been taken.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.whole = self.paused = False
        self.fault: BaseException | None = None
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._take: OnBytes | None = None
        self._waiter: asyncio.Future[None] | None = None

    def add(self, piece: bytes) -> None:
        """Keep a piece until `arrived`."""
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        if self._unread_bytes > _UNREAD_LIMIT_BYTES and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def arrived(self) -> None:
        """Hand on what has come, or let the reader look; a failure of the taker is the reader's."""
        if self._take is not None and self._pieces:
            try:
                self._context.run(self._take, self._taken())
            except BaseException as failure:  # is for the task that waits
                self._take, self.fault, self.whole = None, failure, False
        if self._take is None or self.whole or self.fault is not None:
            self._wake()

    def fail(self, fault: Exception) -> None:
        """Close the connection, and fail the reader unless the body is whole."""
        self._transport.abort()
        if not self.whole:
            self.fault = fault
            self._wake()

    async def more(self) -> None:
        """Wait for anything to change; who is cancelled meanwhile closes the connection."""
        if self.fault is not None:
            raise self.fault
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self._transport.abort()
            raise

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        while self._pieces or not self.whole:
            if self._pieces:
                yield self._taken()
            else:
                await self.more()

    async def each(self, take: OnBytes) -> None:
        """Hand on the body as it is read from the socket, so that no task is woken for a piece; returns at its end.

        `take` runs in the context of the caller, who gets what it raises.
        """
        if self._pieces:
            take(self._taken())
        self._take, self._context = take, copy_context()
        while not self.whole:
            await self.more()

    def _taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._unread_bytes = 0
        if self.paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self.paused = False
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_IDLE_S = 15.0
_HEAD_LIMIT_BYTES = 64 * 2**10


class H1Transport(httpx.AsyncBaseTransport):
    """As many connections to the origin of `url` as there are calls in flight, kept for a while after them.

    Requests have their body in memory, `host` and `content-length` among their headers, and are no HEAD. Timeouts and
    the number of calls at once are the caller's business.

    Args:
        idle_s: how long a connection is kept unused.
    """

    def __init__(self, url: httpx.URL, idle_s: float = _IDLE_S) -> None:
        self._host = url.host
        self._tls = url.scheme == "https"
        self._port = url.port or (443 if self._tls else 80)
        self._context: ssl.SSLContext | None = None
        self._idle_s = idle_s
        self._idle: dict[_Connection, float] = {}  # since when; the one let go last is last
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; returns when the response's head has come."""
        answer = await self.exchange(_written(request))
        return httpx.Response(answer.status, headers=answer.headers, stream=answer)

    async def exchange(self, data: bytes) -> HttpResponse:
        """Send a request as its bytes stand; returns when the response's head has come."""
        connection = self._kept() or await self._connected()
        answer = connection.ask(data)
        await answer.head()
        return answer

    async def aclose(self) -> None:
        """Close what is idle now, and every other connection when its call ends."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._idle):
            connection.transport.abort()

    def keep(self, connection: _Connection) -> None:
        """Keep a connection for a later call."""
        if self._closed:
            connection.transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._idle_s, self._drop_old)

    def forget(self, connection: _Connection) -> None:
        """Leave out a connection that is closed."""
        self._idle.pop(connection, None)

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.stands():
                return connection
            connection.transport.abort()
        return None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        # uvloop tries one address after the other and does not know the option.
        options: dict[str, Any] = {"happy_eyeballs_delay": 0.25} if isinstance(loop, asyncio.BaseEventLoop) else {}
        try:
            if self._tls:
                options.update(ssl=self._ssl_context(), server_hostname=self._host)
            make = partial(_Connection, self, loop)
            _, connection = await loop.create_connection(make, self._host, self._port, **options)
        except (OSError, UnicodeError) as error:  # the latter: what cannot be a name
            raise httpx.ConnectError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        return connection

    def _ssl_context(self) -> ssl.SSLContext:
        """Return the one context; reading the certificates takes 17 ms, so plain http has none."""
        if self._context is None:
            try:
                self._context = httpx.create_ssl_context()
            except OSError as error:
                raise httpx.ConnectError(f"the certificates to trust cannot be read: {error}") from error
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def _drop_old(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for connection, since in list(self._idle.items()):
            left_s = since + self._idle_s - loop.time()
            if left_s > 0:
                self._timer = loop.call_later(left_s, self._drop_old)
                break
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    """A socket, and the answer that is awaited on it, if any."""

    transport: asyncio.Transport

    def __init__(self, pool: H1Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.used = self.closed = False
        self._pool = pool
        self._answer: HttpResponse | None = None
        self._poll = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.forget(self)
        if self._answer is not None:
            self._answer.end(exc)

    def data_received(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(data)
        else:
            self.transport.abort()

    def stands(self) -> bool:
        """Say whether a request may go out: what there is to read by now is the end, or bytes that nobody asked for."""
        return not self.transport.is_closing() and not self._poll.poll(0)

    def ask(self, data: bytes) -> HttpResponse:
        self._answer = answer = HttpResponse(self)
        if self.closed:
            answer.end(None)
        else:
            self.transport.write(data)
        return answer

    def leave(self, *, keep: bool) -> None:
        """Let go of the answer."""
        self._answer = None
        self.used = True
        if keep and not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self._pool.keep(self)
        else:
            self.transport.abort()


class HttpResponse(httpx.AsyncByteStream):
    """One response: what the parser reports of it (`on_…`), and its body as it comes."""

    def __init__(self, connection: _Connection) -> None:
        self.status = 0  # until the whole head is here
        self.headers: list[tuple[bytes, bytes]] = []
        self._connection = connection
        self._parser = HttpResponseParser(self)
        self._heard_bytes = 0  # of the head, and of interim heads before it
        self._body = HttpBody(connection.transport, connection.loop)
        self._clean = self._left = False  # ended where the next answer can begin; let go of

    async def head(self) -> None:
        """Wait for the head."""
        while not self.status:
            await self._body.more()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.pieces()

    async def each(self, take: OnBytes) -> None:
        """Hand on the body as it comes; see `Body.each`."""
        await self._body.each(take)

    async def aclose(self) -> None:
        if not self._left:
            self._left = True
            del self._parser  # which holds on to us
            self._connection.leave(keep=self._clean and not self._body.paused)

    def feed(self, data: bytes) -> None:
        """Take what came from the socket."""
        try:
            if not self.status:
                room = _HEAD_LIMIT_BYTES - self._heard_bytes
                start, data = data[:room], data[room:]
                self._heard_bytes += len(start)
                self._parser.feed_data(start)
                if not self.status and self._heard_bytes == _HEAD_LIMIT_BYTES:
                    self._body.fail(httpx.RemoteProtocolError(f"its head is longer than {_HEAD_LIMIT_BYTES >> 10} KiB"))
                    return
            if data:
                self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._body.fail(httpx.RemoteProtocolError(f"what it sent is no HTTP/1.1: {error}"))
        self._body.arrived()

    def end(self, error: Exception | None) -> None:
        """Take note that the connection is closed, which is the end of a body whose head says no other."""
        if self._body.whole or self._body.fault is not None:
            return
        if error is not None:
            self._body.fail(httpx.ReadError(str(error) or type(error).__name__))
        elif not self._heard_bytes and self._connection.used:
            self._body.fail(httpx.ReadError("it was kept from an earlier call, and no answer came"))
        elif not self.status or any(n.lower() in (b"content-length", b"transfer-encoding") for n, _ in self.headers):
            self._body.fail(
                httpx.RemoteProtocolError("the answer is not whole" if self._heard_bytes else "no answer came")
            )
        else:
            self._body.whole = True
            self._body.arrived()

    def on_message_begin(self) -> None:
        if self._body.whole:
            raise ValueError("nobody asked for a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # what follows the body is of no use to anybody
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self._body.add(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._body.whole = True
            self._clean = self._parser.should_keep_alive()  # forgotten afterwards


def _written(request: httpx.Request) -> bytes:
    """Return a request as it goes out, in one piece."""
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b\r\n" % pair for pair in request.headers.raw]
    head = b"".join(lines)
    if head.count(b"\r") != len(lines) or head.count(b"\n") != len(lines):
        raise httpx.LocalProtocolError("a header holds a line break")
    return b"%b\r\n%b" % (head, request.content)
