"""A client that leaves: every call of its record is cut off, socket and all, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rawhttp import Line, eventually, request
from serving import CHAT, RECIPE, Server, asking, start_server
from workdir import Serve, Upstream, hermetic

QUESTION = [{"role": "user", "content": "Why?"}]
#: One body for each way to ask.
ROUTES: dict[str, dict[str, Any]] = {
    CHAT: asking(),
    "/v1/messages": {**asking(), "max_tokens": 5000},
    "/v1/responses": {"model": "fusion", "input": "Why?"},
    "/fuse": {"messages": QUESTION},
}
STREAMED = [CHAT, "/v1/messages", "/v1/responses"]


@pytest.fixture(scope="module")
def asked_server(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("asked")
    env = hermetic(upstream_process, folder)
    # Who has said that nothing more will come is seen to leave when something is written to him.
    with start_server(folder, env, "--allow-model", "fake/*", "--keepalive-interval", "0.5") as server:
        yield server


def post(path: str, **more: Any) -> bytes:
    """Return the bytes of a request of this route."""
    return request({**ROUTES[path], **more}, line=f"POST {path} HTTP/1.1")


def calls_under_way(upstream: Upstream, count: int) -> None:
    eventually(lambda: upstream.stats()["in_flight"] == count, f"{count} calls under way")


def all_cut_off(upstream: Upstream, count: int) -> None:
    """Wait until so many calls were cut off before their end, and none is left."""
    eventually(lambda: upstream.stats()["aborted"] == count, f"{count} calls cut off")
    assert upstream.stats()["in_flight"] == 0


HANGING = [
    ("panel", ["fake/x+hang", "fake/y+hang", "fake/z+hang"], 3),
    ("judge", "fake/judge+hang", 1),
    ("synth", "fake/s+hang", 1),
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(("stage", "models", "calls"), HANGING, ids=["panel", "judge", "synth"])
def test_who_leaves_before_an_answer_cancels_every_call(
    asked_server: Server, upstream: Upstream, path: str, stage: str, models: Any, calls: int
) -> None:
    with Line(asked_server, post(path, fusion={stage: models})):
        eventually(lambda: any("hang" in name for name in upstream.stats()["per_model"]), "the hanging calls")
        calls_under_way(upstream, calls)

    all_cut_off(upstream, calls)


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize(("stage", "models", "calls"), HANGING, ids=["panel", "judge", "synth"])
def test_who_leaves_a_stream_before_its_first_byte_cancels_every_call(
    asked_server: Server, upstream: Upstream, path: str, stage: str, models: Any, calls: int
) -> None:
    with Line(asked_server, post(path, stream=True, fusion={stage: models})):
        eventually(lambda: any("hang" in name for name in upstream.stats()["per_model"]), "the hanging calls")
        calls_under_way(upstream, calls)

    all_cut_off(upstream, calls)


@pytest.mark.parametrize("path", STREAMED)
def test_who_leaves_in_the_middle_of_a_stream_cancels_the_call(
    asked_server: Server, upstream: Upstream, path: str
) -> None:
    with Line(asked_server, post(path, stream=True, fusion={"synth": "fake/s+chunks=1000+itl=1"})) as line:
        line.until(b"fake")

    all_cut_off(upstream, 1)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", ROUTES)
def test_who_leaves_a_member_that_is_asked_alone_cancels_its_call(
    asked_server: Server, upstream: Upstream, path: str, stream: bool
) -> None:
    with Line(asked_server, post(path, stream=stream, model="fake/a+hang")):
        calls_under_way(upstream, 1)

    all_cut_off(upstream, 1)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_who_leaves_cancels_the_calls_for_every_prompt(asked_server: Server, upstream: Upstream, stream: bool) -> None:
    body = {"model": "fake/a+hang", "prompt": ["One?", "Two?", "Three?"], "stream": stream}

    with Line(asked_server, request(body, line="POST /v1/completions HTTP/1.1")):
        calls_under_way(upstream, 3)

    all_cut_off(upstream, 3)


def test_who_leaves_a_passed_stream_in_the_middle_cancels_its_call(asked_server: Server, upstream: Upstream) -> None:
    with Line(asked_server, post(CHAT, stream=True, model="fake/a+chunks=1000+itl=1")) as line:
        line.until(b'"content":"f')

    all_cut_off(upstream, 1)


def test_who_does_not_read_and_then_leaves_cancels_the_call(asked_server: Server, upstream: Upstream) -> None:
    body = {"stream": True, "model": "fake/a+big=40000000+itl=0.001"}

    with Line(asked_server, post(CHAT, **body)) as line:
        line.until(b"200 OK")

    all_cut_off(upstream, 1)


def test_who_asked_with_a_long_text_and_leaves_cancels_the_call(asked_server: Server, upstream: Upstream) -> None:
    long = [{"role": "user", "content": "x" * 2_000_000}]

    with Line(asked_server, post(CHAT, messages=long, fusion={"panel": ["fake/a+hang"]})):
        calls_under_way(upstream, 1)

    all_cut_off(upstream, 1)


@pytest.mark.parametrize("more", [{}, {"model": "fake/a+slow=0.2"}, {"stream": True}])
def test_who_ends_its_input_gets_its_answer_and_then_the_end(asked_server: Server, more: dict[str, Any]) -> None:
    with Line(asked_server, post(CHAT, **more)) as line:
        line.end_input()
        got = line.rest().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")

    assert got.startswith(b"HTTP/1.1 200 OK")
    assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if "stream" in more else b"}")


def test_each_of_several_requests_sent_ahead_is_answered_to_who_ends_its_input(asked_server: Server) -> None:
    with Line(asked_server, post(CHAT) * 3) as line:
        line.end_input()

        assert line.rest().count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    ("more", "heard"),
    [({"model": "fake/a+hang"}, b"100 Continue"), ({"fusion": {"panel": ["fake/a+hang"]}, "stream": True}, b"200 OK")],
)
def test_who_ends_its_input_and_then_leaves_cancels_the_call(
    asked_server: Server, upstream: Upstream, more: dict[str, Any], heard: bytes
) -> None:
    with Line(asked_server, post(CHAT, **more)) as line:
        calls_under_way(upstream, 1)
        line.end_input()
        line.until(heard)

    all_cut_off(upstream, 1)


def test_to_a_client_of_http_1_0_the_end_of_its_input_is_the_end(asked_server: Server, upstream: Upstream) -> None:
    sent = post(CHAT, model="fake/a+hang").replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    with Line(asked_server, sent) as line:
        calls_under_way(upstream, 1)
        line.end_input()
        assert line.rest() == b""

    all_cut_off(upstream, 1)


def test_who_has_asked_for_more_and_leaves_cancels_what_is_under_way(asked_server: Server, upstream: Upstream) -> None:
    with Line(asked_server, post(CHAT, model="fake/a+hang")) as line:
        calls_under_way(upstream, 1)
        line.send(post(CHAT, model="fake/b+hang"))

    all_cut_off(upstream, 1)
    assert list(upstream.stats()["per_model"]) == ["fake/a+hang"]


def test_one_clients_leaving_is_not_anothers(asked_server: Server, upstream: Upstream) -> None:
    slow = "fake/s+slow=0.5"

    with Line(asked_server, post(CHAT, fusion={"synth": slow})) as stays:
        with Line(asked_server, post(CHAT, fusion={"synth": "fake/t+hang"})):
            eventually(lambda: "fake/t+hang" in upstream.stats()["per_model"], "the hanging call")
        reply = stays.reply()

    assert reply.status == 200
    all_cut_off(upstream, 1)


def test_what_was_asked_twice_goes_on_until_the_last_has_left(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600", recipe=RECIPE.replace("fake/a", "fake/a+hang"))

    with Line(server, post(CHAT)) as first, Line(server, post(CHAT, stream=True)):
        eventually(lambda: server.metric("fusion_cache_total", outcome="joined") == 1, "the second listener")
        first.close()
        eventually(lambda: server.metric("fusion_requests_total", outcome="gone") == 1, "the first's leaving")
        stats = upstream.stats()

    assert (stats["aborted"], stats["in_flight"]) == (0, 1)
    all_cut_off(upstream, 1)


def test_who_joined_late_hears_everything_though_the_first_has_left(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600", "--allow-model", "fake/*")
    upstream.script("fake/synth", "chunks=8+itl=0.05")

    with Line(server, post(CHAT, stream=True)) as first:
        first.until(b"fake")
        with Line(server, post(CHAT)) as second:
            eventually(lambda: server.metric("fusion_cache_total", outcome="joined") == 1, "the second listener")
            first.close()
            reply = second.reply()

    assert b"fake/synth says" in reply.body
    assert upstream.stats()["aborted"] == 0


def test_a_question_that_everybody_left_is_asked_anew(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600")
    upstream.script("fake/synth", "hang")

    with Line(server, post(CHAT)):
        eventually(lambda: "fake/synth" in upstream.stats()["per_model"], "the hanging call")
    all_cut_off(upstream, 1)
    again = server.chat().json()

    assert again["fusion"]["cached"] is False
    assert again["choices"][0]["message"]["content"].startswith("fake/synth says")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("model", ["fusion", "fake/b"])
def test_who_leaves_the_queue_is_never_asked_for(serve: Serve, upstream: Upstream, path: str, model: str) -> None:
    server = serve("--max-in-flight", "1", "--allow-model", "fake/*")

    with Line(server, post(CHAT, model="fake/a+hang")):
        calls_under_way(upstream, 1)
        with Line(server, post(path, model=model)):
            eventually(lambda: server.metric("fusion_queued") == 1, "its waiting")
        eventually(lambda: server.metric("fusion_queued") == 0, "its leaving")

    all_cut_off(upstream, 1)
    assert server.chat().status_code == 200
    assert list(upstream.stats()["per_model"])[:1] == ["fake/a+hang"]
    assert upstream.stats()["requests"] == 6


def test_who_leaves_within_its_own_request_is_forgotten(asked_server: Server, upstream: Upstream) -> None:
    whole = post(CHAT)

    with Line(asked_server, whole[:-5]):
        pass

    assert asked_server.chat().status_code == 200
    assert upstream.stats()["requests"] == 5
