"""How a server is run: workers that fail, the end with work under way, what is counted and logged of who is refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawhttp import Line, eventually, exchange, request
from serving import CHAT, ONE_OR_TWO, RECIPE, Server, asking, start_server, workers_of
from workdir import Run, Serve, Upstream, hermetic

from fusiontools.errors import UsageError
from fusiontools.server.jobs import ConcurrencyLimiter
from fusiontools.server.middleware import Access, hosts_for
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ResponseMeta, StreamStyle, WireProtocol
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.protocols.responses import Responses

CLOSE = {"connection": "close"}
HANGS = {**asking(), "model": "fake/a+hang"}
ANY_MODEL = ("--allow-model", "fake/*")


# --- Workers ---

#: What Python runs first in every process: here, something that befalls workers alone.
BEFALLS = """
import os, sys
if any("spawn_main" in word for word in sys.orig_argv):
    {}
"""


def befalling(env: Mapping[str, str], folder: Path, what: str) -> dict[str, str]:
    """Return an environment in which this befalls every worker as it begins."""
    (folder / "sitecustomize.py").write_text(BEFALLS.format(what))
    return {**env, "PYTHONPATH": str(folder)}


@pytest.mark.parametrize("workers", ONE_OR_TWO)
def test_a_journal_that_cannot_be_opened_is_said_before_anything_is_promised(
    run: Run, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "file").write_text("")

    result = run(["fuse-serve", "-c", "recipe.yaml", "--port", "0", "--workers", workers, "--journal", "file/j.db"])

    assert result.status == 2
    assert result.err.startswith("fuse-serve: journal file/j.db: cannot be written: ")
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_workers_that_cannot_serve_say_why_and_end_the_server(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = ["fuse-serve", "-c", "recipe.yaml", "--port", "0", "--workers", "2"]

    result = run(command, env=befalling(env, tmp_path, "os.environ['FUSION_SERVER_API_KEYS'] = 'short'"))

    assert result.status == 1
    assert "fuse-serve: a worker: ended before it could serve" in result.err
    assert "a key has fewer than 8 characters" in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_requests_are_not_counted_any_more(
    serve: Serve, upstream: Upstream
) -> None:
    server = serve("--workers", "2", "--max-in-flight", "2", *ANY_MODEL)

    with contextlib.ExitStack() as lines:

        def both_work() -> bool:
            """Ask once more; each worker has one place, so whether both serve is seen by the places that are taken."""
            lines.enter_context(Line(server, request(HANGS)))
            return server.metric("fusion_in_flight") == 2

        eventually(both_work, "a request in each worker")
        before = workers_of(server)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        eventually(lambda: len(workers_of(server) - before) == 2, "two other workers")

        assert server.chat().status_code == 200
        assert server.metric("fusion_in_flight") == server.metric("fusion_queued") == 0


@pytest.mark.slow
def test_a_hangup_replaces_the_workers_by_others_that_end_as_well_as_the_first(
    serve: Serve, upstream: Upstream
) -> None:
    server = serve("--workers", "2", "--drain", "0.2", *ANY_MODEL)
    assert server.chat().status_code == 200
    before = workers_of(server)

    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(workers_of(server) - before) == 2 and not workers_of(server) & before, "two other workers")
    with Line(server, request(HANGS)) as line:
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the call")
        server.process.send_signal(signal.SIGTERM)
        reply = line.reply()

    assert (reply.status, reply.code) == (503, "server_overloaded")
    assert server.process.wait(60) == 0


# --- The end, with work under way ---

UNDER_WAY = {
    "fusion": asking(fusion={"synth": "fake/synth+chunks=100000+itl=0.1"}),
    "member": {**asking(), "model": "fake/a+chunks=100000+itl=0.1"},
}


@pytest.mark.parametrize("workers", ONE_OR_TWO)
@pytest.mark.parametrize(
    ("path", "stream"),
    [
        (CHAT, False), ("/v1/messages", False), ("/v1/responses", False), ("/fuse", False),
        (CHAT, True), ("/v1/messages", True), ("/v1/responses", True),
    ],
)  # fmt: skip
def test_who_waits_for_a_first_byte_when_the_time_is_over_is_told_so(
    serve: Serve, upstream: Upstream, path: str, stream: bool, workers: str
) -> None:
    server = serve("--workers", workers, "--drain", "0.2", "--progress", "off", *ANY_MODEL)
    body: dict[str, Any] = {"model": "fake/a+hang", "stream": stream, "max_tokens": 9}
    body |= {"input": "x"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "x"}]}

    with Line(server, request(body, line=f"POST {path} HTTP/1.1")) as line:
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the call")
        server.process.send_signal(signal.SIGTERM)
        reply = line.reply()

    assert reply.status == 503
    assert b"going down" in reply.body
    assert "retry-after" in reply.headers
    assert server.process.wait(60) == 0


@pytest.mark.parametrize("workers", ONE_OR_TWO)
@pytest.mark.parametrize("who", UNDER_WAY)
def test_a_stream_that_has_begun_when_the_time_is_over_says_so_and_ends(
    serve: Serve, upstream: Upstream, who: str, workers: str
) -> None:
    server = serve("--workers", workers, "--drain", "0.2", *ANY_MODEL)

    with Line(server, request({**UNDER_WAY[who], "stream": True})) as line:
        line.until(b'"content":"f')
        server.process.send_signal(signal.SIGTERM)
        said = line.rest()

    assert b"going down" in said
    assert b"data: [DONE]\n\n" in said
    assert said.endswith(b"\r\n0\r\n\r\n")
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.said()


# --- Places ---


@pytest.mark.parametrize("workers", ONE_OR_TWO)
def test_who_is_worked_on_and_who_waits_is_counted_in_all_workers(
    serve: Serve, upstream: Upstream, workers: str
) -> None:
    server = serve("--workers", workers, "--max-in-flight", workers, *ANY_MODEL)

    def places() -> tuple[float, float]:
        return server.metric("fusion_in_flight"), server.metric("fusion_queued")

    with contextlib.ExitStack() as lines:
        for _ in range(6):
            lines.enter_context(Line(server, request(HANGS)))
        eventually(lambda: sum(places()) == 6, "six requests")
        inside, waiting = places()
    eventually(lambda: places() == (0, 0), "their leaving")
    assert "Traceback" not in server.said()

    assert 1 <= inside <= int(workers)
    assert waiting == 6 - inside


@given(st.lists(st.sampled_from(["come", "leave"]), max_size=30))
def test_what_is_told_of_a_gate_is_how_many_are_in_it_and_before_it(moves: list[str]) -> None:
    import asyncio

    told = {"inside": 0.0, "waiting": 0.0}

    async def play() -> None:
        limiter = ConcurrencyLimiter(2, 3, 60.0)
        limiter.watch(lambda count: told.update(inside=count), lambda count: told.update(waiting=count))
        leave = asyncio.Event()
        guests: list[asyncio.Task[None]] = []

        async def visit() -> None:
            with contextlib.suppress(ApiError):
                async with limiter:
                    await leave.wait()

        for move in moves:
            if move == "come":
                guests.append(asyncio.ensure_future(visit()))
            elif guests:
                guests.pop().cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert told == {"inside": limiter.inside, "waiting": limiter.waiting}
        leave.set()
        await asyncio.gather(*guests)

    asyncio.run(play())

    assert told == {"inside": 0, "waiting": 0}


# --- Who is refused ---

SECRET = "canary-server-key-1"
KEY = {"x-api-key": SECRET}
OTHER = "another-key-123"
POSTED, GOT = f"POST {CHAT} HTTP/1.1", "GET /v1/models HTTP/1.1"
REFUSED = [
    (request(), "chat", 401, "invalid_api_key"),
    (request(line="POST /v1/messages HTTP/1.1"), "messages", 401, "invalid_api_key"),
    (request(line="POST /v1/responses HTTP/1.1"), "responses", 401, "invalid_api_key"),
    (request(line="POST /fuse HTTP/1.1"), "fuse", 401, "invalid_api_key"),
    (request(b"", line=GOT), "pages", 401, "invalid_api_key"),
    (request(headers={**KEY, "origin": "https://evil.example"}), "chat", 403, "origin_not_allowed"),
    (request(headers={**KEY, "host": "evil.example"}), "chat", 400, "refused"),
    (request(headers={**KEY, "content-type": "text/plain"}), "chat", 415, "unsupported_media_type"),
    (request(headers={**KEY, "content-length": "99999999"}), "chat", 413, "request_too_large"),
    (request(b"", KEY, line="GET /nowhere/made-up HTTP/1.1"), "pages", 404, "not_found"),
    (request(b"{", {**KEY, "content-length": "9"}), "chat", 408, "request_timeout"),
    (b"GET / HTTP/1.1\r\nhost: a", "none", 408, "request_timeout"),
    (request(b"", {"x": "y" * 200_000}, line=GOT), "none", 431, "head_too_large"),
    (b"\x16\x03\x01\r\n\r\n", "none", 400, "not_http"),
]  # fmt: skip


@pytest.fixture(scope="module")
def strict_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("strict")
    env = {**hermetic(upstream_process, folder), "FUSION_SERVER_API_KEYS": f"{SECRET},{OTHER}"}
    options = ("--read-timeout", "0.5", "--allow-host", "localhost", "--log", *ANY_MODEL)
    with start_server(folder, env, *options) as server:
        yield Server(server.url, server.process, server.log, KEY)


@pytest.fixture
def strict(strict_process: Server, upstream: Upstream) -> Server:
    """A server that wants a key, waits for nobody for long, and keeps a log."""
    return strict_process


def log_of(server: Server) -> list[dict[str, Any]]:
    """Return the lines of the log, without those of looks at the counters; all but the first are JSON."""
    lines = [json.loads(line) for line in server.said().splitlines(keepends=True)[1:] if line.endswith("\n")]
    return [line for line in lines if line["path"] != "/metrics"]


def counts_of(server: Server) -> Counter[tuple[str, str]]:
    """Return how many requests have been counted, by route and outcome."""
    said = re.findall(
        r'^fusion_requests_total\{outcome="(.*)",route="(.*)"\} (.*)$', server.get("/metrics").text, re.MULTILINE
    )
    return Counter({(route, outcome): int(float(count)) for outcome, route, count in said})


@pytest.mark.parametrize(("sent", "route", "status", "code"), REFUSED)
def test_whoever_is_refused_is_counted_once_and_logged_with_the_reason(
    strict: Server, sent: bytes, route: str, status: int, code: str
) -> None:
    before, logged = counts_of(strict), len(log_of(strict))

    reply = exchange(strict, sent)

    eventually(lambda: len(log_of(strict)) > logged, "the line")
    grown = counts_of(strict)
    grown.subtract(before)
    assert reply.status == status
    assert +grown == {("pages", "ok"): 1, (route, code): 1}  # the look at the counters itself is one
    assert [line["outcome"] for line in log_of(strict)[logged:]] == [code]


def test_every_line_of_the_log_says_how_it_went(strict: Server) -> None:
    logged = len(log_of(strict))

    strict.get("/")
    strict.get("/recipes/none")
    strict.chat()
    strict.chat(n=2)
    strict.get(CHAT)
    exchange(strict, request(b"", {"access-control-request-method": "POST"}, line=f"OPTIONS {CHAT} HTTP/1.1"))

    eventually(lambda: len(log_of(strict)) == logged + 6, "the lines")
    told = [(line["path"], line["status"], bool(line["outcome"])) for line in log_of(strict)[logged:]]
    assert told == [
        ("/", 200, True), ("/recipes/none", 404, True), (CHAT, 200, True), (CHAT, 400, True), (CHAT, 405, True),
        (CHAT, 401, True),
    ]  # fmt: skip


# --- Keys and names ---


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "wrong-key-000", "authorization": f"Bearer {SECRET}"},
        {"x-api-key": SECRET, "authorization": "Bearer wrong-key-000"},
        {"x-api-key": SECRET, "authorization": "Basic x"},
        {"x-api-key": "", "authorization": f"Bearer {SECRET}"},
    ],
)
def test_one_right_key_is_enough(strict: Server, headers: dict[str, str]) -> None:
    assert exchange(strict, request(headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "wrong-key-000", "authorization": "Bearer wrong-key-001"},
        {"x-api-key": "wrong-key-000", "authorization": f"Basic {SECRET}"},
        {"x-api-key": "", "authorization": "Bearer "},
    ],
)
def test_two_wrong_keys_are_not_one_that_is_right(strict: Server, headers: dict[str, str]) -> None:
    assert exchange(strict, request(headers=headers)).status == 401


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer whatever comes in."""
    await send({"type": "http.response.start", "status": 200, "headers": []})


