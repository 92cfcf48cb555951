"""The turns of an endpoint: how many at once, how many a minute, and that what it says to one call holds for all.

Time is the loop's own and passes only when nothing else is left to do, so a minute takes no time.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from calling import ask, real
from leaping import run
from scripted import MESSAGES, USAGE, Scripted, model, open_door, said
from workdir import Upstream

from fusiontools.config.models import ENDPOINTS, Endpoint
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.client import Client
from fusiontools.llm.pacing import Pace


class Traffic:
    """Calls at one endpoint, each of which takes a second."""

    def __init__(self, **limits: Any) -> None:
        self.pace = Pace(Endpoint("there", "https://there.example/v1", **limits))
        self.begun: list[tuple[str, float]] = []
        self.in_flight: list[str] = []
        self.most: dict[str, int] = {}
        self.models_at_once = 0

    async def call(self, name: str = "m", *, within_s: float = 1e6, max_tokens: int = 0, took: int = 0) -> None:
        turn = await self.pace.begin(name, MESSAGES, {"max_tokens": max_tokens}, within_s)
        self.begun.append((name, asyncio.get_running_loop().time()))
        self.in_flight.append(name)
        self.most[name] = max(self.most.get(name, 0), self.in_flight.count(name))
        self.models_at_once = max(self.models_at_once, len(set(self.in_flight)))
        try:
            await asyncio.sleep(1)
        finally:
            self.in_flight.remove(name)
            self.pace.end(turn, {**USAGE, "prompt_tokens": 0, "completion_tokens": took} if took else None)

    async def calls(self, *names: str, **more: Any) -> None:
        await asyncio.gather(*(self.call(name, **more) for name in names))

    @property
    def times(self) -> list[float]:
        return [round(at, 6) for _, at in self.begun]

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.begun)


def limited(wait_s: float, words: str = "HTTP 429: busy") -> CallFailed:
    return CallFailed("rate_limited", words, status=429, retryable=True, retry_after_s=wait_s)


def test_no_more_calls_are_in_flight_than_the_endpoint_may_have() -> None:
    traffic = Traffic(max_concurrency=3)

    run(traffic.calls(*"m" * 10))

    assert traffic.most == {"m": 3}
    assert traffic.times == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("rpm", [1, 7, 60])
def test_no_minute_has_more_requests_than_it_may(rpm: int) -> None:
    traffic = Traffic(rpm=rpm)

    run(traffic.calls(*"m" * (3 * rpm)))

    assert all(later - earlier >= 60 for earlier, later in zip(traffic.times, traffic.times[rpm:], strict=False))
    assert traffic.times[-1] == 120


def test_no_minute_has_more_tokens_than_it_may() -> None:
    traffic = Traffic(tpm=1000)

    run(traffic.calls(*"m" * 4, max_tokens=400))

    assert traffic.times == [0, 0, 60, 60]


def test_what_a_call_took_counts_once_it_is_known() -> None:
    traffic = Traffic(tpm=1000)

    async def work() -> None:
        await traffic.call(max_tokens=900, took=100)
        await traffic.call(max_tokens=700)

    run(work())

    assert traffic.times == [0, 1]


def test_what_no_minute_has_room_for_goes_alone() -> None:
    traffic = Traffic(tpm=100)

    run(traffic.calls("m", "m", max_tokens=5000))

    assert traffic.times == [0, 60]


def test_calls_for_the_model_that_is_loaded_go_first() -> None:
    traffic = Traffic(one_model=True, max_concurrency=2)

    run(traffic.calls(*"abcabcabc"))

    assert traffic.models_at_once == 1
    assert traffic.order == "aaabbbccc"


def test_a_model_that_is_always_wanted_keeps_no_other_out() -> None:
    traffic = Traffic(one_model=True, max_concurrency=1)

    run(traffic.calls("a", "b", *"a" * 100))

    assert 0 < traffic.order.index("b") < 50


@pytest.mark.parametrize("name", ["ollama", "lmstudio", "llama-server"])
def test_a_server_of_ones_own_is_asked_for_one_model_at_a_time(name: str) -> None:
    known = ENDPOINTS[name]

    assert known.one_model
    assert known.max_concurrency is not None


def test_a_program_is_run_once_at_a_time_unless_more_is_said() -> None:
    alone, together = Traffic(), Traffic()
    alone.pace = Pace(Endpoint("p", api="command", program="claude"))
    together.pace = Pace(Endpoint("p", api="command", program="claude", max_concurrency=2))

    run(alone.calls(*"mmm"))
    run(together.calls(*"mmm"))

    assert (alone.most["m"], together.most["m"]) == (1, 2)


def test_what_the_endpoint_says_to_one_call_holds_for_all_and_for_no_other_endpoint() -> None:
    held, other = Traffic(), Traffic()

    async def work() -> None:
        held.pace.heed(limited(20), "m")
        await asyncio.gather(held.calls("m", "n"), other.calls("m"))

    run(work())

    assert held.times == [20, 20]
    assert other.times == [0]


def test_the_other_models_of_an_endpoint_wait_a_minute_at_most() -> None:
    traffic = Traffic()

    async def work() -> None:
        traffic.pace.heed(limited(600), "m")
        await traffic.calls("m", "n")

    run(work())

    assert traffic.begun == [("n", 60), ("m", 600)]


def test_a_limit_of_one_provider_behind_a_gateway_holds_back_its_model_only() -> None:
    traffic = Traffic()

    async def work() -> None:
        traffic.pace.heed(limited(20, "HTTP 429: x/m:free is temporarily rate-limited upstream"), "m")
        await traffic.calls("m", "n")

    run(work())

    assert traffic.begun == [("n", 0), ("m", 20)]


@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_who_would_wait_in_vain_fails_at_once(when: str) -> None:
    traffic = Traffic(max_concurrency=1)

    async def work() -> float:
        busy = asyncio.create_task(traffic.call())
        if when == "before":
            traffic.pace.heed(limited(50), "m")
        waiting = asyncio.create_task(traffic.call(within_s=30))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if when != "before":
            traffic.pace.heed(limited(50), "m")
        with pytest.raises(CallFailed, match="the endpoint there wants no call for another 50 s") as refused:
            await waiting
        assert refused.value.code == "rate_limited"
        now = asyncio.get_running_loop().time()
        busy.cancel()
        return now

    assert run(work()) < 1


def test_who_has_no_turn_in_time_gives_up_and_takes_nobodys_place() -> None:
    traffic = Traffic(max_concurrency=1)

    async def work() -> None:
        first, second = (asyncio.create_task(traffic.call(within_s=within_s)) for within_s in (9, 0.5))
        await asyncio.wait([first, second])
        assert isinstance(second.exception(), TimeoutError)
        await traffic.call()

    run(work())

    assert traffic.times == [0, 1]


def test_a_call_that_is_cancelled_gives_its_turn_back() -> None:
    traffic = Traffic(max_concurrency=1)

    async def work() -> None:
        running, waiting = (asyncio.create_task(traffic.call()) for _ in range(2))
        await asyncio.sleep(0.1)
        waiting.cancel()
        running.cancel()
        await asyncio.wait([running, waiting])
        await traffic.call()

    run(work())

    assert traffic.times == [0, 0.1]


def test_an_endpoint_without_limits_is_asked_as_before() -> None:
    traffic = Traffic()

    run(traffic.calls(*"m" * 40))

    assert set(traffic.times) == {0}


# Through the client


def test_each_call_of_a_client_takes_a_turn_and_gives_it_back_however_it_ends() -> None:
    endpoint = Endpoint("there", "https://there.example/v1", max_concurrency=1)
    failing = [CallFailed("upstream", "HTTP 500", status=500), said("Paris.")]
    backend = Scripted(m=failing, n=said("Rome."))

    async def work() -> list[str]:
        client = open_door(backend, endpoint=endpoint, limits={"retries": 0})
        results = await asyncio.gather(*(ask(client, model(name)) for name in "mn"), return_exceptions=True)
        results.append(await ask(client, model("m")))
        return [result.code if isinstance(result, CallFailed) else result.content for result in results]  # type: ignore[union-attr]

    assert run(work()) == ["upstream", "Rome.", "Paris."]
    assert backend.max_in_flight == 1


def test_one_refusal_stops_the_others_before_they_are_sent(upstream: Upstream) -> None:
    """Over real connections: after the one that is told to wait no other is sent until then."""
    there = Endpoint("there", upstream.url, max_concurrency=1)

    async def work() -> list[Any]:
        client = Client({"there": there}, LimitOptions(backoff_s=0, deadline_s=2))
        asked = (ask(client, model(name)) for name in ("fake/a+retryafter=30", "fake/b", "fake/c"))
        results = await asyncio.gather(*asked, return_exceptions=True)
        await client.aclose()
        return results

    results = asyncio.run(work())

    assert [result.code for result in results] == ["rate_limited"] * 3
    assert len(upstream.bodies()) == 1


def test_the_server_never_sees_more_at_once(upstream: Upstream) -> None:
    there = Endpoint("there", upstream.url, max_concurrency=2)

    async def work() -> None:
        client = Client({"there": there}, LimitOptions())
        await asyncio.gather(*(ask(client, model(f"fake/{i}+slow=0.01")) for i in range(12)))
        await client.aclose()

    asyncio.run(work())

    assert upstream.stats()["max_in_flight"] == 2
    assert real(upstream, "fake/a")[0]
