"""OpenAI's chat completions: requests read, answers said, plain and streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusiontools.errors import InputError
from fusiontools.record import jsonl, schemas
from fusiontools.record.params import ANSWER, with_one_name
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.exchange import (
    ApiError,
    ChatRequest,
    ChatResult,
    RequestSpending,
    ResponseMeta,
    StreamStyle,
)

_DONE = b"data: [DONE]\n\n"
_COMMENT_ALIVE = b": alive\n\n"
#: Parameters that are integers.
_COUNTS = ("max_tokens", "max_completion_tokens", "seed")
#: Why a parameter is refused, where it is said with a value that asks for something.
_REFUSALS = {
    "n": "one answer is fused from many responses; ask again for another one",
    "modalities": "only text is answered",
    "audio": "only text is answered",
    "functions": "say `tools` instead",
    "function_call": "say `tool_choice` instead",
}


class Chat:
    """The dialect of `/v1/chat/completions`."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request; a body in the shape of the Responses API is read as one, for clients that mix them up."""
        said = {key: value for key, value in body.items() if value is not None}
        if "messages" not in said and "input" in said:
            from fusiontools.server.protocols.responses import Responses

            return Responses().read(body)
        if isinstance(said.get("messages"), list):
            said["messages"] = [_without_nulls(message) for message in said["messages"]]
        if not schemas.is_valid("chat", said):
            path, reason = schemas.explain("chat", said, quoting=False)
            raise ApiError(
                400, "invalid_request", f"{path}: {reason}", path.removeprefix("$.").removeprefix("$") or None
            )
        try:
            jsonl.refuse_empty(said["messages"])
        except InputError as error:
            raise ApiError(400, "invalid_request", error.message, "messages") from None
        # 50.0 is an integer to JSON Schema, and none to many an endpoint.
        said |= {name: int(said[name]) for name in _COUNTS if name in said}
        fusion = said.get("fusion", {})
        if "plugins" in said:
            fusion = {**fusion, "plugins": said["plugins"]}
        return ChatRequest(
            model=said.get("model", "fusion"),
            messages=said["messages"],
            params=wanted(said),
            stream=said.get("stream", False),
            fusion=fusion,
            says_usage=bool(said.get("stream_options", {}).get("include_usage")),
            unanswerable=_unanswerable(said),
        )

    def whole(self, asked: ChatRequest, about: ResponseMeta, done: ChatResult) -> dict[str, Any]:
        """Return a `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": done.content, "refusal": None}
        if done.tool_calls:
            message |= {"content": done.content or None, "tool_calls": list(done.tool_calls)}
        return {
            "id": f"chatcmpl-{about.id}",
            "object": "chat.completion",
            "created": about.created,
            "model": about.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": done.finish_reason}],
            "usage": usage(done.spent),
            "fusion": done.fusion,
        }

    def writer(self, asked: ChatRequest, about: ResponseMeta, manner: StreamStyle) -> ChatWriter:
        """Return what says a stream of chunks."""
        return ChatWriter(asked, about, manner)

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return OpenAI's envelope."""
        return {
            "error": {"message": refused.message, "type": refused.kind, "param": refused.param, "code": refused.code}
        }


class ChatWriter:
    """Chunks and comments, nothing else."""

    def __init__(self, asked: ChatRequest, about: ResponseMeta, manner: StreamStyle) -> None:
        self._says_usage, self._manner = asked.says_usage, manner
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{about.id}",
            "object": "chat.completion.chunk",
            "created": about.created,
            "model": about.model,
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
        return self._chunk({"tool_calls": list(deltas)})

    def progress(self, words: str) -> bytes:
        """Say what goes on."""
        if self._manner.progress == "reasoning":
            return self._chunk({"reasoning_content": f"{words}\n"})
        return f": {words}\n\n".encode() if self._manner.progress == "comment" else b""

    def alive(self) -> bytes:
        """Keep the line open."""
        if self._manner.keepalive == "chunk":
            return self._chunk({})
        return _COMMENT_ALIVE if self._manner.keepalive == "comment" else b""

    def event(self, event: Mapping[str, Any]) -> bytes:
        """Say something richer, in an envelope that every client can read."""
        return self._chunk({}, fusion=event)

    def close(self, done: ChatResult) -> bytes:
        """Say how it ended, what it took where that is wanted, and the end."""
        last = self._chunk({}, done.finish_reason, fusion=done.fusion)
        if self._says_usage:
            last += _frame({**self._head, "choices": [], "usage": usage(done.spent)})
        return last + _DONE

    def broken(self, refused: ApiError, done: ChatResult | None) -> bytes:
        """Say the error in band; what was bought and can stand in comes with it."""
        error = Chat().error(refused)["error"]
        fusion = {**done.fusion, "answer": done.content, "tool_calls": list(done.tool_calls)} if done else None
        return self._chunk({}, "error", error=error, **({"fusion": fusion} if fusion else {})) + _DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _frame({**self._head, "choices": [choice], **more})


def wanted(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is wanted of the answer, each under one name."""
    named = with_one_name(said)
    params = {name: named[name] for name in ANSWER if name in named}
    if not params.get("tools", True):
        # An empty list is refused upstream, and means what its absence means.
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            params.pop(name, None)
    return params


def usage(spent: RequestSpending) -> dict[str, Any]:
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


def _unanswerable(said: Mapping[str, Any]) -> ApiError | None:
    for name, why in _REFUSALS.items():
        value = said.get(name)
        harmless = value in (None, 1, [], ["text"], {}) and value is not True
        if name == "function_call" and value in ("none", "auto") and "functions" not in said:
            harmless = True
        if not harmless:
            return ApiError(400, "unsupported_parameter", f"`{name}` is not supported: {why}", name)
    return None


def _without_nulls(message: Any) -> Any:
    """Return a message without what says nothing; content may be null beside tool calls."""
    if not isinstance(message, dict) or None not in message.values():
        return message
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % sse.line(data)
