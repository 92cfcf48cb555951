"""What strangers, broken clients and hostile ones may do to a server: nothing that lasts, and nothing that tells."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rawhttp import Line, eventually, exchange, request
from serving import CHAT, ONE_OR_TWO, RECIPE, Server, asking, start_server
from workdir import Run, Serve, Upstream, hermetic

from fusiontools.server.middleware import is_loopback

SECRET = "canary-server-key-1"
KEYS = {"FUSION_SERVER_API_KEYS": f"another-key-123,{SECRET}"}
CLOSE = {"connection": "close"}
PATHS = {
    CHAT: "messages", "/v1/messages": "messages", "/v1/responses": "input", "/fuse": "messages",
    "/v1/estimate": "messages", "/v1/messages/count_tokens": "messages",
}  # fmt: skip


@pytest.fixture(scope="module")
def strict_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("strict")
    options = ("--read-timeout", "0.5", "--max-body-mib", "1", "--max-messages", "100", "--allow-model", "fake/*")
    with start_server(folder, hermetic(upstream_process, folder), *options) as server:
        yield server


@pytest.fixture
def strict(strict_process: Server, upstream: Upstream) -> Iterator[Server]:
    """A server that waits for nobody for long; it must serve, and have found no bug, after every test."""
    yield strict_process
    assert strict_process.chat().status_code == 200
    assert "a bug in fusiontools" not in strict_process.said()
    assert "Traceback" not in strict_process.said()


# --- Where it listens ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])  # noqa: S104
def test_an_address_that_others_can_reach_wants_keys(run: Run, tmp_path: Any, host: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    result = run(["fuse-serve", "-c", "recipe.yaml", "--host", host, "--port", "0"])

    assert result.status == 2
    assert "FUSION_SERVER_API_KEYS" in result.err


def test_a_key_that_could_be_guessed_is_refused(run: Run, tmp_path: Any, env: dict[str, str]) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    result = run(["fuse-serve", "-c", "recipe.yaml"], env={**env, "FUSION_SERVER_API_KEYS": "good-enough-1,short"})

    assert result.status == 2
    assert "fewer than 8 characters" in result.err
    assert "good-enough-1" not in result.err


def test_a_port_that_is_taken_is_said_so(run: Run, tmp_path: Any, server: Server) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    result = run(["fuse-serve", "-c", "recipe.yaml", "--port", server.url.rpartition(":")[2]])

    assert result.status == 2
    assert "cannot listen there" in result.err


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),  # noqa: S104
        ("::", False), ("10.0.0.1", False), ("127.evil.co.uk", False), ("localhost.evil.com", False), ("", False),
    ],
)  # fmt: skip
def test_only_this_machines_own_addresses_are_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


# --- Who comes in ---


@pytest.fixture(scope="module")
def locked_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("locked")
    env = {**hermetic(upstream_process, folder), **KEYS}
    options = ("--allow-origin", "https://app.example", "--allow-model", "fake/*", "--log", "--retries", "0")
    with start_server(folder, env, *options) as server:
        yield server


@pytest.fixture
def locked(locked_process: Server, upstream: Upstream) -> Server:
    """A server that wants a key."""
    return locked_process


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {SECRET}"}, {"authorization": f"bearer  {SECRET} "}, {"x-api-key": SECRET},
        {"x-api-key": "another-key-123"},
    ],
)  # fmt: skip
def test_a_known_key_opens(locked: Server, headers: dict[str, str]) -> None:
    assert exchange(locked, request(headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Bearer "}, {"x-api-key": ""},
        {"authorization": f"Basic {SECRET}"}, {"authorization": SECRET}, {"authorization": f"Bearer {SECRET}x"},
        {"authorization": f"Bearer {SECRET[:-1]}"}, {"authorization": f"Bearer {SECRET.upper()}"},
        {"x-api-key": f"another-key-123,{SECRET}"}, {"x-api-key": "x" * 10_000}, {"x-api-key": "\u00e9\u00ff"},
        {"cookie": f"key={SECRET}"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [*PATHS, "/v1/models", "/metrics", "/recipes", "/openapi.json", "/", "/nowhere"])
def test_no_other_key_opens_anything(locked: Server, path: str, headers: dict[str, str]) -> None:
    method = "POST" if path in PATHS else "GET"

    reply = exchange(locked, request({}, {**headers, **CLOSE}, line=f"{method} {path} HTTP/1.1"))

    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert SECRET.encode() not in reply.body


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_whether_it_lives_is_told_without_a_key(locked: Server, path: str) -> None:
    assert locked.get(path).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8383", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", "x:y:z", ""]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health"])
def test_a_name_that_is_not_the_servers_is_turned_away(server: Server, host: str, path: str) -> None:
    line = f"{'POST' if path == CHAT else 'GET'} {path} HTTP/1.1"

    reply = exchange(server, request(headers={"host": host}, line=line))

    assert (reply.status, reply.body) == (400, b"Invalid host header")


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1:9", "[::1]:8383", "[::1]"])
def test_the_servers_own_names_are_its(server: Server, upstream: Upstream, host: str) -> None:
    assert exchange(server, request(headers={"host": host})).status == 200


def test_a_name_that_the_operator_gives_is_the_servers(serve: Serve) -> None:
    server = serve("--allow-host", "Fusion.internal")

    statuses = [exchange(server, request(headers={"host": host})).status for host in ("fusion.internal:80", "other")]

    assert statuses == [200, 400]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "file://", "http://127.0.0.1:1"]
)
def test_a_page_from_elsewhere_may_not_ask(server: Server, origin: str) -> None:
    reply = server.chat(headers={"origin": origin})

    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in reply.headers


def test_a_page_of_the_server_itself_may_ask(server: Server, upstream: Upstream) -> None:
    assert server.chat(headers={"origin": server.url}).status_code == 200


def test_a_program_that_sends_a_browsers_headers_without_an_origin_may_ask(server: Server, upstream: Upstream) -> None:
    headers = {"sec-fetch-mode": "cors", "accept-language": "*", "user-agent": "node"}

    assert server.chat(headers=headers).status_code == 200


def test_a_page_that_the_operator_allows_may_ask_and_read_the_answer(locked: Server) -> None:
    origin = {"origin": "https://app.example"}
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}

    before = exchange(locked, request(b"", {**origin, **wanted}, line=f"OPTIONS {CHAT} HTTP/1.1"))
    reply = locked.chat(headers={**origin, "authorization": f"Bearer {SECRET}"})
    refused = locked.chat(headers=origin)

    assert before.status == 200
    assert "authorization" in before.headers["access-control-allow-headers"]
    assert "POST" in before.headers["access-control-allow-methods"]
    assert [r.headers["access-control-allow-origin"] for r in (reply, refused)] == ["https://app.example"] * 2
    assert [reply.status_code, refused.status_code] == [200, 401]


def test_a_page_from_elsewhere_is_told_nothing_beforehand(locked: Server) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}

    reply = exchange(locked, request(b"", headers, line=f"OPTIONS {CHAT} HTTP/1.1"))

    assert reply.status == 400
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "application/json-seq",
    ],
)
def test_a_body_is_json_or_nothing(server: Server, upstream: Upstream, kind: str | None) -> None:
    reply = exchange(server, request(headers={"content-type": kind}))  # type: ignore[dict-item]

    assert (reply.status, reply.code) == (415, "unsupported_media_type")
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"]
)
def test_json_may_be_spelled_as_clients_do(server: Server, upstream: Upstream, kind: str) -> None:
    assert exchange(server, request(headers={"content-type": kind})).status == 200


# --- What it tells ---


PROMPT = "canary-prompt-eb21"
UPSTREAM_KEY = "canary-upstream-key-7"


def provoke(server: Server) -> list[str]:
    """Provoke every failure that there is a way to; returns everything that came back."""
    key = {"authorization": f"Bearer {SECRET}"}
    question = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 50, "input": PROMPT}
    said = []
    for path in PATHS:
        for behaviour in (
            "status=401",
            "status=403",
            "status=500",
            "midfail",
            "garbage",
            "closehalf",
            "refuse",
            "empty",
        ):
            for stream in (False, True):
                alone = {**question, "model": f"fake/x+{behaviour}", "stream": stream}
                fused = {**question, "stream": stream, "fusion": {"panel": [alone["model"]], "include": ["record"]}}
                said += [server.post(path, body, key).text for body in (alone, fused)]
        for wrong in (b"{", PROMPT.encode(), json.dumps(PROMPT).encode(), json.dumps({"model": PROMPT})[:-1].encode()):
            said.append(server.post(path, wrong, key).text)
        said.append(
            server.post(path, {**question, "fusion": {"chain": "route --command id | panel | synth"}}, key).text
        )
        said.append(server.post(path, question, {"x-api-key": SECRET + "x"}).text)
        said.append(server.post(path, question, {**key, "host": "evil"}).text)
    said.append(exchange(server, b"\x16\x03\x01" + PROMPT.encode() + b"\r\n\r\n").body.decode())
    return said


def test_no_key_no_question_and_no_trace_is_told(serve: Serve, upstream: Upstream) -> None:
    env = {**KEYS, "FUSION_API_KEY": UPSTREAM_KEY}
    server = serve("--log", "--retries", "0", "--allow-model", "fake/*", "--cache", "60", env=env)

    said = provoke(server)
    metrics = server.get("/metrics", headers={"x-api-key": SECRET}).text

    log = server.said()
    errors = "\n".join(text for text in said if '"messages"' not in text)  # a record repeats its question
    assert any(r["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}" for r in upstream.requests())
    for text in (log, metrics, *said):
        assert SECRET not in text
        assert UPSTREAM_KEY not in text
        assert "Traceback" not in text
    for text in (log, metrics, errors):
        assert PROMPT not in text
    assert log.count("\n") > 100


def test_the_log_says_who_asked_what_for_how_much(serve: Serve, upstream: Upstream) -> None:
    server = serve("--log", env=KEYS)

    server.chat(headers={"x-api-key": SECRET, "x-request-id": "mine-7"})

    eventually(lambda: server.said().count("\n") == 2, "the line")
    told = json.loads(server.said().splitlines()[1])
    assert re.fullmatch(r"key-[0-9a-f]{12}", told.pop("caller"))
    assert told.pop("latency_s") >= 0
    assert told.pop("time") > 0
    assert told == {
        "id": "mine-7", "method": "POST", "path": CHAT, "model": "fusion",
        "status": 200, "outcome": "ok", "cost_usd": 0.005,
    }  # fmt: skip


@pytest.mark.parametrize("said", ["a b", "x\tinjected", "a" * 200, "{}", "é"])
def test_a_request_id_that_could_break_a_log_is_replaced(server: Server, upstream: Upstream, said: str) -> None:
    reply = exchange(server, request(headers={"x-request-id": said}))

    assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("alone", [False, True], ids=["fused", "alone"])
def test_the_operators_trouble_with_an_endpoint_is_none_of_the_clients(
    locked: Server, status: int, stream: bool, alone: bool
) -> None:
    model = f"fake/acct-77+status={status}"
    body = {"model": model} if alone else {"fusion": {"panel": [model]}}

    reply = locked.post(CHAT, {**asking(stream=stream), **body}, {"x-api-key": SECRET})

    assert reply.status_code == 502
    assert "upstream says" not in reply.text
    assert "does not accept this server's key or account" in reply.json()["error"]["message"]


# --- How much ---


def padded(size: int) -> bytes:
    """Return a question of about so many bytes."""
    return json.dumps(asking("x" * size)).encode()


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}


def posted(headers: Any, *, line: str = f"POST {CHAT} HTTP/1.1") -> bytes:
    """Return a request's head alone."""
    return request(b"", headers, line=line)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(strict: Server) -> None:
    reply = exchange(strict, posted({"content-length": str(2**21)}))

    assert (reply.status, reply.code) == (413, "request_too_large")


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_too_large_is_refused(strict: Server, path: str) -> None:
    reply = strict.post(path, padded(2**21))

    assert reply.status_code == 413
    assert "--max-body-mib" in reply.text


