"""The pieces of a response of OpenAI's Responses API: items of its output, and the `response` object around them.

Answers in the words of OpenAI's Responses API: a whole response, and the events of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.annotations import responses_annotations
from fusiontools.server.protocols.exchange import (
    ApiError,
    CallIds,
    ChatRequest,
    ChatResult,
    ResponseMeta,
    StreamStyle,
)
from fusiontools.server.protocols.reasoning_seal import (
    beside_calls,
    encrypted_content,
    unsaid_details,
    visible_text,
)
from fusiontools.server.protocols.responses_tools import find_names

#: Why a response is incomplete, by how its text ended.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
#: The item that a call of each kind of tool is.
_KINDS = {"function": "function_call", "custom": "custom_tool_call"}
_CONTENT = {"message": "content", "reasoning": "summary", "function_call": "arguments", "custom_tool_call": "input"}

Item = dict[str, Any]


class Part(Struct):
    """One item of the output while it grows: a `message`, a call, or `reasoning`: thoughts, or what goes on.

    Args:
        about: the response's id, from which the item's own is made.
        number: which of its kind it is.
        index: its place in the output.
        namespace: the group that the client has the tool in, where it has it in one.
        encrypted: the thoughts as the client sends them back.
    """

    kind: str
    meta: str
    number: int = 0
    index: int = 0
    call_id: str = ""
    name: str = ""
    namespace: str = ""
    encrypted: str = ""
    pieces: list[str] = []
    annotations: list[Item] = []

    @property
    def id(self) -> str:
        return f"{_PREFIXES[self.kind]}_{self.meta}_{self.number}"

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def place(self) -> dict[str, Any]:
        """What every event about the item says of it."""
        return {"item_id": self.id, "output_index": self.index}

    def opening(self) -> Item:
        """Return the item as it is announced: nothing in it yet."""
        return self._with("in_progress", [] if self.kind in ("message", "reasoning") else "")

    def item(self, status: str) -> Item:
        """Return the item with all that it has come to hold."""
        if self.kind == "message":
            return self._with(status, [{**text_part(self.text), "annotations": self.annotations}])
        if self.kind == "reasoning":
            more = {"encrypted_content": self.encrypted} if self.encrypted else {}
            return {**self._with(status, [summary_part(self.text)] if self.pieces else []), **more}
        return self._with(status, input_of(self.text) if self.kind == "custom_tool_call" else self.text)

    def closing(self, item: Item) -> list[tuple[str, dict[str, Any]]]:
        """Return the events that come right before the item is done."""
        if self.kind == "message":
            place, part = {"content_index": 0}, item["content"][0]
            text = {"text": part["text"], "logprobs": []}
            cited = [
                ("response.output_text.annotation.added", {**place, "annotation_index": i, "annotation": annotation})
                for i, annotation in enumerate(self.annotations)
            ]
            return [
                *cited,
                ("response.output_text.done", {**place, **text}),
                ("response.content_part.done", {**place, "part": part}),
            ]
        if self.kind == "reasoning":
            if not item["summary"]:
                return []
            place, part = {"summary_index": 0}, item["summary"][0]
            return [
                ("response.reasoning_summary_text.done", {**place, "text": part["text"]}),
                ("response.reasoning_summary_part.done", {**place, "part": part}),
            ]
        if self.kind == "function_call":
            return [("response.function_call_arguments.done", {"arguments": item["arguments"]})]
        # A custom tool's input can be read only when the arguments that it is wrapped in are whole.
        events = [("response.custom_tool_call_input.delta", {"delta": item["input"]})] if item["input"] else []
        return [*events, ("response.custom_tool_call_input.done", {"input": item["input"]})]

    def _with(self, status: str, content: Any) -> Item:
        item: Item = {"id": self.id, "type": self.kind, "status": status}
        if self.kind == "message":
            item["role"] = "assistant"
        elif self.kind != "reasoning":
            item |= {"call_id": self.call_id, "name": self.name}
            if self.namespace:
                item["namespace"] = self.namespace
        return {**item, _CONTENT[self.kind]: content}


def message_part(meta: ResponseMeta, number: int = 0) -> Part:
    """Return a message that is to be written."""
    return Part("message", meta.id, number)


def reasoning_part(meta: ResponseMeta, details: Sequence[Mapping[str, Any]], number: int = 0) -> Part:
    """Return thoughts that the client is to send back."""
    part = Part("reasoning", meta.id, number, encrypted=encrypted_content(details))
    part.pieces = [text] if (text := visible_text(details)) else []
    return part


def call_part(request: ChatRequest, meta: ResponseMeta, number: int, call: Mapping[str, Any]) -> Part:
    """Return a call that is to be written, under its own id; it goes back as the client has declared the tool."""
    name = (call.get("function") or {}).get("name") or ""
    tool = _find_tool(request.echo.get("tools", {}), name)
    part = Part(_KINDS[tool["kind"]], meta.id, number, call_id=call["id"], name=tool["name"])
    part.namespace = tool["namespace"]
    return part


def _find_tool(declared: Mapping[str, Mapping[str, str]], name: str) -> Mapping[str, str]:
    """Return the tool that a model means; some leave out what stands before the tool's own name."""
    names = [name] if name in declared else find_names(declared, name)
    return declared[names[0]] if len(names) == 1 else {"kind": "function", "name": name, "namespace": ""}


