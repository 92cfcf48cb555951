"""The search engines: how each is asked, and its answer in one form.

Language and region are always sent, as each engine takes them: without, results follow the machine's own address.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from msgspec import Struct

from fusiontools.config.api_keys import find_key
from fusiontools.record import jsonl
from fusiontools.tools.guarded_http import Fetched, FetchFailed, GuardedHttp
from fusiontools.tools.search_limits import SearchRefused, asked_wait_s
from fusiontools.tools.tool import ToolSource

_SNIPPET_CHARS = 600
_TAGS = re.compile(r"<[^<>]{1,200}>")
#: Brave knows these countries; Tavily wants their names.
_BRAVE_COUNTRIES = (
    "AR AU AT BE BR CA CL CN DE DK ES FI FR GB HK ID IN IT JP KR MX MY NL NO NZ PH PL PT RU SA SE CH TR TW US ZA"
)
_BRAVE_LANGUAGES = {"ja": "jp", "zh": "zh-hans", "pt": "pt-pt", "no": "nb"}
_TAVILY_COUNTRIES = {
    "AR": "argentina", "AU": "australia", "AT": "austria", "BE": "belgium", "BR": "brazil", "CA": "canada",
    "CH": "switzerland", "CN": "china", "CZ": "czech republic", "DE": "germany", "DK": "denmark", "ES": "spain",
    "FI": "finland", "FR": "france", "GB": "united kingdom", "GR": "greece", "IE": "ireland", "IN": "india",
    "IT": "italy", "JP": "japan", "KR": "south korea", "MX": "mexico", "NL": "netherlands", "NO": "norway",
    "NZ": "new zealand", "PL": "poland", "PT": "portugal", "SE": "sweden", "TR": "turkey", "UA": "ukraine",
    "US": "united states", "ZA": "south africa",
}  # fmt: skip


class SearchQuery(Struct, frozen=True):
    """What is looked for.

    Args:
        language: two letters (`en`).
        region: a country in two letters (`US`).
    """

    text: str
    count: int
    language: str
    region: str


class Found(NamedTuple):
    """What an engine found, best first, and what it says that this cost."""

    hits: tuple[ToolSource, ...]
    cost_usd: float | None


class Request(NamedTuple):
    """One request to an engine."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes = b""


class Engine(Struct, frozen=True):
    """An engine behind HTTP.

    Args:
        key_names: the environment's names for its key; for one of one's own, for its address.
        base_url: where it is.
        ask: writes the request, with base URL and key.
        read: reads an answer's JSON.
        cost_usd: what a search costs; None where only its owner's plan says so.
        interval_s: the least time between two requests on its free plan.
    """

    key_names: tuple[str, ...]
    base_url: str
    ask: Callable[[SearchQuery, str, str], Request]
    read: Callable[[Any], Found]
    cost_usd: float | None = None
    interval_s: float = 0.0

    def key(self) -> str:
        """Return its key, from the environment or as it was kept, or nothing."""
        return next((key for name in self.key_names if (key := find_key(name))), "")


async def search_over_http(name: str, query: SearchQuery, base_url: str, http: GuardedHttp) -> Found:
    """Ask an engine.

    Raises:
        SearchRefused: it did not search.
    """
    engine = ENGINES[name]
    request = engine.ask(query, base_url, engine.key())
    try:
        fetched = await http.send(request.method, request.url, request.headers, request.content)
    except FetchFailed as error:
        raise SearchRefused(error.message) from error
    if fetched.status >= 300:
        raise _refusal(name, fetched, base_url, engine.key())
    try:
        found = engine.read(jsonl.loads(fetched.body))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SearchRefused(f"this is not {_PRODUCTS[name]}'s JSON answer, from {base_url}") from None
    cost_usd = engine.cost_usd if found.cost_usd is None else found.cost_usd
    return Found(found.hits[: query.count], cost_usd)


async def search_with_ddgs(query: SearchQuery) -> Found:
    """Ask the engines that `ddgs` knows, without a key.

    It cannot tell "nothing" from "refused", so nothing is taken for a refusal.

    Raises:
        SearchRefused: nothing came.
    """
    from ddgs import DDGS
    from ddgs.exceptions import DDGSException

    country = {"GB": "uk"}.get(query.region, query.region.lower())

    def search() -> list[dict[str, Any]]:
        certificates = os.environ.get("SSL_CERT_FILE") or True
        engines = DDGS(timeout=8, verify=certificates)
        return engines.text(query.text, region=f"{country}-{query.language}", max_results=query.count)

    try:
        results = await asyncio.to_thread(search)
    except DDGSException as error:
        raise SearchRefused(f"nothing came ({str(error)[:200]}); it does not say whether it was refused") from error
    return Found(_hits((r["href"], r["title"], r["body"], None) for r in results), 0.0)


def _ask_searxng(query: SearchQuery, base_url: str, key: str) -> Request:
    asked = {"q": query.text, "format": "json", "language": f"{query.language}-{query.region}", "pageno": "1"}
    return Request("GET", f"{base_url}/search?{urlencode(asked)}", {"accept": "application/json"})


