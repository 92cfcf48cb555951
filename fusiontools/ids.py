"""Names and numbers that are the same on every machine, because they are made from what they stand for."""

from __future__ import annotations

import hashlib

import orjson

from fusiontools.record import Message


def question_id(messages: list[Message]) -> str:
    """Return 16 hex digits of SHA-256 over the canonical JSON of the question."""
    return hashlib.sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def digest(*parts: str) -> int:
    """Return a stable 31-bit number for these parts: seeds and shuffles that are the same on every machine."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:4], "big") >> 1
