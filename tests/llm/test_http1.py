"""HTTP/1.1 over real sockets: what a server may send, what it may do to a connection, and what a call leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import certifi
import pytest
import trustme
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from workdir import Upstream

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.http import HttpBackend, target_of
from fusiontools.llm.http1 import ConnectError, Http1Response, Http1Transport, TransportError
from fusiontools.llm.reply_reader import OnBytes
from fusiontools.llm.transport import HttpxBody, transport_for

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
#: Our own transport, and httpx's, which carries what goes over a proxy.
ROADS = [("http1", "asyncio"), ("http1", "uvloop"), ("httpx", "asyncio")]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    b"3;a=b\r\nhel\r\n2\r\nlo\r\nA\r\n\r\n0\r\n\r\n01 \r\n0\r\nX-Sum: 9\r\n\r\n"
)
CHUNKED_BODY = b"hello\r\n0\r\n\r\n01 "

QUESTION = CompletionRequest("there", "m", [{"role": "user", "content": "Why?"}], {})

Transport = Any
Headers = list[tuple[bytes, bytes]]
Serve = Callable[["Client"], Awaitable[None]]


@pytest.fixture(params=ROADS, ids="-".join)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a coroutine over each transport, on each kind of event loop, twenty seconds at most."""
    transport, loop = request.param
    monkeypatch.setenv("FUSION_TRANSPORT", "" if transport == "http1" else transport)
    return Run(transport, loop)


