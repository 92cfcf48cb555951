"""JSON in and out, and every form in which a question may come in.

A line may be a record, `{"prompt": "…"}`, an OpenAI chat request, or a line of an OpenAI batch of chats or responses;
plain text is a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from fusiontools.errors import InputError
from fusiontools.record.params import PARAMETERS, find_refused, with_one_name
from fusiontools.record.schemas import check_record
from fusiontools.record.sections import question_id

if TYPE_CHECKING:
    from fusiontools.record.types import Message, Record

#: All digits made one, so that a run of nineteen is found by a plain search: ten times faster than a pattern.
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_INTEGER_64 = range(-(2**63), 2**64)
_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")
#: Of a body of the Responses API: what needs what is stored elsewhere, or has no place in a chat request.
_REFUSED = ("previous_response_id", "conversation", "prompt", "background", "tools")
_READ = ("input", "instructions", "max_output_tokens", "text")
_ELSEWHERE = "is not read in a batch line: ask it of `fuse-serve`, or write the line as a chat request"


def loads(data: bytes | str) -> Any:
    """Parse JSON; the error says line and column."""
    return orjson.loads(data)


def dumps(value: Any) -> bytes:
    """Return compact JSON on one line."""
    return orjson.dumps(value)


def canonical(value: Any) -> bytes:
    """Return JSON that is the same for equal values: compact, keys sorted."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def write(record: Record) -> bytes:
    """Return the record as one line."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def as_it_came(line: bytes, record: Record) -> bytes:
    """Return an untouched record's line with its own spelling, where it was a record already."""
    spelled = line.strip()
    return spelled + b"\n" if orjson.loads(spelled) == record else write(record)


def parse(line: bytes) -> Record:
    """Read one line in any of the input forms.

    Raises:
        InputError: not UTF-8, not JSON, no record; with the JSON path of the fault.
    """
    record = _record_from(read_object(line))
    check_record(record)
    refuse_empty(record["messages"])
    return record


def read_object(data: bytes, what: str = "a record", *, levels: int = 1) -> dict[str, Any]:
    """Read a JSON object that can be written again as it came.

    Args:
        levels: how many may come around it; one, for what moves into `params`.

    Raises:
        InputError: not UTF-8, not JSON, no object, nested too deeply, an integer beyond 64 bits.
    """
    try:
        read = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(_why_no_json(data, error)) from None
    if not isinstance(read, dict):
        raise InputError(f"{what} is a JSON object, this is {_kind(read)}", "$")
    around: Any = read
    for _ in range(levels):
        around = [around]
    try:
        # The writer goes 254 levels deep, the reader 1,024.
        written = orjson.dumps(around)
    except orjson.JSONEncodeError as error:
        raise InputError("nested too deeply to be passed on", "$") from error
    # What is written just as it came holds no integer that was read as another number.
    if written.strip(b"[]") != data.strip() and b"0" * 19 in data.translate(_DIGITS_AS_ZERO):
        _refuse_long_integers(data)
    return read


