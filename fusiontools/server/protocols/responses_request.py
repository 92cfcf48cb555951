"""The `input` of OpenAI's Responses API read as chat messages.

Items come one by one where a chat has turns: calls that follow each other are one assistant message, and each call's
output stands right behind it, wherever it came. So the chat is valid whatever a client left out or cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusiontools.record import jsonl
from fusiontools.record.types import Message, ToolCall
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.protocols.reasoning_seal import details_of_item, put_beside

ROLES = ("user", "assistant", "system", "developer")
#: Calls of tools that a client runs itself, and where each says what is to be done.
_CALLS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
}
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "summary_text": "text", "refusal": "refusal"}
#: What stands in for an output that never came: chat endpoints refuse a call without one.
NO_OUTPUT = "(no output was given for this call)"

Part = dict[str, Any]


def refuse(where: str, why: str, code: str = "invalid_request") -> ApiError:
    """Return the refusal of one parameter; `where` is its JSON path."""
    return ApiError(400, code, f"{where}: {why}", where)


# Checked by hand, not by the schema: of a union such as `content` that says only that no branch fits, these the place.
def text_at(value: Any, where: str, *, empty: bool = True) -> str:
    """Return a text, or refuse what is none."""
    if not isinstance(value, str) or not (value or empty):
        raise refuse(where, "must be a text" if empty else "must be a text that is not empty")
    return value


def object_at(value: Any, where: str) -> dict[str, Any]:
    """Return an object, or refuse what is none."""
    if not isinstance(value, dict):
        raise refuse(where, "must be an object")
    return value


def flag_at(value: Any, where: str) -> bool:
    """Return a truth value, or refuse what is none."""
    if not isinstance(value, bool):
        raise refuse(where, "must be true or false")
    return value


def list_at(value: Any, where: str) -> list[Any]:
    """Return a list, or refuse what is none."""
    if not isinstance(value, list):
        raise refuse(where, "must be a list")
    return value


def optional(given: Mapping[str, Any], where: str, kinds: Mapping[str, Callable[[Any, str], Any]]) -> dict[str, Any]:
    """Return these keys where something is said under them, checked."""
    return {name: at(given[name], f"{where}.{name}") for name, at in kinds.items() if given.get(name) is not None}


def read_messages(instructions: str | None, given: Any, name_of: Callable[[str, str], str]) -> list[Message]:
    """Return the conversation that `instructions` and `input` stand for.

    Args:
        name_of: gives the name by which models know a tool, for its namespace ("" for none) and name.

    Raises:
        ApiError: an item that cannot be understood, or nothing to answer.
    """
    conversation = _ItemTurns(name_of)
    if instructions:
        conversation.say({"role": "system", "content": instructions})
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise refuse("input", "must be a text or a list of items")
    for index, item in enumerate(given):
        _read_item(conversation, object_at(item, f"input[{index}]"), f"input[{index}]")
    messages = conversation.messages()
    if len(messages) == (1 if instructions else 0):
        raise refuse("input", "holds nothing to answer: send at least one message with content")
    return messages


def check_items(given: Any, where: str) -> list[dict[str, Any]]:
    """Return items that can be read.

    Raises:
        ApiError: one of them cannot.
    """
    conversation = _ItemTurns(lambda _, name: name)
    for index, item in enumerate(list_at(given, where)):
        _read_item(conversation, object_at(item, f"{where}[{index}]"), f"{where}[{index}]")
    return list(given)


def _read_item(conversation: _ItemTurns, item: dict[str, Any], where: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str):
        raise refuse(f"{where}.type", "must name the kind of the item: `message`, `function_call`, …")
    if kind == "message":
        _read_message(conversation, item, where)
    elif kind in _CALLS:
        _read_call(conversation, item, kind, where)
    elif kind.removesuffix("_output") in _CALLS:
        conversation.hear(_call_id(item, where), _read_output(item.get("output"), f"{where}.output"))
    elif kind == "reasoning":
        conversation.think(details_of_item(item))
    elif kind == "item_reference":
        # Left out, it would take earlier turns out of the conversation, and nobody would know.
        raise refuse(where, "nothing is stored here: send the item itself, with `store: false`", "unsupported")
    # Everything else (`web_search_call`, what is yet to be invented) is nothing that another model could
    # be shown.


def _read_message(conversation: _ItemTurns, item: dict[str, Any], where: str) -> None:
    role = item.get("role")
    if role not in ROLES:
        raise refuse(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    parts = _read_parts(item.get("content"), f"{where}.content", strict=role == "user")
    if role == "user":
        content: Any = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    else:
        # The texts of one answer are pieces of it; those of instructions are paragraphs.
        content = _text_of(parts, "" if role == "assistant" else "\n\n")
    if content:
        conversation.say({"role": role, "content": content})


def _read_call(conversation: _ItemTurns, item: dict[str, Any], kind: str, where: str) -> None:
    key = _CALLS[kind]
    value = item.get(key)
    if kind in ("function_call", "custom_tool_call"):
        namespace = optional(item, where, {"namespace": text_at}).get("namespace", "")
        name = conversation.name_of(namespace, text_at(item.get("name"), f"{where}.name", empty=False))
    else:
        name = kind.removesuffix("_call")
    if kind == "custom_tool_call":
        value = {"input": text_at(value, f"{where}.{key}")}
    elif not isinstance(value, dict):
        value = text_at(value, f"{where}.{key}")
    arguments = value if isinstance(value, str) else _dump(value, f"{where}.{key}")
    conversation.call({
        "id": _call_id(item, where),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    })  # fmt: skip


def _call_id(item: dict[str, Any], where: str) -> str:
    """Return what ties a call and its output together; `local_shell_call` may have nothing but its own id."""
    return text_at(item.get("call_id") or item.get("id"), f"{where}.call_id", empty=False)


def _read_output(output: Any, where: str) -> list[Part]:
    if output is None:
        return []
    if isinstance(output, str) or (isinstance(output, list) and all(_reader(part) for part in output)):
        return _read_parts(output, where, strict=False)
    return [_text(_dump(output, where))]


def _read_parts(content: Any, where: str, *, strict: bool) -> list[Part]:
    """Return content as chat parts, empty texts left out; `strict` refuses a part that would be lost."""
    if content is None or isinstance(content, str):
        return [_text(content)] if content else []
    parts = []
    for index, given in enumerate(list_at(content, where)):
        part = object_at(given, f"{where}[{index}]")
        read = _reader(part)
        if read is not None:
            parts.append(read(part, f"{where}[{index}]"))
        elif strict:
            kind = part.get("type")
            raise refuse(f"{where}[{index}].type", f"a part of the kind {kind!r} cannot be shown to a model")
    return [part for part in parts if part["type"] != "text" or part["text"]]


def _reader(part: Any) -> Callable[[Part, str], Part] | None:
    """Return what reads such a part, where anything does."""
    kind = part.get("type") if isinstance(part, dict) else None
    return _PARTS.get(kind) if isinstance(kind, str) else None


def _read_text(part: Part, where: str) -> Part:
    key = _TEXTS[part["type"]]
    return _text(text_at(part.get(key), f"{where}.{key}"))


def _read_image(part: Part, where: str) -> Part:
    url = part.get("image_url")
    if url is None and part.get("file_id") is not None:
        raise _not_stored(f"{where}.file_id")
    image = {"url": text_at(url, f"{where}.image_url", empty=False)}
    if part.get("detail") is not None:
        image["detail"] = text_at(part["detail"], f"{where}.detail")
    return {"type": "image_url", "image_url": image}


def _read_file(part: Part, where: str) -> Part:
    given = "file_url" if part.get("file_data") is None and part.get("file_url") is not None else "file_data"
    if part.get(given) is None and part.get("file_id") is not None:
        raise _not_stored(f"{where}.file_id")
    # A chat has one place for a file's data; the endpoints that fetch a file take its address there.
    file = {"file_data": text_at(part.get(given), f"{where}.{given}", empty=False)}
    if part.get("filename") is not None:
        file["filename"] = text_at(part["filename"], f"{where}.filename")
    return {"type": "file", "file": file}


def _read_audio(part: Part, where: str) -> Part:
    return {"type": "input_audio", "input_audio": object_at(part.get("input_audio"), f"{where}.input_audio")}


_PARTS: dict[str, Callable[[Part, str], Part]] = {
    **dict.fromkeys(_TEXTS, _read_text),
    "input_image": _read_image,
    "input_file": _read_file,
    "input_audio": _read_audio,
}


def _not_stored(where: str) -> ApiError:
    return refuse(where, "no files are stored here: send the data itself, as a data URL", "unsupported")


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _text_of(parts: Iterable[Part], between: str) -> str:
    return between.join(part["text"] for part in parts if part["type"] == "text")


def _dump(value: Any, where: str) -> str:
    try:
        return jsonl.dumps(value).decode()
    except TypeError:
        raise refuse(where, "nested too deeply to be passed on") from None


class _CallRun:
    """Calls that one assistant message makes, and what came back for each."""

    def __init__(self, content: str | None) -> None:
        self.content = content
        self.calls: list[ToolCall] = []
        self.outputs: dict[str, list[Part]] = {}
        self.thoughts: list[dict[str, Any]] = []

    def messages(self) -> list[Message]:
        calls, thoughts = put_beside(self.calls, self.thoughts)
        called: Message = {"role": "assistant", "content": self.content, "tool_calls": calls}
        if thoughts:
            called["reasoning_details"] = thoughts
        answers, media = [], []
        for call in self.calls:
            parts = self.outputs.get(call["id"])
            text = NO_OUTPUT if parts is None else _text_of(parts, "\n")
            shown = [part for part in parts or () if part["type"] != "text"]
            answer: Message = {"role": "tool", "tool_call_id": call["id"], "content": text}
            if shown and not text:
                answer["content"] = "(shown in the next message)"
            answers.append(answer)
            media.extend(shown)
        # A tool message holds text only; what else a tool gave follows as if the user had shown it.
        return [called, *answers, *([Message(role="user", content=media)] if media else [])]


class _ItemTurns:
    """Messages in the making."""

    def __init__(self, name_of: Callable[[str, str], str]) -> None:
        self.name_of = name_of
        self._turns: list[Message | _CallRun] = []
        self._open: dict[str, _CallRun] = {}
        #: Thoughts whose turn has not come yet.
        self._thoughts: list[dict[str, Any]] = []

    def think(self, details: list[dict[str, Any]]) -> None:
        """Take the thoughts of the assistant's turn that follows, or of the one before where none does."""
        self._thoughts += details

    def say(self, message: Message) -> None:
        if message["role"] == "assistant":
            self._turns.append(message)
            self._end_thoughts()
        else:
            self._end_thoughts()
            self._turns.append(message)

    def call(self, call: ToolCall) -> None:
        run = self._turns[-1] if self._turns else None
        if not isinstance(run, _CallRun) or run.outputs or call["id"] in (made["id"] for made in run.calls):
            run = self._begin_run()
        run.calls.append(call)
        self._end_thoughts()
        self._open[call["id"]] = run

    def hear(self, call_id: str, output: list[Part]) -> None:
        """Put an output behind its call; one whose call is not in the input becomes a message of its own."""
        self._end_thoughts()
        run = self._open.pop(call_id, None)
        if run is not None:
            run.outputs[call_id] = output
            return
        content = [_text(f"Output of the tool call {call_id}, which is not shown:"), *output]
        self._turns.append({"role": "user", "content": content})

    def messages(self) -> list[Message]:
        self._end_thoughts()
        return [m for turn in self._turns for m in (turn.messages() if isinstance(turn, _CallRun) else [turn])]

    def _begin_run(self) -> _CallRun:
        """Begin a turn of calls, with what the assistant said right before it called: one turn in a chat."""
        run = _CallRun(None)
        last = self._turns[-1] if self._turns else None
        if last is not None and not isinstance(last, _CallRun) and last.get("role") == "assistant":
            self._turns.pop()
            run.content, run.thoughts = str(last["content"]), last.get("reasoning_details", [])
        self._turns.append(run)
        return run

    def _end_thoughts(self) -> None:
        """Put the thoughts into the last turn, where it is the assistant's."""
        details, self._thoughts = self._thoughts, []
        last = self._turns[-1] if self._turns and details else None
        if isinstance(last, _CallRun):
            last.thoughts += details
        elif last is not None and last["role"] == "assistant":
            last["reasoning_details"] = [*last.get("reasoning_details", []), *details]
