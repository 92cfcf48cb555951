"""Which addresses a text names, and which of them somebody has looked up."""

from __future__ import annotations

import pytest

from fusiontools.record.sources import addresses_in, cite, merge_sources, page_of, with_claimed
from fusiontools.record.types import Source


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See https://a.example/x.", ["https://a.example/x"]),
        ("[A](https://a.example/x), [B](http://b.example)", ["https://a.example/x", "http://b.example"]),
        ("(https://a.example/Rust_(film))", ["https://a.example/Rust_(film)"]),
        ("<https://a.example/x> and `https://a.example/y`", ["https://a.example/x", "https://a.example/y"]),
        ("**https://a.example/x**; twice https://a.example/x", ["https://a.example/x"]),
        ("https://a.example/?q=1&b=2#there!", ["https://a.example/?q=1&b=2#there"]),
        ("HTTPS://A.example/X \u201chttps://b.example/\u201d", ["HTTPS://A.example/X", "https://b.example/"]),
        ("ftp://a.example, example.com, mailto:a@b.example, xhttps://no", []),
    ],
)
def test_addresses_end_where_the_sentence_goes_on(text: str, found: list[str]) -> None:
    assert addresses_in(text) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example/x/", "https://a.example/x"),
        ("http://www.a.example/x", "https://A.example/x#part"),
        ("https://a.example", "https://a.example/"),
    ],
)
def test_two_spellings_of_a_page_are_one(one: str, other: str) -> None:
    assert page_of(one) == page_of(other)


def test_a_query_or_the_case_of_a_path_makes_another_page() -> None:
    assert page_of("https://a.example/x?p=1") != page_of("https://a.example/x?p=2")
    assert page_of("https://a.example/x") != page_of("https://a.example/X")


def test_a_page_that_was_found_and_fetched_counts_as_fetched_and_keeps_what_the_search_said() -> None:
    found: Source = {"url": "https://a.example/x", "how": "search", "snippet": "X is"}
    fetched: Source = {"url": "https://a.example/x/", "how": "fetched", "title": "X"}

    [merged] = merge_sources([found, fetched])

    assert (merged["how"], merged["title"], merged["snippet"]) == ("fetched", "X", "X is")


def test_an_address_that_was_given_is_not_claimed() -> None:
    given: list[Source] = [{"url": "evidence:1", "how": "given"}, {"url": "https://a.example/x", "how": "given"}]

    sources = with_claimed("By https://a.example/x, evidence:1 and https://b.example", [], given)

    assert [(s["url"], s["how"]) for s in sources] == [
        ("https://a.example/x", "given"),
        ("evidence:1", "given"),
        ("https://b.example", "claimed"),
    ]


def test_a_text_cites_in_its_own_order_and_what_is_no_source_is_named() -> None:
    known: list[Source] = [
        {"url": "https://a.example/1", "how": "fetched"},
        {"url": "https://a.example/2", "how": "search"},
    ]

    cited, unknown = cite("https://a.example/2, https://no.example, https://a.example/1", known)

    assert [source["url"] for source in cited] == ["https://a.example/2", "https://a.example/1"]
    assert unknown == ["https://no.example"]


def test_evidence_12_is_not_evidence_1() -> None:
    known: list[Source] = [{"url": f"evidence:{n}", "how": "given"} for n in (1, 12)]

    assert [source["url"] for source in cite("as evidence:12 says", known)[0]] == ["evidence:12"]
