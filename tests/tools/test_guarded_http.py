"""HTTP of tools: every hop is judged before a socket opens, every answer is bounded."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from webbing import Web

from fusiontools.tools.addresses import AddressGuard
from fusiontools.tools.guarded_http import Fetched, FetchFailed, GuardedHttp, read_url


def get(web: Web, path: str, guard: AddressGuard | None = None, **limits: Any) -> Fetched:
    async def work() -> Fetched:
        async with GuardedHttp(guard or web.guard(), **limits) as http:
            return await http.get(path if path.startswith("http") else web.url + path)

    return asyncio.run(work())


def test_an_answer_comes_with_its_address_and_its_bytes(web: Web) -> None:
    got = get(web, "/plain.txt#part")

    assert (got.url, got.status, got.header("content-type")) == (
        f"{web.url}/plain.txt",
        200,
        "text/plain; charset=utf-8",
    )
    assert got.body.decode() == "Grüße\r\nfrom a plain file\r\n"


def test_a_redirect_inwards_opens_no_socket(web: Web) -> None:
    with pytest.raises(FetchFailed, match="no address on the public internet") as failed:
        get(web, f"/redirect?to={web.inner}/")

    assert failed.value.code == "refused"
    assert len(web.requests("/redirect")) == 1
    assert web.inner_connections() == 0


@pytest.mark.parametrize("to", ["http://localhost:{port}/", "http://127.1:{port}/", "http://[::ffff:7f00:1]:{port}/"])
def test_a_redirect_inwards_in_other_words_neither(web: Web, to: str) -> None:
    inner = web.inner.rpartition(":")[2]

    with pytest.raises(FetchFailed):
        get(web, f"/redirect?to={to.format(port=inner)}", AddressGuard([web.address]))

    assert web.inner_connections() == 0


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_judged(web: Web) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    got = get(web, f"http://rebind.example:{web.port}/echo", AddressGuard([web.address], resolve))

    assert asked == ["rebind.example"]
    assert json.loads(got.body)["host"] == f"rebind.example:{web.port}"


def test_a_name_that_turns_private_between_two_hops_is_refused(web: Web) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(answers)

    with pytest.raises(FetchFailed, match=r"127\.0\.0\.2"):
        get(web, f"http://rebind.example:{web.port}/redirect?to=/", AddressGuard([web.address], resolve))


def test_redirects_are_followed_and_counted(web: Web) -> None:
    twice = "/redirect?to=/redirect%3Fto%3D/plain.txt"

    assert get(web, twice).url == f"{web.url}/plain.txt"
    with pytest.raises(FetchFailed, match="more than 5 redirects"):
        get(web, "/loop")
    assert len(web.requests("/loop")) == 6


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://x.example/", "gopher://x.example/", "//user:pass@x.example/", "http://[bad"]
)  # fmt: skip
def test_a_redirect_elsewhere_than_to_http_is_refused(web: Web, to: str) -> None:
    with pytest.raises(FetchFailed):
        get(web, f"/redirect?to={to}")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a.example/", "data:text/plain,x", "javascript:1", "", "a.example", "/x", "http://",
     "http://good.example@127.0.0.1/", "http://u:p@a.example/", "http://0177.0.0.1/", "http://a.example:99999/",
     "http://./"],
)  # fmt: skip
def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        read_url(url)

    assert failed.value.code == "refused"


def test_the_environment_names_no_proxy_for_tools(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, web.inner)

    assert get(web, "/plain.txt").status == 200
    assert web.inner_connections() == 0


def test_the_next_address_is_tried_where_one_does_not_answer(web: Web) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.9", "127.0.0.1"]

    guard = AddressGuard(["127.0.0.0/8"], resolve)

    assert get(web, f"http://two.example:{web.port}/plain.txt", guard).status == 200


def test_nobody_there_is_a_failure_with_the_host(web: Web) -> None:
    with pytest.raises(FetchFailed, match=r"cannot reach gone\.example") as failed:
        get(web, f"http://gone.example:{web.port}/", AddressGuard(["127.0.0.9"], resolve_to("127.0.0.9")))

    assert failed.value.code == "connect"


def resolve_to(*found: str) -> Callable[[str, int], Coroutine[Any, Any, Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return found

    return resolve


def test_a_page_is_cut_after_so_many_bytes(web: Web) -> None:
    got = get(web, "/endless", limit_bytes=100_000)

    assert (len(got.body), got.cut) == (100_000, True)


def test_packed_bytes_are_counted_unpacked(web: Web) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    got = get(web, "/bomb", limit_bytes=3_000_000)

    assert (len(got.body), got.cut) == (3_000_000, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize(("path", "body"), [("/gzip", b"<p>packed</p>"), ("/deflate", b"packed")])
def test_packed_answers_are_unpacked(web: Web, path: str, body: bytes) -> None:
    assert get(web, path).body == body


@pytest.mark.parametrize(("path", "why"), [("/badgzip", "cannot be decompressed"), ("/brotli", "compressed as 'br'")])
def test_what_cannot_be_unpacked_is_a_failure(web: Web, path: str, why: str) -> None:
    with pytest.raises(FetchFailed, match=why):
        get(web, path)


def test_an_answer_that_drips_is_cut_off_by_the_clock(web: Web) -> None:
    started = time.monotonic()

    with pytest.raises(FetchFailed, match=r"within 0\.3 s") as failed:
        get(web, "/drip", wall_s=0.3)

    assert failed.value.code == "timeout"
    assert time.monotonic() - started < 5


def test_a_hop_can_be_refused_before_anything_is_sent(web: Web) -> None:
    async def refuse(url: str) -> None:
        if "plain" in url:
            raise FetchFailed("refused", "not there")

    async def work() -> None:
        async with GuardedHttp(web.guard()) as http:
            await http.get(f"{web.url}/redirect?to=/plain.txt", on_hop=refuse)

    with pytest.raises(FetchFailed, match="not there"):
        asyncio.run(work())
    assert web.requests("/plain.txt") == []
