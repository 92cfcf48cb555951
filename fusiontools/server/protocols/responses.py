"""OpenAI's Responses API: what a client asks there, in the words of a chat.

What a request names of what is kept (`server.response_store`) has been put into it before it is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusiontools.record import jsonl
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, Ignored, ResponseMeta, StreamStyle
from fusiontools.server.protocols.responses_reply import ResponsesWriter, whole
from fusiontools.server.protocols.responses_request import (
    flag_at,
    list_at,
    object_at,
    optional,
    read_messages,
    refuse,
    text_at,
)
from fusiontools.server.protocols.responses_tools import read_choice, read_tools
from fusiontools.server.protocols.unread import list_unread

_WHOLE = "nothing is stored here: send the whole conversation in `input`"
#: What needs a memory of other requests, or of this one after it has ended.
_STORED = {
    "previous_response_id": _WHOLE,
    "conversation": _WHOLE,
    "prompt": "no prompt templates are stored here: send `instructions` and `input`",
}
#: What an answer says again, and what it says where the request said nothing.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
#: What else is read of a request.
_READ = frozenset(("model", "input", "tool_choice", "store", "stream_options", "plugins", *_STORED, *_ECHOED)) - {
    "prompt_cache_key",
    "safety_identifier",
    "truncation",
    "user",
}
#: What a client asks for that sends a model's thoughts back itself.
_THOUGHTS = "reasoning.encrypted_content"
_NUMBER, _WORD, _OBJECT = (int, float), (str,), (dict,)
#: The simple parameters: what each may be, and how that is said.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "instructions": (_WORD, "a text"),
    "max_output_tokens": ((int,), "a whole number"),
    "temperature": (_NUMBER, "a number"),
    "top_p": (_NUMBER, "a number"),
    "parallel_tool_calls": ((bool,), "true or false"),
    "stream": ((bool,), "true or false"),
    "background": ((bool,), "true or false"),
    "reasoning": (_OBJECT, "an object"),
    "text": (_OBJECT, "an object"),
    "metadata": (_OBJECT, "an object"),
    "fusion": (_OBJECT, "an object"),
    "tools": ((list,), "a list"),
    "include": ((list,), "a list"),
    "plugins": ((list,), "a list"),
}


class Responses:
    """The protocol of `POST /v1/responses`."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request; see `Dialect.read`."""
        for name in _TYPES:
            _check(body, name)
        _refuse_what_needs_a_store(body)
        model = "fusion" if body.get("model") is None else text_at(body["model"], "model", empty=False)
        tools = read_tools(body.get("tools") or [])
        request = ChatRequest(
            model=model,
            messages=read_messages(body.get("instructions"), body.get("input"), tools.name_of),
            params={**_read_settings(body), **read_choice(body, tools)},
            stream=bool(body.get("stream")),
            fusion=_read_fusion(body),
            says_usage=True,
            echo={"response": _echo(body), "tools": tools.declared, "thoughts": _wants_thoughts(body)},
            ignored=[*tools.ignored, *_ignored_includes(body), *list_unread(body, _READ | _TYPES.keys())],
        )
        _refuse_too_deep(request)
        return request

    def whole(self, request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
        """Return the body of a plain response."""
        return whole(request, meta, result)

    def writer(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> ResponsesWriter:
        """Return what says a stream."""
        return ResponsesWriter(request, meta, style)

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return OpenAI's envelope."""
        error = {"message": refused.message, "type": refused.kind, "param": refused.param, "code": refused.openai_code}
        return {"error": error}


def _check(body: Mapping[str, Any], name: str) -> None:
    value = body.get(name)
    kinds, wanted = _TYPES[name]
    if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise refuse(name, f"must be {wanted}")


def _refuse_what_needs_a_store(body: Mapping[str, Any]) -> None:
    for name, instead in _STORED.items():
        if body.get(name) is not None:
            raise refuse(name, instead, "unsupported")
    if body.get("background"):
        raise refuse("background", "nothing runs in the background here: wait for the answer, or stream", "unsupported")


def _refuse_too_deep(request: ChatRequest) -> None:
    """Refuse what could be read but not written again: the writer goes 254 levels deep, the reader 1,024."""
    try:
        jsonl.dumps([[[request.params, request.messages, request.fusion, request.echo]]])
    except TypeError:
        raise refuse("$", "nested too deeply to be passed on") from None


def _read_settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is wanted of the visible answer, under chat's names."""
    for name in ("temperature", "top_p"):
        if (body.get(name) or 0) < 0:
            raise refuse(name, "must not be negative")
    if (limit := body.get("max_output_tokens")) is not None and limit < 1:
        raise refuse("max_output_tokens", "must be at least 1")
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    effort = optional(reasoning, "reasoning", {"effort": text_at})
    settings = {
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "max_tokens": limit,
        "reasoning_effort": effort.get("effort"),
        "response_format": _read_format(text.get("format")),
        **optional(text, "text", {"verbosity": text_at}),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _read_format(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    kind = object_at(given, "text.format").get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        raise refuse("text.format.type", "must be `text`, `json_object` or `json_schema`")
    schema = {
        "name": text_at(given.get("name"), "text.format.name", empty=False),
        "schema": object_at(given.get("schema"), "text.format.schema"),
        **optional(given, "text.format", {"description": text_at, "strict": flag_at}),
    }
    return {"type": "json_schema", "json_schema": schema}


def _read_fusion(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides; `plugins` is OpenRouter's place for them."""
    fusion = dict(body.get("fusion") or {})
    where = "plugins" if fusion.get("plugins") is None else "fusion.plugins"
    plugins = body.get("plugins") if where == "plugins" else fusion["plugins"]
    if plugins is None:
        return fusion
    for index, plugin in enumerate(list_at(plugins, where)):
        object_at(plugin, f"{where}[{index}]")
    return {**fusion, "plugins": plugins}


def _wants_thoughts(body: Mapping[str, Any]) -> bool:
    """Return whether the client sends thoughts back itself."""
    return _THOUGHTS in (body.get("include") or [])


def _ignored_includes(body: Mapping[str, Any]) -> list[Ignored]:
    why = "there is nothing of it here"
    asked = enumerate(body.get("include") or [])
    return [{"param": f"include[{i}]", "reason": why} for i, name in asked if name != _THOUGHTS]


def _echo(body: Mapping[str, Any]) -> dict[str, Any]:
    echo = {name: body[name] if body.get(name) is not None else default for name, default in _ECHOED.items()}
    # Typed clients want these two keys of a function, whatever they say.
    functions = {"parameters": None, "strict": None}
    echo["tools"] = [{**functions, **tool} if tool["type"] == "function" else tool for tool in echo["tools"]]
    return echo
