"""Texts that a person gives with a question: `--evidence FILE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusiontools.errors import UsageError
from fusiontools.record.types import Evidence, Record

_MOST_BYTES = 4 << 20


def read_evidence(paths: Sequence[str]) -> list[Evidence]:
    """Return the texts of files, each under its name.

    Raises:
        UsageError: one cannot be read, is no text, is empty or too long to be shown.
    """
    return [{"title": Path(path).name, "text": read_text(path, "--evidence")} for path in paths]


def read_text(path: str, option: str) -> str:
    """Return the text of a file that an option names.

    Raises:
        UsageError: it cannot be read, is no text, is empty or too long to be shown.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{option} {path}: more than {_MOST_BYTES >> 20} MiB; give the part that matters")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{option} {path}: not a text in UTF-8; save it as one")
    if not text.strip():
        raise UsageError(f"{option} {path}: there is nothing in it")
    return text


def with_evidence(record: Record, texts: Sequence[Evidence]) -> Record:
    """Return the record with these texts beside those that it has."""
    return {**record, "evidence": [*record.get("evidence", []), *texts]} if texts else record
