"""Read what OpenAI-compatible endpoints answer: bodies, streams and errors, in all the ways they really come.

Written by hand, because the types of OpenAI's SDK import slowly and are strict where real servers are not. So is the
reader of server-sent events: the glue to a library would be as long, and only data that are JSON are wanted of them.

Source: OpenAI's and OpenRouter's API references; the deviations are those of real servers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fusiontools.errors import CallCode, CallFailed
from fusiontools.llm.completion import Completion, Delta, OnDelta
from fusiontools.llm.failures import excerpt, mask_key, name_failure
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.record.types import ToolCall, Usage

#: Takes a piece of a body.
OnBytes = Callable[[bytes], object]
#: Puts what another API answers into the shape of OpenAI; None is an event that says nothing.
Translate = Callable[[dict[str, Any]], dict[str, Any] | None]

_SHOWN_CHARS = 300
_HTTP_FAILURE = re.compile("[45][0-9][0-9]")
#: What stands for the end that a stream says itself.
_DONE: dict[str, Any] = {}
_LINE_LIMIT_BYTES = 16 * 2**20
_THINK = "<think>"
#: No answer has more tokens; a number beyond is no count.
_MOST_TOKENS = 2**40
#: What reading a value raises that is not of the kind that it must be.
_ILL_FORMED = (AttributeError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


def read_completion(body: bytes, model: str, key: str | None = None, translate: Translate | None = None) -> Completion:
    """Read the body of a plain answer.

    Args:
        key: our key, which no failure's message may repeat.
        translate: for an endpoint that does not speak OpenAI.

    Raises:
        CallFailed: not JSON, an error in a 200, no choices, nothing visible.
    """
    try:
        data = jsonl.loads(body)
    except ValueError:
        shown = excerpt(mask_key(body, key))
        raise CallFailed("bad_response", f"the endpoint did not answer JSON: {shown}", retryable=True) from None
    if not isinstance(data, dict):
        raise CallFailed("bad_response", f"the endpoint did not answer a JSON object: {excerpt(mask_key(body, key))}")
    with _WELL_FORMED:
        data = data if translate is None else translate(data) or {}
        _refuse_error(data, data, key)
        choices = data.get("choices") or []
        if not choices:
            raise CallFailed("empty", "the endpoint answered no choices", retryable=True, **_cost_fields(data))
        _refuse_error(choices[0], data, key)
        message = choices[0].get("message") or {}
        return _completion_of(
            content=_text(message.get("content")),
            reasoning=message.get("reasoning_content") or message.get("reasoning"),
            refusal=message.get("refusal"),
            proposed=message.get("tool_calls") or [],
            finish_reason=choices[0].get("finish_reason"),
            data=data,
            model=model,
        )


async def read_stream(
    each: Callable[[OnBytes], Awaitable[None]],
    model: str,
    on_delta: OnDelta,
    started: float,
    key: str | None = None,
    translate: Translate | None = None,
) -> Completion:
    """Read a server-sent event stream of chat completion chunks, handing on each piece of visible text.

    Comments, keep-alives, empty choices and a missing `[DONE]` are fine; a stream that ends without a finish reason
    was cut off. What is handed on is, joined, the completion's content.
    """
    reply, events = _Reply(key), _EventReader(key)
    ttft_s: float | None = None

    def take(piece: bytes) -> None:
        nonlocal ttft_s
        for event in events.feed(piece):
            with _WELL_FORMED:
                said = event if translate is None else translate(event)
                deltas = reply.take(said) if said is not None else []
            for delta in deltas:
                if ttft_s is None:
                    ttft_s = round(time.monotonic() - started, 4)
                on_delta(delta)

    await each(take)
    take(b"\n")
    with _WELL_FORMED:
        finished = reply.finish(model, ttft_s)
    if not reply.shown and finished.content:
        on_delta(finished.content)
    return finished


def usage_of(data: Mapping[str, Any]) -> tuple[Usage | None, float | None]:
    """Return the tokens and the cost that an answer reports; tokens written to a cache only where there are any."""
    said = data.get("usage")
    if not isinstance(said, dict):
        return None, None
    usage: Usage = {
        "prompt_tokens": _count(said, "prompt_tokens"),
        "completion_tokens": _count(said, "completion_tokens"),
        "cached_tokens": _count(said.get("prompt_tokens_details"), "cached_tokens"),
        "reasoning_tokens": _count(said.get("completion_tokens_details"), "reasoning_tokens"),
    }
    if written := _count(said.get("prompt_tokens_details"), "cache_write_tokens"):
        usage["cache_write_tokens"] = written
    cost = said.get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or cost < 0:
        return usage, None
    return usage, float(cost)


class _EventReader:
    """One stream's events: bytes in, however they are cut into pieces, objects out.

    A line break after the last piece brings out a last line that had none.

    Args:
        key: our key, which no failure's message may repeat.
    """

    def __init__(self, key: str | None) -> None:
        self._key = key
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yield the JSON of each `data:` line that is whole by now, and `_DONE` for the end that a stream says itself.

        Raises:
            CallFailed: no JSON, or a line without an end; what stands before it has been yielded.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LINE_LIMIT_BYTES:
            raise CallFailed("bad_response", f"a line of the stream is longer than {_LINE_LIMIT_BYTES >> 20} MiB")
        for line in lines:
            if line.startswith(b"data:") and (event := self._read(line[5:].strip())) is not None:
                yield event

    def _read(self, data: bytes) -> dict[str, Any] | None:
        if not data:
            return None
        if data == b"[DONE]":
            return _DONE
        try:
            event = jsonl.loads(data)
        except ValueError:
            shown = excerpt(mask_key(data, self._key))
            raise CallFailed("bad_response", f"the stream holds no JSON: {shown}") from None
        return event if isinstance(event, dict) else None


class _Reply:
    """A streamed answer as far as it has come."""

    def __init__(self, key: str | None) -> None:
        self.shown = self.called = False
        self._key = key
        self._content: list[str] = []
        self._held = ""
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, Any] = {}
        self._finish_reason: str | None = None
        self._data: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> list[Delta]:
        """Add an event; returns what it brings of the visible answer: text, pieces of tool calls."""
        if event is _DONE:
            # Some servers give no other sign that the answer is complete.
            self._finish_reason = self._finish_reason or "stop"
        if usage := event.get("usage"):
            self._data["usage"] = usage
        _refuse_error(event, self._data, self._key, shown=self.shown or self.called)
        self._data.setdefault("model", event.get("model"))
        if not (choices := event.get("choices")):
            return []
        choice = choices[0]
        _refuse_error(choice, self._data, self._key, shown=self.shown or self.called)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return self._add(choice.get("delta") or {})

    def _add(self, delta: dict[str, Any]) -> list[Delta]:
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self._reasoning.append(thought)
        if refusal := delta.get("refusal"):
            self._refusal.append(refusal)
        brought: list[Delta] = []
        if text := _text(delta.get("content")):
            self._content.append(text)
            if visible := text if self.shown else self._visible_part(text):
                brought.append(visible)
        if (proposed := delta.get("tool_calls")) and (pieces := _merge_calls(self._tool_calls, proposed)):
            self.called = True
            brought.append(pieces)
        return brought

    def finish(self, model: str, ttft_s: float | None) -> Completion:
        """Return the completion, or fail by name where there is none."""
        if self._finish_reason is None:
            raise CallFailed(
                "connection",
                "the stream ended before the answer did",
                retryable=not (self.shown or self.called),
                **_cost_fields(self._data),
            )
        return _completion_of(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            proposed=[self._tool_calls[index] for index in sorted(self._tool_calls)],
            finish_reason=self._finish_reason,
            data=self._data,
            model=model,
            ttft_s=ttft_s,
        )

    def _visible_part(self, text: str) -> str:
        """Return what of the text is no thought; a beginning that may still become `<think>` is held back."""
        self._held += text
        visible = "" if _THINK.startswith(self._held.lstrip()) else _without_thought(self._held)[0]
        self.shown = bool(visible)
        return visible


class _WellFormed:
    """Fails by name where a value is not of the kind that it must be: what an endpoint sends is not ours to trust."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, _ILL_FORMED):
            what = "a value in it is not of the kind that it must be"
            raise CallFailed("bad_response", f"the endpoint's answer cannot be read: {what}") from error


