"""A streamed answer on its way out over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.llm.completion import Thoughts
from fusiontools.record.types import ToolCall
from fusiontools.server.jobs import Job, Note, Piece, Subscriber
from fusiontools.server.protocols.exchange import ApiError, ChatResult, StreamWriter
from fusiontools.server.request import Peer, RequestLog, Send, encode_headers, report_bug

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class StartedToolCall(Struct):
    """A tool call as far as it has been said."""

    id: str
    name: str = ""
    arguments: str = ""


class Stream(Struct):
    """One stream on its way out.

    It begins with the first piece, with the first sign that a model has answered, or when the client should hear that
    it is alive; what fails before is an error with a status of its own.

    Args:
        settle: makes what is said in the end; raises `ApiError` where there is no answer.
        events: whether the client asked for richer events.
        drafts: whether the first member's draft is shown.
        first: called when the first piece of the answer goes out.
    """

    send: Send
    writer: StreamWriter
    settle: Callable[[Any], ChatResult]
    events: bool = False
    drafts: bool = False
    first: Callable[[], None] | None = None
    #: Whether a failure before anything was said is said in the stream too.
    in_band: bool = False
    begun: bool = False
    #: How the stream begins; made before all else that is said, for events are numbered in the order they are made.
    _opening: bytes | None = None
    _thought: bool = False
    _drafter: str = ""
    _text: list[str] = []
    _calls: dict[int, StartedToolCall] = {}

    async def run(self, job: Job, peer: Peer, keepalive_s: float | None) -> str:
        """Say the job to its end; returns `ok`, `gone` or `broken`.

        Raises:
            ApiError: it failed before anything was said.
        """

        def write(pieces: Sequence[Piece]) -> bool:
            if not self.begun or peer.is_slow:
                return False
            if data := b"".join(map(self._write, pieces)):
                peer.write_chunk(data)
            return True

        with Subscriber(job, peer, keepalive_s, write) as subscriber:
            while not (subscriber.gone or subscriber.finished):
                data = b"".join([self._write(piece) for piece in await subscriber.more()])
                if not data and subscriber.silent:
                    self._open()
                    data = self.writer.alive()
                if data and not subscriber.gone:
                    await self._put(data)
            if subscriber.gone:
                return "gone"
        return await self._end(job)

    async def follow(self, job: Job, peer: Peer, keepalive_s: float | None, log: RequestLog) -> None:
        """Say the job to its end, also where it fails or the server ends; the log says how it went.

        Raises:
            ApiError: as `run`, unless it is said in the stream.
        """
        try:
            log.outcome = await self.run(job, peer, keepalive_s)
        except asyncio.CancelledError:
            log.outcome = "server_overloaded"
            if self.begun:
                await self.fail(ApiError(503, "server_overloaded", "the server is going down"))
            raise
        except ApiError as refused:
            if not self.in_band or refused.status == 503:
                raise
            log.outcome = refused.code
            await self.fail(refused)
        except Exception as error:
            if not self.begun:
                raise
            report_bug(log.id, error)
            log.outcome = "internal_error"
            await self.fail(ApiError(500, "internal_error", f"a bug in fusiontools; the operator finds it as {log.id}"))

    def say_all(self, job: Job) -> tuple[bytes, ApiError | None]:
        """Return all that is said of a job that has ended, from the beginning, and why it has failed, if it has."""
        data = [self._open(), *(self._write(piece) for piece in job.pieces)]
        result: ChatResult | None = None
        try:
            result = self.settle(job.task.result())
            data.append(self._rest(result) + self.writer.close(result))
        except ApiError as refused:
            return b"".join([*data, self.writer.broken(refused, result)]), refused
        return b"".join(data), None

    async def go_on(self) -> None:
        """Begin in a response that has begun."""
        self.begun = True
        await self._put(self._open())

    async def fail(self, refused: ApiError) -> None:
        """Say in band that there is no answer."""
        self._open()
        await self._put(self.writer.broken(refused, None), more=False)

    async def _end(self, job: Job) -> str:
        """Say the rest of the answer and how it ended."""
        if job.task.cancelled():
            raise ApiError(503, "server_overloaded", "the server is going down")
        result: ChatResult | None = None
        self._open()
        try:
            result = self.settle(job.task.result())
            data = self._rest(result) + self.writer.close(result)
            outcome = "ok"
        except ApiError as refused:
            if not self.begun:
                raise
            data, outcome = self.writer.broken(refused, result), "broken"
        await self._put(data, more=False)
        return outcome

    def _rest(self, result: ChatResult) -> bytes:
        """Return what of the answer has not been said yet.

        Raises:
            ApiError: what has been said is not its beginning, because who wrote it broke off and another stands in.
        """
        sent = "".join(self._text)
        calls = _left_of(result.tool_calls, self._calls)
        if calls is None or not result.content.startswith(sent):
            raise ApiError(424, "broken_off", "the model broke off in the middle of its answer; another response stands in `fusion.answer`")  # fmt: skip  # noqa: E501
        rest = result.content[len(sent) :]
        thought = b""
        if result.reasoning_details and not (sent or self._calls or self._thought):
            thought = self._write(Thoughts(result.reasoning_details))
        return thought + (self._write(rest) if rest else b"") + (self._write(calls) if calls else b"")

    def _open(self) -> bytes:
        if self._opening is None:
            self._opening = self.writer.open()
        return self._opening

    def _write(self, piece: Piece) -> bytes:
        if self._opening is None:
            self._open()
        if isinstance(piece, str):
            if self.first is not None:
                self._note_first()
            self._text.append(piece)
            return self.writer.text(piece)
        if isinstance(piece, Note):
            data = self.writer.progress(piece.words) if piece.words else self._draft(piece.event)
            return data + (self.writer.event(piece.event) if self.events else b"")
        self._note_first()
        if isinstance(piece, Thoughts):
            self._thought = True
            return self.writer.thoughts(piece.details)
        for delta in piece:
            begun = self._calls.setdefault(delta["index"], StartedToolCall(delta.get("id", "")))
            begun.name += delta["function"].get("name", "")
            begun.arguments += delta["function"].get("arguments", "")
        return self.writer.calls(piece)

    def _note_first(self) -> None:
        if self.first is not None:
            self.first()
            self.first = None

    def _draft(self, event: Mapping[str, Any]) -> bytes:
        """Return what of the draft is said that is shown as thoughts: that of the member who begins first."""
        if not self.drafts or event["type"] not in ("text", "text.reset") or event["layer"] != 1:
            return b""
        self._drafter = self._drafter or event["model"]
        if event["model"] != self._drafter:
            return b""
        return self.writer.draft(event.get("text", "\n\n"))

    async def _put(self, data: bytes, *, more: bool = True) -> None:
        if not self.begun:
            self.begun = True
            headers = encode_headers(STREAM_HEADERS)
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            data = self._open() + data
        await self.send({"type": "http.response.body", "body": data, "more_body": more})


def _left_of(calls: Sequence[ToolCall], begun: Mapping[int, StartedToolCall]) -> list[dict[str, Any]] | None:
    """Return the pieces of calls that have not been said; None where what has been said begins others."""
    if not begun:
        return [{"index": index, **call} for index, call in enumerate(calls)]
    sent = [(index, begun[index]) for index in sorted(begun)]
    if [(call["id"], call["function"]["name"]) for call in calls] != [(call.id, call.name) for _, call in sent]:
        return None
    left = []
    for (index, started), call in zip(sent, calls, strict=True):
        whole = call["function"]["arguments"]
        if not whole.startswith(started.arguments):
            return None
        if whole != started.arguments:
            left.append({"index": index, "function": {"arguments": whole[len(started.arguments) :]}})
    return left
