"""A stand-in for paid models: an OpenAI-compatible endpoint on loopback, in a process of its own.

    python tests/support/upstream.py [--port 0] [--latency 0.05] [--key KEY] [--record] [--stay]

prints its base URL when it listens, and ends on SIGTERM, when the pipe on its stdin closes, or when its parent dies
(`--stay` waits for SIGTERM only). What a model answers stands in its name: see `fake_models.py`.

    POST /v1/chat/completions   plain or streamed
    GET  /v1/models
    GET  /stats                 requests, per_model, in_flight, max_in_flight, aborted (the client left before the end),
                                connections_open, connections_total; all without these control requests
    GET  /requests              the last 1000 completion requests: when (monotonic), headers, body (with --record)
    POST /script                {"model": "fake/a", "behaviours": ["status=500", "slow=1", ""]}: one for each of the
                                next requests for exactly this name, on top of what the name says
    POST /reset                 forgets counts, requests and scripts

A raw protocol on uvloop, as a benchmark must measure the client and not this.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import resource
import signal
import stat
import time
from collections import Counter, deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import fake_models
import orjson

try:
    from uvloop import run
except ImportError:
    from asyncio import run

MODELS = ["fake/a", "fake/b", "fake/c", "fake/judge"]
CONTROL = {("GET", "/stats"), ("GET", "/requests"), ("POST", "/script"), ("POST", "/reset")}
CHUNK = 1 << 16
#: What is left to send: seconds to wait, then bytes; None in place of bytes closes the connection.
Pieces = Iterator[tuple[float, bytes | None]]


class HeadError(ValueError):
    """These bytes are not an HTTP request that we read."""


class Upstream:
    """What all connections share: the options, the counts, the recorded requests."""

    def __init__(self, key: str | None = None, latency: float = 0.0, record: bool = False) -> None:
        self.key, self.latency, self.record = key, latency, record
        self.connections_open = self.generation = 0
        self.reset()

    def reset(self) -> None:
        self.requests = self.aborted = 0
        self.per_model: Counter[str] = Counter()
        # What is still in flight of an earlier test is none of the next one's.
        self.generation += 1
        self.in_flight = self.max_in_flight = 0
        self.connections_total = self.connections_open
        self.recorded: deque[dict[str, Any]] = deque(maxlen=1000)
        self.scripts: dict[str, deque[str]] = {}

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "per_model": dict(self.per_model),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "aborted": self.aborted,
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
        }

    def control(self, path: str, body: bytes) -> Pieces:
        if path == "/stats":
            return json_response(200, self.stats())
        if path == "/requests":
            return json_response(200, list(self.recorded)) if self.record else refusal(400, "started without --record")
        if path == "/reset":
            self.reset()
            return json_response(200, {})
        try:
            script = orjson.loads(body)
            self.scripts[script["model"]] = deque(script["behaviours"])
        except (LookupError, TypeError, ValueError) as why:
            return refusal(400, f"not a script: {why!r}")
        return json_response(200, {})

    def admits(self, headers: dict[str, str]) -> bool:
        return not self.key or headers.get("authorization") == f"Bearer {self.key}"

    def complete(self, headers: dict[str, str], body: bytes) -> Pieces:
        """Answer a completion request as strictly as the real ones do."""
        self.requests += 1
        if not headers.get("content-type", "").startswith("application/json"):
            return refusal(400, "Unsupported content type: use application/json")
        try:
            request = fake_models.check(body)
            model = request["model"]
            self.per_model[model] += 1
            if self.record:
                self.recorded.append({"at": time.monotonic(), "headers": headers, "body": request})
            script = self.scripts.get(model)
            answer = fake_models.answer(request, self.per_model[model], script.popleft() if script else "")
        except fake_models.RequestError as refused:
            return refusal(400, *refused.args)
        except (AttributeError, LookupError, TypeError) as why:
            return refusal(400, f"Malformed request: {why!r}")
        answer.wait += self.latency
        return response(answer)


def response(answer: fake_models.Answer) -> Pieces:
    """Return the whole HTTP response."""
    if answer.wire is not None:
        return iter([(answer.wait, answer.wire), (0.0, None)])
    pieces = list(fake_models.body(answer))
    if answer.streamed and answer.raw is None:
        head = head_of(answer.status, answer.stream_type, "Transfer-Encoding: chunked\r\n")
        pieces = [(wait, b"%x\r\n%b\r\n" % (len(piece), piece)) for wait, piece in pieces]
        pieces.append((0.0, b"0\r\n\r\n"))
    else:
        more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        length = sum(len(piece) for _, piece in pieces)
        head = head_of(answer.status, answer.content_type, f"{more}Content-Length: {length}\r\n")
    if answer.cut < 1:
        return chain([(answer.wait, head if answer.cut else b"")], cut_off(pieces, answer.cut))
    return iter([(answer.wait, head), *pieces])


def cut_off(pieces: list[tuple[float, bytes]], share: float) -> Pieces:
    """Send this share of the bytes, then close."""
    left = int(share * sum(len(piece) for _, piece in pieces))
    for wait, piece in pieces:
        yield wait, piece[:left]
        left -= len(piece)
        if left <= 0:
            break
    yield 0.0, None


@lru_cache(maxsize=1024)
def head_of(status: int, content_type: str, more: str) -> bytes:
    phrase = http.client.responses.get(status, "Unknown")
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {content_type}\r\n{more}\r\n".encode()


def json_response(status: int, value: Any) -> Pieces:
    body = orjson.dumps(value)
    return iter([(0.0, head_of(status, "application/json", f"Content-Length: {len(body)}\r\n") + body)])


def refusal(status: int, message: str, param: str | None = None, code: str | None = None) -> Pieces:
    return json_response(status, fake_models.error(status, message, param, code))


@lru_cache(maxsize=1024)
def parse_head(head: bytes) -> tuple[str, str, dict[str, str], int]:
    """Return method, path, headers (names in lower case) and the body's length; cached, as clients repeat it."""
    line, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        raise HeadError(f"not a request line: {line[:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit():
        raise HeadError("a body needs a Content-Length")
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return method, target.partition("?")[0], headers, int(length)


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, pipelined or not."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self.upstream, self.loop = upstream, loop
        self.buffer = bytearray()
        self.need = 0  # bytes that must have arrived before looking at the buffer again
        self.answer: Pieces | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.paused = self.closing = self.counted = self.completing = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        if self.completing and self.generation == self.upstream.generation:
            self.upstream.aborted += 1
            self.upstream.in_flight -= 1
        self.upstream.connections_open -= self.counted
        self.closing, self.completing, self.answer = True, False, None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.answer is None and len(self.buffer) >= self.need:
            self.serve()

    def serve(self) -> None:
        """Answer the requests that the buffer holds, until one must wait."""
        while self.answer is None and not self.closing:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            try:
                method, path, headers, length = parse_head(bytes(self.buffer[:end]))
            except HeadError as why:
                self.closing = True
                self.answer = refusal(400, str(why))
                self.play()
                return
            start, self.need = end + 4, end + 4 + length
            if len(self.buffer) < self.need:
                if headers.get("expect") == "100-continue" and len(self.buffer) == start:
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self.buffer[start : self.need])
            del self.buffer[: self.need]
            self.need = 0
            self.closing = headers.get("connection", "").lower() == "close"
            self.respond(method, path, headers, body)

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        upstream = self.upstream
        if (method, path) in CONTROL:
            self.answer = upstream.control(path, body)
            self.play()
            return
        if not self.counted:
            self.counted = True
            upstream.connections_open += 1
            upstream.connections_total += 1
        if (method, path) == ("POST", "/v1/chat/completions"):
            self.completing, self.generation = True, upstream.generation
            upstream.in_flight += 1
            upstream.max_in_flight = max(upstream.max_in_flight, upstream.in_flight)
        if not upstream.admits(headers):
            self.answer = refusal(401, "Incorrect API key provided", code="invalid_api_key")
        elif self.completing:
            self.answer = upstream.complete(headers, body)
        elif (method, path) == ("GET", "/v1/models"):
            models = [{"id": m, "object": "model", "created": fake_models.CREATED, "owned_by": "fake"} for m in MODELS]
            self.answer = json_response(200, {"object": "list", "data": models})
        else:
            self.answer = refusal(404, f"Unknown request URL: {method} {path}", code="unknown_url")
        self.play()

    def play(self) -> None:
        """Send what is due; stop where the answer waits or the client does not read."""
        if self.paused or self.timer or self.answer is None:
            return
        due, size = [], 0
        for wait, piece in self.answer:
            if wait:
                self.timer = self.loop.call_later(wait, self.wake, piece)
                break
            if piece is None:
                self.closing = True
                continue
            due.append(piece)
            size += len(piece)
            if size > CHUNK:
                self.transport.write(b"".join(due))
                due, size = [], 0
                if self.paused:
                    return
        self.transport.write(b"".join(due))
        if self.timer is None:
            self.finish()

    def wake(self, piece: bytes) -> None:
        self.timer = None
        self.transport.write(piece)
        self.play()
        self.serve()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.play()
        self.serve()

    def finish(self) -> None:
        self.answer = None
        if self.completing:
            self.completing = False
            self.upstream.in_flight -= self.generation == self.upstream.generation
        if self.closing:
            self.transport.close()


async def listen(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    upstream = Upstream(options.key, options.latency, options.record)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(upstream, loop), "127.0.0.1", options.port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    if not options.stay:
        end_with_parent(loop, stop)
    await stop.wait()
    server.close()


def end_with_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` when the pipe on stdin closes or the parent dies, as tests killed outright tidy nothing up."""
    parent = os.getppid()

    def look_for_parent() -> None:
        if os.getppid() != parent:
            stop.set()
        loop.call_later(0.5, look_for_parent)

    def read_stdin() -> None:
        if not os.read(0, CHUNK):
            stop.set()

    look_for_parent()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        loop.add_reader(0, read_stdin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every completion")
    parser.add_argument("--key", help="refuse requests without this bearer token")
    parser.add_argument("--record", action="store_true", help="keep the last 1000 requests for /requests")
    parser.add_argument("--stay", action="store_true", help="outlive the parent and stdin")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run(listen(parser.parse_args()))


if __name__ == "__main__":
    main()
