"""The search that an endpoint has of its own: how it is asked for, and in whatever form an answer says what was found.

Source: OpenRouter, "Server tools"; Anthropic, "Web search tool", "Citations"; OpenAI, chat completions of its search
models, `annotations`; Perplexity and xAI (`citations`, `search_results`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint
    from fusiontools.record.types import Source

_RESULTS = 5
_MOST_SOURCES = 200
_TITLE_CHARS = 300


def provider_search(endpoint: Endpoint, model: str, most_uses: int) -> dict[str, Any] | None:
    """Return the request's parameters that give a model its endpoint's own search; None where it has none.

    Args:
        most_uses: how often it may search for one response, where the endpoint takes such a limit.
    """
    if endpoint.api == "anthropic":
        return {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": most_uses}]}
    if "//openrouter.ai/" in endpoint.base_url:
        return {"tools": [{"type": "openrouter:web_search", "parameters": {"max_results": _RESULTS}}]}
    if "//api.openai.com/" in endpoint.base_url and "search" in model:
        return {"web_search_options": {}}
    return None


def read_citations(event: Mapping[str, Any], said: Mapping[str, Any]) -> list[Source]:
    """Return what an answer, or a piece of one, cites.

    Args:
        event: the body, or an event of a stream.
        said: its message, or its piece of one.
    """
    found: dict[str, Source] = {}
    for holder in (said.get("annotations"), event.get("search_results"), event.get("citations"), said.get("citations")):
        for url, title, date in _places(holder):
            source: Source = {"url": url, "how": "search"}
            if title:
                source["title"] = title[:_TITLE_CHARS]
            if date:
                source["date"] = date[:_TITLE_CHARS]
            found.setdefault(url, source)
    return list(found.values())[:_MOST_SOURCES]


def _places(holder: Any) -> Iterator[tuple[str, str, str]]:
    """Yield address, title and date of each citation of a list; what is none is nothing."""
    for item in holder if isinstance(holder, list) else []:
        said = {"url": item} if isinstance(item, str) else item
        if not isinstance(said, dict):
            continue
        nested = said.get("url_citation")
        said = nested if isinstance(nested, dict) else said
        url = said.get("url")
        if isinstance(url, str) and url.startswith(("http://", "https://")):
            yield url, _text(said.get("title")), _text(said.get("date") or said.get("page_age"))


def _text(said: Any) -> str:
    return " ".join(said.split()) if isinstance(said, str) else ""
