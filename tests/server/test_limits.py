"""What bounds a server: requests in flight, a queue, a rate, money; and what spares it work, the cache."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawhttp import Line, eventually, request
from serving import CHAT, Server, asking, start_server
from workdir import Serve, Upstream, hermetic

from fusiontools.server.answer_cache import Cache
from fusiontools.server.jobs import ConcurrencyLimiter, Job, key_of
from fusiontools.server.middleware import DailyBudgets, RateLimiter
from fusiontools.server.protocols.exchange import ApiError, ChatRequest

#: One member whose price is known, so that limits of money can be held; each call then costs 0.001.
PRICED = """
models:
  dear: {model: fake/a, price_usd_per_mtok: {prompt: 1, completion: 1}}
panel: [dear]
judge: dear
synth: dear
"""
KEYS = {"FUSION_SERVER_API_KEYS": "first-key-1234,second-key-5678"}
FIRST, SECOND = {"authorization": "Bearer first-key-1234"}, {"x-api-key": "second-key-5678"}
HANGS = {"model": "fake/a+hang", "messages": [{"role": "user", "content": "x"}]}

# --- Requests in flight ---

FAILURES = (
    "status=500", "status=400", "status=401", "status=429", "html502", "garbage", "err200", "empty", "nochoices",
    "nullcontent", "refuse", "length", "filter", "closeearly", "closehalf", "midfail", "nodone", "badjson",
)  # fmt: skip
STAGES = ("panel", "judge", "synth", "pass")


@pytest.fixture(scope="module")
def narrow(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one place, where a request that left its place taken would be followed by none."""
    folder = tmp_path_factory.mktemp("narrow")
    options = ("--max-in-flight", "1", "--max-queue", "1", "--queue-timeout", "20", "--retries", "0")
    with start_server(folder, hermetic(upstream_process, folder), *options, "--allow-model", "fake/*") as server:
        yield server


def failing_at(stage: str, behaviour: str, *, stream: bool) -> dict[str, Any]:
    """Return a request of which one stage behaves so."""
    model = f"fake/x+{behaviour}"
    if stage == "pass":
        return {**asking(stream=stream), "model": model}
    return asking(stream=stream, fusion={stage: [model] if stage == "panel" else model})


#: Every failure at every stage; plain and streamed take turns, so that each failure and each stage meets both.
FAILURES_AT = [
    pytest.param(behaviour, stage, (i + j) % 2 == 1, id=f"{behaviour}-{stage}")
    for i, behaviour in enumerate(FAILURES)
    for j, stage in enumerate(STAGES)
]


@pytest.mark.parametrize(("behaviour", "stage", "stream"), FAILURES_AT)
def test_whatever_fails_wherever_gives_its_place_back(
    narrow: Server, upstream: Upstream, stage: str, behaviour: str, stream: bool
) -> None:
    reply = narrow.post(CHAT, failing_at(stage, behaviour, stream=stream))

    assert reply.status_code != 500
    assert narrow.chat().status_code == 200
    assert narrow.metric("fusion_in_flight") == narrow.metric("fusion_queued") == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("stage", STAGES)
def test_who_leaves_before_the_first_byte_gives_its_place_back(
    narrow: Server, upstream: Upstream, stage: str, stream: bool
) -> None:
    with Line(narrow, request(failing_at(stage, "hang", stream=stream))):
        eventually(lambda: "fake/x+hang" in upstream.stats()["per_model"], "the call")

    assert narrow.chat().status_code == 200
    eventually(lambda: upstream.stats()["in_flight"] == 0, "the end of every call")


@pytest.mark.parametrize("stage", ["synth", "pass"])
def test_who_leaves_in_the_middle_of_a_stream_gives_its_place_back(
    narrow: Server, upstream: Upstream, stage: str
) -> None:
    with Line(narrow, request(failing_at(stage, "chunks=1000+itl=1", stream=True))) as line:
        line.until(b'"content":"f')

    assert narrow.chat().status_code == 200
    eventually(lambda: upstream.stats()["in_flight"] == 0, "the end of every call")


