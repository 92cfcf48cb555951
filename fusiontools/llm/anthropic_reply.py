"""Put what Anthropic's Messages API answers into the shape that `openai_reply` reads: bodies, stream events and errors.

So an answer is finished, refused, truncated or empty by the same rules, whichever API gave it. Written by hand for the
same reason as that reader: the SDK's types import slowly and are strict where what comes is not.

Source: Anthropic's API reference, "Messages", "Streaming Messages", "Errors" and "Handling stop reasons".
"""

from __future__ import annotations

from typing import Any

from fusiontools.llm.reasoning_details import detail_of
from fusiontools.record import jsonl

#: What gateways say of the cost beside the tokens.
_COST = ("cost", "is_byok", "cost_details")
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
#: Which field of a block, and of a delta, becomes which of OpenAI's.
_TEXTS = {
    "text": ("text", "content"),
    "text_delta": ("text", "content"),
    "thinking": ("thinking", "reasoning"),
    "thinking_delta": ("thinking", "reasoning"),
}


def chat_completion(data: dict[str, Any]) -> dict[str, Any]:
    """Return a plain answer as a chat completion; an error in a 200 as one, too."""
    if data.get("error") or "content" not in data:
        return _error(data)
    texts: dict[str, list[str]] = {"content": [], "reasoning": []}
    calls, cited, blocks = [], [], data["content"] or []
    for block in blocks:
        kind = block.get("type")
        cited += _cited(block)
        if kind == "tool_use":
            function = {"name": block.get("name"), "arguments": block.get("input") or {}}
            calls.append({"id": block.get("id"), "function": function})
        elif kind in _TEXTS:
            source, target = _TEXTS[kind]
            texts[target].append(block.get(source) or "")
    message: dict[str, Any] = {name: "".join(pieces) for name, pieces in texts.items()}
    message |= {"tool_calls": calls, "refusal": _refusal(data), "annotations": cited}
    if details := [said for i, block in enumerate(blocks) if (said := detail_of(block, i))]:
        message["reasoning_details"] = details
    goes_on = calls or data.get("stop_reason") == "pause_turn"
    if goes_on and any(block.get("type") not in ("text", "tool_use") for block in blocks):
        # Thoughts are signed, and what its own tools gave is sealed: both come back as they are, or not at all.
        message["native"] = blocks
    choice = {
        "message": message,
        "finish_reason": data.get("stop_reason") or "end_turn",
    }
    return {
        "model": data.get("model"),
        "choices": [choice],
        "usage": _usage(said if isinstance(said := data.get("usage"), dict) else {}),
    }


def _cited(block: dict[str, Any]) -> list[Any]:
    """Return what a block cites, or a search of the API's own found."""
    if block.get("type") == "web_search_tool_result":
        found = block.get("content")
        return found if isinstance(found, list) else []
    return block.get("citations") or []


_EVENTS = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
)


