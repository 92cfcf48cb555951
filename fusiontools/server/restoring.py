"""Put what was hidden back in an endpoint's own reply while it passes through: whole, or in a stream's events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fusiontools.llm.redact import Hidden, Restorer
from fusiontools.record import jsonl

#: The fields of a message, or of a delta, that hold what a model writes.
_WRITTEN = ("content", "reasoning_content", "reasoning", "refusal")


async def restore_chunks(
    chunks: AsyncIterator[bytes], hidden: Hidden, *, streams: bool, in_json: bool
) -> AsyncIterator[bytes]:
    """Yield a reply with the originals.

    Args:
        streams: whether it is a stream of events, each of which goes out as soon as it is there.
        in_json: whether the answer's text is a JSON document.
    """
    if not streams:
        yield restore_whole(b"".join([chunk async for chunk in chunks]), hidden, in_json=in_json)
        return
    events, rest = _Events(hidden, in_json), b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield b"".join(events.line(line) + b"\n" for line in lines)
    if rest := events.line(rest) if rest else b"":
        yield rest


def restore_whole(body: bytes, hidden: Hidden, *, in_json: bool) -> bytes:
    """Return a plain reply with the originals."""
    try:
        reply = jsonl.loads(body)
    except ValueError:
        return body
    in_choices = reply.get("choices") if isinstance(reply, dict) else None
    for choice in in_choices if isinstance(in_choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            continue
        for name in _WRITTEN:
            if isinstance(message.get(name), str):
                message[name] = hidden.restore_text(message[name], in_json=in_json and name == "content")
        for call in message.get("tool_calls") or ():
            _restore_call(call, hidden)
    return jsonl.dumps(reply)


def _restore_call(call: Any, hidden: Hidden) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict):
        for name in ("name", "arguments"):
            if isinstance(function.get(name), str):
                function[name] = hidden.restore_text(function[name], in_json=name == "arguments")


class _Events:
    """Restores a stream line by line; of each text what may be the beginning of a mark is kept until it is none."""

    def __init__(self, hidden: Hidden, in_json: bool) -> None:
        self._hidden, self._in_json = hidden, in_json
        self._texts: dict[tuple[Any, ...], Restorer] = {}
        self._last: dict[str, Any] = {}

    def line(self, line: bytes) -> bytes:
        """Return a line as it goes out; before the end, what is still kept."""
        if not line.startswith(b"data:"):
            return line
        data = line[5:].strip()
        if data == b"[DONE]":
            return self._kept() + line
        try:
            event = jsonl.loads(data)
        except ValueError:
            return line
        choices = event.get("choices") if isinstance(event, dict) else None
        if not isinstance(choices, list):
            return line
        for choice in choices:
            if isinstance(choice, dict) and isinstance(choice.get("delta"), dict):
                self._restore(choice)
        self._last = event if choices else self._last
        return b"data: " + jsonl.dumps(event)

    def _restore(self, choice: dict[str, Any]) -> None:
        index, delta = choice.get("index", 0), choice["delta"]
        for name in _WRITTEN:
            if isinstance(delta.get(name), str):
                delta[name] = self._text(index, name).take(delta[name])
        for call in delta.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            if isinstance(function.get("name"), str):
                function["name"] = self._hidden.restore_text(function["name"])
            if isinstance(function.get("arguments"), str):
                function["arguments"] = self._text(index, "arguments", call.get("index", 0)).take(function["arguments"])
        if choice.get("finish_reason"):
            self._finish(index, delta)

    def _text(self, *of: Any) -> Restorer:
        if of not in self._texts:
            in_json = len(of) > 2 or (self._in_json and of[1] == "content")
            self._texts[of] = Restorer(self._hidden, in_json=in_json)
        return self._texts[of]

    def _finish(self, index: Any, delta: dict[str, Any]) -> None:
        """Add to the last delta of a choice what was kept of it."""
        for of, restorer in self._texts.items():
            rest = restorer.finish() if of[0] == index else ""
            if rest and len(of) == 2:
                delta[of[1]] = (delta.get(of[1]) or "") + rest
            elif rest:
                call: Mapping[str, Any] = {"index": of[2], "function": {"arguments": rest}}
                delta["tool_calls"] = [*(delta.get("tool_calls") or []), call]

    def _kept(self) -> bytes:
        kept = b""
        for index in dict.fromkeys(of[0] for of in self._texts):
            delta: dict[str, Any] = {}
            self._finish(index, delta)
            if delta:
                event = {**self._last, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
                kept += b"data: %b\n\n" % jsonl.dumps(event)
        return kept
