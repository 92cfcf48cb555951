"""What a text rests on: the addresses in it, and which of them somebody has looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fusiontools.record.types import Answer, Record, Source

_ADDRESS = re.compile(r"\bhttps?://[^\s<>\"'`{}|\\^\[\]]+", re.IGNORECASE)
#: What ends a sentence or a bracket, not an address.
_TRAILING = ".,;:!?*_~)]}>\u201d\u2019"


def addresses_in(text: str) -> list[str]:
    """Return the web addresses in a text, in order, each once."""
    found = (_trim(match) for match in _ADDRESS.findall(text))
    return list(dict.fromkeys(found))


def _trim(address: str) -> str:
    """Return the address without what belongs to the sentence around it; a bracket that it opened itself stays."""
    while address and address[-1] in _TRAILING:
        if address[-1] == ")" and address.count("(") >= address.count(")"):
            break
        address = address[:-1]
    return address


def page_of(url: str) -> str:
    """Return an address in the form in which two spellings of one page are equal: no fragment, no final slash."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    path = parts.path.rstrip("/")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.netloc.lower().removeprefix('www.')}{path}{query}"


def merge_sources(sources: Iterable[Source]) -> list[Source]:
    """Return each page once, in order of appearance: fetched is more than found, and found more than claimed."""
    rank = {"given": 0, "fetched": 1, "search": 2, "claimed": 3}
    best: dict[str, Source] = {}
    for source in sources:
        page = page_of(source["url"])
        known = best.get(page)
        if known is None or rank[source["how"]] < rank[known["how"]]:
            best[page] = {**(known or {}), **source}  # type: ignore[typeddict-item]
    return list(best.values())


def with_claimed(text: str, sources: Sequence[Source], given: Sequence[Source] = ()) -> list[Source]:
    """Return the sources, and behind them every address in the text that nobody looked up or gave.

    Args:
        given: what came with the question; of that, what the text cites is added.
    """
    cited, unknown = cite(text, [*sources, *given])
    claimed: list[Source] = [{"url": url, "how": "claimed"} for url in unknown]
    return merge_sources([*sources, *(source for source in cited if source["how"] == "given"), *claimed])


def panel_sources(record: Record) -> list[Source]:
    """Return what the panel and its judges looked up or were given, each page once; nothing that was only claimed."""
    found: list[Source] = list(given_sources(record))
    panels = [*record.get("layers", []), record.get("panel", [])]
    found += [source for panel in panels for response in panel for source in response.get("sources", [])]
    analysis = record.get("analysis")
    if analysis is not None:
        found += analysis.get("sources", [])
    return merge_sources(source for source in found if source["how"] != "claimed")


def given_sources(record: Record) -> list[Source]:
    """Return the texts that came with the question, as sources."""
    sources: list[Source] = []
    for number, text in enumerate(record.get("evidence", []), 1):
        source: Source = {"url": text.get("url", f"evidence:{number}"), "how": "given"}
        if "title" in text:
            source["title"] = text["title"]
        sources.append(source)
    return sources


def cite(text: str, known: Sequence[Source]) -> tuple[list[Source], list[str]]:
    """Return the sources that a text cites, in the order in which it does, and the addresses in it that are none."""
    by_page = {page_of(source["url"]): source for source in known}
    cited: dict[str, Source] = {}
    unknown = []
    for url in addresses_in(text):
        source = by_page.get(page_of(url))
        if source is None:
            unknown.append(url)
        else:
            cited.setdefault(source["url"], source)
    for source in known:
        if source["how"] == "given" and re.search(re.escape(source["url"]) + r"(?!\d)", text):
            cited.setdefault(source["url"], source)
    return list(cited.values()), unknown


def cite_answer(record: Record, answer: Answer) -> tuple[Answer, list[str]]:
    """Return the answer with the sources that it cites, and the addresses in it that are no source of its panel."""
    cited, unknown = cite(answer["content"], panel_sources(record))
    return ({**answer, "sources": cited} if cited else answer), unknown