def text_part(text: str) -> Item:
    """Return the one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def summary_part(text: str) -> Item:
    """Return the one part of a reasoning item."""
    return {"type": "summary_text", "text": text}


def input_of(arguments: str) -> str:
    """Return the text that a custom tool was called with; a model may forget to wrap it."""
    try:
        given = jsonl.loads(arguments)
    except ValueError:
        return arguments
    if isinstance(given, dict) and isinstance(given.get("input"), str):
        return str(given["input"])
    return given if isinstance(given, str) else arguments


def start_response(request: ChatRequest, meta: ResponseMeta) -> dict[str, Any]:
    """Return the response as it stands before anything is said."""
    head = {"id": f"resp_{meta.id}", "object": "response", "created_at": meta.created, "status": "in_progress"}
    never = {"background": False, "store": False, "previous_response_id": None}
    state: Item = {"error": None, "incomplete_details": None, "model": meta.model, "output": [], "usage": None}
    return {**head, **never, **state, **request.echo.get("response", {})}


def finish_response(begun: Mapping[str, Any], output: list[Item], result: ChatResult) -> dict[str, Any]:
    """Return the response as it stands at the end."""
    reason = _INCOMPLETE.get(result.finish_reason)
    return {
        **begun,
        "status": name_status(result),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": _usage(result.spent),
        "fusion": dict(result.fusion),
    }


def fail_response(
    begun: Mapping[str, Any], output: list[Item], refused: ApiError, result: ChatResult | None
) -> dict[str, Any]:
    """Return the response that broke off: what was said so far, and beside it what was bought and can stand in."""
    response = {**begun, "status": "failed", "error": _error(refused), "output": output}
    if result is None:
        return response
    return {**response, "usage": _usage(result.spent), "fusion": {**result.fusion, "answer": result.content}}


def name_status(result: ChatResult) -> str:
    """Return the status of a response, and of its last item."""
    return "incomplete" if result.finish_reason in _INCOMPLETE else "completed"


def _usage(spent: Spending) -> dict[str, Any]:
    return {
        "input_tokens": spent.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": spent.cached_tokens,
            "cache_write_tokens": spent.cache_write_tokens,
        },
        "output_tokens": spent.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning_tokens},
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "cost": spent.cost_usd,
    }


def _error(refused: ApiError) -> dict[str, Any]:
    """Return a failure in the few codes that the protocol knows; our own stands in `type`.

    Codex asks again after all of them but `invalid_prompt` and `context_length_exceeded`. So the first is what a
    failure is called after which nobody is to ask again by himself: it would buy the panel again.
    """
    final = refused.status < 500 or refused.headers.get("x-should-retry") == "false"
    code = "rate_limit_exceeded" if refused.status == 429 else "invalid_prompt" if final else "server_error"
    if refused.code == "context_length":
        code = refused.openai_code
    return {"code": code, "message": refused.message, "type": refused.code, "param": refused.param}


def whole(request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
    """Return the `response` object of a finished answer."""
    parts = []
    ids = CallIds(request, meta)
    calls: list[Any] = [{**call, "id": ids.of(call["id"])} for call in result.tool_calls]
    details = [*result.reasoning_details, *beside_calls(calls)]
    thoughts = [reasoning_part(meta, details)] if details else []
    if request.echo.get("thoughts"):
        parts += thoughts
    if result.content or not result.tool_calls:
        parts.append(message_part(meta))
        parts[-1].pieces.append(result.content)
        parts[-1].annotations = responses_annotations(result)
    for number, call in enumerate(calls):
        parts.append(call_part(request, meta, number, call))
        parts[-1].pieces.append(call["function"]["arguments"])
    statuses = [*["completed"] * (len(parts) - 1), name_status(result)]
    output = [part.item(status) for part, status in zip(parts, statuses, strict=True)]
    response = finish_response(start_response(request, meta), output, result)
    _keep(request, response, [] if request.echo.get("thoughts") else thoughts)
    return response


def _keep(request: ChatRequest, response: dict[str, Any], unsaid: Sequence[Part]) -> None:
    """Keep a response where that is wanted, with the thoughts that the client did not want to see."""
    if request.keep is not None:
        thoughts = [part.item("completed") for part in unsaid]
        request.keep({**response, "output": [*thoughts, *response["output"]]} if thoughts else response)


class ResponsesWriter:
    """Says one stream; see `protocol.Writer`.

    Items open as the model gets to them. What is no call closes before anything else opens, because clients hold only
    one such item at a time; calls may be written side by side, so they close at the end.
    """

    def __init__(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> None:
        self._asked, self._about, self._style = request, meta, style
        self._unfinished = start_response(request, meta)
        self._snapshot = sse.line(self._unfinished)
        self._number = 0
        self._parts: list[Part] = []
        self._output: dict[int, Item] = {}
        self._calls: dict[int, Part] = {}
        self._ids = CallIds(request, meta)
        #: The message or the reasoning that is open, and all before the text of the next piece of a message.
        self._alone: Part | None = None
        self._pieces: list[str] = []
        self._delta = b""
        self._thoughts: list[Mapping[str, Any]] = []
        #: What was signed beside calls, and how much of it has been said.
        self._signed: list[dict[str, Any]] = []
        self._signed_said = 0

    def open(self) -> bytes:
        """Say that the response is under way."""
        return self._lifecycle("response.created") + self._lifecycle("response.in_progress")

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """Say what the model thought, where the client wants to send it back."""
        self._thoughts += details
        return self._say_thoughts(details)

    def _say_thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        if not (details and self._asked.echo.get("thoughts")):
            return b""
        part = reasoning_part(self._about, details, sum(part.kind == "reasoning" for part in self._parts))
        frames = [self._close_alone(), self._open_part(part)]
        if part.pieces:
            place = {**part.place, "summary_index": 0}
            frames.append(self._say("response.reasoning_summary_part.added", **place, part=summary_part("")))
            frames.append(self._say("response.reasoning_summary_text.delta", **place, delta=part.text))
        return b"".join([*frames, self._close_part(part, "completed")])

    def text(self, text: str) -> bytes:
        """Say a piece of the answer."""
        if not text:
            return b""
        opening = b"" if self._delta else self._open_message()
        self._pieces.append(text)
        number = self._number
        self._number += 1
        return b'%b%b%b,"sequence_number":%d}\n\n' % (opening, self._delta, sse.line(text), number)

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        """Say pieces of calls; those of a custom tool wait until its input can be read."""
        frames = []
        for delta in deltas:
            index = delta.get("index") or 0
            part = self._calls.get(index)
            if part is None:
                frames.append(self._close_alone())
                named = {**delta, "id": self._ids.of(delta.get("id") or "")}
                self._signed += beside_calls([named])
                # Beside a call that is open nothing else opens.
                frames.append(b"" if self._calls else self._say_signed())
                part = self._calls[index] = call_part(self._asked, self._about, len(self._calls), named)
                frames.append(self._open_part(part))
            piece = (delta.get("function") or {}).get("arguments")
            if piece:
                part.pieces.append(piece)
                if part.kind == "function_call":
                    frames.append(self._say("response.function_call_arguments.delta", **part.place, delta=piece))
        return b"".join(frames)

    def progress(self, words: str) -> bytes:
        """Say what goes on; as reasoning only before the answer, which it would cut in two."""
        line = " ".join(words.split())
        if self._style.progress == "off" or not line:
            return b""
        if self._style.progress != "reasoning" or not self._may_think():
            return sse.comment(line)
        begun = self._alone is not None and bool(self._alone.pieces)
        return self.draft(f"\n{line}" if begun else line)

    def _may_think(self) -> bool:
        """Return whether nothing has been said yet but thoughts: these would cut the answer in two."""
        return not self._parts or (self._alone is not None and self._alone.kind == "reasoning")

    def draft(self, text: str) -> bytes:
        """Say a piece of a draft as reasoning; only before the answer."""
        if not self._may_think():
            return b""
        part, opening = self._alone, b""
        if part is None:
            part = self._alone = Part("reasoning", self._about.id)
            opening = self._open_part(part)
            opening += self._say(
                "response.reasoning_summary_part.added", **part.place, summary_index=0, part=summary_part("")
            )
        part.pieces.append(text)
        return opening + self._say("response.reasoning_summary_text.delta", **part.place, summary_index=0, delta=text)

    def alive(self) -> bytes:
        """Keep the line open."""
        if self._style.keepalive == "comment":
            return sse.comment("alive")
        if self._style.keepalive != "chunk":
            return b""
        if self._unfinished["background"]:
            # Who reads on later counts from the events that everybody gets: this one has the number of the last one.
            self._number -= 1
        return self._lifecycle("response.in_progress")

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say something richer, as an event of our own."""
        return self._say("response.fusion.event", fusion=dict(event))

    def close(self, result: ChatResult) -> bytes:
        """Say what of the answer has not been said yet, close what is open, and end with the whole response."""
        sent = "".join(part.text for part in self._parts if part.kind == "message")
        rest = result.content[len(sent) :] if result.content.startswith(sent) else ""
        frames = [self.text(rest)]
        unsaid = enumerate(result.tool_calls[len(self._calls) :], max(self._calls, default=-1) + 1)
        frames.append(self.calls([{"index": index, **call} for index, call in unsaid]))
        if not self._delta and not self._calls:
            frames.append(self._open_message())
        left = [part for part in self._parts if part.index not in self._output]
        for part in left:
            if part.kind == "message":
                part.annotations = responses_annotations(result)
        frames.extend(self._close_part(part, name_status(result) if part is left[-1] else "completed") for part in left)
        if late := unsaid_details(self._thoughts, result.reasoning_details):
            frames.append(self.thoughts(late))
        frames.append(self._say_signed())
        response = finish_response(self._unfinished, [self._output[part.index] for part in self._parts], result)
        hidden = [] if self._asked.echo.get("thoughts") else [*self._thoughts, *self._signed]
        _keep(self._asked, response, [reasoning_part(self._about, hidden)] if hidden else [])
        frames.append(self._say(f"response.{response['status']}", response=response))
        return b"".join(frames)

    def _say_signed(self) -> bytes:
        """Say what was signed beside calls and has not been said."""
        unsaid, self._signed_said = self._signed[self._signed_said :], len(self._signed)
        return self._say_thoughts(unsaid)

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        """End with the error, what was said so far, and what can stand in."""
        output = [self._output.get(part.index) or part.item("incomplete") for part in self._parts]
        return self._say("response.failed", response=fail_response(self._unfinished, output, refused, result))

    def _say(self, kind: str, **fields: Any) -> bytes:
        number = self._number
        self._number += 1
        data = sse.line({"type": kind, **fields, "sequence_number": number})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _lifecycle(self, kind: str) -> bytes:
        """Say that the response is under way; its many words are written once."""
        number = self._number
        self._number += 1
        name = kind.encode()
        head = b'event: %b\ndata: {"type":"%b","response":' % (name, name)
        return head + self._snapshot + b',"sequence_number":%d}\n\n' % number

    def _open_part(self, part: Part) -> bytes:
        part.index = len(self._parts)
        self._parts.append(part)
        return self._say("response.output_item.added", output_index=part.index, item=part.opening())

    def _open_message(self) -> bytes:
        closing = self._close_alone()
        part = message_part(self._about, sum(part.kind == "message" for part in self._parts))
        opened = self._open_part(part)
        self._alone, self._pieces = part, part.pieces
        place = {**part.place, "content_index": 0}
        head = sse.line({"type": "response.output_text.delta", **place, "logprobs": []})
        self._delta = b'event: response.output_text.delta\ndata: %b,"delta":' % head[:-1]
        return closing + opened + self._say("response.content_part.added", **place, part=text_part(""))

    def _close_alone(self) -> bytes:
        return b"" if self._alone is None else self._close_part(self._alone, "completed")

    def _close_part(self, part: Part, status: str) -> bytes:
        if part is self._alone:
            self._alone, self._delta = None, b""
        item = self._output[part.index] = part.item(status)
        frames = [self._say(kind, **part.place, **fields) for kind, fields in part.closing(item)]
        return b"".join(frames) + self._say("response.output_item.done", output_index=part.index, item=item)
