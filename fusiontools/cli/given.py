"""What a person gives with a question: texts, pictures and PDFs, evidence, and a prompt file that it is set into."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fusiontools.config.templates import is_template_name
from fusiontools.errors import UsageError, nearest
from fusiontools.record.types import Evidence, Message, Record

Part = dict[str, Any]
_MOST_BYTES = 20 << 20
_MOST_TEXT_BYTES = 4 << 20
#: How the files begin that models can be shown.
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_TICKS = re.compile(r"`{3,}")
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SECTION = re.compile(r"^# (system|user)[ \t]*\n", re.MULTILINE)
#: What the question itself is called in a prompt file.
_QUESTION = "question"


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
    data = _read_bytes(path, option, _MOST_TEXT_BYTES)
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


def _read_bytes(path: str, option: str, most: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise UsageError(f"{option} {path}: more than {most >> 20} MiB; give the part that matters")
    return data


def file_text(path: str, option: str = "-f") -> str:
    """Return a text file as it stands in a question: named, between fences that nothing in it can close.

    Raises:
        UsageError: it cannot be read, is no text, is empty or too long.
    """
    text = read_text(path, option)
    longest = max((len(ticks) for ticks in _TICKS.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{Path(path).name}:\n\n{fence}\n{text.rstrip()}\n{fence}"


def attachment(place: str, option: str = "-a") -> Part:
    """Return a picture or a PDF as a content part; what an address leads to is fetched by the model's endpoint.

    Raises:
        UsageError: it cannot be read, is neither, or is too large.
    """
    url = urlsplit(place)
    if url.scheme in ("http", "https"):
        if url.path.lower().endswith(".pdf"):
            return {"type": "file", "file": {"filename": Path(url.path).name, "file_data": place}}
        return {"type": "image_url", "image_url": {"url": place}}
    data = _read_bytes(place, option, _MOST_BYTES)
    kind = _kind_of(data)
    if kind is None:
        raise UsageError(f"{option} {place}: neither a PNG, JPEG, GIF or WebP nor a PDF; a text goes with -f")
    address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if kind == "application/pdf":
        return {"type": "file", "file": {"filename": Path(place).name, "file_data": address}}
    return {"type": "image_url", "image_url": {"url": address}}


def looks_seen(place: str) -> bool:
    """Return whether this is something to be attached, and no text: an address, a picture or a PDF."""
    if urlsplit(place).scheme in ("http", "https"):
        return True
    try:
        with Path(place).open("rb") as file:
            return _kind_of(file.read(16)) is not None
    except OSError:
        return False


def _kind_of(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begins, kind in _KINDS if data.startswith(begins)), None)


def with_given(message: Message, texts: Sequence[str], parts: Sequence[Part]) -> Message:
    """Return what was asked with texts below it, and what is to be seen before it."""
    content: Any = message.get("content")
    if texts and isinstance(content, list):
        content = [*content, *({"type": "text", "text": text} for text in texts)]
    elif texts:
        content = "\n\n".join([content or "", *texts]).strip()
    if parts:
        content = [*parts, *(content if isinstance(content, list) else [{"type": "text", "text": content}])]
    return {**message, "content": content}


# --- Prompt files ---


class PromptFile(NamedTuple):
    """A prompt with places to be filled; `system` is None where it says nothing of it."""

    name: str
    user: str
    system: str | None

    @property
    def wants_question(self) -> bool:
        """Whether it has a place for the question."""
        return _QUESTION in _PLACEHOLDER.findall(self.user)


def prompts_folder() -> Path:
    """Return where a person keeps prompt files."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fusiontools" / "prompts"


def prompt_names() -> list[str]:
    """Return the names of the prompt files there."""
    return sorted(path.stem for path in prompts_folder().glob("*.md") if is_template_name(path.stem))


def load_prompt(name: str) -> PromptFile:
    """Return a prompt file: all of its text, or its sections `# system` and `# user`.

    Args:
        name: of a file NAME.md in the folder of prompts; or a path, with a slash or `.md`.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = prompts_folder() / f"{name}.md" if is_template_name(name) else Path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest(name, prompt_names()) if prompt_names() else ""
        raise UsageError(f"--template {name}: there is no {path}{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--template {name}: {path} cannot be read: {why}") from error
    before, *pieces = _SECTION.split(text)
    if not pieces:
        return PromptFile(name, text.strip(), None)
    sections = dict(zip(pieces[::2], pieces[1::2], strict=True))
    user = "\n\n".join(filter(None, (before.strip(), sections.get("user", "").strip())))
    return PromptFile(name, user, sections.get("system", "").strip() or None)


def fill_prompt(prompt: PromptFile, said: Sequence[str], question: str) -> tuple[str, str | None]:
    """Return what is asked and the system prompt: places filled in one pass; a question without a place stands below.

    Args:
        said: `KEY=VALUE` each.

    Raises:
        UsageError: a place without a value, a value without a place, or nothing to ask.
    """
    values: dict[str, str] = {}
    for each in said:
        key, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"-p {each}: write KEY=VALUE")
        values[key.strip()] = value
    places = {*_PLACEHOLDER.findall(prompt.user), *_PLACEHOLDER.findall(prompt.system or "")}
    if unknown := values.keys() - places:
        raise UsageError(f"-p {min(unknown)}: {prompt.name} has no such place{nearest(min(unknown), sorted(places))}")
    if missing := sorted(places - values.keys() - {_QUESTION}):
        raise UsageError(f"--template {prompt.name}: give {' '.join(f'-p {name}=…' for name in missing)}")
    if prompt.wants_question and not question.strip() and _QUESTION not in values:
        raise UsageError(f"--template {prompt.name}: it needs a question")
    values.setdefault(_QUESTION, question)
    user = _filled(prompt.user, values)
    below = question if question.strip() and not prompt.wants_question else ""
    return "\n\n".join(filter(None, (user, below))), _filled(prompt.system, values) if prompt.system else None


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda place: values[place[1]], text)