@pytest.mark.parametrize("model", ["fusion", "fake/a"])
def test_a_full_server_with_a_full_queue_says_when_to_come_back(serve: Serve, upstream: Upstream, model: str) -> None:
    server = serve("--max-in-flight", "1", "--max-queue", "0", "--allow-model", "fake/*")

    with Line(server, request(HANGS)):
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the first request's call")
        reply = server.chat(model=model)

    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["code"] == "server_overloaded"
    assert upstream.stats()["requests"] == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_who_waits_too_long_for_a_place_is_sent_away(serve: Serve, upstream: Upstream, stream: bool) -> None:
    server = serve("--max-in-flight", "1", "--queue-timeout", "0.05", "--allow-model", "fake/*")

    with Line(server, request(HANGS)):
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the first request's call")
        reply = server.chat(stream=stream)

    assert reply.status_code == 503
    assert "retry-after" in reply.headers
    assert upstream.stats()["requests"] == 1


def test_who_waits_gets_the_place_that_becomes_free(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-in-flight", "1", "--max-queue", "1", "--allow-model", "fake/*")

    with Line(server, request(HANGS)) as first:
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the first request's call")
        with Line(server, request()) as second:
            eventually(lambda: server.metric("fusion_queued") == 1, "the second request's waiting")
            first.close()
            reply = second.reply()

    assert reply.status == 200


def test_a_server_works_on_no_more_than_it_was_told(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-in-flight", "2", "--allow-model", "fake/*")

    with contextlib.ExitStack() as open_lines:
        said = [request({**asking(str(i)), "model": "fake/a+slow=0.05"}) for i in range(8)]
        lines = [open_lines.enter_context(Line(server, data)) for data in said]
        statuses = [line.reply().status for line in lines]

    assert statuses == [200] * 8
    assert upstream.stats()["max_in_flight"] == 2


def test_many_that_come_at_the_same_moment_still_make_no_longer_queue() -> None:
    async def crowd() -> list[str]:
        limiter = ConcurrencyLimiter(1, 2, 60.0)
        leave = asyncio.Event()

        async def enter() -> str:
            try:
                async with limiter:
                    await leave.wait()
                    return "served"
            except ApiError:
                return "refused"

        limiter.refuse_if_full()
        tasks = [asyncio.ensure_future(enter()) for _ in range(5)]
        await asyncio.wait(tasks[3:])
        leave.set()
        return [await task for task in tasks]

    assert asyncio.run(crowd()) == ["served"] * 3 + ["refused"] * 2


@given(st.lists(st.sampled_from(["enter", "leave", "give up"]), max_size=30))
def test_a_gate_counts_who_is_inside_and_who_waits(steps: list[str]) -> None:
    async def play() -> tuple[int, int]:
        limiter = ConcurrencyLimiter(2, 100, 1e6)
        inside: list[asyncio.Event] = []
        tasks: list[asyncio.Task[None]] = []

        async def visit(leave: asyncio.Event) -> None:
            async with limiter:
                inside.append(leave)
                await leave.wait()
                assert limiter.inside <= 2

        for step in steps:
            if step == "enter":
                tasks.append(asyncio.ensure_future(visit(asyncio.Event())))
            elif step == "leave" and inside:
                inside.pop().set()
            elif step == "give up" and tasks:
                tasks.pop().cancel()
            await asyncio.sleep(0)
            assert limiter.inside <= 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        return limiter.inside, limiter.waiting

    assert asyncio.run(play()) == (0, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("limit", ["--timeout", "--deadline"])
def test_a_member_that_is_asked_alone_gets_no_longer_than_any_other(
    standing: Serve, upstream: Upstream, limit: str, stream: bool
) -> None:
    server = standing(limit, "0.05", "--retries", "0", "--allow-model", "fake/*")

    reply = server.chat(model="fake/a+hang", stream=stream)

    assert reply.status_code == 504
    eventually(lambda: upstream.stats()["aborted"] == 1, "the call's end")


# --- Requests a minute ---


def test_a_key_that_asks_too_often_is_told_when_to_come_back(serve: Serve, upstream: Upstream) -> None:
    server = serve("--rate-limit", "2", env=KEYS)

    replies = [server.chat(headers=FIRST) for _ in range(3)]

    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert 1 <= int(replies[2].headers["retry-after"]) <= 30
    assert replies[2].json()["error"]["code"] == "rate_limit_exceeded"


def test_one_keys_haste_is_not_anothers(serve: Serve, upstream: Upstream) -> None:
    server = serve("--rate-limit", "1", env=KEYS)

    mine = [server.chat(headers=FIRST).status_code for _ in range(2)]
    theirs = server.chat(headers=SECOND).status_code

    assert (mine, theirs) == ([200, 429], 200)


def test_every_way_to_ask_takes_from_the_same_bucket(serve: Serve, upstream: Upstream) -> None:
    ways: dict[str, Any] = {
        "/fuse": {"prompt": "x"},
        "/v1/messages": {**asking(), "max_tokens": 50},
        "/v1/responses": {"model": "fusion", "input": "x"},
        CHAT: {**asking(), "model": "fake/a"},
    }
    keys = [f"the-key-of{path.replace('/', '-')}" for path in ways]
    server = serve("--rate-limit", "1", env={"FUSION_SERVER_API_KEYS": ",".join(keys)})

    for key, (path, body) in zip(keys, ways.items(), strict=True):
        mine = {"authorization": f"Bearer {key}"}
        first, second = server.post(path, body, mine), server.post(path, body, mine)

        assert (first.status_code, second.status_code) == (200, 429), path
        assert "retry-after" in second.headers


def test_what_is_refused_takes_no_token(serve: Serve, upstream: Upstream) -> None:
    server = serve("--rate-limit", "1", env=KEYS)

    server.post(CHAT, {"messages": 5}, FIRST)
    server.chat(headers=FIRST, model="nobody/knows")

    assert server.chat(headers=FIRST).status_code == 200


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def take(rates: RateLimiter, caller: str = "a") -> None:
    """Take a token of a bucket in memory, which nobody waits for."""
    with contextlib.suppress(StopIteration):
        rates.take(caller).send(None)


def taken(rates: RateLimiter, caller: str = "a") -> bool:
    try:
        take(rates, caller)
    except ApiError:
        return False
    return True


@given(
    per_min=st.floats(0.5, 600),
    waits=st.lists(st.floats(0, 120), min_size=1, max_size=60),
)
def test_no_minute_sees_more_than_the_bucket_and_what_flows_in(per_min: float, waits: list[float]) -> None:
    clock = Clock()
    rates = RateLimiter(per_min, clock)

    passed = 0
    for wait_s in waits:
        clock.now += wait_s
        passed += taken(rates)

    assert passed <= max(1.0, per_min) + clock.now * per_min / 60 + 1e-6


@given(per_min=st.floats(0.5, 600), asked=st.integers(1, 50))
def test_who_comes_back_when_told_is_let_in(per_min: float, asked: int) -> None:
    clock = Clock()
    rates = RateLimiter(per_min, clock)
    for _ in range(asked):
        taken(rates)

    try:
        take(rates)
    except ApiError as refused:
        clock.now += int(refused.headers["retry-after"])

        assert taken(rates)


def test_a_rate_of_zero_is_no_limit() -> None:
    rates = RateLimiter(0, Clock())

    assert all(taken(rates) for _ in range(1000))


# --- Money ---


def cheap(server: Server, headers: dict[str, str] | None = None) -> Any:
    """Ask the one member alone; its answer costs 0.001."""
    return server.chat(headers=headers, model="dear", max_tokens=10)


def test_a_request_that_may_cost_too_much_is_not_begun(standing: Serve, upstream: Upstream) -> None:
    server = standing("--max-request-cost-usd", "0.0000001", recipe=PRICED)

    fused, alone = server.chat(), cheap(server)

    assert (fused.status_code, alone.status_code) == (402, 402)
    assert upstream.stats()["requests"] == 0


def test_a_client_may_bound_its_own_request(standing: Serve, upstream: Upstream) -> None:
    server = standing(recipe=PRICED)

    refused = server.chat(fusion={"max_cost_usd": 0.0000001})
    passed = server.chat(fusion={"max_cost_usd": 1})

    assert (refused.status_code, passed.status_code) == (402, 200)


def test_a_client_may_bound_its_own_request_for_one_member(standing: Serve, upstream: Upstream) -> None:
    server = standing(recipe=PRICED)

    reply = server.chat(model="dear", max_tokens=10, fusion={"max_cost_usd": 0.0000001})

    assert reply.status_code == 402
    assert upstream.stats()["requests"] == 0


def test_a_client_cannot_lift_the_operators_bound(standing: Serve, upstream: Upstream) -> None:
    server = standing("--max-request-cost-usd", "0.0000001", recipe=PRICED)

    reply = server.chat(fusion={"max_cost_usd": 1000})

    assert reply.status_code == 402
    assert upstream.stats()["requests"] == 0


def test_a_key_that_has_spent_its_day_is_refused_and_another_is_not(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-day-cost-usd", "0.0031", recipe=PRICED, env=KEYS)

    mine = [cheap(server, FIRST) for _ in range(4)]
    theirs = cheap(server, SECOND)

    assert [reply.status_code for reply in mine] == [200, 200, 200, 402]
    assert mine[3].json()["error"]["code"] == "caller_budget"
    assert 0 < int(mine[3].headers["retry-after"]) <= 86_400
    assert theirs.status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_what_all_requests_may_cost_together_holds_for_a_member_that_is_asked_alone(
    serve: Serve, upstream: Upstream, stream: bool
) -> None:
    server = serve("--max-cost-usd", "0.0031", recipe=PRICED)

    more = {"stream_options": {"include_usage": True}} if stream else {}
    statuses = [server.chat(model="dear", max_tokens=10, stream=stream, **more).status_code for _ in range(4)]

    assert statuses == [200, 200, 200, 402]


def test_a_member_without_a_price_cannot_be_asked_where_money_is_bounded(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-day-cost-usd", "1")

    statuses = [server.chat().status_code, server.chat(model="fake/a").status_code]

    assert statuses == [402, 402]
    assert upstream.stats()["requests"] == 0


def test_a_failed_call_costs_nothing_of_the_day(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-day-cost-usd", "0.0015", "--retries", "0", recipe=PRICED, env=KEYS)
    upstream.script("fake/a", *["status=500"] * 5)

    failed = [cheap(server, FIRST).status_code for _ in range(5)]

    assert failed == [502] * 5
    assert cheap(server, FIRST).status_code == 200


def test_a_purse_is_full_again_on_the_next_day() -> None:
    clock = Clock(86_400 * 5 + 10)
    daily_budgets = DailyBudgets(1.0, clock=clock)
    spent = asyncio.run(daily_budgets.of("a"))
    assert spent is not None
    asyncio.run(spent.book(1.0))

    with pytest.raises(ApiError) as refused:
        asyncio.run(daily_budgets.of("a"))
    clock.now += int(refused.value.headers["retry-after"])
    fresh = asyncio.run(daily_budgets.of("a"))

    assert fresh is not None
    assert asyncio.run(fresh.committed_usd()) == 0.0


# --- The cache ---


def test_the_events_of_a_kept_answer_are_numbered_in_their_order(serve: Serve) -> None:
    server = serve("--cache", "600")
    body = {"input": "Why?", "stream": True}

    streams = [server.stream("/v1/responses", body).events for _ in range(2)]

    for events in streams:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[0]["type"] == "response.created"


def test_an_equal_question_is_answered_from_memory(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600")

    first, second = server.chat().json(), server.chat().json()

    assert second["choices"] == first["choices"]
    assert (first["fusion"]["cached"], second["fusion"]["cached"]) == (False, True)
    assert (first["usage"]["cost"], second["usage"]["cost"]) == (0.005, 0.0)
    assert upstream.stats()["requests"] == 5


def test_a_stream_from_memory_says_the_same_as_the_first(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600")

    plain = server.chat().json()["choices"][0]["message"]["content"]
    streamed = server.chat_stream()

    assert streamed.text == plain
    assert streamed.done
    assert upstream.stats()["requests"] == 5


def test_one_keys_answers_are_not_anothers(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600", env=KEYS)

    server.chat(headers=FIRST)
    theirs = server.chat(headers=SECOND).json()

    assert theirs["fusion"]["cached"] is False
    assert upstream.stats()["requests"] == 10


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.1}, {"max_tokens": 7}, {"stop": ["x"]}, {"seed": 3}, {"model": "fusion/recipe"},
        {"fusion": {"samples": 2}}, {"fusion": {"chain": "panel | vote"}}, {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}]},
    ],
    ids=lambda more: next(iter(more)),
)  # fmt: skip
def test_whatever_changes_the_answer_is_another_question(standing: Serve, upstream: Upstream, more: Any) -> None:
    server = standing("--cache", "600")

    server.chat()
    other = server.post(CHAT, {**asking(), **more}).json()

    assert other["fusion"]["cached"] is False


def test_a_client_may_ask_anew(standing: Serve, upstream: Upstream) -> None:
    server = standing("--cache", "600")

    server.chat(fusion={"cache": False})
    again = server.chat(fusion={"cache": False}).json()

    assert again["fusion"]["cached"] is False
    assert upstream.stats()["requests"] == 10


def test_an_answer_that_something_failed_for_is_not_kept(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600", "--retries", "0")
    upstream.script("fake/b", "status=500")

    degraded, whole = server.chat().json()["fusion"], server.chat().json()["fusion"]

    assert "degraded" in degraded
    assert "degraded" not in whole
    assert whole["cached"] is False


def test_equal_questions_under_way_at_once_are_asked_once(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600")
    upstream.script("fake/synth", "slow=0.5")

    with Line(server, request()) as first, Line(server, request()) as second:
        bodies = [json.loads(line.reply().body) for line in (first, second)]

    assert bodies[0]["choices"] == bodies[1]["choices"]
    assert sorted(body["usage"]["cost"] for body in bodies) == [0.0, 0.005]
    assert upstream.stats()["requests"] == 5


def test_equal_questions_of_two_keys_under_way_at_once_are_asked_twice(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600", env=KEYS)
    upstream.script("fake/synth", "slow=0.2", "slow=0.2")

    with Line(server, request(headers=FIRST)) as first, Line(server, request(headers=SECOND)) as second:
        bodies = [json.loads(line.reply().body) for line in (first, second)]

    assert [body["usage"]["cost"] for body in bodies] == [0.005, 0.005]
    assert upstream.stats()["requests"] == 10


def finished(record: dict[str, Any]) -> Any:
    async def work(_: Job) -> Any:
        return record

    return work


def test_an_answer_is_kept_as_long_as_it_should_be() -> None:
    async def play() -> list[bool]:
        clock = Clock()
        cache = Cache(10.0, 5, clock)
        job = cache.begin(b"k", finished({"id": "x"}))
        await job.task
        await asyncio.sleep(0)
        seen = []
        for now in (9.99, 10.0):
            clock.now = now
            seen.append(await cache.get(b"k") is not None)
        return seen

    assert asyncio.run(play()) == [True, False]


def test_the_answer_that_was_used_longest_ago_makes_room() -> None:
    async def play() -> list[bool]:
        cache = Cache(10.0, 2, Clock())
        for key in (b"a", b"b"):
            await cache.begin(key, finished({"id": "x"})).task
            await asyncio.sleep(0)
        await cache.get(b"a")
        await cache.begin(b"c", finished({"id": "x"})).task
        await asyncio.sleep(0)
        return [await cache.get(key) is not None for key in (b"a", b"b", b"c")]

    assert asyncio.run(play()) == [True, False, True]


def test_kept_answers_have_a_bound_in_bytes_too() -> None:
    async def play() -> list[bool]:
        cache = Cache(10.0, 4, Clock(), most_bytes=400)
        for key, size in ((b"a", 150), (b"b", 150), (b"c", 150), (b"d", 1000)):
            await cache.begin(key, finished({"id": "x" * size})).task
            await asyncio.sleep(0)
        return [await cache.get(key) is not None for key in (b"a", b"b", b"c", b"d")]

    assert asyncio.run(play()) == [False, True, True, False]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
QUESTIONS = st.builds(
    ChatRequest,
    model=st.text(max_size=2),
    messages=st.lists(st.dictionaries(st.text(max_size=2), JSON, max_size=2), max_size=2),
    params=st.dictionaries(st.text(max_size=2), JSON, max_size=2),
    fusion=st.dictionaries(st.text(max_size=2), JSON, max_size=2),
)


def told_apart_by(asked: ChatRequest, caller: str) -> str:
    """Return everything that tells two requests apart, with the types of its values."""
    return json.dumps([caller, asked.model, asked.messages, asked.params, asked.fusion], sort_keys=True)


@given(QUESTIONS, QUESTIONS, st.sampled_from("ab"), st.sampled_from("ab"))
def test_two_requests_have_one_key_only_where_all_that_counts_is_equal(
    one: ChatRequest, other: ChatRequest, me: str, you: str
) -> None:
    same = told_apart_by(one, me) == told_apart_by(other, you)

    assert (key_of(one, me) == key_of(other, you)) == same
