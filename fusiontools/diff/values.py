"""Say a value in a few words, for a line; what a terminal must not see is not taken out here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusiontools import jsonl
from fusiontools.diff.leaves import LIST_CHARS

_SHORT_CHARS = 48


def shown(value: Any) -> str:
    """Return a value as `plain` does, but of a long one the beginning and the length."""
    text, limit = plain(value), LIST_CHARS if isinstance(value, list) else _SHORT_CHARS
    return text if len(text) <= limit else f"{beginning(text, limit)} ({len(text):,} characters)"


def beginning(text: str, limit: int) -> str:
    """Return how a text begins, cut after a word where there is one."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1].rpartition(" ")[0].rstrip()
    return f"{head or text[:limit]}…"


def plain(value: Any) -> str:
    """Return a text as it is, a list of words or numbers with commas, anything else as JSON."""
    if isinstance(value, str):
        return value
    if value and isinstance(value, list) and all(type(item) in (int, str) for item in value):
        return ", ".join(map(str, value))
    return exact(value)


def exact(value: Any) -> str:
    """Return a value as JSON."""
    return jsonl.dumps(value).decode()


def reason(error: Mapping[str, Any]) -> str:
    """Return why a record or a response failed."""
    return ": ".join(str(error[key]) for key in ("stage", "code", "message") if key in error)


def item(point: Any) -> str:
    """Return one point of an analysis, or one note of a degradation, on a line."""
    match point:
        case str():
            return point
        case {"topic": topic, "stances": stances}:
            return f"{topic} – " + "; ".join(f"{stance['model']}: {stance['stance']}" for stance in stances)
        case {"point": text, "models": models}:
            return f"{text} ({', '.join(models)})"
        case {"insight": insight, "model": model}:
            return f"{insight} ({model})"
        case {"stage": stage, "code": code}:
            return ": ".join(filter(None, (stage, code, point.get("detail"))))
    return exact(point)
