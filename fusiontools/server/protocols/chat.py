"""OpenAI's chat completions: requests read, answers said, plain and streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusiontools.errors import InputError
from fusiontools.llm.spending import Spending
from fusiontools.record import jsonl, schemas
from fusiontools.record.params import ANSWER, NOBODY, POLICY, find_refused, with_one_name
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.annotations import chat_annotations
from fusiontools.server.protocols.exchange import (
    ApiError,
    CallIds,
    ChatRequest,
    ChatResult,
    ResponseMeta,
    StreamStyle,
)
from fusiontools.server.protocols.unread import list_unread

_COMMENT_ALIVE = sse.comment("alive")
#: Parameters that are integers.
_COUNTS = ("max_tokens", "max_completion_tokens", "seed")
#: What is read of a request, or refused.
_READ = frozenset(name for name, whose in POLICY.items() if whose != NOBODY)


class Chat:
    """The protocol of `/v1/chat/completions`."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request; a body in the shape of the Responses API is read as one, for clients that mix them up."""
        fields = {key: value for key, value in body.items() if value is not None}
        if "messages" not in fields and "input" in fields:
            from fusiontools.server.protocols.responses import Responses

            return Responses().read(body)
        if isinstance(fields.get("messages"), list):
            fields["messages"] = [_without_nulls(message) for message in fields["messages"]]
        if not schemas.is_valid("chat", fields):
            path, reason = schemas.explain("chat", fields, quoting=False)
            raise ApiError(
                400, "invalid_request", f"{path}: {reason}", path.removeprefix("$.").removeprefix("$") or None
            )
        try:
            jsonl.refuse_empty(fields["messages"])
        except InputError as error:
            raise ApiError(400, "invalid_request", error.message, "messages") from None
        # 50.0 is an integer to JSON Schema, and none to many an endpoint.
        fields |= {name: int(fields[name]) for name in _COUNTS if name in fields}
        fusion = fields.get("fusion", {})
        if "plugins" in fields:
            fusion = {**fusion, "plugins": fields["plugins"]}
        return ChatRequest(
            model=fields.get("model", "fusion"),
            messages=fields["messages"],
            params=select_wanted(fields),
            stream=fields.get("stream", False),
            fusion=fusion,
            says_usage=bool(fields.get("stream_options", {}).get("include_usage")),
            unanswerable=_unanswerable(fields),
            ignored=list_unread(fields, _READ) if "plugins" in fields or not fields.keys() <= _READ else [],
        )

    def whole(self, request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
        """Return a `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": result.content, "refusal": None}
        if result.tool_calls:
            ids = CallIds(request, meta)
            calls = [{**call, "id": ids.of(call["id"])} for call in result.tool_calls]
            message |= {"content": result.content or None, "tool_calls": calls}
        if result.reasoning_details:
            message["reasoning_details"] = list(result.reasoning_details)
        if result.sources:
            message["annotations"] = chat_annotations(result)
        return {
            "id": f"chatcmpl-{meta.id}",
            "object": "chat.completion",
            "created": meta.created,
            "model": meta.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}],
            "usage": usage(result.spent),
            "fusion": result.fusion,
        }

    def writer(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> ChatWriter:
        """Return what says a stream of chunks."""
        return ChatWriter(request, meta, style)

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return OpenAI's envelope."""
        return {
            "error": {
                "message": refused.message,
                "type": refused.kind,
                "param": refused.param,
                "code": refused.openai_code,
            }
        }


class ChatWriter:
    """Chunks and comments, nothing else."""

    def __init__(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> None:
        self._says_usage, self._style = request.says_usage, style
        self._ids = CallIds(request, meta)
        self._begun: set[int] = set()
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{meta.id}",
            "object": "chat.completion.chunk",
            "created": meta.created,
            "model": meta.model,
        }
        # The same for every token, so it is written once; only the text goes between.
        before = sse.line({**self._head, "choices": [{"index": 0, "delta": {"content": ""}}]})
        self._before = b"data: " + before.removesuffix(b'""}}]}')
        self._after = b'},"finish_reason":null}]}\n\n'

    def open(self) -> bytes:
        """Say the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        """Say a piece of the answer."""
        return b"%b%b%b" % (self._before, sse.line(text), self._after)

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        """Say pieces of tool calls."""
        return self._chunk({"tool_calls": [self._named(delta) for delta in deltas]})

    def progress(self, words: str) -> bytes:
        """Say what goes on."""
        if self._style.progress == "reasoning":
            return self._chunk({"reasoning_content": f"{words}\n"})
        return sse.comment(words) if self._style.progress == "comment" else b""

    def alive(self) -> bytes:
        """Keep the line open."""
        if self._style.keepalive == "chunk":
            return self._chunk({})
        return _COMMENT_ALIVE if self._style.keepalive == "comment" else b""

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say something richer, in an envelope that every client can read."""
        return self._chunk({}, fusion=event)

    def close(self, result: ChatResult) -> bytes:
        """Say how it ended, what it took where that is wanted, and the end."""
        more: dict[str, Any] = {"annotations": chat_annotations(result)} if result.sources else {}
        if result.reasoning_details:
            more["reasoning_details"] = list(result.reasoning_details)
        last = self._chunk(more, result.finish_reason, fusion=result.fusion)
        if self._says_usage:
            last += _frame({**self._head, "choices": [], "usage": usage(result.spent)})
        return last + sse.DONE

    def broken(self, refused: ApiError, result: ChatResult | None) -> bytes:
        """Say the error in band; what was bought and can stand in comes with it."""
        error = Chat().error(refused)["error"]
        fusion = {**result.fusion, "answer": result.content, "tool_calls": list(result.tool_calls)} if result else None
        return self._chunk({}, "error", error=error, **({"fusion": fusion} if fusion else {})) + sse.DONE

    def _named(self, delta: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a piece of a call; the first one of each call says its id."""
        index = delta.get("index") or 0
        if index in self._begun:
            return delta
        self._begun.add(index)
        return {**delta, "id": self._ids.of(delta.get("id") or "")}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _frame({**self._head, "choices": [choice], **more})


def select_wanted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is wanted of the answer, each under one name."""
    named = with_one_name(fields)
    params = {name: named[name] for name in ANSWER if name in named}
    if not params.get("tools", True):
        # An empty list is refused upstream, and means what its absence means.
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            params.pop(name, None)
    return params


def usage(spent: Spending) -> dict[str, Any]:
    """Return the tokens as OpenAI spells them, and the cost as OpenRouter does."""
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": spent.cached_tokens,
            "cache_write_tokens": spent.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": spent.reasoning_tokens},
        "cost": spent.cost_usd,
    }


def _unanswerable(fields: Mapping[str, Any]) -> ApiError | None:
    if (refused := find_refused(fields)) is not None:
        name, why = refused
        return ApiError(400, "unsupported_parameter", why, name)
    if not fields.get("tools") and (
        isinstance(fields.get("tool_choice"), dict) or fields.get("tool_choice") == "required"
    ):
        return ApiError(400, "invalid_request", "tool_choice: leaves no tool: `tools` has none", "tool_choice")
    return None


def _without_nulls(message: Any) -> Any:
    """Return a message without what says nothing; content may be null beside tool calls."""
    if not isinstance(message, dict) or None not in message.values():
        return message
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % sse.line(data)
