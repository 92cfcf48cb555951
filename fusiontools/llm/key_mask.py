"""Take our key out of what an endpoint says, wherever and however it repeats it.

Gateways and debugging servers echo what they were sent: in errors, in `Location`, in a body, in the text itself. What
comes from an endpoint goes through here first (`http.py`), so nobody above has to think of it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.completion import Completion, Delta, OnDelta, Thoughts

MASK = "***"
#: A shorter key is a placeholder for a server that wants none; masking it would garble words.
_SHORTEST = 8
#: How many bytes a character may take where it is escaped, several times over too.
_LONGEST_ESCAPE = 8
#: An escaped character of which keys are made; accents, which are escaped more often, are none.
_ASCII = re.compile(rb"\\u00[2-7]")
_SLASHED = '/"\\'
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"


async def current_key(endpoint: Endpoint) -> str | None:
    """Return the key that holds now, wherever it comes from; nobody waits for a command or a keyring but who asks.

    Raises:
        CallFailed: it is somewhere and cannot be had.
    """
    if endpoint.api_key_env and (key := os.environ.get(endpoint.api_key_env, "").strip()):
        return key
    if not endpoint.wants_key:
        return None
    try:
        return await asyncio.to_thread(endpoint.key)
    except UsageError as error:
        raise CallFailed("auth", f"endpoint {endpoint.name}: {error.message}") from None


class KeyMask:
    """Masks one key: as it is, and as JSON, percent signs or base64 spell it.

    Args:
        key: the key; None, or a placeholder, masks nothing.
    """

    def __init__(self, key: str | None) -> None:
        #: The key it is for, and what it masks of it; both for who sends the key, never for a text.
        self.of = key
        self.key = key if key and len(key) >= _SHORTEST else ""
        plain = self.key.encode()
        self._spelled = [plain, *_in_base64(plain)] if plain else []
        self._letters = plain + _BASE64 + b"%\\"
        self._longest = len(plain) * _LONGEST_ESCAPE
        #: Whether a character of it may stand behind a backslash and be itself.
        self._slashed = not set(_SLASHED).isdisjoint(self.key)

    def __repr__(self) -> str:
        return f"KeyMask({MASK})"

    def answer(self, on_delta: OnDelta | None) -> AnswerMask:
        """Return what masks one answer."""
        return AnswerMask(self.key, on_delta)

    def hide(self, data: bytes) -> bytes:
        """Return the bytes without the key."""
        for spelled in self._spelled:
            if spelled in data:
                data = data.replace(spelled, MASK.encode())
        if self.key and self._may_be_escaped_in(data):
            data = re.sub(_escaped(self.key), MASK.encode(), data)
        return data

    def _may_be_escaped_in(self, data: bytes) -> bool:
        return (
            b"%" in data or (b"\\u00" in data and _ASCII.search(data) is not None) or (self._slashed and b"\\" in data)
        )

    def hide_in(self, text: str) -> str:
        """Return a text without the key."""
        if not self.key:
            return text
        data = text.encode("utf-8", "surrogatepass")
        hidden = self.hide(data)
        return text if hidden is data else hidden.decode("utf-8", "surrogatepass")

    def hide_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return headers without the key."""
        if self.hide_in(whole := "\n".join(headers.values())) == whole:
            return headers
        return {name: self.hide_in(value) for name, value in headers.items()}

    def split_open(self, data: bytes) -> tuple[bytes, bytes]:
        """Return masked bytes up to the last word, and that word, which may be the beginning of the key."""
        data = self.hide(data)
        if not data or data[-1] not in self._letters:
            return data, b""
        kept = max(len(data.rstrip(self._letters)), len(data) - self._longest)
        return data[:kept], data[kept:]


class BodyMask:
    """Takes the key out of a body that comes in pieces: the last word of each waits, for the key may begin there."""

    def __init__(self, mask: KeyMask) -> None:
        self._mask = mask
        self._rest = b""

    def take(self, piece: bytes) -> bytes:
        """Add bytes; returns what can be shown by now."""
        shown, self._rest = self._mask.split_open(self._rest + piece)
        return shown

    def finish(self) -> bytes:
        """Return what waited."""
        return self._mask.hide(self._rest)


