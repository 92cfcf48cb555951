"""Say an answer in the words of Anthropic's Messages API: a message, the events of a stream, an error.

Source: Anthropic's API reference, "Messages", "Streaming Messages", "Handling stop reasons" and "Errors".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusiontools.llm.anthropic_request import arguments_object
from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl
from fusiontools.record.types import ToolCall
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.annotations import messages_citations
from fusiontools.server.protocols.exchange import (
    ApiError,
    CallIds,
    ChatRequest,
    ChatResult,
    ResponseMeta,
    StreamStyle,
)
from fusiontools.server.protocols.messages_request import SIGNATURE
from fusiontools.server.protocols.reasoning_seal import beside_calls, thinking_blocks

_STOP = {"length": "max_tokens", "content_filter": "refusal"}
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    424: "api_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
#: The words by which clients know that a conversation must be made shorter.
_TOO_LONG = "prompt is too long"
_TEXT_ENDS = b"}}\n\n"
_ALIVE = sse.comment("alive")
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def message(request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
    """Return a whole answer."""
    ids = CallIds(request, meta, "toolu")
    content: list[dict[str, Any]] = [{"type": "text", "text": result.content}] if result.content else []
    if content and result.sources:
        content[0]["citations"] = messages_citations(result)
    calls: list[Any] = [{**call, "id": ids.of(call["id"])} for call in result.tool_calls]
    thoughts = thinking_blocks([*result.reasoning_details, *beside_calls(calls)])
    content = [*thoughts, *content] if request.echo.get("thinks") else [*content, *thoughts]
    content += [_tool_use(call) for call in calls]
    message = {**_head(meta), "content": content, "stop_reason": _stop_reason(result), "stop_sequence": None}
    return {**message, "usage": _bill(result.spent), "fusion": result.fusion}


def error(refused: ApiError) -> dict[str, Any]:
    """Return the body of an error."""
    words = refused.message
    if refused.code == "context_length" and _TOO_LONG not in words.lower():
        words = f"{_TOO_LONG}: {words}"
    kind = _ERRORS.get(refused.status, "invalid_request_error" if refused.status < 500 else "api_error")
    details = {} if refused.details is None else {"details": dict(refused.details)}
    return {"type": "error", "error": {"type": kind, "message": words, **details}}


class _Call:
    """A call as far as it has come; `sent` is how many of its pieces have gone out."""

    __slots__ = ("id", "name", "pieces", "sent")

    def __init__(self, id: str, name: str) -> None:  # noqa: A002
        self.id, self.name = id, name
        self.pieces: list[str] = []
        self.sent = 0

    def is_whole(self) -> bool:
        try:
            jsonl.loads("".join(self.pieces))
        except ValueError:
            return False
        return True


class MessagesWriter:
    """The events of one message: blocks one after the other, each closed before the next begins."""

    def __init__(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> None:
        self._about, self._style = meta, style
        self._ids = CallIds(request, meta, "toolu")
        self._index = -1
        #: The kind of the block that is open, and its call.
        self._kind = ""
        self._call: _Call | None = None
        self._signature = SIGNATURE
        self._text_begins = b""
        self._answering = False
        self._calls: dict[int, _Call] = {}
        #: Calls that are not closed; the first one goes out as it comes, the others wait until it is whole.
        self._waiting: list[_Call] = []
        self._thinks_first = bool(request.echo.get("thinks"))
        #: Thoughts that stand behind the text, or behind a call.
        self._thoughts: list[Mapping[str, Any]] = []

    def open(self) -> bytes:
        """Say whose message it is, and about how long the request was."""
        usage = _usage(Spending(prompt_tokens=self._about.prompt_tokens))
        begun = {**_head(self._about), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return _event("message_start", message=begun)

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """Say what the model thought, before the answer or behind its text."""
        if not self._thinks_first:
            self._thoughts += details
            return b""
        return self._say_thoughts(details)

    def text(self, text: str) -> bytes:
        """Say a piece of the answer."""
        if not text:
            return b""
        if self._kind == "text":
            return b"%b%b%b" % (self._text_begins, sse.line(text), _TEXT_ENDS)
        self._answering = True
        opened = self._end_calls() + self._begin("text", text="")
        delta = b'{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":' % self._index
        self._text_begins = b"event: content_block_delta\ndata: " + delta
        return opened + self.text(text)

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        """Say pieces of tool calls."""
        self._answering = True
        data = b""
        for delta in deltas:
            function = delta.get("function") or {}
            index = delta.get("index") or 0
            call = self._calls.get(index)
            if call is None:
                call = self._calls[index] = _Call(self._ids.of(delta.get("id") or ""), function.get("name") or "")
                self._thoughts += beside_calls([{**delta, "id": call.id}])
                # A block that is open for a call is not left before that is whole.
                data += b"" if self._waiting else self._end_thoughts()
                self._waiting.append(call)
            if piece := function.get("arguments"):
                call.pieces.append(piece)
            data += self._go_on()
        return data

    def progress(self, words: str) -> bytes:
        """Say what goes on; as a thought only before the answer, which it would cut in two."""
        line = " ".join(words.split())
        if self._style.progress == "off" or not line:
            return b""
        if self._style.progress != "reasoning" or self._answering:
            return sse.comment(line)
        return self.draft(f"{line}\n")

    def draft(self, text: str) -> bytes:
        """Say a piece of a draft as a thought; only before the answer, which it would cut in two."""
        if self._answering:
            return b""
        begun = b"" if self._kind == "thinking" else self._begin("thinking", thinking="", signature="")
        return begun + self._delta("thinking_delta", thinking=text)

    def alive(self) -> bytes:
        """Keep the line open."""
        return {"comment": _ALIVE, "chunk": _PING}.get(self._style.keepalive, b"")

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say something richer, as a comment: strict clients fail on an event that they do not know."""
        return sse.comment(b"fusion " + sse.line(event))

    def close(self, result: ChatResult) -> bytes:
        """Say how it ended and what it took."""
        cited = b""
        if result.sources and self._kind == "text":
            cited = b"".join(self._delta("citations_delta", citation=each) for each in messages_citations(result))
        ended = {"stop_reason": _stop_reason(result), "stop_sequence": None}
        last = _event("message_delta", delta=ended, usage=_bill(result.spent), fusion=result.fusion)
        return cited + self._end_calls() + self._end_thoughts() + self._end() + last + _event("message_stop")

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        """Say the error in band; what was bought and can stand in comes with it."""
        event = error(refused)
        if result is not None:
            event["fusion"] = {**result.fusion, "answer": result.content}
        return _frame("error", event)

    def _end_thoughts(self) -> bytes:
        details, self._thoughts = self._thoughts, []
        return self._say_thoughts(details)

    def _say_thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        data = b""
        for block in thinking_blocks(details):
            if block["type"] == "redacted_thinking":
                data += self._begin("redacted_thinking", data=block["data"])
            else:
                data += self._begin("thinking", thinking="", signature="")
                data += self._delta("thinking_delta", thinking=block["thinking"]) if block["thinking"] else b""
                self._signature = block["signature"]
            data += self._end()
        return data

    def _go_on(self) -> bytes:
        """Say what has come of the calls, up to the first one that is not whole."""
        data = b""
        while self._waiting:
            data += self._say(self._waiting[0])
            if len(self._waiting) == 1 or not self._waiting[0].is_whole():
                break
            self._waiting.pop(0)
        return data

    def _end_calls(self) -> bytes:
        data = b"".join(self._say(call) for call in self._waiting)
        self._waiting.clear()
        return data

    def _say(self, call: _Call) -> bytes:
        """Say what is new of a call, in a block of its own."""
        begun = b""
        if self._call is not call:
            begun = self._begin("tool_use", id=call.id, name=call.name, input={})
            self._call = call
        new = "".join(call.pieces[call.sent :])
        call.sent = len(call.pieces)
        return begun + (self._delta("input_json_delta", partial_json=new) if new else b"")

    def _begin(self, kind: str, **fields: Any) -> bytes:
        """Begin a block after the one that is open."""
        ended = self._end()
        self._index += 1
        self._kind = kind
        return ended + _event("content_block_start", index=self._index, content_block={"type": kind, **fields})

    def _delta(self, kind: str, **fields: Any) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind, **fields})

    def _end(self) -> bytes:
        if not self._kind:
            return b""
        signed = self._delta("signature_delta", signature=self._signature) if self._kind == "thinking" else b""
        self._kind, self._call, self._signature = "", None, SIGNATURE
        return signed + _event("content_block_stop", index=self._index)


