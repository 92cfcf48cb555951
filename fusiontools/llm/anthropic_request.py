"""Put OpenAI's messages, files and JSON schemas into the form of Anthropic's Messages API, by its rules of order.

- Leading system and developer messages are the `system` blocks. One in the middle stands behind the user turn that it
  follows or interrupts, as a `system` turn; where the model refuses those, or where the API allows none (an assistant
  message has the last word), it joins the leading ones in order.
- Messages of one role that follow each other are one turn. The results of tools are the user's and come first.
- The user opens: with a word where nobody else does.
- Text that is empty or white space is left out, and so is a turn with nothing in it; `name`s are left out.
- The ids of tool calls are spelled in the API's alphabet, and each is used once: many servers count from `call_0` in
  every turn.
- Thoughts that a model of theirs signed, or encrypted, open the turn that they led to; all others are left out.
- Images and documents go by URL or as base64. What the API does not take fails as `bad_request`, unsent.
- Every object of a schema is closed; bounds on numbers, lengths and counts are left out, as Anthropic's own libraries
  do: they say less about the answer's shape than about its values, which whoever asked checks anyway.

Written by hand, because the SDK's types are pydantic models that import slowly, and what is hard is the order.

Source: Anthropic's API reference, "Messages", "Tool use", "Vision", "PDF support", "Mid-conversation system messages",
"Structured outputs" ("JSON Schema limitations").
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from fusiontools.errors import CallFailed
from fusiontools.llm.reasoning_details import block_of
from fusiontools.llm.rewrite import GO_ON
from fusiontools.record import jsonl
from fusiontools.record.types import Message, ToolCall

Block = dict[str, Any]
_OPENING = "Begin."
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
#: Blocks of the API's own that travel as they are.
_NATIVE = ("image", "document", "search_result")
_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")
_BOUNDS_TEXT = """
minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems minProperties
maxProperties contains minContains maxContains $schema $id examples
"""
#: Without these a schema means something else.
_INEXPRESSIBLE_TEXT = """
patternProperties propertyNames unevaluatedProperties dependentSchemas dependentRequired prefixItems not if then else
oneOf $dynamicRef
"""
_FORMATS_TEXT = "date-time time date duration email hostname uri ipv4 ipv6 uuid"
_BOUNDS, _INEXPRESSIBLE, _FORMATS = (
    frozenset(text.split()) for text in (_BOUNDS_TEXT, _INEXPRESSIBLE_TEXT, _FORMATS_TEXT)
)
_TABLES = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")


class Conversation:
    """A conversation as the API takes it.

    Args:
        messages: OpenAI chat messages.
        shared: how many leading messages other requests have, too.
        system_turns: whether the model takes a system message in the middle.
        thoughts: whether it takes the thoughts of earlier turns.

    Attributes:
        system: the blocks of `system`.
        turns: `messages`.
        shared_ends: the blocks with which the shared part of `system` and of `messages` ends.
    """

    def __init__(self, messages: Sequence[Message], shared: int, *, system_turns: bool, thoughts: bool = True) -> None:
        self.system: list[Block] = []
        self.turns: list[dict[str, Any]] = []
        self.shared_ends: list[Block] = []
        self._system_turns, self._thoughts = system_turns, thoughts
        self._waiting: list[Block] = []
        #: The id that stands for the latest call with this id; and all that are taken.
        self._ids: dict[str, str] = {}
        self._taken: set[str] = set()
        for i, message in enumerate(messages):
            try:
                self._add(message)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise bad_request(f"message {i} cannot be read: {error}") from error
            if i + 1 == min(shared, len(messages)):
                self.shared_ends = [blocks[-1] for blocks in (self.system, self._last_blocks()) if blocks]
        self._end_user_turn()
        self.system += self._waiting
        if not self.turns:
            self._turn("user").append(_text_block(_OPENING))

    @property
    def after_tools(self) -> bool:
        """Whether the user's last turn brings results of tools, and the thoughts that led to them are not there."""
        *before, turn = [turn for turn in self.turns if turn["role"] != "system"]
        if before and before[-1]["content"][0]["type"] in ("thinking", "redacted_thinking"):
            return False
        return any(block["type"] == "tool_result" for block in turn["content"])

    def end_with_user(self) -> None:
        """Let the user speak last, for models that do not go on in an assistant's turn."""
        if self.turns[-1]["role"] == "assistant":
            self._turn("user").append(_text_block(GO_ON))

    def end_cleanly(self) -> None:
        """Strip white space from the end of an assistant's turn that is to be gone on with."""
        if self.turns[-1]["role"] == "assistant" and (last := self._last_blocks()[-1])["type"] == "text":
            last["text"] = last["text"].rstrip()

    def _add(self, message: Message) -> None:
        role = message.get("role")
        if role in ("system", "developer"):
            to = self._waiting if self.turns and self._system_turns else self.system
            to += _blocks(message, text_only=True)
        elif role == "user":
            self._add_blocks("user", _blocks(message))
        elif role == "assistant" and (native := cast(Any, message).get("native")):
            self._add_blocks("assistant", [dict(block) for block in native])
            for call in message.get("tool_calls") or []:
                self._ids[call.get("id") or ""] = call.get("id") or ""
                self._taken.add(call.get("id") or "")
        elif role == "assistant":
            said = _blocks(message, text_only=True)
            refusal: Any = message.get("refusal")
            said += [_text_block(refusal)] if refusal and not said else []
            said += [self._tool_use(call) for call in message.get("tool_calls") or []]
            self._add_blocks("assistant", (self._thought(message) if said else []) + said)
        elif role == "tool":
            blocks = self._turn("user")
            first = next((i for i, block in enumerate(blocks) if block["type"] != "tool_result"), len(blocks))
            blocks.insert(first, self._tool_result(message))
        else:
            raise bad_request(f"a message of role {role!r} has no place in Anthropic's API")

    def _thought(self, message: Message) -> list[Block]:
        details: Any = (message.get("reasoning_details") or []) if self._thoughts else []
        return [block for detail in details if (block := block_of(detail))]

    def _add_blocks(self, role: str, blocks: list[Block]) -> None:
        if blocks:
            self._turn(role).extend(blocks)

    def _turn(self, role: str) -> list[Block]:
        """Return the blocks of this role's turn: the present one, or a new one."""
        if not self.turns and role == "assistant":
            self._turn("user").append(_text_block(_OPENING))
        if not self.turns or self.turns[-1]["role"] != role:
            self._end_user_turn()
            self.turns.append({"role": role, "content": []})
        blocks: list[Block] = self.turns[-1]["content"]
        return blocks

    def _end_user_turn(self) -> None:
        if self._waiting and self.turns[-1]["role"] == "user":
            self.turns.append({"role": "system", "content": self._waiting})
            self._waiting = []

    def _last_blocks(self) -> list[Block]:
        return self.turns[-1]["content"] if self.turns else []

    def _tool_use(self, call: ToolCall) -> Block:
        function = call["function"]
        given = call.get("id") or ""
        own = unique = _plain_name(given)
        count = 1
        while unique in self._taken:
            count += 1
            unique = f"{own}_{count}"
        self._taken.add(unique)
        self._ids[given] = unique
        arguments = arguments_object(function.get("arguments"))
        return {"type": "tool_use", "id": unique, "name": _plain_name(function["name"]), "input": arguments}

    def _tool_result(self, message: Message) -> Block:
        given = message.get("tool_call_id") or ""
        result: Block = {"type": "tool_result", "tool_use_id": self._ids.get(given) or _plain_name(given)}
        if content := _blocks(message):
            result["content"] = content
        return result


