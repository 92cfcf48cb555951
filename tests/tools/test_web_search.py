"""`web_search`: five engines in one form; found, nothing, or refused; their turns; language and region."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from webbing import Web

from fusiontools.errors import UsageError
from fusiontools.tools.tool import ToolContext, ToolResult
from fusiontools.tools.toolbox import Toolbox
from fusiontools.tools.web_search import SearchOptions, web_search

#: Where each engine answers in the small web, and how it takes its key.
PATHS = {
    "searxng": "/searx/search",
    "tavily": "/tavily/search",
    "brave": "/brave/res/v1/web/search",
    "exa": "/exa/search",
}
BASES = {"searxng": "/searx", "tavily": "/tavily", "brave": "/brave", "exa": "/exa"}
KEYED = ["tavily", "brave", "exa"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, web: Web) -> None:
    for name in ("SEARXNG_URL", "TAVILY_API_KEY", "BRAVE_API_KEY", "BRAVE_SEARCH_API_KEY", "EXA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    # Whatever else ddgs asks is asked here too.
    monkeypatch.setenv("DDGS_PROXY", web.proxy)
    monkeypatch.setenv("SSL_CERT_FILE", web.ca)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, web: Web) -> None:
    monkeypatch.setenv("SEARXNG_URL", f"{web.url}/searx/")
    for name in KEYED:
        monkeypatch.setenv(f"{name.upper()}_API_KEY", f"key-of-{name}")


def search(
    web: Web, *calls: dict[str, Any], engines: Any = (), at_once: bool = True, **options: Any
) -> list[ToolResult]:
    """Make these searches, each as another record's."""
    urls = {name: web.url + path for name, path in BASES.items() if name != "searxng"}
    asked = SearchOptions(**{"engines": engines, "urls": urls, "intervals_s": {"brave": 0.0}, **options})

    async def work() -> list[ToolResult]:
        async with Toolbox([], [web_search(asked)]) as box:
            runs = [box.run("web_search", call, ToolContext(f"r{number}")) for number, call in enumerate(calls)]
            done = await asyncio.gather(*runs) if at_once else [await run for run in runs]
            return [run.result for run in done]

    return asyncio.run(work())


@pytest.mark.parametrize(("engine", "cost_usd"), [("searxng", 0.0), ("tavily", None), ("brave", None), ("exa", 0.007)])
def test_every_engine_gives_the_one_form(web: Web, keys: None, engine: str, cost_usd: float | None) -> None:
    [result] = search(web, {"query": "merging without"}, engines=[engine])

    [hit] = result.sources
    assert (result.status, result.cost_usd, result.cacheable) == ("ok", cost_usd, True)
    assert (hit["url"], hit["title"], hit["how"]) == (f"{web.url}/article", "Merging without locks", "search")
    assert hit["snippet"].startswith("Replicated data types let two people write into one document")
    assert engine == "tavily" or hit["date"] == "2026-03-04"
    assert f"1. Merging without locks\n   {web.url}/article\n" in result.text


@pytest.mark.parametrize("engine", PATHS)
def test_nothing_found_is_a_result(web: Web, keys: None, engine: str) -> None:
    [result] = search(web, {"query": "nothing of the kind"}, engines=[engine, "ddgs"])

    assert (result.status, result.sources, result.cacheable) == ("ok", (), True)
    assert "The search ran and found nothing" in result.text
    assert web.requests("/html/") == []


@pytest.mark.parametrize("engine", PATHS)
@pytest.mark.parametrize(
    "answer",
    [
        {"status": 401, "body": "{}"},
        {"status": 429, "headers": {"retry-after": "3600"}},
        {"status": 500, "body": "oops"},
        {"status": 302, "headers": {"location": "/elsewhere"}},
        {"body": "<title>Not JSON</title>"},
        {"body": '{"results": [{"title": "no address"}], "type": "search", "web": {"results": [{}]}}'},
        {"body": "[]"},
    ],
)
def test_refused_means_that_the_next_engine_is_asked(web: Web, keys: None, engine: str, answer: dict[str, Any]) -> None:
    second = "exa" if engine != "exa" else "tavily"
    web.script(PATHS[engine], answer)

    [result] = search(web, {"query": "merging without"}, engines=[engine, second])

    assert [hit["title"] for hit in result.sources] == ["Merging without locks"]
    assert f"({second}, " in result.text
    assert len(web.requests(PATHS[engine])) == 1


def test_where_all_refuse_nobody_concludes_that_nothing_exists(web: Web, keys: None) -> None:
    web.script(PATHS["tavily"], {"status": 432, "body": "plan limit; key-of-tavily is over"})
    web.script(PATHS["exa"], {"status": 500, "body": "oops"})

    [result] = search(web, {"query": "merging"}, engines=["tavily", "exa"])

    assert (result.status, result.cost_usd, result.cacheable) == ("refused", None, False)
    assert "this does not mean that nothing exists" in result.text
    assert "tavily: HTTP 432: plan limit; … is over; exa: HTTP 500: oops" in result.text


def test_searxng_says_which_setting_it_lacks(web: Web, keys: None) -> None:
    web.script(PATHS["searxng"], {"status": 403})
    web.script("/other", {"body": "<html>"})

    [result] = search(web, {"query": "merging"}, engines=["searxng"])

    assert "its settings must list `json` in `search.formats`" in result.text