def _read_searxng(said: Any) -> Found:
    hits = _hits((r["url"], r.get("title"), r.get("content"), r.get("publishedDate")) for r in said["results"])
    if not hits and (silent := said.get("unresponsive_engines")):
        why = ", ".join(" ".join(map(str, engine)) for engine in silent[:5])
        raise SearchRefused(f"none of its engines answered ({why})")
    return Found(hits, 0.0)


def _ask_tavily(query: SearchQuery, base_url: str, key: str) -> Request:
    asked: dict[str, Any] = {"query": query.text, "max_results": query.count, "topic": "general"}
    if query.region in _TAVILY_COUNTRIES:
        asked["country"] = _TAVILY_COUNTRIES[query.region]
    return Request("POST", f"{base_url}/search", _json_headers(authorization=f"Bearer {key}"), jsonl.dumps(asked))


def _read_tavily(said: Any) -> Found:
    rows = ((r["url"], r.get("title"), r.get("content"), r.get("published_date")) for r in said["results"])
    return Found(_hits(rows), None)


def _ask_brave(query: SearchQuery, base_url: str, key: str) -> Request:
    asked = {
        "q": query.text[:400],
        "count": min(query.count, 20),
        "country": query.region if query.region in _BRAVE_COUNTRIES.split() else "ALL",
        "search_lang": _BRAVE_LANGUAGES.get(query.language, query.language),
        "text_decorations": "false",
    }
    headers = {"accept": "application/json", "x-subscription-token": key}
    return Request("GET", f"{base_url}/res/v1/web/search?{urlencode(asked)}", headers)


def _read_brave(said: Any) -> Found:
    if said["type"] != "search":
        raise ValueError(said["type"])
    results = said.get("web", {}).get("results", [])
    rows = ((r["url"], r.get("title"), r.get("description"), r.get("page_age")) for r in results)
    return Found(_hits(rows), None)


def _ask_exa(query: SearchQuery, base_url: str, key: str) -> Request:
    asked = {
        "query": query.text,
        "numResults": query.count,
        "userLocation": query.region,
        "contents": {"highlights": True},
    }
    return Request("POST", f"{base_url}/search", _json_headers(**{"x-api-key": key}), jsonl.dumps(asked))


def _read_exa(said: Any) -> Found:
    rows = (
        (r["url"], r.get("title"), " … ".join(r.get("highlights") or [r.get("text") or ""]), r.get("publishedDate"))
        for r in said["results"]
    )
    cost_usd = (said.get("costDollars") or {}).get("total")
    return Found(_hits(rows), float(cost_usd) if cost_usd is not None else None)


def _json_headers(**more: str) -> dict[str, str]:
    return {"accept": "application/json", "content-type": "application/json", **more}


def _hits(rows: Iterable[tuple[str, str | None, str | None, str | None]]) -> tuple[ToolSource, ...]:
    """Return results in the one form: each page once, the snippet without tags, the date as a day."""
    hits: dict[str, ToolSource] = {}
    for url, title, snippet, date in rows:
        if not url.startswith(("http://", "https://")) or url in hits:
            continue
        hit: ToolSource = {"url": url, "title": _plain(title or url), "how": "search"}
        if plain := _plain(snippet or ""):
            hit["snippet"] = plain if len(plain) <= _SNIPPET_CHARS else plain[:_SNIPPET_CHARS] + "…"
        if date and re.match(r"\d{4}-\d\d-\d\d", date):
            hit["date"] = date[:10]
        hits[url] = hit
    return tuple(hits.values())


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAGS.sub("", text)).split())


def _refusal(name: str, fetched: Fetched, base_url: str, key: str) -> SearchRefused:
    said = " ".join(fetched.body[:300].decode("utf-8", "replace").replace(key or "\0", "…").split())
    if fetched.status == 429:
        wait_s = asked_wait_s(fetched.headers)
        return SearchRefused(f"HTTP 429: too many searches; it asks us to wait {wait_s:.0f} s", wait_s)
    if name == "searxng" and fetched.status == 403:
        setting = "its settings must list `json` in `search.formats`"
        return SearchRefused(f"{base_url} gives no JSON (HTTP 403): {setting}; public instances do not")
    if fetched.status in (401, 403) or (fetched.status == 422 and "token" in said.lower()):
        names = " or ".join(ENGINES[name].key_names)
        return SearchRefused(f"HTTP {fetched.status}: it does not take the key ({names}): {said}")
    return SearchRefused(f"HTTP {fetched.status}: {said}")


_PRODUCTS = {"searxng": "SearXNG", "tavily": "Tavily", "brave": "Brave", "exa": "Exa"}
#: In the order in which they are asked where nobody chose.
ENGINES: Mapping[str, Engine] = {
    "searxng": Engine(("SEARXNG_URL",), "", _ask_searxng, _read_searxng, cost_usd=0.0),
    "tavily": Engine(("TAVILY_API_KEY",), "https://api.tavily.com", _ask_tavily, _read_tavily),
    "brave": Engine(
        ("BRAVE_API_KEY", "BRAVE_SEARCH_API_KEY"), "https://api.search.brave.com", _ask_brave, _read_brave,
        interval_s=1.1,
    ),
    "exa": Engine(("EXA_API_KEY",), "https://api.exa.ai", _ask_exa, _read_exa),
}  # fmt: skip
DDGS_NAME = "ddgs"