_WELL_FORMED = _WellFormed()


def _completion_of(
    *,
    content: str,
    reasoning: str | None,
    refusal: str | None,
    proposed: list[Any],
    finish_reason: str | None,
    data: dict[str, Any],
    model: str,
    ttft_s: float | None = None,
) -> Completion:
    """Return the completion, or fail by name where nothing visible came."""
    content, thought = _without_thought(content)
    calls = [_read_call(call, index) for index, call in enumerate(proposed)]
    usage, cost = usage_of(data)
    if finish_reason == "error":
        raise CallFailed(
            "upstream", "the endpoint broke the answer off", retryable=ttft_s is None, **_cost_fields(data)
        )
    # What a model wrote before it refused is no answer.
    if finish_reason == "refusal" or (not content.strip() and not calls):
        raise CallFailed(*_why_nothing(refusal, finish_reason, bool(reasoning or thought)), **_cost_fields(data))
    return Completion(
        content=content,
        model=str(data.get("model") or model),
        finish_reason=str(finish_reason or "stop"),
        tool_calls=calls,
        reasoning=reasoning or thought or None,
        usage=usage,
        cost_usd=cost,
        ttft_s=ttft_s,
    )


def _why_nothing(refusal: str | None, finish_reason: str | None, reasoned: bool) -> tuple[CallCode, str]:
    if refusal:
        return "refused", f"the model refused: {refusal[:_SHOWN_CHARS]}"
    if finish_reason == "content_filter":
        return "refused", "the endpoint's content filter took the whole answer"
    if finish_reason == "length":
        spent = "thinking" if reasoned else "nothing visible"
        return "truncated", f"max_tokens went into {spent}: no answer was left; raise max_tokens"
    return "empty", "the model answered nothing"


