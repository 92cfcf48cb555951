"""Responses that are made in the background: read again from any event on, waited for by a drain, noted in the log."""

from __future__ import annotations

import itertools
import json
import signal
from typing import Any

import httpx
import pytest
from rawhttp import eventually
from serving import Server
from workdir import Serve, Upstream

RESPONSES = "/v1/responses"
ANY_MODEL = ("--allow-model", "fake/*", "--retries", "0")
#: An answer of nine pieces that takes a while.
SLOWLY = {"synth": "fake/synth+chunks=9+itl=0.05"}


def events_in(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def read_on(server: Server, response_id: str, query: str) -> httpx.Response:
    return httpx.get(f"{server.url}{RESPONSES}/{response_id}?{query}", timeout=60, trust_env=False)


def begin(server: Server, until: str, **more: Any) -> list[dict[str, Any]]:
    """Return the events of a response that is begun and left, up to one that holds this."""
    body = {"input": "One?", "stream": True, "background": True, "fusion": SLOWLY, **more}
    lines = []
    with httpx.stream("POST", f"{server.url}{RESPONSES}", json=body, timeout=60, trust_env=False) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            if line.startswith("data: ") and until in line:
                break
    return events_in(lines)


@pytest.mark.parametrize("keepalive", ["comment", "chunk"])
def test_who_lost_a_stream_reads_on_where_it_broke(serve: Serve, keepalive: str) -> None:
    server = serve("--keepalive", keepalive, "--keepalive-interval", "0.01", *ANY_MODEL)
    before = begin(server, "output_text.delta")
    last = before[-1]["sequence_number"]

    reply = read_on(server, before[0]["response"]["id"], f"stream=true&starting_after={last}")
    again = read_on(server, before[0]["response"]["id"], "stream=true")

    # What keeps the line open says the number of the event before it again.
    resumed = events_in(reply.text.splitlines())
    after = [
        each
        for one, each in itertools.pairwise([before[-1], *resumed])
        if each["sequence_number"] > one["sequence_number"]
    ]
    whole = events_in(again.text.splitlines())
    numbers = [event["sequence_number"] for event in after]
    assert numbers == list(range(last + 1, last + 1 + len(after)))
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert whole[last + 1 :] == after
    said = "".join(event["delta"] for event in whole if event["type"] == "response.output_text.delta")
    assert after[-1]["type"] == "response.completed"
    assert said == after[-1]["response"]["output"][-1]["content"][0]["text"]
    assert read_on(server, before[0]["response"]["id"], "").json() == after[-1]["response"]


def test_a_failure_can_be_read_again_too(serve: Serve) -> None:
    server = serve(*ANY_MODEL)
    first = begin(server, "response.created", fusion={"panel": ["fake/a+status=500"]})

    reply = read_on(server, first[0]["response"]["id"], "stream=true&starting_after=1")

    [failed] = events_in(reply.text.splitlines())
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 2)


@pytest.mark.parametrize("more", [{}, {"background": True}])
def test_what_was_not_begun_as_a_stream_is_not_streamed(serve: Serve, more: Any) -> None:
    server = serve(*ANY_MODEL)
    made = server.post(RESPONSES, {"input": "One?", **more}).json()

    reply = read_on(server, made["id"], "stream=true")

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "stream")
    assert read_on(server, made["id"], "stream=false").status_code == 200


def test_where_to_read_on_is_a_number(serve: Serve) -> None:
    server = serve(*ANY_MODEL)
    response_id = begin(server, "response.created")[0]["response"]["id"]

    reply = read_on(server, response_id, "stream=true&starting_after=x")

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "starting_after")


def logged(server: Server) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
    return [line for line in lines if (line["method"], line["path"]) == ("POST", RESPONSES)]


@pytest.mark.parametrize("stream", [False, True])
def test_the_log_says_how_a_response_ended_and_what_it_cost(serve: Serve, stream: bool) -> None:
    server = serve("--log", *ANY_MODEL)
    if stream:
        response_id = begin(server, "response.created")[0]["response"]["id"]
    else:
        response_id = server.post(RESPONSES, {"input": "One?", "background": True}).json()["id"]

    eventually(lambda: bool(logged(server)), "the line")

    shown = read_on(server, response_id, "").json()
    [line] = logged(server)
    assert (line["outcome"], line["cost_usd"]) == ("ok", shown["usage"]["cost"])
    assert line["cost_usd"] > 0


def test_the_log_says_that_a_response_failed(serve: Serve) -> None:
    server = serve("--log", *ANY_MODEL)
    server.post(RESPONSES, {"input": "One?", "background": True, "fusion": {"panel": ["fake/a+status=500"]}})

    eventually(lambda: bool(logged(server)), "the line")

    assert logged(server)[0]["outcome"] == "all_failed"


def test_a_drain_waits_for_what_is_made_in_the_background(serve: Serve, upstream: Upstream) -> None:
    server = serve("--log", "--drain", "30", *ANY_MODEL)
    server.post(RESPONSES, {"input": "One?", "background": True, "fusion": {"synth": "fake/synth+slow=0.3"}})
    eventually(lambda: upstream.stats()["in_flight"] > 0, "a call")

    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(30) == 0
    assert [line["outcome"] for line in logged(server)] == ["ok"]
    assert upstream.stats()["aborted"] == 0


def test_a_drain_does_not_wait_for_longer_than_it_may(serve: Serve, upstream: Upstream) -> None:
    server = serve("--log", "--drain", "0.2", *ANY_MODEL)
    server.post(RESPONSES, {"input": "One?", "background": True, "fusion": {"panel": ["fake/a+hang"]}})
    eventually(lambda: upstream.stats()["in_flight"] > 0, "a call")

    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(30) == 0
    assert [line["outcome"] for line in logged(server)] == ["server_overloaded"]
