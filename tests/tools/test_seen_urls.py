"""Which addresses a text mentions."""

from __future__ import annotations

import time

import pytest

from fusiontools.tools.seen_urls import compared, mentioned, plain_site


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("see https://a.example/x.", "https://a.example/x"),
        ("see (https://a.example/x)!", "https://a.example/x"),
        ("[x](https://a.example/x_(y)) and", "https://a.example/x_(y)"),
        ("[https://a.example/x](https://b.example/)", "https://a.example/x"),
        ("[https://a.example/x](https://b.example/)", "https://b.example"),
        ("<https://a.example/x?a=1&b=2>", "https://a.example/x?a=1&b=2"),
        ("https://a.example/x?a=1&amp;b=2", "https://a.example/x?a=1&b=2"),
        ("what does a.example say", "https://a.example/"),
        ("a.example/docs/ has it", "http://A.EXAMPLE/docs"),
        ("https://a.example:443/x", "https://a.example./x#part"),
        ("https://a.example/a%20b", "https://a.example/a b"),
        ("https://a.example/x\\_y", "https://a.example/x_y"),
        ("„https://a.example/x”", "https://a.example/x"),
    ],
)
def test_an_address_in_a_text_is_found_where_it_ends(text: str, url: str) -> None:
    assert compared(url) in mentioned([text])


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.example/xyz", "https://a.example/x"),
        ("https://a.example/x", "https://a.example/x?q=secret"),
        ("https://a.example/x", "https://a.example/xsecret"),
        ("https://a.example/x", "https://secret.a.example/x"),
        ("https://a.example/x", "https://a.example:8080/x"),
        ("https://a.example/x", "https://a.example/"),
        ("mail me@a.example", "https://a.example/"),
    ],
)
def test_another_address_is_not(text: str, url: str) -> None:
    assert compared(url) not in mentioned([text])


def test_no_address_is_compared_to_nothing() -> None:
    assert compared("http://[x") is None
    assert plain_site("http://[x") == ""
    assert plain_site("https://www.A.example/x") == "a.example"


@pytest.mark.parametrize("piece", ["a-", "a.", "http://", "a.b/", "(", "http://a.example/x)))"])
def test_no_text_takes_long(piece: str) -> None:
    started = time.process_time()

    mentioned([piece * 20_000])

    assert time.process_time() - started < 2
