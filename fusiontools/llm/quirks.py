"""What an endpoint turned out not to understand, and how to say it so that it does.

Nothing is known beforehand: a refusal that names a parameter teaches one lesson, the same request goes out again
without it, and the lesson holds for that endpoint and model as long as the process lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.llm.completion import CompletionRequest
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message

#: Parameters that may be left out when an endpoint refuses them; the answer changes little, the call goes through.
_DROPPABLE = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "reasoning_effort",
    "parallel_tool_calls",
    "repeat_penalty",
    "stream_options",
    "stop",
)

#: How strict endpoints and chat templates say that there may be one system message only, and only as the first.
_OF_THE_FIRST = (
    "system message must be at the beginning",
    "'system' message can only appear at index 0",
    "unexpected role 'system' after",
    "incorrect role system",
    "only one system",
)
#: How they say that the user and the assistant must take turns; what rules them may stand before that only.
_OF_TURNS = ("roles must alternate", "roles should be alternating")
#: How a chat template refuses a role that it has never heard of: without its name.
_OF_A_ROLE = "unexpected message role"
_RULING = ("system", "developer")
_REFUSALS = (400, 404, 415, 422, 501)

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
        system_anywhere: system messages stand where they are; else all of them are the first message.
        same_role_twice: messages of one role may follow each other; else those of the user are one.
    """

    marks_cache: bool = False
    max_tokens_name: str = "max_tokens"
    developer_role: bool = True
    system_anywhere: bool = True
    same_role_twice: bool = True
    format_rung: int = 0
    dropped: set[str] = field(default_factory=set)

    def body(self, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
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

    def learn(self, failure: CallFailed, request: CompletionRequest, body: dict[str, Any]) -> bool:
        """Take the lesson of a refusal; returns whether the request would now go out differently.

        Another call under way may have learned it already: then there is nothing new in it. Nothing is ever unlearned,
        so an endpoint that refuses everything is soon believed.
        """
        if failure.code == "context_length" or not (failure.status in _REFUSALS or _is_of_a_template(failure)):
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
        elif _OF_A_ROLE in said:
            self.developer_role = False
        elif any(words in said for words in _OF_THE_FIRST):
            self.system_anywhere = False
        elif any(words in said for words in _OF_TURNS):
            self.system_anywhere = self.same_role_twice = False
        elif refused := next((name for name in _DROPPABLE if name in body and name in said), None):
            self.dropped.add(refused)

    def _format(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        if self.format_rung == 0 or (self.format_rung == 1 and asked.get("type") == "json_object"):
            return asked
        return {"type": "json_object"} if self.format_rung == 1 else None

    def _messages(self, request: CompletionRequest) -> list[Message]:
        messages = request.messages
        if self.marks_cache and request.cached_messages:
            messages = _marked(messages, request.cached_messages)
        if not self.system_anywhere:
            messages = _system_first(messages)
        elif not self.developer_role and any(m.get("role") == "developer" for m in messages):
            messages = merge_system([{**m, "role": "system"} if m.get("role") == "developer" else m for m in messages])
        return list(messages) if self.same_role_twice else _one_user_turn(messages)


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with leading system messages joined into one: many servers take only one, and only first."""
    leading = 0
    while leading < len(messages) and messages[leading].get("role") == "system":
        leading += 1
    if leading < 2:
        return list(messages)
    joined = "\n\n".join(text_of(m) for m in messages[:leading])
    return [{"role": "system", "content": joined}, *messages[leading:]]


def _is_of_a_template(failure: CallFailed) -> bool:
    """Return whether this is the refusal of a chat template, which llama.cpp and Ollama call a failure of their own."""
    said = failure.message.lower()
    return failure.status == 500 and any(words in said for words in (*_OF_THE_FIRST, *_OF_TURNS, _OF_A_ROLE))


def _system_first(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with all system and developer messages joined into the first one."""
    ruling = [text_of(m) for m in messages if m.get("role") in _RULING]
    others = [m for m in messages if m.get("role") not in _RULING]
    return [{"role": "system", "content": "\n\n".join(ruling)}, *others] if ruling else others


def _one_user_turn(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with those of the user that follow each other joined into one."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if message.get("role") == "user" == last.get("role"):
            joined[-1] = {**last, "content": _both(last.get("content"), message.get("content"))}
        else:
            joined.append(message)
    return joined


def _both(first: Any, second: Any) -> Any:
    """Return two contents as one: a text where both are texts, else parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _marked(messages: Sequence[Message], shared: int) -> list[Message]:
    """Return the messages with a mark on the last text among the first `shared` ones; only text parts carry one."""
    marked = list(messages)
    for i in range(min(shared, len(messages)) - 1, -1, -1):
        content = messages[i].get("content")
        parts = _parts(content)
        for j in range(len(parts) - 1, -1, -1):
            if parts[j].get("type") == "text" and parts[j].get("text"):
                parts[j] = {**parts[j], "cache_control": CACHE_MARK}
                marked[i] = {**messages[i], "content": parts}
                return marked
    return marked


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])
