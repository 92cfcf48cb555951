"""Post spoilt bodies to a real server: whatever comes, it answers, never with a bug, and stays as small as it was.

    python tests/faults/fuzzed.py [REQUESTS]

30,000 requests where nothing is said, drawn from one seed: bodies that are good, with up to three things in them that
are gone, of another kind, nested or too many; every twentieth with its bytes spoilt, too.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from bounds import Bound, run_part, scene
from good_bodies import GOOD, MESSAGED, RESPONDED, nested, places, words
from serving import RECIPE, Server, start_server

CLIENTS, SEED = 16, 11
#: A server that has met everything may hold so much more than one that has met nothing.
MOST_GROWTH_MIB = 300
ITEMS = RESPONDED["input"][:3]
BODIES = (
    *GOOD,
    ("/v1/completions", {"model": "fusion", "prompt": ["Why?"], "max_tokens": 9, "stop": "END", "suffix": None}),
    ("/v1/responses/input_tokens", RESPONDED),
    ("/v1/conversations", {"items": ITEMS, "metadata": {"a": "b"}}),
    ("/v1/conversations/conv_1/items", {"items": ITEMS}),
    ("/v1/messages/count_tokens", MESSAGED),
)
TEXTS = (
    *sorted({word for _, body in GOOD for word in words(body)}),
    *("", "\0", "\u2028", "a" * 5000, "*9@x", "panel --samples 3 | vote", "judge | synth", "n", "fusion/", "../x"),
)
NUMBERS = (
    *(-1_000_000, -1, 0, 1, 2, 70, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 0.5, -0.5, 1.0, 1e308, 5e-324),
    *(float("nan"), float("inf")),
)
DEPTHS = (30, 230, 253, 400)


def junk(draw: random.Random, depth: int = 0) -> Any:
    """Return JSON of any kind."""
    kind = draw.randrange(8 if depth < 3 else 4)
    if kind < 2:
        return draw.choice(TEXTS)
    if kind < 3:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice((None, True, False))
    if kind < 5:
        return nested(draw.choice(DEPTHS), draw.choice(("", "properties")))
    if kind < 6:
        return [junk(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(TEXTS): junk(draw, depth + 1) for _ in range(draw.randrange(4))}


def spoil(good: Any, draw: random.Random) -> Any:
    """Return a good body with up to three things in it spoilt."""
    body = copy.deepcopy(good)
    for _ in range(draw.randint(1, 3)):
        there = list(places(body))
        if not there:
            break
        *path, key = draw.choice(there)
        home = body
        for step in path:
            home = home[step]
        how = draw.choice(("drop", "junk", "junk", "wrap", "more"))
        if how == "drop":
            del home[key]
        elif how == "wrap":
            home[key] = [home[key]]
        elif how == "more" and isinstance(home, list):
            home.insert(key, junk(draw))
        else:
            home[draw.choice(TEXTS) if how == "more" else key] = junk(draw)
    return body


def spoil_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return bytes of which some are gone, doubled or others."""
    start, size = draw.randrange(len(content)), draw.randrange(40)
    there = content[start : start + size]
    return content[:start] + draw.choice((b"", there + there, draw.randbytes(size))) + content[start + size :]


def requests(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield paths and bodies."""
    draw = random.Random(SEED)
    for i in range(count):
        path, good = draw.choice(BODIES)
        content = json.dumps(spoil(good, draw)).encode()
        yield path, content if i % 20 else spoil_bytes(content, draw)


async def post_all(server: Server, count: int) -> Counter[int]:
    """Post all of it; returns how often each status came, 0 where no answer did. Bugs are told on standard error."""
    statuses: Counter[int] = Counter()
    left = requests(count)
    headers = {"content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=60)

    async def client(session: aiohttp.ClientSession) -> None:
        for path, content in left:
            try:
                async with session.post(path, data=content, headers=headers) as reply:
                    text = await reply.read()
                    status = 500 if b'"internal_error"' in text and b"a bug" in text else reply.status
            except (aiohttp.ClientError, TimeoutError) as error:
                status, text = 0, repr(error).encode()
            statuses[status] += 1
            if status in (0, 500):
                print(f"fuzzed: {status} for {path}: {content[:2000]!r}: {text[:500]!r}", file=sys.stderr)

    async with aiohttp.ClientSession(server.url, timeout=timeout) as session:
        await asyncio.gather(*[client(session) for _ in range(CLIENTS)])
    return statuses


def memory_mib(pid: int, what: str) -> float:
    """Return what a process holds (`VmRSS`), or held at most (`VmHWM`)."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{what}:")[2].split()[0]) / 1024


def measure(count: int) -> Iterator[Bound]:
    """Post so many requests."""
    with scene() as here, start_server(here.folder, here.env, "--max-calls", "8", recipe=RECIPE) as server:
        before_mib = memory_mib(server.process.pid, "VmRSS")
        statuses = asyncio.run(post_all(server, count))
        peak_mib = memory_mib(server.process.pid, "VmHWM")
        healthy = server.get("/health").status_code == 200
        said = server.said()
    print(f"fuzzed: {dict(sorted(statuses.items()))}")
    yield Bound("fuzzed", "requests", statuses.total())
    yield Bound("fuzzed", "of them answered with 200", statuses[200])
    yield Bound("fuzzed", "answers 500", statuses[500], 0)
    yield Bound("fuzzed", "requests without an answer", statuses[0], 0)
    yield Bound("fuzzed", "tracebacks in the server's log", said.count("Traceback"), 0)
    yield Bound("fuzzed", "servers that no longer answer", not healthy, 0)
    yield Bound(
        "fuzzed", "growth of the server's memory at its peak, MiB", round(peak_mib - before_mib), MOST_GROWTH_MIB
    )


if __name__ == "__main__":
    sys.exit(run_part(measure, 30_000))
