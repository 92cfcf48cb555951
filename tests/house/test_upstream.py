"""The stand-in itself: what other tests take for granted about it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import fake_models
import pytest
from samples import poll
from workdir import SUPPORT, Run, Upstream, start_upstream

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
UPSTREAM = str(SUPPORT / "upstream.py")


@pytest.fixture(scope="module")
def upstream_process() -> Iterator[Upstream]:
    """A stand-in of its own: connections are counted here, and those of other tests would count too."""
    with start_upstream("--record") as upstream:
        yield upstream


def connect(upstream: Upstream) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", int(upstream.url.split(":")[2].split("/")[0]), timeout=60)


def send(upstream: Upstream, *models: str) -> socket.socket:
    """Send requests in one go, without reading; the last one asks the server to close."""
    body = [json.dumps({"model": model, "messages": QUESTION}) for model in models]
    head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n"
    more = [""] * (len(models) - 1) + ["Connection: close\r\n"]
    connection = connect(upstream)
    connection.connect()
    connection.sock.sendall("".join(head.format(len(b), m) + b for b, m in zip(body, more, strict=True)).encode())
    return connection.sock


def ask(upstream: Upstream, model: str, **params: Any) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = connect(upstream)
    body = json.dumps({"model": model, "messages": QUESTION, **params})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    try:
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def message(upstream: Upstream, model: str, **params: Any) -> dict[str, Any]:
    status, _, body = ask(upstream, model, **params)
    assert status == 200, body
    return json.loads(body)["choices"][0]["message"]


def events(body: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [None if line == b"[DONE]" else json.loads(line) for line in lines]


def streamed_text(body: bytes) -> str:
    return "".join(c["delta"].get("content", "") for e in events(body) if e for c in e["choices"])


def test_the_same_question_gets_the_same_bytes(upstream: Upstream) -> None:
    first, again, other = (ask(upstream, model)[2] for model in ("fake/a", "fake/a", "fake/b"))

    assert first == again
    assert json.loads(first)["choices"][0]["message"]["content"].startswith("fake/a says ")
    assert first != other
    assert first != ask(upstream, "fake/a", seed=1)[2]


def test_a_behaviour_changes_nothing_but_what_it_names(upstream: Upstream) -> None:
    assert message(upstream, "fake/a+slow=0.01+drip=0+nousage") == message(upstream, "fake/a")


def test_a_stream_says_what_the_plain_answer_says(upstream: Upstream) -> None:
    _, headers, body = ask(upstream, "fake/a", stream=True, stream_options={"include_usage": True})

    assert headers["content-type"] == "text/event-stream"
    assert streamed_text(body) == message(upstream, "fake/a")["content"]
    *_, finish, usage, done = events(body)
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"] == json.loads(ask(upstream, "fake/a")[2])["usage"]
    assert done is None


def test_a_stream_has_the_number_of_tokens_asked_for(upstream: Upstream) -> None:
    chunks = events(ask(upstream, "fake/a+chunks=7+itl=0.001+nodone", stream=True)[2])

    assert len(chunks) == 1 + 7 + 1


def test_an_error_with_a_count_ends_after_it(upstream: Upstream) -> None:
    statuses = [ask(upstream, "fake/a+status=503,2")[0] for _ in range(3)]

    assert statuses == [503, 503, 200]


def test_an_error_comes_in_the_envelope_of_openai(upstream: Upstream) -> None:
    status, _, body = ask(upstream, "fake/a+status=500")

    assert status == 500
    assert json.loads(body)["error"]["message"] == "upstream says 500 for fake/a+status=500"


def test_retry_after_is_said_once(upstream: Upstream) -> None:
    first, second = (ask(upstream, "fake/a+retryafter=3") for _ in range(2))

    assert (first[0], first[1]["retry-after"], second[0]) == (429, "3", 200)


def test_a_script_is_played_in_order(upstream: Upstream) -> None:
    upstream.script("fake/a", "status=500", "text=hi")

    answers = [ask(upstream, "fake/a") for _ in range(3)]

    assert [a[0] for a in answers] == [500, 200, 200]
    assert json.loads(answers[1][2])["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("name", sorted(fake_models.BEHAVIOURS))
def test_every_behaviour_can_be_built_in_both_forms(name: str) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    for stream in (False, True):
        argument = "bom" if name == "odd" else "1"
        request = {"model": f"fake/a+{name}={argument}", "messages": QUESTION, "stream": stream, "tools": tools}

        answer = fake_models.answer(request)

        assert answer.status != 404
        assert b"".join(piece for _, piece in fake_models.body(answer))


@pytest.mark.parametrize(
    ("model", "params", "param"),
    [
        ("fake/a+slwo=1", {}, "model"),
        ("fake/a+slow=x", {}, "model"),
        ("fake/a", {"stream_options": {"include_usage": True}}, "stream_options"),
        ("fake/a", {"messages": []}, "messages"),
        ("fake/a+notemp", {"temperature": 0}, "temperature"),
        ("fake/a+maxcompletion", {"max_tokens": 5}, "max_tokens"),
        ("fake/a+noformat", {"response_format": {"type": "json_object"}}, "response_format"),
        ("fake/a+noschema", {"response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_what_a_real_endpoint_refuses_is_refused(upstream: Upstream, model: str, params: Any, param: str) -> None:
    status, _, body = ask(upstream, model, **params)

    assert status in (400, 404)
    assert json.loads(body)["error"]["param"] == param


def test_a_judge_ranks_the_labels_of_the_prompt(upstream: Upstream) -> None:
    fences = "<<<RESPONSE B 9f>>>\nx\n<<<RESPONSE A 9f>>>\ny\n<<<RESPONSE C 9f>>>\nz"

    verdict = json.loads(message(upstream, "fake/judge", messages=[{"role": "user", "content": fences}])["content"])

    assert verdict["ranking"] == ["A", "B", "C"]
    assert {stance["model"] for stance in verdict["contradictions"][0]["stances"]} == {"A", "B", "C"}


def test_a_tool_is_called_once_and_then_the_text_follows(upstream: Upstream) -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    tools = [{"type": "function", "function": {"name": "look", "parameters": schema}}]

    asked = message(upstream, "fake/a+tool", tools=tools)
    history = [*QUESTION, asked, {"role": "tool", "tool_call_id": asked["tool_calls"][0]["id"], "content": "Paris"}]

    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == {"q": QUESTION[0]["content"]}
    assert message(upstream, "fake/a+tool", tools=tools, messages=history)["content"]


def test_max_tokens_cuts_the_text(upstream: Upstream) -> None:
    choice = json.loads(ask(upstream, "fake/a", max_tokens=2)[2])["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("fake/a s", "length")


def test_pipelined_requests_are_answered_in_order(upstream: Upstream) -> None:
    with send(upstream, "fake/a+slow=0.01+text=one", "fake/a+text=two", "fake/a+drip=0.0001+text=three") as client:
        answers = client.makefile("rb").read()

    assert re.findall(rb'"content":"(\w+)"', answers) == [b"one", b"two", b"three"]


def test_a_client_that_goes_away_is_counted(upstream: Upstream) -> None:
    poll(upstream, lambda stats: stats["connections_open"] == 0)
    with send(upstream, "fake/a+hang"):
        during = poll(upstream, lambda stats: stats["in_flight"] == 1)

    after = poll(upstream, lambda stats: stats["in_flight"] == 0)
    assert (during["aborted"], during["connections_open"]) == (0, 1)
    assert (after["aborted"], after["connections_open"]) == (1, 0)


def test_a_client_that_stops_reading_a_long_answer_is_counted(upstream: Upstream) -> None:
    with send(upstream, "fake/a+big=50000000") as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        assert upstream.stats()["in_flight"] == 1

    assert poll(upstream, lambda stats: stats["in_flight"] == 0)["aborted"] == 1


def test_a_broken_answer_is_shorter_than_it_promised(upstream: Upstream) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(upstream, "fake/a+closehalf")
    with pytest.raises(http.client.RemoteDisconnected):
        ask(upstream, "fake/a+closeearly")
    with pytest.raises(http.client.IncompleteRead):
        ask(upstream, "fake/a+closehalf", stream=True)

    assert upstream.stats()["aborted"] == 0


def test_requests_are_recorded_with_their_headers(upstream: Upstream) -> None:
    ask(upstream, "fake/a", temperature=0)

    (request,) = upstream.requests()
    assert request["body"] == {"model": "fake/a", "messages": QUESTION, "temperature": 0}
    assert request["headers"]["content-type"] == "application/json"


def test_the_key_is_asked_for(upstream: Upstream) -> None:
    with start_upstream("--key", "secret") as locked:
        status, _, body = ask(locked, "fake/a")

    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("end", ["stdin", "sigterm"])
def test_it_ends_with_its_parent(end: str) -> None:
    with (
        subprocess.Popen([sys.executable, UPSTREAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        send(Upstream(process.stdout.readline().decode().strip()), "fake/a+hang"),
    ):
        if end == "stdin":
            process.stdin.close()
        else:
            process.terminate()

        assert process.wait(60) == 0


def test_a_pipeline_runs_hermetically(run: Run, upstream: Upstream) -> None:
    shell = """printf '{"url": "%s", "in": "%s"}\\n' "$FUSION_BASE_URL" "$(cat)" | cat; exit 3 | true"""

    result = run(shell, "héllo", pipefail=True)

    assert (result.status, result.err) == (3, "")
    assert result.records == [{"url": upstream.url, "in": "héllo"}]
