"""Rewrite an OpenAI request's messages and tools: the forms that strict endpoints want, without losing a word."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusiontools.record.sections import text_of

if TYPE_CHECKING:
    from fusiontools.record.types import Message

#: Ends the part of a prompt that the endpoint is asked to keep for the next request.
CACHE_MARK = {"type": "ephemeral"}
#: What the user says where a model does not go on in an assistant's message by itself.
GO_ON = "Go on exactly where you stopped."
#: What travels with a call and must come back with it: Gemini's thought signatures, as endpoints and gateways put them.
SIGNATURES: Mapping[str, type] = {"extra_content": dict, "provider_specific_fields": dict, "thought_signature": str}
#: What Google says to send with a call that another model made: "Thought signatures", in its API's documentation.
_NO_SIGNATURE = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
_RULING = ("system", "developer")
#: Names of tools that every known provider takes.
_PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")


def without_nothings(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages without what says nothing: nulls and empty lists, which strict endpoints refuse.

    Null content stays beside calls, where it belongs; else it is an empty text, as is content that is not there.
    """
    if not any(map(_holds_nothing, messages)):
        return messages
    return [_without_nothing(message) for message in messages]


def without_key(messages: Sequence[Message], key: str) -> list[Message]:
    """Return the messages without one of their keys: thoughts that were given for the next turn."""
    kept: Any = [{name: said for name, said in m.items() if name != key} for m in messages]
    return kept  # type: ignore[no-any-return]