@pytest.fixture(params=LOOPS)
def run_ours(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine over our transport only: what httpx's does not have, or does not hold (`http.py` says what)."""
    return Run("http1", request.param)


@dataclass(frozen=True)
class Run:
    transport: str
    loop: str

    def __call__(self, work: Any) -> Any:
        return on_loop(self.loop, work)

    @property
    def ours(self) -> bool:
        return self.transport == "http1"


def on_loop(kind: str, work: Any) -> Any:
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        return runner.run(asyncio.wait_for(work, 20))


class Client:
    """A connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes | None:
        """Return the next request's body, or None once the client has left."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            [length] = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            return await self.reader.readexactly(int(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await turns(3)  # the other end reads it before the next one leaves
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def left(self) -> None:
        with contextlib.suppress(ConnectionError):
            assert await self.reader.read() == b""


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Server:
    """An address where each connection is served by a coroutine."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.connections = 0
        self.url = urlsplit("")
        self.tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await self.serve(Client(reader, writer))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    serve: Serve, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[tuple[Transport, Server]]:
    server = Server(serve)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = urlsplit(f"{'https' if tls else 'http'}://{host}:{port}/v1/x?y=%20z")
    transport = Http1Transport(server.url, **options) if options else transport_for(server.url)
    try:
        yield transport, server
        await transport.aclose()
        await asyncio.gather(*server.tasks)
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()


def repeating(*pieces: bytes, close: bool = False) -> Serve:
    """Answer each request with these bytes."""

    async def serve(client: Client) -> None:
        while await client.request() is not None:
            await client.send(*pieces)
            if close:
                return

    return serve


async def begin(
    transport: Transport, url: SplitResult, body: bytes = b"{}", **headers: str
) -> Http1Response | HttpxBody:
    given = {"host": url.netloc, "content-length": str(len(body)), **headers}
    if not isinstance(transport, Http1Transport):
        return await HttpxBody.of(transport, url.geturl(), given, body)
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return await transport.exchange(f"POST {target_of(url)} HTTP/1.1\r\n{lines}\r\n".encode() + body)


async def call(transport: Transport, url: SplitResult, body: bytes = b"{}") -> tuple[int, Headers, bytes]:
    response = await begin(transport, url, body)
    try:
        return response.status, response.headers, b"".join([piece async for piece in response])
    finally:
        await response.aclose()


async def taking(transport: Transport, url: SplitResult, take: OnBytes) -> None:
    """Make a call, and take its body as it comes."""
    answer = await begin(transport, url)
    assert isinstance(answer, Http1Response)
    try:
        await answer.each(take)
    finally:
        await answer.aclose()


async def calls(serve: Serve, count: int = 1, **options: Any) -> tuple[list[tuple[int, bytes]], int]:
    """Return statuses and bodies of calls in turn, and the connections that they took."""
    async with serving(serve, **options) as (transport, server):
        found = [await call(transport, server.url) for _ in range(count)]
        return [(status, body) for status, _, body in found], server.connections


async def failure_of(work: Awaitable[Any]) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await work
    return caught.value


# What a server may send


def test_what_goes_out_is_the_request_line_the_headers_and_the_body(run: Run) -> None:
    seen: list[bytes] = []

    async def serve(client: Client) -> None:
        seen.append(await client.reader.readuntil(b"}"))
        await client.send(PLAIN)

    async def work() -> None:
        async with serving(serve) as (transport, server):
            await (await begin(transport, server.url, b'{"a":1}', authorization="Bearer k")).aclose()
            host = server.url.netloc.encode()
            assert seen == [
                b"POST /v1/x?y=%20z HTTP/1.1\r\nhost: " + host + b"\r\n"
                b'content-length: 7\r\nauthorization: Bearer k\r\n\r\n{"a":1}'
            ]

    run(work())


def test_the_shortcut_sends_what_goes_over_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "hunter2-hunter2")
    sent: dict[str, list[bytes]] = {}

    async def work(transport: str) -> None:
        async def serve(client: Client) -> None:
            head = await client.reader.readuntil(b"\r\n\r\n")
            [line, *lines] = head.replace(server.url.netloc.encode(), b"there").strip().split(b"\r\n")
            body = await client.reader.readuntil(b"}]}")
            sent[transport] = [line, *sorted(lines, key=bytes.lower), body]
            await client.send(PLAIN)

        async with serving(serve) as (_, server):
            there = Endpoint("there", f"http://{server.url.netloc}/v1", "THEIR_KEY", headers={"X-Title": "t"})
            backend = HttpBackend(there)
            with pytest.raises(CallFailed):
                await backend.complete(QUESTION)
            await backend.aclose()

    for transport in ("", "httpx"):
        monkeypatch.setenv("FUSION_TRANSPORT", transport)
        asyncio.run(work(transport))

    assert sent[""] == sent["httpx"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PLAIN, (200, b"hello")),
        (CHUNKED, (200, CHUNKED_BODY)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, (200, b"hello")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"")),
        (b"HTTP/1.1 500\r\nContent-Length: 2\r\n\r\nno", (500, b"no")),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", (200, b"hello")),
    ],
)
def test_an_answer_that_says_its_end_leaves_the_connection_to_the_next(
    run: Run, answer: bytes, expected: tuple[int, bytes]
) -> None:
    found, connections = run(calls(repeating(answer), 3))

    assert found == [expected] * 3
    # What httpx stands on keeps no connection that speaks HTTP/1.0.
    assert connections == (1 if run.ours or b"HTTP/1.1" in answer else 3)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_ends_with_its_connection_is_whole(run: Run, head: bytes) -> None:
    found, connections = run(calls(repeating(head, b"hel", b"lo", close=True), 2))

    assert found == [(200, b"hello")] * 2
    assert connections == 2


def test_headers_come_as_sent_without_those_of_interim_answers_and_trailers() -> None:
    async def work() -> list[tuple[bytes, bytes]]:
        async with serving(repeating(CHUNKED)) as (transport, server):
            return (await call(transport, server.url))[1]

    assert asyncio.run(work()) == [(b"X-One", b"1"), (b"Transfer-Encoding", b"chunked"), (b"Trailer", b"X-Sum")]


def test_an_answer_cut_at_any_byte_is_the_same(run: Run) -> None:
    async def work() -> None:
        async def serve(client: Client) -> None:
            while (body := await client.request()) is not None:
                await client.send(CHUNKED[: int(body)], CHUNKED[int(body) :])

        async with serving(serve) as (transport, server):
            for cut in range(1, len(CHUNKED)):
                status, _, body = await call(transport, server.url, b"%d" % cut)
                assert (status, body) == (200, CHUNKED_BODY)
            assert server.connections == 1

    run(work())


@given(cuts=st.sets(st.integers(1, len(CHUNKED) - 1), max_size=40), kind=st.sampled_from(list(LOOPS)))
@settings(max_examples=60)
def test_an_answer_in_any_pieces_is_the_same(cuts: set[int], kind: str) -> None:
    edges = [0, *sorted(cuts), len(CHUNKED)]
    pieces = [CHUNKED[a:b] for a, b in pairwise(edges)]

    found, connections = on_loop(kind, calls(repeating(*pieces), 2))

    assert found == [(200, CHUNKED_BODY)] * 2
    assert connections == 1


def test_pieces_are_handed_on_as_they_come(run: Run) -> None:
    async def work() -> None:
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(client: Client) -> None:
            await client.request()
            await client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(5):
                await client.send(b"1\r\n%d\r\n" % number)
                assert await seen.get() == b"%d" % number
            await client.send(b"0\r\n\r\n")

        async with serving(serve) as (transport, server):
            response = await begin(transport, server.url)
            async for piece in response:
                seen.put_nowait(piece)
            await response.aclose()

    run(work())


def test_a_server_that_compresses_without_being_asked_is_understood(run: Run) -> None:
    answer = {"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}]}
    body = gzip.compress(json.dumps(answer).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def work() -> str:
        async with serving(repeating(head + body)) as (_, server):
            backend = HttpBackend(Endpoint("there", f"http://{server.url.netloc}/v1"))
            try:
                return (
                    await backend.complete(CompletionRequest("there", "m", [{"role": "user", "content": "Why?"}], {}))
                ).content
            finally:
                await backend.aclose()

    assert run(work()) == "Paris."


# What is no answer


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_what_is_no_http_fails_and_closes(run: Run, answer: bytes) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(answer)
        await client.left()

    async def work() -> None:
        async with serving(serve) as (transport, server):
            failure = await failure_of(call(transport, server.url))
            assert type(failure) is TransportError
            if run.ours:
                assert str(failure).startswith("what it sent is no HTTP/1.1: ")
            await asyncio.gather(*server.tasks)

    run(work())


def test_what_cannot_become_http_fails_before_its_head_is_whole(run_ours: Run) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(b"SSH-2.0-OpenSSH_9.6\r\n")
        await client.left()

    async def work() -> None:
        async with serving(serve) as (transport, server):
            assert type(await failure_of(call(transport, server.url))) is TransportError

    run_ours(work())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no answer came"),
        (b"HTTP/1.1 200 O", "the answer is not whole"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "the answer is not whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello", "the answer is not whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "the answer is not whole"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "the answer is not whole"),
    ],
)
def test_an_answer_that_breaks_off_is_never_taken_for_whole(run: Run, answer: bytes, reason: str) -> None:
    async def work() -> None:
        async with serving(repeating(answer, close=True)) as (transport, server):
            failure = await failure_of(call(transport, server.url))
            assert type(failure) is TransportError
            if run.ours:
                assert str(failure) == reason

    run(work())


def test_what_came_before_the_break_is_handed_on(run: Run) -> None:
    async def work() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"
        async with serving(repeating(answer, close=True)) as (transport, server):
            pieces = aiter(await begin(transport, server.url))
            assert await anext(pieces) == b"hello"
            await failure_of(anext(pieces))

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2**18,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 2**15,
    ],
)
def test_a_head_without_an_end_is_given_up(run: Run, answer: bytes) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(answer)
        await client.left()

    async def work() -> None:
        async with serving(serve) as (transport, server):
            assert type(await failure_of(call(transport, server.url))) is TransportError

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2**16 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 2**13,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2**12,
    ],
)
def test_a_head_has_64_kib_with_the_interim_ones_before_it(run_ours: Run, answer: bytes) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(answer)
        await client.left()

    async def work() -> None:
        async with serving(serve) as (transport, server):
            failure = await failure_of(call(transport, server.url))
            assert (type(failure), str(failure)) == (TransportError, "its head is longer than 64 KiB")

    run_ours(work())


def test_a_header_with_a_line_break_is_not_sent(run: Run) -> None:
    async def work() -> None:
        async with serving(repeating(PLAIN)) as (_, server):
            there = Endpoint("there", f"http://{server.url.netloc}/v1", headers={"X-Title": "a\r\nx: y"})
            backend = HttpBackend(there)
            with pytest.raises(CallFailed) as caught:
                await backend.complete(QUESTION)
            await backend.aclose()
            assert caught.value.code == "connect"
            # httpx looks at headers when it has connected.
            assert server.connections == 0 or not run.ours

    run(work())


# Connections


@pytest.mark.parametrize("extra", [PLAIN, b"HTTP/1.1 200", b"x"])
def test_what_follows_an_answer_is_no_answer_to_the_next_call(run_ours: Run, extra: bytes) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(PLAIN + extra)
        await client.left()

    assert run_ours(calls(serve, 2)) == ([(200, b"hello")] * 2, 2)


def test_bytes_that_nobody_asked_for_close_an_idle_connection(run_ours: Run) -> None:
    async def work() -> None:
        idle = asyncio.Event()

        async def serve(client: Client) -> None:
            await client.request()
            await client.send(PLAIN)
            await idle.wait()
            await client.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            await client.left()

        async with serving(serve) as (transport, server):
            await call(transport, server.url)
            idle.set()
            await asyncio.gather(*server.tasks)
            await call(transport, server.url)
            assert server.connections == 2

    run_ours(work())


def test_a_connection_that_the_server_closed_between_calls_is_replaced(run: Run) -> None:
    async def work() -> None:
        async with serving(repeating(PLAIN, close=True)) as (transport, server):
            for number in range(1, 4):
                await call(transport, server.url)
                await asyncio.gather(*server.tasks)
                assert server.connections == number

    run(work())


def test_a_close_that_the_event_loop_has_not_seen_yet_is_seen_before_writing(run: Run) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    answered, closed = threading.Event(), threading.Event()

    def serve() -> None:
        for _ in range(2):
            peer, _ = listener.accept()
            with peer:
                while not peer.recv(1 << 16).endswith(b"{}"):
                    pass
                peer.sendall(PLAIN)
                answered.wait()
            closed.set()

    async def work() -> None:
        url = urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        transport = transport_for(url)
        await call(transport, url)
        answered.set()
        closed.wait()  # the loop stands still meanwhile
        assert (await call(transport, url))[2] == b"hello"
        await transport.aclose()

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        run(work())
        thread.join()


def test_a_request_that_may_have_been_read_is_not_sent_again(run: Run) -> None:
    read: list[bytes | None] = []

    async def serve(client: Client) -> None:
        read.append(await client.request())
        await client.send(PLAIN)
        read.append(await client.request())

    async def work() -> None:
        async with serving(serve) as (transport, server):
            await call(transport, server.url, b"1")
            failure = await failure_of(call(transport, server.url, b"2"))
            if run.ours:
                assert type(failure) is TransportError
                assert "kept" in str(failure)

    run(work())
    assert read == [b"1", b"2"]


def test_an_idle_connection_is_closed_in_time(run_ours: Run) -> None:
    async def work() -> None:
        async with serving(repeating(PLAIN), idle_s=0.02) as (transport, server):
            responses = [await begin(transport, server.url) for _ in range(3)]
            for response in responses:
                await response.aclose()
            await asyncio.gather(*server.tasks)
            await call(transport, server.url)
            assert server.connections == 4

    run_ours(work())


def test_closing_the_transport_closes_what_is_idle_and_lets_calls_end(run_ours: Run) -> None:
    async def work() -> None:
        async with serving(repeating(PLAIN)) as (transport, server):
            first, second = [await begin(transport, server.url) for _ in range(2)]
            await first.aclose()
            await transport.aclose()
            assert b"".join([piece async for piece in second]) == b"hello"
            await second.aclose()
            await asyncio.gather(*server.tasks)

    run_ours(work())


def test_leaving_in_the_middle_of_a_body_closes_the_connection(run: Run) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(PLAIN[:-1])
        await client.left()

    async def work() -> None:
        async with serving(serve) as (transport, server):
            for _ in range(2):
                await (await begin(transport, server.url)).aclose()
            await asyncio.gather(*server.tasks)
            assert server.connections == 2

    run(work())


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nConte", PLAIN[:-1], b"HTTP/1.1 200 OK\r\n\r\nhel"])
def test_a_call_that_is_given_up_closes_its_connection_at_once(run: Run, sent: bytes) -> None:
    async def work() -> None:
        asked = asyncio.Event()

        async def serve(client: Client) -> None:
            await client.request()
            await client.send(sent)
            await turns(5)
            asked.set()
            await client.left()

        async with serving(serve) as (transport, server):
            task = asyncio.create_task(call(transport, server.url))
            await asked.wait()
            task.cancel()
            await asyncio.gather(*server.tasks)
            assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    run(work())


def test_a_call_that_is_given_up_just_when_its_answer_comes_leaves_no_socket(run: Run) -> None:
    async def work(count: int) -> None:
        asked = asyncio.Event()

        async def serve(client: Client) -> None:
            await client.request()
            client.writer.write(PLAIN)
            asked.set()
            await client.left()

        async with serving(serve) as (transport, server):
            task = asyncio.create_task(call(transport, server.url))
            await asked.wait()
            await turns(count)
            task.cancel()
            await asyncio.wait([task])

    for count in range(8):
        run(work(count))


def test_a_call_that_is_given_up_while_connecting_leaves_no_socket(run_ours: Run) -> None:
    async def work() -> None:
        connected = asyncio.Event()

        async def serve(client: Client) -> None:
            await client.reader.read(1)  # the first byte of a handshake that nobody answers
            connected.set()
            with contextlib.suppress(ConnectionError):
                await client.reader.read()

        async with serving(serve) as (_, server):
            url = server.url._replace(scheme="https")
            transport = transport_for(url)
            task = asyncio.create_task(call(transport, url))
            await connected.wait()
            task.cancel()
            await asyncio.gather(*server.tasks)
            await asyncio.wait([task])
            assert task.cancelled()

    run_ours(work())


# A body that is taken as it comes


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=6))
@settings(max_examples=25, deadline=None)
def test_a_body_is_taken_whole_however_it_is_cut_into_pieces(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(CHUNKED)]
    pieces = [CHUNKED[start:end] for start, end in pairwise(edges)]
    taken: list[bytes] = []

    async def work() -> None:
        async with serving(repeating(*pieces)) as (transport, server):
            await taking(transport, server.url, taken.append)

    on_loop("uvloop", work())

    assert b"".join(taken) == CHUNKED_BODY


def test_what_the_taker_raises_is_raised_where_the_body_is_awaited(run_ours: Run) -> None:
    def refuse(piece: bytes) -> None:
        taken.append(piece)
        raise KeyError(piece)

    async def serve(client: Client) -> None:
        await client.request()
        await client.send(CHUNKED[:-40], CHUNKED[-40:-30], CHUNKED[-30:])
        await client.left()

    async def work() -> None:
        async with serving(serve) as (transport, server):
            with pytest.raises(KeyError):
                await taking(transport, server.url, refuse)

    taken: list[bytes] = []
    run_ours(work())

    assert len(taken) == 1


def test_what_came_before_a_connection_broke_is_taken_first(run_ours: Run) -> None:
    async def serve(client: Client) -> None:
        await client.request()
        await client.send(PLAIN[:-2])

    async def work() -> None:
        async with serving(serve) as (transport, server):
            failure = await failure_of(taking(transport, server.url, taken.append))
            assert type(failure) is TransportError

    taken: list[bytes] = []
    run_ours(work())

    assert b"".join(taken) == b"hel"


def test_the_taker_runs_in_the_context_of_who_waits(run_ours: Run) -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: set[tuple[str, str]] = set()

    async def call_as(name: str, transport: Transport, url: SplitResult) -> None:
        who.set(name)
        await taking(transport, url, lambda _: seen.add((name, who.get())))

    async def work() -> None:
        async with serving(repeating(PLAIN[:-2], PLAIN[-2:-1], PLAIN[-1:])) as (transport, server):
            for name in ("first", "second"):  # over the same connection
                await asyncio.create_task(call_as(name, transport, server.url))
            assert server.connections == 1

    run_ours(work())

    assert seen == {("first", "first"), ("second", "second")}


def test_a_body_that_is_given_up_while_it_is_taken_closes_its_connection(run_ours: Run) -> None:
    async def work() -> None:
        begun = asyncio.Event()

        async def serve(client: Client) -> None:
            await client.request()
            await client.send(PLAIN[:-1])
            await client.left()

        async with serving(serve) as (transport, server):
            task = asyncio.create_task(taking(transport, server.url, lambda _: begun.set()))
            await begun.wait()
            task.cancel()
            await asyncio.gather(*server.tasks)
            await asyncio.wait([task])
            assert task.cancelled()

    run_ours(work())


# Many, and much


def test_calls_in_turn_share_a_connection(run: Run, upstream: Upstream) -> None:
    before = upstream.stats()["connections_total"]  # a server of other tests may keep some
    run(from_upstream(upstream, [1] * 20))

    assert (upstream.stats()["requests"], upstream.stats()["connections_total"] - before) == (20, 1)


def test_many_calls_at_once_each_get_their_own_answer(run: Run, upstream: Upstream) -> None:
    # The pool of httpx's transport is quadratic in its connections.
    count = 300 if run.ours else 30
    before = upstream.stats()["connections_total"]
    bodies = run(from_upstream(upstream, [count, count]))

    answers = [json.loads(body)["choices"][0]["message"]["content"] for body in bodies]
    assert [number for number, answer in enumerate(answers) if f"Number {number}?" not in answer] == []
    assert upstream.stats()["connections_total"] - before <= count


async def from_upstream(upstream: Upstream, batches: list[int]) -> list[bytes]:
    """Ask the fake endpoint, batch after batch."""
    url = urlsplit(f"{upstream.url}/chat/completions")
    transport = transport_for(url)

    async def ask(number: int) -> bytes:
        body = {"model": "fake/a+echo", "messages": [{"role": "user", "content": f"Number {number}?"}]}
        content = json.dumps(body).encode()
        response = await begin(transport, url, content, **{"content-type": "application/json"})
        try:
            return b"".join([piece async for piece in response])
        finally:
            await response.aclose()

    found: list[bytes] = []
    for batch in batches:
        found += await asyncio.gather(*(ask(len(found) + number) for number in range(batch)))
    await transport.aclose()
    return found


@pytest.mark.parametrize("chunked", [False, True])
def test_a_server_faster_than_its_reader_has_to_wait(run: Run, chunked: bool) -> None:
    size, block = 50 * 2**20, b"x" * 2**16

    async def serve(client: Client) -> None:
        await client.request()
        how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        client.writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % how)
        for _ in range(size // len(block)):
            client.writer.write(b"10000\r\n%b\r\n" % block if chunked else block)
            await client.writer.drain()
        client.writer.write(b"0\r\n\r\n" if chunked else b"")
        await repeating(PLAIN)(client)

    async def work() -> tuple[list[int], int]:
        async with serving(serve) as (transport, server):
            response = await begin(transport, server.url)
            pieces = []
            async for piece in response:
                pieces.append(len(piece))
                await turns(50)
            await response.aclose()
            await call(transport, server.url)
            return pieces, server.connections

    pieces, connections = run(work())

    # What had gathered while the reader was away: much, and never more than the limit and one read from the socket.
    assert max(pieces) < 2**20 + 2**19
    assert not run.ours or max(pieces) > 2**20
    assert sum(pieces) == size
    assert connections == 1


# Reaching the server


def test_a_dead_port_is_named_by_its_reason(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = urlsplit(f"http://127.0.0.1:{port}/")

    failure = run(failure_of(call(transport_for(url), url)))

    assert isinstance(failure, ConnectError)
    assert str(failure)


@pytest.mark.parametrize("address", ["http://nowhere.invalid/", f"http://{'a' * 70}/"])
def test_what_is_no_address_cannot_be_reached(run: Run, address: str) -> None:
    url = urlsplit(address)

    failure = run(failure_of(call(transport_for(url), url)))

    assert isinstance(failure, ConnectError)
    assert str(failure)


def test_a_server_on_one_of_the_addresses_of_localhost_is_found(run: Run) -> None:
    assert run(calls(repeating(PLAIN), host="localhost")) == ([(200, b"hello")], 1)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def certified(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def test_a_trusted_certificate_carries_calls_in_http_1(run: Run, trusted: trustme.CA) -> None:
    chosen = []

    async def serve(client: Client) -> None:
        chosen.append(client.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await repeating(CHUNKED)(client)

    found, connections = run(calls(serve, 3, tls=certified(trusted, "localhost"), host="localhost"))

    assert found == [(200, CHUNKED_BODY)] * 3
    assert connections == 1
    assert chosen == ["http/1.1"]


def test_where_the_environment_names_no_certificates_those_of_certifi_are_trusted(
    run: Run, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "ca.pem"))

    found, _ = run(calls(repeating(PLAIN), tls=certified(authority, "localhost"), host="localhost"))

    assert found == [(200, b"hello")]


def test_a_certificate_that_nobody_vouches_for_is_refused_by_name(run: Run, authority: trustme.CA) -> None:
    failure = run(failure_of(calls(repeating(PLAIN), tls=certified(authority, "localhost"), host="localhost")))

    assert isinstance(failure, ConnectError)
    assert "certificate verify failed" in str(failure)


def test_a_certificate_for_another_name_is_refused(run: Run, trusted: trustme.CA) -> None:
    tls = certified(trusted, "elsewhere.example")

    failure = run(failure_of(calls(repeating(PLAIN), tls=tls, host="localhost")))

    assert isinstance(failure, ConnectError)
    assert "localhost" in str(failure)


def test_certificates_that_cannot_be_read_are_an_error_of_the_call(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    url = urlsplit("https://127.0.0.1:9/")

    async def work() -> ConnectError:
        with pytest.raises(ConnectError) as caught:
            await call(transport_for(url), url)
        return caught.value

    failure = run(work())

    assert isinstance(failure, ConnectError)
    assert "certificates to trust" in str(failure)


def test_a_server_without_tls_cannot_be_reached_over_https(run: Run) -> None:
    async def serve(client: Client) -> None:
        await client.reader.read(1)
        await client.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def work() -> None:
        async with serving(serve) as (_, server):
            url = server.url._replace(scheme="https")
            assert isinstance(await failure_of(call(transport_for(url), url)), ConnectError)

    run(work())


def test_a_proxy_that_the_environment_names_is_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bytes] = []
    answer = b'{"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}]}'

    async def serve(client: Client) -> None:
        lines.append(await client.reader.readline())
        await client.request()
        await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    async def work() -> str:
        async with serving(serve) as (_, server):
            monkeypatch.setenv("http_proxy", f"http://{server.url.netloc}")
            monkeypatch.setenv("no_proxy", "")
            backend = HttpBackend(Endpoint("there", "http://there.example/v1"))
            try:
                return (
                    await backend.complete(CompletionRequest("there", "m", [{"role": "user", "content": "Why?"}], {}))
                ).content
            finally:
                await backend.aclose()

    assert run(work()) == "Paris."
    assert lines == [b"POST http://there.example/v1/chat/completions HTTP/1.1\r\n"]
