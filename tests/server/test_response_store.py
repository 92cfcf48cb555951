"""Responses that are kept: named by a next turn, shown, listed, forgotten, made while nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rawhttp import eventually
from serving import Server, start_server
from workdir import Run, Serve, Upstream, hermetic

from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.response_store import ResponseStore

RESPONSES = "/v1/responses"
HANGS = {"panel": ["fake/a+hang"]}
CALLS = 'panel: ["fake/a+tool"]\nsynth: "fake/synth+tool"\nchain: panel | synth\n'
TOOL = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def store_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("store")
    with start_server(
        folder, hermetic(upstream_process, folder), "--allow-model", "fake/*", "--retries", "0"
    ) as server:
        yield server


@pytest.fixture
def stored(upstream: Upstream, store_process: Server) -> Server:
    """A server that keeps responses, as it does where nobody says anything."""
    return store_process


def create(server: Server, given: Any, headers: Any = None, **more: Any) -> dict[str, Any]:
    reply = server.post(RESPONSES, {"model": "fusion", "input": given, **more}, headers)
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def ask(server: Server, method: str, path: str = "", **more: Any) -> httpx.Response:
    return httpx.request(method, f"{server.url}{RESPONSES}{path}", timeout=60, trust_env=False, **more)


def told(upstream: Upstream) -> list[tuple[str, str]]:
    """Return who said what in the conversation that a member was asked last."""
    messages = upstream.bodies("fake/a")[-1]["messages"]
    return [(message["role"], message["content"]) for message in messages]


def text_of(response: dict[str, Any]) -> str:
    text: str = response["output"][-1]["content"][0]["text"]
    return text


def error_of(reply: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    return error


# --- A next turn ---


@pytest.mark.parametrize("stream", [False, True])
def test_a_next_turn_goes_on_where_the_named_one_ended(stored: Server, upstream: Upstream, stream: bool) -> None:
    if stream:
        first = stored.stream(RESPONSES, {"input": "One?", "stream": True}).events[-1]["response"]
    else:
        first = create(stored, "One?", instructions="Be brief.")
    second = create(stored, [{"role": "user", "content": "Two?"}], previous_response_id=first["id"])
    create(stored, "Three?", previous_response_id=second["id"], instructions="Be kind.")

    assert told(upstream) == [
        ("system", "Be kind."), ("user", "One?"), ("assistant", text_of(first)), ("user", "Two?"),
        ("assistant", text_of(second)), ("user", "Three?"),
    ]  # fmt: skip
    assert (first["store"], first["previous_response_id"]) == (True, None)
    assert second["previous_response_id"] == first["id"]


def test_an_item_may_be_named_in_place_of_being_sent(stored: Server, upstream: Upstream) -> None:
    first = create(stored, "One?")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}

    create(stored, [{"role": "user", "content": "One?"}, reference, {"role": "user", "content": "Two?"}])

    assert told(upstream) == [("user", "One?"), ("assistant", text_of(first)), ("user", "Two?")]


@pytest.mark.parametrize("names", ["previous_response_id", "item_reference"])
def test_the_output_of_a_tool_follows_the_call_that_is_kept(serve: Serve, upstream: Upstream, names: str) -> None:
    server = serve(recipe=CALLS)
    first = create(server, "One?", tools=[TOOL])
    [call] = [item for item in first["output"] if item["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}

    if names == "item_reference":
        items = [{"role": "user", "content": "One?"}, {"type": "item_reference", "id": call["id"]}, output]
        create(server, items, tools=[TOOL])
    else:
        create(server, [output], tools=[TOOL], previous_response_id=first["id"])

    user, called, result = upstream.bodies("fake/a+tool")[-1]["messages"]
    assert user["content"] == "One?"
    assert [made["id"] for made in called["tool_calls"]] == [call["call_id"]] == [result["tool_call_id"]]
    assert result["content"] == "42"


def test_tokens_are_counted_with_what_is_named(stored: Server) -> None:
    first = create(stored, "One?")

    alone = ask(stored, "POST", "/input_tokens", json={"model": "fusion", "input": "Two?"}).json()
    after = ask(stored, "POST", "/input_tokens", json={"input": "Two?", "previous_response_id": first["id"]}).json()

    assert alone["object"] == "response.input_tokens"
    assert 0 < alone["input_tokens"] < after["input_tokens"]


# --- What is kept, and what is not ---


def test_what_is_kept_can_be_seen_listed_and_forgotten(stored: Server) -> None:
    first = create(stored, "One?")
    made = create(stored, [{"type": "message", "role": "user", "content": "Two?"}], previous_response_id=first["id"])
    path = f"/{made['id']}"

    shown, listed = ask(stored, "GET", path), ask(stored, "GET", f"{path}/input_items").json()
    ordered = ask(stored, "GET", f"{path}/input_items?order=asc").json()
    gone = ask(stored, "DELETE", path)

    assert shown.json() == made
    assert [item["content"] for item in ordered["data"] if item["role"] == "user"] == ["One?", "Two?"]
    assert listed["data"] == ordered["data"][::-1]
    assert (listed["first_id"], listed["last_id"]) == (listed["data"][0]["id"], listed["data"][-1]["id"])
    assert gone.json() == {"id": made["id"], "object": "response", "deleted": True}
    assert ask(stored, "GET", path).status_code == 404
    assert ask(stored, "DELETE", path).status_code == 404
    assert ask(stored, "GET", f"/{first['id']}").json() == first


def test_what_is_not_to_be_stored_is_not(stored: Server) -> None:
    made = create(stored, "One?", store=False)

    reference = {"type": "item_reference", "id": made["output"][0]["id"]}
    refusals = [
        ask(stored, "GET", f"/{made['id']}"),
        stored.post(RESPONSES, {"input": "Two?", "previous_response_id": made["id"]}),
        stored.post(RESPONSES, {"input": [{"role": "user", "content": "One?"}, reference]}),
    ]

    assert made["store"] is False
    assert [(reply.status_code, error_of(reply)["type"]) for reply in refusals] == [(404, "invalid_request_error")] * 3
    assert [error_of(reply)["param"] for reply in refusals] == [None, "previous_response_id", "input"]
    assert error_of(refusals[1])["code"] == "previous_response_not_found"
    assert error_of(refusals[1])["message"] == f"Previous response with id '{made['id']}' not found."


def test_a_server_that_keeps_nothing_says_so(serve: Serve) -> None:
    server = serve("--store", "0")
    made = create(server, "One?")

    assert made["store"] is False
    assert ask(server, "GET", f"/{made['id']}").status_code == 404
    for more in ({"previous_response_id": made["id"]}, {"background": True}, {"conversation": "conv_1"}):
        reply = server.post(RESPONSES, {"input": "Two?", **more})
        assert (reply.status_code, error_of(reply)["param"]) == (400, next(iter(more)))


def test_nobody_sees_what_another_key_has_asked(serve: Serve) -> None:
    server = serve(env={"FUSION_SERVER_API_KEYS": "first-key,second-key"})
    mine, theirs = ({"authorization": f"Bearer {name}-key"} for name in ("first", "second"))
    made = create(server, "One?", mine)
    item = {"type": "item_reference", "id": made["output"][0]["id"]}

    assert ask(server, "GET", f"/{made['id']}", headers=mine).status_code == 200
    assert ask(server, "GET", f"/{made['id']}", headers=theirs).status_code == 404
    assert ask(server, "DELETE", f"/{made['id']}", headers=theirs).status_code == 404
    for body in ({"input": "Two?", "previous_response_id": made["id"]}, {"input": [item]}):
        assert server.post(RESPONSES, body, theirs).status_code == 404


def test_asking_after_an_unknown_response_buys_nothing(stored: Server, upstream: Upstream) -> None:
    reply = stored.post(RESPONSES, {"input": "Two?", "previous_response_id": f"resp_{'0' * 32}"})

    assert reply.status_code == 404
    assert upstream.bodies() == []


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"background": 1}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": 3}, "previous_response_id"),
        ({"conversation": 3}, "conversation"),
        ({"conversation": {"name": "conv_1"}}, "conversation.id"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "conversation"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(stored: Server, wrong: dict[str, Any], param: str) -> None:
    reply = stored.post(RESPONSES, {"input": "One?", **wrong})

    assert (reply.status_code, error_of(reply)["param"]) == (400, param)


def test_several_workers_keep_nothing_and_cannot_be_told_to(run: Run) -> None:
    done = run("fuse-serve --workers 2 --store 1 --port 0")

    assert done.status == 2
    assert "--store" in done.err


# --- Made while nobody waits ---


def wait_for(server: Server, response_id: str) -> dict[str, Any]:
    """Ask until a response has ended."""
    shown: dict[str, Any] = {}

    def ended() -> bool:
        shown.update(ask(server, "GET", f"/{response_id}").json())
        return bool(shown["status"] != "in_progress")

    eventually(ended, "the end of the response")
    return shown


def test_a_response_can_be_made_while_nobody_waits(stored: Server, upstream: Upstream) -> None:
    begun = create(stored, "One?", background=True, fusion={"synth": "fake/synth+slow=0.2"})

    ended = wait_for(stored, begun["id"])

    assert (begun["status"], begun["background"], begun["output"]) == ("in_progress", True, [])
    assert (ended["status"], ended["background"], ended["id"]) == ("completed", True, begun["id"])
    create(stored, "Two?", previous_response_id=begun["id"])
    assert told(upstream) == [("user", "One?"), ("assistant", text_of(ended)), ("user", "Two?")]


def test_a_failure_in_the_background_is_shown(stored: Server) -> None:
    begun = create(stored, "One?", background=True, fusion={"panel": ["fake/a+status=500"]})

    ended = wait_for(stored, begun["id"])

    assert (ended["status"], ended["error"]["type"]) == ("failed", "all_failed")


def test_a_response_in_the_background_can_be_given_up(stored: Server, upstream: Upstream) -> None:
    begun = create(stored, "One?", background=True, fusion=HANGS)
    eventually(lambda: upstream.stats()["in_flight"] == 1, "the call")

    early = stored.post(RESPONSES, {"input": "Two?", "previous_response_id": begun["id"]})
    given_up = ask(stored, "POST", f"/{begun['id']}/cancel", json={}).json()

    assert (early.status_code, error_of(early)["param"]) == (400, "previous_response_id")
    assert given_up["status"] == "cancelled"
    assert ask(stored, "GET", f"/{begun['id']}").json() == given_up
    eventually(lambda: upstream.stats()["aborted"] == 1, "the end of the call")


def test_a_response_in_the_background_that_is_forgotten_is_given_up(stored: Server, upstream: Upstream) -> None:
    begun = create(stored, "One?", background=True, fusion=HANGS)
    eventually(lambda: upstream.stats()["in_flight"] == 1, "the call")

    ask(stored, "DELETE", f"/{begun['id']}")

    eventually(lambda: upstream.stats()["aborted"] == 1, "the end of the call")
    assert ask(stored, "GET", f"/{begun['id']}").status_code == 404


def test_who_leaves_a_stream_of_the_background_finds_its_end_later(stored: Server) -> None:
    body = {"input": "One?", "stream": True, "background": True, "fusion": {"synth": "fake/synth+chunks=9+itl=0.1"}}

    with httpx.stream("POST", f"{stored.url}{RESPONSES}", json=body, timeout=60, trust_env=False) as reply:
        created = next(line for line in reply.iter_lines() if line.startswith("data: "))

    response_id = created.partition('"id":"')[2].partition('"')[0]
    assert wait_for(stored, response_id)["status"] == "completed"


# --- The store itself ---


def response(number: int, text: str = "") -> dict[str, Any]:
    return {"id": f"resp_{number:032x}", "output": [], "text": text}


def test_what_is_kept_is_bounded_in_hours() -> None:
    now = 0.0
    store = ResponseStore(2.0, 1000, lambda: now)
    store.put("me", response(1), [])

    now = 7199.0
    assert store.find("me", response(1)["id"])[0] == response(1)
    now = 7201.0
    with pytest.raises(ApiError) as raised:
        store.find("me", response(1)["id"])
    assert raised.value.status == 404


def test_what_is_kept_is_bounded_in_bytes_for_each_key() -> None:
    store = ResponseStore(1.0, 1000)
    store.put("other", response(0, "x" * 600), [])
    for number in (1, 2, 3):
        store.put("me", response(number, "x" * 600), [])

    def keeps(caller: str, number: int) -> bool:
        try:
            return bool(store.find(caller, response(number)["id"]))
        except ApiError:
            return False

    assert [keeps("me", number) for number in (1, 2, 3)] == [False, False, True]
    assert keeps("other", 0)
    store.put("me", response(4, "x" * 2000), [])
    assert [keeps("me", number) for number in (3, 4)] == [True, False], "one that never fits takes nobody's place"