def without_null_content(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with an empty text where content is null."""
    return [{**m, "content": ""} if m.get("content") is None else m for m in messages]


def is_signed(message: Message) -> bool:
    """Return whether a model's signature stands beside one of its calls."""
    calls: list[Any] = message.get("tool_calls") or []
    return any(name in call for call in calls for name in SIGNATURES)


def with_signatures(messages: Sequence[Message], *, given: bool, wanted: bool) -> list[Message]:
    """Return the messages with other signatures beside their calls.

    Args:
        given: those that are there stay.
        wanted: the first call of each turn has one; Google's word stands for it where there is none.
    """
    changed: list[Any] = []
    for message in messages:
        calls: list[Any] = message.get("tool_calls") or []
        if not given:
            calls = [{name: said for name, said in call.items() if name not in SIGNATURES} for call in calls]
        if wanted and calls and not any(name in calls[0] for name in SIGNATURES):
            calls = [{**calls[0], **_NO_SIGNATURE}, *calls[1:]]
        changed.append({**message, "tool_calls": calls} if calls else message)
    return changed


def is_strict(tool: Any) -> bool:
    """Return whether a tool says whether it is `strict`."""
    return "strict" in function_of(tool)


def without_strict(tools: Sequence[Any]) -> list[Any]:
    """Return tools that do not say whether they are `strict`."""
    kept = [{name: said for name, said in function_of(tool).items() if name != "strict"} for tool in tools]
    pairs = zip(tools, kept, strict=True)
    return [{**tool, "function": function} if is_strict(tool) else tool for tool, function in pairs]


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with leading system messages joined into one: many servers take only one, and only first."""
    leading = 0
    while leading < len(messages) and messages[leading].get("role") == "system":
        leading += 1
    if leading < 2:
        return list(messages)
    joined = "\n\n".join(text_of(m) for m in messages[:leading])
    return [{"role": "system", "content": joined}, *messages[leading:]]


def with_system_first(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with all system and developer messages joined into the first one."""
    ruling = [text_of(m) for m in messages if m.get("role") in _RULING]
    others = [m for m in messages if m.get("role") not in _RULING]
    return [{"role": "system", "content": "\n\n".join(ruling)}, *others] if ruling else others


def with_user_joined(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with those of the user that follow each other joined into one."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if message.get("role") == "user" == last.get("role"):
            joined[-1] = {**last, "content": _join_contents(last.get("content"), message.get("content"))}
        else:
            joined.append(message)
    return joined


def with_instruction(messages: Sequence[Message], words: str) -> tuple[list[Message], int]:
    """Return the messages with a further rule at the end of the leading one, and how many messages that makes more."""
    if messages and messages[0].get("role") in _RULING:
        first: Message = {**messages[0], "content": _join_contents(messages[0].get("content"), words)}
        return [first, *messages[1:]], 0
    return [{"role": "system", "content": words}, *messages], 1


def with_user_last(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with a word of the user at the end, where the assistant had the last one."""
    if not messages or messages[-1].get("role") != "assistant" or messages[-1].get("tool_calls"):
        return list(messages)
    return [*messages, {"role": "user", "content": GO_ON}]


def is_text_in_parts(message: Message) -> bool:
    """Return whether the content is a list of nothing but text."""
    content = message.get("content")
    return isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content)


def with_plain_text(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with content that is a list of nothing but text as one text, for every role."""
    return [{**m, "content": text_of(m)} if is_text_in_parts(m) else m for m in messages]


def mark_prefix(messages: Sequence[Message], shared: int) -> list[Message]:
    """Return the messages with a mark on the last text among the first `shared` ones; only text parts carry one."""
    marked = list(messages)
    for i in range(min(shared, len(messages)) - 1, -1, -1):
        parts = _parts(messages[i].get("content"))
        for j in range(len(parts) - 1, -1, -1):
            if parts[j].get("type") == "text" and parts[j].get("text"):
                parts[j] = {**parts[j], "cache_control": CACHE_MARK}
                marked[i] = {**messages[i], "content": parts}
                return marked
    return marked


def short_names(tools: Any) -> dict[str, str]:
    """Return a short, plain name for each tool whose own name a provider may refuse."""
    names = [function_of(tool).get("name") for tool in _items(tools)]
    return {name: _shorten(name) for name in names if isinstance(name, str) and not _PLAIN_NAME.fullmatch(name)}


def rename_tools(body: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the body with its tools, its choice and its history under these names."""
    renamed = {**body, "tools": [_renamed(tool, names) for tool in body["tools"]]}
    if isinstance(body.get("tool_choice"), dict):
        renamed["tool_choice"] = _renamed(body["tool_choice"], names)
    renamed["messages"] = [_with_calls_renamed(message, names) for message in body["messages"]]
    return renamed


def restore_names(calls: Iterable[Any], own: Mapping[str, str]) -> list[Any]:
    """Return calls, or a stream's pieces of calls, under the client's own names.

    Args:
        own: the client's name by the short one.
    """
    return [_renamed(call, own) for call in calls]


def _shorten(name: str) -> str:
    plain = _STRANGE.sub("_", name)[:54]
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{plain}_{digest}" if re.match("[a-zA-Z_]", plain) else f"_{plain}_{digest}"


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def function_of(tool: Any) -> Mapping[str, Any]:
    """Return the function that a tool declares; nothing of what is none."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else {}


def _renamed(holder: Any, names: Mapping[str, str]) -> Any:
    function = function_of(holder)
    name = function.get("name")
    if not isinstance(name, str) or name not in names:
        return holder
    return {**holder, "function": {**function, "name": names[name]}}


def _with_calls_renamed(message: Any, names: Mapping[str, str]) -> Any:
    if calls := _items(message.get("tool_calls")):
        message = {**message, "tool_calls": [_renamed(call, names) for call in calls]}
    if message.get("role") == "tool" and isinstance(message.get("name"), str) and message["name"] in names:
        message = {**message, "name": names[message["name"]]}
    return message


def _holds_nothing(message: Message) -> bool:
    content = message.get("content")
    if content is None or content == [] or None in message.values():
        return True
    parts = [*_items(content), *_items(message.get("tool_calls"))]
    return [] in message.values() or any(isinstance(part, dict) and None in part.values() for part in parts)


def _without_nothing(message: Message) -> Message:
    kept: dict[str, Any] = {}
    for key, value in message.items():
        if key == "content":
            kept[key] = [_without_nulls(part) for part in value] if isinstance(value, list) and value else value or None
        elif isinstance(value, list) and value:
            kept[key] = [_without_nulls(part) for part in value]
        elif value is not None and value != []:
            kept[key] = value
    if kept.get("content") is None and not kept.get("tool_calls"):
        kept["content"] = ""
    return kept  # type: ignore[return-value]


def _without_nulls(part: Any) -> Any:
    return {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else part


def _join_contents(first: Any, second: Any) -> Any:
    """Return two contents as one: a text where both are texts, else parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(_items(content))
