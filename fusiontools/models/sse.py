"""Read a stream of server-sent events whose data are JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fusiontools import jsonl
from fusiontools.errors import CallFailed
from fusiontools.models.refusal import excerpt, without_key

#: What stands for the end that a stream says itself.
DONE: dict[str, Any] = {}
_LINE_LIMIT_BYTES = 16 * 2**20


async def events(chunks: AsyncIterator[bytes], key: str | None) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each `data:` line, and `DONE` for the end that it says itself."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_LIMIT_BYTES:
            raise CallFailed("bad_response", f"a line of the stream is longer than {_LINE_LIMIT_BYTES >> 20} MiB")
        for line in lines:
            if (event := _event(line, key)) is not None:
                yield event
    if (event := _event(rest, key)) is not None:
        yield event


def _event(line: bytes, key: str | None) -> dict[str, Any] | None:
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or not data:
        return None
    if data == b"[DONE]":
        return DONE
    try:
        event = jsonl.loads(data)
    except ValueError:
        shown = excerpt(without_key(data, key))
        raise CallFailed("bad_response", f"the stream holds no JSON: {shown}") from None
    return event if isinstance(event, dict) else None
