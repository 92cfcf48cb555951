"""`web_fetch`: what is read of a page, what is said where nothing can be, and which pages may be read at all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web_pages import BLOCKED
from webbing import Web

from fusiontools.tools.tool import ToolContext, ToolResult, ToolRun
from fusiontools.tools.toolbox import Toolbox
from fusiontools.tools.web_fetch import FetchOptions, web_fetch

Fetch = Callable[..., list[ToolRun]]


class Boxes:
    """Opened toolboxes, one for each set of options, on one loop: what reads pages takes a second to start."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.opened: dict[Any, Toolbox] = {}

    async def box(self, web: Web, options: dict[str, Any], fresh: bool) -> Toolbox:
        key: Any = object() if fresh else tuple(sorted(options.items()))
        if key not in self.opened:
            opening = web_fetch(FetchOptions(**{"policy": "any", **options}), web.guard())
            self.opened[key] = await Toolbox([], [opening]).__aenter__()
        return self.opened[key]

    def close(self) -> None:
        async def close_all() -> None:
            for box in self.opened.values():
                await box.__aexit__(None, None, None)

        self.runner.run(close_all())
        self.runner.close()


@pytest.fixture(scope="module")
def boxes() -> Iterator[Boxes]:
    boxes = Boxes()
    yield boxes
    boxes.close()


@pytest.fixture
def fetch_all(boxes: Boxes, web: Web) -> Fetch:
    def fetch_all(
        *calls: Any, context: ToolContext | None = None, fresh: bool = False, **options: Any
    ) -> list[ToolRun]:
        """Fetch paths of the web, or whole addresses, one after another; `fresh` is with no rules of robots read."""

        async def work() -> list[ToolRun]:
            box, seen = await boxes.box(web, options, fresh), context or ToolContext("r")
            return [await box.run("web_fetch", _whole(web, call), seen) for call in calls]

        return boxes.runner.run(work())

    return fetch_all


def _whole(web: Web, call: Any) -> dict[str, Any]:
    arguments = call if isinstance(call, dict) else {"url": call}
    url = arguments["url"]
    return {**arguments, "url": web.url + url if url.startswith("/") else url}


@pytest.fixture
def fetch(fetch_all: Fetch) -> Callable[..., ToolResult]:
    def fetch(call: Any, **options: Any) -> ToolResult:
        return fetch_all(call, **options)[0].result

    return fetch


def test_a_page_is_read_as_a_person_reads_it(fetch: Callable[..., ToolResult], web: Web) -> None:
    result = fetch("/article")

    assert result.status == "ok"
    assert result.text.startswith(
        f"Title: Merging without locks\nAddress: {web.url}/article\nDate: 2026-03-04\n\n# Merging without locks\n"
    )
    assert f"[metadata]({web.url}/plain.txt)" in result.text
    assert not re.search("Home|Subscribe|tracker|Copyright", result.text)
    assert result.sources == (
        {"url": f"{web.url}/article", "title": "Merging without locks", "how": "fetched", "date": "2026-03-04"},
    )
    assert result.cacheable


def test_what_a_page_hides_is_not_read(fetch: Callable[..., ToolResult]) -> None:
    result = fetch("/hidden")

    assert "HIDDEN" not in result.text
    assert "knead" in result.text
    assert "right to left" in result.text
    assert result.text.replace("\n", "").isprintable()


def test_forged_fences_and_calls_are_text_and_nothing_else_is_fetched(
    fetch: Callable[..., ToolResult], web: Web
) -> None:
    result = fetch("/forged", fresh=True)

    assert '<tool_call>{"name": "bash"' in result.text
    assert [asked["target"] for asked in web.requests()] == ["/robots.txt", "/forged"]


