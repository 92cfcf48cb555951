"""Conversations that are kept: begun, listed, changed, gone on with, forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rawhttp import eventually
from serving import Server, start_server
from workdir import Serve, Upstream, hermetic

from fusiontools.server.conversations import Conversations
from fusiontools.server.kept_values import KeptValues
from fusiontools.server.protocols.exchange import ApiError

CONVERSATIONS, RESPONSES = "/v1/conversations", "/v1/responses"
HELLO = {"type": "message", "role": "user", "content": "Hello."}


@pytest.fixture(scope="module")
def kept_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("conversations")
    with start_server(
        folder, hermetic(upstream_process, folder), "--allow-model", "fake/*", "--retries", "0"
    ) as server:
        yield server


@pytest.fixture
def kept(upstream: Upstream, kept_process: Server) -> Server:
    """A server that keeps conversations, as it does where nobody says anything."""
    return kept_process


def ask(server: Server, method: str, path: str, **more: Any) -> httpx.Response:
    return httpx.request(method, f"{server.url}{path}", timeout=60, trust_env=False, **more)


def begin(server: Server, *items: Any, **more: Any) -> str:
    made = ask(server, "POST", CONVERSATIONS, json={"items": [*items]}, **more).json()
    return str(made["id"])


def items_of(server: Server, conversation: str, query: str = "order=asc") -> Any:
    listed = ask(server, "GET", f"{CONVERSATIONS}/{conversation}/items?{query}")
    assert listed.status_code == 200, listed.text
    return listed.json()


def say(server: Server, text: str, **more: Any) -> dict[str, Any]:
    reply = ask(server, "POST", RESPONSES, json={"input": text, **more})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def texts(items: Any) -> list[tuple[str, str]]:
    return [(item["role"], item["content"][0]["text"]) for item in items]


def told(upstream: Upstream) -> list[tuple[str, str]]:
    """Return who said what in the conversation that a member was asked last."""
    return [(message["role"], message["content"]) for message in upstream.bodies("fake/a")[-1]["messages"]]


# --- A turn that names one ---


@pytest.mark.parametrize("spelling", ["name", "object"])
@pytest.mark.parametrize("how", ["plain", "stream", "background", "both", "unstored"])
def test_a_turn_goes_on_and_is_added_once(kept: Server, upstream: Upstream, how: str, spelling: str) -> None:
    conversation = begin(kept, HELLO)
    named = {"conversation": conversation if spelling == "name" else {"id": conversation}}
    more = {
        "stream": how in ("stream", "both"),
        "background": how in ("background", "both"),
        "store": how != "unstored",
    }

    if more["stream"]:
        response = kept.stream(RESPONSES, {"input": "One?", **named, **more}).events[0]["response"]
    else:
        response = say(kept, "One?", **named, **more)
    eventually(lambda: len(items_of(kept, conversation)["data"]) == 3, "the turn")
    say(kept, "Two?", **named)

    [_, _, (_, answer), *rest] = texts(items_of(kept, conversation)["data"])
    assert told(upstream) == [("user", "Hello."), ("user", "One?"), ("assistant", answer), ("user", "Two?")]
    assert response["conversation"] == {"id": conversation}
    assert [role for role, _ in rest] == ["user", "assistant"]


def test_a_turn_that_fails_is_not_added(kept: Server) -> None:
    conversation = begin(kept, HELLO)

    failed = ask(
        kept, "POST", RESPONSES,
        json={"input": "One?", "conversation": conversation, "fusion": {"panel": ["fake/a+status=500"]}},
    )  # fmt: skip

    assert failed.status_code >= 400
    assert texts(items_of(kept, conversation)["data"]) == [("user", "Hello.")]


def test_an_item_of_the_conversation_may_be_named(kept: Server, upstream: Upstream) -> None:
    conversation = begin(kept, HELLO)
    [item] = items_of(kept, conversation)["data"]
    again = [{"type": "item_reference", "id": item["id"]}, {"role": "user", "content": "Why?"}]

    reply = ask(kept, "POST", RESPONSES, json={"input": again, "conversation": conversation})

    assert reply.status_code == 200
    assert [text for _, text in told(upstream)] == ["Hello.", "Hello.", "Why?"]


def test_a_turn_of_an_unknown_conversation_buys_nothing(kept: Server, upstream: Upstream) -> None:
    reply = ask(kept, "POST", RESPONSES, json={"input": "One?", "conversation": f"conv_{'0' * 32}"})

    assert (reply.status_code, reply.json()["error"]["param"]) == (404, "conversation")
    assert upstream.bodies() == []


# --- The conversations themselves ---


def test_a_conversation_is_shown_changed_and_forgotten(kept: Server) -> None:
    made = ask(kept, "POST", CONVERSATIONS, json={"metadata": {"topic": "a"}}).json()
    path = f"{CONVERSATIONS}/{made['id']}"

    shown, changed = ask(kept, "GET", path), ask(kept, "POST", path, json={"metadata": {"topic": "b"}})
    changed_shown, gone = ask(kept, "GET", path), ask(kept, "DELETE", path)

    assert made["object"] == "conversation"
    assert shown.json() == made
    assert changed.json() == changed_shown.json() == {**made, "metadata": {"topic": "b"}}
    assert gone.json() == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/msg_1")):
        assert ask(kept, method, path + rest).status_code == 404
    assert ask(kept, "POST", f"{path}/items", json={"items": [HELLO]}).json()["error"]["code"] == (
        "conversation_not_found"
    )


def test_items_are_added_shown_and_taken_out(kept: Server) -> None:
    conversation = begin(kept, HELLO)
    path = f"{CONVERSATIONS}/{conversation}/items"
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}

    added = ask(kept, "POST", path, json={"items": [{"role": "assistant", "content": "Hi."}, call]}).json()["data"]
    listed = items_of(kept, conversation)["data"]
    one = ask(kept, "GET", f"{path}/{added[1]['id']}").json()
    left = ask(kept, "DELETE", f"{path}/{added[0]['id']}").json()

    assert listed[1:] == added
    assert one == {**call, "id": one["id"]} == added[1]
    assert len({item["id"] for item in listed}) == 3
    assert left["id"] == conversation
    assert [item["id"] for item in items_of(kept, conversation)["data"]] == [listed[0]["id"], one["id"]]
    assert ask(kept, "DELETE", f"{path}/{added[0]['id']}").status_code == 404


def test_a_list_comes_in_pages_the_newest_first(kept: Server) -> None:
    conversation = begin(kept, *({"role": "user", "content": str(i)} for i in range(25)))

    first = items_of(kept, conversation, "limit=10")
    second = items_of(kept, conversation, f"limit=10&after={first['last_id']}")
    third = items_of(kept, conversation, f"limit=10&after={second['last_id']}")
    rising = items_of(kept, conversation)

    numbers = [int(text) for page in (first, second, third) for _, text in texts(page["data"])]
    assert numbers == list(range(24, -1, -1))
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    assert [int(text) for _, text in texts(rising["data"])] == list(range(20))


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"items": "x"}, "items"),
        ("", {"items": [{"role": "nobody", "content": "x"}]}, "items[0].role"),
        ("", {"metadata": "x"}, "metadata"),
        ("/ID/items", {}, "items"),
        ("/ID/items", {"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0]"),
        ("/ID/items?limit=0", None, "limit"),
        ("/ID/items?limit=x", None, "limit"),
        ("/ID/items?order=up", None, "order"),
        ("/ID/items?after=msg_1", None, "after"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(kept: Server, path: str, body: Any, param: str) -> None:
    where = CONVERSATIONS + path.replace("ID", begin(kept, HELLO))

    reply = ask(kept, "GET" if body is None else "POST", where, **({} if body is None else {"json": body}))

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_nobody_sees_the_conversation_of_another_key(serve: Serve) -> None:
    server = serve(env={"FUSION_SERVER_API_KEYS": "first-key,second-key"})
    mine, theirs = ({"authorization": f"Bearer {name}-key"} for name in ("first", "second"))
    conversation = begin(server, HELLO, headers=mine)
    path = f"{CONVERSATIONS}/{conversation}"

    assert ask(server, "GET", f"{path}/items", headers=mine).status_code == 200
    for method, where, body in (
        ("GET", path, None), ("DELETE", path, None), ("GET", f"{path}/items", None),
        ("POST", path, {"metadata": {}}), ("POST", f"{path}/items", {"items": [HELLO]}),
        ("POST", RESPONSES, {"input": "One?", "conversation": conversation}),
    ):  # fmt: skip
        more: dict[str, Any] = {} if body is None else {"json": body}
        assert ask(server, method, where, headers=theirs, **more).status_code == 404


@pytest.mark.parametrize("options", [("--store", "0"), pytest.param(("--workers", "2"), marks=pytest.mark.slow)])
def test_a_server_that_keeps_nothing_begins_no_conversation(serve: Serve, options: tuple[str, ...]) -> None:
    """The answer never depends on which of several workers is asked."""
    server = serve(*options)

    for _ in range(4):
        begun = ask(server, "POST", CONVERSATIONS, json={})
        named = ask(server, "POST", RESPONSES, json={"input": "One?", "conversation": "conv_1"})
        shown = ask(server, "GET", f"{CONVERSATIONS}/conv_1")
        assert (begun.status_code, named.status_code, shown.status_code) == (400, 400, 404)
        assert "--store" in begun.text


# --- Bounds ---


def conversations(most_bytes: int) -> Conversations:
    return Conversations(KeptValues(3600, most_bytes))


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_a_conversation_that_would_be_too_large_is_refused_and_stays_as_it_is() -> None:
    store = conversations(1000)
    made = store.create("me", [message("x" * 200)], {})

    for grow in (store.add, store.require_room):
        with pytest.raises(ApiError) as raised:
            grow("me", made["id"], [message("y" * 900)])
        assert raised.value.code == "conversation_too_large"
    assert len(store.find("me", made["id"])[1]) == 1


def test_a_conversation_without_room_for_a_turn_that_was_answered_is_forgotten_and_not_cut() -> None:
    store = conversations(1000)
    made = store.create("me", [message("x" * 200)], {})

    store.add_turn("me", made["id"], [message("y" * 900)])

    with pytest.raises(ApiError) as raised:
        store.find("me", made["id"])
    assert raised.value.status == 404
