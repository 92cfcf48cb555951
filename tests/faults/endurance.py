"""Ask a server for minutes, as 64 clients do: what it holds must not grow, and nobody may get an error.

    python tests/faults/endurance.py [SECONDS]

Ten minutes where nothing is said. Clients ask fused and straight, whole and streamed, in every protocol, think a
moment, and one in ten leaves in the middle of a stream. Memory and threads are looked at every second; when all is
warm, after a third of the time, they must no longer grow. At the end nothing is under way or waits.

How many files are open meanwhile says nothing of leaks: connections to the endpoint are as many as there were calls at
once in the last seconds. So when the clients are gone and unused connections have been closed, the server must have
the files open that it had before anybody asked, and none besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from bounds import Bound, run_part, scene
from serving import CHAT, Server, start_server

from fusiontools.llm.http1 import IDLE_S

CLIENTS, THINK_S, LEAVING = 64, 0.5, 0.1
#: What the rest of the time may add, in percent, by the line through all that was seen.
MOST_GROWTH = {"memory, MiB": 10, "threads": 10}
#: How long an unused connection may stay, and what a busy machine may need on top.
CLOSED_WITHIN_S = IDLE_S + 30


class Watch:
    """What a process holds, second by second."""

    def __init__(self, pid: int) -> None:
        self.process = Path(f"/proc/{pid}")
        self.seen: list[tuple[float, float, int]] = []

    async def look(self, until: float) -> None:
        while time.monotonic() < until:
            status = (self.process / "status").read_text()
            rss_mib = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            threads = int(status.partition("Threads:")[2].split()[0])
            self.seen.append((time.monotonic(), rss_mib, threads))
            await asyncio.sleep(1)

    def growth_percent(self, what: int) -> float:
        """Return by how much a figure grows once all is warm."""
        warm = self.seen[len(self.seen) // 3 :]
        slope, start = statistics.linear_regression([row[0] - warm[0][0] for row in warm], [row[what] for row in warm])
        return round(100 * slope * (warm[-1][0] - warm[0][0]) / start, 1)


def open_files(pid: int) -> Counter[str]:
    """Return what a process has open, by kind: sockets, pipes, files by their names."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            kinds[re.sub(r"\[\d+\]", "", str(link.readlink()))] += 1
    return kinds


def left_open(pid: int, before: Counter[str]) -> Counter[str]:
    """Return what is still open that was not before, once there was time to close it."""
    end = time.monotonic() + CLOSED_WITHIN_S
    while (left := open_files(pid) - before) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def request(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a path and a body; no two ask the same."""
    text, streamed = f"Question {draw.getrandbits(60):x}?", draw.random() < 0.5
    turn = [{"role": "user", "content": text}]
    return draw.choice(
        [
            (CHAT, {"model": "fusion", "messages": turn, "stream": streamed}),
            (CHAT, {"model": "fake/a", "messages": turn, "stream": streamed}),
            ("/v1/responses", {"model": "fusion", "input": text, "stream": streamed, "store": False}),
            ("/v1/messages", {"model": "fusion", "max_tokens": 500, "messages": turn, "stream": streamed}),
            ("/v1/completions", {"model": "fusion", "prompt": text, "stream": streamed}),
            ("/fuse", {"prompt": text}),
        ]
    )


async def ask(session: aiohttp.ClientSession, draw: random.Random, ends: Counter[str]) -> None:
    """Ask one question, and note how that ended."""
    path, body = request(draw)
    try:
        async with session.post(path, json=body) as reply:
            if body.get("stream") and draw.random() < LEAVING:
                await reply.content.readany()
                reply.close()
                ends["left"] += 1
                return
            text = await reply.read()
            failed = reply.status != 200 or re.search(rb'"error": ?[{"]|event: error', text)
            ends[f"{reply.status}: {text[-200:]!r}" if failed else "ok"] += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        ends[repr(error)] += 1


async def endure(server: Server, seconds: float) -> tuple[Watch, Counter[str]]:
    """Let the clients ask for so long; returns what was seen of the server, and how requests ended."""
    until, ends, watch = time.monotonic() + seconds, Counter[str](), Watch(server.process.pid)

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < until:
            await ask(session, draw, ends)
            await asyncio.sleep(draw.uniform(0, THINK_S))

    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        await asyncio.gather(watch.look(until), *[client(session, number) for number in range(CLIENTS)])
    return watch, ends


def settled(server: Server) -> float:
    """Return what is still under way or waits once the clients are gone."""
    end = time.monotonic() + 10
    while (left := server.metric("fusion_in_flight") + server.metric("fusion_queued")) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def measure(seconds: int) -> Iterator[Bound]:
    """Ask for so long."""
    with scene("--latency", "0.05") as here, start_server(here.folder, here.env) as server:
        server.get("/health")  # it runs, and has opened what it always has open
        time.sleep(1)
        before = open_files(server.process.pid)
        watch, ends = asyncio.run(endure(server, seconds))
        busiest = open_files(server.process.pid).total()
        left = settled(server)
        open_still = left_open(server.process.pid, before)
        said = server.said()
    wrong = {end: count for end, count in ends.items() if end not in ("ok", "left")}
    for end, count in [*wrong.items()][:5]:
        print(f"endurance: {count} times {end}", file=sys.stderr)
    yield Bound("endurance", f"requests of {CLIENTS} clients in {seconds} s", ends.total())
    yield Bound("endurance", "errors", sum(wrong.values()), 0)
    yield Bound("endurance", "tracebacks in the server's log", said.count("Traceback"), 0)
    for what, (name, most) in enumerate(MOST_GROWTH.items(), 1):
        yield Bound("endurance", f"{name}, at the end", round(watch.seen[-1][what], 1))
        yield Bound("endurance", f"{name}, growth in percent", watch.growth_percent(what), most)
    yield Bound("endurance", "requests left when the clients are gone", left, 0)
    print(
        f"endurance: {before.total()} files open before, {busiest} at the end, left over: {dict(open_still)}",
        file=sys.stderr,
    )
    yield Bound("endurance", "open files left when the clients are gone", open_still.total(), 0)


if __name__ == "__main__":
    sys.exit(run_part(measure, 600))