def comes_in(host: str, *allowed: str, address: str = "127.0.0.1") -> bool:
    """Return whether a server at this address, also called so, may be asked by this name."""
    import asyncio

    app = Access((), hosts_for(address, allowed, ()), frozenset(), 1).wrap(answer)
    headers = [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "named": dict(headers)}
    statuses = []

    async def note(message: Any) -> None:
        statuses.append(message.get("status"))

    asyncio.run(app(scope, None, note))  # type: ignore[arg-type]
    return statuses[0] == 200


@pytest.mark.parametrize("port", ["", ":8383", ":1"])
@pytest.mark.parametrize(
    ("given", "comes"),
    [
        ("My.Host:8383", "my.host"), ("my.host", "MY.HOST"), (" my.host ", "my.host"), ("[fe80::1]", "[fe80::1]"),
        ("fe80::1", "[fe80::1]"), ("[FE80::1]:8383", "[fe80::1]"), ("fe80:0:0::1", "[fe80::1]"),
        ("[fe80::1]", "[FE80::1]"), ("192.0.2.7:1", "192.0.2.7"), ("none", "localhost"), ("none", "127.0.0.1"),
        ("none", "[::1]"),
    ],
)  # fmt: skip
def test_a_name_is_the_same_however_it_is_spelled(given: str, comes: str, port: str) -> None:
    assert comes_in(comes + port, given)