def close_schema(schema: Any) -> dict[str, Any] | None:
    """Return the schema as structured outputs take it; None where they cannot say what it says."""
    try:
        _refuse_circles(schema, schema, (), set())
        return _close(schema)
    except (AttributeError, TypeError, ValueError):
        return None


def arguments_object(said: Any) -> dict[str, Any]:
    """Return a call's arguments as the object that the API wants, whatever a model once wrote."""
    said = said or "{}"
    try:
        given = jsonl.loads(said) if isinstance(said, str) else said
    except ValueError:
        given = said
    return given if isinstance(given, dict) else {"arguments": given}


def bad_request(why: str) -> CallFailed:
    """Return the failure of a request that the API would refuse; nothing was sent, so it costs nothing."""
    return CallFailed("bad_request", why, status=400)


def _plain_name(name: str) -> str:
    """Return a name or an id in the alphabet that the API takes."""
    return _STRANGE.sub("_", name) or "_"


def _blocks(message: Message, *, text_only: bool = False) -> list[Block]:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return [_text_block(content)] if content and content.strip() else []
    blocks = []
    for part in content:
        block = _block(part)
        if text_only and block["type"] != "text":
            raise bad_request(f"Anthropic's API takes no {part['type']!r} part in a {message['role']} message")
        if block["type"] != "text" or block["text"].strip():
            blocks.append(block)
    return blocks


