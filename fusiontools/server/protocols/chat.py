"""OpenAI's chat completions: requests read, answers said, plain and streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusiontools.errors import InputError
from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl, schemas
from fusiontools.record.params import ANSWER, NOBODY, POLICY, find_refused, with_one_name
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.annotations import chat_annotations
from fusiontools.server.protocols.exchange import (
    ApiError,
    CallIds,
    ChatRequest,
    ChatResult,
    Ignored,
    ResponseMeta,
    StreamStyle,
    ignore_tool,
)
from fusiontools.server.protocols.responses_reply import input_of
from fusiontools.server.protocols.responses_request import object_at, text_at
from fusiontools.server.protocols.responses_tools import describe_custom
from fusiontools.server.protocols.unread import list_unread

_COMMENT_ALIVE = sse.comment("alive")
#: Parameters that are integers.
_COUNTS = ("max_tokens", "max_completion_tokens", "seed")
_WANTED = frozenset(ANSWER)
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
            fields["messages"] = [_with_functions(_without_nulls(message)) for message in fields["messages"]]
        if not schemas.check_of("chat")(fields):
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
        hosted = _list_hosted(fields.get("tools", []))
        if "tools" in fields:
            fields["tools"] = [_nested(tool) for tool in fields["tools"] if _runs_at_client(tool)]
        custom = _read_custom(fields)
        unread = list_unread(fields, _READ) if "plugins" in fields or not fields.keys() <= _READ else []
        return ChatRequest(
            model=fields.get("model", "fusion"),
            messages=fields["messages"],
            params=select_wanted(fields),
            stream=fields.get("stream", False),
            fusion=fusion,
            says_usage=bool(fields.get("stream_options", {}).get("include_usage")),
            unanswerable=_unanswerable(fields),
            echo={"custom": custom} if custom else {},
            ignored=[*hosted, *unread],
        )

    def whole(self, request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
        """Return a `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": result.content, "refusal": None}
        if result.tool_calls:
            ids = CallIds(request, meta)
            calls = [_as_declared({**call, "id": ids.of(call["id"])}, request) for call in result.tool_calls]
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
        self._request = request
        self._ids = CallIds(request, meta)
        self._begun: set[int] = set()
        #: By index, the ids of calls whose input can be read only when it is whole.
        self._custom: dict[int, str] = {}
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

    def thoughts(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """Say nothing yet: at the end they are whole."""
        return b""

    def text(self, text: str) -> bytes:
        """Say a piece of the answer."""
        return b"%b%b%b" % (self._before, sse.line(text), self._after)

    def calls(self, deltas: Sequence[Mapping[str, Any]]) -> bytes:
        """Say pieces of tool calls; those of a custom tool wait until its input can be read."""
        said = [self._named(delta) for delta in deltas]
        shown = [delta for delta in said if (delta.get("index") or 0) not in self._custom]
        return self._chunk({"tool_calls": shown}) if shown else b""

    def progress(self, words: str) -> bytes:
        """Say what goes on."""
        if self._style.progress == "reasoning":
            return self._chunk({"reasoning_content": f"{words}\n"})
        return b"" if self._style.progress == "off" else sse.comment(words)

    def draft(self, text: str) -> bytes:
        """Say a piece of a draft as the model's thoughts."""
        return self._chunk({"reasoning_content": text})

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
        calls = zip(sorted(self._begun), result.tool_calls, strict=False)
        waited = [(i, {**call, "id": self._custom[i]}) for i, call in calls if i in self._custom]
        if waited:
            last = (
                self._chunk({"tool_calls": [{"index": i, **_as_declared(call, self._request)} for i, call in waited]})
                + last
            )
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
        named = {**delta, "id": self._ids.of(delta.get("id") or "")}
        if (delta.get("function") or {}).get("name") in self._request.echo.get("custom", ()):
            self._custom[index] = named["id"]
        return named

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _frame({**self._head, "choices": [choice], **more})


def select_wanted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is wanted of the answer, each under one name."""
    named = with_one_name(fields)
    params = {name: value for name, value in named.items() if name in _WANTED}
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
    choice = fields.get("tool_choice")
    if not fields.get("tools") and (isinstance(choice, dict) or choice == "required"):
        why = "tool_choice: leaves no tool: none of `tools` is one that the client runs"
        return ApiError(400, "invalid_request", why, "tool_choice")
    if isinstance(choice, dict) and choice.get("type", "function") not in ("function", "custom", "allowed_tools"):
        why = f"tool_choice: nobody here runs {str(choice['type'])[:80]!r}"
        return ApiError(400, "invalid_request", why, "tool_choice")
    return None


def _read_custom(fields: dict[str, Any]) -> list[str]:
    """Show custom tools to models as functions of one text; returns the names of those tools."""
    names = []
    for i, tool in enumerate(fields.get("tools", [])):
        if tool["type"] == "custom":
            item = object_at(tool.get("custom"), f"tools[{i}].custom")
            names.append(text_at(item.get("name"), f"tools[{i}].custom.name", empty=False))
            function = {"name": names[-1], **describe_custom(item, f"tools[{i}].custom")}
            fields["tools"][i] = {"type": "function", "function": function}
    choice = fields.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "custom":
        fields["tool_choice"] = {"type": "function", "function": choice.get("custom")}
    return names


def _as_declared(call: Mapping[str, Any], request: ChatRequest) -> Mapping[str, Any]:
    """Return a call as its client has declared the tool."""
    function = call["function"]
    if function["name"] not in request.echo.get("custom", ()):
        return call
    custom = {"name": function["name"], "input": input_of(function["arguments"])}
    return {**{name: said for name, said in call.items() if name != "function"}, "type": "custom", "custom": custom}


def _with_functions(message: Any) -> Any:
    """Return a message in which calls of custom tools are calls of functions."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(calls, list) or not any(isinstance(call, dict) and call.get("custom") for call in calls):
        return message
    return {**message, "tool_calls": [_as_function(call) for call in calls]}


def _as_function(call: Any) -> Any:
    custom = call.get("custom") if isinstance(call, dict) else None
    if not isinstance(custom, dict) or "function" in call:
        return call
    arguments = jsonl.dumps({"input": custom.get("input") or ""}).decode()
    function = {"name": custom.get("name"), "arguments": arguments}
    return {**{name: said for name, said in call.items() if name != "custom"}, "type": "function", "function": function}


def _list_hosted(tools: Sequence[Mapping[str, Any]]) -> list[Ignored]:
    """Return the tools that a provider would run: no member is shown them."""
    hosted = [(f"tools[{i}]", tool) for i, tool in enumerate(tools) if not _runs_at_client(tool)]
    # Moonshot's are `builtin_function`s, which are told apart by their names.
    return [
        ignore_tool(where, str(tool.get("function", {}).get("name") or tool["type"])[:100]) for where, tool in hosted
    ]


def _runs_at_client(tool: Mapping[str, Any]) -> bool:
    return tool["type"] in ("function", "custom")


def _nested(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as a chat has it; some clients send those of the Responses API."""
    kind = tool["type"]
    if kind in tool or "name" not in tool:
        return tool
    return {"type": kind, kind: {name: value for name, value in tool.items() if name != "type"}}


def _without_nulls(message: Any) -> Any:
    """Return a message without what says nothing; content may be null beside tool calls."""
    if not isinstance(message, dict) or None not in message.values():
        return message
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % sse.line(data)