class EventTranslator:
    """One stream's events, each as a chunk of a chat completion, or None where it says nothing; a whole message too.

    The finish comes with `message_stop`: a stream that ends without it was cut off. The tokens come with
    `message_delta`: those of `message_start` leave out what is written after it, and would pass for the whole.
    """

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self._stopped: dict[str, Any] = {}
        #: By index, the tool calls so far; the input that came with the start, until a piece of it comes.
        self._inputs: dict[int, str] = {}
        #: By index, the thoughts so far.
        self._thoughts: dict[int, dict[str, str]] = {}

    def __call__(self, event: dict[str, Any]) -> dict[str, Any] | None:
        kind = event.get("type")
        # Only events that are named here: what an endpoint sends must not choose among our methods.
        if kind in _EVENTS:
            return getattr(self, f"_{kind}")(event)  # type: ignore[no-any-return]
        return chat_completion(event) if kind == "message" or "content" in event or event.get("error") else None

    def _message_start(self, event: dict[str, Any]) -> dict[str, Any]:
        message = event["message"]
        self._count(message.get("usage"))
        return {"model": message.get("model")}

    def _content_block_start(self, event: dict[str, Any]) -> dict[str, Any] | None:
        block = event["content_block"]
        if cited := _cited(block):
            return {"choices": [{"delta": {"annotations": cited}}]}
        if block.get("type") in ("thinking", "redacted_thinking"):
            self._thoughts[event["index"]] = dict(block)
        if block.get("type") != "tool_use":
            return _text_chunk(block)
        index = event["index"]
        self._inputs[index] = jsonl.dumps(block["input"]).decode() if block.get("input") else ""
        return _call_chunk(index, "", id=block.get("id"), name=block.get("name"))

    def _content_block_delta(self, event: dict[str, Any]) -> dict[str, Any] | None:
        delta = event["delta"]
        if delta.get("type") == "citations_delta":
            return {"choices": [{"delta": {"annotations": [delta.get("citation")]}}]}
        if thought := self._thoughts.get(event["index"]):
            for name in ("thinking", "signature"):
                thought[name] = (thought.get(name) or "") + (delta.get(name) or "")
        if delta.get("type") != "input_json_delta":
            return _text_chunk(delta)
        index, piece = event["index"], delta.get("partial_json")
        if not piece or index not in self._inputs:
            return None
        self._inputs[index] = ""
        return _call_chunk(index, piece)

    def _content_block_stop(self, event: dict[str, Any]) -> dict[str, Any] | None:
        if detail := detail_of(self._thoughts.pop(event["index"], {}), event["index"]):
            return {"choices": [{"delta": {"reasoning_details": [detail]}}]}
        given = self._inputs.get(event["index"])
        return _call_chunk(event["index"], given) if given else None

    def _message_delta(self, event: dict[str, Any]) -> dict[str, Any]:
        self._stopped.update(event.get("delta") or {})
        self._count(event.get("usage"))
        return {"usage": _usage(self._usage)}

    def _message_stop(self, _: dict[str, Any]) -> dict[str, Any]:
        finish = self._stopped.get("stop_reason") or "end_turn"
        return {"choices": [{"delta": {"refusal": _refusal(self._stopped)}, "finish_reason": finish}]}

    def _error(self, event: dict[str, Any]) -> dict[str, Any]:
        return _error(event)

    def _count(self, said: dict[str, Any] | None) -> None:
        """Take note of tokens: every count is of the whole message until now, and null where nothing has changed."""
        if isinstance(said, dict):
            self._usage.update({name: count for name, count in said.items() if count is not None})


def _text_chunk(said: dict[str, Any]) -> dict[str, Any] | None:
    source, target = _TEXTS.get(said.get("type") or "", ("", ""))
    text = said.get(source)
    return {"choices": [{"delta": {target: text}}]} if text else None


def _call_chunk(index: int, arguments: str, *, id: str | None = None, name: str | None = None) -> dict[str, Any]:  # noqa: A002
    call = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"delta": {"tool_calls": [call]}}]}


def _usage(said: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens as OpenAI counts them: what was read from a cache or written to it is part of the prompt."""
    read = said.get("cache_read_input_tokens") or 0
    written = said.get("cache_creation_input_tokens") or 0
    parts = (said.get("input_tokens") or 0, read, written)
    details = said.get("output_tokens_details")
    return {
        # What is no count is none of ours to add up: then nobody knows.
        "prompt_tokens": sum(parts) if all(type(part) in (int, float) for part in parts) else None,
        "completion_tokens": said.get("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {
            "reasoning_tokens": details.get("thinking_tokens") if isinstance(details, dict) else None
        },
        **{name: said[name] for name in _COST if name in said},
    }


def _refusal(stopped: dict[str, Any]) -> str | None:
    if stopped.get("stop_reason") != "refusal":
        return None
    details = stopped.get("stop_details") or {}
    return details.get("explanation") or details.get("category") or "it gave no reason"


def _error(data: dict[str, Any]) -> dict[str, Any]:
    """Return an error's envelope with the status that its type has where it comes as a response of its own."""
    error = data.get("error")
    if not isinstance(error, dict):
        return {"error": error} if error else {}
    status = _STATUS.get(error.get("type") or "")
    return {"error": {**error, "code": status}} if status else {"error": error}
