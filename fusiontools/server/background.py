"""Responses that are made whoever listens, and their streams, which may be read again from any event on.

The request that began one stays until the response is made: so a drain waits for it, and its line in the log has what
it cost.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.record.types import Record
from fusiontools.server.jobs import Exchange, Hold
from fusiontools.server.protocols.exchange import ApiError, ChatResult, StreamWriter
from fusiontools.server.protocols.responses_reply import ResponsesWriter, fail_response, start_response, whole
from fusiontools.server.request import Peer, Send, encode_headers, keepalive_of, send_json
from fusiontools.server.result import answer_to, cost_of, error_of
from fusiontools.server.streaming import STREAM_HEADERS, Stream

if TYPE_CHECKING:
    from fusiontools.server.state import Server

_NUMBER = re.compile(rb'"sequence_number":(\d+)\}\Z')


class BackgroundResponse(Struct, frozen=True):
    """A response that is being made.

    Args:
        begun: what is shown of it meanwhile.
        cached: whether it was paid for before.
    """

    exchange: Exchange
    server: Server
    begun: dict[str, Any]
    cached: bool

    def settle(self, record: Record) -> ChatResult:
        """Return a record's answer as it is to be said."""
        exchange = self.exchange
        return answer_to(exchange.request, record, exchange.plan, self.server.options.usage, cached=self.cached)

    def stream(self, send: Send, after: int = -1) -> Stream:
        """Return what says it to a client, but for the events up to number `after`; it is kept elsewhere."""
        request = replace(self.exchange.request, keep=None)
        writer: StreamWriter = ResponsesWriter(request, self.exchange.meta, self.server.style)
        return self._stream(send, writer if after < 0 else _ResumedWriter(writer, after))

    def end(self, task: asyncio.Task[Record]) -> None:
        """Keep what has come of it; one that was forgotten meanwhile is not kept."""
        exchange, responses = self.exchange, self.server.responses
        key = (exchange.log.caller, str(self.begun["id"]))
        keep = exchange.request.keep
        if responses.running.pop(key, None) is None or keep is None:
            return
        if task.cancelled():
            keep({**self.begun, "status": "cancelled"})
            return
        try:
            if (failed := task.exception()) is not None:
                bug = ApiError(500, "internal_error", "a bug in fusiontools")
                raise failed if isinstance(failed, ApiError) else bug
            if not exchange.request.stream:
                whole(exchange.request, exchange.meta, self.settle(task.result()))  # which is kept
                return
            writer = ResponsesWriter(exchange.request, exchange.meta, self.server.style)
            said, refused = self._stream(_send_nothing, writer).say_all(exchange.job)
            responses.keep_stream(*key, said)
            if refused is not None:
                raise refused
        except ApiError as refused:
            keep(fail_response(self.begun, [], refused, None))

    def note(self) -> None:
        """Note in the log how it ended and what it cost."""
        log, task = self.exchange.log, self.exchange.job.task
        if task.cancelled():
            log.outcome = "cancelled"
            return
        if (failed := task.exception()) is not None:
            log.outcome = failed.code if isinstance(failed, ApiError) else "internal_error"
            return
        record: Any = task.result()
        log.outcome = "ok" if "answer" in record else error_of(record).code
        log.cost_usd = 0.0 if self.cached else cost_of(record.get("calls", []))

    def _stream(self, send: Send, writer: StreamWriter) -> Stream:
        events = bool(self.exchange.plan.fusion.get("events"))
        drafts = self.server.options.progress == "draft"
        return Stream(send, writer, self.settle, events, drafts, in_band=True)


async def make_in_background(exchange: Exchange, server: Server, peer: Peer, send: Send) -> None:
    """Say that a response is under way, or say it, and stay until it is made, whoever still listens."""
    begun = start_response(exchange.request, exchange.meta)
    made = BackgroundResponse(exchange, server, begun, exchange.job.paid)
    exchange.job.paid = True
    server.responses.running[exchange.log.caller, str(begun["id"])] = made
    exchange.job.task.add_done_callback(made.end)
    with Hold(exchange.job):
        if exchange.request.stream:
            await made.stream(send).follow(exchange.job, peer, keepalive_of(server.options), exchange.log)
        else:
            await send_json(send, 200, begun, {})
        try:
            await asyncio.wait([exchange.job.task])
        except asyncio.CancelledError:
            exchange.log.outcome = "server_overloaded"  # the server ends, and its patience has
            raise
    made.note()


async def send_stream(send: Send, said: bytes, after: int) -> None:
    """Send a stream that was kept, but for the events up to number `after`."""
    await send({"type": "http.response.start", "status": 200, "headers": encode_headers(STREAM_HEADERS)})
    await send({"type": "http.response.body", "body": _skip_events(said, after)})


async def _send_nothing(_: Any) -> None:
    return


def _skip_events(data: bytes, last: int) -> bytes:
    """Return the events of a stream whose number is higher than this, and what has none."""
    *events, rest = data.split(b"\n\n")
    numbered = [(event, _NUMBER.search(event)) for event in events]
    return b"".join(event + b"\n\n" for event, number in numbered if number is None or int(number[1]) > last) + rest


class _ResumedWriter:
    """Says a stream from some event on.

    Args:
        writer: says it from the beginning.
        last: the number of the last event that the client has.
    """

    def __init__(self, writer: StreamWriter, last: int) -> None:
        self._writer = writer
        self._new = functools.partial(_skip_events, last=last)

    def open(self) -> bytes:
        return self._new(self._writer.open())

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        return self._new(self._writer.thoughts(details))

    def text(self, text: str) -> bytes:
        return self._new(self._writer.text(text))

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        return self._new(self._writer.calls(deltas))

    def progress(self, words: str) -> bytes:
        return self._new(self._writer.progress(words))

    def draft(self, text: str) -> bytes:
        return self._new(self._writer.draft(text))

    def alive(self) -> bytes:
        return self._writer.alive()

    def event(self, event: Mapping[str, Any]) -> bytes:
        return self._new(self._writer.event(event))

    def close(self, result: ChatResult) -> bytes:
        return self._new(self._writer.close(result))

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        return self._new(self._writer.broken(refused, result))
