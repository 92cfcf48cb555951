"""`/fuse` as a stream: members heard while they write, one of them stopped, and stages over a panel that stands."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from serving import Server
from workdir import Serve, Upstream

ALL = ("--allow-model", "fake/*", "--retries", "1")


def body_of(*members: str, **more: Any) -> dict[str, Any]:
    return {"prompt": "Why?", "stream": True, "fusion": {"panel": list(members)}, **more}


def record_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert events[-1]["type"] in ("record", "error")
    record: dict[str, Any] = events[-1]["record"]
    return record


def texts(events: list[dict[str, Any]]) -> dict[str, str]:
    """Return what each member was heard to say, what was taken back aside."""
    said: dict[str, str] = {}
    for event in events:
        if event["type"] == "text.reset":
            said[event["model"]] = ""
        if event["type"] == "text":
            said[event["model"]] = said.get(event["model"], "") + event["text"]
    return said


def until(condition: Callable[[], Any]) -> Any:
    """Return what the condition gives once it holds."""
    for _ in range(500):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came to that")


@pytest.fixture
def open_server(standing: Serve) -> Server:
    return standing(*ALL)


def test_members_are_heard_while_they_write_and_the_record_is_the_end(open_server: Server) -> None:
    events = open_server.stream("/fuse", body_of("fake/a", "fake/b*2")).events

    record = record_of(events)
    names = ["fake/a", "fake/b#0", "fake/b#1"]
    assert texts(events) == dict(zip(names, [r["content"] for r in record["panel"]], strict=True))
    assert "".join(e["text"] for e in events if e["type"] == "answer") == record["answer"]["content"]
    assert events[0]["type"] == "run"
    assert [e["stage"] for e in events if e["type"] == "stage"] == ["panel", "judge", "synth"]
    assert all(e["completion_tokens"] > 0 for e in events if e["type"] == "call.done")


def test_the_sections_of_all_stages_together_are_the_record(open_server: Server) -> None:
    events = open_server.stream("/fuse", body_of("fake/a", "fake/b+status=500", "fake/c")).events

    told: dict[str, Any] = {}
    for event in events:
        if event["type"] == "stage":
            told |= event["record"]
    record = record_of(events)
    assert told == {name: value for name, value in record.items() if name not in ("id", "messages", "recipe")}


def test_a_member_that_breaks_off_begins_anew_and_is_heard_whole(open_server: Server, upstream: Upstream) -> None:
    upstream.script("fake/a", "midfail")

    events = open_server.stream("/fuse", body_of("fake/a", "fake/b", params={"temperature": 0})).events

    assert [e["model"] for e in events if e["type"] == "text.reset"] == ["fake/a"]
    assert texts(events)["fake/a"] == record_of(events)["panel"][0]["content"]


def test_why_a_member_failed_is_heard_in_the_endpoints_words(open_server: Server) -> None:
    events = open_server.stream("/fuse", body_of("fake/a", "fake/b+status=400")).events

    [failed] = [e for e in events if e["type"] == "call.failed"]
    assert "upstream says 400" in failed["message"]


def test_a_chat_reads_along_where_it_asks_for_it(open_server: Server) -> None:
    stream = open_server.chat_stream(fusion={"events": "text", "panel": ["fake/a", "fake/b"]})

    told = [event["fusion"] for event in stream.events if event.get("fusion", {}).get("type") == "text"]
    assert {event["model"] for event in told} == {"fake/a", "fake/b"}
    plain = open_server.chat_stream(fusion={"events": True})
    assert not [event for event in plain.events if event.get("fusion", {}).get("type") == "text"]


class Running:
    """A stream that is read on a thread."""

    def __init__(self, server: Server, body: dict[str, Any]) -> None:
        self.events: list[dict[str, Any]] = []
        self._server, self._body = server, body
        self._leave = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def leave(self) -> None:
        self._leave.set()
        self.thread.join(10)

    def _read(self) -> None:
        with (
            httpx.Client(base_url=self._server.url, timeout=60, trust_env=False) as client,
            client.stream("POST", "/fuse", json=self._body) as response,
        ):
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    self.events.append(json.loads(line.removeprefix("data: ")))
                if self._leave.is_set():
                    return


@pytest.fixture
def slow_run(open_server: Server, upstream: Upstream) -> Iterator[Running]:
    """A run with one member that writes for a minute, heard to write."""
    running = Running(open_server, body_of("fake/a", "fake/b+chunks=1200+itl=0.05"))
    until(lambda: any(e["type"] == "text" and "itl" in e["model"] for e in running.events))
    yield running
    running.leave()


def test_a_stopped_member_frees_its_socket_and_the_others_go_on(
    open_server: Server, upstream: Upstream, slow_run: Running
) -> None:
    slow, run = "fake/b+chunks=1200+itl=0.05", slow_run.events[0]["run"]

    stopped = open_server.post(f"/fuse/{run}/stop", {"member": slow})

    assert stopped.json() == {"stopped": slow}
    slow_run.thread.join(10)
    record = record_of(slow_run.events)
    assert [r.get("error", {}).get("code") for r in record["panel"]] == [None, "stopped"]
    assert [c["status"] for c in record["calls"] if c["stage"] == "panel"].count("cancelled") == 1
    assert "answer" in record
    until(lambda: upstream.stats()["in_flight"] == 0)


def test_who_leaves_stops_all(upstream: Upstream, slow_run: Running) -> None:
    slow_run.leave()

    until(lambda: upstream.stats()["in_flight"] == 0)


@pytest.mark.parametrize(("run", "member"), [("nowhere", "fake/a"), (None, "fake/nobody")])
def test_what_does_not_run_cannot_be_stopped(
    open_server: Server, slow_run: Running, run: str | None, member: str
) -> None:
    refused = open_server.post(f"/fuse/{run or slow_run.events[0]['run']}/stop", {"member": member})

    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "run_not_found")


# --- A panel that stands ---


@pytest.fixture
def made(open_server: Server) -> dict[str, Any]:
    return record_of(open_server.stream("/fuse", body_of("fake/a", "fake/b")).events)


def test_stages_over_a_stored_record_buy_nothing_twice(
    open_server: Server, upstream: Upstream, made: dict[str, Any]
) -> None:
    upstream.reset()

    again = record_of(open_server.stream("/fuse", {"record": made, "stream": True}).events)

    assert sorted(upstream.stats()["per_model"]) == ["fake/judge", "fake/synth"]
    assert again["panel"] == made["panel"]
    assert again["calls"][: len(made["calls"])] == made["calls"]
    assert len(again["calls"]) == len(made["calls"]) + 2


def test_another_synthesizer_keeps_the_analysis(open_server: Server, upstream: Upstream, made: dict[str, Any]) -> None:
    upstream.reset()

    body = {"record": made, "fusion": {"chain": "synth -m fake/other"}}
    again = open_server.post("/fuse", body)

    assert again.status_code == 200, again.text
    assert list(upstream.stats()["per_model"]) == ["fake/other"]
    assert again.json()["analysis"] == made["analysis"]
    assert again.headers["x-fusion-cost-usd"] == "0.00100000"


def test_a_vote_over_a_stored_record_asks_nobody(open_server: Server, upstream: Upstream, made: dict[str, Any]) -> None:
    upstream.reset()

    again = open_server.post("/fuse", {"record": made, "fusion": {"chain": "vote"}}).json()

    assert again["answer"]["by"] == "vote"
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"record": 1}, "no record with a `panel`"),
        ({"record": {"messages": []}}, "no record with a `panel`"),
        ({"prompt": "Another?"}, "a question of its own"),
        ({"fusion": {"chain": "panel | synth"}}, "the record has its panel"),
        ({"fusion": {"chain": "judge"}}, "the record has its panel"),
        ({"record": {"messages": [{"role": "user", "content": "x"}], "panel": [1]}}, "$.panel[0]"),
    ],
)
def test_a_record_that_cannot_be_gone_on_with_is_refused(
    open_server: Server, made: dict[str, Any], changed: dict[str, Any], said: str
) -> None:
    refused = open_server.post("/fuse", {"record": made, **changed})

    assert refused.status_code == 400
    assert said in refused.json()["error"]["message"]


def test_a_record_turns_nothing_on_that_a_request_may_not(
    open_server: Server, upstream: Upstream, made: dict[str, Any]
) -> None:
    """What a record carries of its recipe, and what it says it cost, is not believed."""
    forged = {**made, "recipe": {"synth": {"models": ["secret/model"], "template": "/etc/passwd"}}}

    again = open_server.post("/fuse", {"record": forged})

    assert again.status_code == 200, again.text
    assert "secret/model" not in upstream.stats()["per_model"]
