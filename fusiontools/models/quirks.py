"""What an endpoint turned out not to understand, and how to say it so that it does.

Nothing is known beforehand: a refusal that names a parameter teaches one lesson, the same request goes out again
without it, and the lesson holds for that endpoint and model as long as the process lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.models.types import Request
from fusiontools.record import Message
from fusiontools.words import text_of

#: Parameters that may be left out when an endpoint refuses them; the answer changes little, the call goes through.
_DROPPABLE = (
    "temperature",
    "top_p",
    "seed",
    "reasoning_effort",
    "parallel_tool_calls",
    "repeat_penalty",
    "stream_options",
    "stop",
)

#: What no parameter may say: it is the request itself, or how many answers are paid for.
_OURS = frozenset({"model", "messages", "stream", "n"})
#: Ends the part of a prompt that the endpoint is asked to keep for the next request.
CACHE_MARK = {"type": "ephemeral"}


@dataclass(slots=True)
class Quirks:
    """What one endpoint's model needs differently.

    `response_format` goes down a ladder: 0 as asked, 1 `json_object`, 2 left out.

    Args:
        marks_cache: the prefix that requests share is marked, for an endpoint that keeps it.
    """

    marks_cache: bool = False
    max_tokens_name: str = "max_tokens"
    developer_role: bool = True
    format_rung: int = 0
    dropped: set[str] = field(default_factory=set)

    def body(self, request: Request, *, stream: bool) -> dict[str, Any]:
        """Return the JSON body of the request as this endpoint wants it."""
        body: dict[str, Any] = {"model": request.model, "messages": self._messages(request)}
        for name, value in request.params.items():
            if name == "max_tokens":
                body[self.max_tokens_name] = value
            elif name == "response_format":
                if (asked := self._format(value)) is not None:
                    body[name] = asked
            elif name not in self.dropped and name not in _OURS:
                body[name] = value
        if stream:
            body["stream"] = True
            if "stream_options" not in self.dropped:
                body["stream_options"] = {"include_usage": True}
        return body

    def learn(self, failure: CallFailed, request: Request, body: dict[str, Any]) -> bool:
        """Take the lesson of a refusal; returns whether the request would now go out differently.

        Another call under way may have learned it already: then there is nothing new in it. Nothing is ever unlearned,
        so an endpoint that refuses everything is soon believed.
        """
        if failure.status not in (400, 404, 415, 422, 501) or failure.code == "context_length":
            return False
        stream = "stream" in body
        if self.body(request, stream=stream) == body:
            self._take_lesson(failure, body)
        return self.body(request, stream=stream) != body

    def _take_lesson(self, failure: CallFailed, body: dict[str, Any]) -> None:
        said = f"{failure.param or ''} {failure.message}".lower()
        if "response_format" in body and any(w in said for w in ("response_format", "json_schema", "json_object")):
            self.format_rung = 2 if self.format_rung or body["response_format"].get("type") == "json_object" else 1
        elif "max_tokens" in body and "max_completion_tokens" in said:
            self.max_tokens_name = "max_completion_tokens"
        elif "developer" in said and any(m.get("role") == "developer" for m in body["messages"]):
            self.developer_role = False
        elif "cache_control" in said and self.marks_cache:
            self.marks_cache = False
        elif refused := next((name for name in _DROPPABLE if name in body and name in said), None):
            self.dropped.add(refused)

    def _format(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        if self.format_rung == 0 or (self.format_rung == 1 and asked.get("type") == "json_object"):
            return asked
        return {"type": "json_object"} if self.format_rung == 1 else None

    def _messages(self, request: Request) -> list[Message]:
        messages = request.messages
        if self.marks_cache and request.cached_messages:
            messages = _marked(messages, request.cached_messages)
        if self.developer_role or not any(m.get("role") == "developer" for m in messages):
            return list(messages)
        return merge_system([{**m, "role": "system"} if m.get("role") == "developer" else m for m in messages])


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with leading system messages joined into one: many servers take only one, and only first."""
    leading = 0
    while leading < len(messages) and messages[leading].get("role") == "system":
        leading += 1
    if leading < 2:
        return list(messages)
    joined = "\n\n".join(text_of(m) for m in messages[:leading])
    return [{"role": "system", "content": joined}, *messages[leading:]]


def _marked(messages: Sequence[Message], shared: int) -> list[Message]:
    """Return the messages with a mark on the last text among the first `shared` ones; only text parts carry one."""
    marked = list(messages)
    for i in range(min(shared, len(messages)) - 1, -1, -1):
        content = messages[i].get("content")
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}]
        if not isinstance(content, str):
            parts = list(content or [])
        for j in range(len(parts) - 1, -1, -1):
            if parts[j].get("type") == "text" and parts[j].get("text"):
                parts[j] = {**parts[j], "cache_control": CACHE_MARK}
                marked[i] = {**messages[i], "content": parts}
                return marked
    return marked
