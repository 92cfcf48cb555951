"""Ask a server as many clients at once would, and print what came of it as JSON; in a process of its own.

python tests/bench/load.py URL --clients 64 --count 1000 [--stream] …    fused requests of a server
python tests/bench/load.py URL --path panel,synth --count 100 …          their calls made raw, with no server between

A closed loop on a raw uvloop protocol: each client asks again as soon as it is answered, on a connection of its own
that stays open. It costs some 50 µs per request and 10 µs per token, so that the server is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop

STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
#: The first text of an answer, plain or streamed: the delta with the role has none.
TEXT = re.compile(rb'"content": ?"[^"]')
STAMP = re.compile(rb"@(\d{16})@")
STAMP_BYTES = 18
PATHS = {
    "panel": ("fake/a", "fake/b", "fake/c"),
    "judge": ("fake/judge",),
    "synth": ("fake/synth",),
    "by_name": ("fake/a",),
}


@dataclass(slots=True)
class Reply:
    """What came of one request; times are `time.monotonic_ns()`."""

    sent: int
    status: int = 0
    first: int = 0  # its first text
    done: int = 0
    delays: list[int] = field(default_factory=list)  # from each token's stamp to its arrival
    body: bytes = b""

    @property
    def answered(self) -> bool:
        return self.status == 200 and self.first > 0


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        self.waiting = asyncio.get_running_loop().create_future()
        self.received, self.body_at, self.length = bytearray(), 0, 0
        self.left = b""
        self.reply = Reply(time.monotonic_ns())
        self.transport.write(request)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        received, reply = self.received, self.reply
        received += data
        if not self.body_at and not self.read_head():
            return
        if not reply.first and TEXT.search(received, self.body_at):
            reply.first = now
        seen = self.left + data
        reply.delays += [now - int(stamp) for stamp in STAMP.findall(seen)]
        self.left = seen[1 - STAMP_BYTES :]
        ended = (
            len(received) >= self.body_at + self.length
            if self.length >= 0
            else received.endswith(b"0\r\n\r\n", self.body_at)
        )
        if ended:
            reply.done, reply.body = now, bytes(received[self.body_at :])
            self.settle()

    def read_head(self) -> bool:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.received[:end])
        self.body_at = end + 4
        self.reply.status = int(STATUS.match(head)[1])
        length = LENGTH.search(head)
        self.length = int(length[1]) if length else -1
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.waiting and not self.waiting.done():
            self.reply.status, self.reply.done = 0, time.monotonic_ns()
            self.settle()

    def settle(self) -> None:
        if not self.waiting.done():
            self.waiting.set_result(self.reply)


@dataclass(slots=True)
class Client:
    """Someone who asks one server, and connects again where it hung up."""

    url: str
    connection: Connection | None = None

    async def ready(self) -> Client:
        host, port = self.url.removeprefix("http://").partition("/")[0].split(":")
        if self.connection is None or self.connection.transport is None:
            loop = asyncio.get_running_loop()
            _, self.connection = await loop.create_connection(Connection, host, int(port))
        return self

    async def ask(self, request: bytes) -> Reply:
        await self.ready()
        return await self.connection.ask(request)


def post(path: str, model: str, content: str, stream: bool) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": content}]} | ({"stream": True} if stream else {})
    body = orjson.dumps(asked)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@dataclass(slots=True)
class Questions:
    """Requests of which no two ask the same, in this run or another."""

    model: str
    stream: bool
    run: str = field(default_factory=lambda: f"{random.getrandbits(48):012x}")
    count: int = 0

    def next(self) -> bytes:
        self.count += 1
        text = f"Question {self.run}-{self.count}: which of these holds, and why? Say what speaks against it too."
        return post("/v1/chat/completions", self.model, text, self.stream)


async def fuse(clients: list[Client], questions: Questions, count: int, seconds: float) -> list[Reply]:
    """Ask until so many are answered or so much time is over; all that was asked is waited for."""
    replies: list[Reply] = []
    left, end = count, time.monotonic() + seconds

    async def go_on(client: Client) -> None:
        nonlocal left
        if questions.stream and len(clients) > 1:
            # Tokens of all streams in one instant would be an upstream's oddity, not load.
            await asyncio.sleep(random.random() / 4)
        while left > 0 and time.monotonic() < end:
            left -= 1
            replies.append(await client.ask(questions.next()))

    await asyncio.gather(*map(go_on, clients))
    return replies


async def walk(url: str, path: list[str], questions: Questions, count: int, seconds: float) -> list[Reply]:
    """Make the calls of a chain with nothing between: those of one stage at once, stage after stage."""
    stages = [[(Client(url), model) for model in PATHS[stage]] for stage in path]
    end = time.monotonic() + seconds
    replies: list[Reply] = []
    while len(replies) < count and time.monotonic() < end:
        started = time.monotonic_ns()
        for number, stage in enumerate(stages):
            # Judge and synthesizer read what the panel wrote.
            text, last = f"{questions.run} {len(replies)} " + "Some words. " * 80 * min(number, 1), stage is stages[-1]
            requests = [post("/v1/chat/completions", model, text, questions.stream and last) for _, model in stage]
            said = await asyncio.gather(*[c.ask(request) for (c, _), request in zip(stage, requests, strict=True)])
        said[0].sent = started
        replies.append(said[0])
    return replies


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the most memory that a process held since the last `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def calls_of(upstream: Client | None) -> int:
    """Return how many calls the upstream has had."""
    if upstream is None:
        return 0
    return int(orjson.loads((await upstream.ask(get("/stats"))).body)["requests"])


def percentile(values: list[int], share: float) -> float:
    """Return a percentile of nanoseconds in milliseconds; 0 where there are none."""
    return sorted(values)[int(share * (len(values) - 1))] / 1e6 if values else 0.0


def figures(replies: list[Reply], wall_s: float, cpu: float) -> dict[str, Any]:
    good = [reply for reply in replies if reply.answered]
    bad = next((reply for reply in replies if not reply.answered), None)
    took, first = ([getattr(reply, name) - reply.sent for reply in good] for name in ("done", "first"))
    delays = [delay for reply in good for delay in reply.delays]
    return {
        "answered": len(good),
        "failed": len(replies) - len(good),
        "said": "" if bad is None else f"{bad.status}: {bad.body[:300].decode(errors='replace')}",
        "wall_s": wall_s,
        "rate": len(good) / wall_s,
        "p50_ms": percentile(took, 0.5),
        "p99_ms": percentile(took, 0.99),
        "max_ms": percentile(took, 1.0),
        "first_p50_ms": percentile(first, 0.5),
        "first_p99_ms": percentile(first, 0.99),
        "tokens": len(delays) / max(1, len(good)),
        "delay_p50_ms": percentile(delays, 0.5),
        "delay_p99_ms": percentile(delays, 0.99),
        "cpu_ms": cpu * 1000 / max(1, len(replies)),
        "cpu_share": cpu / wall_s,
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    questions = Questions(options.model, options.stream)
    upstream = Client(options.upstream) if options.upstream else None
    work: Callable[[int], Awaitable[list[Reply]]]
    if options.path:
        work = lambda count: walk(options.url, options.path, questions, count, options.seconds)  # noqa: E731
    else:
        clients = list(await asyncio.gather(*[Client(options.url).ready() for _ in range(options.clients)]))
        work = lambda count: fuse(clients, questions, count, options.seconds)  # noqa: E731
    await work(options.warm)
    if options.pid:
        forget_peak(options.pid)
    made, cpu, own = await calls_of(upstream), cpu_s(options.pid) if options.pid else 0.0, time.process_time()
    started = time.perf_counter()
    replies = await work(options.count)
    wall_s = time.perf_counter() - started
    own = time.process_time() - own
    found = figures(replies, wall_s, cpu_s(options.pid) - cpu if options.pid else 0.0)
    found["calls"] = (await calls_of(upstream) - made) / max(1, len(replies))
    found["peak_mib"] = peak_mib(options.pid) if options.pid else 0.0
    found["own_cpu_ms"] = own * 1000 / max(1, len(replies))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://127.0.0.1:PORT, of the server or of the upstream")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000, help="requests, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="after which nothing more is asked")
    parser.add_argument("--warm", type=int, default=0, help="requests before those that count")
    parser.add_argument("--model", default="fusion")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--path", type=lambda text: text.split(","), help="the stages of a chain, made raw")
    parser.add_argument("--pid", type=int, default=0, help="the server's, to weigh it")
    parser.add_argument("--upstream", default="", help="its URL, to count its calls")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(orjson.dumps(uvloop.run(measure(parser.parse_args()))).decode())


if __name__ == "__main__":
    main()
