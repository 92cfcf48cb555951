"""`/fuse` as a stream, what each member writes included, the whole record in the end; and over a panel that stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusiontools.errors import InputError
from fusiontools.record import jsonl
from fusiontools.server.jobs import STANDING, Exchange, Job, Subscriber
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult
from fusiontools.server.request import Peer, Send, keepalive_of
from fusiontools.server.result import answer_to, cost_of, notes_of
from fusiontools.server.scrubbing import scrub_record
from fusiontools.server.streaming import Stream

if TYPE_CHECKING:
    from fusiontools.record.types import Record
    from fusiontools.server.plan import Plan
    from fusiontools.server.state import Server

_ALIVE = sse.comment("alive")


class FuseWriter:
    """Events of a run as plain JSON objects, each with its `type`; the last but `[DONE]` has the record.

    Args:
        run: under which name the run can be stopped.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self.record: dict[str, Any] | None = None

    def open(self) -> bytes:
        """Say the run's name."""
        return _frame({"type": "run", "run": self._run})

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """Say nothing: the record has them."""
        return b""

    def text(self, text: str) -> bytes:
        """Say a piece of the answer."""
        return _frame({"type": "answer", "text": text})

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        """Say pieces of tool calls."""
        return _frame({"type": "answer.calls", "tool_calls": list(deltas)})

    def progress(self, words: str) -> bytes:
        """Say nothing: the events say more."""
        return b""

    def draft(self, text: str) -> bytes:
        """Say nothing: the events say more."""
        return b""

    def alive(self) -> bytes:
        """Keep the line open."""
        return _ALIVE

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say what goes on."""
        return _frame(event)

    def close(self, result: ChatResult) -> bytes:
        """Say the record."""
        return _frame({"type": "record", "record": self.record}) + sse.DONE

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        """Say why there is no answer, or another one than was said; what was bought comes with it."""
        said: dict[str, Any] = {"type": "error", **Chat().error(refused)}
        return _frame(said if self.record is None else {**said, "record": self.record}) + sse.DONE


async def say_run(exchange: Exchange, given: Mapping[str, Any], server: Server, peer: Peer, send: Send) -> None:
    """Stream a run to its end.

    Args:
        given: the body that it came from.
    """
    log, writer = exchange.log, FuseWriter(exchange.meta.id)

    def settle(record: Record) -> ChatResult:
        log.cost_usd = cost_of(record.get("calls", []))
        writer.record = show(record, exchange.request, exchange.plan, given, server)
        return answer_to(exchange.request, record, exchange.plan, server.options.usage)

    stream = Stream(send, writer, settle, events=True)
    with server.runs.running(log.caller, exchange.meta.id, exchange.job):
        await stream.follow(exchange.job, peer, keepalive_of(server.options), log)


async def wait_for(job: Job, peer: Peer) -> Record | None:
    """Return the record when it is whole; None where the client has left."""
    with Subscriber(job, peer) as subscriber:
        while not (subscriber.gone or subscriber.finished):
            await subscriber.more()
        if subscriber.gone:
            return None
    return job.task.result()


def show(record: Record, request: ChatRequest, plan: Plan, given: Mapping[str, Any], server: Server) -> dict[str, Any]:
    """Return the record as its caller may see it, with what of the request was not done; calls that had made a panel
    that stood come first.
    """
    shown = scrub_record(record, whole=server.options.show_recipes)
    if notes := notes_of(request, plan):
        shown["degraded"] = [*shown.get("degraded", []), *notes]
    if earlier := given.get("record", {}).get("calls"):
        shown["calls"] = [*earlier, *shown.get("calls", [])]
    return shown


def with_question_of_record(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with the question of the record that it brings along, so that its panel need not be asked again.

    Raises:
        ApiError: the record is none, or has no panel; or there is another question beside it.
    """
    given = body.get("record")
    if given is None:
        return body
    if not isinstance(given, dict) or "panel" not in given:
        raise ApiError(400, "invalid_request", "$.record: is no record with a `panel`", "record")
    if "messages" in body or "prompt" in body:
        raise ApiError(400, "invalid_request", "$.record: has a question of its own; say no other", "record")
    kept = ("id", "messages", "params", "meta", "calls", *STANDING)
    try:
        record: Any = jsonl.parse(jsonl.dumps({name: given[name] for name in kept if name in given}))
    except InputError as error:
        raise ApiError(400, "invalid_request", f"record: {error.message}", "record") from error
    named = {name: record[name] for name in ("id", "meta", "messages") if name in record}
    return {**body, **named, "params": {**record.get("params", {}), **body.get("params", {})}, "record": record}


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % sse.line(data)
