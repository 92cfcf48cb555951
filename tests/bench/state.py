"""Measure what a shared state costs on each store, and race 64 processes for one budget.

    python tests/bench/state.py [sqlite] [redis] [postgres] [race]      all of it where nothing is named

A step is timed one after the other and 64 at a time, on an empty store of this machine; the race is 64 processes of
`fuse-panel` that name one budget of $0.20, before an endpoint that charges one cent a call and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from stand import tool
from stores import start_postgres, start_redis
from table import Row, table
from workdir import hermetic, start_upstream

from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.state.shared import State, open_state
from fusiontools.llm.state.store import Lease, Purchase, Reservation, Settlement

STORES = ("sqlite", "redis", "postgres")
COUNT, ROUNDS, AT_ONCE = 3_200, 10, 64
RACERS, CEILING_USD, CHARGE_USD = 64, 0.20, 0.01
REQUEST = CompletionRequest("there", "m", [{"role": "user", "content": "Why?"}])
#: As long as an answer is.
ANSWER = Completion("word " * 300, "m")


@contextlib.contextmanager
def url_of(store: str) -> Iterator[str]:
    """Give the URL of an empty store."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:{folder}/journal.db"
        return
    with {"redis": start_redis, "postgres": start_postgres}[store]() as server:
        yield server.own()


async def timed(step: Callable[[int], Awaitable[Any]], at_once: int) -> float:
    """Return the microseconds of a step, so many of them under way at once: the least of ten rounds.

    What else the machine does only adds to it.
    """
    numbers = iter(range(COUNT))

    async def worker(count: int) -> None:
        for number in itertools.islice(numbers, count):
            await step(number)

    rounds = []
    for _ in range(ROUNDS):
        each = COUNT // ROUNDS // at_once
        started = time.perf_counter()
        await asyncio.gather(*(worker(each) for _ in range(at_once)))
        rounds.append((time.perf_counter() - started) / each / at_once * 1e6)
    return min(rounds)


async def steps(url: str, store: str) -> list[Row]:
    """Return what each step costs."""
    rows = []
    for at_once in (1, AT_ONCE):
        state = open_state(url, print)
        for name, step in named(state, str(at_once)).items():
            shown = f"{store}: {name}" + (f", {at_once} at once" if at_once > 1 else "")
            rows.append(Row(shown, await timed(step, at_once), "µs"))
        assert state.journal is not None
        await state.journal.aclose()
        await state.aclose()
    return rows


def named(state: State, mark: str) -> dict[str, Callable[[int], Awaitable[Any]]]:
    """Return the steps by name."""
    journal, store = state.journal, state.store
    assert journal is not None

    def key(number: int) -> bytes:
        return f"{mark}-{number}".encode().ljust(16)

    async def put(number: int) -> None:
        await journal.put(key(number), REQUEST, ANSWER, 0.01)

    async def find(number: int) -> None:
        assert await journal.find(key(number)) is not None

    async def lease(number: int) -> None:
        turn = await store.acquire(b"l" + key(number), 15.0)
        assert isinstance(turn, Lease)
        await journal.put(b"l" + key(number), REQUEST, ANSWER, 0.01, turn)

    async def reserve(number: int) -> None:
        while (made := await store.reserve(Purchase((("day", 1e9),), "there", "m", 0.01), 15.0)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert isinstance(made, Reservation)
        await store.settle([Settlement(made, 0.01, answered=True)])

    async def grant(number: int) -> None:
        await store.grant("there", "me", 1, 10**9, 10**9, 60.0, 2.0)

    return {
        "journal, an entry": put,
        "journal, a look-up": find,
        "lease, taken and ended with an entry": lease,
        "money, reserved and settled": reserve,
        "limit, a block": grant,
    }


async def of_redis(url: str) -> list[Row]:
    """Return what a call takes of Redis itself over its whole life: a look-up, a lease, and an entry that ends it."""
    from redis.asyncio import Redis

    told, state = Redis.from_url(url.partition("?")[0]), open_state(url, print)
    journal = state.journal
    assert journal is not None

    async def call(number: int) -> None:
        key = b"c%d" % number
        await journal.find(key)
        turn = await state.store.acquire(key, 15.0)
        assert isinstance(turn, Lease)
        await journal.put(key, REQUEST, ANSWER, 0.01, turn)

    async def used() -> tuple[float, int]:
        said = await told.info()
        return said["used_cpu_user"] + said["used_cpu_sys"], said["used_memory"]

    cpu_s, memory = await used()
    for begin in range(0, COUNT, AT_ONCE):
        await asyncio.gather(*(call(number) for number in range(begin, begin + AT_ONCE)))
    cpu_after_s, memory_after = await used()
    await journal.aclose()
    await state.aclose()
    await told.aclose()
    return [
        Row(f"redis: of its core for a call, {AT_ONCE} at once", 1e6 * (cpu_after_s - cpu_s) / COUNT, "µs"),
        Row(
            f"redis: of its memory for a call, an answer of {len(ANSWER.content):,} characters",
            (memory_after - memory) / COUNT,
            "bytes",
        ),
    ]


def race(url: str, store: str) -> Row:
    """Let processes spend one budget; return by how much they passed it."""
    with tempfile.TemporaryDirectory() as name, start_upstream() as upstream:
        folder = Path(name)
        recipe = folder / "race.yaml"
        priced = {"model": f"fake/a+cost={CHARGE_USD}", "price_usd_per_mtok": {"prompt": 0, "completion": 1000}}
        recipe.write_text(f"models: {{m: {json.dumps(priced)}}}\npanel: [m]\n")
        questions = "".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(4)).encode()
        command = [*tool("fuse-panel"), "-c", str(recipe), "--max-tokens", "10", "--no-journal"]
        command += ["--state", url, "--budget", "race", "--max-cost-usd", str(CEILING_USD)]
        running = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=hermetic(upstream, folder),
                cwd=folder,
            )
            for _ in range(RACERS)
        ]
        for process in running:
            assert process.stdin is not None
            process.stdin.write(questions)
            process.stdin.close()
        ends = {process.wait() for process in running}
        spent_usd = upstream.stats()["requests"] * CHARGE_USD
    over_usd = max(0.0, round(spent_usd - CEILING_USD, 6))
    shown = (
        f"{store}: {RACERS} processes, ${CEILING_USD:.2f} together: spent ${spent_usd:.2f}, exits {sorted(ends)}; over"
    )
    return Row(shown, over_usd, "$", target="0", met=over_usd == 0)


def main(parts: list[str]) -> None:
    chosen = [store for store in STORES if store in parts] or list(STORES)
    rows = []
    for store in chosen:
        with url_of(store) as url:
            if parts != ["race"]:
                rows += asyncio.run(steps(url, store))
                rows += asyncio.run(of_redis(url)) if store == "redis" else []
            if not parts or "race" in parts:
                rows.append(race(url, store))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
