"""Server-sent events: where a blank line stands, and somebody else's events handed on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.llm.ledger import Spending
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, ResponseMeta, StreamStyle
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.protocols.sse import EventBuffer

PROTOCOLS = {"chat": Chat(), "messages": Messages(), "responses": Responses()}
COMMENT = b": PROCESSING\n\n"


def handed_on(*chunks: bytes) -> bytes:
    buffer = EventBuffer(lambda _: True)
    return b"".join(buffer.take(chunk) for chunk in chunks) + buffer.last()


def blocks(stream: bytes) -> list[list[bytes]]:
    """Return the lines before each blank one."""
    return [block.split(b"\n") for block in stream.removesuffix(b"\n\n").split(b"\n\n")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("ends", ["whole", "broken"])
def test_every_blank_line_ends_an_event_with_data(protocol: str, ends: str) -> None:
    request = ChatRequest("fusion", [{"role": "user", "content": "Why?"}])
    writer: Any = PROTOCOLS[protocol].writer(request, ResponseMeta("0" * 32, 1, "fusion"), StreamStyle())
    result = ChatResult("Yes.", [], "stop", Spending())

    stream = writer.open() + writer.progress("panel 1/3") + writer.alive() + writer.event({"type": "call.began"})
    stream += writer.text("Ye") + writer.alive() + writer.text("s.") + writer.progress("guard")
    stream += writer.close(result) if ends == "whole" else writer.broken(ApiError(424, "broken_off", "no"), result)

    assert b": alive" in stream
    for lines in blocks(stream):
        assert any(line.startswith(b"data: ") for line in lines), lines


@pytest.mark.parametrize(
    "stream",
    [
        COMMENT + b"data: 1\n\n",
        b"data: 1\n\n" + COMMENT + COMMENT + b"data: 2\n\n",
        b'data: {"usage":{}}\n\n' + COMMENT + b"data: 2\n\n",
        b": PROCESSING\r\n\r\ndata: 1\r\n\r\n",
        b": PROCESSING\r\rdata: 1\r\r",
    ],
)
def test_comments_of_an_endpoint_lose_the_blank_line_behind_them(stream: bytes) -> None:
    passed = handed_on(stream)

    for block in passed.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n\n").split(b"\n\n"):
        assert b"data: " in block
    assert passed.count(b": PROCESSING") == stream.count(b": PROCESSING")


def test_a_comment_that_stands_in_an_event_stays_there() -> None:
    assert handed_on(b": 1\ndata: 1\n\n") == b": 1\ndata: 1\n\n"


@given(
    st.lists(st.sampled_from([b"data: 1\n\n", b'data: {"usage":1}\n\n', b"event: a\ndata: :\n\n"])), st.integers(1, 9)
)
def test_events_are_handed_on_as_they_came_however_they_are_cut(events: list[bytes], size: int) -> None:
    stream = b"".join(events)

    assert handed_on(*(stream[at : at + size] for at in range(0, len(stream), size))) == stream


def test_what_is_cut_off_is_not_handed_on() -> None:
    buffer = EventBuffer(lambda _: True)

    assert buffer.take(b"data: 1\n\ndata: {") == b"data: 1\n\n"