def test_what_is_no_searxng_is_said_to_be_none(web: Web, keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARXNG_URL", f"{web.url}/article?")

    [result] = search(web, {"query": "merging"}, engines=["searxng"])

    assert f"this is not SearXNG's JSON answer, from {web.url}/article?" in result.text


def test_a_searxng_whose_engines_are_all_suspended_has_refused(web: Web, keys: None) -> None:
    silent = {"results": [], "unresponsive_engines": [["duckduckgo", "Suspended: too many requests"]]}
    web.script(PATHS["searxng"], {"body": json.dumps(silent)})

    [result] = search(web, {"query": "merging"}, engines=["searxng"])

    assert result.status == "refused"
    assert "none of its engines answered (duckduckgo Suspended: too many requests)" in result.text


# ddgs


def test_ddgs_needs_no_key(web: Web) -> None:
    [result] = search(web, {"query": "merging without"})

    assert [hit["url"] for hit in result.sources] == [f"{web.url}/article"]
    assert "(ddgs, language en, region US)" in result.text
    [asked] = web.requests("/html/")
    assert parse_qs(asked["body"])["l"] == ["us-en"]


def test_ddgs_cannot_tell_nothing_from_refused(web: Web) -> None:
    [result] = search(web, {"query": "nothing of the kind"})

    assert result.status == "refused"
    assert "it does not say whether it was refused" in result.text


# Turns


def test_a_short_wait_is_waited_for(web: Web, keys: None) -> None:
    web.script(PATHS["brave"], {"status": 429, "headers": {"x-ratelimit-reset": "0.2, 14000"}})

    [result] = search(web, {"query": "merging without"}, engines=["brave"])

    first, second = (asked["at_s"] for asked in web.requests(PATHS["brave"]))
    assert (result.status, second - first >= 0.19) == ("ok", True)


def test_an_engine_that_asks_for_a_long_wait_is_left_alone(web: Web, keys: None) -> None:
    web.script(PATHS["tavily"], {"status": 429, "headers": {"retry-after": "3600"}})

    calls = [{"query": "merging without"}, {"query": "merging history"}]

    results = search(web, *calls, engines=["tavily"], at_once=False)

    assert [result.status for result in results] == ["refused", "refused"]
    assert len(web.requests(PATHS["tavily"])) == 1


def test_the_same_search_by_two_costs_one_request(web: Web, keys: None) -> None:
    search(web, {"query": "merging"}, {"query": "merging"}, engines=["exa"])

    assert len(web.requests(PATHS["exa"])) == 1


# Who is asked, and in which language


def test_by_default_those_with_a_key_are_asked_first(web: Web, keys: None) -> None:
    web.script(PATHS["searxng"], {"status": 500})

    [result] = search(web, {"query": "merging without"})

    assert "(tavily, " in result.text


@pytest.mark.parametrize(
    ("engine", "sent"),
    [
        ("searxng", {"language": "de-CH"}),
        ("brave", {"country": "CH", "search_lang": "de"}),
        ("tavily", {"country": "switzerland"}),
        ("exa", {"userLocation": "CH"}),
        ("ddgs", {"l": "ch-de"}),
    ],
)
@pytest.mark.parametrize("said", ["in the call", "by the operator"])
def test_language_and_region_are_always_sent(web: Web, keys: None, engine: str, sent: Any, said: str) -> None:
    place = {"language": "de", "region": "ch" if said == "in the call" else "CH"}
    call, options = (place, {}) if said == "in the call" else ({}, place)

    search(web, {"query": "merging", **call}, engines=[engine], **options)

    [asked] = web.requests("/html/" if engine == "ddgs" else PATHS[engine])
    body = asked["body"]
    got = json.loads(body) if body.startswith("{") else parse_qs(body or urlsplit(asked["target"]).query)
    assert {name: got[name][0] if isinstance(got[name], list) else got[name] for name in sent} == sent


def test_the_number_of_results_is_held_to(web: Web, keys: None) -> None:
    [result] = search(web, {"query": "merging", "count": 1}, engines=["searxng"])

    assert len(result.sources) == 1


@pytest.mark.parametrize(
    ("engines", "urls", "said"),
    [
        (["bing"], {}, "there is no engine 'bing'"),
        (["brave"], {}, "brave wants BRAVE_API_KEY or BRAVE_SEARCH_API_KEY in the environment"),
        (["searxng"], {}, "searxng wants SEARXNG_URL"),
        (["searxng"], {"searxng": "searx.example"}, "the address of searxng: 'searx.example'"),
    ],
)
def test_an_engine_that_cannot_be_asked_is_an_error_at_once(web: Web, engines: Any, urls: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        search(web, engines=engines, urls=urls)


def test_keys_stay_out_of_results_and_keys_of_results(web: Web, keys: None) -> None:
    async def work() -> str:
        async with Toolbox([], [web_search(SearchOptions())]) as box:
            return repr(box.tools)

    [result] = search(web, {"query": "merging"}, engines=["exa"])

    assert "key-of" not in asyncio.run(work()) + result.to_json().decode()
