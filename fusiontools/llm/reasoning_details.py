"""OpenRouter's `reasoning_details`: a model's thoughts as the client has to send them back, signed or encrypted.

Anthropic's own blocks of thoughts are kept as such details, so that one conversation may go to either.

Source: OpenRouter's documentation, "Preserving reasoning blocks"; Anthropic's API reference, "Extended thinking".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: The format that a detail has where it names none.
CLAUDE = "anthropic-claude-v1"
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


def detail_of(block: Mapping[str, Any], index: int) -> dict[str, Any] | None:
    """Return what a block of Anthropic's thinks, where it has to come back: where it is signed, or encrypted."""
    kind = block.get("type")
    if kind == "thinking" and block.get("signature"):
        return {
            "type": "reasoning.text",
            "text": block.get("thinking") or "",
            "signature": block["signature"],
            "index": index,
        }
    if kind == "redacted_thinking" and block.get("data"):
        return {"type": "reasoning.encrypted", "data": block["data"], "index": index}
    return None


def block_of(detail: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a detail as a block of Anthropic's; None where it is no thought of a model of theirs, or is not signed."""
    if detail.get("format") not in (None, CLAUDE):
        return None
    text, signature, data = detail.get("text"), detail.get("signature"), detail.get("data")
    if detail.get("type") == "reasoning.text" and isinstance(signature, str) and signature:
        return {"type": "thinking", "thinking": text if isinstance(text, str) else "", "signature": signature}
    if detail.get("type") == "reasoning.encrypted" and isinstance(data, str) and data:
        return {"type": "redacted_thinking", "data": data}
    return None
