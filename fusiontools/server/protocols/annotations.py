"""The sources of an answer in each protocol's own form of a citation.

Source: OpenAI's API reference, `url_citation` of chat completions and of Responses; Anthropic's, "Citations".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fusiontools.record.types import Source

if TYPE_CHECKING:
    from fusiontools.server.protocols.exchange import ChatResult

#: How much of the answer stands in a citation of Anthropic's.
_CITED_CHARS = 150


def places(result: ChatResult) -> Iterator[tuple[Source, int, int]]:
    """Yield each source of an answer with where in its text it stands first, from and up to which character."""
    for source in result.sources:
        begin = max(0, result.content.find(source["url"]))
        end = begin + len(source["url"]) if source["url"] in result.content else len(result.content)
        yield source, begin, end


def chat_annotations(result: ChatResult) -> list[dict[str, Any]]:
    """Return the `annotations` of a chat message."""
    return [{"type": "url_citation", "url_citation": _citation(*place)} for place in places(result)]


def responses_annotations(result: ChatResult) -> list[dict[str, Any]]:
    """Return the `annotations` of a part of a Responses message."""
    return [{"type": "url_citation", **_citation(*place)} for place in places(result)]


def messages_citations(result: ChatResult) -> list[dict[str, Any]]:
    """Return the `citations` of a text block of Messages."""
    return [
        {
            "type": "web_search_result_location",
            "url": source["url"],
            "title": source.get("title"),
            "cited_text": result.content[max(0, end - _CITED_CHARS) : end],
            "encrypted_index": "",
        }
        for source, _, end in places(result)
    ]


def _citation(source: Source, begin: int, end: int) -> Mapping[str, Any]:
    return {"url": source["url"], "title": source.get("title", ""), "start_index": begin, "end_index": end}