def _refuse_error(holder: Mapping[str, Any], data: Mapping[str, Any], key: str | None, *, shown: bool = False) -> None:
    """Fail on an error object in a 200, in a choice or in a stream.

    Once text was shown it cannot be asked for again, and what it cost is no longer nothing.
    """
    error = holder.get("error")
    if not error:
        return
    code = error.get("code") if isinstance(error, dict) else holder.get("code")
    # Some servers write the number as text.
    status = int(code) if isinstance(code, int | str) and _HTTP_FAILURE.fullmatch(str(code)) else 502
    failed = name_failure(status, {"code": code, "error": error}, {}, key)
    failed.usage, failed.cost_usd = usage_of(data)  # type: ignore[assignment]
    if shown:
        failed.retryable, failed.status = False, None
    raise failed


def _cost_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    usage, cost = usage_of(data)
    return {"usage": usage, "cost_usd": cost}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def _without_thought(content: str) -> tuple[str, str]:
    """Split off a leading `<think>` block, as servers of open reasoning models leave it in the text."""
    stripped = content.lstrip()
    if not stripped.startswith(_THINK):
        return content, ""
    thought, closed, rest = stripped.removeprefix(_THINK).partition("</think>")
    return (rest.lstrip(), thought) if closed else ("", thought)


def _read_call(call: Mapping[str, Any], index: int) -> ToolCall:
    """Return a call as it stands on the wire, with an id and arguments where a server leaves them out."""
    function = call.get("function") or {}
    if not isinstance(function.get("name") or "", str) or not isinstance(call.get("id") or "", str):
        raise TypeError("a tool call's id and name are text")
    return {
        "id": call.get("id") or f"call_{index}",
        "type": "function",
        "function": {"name": function.get("name") or "", "arguments": _arguments_text(function) or "{}"},
    }


def _merge_calls(calls: dict[int, Any], deltas: list[Any]) -> list[dict[str, Any]]:
    """Add a stream's pieces to the calls so far, by index; a piece without one belongs to the latest call.

    Returns:
        The pieces as OpenAI spells them: `index` on each, `id` and `type` on the first of each call.
    """
    pieces: list[dict[str, Any]] = []
    for delta in deltas:
        index = delta.get("index")
        if index is None:
            index = len(calls) if delta.get("id") or not calls else max(calls)
        function = delta.get("function") or {}
        name, arguments = function.get("name") or "", _arguments_text(function)
        call = calls.get(index)
        if call is None:
            call = calls[index] = {"id": delta.get("id") or f"call_{index}", "function": {"name": "", "arguments": ""}}
            first = {"name": name, "arguments": arguments}
            pieces.append({"index": index, "id": call["id"], "type": "function", "function": first})
        else:
            more = {"name": name} if name else {}
            pieces.append({"index": index, "function": {**more, "arguments": arguments}})
        call["function"]["name"] += name
        call["function"]["arguments"] += arguments
    return pieces


def _arguments_text(function: Mapping[str, Any]) -> str:
    """Return a call's arguments as JSON text, which some servers send as the object itself."""
    said = function.get("arguments")
    return said if isinstance(said, str) else "" if said is None else jsonl.dumps(said).decode()


def _count(said: Any, name: str) -> int:
    value = said.get(name) if isinstance(said, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < _MOST_TOKENS else 0
