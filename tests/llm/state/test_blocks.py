"""Limits of an endpoint that several processes keep together: each here has a `Pace` of its own.

Time is the loop's own and passes only when nothing else is left to do; the store goes by the same clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaping import LeapingLoop
from scripted import MESSAGES, USAGE

from fusiontools.config.models import Endpoint
from fusiontools.llm.pacing import Pace
from fusiontools.llm.state.flights import Flights
from fusiontools.llm.state.shared import State
from fusiontools.llm.state.sqlite_store import SqliteStore
from fusiontools.llm.state.store import StateAway


class Workers:
    """Processes that call one endpoint, a call of a second each."""

    def __init__(self, path: Path, count: int, **limits: Any) -> None:
        self.path, self.count = path, count
        self.endpoint = Endpoint("there", "https://there.example/v1", **limits)
        self.begun: list[float] = []
        self.tokens: list[tuple[float, int]] = []
        self.in_flight = self.most = 0
        self.of: dict[int, int] = {}
        self.told: list[str] = []

    def run(self, work: Callable[[list[Pace]], Any], store: Any = None) -> Any:
        with asyncio.Runner(loop_factory=LeapingLoop) as runner:
            loop = runner.get_loop()
            shared = store or SqliteStore(self.path / "journal.db", loop.time)
            states = [
                State(shared, None, Flights(shared, self.told.append), self.told.append) for _ in range(self.count)
            ]

            async def all_of_it() -> Any:
                paces = [Pace(self.endpoint, state) for state in states]
                try:
                    return await work(paces)
                finally:
                    for pace in paces:
                        await pace.aclose()
                    if store is None:
                        await shared.aclose()

            return runner.run(all_of_it())

    async def call(self, pace: Pace, worker: int = 0, *, max_tokens: int = 10, took: int = 10) -> None:
        turn = await pace.begin("m", MESSAGES, {"max_tokens": max_tokens}, 1e6)
        self.begun.append(now())
        self.tokens.append((now(), took))
        self.of[worker] = self.of.get(worker, 0) + 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(1)
        self.in_flight -= 1
        pace.end(turn, {**USAGE, "prompt_tokens": 0, "completion_tokens": took})

    async def load(self, paces: Sequence[Pace], calls: int, until_s: float, **more: Any) -> None:
        """Let each worker have so many calls to make, until a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(until_s):
                asked = (self.call(pace, i, **more) for i, pace in enumerate(paces) for _ in range(calls))
                await asyncio.gather(*asked)


def now() -> float:
    return asyncio.get_running_loop().time()


def most_in_a_minute(begun: Sequence[float]) -> int:
    return max((sum(1 for at in begun if first <= at < first + 60) for first in begun), default=0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_minute_has_more_requests_than_the_limit_whoever_makes_them_and_hardly_fewer(
    tmp_path: Path, count: int
) -> None:
    workers = Workers(tmp_path, count, rpm=60)

    workers.run(lambda paces: workers.load(paces, 900 // count, 600))

    assert most_in_a_minute(workers.begun) <= 60
    assert len(workers.begun) >= 0.9 * 600
    assert min(workers.of.values()) >= 0.5 * max(workers.of.values())


@given(rpm=st.integers(1, 90), count=st.integers(1, 4), pauses=st.lists(st.floats(0, 50), min_size=5, max_size=40))
@settings(max_examples=15)
def test_no_minute_has_more_requests_than_the_limit_however_they_come(
    rpm: int, count: int, pauses: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    workers = Workers(tmp_path_factory.mktemp("limits"), count, rpm=rpm)

    async def work(paces: list[Pace]) -> None:
        async def worker(i: int, pace: Pace) -> None:
            for pause_s in pauses[i::count]:
                await asyncio.sleep(pause_s)
                await asyncio.gather(*(workers.call(pace, i) for _ in range(3)))

        await asyncio.gather(*(worker(i, pace) for i, pace in enumerate(paces)))

    workers.run(work)

    assert most_in_a_minute(workers.begun) <= rpm
    assert len(workers.begun) == 3 * len(pauses)


def test_no_minute_has_more_tokens_than_the_limit_and_what_was_not_used_is_used_by_others(tmp_path: Path) -> None:
    workers = Workers(tmp_path, 2, tpm=6000)

    workers.run(lambda paces: workers.load(paces, 300, 100, max_tokens=190, took=20))

    used = [sum(took for at, took in workers.tokens if first <= at < first + 60) for first, _ in workers.tokens]
    assert max(used) <= 6000
    # By what they were estimated at, 30 would fit into a minute.
    assert len(workers.begun) > 2 * 30 * 2


def test_no_more_calls_are_in_flight_than_the_endpoint_may_have_and_each_worker_has_its_share(tmp_path: Path) -> None:
    workers = Workers(tmp_path, 3, max_concurrency=6)

    workers.run(lambda paces: workers.load(paces, 200, 30))

    assert workers.most == 6
    assert len(workers.begun) >= 0.9 * 6 * 30
    assert min(workers.of.values()) >= 0.5 * max(workers.of.values())


def test_what_a_worker_that_ends_has_not_used_is_the_others(tmp_path: Path) -> None:
    workers = Workers(tmp_path, 2, rpm=600, max_concurrency=8)

    async def work(paces: list[Pace]) -> None:
        await workers.call(paces[0])
        await paces[0].aclose()
        await asyncio.gather(*(workers.call(paces[1]) for _ in range(599)))

    workers.run(work)

    assert workers.most == 8
    assert max(workers.begun) < 599 / 8 + 5


def test_while_the_store_is_away_each_keeps_to_the_limit_by_itself_and_says_so(tmp_path: Path) -> None:
    class Away:
        async def grant(self, *_: Any) -> None:
            raise StateAway("redis://there: gone")

        hold = grant

    workers = Workers(tmp_path, 1, rpm=10)

    workers.run(lambda paces: workers.load(paces, 100, 115), Away())

    assert len(workers.begun) == 20
    assert set(workers.told) == {"redis://there: gone"}
