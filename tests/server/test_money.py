"""Who pays for what: ceilings that no spelling gets round, and a cost that is said once, to whoever it belongs."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from typing import Any

import httpx
import pytest
from samples import poll
from serving import CHAT, Server, asking
from workdir import Serve, Upstream

PRICED = """
chain: panel | synth
models:
  cheap: {model: fake/a+nocost, price_usd_per_mtok: {prompt: 1, completion: 10}}
panel: [cheap]
synth: cheap
limits: {retries: 0}
"""


def code_of(reply: httpx.Response) -> tuple[int, str | None]:
    return reply.status_code, reply.json().get("error", {}).get("code")


# --- A request that goes straight to a member ---


@pytest.mark.parametrize("more", [{"max_tokens": 100_000}, {"max_completion_tokens": 100_000}, {"n": 64}])
def test_no_spelling_of_a_long_answer_gets_round_the_ceiling(serve: Serve, upstream: Upstream, more: Any) -> None:
    server = serve("--max-request-cost-usd", "0.05", recipe=PRICED)

    reply = server.chat(model="cheap", **more)

    assert code_of(reply) == (402, "budget")
    assert upstream.stats()["requests"] == 0


NO_COUNTS = (-1_000_000, 0, "5", True, 1.5, [], {})


@pytest.mark.parametrize("name", ["n", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("model", ["fusion", "cheap"])
def test_a_number_that_prices_a_call_is_a_count(serve: Serve, upstream: Upstream, model: str, name: str) -> None:
    server = serve("--max-request-cost-usd", "1", recipe=PRICED)

    statuses = [server.chat(model=model, **{name: value}).status_code for value in NO_COUNTS]

    assert statuses == [400] * len(NO_COUNTS)
    assert upstream.stats()["requests"] == 0


OTHERS = (
    {"models": ["dear/one"]}, {"models": "dear/one"}, {"fallbacks": [{"model": "dear/one"}]}, {"preset": "x"},
    {"provider": {"order": ["dear"]}}, {"route": "fallback"}, {"service_tier": "priority"},
    {"plugins": [{"id": "auto-router"}]}, {"model_list": [{"model": "dear/one"}]}, {"api_base": "http://h"},
)  # fmt: skip


def test_no_key_of_a_body_leads_to_a_model_that_may_not_be_named(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=PRICED)

    codes = [code_of(server.chat(model="cheap", **other)) for other in OTHERS]

    assert codes == [(400, "override_not_allowed")] * len(OTHERS)
    assert upstream.stats()["requests"] == 0


def test_what_leads_to_no_other_model_passes(serve: Serve, upstream: Upstream) -> None:
    server = serve("--allow-model", "fake/*", recipe=PRICED)
    harmless = [{"models": []}, {"models": ["fake/b"]}, {"service_tier": "auto"}, {"provider": None}]

    statuses = [server.chat(model="cheap", **{k: v for k, v in more.items() if v is not None}).status_code for more in harmless]  # fmt: skip  # noqa: E501

    assert statuses == [200] * len(harmless)


def test_who_may_name_every_model_may_lead_to_every_model(serve: Serve, upstream: Upstream) -> None:
    server = serve("--allow-model", "*", recipe=PRICED)

    assert [server.chat(model="cheap", **other).status_code for other in OTHERS] == [200] * len(OTHERS)


def test_the_tokens_that_are_reserved_are_the_bound_of_what_passes_through(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-request-cost-usd", "1", recipe=PRICED)

    server.chat(model="cheap")

    assert [body["max_tokens"] for body in upstream.bodies()] == [4096]


def test_a_restart_refills_no_day(serve: Serve, upstream: Upstream, env: dict[str, str]) -> None:
    limit = ("--max-day-cost-usd", "0.05")
    first = serve(*limit, recipe=PRICED)
    spent = [first.chat(model="cheap", max_tokens=4000).status_code for _ in range(3)]
    first.process.kill()
    first.process.wait()
    asked = upstream.stats()["requests"]

    second = serve(*limit, recipe=PRICED)
    with closing(sqlite3.connect(f"{env['XDG_STATE_HOME']}/fusiontools/spending.db")) as file:
        [[usd]] = file.execute("SELECT spent_usd FROM purse").fetchall()
        file.execute("UPDATE purse SET spent_usd = 0.05")
        file.commit()
    refused = second.chat(model="cheap", max_tokens=4000)

    assert spent == [200] * 3
    assert usd > 0
    assert code_of(refused) == (402, "caller_budget")
    assert upstream.stats()["requests"] == asked


@pytest.mark.parametrize("model", ["fusion", "cheap"])
def test_tools_are_part_of_what_a_call_may_cost(serve: Serve, upstream: Upstream, model: str) -> None:
    server = serve("--max-request-cost-usd", "0.3", recipe=PRICED)
    function = {"name": "f", "description": "x" * 2_000_000, "parameters": {"type": "object"}}

    reply = server.chat(model=model, max_tokens=5, tools=[{"type": "function", "function": function}])

    assert reply.status_code == 402
    assert upstream.stats()["requests"] == 0


def test_streams_that_pass_through_are_paid_for_as_they_were_and_not_as_they_might_have_been(serve: Serve) -> None:
    server = serve("--max-day-cost-usd", "0.1", recipe=PRICED)

    statuses = [server.chat_stream(model="cheap").status for _ in range(6)]

    assert statuses == [200] * 6
    assert server.metric("fusion_unknown_cost_calls_total", stage="pass") == 0


def test_a_stream_says_usage_only_to_a_client_that_asked_for_it(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=PRICED)

    silent = server.chat_stream(model="cheap")
    told = server.chat_stream(model="cheap", stream_options={"include_usage": True})

    assert [event for event in silent.events if event.get("usage")] == []
    assert [event for event in told.events if event.get("usage")] != []
    assert silent.text == told.text


@pytest.mark.parametrize(
    "how", ["", "nostream", "kind=text%2Fplain", "kind=text%2Fplain+nostream", "big=60000", "big=60000+nostream"]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_passes_through_is_paid_for_in_whatever_form_it_comes(serve: Serve, how: str, streamed: bool) -> None:
    server = serve("--allow-model", "fake/*")
    model = f"fake/b+cost=0.25+{how}"

    (server.chat_stream if streamed else server.chat)(model=model)

    assert server.metric("fusion_cost_usd_total", stage="pass") == 0.25


def test_an_endpoint_that_does_not_know_usage_in_streams_is_asked_without(serve: Serve, upstream: Upstream) -> None:
    server = serve("--allow-model", "fake/*")

    stream = server.chat_stream(model="fake/b+nousageopt")

    assert stream.status == 200
    assert stream.done
    assert ["stream_options" in body for body in upstream.bodies()] == [True, False]


def test_what_breaks_off_ends_with_an_event_of_its_own(serve: Serve) -> None:
    server = serve("--allow-model", "fake/*")

    stream = server.chat_stream(model="fake/b+closehalf")

    data = [line.removeprefix("data: ") for line in stream.lines if line.startswith("data: ")]
    assert "error" in json.loads(data[-2])
    assert all(json.loads(text) for text in data[:-1])
    assert stream.done


# --- A cost is said once ---


def test_a_failure_that_was_paid_for_says_what_it_cost(serve: Serve) -> None:
    server = serve(recipe="\npanel: [fake/a+empty+cost=0.5, fake/b+empty+cost=0.5]\nlimits: {retries: 0}\n")

    reply = server.chat()

    assert reply.status_code == 400
    assert float(reply.headers["x-fusion-cost-usd"]) == 1.0


SLOW = """
panel: [fake/a+slow=0.5, fake/b]
synth: fake/synth
chain: panel | synth
"""


def test_who_hears_a_shared_answer_first_pays_for_it(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "60", recipe=SLOW)
    replies: list[httpx.Response] = []
    asker = threading.Thread(target=lambda: replies.append(server.chat()))
    with (
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
        client.stream("POST", CHAT, json=asking(stream=True)) as leaving,
    ):
        lines = leaving.iter_lines()
        next(lines)  # it is under way
        asker.start()
        poll(upstream, lambda _: server.metric("fusion_cache_total", outcome="joined") == 1)
    asker.join()

    [reply] = replies
    assert reply.json()["usage"]["cost"] > 0
    assert server.chat().json()["usage"]["cost"] == 0


def test_a_stream_that_joins_a_plain_request_streams(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "60", recipe="\npanel: [fake/a]\nsynth: fake/s+hang\nchain: panel | synth\n")
    body = asking()
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        plain = threading.Thread(target=_asked_in_vain, args=(server, body))
        plain.start()
        poll(upstream, lambda stats: stats["requests"] >= 1)

        with client.stream("POST", CHAT, json={**body, "stream": True}) as joined:
            first = next(line for line in joined.iter_lines() if line.startswith("data: "))

        server.process.kill()
        plain.join()
    assert json.loads(first.removeprefix("data: "))["object"] == "chat.completion.chunk"


def _asked_in_vain(server: Server, body: Any) -> None:
    try:
        server.post(CHAT, body)
    except httpx.HTTPError:
        return


# --- What is free is bounded too ---


@pytest.mark.parametrize("path", ["/v1/estimate", "/v1/messages/count_tokens"])
def test_a_rate_limit_holds_for_what_costs_nothing(serve: Serve, path: str) -> None:
    server = serve("--rate-limit", "1")

    statuses = [server.post(path, asking()).status_code for _ in range(2)]

    assert statuses == [200, 429]


def test_an_answer_from_the_cache_needs_no_place(serve: Serve, upstream: Upstream) -> None:
    recipe = "\nmodels:\n  slow: fake/b+hang\npanel: [fake/a]\nsynth: fake/s\nchain: panel | synth\n"
    server = serve(
        "--cache", "60", "--max-in-flight", "1", "--max-queue", "0", "--allow-model", "fake/*", recipe=recipe
    )
    server.chat("Known?")
    waiting = threading.Thread(target=_asked_in_vain, args=(server, asking("Slow?", model="fake/b+hang")))
    waiting.start()
    poll(upstream, lambda stats: stats["per_model"].get("fake/b+hang") == 1)

    known, new = server.chat("Known?"), server.chat("New?")

    server.process.kill()
    waiting.join()
    assert (known.status_code, new.status_code) == (200, 503)


def test_calls_of_requests_that_pass_through_count_among_all_calls(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-concurrency", "1", "--allow-model", "fake/*")
    threads = [
        threading.Thread(target=server.chat, kwargs={"model": "fake/b+slow=0.1", "text": f"{i}?"}) for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert upstream.stats()["max_in_flight"] == 1


def test_an_address_that_cannot_be_is_found_before_anybody_asks(serve: Serve) -> None:
    with pytest.raises(AssertionError, match="is no URL: Port out of range"):
        serve(env={"FUSION_BASE_URL": "http://127.0.0.1:99999/v1"})
