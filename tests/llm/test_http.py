"""Calls over HTTP: what is sent, and what becomes of everything that a server can do."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from calling import (
    M,
    ask,
    attempts,
    real,
)
from scripted import ENDPOINT, MESSAGES, model
from workdir import Upstream

from fusiontools.config.models import Endpoint, Model, environment_endpoints
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion
from fusiontools.llm.http import HttpBackend, call_url, target_of
from fusiontools.llm.http1 import Http1Transport
from fusiontools.llm.transport import transport_for


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8000/v1", "ftp://h/v1", "http://", "http://[::1", "http://h:70000/v1", "http://h:x/v1"),
        *(
            "http://a b/v1",
            "http://h/v1\n",
            "http://h\x7f/v1",
            "http://[::1]x/v1",
            "http://[v1.a]/x",
            " http://h",
            "http://h<x>/",
            "http://☃.example",
            f"http://{'ä' * 64}/v1",
        ),
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        HttpBackend(Endpoint("there", url))


@pytest.mark.parametrize(
    "host", ["there.example", "THERE.example:8080", "u:p@h", "[::1]:9", "münchen.example", "straße.example", "h:80"]
)
@pytest.mark.parametrize(
    "path",
    ["", "/", "/v1/", "/a b", "/ä/%C3%A4", "?x=ü y", "/v1?q=1&r=%20", "//v1", "/a[b]|c", "/a;b,c", '/a"<>', "/#x"],
)
def test_calls_go_to_the_url_that_httpx_reads(host: str, path: str) -> None:
    url = call_url(Endpoint("there", f"http://{host}{path}"), "/x")

    read = httpx.URL(f"http://{host}{path.rstrip('/')}/x")
    assert (url.scheme, url.netloc, url.port) == (read.scheme, read.netloc.decode(), read.port)
    assert target_of(url) == read.raw_path.decode()


def http_client(handler: Any, endpoint: Endpoint = ENDPOINT, **limits: Any) -> Client:
    backend = HttpBackend(endpoint, httpx.MockTransport(handler))
    return Client(
        {endpoint.name: endpoint}, LimitOptions(**{"backoff_s": 0, **limits}), backends={endpoint.name: backend}
    )


def over_http(handler: Any, asked: Model = M, endpoint: Endpoint = ENDPOINT, **more: Any) -> Any:
    """Return what comes of one call over this transport, and what is entered."""
    limits = {name: more.pop(name) for name in ("retries", "timeout_s") if name in more}

    async def work() -> Any:
        client = http_client(handler, endpoint, **limits)
        ledger = client.ledger("panel", "1")
        [result] = await asyncio.gather(ask(client, asked, ledger=ledger, **more), return_exceptions=True)
        if not isinstance(result, Completion | CallFailed):
            raise result
        return result, ledger.calls

    return asyncio.run(work())


def ok(text: str = "Paris.") -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def test_what_is_sent_is_the_request_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "hunter2-hunter2")
    sent: list[httpx.Request] = []

    over_http(
        lambda request: sent.append(request) or ok(),
        endpoint=Endpoint("there", "https://there.example/v1", "THEIR_KEY", headers={"x-title": "t"}),
        params={"temperature": 0.5},
    )

    [request] = sent
    assert (request.method, str(request.url)) == ("POST", "https://there.example/v1/chat/completions")
    assert json.loads(request.content) == {"model": "m", "messages": MESSAGES, "temperature": 0.5}
    assert set(request.headers) == {
        "host", "content-type", "accept", "accept-encoding", "user-agent", "x-title", "content-length", "authorization",
    }  # fmt: skip
    assert request.headers["authorization"] == "Bearer hunter2-hunter2"
    assert request.headers["host"] == "there.example"


def test_a_server_without_a_key_is_sent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "hunter2-hunter2")
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2-hunter2")
    monkeypatch.setenv("FUSION_BASE_URL", "https://elsewhere.example/v1")
    monkeypatch.delenv("FUSION_API_KEY", raising=False)
    sent: list[httpx.Request] = []

    for name, endpoint in environment_endpoints({ENDPOINT.name: ENDPOINT}).items():
        over_http(lambda request: sent.append(request) or ok(), M, endpoint)
        assert name == "there"

    assert ["authorization" in request.headers for request in sent] == [False]
    assert sent[0].url.host == "elsewhere.example"


def test_an_endpoint_that_repeats_our_key_is_not_quoted_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "hunter2-hunter2")
    keyed = Endpoint("there", "https://there.example/v1", "THEIR_KEY")

    for status in (200, 401):
        failure, _ = over_http(
            lambda _, status=status: httpx.Response(
                status, json={"error": {"message": "bad: hunter2-hunter2", "code": 401}}
            ),
            endpoint=keyed,
        )
        assert failure.message == "HTTP 401: bad: ***"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ConnectError("refused"), "connect"),
        (httpx.ConnectTimeout("late"), "connect"),
        (httpx.ProxyError("no"), "connect"),
        (httpx.ReadError("reset"), "connection"),
        (httpx.RemoteProtocolError("half"), "connection"),
        (httpx.DecodingError("not gzip"), "connection"),
    ],
)
def test_a_dead_line_is_a_failure_that_is_tried_again(error: Exception, code: str) -> None:
    def dead(_: httpx.Request) -> httpx.Response:
        raise error

    failure, calls = over_http(dead, retries=1)

    assert failure.code == code
    assert "https://there.example/v1" in failure.message
    assert attempts(calls) == [(1, code), (2, code)]


def test_a_compressed_answer_is_read_and_a_broken_one_fails_by_name() -> None:
    body = gzip.compress(ok().content)

    whole, _ = over_http(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(body)))
    broken, _ = over_http(
        lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(b"x" + body)), retries=0
    )

    assert whole.content == "Paris."
    assert broken.code == "connection"


def test_others_are_served_while_much_is_inflated() -> None:
    pieces = 64  # of 256 KiB, in one read of 16 KiB
    body = gzip.compress(ok("a" * (pieces * 2**18)).content)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work() -> Any:
        compressed = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(body))
        client = http_client(lambda _: compressed, ENDPOINT)
        beside = asyncio.create_task(others())
        completion = await ask(client, M, ledger=client.ledger("panel", "1"))
        beside.cancel()
        return completion

    assert len(asyncio.run(work()).content) == pieces * 2**18
    assert turns > pieces // 2


def test_what_a_failed_call_has_read_is_free_as_soon_as_it_has_failed() -> None:
    """Not when Python next looks for cycles: until then many others may have failed alike."""
    body = gzip.compress(b" " * (65 * 2**20), 1)
    gc.disable()
    tracemalloc.start()
    try:
        failed, _ = over_http(
            lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(body)), retries=0
        )
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()

    assert "over 64 MiB" in failed.message
    assert held < 8 * 2**20


def test_a_move_is_not_followed() -> None:
    failure, calls = over_http(lambda _: httpx.Response(307, headers={"location": "https://elsewhere.example/"}))

    assert failure.message == "HTTP 307: moved to https://elsewhere.example/: an empty body"
    assert len(calls) == 1


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error:
            raise self.error


def event_stream(*pieces: bytes, error: Exception | None = None) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(*pieces, error=error))


PARIS = b'data: {"choices": [{"delta": {"content": "Paris."}}]}\n\n'
STOP = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'


def test_a_streamed_answer_is_shown_as_it_comes_and_a_plain_one_at_the_end() -> None:
    shown: list[str] = []

    streamed, [call] = over_http(lambda _: event_stream(PARIS, STOP), on_delta=shown.append)
    over_http(lambda _: ok("Rome."), on_delta=shown.append)

    assert shown == ["Paris.", "Rome."]
    assert streamed.content == "Paris."
    assert call["ttft_s"] is not None


def test_a_model_that_closes_thoughts_it_never_opened_is_waited_for_from_then_on() -> None:
    said = [
        b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % piece
        for piece in (b"hm", b"</think>", b"Paris", b".")
    ]
    shown: list[list[Any]] = [[], []]

    async def work() -> list[Completion]:
        client = http_client(lambda _: event_stream(*said, STOP))
        return [await ask(client, on_delta=heard.append) for heard in shown]

    first, second = asyncio.run(work())

    assert (first.content, first.reasoning) == (second.content, second.reasoning) == ("Paris.", "hm")
    assert shown[1] == ["Paris", "."]


def test_a_stream_that_breaks_is_tried_again_until_text_was_shown() -> None:
    broken = httpx.RemoteProtocolError("half")
    shown: list[str] = []

    _, before = over_http(lambda _: event_stream(error=broken), on_delta=shown.append, retries=1)
    _, after = over_http(lambda _: event_stream(PARIS, error=broken), on_delta=shown.append, retries=1)

    assert attempts(before) == [(1, "connection"), (2, "connection")]
    assert attempts(after) == [(1, "connection")]
    assert shown == ["Paris."]


# Over real connections, by our transport and by httpx's: whoever sits behind a proxy sees the same


@pytest.fixture(params=["http1", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_TRANSPORT", "" if request.param == "http1" else request.param)


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("fake/a+status=401", "auth"),
        ("fake/a+status=429", "rate_limited"),
        ("fake/a+status=500", "upstream"),
        ("fake/a+html", "bad_response"),
        ("fake/a+html502", "upstream"),
        ("fake/a+garbage", "bad_response"),
        ("fake/a+err200", "upstream"),
        ("fake/a+empty", "empty"),
        ("fake/a+nochoices", "empty"),
        ("fake/a+nullcontent", "empty"),
        ("fake/a+refuse", "refused"),
        ("fake/a+length", "truncated"),
        ("fake/a+filter", "refused"),
        ("fake/a+closeearly", "connection"),
        ("fake/a+closehalf", "connection"),
        ("fake/a+midfail", "upstream"),
        ("fake/a+typo", "not_found"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_fails_is_a_failure_by_name(upstream: Upstream, name: str, code: str, streamed: bool) -> None:
    [failure], [[call]] = real(upstream, name, limits={"retries": 0}, **({"on_delta": [].append} if streamed else {}))

    assert (failure.code, call["status"]) == (code, code)


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    "name",
    [
        "fake/a+comments",
        "fake/a+nodone",
        "fake/a+nostream",
        "fake/a+unasked",
        "fake/a+kind=text%2Fplain",
        "fake/a+kind=application%2Fjson",
        "fake/a+kind=Text%2FEvent-Stream",
        "fake/a+kind=application%2Foctet-stream+unasked",
        "fake/a+nostream+kind=text%2Fevent-stream",
        "fake/a+think+reasoning",
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_only_looks_odd_is_understood(upstream: Upstream, name: str, streamed: bool) -> None:
    shown: list[str] = []

    [completion], _ = real(upstream, name, **({"on_delta": shown.append} if streamed else {}))

    assert completion.content.startswith("fake/a says ")
    assert "".join(shown) == (completion.content if streamed else "")


@pytest.mark.usefixtures("transport")
def test_a_server_that_drips_is_cut(upstream: Upstream) -> None:
    [failure], _ = real(upstream, "fake/a+drip=0.02", limits={"timeout_s": 0.1, "retries": 0})

    assert failure.code == "timeout"


@pytest.mark.usefixtures("transport")
def test_a_server_that_asks_for_a_wait_is_asked_again(upstream: Upstream) -> None:
    [completion], [calls] = real(upstream, "fake/a+retryafter=0.01")

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "ok")]


@pytest.mark.usefixtures("transport")
def test_a_dead_server_is_named() -> None:
    failure = real(Upstream("http://127.0.0.1:9/v1"), "m", limits={"retries": 0})[0][0]

    assert failure.code == "connect"
    assert failure.message.startswith("cannot reach http://127.0.0.1:9/v1: ")


@pytest.mark.usefixtures("transport")
def test_a_cancelled_call_leaves_the_server_too(upstream: Upstream) -> None:
    async def work() -> None:
        client = Client({"there": Endpoint("there", upstream.url)})
        task = asyncio.create_task(ask(client, model("fake/a+hang")))
        while not (await asyncio.to_thread(upstream.stats))["in_flight"]:
            pass
        task.cancel()
        await asyncio.wait([task])
        while not (await asyncio.to_thread(upstream.stats))["aborted"]:
            pass
        await client.aclose()

    asyncio.run(asyncio.wait_for(work(), 10))

    assert upstream.stats()["in_flight"] == 0


@pytest.mark.usefixtures("transport")
def test_many_calls_at_once_all_come_through(upstream: Upstream) -> None:
    results, _ = real(upstream, *["fake/a"] * 40)

    assert all(isinstance(result, Completion) for result in results)
    assert upstream.stats()["requests"] == 40


@pytest.mark.parametrize("settings", [{}, {"FUSION_TRANSPORT": "httpx"}, {"http_proxy": "http://127.0.0.1:9"}])
def test_the_transport_is_the_one_that_the_environment_wants(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"no_proxy": "", **settings}.items():
        monkeypatch.setenv(name, value)

    made = transport_for(urlsplit("http://there.example/v1"))

    assert isinstance(made, httpx.AsyncHTTPTransport if settings else Http1Transport)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FUSION_TRANSPORT", "curl", "FUSION_TRANSPORT: 'curl' is unknown; `httpx` is what can be chosen"),
        ("http_proxy", "ftp://p.example", "the proxy that the environment names cannot be used: "),
        ("http_proxy", "p.example:a", "the proxy that the environment names cannot be used: "),
        ("all_proxy", "socks5://127.0.0.1:9", "the proxy that the environment names cannot be used: "),
    ],
)
def test_what_the_environment_names_and_cannot_be_used_fails_the_call_and_is_no_bug(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(name, value)

    [failure], [[call]] = real(Upstream("http://there.example/v1"), "m")

    assert (failure.code, call["status"], call["cost_usd"]) == ("connect", "connect", 0.0)
    assert failure.message.startswith(words)
