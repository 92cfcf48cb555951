"""Read what OpenAI-compatible endpoints answer: bodies, streams and errors, in all the ways they really come.

Source: OpenAI's and OpenRouter's API references; the deviations are those of real servers.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fusiontools import jsonl
from fusiontools.errors import CallFailed
from fusiontools.models.types import Completion, OnDelta
from fusiontools.record import ToolCall, Usage

_RETRYABLE = frozenset({408, 409, 425, 429})
_CODES = {401: "auth", 403: "auth", 402: "payment", 404: "not_found", 408: "timeout", 413: "context_length"}
_SHOWN = 300
#: A shorter key is a placeholder for a server that wants none; masking it would garble words.
_SHORTEST_KEY = 8


def completion(body: bytes, model: str) -> Completion:
    """Read the body of a plain answer.

    Raises:
        CallFailed: not JSON, an error in a 200, no choices, nothing visible.
    """
    try:
        data = jsonl.loads(body)
    except ValueError:
        raise CallFailed(
            "bad_response", f"the endpoint did not answer JSON: {_excerpt(body)}", retryable=True
        ) from None
    if not isinstance(data, dict):
        raise CallFailed("bad_response", f"the endpoint did not answer a JSON object: {_excerpt(body)}")
    _refuse_error(data)
    choices = data.get("choices") or []
    if not choices or not isinstance(choices[0], dict):
        raise CallFailed("empty", "the endpoint answered no choices", retryable=True, **_paid(data))
    message = choices[0].get("message") or {}
    return _finished(
        content=_text(message.get("content")),
        reasoning=message.get("reasoning_content") or message.get("reasoning"),
        refusal=message.get("refusal"),
        tool_calls=message.get("tool_calls") or [],
        finish_reason=choices[0].get("finish_reason"),
        data=data,
        model=model,
    )


async def streamed(chunks: AsyncIterator[bytes], model: str, on_delta: OnDelta, started: float) -> Completion:
    """Read a server-sent event stream of chat completion chunks, handing on each piece of visible text.

    Comments, keep-alives, empty choices and a missing `[DONE]` are fine; a stream that ends without a finish reason
    was cut off.
    """
    content: list[str] = []
    reasoning: list[str] = []
    refusal: list[str] = []
    tool_calls: dict[int, Any] = {}
    finish_reason: str | None = None
    ttft_s: float | None = None
    data: dict[str, Any] = {}
    async for event in _events(chunks):
        _refuse_error(event, shown=bool(content))
        if event.get("usage"):
            data["usage"] = event["usage"]
        data.setdefault("model", event.get("model"))
        for choice in (event.get("choices") or [])[:1]:
            delta = choice.get("delta") or {}
            finish_reason = choice.get("finish_reason") or finish_reason
            reasoning.append(delta.get("reasoning_content") or delta.get("reasoning") or "")
            refusal.append(delta.get("refusal") or "")
            _merge_tool_calls(tool_calls, delta.get("tool_calls") or [])
            if text := _text(delta.get("content")):
                if ttft_s is None:
                    ttft_s = round(time.monotonic() - started, 4)
                content.append(text)
                on_delta(text)
    if finish_reason is None:
        raise CallFailed("connection", "the stream ended before the answer did", retryable=not content, **_paid(data))
    return _finished(
        content="".join(content),
        reasoning="".join(reasoning),
        refusal="".join(refusal),
        tool_calls=[tool_calls[index] for index in sorted(tool_calls)],
        finish_reason=finish_reason,
        data=data,
        model=model,
        ttft_s=ttft_s,
    )


def failure(status: int, body: bytes, headers: Mapping[str, str], key: str | None) -> CallFailed:
    """Read an error response; the endpoint's own words are kept, our key is not."""
    message, param = _error_words(body)
    if key and len(key) >= _SHORTEST_KEY:
        message = message.replace(key, "***")
    code = _CODES.get(status) or ("rate_limited" if status == 429 else "upstream" if status >= 500 else "bad_request")
    if code == "bad_request" and _speaks_of_context(message):
        code = "context_length"
    return CallFailed(
        code,
        f"HTTP {status}: {message}",
        status=status,
        retryable=status in _RETRYABLE or status >= 500,
        retry_after_s=_retry_after(headers),
        param=param,
    )


def usage_of(data: Mapping[str, Any]) -> tuple[Usage | None, float | None]:
    """Return the tokens and the cost that an answer reports."""
    said = data.get("usage")
    if not isinstance(said, dict):
        return None, None
    cached = (said.get("prompt_tokens_details") or {}).get("cached_tokens")
    reasoned = (said.get("completion_tokens_details") or {}).get("reasoning_tokens")
    usage: Usage = {
        "prompt_tokens": int(said.get("prompt_tokens") or 0),
        "completion_tokens": int(said.get("completion_tokens") or 0),
        "cached_tokens": int(cached or 0),
        "reasoning_tokens": int(reasoned or 0),
    }
    cost = said.get("cost")
    return usage, float(cost) if isinstance(cost, int | float) and cost >= 0 else None


