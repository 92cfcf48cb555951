"""A body of OpenAI's Responses API, as a line of a batch file holds it, as a chat request.

A batch asks questions: texts and messages are read. What belongs to a conversation with tools is refused by its name;
the server reads it (`server/protocols/responses_request.py`).
"""

from __future__ import annotations

from typing import Any

from fusiontools.errors import InputError

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")
#: What needs what is stored elsewhere, or has no place in a chat request.
_REFUSED = ("previous_response_id", "conversation", "prompt", "background", "tools")
_READ = ("input", "instructions", "max_output_tokens", "text")
_ELSEWHERE = "is not read in a batch line: ask it of `fuse-serve`, or write the line as a chat request"


def chat_body(body: dict[str, Any]) -> dict[str, Any]:
    """Return the chat request that a body stands for; keys that nobody knows here stay.

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
    asked["messages"] = told + [_message(item, f"$.body.input[{index}]") for index, item in enumerate(items)]
    if body.get("max_output_tokens") is not None:
        asked["max_tokens"] = body["max_output_tokens"]
    text = body.get("text") or {}
    if not isinstance(text, dict):
        raise InputError("must be an object", "$.body.text")
    if text.get("verbosity") is not None:
        asked["verbosity"] = text["verbosity"]
    if text.get("format") is not None:
        asked["response_format"] = _format(text["format"])
    return asked


def _message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict) or item.get("type", "message") != "message" or item.get("role") not in _ROLES:
        raise InputError(f"what is no message {_ELSEWHERE}", where)
    content = item.get("content")
    if isinstance(content, str):
        return {"role": item["role"], "content": content}
    if not isinstance(content, list):
        raise InputError("must be a text or a list of parts", f"{where}.content")
    parts = [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
    if item["role"] != "user" or [part["type"] for part in parts] == ["text"]:
        # Only people show pictures; what others say is text in a chat.
        texts = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
        return {"role": item["role"], "content": texts}
    return {"role": "user", "content": parts}


def _part(part: Any, where: str) -> dict[str, Any]:
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


def _format(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError("must be an object", "$.body.text.format")
    if given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}
