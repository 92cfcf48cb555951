"""Purses that several processes share: each of them here is a `Purses` of its own over one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from calling import DEAR, FOUR, ask, turns
from scripted import Scripted, open_door, said

from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.completion import Completion
from fusiontools.llm.purses import Budget, Claim, Purses
from fusiontools.llm.state.store import Reservation

HOLDERS = 3


class Busy(Scripted):
    """Answers when every other call that may run is under way, and counts how many were at once."""

    at_once = most = 0

    async def complete(self, request: Any, on_delta: Any = None) -> Completion:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.002)
        await turns()
        self.at_once -= 1
        return await super().complete(request, on_delta)


def race(file: Path, cost_usd: float, limit_usd: float, calls: int) -> tuple[Busy, list[str], float]:
    """Let holders that share a purse ask at once; return who was asked, how calls ended, and what was spent."""
    backend = Busy(m=said("x", cost_usd=cost_usd))

    async def work() -> tuple[list[str], float]:
        holders = [open_door(backend, limits={"max_cost_usd": limit_usd}, purses=Purses(file)) for _ in range(HOLDERS)]
        asked = [ask(holders[i % HOLDERS], DEAR, params=FOUR, sample=i) for i in range(calls)]
        ends = [getattr(end, "code", "ok") for end in await asyncio.gather(*asked, return_exceptions=True)]
        spent_usd = await holders[0].budget.committed_usd()
        for holder in holders:
            await holder.aclose()
        return ends, spent_usd

    return backend, *asyncio.run(work())


def test_what_surprises_one_holder_stops_the_others(tmp_path: Path) -> None:
    backend, ends, spent_usd = race(tmp_path / "money.db", cost_usd=500.0, limit_usd=400.0, calls=60)

    assert (len(backend.requests), spent_usd) == (1, 500.0)
    assert ends.count("budget") == 59


def test_all_holders_together_spend_what_one_might(tmp_path: Path) -> None:
    backend, ends, spent_usd = race(tmp_path / "money.db", cost_usd=10.0, limit_usd=150.0, calls=40)

    assert (len(backend.requests), ends.count("ok"), spent_usd) == (15, 15, 150.0)


def test_who_keeps_to_its_prices_is_soon_asked_by_all_holders_at_once(tmp_path: Path) -> None:
    backend, ends, _ = race(tmp_path / "money.db", cost_usd=1.0, limit_usd=1e6, calls=60)

    assert ends == ["ok"] * 60
    assert backend.most > 2 * HOLDERS


def test_near_a_limit_few_calls_run_over_all_holders(tmp_path: Path) -> None:
    backend, _, spent_usd = race(tmp_path / "money.db", cost_usd=10.0, limit_usd=45.0, calls=30)

    assert spent_usd == 40.0
    assert backend.most <= 2  # ten reserved beside ten in flight, which might cost as much again


# --- Holders that die, and files that are away ---


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def holder(tmp_path: Path, clock: Clock) -> Callable[[], Purses]:
    return lambda: Purses(tmp_path / "money.db", clock=clock, busy_s=0.01)


def budget_of(purses: Purses, limit_usd: float = 10.0) -> Budget:
    return Budget(purses, "day", limit_usd, "caller_budget")


def committed_usd(purses: Purses) -> float:
    return asyncio.run(budget_of(purses).committed_usd())


def reserve(purses: Purses, usd: float = 4.0) -> Reservation | None:
    async def work() -> Reservation | None:
        return await purses.reserve(Claim((budget_of(purses),), "there", "m", usd))

    return asyncio.run(work())


def settle(purses: Purses, reservation: Reservation, paid_usd: float | None) -> None:
    asyncio.run(purses.settle(reservation, paid_usd))


def test_what_a_dead_holder_had_reserved_counts_as_spent_and_locks_nobody_for_long(
    holder: Callable[[], Purses], clock: Clock
) -> None:
    dead, living = holder(), holder()
    assert reserve(dead) is not None

    assert reserve(living) is None  # its first call goes alone
    clock.now += dead.lease_s + 1
    made = reserve(living)

    assert made is not None
    assert committed_usd(living) == 4.0 + made.usd


def test_who_was_taken_for_dead_pays_what_it_cost_and_not_twice(holder: Callable[[], Purses], clock: Clock) -> None:
    slow, other = holder(), holder()
    made = reserve(slow)
    assert made is not None
    clock.now += slow.lease_s + 1
    assert committed_usd(other) == 4.0  # swept

    settle(slow, made, 1.0)

    assert committed_usd(other) == 1.0


def test_who_lives_is_not_taken_for_dead(tmp_path: Path) -> None:
    file = tmp_path / "money.db"

    async def work() -> bool:
        purses = Purses(file, lease_s=0.15)
        made = await purses.reserve(Claim((budget_of(purses),), "there", "m", 4.0))
        assert made is not None
        with closing(sqlite3.connect(file)) as db:
            [[first]] = db.execute("SELECT ends_s FROM reservation").fetchall()
            renewed = "SELECT COUNT(*) FROM reservation WHERE ends_s >= ?"
            while db.execute(renewed, (first + purses.lease_s,)).fetchone() == (0,):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        other = Purses(file, clock=lambda: first + purses.lease_s)
        waits = await other.reserve(Claim((budget_of(other),), "there", "m", 4.0)) is None
        await purses.settle(made, 1.0)
        await purses.aclose()
        await other.aclose()
        return waits

    assert asyncio.run(asyncio.wait_for(work(), 30))


def test_a_file_that_is_away_lets_nobody_buy_and_forgets_nothing(holder: Callable[[], Purses], tmp_path: Path) -> None:
    purses = holder()
    made = reserve(purses)
    assert made is not None

    with closing(sqlite3.connect(tmp_path / "money.db", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        settle(purses, made, 7.0)
        with pytest.raises(CallFailed, match="nothing more is bought") as refused:
            reserve(purses)
        lock.execute("ROLLBACK")

    assert refused.value.code == "caller_budget"
    assert committed_usd(purses) == 7.0
    with pytest.raises(CallFailed, match=r"\$7.0000 of \$10"):
        reserve(purses)


def test_another_price_in_a_recipe_is_another_model(holder: Callable[[], Purses]) -> None:
    purses = holder()

    async def ask_at(model: str, bound_usd: float, paid_usd: float) -> float:
        made = await purses.reserve(Claim((), "there", model, bound_usd))
        assert made is not None
        await purses.settle(made, paid_usd)
        return made.usd

    async def work() -> list[float]:
        return [await ask_at("m at 1+1", 1.0, 5.0), await ask_at("m at 1+1", 1.0, 5.0), await ask_at("m at 5+5", 5.0, 5.0)]  # fmt: skip  # noqa: E501

    assert asyncio.run(work()) == [1.0, 5.0, 5.0]


def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="where money is counted"):
        Purses(tmp_path / "file" / "money.db")