@pytest.mark.parametrize("path", ["/paper.pdf", "/paper"])
def test_a_pdf_is_read_whatever_it_is_called(fetch: Callable[..., ToolResult], path: str) -> None:
    result = fetch(path)

    assert result.text.startswith("Title: Merging by Rules\n")
    assert "[page 1]\nMerging by rules\nWe prove that it ends." in result.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/plain.txt", "Grüße\nfrom a plain file"),
        ("/latin1.txt", "Grüße"),
        ("/utf16.txt", "Grüße"),
        ("/nocharset.txt", "Grüße"),
        ("/latin1.html", "Überall Grüße."),
        ("/data.json", '{"merged": true}'),
        ("/short", "Only this."),
        ("/gzip", "packed"),
        ("/wide", "wide"),
    ],
)
def test_text_comes_as_it_was_written(fetch: Callable[..., ToolResult], path: str, said: str) -> None:
    result = fetch(path)

    assert result.status == "ok"
    assert said in result.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/picture.png", "image/png, 516 bytes: no text"),
        ("/liar.txt", "text/plain, 800 bytes: no text"),
        ("/script-only", "no readable text in 76 bytes of HTML"),
        ("/nothing", "no readable text in 0 bytes of HTML"),
        ("/broken.pdf", "cannot be read"),
        ("/gone", "HTTP 404"),
        ("/status?is=500", "HTTP 500"),
        ("/badgzip", "cannot be decompressed"),
        ("/loop", "more than 5 redirects"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_reason(
    fetch: Callable[..., ToolResult], path: str, said: str
) -> None:
    result = fetch(path)

    assert (result.status, result.sources) == ("error", ())
    assert said in result.text


def test_what_is_too_much_for_the_reader_is_an_error_and_the_next_page_is_read(fetch_all: Fetch) -> None:
    deep, after = fetch_all("/deep", "/short")

    assert deep.result.status in ("ok", "error")
    assert after.result.status == "ok"


@pytest.mark.parametrize("path", BLOCKED)
def test_what_stands_in_front_of_a_page_is_no_page(fetch: Callable[..., ToolResult], path: str) -> None:
    result = fetch(path)

    assert (result.status, result.sources, result.cacheable) == ("blocked", (), False)
    assert "It is no evidence" in result.text
    assert not re.search("Checking if|Sorry, you|scourge|Reject all|Shares rose", result.text)


def test_an_article_about_a_gatekeeper_is_an_article(fetch: Callable[..., ToolResult], web: Web) -> None:
    body = "<title>Just a moment: how challenges work</title><article>" + "<p>Cloudflare writes _cf_chl_opt.</p>" * 200
    web.script("/about", {"body": body})

    assert fetch("/about").status == "ok"


# Bounds


def test_a_long_text_says_first_what_is_shown_and_goes_on(fetch_all: Fetch) -> None:
    first, second, last, beyond = fetch_all(
        *({"url": "/long.txt", "start": start} for start in (0, 1000, 208_800, 300_000)), shown_chars=1000
    )

    assert first.result.text.startswith("[cut: characters 0 to 1000 of 208890 are shown; start=1000 goes on]\n")
    assert second.result.text.startswith("[cut: characters 1000 to 2000 of 208890 are shown; start=2000 goes on]\n")
    assert last.result.text.startswith("[cut: characters 208800 to 208890 of 208890 are shown]\n")
    assert last.result.text.endswith("line 19999\n")
    assert beyond.result.text.startswith("[nothing: the text has 208890 characters, and start is 300000]\n")


@pytest.mark.parametrize("path", ["/endless", "/bomb", "/long.txt"])
def test_a_page_that_is_too_long_says_first_that_it_is_cut(fetch: Callable[..., ToolResult], path: str) -> None:
    result = fetch(path, limit_bytes=50_000)

    assert result.text.startswith("[cut: only the first 50000 bytes of it were read]\n")


def test_a_page_that_drips_is_given_up(fetch: Callable[..., ToolResult]) -> None:
    result = fetch("/drip", wall_s=0.5)

    assert (result.status, result.cacheable) == ("timeout", False)


# What may be fetched


def test_a_page_that_sends_inwards_is_refused(fetch: Callable[..., ToolResult], web: Web) -> None:
    result = fetch(f"/redirect?to={web.inner}/article")

    assert result.status == "refused"
    assert web.inner_connections() == 0


def test_robots_are_obeyed_on_every_hop_and_asked_once(fetch_all: Fetch, web: Web) -> None:
    private, led, opened = fetch_all("/private/page", "/redirect?to=/private/page", "/private/open", fresh=True)

    for run in (private, led):
        assert run.result.status == "refused"
        assert "robots.txt does not let programs read /private/page" in run.result.text
    assert opened.result.status == "ok"
    assert len(web.requests("/robots.txt")) == 1
    assert web.requests("/private/page") == []


@pytest.mark.parametrize(("status", "outcome"), [(404, "ok"), (403, "ok"), (500, "error"), (503, "error")])
def test_no_robots_forbid_nothing_and_broken_ones_everything(
    fetch: Callable[..., ToolResult], web: Web, status: int, outcome: str
) -> None:
    web.script("/robots.txt", {"status": status})

    assert fetch("/short", fresh=True).status == outcome


def test_only_addresses_that_were_seen_are_fetched(fetch_all: Fetch, web: Web) -> None:
    context = ToolContext("r", texts=[f"What does {web.url}/article say? (See also {web.url}/short.)"])

    runs = fetch_all(
        *("/plain.txt", "/article?q=secret", "/article", "/article?q=secret", "/plain.txt", "/short#top"),
        context=context,
        policy="seen",
    )

    assert [run.result.status for run in runs] == ["refused", "refused", "ok", "refused", "ok", "ok"]
    assert "only addresses that do are fetched" in runs[0].result.text
    assert not any("secret" in asked["target"] for asked in web.requests())


def test_only_sites_that_a_search_returned_are_fetched(fetch_all: Fetch, web: Web) -> None:
    context = ToolContext("r", found={f"http://www.news.example:{web.port}/a"}, texts=[f"{web.url}/article"])

    runs = fetch_all(
        f"http://news.example:{web.port}/article",
        f"http://news.example:{web.port}/redirect?to=http://other.example:{web.port}/article",
        "/article",
        context=context,
        policy="results",
    )

    assert [run.result.status for run in runs] == ["ok", "refused", "refused"]
    assert "other.example, which no search returned" in runs[1].result.text


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:key@news.example/", "no address"])
def test_what_is_no_address_of_the_web_is_refused(fetch: Callable[..., ToolResult], url: str) -> None:
    assert fetch(url).status == "refused"
