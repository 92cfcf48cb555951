"""Translate a request into what llama.cpp's chat completion takes, and its stream of chunks into a completion."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.models.types import Completion, Request
from fusiontools.models.wire import usage_of
from fusiontools.record import Message
from fusiontools.words import text_of

Chunk = dict[str, Any]

#: What llama.cpp understands as it stands. The rest (`tools`, `reasoning_effort`, `n`, …) means nothing to it.
PARAMS = {"temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "grammar", "logit_bias"} | {
    f"{kind}_penalty" for kind in ("presence", "frequency", "repeat")
}

#: What an answer may have at most where nobody says: else it goes on until the context is full.
MAX_TOKENS = 1024
#: Bounds of a schema that has none: with these the analysis was complete in 60 of 60 cases, in under 700 tokens.
TEXT_CHARS, LIST_ITEMS = 80, 2


def chat_body(request: Request) -> dict[str, Any]:
    """Return the body of the call; `schema` in it is ours, to be turned into a grammar.

    Raises:
        CallFailed: `bad_request`, where the messages hold what a text model cannot read.
    """
    return {**_params(request), "messages": _chat(request.messages)}


def _params(request: Request) -> dict[str, Any]:
    """Return the request's parameters that the engine knows, under its names, and what we need of its replies."""
    given = {key: value for key, value in request.params.items() if value is not None}
    if "max_completion_tokens" in given:
        given.setdefault("max_tokens", given["max_completion_tokens"])
    body = {key: value for key, value in given.items() if key in PARAMS}
    schema = _schema(given.get("response_format"))
    if schema is not None:
        body["schema"] = schema
    # `return_progress` calls back between prompt batches, so that a long prompt can be stopped too.
    own = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    return {"max_tokens": MAX_TOKENS, **body, **own, "logprobs": True, "top_logprobs": 1}


def _schema(response_format: Any) -> dict[str, Any] | None:
    match response_format:
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            bounded: dict[str, Any] = _bounded(schema)
            return bounded
        case None | {"type": "text"}:
            return None
    raise CallFailed("bad_request", f"unreadable response_format: {response_format!r}", param="response_format")


def _bounded(schema: Any) -> Any:
    """Return the schema with an end to every text and list that has none: a small model would go on for ever."""
    if isinstance(schema, list):
        return [_bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bounds = {"string": {"maxLength": TEXT_CHARS}, "array": {"maxItems": LIST_ITEMS}}.get(str(schema.get("type")), {})
    return {**bounds, **{key: _bounded(value) for key, value in schema.items()}}


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return the messages as the roles and plain texts that a small model's template knows."""
    if not messages:
        raise CallFailed("bad_request", "messages is empty", param="messages")
    return [{"role": _role(message), "content": _text(message)} for message in messages]


def _role(message: Message) -> str:
    role = message.get("role", "")
    known = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}
    if role not in known:
        raise CallFailed("bad_request", f"unknown role {role!r}", param="messages")
    return known[role]


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        raise CallFailed("bad_request", "the embedded model reads text only, no images or files", param="messages")
    calls = [call["function"] for call in message.get("tool_calls", [])]
    lines = [text_of(message), *(f"Call {call['name']}({call['arguments']})" for call in calls)]
    text = "\n".join(line for line in lines if line)
    if message.get("role") == "tool":
        text = f"Tool result: {text}"
    # A text must not be able to end its own message and begin one in another role.
    return re.sub(r"<\|(\w+)\|>", r"< |\1| >", text)


def completion(
    model: str, chunks: Sequence[Chunk], body: dict[str, Any], ttft_s: float | None, latency_s: float
) -> Completion:
    """Read a finished stream, or fail by name: `context_length`, `bad_request`, `empty`."""
    if "error" in chunks[-1]:
        raise _failed(chunks[-1]["error"])
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    finish_reason = next((choice["finish_reason"] for choice in choices if choice.get("finish_reason")), "stop")
    content = "".join(text_delta(chunk) for chunk in chunks)
    reasoning = "".join(text_delta(chunk, "reasoning_content") for chunk in chunks)
    usage, _ = usage_of(chunks[-1])
    if not content.strip():
        raise CallFailed("empty", "the model wrote nothing", usage=dict(usage) if usage else None)  # type: ignore[arg-type]
    if "schema" in body and finish_reason == "stop":
        _refuse_ignored_schema(content)
    return Completion(
        content=content,
        model=model,
        finish_reason=finish_reason,
        reasoning=reasoning or None,
        usage=usage,
        mean_logprob=_mean_logprob(choices),
        ttft_s=ttft_s,
        latency_s=latency_s,
    )


def _refuse_ignored_schema(content: str) -> None:
    """Fail where llama.cpp could not read the schema: it says nothing and generates without one."""
    try:
        json.loads(content)
    except ValueError as error:
        message = "llama.cpp cannot turn this response_format into a grammar"
        raise CallFailed("bad_request", message, status=400, param="response_format") from error


def text_delta(chunk: Chunk, key: str = "content") -> str:
    """Return the piece of visible text that a chunk brings, or of its `reasoning_content`."""
    return "".join(choice.get("delta", {}).get(key) or "" for choice in chunk.get("choices", []))


def _mean_logprob(choices: Sequence[dict[str, Any]]) -> float | None:
    tokens = [token for choice in choices for token in (choice.get("logprobs") or {}).get("content", [])]
    return sum(token["logprob"] for token in tokens) / len(tokens) if tokens else None


def _failed(error: dict[str, Any]) -> CallFailed:
    if error.get("type") == "exceed_context_size_error":
        return CallFailed(
            "context_length",
            f"the prompt has {error['n_prompt_tokens']} tokens and the embedded model's context {error['n_ctx']};"
            " shorten the question, or let fewer or shorter answers into it",
            status=400,
        )
    return CallFailed("bad_request", f"llama.cpp: {error.get('message', error)}", status=error.get("code"))
