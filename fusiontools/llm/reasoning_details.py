"""OpenRouter's `reasoning_details`: a model's thoughts as the client has to send them back, signed or encrypted.

Source: OpenRouter's documentation, "Preserving reasoning blocks".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: What comes in pieces; of all else the last that was said counts.
_PIECES = ("text", "summary", "data")


def join_details(given: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the details that these pieces of a stream make: pieces of one follow each other, of one kind and index."""
    joined: list[dict[str, Any]] = []
    for piece in given:
        if not isinstance(piece, dict):
            continue
        last = joined[-1] if joined else {}
        if not joined or any(piece.get(name) != last.get(name) for name in ("type", "index")) or "index" not in piece:
            joined.append(dict(piece))
            continue
        for name, value in piece.items():
            before = last.get(name)
            if name in _PIECES and isinstance(value, str) and isinstance(before, str):
                last[name] = before + value
            elif value is not None:
                last[name] = value
    return joined