def _block(part: dict[str, Any]) -> Block:
    kind = part["type"]
    if kind in ("text", "input_text", "output_text"):
        return _text_block(part["text"])
    if kind == "refusal":
        return _text_block(part["refusal"])
    try:
        if kind in ("image_url", "input_image"):
            said = part["image_url"]
            return _image_block(said if isinstance(said, str) else said["url"])
        if kind in ("file", "input_file"):
            return _document_block(part.get("file") or part)
    except ValueError as error:
        raise bad_request(f"this {kind!r} part cannot be sent to Anthropic's API: {error}") from error
    if kind in _NATIVE:
        return {name: value for name, value in part.items() if name != "cache_control"}
    raise bad_request(f"Anthropic's API takes no {kind!r} part")


def _text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def _image_block(url: str) -> dict[str, Any]:
    """Return an image block.

    Raises:
        ValueError: neither a web address nor a data URL of a kind that the API takes.
    """
    if _on_the_web(url):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(url)
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        raise ValueError(f"{media_type or 'no media type'} is none of {', '.join(_IMAGES)}")
    return {"type": "image", "source": _base64_source(media_type, data)}


def _document_block(file: dict[str, Any]) -> dict[str, Any]:
    """Return a document block: a PDF or plain text.

    Raises:
        ValueError: a file that only another endpoint holds, or of a kind that the API does not take.
    """
    data = file.get("file_data") or file.get("file_url")
    if not data:
        raise ValueError("a file's data must stand in the message; an id is known to the endpoint that gave it only")
    block = {"type": "document", "source": _document_source(data)}
    return {**block, "title": file["filename"]} if file.get("filename") else block


def _document_source(data: str) -> dict[str, Any]:
    if _on_the_web(data):
        return {"type": "url", "url": data}
    # OpenAI takes a PDF's bare base64, too.
    media_type, data = _data_url(data) if data.startswith("data:") else ("application/pdf", data)
    if media_type == "application/pdf":
        return _base64_source(media_type, data)
    if not media_type.startswith("text/"):
        raise ValueError(f"{media_type or 'no media type'} is neither a PDF nor text")
    return {"type": "text", "media_type": "text/plain", "data": base64.b64decode(data).decode()}


def _base64_source(media_type: str, data: str) -> dict[str, Any]:
    base64.b64decode(data, validate=True)
    return {"type": "base64", "media_type": media_type, "data": data}


def _on_the_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _data_url(url: str) -> tuple[str, str]:
    """Return the media type and the base64 of a data URL (RFC 2397)."""
    head, comma, data = url.removeprefix("data:").partition(",")
    if not url.startswith("data:") or not comma:
        raise ValueError(f"{url[:40]!r} is neither a web address nor a data URL")
    media_type = head.partition(";")[0].strip().lower()
    content = unquote_to_bytes(data)
    if not head.endswith(";base64"):
        content = base64.b64encode(content)
    return media_type, b"".join(content.split()).decode("ascii")


def _close(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict) or not schema or _INEXPRESSIBLE & schema.keys():
        raise ValueError
    kept = {name: value for name, value in schema.items() if name not in _BOUNDS}
    for table in _TABLES:
        if table in kept:
            kept[table] = {name: _close(value) for name, value in kept[table].items()}
    for several in _LISTS:
        if several in kept:
            kept[several] = [_close(value) for value in kept[several]]
    if "items" in kept:
        kept["items"] = _close(kept["items"])
    if kept.get("minItems", 0) not in (0, 1):
        del kept["minItems"]
    if kept.get("format") not in {None, *_FORMATS}:
        del kept["format"]
    kind = kept.get("type")
    if kind == "object" or "properties" in kept or (isinstance(kind, list) and "object" in kind):
        if not kept.get("properties") or isinstance(kept.get("additionalProperties"), dict):
            # An object whose keys nobody names cannot be asked for.
            raise ValueError
        kept["additionalProperties"] = False
    return kept


def _refuse_circles(schema: Any, root: Any, path: tuple[str, ...], sound: set[str]) -> None:
    """Raise `ValueError` where a schema holds itself, or points out of itself."""
    if isinstance(schema, list):
        for value in schema:
            _refuse_circles(value, root, path, sound)
    if not isinstance(schema, dict):
        return
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref not in sound:
        if ref in path or not ref.startswith("#/"):
            raise ValueError
        target = root
        for step in ref[2:].split("/"):
            target = target.get(step)
        _refuse_circles(target, root, (*path, ref), sound)
        sound.add(ref)
    for name, value in schema.items():
        if name not in ("$defs", "definitions", "enum", "const"):
            _refuse_circles(value, root, path, sound)