def _finished(
    *,
    content: str,
    reasoning: str | None,
    refusal: str | None,
    tool_calls: list[Any],
    finish_reason: str | None,
    data: dict[str, Any],
    model: str,
    ttft_s: float | None = None,
) -> Completion:
    """Return the completion, or fail by name where nothing visible came."""
    content, thought = _without_thought(content)
    calls = [_tool_call(call, index) for index, call in enumerate(tool_calls)]
    usage, cost = usage_of(data)
    if not content.strip() and not calls:
        raise CallFailed(*_why_nothing(refusal, finish_reason, bool(reasoning or thought)), **_paid(data))
    return Completion(
        content=content,
        model=data.get("model") or model,
        finish_reason=finish_reason or "stop",
        tool_calls=calls,
        reasoning=reasoning or thought or None,
        usage=usage,
        cost_usd=cost,
        ttft_s=ttft_s,
    )


def _why_nothing(refusal: str | None, finish_reason: str | None, reasoned: bool) -> tuple[str, str]:
    if refusal:
        return "refused", f"the model refused: {refusal[:_SHOWN]}"
    if finish_reason == "content_filter":
        return "refused", "the endpoint's content filter took the whole answer"
    if finish_reason == "length":
        spent = "thinking" if reasoned else "nothing visible"
        return "truncated", f"max_tokens went into {spent}: no answer was left; raise max_tokens"
    return "empty", "the model answered nothing"


def _refuse_error(data: Mapping[str, Any], *, shown: bool = False) -> None:
    """Fail on an error object in a 200 or in a stream; once text was shown it cannot be asked for again."""
    error = data.get("error")
    if not error:
        return
    message = error.get("message") if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) else 502
    failed = failure(status, jsonl.dumps({"error": {"message": str(message or error)}}), {}, None)
    failed.retryable = failed.retryable and not shown
    raise failed


def _paid(data: Mapping[str, Any]) -> dict[str, Any]:
    usage, cost = usage_of(data)
    return {"usage": usage, "cost_usd": cost}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _without_thought(content: str) -> tuple[str, str]:
    """Split off a leading `<think>` block, as servers of open reasoning models leave it in the text."""
    stripped = content.lstrip()
    if not stripped.startswith("<think>"):
        return content, ""
    thought, closed, rest = stripped.removeprefix("<think>").partition("</think>")
    return (rest.lstrip(), thought) if closed else ("", thought)


def _tool_call(call: Mapping[str, Any], index: int) -> ToolCall:
    function = call.get("function") or {}
    return {
        "id": call.get("id") or f"call_{index}",
        "type": "function",
        "function": {"name": function.get("name") or "", "arguments": function.get("arguments") or "{}"},
    }


def _merge_tool_calls(calls: dict[int, Any], deltas: list[Any]) -> None:
    for delta in deltas:
        call = calls.setdefault(delta.get("index", len(calls)), {"function": {"name": "", "arguments": ""}})
        if delta.get("id"):
            call["id"] = delta["id"]
        function = delta.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each `data:` line."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if (event := _event(line)) is not None:
                yield event
    if (event := _event(rest)) is not None:
        yield event


def _event(line: bytes) -> dict[str, Any] | None:
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or not data or data == b"[DONE]":
        return None
    try:
        event = jsonl.loads(data)
    except ValueError:
        raise CallFailed("bad_response", f"the stream holds no JSON: {_excerpt(data)}") from None
    return event if isinstance(event, dict) else None


def _error_words(body: bytes) -> tuple[str, str | None]:
    """Return what an error body says, and the parameter it names."""
    try:
        data = jsonl.loads(body)
    except ValueError:
        return _excerpt(body), None
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return str(error)[:_SHOWN], None
    message = error.get("message") or error.get("detail") or error
    raw = (error.get("metadata") or {}).get("raw") if isinstance(error.get("metadata"), dict) else None
    words = f"{message} ({raw})" if raw else str(message)
    return words[:_SHOWN], error.get("param") if isinstance(error.get("param"), str) else None


def _excerpt(body: bytes) -> str:
    """Return the start of a body for a person: the text of a page, not its tags."""
    import re

    text = body[:4000].decode("utf-8", "replace")
    if "<" in text:
        text = re.sub(r"<(script|style)\b.*?(</\1>|$)|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(text.split())[:_SHOWN] or "an empty body"


def _speaks_of_context(message: str) -> bool:
    said = message.lower()
    return "context length" in said or "context_length" in said or "context size" in said or "too many tokens" in said


def _retry_after(headers: Mapping[str, str]) -> float | None:
    if (ms := headers.get("retry-after-ms")) and ms.replace(".", "", 1).isdigit():
        return float(ms) / 1000
    said = headers.get("retry-after")
    if not said:
        return None
    if said.replace(".", "", 1).isdigit():
        return float(said)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None
