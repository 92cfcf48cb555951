"""How the pieces of an answer go out: in order, together where they come together, no faster than they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from fusiontools.llm.ledger import Spending
from fusiontools.server.jobs import Job
from fusiontools.server.protocols.exchange import ChatResult
from fusiontools.server.request import Peer, RequestLog
from fusiontools.server.streaming import Stream


class Socket(asyncio.Transport):
    """Where everything is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(data)


class PlainWriter:
    """Says texts as they are; one of them it cannot say."""

    def open(self) -> bytes:
        return b"("

    def text(self, text: str) -> bytes:
        if text == "bug":
            raise ZeroDivisionError
        return text.encode()

    def close(self, result: ChatResult) -> bytes:
        return b")"

    def broken(self, refused: Any, result: ChatResult | None) -> bytes:
        return f"!{refused.code}".encode()


async def say(play: Callable[[Job, FlowControl], Awaitable[None]]) -> tuple[list[bytes], RequestLog]:
    """Return what goes out of a stream that has begun, chunk by chunk, and how it ended.

    Args:
        play: says the pieces.
    """
    socket, log = Socket(), RequestLog("1", 0.0)
    flow = FlowControl(socket)

    async def send(message: Any) -> None:
        if flow.write_paused:
            await flow.drain()
        if body := message.get("body"):
            socket.write(body)

    async def work(job: Job) -> Any:
        job.say("a")
        await passes()
        await play(job, flow)

    job = Job(work)
    result = lambda _: ChatResult("".join(map(str, job.pieces)), [], "stop", Spending())  # noqa: E731
    writer: Any = PlainWriter()
    await asyncio.wait_for(Stream(send, writer, result).follow(job, Peer(socket, flow), None, log), 10)
    return socket.written, log


async def passes() -> None:
    """Let everything happen that is about to."""
    for _ in range(9):
        await asyncio.sleep(0)


def test_what_is_said_at_once_goes_out_in_one_chunk_and_what_comes_later_in_another() -> None:
    async def play(job: Job, flow: FlowControl) -> None:
        job.say("b")
        job.say("c")
        await passes()
        job.say("d")
        await passes()

    written, log = asyncio.run(say(play))

    assert written == [b"(a", b"2\r\nbc\r\n", b"1\r\nd\r\n", b")"]
    assert log.outcome == "ok"


def test_nothing_is_written_while_the_client_does_not_read_and_all_of_it_when_it_does() -> None:
    async def play(job: Job, flow: FlowControl) -> None:
        flow.pause_writing()
        for text in ("b", "c"):
            job.say(text)
            await passes()
        job.say("d")
        flow.resume_writing()
        await passes()
        job.say("e")

    written, log = asyncio.run(say(play))

    assert written == [b"(a", b"b", b"cd", b"1\r\ne\r\n", b")"]
    assert log.outcome == "ok"


def test_a_piece_that_cannot_be_written_ends_the_stream_and_not_the_work() -> None:
    ended = []

    async def play(job: Job, flow: FlowControl) -> None:
        job.say("b")
        job.say("bug")
        ended.append(job.task.cancelling())

    written, log = asyncio.run(say(play))

    assert written == [b"(a", b"!internal_error"]
    assert (log.outcome, ended) == ("internal_error", [0])
