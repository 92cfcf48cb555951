"""Put images and files from OpenAI's content parts into the blocks of Anthropic's API.

Source: Anthropic's API reference, "Vision" and "PDF support".
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import unquote_to_bytes

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def image(url: str) -> dict[str, Any]:
    """Return an image block.

    Raises:
        ValueError: neither a web address nor a data URL of a kind that the API takes.
    """
    if _on_the_web(url):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(url)
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        raise ValueError(f"{media_type or 'no media type'} is none of {', '.join(_IMAGES)}")
    return {"type": "image", "source": _base64(media_type, data)}


def document(file: dict[str, Any]) -> dict[str, Any]:
    """Return a document block: a PDF or plain text.

    Raises:
        ValueError: a file that only another endpoint holds, or of a kind that the API does not take.
    """
    data = file.get("file_data") or file.get("file_url")
    if not data:
        raise ValueError("a file's data must stand in the message; an id is known to the endpoint that gave it only")
    block = {"type": "document", "source": _document_source(data)}
    return {**block, "title": file["filename"]} if file.get("filename") else block


def _document_source(data: str) -> dict[str, Any]:
    if _on_the_web(data):
        return {"type": "url", "url": data}
    # OpenAI takes a PDF's bare base64, too.
    media_type, data = _data_url(data) if data.startswith("data:") else ("application/pdf", data)
    if media_type == "application/pdf":
        return _base64(media_type, data)
    if not media_type.startswith("text/"):
        raise ValueError(f"{media_type or 'no media type'} is neither a PDF nor text")
    return {"type": "text", "media_type": "text/plain", "data": base64.b64decode(data).decode()}


def _base64(media_type: str, data: str) -> dict[str, Any]:
    base64.b64decode(data, validate=True)
    return {"type": "base64", "media_type": media_type, "data": data}


def _on_the_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _data_url(url: str) -> tuple[str, str]:
    """Return the media type and the base64 of a data URL (RFC 2397)."""
    head, comma, data = url.removeprefix("data:").partition(",")
    if not url.startswith("data:") or not comma:
        raise ValueError(f"{url[:40]!r} is neither a web address nor a data URL")
    media_type = head.partition(";")[0].strip().lower()
    content = unquote_to_bytes(data)
    if not head.endswith(";base64"):
        content = base64.b64encode(content)
    return media_type, b"".join(content.split()).decode("ascii")
