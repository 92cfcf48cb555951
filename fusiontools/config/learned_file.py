"""Read a file that a tool has learned from graded records: JSON that says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusiontools.errors import UsageError
from fusiontools.record import jsonl


def read_learned(option: str, path: str, kind: str, otherwise: str) -> dict[str, Any]:
    """Return what a file holds.

    Args:
        option: which one names it, for the messages.
        kind: what it says of itself.
        otherwise: what is said of a file of another kind.

    Raises:
        UsageError: it cannot be read, or is of another kind.
    """
    try:
        data = jsonl.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{option} {path}: not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != kind:
        raise UsageError(f"{option} {path}: {otherwise}")
    return data