def test_a_body_without_a_length_is_measured_as_it_comes(strict: Server) -> None:
    pieces = chunked(*[b" " * 2**16] * 40)

    with Line(strict, posted(CHUNKED)) as line:
        line.send(pieces)
        reply = line.reply()

    assert (reply.status, reply.code) == (413, "request_too_large")


def test_a_client_that_sent_too_much_can_ask_again_on_the_same_line(strict: Server) -> None:
    with Line(strict, request(padded(2**21)), request()) as line:
        statuses = [line.reply().status, line.reply().status]

    assert statuses == [413, 200]


def test_a_body_in_pieces_is_read_whole(strict: Server) -> None:
    data = json.dumps(asking()).encode()

    reply = exchange(strict, posted(CHUNKED), chunked(*[bytes([byte]) for byte in data]))

    assert reply.status == 200


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/messages/count_tokens"])
def test_a_hundred_thousand_messages_are_too_many(strict: Server, path: str) -> None:
    many = [{"role": "user", "content": ""}] * 30_000

    reply = strict.post(
        path, json.dumps({"max_tokens": 5, "model": "fusion", PATHS[path]: many}, separators=(",", ":")).encode()
    )
    few = strict.post(path, {"max_tokens": 5, "model": "fusion", PATHS[path]: [{"role": "user", "content": "x"}] * 101})

    assert reply.status_code in (400, 413)
    assert few.status_code == 400
    assert "--max-messages" in few.text