@pytest.mark.parametrize(
    "host",
    [
        "[::1]evil", "[::1]evil.example:80", "[::1]:1@evil", "127.0.0.1:1@evil", "localhost:@evil", "localhost:80a",
        "[::1", "::1]", "[localhost]", "[127.0.0.1]", "localhost:1:2", "evil@localhost", "localhost/", "localhost#",
        "localhost,evil", "", ":8383", "[]", "[]:1", "localhost:\u00b2", "[::1%evil]", "127.0.0.1 evil", "*",
    ],
)  # fmt: skip
def test_what_is_no_name_is_none_of_the_servers(host: str) -> None:
    assert not comes_in(host, "none")
    assert not comes_in(host, address="")


@pytest.mark.parametrize("given", ["http://my.host", "my.host/", "a:b:c", "", "[::1]x", "me@my.host", "*", "*.host"])
def test_an_allowed_host_that_is_no_name_is_said_so(given: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        hosts_for("127.0.0.1", [given], ())


# --- Lines of a stream ---

#: What some readers of lines take for the end of one, besides the ends that JSON escapes.
ENDS = "\u0085\u2028\u2029"
TEXTS = st.text(st.sampled_from(f'ab\\"\u00e9\u0084\u0086\u2027\u202a\U0001f600\n\r\x1c{ENDS}'), max_size=8)
ASKED, ABOUT = (
    ChatRequest("fusion", [{"role": "user", "content": "x"}], stream=True),
    ResponseMeta("0" * 32, 0, "fusion"),
)


def pieces_of(data: bytes) -> list[str]:
    """Return the pieces of text in a stream, read line by line as httpx and others do."""
    events = [json.loads(line.removeprefix("data: ")) for line in data.decode().splitlines() if line.startswith("data")]
    found = []
    for event in events:
        deltas = [choice["delta"].get("content", "") for choice in event.get("choices", [])]
        if event.get("type") == "content_block_delta":
            deltas = [event["delta"]["text"]]
        if event.get("type") == "response.output_text.delta":
            deltas = [event["delta"]]
        found += deltas
    return found


@pytest.mark.parametrize("protocol", [Chat(), Messages(), Responses()], ids=["chat", "messages", "responses"])
@given(texts=st.lists(TEXTS, max_size=4))
def test_no_text_ends_a_line_of_a_stream_before_its_time(protocol: WireProtocol, texts: list[str]) -> None:
    writer = protocol.writer(ASKED, ABOUT, StreamStyle())

    data = writer.open() + b"".join(writer.text(text) for text in texts)

    assert "".join(pieces_of(data)) == "".join(texts)


@pytest.mark.parametrize("protocol", [Chat(), Messages(), Responses()], ids=["chat", "messages", "responses"])
@pytest.mark.parametrize("progress", ["comment", "reasoning"])
def test_nothing_else_ends_a_line_of_a_stream_before_its_time(protocol: WireProtocol, progress: str) -> None:
    words = f"a{ENDS}b"
    writer = protocol.writer(ASKED, ResponseMeta("0" * 32, 0, words), StreamStyle("chunk", progress))
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": f'{{"x":"{words}"}}'},
    }

    data = b"".join(
        [
            writer.open(), writer.event({"model": words}), writer.alive(), writer.text(words), writer.calls([call]),
            writer.broken(ApiError(502, "x", words), None),
        ]
    )  # fmt: skip

    assert data.decode().splitlines() == data.decode().split("\n")[:-1]


@given(st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)))
def test_what_is_written_on_one_line_is_read_as_it_was(value: Any) -> None:
    line = sse.line(value)

    assert json.loads(line) == value
    assert len(line.decode().splitlines()) == 1