def _head(meta: ResponseMeta) -> dict[str, Any]:
    return {"id": f"msg_{meta.id}", "type": "message", "role": "assistant", "model": meta.model}


def _stop_reason(result: ChatResult) -> str:
    # Clients run calls where they are told to: some servers say `stop` beside them.
    return _STOP.get(result.finish_reason) or ("tool_use" if result.tool_calls else "end_turn")


def _usage(spent: Spending) -> dict[str, Any]:
    """Return the tokens as Anthropic counts them, which is without the cached ones."""
    bill: dict[str, Any] = {
        "input_tokens": max(0, spent.prompt_tokens - spent.cached_tokens - spent.cache_write_tokens),
        "cache_creation_input_tokens": spent.cache_write_tokens,
        "cache_read_input_tokens": spent.cached_tokens,
        "output_tokens": spent.completion_tokens,
    }
    if spent.reasoning_tokens:
        bill["output_tokens_details"] = {"thinking_tokens": spent.reasoning_tokens}
    return bill


def _bill(spent: Spending) -> dict[str, Any]:
    return {**_usage(spent), "cost": spent.cost_usd}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": call["function"]["name"],
        "input": arguments_object(call["function"]["arguments"]),
    }


def _event(kind: str, **fields: Any) -> bytes:
    return _frame(kind, {"type": kind, **fields})


def _frame(kind: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), sse.line(data))