HEADS = {
    "one long header": b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 300_000 + b"\r\n\r\n",
    "many headers": b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
    "a long address": b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a header without an end": b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 300_000,
    "a name without an end": b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x" * 300_000,
    "an address without an end": b"GET /" + b"x" * 300_000,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_head_that_is_too_large_is_refused(strict: Server, head: bytes) -> None:
    assert exchange(strict, head).status == 431


def test_a_large_head_that_is_refused_does_no_work(strict: Server, upstream: Upstream) -> None:
    reply = exchange(strict, request(headers={"x": "x" * 300_000}))

    assert reply.status == 431
    assert upstream.stats()["requests"] == 0


def test_a_head_as_agents_send_it_is_not_too_large(strict: Server) -> None:
    assert exchange(strict, request(headers={"x": "x" * 50_000})).status == 200


# --- How long ---


@pytest.mark.parametrize("sent", [b"POST /v1/chat", b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"\r\nG"])
def test_a_head_that_does_not_come_is_not_waited_for(strict: Server, sent: bytes) -> None:
    with Line(strict, sent) as line:
        assert line.rest().startswith(b"HTTP/1.1 408 ")


def test_who_says_nothing_hears_nothing(strict: Server) -> None:
    with Line(strict) as line:
        assert line.rest() == b""


@pytest.mark.parametrize("more", [b"", b"\r\n", b"\r\n\r\n"])
def test_an_empty_line_behind_a_body_is_no_head_that_is_late(strict: Server, more: bytes) -> None:
    with Line(strict, request(padded(2**21))) as line:
        refused = line.reply()
        line.send(more)

        assert refused.status == 413
        assert line.rest() == b"" if more else True


# --- Which host ---


@pytest.mark.parametrize(
    "sent",
    [
        request(headers={"host": "localhost\r\nhost: localhost"}),
        request(headers={"host": "localhost\r\nHost: evil.example"}),
        request(line=f"POST http://evil.example{CHAT} HTTP/1.1"),
        request(line=f"POST http://localhost:80@evil.example{CHAT} HTTP/1.1"),
        request(line=f"POST http://evil.example{CHAT} HTTP/1.1", headers={"host": "evil.example"}),
    ],
)
def test_a_request_that_names_two_hosts_or_a_foreign_one_is_refused(
    strict: Server, upstream: Upstream, sent: bytes
) -> None:
    assert exchange(strict, sent).status == 400
    assert upstream.stats()["requests"] == 0


def test_two_hosts_are_refused_where_a_key_lets_any_name_pass(locked: Server) -> None:
    told = {"authorization": f"Bearer {SECRET}"}

    assert exchange(locked, request(headers={**told, "host": "any.example"})).status == 200
    assert exchange(locked, request(headers={**told, "host": "a\r\nhost: b"})).status == 400
    assert exchange(locked, request(line=f"POST http://b{CHAT} HTTP/1.1", headers={**told, "host": "a"})).status == 400


def test_a_target_may_name_the_host_that_is_asked(strict: Server) -> None:
    assert exchange(strict, request(line=f"POST http://localhost{CHAT} HTTP/1.1")).status == 200


def test_a_later_head_is_not_waited_for_longer(strict: Server) -> None:
    with Line(strict, request()) as line:
        first = line.reply()
        line.send(b"G")
        rest = line.rest()

    assert first.status == 200
    assert rest.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_does_not_come_is_not_waited_for(strict: Server) -> None:
    with Line(strict, posted({"content-length": "99"}) + b"{") as line:
        reply = line.reply()

        assert (reply.status, reply.code) == (408, "request_timeout")
        assert line.rest() == b""


def test_a_body_that_drips_is_not_waited_for_however_steadily_it_drips(strict: Server) -> None:
    with Line(strict, posted({"content-length": "999999999"[:6]})) as line:
        line._socket.setblocking(False)
        answered = b""

        def dripped() -> bool:
            nonlocal answered
            with contextlib.suppress(BlockingIOError):
                answered += line._socket.recv(65536)
            with contextlib.suppress(OSError):  # the other end may be closed by now, with its answer still to be read
                line.send(b" ")
            return b"\r\n\r\n" in answered

        eventually(dripped, "an end to the dripping")

    assert answered.startswith(b"HTTP/1.1 408 ")


def test_what_follows_a_refused_body_is_not_waited_for(strict: Server) -> None:
    with Line(strict, posted({"content-length": "1000", "content-type": "text/plain"})) as line:
        reply = line.reply()
        line.send(b"x")
        rest = line.rest()

    assert reply.status == 415
    assert rest == b""


# --- HTTP that no library speaks ---


def split_head(data: bytes) -> tuple[bytes, bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    return head.lower(), body


def test_a_client_of_http_1_0_gets_a_plain_answer(strict: Server) -> None:
    with Line(strict, request(line=f"POST {CHAT} HTTP/1.0")) as line:
        head, body = split_head(line.rest())

    assert b"connection: close" in head
    assert json.loads(body)["object"] == "chat.completion"


def test_requests_one_after_the_other_without_waiting_are_answered_in_order(strict: Server) -> None:
    with Line(strict, b"".join(request(asking(str(i)), {"x-request-id": f"n{i}"}) for i in range(5))) as line:
        replies = [line.reply() for _ in range(5)]

    assert [reply.headers["x-request-id"] for reply in replies] == [f"n{i}" for i in range(5)]
    assert {reply.status for reply in replies} == {200}


def test_a_thousand_requests_without_waiting_are_all_answered(strict: Server) -> None:
    with Line(strict) as line:
        line.send(request(b"", CLOSE | {"connection": "keep-alive"}, line="GET /health HTTP/1.1") * 1000)

        assert {line.reply().status for _ in range(1000)} == {200}


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["with a length", "in chunks"])
def test_an_offer_to_speak_another_protocol_is_passed_over(
    strict: Server, offer: str, in_pieces: bool, in_chunks: bool
) -> None:
    data = json.dumps(asking()).encode()
    headers: Any = {"connection": "Upgrade, HTTP2-Settings", "upgrade": offer, "http2-settings": "AAMAAABk"}
    framing = CHUNKED if in_chunks else {"content-length": str(len(data))}
    head, body = posted({**headers, **framing}), chunked(data[:9], data[9:]) if in_chunks else data
    pieces = [head, body[:5], body[5:]] if in_pieces else [head + body]

    with Line(strict, *pieces, request(headers=CLOSE)) as line:
        replies = [line.reply(), line.reply()]

    assert [reply.status for reply in replies] == [200, 200]


def test_a_body_is_asked_for_where_a_client_waits_to_be_asked(strict: Server) -> None:
    data = json.dumps(asking()).encode()

    with Line(strict, posted({"content-length": str(len(data)), "expect": "100-continue"})) as line:
        line.until(b"100 Continue\r\n\r\n")
        line.got = b""
        line.send(data)

        assert line.reply().status == 200


def test_a_body_is_not_asked_for_where_it_would_be_refused(strict: Server) -> None:
    reply = exchange(strict, posted({"content-length": str(2**22), "expect": "100-continue"}))

    assert reply.status == 413


SMUGGLED = {
    "a length and chunks": posted({"content-length": "5", "transfer-encoding": "chunked"}) + b"0\r\n\r\n",
    "chunks within chunks": posted({**CHUNKED, "transfer-encoding": "chunked, identity"}) + b"0\r\n\r\n",
    "two lengths": request(headers={"Content-Length": "3"}),
    "a negative length": posted({"content-length": "-1"}),
    "a signed length": posted({"content-length": "+1"}),
    "a length in words": posted({"content-length": "one"}),
    "a length beyond all": posted({"content-length": "9" * 40}),
    "a chunk of a bad size": posted(CHUNKED) + b"zz\r\n{}\r\n0\r\n\r\n",
    "a space before the colon": request(headers={"x ": "y"}),
    "a folded header": request(headers={"x": "y\r\n z"}),
    "a null in a header": request(headers={"x": "y\0z"}),
    "a line feed in a header": request(headers={"x": "y\nz"}),
    "no version": b"GET /health\r\n\r\n",
    "a wrong version": b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100f5010000f1030340") + b"\0" * 40,
    "a method of its own": b"FUSE / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bytes beyond ASCII in the address": b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a space in the address": b"GET /a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("sent", SMUGGLED.values(), ids=SMUGGLED)
def test_what_could_be_read_in_two_ways_is_refused_and_the_line_closed(
    strict: Server, upstream: Upstream, sent: bytes
) -> None:
    with Line(strict, sent) as line:
        got = line.rest()

    assert got.startswith(b"HTTP/1.1 4")
    assert got.count(b"HTTP/1.1 ") == 1
    assert upstream.stats()["requests"] == 0


def test_noise_after_a_request_is_not_answered_in_the_middle_of_its_answer(strict: Server) -> None:
    said = request({**asking(stream=True), "model": "fake/a+chunks=100+itl=0.1"})

    with Line(strict, said) as line:
        line.until(b'"content":"f')
        line.send(b"\0\0\0\0 noise \r\n\r\n")
        got = line.rest()

    assert got.count(b"HTTP/1.1 ") == 1


@given(st.binary(max_size=300))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_at_all_are_answered_or_dropped(strict: Server, sent: bytes) -> None:
    with Line(strict, sent + b"\r\n\r\n") as line:
        got = line.rest()

    assert got == b"" or re.match(rb"HTTP/1\.1 (4\d\d|200) ", got)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "CONNECT", "GET"])
