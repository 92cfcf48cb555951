"""An endpoint may repeat our key however it likes: nobody above the transport sees it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import MESSAGES

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest, Delta
from fusiontools.llm.http import HttpBackend
from fusiontools.llm.key_mask import BodyMask, KeyMask

KEY = 'sk-or/v1+0123"4567=89abcdef'
KEYS = st.text(st.sampled_from('abcXYZ019-_/+=."\\ '), min_size=8, max_size=40).filter(lambda key: key.strip() == key)


def all_escaped(key: str, form: str) -> str:
    return "".join(form % ord(char) for char in key)


SPELLINGS: list[Callable[[str], str]] = [
    lambda key: key,
    lambda key: json.dumps(key)[1:-1],
    lambda key: json.dumps(json.dumps(key))[3:-3],
    lambda key: key.replace("/", "\\/"),
    lambda key: all_escaped(key, "\\u%04x"),
    lambda key: all_escaped(key, "\\u%04X"),
    lambda key: all_escaped(key, "%%%02x"),
    lambda key: quote(key),
    lambda key: quote(quote(key, safe=""), safe=""),
]
#: What stands before the key where all of it is encoded.
ENCODED = [
    lambda key, before: base64.b64encode(f"{before}{key}{before}".encode()).decode(),
    lambda key, before: base64.urlsafe_b64encode(f"{before}{key}".encode()).decode(),
]


def core(key: str, before: str) -> str:
    """Return the letters of an encoded key that nothing else has a part in."""
    whole, at = base64.b64encode(f"{before}{key}".encode()), len(before)
    return whole[-(-at * 8 // 6) : (at + len(key)) * 8 // 6].decode()


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def read_in_pieces(mask: KeyMask, pieces: list[bytes]) -> bytes:
    masked = BodyMask(mask)
    return b"".join([*(masked.take(piece) for piece in pieces), masked.finish()])


@given(KEYS, st.sampled_from(SPELLINGS), st.lists(st.integers(0, 10**6), max_size=6))
def test_a_key_is_masked_however_it_is_spelled_and_wherever_it_is_cut(
    key: str, spell: Callable[[str], str], cuts: list[int]
) -> None:
    data = f'{{"error": "no such key: {spell(key)}, {spell(key)}."}}'.encode()

    assert read_in_pieces(KeyMask(key), in_pieces(data, cuts)) == b'{"error": "no such key: ***, ***."}'


@given(KEYS, st.sampled_from(ENCODED), st.text("ab:", max_size=5), st.lists(st.integers(0, 10**6), max_size=6))
def test_a_key_in_base64_is_masked_whatever_stands_around_it(
    key: str, encode: Callable[[str, str], str], before: str, cuts: list[int]
) -> None:
    data = f'{{"authorization": "Basic {encode(key, before)}"}}'.encode()

    masked = read_in_pieces(KeyMask(key), in_pieces(data, cuts)).decode()

    assert "***" in masked
    assert core(key, before) not in masked.replace("-", "+").replace("_", "/")


@given(st.binary(max_size=200), st.lists(st.integers(0, 10**6), max_size=6))
def test_what_holds_no_key_comes_as_it_is(data: bytes, cuts: list[int]) -> None:
    assert read_in_pieces(KeyMask("a-key-that-is-not-in-it"), in_pieces(data, cuts)) == data


def test_a_placeholder_is_no_secret() -> None:
    assert KeyMask("none").hide(b"none of it") == b"none of it"


def test_the_key_stands_in_no_repr() -> None:
    assert KEY not in repr(KeyMask(KEY))


# --- Through the transport ---


def call(
    reply: httpx.Response | Exception, monkeypatch: pytest.MonkeyPatch, on_delta: Any = None, key: str = KEY
) -> Any:
    """Return what one call over this transport comes to, with our key in its head."""
    monkeypatch.setenv("THEIR_KEY", key)

    def answer(request: httpx.Request) -> httpx.Response:
        assert key in request.headers["authorization"]
        if isinstance(reply, Exception):
            raise reply
        return reply

    backend = HttpBackend(Endpoint("there", "https://there.example/v1", "THEIR_KEY"), httpx.MockTransport(answer))

    async def work() -> Any:
        [outcome] = await asyncio.gather(
            backend.complete(CompletionRequest("there", "m", MESSAGES), on_delta), return_exceptions=True
        )
        return outcome

    return asyncio.run(work())


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(401, json={"error": {"message": f"bad key {KEY}"}}),
        httpx.Response(500, text=f"<h1>Bearer {KEY}</h1>"),
        httpx.Response(302, headers={"location": f"https://h/?key={quote(KEY)}"}),
        httpx.Response(200, text=f"no JSON: {KEY}"),
        httpx.Response(200, json={"error": {"message": KEY, "code": 500}}),
        httpx.Response(200, json=[[KEY]]),
        httpx.Response(200, json={"choices": [{"message": {"refusal": KEY}, "finish_reason": "stop"}]}),
        httpx.Response(200, text=f'data: {{"error": {{"message": {json.dumps(KEY)}}}}}\n\n'),
        httpx.ConnectError(f"proxy said {KEY}"),
        httpx.LocalProtocolError(f"Illegal header value 'Bearer {KEY}'"),
    ],
)
def test_no_failure_says_the_key(reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = call(reply, monkeypatch)

    assert isinstance(failed, CallFailed)
    assert "0123" not in failed.message + repr(failed) + str(failed)


def test_no_answer_says_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"key": KEY})}}
    message = {"content": f"It is {KEY}.", "reasoning_content": KEY, "tool_calls": [tool]}

    done = call(httpx.Response(200, json={"choices": [{"message": message, "finish_reason": "stop"}]}), monkeypatch)

    assert isinstance(done, Completion)
    assert "0123" not in repr(done)
    assert done.content == "It is ***."


@given(cuts=st.lists(st.integers(0, 10**6), max_size=8))
def test_no_stream_shows_the_key_that_a_model_writes_piece_by_piece(cuts: list[int]) -> None:
    said = f"It is {KEY}, the key {KEY[:5]} and again {KEY}"
    pieces = [piece.decode() for piece in in_pieces(said.encode(), cuts)]
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    shown: list[Delta] = []

    with pytest.MonkeyPatch.context() as patch:
        done = call(httpx.Response(200, text=body), patch, shown.append)

    assert done.content == f"It is ***, the key {KEY[:5]} and again ***"
    assert "".join(str(piece) for piece in shown) == done.content


@given(cuts=st.lists(st.integers(0, 10**6), max_size=8))
def test_no_stream_shows_the_key_in_the_arguments_of_a_call(cuts: list[int]) -> None:
    key = "sk-0123456789abcdef"
    said = json.dumps({"command": f"curl -H {key}"})
    pieces: list[dict[str, Any]] = [{"index": 0, "id": "1", "function": {"name": "run", "arguments": ""}}]
    pieces += [{"index": 0, "function": {"arguments": piece.decode()}} for piece in in_pieces(said.encode(), cuts)]
    events = [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces]
    events.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    shown: list[Delta] = []

    with pytest.MonkeyPatch.context() as patch:
        done = call(httpx.Response(200, text=body), patch, shown.append, key)

    arguments = "".join(
        piece.get("function", {}).get("arguments", "")
        for delta in shown
        if not isinstance(delta, str)
        for piece in delta
    )
    assert arguments == done.tool_calls[0]["function"]["arguments"] == json.dumps({"command": "curl -H ***"})