def _in_base64(plain: bytes) -> list[bytes]:
    """Return what base64 makes of the key, whatever stands around it: three ways to cut it, two alphabets."""
    spelled = []
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + plain)
        # The first and the last letter of it may be made of other bytes, too.
        own = whole[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]
        spelled += [own, own.replace(b"+", b"-").replace(b"/", b"_"), own.replace(b"/", b"\\/")]
    return list(dict.fromkeys(spelled))


def _escaped(key: str) -> bytes:
    """Return a pattern of the key in which any character may be escaped, by JSON or by percent signs."""
    each = []
    for char in key:
        code = b"%02x" % ord(char)
        slashes = rb"\\*" if char in _SLASHED else b""
        each.append(rb"(?:%b%b|\\+u00(?i:%b)|%%(?:25)*(?i:%b))" % (slashes, re.escape(char).encode(), code, code))
    return b"".join(each)


class AnswerMask:
    """Takes the key out of an answer that is read: out of the pieces that are shown, and out of the whole.

    A piece that ends like the key begins waits for the next one.
    """

    def __init__(self, key: str, on_delta: OnDelta | None) -> None:
        self._key, self._on_delta = key, on_delta
        self._rest = ""
        #: The open end of each call's arguments.
        self._open: dict[int, str] = {}

    def show(self, delta: Delta) -> None:
        """Hand on a piece of the answer."""
        assert self._on_delta is not None  # noqa: S101 - only then it is called
        if not self._key:
            self._on_delta(delta)
        elif isinstance(delta, str):
            shown, self._rest = self._split(self._rest + delta)
            if shown:
                self._on_delta(shown)
        elif isinstance(delta, Thoughts):
            self._on_delta(Thoughts(_map_texts(delta.details, self._hide)))
        else:
            self._on_delta([self._hide_in_piece(piece) for piece in delta])

    def finish(self, completion: Completion) -> Completion:
        """Hand on what waited, and return the whole answer without the key."""
        if not self._key:
            return completion
        if self._on_delta is not None:
            if self._rest:
                self._on_delta(self._rest)
            if left := [{"index": i, "function": {"arguments": rest}} for i, rest in self._open.items() if rest]:
                self._on_delta(left)
        said = [completion.content, completion.reasoning or "", *map(str, completion.tool_calls)]
        said += map(str, completion.reasoning_details or ())
        if not any(self._key in text for text in said):
            return completion
        calls: Any = [_map_texts(call, self._hide) for call in completion.tool_calls]
        reasoning = completion.reasoning and self._hide(completion.reasoning)
        details: Any = completion.reasoning_details and _map_texts(completion.reasoning_details, self._hide)
        beside = {"reasoning": reasoning, "reasoning_details": details, "tool_calls": calls}
        return replace(completion, content=self._hide(completion.content), **beside)

    def _hide(self, text: str) -> str:
        return text.replace(self._key, MASK)

    def _split(self, text: str) -> tuple[str, str]:
        """Return the text that can be shown, and its end where the key may begin there."""
        text = self._hide(text)
        for length in range(min(len(text), len(self._key) - 1), 0, -1):
            if text.endswith(self._key[:length]):
                return text[:-length], text[-length:]
        return text, ""

    def _hide_in_piece(self, piece: Mapping[str, Any]) -> Mapping[str, Any]:
        function = piece.get("function") or {}
        if not (arguments := function.get("arguments")):
            return piece
        index = piece.get("index") or 0
        shown, self._open[index] = self._split(self._open.get(index, "") + arguments)
        return {**piece, "function": {**function, "arguments": shown}}


def _map_texts(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _map_texts(item, change) for name, item in value.items()}
    return [_map_texts(item, change) for item in value] if isinstance(value, Sequence) else value