def test_other_methods_are_named_as_not_allowed(strict: Server, method: str) -> None:
    with Line(strict, request(b"", CLOSE, line=f"{method} {CHAT} HTTP/1.1")) as line:
        head, body = split_head(line.rest())

    assert b" 405 " in head
    assert b"allow: post" in head
    assert (body == b"") == (method == "HEAD")


def test_a_head_request_gets_the_head_of_the_page(strict: Server) -> None:
    with Line(strict, request(b"", CLOSE, line="HEAD /health HTTP/1.1")) as line:
        head, body = split_head(line.rest())

    assert b" 200 " in head
    assert body == b""


ADDRESSES = [
    "/..", "/../etc/passwd", "/v1/../health", "/%2e%2e/%2e%2e/etc/passwd", "/recipes/..%2f..%2fetc%2fpasswd",
    "/recipes/%00", "/recipes/%ff%fe", "/recipes/recipe.yaml", "/recipes//etc/passwd", "/v1/models/../../etc/passwd",
    "/v1/models/%2Fetc%2Fpasswd", "/v1/models/fusion%00", "//health", "/v1/models/" + "x" * 4000, "*",
    "/%0d%0aset-cookie:%20a=b", "/static/../../x", "/\\..\\x", "/.env", "/v1/chat/completions/", "/%", "/%zz",
]  # fmt: skip