def from_text(data: bytes) -> Record:
    """Make a record of a plain-text question."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}") from None
    if "\0" in text:
        raise InputError(f"binary, not text: NUL byte at offset {data.index(0)}")
    text = text.replace("\r\n", "\n").strip("\r\n")
    if not text.strip():
        raise InputError("the question is empty")
    messages: Any = [{"role": "user", "content": text}]
    return {"id": question_id(messages), "messages": messages}


def _record_from(data: dict[str, Any]) -> Record:
    """Return the record that an object in one of the input forms stands for."""
    if isinstance(data.get("body"), dict) and "messages" not in data:
        data = _from_batch(data)
    if "messages" not in data and "prompt" in data:
        data = _from_prompt(data)
    elif data.keys().isdisjoint(("panel", "error")) and not data.keys().isdisjoint(PARAMETERS):
        data = _from_request(data)
    if "messages" not in data:
        raise InputError("no `messages` and no `prompt`: not a question", "$")
    params = data.get("params")
    if isinstance(params, dict) and "panel" not in data and (refused := find_refused(params)) is not None:
        raise InputError(refused[1], f"$.params.{refused[0]}")
    if isinstance(params, dict) and None in params.values():
        # A null says nothing, here as in a request to the server.
        data = {**data, "params": {name: value for name, value in params.items() if value is not None}}
    if "id" not in data:
        data = {"id": question_id(data["messages"]), **data}
    return data  # type: ignore[return-value]


def _from_batch(data: dict[str, Any]) -> dict[str, Any]:
    custom_id = data.get("custom_id")
    identified = {"id": custom_id} if custom_id is not None and "id" not in data else {}
    kept = {key: value for key, value in data.items() if key != "body"}
    body = data["body"]
    if "input" in body and "messages" not in body and "prompt" not in body:
        body = _chat_body(body)
    return {**identified, **kept, **body}


def _chat_body(body: dict[str, Any]) -> dict[str, Any]:
    """Return the chat request that a body of the Responses API stands for; keys that nobody knows here stay.

    A batch asks questions: texts and messages are read. What belongs to a conversation with tools is refused by its
    name; the server reads it (`server/protocols/responses_request.py`).

    Raises:
        InputError: what a chat request cannot say; with its JSON path.
    """
    for name in _REFUSED:
        if body.get(name):
            raise InputError(f"`{name}` {_ELSEWHERE}", f"$.body.{name}")
    asked = {key: value for key, value in body.items() if key not in _READ and key not in _REFUSED}
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise InputError("must be a text or a list of messages", "$.body.input")
    told = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    asked["messages"] = told + [_chat_message(item, f"$.body.input[{index}]") for index, item in enumerate(items)]
    if body.get("max_output_tokens") is not None:
        asked["max_tokens"] = body["max_output_tokens"]
    text = body.get("text") or {}
    if not isinstance(text, dict):
        raise InputError("must be an object", "$.body.text")
    if text.get("verbosity") is not None:
        asked["verbosity"] = text["verbosity"]
    if text.get("format") is not None:
        asked["response_format"] = _chat_format(text["format"])
    return asked


def _chat_message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict) or item.get("type", "message") != "message" or item.get("role") not in _ROLES:
        raise InputError(f"what is no message {_ELSEWHERE}", where)
    content = item.get("content")
    if isinstance(content, str):
        return {"role": item["role"], "content": content}
    if not isinstance(content, list):
        raise InputError("must be a text or a list of parts", f"{where}.content")
    parts = [_chat_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
    if item["role"] != "user" or [part["type"] for part in parts] == ["text"]:
        # Only people show pictures; what others say is text in a chat.
        texts = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
        return {"role": item["role"], "content": texts}
    return {"role": "user", "content": parts}


def _chat_part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {key: part[key] for key in ("file_data", "filename") if key in part}}
    raise InputError(f"a part of the kind {kind!r} {_ELSEWHERE}", where)


def _chat_format(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError("must be an object", "$.body.text.format")
    if given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}


def _from_prompt(data: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data["prompt"], str):
        raise InputError(f"a prompt is text, this is {_kind(data['prompt'])}", "$.prompt")
    messages: Any = [{"role": "user", "content": data["prompt"]}]
    if isinstance(data.get("system"), str):
        messages.insert(0, {"role": "system", "content": data["system"]})
    rest = {key: value for key, value in data.items() if key not in ("prompt", "system", "id")}
    return _from_request({**({"id": data["id"]} if "id" in data else {}), "messages": messages, **rest})


def _from_request(data: dict[str, Any]) -> dict[str, Any]:
    wanted = {key: value for key, value in data.items() if key in PARAMETERS}
    if not wanted:
        return data
    wanted = with_one_name(wanted)
    rest = {key: value for key, value in data.items() if key not in PARAMETERS}
    given = rest.get("params", {})
    rest["params"] = {**wanted, **given} if isinstance(given, dict) else given
    return rest


def refuse_empty(messages: Sequence[Message]) -> None:
    """Raise `InputError` where nobody says anything."""
    if not any(m.get("content") or m.get("tool_calls") for m in messages):
        raise InputError("no message has any content: the question is empty", "$.messages")


def _refuse_long_integers(line: bytes) -> None:
    """Refuse integers that would leave as something else: a 64-bit writer cannot pass them on untouched."""
    import json

    def check(digits: str) -> int:
        if int(digits) not in _INTEGER_64:
            raise InputError(f"the integer {digits[:40]} has more than 64 bits; write it as a string", "$")
        return 0

    json.loads(line, parse_int=check)


def _why_no_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        return f"not UTF-8: byte 0x{line[bad.start]:02x} at offset {bad.start}"
    if (at := line.find(b"\0")) >= 0:
        return f"not JSON: NUL byte at offset {at}"
    shown = line[:60].decode("utf-8", "replace").strip()
    return f"not JSON: {error.msg} (column {error.colno}): {shown!r}"


def _kind(data: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(data), "null")