@pytest.mark.parametrize("path", ADDRESSES)
def test_no_address_leads_to_a_file(strict: Server, path: str) -> None:
    with Line(strict, request(b"", CLOSE, line=f"GET {path} HTTP/1.1")) as line:
        head, body = split_head(line.rest())

    assert re.match(rb"http/1\.1 (400|404|405|307) ", head)
    assert b"set-cookie" not in head
    assert b"root:" not in body
    assert b"panel:" not in body


@pytest.mark.parametrize(("target", "status"), [("http://localhost", 200), ("http://evil.example", 400)])
def test_an_address_in_full_is_the_path_in_it_where_it_names_the_same_host(
    strict: Server, target: str, status: int
) -> None:
    assert exchange(strict, request(line=f"POST {target}{CHAT} HTTP/1.1")).status == status


# --- Bodies ---


def beside(text: str) -> bytes:
    """Return a question with this JSON text beside it."""
    return json.dumps({**asking(), "input": "x", "max_tokens": 50})[:-1].encode() + b"," + text.encode() + b"}"


BODIES = {
    "nothing": b"",
    "a null byte": b"\0",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a text": b'"a"',
    "half of it": b'{"messages": [',
    "bytes that are no UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": json.dumps(asking()).encode("utf-16"),
    "a lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}], "input": "\\ud800"}',
    "NaN": beside('"temperature": NaN'),
    "infinity": beside('"temperature": Infinity'),
    "a number beyond all": beside('"temperature": 1e999'),
    "an integer of more than 64 bits": beside('"metadata": {"a": 18446744073709551616}'),
    "an integer of 5,000 digits": beside('"seed": ' + "9" * 5000),
    "too deep": beside('"metadata": ' + "[" * 300 + "]" * 300),
    "far too deep": b'{"a":' + b"[" * 100_000,
    "a form": b"messages=x&model=fusion",
    "two objects": b"{}{}",
    "a comment": b"{} // x",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_good_json_is_refused(strict: Server, upstream: Upstream, path: str, body: bytes) -> None:
    reply = strict.post(path, body)

    assert reply.status_code == 400
    assert reply.json()["error"]["message"]
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP"])
def test_a_body_that_is_compressed_is_refused_in_words(strict: Server, encoding: str) -> None:
    reply = exchange(strict, request(gzip.compress(padded(9)), {"content-encoding": encoding}))

    assert (reply.status, reply.code) == (415, "unsupported_media_type")


def test_of_a_key_that_is_said_twice_the_last_counts(strict: Server) -> None:
    reply = strict.post(CHAT, beside('"model": "nobody/knows"'))

    assert reply.status_code == 404


def asking_anywhere(path: str, **more: Any) -> dict[str, Any]:
    """Return a body that asks at this path."""
    beside = {} if path == "/fuse" else {"input": "x", "max_tokens": 50}
    return {**asking(), **beside, **more}


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/fuse", "/v1/estimate"])
@pytest.mark.parametrize(
    "model",
    ["nobody", "fusion/nobody", "../recipe", "fusion/../recipe", "/etc/passwd", "a\r\nb", "fake\0", "\U0001f600"],
)
def test_an_unknown_model_is_404_with_those_that_are_known(strict: Server, path: str, model: str) -> None:
    reply = strict.post(path, asking_anywhere(path, model=model))

    assert reply.status_code == 404
    assert "there are: " in reply.text
    assert "fusion" in reply.text or "recipe" in reply.text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["user", "text", "function", "fusion", "auto"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from("role content type text name function id image_url source input arguments".split()),  # noqa: SIM905
        inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
NAMES_TEXT = """
model messages input stream stream_options max_tokens max_output_tokens temperature tools tool_choice response_format
stop stop_sequences system instructions fusion plugins reasoning thinking text metadata n modalities functions seed user
params meta id prompt recipe previous_response_id parallel_tool_calls include truncation
"""


@given(path=st.sampled_from(list(PATHS)), said=st.dictionaries(st.sampled_from(NAMES_TEXT.split()), VALUES, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_of_any_type_anywhere_is_more_than_a_bad_request(
    strict: Server, path: str, said: dict[str, Any]
) -> None:
    body = {"messages": asking()["messages"], "input": "x", "max_tokens": 50, **said}

    reply = strict.post(path, body)

    assert reply.status_code in (200, 400, 402, 404, 424), reply.text


# --- What a client may override ---


REACHING = {
    "a command": ({"chain": "route --method command --command id | panel | synth"}, "command"),
    "a command alone": ({"chain": "route --command id | panel | synth"}, "command"),
    "a file": ({"chain": "panel | synth --template /etc/passwd"}, "/etc/passwd"),
    "a file nearby": ({"chain": "panel --template ./recipe.yaml | synth"}, "./recipe.yaml"),
    "a file above": ({"chain": "panel | judge --template ../../x | synth"}, "../../x"),
    "an endpoint": ({"chain": "panel -m fake/a@openai | synth"}, "fake/a@openai"),
    "a strange panel": ({"chain": "panel -m who | synth"}, "who"),
    "a strange judge": ({"chain": "panel | judge -m who | synth"}, "who"),
    "a strange synthesizer": ({"chain": "panel | synth -m who"}, "who"),
    "a strange guard": ({"chain": "panel | synth --guard --guard-model who"}, "who"),
    "a strange router": ({"chain": "route --method model -m who | panel | synth"}, "who"),
    "a strange soloist": ({"chain": "route --fast who | panel | synth"}, "who"),
    "a strange umpire": ({"chain": "panel --scout 2 --agree judge --agree-model who | vote"}, "who"),
    "a strange picker": ({"chain": "panel | pick -m who"}, "who"),
    "a journal": ({"chain": "panel --journal /tmp/x | synth"}, "--journal"),
    "an output": ({"chain": "panel -o x | synth"}, "-o"),
    "a config": ({"chain": "panel -c /etc/passwd | synth"}, "-c"),
    "help": ({"chain": "panel --help | synth"}, "--help"),
    "another tool": ({"chain": "serve | panel | synth"}, "serve"),
    "panel": ({"panel": ["who"]}, "who"), "judge": ({"judge": "who"}, "who"), "synth": ({"synth": "who"}, "who"),
    "panel elsewhere": ({"panel": ["fake/a@openrouter"]}, "fake/a@openrouter"),
    "a URL": ({"base_url": "http://evil"}, "base_url"), "a key": ({"api_key": "x"}, "api_key"),
    "endpoints": ({"endpoints": {}}, "endpoints"), "a recipe file": ({"recipe": "/etc/passwd"}, "recipe"),
    "a recipe above": ({"recipe": "../recipe"}, "recipe"),
}  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/fuse"])
@pytest.mark.parametrize(("fusion", "named"), REACHING.values(), ids=REACHING)
def test_no_override_reaches_beyond_the_menu(
    server: Server, upstream: Upstream, path: str, fusion: dict[str, Any], named: str
) -> None:
    reply = server.post(path, asking_anywhere(path, fusion=fusion))

    assert reply.status_code == 400
    assert named in reply.text
    assert upstream.stats()["requests"] == 0


MANY = {
    "members": {"chain": "panel -m fake/a*9999 | synth"}, "samples": {"chain": "panel --samples 9999 | synth"},
    "a later layer": {"chain": "panel -m fake/a | panel --revise -m fake/b*500 | synth"},
    "layers": {"chain": "panel" + " | panel --revise" * 50 + " | synth"}, "panel": {"panel": ["fake/a*9999"]},
    "as many as make sure": {"chain": "panel -m fake/a --until 0.95 --max-samples 9999 | vote"},
    "panel and samples": {"panel": ["fake/a*9"], "samples": 9},
    "panel and layers": {"panel": ["fake/a*9"], "layers": 8},
}  # fmt: skip


@pytest.mark.parametrize("fusion", MANY.values(), ids=MANY)
def test_no_override_asks_the_panel_more_often_than_the_operator_allows(
    server: Server, upstream: Upstream, fusion: dict[str, Any]
) -> None:
    reply = server.chat(fusion=fusion)

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "too_many_calls")
    assert upstream.stats()["requests"] == 0


#: Found, and not mended here.
OPEN = {
    "judges of a kind that do not go together": "panel | pick -m fake/a -m fake/b",
    "more tokens than any integer holds": "panel --max-tokens 99999999999999999999999 | synth",
}


@pytest.mark.parametrize("chain", OPEN.values(), ids=OPEN)
def test_a_chain_that_cannot_be_is_no_bug(server: Server, upstream: Upstream, chain: str) -> None:
    assert server.chat(fusion={"chain": chain}).status_code == 400


@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_an_option_is_a_number_that_can_be_written(server: Server, upstream: Upstream, number: str) -> None:
    assert server.chat(fusion={"chain": f"panel --temperature {number} | synth"}).status_code == 400


def test_no_chain_polishes_more_often_than_the_operator_allows(server: Server, upstream: Upstream) -> None:
    reply = server.chat(fusion={"chain": "panel | synth" + " | synth --refine" * 100})

    assert reply.status_code == 400
    assert upstream.stats()["requests"] == 0


def test_an_operator_may_forbid_all_overrides_or_name_those_that_hold(serve: Serve, upstream: Upstream) -> None:
    none, some = serve("--overrides", "none"), serve("--overrides", "samples,synth")

    replies = [none.chat(fusion={"samples": 2}), some.chat(fusion={"layers": 2}), some.chat(fusion={"samples": 2})]

    assert [reply.status_code for reply in replies] == [400, 400, 200]
    assert ["fusion.samples" in replies[0].text, "fusion.layers" in replies[1].text] == [True, True]


@pytest.mark.parametrize("name", ["recipe.yaml", "./recipe", "serve.log", "local.yaml"])
def test_a_recipe_that_lies_beside_the_server_is_not_read(server: Server, name: str) -> None:
    replies = [server.chat(model=f"fusion/{name}"), server.chat(fusion={"recipe": name})]

    assert {reply.status_code for reply in replies} <= {400, 404}


# --- A server on its own panel ---


@pytest.mark.parametrize("header", ["x-fusion-depth", "x-openrouter-fusion-depth"])
@pytest.mark.parametrize(
    ("depth", "status"), [("0", 200), ("1", 400), ("7", 400), ("-1", 400), ("x", 400), ("9" * 30, 400), ("", 400)]
)
def test_a_request_that_has_been_through_a_fusion_goes_through_no_other(
    strict: Server, header: str, depth: str, status: int
) -> None:
    assert exchange(strict, request(headers={header: depth})).status == status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(("depth", "requests"), [("1", 2), ("3", 4)])
@pytest.mark.parametrize("model", ["fusion", "fusion/recipe"])
def test_a_server_on_its_own_panel_stops(serve: Serve, model: str, depth: str, requests: int) -> None:
    port = free_port()
    server = serve(
        "--port", str(port), "--max-depth", depth, "--retries", "0",
        recipe=f"panel: [{model}]\njudge: {model}\nsynth: {model}\n",
        env={"FUSION_BASE_URL": f"http://127.0.0.1:{port}/v1"},
    )  # fmt: skip

    reply = server.chat()

    assert reply.status_code in (400, 424, 502)
    assert "does one sit on its own panel?" in reply.text
    assert server.metric("fusion_request_seconds_count", route="chat") == requests


def test_a_member_that_is_asked_alone_is_told_how_deep_it_is(server: Server, upstream: Upstream) -> None:
    server.chat(model="fake/a")
    server.chat()

    assert {r["headers"]["x-fusion-depth"] for r in upstream.requests()} == {"1"}


# --- Signals and workers ---


def refuses(server: Server) -> bool:
    """Return whether nobody listens any more."""
    try:
        Line(server).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("workers", ONE_OR_TWO)
def test_a_server_that_ends_finishes_what_is_under_way_and_takes_nothing_new(
    serve: Serve, upstream: Upstream, workers: str
) -> None:
    server = serve("--workers", workers)
    upstream.script("fake/synth", "chunks=20+itl=0.1")

    with Line(server, request(asking(stream=True), CLOSE)) as line:
        line.until(b"fake/")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(server), "refusing")
        body = line.rest()

    assert b"data: [DONE]" in body
    assert server.process.wait(60) == 0
    assert upstream.stats()["aborted"] == 0


@pytest.mark.parametrize("drain_s", ["0", "0.3"])
def test_what_does_not_end_in_time_is_cut_off(serve: Serve, upstream: Upstream, drain_s: str) -> None:
    server = serve("--drain", drain_s, "--allow-model", "fake/*")

    with Line(server, request({**asking(), "model": "fake/a+hang"})) as line:
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the call")
        server.process.send_signal(signal.SIGTERM)
        reply = line.reply()

    assert reply.status == 503
    assert server.process.wait(60) == 0
    eventually(lambda: upstream.stats()["aborted"] == 1, "the call's end")


@pytest.mark.parametrize("workers", ONE_OR_TWO)
def test_an_interrupted_server_leaves_at_once(serve: Serve, upstream: Upstream, workers: str) -> None:
    server = serve("--drain", "1000", "--workers", workers, "--allow-model", "fake/*")

    with Line(server, request({**asking(stream=True), "model": "fake/a+hang"})):
        eventually(lambda: upstream.stats()["in_flight"] == 1, "the call")
        server.process.send_signal(signal.SIGINT)

        assert server.process.wait(60) == 130
    eventually(lambda: upstream.stats()["aborted"] == 1, "the call's end")
    assert "Traceback" not in server.said()


@pytest.mark.slow
def test_counts_of_all_workers_are_one_count(serve: Serve, upstream: Upstream) -> None:
    server = serve("--workers", "2")

    statuses = [server.chat(str(i)).status_code for i in range(12)]

    assert statuses == [200] * 12
    assert server.metric("fusion_requests_total", route="chat", outcome="ok") == 12
    assert server.metric("fusion_upstream_calls_total", stage="panel", outcome="ok") == 36
